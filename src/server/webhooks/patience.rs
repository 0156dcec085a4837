//! How long an endpoint is left alone that gives no answer, or asks for it. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The longest rest after a silence, in first ones.
const LONGEST_REST: u32 = 60;

/// What is known of an endpoint: it rests after a call without an answer, for longer each time, and is then tried with one
/// call at a time until there is an answer again.
#[derive(Debug)]
pub struct Patience {
    /// The first rest after a silence; it doubles from there.
    first: Duration,
    silences: u32,
    rests_until: Option<Instant>,
}

impl Patience {
    /// With an endpoint of which nothing is known.
    pub fn new(first: Duration) -> Self {
        Self { first, silences: 0, rests_until: None }
    }

    /// It has spoken.
    pub fn answered(&mut self) {
        self.silences = 0;
        self.rests_until = None;
    }

    /// A call had no answer. Those that were under way together count as one. `jitter` is between 0 and 1.
    pub fn silent(&mut self, jitter: f64, now: Instant) {
        if self.rests_until.is_none_or(|until| until <= now) {
            self.rests_until = Some(now + pause(self.silences, self.first, self.first * LONGEST_REST, jitter));
            self.silences = self.silences.saturating_add(1);
        }
    }

    /// It is to be left alone for so long.
    pub fn wait(&mut self, wait: Duration, now: Instant) {
        self.rests_until = self.rests_until.max(Some(now + wait));
    }

    /// Whether its last call had no answer.
    pub fn is_doubtful(&self) -> bool {
        self.silences > 0
    }

    /// Until when it is left alone, if that was not long ago.
    pub fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }
}

/// Doubles with every try from `first` on, up to `longest`; between a half and all of it, so that those who failed together
/// do not come back together.
pub fn pause(tries: u32, first: Duration, longest: Duration, jitter: f64) -> Duration {
    let whole = first.saturating_mul(1 << tries.min(20)).min(longest);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}
