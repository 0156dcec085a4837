//! The native protocol's listener: a thin adapter between frames and the broker.

mod clock;
mod connection;
mod connections;
mod damage;
mod durable;
mod exchange;
mod framing;
mod groups;
mod handshake;
mod lists;
mod mapping;
mod members;
mod outbox;
mod purse;
mod pushes;
mod queue;
mod reading;
mod receipts;
mod requests;
mod routes;
mod session;
mod streams;
mod subscriptions;
#[cfg(test)]
mod tests;
mod transactions;
mod trimming;
mod watching;

pub use connection::{ADMIN_DOOR, DOOR};
