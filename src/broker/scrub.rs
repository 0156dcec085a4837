//! Damage: what is known of it, and a thread that looks for it.
//!
//! The thread `tidelog-scrub` reads all sealed segments again at a bounded rate, the journal first, and begins anew when
//! `scrub_interval` has passed. It also makes durable what readers found, so that no reader waits for that.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::{Condition, ErrorKind, Health, Offset, PartitionId, TopicName, TrustedClock, guard};
use crate::log::{Damage, KnownDamage, LogError, ScrubPlan};

use super::broker::{blocking, lock};
use super::partition::{Partition, Topic};
use super::{Broker, BrokerError};

/// The wait before the first round after a start: recovery and clients that come back have the disk first.
const FIRST: Duration = Duration::from_secs(30);

/// The wait after a segment could not be read for a reason that is not damage.
const PAUSE: Duration = Duration::from_secs(60);

/// Damage in a partition, as [`Broker::damage`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDamage {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// What is damaged, since when, and whether an operator has seen it.
    pub known: KnownDamage,
}

/// Where partitions say that they know of damage that is not stored yet.
pub(crate) struct DamageNotes {
    clock: Arc<TrustedClock>,
    health: Arc<Health>,
    unstored: Mutex<BTreeSet<(TopicName, PartitionId)>>,
    stop: AtomicBool,
    changed: Condvar,
}

