//! A small world for the tests: two servers, three agents, and requests by short words.

use std::net::IpAddr;

use castra_core::{
    AgentIdentity, Approval, AuthMethod, Effect, FlowFacts, Operation, Protocol, ResourceRef, RunId,
    Timestamp, Verdict,
};
use castra_policy::{
    Catalogue, CatalogueServer, CatalogueTool, DecisionRequest, Engine, Explanation, Particulars,
    PolicyProblems, PolicySource,
};
use serde_json::{Value, json};

pub(crate) fn tool(name: &str, effect: Effect, properties: Value, required: &[&str]) -> CatalogueTool {
    CatalogueTool {
        name: name.into(),
        effect,
        external: effect == Effect::Act,
        described: false,
        input_schema: json!({"type": "object", "properties": properties, "required": required}),
    }
}

pub(crate) fn catalogue() -> Catalogue {
    let path = || json!({"type": "string"});
    let files = vec![
        tool("read_file", Effect::Read, json!({"path": path(), "lines": {"type": "integer"}}), &["path"]),
        tool(
            "write_file",
            Effect::Write,
            json!({"path": path(), "content": {"type": "string"}}),
            &["path", "content"],
        ),
        tool(
            "delete",
            Effect::Destroy,
            json!({"path": path(), "force": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}}),
            &["path"],
        ),
    ];
    let mail = vec![
        tool(
            "send",
            Effect::Act,
            json!({
                "to": {"type": "array", "items": {"type": "string"}},
                "amount": {"type": "number"},
                "options": {"type": "object", "properties": {"secret": {"type": "boolean"}, "tag": {}}},
                "lines": {"type": "string"},
                "payload": {"anyOf": [{"type": "string"}, {"type": "object"}]},
            }),
            &["to"],
        ),
        tool("get_time", Effect::Read, json!({}), &[]),
    ];
    Catalogue {
        servers: vec![
            CatalogueServer { name: "files".parse().unwrap(), tools: files },
            CatalogueServer { name: "mail".parse().unwrap(), tools: mail },
        ],
        agents: vec![
            ("mailer".parse().unwrap(), vec!["office".parse().unwrap()]),
            ("builder".parse().unwrap(), vec!["builders".parse().unwrap(), "office".parse().unwrap()]),
            ("stranger".parse().unwrap(), vec![]),
        ],
        ..Catalogue::default()
    }
}

pub(crate) fn load(text: &str) -> Result<Engine, PolicyProblems> {
    Engine::load(&[PolicySource { file: "p.cedar".into(), text: text.into() }], &catalogue())
}

pub(crate) fn agent(name: &str) -> AgentIdentity {
    let known = catalogue().agents.into_iter().find(|(of, _)| of.as_str() == name);
    AgentIdentity {
        name: name.parse().unwrap(),
        groups: known.map(|(_, groups)| groups).unwrap_or_default(),
        method: AuthMethod::Token,
        credential: "t1".into(),
        expires: None,
        scopes: vec![],
        delegation: Vec::new(),
    }
}

/// `Tool::files/read_file`, `Server::files`
pub(crate) fn resource(text: &str) -> ResourceRef {
    let (kind, id) = text.split_once("::").unwrap();
    let (server, name) = id.split_once('/').unwrap_or((id, ""));
    let server = server.parse().unwrap();
    match kind {
        "Tool" => ResourceRef::Tool { server, name: name.into() },
        "Resource" => ResourceRef::Resource { server, uri: name.into() },
        "Prompt" => ResourceRef::Prompt { server, name: name.into() },
        _ => ResourceRef::Server(server),
    }
}

/// A question with everything that a request borrows.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) agent: AgentIdentity,
    pub(crate) resource: ResourceRef,
    pub(crate) args: Option<String>,
    pub(crate) time: Timestamp,
    pub(crate) source: IpAddr,
    pub(crate) run: Option<RunId>,
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    pub(crate) flow: Option<FlowFacts>,
    pub(crate) approval: Option<Approval>,
}

impl Ask {
    pub(crate) fn new(of: &str, to: &str) -> Self {
        let resource = resource(to);
        let known = catalogue().servers.into_iter().flat_map(|server| {
            let name = server.name;
            server.tools.into_iter().map(move |tool| (format!("{name}/{}", tool.name), tool))
        });
        let tool = known.into_iter().find(|(id, _)| *id == resource.id()).map(|(_, tool)| tool);
        Self {
            agent: agent(of),
            effect: tool.as_ref().map_or(Effect::Act, |tool| tool.effect),
            external: tool.is_none_or(|tool| tool.external),
            resource,
            args: None,
            time: Timestamp::parse("2026-11-24T22:04:28Z").unwrap(),
            source: "10.1.2.3".parse().unwrap(),
            run: None,
            flow: None,
            approval: None,
        }
    }

    pub(crate) fn args(mut self, args: &str) -> Self {
        self.args = Some(args.to_owned());
        self
    }

    pub(crate) fn at(mut self, time: &str) -> Self {
        self.time = Timestamp::parse(time).unwrap();
        self
    }

    pub(crate) fn operation(&self) -> Operation {
        match self.resource {
            ResourceRef::Tool { .. } => Operation::Call,
            _ => Operation::Read,
        }
    }

    pub(crate) fn request(&self) -> DecisionRequest<'_> {
        DecisionRequest {
            agent: &self.agent,
            operation: self.operation(),
            resource: &self.resource,
            effect: self.effect,
            external: self.external,
            time: self.time,
            source: self.source,
            protocol: Protocol::Mcp,
            revision: "2026-07-28",
            modern: true,
            run: self.run.as_ref(),
            arguments: self.args.as_deref().map(str::as_bytes),
            findings: &[],
            particulars: Particulars::None,
            flow: self.flow.as_ref(),
            approval: self.approval.as_ref(),
        }
    }

    pub(crate) fn decide(&self, engine: &Engine) -> Verdict {
        engine.decide(&self.request())
    }

    pub(crate) fn explain(&self, engine: &Engine) -> Explanation {
        engine.explain(&self.request())
    }

    pub(crate) fn may_use(&self, engine: &Engine) -> bool {
        engine.may_use(&self.agent, self.operation(), &self.resource, self.effect, self.external, false)
    }
}
