//! Models through the gate: routes against providers on real sockets, and the path of a call with its
//! answer, whole or streamed, right or wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod provider;
#[allow(dead_code)]
#[path = "../path/rig.rs"]
mod rig;
mod routes;
#[path = "../upstream/server.rs"]
#[allow(dead_code)] // what other tests use of it
mod server;
#[allow(dead_code)]
#[path = "../path/servers.rs"]
mod servers;
mod stage;

mod asks;
mod hostile;
mod places;
mod streams;
mod tools;
