//! The rules: what is said of a call, argument by argument. Each rule answers for itself; none allows
//! anything.

use std::sync::Arc;

use castra_core::{Coverage, FlowFacts};
use serde_json::Value;

use crate::{
    ArgumentFinding, ArgumentKind, Judgement, Origin, Run, Tool,
    active::{Target, targets},
    dates,
    json::{Leaf, Scalar, leaves, scalar_text},
    labels::{Label, Why, same_word},
    limits::{ARGUMENT_BYTES_MAX, FINDINGS_MAX},
    scanned::Scanned,
    text::{is_stop, shown, words},
};

/// A judgement in the making.
struct Court<'r> {
    run: &'r Run,
    tool: &'r Tool<'r>,
    arguments: &'r Value,
    judgement: Judgement,
}

/// Which list of the facts an argument is put on.
#[derive(Clone, Copy, PartialEq)]
enum List {
    Unfounded,
    Active,
    Leaking,
}

pub(crate) fn judge(run: &Run, tool: &Tool<'_>, arguments: &Value) -> Judgement {
    let facts = FlowFacts {
        coverage: run.coverage,
        described: tool.described,
        tainted: run.tainted,
        prompted: !run.prompt.is_empty(),
        secret: run.secret,
        suspect: run.is_suspect(),
        intended: tool.reads() || run.prompt.asks(tool.name(), &tool.manifest.intent),
        ..FlowFacts::default()
    };
    let mut court = Court { run, tool, arguments, judgement: Judgement { facts, findings: Vec::new() } };
    if !tool.reads() && run.tainted {
        court.intent();
        court.arguments();
    }
    court.texts();
    court.judgement
}

