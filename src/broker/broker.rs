//! Opening and closing the broker, and looking topics up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;

use crate::base::{Clock, ErrorKind, Health, ProducerEpoch, ProducerId, TopicId, TopicName, TrustedClock};
use crate::catalog::{Catalog, DataDir, Event, TopicEntry};
use crate::disk::{self, Disk, Watch, WatchedDisk};
use crate::log::{Committer, CommitterConfig, FileCache, LogError, PartitionLog};

use super::asked::Asked;
use super::classic::{Classics, Generations};
use super::clients::Client;
use super::compaction::Compaction;
use super::creations::Creations;
use super::groups::Groups;
use super::metrics::Metrics;
use super::partition::{Partition, Topic, log_config};
use super::push::Pushes;
use super::queue::{Keeper, Queues};
use super::receipts::Receipts;
use super::requests::{Durable, Live};
use super::room::Rooms;
use super::routes::Routes;
use super::scrub::Damages;
use super::storage::Storage;
use super::stream::Streams;
use super::transactions::Transactions;
use super::upkeep::Upkeep;
use super::watch::Watcher;
use super::work::{Portion, WorkKey, Workers};
use super::{BrokerConfig, BrokerError, Startup};

/// The broker: topics, and what can be done with them.
pub struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<TrustedClock>,
    pub(crate) dir: DataDir,
    pub(crate) files: Arc<FileCache>,
    pub(crate) committer: Committer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) storage: Storage,
    pub(crate) asked: Asked,
    /// Held while something is created, altered or deleted, so that these happen one at a time.
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) topics: RwLock<BTreeMap<TopicName, Arc<Topic>>>,
    /// The names of `topics` by their ids.
    pub(crate) names: RwLock<HashMap<TopicId, TopicName>>,
    /// Goes up when what topics there are changes.
    pub(crate) topics_version: watch::Sender<u64>,
    startup: Startup,
    /// When it was opened, by the monotonic and by the wall clock.
    pub(crate) opened: (u64, crate::base::TimestampMs),
    upkeep: Mutex<Option<Upkeep>>,
    compaction: Mutex<Option<Compaction>>,
    watcher: Mutex<Option<Watcher>>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) pushes: Pushes,
    pub(crate) routes: Arc<Routes>,
    pub(crate) groups: Groups,
    pub(crate) streams: Streams,
    pub(crate) classics: Classics,
    pub(crate) generations: Generations,
    pub(crate) live: Arc<Live>,
    pub(crate) requests: Arc<Durable>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) workers: Workers,
    /// For what readers of the server's own hold.
    pub(crate) rooms: Rooms,
    /// For looks at records that are soon over, so many at a time.
    pub(crate) passing: tokio::sync::Semaphore,
    /// For the callers that may append by themselves at a time.
    pub(crate) here: tokio::sync::Semaphore,
    pub(crate) damages: Damages,
    pub(crate) creations: Creations,
}

/// Callers that append by themselves at a time: each keeps a thread of the runtime from everything else.
const HERE: usize = 4;

/// Looks at records at a time, as redrives, receipts and routes have them.
const PASSING: usize = 8;

