//! The HTTP listener: appending, reading and the state of the server, for systems that only speak HTTP. A thin adapter:
//! what it does, the broker does.
//!
//! HTTP/1.1, without TLS and without authentication, as the native listener: on loopback unless the operator says
//! otherwise. A browser on the same machine is no friend either: requests with an `Origin`, or with a host name that
//! nobody configured, are refused ([`guest`]).

mod answer;
mod body;
mod cursor;
mod durable;
mod guest;
mod idempotency;
mod ingest;
mod listener;
mod parts;
mod problem;
mod query;
mod read;
mod reading;
mod records;
mod requests;
mod router;
mod stall;
mod status;
#[cfg(test)]
mod tests;
mod unread;

pub use listener::DOOR;
