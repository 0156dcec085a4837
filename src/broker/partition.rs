//! Topics and partitions as they are open.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::{Condition, ErrorKind, Health, Offset, TimestampMs, TopicName};
use crate::catalog::{Durability, TopicEntry, TopicSettings};
use crate::log::{Committer, Compaction, LogConfig, LogError, LogHandle, LogObserver, PartitionLog, StableEnd};

use super::metrics::Metrics;
use super::scrub::DamageNotes;
use super::work::WorkKey;
use super::{BrokerError, PartitionDescription};

/// How often it is looked whether a sync has come.
const LOOK: Duration = Duration::from_millis(5);

/// An open topic. Altering it makes a new one over the same partitions.
pub(crate) struct Topic {
    pub(crate) entry: TopicEntry,
    pub(crate) settings: TopicSettings,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// An open partition, or why it could not be opened.
pub(crate) struct Partition {
    pub(crate) topic: TopicName,
    pub(crate) number: u32,
    /// For work on its batches that is nobody's in particular.
    pub(crate) work: WorkKey,
    log: Result<LogHandle, String>,
    stable: watch::Sender<Stable>,
    pub(super) damage_notes: Arc<DamageNotes>,
}

/// What readers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stable {
    pub(crate) end: Offset,
    /// No transaction is open below it.
    pub(crate) committed: Offset,
    /// The topic was deleted, or the broker stops.
    pub(crate) closed: bool,
}

impl Topic {
    pub(crate) fn partition(&self, number: u32) -> Result<&Arc<Partition>, BrokerError> {
        let partition = usize::try_from(number).ok().and_then(|number| self.partitions.get(number));
        partition.ok_or_else(|| BrokerError::no_partition(&self.entry.name, number, self.partitions.len() as u32))
    }
}

impl Partition {
    pub(crate) fn new(
        topic: &TopicName,
        number: u32,
        log: Result<PartitionLog, LogError>,
        committer: &Committer,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
        damage_notes: &Arc<DamageNotes>,
    ) -> Arc<Self> {
        let (end, committed) = log.as_ref().map_or((0, 0), |log| (log.stable_end(), log.committed_end()));
        let stable = watch::Sender::new(Stable { end, committed, closed: false });
        let observer = Arc::new(Observer {
            name: format!("{topic}/{number}"),
            stable: stable.clone(),
            metrics: Arc::clone(metrics),
            health: Arc::clone(health),
        });
        let log = log.map(|log| committer.manage(log, observer)).map_err(|error| error.to_string());
        let damage_notes = Arc::clone(damage_notes);
        Arc::new(Self { topic: topic.clone(), number, work: WorkKey::new(), log, stable, damage_notes })
    }

    /// The log, or why there is none.
    pub(crate) fn log(&self) -> Result<&LogHandle, BrokerError> {
        self.log.as_ref().map_err(|why| {
            let message = format!("topic '{}' partition {} is offline: {why}", self.topic, self.number);
            BrokerError::new(crate::base::ErrorKind::Damaged, message)
        })
    }

    pub(crate) fn error(&self, error: LogError) -> BrokerError {
        if let LogError::Damaged(damage) = &error {
            self.note_damage(damage);
        }
        BrokerError::of_log(&self.topic, self.number, error)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Stable> {
        self.stable.subscribe()
    }

    /// Waits until what is written below `end` is durable.
    ///
    /// # Errors
    /// The partition takes no writes, so it never will be.
    pub(crate) async fn synced(&self, end: Offset) -> Result<(), BrokerError> {
        let log = self.log()?;
        while log.with(|log| log.synced_end()) < end {
            if log.with(|log| log.poisoned().is_some()) {
                let message = format!("topic '{}' partition {}: a sync failed", self.topic, self.number);
                return Err(BrokerError::new(ErrorKind::Poisoned, message));
            }
            log.request_sync();
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Wakes all who wait for more.
    pub(crate) fn close_readers(&self) {
        self.stable.send_modify(|stable| stable.closed = true);
    }

    pub(crate) fn describe(&self, now_ms: TimestampMs) -> PartitionDescription {
        let offline = |why: &str| PartitionDescription {
            state: format!("offline: {why}"),
            ..PartitionDescription::empty(self.number)
        };
        let log = match &self.log {
            Ok(log) => log,
            Err(why) => return offline(why),
        };
        log.with(|log| {
            let (stats, cleaned) = (log.stats(), log.clean_state(Some(now_ms)));
            let state = match (log.poisoned(), log.damage().next()) {
                (Some(why), _) => format!("takes no writes: {why}"),
                (None, Some(known)) => known.damage.to_string(),
                (None, None) => "ok".to_owned(),
            };
            PartitionDescription {
                partition: self.number,
                log_start: log.start_offset(),
                stable_end: log.committed_end(),
                log_end: log.written_end(),
                bytes: stats.bytes,
                segments: stats.segments,
                newest_timestamp: stats.newest_timestamp,
                clean_bytes: cleaned.clean_bytes,
                dirty_bytes: cleaned.dirty_bytes,
                state,
            }
        })
    }
}

struct Observer {
    name: String,
    stable: watch::Sender<Stable>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl LogObserver for Observer {
    fn stable_end(&self, end: Offset, committed: Offset) {
        self.stable.send_if_modified(|stable| {
            let more = end > stable.end || committed > stable.committed;
            stable.end = stable.end.max(end);
            stable.committed = stable.committed.max(committed);
            more
        });
    }

    fn synced(&self, micros: u64, appends: usize) {
        self.metrics.sync_seconds.observe(micros as f64 / 1e6);
        self.metrics.sync_appends.observe(appends as f64);
    }

    fn sync_failed(&self) {
        self.metrics.sync_failures.inc();
        // At once; who looks at all partitions again and again sums up, and sees that it is over.
        self.health.set(Condition::Partitions, format!("{} takes no writes: a sync failed", self.name));
    }
}

/// The age that a segment reaches before it is closed because of it, whatever its topic says: else its files would be too many.
const LEAST_SEGMENT_MS: u64 = 1_000;

/// A topic's settings as its logs take them.
pub(crate) fn log_config(settings: &TopicSettings) -> LogConfig {
    LogConfig {
        segment_bytes: settings.segment_bytes.0,
        segment_ms: settings.segment_time.map(|time| time.0.max(LEAST_SEGMENT_MS)),
        retention_bytes: settings.retention_bytes.filter(|_| settings.cleanup.deletes()).map(|bytes| bytes.0),
        retention_ms: settings.retention_time.filter(|_| settings.cleanup.deletes()).map(|time| time.0),
        compaction: settings.cleanup.compacts().then_some(Compaction {
            delete_retention_ms: settings.delete_retention.0,
            min_lag_ms: settings.min_compaction_lag.0,
            dirty_permille: settings.min_dirty_ratio.0,
        }),
        max_batch_bytes: settings.max_message_bytes.as_usize(),
        stable: match settings.durability {
            Durability::Sync => StableEnd::Synced,
            Durability::Interval => StableEnd::Written,
        },
        ..LogConfig::default()
    }
}
