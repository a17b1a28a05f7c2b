//! Readers: one event of a provider's form into parts. They keep nothing between events, so that an
//! event can be read again.

mod chat;
mod gemini;
mod messages;
mod responses;
mod usage;

use super::{StreamError, part::Reading};
use crate::model::Form;

/// Reads one event. `event` is its type as the framing names it, `number` its place in the stream.
pub(super) fn event(
    form: Form,
    event: &str,
    data: &str,
    number: u64,
    reading: &mut Reading<'_>,
) -> Result<(), StreamError> {
    match form {
        Form::OpenAiChat => chat::read(data, reading),
        Form::OpenAiResponses => responses::read(event, data, reading),
        Form::AnthropicMessages => messages::read(event, data, reading),
        Form::Gemini => gemini::read(data, number, reading),
    }
}
