//! What exists, in memory. Pure: events in, no time, no files.

use std::collections::{BTreeMap, HashMap};

use crate::base::{TopicId, TopicName, limits};

use super::CatalogError;
use super::event::{Event, EventError, Key, KeyChange, Tombstone, TopicEntry};

/// What exists. Applying is total and idempotent; whether a change makes sense is asked before it is journalled, with
/// [`State::check`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    topics: BTreeMap<TopicName, TopicEntry>,
    names: HashMap<TopicId, TopicName>,
    tombstones: BTreeMap<TopicId, Tombstone>,
    /// Producer ids below this may be in use.
    producer_ids: i64,
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
            Event::ProducerIdsReserved { .. } => Ok(()),
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
            }
            Event::ProducerIdsReserved { up_to } => self.producer_ids = up_to,
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

    /// Everything that exists, as changes from nothing.
    pub(super) fn changes(&self) -> Result<Vec<KeyChange>, EventError> {
        let mut changes = Vec::new();
        for entry in self.topics.values() {
            changes.extend(Event::TopicAltered(entry.clone()).changes()?);
        }
        for Tombstone { name, id, partitions } in self.tombstones.values() {
            let deleted = Event::TopicDeleted { name: name.clone(), id: *id, partitions: *partitions };
            // Of the two, only what is there now: the name may be in use again.
            changes.extend(deleted.changes()?.into_iter().filter(|(_, value)| value.is_some()));
        }
        if self.producer_ids != 0 {
            changes.extend(Event::ProducerIdsReserved { up_to: self.producer_ids }.changes()?);
        }
        Ok(changes)
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
