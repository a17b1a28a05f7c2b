//! A request of the Responses API as a conversation.

use std::{borrow::Cow, sync::Arc};

use crate::{
    json::{Kind, Value},
    model::{
        Asked, Form, ModelError, Request,
        chat::source_of_url,
        fields::{Fields, Place, elements_of, string_of},
        ir::{Call, Conversation, Effort, GEMINI, Part, Piece, Reasoning, Role, Schema, Source, Tool},
        openai,
        request::message_values,
        write::Object,
    },
};

const STORED: &str = "what OpenAI keeps is not there at another provider; send the whole conversation";
const UPLOADED: &str = "a file that was uploaded to one provider is not there at another";
const TOOL: &str =
    "a tool of OpenAI's own is not there at another provider, only tools of the type `function` are";
const ITEM: &str = "only messages, reasoning, calls of functions and their results can be translated";

/// Reads a request that is to be translated to `to`.
pub(in crate::model) fn read_request<'a>(
    request: &Request<'a>,
    to: Form,
) -> Result<Conversation<'a>, ModelError> {
    let place = Place::Root;
    let mut fields = Fields::of(request.text, request.places.root, &place)?;
    let mut read = Conversation { stream: request.stream, ..Conversation::default() };
    for name in ["model", "stream"] {
        fields.take(name);
    }
    refuse_stored(&mut fields, to)?;
    if let Some(text) = fields.string("instructions")? {
        let field = "instructions".to_string();
        read.say(Role::System, field.clone(), vec![Piece { field, part: Part::Text(text) }]);
    }
    read_input(&mut read, request, &mut fields, to)?;
    read_tools(&mut read, &mut fields, to)?;
    read_text(&mut read, &mut fields, to)?;
    read_reasoning(&mut read, &mut fields, to)?;
    read_settings(&mut read, &mut fields, to)?;
    fields.rest(to)?;
    Ok(read)
}

/// What names something that only OpenAI has.
fn refuse_stored(fields: &mut Fields<'_, '_>, to: Form) -> Result<(), ModelError> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if fields.take(name).is_some() {
            return Err(fields.place.member(name).untranslatable(to, STORED));
        }
    }
    if fields.boolean("background")? == Some(true) {
        let why = "an answer that is fetched later is kept by OpenAI only";
        return Err(fields.place.member("background").untranslatable(to, why));
    }
    if fields.boolean("store")? == Some(true) {
        let why = "an answer in another form cannot be stored and fetched again; leave it out or say false";
        return Err(fields.place.member("store").untranslatable(to, why));
    }
    Ok(())
}

/// `input` is a text of the user or a list of items.
fn read_input<'a>(
    read: &mut Conversation<'a>,
    request: &Request<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place.member("input");
    match fields.take("input") {
        Some(value) if value.kind == Kind::String => {
            let field = place.to_string();
            let part = Part::Text(string_of(fields.text, value, &place)?);
            read.say(Role::User, field.clone(), vec![Piece { field, part }]);
        }
        Some(_) => {
            let mut items = Items { text: fields.text, to, signature: None };
            for (index, value) in message_values(request)?.into_iter().enumerate() {
                items.item(read, value, &place.item(index))?;
            }
        }
        None => return Err(place.missing("a string or an array")),
    }
    Ok(())
}

/// The items of an input under way.
struct Items<'a> {
    text: &'a str,
    to: Form,
    /// What Gemini wants back with its next call.
    signature: Option<Cow<'a, str>>,
}

impl<'a> Items<'a> {
    fn item(
        &mut self,
        read: &mut Conversation<'a>,
        value: Value,
        place: &Place<'_>,
    ) -> Result<(), ModelError> {
        let mut item = Fields::of(self.text, value, place)?;
        // Ids and states are OpenAI's bookkeeping; SDKs send them back with an answer's items.
        for known in ["id", "status"] {
            item.take(known);
        }
        let kind = item.string("type")?;
        let (role, pieces) = match kind.as_deref() {
            None | Some("message") => self.message(read, &mut item)?,
            Some("function_call") => (Role::Assistant, vec![self.call(&mut item)?]),
            Some("function_call_output") => (Role::User, vec![self.result(read, &mut item)?]),
            Some("reasoning") => (Role::Assistant, self.reasoning(read, &mut item)?),
            Some("item_reference") => return Err(place.untranslatable(self.to, STORED)),
            Some("custom_tool_call" | "custom_tool_call_output") => {
                let why = "its tools take JSON, not free text";
                return Err(place.member("type").untranslatable(self.to, why));
            }
            Some(_) => return Err(place.member("type").untranslatable(self.to, ITEM)),
        };
        item.rest(self.to)?;
        if !pieces.is_empty() {
            read.say(role, place.to_string(), pieces);
        }
        Ok(())
    }

