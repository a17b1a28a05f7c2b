//! The one parser: TOML text to a typed value, with every complaint at its line and key.
//!
//! Unknown keys are found by walking the document along the type's JSON Schema, so that all of them
//! are named at once, each with the nearest key that exists. Types and values are checked by serde;
//! its error carries a span, from which line and key follow.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use castra_identity::{SiteRules, TrustDomain};
use castra_inspect::{Action, Inspector, Settings};
use castra_store::StoreError;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, Tls, Url};

/// Bytes of a configuration file or tool manifest; more is not one.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its line, from 1.
    pub line: usize,
    /// The key, as a path (`gate.listen`); empty when the file is no TOML.
    pub key: String,
    /// What is wrong and what is allowed. Never holds the value of a secret.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Why a configuration file or tool manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error(transparent)]
    Unreadable(#[from] StoreError),
    /// It says something wrong.
    #[error("{} is not good:{}", file.display(), listed(problems))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, in the order of lines.
        problems: Vec<Problem>,
    },
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}

/// A configuration with where it came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// What it says; relative paths are joined to `folder`.
    pub config: Config,
    /// The file; none when there is none and everything is as by default.
    pub file: Option<PathBuf>,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
}

impl Config {
    /// The name that is looked for when none is given.
    pub const FILE: &str = "castra.toml";

    /// Reads a configuration. `folder` is where relative paths start.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Problem>> {
        let (config, document) = read_strictly::<Self>(text)?;
        let problems = config.contradictions(&document);
        if problems.is_empty() { Ok(config.anchor(folder)) } else { Err(problems) }
    }

    /// Reads the given file; without one, `castra.toml` in `folder` if it is there.
    pub fn load(file: Option<&Path>, folder: &Path) -> Result<Loaded, ConfigError> {
        let default = folder.join(Self::FILE);
        let file = match file {
            Some(file) => file,
            None if default.exists() => &default,
            None => return Ok(Self::without_file(folder)),
        };
        let text = read_file(file)?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        match Self::parse(&text, &folder) {
            Ok(config) => Ok(Loaded { config, file: Some(file.into()), folder }),
            Err(problems) => Err(ConfigError::Wrong { file: file.into(), problems }),
        }
    }

    /// The configuration of a folder without a file.
    pub(crate) fn without_file(folder: &Path) -> Loaded {
        Loaded { config: Self::default().anchor(folder), file: None, folder: folder.into() }
    }

    /// What each key may say alone but not together.
    fn contradictions(&self, document: &Document<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |path: &[&str], what: String| problems.push(document.problem(path, what));
        for (section, tls, listen) in
            [("gate", &self.gate.tls, self.gate.listen), ("console", &self.console.tls, self.console.listen)]
        {
            if *tls == Some(Tls::Off) && !listen.ip().is_loopback() {
                let what = format!(
                    "\"off\" needs a loopback address, and {section}.listen is {listen}: use \"auto\" or files"
                );
                say(&[section, "tls"], what);
            }
        }
        if self.gate.listen == self.console.listen && self.gate.listen.port() != 0 {
            say(&["console", "listen"], "the gate listens there already: use another port".into());
        }
        for (section, key, rules) in [
            ("gate", "hosts", SiteRules::new(&[], &self.gate.hosts, &[])),
            ("gate", "origins", SiteRules::new(&[], &[], &self.gate.origins)),
            ("console", "hosts", SiteRules::new(&[], &self.console.hosts, &[])),
        ] {
            if let Err(e) = rules {
                say(&[section, key], e.to_string());
            }
        }
        if let Err(e) = TrustDomain::new(&self.gate.trust_domain) {
            say(&["gate", "trust_domain"], e.to_string());
        }
        for (i, server) in self.server.iter().enumerate() {
            if self.server.iter().take(i).any(|other| other.name == server.name) {
                let what = format!("another server is called {} already: names are unique", server.name);
                say(&["server", &i.to_string(), "name"], what);
            }
        }
        // The built-in list is good; leaving it out keeps reading quick.
        let own = Settings { secrets: Action::Off, ..self.inspect.settings() };
        if !own.patterns.is_empty()
            && let Err(e) = Inspector::new(&own)
        {
            let at = self.inspect.pattern.iter().rposition(|p| e.pattern() == Some(p.name.as_str()));
            let at = at.map(|at| at.to_string());
            let path = at.as_deref().map_or(vec!["inspect"], |at| vec!["inspect", "pattern", at]);
            say(&path, e.to_string());
        }
        for (i, budget) in self.budget.iter().enumerate() {
            if self.budget.iter().take(i).any(|other| other.name == budget.name) {
                let what = format!("another budget is called {} already: names are unique", budget.name);
                say(&["budget", &i.to_string(), "name"], what);
            }
        }
        for (i, model) in self.model.iter().enumerate() {
            if self.model.iter().take(i).any(|other| other.name == model.name) {
                let what = format!("another model is called {} already: names are unique", model.name);
                say(&["model", &i.to_string(), "name"], what);
            }
        }
        for (i, issuer) in self.issuer.iter().enumerate() {
            let place = i.to_string();
            if self.issuer.iter().take(i).any(|other| other.issuer == issuer.issuer) {
                say(&["issuer", &place, "issuer"], "this issuer stands here twice".into());
            }
            if issuer.algorithms.is_empty() {
                say(&["issuer", &place, "algorithms"], "name at least one, or leave the key out".into());
            }
            let url = Url::parse(&issuer.issuer);
            if url.is_none() {
                say(&["issuer", &place, "issuer"], format!("expected {}", Url::RULE));
            }
            for (key, url) in [("issuer", url.as_ref()), ("jwks_url", issuer.jwks_url.as_ref())] {
                if url.is_some_and(|url| !url.is_protected()) {
                    let what = "keys that come over plain http can be anyone's: use https".into();
                    say(&["issuer", &place, key], what);
                }
            }
        }
        problems
    }
}

