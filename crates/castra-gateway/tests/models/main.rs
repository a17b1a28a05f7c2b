//! Model routes against providers on real sockets, those that behave and those that do not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod routes;
#[path = "../upstream/server.rs"]
#[allow(dead_code)] // what other tests use of it
mod server;
