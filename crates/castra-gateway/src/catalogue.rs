//! What the servers offer, as the gate has seen it: the facts about tools that policies decide on.
//!
//! A server's own word about a tool (its annotations) is believed as it was first seen and where it
//! gets stricter; a later claim to be more harmless is not, until the operator's manifest says so.
//! Otherwise a server could turn a tool that destroys into one that "only reads" overnight.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use castra_core::{Digest, Effect, RefusalCode, ResourceRef, ServerName};
use castra_flow::ToolManifest;
use castra_ledger::EventKind;
use castra_policy::{CatalogueServer, CatalogueTool};
use castra_protocol::mcp::{
    self, NotificationKind, Outcome, ParseLimits, Revision,
    bridge::{self, ClientFacts},
    headers::ParamHeaders,
    lists::{self, Hints, Item, Page},
};
use castra_store::SeenTool;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    gate::{AllowedAsks, Gate, ServerParts, ServerStatus},
    mcp::Channel,
    metrics::UpstreamMetrics,
    upstream::{Answer, Deps, Hello, Incoming, Outgoing, RequestId, ServerEra, Upstream, UpstreamError},
};

/// Tools of one server that are kept; more than this is a flood, not a catalogue.
const TOOLS_MAX: usize = 10_000;

/// Longer names are not taken in: policies have no names for them.
const NAME_BYTES_MAX: usize = 256;

/// A longer definition is kept by its digest, and the tool's arguments have no types.
const DEFINITION_BYTES_MAX: usize = 64 << 10;

/// Definitions of one server that are kept; beyond it further ones are kept by their digests too.
const DEFINITIONS_BYTES_MAX: usize = 16 << 20;

/// Of a longer definition not even the annotations that mirror arguments into headers are kept.
const MIRRORING_BYTES_MAX: usize = 1 << 20;

/// The member that stands in a stored definition in place of one that was too large.
const TOO_LARGE: &str = "castra.dev/definition-sha256";

/// Pages of one list that are followed.
const PAGES_MAX: usize = 200;

/// Claims that one record names.
const NAMED_MAX: usize = 5;

/// What the gate knows of one tool.
#[derive(Debug, Clone)]
pub(crate) struct ToolFacts {
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    /// What the operator's manifest says of it; it goes over what the server says of itself.
    pub(crate) manifest: Option<Arc<ToolManifest>>,
    /// Which arguments the definition mirrors into headers; `None` where there is no valid definition.
    pub(crate) params: Option<Arc<ParamHeaders>>,
    /// What is believed of the server's word, whatever the manifest says.
    word: Word,
    /// Claims that were not believed and are on record, as [`Word::bit`]s.
    disbelieved: u8,
    definition: Definition,
    /// How large the definition is, as far as it is kept.
    kept_bytes: usize,
}

impl ToolFacts {
    /// A tool of which nobody has said anything.
    pub(crate) fn unknown() -> Arc<Self> {
        Arc::new(Self::new(None, Word::UNKNOWN, Listed::nothing()))
    }

    /// A tool of which only the operator has said something.
    pub(crate) fn of_manifest(manifest: Arc<ToolManifest>) -> Arc<Self> {
        Arc::new(Self::new(Some(manifest), Word::UNKNOWN, Listed::nothing()))
    }

    /// What the manifest says, else what is believed of the server's word.
    fn new(manifest: Option<Arc<ToolManifest>>, word: Word, listed: Listed) -> Self {
        let said = manifest.as_deref();
        Self {
            effect: said.and_then(|s| s.effect).unwrap_or(word.effect),
            external: said.and_then(|s| s.external).unwrap_or(word.external),
            manifest,
            params: listed.params,
            word,
            disbelieved: 0,
            definition: listed.definition,
            kept_bytes: listed.kept_bytes,
        }
    }

    /// Whether the operator's manifest describes it.
    pub(crate) fn described(&self) -> bool {
        self.manifest.is_some()
    }

    /// The schema of its arguments, where it has one that is kept.
    pub(crate) fn schema(&self) -> Option<&serde_json::Value> {
        match &self.definition {
            Definition::Schema(schema) => Some(schema).filter(|schema| schema.is_object()),
            Definition::Digest(_) => None,
        }
    }

    /// The names of its arguments, sorted.
    pub(crate) fn argument_names(&self) -> Option<Vec<&str>> {
        let properties = self.schema()?.get("properties").and_then(serde_json::Value::as_object);
        let mut names: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        Some(names)
    }

    fn differs(&self, before: &Self) -> bool {
        (self.effect, self.external, self.word) != (before.effect, before.external, before.word)
            || self.definition != before.definition
    }
}

