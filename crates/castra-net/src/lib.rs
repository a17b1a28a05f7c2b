//! Everything with a socket: listeners and upstream clients.
