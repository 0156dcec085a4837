//! What exists, in memory. Pure: events in, no time, no files.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::base::{GroupName, PartitionId, RequestId, TimestampMs, TopicId, TopicName, limits};

use super::CatalogError;
use super::event::{Event, EventError, Key, KeyChange, Tombstone, TopicEntry};
use super::places::{Kept, Places};
use super::progress::{Chunk, ClassicEntry, GroupCounts, GroupEntry, MemberEntry, Place, Position};
use super::pushes::PushEntry;
use super::receipts::{ReceiptEntry, ReceiptPlace};
use super::requests::RequestEntry;
use super::routing::Routing;
use super::transactions::TransactionEntry;

/// What exists. Applying is total and idempotent; whether a change makes sense is asked before it is journalled, with
/// [`State::check`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    topics: BTreeMap<TopicName, TopicEntry>,
    names: HashMap<TopicId, TopicName>,
    tombstones: BTreeMap<TopicId, Tombstone>,
    /// Producer ids below this may be in use.
    producer_ids: i64,
    /// Boxed, since a tree has room for twice as many values as it holds.
    groups: BTreeMap<GroupName, Box<GroupState>>,
    /// Of all `groups`.
    counts: GroupCounts,
    routing: Routing,
    requests: BTreeMap<RequestId, RequestEntry>,
    transactions: BTreeMap<String, TransactionEntry>,
    pushes: BTreeMap<GroupName, PushEntry>,
    receipts: BTreeMap<ReceiptPlace, ReceiptEntry>,
    /// Queue groups that are paused, and since when.
    paused: BTreeMap<GroupName, TimestampMs>,
}

/// A group and its progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct GroupState {
    /// `None` while only its progress was read, which the view holds before the group itself.
    entry: Option<GroupEntry>,
    progress: Places,
    /// `None` if it has none.
    #[expect(clippy::box_collection, reason = "most groups have none, and all have room for it")]
    members: Option<Box<BTreeMap<String, MemberEntry>>>,
    classic: Option<Box<ClassicEntry>>,
}

impl GroupState {
    fn counts(&self) -> GroupCounts {
        let members = self.members.iter().flat_map(|members| members.values());
        let declared =
            members.map(MemberEntry::weight).sum::<usize>() + self.entry.as_ref().map_or(0, GroupEntry::weight);
        let positions = self.progress.iter().filter_map(|(_, kept)| kept.position());
        positions.fold(GroupCounts { declared, ..GroupCounts::default() }, |sum, position| GroupCounts {
            positions: sum.positions + 1,
            metadata: sum.metadata + position.metadata.len(),
            ..sum
        })
    }

    fn is_nothing(&self) -> bool {
        self.entry.is_none() && self.progress.is_empty() && self.members.is_none() && self.classic.is_none()
    }
}

impl State {
    pub(super) fn topics(&self) -> impl ExactSizeIterator<Item = &TopicEntry> {
        self.topics.values()
    }

    pub(super) fn topic(&self, name: &TopicName) -> Option<&TopicEntry> {
        self.topics.get(name)
    }

    pub(super) fn topic_by_id(&self, id: TopicId) -> Option<&TopicEntry> {
        self.topics.get(self.names.get(&id)?)
    }

    pub(super) fn tombstones(&self) -> impl ExactSizeIterator<Item = &Tombstone> {
        self.tombstones.values()
    }

