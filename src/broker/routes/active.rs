//! A route that is applied, and the partitions that it reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs, TopicId, TopicName};
use crate::catalog::{Event, RouteEntry, RoutePlace, RouteProgress};
use crate::route::{Route, RouteSpec};

use super::super::broker::lock;
use super::super::hold::Hold;
use super::super::partition::Topic;
use super::super::{Broker, BrokerError, NewTopic};
use super::mark::Mark;

/// A route that is applied.
pub(crate) struct ActiveRoute {
    pub(super) entry: Mutex<RouteEntry>,
    pub(super) route: Mutex<Arc<Route>>,
    pub(super) readings: Mutex<BTreeMap<(TopicId, PartitionId), Arc<Reading>>>,
}

/// A partition that a route reads.
pub(crate) struct Reading {
    pub(super) place: RoutePlace,
    pub(super) topic: TopicName,
    pub(super) inside: Mutex<Inside>,
    /// It is with the keeper.
    pub(super) noted: AtomicBool,
    /// The topic is gone, or the route doesn't read it any more.
    pub(super) closed: AtomicBool,
    pub(super) runner: Mutex<Option<Runner>>,
    /// It is known what the logs have beyond the kept position; until then nothing of them may be deleted.
    pub(super) surveyed: AtomicBool,
    /// What they had.
    pub(super) marks: Mutex<HashMap<(TopicId, PartitionId), Mark>>,
}

/// How far a reading is.
#[derive(Default)]
pub(super) struct Inside {
    /// What is durable where it belongs, though it may not have been kept yet.
    pub(super) progress: RouteProgress,
    /// Why it stands still, or stood still last.
    pub(super) trouble: Option<Trouble>,
    /// It stands still because of that.
    pub(super) stuck: bool,
    /// Some of what was made of the next records may have been written.
    pub(super) begun: bool,
    /// The partitions that it is being written to, held since before it was.
    pub(super) writing: HashMap<(TopicId, PartitionId), Hold>,
    /// Those that were written to since the position was kept.
    pub(super) written: HashMap<(TopicId, PartitionId), Hold>,
    /// Those in which something was found at the start that lies beyond the kept position: what it was made of.
    pub(super) found: Vec<(Offset, Hold)>,
}

impl Inside {
    /// What has been written since the position was kept is done with when this position is.
    pub(super) fn wrote(&mut self) {
        self.begun = false;
        for (at, hold) in self.writing.drain() {
            // Where one is held already, it is from further below.
            self.written.entry(at).or_insert(hold);
        }
    }

    /// What need not be held any more once the position of now is kept.
    pub(super) fn take_held(&mut self) -> Held {
        let offset = self.progress.offset;
        Held {
            written: std::mem::take(&mut self.written),
            found: self.found.extract_if(.., |(made_of, _)| *made_of < offset).collect(),
        }
    }

    /// The position could not be kept.
    pub(super) fn hold_again(&mut self, held: Held) {
        self.written.extend(held.written);
        self.found.extend(held.found);
    }
}

/// Partitions that are held until a position is kept.
pub(super) struct Held {
    written: HashMap<(TopicId, PartitionId), Hold>,
    found: Vec<(Offset, Hold)>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: TimestampMs,
    /// One line.
    pub message: String,
}

/// The task of a reading.
pub(super) struct Runner {
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Reading {
    pub(super) fn new(place: RoutePlace, topic: TopicName, progress: RouteProgress) -> Self {
        Self {
            place,
            topic,
            inside: Mutex::new(Inside { progress, ..Inside::default() }),
            noted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            runner: Mutex::default(),
            surveyed: AtomicBool::new(false),
            marks: Mutex::default(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn note_trouble(&self, at_ms: TimestampMs, message: String, stuck: bool) {
        let mut inside = lock(&self.inside);
        inside.trouble = Some(Trouble { at_ms, message });
        inside.stuck = stuck;
    }

    /// Asks its runner to stop, and gives it back to be waited for.
    pub(super) fn stop(&self) -> Option<tokio::task::JoinHandle<()>> {
        let runner = lock(&self.runner).take()?;
        runner.stop.send_replace(true);
        Some(runner.task)
    }
}

impl ActiveRoute {
    pub(super) fn new(entry: RouteEntry, route: Route) -> Self {
        Self { entry: Mutex::new(entry), route: Mutex::new(Arc::new(route)), readings: Mutex::default() }
    }

    pub(super) fn name(&self) -> TopicName {
        lock(&self.entry).name.clone()
    }

    pub(super) fn route(&self) -> Arc<Route> {
        Arc::clone(&lock(&self.route))
    }

    pub(super) fn readings(&self) -> Vec<Arc<Reading>> {
        lock(&self.readings).values().cloned().collect()
    }

    /// Takes the partitions of a topic in that are not there yet, each from what was kept, else from its beginning.
    pub(super) fn add(&self, broker: &Broker, topic: &Topic) {
        let name = self.name();
        let kept: BTreeMap<_, _> = {
            let catalog = lock(&broker.catalog);
            let of_topic = catalog.route_progress(&name).filter(|((id, _), _)| *id == topic.entry.id);
            of_topic.map(|(at, progress)| (*at, progress.clone())).collect()
        };
        let mut readings = lock(&self.readings);
        for number in 0..topic.entry.partitions {
            let at = (topic.entry.id, number);
            readings.entry(at).or_insert_with(|| {
                let place = RoutePlace { route: name.clone(), topic: at.0, partition: number };
                Arc::new(Reading::new(place, topic.entry.name.clone(), kept.get(&at).cloned().unwrap_or_default()))
            });
        }
    }

    /// Whether records may go to a topic that was computed: it is there, or was made by this route, or may be made now. Which it
    /// is stays the same when the same record is routed again.
    ///
    /// # Errors
    /// The journal's. Inside, that there are too many.
    pub(super) fn may_make(
        &self,
        broker: &Broker,
        topic: &TopicName,
        spec: &RouteSpec,
    ) -> Result<Result<(), String>, BrokerError> {
        if broker.topic(topic.as_str()).is_ok() {
            return Ok(Ok(()));
        }
        if lock(&self.entry).made.contains(topic) {
            return Ok(Ok(()));
        }
        if !spec.create_topics {
            return Ok(Err(format!("there is no topic '{topic}', and the route makes none")));
        }
        let _making = lock(&broker.routes.making);
        let mut noted = lock(&self.entry).clone();
        if noted.made.contains(topic) {
            return Ok(Ok(()));
        }
        if noted.made.len() >= spec.max_topics {
            let limit = spec.max_topics;
            return Ok(Err(format!("topic '{topic}' would be one more than the {limit} that the route may make")));
        }
        noted.made.push(topic.clone());
        // Noted before it is made: it counts from then on, whatever happens.
        lock(&broker.catalog).commit(Event::RouteSet(noted.clone()), broker.clock.now_ms())?;
        *lock(&self.entry) = noted;
        Ok(Ok(()))
    }

    /// Makes a topic that is not there.
    ///
    /// # Errors
    /// The route makes none; it cannot be made.
    pub(super) fn make(
        &self,
        broker: &Arc<Broker>,
        topic: &TopicName,
        spec: &RouteSpec,
    ) -> Result<Arc<Topic>, BrokerError> {
        if !spec.create_topics {
            let message = format!("there is no topic '{topic}', and route '{}' makes none", spec.name);
            return Err(BrokerError::new(ErrorKind::NotFound, message));
        }
        let new = NewTopic { name: topic.clone(), partitions: None, settings: Vec::new(), if_not_exists: true };
        broker.create(new).map(|(topic, _)| topic)
    }
}
