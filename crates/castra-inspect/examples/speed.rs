//! Prints how fast text and JSON are looked at, in MB of text per second of one core:
//! `cargo run --release -p castra-inspect --example speed [FILE]` (a file of clean text; otherwise prose is made).

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::expect_used)]

use std::{hint::black_box, time::Instant};

use castra_core::TextScanner;
use castra_inspect::{Inspector, Settings};

fn main() {
    let inspector = Inspector::new(&Settings::default()).expect("the built-in list compiles");
    let text = std::env::args()
        .nth(1)
        .map_or_else(prose, |path| std::fs::read_to_string(path).expect("a readable file"));
    let findings = inspector.mask_text(&text).map_or(0, |masked| masked.findings.len());
    println!("{} bytes, {findings} findings", text.len());

    report("whole text", text.len(), || {
        black_box(inspector.mask_text(black_box(&text)));
    });
    let pieces: Vec<&str> = text.split_inclusive(' ').collect();
    let mut out = String::with_capacity(text.len());
    report("stream of words", text.len(), || {
        out.clear();
        let mut scanner = inspector.scanner();
        for piece in &pieces {
            scanner.push(piece, &mut out);
        }
        scanner.finish(&mut out);
    });
    let chunk = text.get(..10_000.min(text.len())).unwrap_or(&text);
    let document = serde_json::to_vec(&serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": chunk}], "isError": false}
    }))
    .expect("JSON");
    report("JSON of 10 KB", document.len(), || {
        black_box(inspector.mask_json(black_box(&document), &Default::default()).expect("JSON"));
    });
    let started = Instant::now();
    black_box(Inspector::new(&Settings::default()).expect("compiles"));
    println!("compiling the built-in list: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
}

fn report(what: &str, bytes: usize, mut once: impl FnMut()) {
    once();
    let (started, before, mut rounds) = (Instant::now(), on_cpu(), 0_u32);
    while started.elapsed().as_millis() < 1000 {
        once();
        rounds += 1;
    }
    let each = (on_cpu() - before) / f64::from(rounds);
    println!("{what}: {:.0} MB/s, {:.1} µs each", bytes as f64 / each / 1e6, each * 1e6);
}

/// Seconds that this process spent on a processor (Linux), so that what else runs does not count.
fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e9
}

/// Sentences of words that agents' tools answer with, line ends and punctuation included.
fn prose() -> String {
    let words = [
        "the",
        "password",
        "was",
        "changed",
        "in",
        "Section",
        "4",
        "of",
        "https://docs.example/guide",
        "second",
        "gateway",
        "answers",
        "\"quoted\"",
        "task-list",
        "SKU",
        "risk",
        "npm",
        "hf",
        "ASIA",
        "a",
        "key:",
        "value,\n",
        "export",
        "const",
        "eye",
        "Glass.",
        "Slack",
        "postgres",
        "and",
        "under_score",
        "-----\n",
        "2026-11-25T02:00",
    ];
    let mut out = String::new();
    let mut state = 7_usize;
    while out.len() < 4 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.push_str(words.get((state >> 33) % words.len()).unwrap_or(&""));
        out.push(' ');
    }
    out
}
