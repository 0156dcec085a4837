//! Dead letters: records that failed too often, or that nobody was given in time, go to a topic of their own, once each.
//!
//! Before some are written, the ends of the dead-letter topic's partitions are kept with the group's position (the
//! *intent*); it is cleared when it is kept that they are done with. What a crash cut off in between is found behind these
//! ends, before anything else of the partition is handed out.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::{ErrorKind, Offset, PartitionId, TopicName, limits};
use crate::record::{BatchBuilder, BatchOptions, Header, Record, partition_for_key};

use super::super::broker::lock;
use super::super::requests::RESPONDERS;
use super::super::{AckLevel, Broker, BrokerError, Isolation, NewTopic};
use super::dispatch::{Dispatcher, PAUSE, READ_BYTES};
use super::graves::{headers, place};
use super::machine::{BURIAL, CONDEMNED, Due};

/// What the headers of a dead letter add to it, at most, in round numbers.
const HEADER_BYTES: usize = 64 * 1024;
/// Records that are written as dead letters with one intent, and their bytes.
const AT_ONCE: usize = 500;
const AT_ONCE_BYTES: usize = 4 * 1024 * 1024;

/// Where dead letters may have been written that the group does not know of yet.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    topic: TopicName,
    /// The end of each partition.
    ends: Vec<(PartitionId, Offset)>,
}

/// A record that is leased to be buried, and how often it failed.
type Dead = (Record, u32);

