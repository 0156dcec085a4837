//! Group commit: threads that write what has queued up, sync it, and answer everybody whom the sync covers.
//!
//! A partition is handled by one thread at a time for writing and by one for syncing, which may be two: while a sync
//! runs, the next group is written. A producer that waits for a sync waits for the one that begins after its write;
//! that one answers all who wrote before it began.
//!
//! Order: batches of one partition are appended in the order of [`LogHandle::enqueue`]. Locks are taken in the order
//! queue, log, and neither is held during a sync or while answering.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;

use crate::base::{Offset, Seldom, TimestampMs, TrustedClock, guard};

use super::clean::{Cleaned, Limits as CleanLimits, SharedLog, clean};
use super::crew::Crew;
use super::{Appended, LogError, PartitionLog, StableEnd};

/// Bytes taken from a queue for one group, so that a long queue does not delay the answers to its front.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// How long a failed partition is left alone before it is opened again.
const REOPEN_AFTER_MS: u64 = 1000;

/// How long compaction waits for a checkpoint of others, and who waits for a sync of others.
const PAUSE: Duration = Duration::from_millis(5);

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// After the write.
    Written,
    /// After a sync that covers it.
    Durable,
}

/// One batch to append.
pub struct AppendRequest {
    /// The batch; its offsets are assigned in place.
    pub batch: BytesMut,
    /// When to answer.
    pub wait: WaitFor,
    /// Called once with the result, from a commit thread; must not block.
    pub done: Box<dyn FnOnce(Result<Appended, LogError>) + Send>,
}

/// Hears when readers may see more. Called from a commit thread; must not block.
pub trait LogObserver: Send + Sync {
    /// The stable end is now `end`, and the end of what is committed `committed`.
    fn stable_end(&self, end: Offset, committed: Offset);
    /// A sync took `micros` microseconds and answered `appends` appends.
    fn synced(&self, micros: u64, appends: usize);
    /// A sync failed: the partition takes no writes until it has been verified.
    fn sync_failed(&self);
}

/// Settings of a [`Committer`].
#[derive(Debug, Clone, Copy)]
pub struct CommitterConfig {
    /// Threads. Each can write or sync one partition at a time; syncs of different files overlap.
    pub threads: usize,
}

/// The commit threads.
pub struct Committer {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    crew: Crew<Arc<Inner>>,
    clock: Arc<TrustedClock>,
}

/// One partition as the commit threads and its users share it.
#[derive(Clone)]
pub struct LogHandle {
    inner: Arc<Inner>,
    shared: Arc<Shared>,
}

struct Inner {
    queue: Mutex<Queue>,
    log: Mutex<PartitionLog>,
    observer: Arc<dyn LogObserver>,
    /// Signalled when a sync, a write or compaction ends; for those who wait in [`LogHandle::quiesce`].
    calm: Condvar,
    /// The queue is closed; for compaction, which asks often.
    stopped: AtomicBool,
}

impl Inner {
    /// Writes the checkpoint that is ready, unless another thread is at one. Says whether another has become due meanwhile:
    /// while one is written, or compaction writes its own, none is drafted, and on a partition that nobody writes to any more
    /// no further sync would come to do it.
    fn store_checkpoint(&self) -> bool {
        let Some(mut job) = lock(&self.log).begin_checkpoint() else { return false };
        let result = job.run();
        let written = result.is_ok();
        let mut log = lock(&self.log);
        log.finish_checkpoint(job, result);
        written && (log.checkpoint_due || log.checkpoint_ready.is_some())
    }
}

struct Waiting {
    appended: Appended,
    done: Box<dyn FnOnce(Result<Appended, LogError>) + Send>,
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<AppendRequest>,
    waiting: Vec<Waiting>,
    /// In the ready list, to be looked at.
    scheduled: bool,
    writing: bool,
    syncing: bool,
    cleaning: bool,
    /// Somebody asked for a sync, or readers wait for one.
    sync_wanted: bool,
    closed: bool,
    retry_at_ms: u64,
}

