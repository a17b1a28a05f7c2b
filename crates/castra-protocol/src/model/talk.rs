//! What a request brings beside the model's own words: texts of the user, results of tools, and what the
//! offered tools take. Flow control starts from these.
//!
//! Only what an API clearly calls a text of the user counts as one. What the gate does not know counts as
//! a result of an unnamed tool, with all strings in it: that is the stricter reading.

use std::borrow::Cow;

use super::{
    Api, ModelError, Request,
    fields::{Fields, Place, elements_of, string_of},
    request::message_values,
};
use crate::json::{JsonError, Kind, Scanner, Value, decode_scanned};

/// Longest string without a space that is taken for a text; longer ones are encoded media.
const WORD_BYTES_MAX: usize = 16 << 10;

/// Something that a request brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought<'a> {
    /// A text in a message of the user.
    User(Cow<'a, str>),
    /// What a tool returned.
    Result(ToolResult<'a>),
    /// Something that the model said earlier.
    Model,
}

impl Brought<'_> {
    /// The text, if it is the user's.
    pub fn of_user(&self) -> Option<&str> {
        match self {
            Self::User(text) => Some(text),
            Self::Result(_) | Self::Model => None,
        }
    }
}

/// What a tool returned, as the agent tells the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolResult<'a> {
    /// The name under which the model called it; none where the call is not in the request.
    pub tool: Option<Cow<'a, str>>,
    /// The arguments as the model wrote them.
    pub arguments: Option<Cow<'a, str>>,
    /// Its texts, one a line.
    pub text: Cow<'a, str>,
    /// Whether it says that it failed.
    pub is_error: bool,
}

/// A tool as a request offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedTool<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// The names of its parameters, sorted; none where it has no schema of an object.
    pub parameters: Option<Vec<Cow<'a, str>>>,
}

/// A call of the model that an earlier part of the conversation holds.
struct Call<'a> {
    id: Cow<'a, str>,
    name: Cow<'a, str>,
    arguments: Cow<'a, str>,
}

impl<'a> Request<'a> {
    /// What it brings, in order.
    ///
    /// # Errors
    ///
    /// A message is not of the form of its API.
    pub fn brought(&self) -> Result<Vec<Brought<'a>>, ModelError> {
        let mut talk = Talk { text: self.text, calls: Vec::new(), brought: Vec::new() };
        let messages = self.places.messages;
        match self.api {
            Api::Embeddings => {}
            Api::Responses if messages.kind == Kind::String => {
                let text = string_of(self.text, messages, &Place::Root.member("input"))?;
                talk.brought.push(Brought::User(text));
            }
            Api::Responses => talk.each(self, "input", Talk::item)?,
            Api::Chat => talk.each(self, "messages", Talk::chat_message)?,
            Api::Messages | Api::CountTokens => talk.each(self, "messages", Talk::message)?,
        }
        Ok(talk.brought)
    }

    /// The tools that it offers with a definition, in order.
    ///
    /// # Errors
    ///
    /// A definition is not of the form of its API.
    pub fn offered_tools(&self) -> Result<Vec<OfferedTool<'a>>, ModelError> {
        let mut fields = Fields::of(self.text, self.places.root, &Place::Root)?;
        let mut offered = Vec::new();
        for name in ["tools", "functions"] {
            let list = Place::Root.member(name);
            for (index, value) in fields.elements(name)?.into_iter().enumerate() {
                offered_tool(self.text, value, &list.item(index), &mut offered)?;
            }
        }
        Ok(offered)
    }
}

fn offered_tool<'a>(
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    offered: &mut Vec<OfferedTool<'a>>,
) -> Result<(), ModelError> {
    let mut tool = Fields::of(text, value, place)?;
    // A namespace of the Responses API holds tools.
    for (index, value) in tool.elements("tools")?.into_iter().enumerate() {
        offered_tool(text, value, &place.item(index), offered)?;
    }
    if let Some(wrapped) = tool.take("function").filter(|value| value.kind == Kind::Object) {
        return offered_tool(text, wrapped, &place.member("function"), offered);
    }
    let Some(name) = tool.string("name")? else { return Ok(()) };
    let schema = tool.take("parameters").or_else(|| tool.take("input_schema"));
    let parameters = schema.map(|schema| property_names(text, schema)).transpose()?.flatten();
    offered.push(OfferedTool { name, parameters });
    Ok(())
}

