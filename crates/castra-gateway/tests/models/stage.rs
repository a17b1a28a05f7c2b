//! What the tests of the path set up: a gate with routes to providers, and callers of each API.

use std::collections::HashMap;

use castra_core::ModelName;
use castra_flow::ToolManifest;
use castra_gateway::model::{
    BreakerSettings, Key, ModelParts, OpenAiForm, Provider, RouteSettings, VersionFacts, VersionParts,
};
use castra_inspect::{Inspector, Settings};
use castra_net::client::{ClientSettings, HttpClient, machine_tls};
use serde_json::{Value, json};

use crate::{
    provider::{KEY, Speaks},
    rig::{ALL, Got, Rig, Stream, Wish},
    server::Server,
};

/// A secret that no scanner of this repository takes for one.
pub(crate) fn secret() -> String {
    format!("AKIA{}", "ABCDEFGHIJKLMNOP")
}

/// What stands in its place.
pub(crate) const MASK: &str = "[redacted:aws-access-key]";

/// A route to versions, each a provider of its own.
pub(crate) fn route(name: &str, versions: &[(&str, Speaks, &Server)]) -> ModelParts {
    let version = |(id, speaks, server): &(&str, Speaks, &Server)| {
        let provider = match speaks {
            Speaks::Chat | Speaks::Responses => Provider::OpenAiCompatible,
            Speaks::Messages => Provider::Anthropic,
            Speaks::Gemini => Provider::Gemini,
        };
        let responses = *speaks == Speaks::Responses;
        VersionParts {
            id: (*id).to_owned(),
            facts: VersionFacts {
                provider,
                base_url: format!("http://{}/v1", server.address).parse().unwrap(),
                model: "real-model".into(),
                parameters: serde_json::Map::new(),
                system: None,
                tools: None,
                max_output_tokens: None,
                responses,
                form: if responses { OpenAiForm::Responses } else { OpenAiForm::Chat },
                api_version: None,
            },
            key: Key::new(provider, KEY),
            headers: Vec::new(),
            client: HttpClient::new(
                ClientSettings::from(&castra_core::Limits::default()),
                &machine_tls(false).unwrap(),
            ),
            weight: 0,
            timeout: None,
            fingerprint: 1,
        }
    };
    ModelParts {
        name: ModelName::new(name).unwrap(),
        settings: RouteSettings {
            inspection: None,
            fallback: Some(versions.iter().skip(1).map(|(id, ..)| (*id).to_owned()).collect()),
            retries: u32::try_from(versions.len() - 1).unwrap(),
            retry_after_max: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(10),
            breaker: BreakerSettings::default(),
        },
        versions: versions.iter().map(version).collect(),
    }
}

/// A gate that lets everything through and looks for secrets, with the route `assistant`.
pub(crate) fn wish(speaks: Speaks, server: &Server) -> Wish {
    Wish {
        models: vec![route("assistant", &[("v1", speaks, server)])],
        policies: ALL,
        inspector: Inspector::new(&Settings::default()).unwrap(),
        ..Wish::default()
    }
}

/// What is said of one of the agent's own tools.
pub(crate) fn local(name: &str, effect: castra_core::Effect) -> HashMap<String, ToolManifest> {
    HashMap::from([(
        name.to_owned(),
        ToolManifest { effect: Some(effect), external: Some(false), ..ToolManifest::default() },
    )])
}

/// The APIs that answer with text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Chat,
    Responses,
    Messages,
}

pub(crate) const ALL_ASKS: [Asks; 3] = [Asks::Chat, Asks::Responses, Asks::Messages];

impl Asks {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    /// The provider that takes the caller's own bytes.
    pub(crate) fn native(self) -> Speaks {
        match self {
            Self::Chat => Speaks::Chat,
            Self::Responses => Speaks::Responses,
            Self::Messages => Speaks::Messages,
        }
    }

    /// A request that says `text` and offers `tools`.
    pub(crate) fn request(self, text: &str, tools: &[&str], stream: bool) -> Value {
        let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
        let said = json!([{"role": "user", "content": text}]);
        let mut request = match self {
            Self::Chat => json!({"model": "assistant", "messages": said, "tools": tools.iter().map(|name|
                json!({"type": "function", "function": {"name": name, "parameters": schema}})).collect::<Vec<_>>()}),
            Self::Responses => json!({"model": "assistant", "input": said, "tools": tools.iter().map(|name|
                json!({"type": "function", "name": name, "parameters": schema})).collect::<Vec<_>>()}),
            Self::Messages => json!({"model": "assistant", "max_tokens": 100, "messages": said,
                "tools": tools.iter().map(|name| json!({"name": name, "input_schema": schema})).collect::<Vec<_>>()}),
        };
        if tools.is_empty() {
            request.as_object_mut().unwrap().remove("tools");
        }
        if stream {
            request["stream"] = true.into();
        }
        request
    }

