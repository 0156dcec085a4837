//! The Kafka listener: rules of the protocol byte by byte, and the traps that broke other servers. Foreign clients are in
//! `foreign.rs`, and with the feature `librdkafka` in `librdkafka/`.
//!
//! The traps, by the numbers that tests name. 1: an ApiVersions that is not known. 2: tagged fields that hold their default.
//! 3: a first version of Produce above 0. 4: no producer ids. 5: what idempotent producers send again, and what comes when their
//! state is lost. 6: leader epochs that are none, wrong or change. 7: topic ids by half. 8: versions that are too few. 9: positions
//! of groups that have none. 10: rounds of a group that never end. 11: settings that are not described. 12: the end of what is
//! committed, and the list of what was aborted. 13: limits of Fetch. 14: batches refused with odd errors, or without compression.
//! 15: nulls that clients do not expect, and static members that are offered but not there. And: a request that ends the server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail loudly")]

mod administering;
mod bad_records;
mod client;
mod consuming;
#[path = "../common/endpoint.rs"]
mod endpoint;
mod epochs;
mod fetching;
mod foreign;
mod grouping;
mod hostile;
#[cfg(feature = "librdkafka")]
mod librdkafka;
mod logging;
mod members;
mod metrics;
mod nulls;
mod old_versions;
mod producing;
mod refusing;
mod restarting;
mod settled;
mod single_node;
mod stamping;
mod talking;
mod topics;
mod transacting;
mod transactions_held;
