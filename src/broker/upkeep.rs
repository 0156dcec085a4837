//! What happens by itself: syncs of topics with `durability=interval`, retention, and the end of members' sessions.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::{ErrorKind, guard};
use crate::catalog::Durability;

use super::broker::lock;
use super::clock::Keeping;
use super::partition::{Partition, Topic};
use super::stream::Streams;
use super::{Broker, BrokerError};

/// How often members are looked for whose session has ended.
const SESSIONS: Duration = Duration::from_millis(100);

/// The thread that does it.
pub(crate) struct Upkeep {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Upkeep {
    pub(crate) fn start(broker: &Arc<Broker>) -> Result<Self, BrokerError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (weak, signal) = (Arc::downgrade(broker), Arc::clone(&stop));
        let (every, retention) =
            (broker.config.sync_interval.as_duration(), broker.config.retention_check.as_duration());
        let thread = guard::thread("tidelog-upkeep", 256 * 1024, move || run(&weak, &signal, every, retention))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the upkeep thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) {
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        // A panic in it has ended the process.
        let _ended = self.thread.join();
    }
}

fn run(broker: &Weak<Broker>, signal: &(Mutex<bool>, Condvar), every: Duration, retention: Duration) {
    let mut keeping = Keeping::default();
    let (mut synced, mut retained) = (Instant::now(), Instant::now());
    loop {
        let stop = lock(&signal.0);
        let (stop, _) = signal.1.wait_timeout(stop, every.min(SESSIONS)).unwrap_or_else(PoisonError::into_inner);
        if *stop {
            return;
        }
        drop(stop);
        let Some(broker) = broker.upgrade() else { return };
        broker.tend_clock(&mut keeping);
        Streams::tick(&broker);
        broker.remove_expired_groups();
        if synced.elapsed() < every {
            continue;
        }
        synced = Instant::now();
        let topics: Vec<Arc<Topic>> =
            broker.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for topic in topics.iter().filter(|topic| topic.settings.durability == Durability::Interval) {
            for log in topic.partitions.iter().filter_map(|partition| partition.log().ok()) {
                if log.with(|log| log.is_dirty()) {
                    log.request_sync();
                }
            }
        }
        // What routes had written when the server was killed must be known before anything goes.
        if retained.elapsed() >= retention && broker.know_what_routes_wrote() {
            retained = Instant::now();
            broker.find_expired_groups(broker.clock.final_ms());
            broker.retain_now();
        }
    }
}

impl Broker {
    /// Deletes what is too old or too much.
    pub(crate) fn retain_now(&self) {
        let now = Some(self.clock.final_ms());
        for partition in self.all_topics().iter().flat_map(|topic| &topic.partitions) {
            retain(self, partition, now);
        }
    }
}

fn retain(broker: &Broker, partition: &Partition, now: Option<i64>) {
    let Ok(log) = partition.log() else { return };
    let (topic, number) = (&partition.topic, partition.number);
    match log.with(|log| log.begin_retain(now)) {
        Err(error) => tracing::warn!(%topic, partition = number, %error, "retention could not delete"),
        Ok(0) => {}
        Ok(gone) => {
            broker.metrics.retained.inc_by(gone as u64);
            tracing::info!(%topic, partition = number, segments = gone, "retention deleted segments");
        }
    }
    // Also those that were still read the last time.
    for segment in log.with(|log| log.take_unused()) {
        if let Err(error) = segment.remove(&broker.files) {
            tracing::warn!(%topic, partition = number, %error, "removed at the next start");
        }
    }
}
