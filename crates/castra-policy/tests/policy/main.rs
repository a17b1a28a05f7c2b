//! Policies from their text to decisions, through the public interface.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod asking;
mod decisions;
mod loading;
mod slicing;
mod standard;
mod support;
