//! Dead letters on their way back to where they came from, once each.
//!
//! What was sent back is kept as the progress of an internal group of the dead-letter topic. Before a batch is written, the
//! position of that group is kept with the ends of the partitions that it goes to; a batch that a crash cut off from its
//! progress is found there by the header [`REDRIVEN`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicId, TopicName};
use crate::catalog::{Event, GroupEntry, GroupKind, Place, Position, QueueSettings};
use crate::expr::{Filter, Input};
use crate::record::{BatchBuilder, BatchOptions, Header, Record, partition_for_key};

use super::super::broker::{blocking, lock};
use super::super::{AckLevel, Broker, BrokerError, Isolation};
use super::graves::{headers, text};
use super::keeper::event_of;
use super::machine::{Machine, Seen};

/// The header that says which dead letter a record was: topic/partition/offset.
pub(crate) const REDRIVEN: &str = "tidelog-redriven";
/// Records sent back with one commit.
const AT_ONCE: usize = 500;
/// Bytes read at a time.
const READ_BYTES: usize = 512 * 1024;
/// Records that are looked at before an answer, whether they are to go back or not.
const LOOKED_AT: usize = 100_000;
/// Whoever sends back: nobody else shares the work.
const MEMBER: u64 = 1;

/// Which dead letters are to go back.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// The dead-letter topic.
    pub topic: TopicName,
    /// Only those for which this CEL expression is true.
    pub filter: Option<String>,
    /// So many at most.
    pub max: usize,
    /// Only say which.
    pub dry_run: bool,
    /// Where to begin to look: what an answer said; partition and offset.
    pub from: Option<(PartitionId, Offset)>,
}

/// What went back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Those that went back, or would: partition and offset in the dead-letter topic.
    pub records: Vec<(PartitionId, Offset)>,
    /// Those that cannot go back, because the topic they came from is gone or they do not say which it was.
    pub stranded: u64,
    /// Where to look for more; `None` at the end.
    pub next: Option<(PartitionId, Offset)>,
}

/// A topic with dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterTopic {
    /// The topic.
    pub topic: TopicName,
    /// The queue groups whose dead letters go there.
    pub groups: Vec<GroupName>,
    /// Dead letters in it.
    pub records: u64,
    /// Those of them that went back.
    pub redriven: u64,
}

/// What is kept before a batch is written: the ends of the partitions that it goes to.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Intent(Vec<(TopicName, PartitionId, Offset)>);

/// A partition of the dead-letter topic.
struct Part {
    place: Place,
    machine: Machine,
    end: Offset,
}

/// A dead letter that goes back.
struct Back {
    from: (PartitionId, Offset),
    to: (TopicName, PartitionId),
    record: Record,
}

impl Broker {
    /// The topics with dead letters of queue groups, and those whose name begins with `dead-letter.`.
    pub fn dead_letter_topics(&self) -> Vec<DeadLetterTopic> {
        let mut groups: HashMap<TopicName, Vec<GroupName>> = HashMap::new();
        for entry in self.list_groups() {
            if let GroupKind::Queue(rules) = &entry.kind
                && let Ok(topic) = super::group::dead_letters(&entry.name, rules)
            {
                groups.entry(topic).or_default().push(entry.name);
            }
        }
        let mut found = Vec::new();
        for topic in self.list_topics() {
            let of = groups.remove(&topic.name).unwrap_or_default();
            if of.is_empty() && !topic.name.as_str().starts_with("dead-letter.") {
                continue;
            }
            let Ok(open) = self.topic(topic.name.as_str()) else { continue };
            let group = group_of(&topic.name).ok();
            let (mut records, mut redriven) = (0, 0);
            for partition in &open.partitions {
                let Ok(log) = partition.log() else { continue };
                let (start, end) = log.with(|log| (log.start_offset(), log.committed_end()));
                records += end - start;
                let Some(group) = &group else { continue };
                let catalog = lock(&self.catalog);
                let progress = catalog.progress(group, (topic.id, partition.number));
                let machine = Machine::new(QueueSettings::default(), progress, 0);
                drop(catalog);
                redriven += machine.floor().max(start) - start + machine.known_done_below(end);
            }
            found.push(DeadLetterTopic { topic: topic.name, groups: of, records, redriven });
        }
        found
    }