    pub(super) fn producer_ids(&self) -> i64 {
        self.producer_ids
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupEntry> {
        self.groups.values().filter_map(|group| group.entry.as_ref())
    }

    pub(super) fn groups_from(&self, start: Bound<&str>) -> impl Iterator<Item = &GroupEntry> {
        let groups = self.groups.range::<str, _>((start, Bound::Unbounded));
        groups.filter_map(|(_, group)| group.entry.as_ref())
    }

    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn counts(&self) -> GroupCounts {
        self.counts
    }

    /// How many keys the journal holds of it, without those of routes and chunks, which are few.
    pub(super) fn entries(&self) -> usize {
        let members = self.groups.values().filter_map(|group| group.members.as_ref());
        let lists = [
            self.topics.len(),
            self.tombstones.len(),
            self.groups.len(),
            self.counts.positions,
            members.map(|members| members.len()).sum(),
            self.requests.len(),
            self.transactions.len(),
            self.pushes.len(),
            self.receipts.len(),
            self.paused.len(),
        ];
        lists.into_iter().sum()
    }

    pub(super) fn counts_of(&self, group: &GroupName) -> GroupCounts {
        self.groups.get(group).map(|group| group.counts()).unwrap_or_default()
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &RequestEntry> {
        self.requests.values()
    }

    pub(super) fn transactions(&self) -> impl Iterator<Item = &TransactionEntry> {
        self.transactions.values()
    }

    pub(super) fn pushes(&self) -> impl ExactSizeIterator<Item = &PushEntry> {
        self.pushes.values()
    }

    pub(super) fn push(&self, name: &GroupName) -> Option<&PushEntry> {
        self.pushes.get(name)
    }

    pub(super) fn paused(&self, name: &GroupName) -> Option<TimestampMs> {
        self.paused.get(name).copied()
    }

    pub(super) fn paused_from(&self, start: Bound<&str>) -> impl Iterator<Item = (&GroupName, TimestampMs)> {
        self.paused.range::<str, _>((start, Bound::Unbounded)).map(|(name, since)| (name, *since))
    }

    pub(super) fn receipts(&self) -> impl ExactSizeIterator<Item = &ReceiptEntry> {
        self.receipts.values()
    }

    pub(super) fn group(&self, name: &GroupName) -> Option<&GroupEntry> {
        self.groups.get(name)?.entry.as_ref()
    }

    pub(super) fn progress(
        &self,
        group: &GroupName,
    ) -> impl Iterator<Item = ((TopicId, PartitionId), &Kept)> + use<'_> {
        self.groups.get(group).into_iter().flat_map(|group| group.progress.iter())
    }

    pub(super) fn progress_at(&self, group: &GroupName, at: (TopicId, PartitionId)) -> Option<&Kept> {
        self.groups.get(group)?.progress.get(at)
    }

    pub(super) fn members(&self, group: &GroupName) -> impl Iterator<Item = (&String, &MemberEntry)> + use<'_> {
        self.groups.get(group).and_then(|group| group.members.as_deref()).into_iter().flatten()
    }

    pub(super) fn member(&self, group: &GroupName, id: &str) -> Option<&MemberEntry> {
        self.groups.get(group)?.members.as_ref()?.get(id)
    }

    pub(super) fn classic(&self, group: &GroupName) -> Option<&ClassicEntry> {
        self.groups.get(group)?.classic.as_deref()
    }

    pub(super) fn routing(&self) -> &Routing {
        &self.routing
    }

    /// Whether this is progress of a group or in a topic that is gone, and so of no consequence.
    /// `before` will have been made by then.
    pub(super) fn is_moot(&self, event: &Event, before: &[Event]) -> bool {
        match event {
            Event::PositionSet { place, .. } | Event::ChunkSet { place, .. } => {
                let declared =
                    |event: &Event| matches!(event, Event::GroupDeclared(entry) if entry.name == place.group);
                let created = |event: &Event| matches!(event, Event::TopicCreated(entry) if entry.id == place.topic);
                self.group(&place.group).is_none() && !before.iter().any(declared)
                    || !self.names.contains_key(&place.topic) && !before.iter().any(created)
            }
            Event::MemberSet { group, .. }
            | Event::ClassicSet { group, .. }
            | Event::GroupPaused { name: group, .. } => {
                let declared = |event: &Event| matches!(event, Event::GroupDeclared(entry) if entry.name == *group);
                self.group(group).is_none() && !before.iter().any(declared)
            }
            Event::RouteMoved { place, .. } => {
                let set = |event: &Event| matches!(event, Event::RouteSet(entry) if entry.name == place.route);
                self.routing.entry(&place.route).is_none() && !before.iter().any(set)
                    || !self.names.contains_key(&place.topic)
            }
            Event::RouteDeleted { name } => self.routing.entry(name).is_none(),
            Event::TopicPurged { id } => !self.tombstones.contains_key(id),
            Event::GroupDeleted { name } => self.group(name).is_none(),
            _ => false,
        }
    }