impl Broker {
    /// Opens a data directory: takes its lock, reads the catalog, recovers every partition. Blocks.
    ///
    /// # Errors
    /// The directory is in use, of a newer format or not one of ours; the journal is damaged; the disk's. A partition
    /// that cannot be opened does not prevent the others.
    pub fn open(config: BrokerConfig, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, BrokerError> {
        let began = std::time::Instant::now();
        let health = Arc::new(Health::new(Arc::clone(&clock)));
        let (disk, watch) = WatchedDisk::new(disk, &config.data_dir, config.storage_reserve.0);
        let disk: Arc<dyn Disk> = disk;
        let dir = DataDir::open(&disk, &config.data_dir, true)?;
        // Before anything is written: on a full disk the start needs the reserve.
        let storage = Storage::open(Arc::clone(&watch), Arc::clone(&health), config.storage_low_water.0);
        warn_of_modes(disk.as_ref(), &dir);
        let clock = Arc::new(TrustedClock::new(clock));
        let (mut catalog, found) = Catalog::open(Arc::clone(&disk), &dir, clock.now_ms())?;
        catalog.tell(Arc::clone(&health));
        let seen = (disk.as_ref(), dir.path.as_path());
        super::clock::begin(&clock, seen, catalog.newest_event_ms(), config.clock_quarantine, &health);
        let damages = Damages::new(catalog.journal_damage(), &clock, &health);
        let files = FileCache::new(Arc::clone(&disk), config.max_open_files);
        let committer = Committer::start(CommitterConfig { threads: config.commit_threads }, Arc::clone(&clock))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start a commit thread: {error}")))?;
        let metrics = Arc::new(Metrics::new());
        let workers = Workers::start()
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start a worker: {error}")))?;
        let live = Live::new(Arc::clone(&clock), Arc::clone(&metrics));
        let requests = Arc::new(Durable::restore(&catalog));
        let receipts = Arc::new(Receipts::restore(&catalog, config.max_receipts));
        let transactions = Arc::new(Transactions::restore(&catalog, &config, &clock));
        let opened = (clock.monotonic_ms(), clock.now_ms());
        let mut broker = Self {
            config,
            disk,
            clock,
            dir,
            files,
            committer,
            metrics,
            health,
            watch,
            storage,
            asked: Asked::new(),
            catalog: Mutex::new(catalog),
            topics: RwLock::default(),
            names: RwLock::default(),
            topics_version: watch::Sender::new(0),
            opened,
            startup: Startup { notes: found.notes, view_rebuilt: found.view_rebuilt, ..Startup::default() },
            upkeep: Mutex::default(),
            compaction: Mutex::default(),
            watcher: Mutex::default(),
            queues: Arc::default(),
            pushes: Pushes::default(),
            routes: Arc::default(),
            groups: Groups::default(),
            streams: Streams::default(),
            classics: Classics::default(),
            generations: Generations::default(),
            live,
            requests,
            receipts,
            transactions,
            workers,
            rooms: Rooms::default(),
            passing: tokio::sync::Semaphore::new(PASSING),
            here: tokio::sync::Semaphore::new(HERE),
            damages,
            creations: Creations::default(),
        };
        broker.metrics.register(|registry| {
            broker.pushes.register(registry);
            let what = "Portions of long computing (opening batches, asking filters) that went to the workers";
            registry.register("work_portions", what, broker.workers.portions.clone());
        });
        broker.finish_deletions()?;
        broker.open_topics()?;
        let notes = broker.settle_positions()?;
        broker.startup.notes.extend(notes);
        let notes = broker.settle_staged();
        broker.startup.notes.extend(notes);
        // Before anything can be deleted, compacted or written.
        let notes = broker.settle_intents();
        broker.startup.notes.extend(notes);
        broker.requests.hold(&broker);
        Streams::load(&broker)?;
        broker.startup.took = began.elapsed();
        let broker = Arc::new(broker);
        *lock(&broker.watcher) = Some(Watcher::start(&broker)?);
        broker.storage.start(&broker)?;
        broker.asked.start(&broker)?;
        Keeper::start(&broker)?;
        Classics::load(&broker)?;
        *lock(&broker.upkeep) = Some(Upkeep::start(&broker)?);
        broker.resume_requests();
        broker.resume_receipts();
        broker.tell_of_given_up();
        broker.resume_transactions();
        *lock(&broker.compaction) = Some(Compaction::start(&broker)?);
        Damages::start(&broker)?;
        Ok(broker)
    }

    /// What opening found.
    pub fn startup(&self) -> &Startup {
        &self.startup
    }

    /// The data directory's id, 32 hexadecimal digits.
    pub fn server_id(&self) -> String {
        format!("{:032x}", self.dir.server_id)
    }

    /// The time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> crate::base::TimestampMs {
        self.clock.now_ms()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What is wrong with it now; other parts of the server may tell here what is wrong with them.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Bytes that could still be written a second ago, if the file system tells.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        self.storage.free_bytes()
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A producer identity: a new id, or the next epoch of one to go on with.
    ///
    /// # Errors
    /// Those of the journal; an identity whose epochs are used up.
    pub async fn init_producer(
        self: &Arc<Self>,
        resume: Option<(ProducerId, ProducerEpoch)>,
    ) -> Result<(ProducerId, ProducerEpoch), BrokerError> {
        if let Some((id, epoch)) = resume {
            let known = id >= 0 && epoch >= 0;
            if let (true, Some(next)) = (known, epoch.checked_add(1)) {
                return Ok((id, next));
            }
            if !known {
                let message = format!("producer {id} epoch {epoch} is no identity to resume");
                return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
            }
            // The epochs are used up: a new id does as well.
        }
        let broker = Arc::clone(self);
        let ids = blocking(move || lock(&broker.catalog).next_producer_ids(1, broker.clock.now_ms())).await?;
        Ok((ids.start, 0))
    }

    /// Does a portion of work that computes for long on threads that are there for it, when the turn of its key comes.
    ///
    /// # Errors
    /// The broker stops.
    pub async fn work<R: Send + 'static>(
        &self,
        key: &WorkKey,
        work: impl FnOnce(Portion) -> R + Send + 'static,
    ) -> Result<R, BrokerError> {
        self.workers.run(key, work).await
    }

