//! Codex's `config.toml`: finding the tables of MCP servers and rewriting them line by line, so that
//! comments, order and line ends of everything else stay as they are.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    edit::{looks_secret, secret_args},
    jsonc::{Splice, apply, merged},
};

/// The table that holds the servers.
pub(crate) const CONTAINER: &str = "mcp_servers";

/// Keys of an entry that say how the server is reached; all others are the client's own and stay.
const TRANSPORT_KEYS: &[&str] = &[
    "command",
    "args",
    "env",
    "env_vars",
    "cwd",
    "url",
    "bearer_token_env_var",
    "http_headers",
    "env_http_headers",
];

/// Why a text was not read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TomlError {
    #[error("it is no TOML: {0}")]
    NotToml(String),
    #[error("{0}")]
    Shape(&'static str),
}

/// A server's table with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TomlEntry {
    pub(crate) name: String,
    pub(crate) fields: toml::Table,
    /// Everything of the entry: from its header to its last value, or the inline table.
    pub(crate) region: Result<Range<usize>, &'static str>,
}

/// Reads the servers of a file.
pub(crate) fn entries(text: &str) -> Result<Vec<TomlEntry>, TomlError> {
    let (text, shift) = without_mark(text);
    let root = DeTable::parse(text).map_err(|e| TomlError::NotToml(e.message().to_owned()))?;
    let Some(servers) = table_at(root.get_ref(), CONTAINER) else { return Ok(Vec::new()) };
    let values: toml::Table = toml::from_str(text).map_err(|e| TomlError::NotToml(e.message().to_owned()))?;
    let values = values.get(CONTAINER).and_then(toml::Value::as_table);
    let found = servers.iter().filter_map(|(name, value)| {
        let fields = values?.get(name.get_ref().as_ref())?.as_table()?.clone();
        let region = region(text, root.get_ref(), name, value).map(|r| r.start + shift..r.end + shift);
        Some(TomlEntry { name: name.get_ref().to_string(), fields, region })
    });
    Ok(found.collect())
}

/// Makes an entry start `command` with `args` and drops the other ways to reach a server.
pub(crate) fn rewrite(text: &str, name: &str, command: &str, args: &[String]) -> Result<String, TomlError> {
    let (body, _) = without_mark(text);
    let mark = text.get(..text.len() - body.len()).unwrap_or_default();
    let root = DeTable::parse(body).map_err(|e| TomlError::NotToml(e.message().to_owned()))?;
    let entry =
        table_at(root.get_ref(), CONTAINER).and_then(|t| t.iter().find(|(key, _)| key.get_ref() == name));
    let Some((key, value)) = entry else { return Err(TomlError::Shape("the entry is gone")) };
    region(body, root.get_ref(), key, value).map_err(TomlError::Shape)?;
    let DeValue::Table(table) = value.get_ref() else {
        return Err(TomlError::Shape("the entry is no table"));
    };
    let splices = if is_inline(body, value) {
        inline(body, value, table, command, args)
    } else {
        lines(body, table, command, args)
    };
    Ok(format!("{mark}{}", apply(body, splices)))
}

fn without_mark(text: &str) -> (&str, usize) {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, text.len() - rest.len()),
        None => (text, 0),
    }
}

fn table_at<'a, 't>(table: &'a DeTable<'t>, key: &str) -> Option<&'a DeTable<'t>> {
    let (_, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    value.get_ref().as_table()
}

fn is_inline(text: &str, value: &Spanned<DeValue<'_>>) -> bool {
    text.get(value.span()).is_some_and(|t| t.starts_with('{'))
}

/// Where an entry stands, if all of it stands together.
fn region(
    text: &str,
    root: &DeTable<'_>,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Range<usize>, &'static str> {
    if is_inline(text, value) {
        return Ok(value.span());
    }
    let DeValue::Table(table) = value.get_ref() else { return Err("it is no table") };
    let start = line_start(text, key.span().start);
    if !text.get(start..).is_some_and(|t| t.trim_start().starts_with('[')) {
        return Err("it is written with dotted keys; write it as [mcp_servers.NAME]");
    }
    let mut end = line_end(text, key.span().end);
    for leaf in leaves(table) {
        if line_start(text, leaf.start) < start {
            return Err("a table below it stands before it");
        }
        end = end.max(line_end(text, leaf.end));
    }
    // Nothing else may stand between its first and its last line.
    let inside = |place: usize| (start..end).contains(&place);
    let foreign = leaves_outside(root, key.get_ref()).into_iter().any(|leaf| inside(leaf.start));
    if foreign { Err("its tables do not stand together") } else { Ok(start..end) }
}

/// The places of all keys with plain values, and of the headers above them, in a table.
fn leaves(table: &DeTable<'_>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() && value.span().start <= key.span().start => {
                found.push(key.span());
                found.extend(leaves(inner));
            }
            DeValue::Table(inner) => {
                found.push(key.span().start..value.span().end.max(key.span().end));
                found.extend(leaves(inner));
            }
            _ => found.push(key.span().start..value.span().end),
        }
    }
    found
}

