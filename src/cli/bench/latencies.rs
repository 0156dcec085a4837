//! Latencies in microseconds, to three digits, up to an hour.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The longest that is told from longer ones, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// A distribution in constant memory. The bounds are fixed: `Histogram::new` would begin with a highest value of 2 and
/// `saturating_record` would clamp to that, so that the slowest became the fastest.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the crate takes")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds"))
    }
}

impl Latencies {
    /// Counts the time since then.
    pub fn since(&mut self, began: Instant) {
        self.record(began.elapsed());
    }

    /// Counts a span; an hour for what is longer.
    pub fn record(&mut self, span: Duration) {
        self.0.saturating_record(u64::try_from(span.as_micros()).unwrap_or(LONGEST));
    }

    /// Takes another's counts in.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds: this cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// Microseconds within which this part of all came, 0.5 for the median; 0 if there are none.
    pub fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// `70 / 555 / 1200 us`: the median, the 99th percentile and that of one in a thousand.
    pub fn shown_to_the_tail(&self) -> String {
        format!("{} / {} / {} us", self.at(0.5), self.at(0.99), self.at(0.999))
    }

    /// `70 / 555 us`: the median and the 99th percentile.
    pub fn shown(&self) -> String {
        format!("{} / {} us", self.at(0.5), self.at(0.99))
    }
}