    /// Refuses new work, lets what is queued finish, syncs and writes checkpoints.
    pub async fn shutdown(self: &Arc<Self>) {
        self.stop_routes().await;
        let broker = Arc::clone(self);
        blocking(move || broker.close()).await;
    }

    fn close(&self) {
        self.storage.stop();
        self.asked.stop();
        if let Some(upkeep) = lock(&self.upkeep).take() {
            upkeep.stop();
        }
        self.requests.stop();
        self.receipts.stop();
        self.damages.stop();
        if let Some(compaction) = lock(&self.compaction).take() {
            compaction.stop();
        }
        // What is acked after this was not promised to be kept.
        self.queues.keeper.stop(self);
        self.queues.close();
        let topics = std::mem::take(&mut *self.topics.write().unwrap_or_else(PoisonError::into_inner));
        for partition in topics.values().flat_map(|topic| &topic.partitions) {
            partition.close_readers();
            if let Ok(log) = partition.log()
                && let Err(error) = log.close()
            {
                tracing::error!(topic = %partition.topic, partition = partition.number, %error, "not closed cleanly");
            }
        }
        if let Err(error) = lock(&self.catalog).close(self.clock.now_ms()) {
            tracing::error!(%error, "the catalog was not closed cleanly");
        }
        self.committer.stop();
        if let Some(watcher) = lock(&self.watcher).take() {
            watcher.stop();
        }
        self.workers.stop();
        if let Err(error) = self.keep_time() {
            tracing::warn!(%error, "the time cannot be kept for the next start");
        }
        // Whoever still holds the broker can only be refused by it; the next server need not wait for them.
        self.dir.unlock();
    }

    /// All topics as they are open.
    pub(crate) fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The name of the topic with this id.
    pub fn topic_named(&self, id: TopicId) -> Option<TopicName> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>, BrokerError> {
        self.topic_of(&TopicName::new(name)?)
    }