/// A server's word about a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    effect: Effect,
    external: bool,
}

impl Word {
    /// Of a tool that nobody has seen.
    const UNKNOWN: Self = Self { effect: Effect::Act, external: true };

    fn of(hints: Hints) -> Self {
        Self { effect: hints.effect(), external: hints.open_world.unwrap_or(true) }
    }

    /// The stricter of two in each respect.
    fn stricter(self, other: Self) -> Self {
        let effect = if harm(other.effect) >= harm(self.effect) { other.effect } else { self.effect };
        Self { effect, external: self.external || other.external }
    }

    fn bit(self) -> u8 {
        1 << (harm(self.effect) * 2 + u8::from(self.external))
    }
}

/// How strict policies are with an effect. What says that it destroys is more than what says nothing.
fn harm(effect: Effect) -> u8 {
    match effect {
        Effect::Read => 0,
        Effect::Write => 1,
        Effect::Act => 2,
        Effect::Destroy => 3,
    }
}

/// What is kept of a definition.
#[derive(Debug, Clone, PartialEq)]
enum Definition {
    /// The schema of its arguments; null where it has none.
    Schema(serde_json::Value),
    /// It was too large.
    Digest(Digest),
}

type ToolTable = HashMap<Arc<str>, Arc<ToolFacts>>;

/// What was seen and is on its way to the table and to the store.
#[derive(Default)]
struct Intake {
    unstored: Vec<SeenTool>,
    /// That there are more tools than are kept is on record.
    overfull: bool,
}

/// What a page of tools brings.
#[derive(Default)]
struct Found {
    facts: ToolTable,
    seen: Vec<SeenTool>,
    /// Claims that are not believed and not on record.
    doubts: Vec<String>,
    left_out: usize,
}

/// Why a server's tools cannot be listed.
struct Problem {
    code: RefusalCode,
    reason: String,
}

/// One server behind the gate, with what is known of it.
pub(crate) struct Server {
    name: ServerName,
    upstream: Arc<Upstream>,
    manifest: HashMap<String, Arc<ToolManifest>>,
    allow: AllowedAsks,
    fingerprint: u64,
    tools: ArcSwap<ToolTable>,
    /// Whoever changes `tools` holds it, so that of two pages each knows what the other brought.
    intake: Mutex<Intake>,
    /// Held while what was taken in is stored, so that the newer comes last.
    storing: Mutex<()>,
    problem: Mutex<Option<Problem>>,
    wanted: Notify,
    gone: CancellationToken,
    pub(crate) metrics: Arc<UpstreamMetrics>,
}

