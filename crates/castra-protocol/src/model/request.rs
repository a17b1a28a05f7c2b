//! A request of a model API as a borrowed view: what the gate must know of it, and where it stands.
//!
//! One scan over the bytes notes where the known members stand, what media there is and how much text;
//! then the known members must have the types that their API gives them. Everything else passes
//! unread.

use std::borrow::Cow;

use castra_core::Limits;

use super::{
    Api, ModelError,
    fields::{Fields, Place, elements_of, string_of},
    responses,
};
use crate::json::{JsonError, Kind, Scanner, Span, Value};

/// What bounds the parser. The size of the text is bounded by whoever read it.
#[derive(Debug, Clone, Copy)]
pub struct ModelLimits {
    /// Levels of arrays and objects.
    pub depth_max: usize,
    /// Tool definitions in one request; each is looked at by name.
    pub tools_max: usize,
    /// Answers to one request (`n`); each costs the whole output.
    pub choices_max: u64,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl From<&Limits> for ModelLimits {
    fn from(limits: &Limits) -> Self {
        Self { depth_max: limits.json_depth_max, tools_max: 1024, choices_max: 128 }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What it is a request of.
    pub api: Api,
    /// The whole request; `text.as_bytes()` are the bytes that were parsed.
    pub text: &'a str,
    /// The model that it names: a route of this gate.
    pub model: Cow<'a, str>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the caller wants the usage as an event of its own at the end of a stream
    /// (`stream_options.include_usage` of chat completions; the other APIs always tell it).
    pub usage_asked: bool,
    /// Most tokens of the answer, as the caller puts it. Each of `choices` answers may have as many.
    pub max_output_tokens: Option<u64>,
    /// How many answers are wanted (`n`); 1 if the request does not say.
    pub choices: u64,
    /// Names of the tools that the model is offered, in order; of a provider's own tool its type.
    pub tools: Vec<Cow<'a, str>>,
    /// What is in it beside text.
    pub media: Media,
    /// Bytes of the request without encoded media: what a rough count of input tokens starts from.
    pub text_bytes: usize,
    /// The protocol's own name for the conversation that this is a part of (responses).
    pub conversation: Option<Cow<'a, str>>,
    /// The earlier answer that it goes on from (`previous_response_id`, responses).
    pub continues: Option<Cow<'a, str>>,
    /// Whom the caller says it acts for; a claim, not an identity.
    pub end_user: Option<Cow<'a, str>>,
    /// Where things stand that may have to change.
    pub places: Places,
}

/// How many pieces of media a request has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Media {
    pub images: usize,
    pub files: usize,
    pub audio: usize,
}

/// Where things stand in the text of a request.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// The object itself.
    pub root: Value,
    /// The name of the model, with its quotes.
    pub model: Span,
    /// The array of messages (chat, messages), or `input` (responses, embeddings).
    pub messages: Value,
    /// `system` (messages) or `instructions` (responses).
    pub system: Option<Value>,
    /// `stream_options` (chat).
    pub stream_options: Option<Value>,
}

impl<'a> Request<'a> {
    /// The part of the text that a span names.
    pub fn slice(&self, span: Span) -> &'a str {
        span.of(self.text)
    }

    /// A count of input tokens to reserve from a budget, rather too high than too low: a token for
    /// every three bytes of text, and what the providers' documentation gives as the usual cost of an
    /// image. The usage in the answer takes its place.
    pub fn input_estimate(&self) -> u64 {
        const IMAGE_TOKENS: u64 = 1_600;
        const FILE_TOKENS: u64 = 20_000;
        const AUDIO_TOKENS: u64 = 2_000;
        let count = |n: usize, tokens: u64| u64::try_from(n).unwrap_or(u64::MAX).saturating_mul(tokens);
        count(self.text_bytes.div_ceil(3), 1)
            .saturating_add(count(self.media.images, IMAGE_TOKENS))
            .saturating_add(count(self.media.files, FILE_TOKENS))
            .saturating_add(count(self.media.audio, AUDIO_TOKENS))
    }
}