    /// The keys that an event changes, in order, with what goes along with it: progress and members of a group that is
    /// deleted, progress of all groups in a topic whose files are gone. These come first: what is left of an interrupted change is
    /// then still known to be somebody's.
    pub(super) fn changes_of(&self, event: &Event) -> Result<Vec<KeyChange>, EventError> {
        let mut changes = Vec::new();
        let mut remove = |group: &GroupName, (topic, partition): (TopicId, PartitionId), kept: &Kept| {
            let place = Place { group: group.clone(), topic, partition };
            if kept.position().is_some() {
                changes.push((Key::Position(place.clone()).to_string(), None));
            }
            changes.extend(kept.chunks().map(|(at, _)| (Key::Chunk(place.clone(), *at).to_string(), None)));
        };
        match event {
            Event::GroupDeleted { name } => {
                for (at, kept) in self.progress(name) {
                    remove(name, at, kept);
                }
                let member = |(member, _): (&String, _)| (Key::Member(name.clone(), member.clone()).to_string(), None);
                changes.extend(self.members(name).map(member));
                changes.extend(self.classic(name).map(|_| (Key::Classic(name.clone()).to_string(), None)));
                changes.extend(self.paused(name).map(|_| (Key::Paused(name.clone()).to_string(), None)));
            }
            Event::TopicPurged { id } => {
                for (name, group) in &self.groups {
                    for (at, kept) in group.progress.iter().filter(|((topic, _), _)| topic == id) {
                        remove(name, at, kept);
                    }
                }
                changes.extend(self.routing.keys_in(*id));
            }
            Event::RouteDeleted { name } => changes.extend(self.routing.keys_of(name)),
            _ => {}
        }
        changes.extend(event.changes()?);
        Ok(changes)
    }

    fn set_position(&mut self, place: &Place, position: Option<Position>) {
        let at = (place.topic, place.partition);
        let of = |metadata: usize| GroupCounts { positions: 1, metadata, declared: 0 };
        let before = self.progress_at(&place.group, at).and_then(Kept::position);
        self.counts -= before.map(|position| of(position.metadata.len())).unwrap_or_default();
        self.counts += position.as_ref().map(|position| of(position.metadata.len())).unwrap_or_default();
        self.change_group(&place.group, |group| group.progress.set_position(at, position));
    }

    fn set_chunk(&mut self, place: &Place, number: u64, chunk: Option<Chunk>) {
        let at = (place.topic, place.partition);
        self.change_group(&place.group, |group| group.progress.set_chunk(at, number, chunk));
    }

    fn declare(&mut self, entry: GroupEntry) {
        let before = self.group(&entry.name).map_or(0, GroupEntry::weight);
        self.counts.declared = self.counts.declared - before + entry.weight();
        let group = self.groups.entry(entry.name.clone()).or_default();
        group.entry = Some(entry);
    }

    fn set_member(&mut self, name: &GroupName, member: String, entry: Option<MemberEntry>) {
        let members = self.groups.get(name).and_then(|group| group.members.as_deref());
        let before = members.and_then(|members| members.get(&member)).map_or(0, MemberEntry::weight);
        self.counts.declared = self.counts.declared - before + entry.as_ref().map_or(0, MemberEntry::weight);
        self.change_group(name, |group| {
            let members = group.members.get_or_insert_default();
            match entry {
                Some(entry) => drop(members.insert(member, entry)),
                None => drop(members.remove(&member)),
            }
            if members.is_empty() {
                group.members = None;
            }
        });
    }

    /// Changes a group, which is forgotten if nothing is left of it.
    fn change_group(&mut self, name: &GroupName, change: impl FnOnce(&mut GroupState)) {
        let group = match self.groups.get_mut(name) {
            Some(group) => group,
            None => self.groups.entry(name.clone()).or_default(),
        };
        change(group);
        if group.is_nothing() {
            self.groups.remove(name);
        }
    }

    fn set_classic(&mut self, name: GroupName, entry: Option<ClassicEntry>) {
        let group = self.groups.entry(name.clone()).or_default();
        group.classic = entry.map(Box::new);
        if group.is_nothing() {
            self.groups.remove(&name);
        }
    }

    fn set_paused(&mut self, name: GroupName, since_ms: Option<TimestampMs>) {
        match since_ms {
            Some(since_ms) => drop(self.paused.insert(name, since_ms)),
            None => drop(self.paused.remove(&name)),
        }
    }

    fn remove_group(&mut self, name: &GroupName) {
        self.paused.remove(name);
        if let Some(group) = self.groups.remove(name) {
            self.counts -= group.counts();
        }
    }

