//! Texts of clients' configurations: finding the servers in them, rewriting one entry, putting it back,
//! and showing it without its secrets. Text in, text out.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    clients::Shape,
    jsonc::{self, Kind, Node, Splice},
    tomlfile,
};

/// Keys of an entry that say how the server is reached; all others are the client's own and stay.
const TRANSPORT_KEYS: &[&str] =
    &["command", "args", "env", "cwd", "url", "httpUrl", "serverUrl", "headers", "transport"];

/// An entry of a client's configuration.
pub(crate) struct Found {
    /// The keys that lead to it.
    pub(crate) path: Vec<String>,
    /// The client's name for the server.
    pub(crate) name: String,
    pub(crate) fields: Value,
    /// The project that it belongs to, when the file says so.
    pub(crate) project: Option<PathBuf>,
    /// Why it cannot be edited, if it cannot.
    pub(crate) obstacle: Option<&'static str>,
}

/// Finds the servers of a file.
pub(crate) fn find(text: &str, shapes: &[Shape]) -> Result<Vec<Found>, String> {
    if shapes == [Shape::Toml] {
        return find_toml(text);
    }
    let root = jsonc::parse(text).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for shape in shapes {
        match shape {
            Shape::Json(keys) => {
                found.extend(servers_at(&root, keys.iter().map(|k| (*k).to_owned()).collect(), None))
            }
            Shape::JsonWithProjects => {
                found.extend(servers_at(&root, vec!["mcpServers".into()], None));
                let projects = root.get("projects").map(Node::members).unwrap_or_default();
                for project in projects {
                    let path = vec!["projects".into(), project.key.clone(), "mcpServers".into()];
                    found.extend(servers_at(&root, path, Some(PathBuf::from(&project.key))));
                }
            }
            Shape::Toml => {}
        }
    }
    Ok(found)
}

fn servers_at(root: &Node, container: Vec<String>, project: Option<PathBuf>) -> Vec<Found> {
    let members = root.at(&container).map(Node::members).unwrap_or_default();
    let objects = members.iter().filter(|m| matches!(m.value.kind, Kind::Object(_)));
    objects
        .map(|member| Found {
            path: container.iter().cloned().chain([member.key.clone()]).collect(),
            name: member.key.clone(),
            fields: value(&member.value),
            project: project.clone(),
            obstacle: None,
        })
        .collect()
}

fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Object(members) => {
            Value::Object(members.iter().map(|m| (m.key.clone(), value(&m.value))).collect())
        }
        Kind::Array(items) => Value::Array(items.iter().map(value).collect()),
        Kind::String(text) => Value::String(text.clone()),
        Kind::Bool(b) => Value::Bool(*b),
        Kind::Number(n) => Value::Number(n.clone()),
        Kind::Null => Value::Null,
    }
}

fn find_toml(text: &str) -> Result<Vec<Found>, String> {
    let entries = tomlfile::entries(text).map_err(|e| e.to_string())?;
    let found = entries.into_iter().map(|entry| Found {
        path: vec![tomlfile::CONTAINER.into(), entry.name.clone()],
        name: entry.name,
        // A TOML table without dates is JSON; a date in an entry is the client's own business.
        fields: serde_json::to_value(&entry.fields).unwrap_or_default(),
        project: None,
        obstacle: entry.region.err(),
    });
    Ok(found.collect())
}