impl Court<'_> {
    fn intent(&mut self) {
        if self.judgement.facts.intended {
            return;
        }
        let fix = if self.run.prompt.is_empty() {
            "Nothing that the user said is known. A person can approve the call.".to_owned()
        } else {
            format!(
                "The user has to ask for {} in so many words, or a person approves the call.",
                self.tool.name()
            )
        };
        self.find("", self.tool.name(), None, Origin::Nowhere, "intent", fix);
    }

    fn arguments(&mut self) {
        let Some(members) = self.arguments.as_object() else {
            if !self.arguments.is_null() {
                self.put(List::Unfounded, "arguments", &self.arguments.to_string(), None, "shape");
            }
            return;
        };
        for (name, value) in members {
            // Free text is judged together with what it takes along.
            if let Some(kind) = self.kind(name) {
                self.critical(name, &kind, value);
            }
        }
    }

    /// The kind of an argument. Of a tool that nobody described each argument is the user's to write.
    fn kind(&self, name: &str) -> Option<ArgumentKind> {
        if !self.tool.described {
            return Some(ArgumentKind::Prompt);
        }
        self.tool.manifest.args.get(name).cloned()
    }

    fn critical(&mut self, name: &str, kind: &ArgumentKind, value: &Value) {
        match value {
            // Each alone may be within the bound and all together not.
            Value::Array(items) if *kind == ArgumentKind::Bounded && !items.is_empty() => {
                self.put(List::Unfounded, name, &value.to_string(), Some(kind), "shape");
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.item(name, &format!("{name}[{i}]"), kind, item);
                }
            }
            _ => self.item(name, name, kind, value),
        }
    }

    fn item(&mut self, name: &str, shown_as: &str, kind: &ArgumentKind, value: &Value) {
        let value = unwrapped(value);
        if matches!(value, Value::Null | Value::Bool(_)) || value.as_str().is_some_and(str::is_empty) {
            return;
        }
        let Some(text) = scalar_text(value) else {
            // An empty list or object says nothing.
            if value.as_array().is_none_or(|a| !a.is_empty())
                && value.as_object().is_none_or(|o| !o.is_empty())
            {
                self.put_item(List::Unfounded, name, shown_as, &value.to_string(), Some(kind), "shape");
            }
            return;
        };
        if text.len() > ARGUMENT_BYTES_MAX {
            self.put_item(List::Unfounded, name, shown_as, &text, Some(kind), "too-long");
        } else if let Some(rule) = self.fault(kind, value, &text) {
            self.put_item(List::Unfounded, name, shown_as, &text, Some(kind), rule);
        }
    }

    /// The rule that a critical value breaks.
    fn fault(&self, kind: &ArgumentKind, value: &Value, text: &str) -> Option<&'static str> {
        let run = self.run;
        let good = match kind {
            ArgumentKind::Prompt => run.prompt.wrote(text),
            ArgumentKind::Quoted => run.prompt.quoted(text),
            ArgumentKind::Exact => self.exact(text),
            ArgumentKind::Directory => {
                self.exact(text) || (run.known.listed(text).is_some() && self.plain_company())
            }
            ArgumentKind::Composed => self.composed(text),
            ArgumentKind::Bounded => return self.bounded(value),
            ArgumentKind::Date => self.date(text),
            ArgumentKind::Id(object) => run.known.has_id(object, text) || run.prompt.names_id(object, text),
        };
        let rule = match kind {
            ArgumentKind::Prompt => "prompt",
            ArgumentKind::Quoted => "quoted",
            ArgumentKind::Exact => "exact",
            ArgumentKind::Directory => "directory",
            ArgumentKind::Composed => "composed",
            ArgumentKind::Bounded => "bounded",
            ArgumentKind::Date => "date",
            ArgumentKind::Id(_) => "id",
        };
        (!good).then_some(rule)
    }

    fn exact(&self, text: &str) -> bool {
        self.run.exact(text)
    }

    fn composed(&self, text: &str) -> bool {
        if self.exact(text) {
            return true;
        }
        let mine = |word: &str| self.run.prompt.has_word(word) || is_stop(word);
        self.run.known.all_words(text, mine) && targets(text).iter().all(|t| self.run.gave(t, text))
    }

    /// Whether all free text of the call is the user's own, so that a listed recipient learns nothing new.
    fn plain_company(&self) -> bool {
        let Some(members) = self.arguments.as_object() else { return false };
        let free = members.iter().filter(|(name, _)| self.kind(name).is_none());
        let mut texts = free.filter_map(|(_, value)| leaves(value)).flatten().filter_map(|l| l.text());
        texts.all(|text| {
            words(&text).all(|word| {
                let word = word.to_lowercase();
                self.run.prompt.has_word(&word) || is_stop(&word) || self.run.known.has_word(&word)
            })
        })
    }

    fn bounded(&self, value: &Value) -> Option<&'static str> {
        let Some(amount) = value.as_f64() else { return Some("bounded") };
        if amount <= 0.0 {
            return Some("bounded");
        }
        let own = self.run.prompt.amounts_for(self.tool.name(), &self.tool.manifest.intent);
        let bound = own.iter().chain(self.run.known.amounts()).copied().fold(0.0, f64::max);
        let sum = self.run.spent(self.tool, self.arguments) + amount;
        (sum > bound + bound * 1e-9).then_some("bounded")
    }

    fn date(&self, text: &str) -> bool {
        let (days, years) = (dates::days(text), dates::years(text));
        let (prompt, known) = (&self.run.prompt, &self.run.known);
        let days_known = days.iter().all(|d| prompt.days().contains(d) || known.days().contains(d));
        let years_known = prompt.years().is_empty()
            || years.iter().all(|y| prompt.years().contains(y) || known.years().contains(y));
        !days.is_empty() && days_known && years_known
    }

    /// Free text, and confidential values in arguments that take them somewhere else.
    fn texts(&mut self) {
        let Some(members) = self.arguments.as_object() else { return };
        let acts = !self.tool.reads() && self.run.tainted;
        for (name, value) in members {
            let kind = self.kind(name);
            let free = acts && kind.is_none();
            for text in free_texts(value) {
                let Some(text) = text.filter(|t| t.len() <= ARGUMENT_BYTES_MAX) else {
                    self.unread(name, free);
                    break;
                };
                let text = Scanned::new(&text);
                if free {
                    self.free(name, &text);
                }
                self.leak(name, &text);
            }
        }
    }

    /// An argument that is more than is looked at.
    fn unread(&mut self, name: &str, free: bool) {
        if free {
            self.put(List::Active, name, "", None, "too-long");
        }
        if self.run.labels_stand() {
            self.put(List::Leaking, name, "", self.kind(name).as_ref(), "too-long");
        }
    }

    fn free(&mut self, name: &str, text: &Scanned<'_>) {
        for target in
            text.targets.iter().filter(|t| !self.run.gave(t, text.text)).cloned().collect::<Vec<_>>()
        {
            let rule = if target.order { "order" } else { "active" };
            self.put_target(name, &target, rule);
        }
    }

    fn leak(&mut self, name: &str, text: &Scanned<'_>) {
        let prompt = &self.run.prompt;
        let mine = |piece: &str| prompt.wrote(piece) || prompt.has_word(&piece.to_lowercase());
        let carried = self.run.labels.carried(text, mine, |label| self.leaves_by(name, label));
        let rules: Vec<(&'static str, String)> =
            carried.iter().take(4).map(|c| (leak_rule(c.label), c.shown.clone())).collect();
        for (rule, piece) in rules {
            self.put_item(List::Leaking, name, name, &piece, self.kind(name).as_ref(), rule);
        }
        if self.tool.reads() && self.run.tainted {
            self.built(name, text);
        }
    }

    /// A link in the arguments of a read that was seen nowhere was built by the agent: its name may carry
    /// anything.
    fn built(&mut self, name: &str, text: &Scanned<'_>) {
        let built: Vec<Target> = text
            .targets
            .iter()
            .filter(|t| !t.order && !t.name.contains('@') && t.name.contains(['/', '?', '.']))
            .filter(|t| !self.run.gave(t, text.text) && self.run.seen.find_target(&t.name).is_none())
            .cloned()
            .collect();
        for target in built {
            self.put_item(List::Leaking, name, name, &target.name, self.kind(name).as_ref(), "built");
        }
    }

    /// Whether what carries this label leaves its place by this argument.
    fn leaves_by(&self, name: &str, label: &Label) -> bool {
        let elsewhere = label.server != self.tool.server();
        match &label.why {
            Why::Declared { places } => (!self.tool.reads() || elsewhere) && !self.allowed(places),
            Why::Unlocated => {
                let free = self
                    .kind(name)
                    .is_none_or(|k| matches!(k, ArgumentKind::Composed | ArgumentKind::Prompt));
                if self.tool.reads() { elsewhere } else { free }
            }
            Why::Credential { word, strong } => {
                let asked = self.run.prompt.asks_about(self.tool.name(), &self.tool.manifest.intent, word)
                    || self.kind(name).is_some_and(|_| same_word(name, word));
                let read = self.tool.reads() && !elsewhere && !strong;
                !asked && !read
            }
        }
    }

    /// Whether a call goes only to these places.
    fn allowed(&self, places: &[String]) -> bool {
        let tool = places.iter().any(|place| {
            place == self.tool.id
                || place.strip_suffix("/*").is_some_and(|server| server == self.tool.server())
        });
        if tool {
            return true;
        }
        let addresses: Vec<String> = leaves(self.arguments)
            .unwrap_or_default()
            .iter()
            .filter(|l| self.kind(l.key).is_some())
            .filter_map(Leaf::text)
            .filter(|t| t.contains('@'))
            .map(|t| t.to_lowercase())
            .collect();
        let goes = |address: &String| {
            places.iter().any(|place| {
                let place = place.to_lowercase();
                *address == place || (place.starts_with('@') && address.ends_with(&place))
            })
        };
        !addresses.is_empty() && addresses.iter().all(goes)
    }

    fn put_target(&mut self, name: &str, target: &Target, rule: &'static str) {
        let place = if target.order {
            self.run.seen.find(&target.name)
        } else {
            self.run.seen.find_target(&target.name)
        };
        push(&mut self.judgement.facts.active, name);
        let origin = place.map_or(Origin::Nowhere, |p| untrusted(&p));
        if matches!(origin, Origin::Untrusted { .. }) {
            push(&mut self.judgement.facts.injected, name);
        }
        let fix = fix(rule, name);
        self.find(name, &target.name, None, origin, rule, fix);
    }

    fn put(&mut self, list: List, name: &str, text: &str, kind: Option<&ArgumentKind>, rule: &'static str) {
        self.put_item(list, name, name, text, kind, rule);
    }

    fn put_item(
        &mut self,
        list: List,
        name: &str,
        shown_as: &str,
        text: &str,
        kind: Option<&ArgumentKind>,
        rule: &'static str,
    ) {
        let origin = self.origin(text);
        let facts = &mut self.judgement.facts;
        push(
            match list {
                List::Unfounded => &mut facts.unfounded,
                List::Active => &mut facts.active,
                List::Leaking => &mut facts.leaking,
            },
            name,
        );
        let strangers = matches!(origin, Origin::Untrusted { .. }) && !self.run.known.is_attested(text);
        let guess = matches!(kind, Some(ArgumentKind::Id(_))) && origin == Origin::Nowhere;
        if guess && facts.coverage == Coverage::Full && facts.prompted {
            push(&mut facts.unseen, name);
        }
        if strangers && list == List::Unfounded {
            push(&mut facts.injected, name);
        }
        let fix = fix(rule, name);
        self.find(shown_as, text, kind, origin, rule, fix);
    }

    fn origin(&self, text: &str) -> Origin {
        let run = self.run;
        if run.prompt.wrote(text) {
            return Origin::Prompt;
        }
        if let Some(source) = run.known.exact(text).or_else(|| run.known.listed(text)) {
            return Origin::Trusted { tool: run.seen.source_of(source).map_or("", |s| &s.name).into() };
        }
        run.seen.find(text).map_or(Origin::Nowhere, |place| untrusted(&place))
    }

    fn find(
        &mut self,
        argument: &str,
        text: &str,
        kind: Option<&ArgumentKind>,
        origin: Origin,
        rule: &'static str,
        fix: String,
    ) {
        if self.judgement.findings.len() < FINDINGS_MAX {
            self.judgement.findings.push(ArgumentFinding {
                argument: argument.into(),
                shown: shown(text, ArgumentFinding::SHOWN_MAX),
                kind: kind.cloned(),
                origin,
                rule,
                fix,
            });
        }
    }
}

