//! A request and an answer in no form: what translations go through.
//!
//! A reader per form makes a [`Conversation`] or a [`Reply`], a writer per form makes bytes of it. A
//! reader refuses what it does not know, a writer refuses what its form cannot say, and each piece
//! remembers where it stood, so that either can name the field.

use std::borrow::Cow;

use super::{Form, ModelError, StopReason, Usage, fields::whole};
use crate::{
    edit::{Changes, apply},
    json::{self, DEPTH_CEILING, quote},
};

/// Signature of a thinking block that this gate made of the plain reasoning text of a provider of
/// chat completions (`reasoning_content`): such reasoning can go back to a provider like it. Signatures
/// that another provider made have its name and a colon in front (`gemini:`) when they stand in an
/// Anthropic thinking block, so that each writer knows which are its own.
pub(super) const SIGNATURE: &str = "castra";

/// What stands in front of a signature of Gemini where another form carries it.
pub(super) const GEMINI: &str = "gemini:";

/// A request.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation<'a> {
    /// What was said so far, in order; never two turns of one role that could be one.
    pub(super) turns: Vec<Turn<'a>>,
    /// Tools that the model is offered.
    pub(super) tools: Vec<Tool<'a>>,
    /// Which of them it may or must call.
    pub(super) tool_choice: Option<ToolChoice<'a>>,
    /// False if it may call only one at a time.
    pub(super) parallel_calls: Option<bool>,
    /// Most tokens of the answer.
    pub(super) max_tokens: Option<u64>,
    /// Texts at which the model stops.
    pub(super) stop: Vec<Cow<'a, str>>,
    /// Numbers as they stand.
    pub(super) temperature: Option<&'a str>,
    /// Numbers as they stand.
    pub(super) top_p: Option<&'a str>,
    /// The schema that the answer must follow.
    pub(super) schema: Option<Schema<'a>>,
    /// How much the model reasons.
    pub(super) reasoning: Option<Reasoning>,
    /// What the caller calls that.
    pub(super) reasoning_field: &'static str,
    /// Whom the caller acts for.
    pub(super) end_user: Option<Cow<'a, str>>,
    /// Whether the answer is streamed.
    pub(super) stream: bool,
    /// What only some forms can say. A writer that does not know one of them refuses it.
    pub(super) settings: Vec<Setting<'a>>,
    /// Names of fields that no other form needs to know.
    pub(super) set_aside: Vec<&'static str>,
}

/// A setting that some forms have and others have not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    /// Which, by the name that OpenAI's APIs give it; `top_k` by Anthropic's.
    pub(super) name: &'static str,
    /// What the caller calls it.
    pub(super) field: &'static str,
    /// Its JSON.
    pub(super) raw: &'a str,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The one who built the agent (system, developer).
    System,
    /// The one who uses it, and what tools gave back.
    User,
    /// The model.
    Assistant,
}

/// What one side says without being interrupted.
#[derive(Debug, Clone)]
pub(super) struct Turn<'a> {
    pub(super) role: Role,
    /// Path of the message, the first one if there were several.
    pub(super) field: String,
    pub(super) pieces: Vec<Piece<'a>>,
}

/// A part of a turn and where it stood.
#[derive(Debug, Clone)]
pub(super) struct Piece<'a> {
    pub(super) field: String,
    pub(super) part: Part<'a>,
}

/// A part of a turn.
#[derive(Debug, Clone)]
pub(super) enum Part<'a> {
    Text(Cow<'a, str>),
    /// The model's words for why it does not do it.
    Refusal(Cow<'a, str>),
    Image(Source<'a>),
    File {
        source: Source<'a>,
        name: Option<Cow<'a, str>>,
    },
    Audio {
        /// Base64.
        data: Cow<'a, str>,
        /// `wav` or `mp3`.
        format: Cow<'a, str>,
    },
    Call(Call<'a>),
    Result {
        /// Id of the call.
        id: Cow<'a, str>,
        pieces: Vec<Piece<'a>>,
        is_error: bool,
    },
    /// What a model thought aloud.
    Reasoning {
        text: Cow<'a, str>,
        /// What its provider wants back with it; see [`SIGNATURE`].
        signature: Option<Cow<'a, str>>,
    },
}

/// Where media come from.
#[derive(Debug, Clone)]
pub(super) enum Source<'a> {
    Url(Cow<'a, str>),
    Base64 {
        media_type: Cow<'a, str>,
        data: Cow<'a, str>,
    },
    /// Plain text.
    Text(Cow<'a, str>),
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    /// JSON, as far as the model wrote any.
    pub(super) arguments: Cow<'a, str>,
    /// What the provider wants back with it (Gemini's `thoughtSignature`).
    pub(super) signature: Option<Cow<'a, str>>,
}

/// A tool that the model is offered.
#[derive(Debug, Clone)]
pub(super) struct Tool<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) description: Option<Cow<'a, str>>,
    /// JSON Schema of the arguments; None for a tool without any.
    pub(super) parameters: Option<&'a str>,
    pub(super) strict: Option<bool>,
}

/// Which tools the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToolChoice<'a> {
    Auto,
    None,
    Any,
    Named(Cow<'a, str>),
}

/// The schema that an answer must follow.
#[derive(Debug, Clone)]
pub(super) struct Schema<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) description: Option<Cow<'a, str>>,
    /// JSON Schema.
    pub(super) raw: &'a str,
    pub(super) strict: Option<bool>,
}

