//! Stream groups from outside: how far they are, who owns what, and where they are to go on. Groups whose members assign
//! among themselves are seen here too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::{GroupName, Offset, PartitionId, TopicName};
use crate::catalog::{Event, GroupEntry, GroupKind, Place, Position, Processed};

use super::super::broker::{blocking, lock};
use super::super::lag::Distance;
use super::super::queue::{GroupDescription, GroupMember, GroupPartition, ResetPartition, ResetQueue, ResetTo};
use super::super::{Broker, BrokerError};
use super::machine::{At, Id, Look, Topics};

/// A group's partitions, with its position in each if it has one.
type Places = BTreeMap<(TopicName, PartitionId), Option<Offset>>;

impl Broker {
    /// The entry of a group that shares out partitions, if it is one.
    pub(crate) fn stream_entry(&self, name: &GroupName) -> Option<GroupEntry> {
        lock(&self.catalog).group(name).filter(|entry| entry.kind == GroupKind::Stream).cloned()
    }

    /// The group in full. Blocks.
    pub(crate) fn describe_stream(&self, entry: GroupEntry) -> GroupDescription {
        let group = self.streams.get(&entry.name);
        let (now, monotonic) = (self.clock.now_ms(), self.clock.monotonic_ms());
        let looks = group.and_then(|group| group.with(self, |machine| machine.look(monotonic))).unwrap_or_default();
        let mut owners: HashMap<At, Id> = HashMap::new();
        for look in &looks {
            owners.extend(look.owns.iter().map(|at| (*at, Arc::clone(&look.id))));
        }
        let topics = self.topic_shapes();
        let names: HashMap<_, _> = topics.iter().map(|(name, (id, _))| (*id, name)).collect();
        let owned = |look: &Look| {
            let named = look.owns.iter().filter_map(|at| Some(((*names.get(&at.0)?).clone(), at.1)));
            named.collect::<BTreeSet<_>>().into_iter().collect()
        };
        let members = looks.iter().map(|look| GroupMember {
            id: look.id.to_string(),
            client: look.client.clone(),
            in_flight: 0,
            owns: owned(look),
            joined_ms: look.joined_ms,
            heard_ms: Some(now.saturating_sub_unsigned(look.silent_ms)),
        });
        let mut members: Vec<GroupMember> = members.collect();
        members.extend(self.classic_members(&entry.name));
        let classic: HashMap<_, _> =
            members.iter().flat_map(|member| member.owns.iter().map(|at| (at.clone(), member.id.clone()))).collect();
        let partitions = self.stream_places(&entry).into_iter().filter_map(|((topic, partition), position)| {
            let ends = self.ends(&topic, partition)?;
            let trouble = ends.as_ref().err().map(ToString::to_string);
            let (start, end) = ends.unwrap_or_else(|_| (0, position.unwrap_or(0)));
            let floor = position.unwrap_or(start);
            let owner = topics.get(&topic).and_then(|(id, _)| owners.get(&(*id, partition)));
            let owner = owner.map(ToString::to_string).or_else(|| classic.get(&(topic.clone(), partition)).cloned());
            Some(GroupPartition {
                topic,
                partition,
                floor,
                end,
                lag: end.saturating_sub(floor.max(start)),
                in_flight: 0,
                waiting: 0,
                redeliveries: 0,
                oldest_ms: None,
                owner,
                trouble,
            })
        });
        GroupDescription { partitions: partitions.collect(), entry, dead_letter: None, members }
    }

    /// How far it is behind the end of each of its partitions. Blocks.
    pub(crate) fn stream_distances(&self, entry: &GroupEntry) -> Vec<Distance> {
        let distance = |((topic, partition), position): ((TopicName, PartitionId), Option<Offset>)| {
            let (start, end) = self.ends(&topic, partition)?.ok()?;
            let lag = end.saturating_sub(position.unwrap_or(start).max(start));
            Some(Distance { topic, partition, lag, in_flight: 0, waiting: 0, delayed: 0 })
        };
        self.stream_places(entry).into_iter().filter_map(distance).collect()
    }

    /// How many members the group has, of whichever protocol.
    pub(crate) fn stream_member_count(&self, name: &GroupName) -> usize {
        let now = self.clock.monotonic_ms();
        let group = self.streams.get(name);
        let looks = group.and_then(|group| group.with(self, |machine| machine.look(now).len())).unwrap_or_default();
        looks + self.classic_look(name).map_or(0, |look| look.members.len())
    }

    /// The partitions that the group has a position in or wants.
    fn stream_places(&self, entry: &GroupEntry) -> Places {
        let mut places = Places::new();
        // Most idle groups want nothing, and all topics are many.
        let shapes = if entry.topics.is_empty() { Topics::new() } else { self.topic_shapes() };
        for (topic, (_, partitions)) in shapes {
            if entry.topics.iter().any(|pattern| pattern.matches(&topic)) {
                places.extend((0..partitions).map(|partition| ((topic.clone(), partition), None)));
            }
        }
        let positions = self.positions_now(&entry.name, None);
        places.extend(positions.into_iter().map(|of| ((of.topic, of.partition), Some(of.offset))));
        places
    }

