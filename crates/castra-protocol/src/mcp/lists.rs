//! The four lists: reading a page, leaving out what the caller may not use, renaming and merging for
//! the federated view.
//!
//! A page is read once into items that say where they stand; what goes to the caller is the page's own
//! bytes with cuts. An item that is not valid is left out and reported, so that one bad definition does
//! not take the others with it (2026-07-28, server/tools, "x-mcp-header").

use std::{borrow::Cow, collections::BTreeSet};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use castra_core::{Effect, ServerName};

use super::{
    Era, ListKind, ParseFault, UriRoutes, federated_name,
    field::Field,
    headers::{AnnotationFault, ParamHeaders},
    message::members_of,
};
use crate::{
    edit::{Edit, apply, cut},
    json::{JsonError, Kind, Scanner, Span, Value, push_quoted, quote},
};

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// Which list.
    pub kind: ListKind,
    /// The result, an object.
    pub text: &'a str,
    /// The valid items, in order.
    pub items: Vec<Item<'a>>,
    /// Those that are left out.
    pub faults: Vec<ItemFault>,
    /// Where the list goes on.
    pub next_cursor: Option<Cow<'a, str>>,
    /// How long the page may be kept, in milliseconds; absent in the legacy era.
    pub ttl_ms: Option<u64>,
    /// Who may share it; absent in the legacy era.
    pub cache_scope: Option<CacheScope>,
    /// Every element with whether it is an item, to cut by.
    elements: Vec<(Span, bool)>,
    scope_span: Option<Span>,
}

/// One item of a list.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// The item's own JSON.
    pub text: &'a str,
    /// Name of a tool or prompt, URI of a resource, template of a resource template.
    pub key: Cow<'a, str>,
    /// Where the key stands in the page, with the quotes.
    pub key_span: Span,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its title for people.
    pub title: Option<Cow<'a, str>>,
    /// What it says of itself.
    pub description: Option<Cow<'a, str>>,
    /// The annotations of a tool. They are hints of the server, and as trustworthy as it is.
    pub hints: Hints,
    /// JSON Schema of the arguments of a tool, raw.
    pub input_schema: Option<&'a str>,
    /// JSON Schema of the structured result of a tool, raw.
    pub output_schema: Option<&'a str>,
    /// Headers that mirror arguments of a tool.
    pub headers: ParamHeaders,
    /// Whether a tool of 2025-11-25 can or must run as a task.
    pub task: TaskSupport,
    span: Span,
}

/// Annotations of a tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// It changes nothing.
    pub read_only: Option<bool>,
    /// It may destroy something.
    pub destructive: Option<bool>,
    /// Calling it twice is as calling it once.
    pub idempotent: Option<bool>,
    /// It reaches beyond a closed set of things.
    pub open_world: Option<bool>,
}

impl Hints {
    /// The effect that the annotations claim; [`Effect::Act`] if they claim nothing.
    pub fn effect(self) -> Effect {
        match (self.read_only, self.destructive) {
            (Some(true), _) => Effect::Read,
            (_, Some(true)) => Effect::Destroy,
            (_, Some(false)) => Effect::Write,
            _ => Effect::Act,
        }
    }
}

/// `execution.taskSupport` of a tool (2025-11-25).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaskSupport {
    /// Never as a task.
    #[default]
    Forbidden,
    /// As a task if the client asks for it.
    Optional,
    /// Only as a task.
    Required,
}

/// Who may share a cached answer (2026-07-28, server/utilities/caching).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheScope {
    /// Anyone.
    Public,
    /// Only callers with the same authorization.
    Private,
}

/// Why an item is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFault {
    /// Its place in the page, from 0.
    pub index: usize,
    /// Its name, if it has one, cut to a bearable length.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a page cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not JSON.
    #[error("the list is not JSON: {0}")]
    Json(#[from] JsonError),
    /// A member of the result is missing or of the wrong type.
    #[error("{field} must be {want}")]
    Field {
        /// The member.
        field: &'static str,
        /// What it must be.
        want: &'static str,
    },
}

impl From<ParseFault> for ListError {
    fn from(fault: ParseFault) -> Self {
        match fault {
            ParseFault::Json(e) => Self::Json(e),
            ParseFault::Envelope { field, want }
            | ParseFault::Param { field, want }
            | ParseFault::Missing { field, want } => Self::Field { field, want },
            ParseFault::Batch | ParseFault::NotAnObject => Self::Field { field: "result", want: "an object" },
        }
    }
}

