//! Groups from outside: what there is, how far they are, and where they are to go on.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TimestampMs, TopicName, TopicPattern};
use crate::catalog::{Event, GroupEntry, Place, Position, Processed, ReceiptPlace};

use super::super::broker::{blocking, lock};
use super::super::partition::Topic;
use super::super::{Broker, BrokerError, FetchRequest, OffsetAt};
use super::group::{QueueGroup, QueuePartition};
use super::keeper::event_of;
use super::{GroupDescription, GroupPartition, no_group};

/// Where a group is to go on.
#[derive(Debug, Clone)]
pub struct ResetQueue {
    /// The group.
    pub group: GroupName,
    /// Only in these of its topics; in all if empty.
    pub topics: Vec<TopicPattern>,
    /// Only these of its partitions; all if empty.
    pub partitions: Vec<(TopicName, PartitionId)>,
    /// Where to, in each partition.
    pub to: ResetTo,
    /// Only say what would change.
    pub dry_run: bool,
    /// Also while it has members: they are sent away, and come again.
    pub force: bool,
}

impl ResetQueue {
    /// Whether a partition is meant.
    pub(crate) fn means(&self, topic: &TopicName, partition: PartitionId) -> bool {
        let topics = self.topics.is_empty() || self.topics.iter().any(|pattern| pattern.matches(topic));
        let named = |(of, number): &(TopicName, PartitionId)| of == topic && *number == partition;
        topics && (self.partitions.is_empty() || self.partitions.iter().any(named))
    }

    /// Refuses a reset of nothing, of a partition that the group does not read, or to an offset that none of them has come to.
    ///
    /// # Errors
    /// `NotFound`, `OffsetOutOfRange`.
    pub(crate) fn check(&self, changes: &[ResetPartition]) -> Result<(), BrokerError> {
        let is_there = |(topic, number): &&(TopicName, PartitionId)| {
            changes.iter().any(|change| change.topic == *topic && change.partition == *number)
        };
        let message = match self.partitions.iter().find(|named| !is_there(named)) {
            Some((topic, number)) => format!("group '{}' reads no partition {topic}/{number}", self.group),
            None if changes.is_empty() && self.topics.is_empty() => {
                format!("group '{}' reads no topic yet: none that is there meets its topics or patterns", self.group)
            }
            None if changes.is_empty() => {
                let named: Vec<_> = self.topics.iter().map(ToString::to_string).collect();
                format!("group '{}' does not read {}", self.group, named.join(" "))
            }
            None => return self.check_offset(changes),
        };
        Err(BrokerError::new(ErrorKind::NotFound, message))
    }

    fn check_offset(&self, changes: &[ResetPartition]) -> Result<(), BrokerError> {
        let ResetTo::Offset(offset) = self.to else { return Ok(()) };
        let Some(longest) = changes.iter().max_by_key(|change| change.end) else { return Ok(()) };
        if offset <= longest.end {
            return Ok(());
        }
        let ResetPartition { topic, partition, end, .. } = longest;
        let message = match changes.len() {
            1 => format!("offset {offset} is behind the end: {topic}/{partition} ends at {end}"),
            count => format!(
                "offset {offset} is behind the ends of all {count} partitions: {topic}/{partition} ends at {end}"
            ),
        };
        Err(BrokerError::new(ErrorKind::OffsetOutOfRange, message))
    }
}

/// Where a group is to go on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// Where a question about offsets leads.
    At(OffsetAt),
    /// At this offset, or the nearest that there is.
    Offset(Offset),
    /// So many offsets before the end.
    Last(u64),
}

/// What a reset does in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Where the group was: everything below was done.
    pub from: Offset,
    /// Where it goes on.
    pub to: Offset,
    /// Where the partition ends.
    pub end: Offset,
}

impl Broker {
    /// All groups, by name.
    pub fn list_groups(&self) -> Vec<GroupEntry> {
        lock(&self.catalog).groups().filter(|entry| !entry.name.is_internal()).cloned().collect()
    }

    /// The names of all groups.
    pub(crate) fn group_names(&self) -> Vec<GroupName> {
        let catalog = lock(&self.catalog);
        catalog.groups().map(|entry| &entry.name).filter(|name| !name.is_internal()).cloned().collect()
    }

