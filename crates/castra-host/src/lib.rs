//! Everything of the machine: child processes, and the secrets that are handed to them.

// Processes belong here; clippy.toml bans them everywhere else.
#![allow(clippy::disallowed_methods)]

pub mod child;
mod secret;

pub use secret::Secret;