impl Dispatcher {
    /// Writes records that are due as dead letters, and is done with them when they are there.
    pub(super) async fn bury(&mut self, mut due: Due) -> Result<(), BrokerError> {
        let topic = self.dead_letter_topic().await?;
        self.intend(&topic)?;
        self.broker.queues.keeper.kept().await?;
        let mut dead: Vec<Dead> = Vec::new();
        let mut bytes = 0;
        // As many as are due: each round costs two syncs.
        while due.dead && dead.len() < AT_ONCE && bytes < AT_ONCE_BYTES {
            let Some((records, next)) = self.window(due.from).await? else { break };
            let due_now = Due { to: due.to.min(next.max(due.from + 1)).min(due.from + AT_ONCE as u64), ..due };
            let inside = records.iter().filter(|record| (due_now.from..due_now.to).contains(&record.offset));
            let inside: Vec<Record> = inside.cloned().collect();
            let there: Vec<Offset> = inside.iter().map(|record| record.offset).collect();
            let leased = self.with(|machine, now| machine.lease_due(due_now, &there, BURIAL, now));
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
        let outcome = self.write_dead(&topic, dead, &mut there).await;
        there.sort_unstable();
        for (record, failed) in requests.iter().filter(|(record, _)| there.binary_search(&record.offset).is_ok()) {
            self.tell_requester(record, &format!("given up after {failed} deliveries")).await;
        }
        self.broker.metrics.dead_letters.inc_by(there.len() as u64);
        let pause = Some(PAUSE.as_millis() as u64);
        self.with(|machine, now| {
            for at in all {
                match there.binary_search(&at) {
                    Ok(_) => drop(machine.ack(BURIAL, at, at + 1, now)),
                    Err(_) => drop(machine.nack(BURIAL, (at, at + 1), pause, now)),
                }
            }
        });
        if outcome.is_err() {
            // What was under way may be there all the same.
            self.to_recover = true;
            return outcome;
        }
        self.fulfilled();
        self.broker.queues.keeper.kept().await
    }

    /// Whether it is a request, and this the group of those who are to answer it.
    fn is_request(&self, record: &Record) -> bool {
        let topic = self.partition.topic.as_str();
        self.group.name.as_str().strip_prefix(RESPONDERS) == Some(topic) && Broker::expects_reply(record)
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
        Ok(topic)
    }

    /// Notes where dead letters may be from here on.
    fn intend(&self, topic: &TopicName) -> Result<(), BrokerError> {
        let open = self.broker.topic(topic.as_str())?;
        let mut ends = Vec::new();
        for partition in &open.partitions {
            ends.push((partition.number, partition.log()?.with(|log| log.stable_end())));
        }
        let intent = Intent { topic: topic.clone(), ends };
        *lock(&self.partition.intent) = serde_json::to_string(&intent).unwrap_or_default();
        self.with(|machine, _| machine.touch_floor());
        Ok(())
    }

    fn fulfilled(&self) {
        lock(&self.partition.intent).clear();
        self.with(|machine, _| machine.touch_floor());
    }

    /// Is done with what was written as dead letters before a crash or a failure cut it off.
    pub(super) async fn recover(&mut self) -> Result<(), BrokerError> {
        let intent = lock(&self.partition.intent).clone();
        if !intent.is_empty() {
            let intent: Intent = serde_json::from_str(&intent).map_err(|error| {
                let (topic, number) = (&self.partition.topic, self.partition.place.partition);
                let message = format!("where dead letters of {topic}/{number} were written is unknown: {error}");
                BrokerError::new(ErrorKind::Damaged, message)
            })?;
            let mut found = 0u64;
            for (number, from) in &intent.ends {
                // A topic that was deleted meanwhile holds none.
                let Ok(open) = self.broker.topic(intent.topic.as_str()) else { break };
                let end = open.partition(*number)?.log()?.with(|log| log.stable_end());
                let mut at = *from;
                while at < end {
                    let (records, next) = self
                        .broker
                        .records_from(intent.topic.as_str(), *number, at, READ_BYTES, Isolation::Uncommitted)
                        .await?;
                    at = next;
                    let own = (self.partition.place.topic, self.partition.place.partition);
                    for record in &records {
                        if let Some(((topic, partition, offset), group)) = place(record)
                            && (topic, partition) == own
                            && group == self.group.name.as_str()
                        {
                            found += 1;
                            if self.is_request(record) {
                                self.tell_requester(record, "given up").await;
                            }
                            self.with(|machine, now| machine.mark_done(offset, now));
                        }
                    }
                }
            }
            if found > 0 {
                tracing::info!(group = %self.group.name, topic = %self.partition.topic, found, "dead letters had been written before a stop");
            }
            self.fulfilled();
            self.broker.queues.keeper.kept().await?;
        }
        self.to_recover = false;
        Ok(())
    }

    /// Adds to `there` which of them are in the topic, also when it fails.
    async fn write_dead(&self, topic: &TopicName, dead: Vec<Dead>, there: &mut Vec<Offset>) -> Result<(), BrokerError> {
        let partitions = self.broker.topic(topic.as_str())?.entry.partitions;
        let (id, number) = (self.partition.place.topic, self.partition.place.partition);
        let mut batches: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for (mut record, failed) in dead {
            let offset = record.offset;
            let reason = self.partition.reason(offset);
            let (attempts, reason) = match (failed, reason) {
                (CONDEMNED, _) => (0, "it expired before it was delivered".to_owned()),
                (failed, Some(reason)) => (failed, reason),
                (failed, None) => (failed, "it was not acked in time".to_owned()),
            };
            record.headers.retain(|header| !headers::ALL.iter().any(|name| header.name == name.as_bytes()));
            let source = format!("{}/{number}/{offset}", self.partition.topic);
            let values = [source, id.to_string(), attempts.to_string(), reason, self.group.name.to_string()];
            let header = |(name, value): (&&'static str, String)| Header {
                name: Bytes::from_static(name.as_bytes()),
                value: Some(value.into()),
            };
            record.headers.extend(headers::ALL.iter().zip(values).map(header));
            let to = record.key.as_ref().map_or(0, |key| partition_for_key(key, partitions));
            batches.entry(to).or_default().push(record);
        }
        for (to, mut records) in batches {
            // Each in a batch of its own unless they are small: together they have to fit.
            while !records.is_empty() {
                let mut bytes = 0;
                let fit = records.iter().take_while(|record| {
                    bytes += record.weight();
                    bytes <= READ_BYTES
                });
                let fit = fit.count().max(1);
                let mut builder = BatchBuilder::new(BatchOptions::default());
                let mut written = Vec::new();
                for (at, mut record) in records.drain(..fit).enumerate() {
                    written.push(record.offset);
                    record.offset = at as u64;
                    builder.push_record(&record);
                }
                self.broker.produce(topic.as_str(), to, builder.build(), AckLevel::Durable).await?;
                if let Some(graves) = self.group.graves.lock().await.as_mut() {
                    written.iter().for_each(|offset| graves.add((id, number, *offset)));
                }
                there.extend(written);
            }
        }
        Ok(())
    }
}
