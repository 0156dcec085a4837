//! The threads of a [`Committer`](super::Committer), and what waits for them.
//!
//! A thread that syncs waits for the disk. If all of them do, because the disk hangs, further threads are started, so that what
//! needs no sync, or another disk's, goes on ([`Crew::relieve`]). A partition is synced by one thread at a time, so there are at
//! most as many at work as partitions, and twice that with those that write. Further ones end when they have nothing to do.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads at the most, whatever hangs.
const MOST: usize = 512;

/// Further threads that are started beyond what waits, for what comes next.
const SPARE: usize = 2;

/// How long a further thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(5);

pub(super) struct Crew<T> {
    work: Mutex<Work<T>>,
    wake: Condvar,
}

struct Work<T> {
    ready: VecDeque<T>,
    idle: usize,
    threads: usize,
    /// Pieces of work taken so far, and by the last time that somebody asked.
    taken: u64,
    taken_before: u64,
    stopping: bool,
}

impl<T> Crew<T> {
    pub(super) fn new() -> Self {
        let work = Work { ready: VecDeque::new(), idle: 0, threads: 0, taken: 0, taken_before: 0, stopping: false };
        Self { work: Mutex::new(work), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Work<T>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece of work. Whether somebody is to be woken for it.
    pub(super) fn add(&self, piece: T) -> bool {
        let mut work = self.lock();
        work.ready.push_back(piece);
        work.idle > 0
    }

    pub(super) fn wake_one(&self) {
        self.wake.notify_one();
    }

    /// Notes threads that are about to be started.
    pub(super) fn joined(&self, threads: usize) {
        self.lock().threads += threads;
    }

    /// The next piece of work; `None` if the thread is to end: the crew stops and nothing is left, or it is a further one that
    /// nobody needs any more.
    pub(super) fn take(&self, further: bool) -> Option<T> {
        let mut work = self.lock();
        loop {
            if let Some(piece) = work.ready.pop_front() {
                work.taken += 1;
                return Some(piece);
            }
            if work.stopping {
                return None;
            }
            work.idle += 1;
            let idle_for = if further { IDLE } else { Duration::from_secs(3600) };
            let (held, waited) = self.wake.wait_timeout(work, idle_for).unwrap_or_else(PoisonError::into_inner);
            work = held;
            work.idle -= 1;
            if further && waited.timed_out() && work.ready.is_empty() {
                work.threads -= 1;
                return None;
            }
        }
    }

    /// How many further threads are to be started: some if work waits and none was taken since the last time that this was
    /// asked. They count as started.
    pub(super) fn relieve(&self) -> usize {
        let mut work = self.lock();
        let stuck = !work.ready.is_empty() && work.idle == 0 && work.taken == work.taken_before && !work.stopping;
        work.taken_before = work.taken;
        if !stuck {
            return 0;
        }
        let more = (work.ready.len() + SPARE).min(MOST.saturating_sub(work.threads));
        work.threads += more;
        more
    }

    /// No thread waits for work any more; what is ready is still done.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_only_while_work_waits_and_none_is_taken() {
        let crew = Crew::new();
        crew.joined(8);
        assert_eq!(crew.relieve(), 0, "nothing waits");
        for piece in 0..3 {
            assert!(!crew.add(piece), "nobody is idle");
        }
        assert_eq!(crew.relieve(), 3 + SPARE);
        assert_eq!(crew.take(true), Some(0));
        assert_eq!(crew.relieve(), 0, "one was taken");
        assert_eq!(crew.relieve(), 2 + SPARE, "and none since");
        for _ in 0..1_000 {
            crew.relieve();
        }
        assert_eq!(crew.lock().threads, MOST);
        crew.stop();
        assert_eq!((crew.take(false), crew.take(false), crew.take(false)), (Some(1), Some(2), None));
    }
}
