//! The list of models, in the form of OpenAI or of Anthropic: `GET /v1/models` and one entry of it.

use castra_core::{Protocol, Timestamp};

use super::write::{Array, Object};

/// A model that the caller may name.
#[derive(Debug, Clone, Copy)]
pub struct ModelEntry<'a> {
    /// Name of the route.
    pub id: &'a str,
    /// Since when it is there.
    pub created: Timestamp,
}

/// Which form a request for the list asks for: Anthropic's clients always send `anthropic-version`.
pub fn list_protocol(has_anthropic_version: bool) -> Protocol {
    if has_anthropic_version { Protocol::Anthropic } else { Protocol::OpenAi }
}

/// The whole list, on one page (openai-python 3.57, `types/model.py`; anthropic-python 2.13,
/// `types/model_info.py`).
pub fn models_list(protocol: Protocol, models: &[ModelEntry<'_>]) -> Vec<u8> {
    let mut data = Array::new();
    models.iter().for_each(|model| data.raw(&entry(protocol, model)));
    let mut out = Object::new();
    if protocol == Protocol::Anthropic {
        out.raw("data", &data.finish());
        out.raw("has_more", "false");
        out.string_or_null("first_id", models.first().map(|m| m.id));
        out.string_or_null("last_id", models.last().map(|m| m.id));
    } else {
        out.string("object", "list");
        out.raw("data", &data.finish());
    }
    out.finish().into_bytes()
}

/// One entry: `GET /v1/models/ID`.
pub fn models_entry(protocol: Protocol, model: &ModelEntry<'_>) -> Vec<u8> {
    entry(protocol, model).into_bytes()
}

fn entry(protocol: Protocol, model: &ModelEntry<'_>) -> String {
    let mut out = Object::new();
    if protocol == Protocol::Anthropic {
        out.string("type", "model");
        out.string("id", model.id);
        out.string("display_name", model.id);
        out.string("created_at", &model.created.to_string());
        out.string("lifecycle", "active");
    } else {
        out.string("id", model.id);
        out.string("object", "model");
        out.raw("created", &model.created.secs().to_string());
        out.string("owned_by", "castra");
    }
    out.finish()
}