fn untrusted(place: &crate::seen::Place) -> Origin {
    Origin::Untrusted {
        record: place.record,
        source: place.source.as_str().into(),
        excerpt: place.excerpt.clone(),
    }
}

fn leak_rule(label: Option<&Label>) -> &'static str {
    match label.map(|l| &l.why) {
        Some(Why::Declared { .. }) => "confidential",
        Some(Why::Unlocated) => "not-asked-for",
        Some(Why::Credential { .. }) => "credential",
        None => "too-much-read",
    }
}

fn push(list: &mut Vec<Arc<str>>, name: &str) {
    if !list.iter().any(|n| **n == *name) {
        list.push(name.into());
    }
}

/// An argument that wraps one value, such as `{"type": "file", "file_id": 7}`, is that value. Any other shape
/// stays what it is.
fn unwrapped(value: &Value) -> &Value {
    let Some(members) = value.as_object() else { return value };
    let mut rest = members.iter().filter(|(key, _)| *key != "type");
    let kind_is_word = members
        .get("type")
        .is_none_or(|t| t.as_str().is_some_and(|t| t.bytes().all(|b| b.is_ascii_lowercase())));
    match (rest.next(), rest.next()) {
        (Some((_, only)), None) if kind_is_word && !only.is_object() && !only.is_array() => only,
        _ => value,
    }
}

