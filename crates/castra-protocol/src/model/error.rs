//! Why a request, or a provider's answer, cannot be taken further.

use castra_core::{Refusal, RefusalCode, Step};

use super::{Api, Form};
use crate::json::JsonError;

/// Why a request or an answer of a model API cannot be taken further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The request is not JSON, or not JSON that two parsers read alike.
    #[error("the request is not JSON as this gate takes it: {0}")]
    Json(#[from] JsonError),
    /// A member that must be there is not.
    #[error("`{field}` is missing; it must be {want}")]
    Missing {
        /// Path of the member, such as `messages[2].content`.
        field: String,
        /// What should stand there.
        want: &'static str,
    },
    /// A member has another type or value than its API allows.
    #[error("`{field}` must be {want}")]
    Wrong {
        /// Path of the member.
        field: String,
        /// What should stand there.
        want: &'static str,
    },
    /// More of something than is taken.
    #[error("`{field}` holds more than {max} entries")]
    TooMany {
        /// Path of the member.
        field: String,
        /// The limit.
        max: usize,
    },
    /// The provider of this model speaks another form, in which this cannot be said.
    #[error("`{field}` cannot be translated to {form}: {why}", form = form.as_str())]
    Untranslatable {
        /// Path of the member, in the caller's form.
        field: String,
        /// The form that lacks it.
        form: Form,
        /// What is lacking.
        why: &'static str,
    },
    /// The provider of this model has nothing that answers this API.
    #[error("no {} in the form of this model's provider ({})", api.as_str(), form.as_str())]
    Unserved {
        /// What was asked.
        api: Api,
        /// What the provider speaks.
        form: Form,
    },
    /// A tool is offered that is not of the tool set of this version of the model.
    #[error("the tool `{tool}` (`{field}`) is not in the tool set of this version of the model")]
    ForeignTool {
        /// Path of the definition.
        field: String,
        /// Its name.
        tool: String,
    },
    /// The provider answered something that is not an answer of its form.
    #[error("the provider's answer is not one of {form}: {fault}", form = form.as_str())]
    Answer {
        /// What the provider should speak.
        form: Form,
        /// What is wrong, with the path of the member where there is one.
        fault: String,
    },
    /// The provider's answer holds something that the caller's form cannot say.
    #[error("the provider's answer cannot be told in the caller's form: `{field}`: {why}")]
    AnswerUntranslatable {
        /// Path of the member, in the provider's form.
        field: String,
        /// What is lacking.
        why: &'static str,
    },
}

impl ModelError {
    /// The member of the request that it is about; OpenAI's errors carry it as `param`.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Missing { field, .. }
            | Self::Wrong { field, .. }
            | Self::TooMany { field, .. }
            | Self::Untranslatable { field, .. }
            | Self::ForeignTool { field, .. } => Some(field),
            Self::Json(_)
            | Self::Unserved { .. }
            | Self::Answer { .. }
            | Self::AnswerUntranslatable { .. } => None,
        }
    }

    /// What the fault of a part means in an answer: the provider's, not the caller's.
    pub(super) fn of_answer(self, form: Form) -> Self {
        match self {
            Self::Json(_) | Self::Missing { .. } | Self::Wrong { .. } | Self::TooMany { .. } => {
                let fault = match &self {
                    Self::Json(fault) => format!("it is not JSON: {fault}"),
                    fault => fault.to_string(),
                };
                Self::Answer { form, fault }
            }
            Self::Untranslatable { field, why, .. } => Self::AnswerUntranslatable { field, why },
            Self::Unserved { .. }
            | Self::ForeignTool { .. }
            | Self::Answer { .. }
            | Self::AnswerUntranslatable { .. } => self,
        }
    }

    /// The refusal that it becomes.
    pub fn refusal(&self) -> Refusal {
        let (step, code, advice) = match self {
            Self::Json(_) | Self::Missing { .. } | Self::Wrong { .. } => {
                (Step::Understand, RefusalCode::Malformed, "")
            }
            Self::TooMany { .. } => (Step::Understand, RefusalCode::LimitReached, ""),
            Self::Untranslatable { .. } => (
                Step::Understand,
                RefusalCode::Malformed,
                "Leave it out, or use a model whose provider speaks the form of this request",
            ),
            Self::Unserved { .. } => (
                Step::Understand,
                RefusalCode::NotFound,
                "Use a model whose provider speaks the form of this request",
            ),
            Self::ForeignTool { .. } => (
                Step::Understand,
                RefusalCode::Malformed,
                "Leave it out, or have the operator add it to the version's tools",
            ),
            Self::Answer { .. } | Self::AnswerUntranslatable { .. } => {
                (Step::Answer, RefusalCode::UpstreamMisbehaved, "")
            }
        };
        Refusal::new(step, code, self.to_string()).advise(advice)
    }
}
