//! Compaction of topics with `cleanup=compact`, and of the journal, by a thread of their own: one log at a time, so the
//! memory for keys is needed once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::{ErrorKind, TimestampMs, guard, limits};
use crate::catalog::compact_journal;
use crate::log::{CleanLimits, Cleaned, LogError};

use super::broker::lock;
use super::partition::Partition;
use super::{Broker, BrokerError};

/// A log that could not be compacted is left alone for so long, and twice as long each further time, up to the longest.
const PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The thread that does it.
pub(crate) struct Compaction {
    signal: Arc<Signal>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Signal {
    /// Asked for by the run under way, once a batch.
    stop: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

/// Logs that could not be compacted: until when they are left alone, and for how long that was.
type Failed = HashMap<PathBuf, (Instant, Duration)>;

impl Compaction {
    pub(crate) fn start(broker: &Arc<Broker>) -> Result<Self, BrokerError> {
        let signal = Arc::new(Signal::default());
        let (weak, own) = (Arc::downgrade(broker), Arc::clone(&signal));
        let every = broker.config.compaction_check.as_duration();
        let thread = guard::thread("tidelog-compact", 512 * 1024, move || run(&weak, &own, every))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the compaction thread: {error}")))?;
        Ok(Self { signal, thread })
    }

    /// Ends a run under way between two batches, and the thread.
    pub(crate) fn stop(self) {
        self.signal.stop.store(true, Ordering::Release);
        drop(lock(&self.signal.lock));
        self.signal.changed.notify_all();
        // A panic in it has ended the process.
        let _ended = self.thread.join();
    }
}

fn run(broker: &Weak<Broker>, signal: &Signal, every: Duration) {
    let mut failed = Failed::new();
    loop {
        let waiting = |_: &mut ()| !signal.stop.load(Ordering::Acquire);
        let guard = lock(&signal.lock);
        drop(signal.changed.wait_timeout_while(guard, every, waiting).unwrap_or_else(PoisonError::into_inner));
        let Some(broker) = broker.upgrade().filter(|_| !signal.stop.load(Ordering::Acquire)) else { return };
        // It makes room by taking some first, and what is left of the reserve is not for that.
        if broker.storage.is_spent() {
            continue;
        }
        // What is held for it is not compacted.
        broker.settle_again();
        let limits = CleanLimits {
            key_bytes: limits::COMPACTION_KEY_BYTES,
            // Not to be guessed by whoever chooses keys.
            secret: uuid::Uuid::new_v4().as_u128(),
        };
        // Nobody reads the journal late, so no harm can come of a clock that is wrong.
        let now = broker.clock.now_ms();
        let journal = broker.dir.journal_dir();
        attempt(&broker, &mut failed, &journal, "the journal", || {
            compact_journal(&broker.catalog, &signal.stop, limits, now)
        });
        // A horizon that is set by a doubted clock stays wrong.
        if broker.clock.is_doubted() {
            continue;
        }
        let now = broker.clock.final_ms();
        for partition in due(&broker, now) {
            let Ok(log) = partition.log() else { continue };
            let name = format!("topic '{}' partition {}", partition.topic, partition.number);
            let folder = log.with(|log| log.dir().to_owned());
            attempt(&broker, &mut failed, &folder, &name, || log.clean(limits, now, &signal.stop));
            if signal.stop.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

/// What is to be compacted, that with the most to gain first.
fn due(broker: &Broker, now: TimestampMs) -> Vec<Arc<Partition>> {
    let topics: Vec<_> = broker.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let compacted = topics.iter().filter(|topic| topic.settings.cleanup.compacts());
    let mut due: Vec<_> = compacted
        .flat_map(|topic| &topic.partitions)
        .filter_map(|partition| {
            let state = partition.log().ok()?.with(|log| log.clean_state(Some(now)));
            state.due.then(|| (state.dirty_bytes, Arc::clone(partition)))
        })
        .collect();
    due.sort_by_key(|(dirty, _)| std::cmp::Reverse(*dirty));
    due.into_iter().map(|(_, partition)| partition).collect()
}

/// Compacts one log, unless it failed lately, and tells what came of it.
fn attempt(
    broker: &Broker,
    failed: &mut Failed,
    folder: &std::path::Path,
    name: &str,
    work: impl FnOnce() -> Result<Option<Cleaned>, LogError>,
) {
    let began = Instant::now();
    if failed.get(folder).is_some_and(|(until, _)| began < *until) {
        return;
    }
    match work() {
        Ok(None) => {}
        // It was stopped, or the log is being deleted.
        Err(LogError::Closed) => {}
        Ok(Some(cleaned)) => {
            failed.remove(folder);
            broker.metrics.compacted(&cleaned, began.elapsed());
            tracing::info!(
                log = name,
                took_ms = began.elapsed().as_millis() as u64,
                records_removed = cleaned.removed_records,
                bytes_before = cleaned.replaced_bytes,
                bytes_after = cleaned.made_bytes,
                segments_before = cleaned.replaced_segments,
                segments_after = cleaned.made_segments,
                "compacted"
            );
        }
        Err(error) => {
            broker.metrics.compaction_failures.inc();
            let pause = failed.get(folder).map_or(PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
            failed.insert(folder.to_owned(), (Instant::now() + pause, pause));
            tracing::warn!(log = name, %error, retry_s = pause.as_secs(), "cannot be compacted; nothing is lost by it");
        }
    }
}
