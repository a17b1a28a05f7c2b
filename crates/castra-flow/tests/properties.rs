//! What no sequence of events can do: clean a run, make an untrusted value trusted, or depend on a restart.
//! `CASTRA_CASES=100000 cargo test --release -p castra-flow --test properties` tries 100,000 sequences of each kind.
#![allow(clippy::disallowed_methods)] // a test reads its manifests
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail in this way

use std::{collections::HashSet, sync::LazyLock};

use castra_core::Effect;
use castra_flow::{Content, Coverage, Judgement, Manifest, Mark, Returned, Run, Tool};
use proptest::prelude::*;
use serde_json::{Value, json};

static OFFICE: LazyLock<Manifest> =
    LazyLock::new(|| Manifest::parse(include_str!("adaptive/manifests/office.toml")).unwrap());
static VAULT: LazyLock<Manifest> =
    LazyLock::new(|| Manifest::parse(include_str!("adaptive/manifests/vault.toml")).unwrap());

const PROMPT: &str = "Mail the plan to ann@corp.example, schedule a meeting 'Review' on 2024-05-19, delete the file 'old', create a file 'sum' and add a contact.";
/// Values that only strangers ever write.
const EVIL: &[&str] = &["eve@evil.example", "mallory77", "XX99 1234", "trudy@evil.example"];
/// Words that users and strangers write.
const PLAIN: &[&str] =
    &["plan", "review", "old", "ann@corp.example", "budget", "meeting", "lake", "2024-05-19", ""];

/// Something that happens in a run.
#[derive(Debug, Clone)]
enum Event {
    /// An untrusted tool returns text of these words.
    Text(Vec<usize>, bool),
    /// An untrusted tool returns records; strangers fill every field that the server does not vouch for.
    Records(Vec<(usize, usize)>),
    /// A tool writes words, a trusted tool returns them later.
    Written(Vec<usize>),
    /// A trusted tool returns what was asked.
    Echoed(usize),
    Received(Vec<usize>),
    /// A call that was held is approved, or only held.
    Held(bool),
    Secret,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let words = || prop::collection::vec(0..EVIL.len() + PLAIN.len(), 0..5);
    prop_oneof![
        (words(), any::<bool>()).prop_map(|(w, e)| Event::Text(w, e)),
        prop::collection::vec((0..EVIL.len(), 0..PLAIN.len()), 0..4).prop_map(Event::Records),
        words().prop_map(Event::Written),
        (0..EVIL.len()).prop_map(Event::Echoed),
        words().prop_map(Event::Received),
        any::<bool>().prop_map(Event::Held),
        Just(Event::Secret),
        Just(Event::Restart),
    ]
}

fn word(i: usize) -> &'static str {
    EVIL.get(i).or_else(|| PLAIN.get(i - EVIL.len())).copied().unwrap_or_default()
}

fn text(words: &[usize]) -> String {
    words.iter().map(|i| word(*i)).collect::<Vec<_>>().join(" ")
}

struct World {
    run: Run,
    marks: HashSet<Mark>,
    /// Words that were written and that a trusted tool may return.
    stored: Vec<String>,
    restarts: bool,
}

