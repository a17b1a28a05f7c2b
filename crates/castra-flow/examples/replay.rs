//! Replays runs from JSON lines on standard input and prints what flow control says of each call: for evaluations
//! that drive it from another language. One message a line:
//!
//! ```text
//! {"start": {"manifest": "TOML", "server": "mail", "coverage": "full"}}
//! {"user": "Please …"}
//! {"judge": {"tool": "send_email", "arguments": {…}}}
//! {"held": {"tool": …, "arguments": …}}
//! {"went": {"tool": …, "arguments": …, "approved": false}}
//! {"returned": {"tool": …, "arguments": …, "value": …, "text": "…", "error": false}}
//! {"answer": "text"}
//! ```
#![allow(clippy::print_stdout)] // an example talks to its caller

use std::{
    collections::HashSet,
    io::{self, BufRead, Write},
};

use castra_core::Effect;
use castra_flow::{Content, Coverage, Manifest, Mark, Returned, Run, Tool, ToolManifest};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut replay = Replay {
        run: Run::new(Coverage::Full),
        manifest: Manifest::default(),
        server: String::new(),
        marks: HashSet::new(),
        record: 0,
    };
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let answer = replay.take(&serde_json::from_str(&line?)?)?;
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

struct Replay {
    run: Run,
    manifest: Manifest,
    server: String,
    marks: HashSet<Mark>,
    record: u64,
}

impl Replay {
    fn take(&mut self, message: &Value) -> Result<Value, Box<dyn std::error::Error>> {
        let (verb, body) =
            message.as_object().and_then(|o| o.iter().next()).ok_or("a message is an object")?;
        match verb.as_str() {
            "start" => {
                self.manifest = Manifest::parse(body["manifest"].as_str().unwrap_or_default())?;
                self.server = body["server"].as_str().unwrap_or("server").to_owned();
                let full = body["coverage"].as_str() != Some("tools");
                self.run = Run::new(if full { Coverage::Full } else { Coverage::Tools });
            }
            "user" => self.run.user_said(body.as_str().unwrap_or_default()),
            "answer" => {
                let text = body.as_str().unwrap_or_default();
                let spans: Vec<&str> =
                    self.run.answer(text).into_iter().filter_map(|s| text.get(s.place)).collect();
                return Ok(json!(spans));
            }
            _ => return self.call(verb, body),
        }
        Ok(json!("ok"))
    }

    fn call(&mut self, verb: &str, body: &Value) -> Result<Value, Box<dyn std::error::Error>> {
        let name = body["tool"].as_str().ok_or("a call names its tool")?;
        let empty = ToolManifest::default();
        let entry = self.manifest.tools.get(name);
        let id = format!("{}/{name}", self.server);
        let tool = Tool {
            id: &id,
            described: entry.is_some(),
            effect: entry.and_then(|e| e.effect).unwrap_or(Effect::Act),
            external: entry.is_none_or(|e| e.external == Some(true)),
            manifest: entry.unwrap_or(&empty),
            schema: None,
        };
        let arguments = &body["arguments"];
        match verb {
            "judge" => {
                let judgement = self.run.judge(&tool, arguments);
                let facts = &judgement.facts;
                let names =
                    |list: &[std::sync::Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
                return Ok(json!({
                    "reads": tool.reads(), "external": tool.external, "described": facts.described,
                    "tainted": facts.tainted, "secret": facts.secret, "suspect": facts.suspect,
                    "intended": facts.intended, "unfounded": names(&facts.unfounded),
                    "unseen": names(&facts.unseen), "injected": names(&facts.injected), "active": names(&facts.active),
                    "leaking": names(&facts.leaking),
                    "findings": judgement.findings.iter()
                        .map(|f| format!("{} {} {:?} ({:?})", f.rule, f.argument, f.shown, f.origin))
                        .collect::<Vec<_>>(),
                }));
            }
            "held" => self.run.held(&tool, arguments),
            "went" => {
                self.run.went(&tool, arguments, body["approved"] == json!(true));
                self.marks.extend(self.run.wrote());
            }
            "returned" => {
                self.record += 1;
                let content = match (&body["value"], body["text"].as_str()) {
                    (Value::Null, Some(text)) => Content::Text(text),
                    (value, _) => Content::Json(value),
                };
                let is_error = body["error"] == json!(true);
                let returned = Returned { content, is_error, record: self.record };
                self.run.returned(&tool, arguments, returned, &self.marks);
            }
            other => return Err(format!("{other:?} is no message").into()),
        }
        Ok(json!("ok"))
    }
}
