//! Progress on stderr, for a person at a terminal and only once the work has gone on for a while.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::is_watched;

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a bar counts.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Records.
    Records,
}

/// A bar that appears after two seconds, if stderr is a terminal.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    waiting: bool,
}

impl Progress {
    /// Begins to measure. `total` of none is unknown work: a count and a rate, no bar.
    pub fn new(unit: Unit, total: Option<u64>, what: &'static str) -> Self {
        let template = match (unit, total) {
            (Unit::Bytes, Some(_)) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            (Unit::Bytes, None) => "{msg} {spinner} {bytes} {bytes_per_sec}",
            (Unit::Records, Some(_)) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
            (Unit::Records, None) => "{msg} {spinner} {human_pos} {per_sec}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now(), waiting: is_watched() }
    }

    /// So much more is done.
    pub fn advance(&mut self, amount: u64) {
        self.bar.inc(amount);
        if self.waiting && self.started.elapsed() >= PATIENCE {
            self.waiting = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Prints a line to stderr above the bar.
    pub fn complain(&self, message: &str) {
        self.bar.suspend(|| super::output::complain(message));
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
