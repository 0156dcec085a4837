//! A thread that looks whether the others get on, and never waits for a disk or a lock that is held while one is waited for.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::{Condition, ErrorKind, PartitionId, TopicName, guard};

use super::broker::lock;
use super::{Broker, BrokerError};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(250);

/// Partitions are looked at every so many times.
const PARTITIONS_EVERY: u32 = 4;

/// How long an operation that the disk refused is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The thread.
pub(crate) struct Watcher {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(broker: &Arc<Broker>) -> Result<Self, BrokerError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (weak, signal) = (Arc::downgrade(broker), Arc::clone(&stop));
        let thread = guard::thread("tidelog-watch", 256 * 1024, move || run(&weak, &signal))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the watching thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) {
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        // A panic in it has ended the process.
        let _ended = self.thread.join();
    }
}

fn run(broker: &Weak<Broker>, signal: &(Mutex<bool>, Condvar)) {
    let mut broken = HashSet::new();
    for round in 0u32.. {
        let stop = lock(&signal.0);
        let (stop, _) = signal.1.wait_timeout_while(stop, EVERY, |stop| !*stop).unwrap_or_else(PoisonError::into_inner);
        if *stop {
            return;
        }
        drop(stop);
        let Some(broker) = broker.upgrade() else { return };
        broker.look_at_disk();
        if round.is_multiple_of(2) && broker.committer.relieve() > 0 {
            tracing::debug!("all commit threads wait for the disk: more were started");
        }
        if round.is_multiple_of(PARTITIONS_EVERY) {
            broker.look_at_partitions(&mut broken);
        }
    }
}

impl Broker {
    fn look_at_disk(&self) {
        let patience = self.config.disk_patience.as_duration();
        match self.watch.oldest().filter(|oldest| oldest.age >= patience) {
            Some(oldest) => {
                // In steps, so that a reason that only grows older is told now and then.
                let mut age = patience.as_secs().max(1);
                while age * 2 <= oldest.age.as_secs() {
                    age *= 2;
                }
                let (what, path) = (oldest.what, oldest.path.display());
                let reason = format!(
                    "the disk does not answer: {what} of {path} has not returned for more than {age} s, with {} other \
                     operations under way",
                    oldest.others
                );
                self.health.set(Condition::DiskHung, reason);
            }
            None => self.health.clear(Condition::DiskHung),
        }
        match self.watch.refused(REFUSED_FOR) {
            (_, Some(last)) => self.health.set(Condition::DiskErrors, format!("the disk refuses operations: {last}")),
            (_, None) => self.health.clear(Condition::DiskErrors),
        }
    }

    /// Partitions that take no writes. Those that are poisoned are opened anew when somebody writes; here somebody asks for it,
    /// since nobody writes to a server that is not ready.
    fn look_at_partitions(&self, broken: &mut HashSet<(TopicName, PartitionId)>) {
        let (mut now, mut first) = (HashSet::new(), None);
        for partition in self.all_topics().iter().flat_map(|topic| topic.partitions.iter()) {
            let key = (partition.topic.clone(), partition.number);
            let state = match partition.log() {
                Err(error) => Some(error.to_string()),
                Ok(log) => match log.try_with(|log| log.poisoned().map(|why| format!("takes no writes: {why}"))) {
                    // Somebody is at work on it, perhaps the one who opens it anew.
                    None if broken.contains(&key) => Some("is being opened anew".to_owned()),
                    None => None,
                    Some(state) => {
                        if state.is_some() {
                            log.request_sync();
                        }
                        state
                    }
                },
            };
            if let Some(state) = state {
                first.get_or_insert_with(|| format!("{}/{}: {state}", partition.topic, partition.number));
                now.insert(key);
            }
        }
        match first {
            Some(first) => {
                let count = now.len();
                let reason = format!("{count} partitions are not in order, the first is {first}");
                self.health.set(Condition::Partitions, reason);
            }
            None => self.health.clear(Condition::Partitions),
        }
        *broken = now;
    }
}
