//! Prints what flow control costs: memory and time a call in a run with 200 results of 4 KB, and in one of 10,000
//! actions. `cargo run --release -p castra-flow --example cost`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::time::{Duration, Instant};

use castra_core::Effect;
use castra_flow::{Content, Coverage, Manifest, NoMarks, Returned, Run, Tool};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
[find]
effect = "read"
output = "untrusted"
object = "mail"
attested = ["id", "sender", "recipients"]
keys = ["subject"]
[send]
effect = "act"
output = "trusted"
intent = ["send"]
args = { recipients = "exact" }
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = Manifest::parse(MANIFEST)?;
    for (name, actions, bytes) in
        [("200 results of 4 KB", 200, 4096), ("10,000 results of 1 KB", 10_000, 1024)]
    {
        let mut run = Run::new(Coverage::Full);
        run.user_said("Please send a summary of my mail about the budget to ann@corp.example and 3 others.");
        let mut returned = Vec::new();
        for i in 0..actions {
            let value = result(i, bytes);
            let arguments = json!({"query": format!("q{}", i % 7)});
            let start = Instant::now();
            let result = Returned { content: Content::Json(&value), is_error: false, record: i };
            run.returned(&tool(&manifest, "mail/find")?, &arguments, result, &NoMarks);
            returned.push(start.elapsed());
        }
        let mut judged = Vec::new();
        for i in 0..2000_u64 {
            let body: String = words(i * 31, 700);
            let arguments = json!({"recipients": ["ann@corp.example", format!("p{i}@corp.example")], "subject": "Budget", "body": body});
            let start = Instant::now();
            std::hint::black_box(run.judge(&tool(&manifest, "mail/send")?, &arguments));
            judged.push(start.elapsed());
        }
        println!(
            "{name}: {} KB; a call of 0.7 KB {}; a result {}",
            run.size() / 1024,
            spread(judged),
            spread(returned)
        );
    }
    Ok(())
}

fn tool<'a>(manifest: &'a Manifest, id: &'a str) -> Result<Tool<'a>, String> {
    let name = id.split_once('/').map_or(id, |(_, name)| name);
    let entry = manifest.tools.get(name).ok_or("no such tool")?;
    let effect = entry.effect.unwrap_or(Effect::Act);
    Ok(Tool { id, described: true, effect, external: false, manifest: entry, schema: None })
}

/// Records of mails with this many bytes in all.
fn result(i: u64, bytes: usize) -> Value {
    let each = 512;
    let rows = (0..bytes / each).map(|j| {
        let seed = i * 64 + j as u64;
        json!({
            "id": seed.to_string(), "sender": format!("s{}@other.example", seed % 50), "recipients": ["me@corp.example"],
            "subject": words(seed, 24), "body": words(seed * 3, each - 150),
        })
    });
    Value::from(rows.collect::<Vec<_>>())
}

/// Prose of a vocabulary of 5,000 words, some of them with digits.
fn words(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let n = state % 5000;
        text.push_str(&if n.is_multiple_of(40) { format!("ref{n}4711 ") } else { format!("{} ", spoken(n)) });
    }
    text
}

/// A pronounceable word for a number.
fn spoken(mut n: u64) -> String {
    let mut word = String::new();
    loop {
        word.extend("bcdfglmnprstvz".chars().nth((n % 14) as usize));
        word.extend("aeiou".chars().nth((n / 14 % 5) as usize));
        n /= 70;
        if n == 0 {
            return word;
        }
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times.get((times.len() - 1) * share / 100).copied().unwrap_or_default();
    format!("p50 {:?}, p99 {:?}", at(50), at(99))
}