    fn message(
        &mut self,
        read: &mut Conversation<'a>,
        item: &mut Fields<'a, '_>,
    ) -> Result<(Role, Vec<Piece<'a>>), ModelError> {
        let role = match &*item.need_string("role")? {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => return Err(item.place.member("role").wrong("one of system, developer, user, assistant")),
        };
        // Whether the model meant its text as a remark or as the answer.
        if item.take("phase").is_some() {
            read.set_aside("phase");
        }
        Ok((role, self.content(read, item, "content")?))
    }

    /// A string, or a list of parts.
    fn content(
        &self,
        read: &mut Conversation<'a>,
        item: &mut Fields<'a, '_>,
        name: &'static str,
    ) -> Result<Vec<Piece<'a>>, ModelError> {
        let place = item.place.member(name);
        let Some(content) = item.take(name) else { return Err(place.missing("a string or an array")) };
        match content.kind {
            Kind::String => {
                let part = Part::Text(string_of(self.text, content, &place)?);
                Ok(vec![Piece { field: place.to_string(), part }])
            }
            Kind::Array => {
                let parts = elements_of(self.text, content)?.into_iter().enumerate();
                parts.map(|(i, value)| self.part(read, value, &place.item(i))).collect()
            }
            _ => Err(place.wrong("a string or an array of content parts")),
        }
    }

    fn part(
        &self,
        read: &mut Conversation<'a>,
        value: Value,
        place: &Place<'_>,
    ) -> Result<Piece<'a>, ModelError> {
        let mut fields = Fields::of(self.text, value, place)?;
        if fields.take("prompt_cache_breakpoint").is_some() {
            read.set_aside("prompt_cache_breakpoint");
        }
        let part = match &*fields.need_string("type")? {
            "input_text" => Part::Text(fields.need_string("text")?),
            "output_text" => {
                self.only_text(&mut fields)?;
                Part::Text(fields.need_string("text")?)
            }
            "refusal" => Part::Refusal(fields.need_string("refusal")?),
            "input_image" => self.image(&mut fields)?,
            "input_file" => self.file(&mut fields)?,
            _ => {
                let why = "this gate does not know the kind of content";
                return Err(place.member("type").untranslatable(self.to, why));
            }
        };
        fields.rest(self.to)?;
        Ok(Piece { field: place.to_string(), part })
    }

    /// SDKs send an answer's text back with its lists, which are empty as a rule.
    fn only_text(&self, fields: &mut Fields<'a, '_>) -> Result<(), ModelError> {
        for name in ["annotations", "logprobs"] {
            if !fields.elements(name)?.is_empty() {
                let why = "it has no place for notes on text";
                return Err(fields.place.member(name).untranslatable(self.to, why));
            }
        }
        Ok(())
    }

    fn no_file_id(&self, fields: &mut Fields<'a, '_>) -> Result<(), ModelError> {
        match fields.take("file_id") {
            Some(_) => Err(fields.place.member("file_id").untranslatable(self.to, UPLOADED)),
            None => Ok(()),
        }
    }

    fn no_detail(&self, fields: &mut Fields<'a, '_>) -> Result<(), ModelError> {
        match fields.string("detail")?.as_deref() {
            None | Some("auto") => Ok(()),
            Some(_) => {
                let why = "images and files have no level of detail there";
                Err(fields.place.member("detail").untranslatable(self.to, why))
            }
        }
    }

    fn image(&self, fields: &mut Fields<'a, '_>) -> Result<Part<'a>, ModelError> {
        self.no_file_id(fields)?;
        self.no_detail(fields)?;
        let url = fields.need_string("image_url")?;
        Ok(Part::Image(source_of_url(url, &fields.place.member("image_url"))?))
    }

    fn file(&self, fields: &mut Fields<'a, '_>) -> Result<Part<'a>, ModelError> {
        self.no_file_id(fields)?;
        self.no_detail(fields)?;
        let name = fields.string("filename")?;
        let place = fields.place;
        let source = match (fields.string("file_data")?, fields.string("file_url")?) {
            (Some(data), None) => match source_of_url(data, &place.member("file_data"))? {
                Source::Url(_) => {
                    let want = "a data URL with a media type and base64";
                    return Err(place.member("file_data").wrong(want));
                }
                source => source,
            },
            (None, Some(url)) => source_of_url(url, &place.member("file_url"))?,
            (None, None) => return Err(place.member("file_data").missing("a data URL, or `file_url`")),
            (Some(_), Some(_)) => return Err(place.member("file_url").wrong("left out beside `file_data`")),
        };
        Ok(Part::File { source, name })
    }

    fn call(&mut self, item: &mut Fields<'a, '_>) -> Result<Piece<'a>, ModelError> {
        self.only_direct(item)?;
        if item.take("namespace").is_some() {
            return Err(item
                .place
                .member("namespace")
                .untranslatable(self.to, "its tools have no namespaces"));
        }
        if item.boolean("async")? == Some(true) {
            return Err(item
                .place
                .member("async")
                .untranslatable(self.to, "a call waits for its result there"));
        }
        let part = Part::Call(Call {
            id: item.need_string("call_id")?,
            name: item.need_string("name")?,
            arguments: item.need_string("arguments")?,
            signature: self.signature.take(),
        });
        Ok(Piece { field: item.place.to_string(), part })
    }

    fn result(
        &mut self,
        read: &mut Conversation<'a>,
        item: &mut Fields<'a, '_>,
    ) -> Result<Piece<'a>, ModelError> {
        self.only_direct(item)?;
        // The id says which call; these repeat what the call says.
        for known in ["name", "namespace"] {
            item.take(known);
        }
        let id = item.need_string("call_id")?;
        let pieces = self.content(read, item, "output")?;
        Ok(Piece { field: item.place.to_string(), part: Part::Result { id, pieces, is_error: false } })
    }

    /// A call that the model made itself, not a program that it wrote.
    fn only_direct(&self, item: &mut Fields<'a, '_>) -> Result<(), ModelError> {
        let place = item.place.member("caller");
        let Some(caller) = item.object("caller")? else { return Ok(()) };
        match &*Fields::of(self.text, caller, &place)?.need_string("type")? {
            "direct" => Ok(()),
            _ => Err(place.member("type").untranslatable(self.to, "tools are called by the model only")),
        }
    }

    /// Reasoning is for the model that made it. What Gemini sealed goes back to it: with its words, or
    /// without any as what it wants back with its next call. OpenAI's can be read by OpenAI alone.
    fn reasoning(
        &mut self,
        read: &mut Conversation<'a>,
        item: &mut Fields<'a, '_>,
    ) -> Result<Vec<Piece<'a>>, ModelError> {
        item.take("content");
        let sealed = item.string("encrypted_content")?;
        let list = item.place.member("summary");
        let mut text = String::new();
        for (index, value) in item.elements("summary")?.into_iter().enumerate() {
            text.push_str(&Fields::of(self.text, value, &list.item(index))?.need_string("text")?);
        }
        match sealed.as_deref().and_then(|sealed| sealed.strip_prefix(GEMINI)) {
            Some(signature) if text.is_empty() => {
                self.signature = Some(Cow::Owned(signature.to_owned()));
                Ok(Vec::new())
            }
            Some(_) => {
                let part = Part::Reasoning { text: text.into(), signature: sealed };
                Ok(vec![Piece { field: item.place.to_string(), part }])
            }
            None => {
                read.set_aside("reasoning");
                Ok(Vec::new())
            }
        }
    }
}