/// An edited text, with what stood in the entry's place and what stands there now.
pub(crate) struct Edited {
    pub(crate) text: String,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// Makes an entry start `command` with `args`; checks that this, and only this, is what came out.
pub(crate) fn rewrite(
    text: &str,
    shape: Shape,
    path: &[String],
    command: &str,
    args: &[String],
) -> Result<Edited, String> {
    let place = entry_span(text, shape, path).ok_or("the entry is gone")?;
    let old = text.get(place.clone()).unwrap_or_default().to_owned();
    let edited = match shape {
        Shape::Toml => {
            let name = path.last().map(String::as_str).unwrap_or_default();
            tomlfile::rewrite(text, name, command, args).map_err(|e| e.to_string())?
        }
        Shape::Json(_) | Shape::JsonWithProjects => rewrite_json(text, path, command, args)?,
    };
    // All changes are within the entry's place, comments that stay included.
    let new_len =
        (old.len() + edited.len()).checked_sub(text.len()).ok_or("the edit would lose the entry")?;
    let new =
        edited.get(place.start..place.start + new_len).ok_or("the edit would lose the entry")?.to_owned();
    let shapes = [shape];
    let entries = |text: &str| find(text, &shapes);
    let (before, after) = (entries(text)?, entries(&edited)?);
    let as_wanted = before.len() == after.len()
        && before.iter().zip(&after).all(|(b, a)| {
            if a.path == path {
                starts(&a.fields, command, args)
            } else {
                (&a.path, &a.fields) == (&b.path, &b.fields)
            }
        });
    if as_wanted {
        Ok(Edited { text: edited, old, new })
    } else {
        Err("the edit would not come out right".into())
    }
}

fn starts(fields: &Value, command: &str, args: &[String]) -> bool {
    let gone = [
        "env",
        "cwd",
        "url",
        "httpUrl",
        "headers",
        "http_headers",
        "env_http_headers",
        "bearer_token_env_var",
    ];
    fields.get("command").and_then(Value::as_str) == Some(command)
        && fields.get("args") == Some(&args.into())
        && gone.iter().all(|key| fields.get(key).is_none())
}

fn rewrite_json(text: &str, path: &[String], command: &str, args: &[String]) -> Result<String, String> {
    let root = jsonc::parse(text).map_err(|e| e.to_string())?;
    let entry = root.at(path).ok_or("the entry is gone")?;
    let anchor = ["command", "httpUrl", "url", "serverUrl"].into_iter().find(|key| entry.get(key).is_some());
    let anchor = anchor.ok_or("it has neither a command nor a url")?;
    let new = [("command", Value::from(command).to_string()), ("args", json_list(args))];
    let removed = |key: &str| TRANSPORT_KEYS.contains(&key);
    let mut splices = jsonc::rewrite_members(text, entry, (anchor, &new), removed);
    if let Some(kind) = entry.get("type") {
        splices.push(Splice { span: kind.span.clone(), text: "\"stdio\"".into() });
    }
    Ok(jsonc::apply(text, splices))
}

fn json_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|i| Value::from(i.as_str()).to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// The place of an entry: a JSON object, or a TOML table with its header.
fn entry_span(text: &str, shape: Shape, path: &[String]) -> Option<std::ops::Range<usize>> {
    match shape {
        Shape::Toml => {
            let entries = tomlfile::entries(text).ok()?;
            let entry = entries.into_iter().find(|e| Some(&e.name) == path.last())?;
            entry.region.ok()
        }
        Shape::Json(_) | Shape::JsonWithProjects => Some(jsonc::parse(text).ok()?.at(path)?.span.clone()),
    }
}

/// Puts an entry back if it still says what `rewrite` made of it.
pub(crate) fn put_back(text: &str, shape: Shape, path: &[String], new: &str, old: &str) -> Option<String> {
    let start = entry_span(text, shape, path)?.start;
    let span = start..start + new.len();
    (text.get(span.clone())? == new).then(|| jsonc::apply(text, vec![Splice { span, text: old.into() }]))
}

/// An entry for showing: the values of variables and headers, and what looks secret elsewhere, are dots.
pub(crate) fn masked(entry: &str, shape: Shape) -> String {
    let spans = match shape {
        Shape::Toml => tomlfile::secret_spans(entry),
        Shape::Json(_) | Shape::JsonWithProjects => jsonc::parse(entry).ok().map(|node| json_secrets(&node)),
    };
    match spans {
        Some(spans) => {
            let dots = |span| Splice { span, text: "\"•••\"".into() };
            jsonc::apply(entry, spans.into_iter().map(dots).collect())
        }
        // What cannot be read cannot be shown without risk.
        None => "•••".into(),
    }
}

/// A `[[server]]` table for showing. Its variables and headers are references already.
pub(crate) fn masked_table(table: &str) -> String {
    let spans = tomlfile::secret_arguments(table).unwrap_or_default();
    let dots = |span| Splice { span, text: "\"•••\"".into() };
    jsonc::apply(table, spans.into_iter().map(dots).collect())
}

fn json_secrets(entry: &Node) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    for member in entry.members() {
        match (member.key.as_str(), &member.value.kind) {
            ("env" | "headers", Kind::Object(values)) => {
                spans.extend(values.iter().map(|m| m.value.span.clone()))
            }
            ("args", Kind::Array(items)) => {
                let texts: Vec<&str> = items.iter().map(|i| i.as_str().unwrap_or_default()).collect();
                let secret = secret_args(&texts);
                spans.extend(items.iter().zip(secret).filter(|(_, s)| *s).map(|(i, _)| i.span.clone()));
            }
            (_, Kind::String(text)) if looks_secret(text) => spans.push(member.value.span.clone()),
            _ => {}
        }
    }
    spans
}