fn property_names<'a>(text: &'a str, schema: Value) -> Result<Option<Vec<Cow<'a, str>>>, ModelError> {
    if schema.kind != Kind::Object {
        return Ok(None);
    }
    let place = Place::Root.member("parameters");
    let mut schema = Fields::of(text, schema, &place)?;
    let mut names = Vec::new();
    if let Some(properties) = schema.take("properties").filter(|value| value.kind == Kind::Object) {
        Scanner::at(text, properties.span).members(|s, name| {
            names.push(name.decode());
            s.skip().map(drop)
        })?;
    }
    names.sort();
    Ok(Some(names))
}

/// A walk over the messages of a request.
struct Talk<'a> {
    text: &'a str,
    calls: Vec<Call<'a>>,
    brought: Vec<Brought<'a>>,
}

impl<'a> Talk<'a> {
    fn each(
        &mut self,
        request: &Request<'a>,
        name: &'static str,
        take: fn(&mut Self, Value, &Place<'_>) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let list = Place::Root.member(name);
        let values = message_values(request)?;
        values.into_iter().enumerate().try_for_each(|(index, value)| take(self, value, &list.item(index)))
    }

    /// A message of chat completions.
    fn chat_message(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut message = Fields::of(self.text, value, place)?;
        match &*message.need_string("role")? {
            "system" | "developer" => {}
            "user" => self.user(message.take("content"), &place.member("content"))?,
            "assistant" => {
                self.brought.push(Brought::Model);
                let calls = place.member("tool_calls");
                for (index, call) in message.elements("tool_calls")?.into_iter().enumerate() {
                    self.chat_call(call, &calls.item(index))?;
                }
            }
            _ => {
                let called = message.string("tool_call_id")?.and_then(|id| self.called(&id));
                // The older form names the function.
                let named = message.string("name")?;
                let mut result = called.unwrap_or_default();
                result.tool = result.tool.or(named);
                self.result(result, message.take("content"))?;
            }
        }
        Ok(())
    }

    fn chat_call(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut call = Fields::of(self.text, value, place)?;
        let id = call.string("id")?.unwrap_or_default();
        let Some(function) = call.take("function").filter(|value| value.kind == Kind::Object) else {
            return Ok(());
        };
        let mut function = Fields::of(self.text, function, place)?;
        let name = function.need_string("name")?;
        let arguments = function.take("arguments");
        self.remember(id, name, arguments);
        Ok(())
    }

    /// A message of Anthropic's.
    fn message(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut message = Fields::of(self.text, value, place)?;
        let is_user = message.need_string("role")? == "user";
        if !is_user {
            self.brought.push(Brought::Model);
        }
        let place = place.member("content");
        let Some(content) = message.take("content") else { return Ok(()) };
        if content.kind != Kind::Array {
            return if is_user { self.user(Some(content), &place) } else { Ok(()) };
        }
        for (index, value) in elements_of(self.text, content)?.into_iter().enumerate() {
            self.block(value, is_user, &place.item(index))?;
        }
        Ok(())
    }

    fn block(&mut self, value: Value, is_user: bool, place: &Place<'_>) -> Result<(), ModelError> {
        let mut block = Fields::of(self.text, value, place)?;
        match &*block.need_string("type")? {
            "text" if is_user => self.brought.push(Brought::User(block.need_string("text")?)),
            "text" | "thinking" | "redacted_thinking" | "image" => {}
            "tool_use" => {
                let (id, name) = (block.need_string("id")?, block.need_string("name")?);
                let input = block.take("input");
                self.remember(id, name, input);
            }
            "tool_result" => {
                let mut result =
                    block.string("tool_use_id")?.and_then(|id| self.called(&id)).unwrap_or_default();
                result.is_error = block.boolean("is_error")? == Some(true);
                self.result(result, block.take("content"))?;
            }
            // Documents, and what the provider's own tools found.
            _ => self.result(ToolResult::default(), Some(value))?,
        }
        Ok(())
    }

    /// An item of the Responses API.
    fn item(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut item = Fields::of(self.text, value, place)?;
        match item.string("type")?.as_deref() {
            None | Some("message") => match item.string("role")?.as_deref() {
                Some("user") => self.user(item.take("content"), &place.member("content"))?,
                Some("assistant") => self.brought.push(Brought::Model),
                _ => {}
            },
            Some("function_call" | "custom_tool_call") => {
                self.brought.push(Brought::Model);
                let (id, name) = (item.need_string("call_id")?, item.need_string("name")?);
                let arguments = item.take("arguments").or_else(|| item.take("input"));
                self.remember(id, name, arguments);
            }
            Some("function_call_output" | "custom_tool_call_output") => {
                let called = item.string("call_id")?.and_then(|id| self.called(&id));
                self.result(called.unwrap_or_default(), item.take("output"))?;
            }
            Some("reasoning" | "item_reference") => {}
            Some(_) => self.result(ToolResult::default(), Some(value))?,
        }
        Ok(())
    }

    /// Texts of a message of the user.
    fn user(&mut self, content: Option<Value>, place: &Place<'_>) -> Result<(), ModelError> {
        let Some(content) = content else { return Ok(()) };
        if content.kind == Kind::String {
            let text = string_of(self.text, content, place)?;
            self.brought.push(Brought::User(text));
            return Ok(());
        }
        for (index, value) in elements_of(self.text, content)?.into_iter().enumerate() {
            let place = place.item(index);
            let mut part = Fields::of(self.text, value, &place)?;
            match part.string("type")?.as_deref() {
                Some("text" | "input_text") => {
                    self.brought.push(Brought::User(part.need_string("text")?));
                }
                Some("image_url" | "input_image" | "input_audio") => {}
                // A file is what somebody else may have written.
                _ => self.result(ToolResult::default(), Some(value))?,
            }
        }
        Ok(())
    }

    fn remember(&mut self, id: Cow<'a, str>, name: Cow<'a, str>, arguments: Option<Value>) {
        let arguments = match arguments {
            None => Cow::Borrowed("{}"),
            Some(value) if value.kind == Kind::String => decode_scanned(value.span.of(self.text)),
            Some(value) => Cow::Borrowed(value.span.of(self.text)),
        };
        self.calls.push(Call { id, name, arguments });
    }

    /// The call with an id; the newest, where ids repeat.
    fn called(&self, id: &str) -> Option<ToolResult<'a>> {
        let call = self.calls.iter().rev().find(|call| call.id == *id)?;
        Some(ToolResult {
            tool: Some(call.name.clone()),
            arguments: Some(call.arguments.clone()),
            ..ToolResult::default()
        })
    }