    /// Whether the change makes sense now.
    pub(super) fn check(&self, event: &Event) -> Result<(), CatalogError> {
        let invalid = |what: String| Err(CatalogError::Invalid { what });
        match event {
            Event::TopicCreated(entry) => {
                if self.topics.contains_key(&entry.name) {
                    return Err(CatalogError::TopicExists { name: entry.name.clone() });
                }
                if self.names.contains_key(&entry.id) || self.tombstones.contains_key(&entry.id) {
                    return invalid(format!("topic id {} is in use", entry.id));
                }
                check_partitions(entry)
            }
            Event::TopicAltered(entry) => {
                let held = self.held(&entry.name, entry.id)?;
                if entry.partitions < held.partitions {
                    return invalid(format!(
                        "topic '{}' has {} partitions; it cannot have fewer ({})",
                        entry.name, held.partitions, entry.partitions
                    ));
                }
                check_partitions(entry)
            }
            Event::TopicDeleted { name, id, .. } => self.held(name, *id).map(|_| ()),
            Event::TopicPurged { .. } => Ok(()),
            Event::ProducerIdsReserved { up_to } if *up_to < self.producer_ids => {
                invalid(format!("producer ids are reserved up to {}; {up_to} would go back", self.producer_ids))
            }
            Event::ProducerIdsReserved { .. }
            | Event::GroupDeclared(_)
            | Event::GroupDeleted { .. }
            | Event::PositionSet { .. }
            | Event::ChunkSet { .. }
            | Event::MemberSet { .. }
            | Event::ClassicSet { .. }
            | Event::RouteSet(_)
            | Event::RouteDeleted { .. }
            | Event::RouteMoved { .. }
            | Event::RequestSet { .. }
            | Event::TransactionSet { .. }
            | Event::PushSet(_)
            | Event::PushDeleted { .. }
            | Event::GroupPaused { .. }
            | Event::ReceiptSet { .. } => Ok(()),
        }
    }

    fn held(&self, name: &TopicName, id: TopicId) -> Result<&TopicEntry, CatalogError> {
        let held = self.topics.get(name).filter(|held| held.id == id);
        held.ok_or_else(|| CatalogError::NoTopic { name: name.clone() })
    }

