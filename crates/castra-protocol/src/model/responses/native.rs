//! The calls in an answer of the Responses API that stays as it is.
//!
//! Beside functions a model can call what the caller runs for it: a shell, an editor, a computer, and
//! a remote server's tool that waits for approval. Each is a call to be decided. What OpenAI ran itself
//! has happened and is no call.

use super::reply::{message, plain, stop_of, text_part};
use crate::{
    json::{Value, quote},
    model::{
        ModelError, StopReason, ToolCall, Usage,
        fields::{Fields, Place, elements_of},
        found::{Found, FoundCall},
        write::Array,
    },
};

/// Looks through an answer.
pub(in crate::model) fn find<'a>(fields: &mut Fields<'a, '_>) -> Result<Found<'a>, ModelError> {
    let model = fields.string("model")?;
    let place = fields.place.member("usage");
    let usage = match fields.object("usage")? {
        Some(usage) => Some(Usage::read_responses(fields.text, usage, &place)?),
        None => None,
    };
    let list = fields.place.member("output");
    let output = fields.take("output").ok_or_else(|| list.missing("an array"))?;
    let mut calls = Vec::new();
    for (index, value) in elements_of(fields.text, output)?.into_iter().enumerate() {
        if let Some(call) = call_of(fields.text, value, &list.item(index))? {
            calls.push(FoundCall::element(call, value.span));
        }
    }
    let stop = match stop_of(fields) {
        Ok(StopReason::End) if !calls.is_empty() => Some(StopReason::ToolCalls),
        stop => stop.ok(),
    };
    Ok(Found::in_response(model, usage, stop, calls))
}

/// The call that an item is.
fn call_of(text: &str, value: Value, place: &Place<'_>) -> Result<Option<ToolCall>, ModelError> {
    let mut item = Fields::of(text, value, place)?;
    let named = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
    let (name, arguments) = match &*item.need_string("type")? {
        "function_call" => (name_of(&mut item)?, item.need_string("arguments")?.into_owned()),
        // Free text; as JSON it is a string.
        "custom_tool_call" => (name_of(&mut item)?, quote(&item.need_string("input")?)),
        "local_shell_call" => named("local_shell", need(&mut item, "action")?),
        "shell_call" => named("shell", need(&mut item, "action")?),
        "apply_patch_call" => named("apply_patch", need(&mut item, "operation")?),
        // One action, or several since the tool's second version.
        "computer_call" => match item.raw("actions") {
            Some(actions) => named("computer", actions),
            None => named("computer", need(&mut item, "action")?),
        },
        "mcp_approval_request" => {
            let (server, tool) = (item.need_string("server_label")?, item.need_string("name")?);
            (format!("mcp:{server}.{tool}"), item.need_string("arguments")?.into_owned())
        }
        _ => return Ok(None),
    };
    let id = match item.string("call_id")? {
        Some(id) => id,
        None => item.need_string("id")?,
    };
    Ok(Some(ToolCall { id: id.into_owned(), name, arguments }))
}

/// The name of a tool, with its namespace if it has one.
fn name_of(item: &mut Fields<'_, '_>) -> Result<String, ModelError> {
    let name = item.need_string("name")?;
    Ok(match item.string("namespace")? {
        Some(namespace) => format!("{namespace}.{name}"),
        None => name.into_owned(),
    })
}

fn need<'a>(item: &mut Fields<'a, '_>, name: &str) -> Result<&'a str, ModelError> {
    item.raw(name).ok_or_else(|| item.place.member(name).missing("an object"))
}

/// The item that stands in place of a refused call.
pub(in crate::model) fn refused_item(call: &ToolCall, words: &str) -> String {
    let mut content = Array::new();
    content.raw(&text_part(words));
    message(&format!("msg_{}", plain(&call.id)), "completed", &content.finish())
}
