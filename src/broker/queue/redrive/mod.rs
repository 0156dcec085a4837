//! Dead letters that somebody deals with: they go back to where they came from, once each, or to their group alone
//! ([`reopen`](super::reopen)), or are discarded.
//!
//! What was sent back is kept as the progress of an internal group of the dead-letter topic. Before a batch is written, it is
//! kept with the position of that group from where on the batch will be found in the partitions that it goes to, which are held
//! from there on ([`hold`](super::super::hold)); a batch that a crash or a failure cut off from its progress is found there by
//! the header [`REDRIVEN`].

mod unsettled;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TimestampMs, TopicId, TopicName};
use crate::catalog::{Catalog, Event, GroupEntry, GroupKind, KeptPosition, Place, Position, QueueSettings};
use crate::expr::Filter;
use crate::record::{BatchBuilder, BatchOptions, Record, partition_for_key};

use super::super::broker::{blocking, lock};
use super::super::cut::LEFT_OUT;
use super::super::hold::Hold;
use super::super::partition::Topic;
use super::super::records::Reading;
use super::super::task;
use super::super::work::WorkKey;
use super::super::{Broker, BrokerError, Isolation};
use super::graves::{headers, text};
use super::keeper::event_of;
use super::machine::{Machine, Seen};

/// The header that says which dead letter a record was: topic/partition/offset.
pub(crate) const REDRIVEN: &str = "tidelog-redriven";
/// What the names of the groups begin with whose progress is what went back; the topic follows.
const OWN: &str = "tidelog.redrive.";
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
    /// What is done with them.
    pub way: DeadLetterWay,
    /// Only the one at `from`.
    pub only: bool,
    /// The value that they get on their way back, instead of their own; of one only.
    pub value: Option<Bytes>,
}

/// What is done with dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeadLetterWay {
    /// They are appended to the topics that they came from, for everybody who reads those.
    #[default]
    Topic,
    /// The records that they were come again to the group that gave them up, and to nobody else.
    Group,
    /// They are done with.
    Discard,
}

/// What went back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Those that went back or were discarded, or would: partition and offset in the dead-letter topic.
    pub records: Vec<(PartitionId, Offset)>,
    /// Those that cannot go back, because what they came from is gone or they do not say what it was.
    pub stranded: u64,
    /// Why the first of these cannot.
    pub why: Option<String>,
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

/// What is kept before a batch is written: from where on it is found in the partitions that it goes to.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Intent(Vec<(TopicName, PartitionId, Offset)>);

