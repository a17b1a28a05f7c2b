//! What a server's answer tells the run that asked: the result of a tool as values, everything else as
//! text that strangers may have written.

use castra_flow::Content;
use castra_protocol::mcp::{self, Message, Outcome, ParseLimits, Response, ResultView};
use serde_json::Value;

use crate::{
    record::Permit,
    run::{leaves, parsed},
};

/// Tells the run what an answer holds, as the client will see it.
pub(super) fn answer(permit: &Permit, method: &str, body: &[u8], limits: &ParseLimits) {
    let Some((part, record)) = permit.part() else { return };
    let Ok(Message::Response(response)) = mcp::parse(body, limits) else {
        return part.received(&String::from_utf8_lossy(body), record);
    };
    match (&response.outcome, method) {
        // What a server proposes for an argument comes back as an argument, and is judged then.
        (_, "completion/complete") => {}
        (Outcome::Result(result), "tools/call") if is_whole(result) => {
            let said = of_tool(result, &response);
            let content = match &said {
                Said::Json(value) => Content::Json(value),
                Said::Text(text) => Content::Text(text),
            };
            part.returned(content, result.is_error, record);
        }
        (Outcome::Error(error), "tools/call") => {
            let more = error.data.map(|span| texts(span.of(response.text))).unwrap_or_default();
            part.returned(Content::Text(&format!("{}\n{more}", error.message)), true, record);
        }
        (Outcome::Result(result), _) => part.received(&texts(result.span.of(response.text)), record),
        (Outcome::Error(error), _) => part.received(&texts(error.span.of(response.text)), record),
    }
}

/// Tells the run what the client is asked or told before the answer.
pub(super) fn message(permit: &Permit, body: &[u8]) {
    if permit.part().is_some() {
        permit.received(&std::str::from_utf8(body).map(texts).unwrap_or_default());
    }
}

/// Whether it is the tool's result, and not a question or the name of a task.
fn is_whole(result: &ResultView<'_>) -> bool {
    result.task.is_none() && result.result_type.as_deref().is_none_or(|kind| kind == "complete")
}

enum Said {
    Json(Value),
    Text(String),
}

/// Structured content where there is any, else what the text says.
fn of_tool(result: &ResultView<'_>, response: &Response<'_>) -> Said {
    let structured = result.structured_content.map(|span| span.of(response.text));
    if let Some(Ok(value)) = structured.map(serde_json::from_str) {
        return Said::Json(value);
    }
    let content = result.content.map(|span| span.of(response.text)).unwrap_or("[]");
    let blocks: Vec<Value> = serde_json::from_str(content).unwrap_or_default();
    let texts: Vec<String> = blocks.iter().map(text_of_block).filter(|text| !text.is_empty()).collect();
    let values: Option<Vec<Value>> = texts.iter().map(|text| parsed(text)).collect();
    match values {
        Some(mut values) if values.len() == 1 => Said::Json(values.pop().unwrap_or_default()),
        Some(values) if !values.is_empty() => Said::Json(Value::Array(values)),
        _ => Said::Text(texts.join("\n")),
    }
}

/// The text of a text, of a resource, of a link to one; media has none.
fn text_of_block(block: &Value) -> String {
    match block.get("type").and_then(Value::as_str) {
        Some("text") => block.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        Some("image" | "audio") => String::new(),
        _ => leaves(block),
    }
}

/// All strings within a JSON text; the text itself where it cannot be taken apart.
fn texts(json: &str) -> String {
    serde_json::from_str(json).map_or_else(|_| json.to_owned(), |value| leaves(&value))
}
