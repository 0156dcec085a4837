//! A reader of one partition. It resolves topic and partition once, so that a request over many partitions waits on all of
//! them and reads again only those that have changed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::base::{ErrorKind, Offset, PartitionId, TopicId};
use crate::log::{Aborted, LogError, LogHandle, PartitionLog, ReadChunk};
use crate::record::{BatchError, BatchHeader, Batches, gap_batches};

use super::broker::blocking;
use super::metrics::Metrics;
use super::partition::{Partition, Stable, Topic};
use super::{Broker, BrokerError, Fetched, Isolation, Marked, PartitionEnds, Skipped, Unanswered};

/// Reads one partition and is told of its changes. It never waits for time: a caller that wants to wait awaits
/// [`PartitionReader::changed`] under its own deadline.
pub struct PartitionReader {
    partition: Arc<Partition>,
    watch: watch::Receiver<Stable>,
    metrics: Arc<Metrics>,
}

/// A topic that was found by its name, from which readers of many of its partitions are made without another look-up.
pub struct TopicHandle {
    topic: Arc<Topic>,
    metrics: Arc<Metrics>,
}

impl TopicHandle {
    /// Its id: another topic of the same name, before or after it, has another.
    pub fn id(&self) -> TopicId {
        self.topic.entry.id
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.topic.entry.partitions
    }

    /// A reader of one partition.
    ///
    /// # Errors
    /// No such partition.
    pub fn reader(&self, partition: PartitionId) -> Result<PartitionReader, BrokerError> {
        let partition = Arc::clone(self.topic.partition(partition)?);
        let watch = partition.watch();
        Ok(PartitionReader { partition, watch, metrics: Arc::clone(&self.metrics) })
    }
}

impl Broker {
    /// Finds a topic by its name.
    ///
    /// # Errors
    /// No such topic, or a name that no topic can have.
    pub fn handle(&self, topic: &str) -> Result<TopicHandle, BrokerError> {
        Ok(TopicHandle { topic: self.topic(topic)?, metrics: Arc::clone(&self.metrics) })
    }

    /// A reader of one partition.
    ///
    /// # Errors
    /// No such topic or partition.
    pub fn reader(&self, topic: &str, partition: PartitionId) -> Result<PartitionReader, BrokerError> {
        self.handle(topic)?.reader(partition)
    }
}

/// A read by a [`PartitionReader`].
#[derive(Debug, Clone, Copy)]
pub struct ReadAt {
    /// Where to begin.
    pub offset: Offset,
    /// How much at most, in bytes; at least one batch is read.
    pub max_bytes: usize,
    /// If the first batch is larger than so many bytes, it is not read, and [`Fetched::needs`] says how large it is.
    pub largest: usize,
    /// Go on behind damage.
    pub skip_damaged: bool,
}

impl PartitionReader {
    pub(super) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Where the partition begins and ends now. [`PartitionReader::changed`] returns for what changes from here on.
    ///
    /// # Errors
    /// The topic is deleted or the broker stops; the partition is offline.
    pub fn look(&mut self) -> Result<PartitionEnds, BrokerError> {
        Ok(ends_of(self.open_log()?))
    }

    /// The log, with every change up to now noted as seen.
    fn open_log(&mut self) -> Result<&LogHandle, BrokerError> {
        if self.watch.borrow_and_update().closed {
            let message = format!("topic '{}' has been closed or deleted", self.partition.topic);
            return Err(BrokerError::new(ErrorKind::NotFound, message));
        }
        self.partition.log()
    }

    /// Reads what is there, as it lies in the log: markers and batches of aborted transactions included.
    ///
    /// # Errors
    /// The topic is deleted or the broker stops, an offset out of range, damage, the disk's.
    pub async fn read_as(&mut self, at: ReadAt, isolation: Isolation) -> Result<Marked, BrokerError> {
        let mut offset = at.offset;
        let mut skipped = Vec::new();
        loop {
            self.metrics.reads.inc();
            let log = self.open_log()?;
            let (ends, forgotten) = log.with(|log| (ends(log), log.forgotten()));
            let end = ends.end(isolation);
            // Behind `end` lies an open transaction, or what was acknowledged and is not synced: nothing to read yet, and no
            // error.
            let read = match (ends.log_start.max(end)..=ends.written).contains(&offset) {
                true => Ok(ReadChunk::empty(offset)),
                false => read(log, offset, (at.max_bytes, at.largest), end).await,
            };
            let chunk = match read {
                Err(LogError::Damaged(damage)) if at.skip_damaged && damage.to.is_some() => {
                    self.partition.note_damage(&damage);
                    let to = damage.to.unwrap_or(offset).max(offset + 1).min(end);
                    let Partition { topic, number, .. } = self.partition.as_ref();
                    tracing::warn!(%topic, partition = number, "passed over on request: {damage}");
                    skipped.push(Skipped { from: damage.from, to, reason: damage.to_string() });
                    offset = to;
                    continue;
                }
                other => other.map_err(|error| self.partition.error(error))?,
            };
            let ReadChunk { bytes, next_offset, needs } = chunk;
            let aborted = match isolation {
                Isolation::Committed if !bytes.is_empty() => {
                    let known =
                        |log: &PartitionLog| (log.forgotten() == forgotten).then(|| log.aborted(offset, next_offset));
                    // What was read may be of a transaction that the log has forgotten meanwhile: read again.
                    let Some(aborted) = self.partition.log()?.with(|log| known(log)) else { continue };
                    aborted
                }
                _ => Vec::new(),
            };
            self.metrics.bytes_out.inc_by(bytes.len() as u64);
            let fetched = Fetched {
                bytes,
                next_offset,
                log_start: ends.log_start,
                stable_end: end,
                skipped,
                needs,
                unanswered: Unanswered::default(),
            };
            return Ok(Marked { fetched, ends, aborted });
        }
    }

