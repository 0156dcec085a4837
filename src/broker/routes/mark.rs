//! How far a route has written into a partition, by what lies in its log: the last batch with the route's identity, and of it
//! the last record, which says what it was made of.

use std::sync::Arc;

use crate::base::{ErrorKind, Offset, ProducerId, limits};
use crate::log::{LastBatch, LogHandle};
use crate::record::{Batches, Record, read_records};
use crate::route;

use super::super::BrokerError;
use super::super::broker::blocking;
use super::super::partition::Partition;

/// How far apart the numbers of outputs are for one time that parts have waited too long. A record makes fewer.
pub(super) const ROUND: u64 = 1 << 24;

const _: () = assert!((limits::ROUTE_OUTPUTS as u64) < ROUND && (limits::AGGREGATE_PARTS as u64) < ROUND);

/// Which of a route's outputs: the source record's offset, and which of the records made of it. Outputs of one source partition
/// are written to each destination partition in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) offset: Offset,
    pub(super) output: u64,
}

/// What a log knows of a producer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    /// The sequence number that comes next.
    pub(super) next_sequence: i32,
    /// The last output in it.
    pub(super) mark: Option<Mark>,
}

/// The sequence number that comes next, without reading the log.
pub(super) fn next_sequence(log: &LogHandle, producer: ProducerId) -> Option<i32> {
    log.with(|log| log.last_of(producer)).map(after)
}

fn after(last: LastBatch) -> i32 {
    last.last_sequence.checked_add(1).unwrap_or(0)
}

/// What the producer has written last, durable when this returns.
///
/// # Errors
/// The partition takes no writes, its log cannot be read, or the last batch is not one of a route.
pub(super) async fn written(partition: &Arc<Partition>, producer: ProducerId) -> Result<Written, BrokerError> {
    let log = partition.log()?.clone();
    let found = log.with(|log| (log.poisoned().map(str::to_owned), log.last_of(producer), log.start_offset()));
    let last = match found {
        (Some(why), ..) => {
            // It is opened anew soon.
            log.request_sync();
            let message = format!("topic '{}' partition {} takes no writes: {why}", partition.topic, partition.number);
            return Err(BrokerError::new(ErrorKind::Poisoned, message));
        }
        (None, None, _) => return Ok(Written::default()),
        (None, Some(last), start) if last.last_offset < start => {
            // Deleted by now, so it was written long before what is still to be routed.
            return Ok(Written { next_sequence: after(last), mark: None });
        }
        (None, Some(last), _) => last,
    };
    // A killed server may have left it written and not synced; what counts as done must survive a power cut.
    partition.synced(last.last_offset + 1).await?;
    let reading = log.clone();
    let read = blocking(move || {
        let plan = reading.with(|log| log.plan_read(last.last_offset, 1, log.written_end()))?;
        plan.map(|plan| plan.run()).transpose()
    });
    let chunk = read.await.map_err(|error| partition.error(error))?;
    let mark = chunk.and_then(|chunk| last_mark(chunk.bytes, last.last_offset));
    match mark {
        Some(mark) => Ok(Written { next_sequence: after(last), mark: Some(mark) }),
        None => {
            let message = format!(
                "topic '{}' partition {}: the record at offset {} does not say what it was made of",
                partition.topic, partition.number, last.last_offset
            );
            Err(BrokerError::new(ErrorKind::Internal, message))
        }
    }
}

fn last_mark(batches: bytes::Bytes, at: Offset) -> Option<Mark> {
    let (_, batch) = Batches::new(batches).filter_map(Result::ok).find(|(header, _)| header.last_offset() >= at)?;
    let records = read_records(&batch, limits::MAX_DECOMPRESSED_BYTES).ok()?;
    mark_of(&records.filter_map(Result::ok).last()?)
}

/// What a routed record was made of.
pub(super) fn mark_of(record: &Record) -> Option<Mark> {
    let value = |name: &str| std::str::from_utf8(record.headers.get(name)?).ok();
    let source = value(route::SOURCE)?.rsplit('/').next()?;
    let (offset, output) = match value(route::OUTPUT) {
        None => (source, "0"),
        // A part that has waited too long is written later than its own offset says.
        Some(output) => output.split_once('.').unwrap_or((source, output)),
    };
    Some(Mark { offset: offset.parse().ok()?, output: output.parse().ok()? })
}
