//! The path of an action through a real gate: what users can rely on, promise by promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod rig;
#[allow(dead_code)]
#[path = "../upstream/server.rs"]
mod server;
mod servers;

mod approvals;
mod bad_input;
mod bridge;
mod budgets;
mod catalogue;
mod changes;
mod children;
mod hostile;
mod inspect;
mod limits;
mod listens;
mod promises;
mod shutdown;
mod streams;
mod who;
