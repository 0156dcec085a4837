//! Changes that groups have said and the journal does not have yet. The newest of each key is all that is kept of them,
//! so there are never more than keys.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::base::GroupName;
use crate::catalog::Event;

use super::super::broker::lock;

/// The changes, by key.
#[derive(Default)]
pub(crate) struct Pending(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    said: u64,
    generation: u64,
    events: BTreeMap<String, (u64, Event)>,
}

/// Changes as they were when the keeper looked.
pub(crate) struct Snapshot(Vec<(u64, Event)>);

impl Snapshot {
    /// The changes, in the order in which they were said.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        self.0.iter().map(|(_, event)| event.clone())
    }
}

impl Pending {
    /// Adds changes that depend on nothing.
    pub(crate) fn put(&self, events: impl IntoIterator<Item = Event>) {
        lock(&self.0).put(events);
    }

    /// Counts how often changes have left here because they were kept.
    pub(crate) fn generation(&self) -> u64 {
        lock(&self.0).generation
    }

    /// Adds a change that depends on the one before it of the same key. `decide` is given that, `None` if it is not
    /// pending: then what the journal had since `generation` holds. `None` if that is no longer said.
    pub(crate) fn put_after<R>(
        &self,
        generation: u64,
        key: &str,
        decide: impl FnOnce(Option<&Event>) -> (Option<Event>, R),
    ) -> Option<R> {
        let mut inside = lock(&self.0);
        if inside.generation != generation {
            return None;
        }
        let (event, result) = decide(inside.events.get(key).map(|(_, event)| event));
        inside.put(event);
        Some(result)
    }

    /// How many changes there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).events.len()
    }

    /// Whether a change of this key waits to be kept.
    pub(crate) fn has(&self, key: &str) -> bool {
        lock(&self.0).events.contains_key(key)
    }

    /// Whether there are changes of a group.
    pub(crate) fn is_of(&self, group: &GroupName) -> bool {
        lock(&self.0).events.values().any(|(_, event)| match event {
            Event::PositionSet { place, .. } | Event::ChunkSet { place, .. } => place.group == *group,
            Event::MemberSet { group: of, .. } | Event::ClassicSet { group: of, .. } => of == group,
            _ => false,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).events.is_empty()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut events: Vec<_> = lock(&self.0).events.values().cloned().collect();
        events.sort_by_key(|(said, _)| *said);
        Snapshot(events)
    }

    /// These are durable now; what was said anew since then still waits.
    pub(crate) fn kept(&self, snapshot: &Snapshot) {
        let mut inside = lock(&self.0);
        inside.generation += 1;
        for (said, event) in &snapshot.0 {
            let key = event.key();
            if inside.events.get(&key).is_some_and(|(newest, _)| newest == said) {
                inside.events.remove(&key);
            }
        }
    }

    /// The group is gone, and with it all that it said.
    pub(crate) fn forget(&self, group: &GroupName) {
        lock(&self.0).events.retain(|_, (_, event)| match event {
            Event::PositionSet { place, .. } => place.group != *group,
            Event::MemberSet { group: of, .. } | Event::ClassicSet { group: of, .. } => of != group,
            _ => true,
        });
    }
}

impl Inside {
    fn put(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.said += 1;
            self.events.insert(event.key(), (self.said, event));
        }
    }
}