fn leaves_outside(root: &DeTable<'_>, entry: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (key, value) in root {
        if key.get_ref() != CONTAINER {
            found.push(key.span());
            found.extend(value.get_ref().as_table().map(leaves).unwrap_or_default());
            continue;
        }
        for (name, server) in value.get_ref().as_table().into_iter().flatten() {
            if name.get_ref() != entry {
                found.push(name.span());
                found.extend(server.get_ref().as_table().map(leaves).unwrap_or_default());
            }
        }
    }
    found
}

/// Changes of an entry with a header and a line per key.
fn lines(text: &str, table: &DeTable<'_>, command: &str, args: &[String]) -> Vec<Splice> {
    let line_break = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let new = format!("command = {}{line_break}args = {}", quoted(command), list(args));
    let anchor = ["command", "url"].into_iter().find(|k| table.iter().any(|(key, _)| key.get_ref() == k));
    let mut splices = Vec::new();
    for (key, value) in table.iter().filter(|(key, _)| TRANSPORT_KEYS.contains(&key.get_ref().as_ref())) {
        if Some(key.get_ref().as_ref()) == anchor {
            splices.push(Splice { span: key.span().start..value.span().end, text: new.clone() });
            continue;
        }
        match value.get_ref() {
            DeValue::Table(inner) if !is_inline(text, value) => {
                splices.push(removed(text, header_or_key(text, key.span())));
                splices.extend(leaves(inner).into_iter().map(|leaf| removed(text, from_line(text, leaf))));
            }
            _ => splices.push(removed(text, key.span().start..value.span().end)),
        }
    }
    merged(splices)
}

/// The whole header line if the key stands in one (`[a.env]`), else the key's own place.
fn header_or_key(text: &str, key: Range<usize>) -> Range<usize> {
    let start = line_start(text, key.start);
    let line = text.get(start..).unwrap_or_default();
    match (line.trim_start().starts_with('['), line.find(']')) {
        (true, Some(close)) => start..start + close + 1,
        _ => start..key.end,
    }
}

fn from_line(text: &str, leaf: Range<usize>) -> Range<usize> {
    line_start(text, leaf.start)..leaf.end
}

/// Takes a span out, with its line if nothing else (no comment) stands there.
fn removed(text: &str, span: Range<usize>) -> Splice {
    let start = line_start(text, span.start);
    let end = line_end(text, span.end);
    let blank = |r: Range<usize>| text.get(r).is_some_and(|t| t.trim().is_empty());
    let whole = blank(start..span.start) && blank(span.end..end);
    Splice { span: if whole { start..end } else { span }, text: String::new() }
}

/// An inline table is written anew, with the client's own keys as they were.
fn inline(
    text: &str,
    value: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    command: &str,
    args: &[String],
) -> Vec<Splice> {
    let mut parts = vec![format!("command = {}", quoted(command)), format!("args = {}", list(args))];
    let mut kept: Vec<_> =
        table.iter().filter(|(key, _)| !TRANSPORT_KEYS.contains(&key.get_ref().as_ref())).collect();
    kept.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in kept {
        parts.push(text.get(key.span().start..value.span().end).unwrap_or_default().to_owned());
    }
    vec![Splice { span: value.span(), text: format!("{{ {} }}", parts.join(", ")) }]
}

/// Where the secrets of an entry's text (a region) stand.
pub(crate) fn secret_spans(entry: &str) -> Option<Vec<Range<usize>>> {
    // An inline table is no document by itself.
    const KEY: &str = "x = ";
    let (text, shift) = match entry.trim_start().starts_with('{') {
        true => (format!("{KEY}{entry}"), KEY.len()),
        false => (entry.to_owned(), 0),
    };
    let root = DeTable::parse(&text).ok()?;
    let mut spans = Vec::new();
    secrets(root.get_ref(), &mut spans);
    Some(spans.into_iter().map(|span| span.start - shift..span.end - shift).collect())
}

/// Where a `[[server]]` table holds arguments or a URL that look like secrets.
pub(crate) fn secret_arguments(table: &str) -> Option<Vec<Range<usize>>> {
    let root = DeTable::parse(table).ok()?;
    let mut spans = Vec::new();
    for (_, servers) in root.get_ref() {
        for (key, value) in
            servers.get_ref().as_array()?.iter().filter_map(|s| s.get_ref().as_table()).flatten()
        {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("command", DeValue::Array(items)) => push_secret_items(items, &mut spans),
                ("url", DeValue::String(text)) if looks_secret(text) => spans.push(value.span()),
                _ => {}
            }
        }
    }
    Some(spans)
}

