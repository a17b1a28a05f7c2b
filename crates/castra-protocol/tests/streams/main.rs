//! The stream engine at its boundary: bytes of a provider in, bytes for a caller out.
//!
//! `golden.rs` holds whole streams against files, `property.rs` holds the text of any stream against the
//! masked whole, `faults.rs` tries what a provider can do wrong.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail
#![allow(clippy::disallowed_methods)] // golden files are read, and written when they are blessed

mod faults;
mod golden;
mod harness;
mod property;
