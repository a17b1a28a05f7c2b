//! What a conversation knows of its two sides, and how each era says it.

use super::{BridgeFault, changed, is_url_mode, object};
use crate::{
    json::{self, Span, quote},
    mcp::{
        InputKind, LogLevel, MethodKind, ParseLimits, Request, Revision, field::Field, meta_key, negotiate,
    },
};

/// What is known of a client: from `initialize` in the legacy era, from each request in the modern one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFacts {
    /// The revision that is spoken with it.
    pub revision: Revision,
    /// Name and version, raw JSON; it need not say.
    pub info: Option<String>,
    /// Its capabilities, the raw JSON of an object.
    pub capabilities: String,
    /// The least severe log message that it wants; None for none.
    pub log_level: Option<LogLevel>,
}

impl ClientFacts {
    /// From the parameters of `initialize`, with the revision that is asked for. The revision of the
    /// facts is the one to answer with if the server speaks any.
    pub fn from_initialize(request: &Request<'_>) -> Result<(Self, String), BridgeFault> {
        let params = request.params.ok_or(BridgeFault::Field { field: "params", want: "an object" })?;
        let names = ["protocolVersion", "capabilities", "clientInfo"];
        let [version, capabilities, info] = crate::mcp::message::members_of(request.text, params, names)?;
        let field = |name, value| Field { text: request.text, name, value };
        let version = field("params.protocolVersion", version);
        let asked = version.required(version.string()?, "a string")?.into_owned();
        let capabilities = field("params.capabilities", capabilities);
        let info = field("params.clientInfo", info);
        let text = |span: Span| span.of(request.text).to_string();
        let facts = Self {
            revision: negotiate(&asked, &[]),
            info: Some(text(info.required(info.object()?, "an object")?)),
            capabilities: text(capabilities.required(capabilities.object()?, "an object")?),
            log_level: None,
        };
        Ok((facts, asked))
    }

    /// From the `_meta` of a request of the modern era.
    pub fn from_modern(request: &Request<'_>) -> Result<Self, BridgeFault> {
        let missing = |field| BridgeFault::Field { field, want: "present" };
        let text = |span: Span| span.of(request.text).to_string();
        let capabilities = request.meta.client_capabilities;
        Ok(Self {
            revision: request.revision().ok_or(missing(meta_key::PROTOCOL_VERSION))?,
            info: request.meta.client_info.map(text),
            capabilities: text(capabilities.ok_or(missing(meta_key::CLIENT_CAPABILITIES))?),
            log_level: request.meta.log_level,
        })
    }

    /// Whether it can be asked this kind of thing.
    pub fn declares(&self, kind: InputKind) -> bool {
        json::get(&self.capabilities, &[kind.capability()]).is_some_and(|raw| raw.starts_with('{'))
    }

    /// Whether it can be asked this very thing: for an elicitation the mode counts too. A client that
    /// declares no mode means forms (2026-07-28, client/elicitation, "Capabilities").
    pub fn can_answer(&self, question: &Request<'_>) -> bool {
        let MethodKind::ClientRequest(kind) = question.kind() else { return false };
        self.declares_for(kind, question.params.map_or("{}", |span| span.of(question.text)))
    }

    pub(super) fn declares_for(&self, kind: InputKind, params: &str) -> bool {
        let mode = |mode| json::get(&self.capabilities, &["elicitation", mode]).is_some();
        match kind {
            InputKind::Elicit if is_url_mode(params) => self.declares(kind) && mode("url"),
            InputKind::Elicit => self.declares(kind) && (mode("form") || !mode("url")),
            _ => self.declares(kind),
        }
    }

    /// The keys of `_meta` that describe the client in a request of the modern era.
    pub(super) fn modern_meta(&self) -> Vec<(&'static str, String)> {
        // `tasks` in the legacy capabilities is another thing than the extension.
        let capabilities = changed(&self.capabilities, &[], &["tasks"]).into_owned();
        let mut meta = vec![
            (meta_key::PROTOCOL_VERSION, quote(Revision::LATEST.as_str())),
            (meta_key::CLIENT_CAPABILITIES, capabilities),
        ];
        meta.extend(self.info.clone().map(|info| (meta_key::CLIENT_INFO, info)));
        meta.extend(self.log_level.map(|level| (meta_key::LOG_LEVEL, quote(level.as_str()))));
        meta
    }
}

/// What is known of a server: from its `InitializeResult` or its `DiscoverResult`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Name and version, raw JSON; it need not say.
    pub info: Option<String>,
    /// Its capabilities, the raw JSON of an object.
    pub capabilities: String,
    /// How to use it, in words for a model.
    pub instructions: Option<String>,
    /// The revisions that it speaks, as it names them.
    pub versions: Vec<String>,
}

