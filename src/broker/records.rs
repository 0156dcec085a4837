//! Reading records one by one, for the broker's own use.

use std::time::Duration;

use crate::base::{ErrorKind, Offset, PartitionId};
use crate::record::Record;

use super::fetch::end_of;
use super::opened::Unreadable;
use super::{Broker, BrokerError, FetchRequest, Isolation};

/// What was read at a time.
pub(crate) struct Read {
    /// The records, in order.
    pub(crate) records: Vec<Record>,
    /// What between them cannot be read.
    pub(crate) unreadable: Vec<Unreadable>,
    /// The offset behind what was read.
    pub(crate) next: Offset,
}

impl Broker {
    /// The same as [`Broker::read_from`], with what cannot be read passed over, loudly, in the name of a reader.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn records_from(
        &self,
        reader: &str,
        (topic, partition): (&str, PartitionId),
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<(Vec<Record>, Offset), BrokerError> {
        let Read { records, unreadable, next } = self.read_from(topic, partition, from, max_bytes, isolation).await?;
        for one in unreadable {
            self.pass_over(reader, topic, partition, &one).await;
        }
        Ok((records, next))
    }

    /// Some records from an offset on (or from the log start, if that is later) and the offset behind what was read: that
    /// is further than `from` as long as there is more. Control batches are passed over.
    ///
    /// # Errors
    /// Those of [`Broker::fetch`].
    pub(crate) async fn read_from(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Read, BrokerError> {
        let found = self.topic(topic)?;
        let (start, end) = found.partition(partition)?.log()?.with(|log| (log.start_offset(), end_of(log, isolation)));
        let from = from.max(start);
        if from >= end {
            return Ok(Read { records: Vec::new(), unreadable: Vec::new(), next: from });
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
        let mut read = Read { records: Vec::new(), unreadable: Vec::new(), next: fetched.next_offset };
        for record in self.open_batches((topic, partition), fetched.bytes, from, usize::MAX).await? {
            match record {
                Ok(record) => read.records.push(record),
                Err(unreadable) => read.unreadable.push(unreadable),
            }
        }
        Ok(read)
    }
}