    pub(crate) async fn ask(self, rig: &Rig, text: &str) -> Got {
        self.ask_with(rig, text, &[]).await
    }

    pub(crate) async fn ask_with(self, rig: &Rig, text: &str, tools: &[&str]) -> Got {
        let body = self.request(text, tools, false).to_string();
        rig.request("POST", self.path(), &[], body.as_bytes()).await
    }

    /// The same as a stream, all of it as text.
    pub(crate) async fn stream(self, rig: &Rig, text: &str, tools: &[&str]) -> Stream {
        let body = self.request(text, tools, true).to_string();
        rig.open("POST", self.path(), &[], body.as_bytes()).await
    }

    /// The text of a whole answer.
    #[track_caller]
    pub(crate) fn text(self, answer: &Value) -> String {
        let pieces: Vec<&str> = match self {
            Self::Chat => vec![answer["choices"][0]["message"]["content"].as_str().unwrap_or_default()],
            Self::Messages => {
                answer["content"].as_array().unwrap().iter().filter_map(|b| b["text"].as_str()).collect()
            }
            Self::Responses => {
                let items = answer["output"].as_array().unwrap().iter();
                items
                    .flat_map(|i| i["content"].as_array().into_iter().flatten())
                    .filter_map(|p| p["text"].as_str())
                    .collect()
            }
        };
        pieces.concat()
    }

    /// The tool calls of a whole answer: name and arguments.
    pub(crate) fn calls(self, answer: &Value) -> Vec<(String, Value)> {
        let parsed = |text: &Value| serde_json::from_str(text.as_str().unwrap()).unwrap();
        let named = |name: &Value| name.as_str().unwrap().to_owned();
        match self {
            Self::Chat => {
                let calls = answer["choices"][0]["message"]["tool_calls"].as_array().into_iter().flatten();
                calls.map(|c| (named(&c["function"]["name"]), parsed(&c["function"]["arguments"]))).collect()
            }
            Self::Messages => {
                let blocks = answer["content"].as_array().unwrap().iter().filter(|b| b["type"] == "tool_use");
                blocks.map(|b| (named(&b["name"]), b["input"].clone())).collect()
            }
            Self::Responses => {
                let items =
                    answer["output"].as_array().unwrap().iter().filter(|i| i["type"] == "function_call");
                items.map(|i| (named(&i["name"]), parsed(&i["arguments"]))).collect()
            }
        }
    }

    /// The kind and the message of an error in this API's form.
    #[track_caller]
    pub(crate) fn error(self, got: &Got) -> (String, String) {
        let body = got.json();
        let error = &body["error"];
        assert_eq!(self == Self::Messages, body["type"] == "error", "{body}");
        let kind = error["type"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
        (kind, error["message"].as_str().unwrap().to_owned())
    }

    /// The text that a stream says, as its events have it.
    pub(crate) fn streamed_text(self, events: &str) -> String {
        let texts = data(events).into_iter().filter_map(|event| {
            let text = match self {
                Self::Chat => &event["choices"][0]["delta"]["content"],
                Self::Messages => &event["delta"]["text"],
                Self::Responses if event["type"] == "response.output_text.delta" => &event["delta"],
                Self::Responses => &Value::Null,
            };
            text.as_str().map(str::to_owned)
        });
        texts.collect()
    }

    /// What ends a stream as it should.
    pub(crate) fn end(self) -> &'static str {
        match self {
            Self::Chat => "data: [DONE]",
            Self::Messages => "event: message_stop",
            Self::Responses => "event: response.completed",
        }
    }
}

/// The events of a stream that hold JSON.
pub(crate) fn data(events: &str) -> Vec<Value> {
    let lines = events.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// The receipt in the comment at the end of a stream.
#[track_caller]
pub(crate) fn last_receipt(events: &str) -> &str {
    let line = events.lines().rev().find_map(|line| line.strip_prefix(": castra-receipt: "));
    line.unwrap_or_else(|| panic!("no receipt in {events}"))
}
