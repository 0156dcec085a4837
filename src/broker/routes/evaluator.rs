//! The part of a route's work that computes: from records read to records to be written, with the topics that they go to there.
//! It blocks, so it runs on the blocking pool.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs, TopicName, limits};
use crate::catalog::RouteCounts;
use crate::expr::Input;
use crate::record::{Headers, Record, partition_for_key};
use crate::route::{Aggregate, Effect, Failure, Output, Route, Routed, Rule};

use super::super::cut;
use super::super::opened::{Opened, Unreadable};
use super::super::partition::Topic;
use super::super::{Broker, BrokerError};
use super::active::ActiveRoute;
use super::mark::Mark;

/// Outputs after which a portion is full.
const PORTION_OUTPUTS: usize = 20_000;
/// Bytes of outputs after which a portion is full.
const PORTION_BYTES: usize = 4 * 1024 * 1024;
/// Time after which a portion is full, so that routes take turns.
const PORTION_TIME: Duration = Duration::from_millis(20);
/// Times that a portion may take what opening its batches took, at the least.
const OPENING_TIMES: u32 = 4;
/// What a record needs in a batch beside its own bytes, at most.
const RECORD_ROOM: usize = 128;

/// Headers that an output may have, and their bytes: those of a record as it is accepted, and the server's own.
const HEADERS: usize = limits::RECORD_HEADERS + limits::OWN_HEADERS;
const HEADER_BYTES: usize = limits::RECORD_HEADER_BYTES + limits::OWN_HEADER_BYTES;

/// A record that is to be written, and where.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) mark: Mark,
    pub(super) partition: PartitionId,
    pub(super) output: Output,
}

/// What was made of some records.
#[derive(Debug)]
pub(super) struct Portion {
    /// In the order of the marks.
    pub(super) made: Vec<Made>,
    /// The next record that is not in it.
    pub(super) next: Offset,
    /// Parts that wait when this is done.
    pub(super) open: Vec<(Offset, TimestampMs)>,
    /// What was done, in all.
    pub(super) counts: RouteCounts,
    /// What between its records cannot be read.
    pub(super) unreadable: Vec<Unreadable>,
    /// Why it ends before what was read does.
    pub(super) stopped: Option<BrokerError>,
    /// How often topics had been made larger when it was evaluated.
    pub(super) epoch: u64,
}

impl Portion {
    fn new(broker: &Broker, from: Offset) -> Self {
        let epoch = broker.routes.epoch();
        let (made, open, unreadable) = (Vec::new(), Vec::new(), Vec::new());
        Self { made, next: from, open, unreadable, counts: RouteCounts::default(), stopped: None, epoch }
    }
}

/// A route at work on a partition.
pub(super) struct Evaluator {
    pub(super) broker: Arc<Broker>,
    pub(super) active: Arc<ActiveRoute>,
    pub(super) route: Arc<Route>,
    pub(super) topic: TopicName,
    pub(super) partition: PartitionId,
    pub(super) aggregate: Option<Aggregate>,
    pub(super) counts: RouteCounts,
}

impl Evaluator {
    /// Routes the records of these batches within these offsets, as many as make a portion.
    ///
    /// # Errors
    /// None today; what cannot be read is a dead letter.
    pub(super) fn portion(
        &mut self,
        batches: Bytes,
        within: Range<Offset>,
        end: Offset,
    ) -> Result<Portion, BrokerError> {
        let mut portion = Portion::new(&self.broker, within.start);
        let mut bytes = 0;
        let mut full = false;
        // What is behind a portion is opened again for the next one, so a portion takes longer than opening does.
        let mut time = PORTION_TIME;
        let began = Instant::now();
        // For this portion only: a topic that gets more partitions meanwhile makes it void.
        let mut known = None;
        let mut opened = Opened::new(batches, within.start);
        loop {
            let opening = Instant::now();
            let Some(record) = opened.next() else { break };
            time += opening.elapsed() * OPENING_TIMES;
            let at = record.as_ref().map_or_else(|unreadable| unreadable.from, |record| record.offset);
            let late = portion.next > within.start && began.elapsed() >= time;
            let is_full = late || portion.made.len() >= PORTION_OUTPUTS || bytes >= PORTION_BYTES;
            if is_full || at >= within.end {
                full = true;
                break;
            }
            let before = portion.made.len();
            let (next, done) = match &record {
                Ok(record) => (record.offset + 1, self.one(record, &mut portion, &mut known)),
                Err(unreadable) => (unreadable.to, self.unreadable(unreadable, &mut portion, &mut known)),
            };
            if let Err(error) = done {
                if let (Some(aggregate), Ok(record)) = (&mut self.aggregate, &record) {
                    aggregate.take_back(record.offset);
                }
                portion.made.truncate(before);
                portion.stopped = Some(error);
                break;
            }
            bytes += portion.made.iter().skip(before).map(|made| made.output.weight()).sum::<usize>();
            portion.next = next;
            portion.unreadable.extend(record.err());
        }
        if portion.stopped.is_none() && !full {
            portion.next = portion.next.max(end);
        }
        self.finish(&mut portion);
        Ok(portion)
    }

