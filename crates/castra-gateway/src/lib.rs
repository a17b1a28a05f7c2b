//! The path of an action: everything that happens between the socket and the answer.
//!
//! A reader follows a request by reading these files in order: [`listen`] takes it in, `identify`
//! says who asks, `understand` says what is meant, `decide` asks policy, `approval` asks people, `record` writes the intent
//! down, `mcp` or `model` carries it to the server and back, `record` writes the outcome down, `answer` gives
//! it back. [`path`] shows the whole on one screen. Each step hands on a type that only it can make:
//! nothing that was not decided and recorded can reach a server.

mod a2a;
mod answer;
mod approval;
pub mod budget;
mod catalogue;
mod decide;
mod gate;
mod identify;
mod in_flight;
mod inspect;
mod listen;
mod mcp;
pub mod metrics;
pub mod model;
pub mod path;
mod record;
mod run;
mod standing;
mod understand;
pub mod upstream;

pub use a2a::{CardFacts, CardSource, DelegationCarrier, PeerParts, PeerStatus, look_at_card};
pub use answer::AnswerBody;
pub use gate::{AllowedAsks, Gate, GateParts, ReadyCheck, ServerParts, ServerStatus};
pub use listen::Connection;
pub use run::{FlowSettings, Prompts};
