//! Everything with a socket: listeners and upstream clients.
//!
//! `listen` is the floor under every call: it accepts, shakes hands, bounds heads and idle time,
//! and hands each connection to a service. `tls` makes and checks the TLS configurations of both
//! sides, `body` reads and gathers bodies, `fetch` gets small documents of other people.

// Sockets belong here and nowhere else; the ban of clippy.toml is meant for the other crates.
#![allow(clippy::disallowed_methods)]

pub mod body;
pub mod client;
pub mod fetch;
pub mod listen;
pub mod tls;
