//! What the two APIs of OpenAI that ask a model, chat completions and responses, have in common.

use std::borrow::Cow;

use super::{
    Form, ModelError,
    fields::{Fields, Place, string_of},
    ir::{Conversation, ToolChoice},
};
use crate::json::Kind;

/// Reads `tool_choice`. Where it is an object, `name` reads the function's name from it.
pub(super) fn read_tool_choice<'a>(
    fields: &mut Fields<'a, '_>,
    to: Form,
    name: impl Fn(&mut Fields<'a, '_>, &Place<'_>) -> Result<Cow<'a, str>, ModelError>,
) -> Result<Option<ToolChoice<'a>>, ModelError> {
    let place = fields.place.member("tool_choice");
    let Some(value) = fields.take("tool_choice") else { return Ok(None) };
    if value.kind == Kind::String {
        return match &*string_of(fields.text, value, &place)? {
            "auto" => Ok(Some(ToolChoice::Auto)),
            "none" => Ok(Some(ToolChoice::None)),
            "required" => Ok(Some(ToolChoice::Any)),
            _ => Err(place.wrong("none, auto, required, or an object")),
        };
    }
    let mut choice = Fields::of(fields.text, value, &place)?;
    if choice.need_string("type")? != "function" {
        return Err(place.member("type").untranslatable(to, "it can name one function only"));
    }
    let name = name(&mut choice, &place)?;
    choice.rest(to)?;
    Ok(Some(ToolChoice::Named(name)))
}

/// Reads for whom a model is asked, and hints on how the answer is delivered and cached; `read_before` are
/// the members of `stream_options` that somebody else looks at.
pub(super) fn read_delivery<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    read_before: &[&str],
    to: Form,
) -> Result<(), ModelError> {
    let (identifier, user) = (fields.string("safety_identifier")?, fields.string("user")?);
    if identifier.is_some() && user.is_some() && identifier != user {
        return Err(fields.place.member("user").wrong("the same as `safety_identifier`, or left out"));
    }
    read.end_user = identifier.or(user);
    if let Some(options) = fields.object("stream_options")? {
        let place = fields.place.member("stream_options");
        let mut options = Fields::of(fields.text, options, &place)?;
        for name in read_before {
            options.take(name);
        }
        // Padding against those who watch the sizes of events; the gate writes its own events.
        if options.boolean("include_obfuscation")?.is_some() {
            read.set_aside("stream_options.include_obfuscation");
        }
        options.rest(to)?;
    }
    for hint in ["prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"] {
        if fields.take(hint).is_some() {
            read.set_aside(hint);
        }
    }
    Ok(())
}