    /// What becomes of parts that have waited too long; they come in order of their offsets, with the reason.
    pub(super) fn late(
        &mut self,
        parts: &[(Record, Failure)],
        at: Offset,
        first_output: u64,
    ) -> Result<Portion, BrokerError> {
        let mut portion = Portion::new(&self.broker, at);
        let offset = at.saturating_sub(1);
        for (number, (record, failure)) in parts.iter().enumerate() {
            let input = self.input(record);
            let refused = self.route.refuse(&input, failure.clone());
            // The tap had them when they came.
            let dead = refused.outputs.into_iter().find(|output| output.rule == Rule::DeadLetter);
            if let Some(mut output) = dead {
                let output_number = first_output + number as u64;
                // Where it stands in the order of writing is not where it was made of.
                replace(&mut output, crate::route::OUTPUT, format!("{offset}.{output_number}"));
                let partition = self.partition_of(&output, self.destination(&output)?.entry.partitions);
                self.counts.failed += 1;
                portion.made.push(Made { mark: Mark { offset, output: output_number }, partition, output });
            }
        }
        self.finish(&mut portion);
        Ok(portion)
    }

    fn finish(&self, portion: &mut Portion) {
        portion.counts = self.counts.clone();
        if let Some(aggregate) = &self.aggregate {
            portion.open = aggregate.open().iter().map(|open| (open.offset, open.since_ms)).collect();
        }
    }

    fn input<'a>(&'a self, record: &'a Record) -> Input<'a> {
        Input { topic: self.topic.as_str(), partition: self.partition, offset: record.offset, record }
    }

    fn one(
        &mut self,
        record: &Record,
        portion: &mut Portion,
        known: &mut Option<Arc<Topic>>,
    ) -> Result<(), BrokerError> {
        let (now, steps) = self.broker.clock.now_and_steps();
        let added = self.aggregate.as_mut().map(|aggregate| {
            aggregate.follow(steps);
            aggregate.add(record, now)
        });
        let routed = match added {
            None => self.route.route(&self.input(record)),
            Some(Effect::Complete(whole)) => self.route.route(&self.input(&whole)),
            Some(Effect::Refused(failure)) => self.route.refuse(&self.input(record), failure),
            Some(Effect::Waiting) => {
                self.counts.read += 1;
                return Ok(());
            }
        };
        let made = match self.places(&routed, known)? {
            Ok(partitions) => (routed, partitions),
            // It is refused as a whole, before anything of it is written.
            Err(failure) => {
                let refused = self.route.refuse(&self.input(record), failure);
                let refused = self.cut(refused);
                match self.places(&refused, known)? {
                    Ok(partitions) => (refused, partitions),
                    Err(failure) => return Err(BrokerError::new(ErrorKind::TooLarge, failure.message)),
                }
            }
        };
        let (routed, partitions) = made;
        self.count(&routed);
        for (number, (output, partition)) in routed.outputs.into_iter().zip(partitions).enumerate() {
            let mark = Mark { offset: record.offset, output: number as u64 };
            portion.made.push(Made { mark, partition, output });
        }
        Ok(())
    }

    /// What cannot be read is one dead letter without key, value and headers, at the first of its offsets.
    fn unreadable(
        &mut self,
        of: &Unreadable,
        portion: &mut Portion,
        known: &mut Option<Arc<Topic>>,
    ) -> Result<(), BrokerError> {
        let timestamp = self.broker.clock.stamp_ms();
        let record = Record { offset: of.from, timestamp, key: None, value: None, headers: Headers::new() };
        let mut refused = self.route.refuse(&self.input(&record), Failure::new("read", of.to_string()));
        refused.outputs.retain(|output| output.rule == Rule::DeadLetter);
        let partitions = match self.places(&refused, known)? {
            Ok(partitions) => partitions,
            Err(failure) => return Err(BrokerError::new(ErrorKind::TooLarge, failure.message)),
        };
        self.count(&refused);
        for (number, (output, partition)) in refused.outputs.into_iter().zip(partitions).enumerate() {
            let mark = Mark { offset: of.from, output: number as u64 };
            portion.made.push(Made { mark, partition, output });
        }
        Ok(())
    }

