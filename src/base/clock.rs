//! The one home of the wall clock.

use std::sync::atomic::{AtomicI64, Ordering};

/// Milliseconds since the Unix epoch, UTC. Negative before 1970; −1 stands for "none" on the wire, as in Kafka.
pub type TimestampMs = i64;

/// Where the time comes from. Everything below the server takes the time as an argument or through this.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in milliseconds since the Unix epoch. May jump in either direction.
    fn now_ms(&self) -> TimestampMs;
    /// Milliseconds since some fixed point; never goes back and never jumps.
    fn monotonic_ms(&self) -> u64;
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
    fn now_ms(&self) -> TimestampMs {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock that a test sets. Wall and monotonic time move apart only by [`ManualClock::jump`].
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now_ms`, with the monotonic time at zero.
    pub fn at(now_ms: TimestampMs) -> Self {
        Self { wall: AtomicI64::new(now_ms), monotonic: AtomicI64::new(0) }
    }

    /// Lets `ms` milliseconds pass.
    pub fn advance(&self, ms: u32) {
        self.wall.fetch_add(i64::from(ms), Ordering::SeqCst);
        self.monotonic.fetch_add(i64::from(ms), Ordering::SeqCst);
    }

    /// Moves the wall clock by `ms` (either way) while no time passes.
    pub fn jump(&self, ms: i64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimestampMs {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.monotonic.load(Ordering::SeqCst)).unwrap_or(0)
    }
}
