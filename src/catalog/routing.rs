//! What is durable of routes: what they are, and how far each has come in each partition that it reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{Offset, PartitionId, ProducerId, TimestampMs, TopicId, TopicName};

use super::event::{Event, EventError, Key, KeyChange};

/// A route, as it was applied last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// Its name.
    pub name: TopicName,
    /// Its declaration, as a file with this one route.
    pub definition: String,
    /// Counts its declarations, from 1.
    pub version: u32,
    /// It stands still.
    pub paused: bool,
    /// Topics that were made because a destination was computed.
    pub made: Vec<TopicName>,
    /// When it was first applied, in milliseconds since the Unix epoch.
    pub created_ms: TimestampMs,
    /// When it was last changed.
    pub changed_ms: TimestampMs,
}

/// A partition that a route reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoutePlace {
    /// The route.
    pub route: TopicName,
    /// The incarnation of the topic that it reads.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
}

/// How far a route has come in a partition: the effects of everything below the offset, but the parts that wait, are durable
/// where they belong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteProgress {
    /// Its identity as a producer, while it is reading this log for this time: a reset begins with another.
    pub producer: ProducerId,
    /// The next record that is not routed.
    pub offset: Offset,
    /// Offsets below that one of parts that wait for others, and when the first part of each whole came.
    pub open: Vec<(Offset, TimestampMs)>,
    /// Offsets of parts that have waited too long: they are to be dead letters before anything else.
    pub expired: Vec<Offset>,
    /// Counts how often parts have waited too long.
    pub rounds: u32,
    /// What it has done.
    pub counts: RouteCounts,
}

/// What a route has done in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// Records read.
    pub read: u64,
    /// Parts, or whole records, that no condition wanted.
    pub unwanted: u64,
    /// Records that are dead letters.
    pub failed: u64,
    /// The version of the declaration that `by_rule` counts for.
    pub version: u32,
    /// Records sent by each destination, `otherwise` behind them, then the tap.
    pub by_rule: Vec<u64>,
}

/// A route and its progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct RouteState {
    /// `None` while only its progress was read, which the view holds before the route itself.
    entry: Option<RouteEntry>,
    progress: BTreeMap<(TopicId, PartitionId), RouteProgress>,
}

/// All routes. Applying is total and idempotent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Routing {
    routes: BTreeMap<TopicName, RouteState>,
}

impl Routing {
    pub(super) fn entries(&self) -> impl Iterator<Item = &RouteEntry> {
        self.routes.values().filter_map(|route| route.entry.as_ref())
    }

    pub(super) fn entry(&self, name: &TopicName) -> Option<&RouteEntry> {
        self.routes.get(name)?.entry.as_ref()
    }

    pub(super) fn progress(
        &self,
        name: &TopicName,
    ) -> impl Iterator<Item = (&(TopicId, PartitionId), &RouteProgress)> + use<'_> {
        self.routes.get(name).into_iter().flat_map(|route| &route.progress)
    }

    pub(super) fn set(&mut self, entry: RouteEntry) {
        let name = entry.name.clone();
        self.routes.entry(name).or_default().entry = Some(entry);
    }

    pub(super) fn remove(&mut self, name: &TopicName) {
        self.routes.remove(name);
    }

    pub(super) fn moved(&mut self, place: &RoutePlace, progress: Option<RouteProgress>) {
        let route = self.routes.entry(place.route.clone()).or_default();
        let at = (place.topic, place.partition);
        match progress {
            Some(progress) => drop(route.progress.insert(at, progress)),
            None => drop(route.progress.remove(&at)),
        }
        if route.entry.is_none() && route.progress.is_empty() {
            self.routes.remove(&place.route);
        }
    }

    /// Progress in a topic whose files are gone is of no use.
    pub(super) fn purge(&mut self, topic: TopicId) {
        self.routes.retain(|_, route| {
            route.progress.retain(|(id, _), _| *id != topic);
            route.entry.is_some() || !route.progress.is_empty()
        });
    }

    /// The keys of a route's progress.
    pub(super) fn keys_of(&self, name: &TopicName) -> Vec<KeyChange> {
        let place = |(topic, partition): &(TopicId, PartitionId)| RoutePlace {
            route: name.clone(),
            topic: *topic,
            partition: *partition,
        };
        self.progress(name).map(|(at, _)| (Key::RoutePosition(place(at)).to_string(), None)).collect()
    }

    /// The keys of the progress of all routes in a topic.
    pub(super) fn keys_in(&self, topic: TopicId) -> Vec<KeyChange> {
        let mut keys = Vec::new();
        for (name, route) in &self.routes {
            for (topic, partition) in route.progress.range((topic, 0)..=(topic, PartitionId::MAX)).map(|(at, _)| at) {
                let place = RoutePlace { route: name.clone(), topic: *topic, partition: *partition };
                keys.push((Key::RoutePosition(place).to_string(), None));
            }
        }
        keys
    }

    /// All of it, as changes from nothing.
    pub(super) fn changes(&self) -> Result<Vec<KeyChange>, EventError> {
        let mut changes = Vec::new();
        for (name, route) in &self.routes {
            if let Some(entry) = &route.entry {
                changes.extend(Event::RouteSet(entry.clone()).changes()?);
            }
            for ((topic, partition), progress) in &route.progress {
                let place = RoutePlace { route: name.clone(), topic: *topic, partition: *partition };
                changes.extend(Event::RouteMoved { place, progress: Some(progress.clone()) }.changes()?);
            }
        }
        Ok(changes)
    }
}
