//! What a client's entry says about a server, and what that is for the gate. Pure: the environment is
//! handed in.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::clients::{ClientKind, Variables};
use crate::config::Url;

/// A server as the gate would reach it. The values of `env` and `headers` may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Server {
    Command { program: String, args: Vec<String>, cwd: Option<PathBuf>, env: BTreeMap<String, String> },
    Http { url: String, headers: BTreeMap<String, String> },
}

/// What is done about an entry.
pub(crate) enum Verdict {
    /// It can go behind the gate.
    Wrap(Server),
    /// It is behind the gate already.
    Wrapped,
    /// It stays as it is, for this reason.
    Leave(String),
}

/// What an entry's variables stand for.
pub(crate) struct Surroundings<'a> {
    pub(crate) home: &'a Path,
    pub(crate) project: Option<&'a Path>,
    /// Looks up an environment variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads an entry.
pub(crate) fn read(client: ClientKind, fields: &Value, around: &Surroundings<'_>) -> Verdict {
    if is_ours(fields) {
        return Verdict::Wrapped;
    }
    match server(client, fields, around) {
        Ok(server) => Verdict::Wrap(server),
        Err(why) => Verdict::Leave(why),
    }
}

/// Whether the entry is one that `castra wrap` wrote.
pub(crate) fn is_ours(fields: &Value) -> bool {
    let command = fields.get("command").and_then(Value::as_str).unwrap_or_default();
    let program = Path::new(command).file_stem().and_then(|n| n.to_str());
    let first = fields.pointer("/args/0").and_then(Value::as_str);
    program == Some("castra") && first == Some("connect")
}

fn server(client: ClientKind, fields: &Value, around: &Surroundings<'_>) -> Result<Server, String> {
    let expand = |text: &str| expand(text, client.variables(), around);
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    for (key, why) in [
        ("envFile", "its variables are in an envFile"),
        ("headersHelper", "its headers come from a program (headersHelper)"),
        ("oauth", "the client signs in to it by OAuth"),
        ("auth", "the client signs in to it by OAuth"),
        ("env_vars", "it gets variables of the client's own environment (env_vars)"),
    ] {
        if fields.get(key).is_some_and(|v| !v.is_null()) {
            return Err(why.into());
        }
    }
    if let Some(command) = text("command") {
        let args = match fields.get("args") {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts
                    .ok_or("its args are not all texts")?
                    .into_iter()
                    .map(expand)
                    .collect::<Result<_, _>>()?
            }
            Some(_) => return Err("its args are no list".into()),
        };
        let cwd = match text("cwd") {
            Some(cwd) => Some(around.project.unwrap_or(around.home).join(expand(cwd)?)),
            None => Some(around.project.unwrap_or(around.home).to_owned()),
        };
        return Ok(Server::Command {
            program: expand(command)?,
            args,
            cwd,
            env: texts(fields, "env", &expand)?,
        });
    }
    // Gemini CLI calls streamable HTTP httpUrl, and means SSE by a url without a type.
    let kind = text("type").or_else(|| text("transport"));
    let url = match (text("httpUrl"), text("url").or_else(|| text("serverUrl"))) {
        (Some(url), _) => url,
        (None, Some(_)) if client == ClientKind::GeminiCli && kind != Some("http") => {
            return Err("it speaks the old HTTP+SSE transport".into());
        }
        (None, Some(url)) => url,
        (None, None) => return Err("it has neither a command nor a url".into()),
    };
    if matches!(kind, Some("sse" | "ws")) {
        return Err(format!("it speaks the {} transport", kind.unwrap_or_default()));
    }
    let url = expand(url)?;
    match Url::parse(&url) {
        None => return Err("its url is none that castra.toml takes".into()),
        Some(url) if !url.is_protected() => return Err("its url is plain http to another machine".into()),
        Some(_) => {}
    }
    let key = if client == ClientKind::Codex { "http_headers" } else { "headers" };
    let mut headers = texts(fields, key, &expand)?;
    for (name, variable) in fields.get("env_http_headers").and_then(Value::as_object).into_iter().flatten() {
        headers.insert(name.clone(), known(variable.as_str().unwrap_or_default(), around)?);
    }
    if let Some(variable) = text("bearer_token_env_var") {
        headers.insert("Authorization".into(), format!("Bearer {}", known(variable, around)?));
    }
    Ok(Server::Http { url, headers })
}

fn known(name: &str, around: &Surroundings<'_>) -> Result<String, String> {
    (around.variable)(name).ok_or_else(|| format!("it uses the variable {name}, which is not set here"))
}