    fn result(&mut self, result: ToolResult<'a>, content: Option<Value>) -> Result<(), ModelError> {
        let text = match content {
            None => Cow::Borrowed(""),
            Some(value) if value.kind == Kind::String => decode_scanned(value.span.of(self.text)),
            Some(value) => self.texts(value)?,
        };
        self.brought.push(Brought::Result(ToolResult { text, ..result }));
        Ok(())
    }

    /// All texts within a value: one part's as it stands, several one a line.
    fn texts(&self, value: Value) -> Result<Cow<'a, str>, ModelError> {
        let mut found = Vec::new();
        strings(&mut Scanner::at(self.text, value.span), &mut found)?;
        Ok(match found.len() {
            1 => found.pop().unwrap_or_default(),
            _ => Cow::Owned(found.join("\n")),
        })
    }
}

/// The strings within a value, without the words of the format itself and without media.
fn strings<'a>(scanner: &mut Scanner<'a>, found: &mut Vec<Cow<'a, str>>) -> Result<(), JsonError> {
    match scanner.kind()? {
        Kind::Object => scanner.members(|s, name| {
            if matches!(&*name.decode(), "type" | "id" | "cache_control" | "media_type" | "status") {
                return s.skip().map(drop);
            }
            strings(s, found)
        }),
        Kind::Array => scanner.elements(|s| strings(s, found)),
        Kind::String => {
            let text = scanner.string()?.decode();
            if text.len() <= WORD_BYTES_MAX || text.contains(' ') {
                found.push(text);
            }
            Ok(())
        }
        _ => scanner.skip().map(drop),
    }
}
