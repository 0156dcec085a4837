//! Dead letters: records that failed too often, or that nobody was given in time, go to a topic of their own, once each.
//!
//! Before some are written, it is kept with the group's position from where on they will be found in the dead-letter topic's
//! partitions (the *intent*), which are held from there on ([`hold`](super::super::hold)); it is cleared when it is kept that
//! they are done with. What a crash cut off in between is found at the next start, what a failure did before anything else of
//! the partition is handed out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicName, limits};
use crate::catalog::Place;
use crate::record::{BatchBuilder, BatchOptions, Record, partition_for_key};

use super::super::broker::{blocking, lock};
use super::super::cut;
use super::super::hold::Hold;
use super::super::partition::Partition;
use super::super::requests::RESPONDERS;
use super::super::{Broker, BrokerError, NewTopic};
use super::dispatch::{DELIVER_AT, Dispatcher, EXPIRES_AT, PAUSE, READ_BYTES};
use super::graves::{headers, place};
use super::machine::{BURIAL, CONDEMNED, Due};

/// What the headers of a dead letter add to it, at most, in round numbers.
const HEADER_BYTES: usize = 64 * 1024;
/// Groups of which a record may have been a dead letter before.
const LONGEST_PATH: usize = 3;
/// Records that are written as dead letters with one intent, and their bytes.
const AT_ONCE: usize = 500;
const AT_ONCE_BYTES: usize = 4 * 1024 * 1024;

/// Where dead letters may have been written that the group does not know of yet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    topic: TopicName,
    /// From where on, in each partition.
    ends: Vec<(PartitionId, Offset)>,
}

impl Intent {
    /// The intent that was kept with a position, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(text: &str, topic: &TopicName, number: PartitionId) -> Result<Option<Self>, BrokerError> {
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(text).map(Some).map_err(|error| {
            let message = format!("where dead letters of {topic}/{number} were written is unknown: {error}");
            BrokerError::new(ErrorKind::Damaged, message)
        })
    }

    /// The partitions that it speaks of, and from where on. Those of a topic that is gone hold nothing.
    fn places(&self, broker: &Broker) -> Result<Vec<(Arc<Partition>, Offset)>, BrokerError> {
        let Ok(open) = broker.topic(self.topic.as_str()) else { return Ok(Vec::new()) };
        let place = |&(number, from): &(PartitionId, Offset)| Ok((Arc::clone(open.partition(number)?), from));
        self.ends.iter().map(place).collect()
    }

    /// Takes hold of what may have been written.
    ///
    /// # Errors
    /// A partition is offline.
    pub(super) fn hold(&self, broker: &Broker) -> Result<Vec<Hold>, BrokerError> {
        self.places(broker)?.iter().map(|(partition, from)| Hold::from(partition, *from)).collect()
    }

    /// The dead letters of a group's partition that have been written, each with the offset that it had there. Blocks.
    ///
    /// # Errors
    /// Those of [`Partition::search`].
    pub(super) fn search(&self, broker: &Broker, of: &Place) -> Result<Vec<(Offset, Record)>, BrokerError> {
        let mut found = Vec::new();
        for (partition, from) in self.places(broker)? {
            partition.search(from, |record| {
                if let Some(((topic, number, offset), group)) = place(record)
                    && (topic, number) == (of.topic, of.partition)
                    && group == of.group.as_str()
                {
                    found.push((offset, record.clone()));
                }
                false
            })?;
        }
        Ok(found)
    }
}

/// A record that is leased to be buried, and how often it failed.
type Dead = (Record, u32);

impl Dispatcher {
    /// Writes records that are due as dead letters, and is done with them when they are there. What cannot be written is put
    /// off, so that it holds nobody up.
    pub(super) async fn bury(&mut self, due: Due) -> Result<(), BrokerError> {
        let partition = Arc::clone(&self.partition);
        let mut holds = partition.burying.lock().await;
        if self.partition.is_closed() {
            return Ok(());
        }
        let outcome = self.bury_holding(due, &mut holds).await;
        if let Err(error) = &outcome {
            if error.kind() == ErrorKind::ShuttingDown {
                return outcome;
            }
            let number = self.partition.place.partition;
            tracing::warn!(group = %self.group.name, topic = %self.partition.topic, partition = number, %error, "dead letters cannot be written; trying again");
            self.with(|machine, now| machine.put_off(due, now + PAUSE.as_millis() as i64));
        }
        Ok(())
    }

