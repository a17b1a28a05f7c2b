//! Embeddings of OpenAI's form through `models/MODEL:batchEmbedContents`.
//!
//! One text or many become one batch; vectors come back as numbers, or as the base64 of little-endian
//! floats that OpenAI's SDK for Python asks for unless told otherwise.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{FORM, holding, resource};
use crate::{
    json::{Kind, Value, quote},
    model::{
        Asked, ModelError, Request, RequestFacts, Target, Usage, WholeAnswer,
        fields::{Fields, Place, elements_of, string_of},
        translate::Translated,
        write::{Array, Object},
    },
};

/// Writes a request for the vectors of some texts.
pub(in crate::model) fn write_texts(
    request: &Request<'_>,
    target: &Target<'_>,
) -> Result<Translated, ModelError> {
    let root = Place::Root;
    let mut fields = Fields::of(request.text, request.places.root, &root)?;
    let texts = texts(&mut fields)?;
    let dimensions = fields.unsigned("dimensions")?;
    let place = root.member("encoding_format");
    let base64 = match fields.string("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(place.wrong("float or base64")),
    };
    let mut set_aside = Vec::new();
    if fields.string("user")?.is_some() {
        set_aside.push("user");
    }
    fields.take("model");
    fields.rest(FORM)?;
    let mut requests = Array::new();
    for text in texts {
        let mut one = Object::new();
        one.string("model", &resource(target.model));
        one.raw("content", &holding("parts", &format!("[{}]", holding("text", &quote(&text)))));
        if let Some(dimensions) = dimensions {
            one.raw("outputDimensionality", &dimensions.to_string());
        }
        requests.raw(&one.finish());
    }
    let body = holding("requests", &requests.finish());
    Ok(Translated { body, asked: Asked::Vectors { base64 }, max_output_tokens: None, set_aside })
}

fn texts<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Cow<'a, str>>, ModelError> {
    let place = fields.place.member("input");
    let text = fields.text;
    let Some(input) = fields.take("input") else {
        return Err(place.missing("a string or an array of strings"));
    };
    if input.kind == Kind::String {
        return Ok(vec![string_of(text, input, &place)?]);
    }
    let one = |(index, value): (usize, Value)| match value.kind {
        Kind::Number | Kind::Array => {
            let why = "it takes text; tokens are numbers of a vocabulary that it does not share";
            Err(place.item(index).untranslatable(FORM, why))
        }
        _ => string_of(text, value, &place.item(index)),
    };
    elements_of(text, input)?.into_iter().enumerate().map(one).collect()
}

/// Reads the vectors and writes them for the caller.
pub(in crate::model) fn read_vectors(
    text: &str,
    value: Value,
    facts: &RequestFacts,
) -> Result<WholeAnswer<'static>, ModelError> {
    let root = Place::Root;
    let mut fields = Fields::of(text, value, &root)?;
    let usage_place = root.member("usageMetadata");
    let usage = match fields.object("usageMetadata")? {
        Some(usage) => Some(Usage::read_gemini(text, usage, &usage_place)?),
        None => None,
    };
    let base64 = facts.asked == Asked::Vectors { base64: true };
    let list = root.member("embeddings");
    let mut data = Array::new();
    for (index, value) in fields.elements("embeddings")?.into_iter().enumerate() {
        let place = list.item(index);
        let mut embedding = Fields::of(text, value, &place)?;
        let place = place.member("values");
        let values = embedding.take("values").ok_or_else(|| place.missing("an array of numbers"))?;
        let mut out = Object::new();
        out.string("object", "embedding");
        out.raw("index", &index.to_string());
        match base64 {
            true => out.string("embedding", &encoded(text, values, &place)?),
            false => out.raw("embedding", values.span.of(text)),
        }
        data.raw(&out.finish());
    }
    let tokens = usage.unwrap_or_default().input_tokens;
    let mut out = Object::new();
    out.string("object", "list");
    out.raw("data", &data.finish());
    out.string("model", &facts.model);
    out.raw("usage", &format!("{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}"));
    Ok(WholeAnswer {
        body: Cow::Owned(out.finish().into_bytes()),
        usage,
        calls: Vec::new(),
        stop: None,
        model: None,
    })
}

fn encoded(text: &str, values: Value, place: &Place<'_>) -> Result<String, ModelError> {
    if values.kind != Kind::Array {
        return Err(place.wrong("an array of numbers"));
    }
    let mut bytes = Vec::new();
    for value in elements_of(text, values)? {
        let number: f32 = value.span.of(text).parse().map_err(|_| place.wrong("an array of numbers"))?;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Ok(STANDARD.encode(bytes))
}
