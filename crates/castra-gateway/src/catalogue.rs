//! What the servers offer, as the gate has seen it: the facts about tools that policies decide on.
//!
//! A server's own word about a tool (its annotations) is believed as it was first seen and where it
//! gets stricter; a later claim to be more harmless is not, until the operator's manifest says so.
//! Otherwise a server could turn a tool that destroys into one that "only reads" overnight.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use castra_core::{Effect, ResourceRef, ServerName};
use castra_ledger::EventKind;
use castra_policy::{CatalogueServer, CatalogueTool};
use castra_protocol::mcp::{
    self, Outcome, ParseLimits, Revision,
    bridge::{self, ClientFacts},
    headers::ParamHeaders,
    lists::{self, Page},
};
use castra_store::SeenTool;
use parking_lot::Mutex;

use crate::{
    gate::{AllowedAsks, Gate, ServerParts, ServerStatus},
    mcp::Channel,
    metrics::UpstreamMetrics,
    upstream::{Answer, Deps, Hello, Incoming, Outgoing, RequestId, ServerEra, Upstream, UpstreamError},
};

/// Tools of one server that are kept; more than this is a flood, not a catalogue.
const TOOLS_MAX: usize = 10_000;

/// Pages of one list that are followed.
const PAGES_MAX: usize = 200;

/// What an operator's manifest says of a tool; it goes over what the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolOverride {
    /// What the tool does.
    pub effect: Option<Effect>,
    /// Whether it reaches outside.
    pub external: Option<bool>,
}

/// What the gate knows of one tool.
#[derive(Debug, Clone)]
pub(crate) struct ToolFacts {
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    /// Which arguments the definition mirrors into headers; `None` where there is no valid definition.
    pub(crate) params: Option<Arc<ParamHeaders>>,
    schema: serde_json::Value,
}

type ToolTable = HashMap<Arc<str>, Arc<ToolFacts>>;

/// One server behind the gate, with what is known of it.
pub(crate) struct Server {
    name: ServerName,
    upstream: Arc<Upstream>,
    overrides: HashMap<String, ToolOverride>,
    allow: AllowedAsks,
    fingerprint: u64,
    tools: ArcSwap<ToolTable>,
    problem: Mutex<Option<String>>,
    pub(crate) metrics: Arc<UpstreamMetrics>,
}

