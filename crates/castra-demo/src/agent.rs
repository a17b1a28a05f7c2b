//! The agent of the demo: a real MCP client that speaks to the gate, in either era of the protocol.

use rmcp::{
    ClientLifecycleMode, ClientServiceExt, RoleClient, ServiceError,
    model::{CallToolRequestParams, ContentBlock, ProtocolVersion},
    service::RunningService,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::Value;

use crate::DemoError;

/// Which MCP the agent speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Era {
    /// 2026-07-28: every request stands for itself.
    Modern,
    /// 2025-11-25: a handshake, then a session.
    Legacy,
}

impl Era {
    pub(crate) fn revision(self) -> ProtocolVersion {
        match self {
            Self::Modern => ProtocolVersion::V_2026_07_28,
            Self::Legacy => ProtocolVersion::V_2025_11_25,
        }
    }

    fn lifecycle(self) -> ClientLifecycleMode {
        match self {
            Self::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![self.revision()] },
            Self::Legacy => ClientLifecycleMode::Initialize,
        }
    }
}

/// A connected agent.
pub(crate) struct Agent {
    client: RunningService<RoleClient, ()>,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The tool answered.
    Answered {
        /// Its text.
        text: String,
    },
    /// The gate refused.
    Refused {
        /// Why, in the gate's words.
        reason: String,
    },
}

/// Marks, in a result's `_meta`, that the gate answered instead of the tool. A refused tool call is a
/// result with an error in it, so that the model behind an agent reads why.
const REFUSAL: &str = "castra.dev/refusal";

impl Agent {
    /// Connects to `url` with a bearer token.
    pub(crate) async fn connect(url: &str, token: &str, era: Era) -> Result<Self, DemoError> {
        let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(token);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, era.lifecycle()).await;
        Ok(Self { client: client.map_err(|e| DemoError::Connect { reason: e.to_string() })? })
    }

    /// Names of the tools that the gate shows to this agent.
    pub(crate) async fn tools(&self) -> Result<Vec<String>, DemoError> {
        let tools = self.client.list_all_tools().await;
        let tools = tools.map_err(|e| DemoError::Connect { reason: e.to_string() })?;
        Ok(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
    }

    /// Calls a tool with a JSON object of arguments.
    pub(crate) async fn call(&self, tool: &'static str, arguments: &Value) -> Result<Outcome, DemoError> {
        let mut request = CallToolRequestParams::new(tool);
        if let Value::Object(arguments) = arguments {
            request = request.with_arguments(arguments.clone());
        }
        match self.client.call_tool(request).await {
            Ok(result) => {
                let text = result
                    .content
                    .iter()
                    .filter_map(ContentBlock::as_text)
                    .map(|t| t.text.as_str())
                    .collect();
                let refused = result.meta.as_ref().is_some_and(|meta| meta.get(REFUSAL).is_some());
                Ok(if refused { Outcome::Refused { reason: text } } else { Outcome::Answered { text } })
            }
            Err(ServiceError::McpError(error)) => Ok(Outcome::Refused { reason: error.message.into_owned() }),
            Err(other) => Err(DemoError::Connect { reason: other.to_string() }),
        }
    }

    /// Says goodbye.
    pub(crate) async fn leave(self) {
        // A gate that is gone already has said goodbye too.
        let _ = self.client.cancel().await;
    }
}
