//! Reading records one by one, for the broker's own use.

use std::time::Duration;

use crate::base::{ErrorKind, Offset, PartitionId, limits};
use crate::record::{Batches, Record, read_records};

use super::fetch::end_of;
use super::{Broker, BrokerError, FetchRequest, Isolation};

impl Broker {
    /// Some records from an offset on (or from the log start, if that is later) and the offset behind what was read: that
    /// is further than `from` as long as there is more. Control batches are passed over.
    ///
    /// # Errors
    /// Those of [`Broker::fetch`]; a batch that cannot be read.
    pub(crate) async fn records_from(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<(Vec<Record>, Offset), BrokerError> {
        let found = self.topic(topic)?;
        let (start, end) = found.partition(partition)?.log()?.with(|log| (log.start_offset(), end_of(log, isolation)));
        let from = from.max(start);
        if from >= end {
            return Ok((Vec::new(), from));
        }
        let request = FetchRequest {
            topic,
            partition,
            offset: from,
            max_bytes,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            skip_damaged: false,
        };
        let fetched = self.fetch_as(request, isolation).await?.fetched;
        if fetched.next_offset <= from {
            let message = format!("nothing can be read at offset {from} of {topic}/{partition}");
            return Err(BrokerError::new(ErrorKind::Internal, message));
        }
        let mut records = Vec::new();
        for batch in Batches::new(fetched.bytes) {
            let (header, batch) = batch?;
            if header.is_control() {
                continue;
            }
            for record in read_records(&batch, limits::MAX_DECOMPRESSED_BYTES)? {
                let record = record?;
                if record.offset >= from {
                    records.push(record);
                }
            }
        }
        Ok((records, fetched.next_offset))
    }
}