impl Server {
    /// Starts with what was seen in earlier runs, so that a server that is down is still known.
    pub(crate) fn new(gate: &Gate, parts: ServerParts) -> Arc<Self> {
        let name = parts.config.name.clone();
        let deps = Deps { client: parts.client, limits: gate.limits.clone(), random: Arc::new(random_u64) };
        let server = Self {
            upstream: Upstream::new(parts.config, deps),
            overrides: parts.tools,
            allow: parts.allow,
            fingerprint: parts.fingerprint,
            tools: ArcSwap::default(),
            problem: Mutex::new(None),
            metrics: gate.metrics.upstream(&name),
            name,
        };
        match gate.state.catalogue() {
            Ok(rows) => {
                let known = rows.into_iter().filter(|row| row.server == server.name);
                let tools = known.map(|row| {
                    let facts = server.facts(&row.name, row.effect, row.external, &row.definition);
                    (Arc::from(row.name.as_str()), Arc::new(facts))
                });
                server.tools.store(Arc::new(tools.collect()));
            }
            Err(error) => {
                tracing::error!(%error, server = %server.name, "the stored catalogue cannot be read")
            }
        }
        Arc::new(server)
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.name
    }

    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(crate) fn allow(&self) -> AllowedAsks {
        self.allow
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// What is known of a tool; a tool that nobody has seen acts, outside.
    pub(crate) fn tool(&self, name: &str) -> Arc<ToolFacts> {
        self.tools
            .load()
            .get(name)
            .cloned()
            .unwrap_or_else(|| Arc::new(self.facts(name, Effect::Act, true, "")))
    }

    pub(crate) fn knows_tool(&self, name: &str) -> bool {
        self.tools.load().contains_key(name)
    }

    pub(crate) fn tool_ref(&self, name: &str) -> ResourceRef {
        ResourceRef::Tool { server: self.name.clone(), name: name.into() }
    }

    pub(crate) fn for_policies(&self) -> CatalogueServer {
        let mut tools: Vec<_> = self
            .tools
            .load()
            .iter()
            .map(|(name, facts)| CatalogueTool {
                name: name.clone(),
                effect: facts.effect,
                external: facts.external,
                input_schema: facts.schema.clone(),
            })
            .collect();
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        CatalogueServer { name: self.name.clone(), tools }
    }

    pub(crate) fn status(&self) -> ServerStatus {
        ServerStatus {
            name: self.name.clone(),
            transport: if self.upstream.is_http() { "http" } else { "stdio" },
            revision: self.upstream.known_era().map(|era| era.revision().as_str()),
            tools: self.tools.load().len(),
            problem: self.problem.lock().clone(),
        }
    }

    /// What the manifest says, else what is given.
    fn facts(&self, name: &str, effect: Effect, external: bool, definition: &str) -> ToolFacts {
        let said = self.overrides.get(name).cloned().unwrap_or_default();
        let definition: serde_json::Value = serde_json::from_str(definition).unwrap_or_default();
        let schema = definition.get("inputSchema").cloned().unwrap_or_default();
        let params = if schema.is_null() {
            None
        } else {
            ParamHeaders::from_schema(&schema.to_string()).ok().map(Arc::new)
        };
        ToolFacts {
            effect: said.effect.unwrap_or(effect),
            external: said.external.unwrap_or(external),
            params,
            schema,
        }
    }

    /// Asks the server for its tools, as the gate itself. `None`: it could not be reached;
    /// else whether anything changed.
    pub(crate) async fn learn(self: &Arc<Self>, gate: &Gate) -> Option<bool> {
        match self.fetch_tools(gate).await {
            Ok(changed) => {
                *self.problem.lock() = None;
                Some(changed)
            }
            Err(error) => {
                let reason = error.to_string();
                let mut problem = self.problem.lock();
                if problem.as_deref() != Some(reason.as_str()) {
                    tracing::warn!(server = %self.name, %reason, "the server's tools cannot be listed");
                    gate.recorder.event(EventKind::ServerFailed, Some(self.name.as_str()), &reason);
                    *problem = Some(reason);
                }
                None
            }
        }
    }

    async fn fetch_tools(self: &Arc<Self>, gate: &Gate) -> Result<bool, UpstreamError> {
        let era = self.upstream.era().await?;
        let channel = Channel::for_gate(&self.upstream, &era).await?;
        let mut changed = false;
        let mut cursor: Option<String> = None;
        for number in 0..PAGES_MAX {
            let request = list_request(&era, number, cursor.as_deref());
            let id = RequestId::from(format!("\"castra-{number}\"").as_str());
            let mut out = Outgoing::request(request.clone(), id);
            out.headers = gate_headers(&request, &era);
            let Some(answer) = whole_answer(channel.send(out).await?).await? else { break };
            let Ok(mcp::Message::Response(response)) = mcp::parse(&answer, &ParseLimits::default()) else {
                break;
            };
            // A server without tools answers "method not found"; that is an empty catalogue.
            let Outcome::Result(result) = &response.outcome else { break };
            let text = result.span.of(response.text);
            let Ok(page) = lists::read(mcp::ListKind::Tools, text) else { break };
            changed |= self.absorb(gate, &page);
            cursor = page.next_cursor.as_ref().map(|c| c.to_string());
            if cursor.is_none() {
                break;
            }
        }
        channel.close().await;
        Ok(changed)
    }

    /// Takes in a page of tools that the server listed, to anybody. Says whether something is new.
    pub(crate) fn absorb(&self, gate: &Gate, page: &Page<'_>) -> bool {
        let known = self.tools.load();
        let mut seen = Vec::new();
        let mut new = Vec::new();
        for item in page.items.iter().take(TOOLS_MAX) {
            let definition = item.text;
            let claimed = item.hints.effect();
            let before = known.get(&*item.key);
            let effect = before.map_or(claimed, |b| self.believed(gate, &item.key, b.effect, claimed));
            let facts = self.facts(&item.key, effect, item.hints.open_world.unwrap_or(true), definition);
            let same = before.is_some_and(|b| {
                b.effect == facts.effect && b.external == facts.external && b.schema == facts.schema
            });
            if !same {
                seen.push(SeenTool {
                    name: item.key.to_string(),
                    definition: definition.to_owned(),
                    effect,
                    external: facts.external,
                });
                new.push((Arc::<str>::from(&*item.key), Arc::new(facts)));
            }
        }
        if new.is_empty() || known.len() + new.len() > TOOLS_MAX {
            return false;
        }
        self.tools.rcu(|tools| {
            let mut tools = ToolTable::clone(tools);
            tools.extend(new.iter().cloned());
            tools
        });
        let detail = format!("{} tools new or changed", new.len());
        gate.recorder.event(EventKind::CatalogueChanged, Some(self.name.as_str()), &detail);
        let (state, name, now) = (gate.state.clone(), self.name.clone(), gate.now());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = state.record_tools(&name, &seen, now) {
                tracing::error!(%error, server = %name, "the catalogue could not be stored");
            }
        });
        true
    }

    /// A tool that says it became more harmless is not believed.
    fn believed(&self, gate: &Gate, tool: &str, before: Effect, claimed: Effect) -> Effect {
        let manifest = self.overrides.get(tool).and_then(|o| o.effect);
        if manifest.is_some() || harm(claimed) >= harm(before) {
            return claimed;
        }
        let detail = format!(
            "tool {tool} now claims the effect {}, was {}: not believed; a manifest can say so",
            claimed.as_str(),
            before.as_str()
        );
        tracing::warn!(server = %self.name, tool, "{detail}");
        gate.recorder.event(EventKind::CatalogueChanged, Some(self.name.as_str()), &detail);
        before
    }
}