/// The texts of an argument, its keys included; nothing at the end if there is more than is looked at.
fn free_texts(value: &Value) -> Vec<Option<String>> {
    let Some(leaves) = leaves(value) else { return vec![None] };
    leaves
        .iter()
        .filter_map(|leaf| match leaf.value {
            Scalar::Key(key) => Some(Some(key.to_owned())),
            Scalar::Value(value) => scalar_text(value).map(Some),
        })
        .collect()
}

/// What would change a finding.
fn fix(rule: &str, name: &str) -> String {
    match rule {
        "prompt" => format!("The user writes the value of {name}, or a person approves the call."),
        "quoted" => format!("The user puts the value of {name} in quotes, or a person approves the call."),
        "exact" => format!(
            "The value of {name} has to come from the user or from a source that the manifest trusts; or a person approves the call."
        ),
        "directory" => format!(
            "{name} has to be one that the user named, or the text with it the user's own; or a person approves the call."
        ),
        "composed" => format!(
            "{name} may only use words of the user and of trusted sources; or a person approves the call."
        ),
        "bounded" => format!(
            "{name}, with what went to the same place before, may not exceed an amount that the user named; or a person approves the call."
        ),
        "date" => format!("The user names the day for {name}, or a person approves the call."),
        "id" => format!(
            "The user names the object of {name} so that one record fits; or a person approves the call."
        ),
        "shape" => format!(
            "{name} has a form that cannot be checked; pass a plain value, or a person approves the call."
        ),
        "too-long" => {
            format!("{name} is longer than what is checked; shorten it, or a person approves the call.")
        }
        "active" => format!(
            "A link, address or account in {name} comes from no trusted source; leave it out, or a person approves the call."
        ),
        "order" => format!(
            "{name} gives orders to a machine that the user did not write; leave them out, or a person approves the call."
        ),
        "confidential" => format!(
            "{name} carries a confidential value; its label names where it may go. A person can approve the call."
        ),
        "credential" => format!(
            "{name} carries what looks like a credential; the user asks for just that, or a person approves the call."
        ),
        "not-asked-for" => format!(
            "{name} carries what was read without the user asking for it; the user names the source, or a person approves the call."
        ),
        "built" => format!(
            "The link in {name} was seen nowhere; use one that the user or a result gave, or a person approves the call."
        ),
        _ => format!("A person can approve the call with this {name}."),
    }
}
