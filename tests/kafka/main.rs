//! The Kafka listener: rules of the protocol byte by byte, and the traps that broke other servers. Foreign clients are in
//! `foreign.rs`, and with the feature `librdkafka` in `librdkafka/`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail loudly")]

mod administering;
mod client;
mod consuming;
mod fetching;
mod foreign;
mod grouping;
mod hostile;
#[cfg(feature = "librdkafka")]
mod librdkafka;
mod producing;
mod talking;
mod topics;
mod transacting;
