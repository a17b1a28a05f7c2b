//! Agents that call other agents through a real gate: every operation in both bindings, and what must hold
//! whatever the peer does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod peer;
#[allow(dead_code)]
#[path = "../path/rig.rs"]
mod rig;
#[allow(dead_code)]
#[path = "../upstream/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../path/servers.rs"]
mod servers;

mod cards;
mod delegation;
mod hostile;
mod operations;
mod streams;
mod tasks;