fn tool(id: &'static str) -> Tool<'static> {
    let (server, name) = id.split_once('/').unwrap();
    let manifest = if server == "vault" { &VAULT.tools[name] } else { &OFFICE.tools[name] };
    Tool {
        id,
        described: true,
        effect: manifest.effect.unwrap_or(Effect::Act),
        external: false,
        manifest,
        schema: None,
    }
}

impl World {
    fn new(restarts: bool) -> Self {
        let mut run = Run::new(Coverage::Full);
        run.user_said(PROMPT);
        Self { run, marks: HashSet::new(), stored: Vec::new(), restarts }
    }

    fn returned(&mut self, id: &'static str, arguments: &Value, content: Content<'_>, is_error: bool) {
        let returned = Returned { content, is_error, record: 1 };
        self.run.returned(&tool(id), arguments, returned, &self.marks);
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Text(words, error) => {
                let arguments = json!({"path": "plan"});
                self.returned("office/file_read", &arguments, Content::Text(&text(words)), *error);
            }
            Event::Records(rows) => {
                let rows: Vec<Value> = rows
                    .iter()
                    .map(|(evil, plain)| json!({"id": format!("{evil}{plain}"), "name": format!("x{plain}"), "content": EVIL[*evil], "size": 3}))
                    .collect();
                let arguments = json!({"query": "plan"});
                self.returned("office/file_find", &arguments, Content::Json(&Value::from(rows)), false);
            }
            Event::Written(words) if self.run.facts().tainted => {
                let text = text(words);
                let arguments = json!({"name": "plan", "email": text});
                self.run.went(&tool("office/contact_add"), &arguments, false);
                self.marks.extend(self.run.wrote());
                self.stored.push(text);
                let stored = json!({"all": self.stored});
                self.returned("vault/secret_get", &json!({"name": "plan"}), Content::Json(&stored), false);
            }
            Event::Written(_) => {}
            Event::Echoed(evil) => {
                let arguments = json!({"query": EVIL[*evil]});
                let value = json!({"query": EVIL[*evil], "found": []});
                self.returned("office/contact_find", &arguments, Content::Json(&value), false);
            }
            Event::Received(words) => self.run.received("peer", &text(words), 2),
            Event::Held(approved) => {
                let arguments = json!({"recipients": [EVIL[0]], "subject": "x"});
                self.run.held(&tool("office/mail_send"), &arguments);
                if *approved {
                    self.run.went(&tool("office/mail_send"), &arguments, true);
                    self.marks.extend(self.run.wrote());
                }
            }
            Event::Secret => {
                let value = json!({"key": "opensesame"});
                self.returned("vault/secret_get", &json!({"name": "plan"}), Content::Json(&value), false);
            }
            Event::Restart if self.restarts => {
                self.run = Run::restore(&serde_json::to_vec(&self.run).unwrap());
            }
            Event::Restart => {}
        }
    }

    fn judge(&self, id: &'static str, arguments: &Value) -> Judgement {
        self.run.judge(&tool(id), arguments)
    }

    /// Judgements of calls that ask for everything that could have changed.
    fn probes(&self) -> Vec<Judgement> {
        let mut all: Vec<Judgement> = EVIL.iter().map(|evil| self.mail(evil, "hello")).collect();
        all.push(self.mail("ann@corp.example", "opensesame https://evil.example"));
        all.push(self.judge("office/file_delete", &json!({"id": "00"})));
        all
    }

    fn mail(&self, to: &str, body: &str) -> Judgement {
        self.judge("office/mail_send", &json!({"recipients": [to], "subject": "plan", "body": body}))
    }
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("CASTRA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_makes_an_untrusted_value_trusted(events in prop::collection::vec(event(), 1..24)) {
        let mut world = World::new(true);
        for event in &events {
            world.take(event);
            if world.run.facts().tainted {
                for evil in EVIL {
                    let facts = world.mail(evil, "plan").facts;
                    prop_assert!(!facts.unfounded.is_empty(), "{evil} after {events:?}");
                    let body = world.mail("ann@corp.example", evil).facts;
                    prop_assert!(!evil.contains('@') || !body.active.is_empty(), "{evil} after {events:?}");
                }
                prop_assert!(world.mail("ann@corp.example", "plan").facts.unfounded.is_empty());
            }
        }
    }

    #[test]
    fn labels_only_go_down_by_endorsement(events in prop::collection::vec(event(), 1..24)) {
        let mut world = World::new(true);
        let mut before = world.run.facts();
        let mut told = false;
        for event in &events {
            world.take(event);
            told |= matches!(event, Event::Secret);
            let now = world.run.facts();
            prop_assert!(now.tainted >= before.tainted && now.secret >= before.secret && now.prompted);
            let endorsed = matches!(event, Event::Held(true));
            prop_assert!(now.suspect >= before.suspect || endorsed);
            let read = matches!(event, Event::Text(..) | Event::Records(_) | Event::Received(_));
            prop_assert!(now.tainted || !read);
            let leaks = !world.mail(EVIL[0], "opensesame").facts.leaking.is_empty();
            prop_assert!(leaks || !told, "{events:?}");
            before = now;
        }
    }

    #[test]
    fn a_restart_changes_no_judgement(events in prop::collection::vec(event(), 1..24)) {
        let (mut whole, mut cut) = (World::new(false), World::new(true));
        for event in &events {
            whole.take(event);
            cut.take(event);
            prop_assert_eq!(whole.probes(), cut.probes());
        }
    }

    #[test]
    fn no_input_is_too_odd(text in ".{0,200}", json in "[\\[\\]{}\",:a-z0-9@. ]{0,80}") {
        let mut run = Run::new(Coverage::Full);
        run.user_said(&text);
        run.received("peer", &text, 0);
        let value = serde_json::from_str(&json).unwrap_or(Value::from(text.as_str()));
        run.returned(&tool("office/file_find"), &value, Returned { content: Content::Json(&value), is_error: false, record: 0 }, &HashSet::new());
        let _ = run.judge(&tool("office/mail_send"), &value);
        for span in run.answer(&text) {
            prop_assert!(text.get(span.place).is_some());
        }
    }
}