impl Server {
    /// Starts with what was seen in earlier runs, so that a server that is down is still known.
    pub(crate) fn new(gate: &Gate, parts: ServerParts) -> Arc<Self> {
        let name = parts.config.name.clone();
        let deps = Deps { client: parts.client, limits: gate.limits.clone(), random: Arc::new(random_u64) };
        let server = Self {
            upstream: Upstream::new(parts.config, deps),
            manifest: parts.tools.into_iter().map(|(name, said)| (name, Arc::new(said))).collect(),
            allow: parts.allow,
            fingerprint: parts.fingerprint,
            tools: ArcSwap::default(),
            intake: Mutex::default(),
            storing: Mutex::default(),
            problem: Mutex::new(None),
            wanted: Notify::new(),
            gone: CancellationToken::new(),
            metrics: gate.metrics.upstream(&name),
            name,
        };
        match gate.state.catalogue() {
            Ok(rows) => {
                let known = rows.into_iter().filter(|row| row.server == server.name);
                let tools = known.map(|row| {
                    let word = Word { effect: row.effect, external: row.external };
                    let facts = server.facts(&row.name, word, stored(&row.definition));
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

    /// Is cancelled when the configuration no longer has this server, or has it otherwise.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Wishes that the server's tools be learned again. It is granted when it is due.
    pub(crate) fn look_again(&self) {
        self.wanted.notify_one();
    }

    pub(crate) async fn looked_for(&self) {
        self.wanted.notified().await;
    }

    /// Forgets a wish that the round which begins now grants.
    pub(crate) fn looks_now(&self) {
        let _ = self.wanted.notified().now_or_never();
    }

    /// Takes note of what the server said unasked, to anybody.
    pub(crate) fn heard(&self, notification: &[u8]) {
        if memchr::memmem::find(notification, b"tools/list_changed").is_some()
            && let Ok(mcp::Message::Notification(n)) = mcp::parse(notification, &ParseLimits::default())
            && n.kind() == Some(NotificationKind::ToolsChanged)
        {
            self.look_again();
        }
    }

    /// What is known of a tool; a tool that nobody has seen acts, outside.
    pub(crate) fn tool(&self, name: &str) -> Arc<ToolFacts> {
        self.tools
            .load()
            .get(name)
            .cloned()
            .unwrap_or_else(|| Arc::new(self.facts(name, Word::UNKNOWN, Listed::nothing())))
    }

    pub(crate) fn knows_tool(&self, name: &str) -> bool {
        self.tools.load().contains_key(name)
    }

    pub(crate) fn tool_ref(&self, name: &str) -> ResourceRef {
        ResourceRef::Tool { server: self.name.clone(), name: name.into() }
    }

    pub(crate) fn for_policies(&self) -> CatalogueServer {
        let schema = |facts: &ToolFacts| match &facts.definition {
            Definition::Schema(schema) => schema.clone(),
            Definition::Digest(_) => serde_json::Value::Null,
        };
        let mut tools: Vec<_> = self
            .tools
            .load()
            .iter()
            .map(|(name, facts)| CatalogueTool {
                name: name.clone(),
                effect: facts.effect,
                external: facts.external,
                described: facts.described(),
                input_schema: schema(facts),
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
            problem: self.problem.lock().as_ref().map(|problem| problem.reason.clone()),
        }
    }

    /// What the manifest says, else what is believed of the server's word.
    fn facts(&self, name: &str, word: Word, listed: Listed) -> ToolFacts {
        ToolFacts::new(self.manifest.get(name).cloned(), word, listed)
    }

    /// Asks the server for its tools, as the gate itself. `None`: it could not be reached;
    /// else whether anything changed.
    pub(crate) async fn learn(self: &Arc<Self>, gate: &Gate) -> Option<bool> {
        let limits = &gate.limits;
        let reach_max = if self.upstream.is_http() { limits.connect_time_max } else { limits.start_time_max };
        let after = reach_max + limits.connect_time_max;
        let late = UpstreamError::Timeout { awaited: "list of its tools", after };
        let fetched = tokio::time::timeout(after, self.fetch_tools(gate)).await.unwrap_or(Err(late));
        self.note(gate, fetched.as_ref().err());
        fetched.ok()
    }

    /// Puts it on record when a server begins to fail, begins to fail otherwise, or is back.
    fn note(&self, gate: &Gate, error: Option<&UpstreamError>) {
        let mut problem = self.problem.lock();
        let Some(error) = error else {
            if problem.take().is_some() {
                let detail = "its tools can be listed again";
                gate.recorder.event(EventKind::ServerStarted, Some(self.name.as_str()), detail);
            }
            return;
        };
        let reason = error.to_string();
        let known = problem.as_ref().map(|p| p.code);
        let code = kind_of(error, known);
        if known != Some(code) {
            tracing::warn!(server = %self.name, %reason, "the server's tools cannot be listed");
            gate.recorder.event(EventKind::ServerFailed, Some(self.name.as_str()), &reason);
        }
        *problem = Some(Problem { code, reason });
    }

    async fn fetch_tools(self: &Arc<Self>, gate: &Gate) -> Result<bool, UpstreamError> {
        let era = self.upstream.era().await?;
        let channel = Channel::for_gate(&self.upstream, &era).await?;
        let changed = self.fetch_pages(gate, &era, &channel).await;
        channel.close().await;
        changed
    }

    async fn fetch_pages(
        self: &Arc<Self>,
        gate: &Gate,
        era: &ServerEra,
        channel: &Channel,
    ) -> Result<bool, UpstreamError> {
        let mut changed = false;
        let mut cursor: Option<String> = None;
        for number in 0..PAGES_MAX {
            let request = list_request(era, number, cursor.as_deref());
            let id = RequestId::from(format!("\"castra-{number}\"").as_str());
            let mut out = Outgoing::request(request.clone(), id);
            out.headers = gate_headers(&request, era);
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
        Ok(changed)
    }

    /// Takes in a page of tools that the server listed, to anybody. Says whether something is new.
    pub(crate) fn absorb(self: &Arc<Self>, gate: &Gate, page: &Page<'_>) -> bool {
        let (changed, doubts, left_out) = {
            let mut intake = self.intake.lock();
            let known = self.tools.load_full();
            let found = self.compare(&known, page);
            if !found.facts.is_empty() {
                let mut tools = ToolTable::clone(&known);
                tools.extend(found.facts);
                self.tools.store(Arc::new(tools));
            }
            let changed = found.seen.len();
            intake.unstored.extend(found.seen);
            let first = found.left_out > 0 && !std::mem::replace(&mut intake.overfull, true);
            (changed, found.doubts, if first { found.left_out } else { 0 })
        };
        let record =
            |detail: &str| gate.recorder.event(EventKind::CatalogueChanged, Some(self.name.as_str()), detail);
        if !doubts.is_empty() {
            let named = doubts.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
            let more = match doubts.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!("; {more} more do so"),
            };
            let detail = format!("{named}{more}: not believed; a manifest can say so");
            tracing::warn!(server = %self.name, "{detail}");
            record(&detail);
        }
        if left_out > 0 {
            let detail = format!(
                "{left_out} tools of one list are not taken in: there are more than {TOOLS_MAX}, or their names are longer than {NAME_BYTES_MAX} bytes"
            );
            tracing::warn!(server = %self.name, "{detail}");
            record(&detail);
        }
        if changed > 0 {
            record(&format!("{changed} tools new or changed"));
            self.store_soon(gate);
        }
        changed > 0
    }

    /// What of a page is not as it was.
    fn compare(&self, known: &ToolTable, page: &Page<'_>) -> Found {
        let mut found = Found::default();
        let mut count = known.len();
        let mut room =
            known.values().fold(DEFINITIONS_BYTES_MAX, |room, t| room.saturating_sub(t.kept_bytes));
        for item in &page.items {
            let name = &*item.key;
            let before = found.facts.get(name).or_else(|| known.get(name)).cloned();
            if before.is_none() && (count >= TOOLS_MAX || name.len() > NAME_BYTES_MAX) {
                found.left_out += 1;
                continue;
            }
            let room_here = room + before.as_ref().map_or(0, |b| b.kept_bytes);
            let claimed = Word::of(item.hints);
            let word = before.as_ref().map_or(claimed, |b| b.word.stricter(claimed));
            let mut facts = self.facts(name, word, listed(item, room_here));
            facts.disbelieved = before.as_ref().map_or(0, |b| b.disbelieved);
            if let Some(doubt) = self.doubt(name, word, claimed)
                && facts.disbelieved & claimed.bit() == 0
            {
                facts.disbelieved |= claimed.bit();
                found.doubts.push(doubt);
            }
            let differs = before.as_ref().is_none_or(|b| facts.differs(b));
            let as_before =
                |b: &Arc<ToolFacts>| b.disbelieved == facts.disbelieved && b.params == facts.params;
            if !differs && before.as_ref().is_some_and(as_before) {
                continue;
            }
            if differs {
                found.seen.push(SeenTool {
                    name: name.to_owned(),
                    definition: match &facts.definition {
                        Definition::Schema(_) => item.text.to_owned(),
                        Definition::Digest(digest) => format!("{{\"{TOO_LARGE}\":\"{digest}\"}}"),
                    },
                    effect: word.effect,
                    external: word.external,
                });
            }
            room = room_here.saturating_sub(facts.kept_bytes);
            count += usize::from(before.is_none());
            found.facts.insert(name.into(), Arc::new(facts));
        }
        found
    }

    /// A tool that says it became more harmless is not believed. Where the manifest speaks, the
    /// claim does not matter.
    fn doubt(&self, tool: &str, believed: Word, claimed: Word) -> Option<String> {
        let said = self.manifest.get(tool).map(|said| (said.effect, said.external));
        let (effect, external) = said.unwrap_or_default();
        if effect.is_none() && claimed.effect != believed.effect {
            let (now, was) = (claimed.effect.as_str(), believed.effect.as_str());
            return Some(format!("tool {tool} now claims the effect {now}, was {was}"));
        }
        (external.is_none() && claimed.external != believed.external)
            .then(|| format!("tool {tool} now claims to reach nothing outside"))
    }

    fn store_soon(self: &Arc<Self>, gate: &Gate) {
        let (server, state, now) = (self.clone(), gate.state.clone(), gate.now());
        tokio::task::spawn_blocking(move || {
            let _turn = server.storing.lock();
            let seen = std::mem::take(&mut server.intake.lock().unstored);
            if seen.is_empty() {
                return;
            }
            if let Err(error) = state.record_tools(&server.name, &seen, now) {
                tracing::error!(%error, server = %server.name, "the catalogue could not be stored");
            }
        });
    }
}

/// A definition as far as it is kept.
struct Listed {
    definition: Definition,
    params: Option<Arc<ParamHeaders>>,
    kept_bytes: usize,
}

impl Listed {
    fn nothing() -> Self {
        Self { definition: Definition::Schema(serde_json::Value::Null), params: None, kept_bytes: 0 }
    }
}

fn listed(item: &Item<'_>, room: usize) -> Listed {
    let bytes = item.text.len();
    let schema = item.input_schema.filter(|_| bytes <= DEFINITION_BYTES_MAX.min(room));
    let params = if bytes <= MIRRORING_BYTES_MAX { item.headers.clone() } else { ParamHeaders::default() };
    let (definition, kept_bytes) = match schema.map(serde_json::from_str) {
        Some(Ok(schema)) => (Definition::Schema(schema), bytes),
        _ => (Definition::Digest(sha256(item.text)), 0),
    };
    Listed { definition, params: Some(Arc::new(params)), kept_bytes }
}

/// A definition as [`Server::compare`] gave it to the store.
fn stored(definition: &str) -> Listed {
    if definition.len() > DEFINITION_BYTES_MAX {
        return Listed { definition: Definition::Digest(sha256(definition)), ..Listed::nothing() };
    }
    let kept_bytes = definition.len();
    let definition: serde_json::Value = serde_json::from_str(definition).unwrap_or_default();
    let too_large = definition.get(TOO_LARGE).and_then(|d| Digest::from_hex(d.as_str()?));
    if let Some(digest) = too_large {
        return Listed { definition: Definition::Digest(digest), ..Listed::nothing() };
    }
    let Some(schema) = definition.get("inputSchema").cloned() else { return Listed::nothing() };
    let params = ParamHeaders::from_schema(&schema.to_string()).ok().map(Arc::new);
    Listed { definition: Definition::Schema(schema), params, kept_bytes }
}

fn sha256(text: &str) -> Digest {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()) {
        *to = *from;
    }
    Digest(bytes)
}

/// What kind of failure it is. Reasons hold counts and times, so they are not compared; that an attempt
/// was put off says nothing new.
fn kind_of(error: &UpstreamError, known: Option<RefusalCode>) -> RefusalCode {
    match (known, error) {
        (Some(code), UpstreamError::BackingOff { .. }) => code,
        _ => error.code(),
    }
}

pub(crate) fn random_u64() -> u64 {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn word(effect: Effect, external: bool) -> Word {
        Word { effect, external }
    }

    #[test]
    fn a_word_only_gets_stricter() {
        use Effect::{Act, Destroy, Read, Write};
        let strict_first = [Destroy, Act, Write, Read];
        for (n, stricter) in strict_first.iter().enumerate() {
            for milder in strict_first.iter().skip(n) {
                for (one, other) in [(stricter, milder), (milder, stricter)] {
                    assert_eq!(word(*one, false).stricter(word(*other, true)), word(*stricter, true));
                }
            }
        }
        assert_eq!(word(Read, false).stricter(word(Read, false)), word(Read, false));
        let bits = strict_first.iter().flat_map(|e| [word(*e, false).bit(), word(*e, true).bit()]);
        assert_eq!(bits.fold(0, |all, bit| all | bit), u8::MAX, "each claim has a bit of its own");
    }

    #[test]
    fn the_same_failure_is_the_same_whatever_its_numbers() {
        let put_off = |failures| UpstreamError::BackingOff {
            failures,
            retry_in: Duration::from_millis(1234),
            last: "gave no answer".into(),
        };
        let late = UpstreamError::Timeout { awaited: "handshake", after: Duration::from_secs(60) };
        let first = kind_of(&late, None);
        assert_eq!(first, RefusalCode::UpstreamTimeout);
        assert_eq!(kind_of(&put_off(2), Some(first)), first);
        assert_eq!(kind_of(&put_off(3), Some(first)), first);
        assert_eq!(kind_of(&UpstreamError::EndedEarly, Some(first)), RefusalCode::UpstreamMisbehaved);
        assert_eq!(kind_of(&put_off(2), None), RefusalCode::UpstreamUnavailable);
    }

    #[test]
    fn what_is_too_large_comes_back_from_the_store_as_its_digest() {
        let digest = sha256("large");
        let kept = stored(&format!("{{\"{TOO_LARGE}\":\"{digest}\"}}"));
        assert_eq!(kept.definition, Definition::Digest(digest));
        let large = format!("{{\"inputSchema\":{{\"x\":\"{}\"}}}}", "y".repeat(DEFINITION_BYTES_MAX));
        assert_eq!(stored(&large).definition, Definition::Digest(sha256(&large)));
        let small = stored("{\"inputSchema\":{\"type\":\"object\"}}");
        assert_eq!(small.definition, Definition::Schema(serde_json::json!({"type": "object"})));
        assert!(small.params.is_some() && small.kept_bytes > 0);
    }
}