    /// First offset and the end of what is written, or why it cannot be read; `None` if there is no such partition.
    fn ends(&self, topic: &TopicName, partition: PartitionId) -> Option<Result<(Offset, Offset), BrokerError>> {
        let topic = self.topic_of(topic).ok()?;
        let log = topic.partition(partition).ok()?.log();
        Some(log.map(|log| log.with(|log| (log.start_offset(), log.written_end()))))
    }

    /// The same with the end up to which members can read.
    fn readable(&self, topic: &TopicName, partition: PartitionId) -> Option<(Offset, Offset)> {
        let topic = self.topic_of(topic).ok()?;
        let log = topic.partition(partition).ok()?.log().ok()?;
        Some(log.with(|log| (log.start_offset(), log.committed_end())))
    }

    /// Lets a group go on elsewhere in the log; says what changes in which partition.
    ///
    /// # Errors
    /// It has members and is not forced, it reads no such topic, the journal's.
    pub(crate) async fn reset_stream(
        self: &Arc<Self>,
        reset: ResetQueue,
        entry: GroupEntry,
    ) -> Result<Vec<ResetPartition>, BrokerError> {
        let (broker, name, force) = (Arc::clone(self), reset.group.clone(), reset.force);
        // Nobody joins between the look and the change.
        let hold = match reset.dry_run {
            true => None,
            false => Some(blocking(move || broker.groups.take_empty(&name, force)).await?),
        };
        let broker = Arc::clone(self);
        let places = blocking(move || broker.stream_places(&entry)).await;
        let mut changes = Vec::new();
        for ((topic, partition), position) in places {
            if !reset.means(&topic, partition) {
                continue;
            }
            self.settled(topic.as_str(), partition).await?;
            let Some((start, end)) = self.readable(&topic, partition) else { continue };
            let to = match reset.to {
                ResetTo::At(at) => self.list_offset(topic.as_str(), partition, at).await?.0,
                ResetTo::Offset(offset) => offset.clamp(start, end),
                ResetTo::Last(offsets) => end.saturating_sub(offsets).max(start),
            };
            changes.push(ResetPartition { topic, partition, from: position.unwrap_or(start), to, end });
        }
        reset.check(&changes)?;
        if let Some(hold) = hold {
            let (broker, to, group) = (Arc::clone(self), changes.clone(), reset.group);
            blocking(move || broker.reset_stream_to(&group, &to)).await?;
            drop(hold);
        }
        Ok(changes)
    }

    /// Sets positions while the caller has the group's name. Members that there still are have been sent away.
    fn reset_stream_to(&self, group: &GroupName, changes: &[ResetPartition]) -> Result<(), BrokerError> {
        self.streams.end(group);
        self.end_classic(group);
        let _keeping = lock(&self.queues.keeper.keeping);
        // What was said before counts no more, but in partitions that stay.
        let said = self.groups.pending.snapshot();
        self.groups.pending.forget(group);
        let now = self.clock.now_ms();
        let mut catalog = lock(&self.catalog);
        let members = catalog.members(group).map(|(member, _)| {
            let (group, member) = (group.clone(), member.clone());
            Event::MemberSet { group, member, entry: None }
        });
        let round = catalog.classic(group).map(|_| Event::ClassicSet { group: group.clone(), entry: None });
        let mut events: Vec<Event> = members.chain(round).collect();
        for change in changes {
            let Some(topic) = catalog.topic(&change.topic) else { continue };
            let place = Place { group: group.clone(), topic: topic.id, partition: change.partition };
            let position = Position { offset: change.to, metadata: String::new(), time_ms: now, leader_epoch: None };
            events.push(Event::PositionSet { place, position: Some(position) });
        }
        let mut passed = Vec::new();
        for event in &events {
            if let Event::PositionSet { place, position: Some(to) } = event {
                let was = catalog.position_of(group, (place.topic, place.partition)).map_or(0, |was| was.offset);
                let ending = |offset| (offset < was).then_some(Processed::Acked);
                passed.extend(self.receipts.skip(place, to.offset, ending, now));
            }
        }
        let moved: Vec<Place> = events.iter().filter_map(place_of).collect();
        for event in said.events() {
            if let Event::PositionSet { place, position: Some(position) } = &event
                && place.group == *group
                && !moved.contains(place)
            {
                passed.extend(self.receipts.decide_below(place, position.offset, now));
                events.push(event);
            }
        }
        events.extend(self.receipts.events(&passed));
        let committed = catalog.commit_all(events, now);
        self.receipts.committed(passed, committed.is_ok());
        committed?;
        drop(catalog);
        self.receipts.group_moved(group);
        tracing::info!(%group, partitions = changes.len(), "group reset");
        Ok(())
    }
}

fn place_of(event: &Event) -> Option<Place> {
    match event {
        Event::PositionSet { place, .. } => Some(place.clone()),
        _ => None,
    }
}