/// Which arguments look like secrets, by themselves or by the flag before them.
pub(crate) fn secret_args(args: &[&str]) -> Vec<bool> {
    let mut after_flag = false;
    let mut out = Vec::with_capacity(args.len());
    for arg in args {
        let (flag, value) = arg.split_once('=').map_or((*arg, None), |(flag, value)| (flag, Some(value)));
        let named = flag.starts_with('-') && names_secret(flag) || value.is_some() && names_secret(flag);
        out.push(after_flag && !arg.starts_with('-') || named && value.is_some() || looks_secret(arg));
        after_flag = named && value.is_none();
    }
    out
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "token", "secret", "passw", "auth", "credential", "bearer", "header", "pat"]
        .iter()
        .any(|w| name.contains(w))
}

/// Whether a text by itself looks like a credential: a known prefix, or a password in a URL.
pub(super) fn looks_secret(text: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "sk-",
        "sk_",
        "pk_",
        "rk_",
        "ghp_",
        "gho_",
        "ghs_",
        "ghu_",
        "github_pat_",
        "glpat-",
        "xox",
        "AKIA",
        "eyJ",
        "Bearer ",
    ];
    let password = text.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    PREFIXES.iter().any(|p| text.starts_with(p))
        || password.is_some_and(|(user, _)| user.contains(':') && !user.contains('/'))
        || text.to_ascii_lowercase().contains("authorization:")
        || text.split_once('?').is_some_and(|(url, query)| url.contains("://") && names_secret(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let json = r#"{"command": "x", "args": ["--api-key", "s1", "--token=s2", "-v", "ghp_s3", "ok"], "env": {"A": "s4"}, "url": "https://a/?key=s5", "note": "postgres://u:s6@h/db"}"#;
        let toml = "[mcp_servers.a]\ncommand = \"x\"\nargs = [\"--api-key\", 's1', \"ok\"]\nenv = { A = \"s2\" }\n[mcp_servers.a.http_headers]\nX = \"s3\"\n";
        for (text, shape) in [
            (json, Shape::Json(&[])),
            (toml, Shape::Toml),
            ("{ env = { A = \"s1\" }, x = \"ok\" }", Shape::Toml),
        ] {
            let shown = masked(text, shape);
            for n in 1..7 {
                assert!(!shown.contains(&format!("s{n}")), "{shown}");
            }
            assert!(shown.contains("ok") || shown.contains("\"x\""), "{shown}");
        }
        assert_eq!(masked("{ broken", Shape::Json(&[])), "•••");
    }
}