fn read_tools<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let list = fields.place.member("tools");
    for (index, value) in fields.elements("tools")?.into_iter().enumerate() {
        let tool = read_tool(read, fields.text, value, &list.item(index), to)?;
        read.tools.push(tool);
    }
    read.parallel_calls = fields.boolean("parallel_tool_calls")?;
    // It bounds calls of hosted tools, of which there are none.
    if fields.unsigned("max_tool_calls")?.is_some() {
        read.set_aside("max_tool_calls");
    }
    read.tool_choice = openai::read_tool_choice(fields, to, |choice, _| choice.need_string("name"))?;
    Ok(())
}

fn read_tool<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<Tool<'a>, ModelError> {
    let mut tool = Fields::of(text, value, place)?;
    match &*tool.need_string("type")? {
        "function" => {}
        "custom" => {
            return Err(place.member("type").untranslatable(to, "its tools take JSON, not free text"));
        }
        "namespace" => return Err(place.member("type").untranslatable(to, "its tools have no namespaces")),
        _ => return Err(place.member("type").untranslatable(to, TOOL)),
    }
    for name in ["async", "defer_loading"] {
        if tool.boolean(name)? == Some(true) {
            return Err(place.member(name).untranslatable(to, "tools are known and waited for there"));
        }
    }
    let callers = tool.strings("allowed_callers")?;
    if callers.iter().any(|caller| caller != "direct") {
        return Err(place.member("allowed_callers").untranslatable(to, "tools are called by the model only"));
    }
    if tool.take("output_schema").is_some() {
        read.set_aside("tools[].output_schema");
    }
    let read = Tool {
        name: tool.need_string("name")?,
        description: tool.string("description")?,
        parameters: tool.object("parameters")?.map(|v| v.span.of(text)),
        strict: tool.boolean("strict")?,
    };
    tool.rest(to)?;
    Ok(read)
}

