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
use super::mark::{Mark, ROUND};

/// A route that is applied.
pub(crate) struct ActiveRoute {
    pub(super) entry: Mutex<RouteEntry>,
    pub(super) route: Mutex<Arc<Route>>,
    pub(super) readings: Mutex<BTreeMap<(TopicId, PartitionId), Arc<Reading>>>,
    /// It is being changed: until that is done no runner is started.
    pub(super) changing: AtomicBool,
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
    /// What lay in logs at or above the kept position when it was looked up, until a position above it is kept.
    pub(super) found: Vec<Found>,
}

/// An output that was found in a log, the last one there.
pub(super) struct Found {
    pub(super) topic: TopicId,
    pub(super) mark: Mark,
    /// `None` of a partition that is offline: the mark is then the highest that may lie there.
    pub(super) _hold: Option<Hold>,
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

    /// Whether some of what is made of the records at the position may lie in a log, and some not.
    pub(super) fn is_half_written(&self) -> bool {
        self.begun || self.has_left_over()
    }

    /// As [`Inside::is_half_written`], in this topic.
    pub(super) fn is_half_written_to(&self, topic: TopicId) -> bool {
        self.writing.keys().any(|(id, _)| *id == topic)
            || self.found.iter().any(|found| found.topic == topic && !is_passed(&self.progress, found.mark))
    }

    /// Whether something was found that was half written before this server or this runner began.
    pub(super) fn has_left_over(&self) -> bool {
        self.found.iter().any(|found| !is_passed(&self.progress, found.mark))
    }

    /// The end of the records that are half written, as far as they were found.
    pub(super) fn left_over_end(&self) -> Offset {
        let found = self.found.iter().filter(|found| !is_passed(&self.progress, found.mark));
        found.map(|found| found.mark.offset.saturating_add(1)).max().unwrap_or(0)
    }

    /// What need not be held any more once the position of now is kept.
    pub(super) fn take_held(&mut self) -> Held {
        let Self { progress, found, .. } = self;
        let found = found.extract_if(.., |found| is_passed(progress, found.mark)).collect();
        Held { written: std::mem::take(&mut self.written), found }
    }

    /// The position could not be kept.
    pub(super) fn hold_again(&mut self, held: Held) {
        self.written.extend(held.written);
        self.found.extend(held.found);
    }
}

/// Whether a position says that this output is durable, and so are all before it.
fn is_passed(progress: &RouteProgress, mark: Mark) -> bool {
    if mark.offset >= progress.offset {
        return false;
    }
    // Dead letters of parts that have waited too long have marks right below the position at which that was decided.
    let given_up = Mark { offset: progress.offset - 1, output: u64::from(progress.rounds) * ROUND };
    progress.expired.is_empty() || mark < given_up
}

/// Partitions that are held until a position is kept.
pub(super) struct Held {
    written: HashMap<(TopicId, PartitionId), Hold>,
    found: Vec<Found>,
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
        // Without an identity it has written nothing.
        let surveyed = AtomicBool::new(progress.producer == 0);
        Self {
            place,
            topic,
            inside: Mutex::new(Inside { progress, ..Inside::default() }),
            noted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            runner: Mutex::default(),
            surveyed,
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
        let (entry, route) = (Mutex::new(entry), Mutex::new(Arc::new(route)));
        Self { entry, route, readings: Mutex::default(), changing: AtomicBool::new(false) }
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