/// How much a model reasons before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// Not at all.
    Off,
    /// As it sees fit.
    Adaptive,
    /// With more or less effort.
    Effort(Effort),
    /// At most as many tokens (Anthropic's older models, Gemini).
    Budget(u64),
}

/// Effort, from little to much. The words are the same in all forms, as far as they have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub(super) enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

impl Effort {
    pub(super) const ALL: [Self; 6] =
        [Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str() == word)
    }

    /// The effort that comes nearest to a budget of reasoning tokens, for forms without budgets.
    pub(super) fn of_budget(tokens: u64) -> Self {
        match tokens {
            0..4_096 => Self::Low,
            4_096..16_384 => Self::Medium,
            _ => Self::High,
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Reply<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) model: Cow<'a, str>,
    pub(super) parts: Vec<Part<'a>>,
    pub(super) stop: StopReason,
    /// The stop sequence at which it stopped, if the form tells.
    pub(super) stop_sequence: Option<Cow<'a, str>>,
    pub(super) usage: Option<Usage>,
}

impl<'a> Conversation<'a> {
    /// Adds what a message holds, to the last turn if it is of the same role: Anthropic takes two turns
    /// of one role as one, and results of parallel calls are messages of their own in chat completions.
    pub(super) fn say(&mut self, role: Role, field: String, pieces: Vec<Piece<'a>>) {
        match self.turns.last_mut() {
            Some(last) if last.role == role => last.pieces.extend(pieces),
            _ => self.turns.push(Turn { role, field, pieces }),
        }
    }

    /// Notes a field that is set aside, once.
    pub(super) fn set_aside(&mut self, name: &'static str) {
        if !self.set_aside.contains(&name) {
            self.set_aside.push(name);
        }
    }

    /// Adds a setting if it is there.
    pub(super) fn setting(&mut self, name: &'static str, field: &'static str, raw: Option<&'a str>) {
        self.settings.extend(raw.map(|raw| Setting { name, field, raw }));
    }

    /// Takes a setting that the writer knows.
    pub(super) fn take_setting(&mut self, name: &str) -> Option<Setting<'a>> {
        let at = self.settings.iter().position(|s| s.name == name)?;
        Some(self.settings.swap_remove(at))
    }

    /// Refuses what is left of the settings.
    pub(super) fn no_more_settings(&self, form: Form) -> Result<(), ModelError> {
        match self.settings.first() {
            Some(left) => Err(ModelError::Untranslatable {
                field: left.field.into(),
                form,
                why: "it has no such setting",
            }),
            None => Ok(()),
        }
    }
}

impl Schema<'_> {
    /// The schema with what stands beside it, for forms that have no other place for it: name and
    /// description are its `title` and `description`, which is where JSON Schema has them (2020-12,
    /// validation, section 9.1).
    pub(super) fn labelled(&self) -> Result<String, ModelError> {
        let mut changes = Changes::default();
        for (key, value) in [("description", &self.description), ("title", &self.name)] {
            match value {
                Some(text) if json::get(self.raw, &[key]).is_none() => changes.add(key, quote(text)),
                _ => {}
            }
        }
        let mut edits = Vec::new();
        changes.edit(self.raw, whole(self.raw, DEPTH_CEILING)?.span, &mut edits)?;
        Ok(apply(self.raw, edits))
    }
}

impl Piece<'_> {
    pub(super) fn untranslatable(&self, form: Form, why: &'static str) -> ModelError {
        ModelError::Untranslatable { field: self.field.clone(), form, why }
    }
}