    async fn bury_holding(&mut self, mut due: Due, holds: &mut Vec<Hold>) -> Result<(), BrokerError> {
        let topic = self.dead_letter_topic().await?;
        // Nothing is made of a record that a power cut may still take away: another one would have its offset then.
        self.broker.sync_written(self.partition.topic.as_str(), self.partition.place.partition).await?;
        let before = std::mem::take(holds);
        let intended = self.intend(&topic, holds);
        let kept = match intended {
            Ok(()) => self.broker.queues.keeper.kept().await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            // The intent on the disk may still be the one before.
            holds.extend(before);
            return Err(error);
        }
        drop(before);
        if self.partition.is_closed() {
            // It is not kept any more what becomes of it.
            return Ok(());
        }
        let partitions = holds.len() as u32;
        let mut dead: Vec<Dead> = Vec::new();
        let mut bytes = 0;
        // As many as are due: each round costs two syncs.
        while due.dead && dead.len() < AT_ONCE && bytes < AT_ONCE_BYTES {
            let (records, next) = match self.window(due.from).await {
                Ok(Some(window)) => window,
                // What is leased already is written first.
                Err(error) if dead.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            };
            let due_now = Due { to: due.to.min(next.max(due.from + 1)).min(due.from + AT_ONCE as u64), ..due };
            let inside = records.iter().filter(|record| (due_now.from..due_now.to).contains(&record.offset));
            let inside: Vec<Record> = inside.cloned().collect();
            let there: Vec<Offset> = inside.iter().map(|record| record.offset).collect();
            let leased = self.with(|machine, now| machine.lease_due(due_now, (&there, &[]), BURIAL, now));
            let leased = inside.into_iter().filter(|record| leased.binary_search(&record.offset).is_ok());
            for record in leased {
                bytes += record.weight();
                dead.push((record, due.failed));
            }
            let now = self.broker.clock.now_ms();
            match lock(&self.partition.machine).due(now) {
                Some(next) => due = next,
                None => break,
            }
        }
        let all: Vec<Offset> = dead.iter().map(|(record, _)| record.offset).collect();
        let requests: Vec<Dead> = dead.iter().filter(|(record, _)| self.is_request(record)).cloned().collect();
        let mut there = Vec::new();
        // Once it is open what was written, nothing more is before it is looked up.
        self.to_recover = true;
        let outcome = self.write_dead(&topic, partitions, dead, &mut there).await;
        there.sort_unstable();
        for (record, failed) in requests.iter().filter(|(record, _)| there.binary_search(&record.offset).is_ok()) {
            self.tell_requester(record, &format!("given up after {failed} deliveries")).await;
        }
        self.broker.metrics.dead_letters.inc_by(there.len() as u64);
        self.broker.pushes.buried(&self.group.name, there.len() as u64);
        let pause = Some(PAUSE.as_millis() as u64);
        self.with(|machine, now| {
            for at in all {
                match there.binary_search(&at) {
                    Ok(_) => drop(machine.ack(BURIAL, at, at + 1, now)),
                    Err(_) => drop(machine.nack(BURIAL, (at, at + 1), pause, now)),
                }
            }
        });
        outcome?;
        self.fulfilled();
        self.broker.queues.keeper.kept().await?;
        holds.clear();
        self.to_recover = false;
        Ok(())
    }

    /// Whether it is a request, and this the group of those who are to answer it.
    fn is_request(&self, record: &Record) -> bool {
        is_request(&self.group.name, &self.partition.topic, record)
    }

