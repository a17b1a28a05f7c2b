//! Model APIs through the gate.

mod attempts;
mod breaker;
mod continued;
mod health;
mod provider;
mod routes;
mod version;

pub use attempts::{Afterwards, Answered, AskError, Attempts};
pub use breaker::{Breaker, BreakerSettings, BreakerState, Resting, Ticket};
pub use provider::{FailureKind, ProviderAnswer, ProviderBody, ProviderError, Wire, list_models};
pub use routes::{Asker, ModelParts, Route, RouteError, RouteSettings, Routes, initial_shares};
pub use version::{Key, OpenAiForm, Provider, Version, VersionFacts, VersionParts};
