//! The names of all tools that a request of the Responses API offers.
//!
//! Tools stand in more places than `tools`: a namespace holds some, and an item of the input can add
//! some in the middle of a conversation. All of them are named, so that the tool set of a version holds
//! for each. A tool that runs at the provider is named by its type, a remote MCP server as `mcp:LABEL`.

use std::borrow::Cow;

use crate::{
    json::{Kind, Value},
    model::{
        ModelError, ModelLimits,
        fields::{Fields, Place, elements_of},
    },
};

/// Names the tools of a request, in order. `input` is the member of that name.
pub(in crate::model) fn offered<'a>(
    fields: &mut Fields<'a, '_>,
    input: Value,
    limits: &ModelLimits,
) -> Result<Vec<Cow<'a, str>>, ModelError> {
    let mut found = Found { text: fields.text, names: Vec::new(), max: limits.tools_max };
    found.list(fields.elements("tools")?, &fields.place.member("tools"))?;
    if input.kind == Kind::Array {
        let place = fields.place.member("input");
        for (index, item) in elements_of(fields.text, input)?.into_iter().enumerate() {
            found.item(item, &place.item(index))?;
        }
    }
    Ok(found.names)
}

struct Found<'a> {
    text: &'a str,
    names: Vec<Cow<'a, str>>,
    max: usize,
}

impl Found<'_> {
    /// An item of the input. What a remote server listed was offered before, by its definition.
    fn item(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut item = Fields::of(self.text, value, place)?;
        if item.string("type")?.is_some_and(|kind| kind == "mcp_list_tools") {
            return Ok(());
        }
        self.list(item.elements("tools")?, &place.member("tools"))
    }

    fn list(&mut self, tools: Vec<Value>, place: &Place<'_>) -> Result<(), ModelError> {
        tools.into_iter().enumerate().try_for_each(|(index, tool)| self.tool(tool, &place.item(index)))
    }

    fn tool(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut tool = Fields::of(self.text, value, place)?;
        let kind = tool.need_string("type")?;
        let name = match &*kind {
            "function" | "custom" => tool.need_string("name")?,
            "mcp" => format!("mcp:{}", tool.need_string("server_label")?).into(),
            "namespace" => return self.list(tool.elements("tools")?, &place.member("tools")),
            _ => kind,
        };
        if self.names.len() == self.max {
            return Err(ModelError::TooMany { field: "tools".into(), max: self.max });
        }
        self.names.push(name);
        Ok(())
    }
}