    /// The end of a request that became a dead letter. If it cannot be said, the request ends with its deadline.
    async fn tell_requester(&self, record: &Record, why: &str) {
        let reason = self.partition.reason(record.offset);
        let text = reason.map_or_else(|| why.to_owned(), |reason| format!("{why}: {reason}"));
        if let Err(error) = self.broker.request_undeliverable(record, text).await {
            tracing::warn!(topic = %self.partition.topic, offset = record.offset, %error, "a requester cannot be told");
        }
    }

    /// The dead-letter topic, made if need be.
    async fn dead_letter_topic(&self) -> Result<TopicName, BrokerError> {
        let topic = self.group.dead_letters()?;
        let source = self.broker.topic(self.partition.topic.as_str())?;
        // Whatever the source takes, with some headers more.
        let largest = source.settings.max_message_bytes.as_usize() + HEADER_BYTES;
        let largest = largest.min(limits::MAX_BATCH_BYTES).to_string();
        let segment = source.settings.segment_bytes.0.max(limits::MAX_BATCH_BYTES as u64).to_string();
        let settings = vec![("max_message_bytes".to_owned(), largest), ("segment_bytes".to_owned(), segment)];
        let new = NewTopic { name: topic.clone(), partitions: None, settings, if_not_exists: true };
        self.broker.create_topic(new).await?;
        super::refuse_compacted(&self.broker, &topic)?;
        Ok(topic)
    }

    /// Notes where dead letters may be from here on, and holds it.
    fn intend(&self, topic: &TopicName, holds: &mut Vec<Hold>) -> Result<(), BrokerError> {
        let open = self.broker.topic(topic.as_str())?;
        for partition in &open.partitions {
            holds.push(Hold::of(partition)?);
        }
        let ends = open.partitions.iter().zip(holds.iter());
        let ends = ends.map(|(partition, hold)| (partition.number, hold.offset())).collect();
        let intent = Intent { topic: topic.clone(), ends };
        *lock(&self.partition.intent) = serde_json::to_string(&intent).unwrap_or_default();
        self.with(|machine, _| machine.touch_floor());
        Ok(())
    }

    fn fulfilled(&self) {
        lock(&self.partition.intent).clear();
        self.with(|machine, _| machine.touch_floor());
    }

    /// Is done with what was written as dead letters before a failure cut it off, or before a start that could not find out.
    pub(super) async fn recover(&mut self) -> Result<(), BrokerError> {
        let partition = Arc::clone(&self.partition);
        let mut holds = partition.burying.lock().await;
        let intent = lock(&self.partition.intent).clone();
        let intent = Intent::read(&intent, &self.partition.topic, self.partition.place.partition)?;
        if intent.is_none() && holds.is_empty() {
            self.to_recover = false;
            return Ok(());
        }
        if let Some(intent) = intent {
            if holds.is_empty() {
                *holds = intent.hold(&self.broker)?;
            }
            let (broker, place) = (Arc::clone(&self.broker), self.partition.place.clone());
            let found = blocking(move || intent.search(&broker, &place)).await?;
            let (id, number) = (self.partition.place.topic, self.partition.place.partition);
            if let Some(graves) = self.group.graves.lock().await.as_mut() {
                found.iter().for_each(|(offset, _)| graves.add((id, number, *offset)));
            }
            for (offset, record) in &found {
                if self.is_request(record) {
                    self.tell_requester(record, "given up").await;
                }
                self.with(|machine, now| machine.mark_buried(*offset, now));
            }
            if !found.is_empty() {
                tracing::info!(group = %self.group.name, topic = %self.partition.topic, found = found.len(), "dead letters had been written before a failure");
            }
            self.fulfilled();
        }
        self.broker.queues.keeper.kept().await?;
        holds.clear();
        self.to_recover = false;
        Ok(())
    }