/// A partition of the dead-letter topic.
pub(in crate::broker::queue) struct Part {
    pub(in crate::broker::queue) place: Place,
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
                && let Ok(topic) = super::graves::dead_letters(&entry.name, rules)
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
                let machine = Machine::new(QueueSettings::default(), progress.as_ref(), 0);
                drop(catalog);
                redriven += machine.floor().max(start) - start + machine.known_done_below(end);
            }
            found.push(DeadLetterTopic { topic: topic.name, groups: of, records, redriven });
        }
        found
    }

    /// Sends dead letters back to the topics or groups that they came from, once each, also when the server dies meanwhile; or
    /// discards them.
    ///
    /// # Errors
    /// There is no such topic or dead letter, a filter that is none, a value for more than one, the disk's. Those before it went back.
    pub async fn redrive(self: &Arc<Self>, redrive: &Redrive) -> Result<Redriven, BrokerError> {
        if redrive.value.is_some() && !(redrive.only && redrive.way == DeadLetterWay::Topic) {
            return Err(super::refused("a new value is for one dead letter that goes back to its topic".to_owned()));
        }
        if redrive.only && redrive.from.is_none() {
            return Err(super::refused("which one dead letter is not said".to_owned()));
        }
        let filter = redrive.filter.as_deref().map(Filter::compile).transpose();
        let filter = filter.map_err(|error| super::refused(error.to_string()))?.map(Arc::new);
        let (broker, redrive) = (Arc::clone(self), redrive.clone());
        // A task of its own: who asked may go away, and what has begun is to be ended.
        let task = task::spawn("redrive", async move {
            let mut redriving = broker.queues.redriving.lock().await;
            let (settling, topic) = (Arc::clone(&broker), redrive.topic.clone());
            blocking(move || settling.settle_redrive(&topic)).await?;
            let id = broker.topic(redrive.topic.as_str())?.entry.id;
            let mut holds = redriving.remove(&id).unwrap_or_default();
            holds.clear();
            let outcome = broker.redrive_now(&redrive, filter.as_ref(), &mut holds).await;
            if !holds.is_empty() {
                // It is open what was written: that is found out soon.
                redriving.insert(id, holds);
            }
            outcome
        });
        task.await.unwrap_or_else(|_| Err(BrokerError::new(ErrorKind::ShuttingDown, "the server is stopping")))
    }

    async fn redrive_now(
        self: &Arc<Self>,
        redrive: &Redrive,
        filter: Option<&Arc<Filter>>,
        holds: &mut Vec<Hold>,
    ) -> Result<Redriven, BrokerError> {
        let topic = self.topic(redrive.topic.as_str())?;
        let (id, partitions) = (topic.entry.id, topic.entry.partitions);
        let group = group_of(&redrive.topic)?;
        let mut result = Redriven::default();
        let (first, mut from) = redrive.from.unwrap_or((0, 0));
        if redrive.only {
            self.check_dead_letter(&topic, &group, (first, from))?;
        }
        let mut looked_at = 0;
        for number in first..partitions {
            // Nothing is made of a record that a power cut may still take away.
            self.sync_written(redrive.topic.as_str(), number).await?;
            let mut part = self.part(&redrive.topic, id, number, &group)?;
            let mut at = std::mem::take(&mut from).max(part.machine.floor());
            let mut reading = Reading::passing();
            while at < part.end {
                let place = (redrive.topic.as_str(), number);
                let (records, next) =
                    self.records_on(&mut reading, "redrive", place, at, READ_BYTES, Isolation::Committed).await?;
                let key = &topic.partition(number)?.work;
                let room = AT_ONCE.min(redrive.max.saturating_sub(result.records.len()));
                let (records, wanted) = self.wanted(key, filter, (&redrive.topic, number), records, room).await?;
                let mut wanted = wanted.into_iter();
                let mut batch = Vec::new();
                at = next;
                for record in records {
                    // Where there is a transaction's marker, or nothing any more, the next record is not the one that is meant.
                    if redrive.only && Some((number, record.offset)) != redrive.from {
                        break;
                    }
                    let Some(wanted) = wanted.next() else {
                        // Not asked about yet.
                        at = record.offset;
                        break;
                    };
                    looked_at += 1;
                    if result.records.len() + batch.len() >= redrive.max || batch.len() >= AT_ONCE {
                        at = record.offset;
                        break;
                    }
                    if part.machine.is_done(record.offset) || !wanted {
                        continue;
                    }
                    batch.push(record);
                    if redrive.only {
                        break;
                    }
                }
                if let (true, true, Some((number, offset))) = (redrive.only, batch.is_empty(), redrive.from) {
                    let message = format!("there is no dead letter {number}/{offset} in '{}'", redrive.topic);
                    return Err(BrokerError::new(ErrorKind::NotFound, message));
                }
                part = self.deal_with(redrive, part, batch, &mut result, holds).await?;
                if redrive.only {
                    return Ok(result);
                }
                if result.records.len() >= redrive.max || looked_at >= LOOKED_AT {
                    result.next = Some((number, at));
                    return Ok(result);
                }
            }
        }
        Ok(result)
    }

    /// Whether there is such a dead letter, and nobody has dealt with it.
    fn check_dead_letter(
        &self,
        topic: &Topic,
        group: &GroupName,
        (number, offset): (PartitionId, Offset),
    ) -> Result<(), BrokerError> {
        let name = &topic.entry.name;
        let none = |message| Err(BrokerError::new(ErrorKind::NotFound, message));
        if number >= topic.entry.partitions {
            return none(format!("'{name}' has no partition {number}"));
        }
        let part = self.part(name, topic.entry.id, number, group)?;
        if offset >= part.end {
            return none(format!("there is no dead letter {number}/{offset} in '{name}'"));
        }
        match part.machine.is_done(offset) {
            true => none(format!(
                "dead letter {number}/{offset} in '{name}' went back, was discarded or is deleted already"
            )),
            false => Ok(()),
        }
    }

    /// Does with dead letters of one partition what is to be done with them.
    async fn deal_with(
        self: &Arc<Self>,
        redrive: &Redrive,
        mut part: Part,
        records: Vec<Record>,
        result: &mut Redriven,
        holds: &mut Vec<Hold>,
    ) -> Result<Part, BrokerError> {
        let number = part.place.partition;
        let mut stranded = Vec::new();
        match redrive.way {
            DeadLetterWay::Topic => {
                let mut batch = Vec::new();
                for mut record in records {
                    let edited = redrive.value.is_some();
                    if let Some(value) = &redrive.value {
                        record.value = Some(value.clone());
                    }
                    match self.way_back(&redrive.topic, number, record, edited) {
                        Ok(back) => batch.push(back),
                        Err(why) => stranded.push(why),
                    }
                }
                result.records.extend(batch.iter().map(|back| back.from));
                if !redrive.dry_run && !batch.is_empty() {
                    let group = part.place.group.clone();
                    self.send_back(&mut part, &group, batch, holds).await?;
                }
            }
            DeadLetterWay::Group => {
                let mut batch = Vec::new();
                for record in &records {
                    match self.again(record).await {
                        Ok(again) => batch.push(again),
                        Err(why) => stranded.push(why),
                    }
                }
                let mut back: Vec<Offset> = batch.iter().map(|again| again.dead).collect();
                if !redrive.dry_run && !batch.is_empty() {
                    let broker = Arc::clone(self);
                    let reopened;
                    (part, reopened) = blocking(move || {
                        let reopened = broker.reopen(&mut part, batch);
                        (part, reopened)
                    })
                    .await;
                    let reopened = reopened?;
                    back = reopened.back;
                    stranded.extend(reopened.stranded);
                }
                result.records.extend(back.into_iter().map(|offset| (number, offset)));
            }
            DeadLetterWay::Discard => {
                let done: Vec<Offset> = records.iter().map(|record| record.offset).collect();
                result.records.extend(done.iter().map(|offset| (number, *offset)));
                if !redrive.dry_run && !done.is_empty() {
                    let events = done_events(&mut part, &done, self.clock.now_ms());
                    let (broker, place) = (Arc::clone(self), part.place.clone());
                    blocking(move || broker.keep_discarded(&place, events)).await?;
                }
            }
        }
        result.stranded += stranded.len() as u64;
        result.why = result.why.take().or_else(|| stranded.into_iter().next());
        Ok(part)
    }

    /// Which of the records a filter wants, from the front, until `most` of them are.
    async fn wanted(
        &self,
        key: &WorkKey,
        filter: Option<&Arc<Filter>>,
        (topic, number): (&TopicName, PartitionId),
        mut records: Vec<Record>,
        most: usize,
    ) -> Result<(Vec<Record>, Vec<bool>), BrokerError> {
        let Some(filter) = filter else {
            let all = vec![true; records.len()];
            return Ok((records, all));
        };
        let (mut wanted, mut yes) = (Vec::new(), 0);
        while wanted.len() < records.len() && yes < most.max(1) {
            let rest = records.split_off(wanted.len());
            let asked = self.ask(key, filter, (topic.as_str(), number), rest).await?;
            records.extend(asked.records);
            yes += asked.wanted.iter().filter(|wanted| **wanted).count();
            wanted.extend(asked.wanted);
        }
        Ok((records, wanted))
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
        let progress = lock(&self.catalog).progress(group, (id, number));
        let mut machine = Machine::new(QueueSettings::default(), progress.as_ref(), 0);
        machine.forget_below(start, 0);
        let place = Place { group: group.clone(), topic: id, partition: number };
        Ok(Part { place, machine, end })
    }

    /// Where a dead letter goes, and as what.
    ///
    /// # Errors
    /// Why it cannot, to be told.
    fn way_back(
        &self,
        dead: &TopicName,
        number: PartitionId,
        mut record: Record,
        edited: bool,
    ) -> Result<Back, String> {
        // What of it was left out cannot go back, unless somebody says it anew.
        if text(&record, LEFT_OUT).is_some() && !edited {
            return Err("its value was too large to be kept".to_owned());
        }
        let source = text(&record, headers::SOURCE).and_then(|source| {
            let mut source = source.rsplitn(3, '/').skip(1);
            Some((source.next()?.parse::<PartitionId>().ok()?, TopicName::new(source.next()?).ok()?))
        });
        let (partition, topic) = source.ok_or("it does not say where it came from")?;
        let partitions = match self.topic(topic.as_str()) {
            Ok(open) => open.entry.partitions,
            Err(error) => return Err(error.to_string()),
        };
        let to = match &record.key {
            Some(key) => partition_for_key(key, partitions),
            None => partition.min(partitions - 1),
        };
        let from = (number, record.offset);
        // It begins anew: its way so far is forgotten, and an expiry does not come back.
        let more = [REDRIVEN, headers::PATH, headers::EXPIRED_AT];
        let own = |name: &[u8]| more.iter().chain(&headers::ALL).any(|own| name == own.as_bytes());
        if edited {
            record.headers.retain(|header| header.name != LEFT_OUT.as_bytes());
        }
        record.headers.retain(|header| !own(header.name));
        let value = format!("{dead}/{number}/{}", record.offset);
        record.headers.push(REDRIVEN, Some(value.as_bytes()));
        record.timestamp = self.clock.stamp_ms();
        Ok(Back { from, to: (topic, to), record })
    }

    /// Intent, records, progress: in this order, each durable before the next.
    async fn send_back(
        self: &Arc<Self>,
        part: &mut Part,
        group: &GroupName,
        batch: Vec<Back>,
        holds: &mut Vec<Hold>,
    ) -> Result<(), BrokerError> {
        let mut intent = Intent::default();
        let mut by_place: BTreeMap<(TopicName, PartitionId), Vec<Record>> = BTreeMap::new();
        let done: Vec<Offset> = batch.iter().map(|back| back.from.1).collect();
        for back in batch {
            by_place.entry(back.to).or_default().push(back.record);
        }
        for (topic, partition) in by_place.keys() {
            let hold = Hold::of(self.topic(topic.as_str())?.partition(*partition)?)?;
            intent.0.push((topic.clone(), *partition, hold.offset()));
            holds.push(hold);
        }
        let (broker, of, id) = (Arc::clone(self), group.clone(), part.place.topic);
        blocking(move || broker.keep_intent(id, &of, &intent)).await?;
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
                self.produce_own(topic.as_str(), partition, builder.build()).await?;
            }
        }
        let events = done_events(part, &done, self.clock.now_ms());
        let (broker, place) = (Arc::clone(self), part.place.clone());
        blocking(move || broker.keep_done(&place, events)).await?;
        holds.clear();
        Ok(())
    }

    /// The group's position in the first partition carries the intent; with it comes the group itself.
    fn keep_intent(&self, topic: TopicId, group: &GroupName, intent: &Intent) -> Result<(), BrokerError> {
        let metadata =
            if intent.0.is_empty() { String::new() } else { serde_json::to_string(intent).unwrap_or_default() };
        let now = self.clock.now_ms();
        let mut catalog = lock(&self.catalog);
        let mut events: Vec<Event> = self.own_group(&catalog, group).into_iter().collect();
        let offset = position(&catalog, group, topic).map_or(0, |position| position.offset);
        let place = Place { group: group.clone(), topic, partition: 0 };
        events.push(Event::PositionSet {
            place,
            position: Some(Position { offset, metadata, time_ms: now, leader_epoch: None }),
        });
        Ok(catalog.commit_all(events, now)?)
    }

    /// What went back is kept; the intent is fulfilled.
    fn keep_done(&self, of: &Place, mut events: Vec<Event>) -> Result<(), BrokerError> {
        let now = self.clock.now_ms();
        let mut catalog = lock(&self.catalog);
        let floor = events.iter().find_map(|event| match event {
            Event::PositionSet { position: Some(position), .. } if of.partition == 0 => Some(position.offset),
            _ => None,
        });
        let offset = floor.or_else(|| position(&catalog, &of.group, of.topic).map(|position| position.offset));
        let cleared =
            Position { offset: offset.unwrap_or(0), metadata: String::new(), time_ms: now, leader_epoch: None };
        // Last: a crash in between leaves the intent, which is looked into again.
        let place = Place { partition: 0, ..of.clone() };
        events.push(Event::PositionSet { place, position: Some(cleared) });
        Ok(catalog.commit_all(events, now)?)
    }

    /// What was discarded is kept; with it comes the group itself.
    fn keep_discarded(&self, of: &Place, events: Vec<Event>) -> Result<(), BrokerError> {
        let now = self.clock.now_ms();
        let mut catalog = lock(&self.catalog);
        let all = self.own_group(&catalog, &of.group).into_iter().chain(events).collect();
        Ok(catalog.commit_all(all, now)?)
    }

    /// The event that makes the internal group, if it is not there.
    pub(in crate::broker::queue) fn own_group(&self, catalog: &Catalog, group: &GroupName) -> Option<Event> {
        if catalog.group(group).is_some() {
            return None;
        }
        let kind = GroupKind::Queue(QueueSettings::default());
        let created_ms = self.clock.now_ms();
        let entry = GroupEntry { name: group.clone(), kind, topics: Vec::new(), filter: None, created_ms };
        Some(Event::GroupDeclared(entry))
    }
}