impl DamageNotes {
    /// Waits until there is something to store, to stop, or the time is over.
    fn wait(&self, time: Duration) -> BTreeSet<(TopicName, PartitionId)> {
        let idle = |unstored: &mut BTreeSet<_>| unstored.is_empty() && !self.is_stopped();
        let guard = lock(&self.unstored);
        let (mut guard, _) = self.changed.wait_timeout_while(guard, time, idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *guard)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// How far the scrubber has come.
#[derive(Debug, Default)]
pub(crate) struct ScrubProgress {
    /// Bytes that this round has to read, as of its beginning.
    pub(crate) round_bytes: AtomicU64,
    /// Bytes that this round has read.
    pub(crate) round_done: AtomicU64,
    /// Bytes read since the start.
    pub(crate) bytes: AtomicU64,
    /// Rounds finished since the start.
    pub(crate) rounds: AtomicU64,
}

/// Damage and the thread that looks for it.
pub(crate) struct Damages {
    notes: Arc<DamageNotes>,
    /// What is known of the journal; as in its own list, but to be read without waiting for the catalog.
    journal: Mutex<Vec<KnownDamage>>,
    pub(crate) progress: ScrubProgress,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Damages {
    pub(crate) fn new(journal: Vec<KnownDamage>, clock: &Arc<TrustedClock>, health: &Arc<Health>) -> Self {
        let notes = DamageNotes {
            clock: Arc::clone(clock),
            health: Arc::clone(health),
            unstored: Mutex::default(),
            stop: AtomicBool::new(false),
            changed: Condvar::new(),
        };
        let (notes, journal, progress) = (Arc::new(notes), Mutex::new(journal), ScrubProgress::default());
        Self { notes, journal, progress, thread: Mutex::default() }
    }

    pub(crate) fn notes(&self) -> &Arc<DamageNotes> {
        &self.notes
    }

    pub(crate) fn start(broker: &Arc<Broker>) -> Result<(), BrokerError> {
        let weak = Arc::downgrade(broker);
        broker.tell_of_damage();
        let run = move || Rounds { broker: weak, next_read: Instant::now() }.run();
        let thread = guard::thread("tidelog-scrub", 512 * 1024, run)
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the scrub thread: {error}")))?;
        *lock(&broker.damages.thread) = Some(thread);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.notes.stop.store(true, Ordering::Release);
        drop(lock(&self.notes.unstored));
        self.notes.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic in it has ended the process.
            let _ended = thread.join();
        }
    }
}

/// What the thread works on.
struct Rounds {
    broker: Weak<Broker>,
    /// When the next read may begin, by the rate.
    next_read: Instant,
}

/// Why the thread goes on to something else.
enum Ended {
    /// The broker stops, or is gone.
    Stopped,
    /// The disk's.
    Failed,
}

impl Rounds {
    fn run(mut self) {
        let Some(interval) = self.broker.upgrade().map(|broker| broker.config.scrub_interval.as_duration()) else {
            return;
        };
        let mut next = Instant::now() + FIRST.min(interval);
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            if !self.wait(wait) {
                return;
            }
            if Instant::now() < next {
                continue;
            }
            let Some(broker) = self.broker.upgrade() else { return };
            let (interval, enabled) = (broker.config.scrub_interval.as_duration(), broker.config.scrub_rate.0 > 0);
            drop(broker);
            let began = Instant::now();
            next = match enabled.then(|| self.round()) {
                None | Some(Ok(())) => began + interval,
                Some(Err(Ended::Failed)) => Instant::now() + PAUSE,
                Some(Err(Ended::Stopped)) => return,
            };
        }
    }

    /// Waits, and stores what is found meanwhile; `false` once the broker stops.
    fn wait(&self, time: Duration) -> bool {
        let Some(broker) = self.broker.upgrade() else { return false };
        let notes = Arc::clone(&broker.damages.notes);
        drop(broker);
        let unstored = notes.wait(time);
        if notes.is_stopped() {
            return false;
        }
        let Some(broker) = self.broker.upgrade() else { return false };
        for (topic, number) in unstored {
            let Ok(topic) = broker.topic(topic.as_str()) else { continue };
            let log = topic.partition(number).and_then(|partition| partition.log());
            if let Ok(log) = log
                && let Err(error) = log.with(|log| log.store_damage())
            {
                // It is found again after a restart.
                tracing::warn!(topic = %topic.entry.name, partition = number, %error, "cannot note damage");
            }
        }
        true
    }

    /// Reads everything once.
    fn round(&mut self) -> Result<(), Ended> {
        let broker = self.broker.upgrade().ok_or(Ended::Stopped)?;
        let partitions: Vec<Arc<Partition>> =
            broker.all_topics().iter().flat_map(|topic| topic.partitions.iter().cloned()).collect();
        let bytes = partitions.iter().filter_map(|partition| partition.log().ok());
        let bytes: u64 = bytes.map(|log| log.with(|log| log.sealed_bytes())).sum();
        broker.damages.progress.round_bytes.store(bytes, Ordering::Relaxed);
        broker.damages.progress.round_done.store(0, Ordering::Relaxed);
        drop(broker);
        self.journal()?;
        let mut failed = false;
        for partition in partitions {
            let mut after: Offset = 0;
            loop {
                let Ok(log) = partition.log() else { break };
                let Some(plan) = log.with(|log| log.plan_scrub(after)) else { break };
                after = plan.end();
                match self.read(&plan) {
                    Ok(damage) => {
                        damage.iter().for_each(|damage| partition.note_damage(damage));
                    }
                    Err(LogError::Closed) => return Err(Ended::Stopped),
                    Err(error) => {
                        tracing::warn!(topic = %partition.topic, partition = partition.number, %error, "cannot be scrubbed");
                        failed = true;
                        break;
                    }
                }
            }
        }
        if let Some(broker) = self.broker.upgrade() {
            broker.damages.progress.rounds.fetch_add(1, Ordering::Relaxed);
        }
        if failed { Err(Ended::Failed) } else { Ok(()) }
    }

    fn journal(&mut self) -> Result<(), Ended> {
        let mut after: Offset = 0;
        loop {
            let broker = self.broker.upgrade().ok_or(Ended::Stopped)?;
            let Some(plan) = lock(&broker.catalog).plan_scrub(after) else { return Ok(()) };
            drop(broker);
            after = plan.end();
            match self.read(&plan) {
                Ok(damage) => {
                    let broker = self.broker.upgrade().ok_or(Ended::Stopped)?;
                    for damage in damage {
                        broker.note_journal_damage(&damage);
                    }
                }
                Err(LogError::Closed) => return Err(Ended::Stopped),
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be scrubbed");
                    return Ok(());
                }
            }
        }
    }

    /// Reads one segment at the rate that is set.
    fn read(&mut self, plan: &ScrubPlan) -> Result<Vec<Damage>, LogError> {
        let rounds = &mut *self;
        plan.run(&mut |bytes| {
            let Some(broker) = rounds.broker.upgrade() else { return false };
            broker.damages.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            broker.damages.progress.round_done.fetch_add(bytes, Ordering::Relaxed);
            let rate = broker.config.scrub_rate.0.max(1);
            drop(broker);
            let now = Instant::now();
            // What was not used of the rate while something else was done is not made up for.
            rounds.next_read = rounds.next_read.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            loop {
                let left = rounds.next_read.saturating_duration_since(Instant::now());
                if !rounds.wait(left) {
                    return false;
                }
                if Instant::now() >= rounds.next_read {
                    return true;
                }
            }
        })
    }
}