    /// Adds to `there` which of them are in the topic, also when it fails.
    async fn write_dead(
        &self,
        topic: &TopicName,
        partitions: u32,
        dead: Vec<Dead>,
        there: &mut Vec<Offset>,
    ) -> Result<(), BrokerError> {
        let (id, number) = (self.partition.place.topic, self.partition.place.partition);
        let most = self.broker.topic(topic.as_str())?.settings.max_message_bytes.as_usize();
        let mut batches: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for (mut record, failed) in dead {
            let offset = record.offset;
            let reason = self.partition.reason(offset);
            let (attempts, reason) = match (failed, reason) {
                _ if self.unfit.contains_key(&offset) => (0, self.unfit.get(&offset).cloned().unwrap_or_default()),
                (CONDEMNED, _) => (0, "it expired before it was delivered".to_owned()),
                (failed, Some(reason)) => (failed, cut::reason(reason)),
                (failed, None) => (failed, "it was not acked in time".to_owned()),
            };
            let group = self.group.name.as_str();
            let passed = record.headers.iter().filter(|header| header.name == headers::PATH.as_bytes());
            let path: Vec<Vec<u8>> = passed.filter_map(|header| header.value.map(<[u8]>::to_vec)).collect();
            // Only where it lies says that it is one: a producer may have written the same headers elsewhere.
            let last = path.last().and_then(|group| std::str::from_utf8(group).ok());
            let is_one = last.is_some_and(|last| self.broker.queues.buries_in(last, &self.partition.topic));
            let path = if is_one { path } else { Vec::new() };
            if path.len() >= LONGEST_PATH || path.iter().any(|before| before == group.as_bytes()) {
                // It would go round between groups that read each other's dead letters. It is in the topic already.
                tracing::warn!(group, topic = %self.partition.topic, partition = number, offset, "a dead letter of this group fails again: it is not written once more");
                there.push(offset);
                continue;
            }
            // It is kept for people from here on: what it says of its time holds no more.
            let expired = record.headers.get(EXPIRES_AT).map(<[u8]>::to_vec);
            record.headers.retain(|header| {
                let name = header.name;
                let times = [EXPIRES_AT, DELIVER_AT].iter().any(|time| name == time.as_bytes());
                let forged = !is_one && name == headers::PATH.as_bytes();
                !times && !forged && !headers::ALL.iter().any(|own| name == own.as_bytes())
            });
            record.headers.push(headers::PATH, Some(group.as_bytes()));
            if let Some(at) = &expired {
                record.headers.push(headers::EXPIRED_AT, Some(at));
            }
            let source = format!("{}/{number}/{offset}", self.partition.topic);
            let values = [source, id.to_string(), attempts.to_string(), reason, self.group.name.to_string()];
            record.headers.extend(headers::ALL.iter().zip(values).map(|(name, value)| (name, Some(value))));
            if let Some(why) = self.unfit.get(&offset)
                && record.value.is_none()
            {
                record.headers.push(cut::LEFT_OUT, Some(why.as_bytes()));
            }
            let to = record.key.as_ref().map_or(0, |key| partition_for_key(key, partitions));
            cut::to_fit(&mut record, most, |name| headers::ALL.iter().any(|own| name == own.as_bytes()));
            batches.entry(to).or_default().push(record);
        }
        for (to, mut records) in batches {
            // Each in a batch of its own unless they are small: together they have to fit.
            while !records.is_empty() {
                let mut bytes = 0;
                let fit = records.iter().take_while(|record| {
                    bytes += record.weight();
                    bytes <= READ_BYTES.min(most - limits::BATCH_HEADER_BYTES)
                });
                let fit = fit.count().max(1);
                let mut builder = BatchBuilder::new(BatchOptions::default());
                let mut written = Vec::new();
                for (at, mut record) in records.drain(..fit).enumerate() {
                    written.push(record.offset);
                    record.offset = at as u64;
                    builder.push_record(&record);
                }
                self.broker.produce_own(topic.as_str(), to, builder.build()).await?;
                if let Some(graves) = self.group.graves.lock().await.as_mut() {
                    written.iter().for_each(|offset| graves.add((id, number, *offset)));
                }
                there.extend(written);
            }
        }
        Ok(())
    }
}

/// Whether a record of a topic is a request, and this the group of those who are to answer it.
pub(super) fn is_request(group: &GroupName, topic: &TopicName, record: &Record) -> bool {
    group.as_str().strip_prefix(RESPONDERS) == Some(topic.as_str()) && Broker::expects_reply(record)
}
