//! Batches without the records that a filter does not want.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::base::{ErrorKind, Offset, PartitionId, limits};
use crate::expr::{Filter, Input};
use crate::record::{BatchBuilder, BatchError, BatchHeader, BatchOptions, Batches, Record, patch_assigned};

use super::opened::{Next, Opened, Unreadable};
use super::work::{Portion, WorkKey};
use super::{Broker, BrokerError, Skipped, Unanswered};

/// What a filter left over.
#[derive(Debug, Default)]
pub struct Filtered {
    /// The batches.
    pub batches: Bytes,
    /// The offset behind the last record that the filter saw, if that is not all of them: what comes next cannot be read.
    pub next: Option<Offset>,
    /// What cannot be read and was passed over.
    pub skipped: Vec<Skipped>,
    /// The first record takes so many bytes, more than there is room for. Nothing was done.
    pub larger: Option<usize>,
    /// What the filter had no answer for.
    pub unanswered: Unanswered,
}

/// What is to be filtered of batches, and how.
#[derive(Debug, Clone, Copy)]
pub struct FilterAt {
    /// The first offset.
    pub from: Offset,
    /// Go on behind records that cannot be read.
    pub skip_damaged: bool,
    /// Bytes that the records which are left may take, about: beyond it, the rest is for the next time. Batches that stay as they
    /// are count with their size.
    pub most: usize,
}

impl Broker {
    /// Leaves only the records from `from` on that match, at their offsets. A batch of which all match stays as it is, the
    /// others are built anew, without compression; one of which none match is left out. A record for which the filter has
    /// no answer doesn't match, and is counted. The work is `key`'s.
    ///
    /// Records that cannot be read end it, unless they are to be skipped. It takes memory for twice `most` and a window of the
    /// batches' codec, beside the batches.
    ///
    /// # Errors
    /// The first record cannot be read, and is not to be skipped; the broker stops.
    pub async fn filter(
        &self,
        key: &WorkKey,
        filter: &Arc<Filter>,
        topic: &str,
        partition: PartitionId,
        batches: Bytes,
        at: FilterAt,
    ) -> Result<Filtered, BrokerError> {
        if batches.is_empty() {
            return Ok(Filtered::default());
        }
        let FilterAt { from, skip_damaged: skip, most } = at;
        let damaged = |error: BatchError| {
            BrokerError::new(ErrorKind::Damaged, format!("topic '{topic}' partition {partition}: {error}"))
        };
        let mut left = Filtering {
            filter: Arc::clone(filter),
            topic: topic.to_owned(),
            partition,
            from,
            skip,
            most,
            batches: Batches::new(batches),
            current: None,
            out: Vec::new(),
            bytes: 0,
            stopped: None,
            larger: None,
            counts: Counts::default(),
            unreadable: Vec::new(),
            until: None,
        };
        let mut unanswered = Unanswered::default();
        loop {
            let portion = move |portion| {
                let done = left.portion(portion);
                (left, done)
            };
            let done;
            (left, done) = self.workers.run(key, portion).await?;
            let counts = std::mem::take(&mut left.counts);
            self.count(&counts);
            unanswered.records += counts.failed;
            unanswered.reason = unanswered.reason.or(counts.reason);
            if done.map_err(damaged)? {
                break;
            }
        }
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
            until => left.stopped.or(until.map(|unreadable| unreadable.from)),
        };
        let batches = match left.out.len() {
            1 => left.out.swap_remove(0),
            _ => left.out.concat().into(),
        };
        Ok(Filtered { batches, next, skipped, larger: left.larger, unanswered })
    }

    /// Asks a filter about records, from the front, as many as fit a portion, one at least: whether each matches. The records
    /// come back as they were.
    ///
    /// # Errors
    /// The broker stops.
    pub(crate) async fn ask(
        &self,
        key: &WorkKey,
        filter: &Arc<Filter>,
        (topic, partition): (&str, PartitionId),
        records: Vec<Record>,
    ) -> Result<Asked, BrokerError> {
        let (filter, topic) = (Arc::clone(filter), topic.to_owned());
        let portion = move |portion: Portion| {
            let (mut counts, mut matches) = (Counts::default(), Vec::new());
            for record in &records {
                matches.push(counts.ask(&filter, &topic, partition, record));
                if portion.is_over() {
                    break;
                }
            }
            (records, matches, counts)
        };
        let (records, wanted, counts) = self.workers.run(key, portion).await?;
        self.count(&counts);
        Ok(Asked { records, wanted, unanswered: counts.failed, reason: counts.reason })
    }

    fn count(&self, counts: &Counts) {
        self.metrics.filtered.inc_by(counts.asked);
        self.metrics.filter_failures.inc_by(counts.failed);
        self.metrics.filter_values.inc_by(counts.parsed);
    }
}

/// What a filter said of records.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The records, as they were.
    pub(crate) records: Vec<Record>,
    /// Whether it wants each of them, from the front; of the others it was not asked.
    pub(crate) wanted: Vec<bool>,
    /// Those of them that it had no answer for.
    pub(crate) unanswered: u64,
    /// Why, of the first.
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    asked: u64,
    failed: u64,
    /// Why, of the first.
    reason: Option<String>,
    /// Values that were parsed.
    parsed: u64,
}

