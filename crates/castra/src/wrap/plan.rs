//! What `castra wrap` would do, as a value: which entries move, under which names, what castra.toml gains,
//! which secrets go to files. Pure, so that the plan that is shown is the plan that is carried out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use castra_core::ServerName;

use super::{
    clients::{ClientKind, Place, Shape},
    edit::{self, Edited},
    entry::{self, Server, Surroundings, Verdict},
    tomlfile::{list, quoted},
};

/// Everything that would change.
#[derive(Default)]
pub(crate) struct Plan {
    /// Files of clients, in the order of `places`.
    pub(crate) files: Vec<FilePlan>,
    /// Servers that castra.toml gains.
    pub(crate) servers: Vec<NewServer>,
    /// Entries that stay as they are.
    pub(crate) left: Vec<Left>,
    /// Entries that are behind the gate already.
    pub(crate) already: usize,
}

/// A client's file with its entries that move.
pub(crate) struct FilePlan {
    pub(crate) client: ClientKind,
    pub(crate) file: PathBuf,
    /// Whether it lies in a project's folder, and may be shared with others.
    pub(crate) in_project: bool,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) entries: Vec<EntryPlan>,
}

/// An entry that moves.
pub(crate) struct EntryPlan {
    pub(crate) shape: Shape,
    pub(crate) path: Vec<String>,
    pub(crate) server: ServerName,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// A server that castra.toml gains.
pub(crate) struct NewServer {
    pub(crate) name: ServerName,
    pub(crate) server: Server,
    /// Whose entry it was first.
    pub(crate) origin: String,
}

/// An entry that stays as it is.
pub(crate) struct Left {
    pub(crate) client: ClientKind,
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    pub(crate) why: String,
}

/// What a plan is made from besides the files.
pub(crate) struct Setting<'a> {
    pub(crate) home: &'a Path,
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Names that castra.toml has already.
    pub(crate) taken: &'a [ServerName],
    pub(crate) skip: &'a [String],
    /// The program that clients start, and its arguments for a server and an agent.
    pub(crate) command: &'a str,
    pub(crate) args: &'a dyn Fn(&ServerName, ClientKind) -> Vec<String>,
}

/// Makes a plan from files that exist, with their texts.
pub(crate) fn plan(files: Vec<(Place, String)>, setting: &Setting<'_>) -> Plan {
    let mut plan = Plan::default();
    for (place, text) in files {
        plan_file(&mut plan, place, text, setting);
    }
    plan
}

fn plan_file(plan: &mut Plan, place: Place, before: String, setting: &Setting<'_>) {
    let Place { client, file, shapes, project } = place;
    let mut leave =
        |name: String, why: String| plan.left.push(Left { client, file: file.clone(), name, why });
    let found = match edit::find(&before, shapes) {
        Ok(found) => found,
        Err(why) => return leave(String::new(), format!("the file cannot be read: {why}")),
    };
    let mut after = before.clone();
    let mut entries = Vec::new();
    for found in found {
        let place = found.project.as_deref().or(project.as_deref());
        let around = Surroundings { home: setting.home, project: place, variable: setting.variable };
        let server = match entry::read(client, &found.fields, &around) {
            Verdict::Wrapped => {
                plan.already += 1;
                continue;
            }
            _ if setting.skip.contains(&found.name) => {
                leave(found.name, "you said so (--skip)".into());
                continue;
            }
            Verdict::Leave(why) => {
                leave(found.name, why);
                continue;
            }
            Verdict::Wrap(server) => server,
        };
        if let Some(obstacle) = found.obstacle {
            leave(found.name, obstacle.into());
            continue;
        }
        let Some(name) = name_for(&plan.servers, &server, &found.name, setting.taken) else {
            leave(found.name, "all names like it are taken".into());
            continue;
        };
        let shape = shape_of(shapes, &found.path);
        match edit::rewrite(&after, shape, &found.path, setting.command, &(setting.args)(&name, client)) {
            Ok(Edited { text, old, new }) => {
                after = text;
                entries.push(EntryPlan { shape, path: found.path, server: name.clone(), old, new });
                if !plan.servers.iter().any(|s| s.name == name) {
                    let origin = format!("{} ({})", client.title(), file.display());
                    plan.servers.push(NewServer { name, server, origin });
                }
            }
            Err(why) => leave(found.name, why),
        }
    }
    if !entries.is_empty() {
        let in_project = project.is_some();
        plan.files.push(FilePlan { client, file, in_project, before, after, entries });
    }
}

fn shape_of(shapes: &[Shape], path: &[String]) -> Shape {
    let fits = |shape: &&Shape| match shape {
        Shape::Json(keys) => path.len() == keys.len() + 1 && path.iter().zip(*keys).all(|(a, b)| a == b),
        Shape::JsonWithProjects | Shape::Toml => true,
    };
    shapes.iter().find(fits).copied().unwrap_or(Shape::JsonWithProjects)
}

