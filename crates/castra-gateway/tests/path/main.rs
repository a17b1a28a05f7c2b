//! The path of an action through a real gate: what users can rely on, promise by promise.

mod rig;
#[allow(dead_code)]
#[path = "../upstream/server.rs"]
mod server;
mod servers;

mod bad_input;
mod bridge;
mod promises;
