//! Routes at work: each partition that a route reads has a task, which reads, evaluates, writes and moves on.
//!
//! **Exactly once.** Everything that a route makes of one source partition is written with one producer identity, bound to that
//! partition and to this reading of it. To each destination partition the outputs go in the order of their *marks* (offset of the
//! source record, number of the output), and the log takes a batch only if its sequence follows the producer's last one. So what
//! a log has of them is always the first so many of those that belong there, and its last record says how many. A position
//! is saved after everything below it is durable. After a crash the records from the saved position on are routed again, to
//! the same outputs, and of these each destination partition gets those above the mark of the last one that it has.
//!
//! [`evaluator`] computes, [`writer`] writes, [`mark`] finds out what is there, [`runner`] is the task, [`keeper`] saves positions,
//! [`active`] is a route with its partitions, [`admin`] what people do with routes.

mod active;
mod admin;
mod evaluator;
mod keeper;
mod mark;
mod runner;
mod settle;
#[cfg(test)]
mod tests;
mod trace;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{RwLock, Semaphore, watch};

use crate::base::{ErrorKind, TopicId, TopicName};
use crate::route::{self, Route, RouteSpec};

use super::broker::lock;
use super::partition::Topic;
use super::task;
use super::{Broker, BrokerError};

pub(crate) use active::ActiveRoute;
pub use active::Trouble;
use active::{Reading, Runner};
pub use admin::{
    Applied, ApplyOptions, Change, ChangeKind, ResetPoint, RouteDescription, RoutePartition, RouteSummary, StartPoint,
};
use keeper::Keeper;
pub(crate) use settle::TopicChange;
pub use trace::Trace;

/// The routes that are applied.
pub(crate) struct Routes {
    active: Mutex<BTreeMap<TopicName, Arc<ActiveRoute>>>,
    keeper: Keeper,
    /// Held while routes are changed.
    changing: tokio::sync::Mutex<()>,
    /// Held while a topic is noted as made by a route.
    making: Mutex<()>,
    /// Held for reading while outputs are written, for writing while a topic gets more partitions.
    gate: Arc<RwLock<()>>,
    /// How often topics got more partitions.
    epoch: AtomicU64,
    /// Evaluations at a time.
    evaluating: Arc<Semaphore>,
    started: AtomicBool,
    /// All that were applied are in the table.
    in_use: AtomicBool,
    stopping: AtomicBool,
}

impl Default for Routes {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            active: Mutex::default(),
            keeper: Keeper::default(),
            changing: tokio::sync::Mutex::default(),
            making: Mutex::default(),
            gate: Arc::default(),
            epoch: AtomicU64::new(0),
            evaluating: Arc::new(Semaphore::new(processors)),
            started: AtomicBool::new(false),
            in_use: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Routes {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn all(&self) -> Vec<Arc<ActiveRoute>> {
        lock(&self.active).values().cloned().collect()
    }

    fn get(&self, name: &TopicName) -> Result<Arc<ActiveRoute>, BrokerError> {
        let found = lock(&self.active).get(name).cloned();
        found.ok_or_else(|| BrokerError::new(ErrorKind::NotFound, format!("there is no route '{name}'")))
    }

    /// Whether it is known of everything that routes may have written when the server was killed.
    fn know_what_is_written(&self) -> bool {
        let known = |reading: &Arc<Reading>| reading.surveyed.load(Ordering::Acquire);
        self.all().iter().all(|active| active.readings().iter().all(known))
    }

    /// A topic was created or has more partitions: routes that read it begin with it at its beginning.
    pub(crate) fn welcome(&self, broker: &Arc<Broker>, topic: &Topic) {
        for active in self.all() {
            if active.route().spec().reads(&topic.entry.name) {
                active.add(broker, topic);
                broker.run_route(&active);
            }
        }
    }

    /// A topic is gone.
    pub(crate) fn forget(&self, topic: TopicId) {
        for active in self.all() {
            lock(&active.readings).retain(|(id, _), reading| {
                if *id == topic {
                    reading.closed.store(true, Ordering::Release);
                    reading.stop();
                }
                *id != topic
            });
        }
    }
}

impl Broker {
    /// Whether it is known of everything that routes may have written when the server was killed; before that nothing may be
    /// deleted from any log.
    pub(crate) fn know_what_routes_wrote(&self) -> bool {
        // Before they are taken into use there are none in the table.
        let in_use = || self.routes.in_use.load(Ordering::Acquire) || lock(&self.catalog).routes().next().is_none();
        in_use() && self.routes.know_what_is_written()
    }

    /// Takes the routes that were applied into use. Within a runtime, once, before records come in.
    pub fn start_routes(self: &Arc<Self>) {
        if self.routes.started.swap(true, Ordering::AcqRel) {
            return;
        }
        task::spawn("positions of routes", Keeper::run(Arc::downgrade(self)));
        let entries: Vec<_> = lock(&self.catalog).routes().cloned().collect();
        for entry in entries {
            let compiled = route::read(&entry.definition)
                .map_err(|mistakes| mistakes.first().map_or_else(String::new, ToString::to_string))
                .and_then(|specs| specs.into_iter().next().ok_or_else(|| "it is empty".to_owned()))
                .and_then(|spec: RouteSpec| Route::compile(&spec));
            match compiled {
                Ok(route) => {
                    let active = Arc::new(ActiveRoute::new(entry.clone(), route));
                    for topic in self.topics_read_by(active.route().spec()) {
                        active.add(self, &topic);
                    }
                    lock(&self.routes.active).insert(entry.name, Arc::clone(&active));
                    self.run_route(&active);
                }
                // Written by another version, which had it checked.
                Err(error) => tracing::error!(route = %entry.name, error, "cannot be taken into use"),
            }
        }
        self.routes.in_use.store(true, Ordering::Release);
    }

    fn topics_read_by(&self, spec: &RouteSpec) -> Vec<Arc<Topic>> {
        let topics = self.topics.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        topics.values().filter(|topic| spec.reads(&topic.entry.name)).cloned().collect()
    }

    /// Every partition of a route has a runner; if the route is paused, those have one of which something may be half written.
    fn run_route(self: &Arc<Self>, active: &Arc<ActiveRoute>) {
        if self.routes.stopping.load(Ordering::Acquire) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        for reading in active.readings() {
            let mut held = lock(&reading.runner);
            // Looked at under the lock: whoever changes the route stops the runners after it has said so.
            if active.changing.load(Ordering::Acquire) {
                return;
            }
            let paused = lock(&active.entry).paused;
            let settled = || reading.surveyed.load(Ordering::Acquire) && !lock(&reading.inside).is_half_written();
            if held.is_none() && !(paused && settled()) {
                let (stop, stopping) = watch::channel(false);
                let (broker, active, reading) = (Arc::clone(self), Arc::clone(active), Arc::clone(&reading));
                let task = task::spawn("route", runner::run(broker, active, reading, stopping));
                *held = Some(Runner { stop, task });
            }
        }
    }
}
