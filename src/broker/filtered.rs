//! Batches without the records that a filter does not want.

use bytes::{Bytes, BytesMut};

use crate::base::{ErrorKind, Offset, PartitionId, limits};
use crate::expr::{Filter, Input};
use crate::record::{BatchBuilder, BatchError, BatchHeader, BatchOptions, Batches, patch_assigned, read_records};

use super::broker::blocking;
use super::{Broker, BrokerError};

/// Bytes of batches that are filtered where the caller runs; more go to the blocking pool.
const AT_ONCE_BYTES: usize = 32 * 1024;

/// What a filter left over.
struct Left {
    batches: Bytes,
    asked: u64,
    failed: u64,
    /// Values that were parsed.
    parsed: u64,
}

impl Broker {
    /// Leaves only the records from `from` on that match, at their offsets. A batch of which all match stays as it is, the
    /// others are built anew, without compression; one of which none match is left out. A record for which the filter has
    /// no answer doesn't match, and is counted.
    ///
    /// # Errors
    /// A batch that cannot be read.
    pub async fn filter(
        &self,
        filter: &std::sync::Arc<Filter>,
        topic: &str,
        partition: PartitionId,
        batches: Bytes,
        from: Offset,
    ) -> Result<Bytes, BrokerError> {
        if batches.is_empty() {
            return Ok(batches);
        }
        let left = if batches.len() <= AT_ONCE_BYTES {
            apply(filter, topic, partition, batches, from)
        } else {
            let (filter, topic) = (filter.clone(), topic.to_owned());
            blocking(move || apply(&filter, &topic, partition, batches, from)).await
        };
        let left = left.map_err(|error| {
            BrokerError::new(ErrorKind::Damaged, format!("topic '{topic}' partition {partition}: {error}"))
        })?;
        self.metrics().filtered.inc_by(left.asked);
        self.metrics().filter_failures.inc_by(left.failed);
        self.metrics().filter_values.inc_by(left.parsed);
        Ok(left.batches)
    }
}

fn apply(
    filter: &Filter,
    topic: &str,
    partition: PartitionId,
    batches: Bytes,
    from: Offset,
) -> Result<Left, BatchError> {
    let (mut out, mut asked, mut failed, mut parsed) = (Vec::new(), 0, 0, 0);
    for batch in Batches::new(batches) {
        let (header, batch) = batch?;
        if header.is_control() {
            continue;
        }
        let mut matching = Vec::new();
        let mut all = true;
        for record in read_records(&batch, limits::MAX_DECOMPRESSED_BYTES)? {
            let record = record?;
            if record.offset < from {
                all = false;
                continue;
            }
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
    }
    let batches = match out.len() {
        1 => out.swap_remove(0),
        _ => out.concat().into(),
    };
    Ok(Left { batches, asked, failed, parsed })
}

/// A batch that was built of another's records says of itself what the other said that is not covered by a checksum.
fn at_its_place(mut batch: BytesMut, of: &BatchHeader) -> Bytes {
    let base = BatchHeader::parse(&batch).map_or(of.base_offset, |header| header.base_offset);
    patch_assigned(&mut batch, base, of.leader_epoch);
    batch.freeze()
}