    fn count(&mut self, routed: &Routed) {
        let counts = &mut self.counts;
        counts.read += 1;
        counts.unwanted += routed.unwanted as u64;
        counts.failed += u64::from(routed.failure.is_some());
        let destinations = self.route.spec().to.len();
        counts.by_rule.resize(destinations + 2, 0);
        for output in &routed.outputs {
            let at = match output.rule {
                Rule::To(at) => at,
                Rule::Otherwise => destinations,
                Rule::Tap => destinations + 1,
                Rule::DeadLetter => continue,
            };
            if let Some(count) = counts.by_rule.get_mut(at) {
                *count += 1;
            }
        }
    }

    /// A dead letter that is too large for its topic goes there without its value.
    fn cut(&self, mut routed: Routed) -> Routed {
        for output in &mut routed.outputs {
            let most = self.broker.topic_of(&output.topic).map(|topic| topic.settings.max_message_bytes.as_usize());
            // What is estimated of an output is more than it has.
            let most = most.unwrap_or(limits::DEFAULT_BATCH_BYTES).saturating_sub(RECORD_ROOM);
            let headers = std::mem::take(&mut output.headers);
            let (key, value) = (output.key.take(), output.value.take());
            let mut record = Record { offset: 0, timestamp: output.timestamp, key, value, headers };
            cut::to_fit(&mut record, most, |name| name.starts_with(b"tidelog-"));
            (output.key, output.value, output.headers) = (record.key, record.value, record.headers);
        }
        routed
    }

    /// The partitions to which a record's outputs go, the topics made if need be; or why it is a dead letter instead.
    fn places(
        &self,
        routed: &Routed,
        known: &mut Option<Arc<Topic>>,
    ) -> Result<Result<Vec<PartitionId>, Failure>, BrokerError> {
        let mut partitions = Vec::with_capacity(routed.outputs.len());
        for output in &routed.outputs {
            // Most records go where the one before went.
            let same = known.take().filter(|topic| topic.entry.name == output.topic);
            let topic = match same {
                Some(topic) => topic,
                None => {
                    if output.computed
                        && let Err(limit) = self.active.may_make(&self.broker, &output.topic, self.route.spec())?
                    {
                        return Ok(Err(Failure::new(self.route.name_of(output.rule), limit)));
                    }
                    self.destination(output)?
                }
            };
            let (size, most) = (output.weight() + RECORD_ROOM, topic.settings.max_message_bytes.as_usize());
            let (headers, header_bytes) = (output.headers.len(), output.header_bytes());
            let message = if size > most {
                Some(format!("a record of {size} bytes; topic '{}' takes up to {most}", output.topic))
            } else if headers > HEADERS {
                Some(format!("a record of {headers} headers; the limit is {HEADERS}"))
            } else if header_bytes > HEADER_BYTES {
                Some(format!("a record with {header_bytes} bytes of headers; the limit is {HEADER_BYTES}"))
            } else {
                None
            };
            if let Some(message) = message {
                return Ok(Err(Failure::new(self.route.name_of(output.rule), message)));
            }
            partitions.push(self.partition_of(output, topic.entry.partitions));
            *known = Some(topic);
        }
        Ok(Ok(partitions))
    }

    /// The topic of an output, made if need be.
    fn destination(&self, output: &Output) -> Result<Arc<Topic>, BrokerError> {
        match self.broker.topic_of(&output.topic) {
            Ok(topic) => Ok(topic),
            Err(_) => self.active.make(&self.broker, &output.topic, self.route.spec()),
        }
    }

    /// By the key; without one, that of the source, so that its order stays.
    fn partition_of(&self, output: &Output, partitions: u32) -> PartitionId {
        match &output.key {
            Some(key) => partition_for_key(key, partitions),
            None => self.partition % partitions.max(1),
        }
    }
}

fn replace(output: &mut Output, name: &'static str, value: String) {
    output.headers.retain(|header| header.name != name.as_bytes());
    output.headers.push(name, Some(value.as_bytes()));
}
