//! Log lines for failures that repeat: one at a time, with a count of those left out.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// The right to write a log line every ten seconds. One for each place that logs, as a `static` or a field.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// A place that has not logged yet.
    pub const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// How many lines were left out since the last one, if one may be written now.
    pub fn turn(&self) -> Option<u64> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now.duration_since(last) < PAUSE) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_two_turns_are_counted() {
        let (seldom, now) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.turn_at(now), Some(0));
        assert_eq!(seldom.turn_at(now), None);
        assert_eq!(seldom.turn_at(now + PAUSE / 2), None);
        assert_eq!(seldom.turn_at(now + PAUSE), Some(2));
    }
}
