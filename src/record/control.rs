//! The batches with which the end of a transaction is marked in the log. One record, never compressed, all big-endian:
//!
//! ```text
//! key    i16 version = 0 | i16 what: 0 aborted, 1 committed
//! value  i16 version = 0 | i32 epoch of the coordinator
//! ```
//!
//! Source: the Kafka protocol guide, "Control Records", and the schema `EndTxnMarker`.

use bytes::BytesMut;

use crate::base::{ProducerEpoch, ProducerId, TimestampMs, limits};

use super::header::{CONTROL, TRANSACTIONAL, seal};
use super::walk::{Slice, Walker};
use super::{BatchBuilder, BatchHeader, BatchOptions, Bounds};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// What was written in it counts as never written.
    Abort,
    /// What was written in it counts.
    Commit,
}

/// The batch that marks the end of a producer's transaction; a log assigns its offset.
pub fn marker_batch(producer: ProducerId, epoch: ProducerEpoch, marker: Marker, now_ms: TimestampMs) -> BytesMut {
    let options = BatchOptions { producer_id: producer, producer_epoch: epoch, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    builder.push(now_ms, Some(&[0, 0, 0, u8::from(marker == Marker::Commit)]), Some(&[0; 6]), &[]);
    let mut batch = builder.build();
    batch[21..23].copy_from_slice(&(TRANSACTIONAL | CONTROL).to_be_bytes());
    seal(&mut batch);
    batch
}

/// What a batch marks; `None` for any other batch, also for a control batch of another kind.
pub fn read_marker(batch: &[u8]) -> Option<Marker> {
    let header = BatchHeader::parse(batch).ok()?;
    if !header.is_control() || !header.is_transactional() || header.record_count == 0 {
        return None;
    }
    let records = batch.get(limits::BATCH_HEADER_BYTES..header.total_bytes())?;
    let mut walker = Walker::new(Bounds::reading(limits::MAX_BATCH_BYTES));
    let key = walker.record(&mut Slice::new(records, 0)).ok()?.key?;
    match records.get(key)? {
        [_, _, 0, 0, ..] => Some(Marker::Abort),
        [_, _, 0, 1, ..] => Some(Marker::Commit),
        _ => None,
    }
}
