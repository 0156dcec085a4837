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

/// What comes next in batches.
pub(crate) enum Next {
    Record(Record),
    Unreadable(Unreadable),
    /// A record that takes so many bytes of memory, which are more than it may.
    Larger(usize),
}

/// Iterates over the records from an offset on. Control batches are passed over. Goes on behind what cannot be read. It holds
/// the batches, and of the records a chunk.
pub(crate) struct Opened {
    /// They are few, and not compressed: reading them takes no time to speak of.
    short: bool,
    /// Bytes of the batches.
    bytes: usize,
    batches: Batches,
    /// The next offset that is wanted.
    next: Offset,
    open: Option<(BatchHeader, RecordIter)>,
}

impl Opened {
    pub(crate) fn new(batches: Bytes, from: Offset) -> Self {
        let short = batches.len() <= limits::INLINE_BYTES && !any_compressed(&batches);
        Self { short, bytes: batches.len(), batches: Batches::new(batches), next: from, open: None }
    }

    /// Bytes of the batches.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_short(&self) -> bool {
        self.short
    }

    /// The next offset that is wanted: behind the last that was handed out.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next
    }

    fn unreadable(&mut self, header: &BatchHeader, error: BatchError) -> Option<Unreadable> {
        let (from, to) = (self.next.max(header.base_offset), header.next_offset());
        self.next = self.next.max(to);
        (from < to).then_some(Unreadable { from, to, error })
    }

    /// What comes next, if it takes at most so many bytes of memory beside the batches.
    pub(crate) fn next_within(&mut self, most: usize) -> Option<Next> {
        loop {
            if let Some((header, records)) = &mut self.open {
                let bytes = records.next_bytes();
                if bytes > most {
                    return Some(Next::Larger(bytes));
                }
                match records.next() {
                    Some(Ok(record)) if record.offset < self.next => continue,
                    Some(Ok(record)) => {
                        self.next = record.offset + 1;
                        return Some(Next::Record(record));
                    }
                    Some(Err(error)) => {
                        let header = *header;
                        self.open = None;
                        if let Some(unreadable) = self.unreadable(&header, error) {
                            return Some(Next::Unreadable(unreadable));
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
                            return Some(Next::Unreadable(unreadable));
                        }
                    }
                },
                // The log has verified what it handed out; from here on it would be found damaged.
                Err(error) => return Some(Next::Unreadable(Unreadable { from: self.next, to: self.next, error })),
            }
        }
    }
}

impl Iterator for Opened {
    type Item = Result<Record, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_within(usize::MAX)? {
            Next::Record(record) => Some(Ok(record)),
            Next::Unreadable(unreadable) => Some(Err(unreadable)),
            // No record is.
            Next::Larger(_) => None,
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

/// How much of opened batches is taken at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// Records.
    pub(crate) records: usize,
    /// Bytes of records after which it is enough.
    pub(crate) bytes: usize,
    /// Bytes of the largest record that is taken.
    pub(crate) record: usize,
}

impl Most {
    /// What readers of the server's own take at a time.
    pub(crate) const PORTION: Self = Self { records: 4096, bytes: 512 * 1024, record: usize::MAX };
}

/// Why no more was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is no more.
    End,
    /// It is enough.
    Full,
    /// The next record takes so many bytes, more than it may, and nothing was taken.
    Larger(usize),
}

/// Some of what is in batches.
pub(crate) type Taken = (Vec<Result<Record, Unreadable>>, Stop);

impl Opened {
    /// Takes some, as much as a portion of time allows; `None` if that is not all that may be taken.
    fn take_some(
        &mut self,
        most: Most,
        taken: &mut Vec<Result<Record, Unreadable>>,
        bytes: &mut usize,
    ) -> Option<Stop> {
        for _ in 0..AT_A_TIME {
            if taken.len() >= most.records || *bytes >= most.bytes {
                return Some(Stop::Full);
            }
            match self.next_within(most.record) {
                None => return Some(Stop::End),
                Some(Next::Larger(larger)) if taken.is_empty() => return Some(Stop::Larger(larger)),
                Some(Next::Larger(_)) => return Some(Stop::Full),
                Some(Next::Record(record)) => {
                    *bytes += record.weight() + limits::RECORD_WEIGHT;
                    taken.push(Ok(record));
                }
                Some(Next::Unreadable(unreadable)) => taken.push(Err(unreadable)),
            }
        }
        None
    }
}

impl Broker {
    /// Takes what comes next in opened batches. Where it may take long, workers do it, as the work of the partition.
    ///
    /// # Errors
    /// There is no such topic or partition; the broker stops.
    pub(crate) async fn take_opened(
        &self,
        (topic, number): (&str, PartitionId),
        mut opened: Opened,
        most: Most,
    ) -> Result<(Opened, Taken), BrokerError> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        if opened.is_short() {
            loop {
                if let Some(stop) = opened.take_some(most, &mut taken, &mut bytes) {
                    return Ok((opened, (taken, stop)));
                }
            }
        }
        let key = self.topic(topic)?.partition(number)?.work.clone();
        loop {
            let portion = move |portion: Portion| {
                let mut stop = None;
                while stop.is_none() && !portion.is_over() {
                    stop = opened.take_some(most, &mut taken, &mut bytes);
                }
                (opened, taken, bytes, stop)
            };
            let stop;
            (opened, taken, bytes, stop) = self.workers.run(&key, portion).await?;
            if let Some(stop) = stop {
                return Ok((opened, (taken, stop)));
            }
        }
    }

    /// The first record of batches from an offset on, or why it cannot be read.
    ///
    /// # Errors
    /// As [`Broker::take_opened`].
    pub(crate) async fn open_first(
        &self,
        place: (&str, PartitionId),
        batches: Bytes,
        from: Offset,
    ) -> Result<Option<Result<Record, Unreadable>>, BrokerError> {
        let most = Most { records: 1, ..Most::PORTION };
        let (_, (mut taken, _)) = self.take_opened(place, Opened::new(batches, from), most).await?;
        Ok(taken.pop())
    }

    /// What the first record of batches that `find` knows something of is to it. What cannot be read is passed over.
    ///
    /// # Errors
    /// As [`Broker::take_opened`].
    pub(crate) async fn find_opened<T>(
        &self,
        place: (&str, PartitionId),
        batches: Bytes,
        from: Offset,
        find: impl Fn(&Record) -> Option<T>,
    ) -> Result<Option<T>, BrokerError> {
        let mut opened = Opened::new(batches, from);
        loop {
            let taken;
            (opened, taken) = self.take_opened(place, opened, Most::PORTION).await?;
            let (records, stop) = taken;
            if let Some(found) = records.iter().filter_map(|record| find(record.as_ref().ok()?)).next() {
                return Ok(Some(found));
            }
            if stop != Stop::Full {
                return Ok(None);
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
