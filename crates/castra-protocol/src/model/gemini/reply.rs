//! A `GenerateContentResponse` as an answer.

use std::borrow::Cow;

use super::FORM;
use crate::{
    json::{DEPTH_CEILING, Value},
    model::{
        ModelError, RequestFacts, StopReason, Usage,
        fields::{Fields, Place, whole},
        ir::{Call, GEMINI, Part, Reply},
    },
};

/// Reads an answer. What it tells beside the content (ratings, log probabilities, the model's status)
/// is of the provider and not of the answer, and is passed over.
pub(in crate::model) fn read_reply<'a>(
    text: &'a str,
    value: Value,
    facts: &RequestFacts,
) -> Result<Reply<'a>, ModelError> {
    let root = Place::Root;
    let mut fields = Fields::of(text, value, &root)?;
    let usage_place = root.member("usageMetadata");
    let usage = match fields.object("usageMetadata")? {
        Some(usage) => Some(Usage::read_gemini(text, usage, &usage_place)?),
        None => None,
    };
    let id = fields.string("responseId")?.unwrap_or_else(|| format!("gemini-{}", facts.created).into());
    let model = fields.string("modelVersion")?.unwrap_or_else(|| facts.model.clone().into());
    let candidates = fields.elements("candidates")?;
    let place = root.member("candidates");
    let (parts, stop) = match candidates.as_slice() {
        [] => blocked(&mut fields)?,
        [only] => candidate(text, *only, &place.item(0), &id)?,
        _ => return Err(place.wrong("an array of one candidate")),
    };
    Ok(Reply { id, model, parts, stop, stop_sequence: None, usage })
}

/// A prompt that was blocked has no candidate but a reason.
fn blocked<'a>(fields: &mut Fields<'a, '_>) -> Result<(Vec<Part<'a>>, StopReason), ModelError> {
    let place = fields.place.member("promptFeedback");
    let missing = || fields.place.member("candidates").missing("an array of one candidate");
    let feedback = fields.object("promptFeedback")?.ok_or_else(missing)?;
    let reason = Fields::of(fields.text, feedback, &place)?.need_string("blockReason")?;
    let words = format!("The provider blocked the prompt ({}).", shown(&reason));
    Ok((vec![Part::Refusal(words.into())], StopReason::Refusal))
}

/// A word of the provider, as it may stand in a sentence.
fn shown(word: &str) -> String {
    const WORD_MAX: usize = 64;
    word.chars().take(WORD_MAX).filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn candidate<'a>(
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    id: &str,
) -> Result<(Vec<Part<'a>>, StopReason), ModelError> {
    let mut candidate = Fields::of(text, value, place)?;
    let content = candidate.object("content")?;
    let place_of_content = place.member("content");
    let mut parts = Parts { id, read: Vec::new(), calls: 0 };
    if let Some(content) = content {
        let mut content = Fields::of(text, content, &place_of_content)?;
        let list = place_of_content.member("parts");
        for (index, value) in content.elements("parts")?.into_iter().enumerate() {
            parts.part(text, value, &list.item(index))?;
        }
    }
    let word = candidate.need_string("finishReason")?;
    let stop = StopReason::from_gemini(&word).ok_or_else(|| ModelError::Answer {
        form: FORM,
        fault: format!("the model stopped with `{}`", shown(&word)),
    })?;
    let stop = if stop == StopReason::End && parts.calls > 0 { StopReason::ToolCalls } else { stop };
    Ok((parts.read, stop))
}

/// The parts of a candidate under way.
struct Parts<'a, 'i> {
    /// Of the answer; ids of calls are made of it where the provider gives none.
    id: &'i str,
    read: Vec<Part<'a>>,
    calls: usize,
}

