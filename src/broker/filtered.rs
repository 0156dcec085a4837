//! Batches without the records that a filter does not want.

use bytes::{Bytes, BytesMut};

use crate::base::{ErrorKind, Offset, PartitionId};
use crate::expr::{Filter, Input};
use crate::record::{BatchBuilder, BatchError, BatchHeader, BatchOptions, Batches, patch_assigned};

use super::broker::blocking;
use super::opened::{Opened, Unreadable};
use super::{Broker, BrokerError, Skipped};

/// Bytes of batches that are filtered where the caller runs; more go to the blocking pool.
const AT_ONCE_BYTES: usize = 32 * 1024;

/// What a filter left over.
struct Left {
    batches: Bytes,
    asked: u64,
    failed: u64,
    /// Values that were parsed.
    parsed: u64,
    /// What was passed over.
    unreadable: Vec<Unreadable>,
    /// What could not be, where it ends therefore.
    until: Option<Unreadable>,
}

/// What a filter left over.
#[derive(Debug, Default)]
pub struct Filtered {
    /// The batches.
    pub batches: Bytes,
    /// The offset behind the last record that the filter saw, if that is not all of them: what comes next cannot be read.
    pub next: Option<Offset>,
    /// What cannot be read and was passed over.
    pub skipped: Vec<Skipped>,
}

impl Broker {
    /// Leaves only the records from `from` on that match, at their offsets. A batch of which all match stays as it is, the
    /// others are built anew, without compression; one of which none match is left out. A record for which the filter has
    /// no answer doesn't match, and is counted.
    ///
    /// Records that cannot be read end it, unless they are to be skipped.
    ///
    /// # Errors
    /// The first record cannot be read, and is not to be skipped.
    pub async fn filter(
        &self,
        filter: &std::sync::Arc<Filter>,
        topic: &str,
        partition: PartitionId,
        batches: Bytes,
        (from, skip): (Offset, bool),
    ) -> Result<Filtered, BrokerError> {
        if batches.is_empty() {
            return Ok(Filtered::default());
        }
        let left = if batches.len() <= AT_ONCE_BYTES {
            apply(filter, (topic, partition), batches, from, skip)
        } else {
            let (filter, topic) = (filter.clone(), topic.to_owned());
            blocking(move || apply(&filter, (&topic, partition), batches, from, skip)).await
        };
        let left = left.map_err(|error| {
            BrokerError::new(ErrorKind::Damaged, format!("topic '{topic}' partition {partition}: {error}"))
        })?;
        self.metrics().filtered.inc_by(left.asked);
        self.metrics().filter_failures.inc_by(left.failed);
        self.metrics().filter_values.inc_by(left.parsed);
        let mut skipped = Vec::new();
        for unreadable in left.unreadable {
            let Unreadable { from, to, .. } = unreadable;
            let reason = self.unreadable(topic, partition, &unreadable).await.to_string();
            tracing::warn!("passed over on request: {reason}");
            skipped.push(Skipped { from, to, reason });
        }
        let next = match left.until {
            Some(unreadable) if unreadable.from <= from => {
                return Err(self.unreadable(topic, partition, &unreadable).await);
            }
            until => until.map(|unreadable| unreadable.from),
        };
        Ok(Filtered { batches: left.batches, next, skipped })
    }
}

fn apply(
    filter: &Filter,
    (topic, partition): (&str, PartitionId),
    batches: Bytes,
    from: Offset,
    skip: bool,
) -> Result<Left, BatchError> {
    let (mut out, mut asked, mut failed, mut parsed) = (Vec::new(), 0, 0, 0);
    let (mut unreadable, mut until) = (Vec::new(), None);
    for batch in Batches::new(batches) {
        let (header, batch) = batch?;
        if header.is_control() {
            continue;
        }
        let mut matching = Vec::new();
        let mut all = header.base_offset >= from;
        for record in Opened::new(batch.clone(), from) {
            let record = match record {
                Ok(record) => record,
                Err(fault) => {
                    all = false;
                    match skip {
                        true => unreadable.push(fault),
                        false => until = Some(fault),
                    }
                    continue;
                }
            };
            asked += 1;
            match filter.ask(&Input { topic, partition, offset: record.offset, record: &record }, &mut parsed) {
                Ok(true) => matching.push(record),
                Ok(false) => all = false,
                Err(error) => {
                    tracing::trace!(topic, partition, offset = record.offset, %error, "a filter had no answer");
                    (all, failed) = (false, failed + 1);
                }
            }
        }
        match matching.first() {
            None => {}
            Some(_) if all => out.push(batch),
            Some(first) => {
                let options = BatchOptions { base_offset: first.offset, ..BatchOptions::default() };
                let mut builder = BatchBuilder::new(options);
                for record in &matching {
                    builder.push_record(record);
                }
                out.push(at_its_place(builder.build(), &header));
            }
        }
        if until.is_some() {
            break;
        }
    }
    let batches = match out.len() {
        1 => out.swap_remove(0),
        _ => out.concat().into(),
    };
    Ok(Left { batches, asked, failed, parsed, unreadable, until })
}

/// A batch that was built of another's records says of itself what the other said that is not covered by a checksum.
fn at_its_place(mut batch: BytesMut, of: &BatchHeader) -> Bytes {
    let base = BatchHeader::parse(&batch).map_or(of.base_offset, |header| header.base_offset);
    patch_assigned(&mut batch, base, of.leader_epoch);
    batch.freeze()
}
