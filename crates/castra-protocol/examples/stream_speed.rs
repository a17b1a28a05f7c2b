//! Prints what an event of a stream costs: `cargo run --release -p castra-protocol --example stream_speed`.
//!
//! A chat stream of 33 small events, as the rig of `eval/perf` sends it, passes in its own form through a
//! scanner that looks at every byte; then the same stream is translated.
#![allow(clippy::print_stdout)] // a measurement is printed

use std::{sync::Arc, time::Instant};

use castra_core::{StreamMode, TextScanner};
use castra_protocol::model::{
    Api, Asked, Form, RequestFacts,
    stream::{CallVerdict, Framing, Step, StreamEngine, StreamLimits, StreamOptions},
};

const EVENTS: u32 = 33;
const ROUNDS: u32 = 20_000;

/// Holds back what ends in `s`; nothing else.
#[derive(Default)]
struct EndsInS {
    held: bool,
}

impl TextScanner for EndsInS {
    fn push(&mut self, text: &str, out: &mut String) {
        if std::mem::take(&mut self.held) {
            out.push('s');
        }
        let clean = text.strip_suffix('s');
        self.held = clean.is_some();
        out.push_str(clean.unwrap_or(text));
    }

    fn finish(&mut self, out: &mut String) {
        if self.held {
            out.push('s');
        }
    }

    fn findings(&self) -> &[Arc<str>] {
        &[]
    }
}

fn stream() -> String {
    let event = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1234567890\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"model-a\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let mut stream = event("{\"role\":\"assistant\",\"content\":\"\"}", "null");
    for n in 0..EVENTS - 3 {
        stream += &event(&format!("{{\"content\":\" word{n}\"}}"), "null");
    }
    stream + &event("{}", "\"stop\"") + "data: [DONE]\n\n"
}

/// Measures what is named, or begins with what the first argument says.
fn measure(name: &str, api: Api, mode: StreamMode, split: bool) {
    if std::env::args().nth(1).is_some_and(|wanted| !name.starts_with(&wanted)) {
        return;
    }
    let facts = RequestFacts {
        api,
        form: Form::OpenAiChat,
        model: "model-a".into(),
        stream: true,
        usage_asked: false,
        created: 1_790_000_000,
        asked: Asked::Nothing,
    };
    let stream = stream();
    let chunks: Vec<&[u8]> = match split {
        true => stream.split_inclusive("\n\n").map(str::as_bytes).collect(),
        false => vec![stream.as_bytes()],
    };
    let mut bytes = 0;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let options = StreamOptions {
            mode,
            framing: Framing::Sse,
            limits: StreamLimits::default(),
            input_tokens: 1,
            id: "castra1".into(),
        };
        let mut engine = StreamEngine::new(&facts, options, Box::new(EndsInS::default));
        let mut next = chunks.iter();
        loop {
            match engine.next() {
                Step::Out(out) => bytes += out.len(),
                Step::Decide(_) => engine.decided(CallVerdict::Release),
                Step::Need => match next.next() {
                    Some(chunk) => engine.feed(chunk),
                    None => engine.finish(),
                },
                Step::End(_) => break,
            }
        }
    }
    let per_event = start.elapsed().as_nanos() / u128::from(ROUNDS * EVENTS);
    println!("{name:<44} {per_event:>5} ns per event, {} bytes out", bytes / ROUNDS as usize);
}

fn main() {
    measure("same form, one chunk", Api::Chat, StreamMode::Window, false);
    measure("same form, a chunk per event", Api::Chat, StreamMode::Window, true);
    measure("same form, passed, one chunk", Api::Chat, StreamMode::Pass, false);
    measure("translated to messages, one chunk", Api::Messages, StreamMode::Window, false);
    measure("translated to responses, one chunk", Api::Responses, StreamMode::Window, false);
}