/// Reads a whole file of ours that people write.
pub(crate) fn read_file(file: &Path) -> Result<String, ConfigError> {
    Ok(castra_store::files::read_text(file, FILE_BYTES_MAX)?)
}

/// Reads TOML into a type, complaining about every unknown key at once, else about the first bad value.
pub(crate) fn read_strictly<T: DeserializeOwned + JsonSchema>(
    text: &str,
) -> Result<(T, Document<'_>), Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(e) => {
            let line = e.span().map_or(1, |span| line_of(text, span.start));
            return Err(vec![Problem {
                line,
                key: String::new(),
                what: format!("this is no TOML: {}", e.message()),
            }]);
        }
    };
    let document = Document { text, root };
    let schema = schemars::schema_for!(T).to_value();
    let mut unknown = UnknownKeys { document: &document, schema: &schema, problems: Vec::new() };
    unknown.table(&schema, document.root.get_ref(), &mut Vec::new());
    if !unknown.problems.is_empty() {
        let mut problems = unknown.problems;
        problems.sort_by_key(|p| p.line);
        return Err(problems);
    }
    match T::deserialize(toml::Deserializer::from(document.root.clone())) {
        Ok(value) => Ok((value, document)),
        Err(e) => Err(vec![document.bad_value(e.message(), e.span().unwrap_or_default())]),
    }
}

/// A parsed file, for finding the line of a key and the key at a place.
pub(crate) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl Document<'_> {
    /// A problem at a key; at the nearest table around it when the key is not written.
    fn problem(&self, path: &[&str], what: String) -> Problem {
        let mut start = 0;
        let mut names = Vec::new();
        let mut table = Some(self.root.get_ref());
        let mut steps = path.iter();
        while let (Some(here), Some(step)) = (table, steps.next()) {
            names.push((*step).to_owned());
            let Some((key, value)) = here.iter().find(|(key, _)| key.get_ref() == step) else { break };
            start = key.span().start;
            table = match value.get_ref() {
                DeValue::Table(inner) => Some(inner),
                DeValue::Array(items) => steps.next().and_then(|index| {
                    let index: usize = index.parse().ok()?;
                    let item = items.get(index)?;
                    start = item.span().start;
                    names.push(item_name(item.get_ref(), index));
                    item.get_ref().as_table()
                }),
                _ => None,
            };
        }
        Problem { line: line_of(self.text, start), key: path_text(&names), what }
    }

    fn bad_value(&self, message: &str, span: Range<usize>) -> Problem {
        let mut names = Vec::new();
        descend(self.root.get_ref(), &span, &mut names);
        // Values under these keys may be secrets, and serde's message quotes what it found.
        let secret = names.iter().any(|name| matches!(name.as_str(), "env" | "headers" | "key"));
        let what = if secret && message.starts_with("invalid") {
            "expected a text, such as \"env:NAME\" or \"file:PATH\"".to_owned()
        } else {
            // serde's words, without its terms of art.
            [
                ("unknown variant", "unknown value"),
                ("missing field", "missing key"),
                ("invalid type: ", "found "),
                ("invalid value: ", "found "),
            ]
            .iter()
            .fold(message.to_owned(), |text, (theirs, ours)| text.replacen(theirs, ours, 1))
        };
        Problem { line: line_of(self.text, span.start), key: path_text(&names), what }
    }
}