impl Committer {
    /// Starts the threads, named `tidelog-commit-N`.
    ///
    /// # Errors
    /// The system's, if a thread cannot be started.
    pub fn start(config: CommitterConfig, clock: Arc<TrustedClock>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { crew: Crew::new(), clock });
        let count = config.threads.max(2);
        shared.crew.joined(count);
        let committer = Self { shared, threads: Mutex::default() };
        for number in 0..count {
            committer.start_thread(&format!("tidelog-commit-{number}"), false)?;
        }
        Ok(committer)
    }

    fn start_thread(&self, name: &str, further: bool) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = guard::thread(name, 512 * 1024, move || shared.run(further))?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Starts further threads if all of them have been waiting for the disk since the last call, and work waits for them. Says
    /// how many. To be called every now and then.
    pub fn relieve(&self) -> usize {
        let more = self.shared.crew.relieve();
        lock(&self.threads).retain(|thread| !thread.is_finished());
        for _ in 0..more {
            if let Err(error) = self.start_thread("tidelog-commit+", true) {
                tracing::warn!(%error, "cannot start a further commit thread");
            }
        }
        more
    }

    /// Takes a log in.
    pub fn manage(&self, log: PartitionLog, observer: Arc<dyn LogObserver>) -> LogHandle {
        let inner = Inner {
            queue: Mutex::default(),
            log: Mutex::new(log),
            observer,
            calm: Condvar::new(),
            stopped: AtomicBool::new(false),
        };
        LogHandle { inner: Arc::new(inner), shared: Arc::clone(&self.shared) }
    }

    /// Lets the threads finish what is queued, and joins them.
    pub fn stop(&self) {
        self.shared.crew.stop();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panic in it has ended the process.
            let _ended = thread.join();
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl LogHandle {
    /// Queues a batch. The order of calls is the order in the log.
    pub fn enqueue(&self, request: AppendRequest) {
        let mut queue = lock(&self.inner.queue);
        if queue.closed {
            drop(queue);
            (request.done)(Err(LogError::Closed));
            return;
        }
        queue.pending.push_back(request);
        let wake = self.shared.schedule(&self.inner, &mut queue);
        // Who is woken needs the lock first of all.
        drop(queue);
        wake.ring(&self.shared);
    }

    /// Whether nobody is at work on the log, or will be.
    fn is_calm(queue: &Queue) -> bool {
        let quiet = queue.pending.is_empty() && queue.waiting.is_empty() && !queue.sync_wanted;
        quiet && !queue.writing && !queue.syncing && !queue.scheduled && !queue.closed
    }

    /// Appends a batch on the calling thread, with the sync that it waits for, and answers it before it returns: nobody has to
    /// be woken up. For a thread that has nothing else to do meanwhile. If the log is at work already, or more would have
    /// to be done than the batch waits for, this is [`LogHandle::enqueue`].
    pub fn append_here(&self, request: AppendRequest) {
        if request.wait == WaitFor::Written && self.with(|log| log.config().stable == StableEnd::Synced) {
            return self.enqueue(request);
        }
        let mut queue = lock(&self.inner.queue);
        if !Self::is_calm(&queue) {
            drop(queue);
            return self.enqueue(request);
        }
        queue.pending.push_back(request);
        // As if it were in the ready list and this a commit thread that has just taken it from there.
        queue.scheduled = true;
        drop(queue);
        guard::guarded("append", || self.shared.serve(&self.inner));
    }

    /// Batches that are not answered yet.
    pub fn queued(&self) -> usize {
        let queue = lock(&self.inner.queue);
        queue.pending.len() + queue.waiting.len()
    }

    /// Asks for a sync of what is written; nobody waits for it.
    pub fn request_sync(&self) {
        let mut queue = lock(&self.inner.queue);
        queue.sync_wanted = true;
        let wake = self.shared.schedule(&self.inner, &mut queue);
        drop(queue);
        wake.ring(&self.shared);
    }

    /// Returns when all that is written by now is durable: the offset behind it. Blocks, no longer than `patience`.
    ///
    /// # Errors
    /// The log takes no writes, and what is in it is not known before it has been opened anew, which this asks for; the time is
    /// over.
    pub fn sync_written(&self, patience: Duration) -> Result<Offset, LogError> {
        let began = std::time::Instant::now();
        let written = self.with(|log| log.written_end());
        loop {
            let (poisoned, synced) = self.with(|log| (log.poisoned().map(str::to_owned), log.synced_end()));
            if poisoned.is_none() && synced >= written {
                return Ok(synced);
            }
            self.request_sync();
            if let Some(reason) = poisoned {
                return Err(LogError::Poisoned { reason });
            }
            if began.elapsed() > patience {
                return Err(LogError::Poisoned { reason: "a sync takes too long".to_owned() });
            }
            self.inner.pause();
        }
    }

    /// Runs something on the log itself: planning a read, figures, settings. Appends wait meanwhile, so it must not do
    /// long work.
    pub fn with<R>(&self, work: impl FnOnce(&mut PartitionLog) -> R) -> R {
        work(&mut lock(&self.inner.log))
    }

    /// The same if nobody is at work on the log; `None` otherwise. Never waits.
    pub fn try_with<R>(&self, work: impl FnOnce(&mut PartitionLog) -> R) -> Option<R> {
        match self.inner.log.try_lock() {
            Ok(mut log) => Some(work(&mut log)),
            Err(TryLockError::Poisoned(log)) => Some(work(&mut log.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Compacts the log on the calling thread, as [`clean`] does, while it is in use, until `stop` is set. `Ok(None)` if
    /// there is nothing to do, or another thread is at it.
    ///
    /// # Errors
    /// As there.
    pub fn clean(
        &self,
        limits: CleanLimits,
        now_ms: TimestampMs,
        stop: &AtomicBool,
    ) -> Result<Option<Cleaned>, LogError> {
        {
            let mut queue = lock(&self.inner.queue);
            if queue.closed || std::mem::replace(&mut queue.cleaning, true) {
                return Ok(None);
            }
        }
        let cleaned = clean(&Cleaning { handle: self, stop }, limits, now_ms);
        // One that was ready had to wait for compaction's, or was not even drafted.
        let ready = self.inner.store_checkpoint();
        if ready || self.with(|log| log.checkpoint_due) {
            self.request_sync();
        }
        lock(&self.inner.queue).cleaning = false;
        self.inner.calm.notify_all();
        cleaned
    }

    /// Refuses further appends, lets those queued finish, and closes the log with a last sync and checkpoint.
    ///
    /// # Errors
    /// Those of the last sync.
    pub fn close(&self) -> Result<(), LogError> {
        self.quiesce();
        self.with(|log| log.close(self.shared.clock.now_ms()))
    }

    /// Refuses further appends and returns when no thread works on the log any more. What is still queued fails.
    pub fn quiesce(&self) {
        let mut queue = lock(&self.inner.queue);
        queue.closed = true;
        self.inner.stopped.store(true, Ordering::Release);
        while queue.writing || queue.syncing || queue.scheduled || queue.cleaning {
            queue = self.inner.calm.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let pending = std::mem::take(&mut queue.pending);
        drop(queue);
        for request in pending {
            (request.done)(Err(LogError::Closed));
        }
    }
}

/// A log that is compacted while it is in use.
struct Cleaning<'a> {
    handle: &'a LogHandle,
    stop: &'a AtomicBool,
}

impl SharedLog for Cleaning<'_> {
    fn with_log<R>(&self, work: impl FnOnce(&mut PartitionLog) -> R) -> R {
        self.handle.with(work)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.handle.inner.stopped.load(Ordering::Acquire)
    }

    fn pause(&self) {
        self.handle.inner.pause();
    }
}

impl Inner {
    /// Waits a moment.
    fn pause(&self) {
        let queue = lock(&self.queue);
        let _ = self.calm.wait_timeout(queue, PAUSE);
    }
}

/// Whether a commit thread is to be woken, once the caller has let go of his locks.
#[must_use]
struct Wake(bool);

impl Wake {
    fn ring(self, shared: &Shared) {
        if self.0 {
            shared.crew.wake_one();
        }
    }
}

impl Shared {
    fn schedule(&self, inner: &Arc<Inner>, queue: &mut Queue) -> Wake {
        if queue.scheduled {
            return Wake(false);
        }
        queue.scheduled = true;
        Wake(self.crew.add(Arc::clone(inner)))
    }

    fn run(&self, further: bool) {
        while let Some(inner) = self.crew.take(further) {
            self.serve(&inner);
        }
    }

    /// One round for one partition: write a group, then sync unless another thread is at it.
    fn serve(&self, inner: &Arc<Inner>) {
        let group = {
            let mut queue = lock(&inner.queue);
            queue.scheduled = false;
            if queue.writing || queue.pending.is_empty() {
                Vec::new()
            } else {
                queue.writing = true;
                take_group(&mut queue.pending)
            }
        };
        if !group.is_empty() {
            self.write(inner, group);
        } else if lock(&inner.queue).sync_wanted {
            // Also who only wants to know what is durable waits for the log to be verified.
            self.reopen_if_due(inner, &mut lock(&inner.log));
        }
        let sync = {
            let mut queue = lock(&inner.queue);
            let wanted = queue.sync_wanted || !queue.waiting.is_empty();
            let sync = wanted && !queue.syncing;
            if sync {
                queue.syncing = true;
                queue.sync_wanted = false;
            }
            sync
        };
        if sync {
            self.sync(inner);
        }
        let mut queue = lock(&inner.queue);
        let more = !queue.pending.is_empty() && !queue.writing;
        let wanted = (queue.sync_wanted || !queue.waiting.is_empty()) && !queue.syncing;
        let wake = if more || wanted { self.schedule(inner, &mut queue) } else { Wake(false) };
        let watched = queue.closed;
        drop(queue);
        wake.ring(self);
        if watched {
            inner.calm.notify_all();
        }
    }

    fn write(&self, inner: &Arc<Inner>, mut group: Vec<AppendRequest>) {
        let (results, stable) = {
            let mut log = lock(&inner.log);
            self.reopen_if_due(inner, &mut log);
            let mut batches: Vec<&mut [u8]> = group.iter_mut().map(|request| &mut request.batch[..]).collect();
            let results = log.append_group(&mut batches, self.clock.now_ms());
            (results, (log.config().stable == StableEnd::Written).then(|| (log.stable_end(), log.committed_end())))
        };
        let mut answers = Vec::new();
        let wake = {
            let mut queue = lock(&inner.queue);
            for (request, result) in group.into_iter().zip(results) {
                match (request.wait, result) {
                    (WaitFor::Durable, Ok(appended)) => queue.waiting.push(Waiting { appended, done: request.done }),
                    (_, result) => {
                        // Readers of a log whose stable end is the synced one wait for a sync, also if the producer
                        // does not.
                        queue.sync_wanted |= stable.is_none() && result.is_ok();
                        answers.push((request.done, result));
                    }
                }
            }
            queue.writing = false;
            // Another thread writes the next group while this one syncs.
            if queue.pending.is_empty() { Wake(false) } else { self.schedule(inner, &mut queue) }
        };
        wake.ring(self);
        for (done, result) in answers {
            done(result);
        }
        if let Some((end, committed)) = stable {
            inner.observer.stable_end(end, committed);
        }
    }

    fn sync(&self, inner: &Arc<Inner>) {
        let began = std::time::Instant::now();
        let ticket = lock(&inner.log).begin_sync();
        let mut mark = None;
        // Another sync may have covered it all meanwhile.
        let made = !matches!(ticket, Ok(None));
        let result = match ticket {
            Ok(Some(ticket)) => {
                let result = ticket.run();
                mark = result.is_ok().then(|| ticket.mark());
                lock(&inner.log).finish_sync(ticket, result)
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (synced, stable, committed) = {
            let log = lock(&inner.log);
            (log.synced_end(), log.stable_end(), log.committed_end())
        };
        let answered: Vec<Waiting> = {
            let mut queue = lock(&inner.queue);
            queue.syncing = false;
            let covered = |waiting: &mut Waiting| result.is_err() || waiting.appended.last_offset < synced;
            queue.waiting.extract_if(.., covered).collect()
        };
        if made {
            inner.observer.synced(took, answered.len());
        }
        match &result {
            Ok(()) => inner.observer.stable_end(stable, committed),
            Err(error) => {
                tracing::error!(%error, "the partition takes no more writes until it has been verified");
                inner.observer.sync_failed();
            }
        }
        for waiting in answered {
            // What a sync covered before a failure is durable all the same.
            (waiting.done)(match &result {
                // Whatever made the sync fail: it was written, and whether it stays is open until the log is verified.
                Err(error) if waiting.appended.last_offset >= synced => {
                    Err(LogError::Poisoned { reason: error.to_string() })
                }
                _ => Ok(waiting.appended),
            });
        }
        if let Some(mark) = mark {
            mark.run();
        }
        if inner.store_checkpoint() {
            let mut queue = lock(&inner.queue);
            if queue.closed {
                return;
            }
            queue.sync_wanted = true;
            let wake = self.schedule(inner, &mut queue);
            drop(queue);
            wake.ring(self);
        }
    }

    /// A poisoned log is opened again when something is to be written or synced, at most once a second.
    fn reopen_if_due(&self, inner: &Inner, log: &mut PartitionLog) {
        if log.poisoned().is_none() || log.checkpoint_running {
            return;
        }
        {
            let mut queue = lock(&inner.queue);
            let now = self.clock.monotonic_ms();
            if queue.syncing || queue.closed || now < queue.retry_at_ms {
                return;
            }
            queue.retry_at_ms = now + REOPEN_AFTER_MS;
        }
        match log.reopen(self.clock.now_ms()) {
            Ok(recovery) => {
                tracing::warn!(partition = %log.dir().display(), "reopened and verified after a failure: {recovery}");
                inner.observer.stable_end(log.stable_end(), log.committed_end());
            }
            Err(error) => {
                static TOLD: Seldom = Seldom::new();
                if let Some(left_out) = TOLD.turn() {
                    tracing::error!(partition = %log.dir().display(), %error, left_out, "cannot be reopened yet");
                }
            }
        }
    }
}

fn take_group(pending: &mut VecDeque<AppendRequest>) -> Vec<AppendRequest> {
    let mut bytes = 0;
    let mut count = 0;
    for request in pending.iter() {
        if count > 0 && bytes + request.batch.len() > GROUP_BYTES {
            break;
        }
        bytes += request.batch.len();
        count += 1;
    }
    pending.drain(..count).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