/// `text`: the form of the answer, and how wordy it is.
fn read_text<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place.member("text");
    let Some(value) = fields.object("text")? else { return Ok(()) };
    let mut text = Fields::of(fields.text, value, &place)?;
    let verbosity = text.raw("verbosity").filter(|raw| *raw != "\"medium\"");
    read.setting("verbosity", "text.verbosity", verbosity);
    let place = place.member("format");
    if let Some(value) = text.object("format")? {
        let mut format = Fields::of(fields.text, value, &place)?;
        match &*format.need_string("type")? {
            "text" => {}
            "json_object" => read.setting("json_object", "text.format.type", Some("true")),
            "json_schema" => {
                let missing = || place.member("schema").missing("a JSON Schema");
                read.schema = Some(Schema {
                    name: format.string("name")?,
                    description: format.string("description")?,
                    raw: format.object("schema")?.ok_or_else(missing)?.span.of(fields.text),
                    strict: format.boolean("strict")?,
                });
            }
            _ => return Err(place.member("type").untranslatable(to, "this gate does not know the format")),
        }
        format.rest(to)?;
    }
    text.rest(to)
}

fn read_reasoning<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place.member("reasoning");
    let Some(value) = fields.object("reasoning")? else { return Ok(()) };
    let mut reasoning = Fields::of(fields.text, value, &place)?;
    read.reasoning_field = "reasoning.effort";
    if let Some(effort) = reasoning.string("effort")? {
        let wrong = || place.member("effort").wrong("none, minimal, low, medium, high, xhigh or max");
        read.reasoning = Some(match &*effort {
            "none" => Reasoning::Off,
            word => Reasoning::Effort(Effort::parse(word).ok_or_else(wrong)?),
        });
    }
    // The older name of the same.
    let (newer, older) = (reasoning.raw("summary"), reasoning.raw("generate_summary"));
    match newer.or(older) {
        Some(raw) if to == Form::Gemini => read.setting("reasoning_summary", "reasoning.summary", Some(raw)),
        Some(_) => read.set_aside("reasoning.summary"),
        None => {}
    }
    for (name, default) in [("context", "auto"), ("mode", "standard")] {
        if reasoning.string(name)?.is_some_and(|word| word != default) {
            return Err(place.member(name).untranslatable(to, "it has no such setting"));
        }
    }
    reasoning.rest(to)
}

fn read_settings<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place;
    read.max_tokens = fields.unsigned("max_output_tokens")?;
    read.temperature = fields.number("temperature")?;
    read.top_p = fields.number("top_p")?;
    openai::read_delivery(read, fields, &[], to)?;
    // More of what hosted tools do, or of what is sent anyway; log probabilities are more than that.
    for (index, wish) in fields.strings("include")?.iter().enumerate() {
        if wish == "message.output_text.logprobs" {
            let place = place.member("include");
            return Err(place.item(index).untranslatable(to, "log probabilities are not translated"));
        }
    }
    if fields.string("truncation")?.is_some_and(|word| word != "disabled") {
        let why = "a conversation that is too long is not shortened there";
        return Err(place.member("truncation").untranslatable(to, why));
    }
    let defaults: [(&'static str, &[&str]); 3] =
        [("service_tier", &["\"auto\""]), ("top_logprobs", &["0"]), ("metadata", &["{}"])];
    for (name, default) in defaults {
        let raw = fields.raw(name).filter(|raw| !default.contains(raw));
        read.setting(name, name, raw);
    }
    Ok(())
}

/// What a Responses object repeats of its request.
pub(in crate::model) fn asked(request: &Request<'_>) -> Result<Asked, ModelError> {
    let place = Place::Root;
    let mut fields = Fields::of(request.text, request.places.root, &place)?;
    let includes = fields.strings("include")?;
    let mut repeated = Object::new();
    for (name, default) in [
        ("instructions", "null"),
        ("max_output_tokens", "null"),
        ("metadata", "{}"),
        ("parallel_tool_calls", "true"),
        ("previous_response_id", "null"),
        ("reasoning", "{\"effort\":null,\"summary\":null}"),
        ("temperature", "null"),
        ("text", "{\"format\":{\"type\":\"text\"}}"),
        ("tool_choice", "\"auto\""),
        ("tools", "[]"),
        ("top_p", "null"),
        ("truncation", "\"disabled\""),
    ] {
        repeated.raw(name, fields.raw(name).unwrap_or(default));
    }
    let whole = repeated.finish();
    let members = whole.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
    Ok(Asked::Response {
        repeated: Arc::from(members),
        sealed_reasoning: includes.iter().any(|wish| wish == "reasoning.encrypted_content"),
    })
}
