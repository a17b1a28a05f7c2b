//! Reading a request.

use std::borrow::Cow;

use crate::{
    json::{Kind, Value},
    model::{
        Form, ModelError, Request,
        fields::{Fields, Place, elements_of, string_of, wrapped},
        ir::{Call, Conversation, Effort, Part, Piece, Reasoning, Role, Schema, Source, Tool},
        openai,
        request::message_values,
    },
};

/// Reads a request that is to be translated to `to`.
pub(in crate::model) fn read_request<'a>(
    request: &Request<'a>,
    to: Form,
) -> Result<Conversation<'a>, ModelError> {
    let place = Place::Root;
    let mut fields = Fields::of(request.text, request.places.root, &place)?;
    let mut read = Conversation { stream: request.stream, ..Conversation::default() };
    for name in ["model", "messages", "stream"] {
        fields.take(name);
    }
    let messages = place.member("messages");
    for (index, value) in message_values(request)?.into_iter().enumerate() {
        read_message(&mut read, request.text, value, &messages.item(index), to)?;
    }
    read_tools(&mut read, &mut fields, to)?;
    read_limits(&mut read, &mut fields)?;
    read_format(&mut read, &mut fields, to)?;
    read_settings(&mut read, &mut fields, to)?;
    fields.rest(to)?;
    Ok(read)
}

fn read_message<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<(), ModelError> {
    let mut message = Fields::of(text, value, place)?;
    if message.take("name").is_some() {
        return Err(place.member("name").untranslatable(to, "its messages have no names of participants"));
    }
    let role = message.need_string("role")?;
    let mut pieces = read_content(read, &mut message, to)?;
    let role = match &*role {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => {
            read_assistant(&mut message, &mut pieces, to)?;
            Role::Assistant
        }
        "tool" => {
            let id = message.need_string("tool_call_id")?;
            let field = place.to_string();
            pieces = vec![Piece { field, part: Part::Result { id, pieces, is_error: false } }];
            Role::User
        }
        "function" => {
            let why = "results of the older `functions`; use messages of the role `tool`";
            return Err(place.member("role").untranslatable(to, why));
        }
        _ => {
            let want = "one of system, developer, user, assistant, tool, function";
            return Err(place.member("role").wrong(want));
        }
    };
    message.rest(to)?;
    read.say(role, place.to_string(), pieces);
    Ok(())
}

/// The content of a message: a string is a text part.
fn read_content<'a>(
    read: &mut Conversation<'a>,
    message: &mut Fields<'a, '_>,
    to: Form,
) -> Result<Vec<Piece<'a>>, ModelError> {
    let place = message.place.member("content");
    let text = message.text;
    let Some(content) = message.take("content") else { return Ok(Vec::new()) };
    match content.kind {
        Kind::String => {
            let part = Part::Text(string_of(text, content, &place)?);
            Ok(vec![Piece { field: place.to_string(), part }])
        }
        Kind::Array => {
            let parts = elements_of(text, content)?.into_iter().enumerate();
            parts.map(|(i, value)| read_part(read, text, value, &place.item(i), to)).collect()
        }
        _ => Err(place.wrong("a string or an array of content parts")),
    }
}

fn read_part<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<Piece<'a>, ModelError> {
    let mut part = Fields::of(text, value, place)?;
    let kind = part.need_string("type")?;
    let read_part = match &*kind {
        "text" => Part::Text(part.need_string("text")?),
        "refusal" => Part::Refusal(part.need_string("refusal")?),
        "image_url" => read_image(&mut part, to)?,
        "file" => read_file(&mut part, to)?,
        "input_audio" => read_audio(&mut part, to)?,
        _ => {
            return Err(place
                .member("type")
                .untranslatable(to, "this gate does not know the kind of content"));
        }
    };
    if part.take("prompt_cache_breakpoint").is_some() {
        read.set_aside("prompt_cache_breakpoint");
    }
    part.rest(to)?;
    Ok(Piece { field: place.to_string(), part: read_part })
}

fn read_image<'a>(part: &mut Fields<'a, '_>, to: Form) -> Result<Part<'a>, ModelError> {
    let place = part.place.member("image_url");
    let mut image = wrapped(part, "image_url", &place)?;
    let url = image.need_string("url")?;
    match image.string("detail")?.as_deref() {
        None | Some("auto") => {}
        Some(_) => {
            return Err(place.member("detail").untranslatable(to, "images have no level of detail there"));
        }
    }
    image.rest(to)?;
    Ok(Part::Image(source_of_url(url, &place.member("url"))?))
}

/// A data URL is base64, anything else a URL that the provider fetches.
pub(in crate::model) fn source_of_url<'a>(
    url: Cow<'a, str>,
    place: &Place<'_>,
) -> Result<Source<'a>, ModelError> {
    match url {
        Cow::Borrowed(url) => match data_url(url, place)? {
            Some((media_type, data)) => {
                Ok(Source::Base64 { media_type: media_type.into(), data: data.into() })
            }
            None => Ok(Source::Url(url.into())),
        },
        Cow::Owned(url) => match data_url(&url, place)? {
            Some((media_type, data)) => Ok(Source::Base64 {
                media_type: media_type.to_string().into(),
                data: data.to_string().into(),
            }),
            None => Ok(Source::Url(url.into())),
        },
    }
}

