//! Batches without the records that a filter does not want.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::base::{ErrorKind, Offset, PartitionId};
use crate::expr::{Filter, Input};
use crate::record::{BatchBuilder, BatchError, BatchHeader, BatchOptions, Batches, Record, patch_assigned};

use super::opened::{Opened, Unreadable};
use super::work::{Portion, WorkKey};
use super::{Broker, BrokerError, Skipped};

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
    /// no answer doesn't match, and is counted. The work is `key`'s.
    ///
    /// Records that cannot be read end it, unless they are to be skipped.
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
        (from, skip): (Offset, bool),
    ) -> Result<Filtered, BrokerError> {
        if batches.is_empty() {
            return Ok(Filtered::default());
        }
        let damaged = |error: BatchError| {
            BrokerError::new(ErrorKind::Damaged, format!("topic '{topic}' partition {partition}: {error}"))
        };
        let mut left = Filtering {
            filter: Arc::clone(filter),
            topic: topic.to_owned(),
            partition,
            from,
            skip,
            batches: Batches::new(batches),
            current: None,
            out: Vec::new(),
            counts: Counts::default(),
            unreadable: Vec::new(),
            until: None,
        };
        loop {
            let portion = move |portion| {
                let done = left.portion(portion);
                (left, done)
            };
            let done;
            (left, done) = self.workers.run(key, portion).await?;
            self.count(&std::mem::take(&mut left.counts));
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
            until => until.map(|unreadable| unreadable.from),
        };
        let batches = match left.out.len() {
            1 => left.out.swap_remove(0),
            _ => left.out.concat().into(),
        };
        Ok(Filtered { batches, next, skipped })
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
    ) -> Result<(Vec<Record>, Vec<bool>), BrokerError> {
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
        let (records, matches, counts) = self.workers.run(key, portion).await?;
        self.count(&counts);
        Ok((records, matches))
    }

    fn count(&self, counts: &Counts) {
        self.metrics.filtered.inc_by(counts.asked);
        self.metrics.filter_failures.inc_by(counts.failed);
        self.metrics.filter_values.inc_by(counts.parsed);
    }
}

#[derive(Debug, Default)]
struct Counts {
    asked: u64,
    failed: u64,
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
    batches: Batches,
    current: Option<Current>,
    /// What is left so far.
    out: Vec<Bytes>,
    counts: Counts,
    /// What was passed over.
    unreadable: Vec<Unreadable>,
    /// What could not be, where it ends therefore.
    until: Option<Unreadable>,
}

/// The batch that is looked at.
struct Current {
    header: BatchHeader,
    batch: Bytes,
    records: Opened,
    matching: Vec<Record>,
    /// Every record so far matches.
    all: bool,
}

impl Filtering {
    /// Goes on for a portion; whether all is done.
    fn portion(&mut self, portion: Portion) -> Result<bool, BatchError> {
        loop {
            let Some(current) = &mut self.current else {
                if self.until.is_some() {
                    return Ok(true);
                }
                let Some(batch) = self.batches.next() else { return Ok(true) };
                let (header, batch) = batch?;
                if !header.is_control() {
                    let (records, all) = (Opened::new(batch.clone(), self.from), header.base_offset >= self.from);
                    self.current = Some(Current { header, batch, records, matching: Vec::new(), all });
                }
                continue;
            };
            match current.records.next() {
                Some(Ok(record)) => {
                    if self.counts.ask(&self.filter, &self.topic, self.partition, &record) {
                        current.matching.push(record);
                    } else {
                        current.all = false;
                    }
                }
                Some(Err(fault)) => {
                    current.all = false;
                    match self.skip {
                        true => self.unreadable.push(fault),
                        false => self.until = Some(fault),
                    }
                }
                None => {
                    let left = self.current.take().and_then(Current::left);
                    self.out.extend(left);
                }
            }
            if portion.is_over() {
                return Ok(false);
            }
        }
    }
}

impl Current {
    fn left(self) -> Option<Bytes> {
        let Self { header, batch, matching, all, .. } = self;
        let first = matching.first()?;
        if all {
            return Some(batch);
        }
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