    /// Takes a change in.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::TopicCreated(entry) | Event::TopicAltered(entry) => {
                self.remove_topic(&entry.name);
                self.names.insert(entry.id, entry.name.clone());
                self.topics.insert(entry.name.clone(), entry);
            }
            Event::TopicDeleted { name, id, partitions } => {
                if self.topics.get(&name).is_some_and(|held| held.id == id) {
                    self.remove_topic(&name);
                }
                self.tombstones.insert(id, Tombstone { name, id, partitions });
            }
            Event::TopicPurged { id } => {
                self.tombstones.remove(&id);
                self.routing.purge(id);
                self.groups.retain(|_, group| {
                    group.progress.forget_topic(id);
                    !group.is_nothing()
                });
                self.counts = GroupCounts::default();
                for group in self.groups.values() {
                    self.counts += group.counts();
                }
            }
            Event::ProducerIdsReserved { up_to } => self.producer_ids = up_to,
            Event::GroupDeclared(entry) => self.declare(entry),
            Event::GroupDeleted { name } => self.remove_group(&name),
            Event::PositionSet { place, position } => self.set_position(&place, position),
            Event::ChunkSet { place, number, chunk } => self.set_chunk(&place, number, chunk),
            Event::MemberSet { group, member, entry } => self.set_member(&group, member, entry),
            Event::ClassicSet { group, entry } => self.set_classic(group, entry),
            Event::RouteSet(entry) => self.routing.set(entry),
            Event::RouteDeleted { name } => self.routing.remove(&name),
            Event::RouteMoved { place, progress } => self.routing.moved(&place, progress),
            Event::RequestSet { id, entry: Some(entry) } => drop(self.requests.insert(id, entry)),
            Event::RequestSet { id, entry: None } => drop(self.requests.remove(&id)),
            Event::TransactionSet { id, entry: Some(entry) } => drop(self.transactions.insert(id, entry)),
            Event::TransactionSet { id, entry: None } => drop(self.transactions.remove(&id)),
            Event::PushSet(entry) => drop(self.pushes.insert(entry.name.clone(), entry)),
            Event::PushDeleted { name } => drop(self.pushes.remove(&name)),
            Event::GroupPaused { name, since_ms } => self.set_paused(name, since_ms),
            Event::ReceiptSet { place, entry: Some(entry) } => drop(self.receipts.insert(place, entry)),
            Event::ReceiptSet { place, entry: None } => drop(self.receipts.remove(&place)),
        }
    }

    fn remove_topic(&mut self, name: &TopicName) {
        if let Some(held) = self.topics.remove(name) {
            self.names.remove(&held.id);
        }
    }

    /// Takes in what a key of the journal or the view now holds.
    pub(super) fn apply_change(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EventError> {
        let key = Key::parse(key)?;
        let Some(value) = value else {
            match key {
                Key::Topic(name) => self.remove_topic(&name),
                Key::Deleted(id) => {
                    self.tombstones.remove(&id);
                }
                Key::ProducerIds => self.producer_ids = 0,
                Key::Group(name) => self.remove_group(&name),
                Key::Position(place) => self.set_position(&place, None),
                Key::Chunk(place, number) => self.set_chunk(&place, number, None),
                Key::Member(group, member) => self.set_member(&group, member, None),
                Key::Classic(group) => self.set_classic(group, None),
                Key::Route(name) => self.routing.remove(&name),
                Key::RoutePosition(place) => self.routing.moved(&place, None),
                Key::Request(id) => drop(self.requests.remove(&id)),
                Key::Transaction(id) => drop(self.transactions.remove(&id)),
                Key::Push(name) => drop(self.pushes.remove(&name)),
                Key::Receipt(place) => drop(self.receipts.remove(&place)),
                Key::Paused(name) => self.set_paused(name, None),
            }
            return Ok(());
        };
        let event = Event::decode(value)?;
        let found = event.key();
        if found != key.to_string() {
            return Err(EventError::malformed(format!("key {key} holds an event of {found}")));
        }
        self.apply(event);
        Ok(())
    }

    /// Everything that exists, as changes from nothing, one event's after the other's. Nobody needs all of them at once.
    pub(super) fn each_change<E: From<EventError>>(
        &self,
        mut take: impl FnMut(Vec<KeyChange>) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in self.topics.values() {
            take(Event::TopicAltered(entry.clone()).changes()?)?;
        }
        for Tombstone { name, id, partitions } in self.tombstones.values() {
            let deleted = Event::TopicDeleted { name: name.clone(), id: *id, partitions: *partitions };
            // Of the two, only what is there now: the name may be in use again.
            take(deleted.changes()?.into_iter().filter(|(_, value)| value.is_some()).collect())?;
        }
        if self.producer_ids != 0 {
            take(Event::ProducerIdsReserved { up_to: self.producer_ids }.changes()?)?;
        }
        take(self.routing.changes()?)?;
        for (name, group) in &self.groups {
            if let Some(entry) = &group.entry {
                take(Event::GroupDeclared(entry.clone()).changes()?)?;
            }
            for (member, entry) in group.members.iter().flat_map(|members| &**members) {
                let (group, member, entry) = (name.clone(), member.clone(), Some(entry.clone()));
                take(Event::MemberSet { group, member, entry }.changes()?)?;
            }
            if let Some(entry) = group.classic.as_deref().cloned() {
                take(Event::ClassicSet { group: name.clone(), entry: Some(entry) }.changes()?)?;
            }
            for ((topic, partition), kept) in group.progress.iter() {
                let place = Place { group: name.clone(), topic, partition };
                if let Some(position) = kept.position() {
                    let event = Event::PositionSet { place: place.clone(), position: Some(position.into()) };
                    take(event.changes()?)?;
                }
                for (number, chunk) in kept.chunks() {
                    let (place, chunk) = (place.clone(), Some(chunk.clone()));
                    take(Event::ChunkSet { place, number: *number, chunk }.changes()?)?;
                }
            }
        }
        for entry in self.requests.values() {
            take(Event::RequestSet { id: entry.id.clone(), entry: Some(entry.clone()) }.changes()?)?;
        }
        for entry in self.transactions.values() {
            take(Event::TransactionSet { id: entry.id.clone(), entry: Some(entry.clone()) }.changes()?)?;
        }
        for entry in self.pushes.values() {
            take(Event::PushSet(entry.clone()).changes()?)?;
        }
        for (name, since_ms) in &self.paused {
            let (name, since_ms) = (name.clone(), Some(*since_ms));
            take(Event::GroupPaused { name, since_ms }.changes()?)?;
        }
        for entry in self.receipts.values() {
            take(Event::ReceiptSet { place: entry.place.clone(), entry: Some(entry.clone()) }.changes()?)?;
        }
        Ok(())
    }

    /// [`State::each_change`], all at once.
    pub(super) fn changes(&self) -> Result<Vec<KeyChange>, EventError> {
        let mut all = Vec::new();
        self.each_change(|changes| {
            all.extend(changes);
            Ok::<_, EventError>(())
        })?;
        Ok(all)
    }
}

fn check_partitions(entry: &TopicEntry) -> Result<(), CatalogError> {
    if (1..=limits::PARTITIONS_PER_TOPIC).contains(&entry.partitions) {
        return Ok(());
    }
    Err(CatalogError::Invalid {
        what: format!(
            "topic '{}' with {} partitions; allowed are 1 to {}",
            entry.name,
            entry.partitions,
            limits::PARTITIONS_PER_TOPIC
        ),
    })
}
