//! The records of batches that were fetched, one by one. A batch whose records cannot be read (accepted by an earlier version,
//! or written past the gate) hides only what cannot be read of it: the offsets are told, and the next batch follows.

use std::fmt;

use bytes::Bytes;

use crate::base::{ErrorKind, Offset, PartitionId, limits};
use crate::log::{Damage, LogError};
use crate::record::{BatchError, BatchHeader, Batches, Compression, Record, RecordIter, read_records};

use super::broker::blocking;
use super::work::Portion;
use super::{Broker, BrokerError};

/// Offsets whose records are stored and whole, but cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The first of them.
    pub(crate) from: Offset,
    /// The offset behind the last of them.
    pub(crate) to: Offset,
    /// Why.
    pub(crate) error: BatchError,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to.saturating_sub(self.from) {
            1 => write!(f, "offset {} cannot be read: {}", self.from, self.error),
            _ => write!(f, "offsets {} to {} cannot be read: {}", self.from, self.to.saturating_sub(1), self.error),
        }
    }
}

/// Iterates over the records from an offset on. Control batches are passed over. Goes on behind what cannot be read.
pub(crate) struct Opened {
    batches: Batches,
    /// The next offset that is wanted.
    next: Offset,
    open: Option<(BatchHeader, RecordIter)>,
}

impl Opened {
    pub(crate) fn new(batches: Bytes, from: Offset) -> Self {
        Self { batches: Batches::new(batches), next: from, open: None }
    }

    fn unreadable(&mut self, header: &BatchHeader, error: BatchError) -> Option<Unreadable> {
        let (from, to) = (self.next.max(header.base_offset), header.next_offset());
        self.next = self.next.max(to);
        (from < to).then_some(Unreadable { from, to, error })
    }
}

impl Iterator for Opened {
    type Item = Result<Record, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((header, records)) = &mut self.open {
                match records.next() {
                    Some(Ok(record)) if record.offset < self.next => continue,
                    Some(Ok(record)) => {
                        self.next = record.offset + 1;
                        return Some(Ok(record));
                    }
                    Some(Err(error)) => {
                        let header = *header;
                        self.open = None;
                        if let Some(unreadable) = self.unreadable(&header, error) {
                            return Some(Err(unreadable));
                        }
                    }
                    None => self.open = None,
                }
            }
            match self.batches.next()? {
                Ok((header, _)) if header.is_control() || header.next_offset() <= self.next => {}
                Ok((header, batch)) => match read_records(&batch, limits::MAX_DECOMPRESSED_BYTES) {
                    Ok(records) => self.open = Some((header, records)),
                    Err(error) => {
                        if let Some(unreadable) = self.unreadable(&header, error) {
                            return Some(Err(unreadable));
                        }
                    }
                },
                // The log has verified what it handed out; from here on it would be found damaged.
                Err(error) => return Some(Err(Unreadable { from: self.next, to: self.next, error })),
            }
        }
    }
}

/// Records after which it is asked whether the portion is over.
const AT_A_TIME: usize = 64;

/// Whether a batch has to be decompressed, by the headers alone. What cannot be told counts as such.
fn any_compressed(batches: &[u8]) -> bool {
    let mut at = 0;
    while at < batches.len() {
        let Ok(header) = BatchHeader::parse(&batches[at..]) else { return true };
        if header.compression().is_ok_and(|codec| codec != Compression::None) {
            return true;
        }
        at += header.total_bytes();
    }
    false
}

impl Broker {
    /// The first `most` records of batches from an offset on, as [`Opened`] has them. Where it may take long, workers do it, as
    /// the work of the partition.
    ///
    /// # Errors
    /// There is no such topic or partition; the broker stops.
    pub(crate) async fn open_batches(
        &self,
        (topic, number): (&str, PartitionId),
        batches: Bytes,
        from: Offset,
        most: usize,
    ) -> Result<Vec<Result<Record, Unreadable>>, BrokerError> {
        let short = batches.len() <= limits::INLINE_BYTES && !any_compressed(&batches);
        let mut opened = Opened::new(batches, from);
        if short {
            return Ok(opened.take(most).collect());
        }
        let key = self.topic(topic)?.partition(number)?.work.clone();
        let mut records = Vec::new();
        loop {
            let portion = move |portion: Portion| {
                while !portion.is_over() {
                    let left = AT_A_TIME.min(most.saturating_sub(records.len()));
                    let before = records.len();
                    records.extend(opened.by_ref().take(left));
                    if records.len() - before < left || left == 0 {
                        return (opened, records, true);
                    }
                }
                (opened, records, false)
            };
            let done;
            (opened, records, done) = self.workers.run(&key, portion).await?;
            if done {
                return Ok(records);
            }
        }
    }

    /// The error of a reader that cannot go on at what is unreadable, with the place of the batch on the disk.
    pub(crate) async fn unreadable(&self, topic: &str, number: PartitionId, of: &Unreadable) -> BrokerError {
        let partition = self.topic(topic).and_then(|topic| Ok(std::sync::Arc::clone(topic.partition(number)?)));
        let Ok(partition) = partition else { return BrokerError::new(ErrorKind::Damaged, of.to_string()) };
        let plan = partition.log().map(|log| {
            let log = log.clone();
            log.with(|log| log.plan_read(of.from, 1, log.written_end()))
        });
        let place = match plan {
            Ok(Ok(Some(plan))) => blocking(move || plan.place()).await.ok(),
            _ => None,
        };
        let Some((file, position)) = place else { return BrokerError::new(ErrorKind::Damaged, of.to_string()) };
        let what = of.error.to_string();
        partition.error(LogError::Damaged(Box::new(Damage { file, position, from: of.from, to: Some(of.to), what })))
    }

    /// Says loudly that a reader goes on behind what is unreadable.
    pub(crate) async fn pass_over(&self, reader: &str, topic: &str, number: PartitionId, of: &Unreadable) {
        let error = self.unreadable(topic, number, of).await;
        self.metrics.unreadable.inc();
        tracing::error!(reader, "passed over: {error}");
    }
}