    /// One group in full.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn describe_group(self: &Arc<Self>, name: &GroupName) -> Result<GroupDescription, BrokerError> {
        let (broker, name) = (Arc::clone(self), name.clone());
        let mut described = blocking(move || {
            if let Some(entry) = broker.stream_entry(&name) {
                return Ok(broker.describe_stream(entry));
            }
            let group = broker.queue_group(&name)?;
            let inside = lock(&group.inside);
            let members = inside.members.values().map(|member| member.describe()).collect();
            let held: Vec<_> = inside.partitions.values().cloned().collect();
            drop(inside);
            let mut partitions = Vec::new();
            for partition in held {
                // A topic that was deleted just now is none of the group's any more.
                let Ok(topic) = broker.topic(partition.topic.as_str()) else { continue };
                partitions.push(describe(&topic, &partition)?);
            }
            partitions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
            let dead_letter = Some(group.dead_letters()?);
            let entry = lock(&group.entry).clone();
            Ok::<_, BrokerError>(GroupDescription { entry, dead_letter, members, partitions })
        })
        .await?;
        for partition in described.partitions.iter_mut().filter(|partition| partition.lag > 0) {
            partition.oldest_ms = self.time_at(&partition.topic, partition.partition, partition.floor).await;
        }
        Ok(described)
    }

    /// The time of the first record from an offset on, if there is one that can be read.
    async fn time_at(&self, topic: &TopicName, partition: PartitionId, offset: Offset) -> Option<TimestampMs> {
        let start =
            self.topic(topic.as_str()).ok()?.partition(partition).ok()?.log().ok()?.with(|log| log.start_offset());
        let offset = offset.max(start);
        let request = FetchRequest {
            topic: topic.as_str(),
            partition,
            offset,
            max_bytes: 1,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            skip_damaged: false,
        };
        let fetched = self.fetch(request).await.ok()?;
        let place = (topic.as_str(), partition);
        self.find_opened(place, fetched.bytes, offset, |record| Some(record.timestamp)).await.ok()?
    }

    /// Deletes a group and its progress.
    ///
    /// # Errors
    /// There is none of that name; it has members and is not forced; it is a push subscription's; the journal's.
    pub async fn delete_group(self: &Arc<Self>, name: &GroupName, force: bool) -> Result<(), BrokerError> {
        if !force {
            self.members_may_return(name).await;
        }
        let _pushes = self.pushes.changing.lock().await;
        if lock(&self.catalog).push(name).is_some() {
            let message = format!("group '{name}' is that of the push subscription of this name; delete that");
            return Err(BrokerError::new(ErrorKind::Busy, message));
        }
        self.remove_group(name, force, Vec::new()).await
    }

    /// The same, with what else goes.
    pub(crate) async fn remove_group(
        self: &Arc<Self>,
        name: &GroupName,
        force: bool,
        mut events: Vec<Event>,
    ) -> Result<(), BrokerError> {
        let (broker, name) = (Arc::clone(self), name.clone());
        blocking(move || {
            let _held = broker.groups.take_empty(&name, force)?;
            let _declaring = lock(&broker.queues.declaring);
            let _keeping = lock(&broker.queues.keeper.keeping);
            if lock(&broker.catalog).group(&name).is_none() {
                return Err(no_group(&name));
            }
            let group = lock(&broker.queues.groups).get(&name).cloned();
            refuse_members(group.as_deref(), force)?;
            events.push(Event::GroupDeleted { name: name.clone() });
            lock(&broker.catalog).commit_all(events, broker.clock.now_ms())?;
            broker.group_is_gone(&name);
            if let Some(group) = group {
                group.stop(Some((ErrorKind::NotFound, format!("group '{name}' was deleted"))));
            }
            tracing::info!(group = %name, "group deleted");
            Ok(())
        })
        .await
    }

    /// Lets a group go on elsewhere in the log; says what changes in which partition. What was done above the new
    /// position is to be done again.
    ///
    /// # Errors
    /// There is no such group, it has members and is not forced, it reads no such topic, the journal's.
    pub async fn reset_queue(self: &Arc<Self>, reset: ResetQueue) -> Result<Vec<ResetPartition>, BrokerError> {
        if !reset.dry_run && !reset.force {
            self.members_may_return(&reset.group).await;
        }
        let (broker, name) = (Arc::clone(self), reset.group.clone());
        if let Some(entry) = blocking(move || broker.stream_entry(&name)).await {
            return self.reset_stream(reset, entry).await;
        }
        let (broker, name) = (Arc::clone(self), reset.group.clone());
        let group = blocking(move || broker.queue_group(&name)).await?;
        if !reset.dry_run {
            refuse_members(Some(&group), reset.force)?;
        }
        let held: Vec<_> = lock(&group.inside).partitions.values().cloned().collect();
        let mut changes = Vec::new();
        for partition in held {
            let number = partition.place.partition;
            if !reset.means(&partition.topic, number) {
                continue;
            }
            self.settled(partition.topic.as_str(), number).await?;
            let topic = self.topic(partition.topic.as_str())?;
            let (start, end) = topic.partition(number)?.log()?.with(|log| (log.start_offset(), log.committed_end()));
            let to = match reset.to {
                ResetTo::At(at) => self.list_offset(partition.topic.as_str(), number, at).await?.0,
                ResetTo::Offset(offset) => offset.clamp(start, end),
                ResetTo::Last(offsets) => end.saturating_sub(offsets).max(start),
            };
            let from = lock(&partition.machine).floor();
            let change = ResetPartition { topic: partition.topic.clone(), partition: number, from, to, end };
            changes.push((partition.place.clone(), change));
        }
        changes.sort_by(|(_, one), (_, other)| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        reset.check(&changes.iter().map(|(_, change)| change.clone()).collect::<Vec<_>>())?;
        if !reset.dry_run {
            let (broker, changes, reset) = (Arc::clone(self), changes.clone(), reset.clone());
            blocking(move || broker.reset_to(&reset, &changes)).await?;
        }
        Ok(changes.into_iter().map(|(_, change)| change).collect())
    }

    /// One commit for all partitions: a crash leaves the group where it was, or a part of its partitions elsewhere, each
    /// whole.
    fn reset_to(&self, reset: &ResetQueue, changes: &[(Place, ResetPartition)]) -> Result<(), BrokerError> {
        let _declaring = lock(&self.queues.declaring);
        let _keeping = lock(&self.queues.keeper.keeping);
        let group = lock(&self.queues.groups).get(&reset.group).cloned();
        refuse_members(group.as_deref(), reset.force)?;
        let now = self.clock.now_ms();
        // What is in memory is of the old position: the next who asks takes the group into use anew. From here on nothing that
        // members say is called kept.
        lock(&self.queues.groups).remove(&reset.group);
        if let Some(group) = &group {
            group.stop(Some((ErrorKind::Busy, format!("group '{}' was reset: join again", reset.group))));
        }
        let (mut events, decided) = self.progress_elsewhere(group.as_deref(), changes, now);
        let mut passed = Vec::new();
        for (place, change) in changes {
            let at = (place.topic, place.partition);
            let partition = group.as_ref().and_then(|group| lock(&group.inside).partitions.get(&at).cloned());
            let ending = |offset| {
                let machine = lock(&partition.as_ref()?.machine);
                machine.is_done(offset).then(|| machine.ending(offset).unwrap_or(Processed::Acked))
            };
            passed.extend(self.receipts.skip(place, change.to, ending, now));
        }
        let mut catalog = lock(&self.catalog);
        for (place, change) in changes {
            // Back first: whoever finds the position without the chunks gone only does again what it was to do again.
            let position = Position { offset: change.to, metadata: String::new(), time_ms: now, leader_epoch: None };
            events.push(Event::PositionSet { place: place.clone(), position: Some(position) });
            let progress = catalog.progress(&place.group, (place.topic, place.partition));
            for number in progress.into_iter().flat_map(|progress| progress.chunks.into_keys()) {
                events.push(Event::ChunkSet { place: place.clone(), number, chunk: None });
            }
        }
        passed.extend(decided);
        events.extend(self.receipts.events(&passed));
        let committed = catalog.commit_all(events, now);
        self.receipts.committed(passed, committed.is_ok());
        committed?;
        drop(catalog);
        self.receipts.group_moved(&reset.group);
        tracing::info!(group = %reset.group, partitions = changes.len(), "group reset");
        Ok(())
    }

    /// What a group that is stopped has done in partitions that are not reset, and the journal does not have yet: it goes along
    /// with the reset, and with it the receipts that it decides.
    fn progress_elsewhere(
        &self,
        group: Option<&QueueGroup>,
        changes: &[(Place, ResetPartition)],
        now: TimestampMs,
    ) -> (Vec<Event>, Vec<ReceiptPlace>) {
        let (mut events, mut decided) = (Vec::new(), Vec::new());
        let held: Vec<_> =
            group.map(|group| lock(&group.inside).partitions.values().cloned().collect()).unwrap_or_default();
        for partition in held.iter().filter(|held| !changes.iter().any(|(place, _)| *place == held.place)) {
            let changes = {
                let mut machine = lock(&partition.machine);
                let changes = machine.take_changes(now);
                decided.extend(self.receipts.decide_in(&partition.place, &machine, &changes, now));
                changes
            };
            let intent = lock(&partition.intent).clone();
            events.extend(changes.iter().map(|change| event_of(&partition.place, change, &intent, now)));
        }
        (events, decided)
    }
}