/// Reads one page. `result` is the `result` of a response that was parsed.
pub fn read<'a>(kind: ListKind, result: &'a str) -> Result<Page<'a>, ListError> {
    let names = [kind.member(), "nextCursor", "ttlMs", "cacheScope"];
    let [list, cursor, ttl, scope] = members_of(result, Span { start: 0, end: result.len() }, names)?;
    let field = |name, value| Field { text: result, name, value };
    let list = list.filter(|v| v.kind == Kind::Array);
    let list = list.ok_or(ListError::Field { field: kind.member(), want: "an array" })?;
    let mut page = Page {
        kind,
        text: result,
        items: Vec::new(),
        faults: Vec::new(),
        next_cursor: field("nextCursor", cursor.filter(|v| v.kind != Kind::Null)).string()?,
        // A negative or fractional time counts as none (caching, "Time-to-Live").
        ttl_ms: ttl.map(|v| v.span.of(result).parse().unwrap_or(0)),
        cache_scope: None,
        elements: Vec::new(),
        scope_span: scope.map(|v| v.span),
    };
    page.cache_scope = field("cacheScope", scope).string()?.map(|scope| match &*scope {
        "public" => CacheScope::Public,
        _ => CacheScope::Private,
    });
    let mut keys = BTreeSet::new();
    Scanner::at(result, list.span).elements(|s| {
        let element = s.skip()?;
        let item = Item::read(kind, result, element).and_then(|item| {
            if keys.insert(item.key.clone()) { Ok(item) } else { Err((shown(&item.key), TWICE.to_string())) }
        });
        page.elements.push((element.span, item.is_ok()));
        match item {
            Ok(item) => page.items.push(item),
            Err((name, reason)) => {
                page.faults.push(ItemFault { index: page.elements.len() - 1, name, reason })
            }
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(page)
}

const TWICE: &str = "the same name or URI stands twice in the list";

impl Page<'_> {
    /// The edits that leave out items, for a text in which the page begins at `offset`.
    pub(super) fn cuts(&self, offset: usize, kept: impl Fn(&Item<'_>) -> bool) -> Vec<Edit> {
        let mut items = self.items.iter();
        let moved = |span: &Span| Span { start: span.start + offset, end: span.end + offset };
        let part = |(span, valid): &(Span, bool)| {
            let item = if *valid { items.next() } else { None };
            (moved(span), item.is_none_or(&kept))
        };
        let parts: Vec<_> = self.elements.iter().map(part).collect();
        let mut edits = Vec::new();
        cut(&parts, &mut edits);
        edits
    }
}

impl<'a> Item<'a> {
    /// Reads one item; the error has the name, if any, and the reason.
    fn read(kind: ListKind, text: &'a str, element: Value) -> Result<Self, (String, String)> {
        if element.kind != Kind::Object {
            return Err((String::new(), "an item must be an object".into()));
        }
        let names = [
            "name",
            key_member(kind),
            "title",
            "description",
            "annotations",
            "inputSchema",
            "outputSchema",
            "execution",
        ];
        let json = |e: JsonError| (String::new(), e.to_string());
        let mut found = members_of(text, element.span, names).map_err(json)?;
        if kind != ListKind::Resources && kind != ListKind::ResourceTemplates {
            found[1] = found[0];
        }
        let [name, key, title, description, annotations, input, output, execution] = found;
        let field = |name, value| Field { text, name, value };
        let mut known = String::new();
        let mut item = || -> Result<Self, Fault> {
            let name_field = field("name", name);
            let name = name_field.required(name_field.string()?, "a string")?;
            known = shown(&name);
            let key_field = field(key_member(kind), key);
            let key_text = key_field.required(key_field.string()?, "a string")?;
            let key_span = key_field.required(key, "a string")?.span;
            if key_text.is_empty() {
                return Err(key_field.wrong("a string that is not empty").into());
            }
            let mut item = Self {
                text: element.span.of(text),
                key: key_text,
                key_span,
                name,
                title: field("title", title).string()?,
                description: field("description", description).string()?,
                hints: Hints::default(),
                input_schema: None,
                output_schema: None,
                headers: ParamHeaders::default(),
                task: TaskSupport::default(),
                span: element.span,
            };
            if kind == ListKind::Tools {
                let schema = field("inputSchema", input);
                let schema = schema.required(schema.object()?, "an object")?.of(text);
                item.headers = ParamHeaders::from_schema(schema)?;
                item.input_schema = Some(schema);
                item.output_schema = field("outputSchema", output).object()?.map(|span| span.of(text));
                item.hints = Hints::read(text, field("annotations", annotations).object()?)?;
                item.task = TaskSupport::read(text, field("execution", execution).object()?)?;
            }
            Ok(item)
        };
        item().map_err(|fault| (known, fault.to_string()))
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Field(#[from] ParseFault),
    #[error(transparent)]
    Annotation(#[from] AnnotationFault),
}

impl Hints {
    fn read(text: &str, annotations: Option<Span>) -> Result<Self, ParseFault> {
        let Some(span) = annotations else { return Ok(Self::default()) };
        let names = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"];
        let [read_only, destructive, idempotent, open_world] = members_of(text, span, names)?;
        let hint = |name, value| Field { text, name, value }.boolean();
        Ok(Self {
            read_only: hint("annotations.readOnlyHint", read_only)?,
            destructive: hint("annotations.destructiveHint", destructive)?,
            idempotent: hint("annotations.idempotentHint", idempotent)?,
            open_world: hint("annotations.openWorldHint", open_world)?,
        })
    }
}

impl TaskSupport {
    fn read(text: &str, execution: Option<Span>) -> Result<Self, ParseFault> {
        let Some(span) = execution else { return Ok(Self::default()) };
        let [support] = members_of(text, span, ["taskSupport"])?;
        let support = Field { text, name: "execution.taskSupport", value: support }.string()?;
        Ok(match support.as_deref() {
            Some("optional") => Self::Optional,
            Some("required") => Self::Required,
            _ => Self::Forbidden,
        })
    }
}

fn key_member(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Tools | ListKind::Prompts => "name",
        ListKind::Resources => "uri",
        ListKind::ResourceTemplates => "uriTemplate",
    }
}

fn shown(name: &str) -> String {
    name.chars().take(128).collect()
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It is left out.
    Drop,
    /// It stays as it is.
    AsIs,
    /// It stays under another name or URI.
    Rename(String),
}

/// What becomes of the items of a server's page in the federated view: those that are allowed stay,
/// tools and prompts as `server__name`, resources under the URI that `routes` gives.
pub fn federate(
    page: &Page<'_>,
    server: &ServerName,
    routes: &mut UriRoutes,
    allowed: impl Fn(&Item<'_>) -> bool,
) -> Vec<Keep> {
    let under = |shown: Cow<'_, str>| match shown {
        Cow::Borrowed(_) => Keep::AsIs,
        Cow::Owned(uri) => Keep::Rename(uri),
    };
    let keep = |item: &Item<'_>, routes: &mut UriRoutes| match page.kind {
        _ if !allowed(item) => Keep::Drop,
        ListKind::Tools | ListKind::Prompts => Keep::Rename(federated_name(server, &item.key)),
        ListKind::Resources => under(routes.add_uri(server, &item.key)),
        ListKind::ResourceTemplates => under(routes.add_template(server, &item.key)),
    };
    page.items.iter().map(|item| keep(item, routes)).collect()
}

/// The page of one server as a caller sees it: its own bytes where nothing changes. `private` is set
/// when the list depends on the caller; then a public page becomes a private one.
pub fn filter<'a>(page: &Page<'a>, keep: &[Keep], private: bool) -> Cow<'a, str> {
    let mut edits = Vec::new();
    let mut keeps = page.items.iter().zip(keep.iter().chain(std::iter::repeat(&Keep::Drop)));
    let parts: Vec<(Span, bool)> = page
        .elements
        .iter()
        .map(|(span, valid)| {
            let kept = match if *valid { keeps.next() } else { None } {
                None | Some((_, Keep::Drop)) => false,
                Some((_, Keep::AsIs)) => true,
                Some((item, Keep::Rename(name))) => {
                    edits.push(Edit { range: item.key_span.start..item.key_span.end, text: quote(name) });
                    true
                }
            };
            (*span, kept)
        })
        .collect();
    cut(&parts, &mut edits);
    if let (true, Some(CacheScope::Public), Some(span)) = (private, page.cache_scope, page.scope_span) {
        edits.push(Edit { range: span.start..span.end, text: "\"private\"".into() });
    }
    if edits.is_empty() { Cow::Borrowed(page.text) } else { Cow::Owned(apply(page.text, edits)) }
}

/// One page of the federated view: the kept items of several servers' pages as one result, which is
/// always private to the caller and no longer fresh than its stalest part.
pub fn merge(kind: ListKind, parts: &[(&Page<'_>, &[Keep])], next: Option<&str>, era: Era) -> String {
    let mut out = String::with_capacity(64 + parts.iter().map(|(page, _)| page.text.len()).sum::<usize>());
    out.push('{');
    if era == Era::Modern {
        let ttl = parts.iter().map(|(page, _)| page.ttl_ms.unwrap_or(0)).min().unwrap_or(0);
        out.push_str(&format!("\"resultType\":\"complete\",\"ttlMs\":{ttl},\"cacheScope\":\"private\","));
    }
    if let Some(cursor) = next {
        out.push_str("\"nextCursor\":");
        push_quoted(&mut out, cursor);
        out.push(',');
    }
    out.push_str(&format!("\"{}\":[", kind.member()));
    let mut first = true;
    for (page, keep) in parts {
        for (item, keep) in page.items.iter().zip(*keep) {
            if *keep == Keep::Drop {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            item.write(page.text, keep, &mut out);
        }
    }
    out.push_str("]}");
    out
}

impl Item<'_> {
    fn write(&self, page: &str, keep: &Keep, out: &mut String) {
        match keep {
            Keep::Drop => {}
            Keep::AsIs => out.push_str(self.text),
            Keep::Rename(name) => {
                out.push_str(page.get(self.span.start..self.key_span.start).unwrap_or_default());
                push_quoted(out, name);
                out.push_str(page.get(self.key_span.end..self.span.end).unwrap_or_default());
            }
        }
    }
}

/// Where a federated list goes on: the servers that have more, each with its own cursor. Callers see it
/// as one opaque word and can forge it, so that whoever takes one back must check that the caller may
/// list the server; nothing else follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FederatedCursor(pub Vec<(ServerName, String)>);

impl FederatedCursor {
    /// Longest word that is given out and taken back.
    pub const LENGTH_MAX: usize = 8192;

    /// The word; None if no server has more, or if their cursors are too long to carry.
    pub fn encode(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut text = String::from(VERSION);
        for (server, cursor) in &self.0 {
            text.push_str(&format!("{server} {} {cursor}", cursor.len()));
        }
        Some(URL_SAFE_NO_PAD.encode(text)).filter(|word| word.len() <= Self::LENGTH_MAX)
    }

    /// Reads the word. None if it is not one of ours.
    pub fn decode(word: &str) -> Option<Self> {
        if word.len() > Self::LENGTH_MAX {
            return None;
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(word).ok()?).ok()?;
        let mut rest = text.strip_prefix(VERSION)?;
        let mut parts: Vec<(ServerName, String)> = Vec::new();
        while !rest.is_empty() {
            let (server, tail) = rest.split_once(' ')?;
            let (length, tail) = tail.split_once(' ')?;
            let (cursor, tail) = tail.split_at_checked(length.parse().ok()?)?;
            let server = ServerName::new(server).ok()?;
            if parts.iter().any(|(known, _)| *known == server) {
                return None;
            }
            parts.push((server, cursor.to_string()));
            rest = tail;
        }
        if parts.is_empty() { None } else { Some(Self(parts)) }
    }
}

const VERSION: &str = "1 ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hints_claim_effects() {
        let hints = |read_only, destructive| Hints { read_only, destructive, ..Hints::default() }.effect();
        assert_eq!(hints(Some(true), Some(true)), Effect::Read);
        assert_eq!(hints(Some(false), Some(true)), Effect::Destroy);
        assert_eq!(hints(None, Some(false)), Effect::Write);
        assert_eq!(hints(Some(false), None), Effect::Act);
        assert_eq!(hints(None, None), Effect::Act);
    }

    proptest! {
        #[test]
        fn cursors_go_both_ways(parts in prop::collection::btree_map("[a-z]{1,8}", any::<String>(), 0..4)) {
            let parts = parts.into_iter().map(|(s, c)| (ServerName::new(&s).unwrap(), c)).collect();
            let cursor = FederatedCursor(parts);
            match cursor.encode() {
                Some(word) => prop_assert_eq!(FederatedCursor::decode(&word), Some(cursor)),
                None => prop_assert!(cursor.0.is_empty()),
            }
        }

        #[test]
        fn foreign_cursors_never_panic(word in "[A-Za-z0-9_-]{0,40}", text in any::<String>()) {
            let _ = FederatedCursor::decode(&word);
            let _ = FederatedCursor::decode(&URL_SAFE_NO_PAD.encode(format!("{VERSION}{text}")));
        }
    }
}
