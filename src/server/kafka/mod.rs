//! The Kafka listener: a thin adapter between Kafka's wire protocol and the broker.
//!
//! What is sent for each record (Produce, Fetch) is walked and written by hand, so that batches are never copied or taken
//! apart; the rest goes through the message structs of the crate `kafka-protocol`. Requests are looked over by
//! [`shape`] before the crate decodes them, because it believes every count. Versions and rules: Kafka's protocol guide.

mod admin;
mod api;
mod brokers;
mod commits;
mod configs;
mod connection;
mod consumers;
mod errors;
mod fetch;
mod forgetting;
mod framing;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod group_admin;
mod groups;
mod metadata;
mod offsets;
mod old;
mod once;
mod positions;
mod produce;
mod requests;
mod response;
mod rights;
mod said;
mod session;
mod shape;
mod shapes;
mod single_node;
#[cfg(test)]
mod tests;
mod told;
mod topics;
mod transactions;
mod wire;

pub use connection::DOOR;
