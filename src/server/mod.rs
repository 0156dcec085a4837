//! Floor 5.
pub mod budget;
pub mod config;
pub mod metrics;
pub mod tasks;