    /// Sends dead letters back to the topics that they came from, once each, also when the server dies meanwhile.
    ///
    /// # Errors
    /// There is no such topic, a filter that is none, the disk's. Those before it went back.
    pub async fn redrive(self: &Arc<Self>, redrive: &Redrive) -> Result<Redriven, BrokerError> {
        let filter = redrive.filter.as_deref().map(Filter::compile).transpose();
        let filter = filter.map_err(|error| super::refused(error.to_string()))?;
        let _one = self.queues.redriving.lock().await;
        let topic = self.topic(redrive.topic.as_str())?;
        let (id, partitions) = (topic.entry.id, topic.entry.partitions);
        let group = group_of(&redrive.topic)?;
        self.recover(&redrive.topic, id, partitions, &group).await?;
        let mut result = Redriven::default();
        let (first, mut from) = redrive.from.unwrap_or((0, 0));
        let mut looked_at = 0;
        for number in first..partitions {
            let mut part = self.part(&redrive.topic, id, number, &group)?;
            let mut at = std::mem::take(&mut from).max(part.machine.floor());
            while at < part.end {
                let (records, next) =
                    self.records_from(redrive.topic.as_str(), number, at, READ_BYTES, Isolation::Committed).await?;
                let mut batch = Vec::new();
                at = next;
                for record in records {
                    looked_at += 1;
                    if result.records.len() + batch.len() >= redrive.max || batch.len() >= AT_ONCE {
                        at = record.offset;
                        break;
                    }
                    let input = Input {
                        topic: redrive.topic.as_str(),
                        partition: number,
                        offset: record.offset,
                        record: &record,
                    };
                    let wanted = filter.as_ref().is_none_or(|filter| filter.matches(&input).unwrap_or(false));
                    if part.machine.is_done(record.offset) || !wanted {
                        continue;
                    }
                    match self.way_back(&redrive.topic, number, record) {
                        Some(back) => batch.push(back),
                        None => result.stranded += 1,
                    }
                }
                result.records.extend(batch.iter().map(|back| back.from));
                if !redrive.dry_run && !batch.is_empty() {
                    self.send_back(&mut part, &group, batch).await?;
                }
                if result.records.len() >= redrive.max || looked_at >= LOOKED_AT {
                    result.next = Some((number, at));
                    return Ok(result);
                }
            }
        }
        Ok(result)
    }

    fn part(
        &self,
        topic: &TopicName,
        id: TopicId,
        number: PartitionId,
        group: &GroupName,
    ) -> Result<Part, BrokerError> {
        let (start, end) =
            self.topic(topic.as_str())?.partition(number)?.log()?.with(|log| (log.start_offset(), log.committed_end()));
        let mut machine = Machine::new(QueueSettings::default(), lock(&self.catalog).progress(group, (id, number)), 0);
        machine.forget_below(start, 0);
        let place = Place { group: group.clone(), topic: id, partition: number };
        Ok(Part { place, machine, end })
    }

    /// Where a dead letter goes, and as what.
    fn way_back(&self, dead: &TopicName, number: PartitionId, mut record: Record) -> Option<Back> {
        let mut source = text(&record, headers::SOURCE)?.rsplitn(3, '/').skip(1);
        let (partition, topic) = (source.next()?.parse::<PartitionId>().ok()?, TopicName::new(source.next()?).ok()?);
        let partitions = self.topic(topic.as_str()).ok()?.entry.partitions;
        let to = match &record.key {
            Some(key) => partition_for_key(key, partitions),
            None => partition.min(partitions - 1),
        };
        let from = (number, record.offset);
        let own = |name: &[u8]| name == REDRIVEN.as_bytes() || headers::ALL.iter().any(|own| name == own.as_bytes());
        record.headers.retain(|header| !own(&header.name));
        let value = format!("{dead}/{number}/{}", record.offset);
        record.headers.push(Header { name: Bytes::from_static(REDRIVEN.as_bytes()), value: Some(value.into()) });
        record.timestamp = self.clock.now_ms();
        Some(Back { from, to: (topic, to), record })
    }

    /// Intent, records, progress: in this order, each durable before the next.
    async fn send_back(
        self: &Arc<Self>,
        part: &mut Part,
        group: &GroupName,
        batch: Vec<Back>,
    ) -> Result<(), BrokerError> {
        let mut intent = Intent::default();
        let mut by_place: BTreeMap<(TopicName, PartitionId), Vec<Record>> = BTreeMap::new();
        let done: Vec<Offset> = batch.iter().map(|back| back.from.1).collect();
        for back in batch {
            by_place.entry(back.to).or_default().push(back.record);
        }
        for (topic, partition) in by_place.keys() {
            // Readers see no further, and what is written from now on lies behind it.
            let end = self.topic(topic.as_str())?.partition(*partition)?.log()?.with(|log| log.stable_end());
            intent.0.push((topic.clone(), *partition, end));
        }
        self.keep_intent(part.place.topic, group, &intent).await?;
        for ((topic, partition), mut records) in by_place {
            let largest = self.topic(topic.as_str())?.settings.max_message_bytes.as_usize();
            while !records.is_empty() {
                let mut bytes = 0;
                let fit = records.iter().take_while(|record| {
                    bytes += record.weight();
                    bytes <= READ_BYTES.min(largest / 2)
                });
                let fit = fit.count().max(1);
                let mut builder = BatchBuilder::new(BatchOptions::default());
                for (at, mut record) in records.drain(..fit).enumerate() {
                    record.offset = at as u64;
                    builder.push_record(&record);
                }
                self.produce(topic.as_str(), partition, builder.build(), AckLevel::Durable).await?;
            }
        }
        self.keep_done(part, group, &done).await
    }