/// What is to be kept when these went back.
pub(in crate::broker::queue) fn done_events(part: &mut Part, done: &[Offset], now: TimestampMs) -> Vec<Event> {
    let Some(last) = done.last() else { return Vec::new() };
    for offset in part.machine.cursor()..=*last {
        part.machine.admit(Seen { offset, key: None, deliver_at: None, skip: None, condemned: false }, MEMBER, 0);
    }
    for &offset in done {
        part.machine.ack(MEMBER, offset, offset + 1, 0);
    }
    part.machine.take_changes(now).iter().map(|change| event_of(&part.place, change, "", now)).collect()
}

/// The topic whose dead letters went back by what this group has kept, if it is such a group.
pub(in crate::broker::queue) fn topic_of(group: &GroupName) -> Option<TopicName> {
    TopicName::new(group.as_str().strip_prefix(OWN)?).ok()
}

fn position<'a>(catalog: &'a Catalog, group: &GroupName, topic: TopicId) -> Option<KeptPosition<'a>> {
    catalog.position_of(group, (topic, 0))
}

/// The internal group whose progress is what went back.
fn group_of(topic: &TopicName) -> Result<GroupName, BrokerError> {
    GroupName::new(&format!("{OWN}{topic}")).map_err(|error| super::refused(error.to_string()))
}