    /// [`Broker::topic`], by a name that was checked.
    pub(crate) fn topic_of(&self, name: &TopicName) -> Result<Arc<Topic>, BrokerError> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(name).cloned().ok_or_else(|| BrokerError::no_topic(name.as_str()))
    }

    /// Deletions that a crash interrupted are finished; folders that belong to no topic are removed if no data is in
    /// them, and otherwise left for a person to judge.
    fn finish_deletions(&mut self) -> Result<(), BrokerError> {
        let catalog = lock(&self.catalog);
        let tombstones: Vec<_> = catalog.tombstones().cloned().collect();
        let folders: HashSet<_> = catalog.topics().map(|topic| self.dir.topic_dir(&topic.name, topic.id)).collect();
        drop(catalog);
        for tombstone in tombstones {
            self.purge(&tombstone.name, tombstone.id)?;
            self.startup.notes.push(format!("finished deleting topic '{}'", tombstone.name));
        }
        let topics_dir = self.dir.topics_dir();
        let entries = self.disk.list(&topics_dir).map_err(|source| {
            BrokerError::new(ErrorKind::of_io(&source), format!("cannot list {}: {source}", topics_dir.display()))
        })?;
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let folder = topics_dir.join(&entry.name);
            if folders.contains(&folder) {
                continue;
            }
            let partitions = self.disk.list(&folder).unwrap_or_default();
            let has_data = partitions.iter().any(|partition| {
                let inside = folder.join(&partition.name);
                let files = self.disk.list(&inside).unwrap_or_default();
                let logs = files.iter().filter(|file| file.name.ends_with(".log"));
                logs.into_iter().any(|log| disk::length_of(self.disk.as_ref(), &inside.join(&log.name)) > 0)
            });
            if has_data {
                let note = format!("{} belongs to no topic and has data in it: left alone", folder.display());
                self.startup.notes.push(note);
            } else if let Err(error) = self.disk.remove_dir_all(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove a folder that belongs to no topic");
            }
        }
        Ok(())
    }

    fn open_topics(&mut self) -> Result<(), BrokerError> {
        let entries: Vec<TopicEntry> = lock(&self.catalog).topics().cloned().collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let opened = Mutex::new((BTreeMap::new(), Vec::new()));
        let failed = Mutex::new(None);
        let broker = &*self;
        std::thread::scope(|scope| {
            for _ in 0..broker.config.commit_threads.min(entries.len()) {
                scope.spawn(|| {
                    while let Some(entry) = entries.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        let mut notes = Vec::new();
                        match broker.open_topic(entry.clone(), &mut notes) {
                            Ok(topic) => {
                                let mut opened = lock(&opened);
                                opened.0.insert(entry.name.clone(), Arc::new(topic));
                                opened.1.append(&mut notes);
                            }
                            Err(error) => *lock(&failed) = Some(error),
                        }
                    }
                });
            }
        });
        if let Some(error) = lock(&failed).take() {
            return Err(error);
        }
        let (topics, mut notes) = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
        notes.sort();
        self.startup.notes.extend(notes);
        self.startup.topics = topics.len();
        self.startup.partitions = topics.values().map(|topic: &Arc<Topic>| topic.partitions.len()).sum();
        self.names = RwLock::new(topics.values().map(|topic| (topic.entry.id, topic.entry.name.clone())).collect());
        self.topics = RwLock::new(topics);
        self.count_topics();
        Ok(())
    }

    /// Opens the partitions of a topic; one that cannot be opened is offline and says why.
    pub(crate) fn open_topic(&self, entry: TopicEntry, notes: &mut Vec<String>) -> Result<Topic, BrokerError> {
        let settings = self.config.topic_defaults.with(&entry.settings)?;
        let partitions =
            (0..entry.partitions).map(|number| self.open_partition(&entry, &settings, number, notes)).collect();
        Ok(Topic { entry, settings, partitions })
    }

    pub(crate) fn open_partition(
        &self,
        entry: &TopicEntry,
        settings: &crate::catalog::TopicSettings,
        number: u32,
        notes: &mut Vec<String>,
    ) -> Arc<Partition> {
        let folder = self.dir.partition_dir(&entry.name, entry.id, number);
        let opened =
            PartitionLog::open_with(Arc::clone(&self.files), folder, log_config(settings), self.clock.now_ms());
        let log = match opened {
            Ok((log, recovery)) => {
                if !recovery.is_clean() {
                    notes.push(format!("topic '{}' partition {number}: {recovery}", entry.name));
                }
                Ok(log)
            }
            Err(error) => {
                let error = match error {
                    LogError::Io { source, path, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                        LogError::Format { path, what: "the partition's folder is missing".to_owned() }
                    }
                    other => other,
                };
                notes.push(format!("topic '{}' partition {number} is offline: {error}", entry.name));
                Err(error)
            }
        };
        let (metrics, health, notes) = (&self.metrics, &self.health, self.damages.notes());
        Partition::new(&entry.name, number, log, &self.committer, metrics, health, notes)
    }

    /// Removes the files of a deleted topic, and then its tombstone.
    pub(crate) fn purge(&self, name: &TopicName, id: crate::base::TopicId) -> Result<(), BrokerError> {
        let folder = self.dir.topic_dir(name, id);
        self.files.forget(&folder);
        let io = |source: std::io::Error| {
            BrokerError::new(ErrorKind::of_io(&source), format!("cannot remove {}: {source}", folder.display()))
        };
        match self.disk.remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => self.disk.sync_dir(&self.dir.topics_dir()).map_err(io)?,
        }
        lock(&self.catalog).commit(Event::TopicPurged { id }, self.clock.now_ms())?;
        Ok(())
    }

    /// What topics there are has changed: counts them, and wakes who waits for that.
    pub(crate) fn count_topics(&self) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        self.metrics.topics.set(topics.len() as i64);
        self.metrics.partitions.set(topics.values().map(|topic| topic.partitions.len() as i64).sum());
        drop(topics);
        self.topics_version.send_modify(|version| *version += 1);
    }
}

/// Everything that is made is for the server's own user; what an older version made, or somebody else, may not be. The
/// folder's own mode is the one that counts: what is in it is out of reach without it.
fn warn_of_modes(disk: &dyn Disk, dir: &DataDir) {
    let Ok(Some(mode)) = disk.mode(&dir.path) else { return };
    if mode & 0o077 != 0 {
        tracing::warn!(
            "other users of this machine may look into the data directory (mode {mode:04o}): chmod -R go-rwx {}",
            dir.path.display()
        );
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs blocking work on the runtime's bounded pool, for the client for whom this runs.
pub(crate) async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let client = Client::current();
    match tokio::task::spawn_blocking(move || client.scope_blocking(work)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being torn down; so is whoever waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}
