//! The clock that a server goes by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::trust::{ClockDoubt, ClockNews, LastSeen, Trust};
use super::{Clock, TimestampMs};
use crate::base::limits;

/// What a server takes the time from: the machine's clocks, with a verdict on the wall clock.
///
/// | who asks | by what |
/// |---|---|
/// | delays, leases, back-off, deadlines, what is written down | [`TrustedClock::now_ms`] |
/// | spans that begin and end in this run, and must not feel a step | [`TrustedClock::steady_ms`], [`TrustedClock::monotonic_ms`] |
/// | deadlines that an earlier run may have set | [`TrustedClock::is_over`], [`TrustedClock::certain_ms`] |
/// | what cannot be taken back: deletion, expiry, forgetting | [`TrustedClock::final_ms`] |
/// | timestamps of records that the server makes for somebody | [`TrustedClock::stamp_ms`] |
pub struct TrustedClock {
    clock: Arc<dyn Clock>,
    trust: Mutex<Trust>,
    times: RwLock<Times>,
}

/// What the last look said, as distances from the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Times {
    now: i64,
    certain: i64,
    stepped: i64,
    began: TimestampMs,
    doubted: bool,
}

/// What there is to say about the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockLook {
    /// What the wall clock says.
    pub wall_ms: TimestampMs,
    /// [`TrustedClock::now_ms`].
    pub now_ms: TimestampMs,
    /// The time that has certainly come.
    pub certain_ms: TimestampMs,
    /// The wall clock is doubted.
    pub doubt: Option<ClockDoubt>,
}

impl TrustedClock {
    /// A clock that knows of no earlier run, and so begins by believing the wall clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (trust, _) = Trust::begin(None, clock.read(), limits::CLOCK_QUARANTINE_MS);
        let times = RwLock::new(times(&trust));
        Self { clock, trust: Mutex::new(trust), times }
    }

    /// Begins a run after an earlier one. `quarantine_ms` is how long a wall clock that has leapt must keep steady before it is
    /// believed; zero believes at once.
    pub fn begin(&self, seen: Option<LastSeen>, quarantine_ms: u64) -> Option<ClockNews> {
        let mut trust = lock(&self.trust);
        let (begun, news) = Trust::begin(seen, self.clock.read(), quarantine_ms);
        *trust = begun;
        self.publish(&trust);
        news
    }

    /// Compares the clocks. Between two looks the trusted time goes by the monotonic clock alone, so a leap has no effect before
    /// it is seen.
    pub fn look(&self) -> Option<ClockNews> {
        let mut trust = lock(&self.trust);
        let news = trust.look(self.clock.read());
        self.publish(&trust);
        news
    }

    /// Somebody who knows says that the wall clock is right. `None` if that is not doubted.
    pub fn confirm(&self) -> Option<ClockNews> {
        let mut trust = lock(&self.trust);
        let news = trust.confirm(self.clock.read());
        self.publish(&trust);
        news
    }

    fn publish(&self, trust: &Trust) {
        *self.times.write().unwrap_or_else(PoisonError::into_inner) = times(trust);
    }

    fn times(&self) -> (i64, Times) {
        let times = *self.times.read().unwrap_or_else(PoisonError::into_inner);
        (i64::try_from(self.clock.monotonic_ms()).unwrap_or(i64::MAX), times)
    }

    /// The trusted time, in milliseconds since the Unix epoch. Goes on with the monotonic clock while the wall clock leaps, and
    /// steps to the wall clock when a leap is believed.
    pub fn now_ms(&self) -> TimestampMs {
        self.now_and_steps().0
    }

    /// [`TrustedClock::now_ms`], and by how much it has stepped in this run so far: by believed leaps, and by what passed while
    /// the machine was suspended.
    pub fn now_and_steps(&self) -> (TimestampMs, i64) {
        let (monotonic, times) = self.times();
        (monotonic.saturating_add(times.now), times.stepped)
    }

    /// [`TrustedClock::now_ms`] as if it had never stepped in this run.
    pub fn steady_ms(&self) -> TimestampMs {
        let (now, steps) = self.now_and_steps();
        now.saturating_sub(steps)
    }

    /// The time that has certainly come: [`TrustedClock::now_ms`], unless the wall clock was far ahead at the start and is doubted
    /// for that. Then it goes on from the last time seen.
    pub fn certain_ms(&self) -> TimestampMs {
        let (monotonic, times) = self.times();
        monotonic.saturating_add(times.certain)
    }

    /// The time for what cannot be taken back: no later than the wall clock, and no later than what is certain. While the wall
    /// clock is doubted, it goes on from where it was before, so nothing happens because of the leap.
    pub fn final_ms(&self) -> TimestampMs {
        self.certain_ms().min(self.clock.wall_ms())
    }

    /// Whether a deadline has passed that was set at `set_ms` (by [`TrustedClock::now_ms`]). One of an earlier run must have
    /// passed for certain.
    pub fn is_over(&self, set_ms: TimestampMs, deadline_ms: TimestampMs) -> bool {
        let (monotonic, times) = self.times();
        let by = if set_ms < times.began { times.certain } else { times.now };
        deadline_ms <= monotonic.saturating_add(by)
    }

    /// The time for a record's timestamp: no earlier than the wall clock, and no earlier than the trusted time. A record that
    /// is written while the wall clock is wrong is so never too old when that is right again.
    pub fn stamp_ms(&self) -> TimestampMs {
        self.now_ms().max(self.clock.wall_ms())
    }

    /// As [`Clock::monotonic_ms`].
    pub fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// Whether the wall clock is doubted, as of the last look.
    pub fn is_doubted(&self) -> bool {
        self.times().1.doubted
    }

    /// What there is to say about it.
    pub fn describe(&self) -> ClockLook {
        let trust = lock(&self.trust);
        let ran = self.clock.monotonic_ms().saturating_sub(trust.last().monotonic_ms);
        ClockLook {
            wall_ms: self.clock.wall_ms(),
            now_ms: trust.now().saturating_add_unsigned(ran),
            certain_ms: trust.certain().saturating_add_unsigned(ran),
            doubt: trust.doubt(),
        }
    }

    /// What to keep for the next run.
    pub fn seen(&self) -> LastSeen {
        lock(&self.trust).seen()
    }
}

fn lock(trust: &Mutex<Trust>) -> MutexGuard<'_, Trust> {
    trust.lock().unwrap_or_else(PoisonError::into_inner)
}

fn times(trust: &Trust) -> Times {
    let monotonic = i64::try_from(trust.last().monotonic_ms).unwrap_or(i64::MAX);
    Times {
        now: trust.now().saturating_sub(monotonic),
        certain: trust.certain().saturating_sub(monotonic),
        stepped: trust.stepped(),
        began: trust.began(),
        doubted: trust.doubt().is_some(),
    }
}

impl std::fmt::Debug for TrustedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustedClock({:?})", self.describe())
    }
}
