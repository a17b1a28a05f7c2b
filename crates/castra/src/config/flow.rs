//! Flow control as it is written: how runs are followed, and what becomes of what strangers wrote.

use std::time::Duration;

use castra_gateway::{FlowSettings, Prompts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Time;

/// How runs are followed: one task of an agent each, with all that it has read.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Flow {
    /// Where the gate learns what users said: `"model"` from the messages of users in the model traffic that passes
    /// it, `"none"` not at all: then weaker rules hold. Left out: `"model"` if there is a `[[model]]`, else `"none"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<FlowPrompts>,
    /// A run that was not used for this long leaves the memory. It goes on where it was when it is used again.
    pub idle: Time,
    /// A run that began this long ago has ended. Under the same name nothing is known any more.
    pub age: Time,
}

/// Where the gate learns what users said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowPrompts {
    /// From model traffic.
    Model,
    /// Not at all.
    None,
}

impl Default for Flow {
    fn default() -> Self {
        let settings = FlowSettings::default();
        Self { prompts: None, idle: Time(settings.idle_max), age: Time(settings.age_max) }
    }
}

impl Flow {
    /// As the gate takes it; `models`: whether model traffic passes it.
    pub(crate) fn settings(&self, models: bool) -> FlowSettings {
        let Time::<1>(idle_max) = self.idle;
        let Time::<1>(age_max) = self.age;
        FlowSettings {
            prompts: match self.prompts {
                Some(FlowPrompts::Model) => Prompts::Model,
                None if models => Prompts::Model,
                Some(FlowPrompts::None) | None => Prompts::None,
            },
            idle_max: idle_max.max(Duration::from_secs(1)),
            age_max: age_max.max(Duration::from_secs(1)),
            ..FlowSettings::default()
        }
    }
}