    /// The group's position in the first partition carries the intent; with it comes the group itself.
    async fn keep_intent(
        self: &Arc<Self>,
        topic: TopicId,
        group: &GroupName,
        intent: &Intent,
    ) -> Result<(), BrokerError> {
        let metadata =
            if intent.0.is_empty() { String::new() } else { serde_json::to_string(intent).unwrap_or_default() };
        let (broker, group) = (Arc::clone(self), group.clone());
        blocking(move || {
            let now = broker.clock.now_ms();
            let mut catalog = lock(&broker.catalog);
            let mut events = Vec::new();
            if catalog.group(&group).is_none() {
                let kind = GroupKind::Queue(QueueSettings::default());
                let entry = GroupEntry { name: group.clone(), kind, topics: Vec::new(), filter: None, created_ms: now };
                events.push(Event::GroupDeclared(entry));
            }
            let offset = position(&catalog, &group, topic).map_or(0, |position| position.offset);
            let place = Place { group, topic, partition: 0 };
            events.push(Event::PositionSet { place, position: Some(Position { offset, metadata, time_ms: now }) });
            Ok(catalog.commit_all(events, now)?)
        })
        .await
    }

    /// These went back; the intent is fulfilled.
    async fn keep_done(
        self: &Arc<Self>,
        part: &mut Part,
        group: &GroupName,
        done: &[Offset],
    ) -> Result<(), BrokerError> {
        let Some(last) = done.last() else { return Ok(()) };
        for offset in part.machine.cursor()..=*last {
            part.machine.admit(Seen { offset, key: None, deliver_at: None, skip: false, condemned: false }, MEMBER, 0);
        }
        for &offset in done {
            part.machine.ack(MEMBER, offset, offset + 1, 0);
        }
        let now = self.clock.now_ms();
        let changes = part.machine.take_changes(now);
        let mut events: Vec<Event> = changes.iter().map(|change| event_of(&part.place, change, "", now)).collect();
        let (broker, group, topic) = (Arc::clone(self), group.clone(), part.place.topic);
        let first = part.place.partition == 0;
        blocking(move || {
            let mut catalog = lock(&broker.catalog);
            let floor = events.iter().find_map(|event| match event {
                Event::PositionSet { position: Some(position), .. } if first => Some(position.offset),
                _ => None,
            });
            let offset = floor.or_else(|| position(&catalog, &group, topic).map(|position| position.offset));
            let place = Place { group, topic, partition: 0 };
            let cleared = Position { offset: offset.unwrap_or(0), metadata: String::new(), time_ms: now };
            // Last: a crash in between leaves the intent, which is looked into again.
            events.push(Event::PositionSet { place, position: Some(cleared) });
            Ok(catalog.commit_all(events, now)?)
        })
        .await
    }

    /// A batch may have been written whose progress was not kept: it is looked for where it was to go.
    async fn recover(
        self: &Arc<Self>,
        topic: &TopicName,
        id: TopicId,
        partitions: u32,
        group: &GroupName,
    ) -> Result<(), BrokerError> {
        let metadata = position(&lock(&self.catalog), group, id).map(|position| position.metadata.clone());
        let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty()) else { return Ok(()) };
        let intent: Intent = serde_json::from_str(&metadata).map_err(|error| {
            BrokerError::new(ErrorKind::Damaged, format!("what was being sent back from '{topic}' is unknown: {error}"))
        })?;
        let prefix = format!("{topic}/");
        let mut there: HashMap<PartitionId, HashSet<Offset>> = HashMap::new();
        for (target, partition, from) in &intent.0 {
            // A topic that is gone holds nothing.
            let Ok(found) = self.topic(target.as_str()) else { continue };
            let end = found.partition(*partition)?.log()?.with(|log| log.stable_end());
            let mut at = *from;
            while at < end {
                let (records, next) =
                    self.records_from(target.as_str(), *partition, at, READ_BYTES, Isolation::Uncommitted).await?;
                at = next;
                for record in &records {
                    let source = text(record, REDRIVEN).and_then(|source| source.strip_prefix(&prefix));
                    if let Some((partition, offset)) = source.and_then(|source| source.split_once('/'))
                        && let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse())
                    {
                        there.entry(partition).or_default().insert(offset);
                    }
                }
            }
        }
        for (number, offsets) in there {
            if number < partitions {
                let mut part = self.part(topic, id, number, group)?;
                let mut offsets: Vec<Offset> =
                    offsets.into_iter().filter(|offset| !part.machine.is_done(*offset) && *offset < part.end).collect();
                offsets.sort_unstable();
                tracing::info!(%topic, partition = number, records = offsets.len(), "dead letters had been sent back before a stop");
                self.keep_done(&mut part, group, &offsets).await?;
            }
        }
        self.keep_intent(id, group, &Intent::default()).await
    }
}

fn position<'a>(catalog: &'a crate::catalog::Catalog, group: &GroupName, topic: TopicId) -> Option<&'a Position> {
    catalog.progress(group, (topic, 0))?.position.as_ref()
}

/// The internal group whose progress is what went back.
fn group_of(topic: &TopicName) -> Result<GroupName, BrokerError> {
    GroupName::new(&format!("tidelog.redrive.{topic}")).map_err(|error| super::refused(error.to_string()))
}