fn push_secret_items(items: &DeArray<'_>, spans: &mut Vec<Range<usize>>) {
    let texts: Vec<&str> = items.iter().map(|i| i.get_ref().as_str().unwrap_or_default()).collect();
    let secret = secret_args(&texts);
    spans.extend(items.iter().zip(secret).filter(|(_, s)| *s).map(|(i, _)| i.span()));
}

fn secrets(table: &DeTable<'_>, spans: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("env" | "http_headers", DeValue::Table(values)) => {
                spans.extend(values.values().map(Spanned::span))
            }
            (_, DeValue::Table(inner)) => secrets(inner, spans),
            ("args", DeValue::Array(items)) => push_secret_items(items, spans),
            (_, DeValue::String(text)) if looks_secret(text) => spans.push(value.span()),
            _ => {}
        }
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |n| n + 1)
}

/// The end of the line, with its line break.
fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|t| t.find('\n')).map_or(text.len(), |n| at + n + 1)
}

/// A TOML basic string. JSON escapes are TOML escapes, except that TOML wants DEL escaped too.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

pub(crate) fn list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|i| quoted(i)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let out = rewrite(text, "files", "castra", &["connect".into()]).unwrap();
        let entries = entries(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        let files = entries.iter().find(|e| e.name == "files").unwrap();
        assert_eq!(files.fields.get("command").and_then(toml::Value::as_str), Some("castra"));
        for gone in ["env", "cwd", "url", "http_headers"] {
            assert!(!files.fields.contains_key(gone), "{gone}: {out}");
        }
        out
    }

    #[test]
    fn tables_are_rewritten_in_place() {
        let cases = [
            (
                "model = \"x\" # m\n\n[mcp_servers.files] # mine\ncommand = \"npx\" # run\nargs = [\n  \"-y\",\n]\nenabled = true\n\n[mcp_servers.files.env]\n# the key\nKEY = \"s\"\n\n[other]\na = 1\n",
                "model = \"x\" # m\n\n[mcp_servers.files] # mine\ncommand = \"castra\"\nargs = [\"connect\"] # run\nenabled = true\n\n# the key\n\n[other]\na = 1\n",
            ),
            (
                "[mcp_servers.files]\r\nurl = \"https://a/mcp\"\r\nhttp_headers = { A = \"s\" }\r\ntool_timeout_sec = 5\r\n",
                "[mcp_servers.files]\r\ncommand = \"castra\"\r\nargs = [\"connect\"]\r\ntool_timeout_sec = 5\r\n",
            ),
            (
                "[mcp_servers]\nfiles = { command = \"a\", env = { K = \"s\" }, enabled = false }\n",
                "[mcp_servers]\nfiles = { command = \"castra\", args = [\"connect\"], enabled = false }\n",
            ),
            (
                "[mcp_servers.files]\ncommand = \"a\"\nenv.K = \"s\"\nenv.L = \"t\" # l\n[mcp_servers.b]\ncommand = \"b\"",
                "[mcp_servers.files]\ncommand = \"castra\"\nargs = [\"connect\"]\n # l\n[mcp_servers.b]\ncommand = \"b\"",
            ),
            (
                "\u{feff}[mcp_servers.files]\ncommand = \"a\"\nargs = [\"b\"]",
                "\u{feff}[mcp_servers.files]\ncommand = \"castra\"\nargs = [\"connect\"]\n",
            ),
        ];
        for (before, after) in cases {
            assert_eq!(rewritten(before), after, "{before}");
        }
    }

    #[test]
    fn regions_are_whole_or_refused() {
        let text = "[mcp_servers.files]\ncommand = \"a\"\n\n[mcp_servers.files.env]\nK = \"s\"\n[x]\n";
        let found = entries(text).unwrap();
        let region = found.first().unwrap().region.clone().unwrap();
        assert!(text.get(region).unwrap().ends_with("K = \"s\"\n"));
        for bad in [
            "[mcp_servers.files]\ncommand = \"a\"\n[x]\na = 1\n[mcp_servers.files.env]\nK = \"s\"\n",
            "mcp_servers.files.command = \"a\"\n",
            "[mcp_servers]\nfiles.command = \"a\"\n",
        ] {
            assert!(entries(bad).unwrap().first().unwrap().region.is_err(), "{bad}");
        }
        assert!(entries("x = ").is_err());
        assert_eq!(entries("x = 1").unwrap(), []);
    }

    #[test]
    fn quoted_texts_read_back() {
        for text in ["", "a\"b\\c\n\t\u{7f}\u{1}é"] {
            let table: toml::Table = toml::from_str(&format!("a = {}", quoted(text))).unwrap();
            assert_eq!(table.get("a").and_then(toml::Value::as_str), Some(text));
        }
    }
}
