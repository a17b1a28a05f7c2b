//! An answer that came as a whole: read, translated, and changed where a tool call was refused.

use std::borrow::Cow;

use super::{
    Api, Form, ModelError, ModelLimits, RequestFacts, StopReason, ToolCall, Usage, found,
    found::Found,
    gemini,
    ir::{Part, Reply},
    translate,
};
use crate::json::{JsonError, Scanner, Value};

/// An answer that came as a whole, in the caller's form.
#[derive(Debug, Clone)]
pub struct WholeAnswer<'a> {
    /// The body for the caller; the provider's own bytes if it speaks the caller's form.
    pub body: Cow<'a, [u8]>,
    /// What the provider says was used; None if it does not say.
    pub usage: Option<Usage>,
    /// The tool calls that the model asks for, in the order in which they stand.
    pub calls: Vec<AnswerCall>,
    /// Why the model stopped (of the first choice).
    pub stop: Option<StopReason>,
    /// The model as the provider names it.
    pub model: Option<String>,
}

/// A tool call of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerCall {
    /// What is to be called.
    pub call: ToolCall,
    /// In which of several answers (`choices`) it stands.
    pub choice: usize,
}

/// Reads the body of a provider's successful answer and puts it into the caller's form.
///
/// # Errors
///
/// [`ModelError::Answer`] for what is not an answer of the provider's form (HTML, half of one, a tool
/// call without a name), [`ModelError::AnswerUntranslatable`] for what the caller's form cannot say.
pub fn answer<'a>(
    facts: &RequestFacts,
    body: &'a [u8],
    limits: &ModelLimits,
) -> Result<WholeAnswer<'a>, ModelError> {
    let of_answer = |e: ModelError| e.of_answer(facts.form);
    let (text, root) = scan(body, limits).map_err(|e| of_answer(e.into()))?;
    if facts.api.native_form() == facts.form {
        let found = found::find(facts.api, text, root).map_err(of_answer)?;
        return bounded(as_it_is(body, found), facts.form);
    }
    if let (Api::Embeddings, Form::Gemini) = (facts.api, facts.form) {
        return gemini::read_vectors(text, root, facts).map_err(of_answer);
    }
    let reply = translate::read_reply(facts, text, root).map_err(of_answer)?;
    let body = translate::write_reply(facts, &reply).map_err(of_answer)?;
    bounded(translated(body, &reply), facts.form)
}

/// Tool calls of one answer. Each is decided and recorded; a model that asks for more is not at work.
const CALLS_MAX: usize = 1024;

fn bounded(answer: WholeAnswer<'_>, form: Form) -> Result<WholeAnswer<'_>, ModelError> {
    if answer.calls.len() > CALLS_MAX {
        return Err(ModelError::Answer { form, fault: format!("it has more than {CALLS_MAX} tool calls") });
    }
    Ok(answer)
}

fn scan<'a>(body: &'a [u8], limits: &ModelLimits) -> Result<(&'a str, Value), JsonError> {
    let mut scanner = Scanner::new(body, limits.depth_max)?;
    let value = scanner.skip()?;
    scanner.end()?;
    Ok((scanner.text(), value))
}

fn as_it_is<'a>(body: &'a [u8], found: Found<'_>) -> WholeAnswer<'a> {
    WholeAnswer {
        body: Cow::Borrowed(body),
        usage: found.usage,
        stop: found.stop,
        model: found.model.map(Cow::into_owned),
        calls: found
            .calls
            .into_iter()
            .map(|found| AnswerCall { call: found.call, choice: found.choice })
            .collect(),
    }
}

fn translated(body: String, reply: &Reply<'_>) -> WholeAnswer<'static> {
    let calls = reply.parts.iter().filter_map(|part| match part {
        Part::Call(call) => Some(AnswerCall {
            call: ToolCall {
                id: call.id.clone().into_owned(),
                name: call.name.clone().into_owned(),
                arguments: call.arguments.clone().into_owned(),
            },
            choice: 0,
        }),
        _ => None,
    });
    WholeAnswer {
        calls: calls.collect(),
        body: Cow::Owned(body.into_bytes()),
        usage: reply.usage,
        stop: Some(reply.stop),
        model: Some(reply.model.clone().into_owned()),
    }
}

/// Puts a text in the place of each refused tool call of an answer in the caller's form, and sets the
/// reason for stopping right when no call is left. `verdicts` has an entry per call of
/// [`WholeAnswer::calls`], in the same order: None keeps it. The answer is read again, so that it may
/// have been masked in between.
///
/// # Errors
///
/// The body is not an answer, or has another number of calls than there are verdicts.
pub fn replace_calls<'a>(
    api: Api,
    body: &'a [u8],
    verdicts: &[Option<String>],
    limits: &ModelLimits,
) -> Result<Cow<'a, [u8]>, ModelError> {
    let form: Form = api.native_form();
    let of_answer = |e: ModelError| e.of_answer(form);
    let (text, root) = scan(body, limits).map_err(|e| of_answer(e.into()))?;
    let found = found::find(api, text, root).map_err(of_answer)?;
    if found.calls.len() != verdicts.len() {
        let fault = format!("it has {} tool calls and not {}", found.calls.len(), verdicts.len());
        return Err(ModelError::Answer { form, fault });
    }
    if verdicts.iter().all(Option::is_none) {
        return Ok(Cow::Borrowed(body));
    }
    let changed = found::replace(api, text, &found, verdicts).map_err(of_answer)?;
    Ok(Cow::Owned(changed.into_bytes()))
}
