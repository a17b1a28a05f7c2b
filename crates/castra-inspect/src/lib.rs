//! What must not leave: secrets and the operator's own patterns, found and masked.
//!
//! An [`Inspector`] is built once from [`Settings`] and shared. It looks at whole texts
//! ([`Inspector::mask_text`]), at JSON ([`Inspector::mask_json`]) and, through a [`Scanner`] for each
//! channel, at text that comes in pieces. All three find the same: the masks of a stream are those of
//! the whole, however it was cut.
//!
//! A reader begins with `secrets.rs` (what is looked for), then `tracker.rs` (how a match is found
//! without looking back), `scanner.rs` (what may leave and what is held) and `json.rs`.

mod automaton;
mod inspector;
mod json;
mod scanner;
mod secrets;
mod set;
mod settings;
mod tracker;

pub use inspector::{FINDINGS_MAX, Inspector, Masked, kinds};
pub use json::{DEPTH_CEILING, JsonError, JsonFault, JsonOptions, MaskedJson};
pub use scanner::Scanner;
pub use settings::{Action, PATTERNS_MAX, Pattern, PatternError, REGEX_BYTES_MAX, Settings};
pub use tracker::{SWALLOW, WINDOW};