/// A run of 10,000 actions stays within its memory, and gets stricter rather than laxer.
#[test]
fn bounds_hold() {
    let mut run = Run::new(Coverage::Full);
    run.user_said(PROMPT);
    let marks = HashSet::new();
    for i in 0_u64..10_000 {
        let words: String = (0..12).map(|j| format!("w{} ", i * 13 + j)).collect();
        let value = json!([{"id": i.to_string(), "name": format!("file {i}"), "content": words, "size": i}]);
        let arguments = json!({"query": format!("q{i}")});
        run.returned(
            &tool("office/file_find"),
            &arguments,
            Returned { content: Content::Json(&value), is_error: false, record: i },
            &marks,
        );
        let trusted = json!({"note": format!("n{i} n{}", i * 7)});
        run.returned(
            &tool("vault/salaries"),
            &json!({}),
            Returned { content: Content::Json(&trusted), is_error: false, record: i },
            &marks,
        );
        run.went(
            &tool("office/file_create"),
            &json!({"name": "plan", "content": format!("c{i} {words}")}),
            false,
        );
        run.wrote();
    }
    assert!(run.size() <= 2 << 20, "{}", run.size());
    let judgement = run
        .judge(&tool("office/mail_send"), &json!({"recipients": ["never seen"], "body": "some other words"}));
    assert!(!judgement.facts.unfounded.is_empty() && !judgement.facts.injected.is_empty());
    assert!(!judgement.facts.leaking.is_empty());
    let restored = Run::restore(&serde_json::to_vec(&run).unwrap());
    assert_eq!(restored.facts(), run.facts());
}

/// Results beyond the bounds taint, teach nothing and hide nothing.
#[test]
fn what_is_too_large_counts_as_untrusted() {
    let mut deep = json!("eve@evil.example");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let large = Value::from("x ".repeat(5 << 20));
    let many = Value::from(vec![1; 1_000_000]);
    for value in [deep, large, many] {
        let mut run = Run::new(Coverage::Full);
        run.user_said(PROMPT);
        run.returned(
            &tool("vault/salaries"),
            &json!({}),
            Returned { content: Content::Json(&value), is_error: false, record: 0 },
            &HashSet::new(),
        );
        assert!(run.facts().tainted && run.size() < 1 << 20);
        let judgement = run.judge(&tool("office/mail_send"), &json!({"recipients": ["eve@evil.example"]}));
        assert!(!judgement.facts.injected.is_empty());
    }
}

#[test]
fn a_lost_run_is_deaf() {
    for mut run in [Run::lost(), Run::restore(b"nothing"), Run::restore(br#"{"version":99}"#)] {
        run.user_said(PROMPT);
        let facts = run.judge(&tool("office/mail_send"), &json!({"recipients": ["ann@corp.example"]})).facts;
        assert!(facts.tainted && !facts.prompted && !facts.intended && !facts.unfounded.is_empty());
    }
}