impl<'a> Parts<'a, '_> {
    fn part(&mut self, text: &'a str, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut part = Fields::of(text, value, place)?;
        let signature = part.string("thoughtSignature")?;
        let thought = part.boolean("thought")? == Some(true);
        if let Some(call) = part.object("functionCall")? {
            let call = self.call(text, call, &place.member("functionCall"), signature)?;
            self.calls += 1;
            self.read.push(Part::Call(call));
            return Ok(());
        }
        match part.string("text")? {
            Some(words) if thought => self.think(words, signature),
            Some(words) => self.say(words),
            None => match part.left() {
                // The end of a stream has parts of a signature alone.
                None => {}
                Some(name) => {
                    let field = place.member(name).to_string();
                    let why = "the caller's form has no such content";
                    return Err(ModelError::AnswerUntranslatable { field, why });
                }
            },
        }
        Ok(())
    }

    /// Text comes in several parts where the model stopped to think.
    fn say(&mut self, words: Cow<'a, str>) {
        match self.read.last_mut() {
            _ if words.is_empty() => {}
            Some(Part::Text(said)) => said.to_mut().push_str(&words),
            _ => self.read.push(Part::Text(words)),
        }
    }

    fn think(&mut self, words: Cow<'a, str>, signature: Option<Cow<'a, str>>) {
        let signature = signature.map(|signature| format!("{GEMINI}{signature}").into());
        match self.read.last_mut() {
            Some(Part::Reasoning { text, signature: last @ None }) => {
                text.to_mut().push_str(&words);
                *last = signature;
            }
            _ => self.read.push(Part::Reasoning { text: words, signature }),
        }
    }

    /// A call. The Gemini API gives ids only from Gemini 3 on.
    fn call(
        &self,
        text: &'a str,
        value: Value,
        place: &Place<'_>,
        signature: Option<Cow<'a, str>>,
    ) -> Result<Call<'a>, ModelError> {
        let mut call = Fields::of(text, value, place)?;
        let id = call.string("id")?.filter(|id| !id.is_empty());
        let arguments = call.object("args")?.map_or("{}", |args| args.span.of(text));
        Ok(Call {
            id: id.unwrap_or_else(|| call_id(self.id, self.calls).into()),
            name: call.need_string("name")?,
            arguments: arguments.into(),
            signature,
        })
    }
}

/// An id for a call that has none: unique in a conversation, as the id of the answer is, and of the
/// letters that every form takes.
pub(in crate::model) fn call_id(answer: &str, index: usize) -> String {
    const ID_MAX: usize = 48;
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let answer: String = answer.chars().filter(plain).take(ID_MAX).collect();
    format!("call_{answer}_{index}")
}

impl StopReason {
    /// Reads `finishReason` of Gemini (`FinishReason`). None for a word that the form does not have,
    /// and for those that tell of a fault of the model rather than of an answer, such as a call that
    /// is none.
    pub fn from_gemini(word: &str) -> Option<Self> {
        Some(match word {
            "STOP" => Self::End,
            "MAX_TOKENS" => Self::MaxTokens,
            "SAFETY"
            | "RECITATION"
            | "LANGUAGE"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR" => Self::Refusal,
            _ => return None,
        })
    }
}

impl Usage {
    /// Reads the object `usageMetadata` of Gemini (`GenerateContentResponseUsageMetadata`), given as
    /// JSON. None if it is not one.
    pub fn from_gemini(raw: &str) -> Option<Self> {
        Self::read_gemini(raw, whole(raw, DEPTH_CEILING).ok()?, &Place::Root).ok()
    }

    /// Thoughts are counted beside the candidates, and what a tool of the provider gave back beside the
    /// prompt; what comes from a cache is a part of the prompt.
    pub(in crate::model) fn read_gemini(
        text: &str,
        value: Value,
        place: &Place<'_>,
    ) -> Result<Self, ModelError> {
        let mut usage = Fields::of(text, value, place)?;
        let mut count = |name| usage.unsigned(name).map(Option::unwrap_or_default);
        let thoughts = count("thoughtsTokenCount")?;
        Ok(Self {
            input_tokens: count("promptTokenCount")?.saturating_add(count("toolUsePromptTokenCount")?),
            output_tokens: count("candidatesTokenCount")?.saturating_add(thoughts),
            cache_read_tokens: count("cachedContentTokenCount")?,
            cache_write_tokens: 0,
            reasoning_tokens: thoughts,
        })
    }
}