fn harm(effect: Effect) -> u8 {
    match effect {
        Effect::Read => 0,
        Effect::Write => 1,
        Effect::Destroy => 2,
        Effect::Act => 3,
    }
}

fn random_u64() -> u64 {
    castra_store::clock::random::<8>().map(u64::from_le_bytes).unwrap_or(0)
}

/// The gate as a client: no capabilities, so a server can ask it for nothing.
pub(crate) fn gate_facts(revision: Revision) -> ClientFacts {
    ClientFacts {
        revision,
        info: Some(format!("{{\"name\":\"castra\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"))),
        capabilities: "{}".to_owned(),
        log_level: None,
    }
}

fn list_request(era: &ServerEra, number: usize, cursor: Option<&str>) -> Bytes {
    let cursor =
        cursor.map(|c| format!("\"cursor\":{}", castra_protocol::json::quote(c))).unwrap_or_default();
    let legacy = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"castra-{number}\",\"method\":\"tools/list\",\"params\":{{{cursor}}}}}"
    );
    if let (ServerEra::Modern { revision, .. }, Ok(message)) =
        (era, mcp::parse(legacy.as_bytes(), &ParseLimits::default()))
        && let bridge::LegacyStep::Forward(modern) =
            bridge::legacy_to_modern(&message, &gate_facts(*revision))
    {
        return Bytes::from(modern);
    }
    Bytes::from(legacy)
}

fn gate_headers(request: &Bytes, era: &ServerEra) -> http::HeaderMap {
    match (era, mcp::parse(request, &ParseLimits::default())) {
        (ServerEra::Modern { .. }, Ok(mcp::Message::Request(request))) => {
            crate::mcp::standard_headers(&request, None)
        }
        _ => http::HeaderMap::new(),
    }
}

/// The final answer, whatever comes before it.
async fn whole_answer(answer: Answer) -> Result<Option<Bytes>, UpstreamError> {
    match answer {
        Answer::Accepted => Ok(None),
        Answer::Whole { body, .. } => Ok(Some(body)),
        Answer::Events(mut events) => {
            while let Some(event) = events.next().await {
                if let Incoming::Response(bytes) = event? {
                    return Ok(Some(bytes));
                }
            }
            Ok(None)
        }
    }
}

impl Channel {
    /// A channel on which the gate itself asks.
    async fn for_gate(upstream: &Arc<Upstream>, era: &ServerEra) -> Result<Self, UpstreamError> {
        match era {
            ServerEra::Modern { .. } if upstream.is_http() => Ok(Self::Stateless(upstream.clone())),
            era => Ok(Self::Session(upstream.open_session(Hello::gate(era.revision())).await?)),
        }
    }
}