/// Reads a request of `api`.
///
/// # Errors
///
/// The bytes are not strict JSON within the limits ([`ModelError::Json`]), or a member that the gate
/// must understand is missing or has another type than its API gives it.
pub fn parse_request<'a>(api: Api, body: &'a [u8], limits: &ModelLimits) -> Result<Request<'a>, ModelError> {
    let mut scanner = Scanner::new(body, limits.depth_max)?;
    let text = scanner.text();
    let mut seen = Survey::default();
    let kind = scanner.kind()?;
    let start = scanner.pos();
    seen.value(&mut scanner)?;
    let root = Value { kind, span: Span { start, end: scanner.pos() } };
    scanner.end()?;
    let place = Place::Root;
    if root.kind != Kind::Object {
        return Err(ModelError::Wrong { field: "the request".into(), want: "an object" });
    }
    let mut fields = Fields::of(text, root, &place)?;
    let names = Names::of(api);
    let (model, model_span) = model(&mut fields)?;
    let messages = messages(&mut fields, api, names.messages)?;
    let stream =
        !matches!(api, Api::Embeddings | Api::CountTokens) && fields.boolean("stream")? == Some(true);
    let stream_options = if api == Api::Chat { fields.object("stream_options")? } else { None };
    Ok(Request {
        api,
        text,
        model,
        stream,
        usage_asked: usage_asked(text, stream_options)?,
        max_output_tokens: max_output_tokens(&mut fields, names.max_tokens)?,
        choices: choices(&mut fields, api, limits)?,
        tools: match api {
            Api::Responses => responses::offered(&mut fields, messages, limits)?,
            _ => tools(&mut fields, names.tools, limits)?,
        },
        media: seen.media,
        text_bytes: text.len().saturating_sub(seen.encoded_bytes),
        conversation: conversation(&mut fields, api)?,
        continues: match api {
            Api::Responses => fields.string("previous_response_id")?,
            _ => None,
        },
        end_user: end_user(&mut fields, api)?,
        places: Places {
            root,
            model: model_span,
            messages,
            system: names.system.and_then(|name| fields.take(name)),
            stream_options,
        },
    })
}

/// What the members are called in an API.
struct Names {
    messages: &'static str,
    system: Option<&'static str>,
    max_tokens: &'static [&'static str],
    tools: &'static [&'static str],
}

impl Names {
    fn of(api: Api) -> Self {
        match api {
            Api::Chat => Self {
                messages: "messages",
                system: None,
                max_tokens: &["max_completion_tokens", "max_tokens"],
                tools: &["tools", "functions"],
            },
            Api::Responses => Self {
                messages: "input",
                system: Some("instructions"),
                max_tokens: &["max_output_tokens"],
                tools: &["tools"],
            },
            Api::Embeddings => Self { messages: "input", system: None, max_tokens: &[], tools: &[] },
            Api::Messages => Self {
                messages: "messages",
                system: Some("system"),
                max_tokens: &["max_tokens"],
                tools: &["tools"],
            },
            Api::CountTokens => {
                Self { messages: "messages", system: Some("system"), max_tokens: &[], tools: &["tools"] }
            }
        }
    }
}

fn model<'a>(fields: &mut Fields<'a, '_>) -> Result<(Cow<'a, str>, Span), ModelError> {
    let place = fields.place.member("model");
    let value = fields.take("model").ok_or_else(|| place.missing("a string"))?;
    Ok((string_of(fields.text, value, &place)?, value.span))
}

fn messages(fields: &mut Fields<'_, '_>, api: Api, name: &str) -> Result<Value, ModelError> {
    let want = match api {
        Api::Chat | Api::Messages | Api::CountTokens => "an array of messages",
        Api::Responses | Api::Embeddings => "a string or an array",
    };
    let place = fields.place.member(name);
    // A stored prompt can take the place of the input of a response.
    let absent = || match api {
        Api::Responses => Ok(Value { kind: Kind::Null, span: Span { start: 0, end: 0 } }),
        _ => Err(place.missing(want)),
    };
    match fields.take(name) {
        None => absent(),
        Some(value) if value.kind == Kind::Array => Ok(value),
        Some(value) if value.kind == Kind::String && matches!(api, Api::Responses | Api::Embeddings) => {
            Ok(value)
        }
        Some(_) => Err(place.wrong(want)),
    }
}

fn usage_asked(text: &str, options: Option<Value>) -> Result<bool, ModelError> {
    let Some(options) = options else { return Ok(false) };
    let place = Place::Member(&Place::Root, "stream_options");
    Ok(Fields::of(text, options, &place)?.boolean("include_usage")? == Some(true))
}

/// The larger of several names for the same limit, since a budget must bear either.
fn max_output_tokens(
    fields: &mut Fields<'_, '_>,
    names: &'static [&'static str],
) -> Result<Option<u64>, ModelError> {
    let mut most = None;
    for name in names {
        most = most.max(fields.unsigned(name)?);
    }
    Ok(most)
}

