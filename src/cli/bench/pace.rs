//! Sending at a steady rate: a thread that is awake when the next message is due, whatever the runtime is doing.

use std::time::{Duration, Instant};

/// A sleep ends this much later than asked for where the kernel may bundle wake-ups; the rest is waited for awake.
const BUNDLED: Duration = Duration::from_micros(120);
/// The same where it was asked not to.
const EXACT: Duration = Duration::from_micros(25);

/// When messages are due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: Instant,
    per_second: u64,
}

impl Schedule {
    /// `per_second` messages a second, the first at `start`.
    pub fn new(start: Instant, per_second: u64) -> Self {
        Self { start, per_second }
    }

    /// When message `number` is due, without an error that adds up.
    pub fn due(self, number: u64) -> Instant {
        let whole = Duration::from_secs(number / self.per_second);
        let part = (number % self.per_second) * 1_000_000_000 / self.per_second;
        self.start + whole + Duration::from_nanos(part)
    }
}

/// Wakes the thread that it was made on, in time.
pub struct Pacer {
    slack: Duration,
}

impl Pacer {
    /// For this thread, and for nothing else of the process.
    pub fn new() -> Self {
        Self { slack: if unbundled() { EXACT } else { BUNDLED } }
    }

    /// Returns at that time, or at once if it has passed.
    pub fn wait(&self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left > self.slack {
                // May end early: then it is done again.
                std::thread::park_timeout(left.saturating_sub(self.slack));
            } else if left.is_zero() {
                return;
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn unbundled() -> bool {
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn unbundled() -> bool {
    false
}