impl ServerFacts {
    /// From the `result` of `initialize`.
    pub fn from_initialize_result(result: &str) -> Result<Self, BridgeFault> {
        let result = checked(result)?;
        let info = member(result, &["serverInfo"]);
        let version = json::get(result, &["protocolVersion"]).and_then(json::decode);
        let version = version.ok_or(BridgeFault::Field { field: "protocolVersion", want: "a string" })?;
        Self::new(result, info, vec![version.into_owned()])
    }

    /// From the `result` of `server/discover`. The name stands in `_meta`; drafts of the revision had
    /// it beside the capabilities.
    pub fn from_discover_result(result: &str) -> Result<Self, BridgeFault> {
        let result = checked(result)?;
        let info =
            member(result, &["_meta", meta_key::SERVER_INFO]).or_else(|| member(result, &["serverInfo"]));
        let wrong = BridgeFault::Field { field: "supportedVersions", want: "a list of strings" };
        let list =
            json::get(result, &["supportedVersions"]).filter(|raw| raw.starts_with('[')).ok_or(wrong)?;
        Self::new(result, info, strings(list)?)
    }

    fn new(result: &str, info: Option<&str>, versions: Vec<String>) -> Result<Self, BridgeFault> {
        let capabilities = member(result, &["capabilities"]);
        let capabilities =
            capabilities.ok_or(BridgeFault::Field { field: "capabilities", want: "an object" })?;
        Ok(Self {
            info: info.map(str::to_string),
            capabilities: capabilities.to_string(),
            instructions: json::get(result, &["instructions"]).and_then(json::decode).map(Into::into),
            versions,
        })
    }

    /// The `result` of `initialize` for a client of the legacy era.
    pub fn initialize_result(&self, revision: Revision) -> String {
        let capabilities = changed(&self.capabilities, &[], &["extensions"]);
        let info = self.info.as_deref().unwrap_or("{\"name\":\"unnamed\",\"version\":\"0\"}");
        object(
            [
                ("protocolVersion", quote(revision.as_str()).into()),
                ("capabilities", capabilities),
                ("serverInfo", info.into()),
            ]
            .into_iter()
            .chain(self.instructions_member()),
        )
    }

    /// The `result` of `server/discover` for a client of the modern era, to whom these revisions are
    /// spoken. It is not to be kept, since the server behind may be replaced at any time.
    pub fn discover_result(&self, versions: &[Revision]) -> String {
        let capabilities = changed(&self.capabilities, &[], &["tasks"]);
        let versions: Vec<String> = versions.iter().map(|v| quote(v.as_str())).collect();
        let meta =
            self.info.as_deref().map(|info| ("_meta", object([(meta_key::SERVER_INFO, info.into())]).into()));
        object(
            [
                ("resultType", "\"complete\"".into()),
                ("supportedVersions", format!("[{}]", versions.join(",")).into()),
                ("capabilities", capabilities),
                ("ttlMs", "0".into()),
                ("cacheScope", "\"private\"".into()),
            ]
            .into_iter()
            .chain(self.instructions_member())
            .chain(meta),
        )
    }

    /// Whether a capability is there, and not false.
    pub(super) fn offers(&self, path: &[&str]) -> bool {
        json::get(&self.capabilities, path).is_some_and(|raw| raw != "false" && raw != "null")
    }

    fn instructions_member(&self) -> Option<(&'static str, std::borrow::Cow<'static, str>)> {
        self.instructions.as_deref().map(|text| ("instructions", quote(text).into()))
    }
}

/// The `initialize` request to a legacy server on behalf of a client. `id` is raw JSON.
pub fn initialize_request(id: &str, facts: &ClientFacts) -> Vec<u8> {
    let capabilities = changed(&facts.capabilities, &[], &["extensions", "tasks"]);
    let info = facts.info.as_deref().unwrap_or("{\"name\":\"unnamed\",\"version\":\"0\"}");
    let params = object([
        ("protocolVersion", quote(facts.revision.as_str()).into()),
        ("capabilities", capabilities),
        ("clientInfo", info.into()),
    ]);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"initialize\",\"params\":{params}}}").into_bytes()
}

fn checked(text: &str) -> Result<&str, BridgeFault> {
    Ok(json::check(text.as_bytes(), ParseLimits::default().depth_max)?)
}

fn member<'a>(object: &'a str, path: &[&str]) -> Option<&'a str> {
    json::get(object, path).filter(|raw| raw.starts_with('{'))
}

/// The strings of a list; other elements are passed over.
pub(super) fn strings(list: &str) -> Result<Vec<String>, BridgeFault> {
    let mut all = Vec::new();
    json::Scanner::of(list, json::DEPTH_CEILING).elements(|s| {
        let value = s.skip()?;
        all.extend(json::decode(value.span.of(list)).map(Into::into));
        Ok::<_, BridgeFault>(())
    })?;
    Ok(all)
}