fn choices(fields: &mut Fields<'_, '_>, api: Api, limits: &ModelLimits) -> Result<u64, ModelError> {
    if api != Api::Chat {
        return Ok(1);
    }
    match fields.unsigned("n")? {
        None => Ok(1),
        Some(n) if (1..=limits.choices_max).contains(&n) => Ok(n),
        Some(_) => Err(fields.place.member("n").wrong("an integer from 1 to 128")),
    }
}

fn tools<'a>(
    fields: &mut Fields<'a, '_>,
    names: &'static [&'static str],
    limits: &ModelLimits,
) -> Result<Vec<Cow<'a, str>>, ModelError> {
    let mut found = Vec::new();
    for name in names {
        let list = fields.place.member(name);
        for (index, value) in fields.elements(name)?.into_iter().enumerate() {
            if found.len() == limits.tools_max {
                return Err(ModelError::TooMany { field: list.to_string(), max: limits.tools_max });
            }
            found.push(tool_name(fields.text, value, &list.item(index))?);
        }
    }
    Ok(found)
}

/// The name of a tool definition: its own (messages, responses), or the one of what it wraps (chat);
/// tools that the provider runs itself may have a type only.
fn tool_name<'a>(text: &'a str, value: Value, place: &Place<'_>) -> Result<Cow<'a, str>, ModelError> {
    let mut tool = Fields::of(text, value, place)?;
    for wrapper in ["function", "custom"] {
        if let Some(wrapped) = tool.take(wrapper).filter(|v| v.kind == Kind::Object) {
            return Fields::of(text, wrapped, &place.member(wrapper))?.need_string("name");
        }
    }
    match tool.string("name")? {
        Some(name) => Ok(name),
        None => tool.string("type")?.ok_or_else(|| place.member("name").missing("a string")),
    }
}

fn conversation<'a>(fields: &mut Fields<'a, '_>, api: Api) -> Result<Option<Cow<'a, str>>, ModelError> {
    if api != Api::Responses {
        return Ok(None);
    }
    let place = fields.place.member("conversation");
    match fields.take("conversation") {
        None => fields.string("previous_response_id"),
        Some(value) if value.kind == Kind::String => string_of(fields.text, value, &place).map(Some),
        Some(value) => Fields::of(fields.text, value, &place)?.need_string("id").map(Some),
    }
}

fn end_user<'a>(fields: &mut Fields<'a, '_>, api: Api) -> Result<Option<Cow<'a, str>>, ModelError> {
    match api {
        Api::Chat | Api::Responses => match fields.string("safety_identifier")? {
            Some(user) => Ok(Some(user)),
            None => fields.string("user"),
        },
        Api::Embeddings => fields.string("user"),
        Api::Messages => {
            let place = fields.place.member("metadata");
            match fields.object("metadata")? {
                Some(metadata) => Fields::of(fields.text, metadata, &place)?.string("user_id"),
                None => Ok(None),
            }
        }
        Api::CountTokens => Ok(None),
    }
}

/// What one walk over the whole request counts.
#[derive(Default)]
struct Survey {
    media: Media,
    /// Bytes of media that are encoded in the text.
    encoded_bytes: usize,
}

impl Survey {
    fn value(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.kind()? {
            Kind::Object => scanner.members(|s, name| {
                let name = name.decode();
                if s.kind()? == Kind::String { self.member(s, &name) } else { self.value(s) }
            }),
            Kind::Array => scanner.elements(|s| self.value(s)),
            _ => scanner.skip().map(drop),
        }
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, name: &str) -> Result<(), JsonError> {
        let span = scanner.string()?.span();
        let raw = span.of(scanner.text());
        match name {
            "type" => match raw {
                "\"image\"" | "\"image_url\"" | "\"input_image\"" => self.media.images += 1,
                "\"document\"" | "\"file\"" | "\"input_file\"" => self.media.files += 1,
                "\"input_audio\"" => self.media.audio += 1,
                _ => {}
            },
            "data" | "file_data" | "url" | "image_url" if is_encoded(raw) => {
                self.encoded_bytes += span.end - span.start;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a string with its quotes is a data URL, or base64 that is too long for a word.
fn is_encoded(raw: &str) -> bool {
    const WORD_MAX: usize = 256;
    let data = raw.trim_matches('"');
    if data.starts_with("data:") {
        return data.contains(";base64,");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_' | b'\\');
    data.len() > WORD_MAX && data.bytes().all(plain)
}

/// The messages of a request, where they are an array.
pub(super) fn message_values(request: &Request<'_>) -> Result<Vec<Value>, ModelError> {
    match request.places.messages.kind {
        Kind::Array => elements_of(request.text, request.places.messages),
        _ => Ok(Vec::new()),
    }
}
