//! How late the runtime is. A task sleeps for a moment, again and again, and notes how much later than that it ran: it runs on
//! the threads that everybody's requests run on, so its delay is theirs. A thread of its own sees to it that a runtime that does
//! not run the task at all is noticed while that lasts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::shared::Shared;
use crate::base::{Condition, TrustedClock, guard};

/// How long the task sleeps.
const BEAT: Duration = Duration::from_millis(50);
/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(250);
/// The delay from which on it is told in the log.
const LATE: Duration = Duration::from_millis(500);
/// The pause between two lines about it.
const QUIET: Duration = Duration::from_secs(10);
/// Seconds that are remembered.
const SECONDS: u64 = 60;

/// The delay from which on the server is not ready, and the time for which it is not. An honest client's time-out is some seconds
/// at the least; what is delayed by a second is in trouble soon.
const UNREADY: Duration = Duration::from_secs(1);
const UNREADY_FOR: Duration = Duration::from_secs(10);

/// What is known of the delay. Times are in milliseconds of the monotonic clock.
#[derive(Debug)]
pub struct RuntimeDelay {
    /// When the task ran last.
    beat_ms: AtomicU64,
    /// For each of the last seconds, by its number, the longest delay in it.
    seconds: Mutex<[(u64, u64); SECONDS as usize]>,
    /// When it was told last.
    told_ms: AtomicU64,
}

impl RuntimeDelay {
    /// Nothing is late at the start.
    pub fn new(now_ms: u64) -> Self {
        let told_ms = now_ms.saturating_sub(ms(QUIET));
        let (beat_ms, told_ms) = (AtomicU64::new(now_ms), AtomicU64::new(told_ms));
        Self { beat_ms, seconds: Mutex::new([(0, 0); SECONDS as usize]), told_ms }
    }

    /// The task has run.
    fn beat(&self, now_ms: u64) {
        let last = self.beat_ms.swap(now_ms, Ordering::Relaxed);
        self.note(now_ms, now_ms.saturating_sub(last).saturating_sub(ms(BEAT)));
    }

    fn note(&self, now_ms: u64, late_ms: u64) {
        let second = now_ms / 1000;
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        // The remainder is less than the length.
        let slot = &mut seconds[(second % SECONDS) as usize];
        *slot = if slot.0 == second { (second, slot.1.max(late_ms)) } else { (second, late_ms) };
    }

    /// The longest delay within this time up to now, up to a minute; one that lasts counts as far as it has come.
    pub fn within(&self, span: Duration, now_ms: u64) -> Duration {
        let since = now_ms.saturating_sub(ms(span)) / 1000;
        let last = self.beat_ms.load(Ordering::Relaxed);
        let lasting = now_ms.saturating_sub(last).saturating_sub(ms(BEAT));
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = seconds.iter().filter(|(second, _)| *second >= since).map(|(_, late)| *late).max();
        Duration::from_millis(noted.unwrap_or(0).max(lasting))
    }

    /// The delay that is to be told now, if there is one and it was not told just now.
    fn to_tell(&self, now_ms: u64) -> Option<Duration> {
        let late = self.within(LOOK * 2, now_ms);
        let quiet = now_ms.saturating_sub(self.told_ms.load(Ordering::Relaxed)) < ms(QUIET);
        if late < LATE || quiet {
            return None;
        }
        self.told_ms.store(now_ms, Ordering::Relaxed);
        Some(late)
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The task.
pub async fn run(shared: Arc<Shared>) {
    while !shared.is_stopping() {
        tokio::select! {
            () = tokio::time::sleep(BEAT) => shared.delay.beat(shared.clock.monotonic_ms()),
            () = shared.stopped() => return,
        }
    }
}

/// Starts the thread. It ends with the server.
///
/// # Errors
/// It cannot be started.
pub fn watch(shared: &Arc<Shared>) -> std::io::Result<()> {
    let (shared, clock): (Weak<Shared>, Arc<TrustedClock>) = (Arc::downgrade(shared), Arc::clone(&shared.clock));
    let look = move || {
        loop {
            std::thread::park_timeout(LOOK);
            let Some(shared) = shared.upgrade().filter(|shared| !shared.is_stopping()) else { return };
            let (now_ms, health) = (clock.monotonic_ms(), shared.broker.health());
            let late = shared.delay.within(UNREADY_FOR, now_ms);
            if late >= UNREADY {
                let (late, limit) = (ms(late), ms(UNREADY));
                let reason = format!("late by {late} ms within the last {UNREADY_FOR:?}; the limit is {limit} ms");
                health.set(Condition::RuntimeDelay, reason);
                continue;
            }
            health.clear(Condition::RuntimeDelay);
            if let Some(late) = shared.delay.to_tell(now_ms) {
                let late_ms = ms(late);
                tracing::warn!(late_ms, "the runtime is late: something takes its threads for longer than it should");
            }
        }
    };
    guard::thread("tidelog-delay", 256 * 1024, look).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(delay: &RuntimeDelay, span_s: u64, now_ms: u64) -> u64 {
        ms(delay.within(Duration::from_secs(span_s), now_ms))
    }

    #[test]
    fn the_longest_delay_of_a_time_is_told_and_forgotten_after_it() {
        let delay = RuntimeDelay::new(100_000);
        delay.beat(100_050);
        assert_eq!(late(&delay, 60, 100_050), 0);
        delay.beat(102_600);
        for now in (102_650..=150_000).step_by(50) {
            delay.beat(now);
        }
        assert_eq!((late(&delay, 10, 110_000), late(&delay, 10, 113_000)), (2_500, 0));
        assert_eq!(late(&delay, 60, 150_000), 2_500);
        // Of a minute before nothing is known, though its seconds have the same places.
        for now in (150_050..=163_000).step_by(50) {
            delay.beat(now);
        }
        assert_eq!(late(&delay, 60, 163_000), 0);
    }

    #[test]
    fn a_delay_that_lasts_counts_as_far_as_it_has_come_and_is_told_now_and_then() {
        let delay = RuntimeDelay::new(100_000);
        assert_eq!(late(&delay, 10, 103_050), 3_000);
        assert_eq!(delay.to_tell(103_050), Some(Duration::from_millis(3_000)));
        assert_eq!(delay.to_tell(104_050), None);
        assert_eq!(delay.to_tell(113_050), Some(Duration::from_millis(13_000)));
    }
}