fn texts(
    fields: &Value,
    key: &str,
    expand: &dyn Fn(&str) -> Result<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let Some(map) = fields.get(key) else { return Ok(BTreeMap::new()) };
    let map = map.as_object().ok_or_else(|| format!("its {key} is no table"))?;
    map.iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name.clone(), expand(text)?)),
            Value::Number(n) => Ok((name.clone(), n.to_string())),
            Value::Bool(b) => Ok((name.clone(), b.to_string())),
            _ => Err(format!("{name} in its {key} is no text")),
        })
        .collect()
}

/// Puts values in the place of variables; an entry whose variables are not known here cannot move.
fn expand(text: &str, variables: Variables, around: &Surroundings<'_>) -> Result<String, String> {
    if variables == Variables::None {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some((name, tail)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            out.push_str(&value_of(name, variables, around)?);
            rest = tail;
            continue;
        }
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let (name, tail) = after.split_at_checked(end).unwrap_or((after, ""));
        if variables == Variables::Dollar
            && !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
        {
            out.push_str(&known(name, around)?);
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of(name: &str, variables: Variables, around: &Surroundings<'_>) -> Result<String, String> {
    if variables == Variables::Editor {
        return match (name, around.project) {
            ("userHome", _) => Ok(around.home.display().to_string()),
            ("workspaceFolder", Some(project)) => Ok(project.display().to_string()),
            ("/" | "pathSeparator", _) => Ok(std::path::MAIN_SEPARATOR.to_string()),
            _ => match name.strip_prefix("env:") {
                Some(name) => known(name, around),
                None => Err(format!("it uses ${{{name}}}, which only the client knows")),
            },
        };
    }
    match name.split_once(":-") {
        Some((name, default)) => Ok((around.variable)(name).unwrap_or_else(|| default.into())),
        None => known(name, around),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(client: ClientKind, fields: &Value) -> Result<Server, String> {
        let variable = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        let around =
            Surroundings { home: Path::new("/home/a"), project: Some(Path::new("/p")), variable: &variable };
        match read(client, fields, &around) {
            Verdict::Wrap(server) => Ok(server),
            Verdict::Leave(why) => Err(why),
            Verdict::Wrapped => Err("wrapped".into()),
        }
    }

    #[test]
    fn variables_are_put_in_or_the_entry_stays() {
        use ClientKind::{ClaudeCode, ClaudeDesktop, Cursor, GeminiCli};
        for (client, text, expected) in [
            (ClaudeCode, "Bearer ${TOKEN}", Ok("Bearer s3cret")),
            (ClaudeCode, "${NONE:-x}", Ok("x")),
            (ClaudeCode, "$TOKEN", Ok("$TOKEN")),
            (ClaudeCode, "${NONE}", Err("it uses the variable NONE, which is not set here")),
            (GeminiCli, "a$TOKEN-b$", Ok("as3cret-b$")),
            (Cursor, "${env:TOKEN}${userHome}${workspaceFolder}", Ok("s3cret/home/a/p")),
            (Cursor, "${input:key}", Err("it uses ${input:key}, which only the client knows")),
            (ClaudeDesktop, "${TOKEN}", Ok("${TOKEN}")),
        ] {
            let entry = json!({"command": "x", "env": {"K": text}});
            let got = verdict(client, &entry).map(|s| match s {
                Server::Command { env, .. } => env.get("K").cloned().unwrap(),
                Server::Http { .. } => panic!("no command"),
            });
            assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn entries_that_cannot_move_say_why() {
        use ClientKind::{Codex, GeminiCli, Vscode};
        for (client, entry, why) in [
            (Vscode, json!({"type": "sse", "url": "https://a/"}), "it speaks the sse transport"),
            (GeminiCli, json!({"url": "https://a/"}), "it speaks the old HTTP+SSE transport"),
            (Vscode, json!({"url": "http://intra/mcp"}), "its url is plain http to another machine"),
            (Vscode, json!({"command": "x", "envFile": ".env"}), "its variables are in an envFile"),
            (
                Codex,
                json!({"url": "https://a/", "bearer_token_env_var": "NO"}),
                "it uses the variable NO, which is not set here",
            ),
            (Vscode, json!({}), "it has neither a command nor a url"),
            (Vscode, json!({"command": "x", "args": [1]}), "its args are not all texts"),
        ] {
            assert_eq!(verdict(client, &entry).err().as_deref(), Some(why), "{entry}");
        }
        let ours = json!({"command": "/usr/bin/castra", "args": ["connect", "--server", "a"]});
        assert_eq!(verdict(Vscode, &ours).err().as_deref(), Some("wrapped"));
        let Ok(Server::Http { headers, .. }) =
            verdict(Codex, &json!({"url": "https://a/", "bearer_token_env_var": "TOKEN"}))
        else {
            panic!("no server")
        };
        assert_eq!(headers.get("Authorization").map(String::as_str), Some("Bearer s3cret"));
    }
}
