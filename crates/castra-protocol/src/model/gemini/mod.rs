//! Google Gemini `generateContent` as the form of a provider (`google-genai` 3.6, `models.py` and
//! `types.py`, as far as they concern the Gemini Developer API).
//!
//! `request` writes what a caller asks, `reply` reads what the model answers, `embeddings` does both
//! for vectors. The model stands in the path, so that no body of a conversation names it.

mod embeddings;
mod reply;
mod request;

pub(super) use embeddings::{read_vectors, write_texts};
pub(super) use reply::read_reply;
pub(super) use request::write_request;

use super::{Form, write::Object};

const FORM: Form = Form::Gemini;

/// What Google has a client send in place of the signature of a call that another model made, or whose
/// signature was not kept (Gemini API, "Thought signatures"). Models before Gemini 3 check none.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Whether a model takes `thinkingLevel` and insists on signatures of calls: Gemini 3 and later.
fn is_gemini_3(model: &str) -> bool {
    let name = model.strip_prefix("models/").unwrap_or(model);
    let version = name.strip_prefix("gemini-");
    version.is_some_and(|version| !version.starts_with("1.") && !version.starts_with("2."))
}

/// The name of the resource that a configured model means.
pub(super) fn resource(model: &str) -> String {
    if model.contains('/') { model.to_owned() } else { format!("models/{model}") }
}

/// An object of one member.
fn holding(name: &str, raw: &str) -> String {
    let mut object = Object::new();
    object.raw(name, raw);
    object.finish()
}