/// A valid name that is not taken; the same server in two clients is one server.
fn name_for(known: &[NewServer], server: &Server, wanted: &str, taken: &[ServerName]) -> Option<ServerName> {
    if let Some(same) = known.iter().find(|s| s.server == *server) {
        return Some(same.name.clone());
    }
    let base = base_name(wanted);
    let free = |name: &ServerName| !taken.contains(name) && !known.iter().any(|s| s.name == *name);
    let numbered = (2..1000).map(|n: usize| {
        let number = format!("-{n}");
        let keep = NAME_CHARS_MAX.saturating_sub(number.len());
        format!("{}{number}", base.get(..keep).unwrap_or(&base).trim_end_matches('-'))
    });
    let names = std::iter::once(base.clone()).chain(numbered);
    names.filter_map(|name| ServerName::new(&name).ok()).find(free)
}

/// Characters of a server's name (castra-core).
const NAME_CHARS_MAX: usize = 40;

/// The wanted name with everything that a server's name cannot have made a hyphen.
fn base_name(wanted: &str) -> String {
    let mut name = String::new();
    for c in wanted.chars().take(200) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.get(..NAME_CHARS_MAX).unwrap_or(&name).trim_end_matches('-');
    if name.is_empty() { "server".into() } else { name.into() }
}

/// Secrets by the files (under the secrets folder) that will hold them.
pub(crate) type SecretFiles = BTreeMap<String, String>;

/// The text that castra.toml gains, and the files that it refers to. `folder` is how castra.toml calls
/// the folder of secrets.
pub(crate) fn tables(
    servers: &[NewServer],
    folder: &str,
    line_break: &str,
) -> (Vec<(ServerName, String)>, SecretFiles) {
    let mut secrets = SecretFiles::new();
    let mut texts = Vec::new();
    for NewServer { name, server, origin } in servers {
        let mut lines = vec![
            String::new(),
            format!("# Moved here by castra wrap, from {}.", one_line(origin)),
            "[[server]]".into(),
            format!("name = {}", quoted(name.as_str())),
        ];
        let (key, values) = match server {
            Server::Command { program, args, cwd, env } => {
                let command: Vec<String> = std::iter::once(program).chain(args).cloned().collect();
                lines.push(format!("command = {}", list(&command)));
                lines.extend(cwd.as_ref().map(|cwd| format!("cwd = {}", quoted(&cwd.to_string_lossy()))));
                ("env", env)
            }
            Server::Http { url, headers } => {
                lines.push(format!("url = {}", quoted(url)));
                ("headers", headers)
            }
        };
        let references: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(i, (variable, value))| {
                let file = secret_file(name, variable, i);
                let reference =
                    format!("{} = {}", bare_or_quoted(variable), quoted(&format!("file:{folder}/{file}")));
                secrets.insert(file, value.clone());
                reference
            })
            .collect();
        if !references.is_empty() {
            lines.push(format!("{key} = {{ {} }}", references.join(", ")));
        }
        texts.push((name.clone(), lines.iter().map(|l| format!("{l}{line_break}")).collect()));
    }
    (texts, secrets)
}

fn secret_file(server: &ServerName, variable: &str, index: usize) -> String {
    let clean = variable.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if clean && !variable.is_empty() { format!("{server}.{variable}") } else { format!("{server}.{index}") }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.into() } else { quoted(key) }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_free() {
        let server = |program: &str| Server::Command {
            program: program.into(),
            args: Vec::new(),
            cwd: None,
            env: BTreeMap::new(),
        };
        let known = [NewServer {
            name: ServerName::new("files").unwrap(),
            server: server("a"),
            origin: String::new(),
        }];
        let taken = [ServerName::new("git").unwrap()];
        let long = "x".repeat(60);
        for (wanted, program, expected) in [
            ("files", "a", "files"),
            ("other", "a", "files"),
            ("files", "b", "files-2"),
            ("Git", "b", "git-2"),
            ("My_Server (new)", "b", "my-server-new"),
            ("@scope/pkg", "b", "scope-pkg"),
            ("\u{65e5}\u{672c}", "b", "server"),
            (&long, "b", &long[..40]),
        ] {
            let name = name_for(&known, &server(program), wanted, &taken);
            assert_eq!(name.as_ref().map(ServerName::as_str), Some(expected), "{wanted}");
        }
    }

    #[test]
    fn tables_are_configuration() {
        let env = [("API_KEY", "s3cret"), ("odd name", "x")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let server = Server::Command {
            program: "npx".into(),
            args: vec!["-y".into(), "a \"b\"".into()],
            cwd: Some("/p".into()),
            env: env.into(),
        };
        let new = NewServer { name: ServerName::new("files").unwrap(), server, origin: "X\n(y)".into() };
        let (tables, secrets) = tables(&[new], "castra-state/secrets", "\n");
        let (_, text) = tables.first().unwrap();
        assert!(!text.contains("s3cret"));
        let config = crate::config::Config::parse(text, Path::new("/c")).unwrap();
        let crate::config::Upstream::Command { env, .. } = &config.server.first().unwrap().upstream else {
            panic!("no command")
        };
        let file = crate::config::Text::File("/c/castra-state/secrets/files.API_KEY".into());
        assert_eq!(env.get("API_KEY"), Some(&file));
        assert_eq!(secrets.get("files.1").map(String::as_str), Some("x"));
    }
}