fn path_text(names: &[String]) -> String {
    names.join(".")
}

/// How an element of an array is called: by its name if it has one, else by its place, from 1.
fn item_name(item: &DeValue<'_>, index: usize) -> String {
    let name = item.as_table().and_then(|t| t.iter().find(|(key, _)| key.get_ref() == "name"));
    match name.map(|(_, value)| value.get_ref()) {
        Some(DeValue::String(name)) => name.chars().take(64).collect(),
        _ => (index + 1).to_string(),
    }
}

/// Appends the keys that lead to the innermost value around `span`.
fn descend(table: &DeTable<'_>, span: &Range<usize>, names: &mut Vec<String>) {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        let inside = holds(value.span());
        if !inside && !holds(key.span()) && !reaches(value.get_ref(), span) {
            continue;
        }
        names.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => descend(inner, span, names),
            DeValue::Array(items) => {
                let found = items
                    .iter()
                    .enumerate()
                    .find(|(_, item)| holds(item.span()) || reaches(item.get_ref(), span));
                if let Some((index, item)) = found {
                    names.push(item_name(item.get_ref(), index));
                    if let DeValue::Table(inner) = item.get_ref() {
                        descend(inner, span, names);
                    }
                }
            }
            _ => {}
        }
        return;
    }
}

/// Whether a table that spans only its header (`[a]`) has the place somewhere below it.
fn reaches(value: &DeValue<'_>, span: &Range<usize>) -> bool {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    match value {
        DeValue::Table(t) => {
            t.iter().any(|(k, v)| holds(k.span()) || holds(v.span()) || reaches(v.get_ref(), span))
        }
        DeValue::Array(items) => items.iter().any(|v| holds(v.span()) || reaches(v.get_ref(), span)),
        _ => false,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// Walks a document along a schema and notes the keys that the schema does not have.
struct UnknownKeys<'a> {
    document: &'a Document<'a>,
    schema: &'a Value,
    problems: Vec<Problem>,
}

impl<'a> UnknownKeys<'a> {
    fn table(&mut self, schema: &'a Value, table: &DeTable<'_>, path: &mut Vec<String>) {
        let shapes = self.shapes(schema);
        let fields: Vec<(&String, &Value)> =
            shapes.iter().filter_map(|s| s.get("properties")?.as_object()).flatten().collect();
        // A map from any key to values of one kind.
        let values = shapes.iter().find_map(|s| s.get("additionalProperties").filter(|v| v.is_object()));
        for (key, value) in table {
            let name = key.get_ref();
            path.push(name.to_string());
            match (fields.iter().find(|(field, _)| field.as_str() == name), values) {
                (Some((_, schema)), _) => self.value(schema, value.get_ref(), path),
                (None, Some(schema)) => self.value(schema, value.get_ref(), path),
                (None, None) if fields.is_empty() => {}
                (None, None) => self.problems.push(Problem {
                    line: line_of(self.document.text, key.span().start),
                    key: path_text(path),
                    what: unknown_key(name, fields.iter().map(|(field, _)| field.as_str())),
                }),
            }
            path.pop();
        }
    }

    fn value(&mut self, schema: &'a Value, value: &DeValue<'_>, path: &mut Vec<String>) {
        match value {
            DeValue::Table(table) => self.table(schema, table, path),
            DeValue::Array(items) => {
                let shapes = self.shapes(schema);
                let Some(schema) = shapes.iter().find_map(|s| s.get("items")) else { return };
                for (index, item) in items.iter().enumerate() {
                    path.push(item_name(item.get_ref(), index));
                    self.value(schema, item.get_ref(), path);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// The schema itself and, followed through references and alternatives, all that it may be.
    fn shapes(&self, schema: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        let mut open = vec![schema];
        while let Some(schema) = open.pop() {
            found.push(schema);
            let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
            open.extend(target.and_then(|pointer| self.schema.pointer(pointer)));
            for key in ["anyOf", "oneOf", "allOf"] {
                open.extend(schema.get(key).and_then(Value::as_array).into_iter().flatten());
            }
        }
        found
    }
}

fn unknown_key<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let shown: String = name.chars().take(64).collect();
    let near = known
        .clone()
        .map(|k| (strsim::jaro_winkler(k, name), k))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, near)) => format!("there is no key {shown:?}: did you mean {near:?}?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("there is no key {shown:?}: there are {}", known.join(", "))
        }
    }
}
