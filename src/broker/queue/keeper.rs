//! Keeps what groups have done: a thread that collects what has changed and commits it, many changes with one sync.
//!
//! What is acked is on the disk a few milliseconds later; who wants to be sure waits for it ([`Keeper::kept`]).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::base::{ErrorKind, Seldom, TimestampMs, guard};
use crate::catalog::{Event, Place, Position};

use super::super::broker::lock;
use super::super::{Broker, BrokerError};
use super::group::QueuePartition;
use super::machine::Keep;

/// How long what was acked may wait for more of it to share a sync.
const LINGER: Duration = Duration::from_millis(5);
/// The wait after a commit that failed.
const PAUSE: Duration = Duration::from_millis(200);

type Answer = oneshot::Sender<Result<(), BrokerError>>;

#[derive(Default)]
struct Work {
    dirty: Vec<Arc<QueuePartition>>,
    waiting: Vec<Answer>,
    /// There is something in [`super::super::groups`] that is ready to be kept.
    pending: bool,
    stop: bool,
}

/// Where changes are handed in.
#[derive(Default)]
pub(crate) struct Keeper {
    work: Mutex<Work>,
    more: Condvar,
    /// Bumped with every commit: something may be done now that was not.
    pub(crate) commits: watch::Sender<u64>,
    /// Held while changes are collected and committed; who replaces or deletes progress holds it too.
    pub(crate) keeping: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    told: Seldom,
}

impl Keeper {
    /// Notes that a partition has something to keep.
    pub(crate) fn note(&self, partition: &Arc<QueuePartition>) {
        if !partition.noted.swap(true, Ordering::AcqRel) {
            lock(&self.work).dirty.push(Arc::clone(partition));
            self.more.notify_all();
        }
    }

    /// Notes that groups have changes pending.
    pub(crate) fn note_pending(&self) {
        lock(&self.work).pending = true;
        self.more.notify_all();
    }

    /// Waits until everything that was noted so far is on the disk.
    ///
    /// # Errors
    /// The journal's; what was noted is tried again all the same.
    pub(crate) async fn kept(&self) -> Result<(), BrokerError> {
        let stopping = || BrokerError::new(ErrorKind::ShuttingDown, "the server is stopping");
        let (sender, receiver) = oneshot::channel();
        {
            let mut work = lock(&self.work);
            if work.stop {
                return Err(stopping());
            }
            work.waiting.push(sender);
        }
        self.more.notify_all();
        receiver.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Whether nothing is kept any more.
    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.work).stop
    }

    pub(crate) fn start(broker: &Arc<Broker>) -> Result<(), BrokerError> {
        let weak = Arc::downgrade(broker);
        let queues = Arc::clone(&broker.queues);
        let thread = guard::thread("tidelog-progress", 2 * 1024 * 1024, move || queues.keeper.run(&weak))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the progress thread: {error}")))?;
        *lock(&broker.queues.keeper.thread) = Some(thread);
        Ok(())
    }

    /// Commits what there is and ends the thread.
    pub(crate) fn stop(&self, broker: &Broker) {
        lock(&self.work).stop = true;
        self.more.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic in it has ended the process.
            let _ended = thread.join();
        }
        self.commit(broker);
    }

    fn run(&self, broker: &Weak<Broker>) {
        loop {
            let mut work = lock(&self.work);
            while work.dirty.is_empty() && !work.pending && work.waiting.is_empty() && !work.stop {
                work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
            if work.waiting.is_empty() && !work.stop {
                let waiting = |work: &mut Work| work.waiting.is_empty() && !work.stop;
                work = self.more.wait_timeout_while(work, LINGER, waiting).unwrap_or_else(PoisonError::into_inner).0;
            }
            if work.stop {
                return;
            }
            drop(work);
            let Some(broker) = broker.upgrade() else { return };
            if !self.commit(&broker) {
                // Only stopping cuts it short.
                let work = lock(&self.work);
                let _ = self.more.wait_timeout_while(work, PAUSE, |work| !work.stop);
            }
        }
    }

    fn commit(&self, broker: &Broker) -> bool {
        self.commit_with(broker, || (Vec::new(), ()), |(), _| ()).1.is_ok()
    }

    /// Keeps what changes together with events: all of it or nothing. `prepare` makes changes, and says the events; `then` is told
    /// whether they are kept, before anything else of the groups is.
    ///
    /// # Errors
    /// The journal's.
    pub(super) fn commit_with<T>(
        &self,
        broker: &Broker,
        prepare: impl FnOnce() -> (Vec<Event>, T),
        then: impl FnOnce(&T, bool),
    ) -> (T, Result<(), (ErrorKind, String)>) {
        let _keeping = lock(&self.keeping);
        let (more, prepared) = prepare();
        let (dirty, waiting) = {
            let mut work = lock(&self.work);
            work.pending = false;
            (std::mem::take(&mut work.dirty), std::mem::take(&mut work.waiting))
        };
        // What somebody waits for was put there before he began to wait.
        let pending = broker.groups.pending.snapshot();
        let now = broker.clock.now_ms();
        let mut events: Vec<Event> = pending.events().collect();
        let (mut taken, mut decided) = (Vec::new(), Vec::new());
        for event in &events {
            if let Event::PositionSet { place, position: Some(position) } = event {
                decided.extend(broker.receipts.decide_below(place, position.offset, now));
            }
        }
        for partition in dirty {
            partition.noted.store(false, Ordering::Release);
            if partition.is_closed() {
                continue;
            }
            let changes = {
                let mut machine = lock(&partition.machine);
                let changes = machine.take_changes(now);
                decided.extend(broker.receipts.decide_in(&partition.place, &machine, &changes, now));
                changes
            };
            let intent = lock(&partition.intent).clone();
            events.extend(changes.iter().map(|change| event_of(&partition.place, change, &intent, now)));
            taken.push((partition, changes));
        }
        events.extend(broker.receipts.events(&decided));
        events.extend(more);
        let nothing = events.is_empty();
        let result = if nothing { Ok(()) } else { lock(&broker.catalog).commit_all(events, now) };
        if result.is_ok() {
            broker.groups.pending.kept(&pending);
        }
        broker.receipts.committed(decided, result.is_ok());
        let failure = result.err().map(|error| {
            if let Some(left_out) = self.told.turn() {
                tracing::warn!(%error, left_out, "progress of groups cannot be kept; trying again");
            }
            for (partition, changes) in &taken {
                lock(&partition.machine).not_kept(changes);
                self.note(partition);
            }
            if !broker.groups.pending.is_empty() {
                self.note_pending();
            }
            (error.kind(), error.to_string())
        });
        then(&prepared, failure.is_none());
        for answer in waiting {
            let outcome = failure.clone().map_or(Ok(()), |(kind, message)| Err(BrokerError::new(kind, message)));
            // Who no longer waits need not know.
            let _ = answer.send(outcome);
        }
        // Who looks whenever something was committed would look for ever, as looking waits for a commit too.
        if !nothing {
            self.commits.send_modify(|commits| *commits += 1);
        }
        (prepared, failure.map_or(Ok(()), Err))
    }
}

/// A change as the journal has it.
pub(super) fn event_of(place: &Place, change: &Keep, metadata: &str, now: TimestampMs) -> Event {
    let place = place.clone();
    match change {
        Keep::Floor(offset) => {
            let position =
                Position { offset: *offset, metadata: metadata.to_owned(), time_ms: now, leader_epoch: None };
            Event::PositionSet { place, position: Some(position) }
        }
        Keep::Chunk(number, chunk) => Event::ChunkSet { place, number: *number, chunk: chunk.clone() },
    }
}
