//! Sequence numbers of an idempotent producer: per partition, wrapping from `i32::MAX` to 0 (as in Kafka).

use crate::base::{ProducerEpoch, ProducerId};

/// What makes a batch recognizable when it is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// Number of the batch's first record.
    pub(crate) sequence: i32,
}

/// The stamp of the batch behind one of `count` records.
pub(crate) fn advance(stamp: Stamp, count: u32) -> Stamp {
    let next = (i64::from(stamp.sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    // Within 0..=i32::MAX by the line above.
    Stamp { sequence: i32::try_from(next).unwrap_or(0), ..stamp }
}