fn describe(topic: &Topic, partition: &QueuePartition) -> Result<GroupPartition, BrokerError> {
    let number = partition.place.partition;
    let end = topic.partition(number)?.log().map(|log| log.with(|log| log.written_end()));
    let machine = lock(&partition.machine);
    let trouble = end.as_ref().err().map(ToString::to_string);
    let end = end.unwrap_or_else(|_| machine.cursor());
    let counts = machine.counts();
    let beyond = end.saturating_sub(machine.cursor()).saturating_sub(machine.known_done_below(end));
    Ok(GroupPartition {
        topic: partition.topic.clone(),
        partition: number,
        floor: machine.floor(),
        end,
        lag: counts.leased + counts.waiting + beyond,
        in_flight: counts.leased,
        waiting: counts.waiting,
        redeliveries: machine.redeliveries,
        oldest_ms: None,
        owner: None,
        trouble,
    })
}

fn refuse_members(group: Option<&QueueGroup>, force: bool) -> Result<(), BrokerError> {
    let Some(group) = group else { return Ok(()) };
    let members = lock(&group.inside).members.len();
    if members == 0 || force {
        return Ok(());
    }
    let noun = if members == 1 { "member" } else { "members" };
    let message = format!("group '{}' has {members} active {noun}; stop them, or force it", group.name);
    Err(BrokerError::new(ErrorKind::Busy, message))
}
