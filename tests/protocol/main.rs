//! The native protocol, byte by byte, against a real server.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod bad_input;
mod flow;
mod handshake;
mod harness;
mod shutdown;
mod subscriptions;