/// Media type and base64 of a data URL (RFC 2397); None for another URL.
fn data_url<'u>(url: &'u str, place: &Place<'_>) -> Result<Option<(&'u str, &'u str)>, ModelError> {
    let Some(rest) = url.strip_prefix("data:") else { return Ok(None) };
    match rest.split_once(";base64,") {
        Some((media_type, data)) if !media_type.is_empty() && !media_type.contains(',') => {
            Ok(Some((media_type, data)))
        }
        _ => Err(place.wrong("an https URL, or a data URL with a media type and base64")),
    }
}

fn read_file<'a>(part: &mut Fields<'a, '_>, to: Form) -> Result<Part<'a>, ModelError> {
    let place = part.place.member("file");
    let mut file = wrapped(part, "file", &place)?;
    if file.take("file_id").is_some() {
        let why = "a file that was uploaded to one provider is not there at another";
        return Err(place.member("file_id").untranslatable(to, why));
    }
    let name = file.string("filename")?;
    let data = file.need_string("file_data")?;
    file.rest(to)?;
    let place = place.member("file_data");
    match source_of_url(data, &place)? {
        Source::Url(_) => Err(place.wrong("a data URL with a media type and base64")),
        source => Ok(Part::File { source, name }),
    }
}

fn read_audio<'a>(part: &mut Fields<'a, '_>, to: Form) -> Result<Part<'a>, ModelError> {
    let place = part.place.member("input_audio");
    let mut audio = wrapped(part, "input_audio", &place)?;
    let (data, format) = (audio.need_string("data")?, audio.need_string("format")?);
    audio.rest(to)?;
    Ok(Part::Audio { data, format })
}

/// What only messages of the assistant have.
fn read_assistant<'a>(
    message: &mut Fields<'a, '_>,
    pieces: &mut Vec<Piece<'a>>,
    to: Form,
) -> Result<(), ModelError> {
    let place = message.place;
    if let Some(refusal) = message.string("refusal")? {
        pieces.push(Piece { field: place.member("refusal").to_string(), part: Part::Refusal(refusal) });
    }
    for (unsaid, why) in [
        ("audio", "it does not take audio"),
        ("function_call", "replaced by `tool_calls`, which can be translated"),
    ] {
        if message.take(unsaid).is_some() {
            return Err(place.member(unsaid).untranslatable(to, why));
        }
    }
    // SDKs send an answer back as it came, with its empty members.
    let annotations = message.elements("annotations")?;
    if !annotations.is_empty() {
        return Err(place.member("annotations").untranslatable(to, "it has no place for citations"));
    }
    let names = ["reasoning_content", "reasoning"];
    let texts = [message.string(names[0])?, message.string(names[1])?];
    // Servers that know both names write the same under both.
    let said =
        names.into_iter().zip(texts).find_map(|(name, text)| Some((name, text.filter(|t| !t.is_empty())?)));
    if let Some((name, text)) = said {
        let part = Part::Reasoning { text, signature: None };
        pieces.insert(0, Piece { field: place.member(name).to_string(), part });
    }
    let calls = place.member("tool_calls");
    for (index, value) in message.elements("tool_calls")?.into_iter().enumerate() {
        let field = calls.item(index);
        let call = read_call(message.text, value, &field, to)?;
        pieces.push(Piece { field: field.to_string(), part: Part::Call(call) });
    }
    pieces.retain(|piece| !matches!(&piece.part, Part::Text(text) if text.is_empty()));
    Ok(())
}

fn read_call<'a>(text: &'a str, value: Value, place: &Place<'_>, to: Form) -> Result<Call<'a>, ModelError> {
    let mut call = Fields::of(text, value, place)?;
    let id = call.need_string("id")?;
    if call.string("type")?.is_some_and(|kind| kind != "function") {
        return Err(place.member("type").untranslatable(to, "its tools take JSON, not free text"));
    }
    let signature = read_thought_signature(&mut call)?;
    let wrapper = place.member("function");
    let mut function = wrapped(&mut call, "function", &wrapper)?;
    let (name, arguments) = (function.need_string("name")?, function.need_string("arguments")?);
    function.rest(to)?;
    // Streams number their calls, and clients keep the number.
    call.take("index");
    call.rest(to)?;
    Ok(Call { id, name, arguments, signature })
}

/// `extra_content.google.thought_signature`, as Google's compatible endpoint writes it.
pub(super) fn read_thought_signature<'a>(
    call: &mut Fields<'a, '_>,
) -> Result<Option<Cow<'a, str>>, ModelError> {
    let place = call.place.member("extra_content");
    let Some(extra) = call.object("extra_content")? else { return Ok(None) };
    let mut extra = Fields::of(call.text, extra, &place)?;
    let place = place.member("google");
    match extra.object("google")? {
        Some(google) => Fields::of(call.text, google, &place)?.string("thought_signature"),
        None => Ok(None),
    }
}