impl Partition {
    /// Takes note of damage that was met, and says so once. Waits for no disk.
    pub(crate) fn note_damage(&self, damage: &Damage) {
        let Ok(log) = self.log() else { return };
        let now = self.damage_notes.clock.now_ms();
        if log.with(|log| log.note_damage(damage, now)) {
            tracing::error!(topic = %self.topic, partition = self.number, "acknowledged records are damaged: {damage}");
            self.damage_notes.health.set(Condition::Damage, unreadable(1, &self.topic, self.number, damage));
            lock(&self.damage_notes.unstored).insert((self.topic.clone(), self.number));
            self.damage_notes.changed.notify_all();
        }
    }
}

impl Broker {
    /// All damage that is known, by topic, partition and offset. Damage of the journal is not in it: see
    /// [`Broker::journal_damage`].
    pub async fn damage(self: &Arc<Self>) -> Vec<PartitionDamage> {
        let broker = Arc::clone(self);
        blocking(move || damage_of(&broker.all_topics())).await
    }

    /// Damage of the journal that was found in this run or an earlier one.
    pub fn journal_damage(&self) -> Vec<KnownDamage> {
        lock(&self.damages.journal).clone()
    }

    fn note_journal_damage(&self, damage: &Damage) {
        let mut catalog = lock(&self.catalog);
        match catalog.note_journal_damage(damage, self.clock.now_ms()) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::warn!(%error, "cannot note damage of the journal"),
        }
        *lock(&self.damages.journal) = catalog.journal_damage();
        drop(catalog);
        tracing::error!("the journal is damaged: {damage}; stop the server and run 'tidelog repair'");
        self.tell_of_damage();
    }

    /// Marks damage as seen by an operator: all of it, or that of a topic. The server is ready again then. Returns how many
    /// places were not acknowledged before.
    ///
    /// # Errors
    /// No such topic; the disk's, and then some may be acknowledged.
    pub async fn acknowledge_damage(self: &Arc<Self>, topic: Option<&str>) -> Result<usize, BrokerError> {
        let topics = match topic {
            Some(name) => vec![self.topic(name)?],
            None => self.all_topics(),
        };
        let (broker, journal_too) = (Arc::clone(self), topic.is_none());
        blocking(move || {
            let mut count = 0;
            if journal_too {
                let mut catalog = lock(&broker.catalog);
                count += catalog.acknowledge_journal_damage().map_err(crate::catalog::CatalogError::from)?;
                *lock(&broker.damages.journal) = catalog.journal_damage();
            }
            for partition in topics.iter().flat_map(|topic| &topic.partitions) {
                let Ok(log) = partition.log() else { continue };
                if log.with(|log| log.damage().next().is_some()) {
                    count += log.with(|log| log.acknowledge_damage()).map_err(|error| partition.error(error))?;
                }
            }
            broker.tell_of_damage();
            Ok(count)
        })
        .await
    }

    /// Begins or ends the condition by what no operator has acknowledged.
    fn tell_of_damage(&self) {
        match self.damage_to_acknowledge() {
            Some(reason) => self.health.set(Condition::Damage, reason),
            None => self.health.clear(Condition::Damage),
        }
    }

    /// One line on damage that no operator has acknowledged; `None` if there is none.
    fn damage_to_acknowledge(&self) -> Option<String> {
        if let Some(known) = lock(&self.damages.journal).iter().find(|known| !known.acknowledged) {
            return Some(format!("the journal: {}; stop the server and run 'tidelog repair'", known.damage));
        }
        let damage = damage_of(&self.all_topics());
        let mut open = damage.iter().filter(|damage| !damage.known.acknowledged);
        let first = open.next()?;
        Some(unreadable(1 + open.count(), &first.topic, first.partition, &first.known.damage))
    }
}

fn unreadable(places: usize, topic: &TopicName, partition: PartitionId, first: &Damage) -> String {
    let places = if places == 1 { "1 place".to_owned() } else { format!("{places} places") };
    format!(
        "acknowledged records cannot be read in {places}, the first in topic '{topic}' partition {partition}: {first}; see \
         'tidelog damage list'"
    )
}

pub(super) fn damage_of(topics: &[Arc<Topic>]) -> Vec<PartitionDamage> {
    let mut found = Vec::new();
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        let Ok(log) = partition.log() else { continue };
        let known = log.with(|log| log.damage().cloned().collect::<Vec<_>>());
        let of = |known| PartitionDamage { topic: partition.topic.clone(), partition: partition.number, known };
        found.extend(known.into_iter().map(of));
    }
    found
}
