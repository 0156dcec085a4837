//! The native protocol, byte by byte, against a real server.

mod bad_input;
mod flow;
mod handshake;
mod harness;
mod shutdown;
mod subscriptions;