fn read_tools<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    for older in ["functions", "function_call"] {
        if fields.take(older).is_some() {
            let why = "replaced by `tools` and `tool_choice`, which can be translated";
            return Err(fields.place.member(older).untranslatable(to, why));
        }
    }
    let list = fields.place.member("tools");
    for (index, value) in fields.elements("tools")?.into_iter().enumerate() {
        read.tools.push(read_tool(fields.text, value, &list.item(index), to)?);
    }
    read.parallel_calls = fields.boolean("parallel_tool_calls")?;
    read.tool_choice = openai::read_tool_choice(fields, to, |choice, place| {
        wrapped(choice, "function", &place.member("function"))?.need_string("name")
    })?;
    Ok(())
}

fn read_tool<'a>(text: &'a str, value: Value, place: &Place<'_>, to: Form) -> Result<Tool<'a>, ModelError> {
    let mut tool = Fields::of(text, value, place)?;
    if tool.need_string("type")? != "function" {
        return Err(place.member("type").untranslatable(to, "its tools take JSON, not free text"));
    }
    let wrapper = place.member("function");
    let mut function = wrapped(&mut tool, "function", &wrapper)?;
    let read = Tool {
        name: function.need_string("name")?,
        description: function.string("description")?,
        parameters: function.object("parameters")?.map(|v| v.span.of(text)),
        strict: function.boolean("strict")?,
    };
    function.rest(to)?;
    tool.rest(to)?;
    Ok(read)
}

fn read_limits<'a>(read: &mut Conversation<'a>, fields: &mut Fields<'a, '_>) -> Result<(), ModelError> {
    let (newer, older) = (fields.unsigned("max_completion_tokens")?, fields.unsigned("max_tokens")?);
    if let (Some(newer), Some(older)) = (newer, older)
        && newer != older
    {
        return Err(fields
            .place
            .member("max_tokens")
            .wrong("the same as `max_completion_tokens`, or left out"));
    }
    read.max_tokens = newer.or(older);
    read.temperature = fields.number("temperature")?;
    read.top_p = fields.number("top_p")?;
    let place = fields.place.member("stop");
    match fields.take("stop") {
        None => {}
        Some(value) if value.kind == Kind::Array => read.stop = fields.strings("stop")?,
        Some(value) => read.stop.push(string_of(fields.text, value, &place)?),
    }
    Ok(())
}

fn read_format<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place.member("response_format");
    let Some(format) = fields.object("response_format")? else { return Ok(()) };
    let mut format = Fields::of(fields.text, format, &place)?;
    match &*format.need_string("type")? {
        "text" => {}
        "json_object" => read.setting("json_object", "response_format.type", Some("true")),
        "json_schema" => {
            let wrapper = place.member("json_schema");
            let mut schema = wrapped(&mut format, "json_schema", &wrapper)?;
            let missing = || wrapper.member("schema").missing("a JSON Schema");
            read.schema = Some(Schema {
                name: schema.string("name")?,
                description: schema.string("description")?,
                raw: schema.object("schema")?.ok_or_else(missing)?.span.of(fields.text),
                strict: schema.boolean("strict")?,
            });
            schema.rest(to)?;
        }
        _ => return Err(place.member("type").untranslatable(to, "this gate does not know the format")),
    }
    format.rest(to)
}

fn read_settings<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place;
    if let Some(effort) = fields.string("reasoning_effort")? {
        let wrong =
            || place.member("reasoning_effort").wrong("none, minimal, low, medium, high, xhigh or max");
        read.reasoning_field = "reasoning_effort";
        read.reasoning = Some(match &*effort {
            "none" => Reasoning::Off,
            word => Reasoning::Effort(Effort::parse(word).ok_or_else(wrong)?),
        });
    }
    // Whether usage is asked for was read with the request.
    openai::read_delivery(read, fields, &["include_usage"], to)?;
    // What says no more than the default is no setting.
    let defaults: [(&'static str, &[&str]); 16] = [
        ("n", &["1"]),
        ("seed", &[]),
        ("presence_penalty", &["0", "0.0"]),
        ("frequency_penalty", &["0", "0.0"]),
        ("logit_bias", &["{}"]),
        ("logprobs", &["false"]),
        ("top_logprobs", &["0"]),
        ("modalities", &["[\"text\"]"]),
        ("service_tier", &["\"auto\""]),
        ("store", &["false"]),
        ("verbosity", &["\"medium\""]),
        ("metadata", &["{}"]),
        ("audio", &[]),
        ("prediction", &[]),
        ("moderation", &[]),
        ("web_search_options", &[]),
    ];
    for (name, default) in defaults {
        let plain = |raw: &str| raw.split_ascii_whitespace().collect::<String>();
        let raw = fields.raw(name).filter(|raw| !default.contains(&&*plain(raw)));
        read.setting(name, name, raw);
    }
    Ok(())
}
