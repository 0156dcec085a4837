//! Queue groups: members share the records of a partition, each record is leased to one of them.

mod machine;

#[cfg(test)]
mod tests;

#[allow(unused_imports)]
pub use machine::{MemberId, Settled};
