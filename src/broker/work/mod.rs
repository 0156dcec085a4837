//! Workers: threads of their own for work that is long for few bytes (opening compressed batches, asking filters, writing
//! JSON), so that it never takes a thread of the runtime, nor one of the pool that waits for the disk.
//!
//! Work comes in *portions* of about [`PORTION`]: a caller submits one, and the next when it has come back. Between portions
//! the workers serve whoever has had least of them ([`queue`]). A caller that is gone submits no more, and what it had
//! waiting is thrown away when its turn comes.

mod queue;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Semaphore, oneshot};

use crate::base::{ErrorKind, guard, limits, priority};

use super::BrokerError;
use super::broker::lock;
use queue::FairQueue;

/// How long a portion takes, about. Work that cannot be interrupted (one record, one batch that is opened) may take longer.
const PORTION: Duration = Duration::from_millis(2);

/// Expressions nest; a thread of the runtime has as much.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Whose work it is. Every connection, group and route has one; clones are the same key.
#[derive(Debug, Clone)]
pub struct WorkKey {
    id: u64,
    /// Portions that may wait at a time, so that the queue is bounded by the number of keys.
    places: Arc<Semaphore>,
}

impl WorkKey {
    /// A key that nobody has had.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, places: Arc::new(Semaphore::new(limits::WORK_PER_KEY)) }
    }
}

/// How much of a portion is left.
#[derive(Debug, Clone, Copy)]
pub struct Portion {
    end: Instant,
}

impl Portion {
    pub(super) fn begin() -> Self {
        Self { end: Instant::now() + PORTION }
    }

    /// Whether it is over: time to return with what is done, and to submit the rest.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// A portion that waits. It returns what it has cost, in nanoseconds.
type Job = Box<dyn FnOnce() -> u64 + Send>;

#[derive(Default)]
struct Waiting {
    queue: FairQueue<Job>,
    stopped: bool,
}

#[derive(Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

/// The threads.
pub(crate) struct Workers {
    /// Portions that were submitted.
    pub(super) portions: Counter,
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts as many threads as there are processors, two at the least.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
        let inner = Arc::<Inner>::default();
        let thread = |_| {
            let inner = Arc::clone(&inner);
            guard::thread("tidelog-work", STACK_BYTES, move || {
                // Connections and commits go first where there are more of both than processors.
                priority::lower();
                inner.run();
            })
        };
        let threads = (0..count).map(thread).collect::<Result<_, _>>()?;
        Ok(Self { portions: Counter::default(), inner, threads: Mutex::new(threads) })
    }

    /// Does a portion of work when its turn comes.
    ///
    /// # Errors
    /// The broker stops.
    ///
    /// # Panics
    /// The work panics.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        key: &WorkKey,
        work: impl FnOnce(Portion) -> R + Send + 'static,
    ) -> Result<R, BrokerError> {
        let stopping = || BrokerError::new(ErrorKind::ShuttingDown, "the broker is stopping");
        let place = Arc::clone(&key.places).acquire_owned().await.map_err(|_| stopping())?;
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            let _place = place;
            if sender.is_closed() {
                // The caller has gone.
                return 0;
            }
            let began = Instant::now();
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(Portion::begin())));
            // The caller may have gone meanwhile.
            drop(sender.send(done));
            u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
        };
        {
            let mut waiting = lock(&self.inner.waiting);
            if waiting.stopped {
                return Err(stopping());
            }
            waiting.queue.push(key.id, Box::new(job));
        }
        self.portions.inc();
        self.inner.more.notify_one();
        match receiver.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(stopping()),
        }
    }

    /// Ends the threads; what waits is thrown away, and its callers are told.
    pub(crate) fn stop(&self) {
        let mut waiting = lock(&self.inner.waiting);
        waiting.stopped = true;
        let thrown_away = std::mem::take(&mut waiting.queue);
        drop(waiting);
        drop(thrown_away);
        self.inner.more.notify_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.inner.waiting).stopped = true;
        self.inner.more.notify_all();
    }
}

impl Inner {
    fn run(&self) {
        let mut waiting = lock(&self.waiting);
        loop {
            match waiting.queue.pop() {
                Some((key, job)) => {
                    drop(waiting);
                    let cost = job();
                    waiting = lock(&self.waiting);
                    waiting.queue.charge(key, cost);
                }
                None if waiting.stopped => return,
                None => waiting = self.more.wait(waiting).unwrap_or_else(std::sync::PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests;
