//! The one home of the wall clock, and of what is believed of it.

mod trust;
mod trusted;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub use trust::{ClockDoubt, ClockNews, LastSeen, Reading};
pub use trusted::{ClockLook, TrustedClock};

/// Milliseconds since the Unix epoch, UTC. Negative before 1970; −1 stands for "none" on the wire, as in Kafka.
pub type TimestampMs = i64;

/// The clocks of a machine. A server takes the time from a [`TrustedClock`] over them: nothing may be decided by a wall clock
/// that leaps.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in milliseconds since the Unix epoch. May jump in either direction.
    fn wall_ms(&self) -> TimestampMs;
    /// Milliseconds since some fixed point; never goes back and never jumps. Stands still while the machine is suspended.
    fn monotonic_ms(&self) -> u64;
    /// As [`Clock::monotonic_ms`], from a fixed point of its own, but goes on while the machine is suspended, where the system
    /// can tell.
    fn elapsed_ms(&self) -> u64 {
        self.monotonic_ms()
    }
    /// All of them.
    fn read(&self) -> Reading {
        Reading { wall_ms: self.wall_ms(), monotonic_ms: self.monotonic_ms(), elapsed_ms: self.elapsed_ms() }
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the wall clock's home")]
    fn wall_ms(&self) -> TimestampMs {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    #[cfg(target_os = "linux")]
    fn elapsed_ms(&self) -> u64 {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ms = since.tv_sec.saturating_mul(1000).saturating_add(since.tv_nsec / 1_000_000);
        u64::try_from(ms).unwrap_or(0)
    }
}

/// A clock that a test sets. Wall and monotonic time move apart only by [`ManualClock::jump`] and [`ManualClock::suspend`].
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicU64,
    suspended: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now_ms`, with the monotonic time at zero.
    pub fn at(now_ms: TimestampMs) -> Self {
        Self { wall: AtomicI64::new(now_ms), ..Self::default() }
    }

    /// Lets `ms` milliseconds pass.
    pub fn advance(&self, ms: u32) {
        self.wall.fetch_add(i64::from(ms), Ordering::SeqCst);
        self.monotonic.fetch_add(u64::from(ms), Ordering::SeqCst);
    }

    /// Suspends the machine for `ms` milliseconds.
    pub fn suspend(&self, ms: u32) {
        self.wall.fetch_add(i64::from(ms), Ordering::SeqCst);
        self.suspended.fetch_add(u64::from(ms), Ordering::SeqCst);
    }

    /// Moves the wall clock by `ms` (either way) while no time passes.
    pub fn jump(&self, ms: i64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> TimestampMs {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }

    fn elapsed_ms(&self) -> u64 {
        self.monotonic_ms() + self.suspended.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
