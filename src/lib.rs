//! Tidelog: a durable message queue on a persistent log.
//!
//! The modules are floors, and each imports only from floors below it (ARCHITECTURE.md; `tests/layers.rs` proves it):
//!
//! | floor | modules |
//! |---|---|
//! | 5 | [`server`], [`client`] |
//! | 4 | [`broker`] |
//! | 3 | [`catalog`], [`route`] |
//! | 2 | [`log`], [`expr`] |
//! | 1 | [`disk`], [`record`], [`protocol`] |
//! | 0 | [`base`] |

pub mod base;
pub mod broker;
pub mod catalog;
pub mod client;
pub mod disk;
pub mod expr;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzz;
pub mod log;
pub mod protocol;
pub mod record;
pub mod route;
pub mod server;