impl Counts {
    fn ask(&mut self, filter: &Filter, topic: &str, partition: PartitionId, record: &Record) -> bool {
        self.asked += 1;
        let input = Input { topic, partition, offset: record.offset, record };
        filter.ask(&input, &mut self.parsed).unwrap_or_else(|error| {
            tracing::trace!(topic, partition, offset = record.offset, %error, "a filter had no answer");
            self.failed += 1;
            self.reason.get_or_insert_with(|| error.to_string());
            false
        })
    }
}

/// Batches that are being filtered.
struct Filtering {
    filter: Arc<Filter>,
    topic: String,
    partition: PartitionId,
    from: Offset,
    /// Whether to go on behind what cannot be read.
    skip: bool,
    most: usize,
    batches: Batches,
    current: Option<Current>,
    /// What is left so far, and its bytes.
    out: Vec<Bytes>,
    bytes: usize,
    counts: Counts,
    /// What was passed over.
    unreadable: Vec<Unreadable>,
    /// What could not be, where it ends therefore.
    until: Option<Unreadable>,
    /// Where it ends because it is enough.
    stopped: Option<Offset>,
    /// Bytes of a first record for which there is no room.
    larger: Option<usize>,
}

/// The batch that is looked at.
struct Current {
    header: BatchHeader,
    batch: Bytes,
    records: Opened,
    /// Those that match, and what they weigh; none while all match and are too many to be kept.
    matching: Vec<Record>,
    weight: usize,
    /// Every record so far matches.
    all: bool,
    /// Records that matched and were not kept.
    dropped: u64,
    /// Of records that are looked at again, those that are known to match.
    known: u64,
}

impl Filtering {
    /// Goes on for a portion; whether all is done.
    fn portion(&mut self, portion: Portion) -> Result<bool, BatchError> {
        loop {
            if self.until.is_some() || self.stopped.is_some() || self.larger.is_some() {
                return Ok(true);
            }
            let Some(mut current) = self.current.take() else {
                let Some(batch) = self.batches.next() else { return Ok(true) };
                let (header, batch) = batch?;
                if !header.is_control() {
                    self.current = Some(Current::new(header, batch, self.from));
                }
                continue;
            };
            match current.records.next_within(self.most) {
                Some(Next::Record(record)) => {
                    let known = current.known > 0;
                    current.known = current.known.saturating_sub(1);
                    if known || self.counts.ask(&self.filter, &self.topic, self.partition, &record) {
                        current.keep(record, self.most);
                    } else if current.all && current.dropped > 0 {
                        current.again(self.from);
                    } else {
                        current.all = false;
                    }
                }
                // What was dropped fills it.
                Some(Next::Larger(_)) if current.all && current.dropped > 0 => current.again(self.from),
                Some(Next::Larger(bytes)) => {
                    let at = current.records.next_offset().max(current.header.base_offset);
                    if at <= self.from && self.out.is_empty() {
                        self.larger = Some(bytes);
                        continue;
                    }
                    current.all = false;
                    self.stopped = Some(at);
                }
                Some(Next::Unreadable(fault)) => {
                    if current.all && current.dropped > 0 {
                        current.again(self.from);
                    } else {
                        current.all = false;
                        match self.skip {
                            true => self.unreadable.push(fault),
                            false => self.until = Some(fault),
                        }
                    }
                }
                None => {
                    let next = current.header.next_offset();
                    self.take(current.left());
                    self.stopped = (self.bytes >= self.most).then_some(next);
                    continue;
                }
            }
            if !current.all && current.weight >= self.most {
                self.stopped = Some(current.records.next_offset());
            }
            match self.stopped.is_some() || self.until.is_some() {
                true => self.take(current.left()),
                false => self.current = Some(current),
            }
            if portion.is_over() {
                return Ok(false);
            }
        }
    }

    fn take(&mut self, left: Option<Bytes>) {
        self.bytes += left.as_ref().map_or(0, Bytes::len);
        self.out.extend(left);
    }
}

impl Current {
    fn new(header: BatchHeader, batch: Bytes, from: Offset) -> Self {
        let (records, all) = (Opened::new(batch.clone(), from), header.base_offset >= from);
        Self { header, batch, records, matching: Vec::new(), weight: 0, all, dropped: 0, known: 0 }
    }

    fn keep(&mut self, record: Record, most: usize) {
        if self.dropped > 0 {
            self.dropped += 1;
            return;
        }
        self.weight += record.weight() + limits::RECORD_WEIGHT;
        self.matching.push(record);
        // If all match, the batch stays as it is.
        if self.all && self.weight >= most {
            self.dropped = self.matching.len() as u64;
            self.matching = Vec::new();
        }
    }

    /// Begins anew with records that were dropped, since not all match.
    fn again(&mut self, from: Offset) {
        let (header, batch) = (self.header, self.batch.clone());
        *self = Self { all: false, known: self.dropped, ..Self::new(header, batch, from) };
    }

    fn left(self) -> Option<Bytes> {
        let Self { header, batch, matching, all, dropped, .. } = self;
        if all && (dropped > 0 || !matching.is_empty()) {
            return Some(batch);
        }
        let first = matching.first()?;
        let options = BatchOptions { base_offset: first.offset, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for record in &matching {
            builder.push_record(record);
        }
        Some(at_its_place(builder.build(), &header))
    }
}

/// A batch that was built of another's records says of itself what the other said that is not covered by a checksum.
fn at_its_place(mut batch: BytesMut, of: &BatchHeader) -> Bytes {
    let base = BatchHeader::parse(&batch).map_or(of.base_offset, |header| header.base_offset);
    patch_assigned(&mut batch, base, of.leader_epoch);
    batch.freeze()
}