    /// Whether such readers would find nothing at `offset` now, without an error.
    ///
    /// # Errors
    /// As [`PartitionReader::look`].
    pub fn is_at_end(&mut self, offset: Offset, isolation: Isolation) -> Result<bool, BrokerError> {
        let ends = self.look()?;
        Ok((ends.log_start.max(ends.end(isolation))..=ends.written).contains(&offset))
    }

    /// Reads what is there of what is committed. In the place of batches of aborted transactions, and of markers, there
    /// are empty ones.
    ///
    /// # Errors
    /// As [`PartitionReader::read_as`].
    pub async fn read(&mut self, at: ReadAt) -> Result<Fetched, BrokerError> {
        self.read_for(at, Isolation::Committed).await
    }

    /// The same for readers of either kind: those of everything see the records of open and aborted transactions, too.
    ///
    /// # Errors
    /// As [`PartitionReader::read_as`].
    pub async fn read_for(&mut self, at: ReadAt, isolation: Isolation) -> Result<Fetched, BrokerError> {
        let Marked { mut fetched, aborted, .. } = self.read_as(at, isolation).await?;
        fetched.bytes = leave_out(fetched.bytes, &aborted)?;
        Ok(fetched)
    }

    /// Returns at the next change, at once if there was one since the last look or read: more to read, the topic deleted,
    /// the broker stopping.
    pub async fn changed(&mut self) {
        // A sender that is gone means that the partition is gone, which is a change too.
        let _ = self.watch.changed().await;
    }

    /// A watch of its own for changes since the last look or read, so that the reader can be used while many watches are
    /// waited for.
    pub fn watch(&self) -> PartitionWatch {
        PartitionWatch(self.watch.clone())
    }
}

/// Waits for the next change of a partition.
pub struct PartitionWatch(watch::Receiver<Stable>);

impl PartitionWatch {
    /// As [`PartitionReader::changed`].
    pub async fn changed(mut self) {
        let _ = self.0.changed().await;
    }
}

pub(super) fn ends_of(log: &LogHandle) -> PartitionEnds {
    log.with(|log| ends(log))
}

fn ends(log: &PartitionLog) -> PartitionEnds {
    PartitionEnds {
        log_start: log.start_offset(),
        stable: log.stable_end(),
        committed: log.committed_end(),
        written: log.written_end(),
    }
}

/// What readers of committed records are to see of these batches: empty ones in the place of those that are none for them.
pub(super) fn leave_out(batches: Bytes, aborted: &[Aborted]) -> Result<Bytes, BatchError> {
    let hidden = |header: &BatchHeader| {
        header.is_control() || header.is_transactional() && aborted.iter().any(|aborted| aborted.holds(header))
    };
    // Nearly always there is nothing to leave out, and then nothing is copied.
    let mut at = 0;
    let mut any = false;
    while at < batches.len() && !any {
        let header = BatchHeader::parse(&batches[at..])?;
        any = hidden(&header);
        at += header.total_bytes();
    }
    if !any {
        return Ok(batches);
    }
    let mut out = BytesMut::with_capacity(batches.len());
    for batch in Batches::new(batches) {
        let (header, batch) = batch?;
        if hidden(&header) {
            for gap in gap_batches(header.base_offset, header.next_offset()) {
                out.extend_from_slice(&gap);
            }
        } else {
            out.extend_from_slice(&batch);
        }
    }
    Ok(out.freeze())
}

async fn read(
    log: &LogHandle,
    offset: Offset,
    (max_bytes, largest): (usize, usize),
    limit: Offset,
) -> Result<ReadChunk, LogError> {
    match log.with(|log| log.plan_read(offset, max_bytes, limit))?.map(|plan| plan.up_to(largest)) {
        Some(mut plan) => match plan.run_at_once() {
            Some(chunk) => Ok(chunk),
            None => blocking(move || plan.run()).await,
        },
        None => Ok(ReadChunk::empty(offset)),
    }
}
