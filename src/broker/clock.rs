//! The time of the last run, kept for the next one, and what operators are told of the clock.
//!
//! The file `clock` in the data directory, replaced as a whole (all integers big-endian):
//!
//! ```text
//! magic "TLCK" | u16 version = 1 | u16 0 | i64 certain time | i64 what the wall clock said then
//! | u64 for how long that had been doubted and had kept steady, 0 without a doubt | u32 CRC-32 of all before
//! ```
//!
//! It is a lower bound, not synced with anything else. Without it, as in a data directory of an older version, the time of the
//! journal's newest event takes its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{ClockLook, ClockNews, Condition, Health, LastSeen, Millis, TrustedClock, limits};
use crate::disk::{self, Disk};

use super::{Broker, BrokerError};

const FILE: &str = "clock";
const MAGIC: &[u8; 4] = b"TLCK";
const VERSION: u16 = 1;

fn encode(seen: &LastSeen) -> Vec<u8> {
    let mut content = Vec::with_capacity(36);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&VERSION.to_be_bytes());
    content.extend_from_slice(&[0; 2]);
    content.extend_from_slice(&seen.time_ms.to_be_bytes());
    content.extend_from_slice(&seen.wall_ms.to_be_bytes());
    content.extend_from_slice(&seen.doubted_for_ms.to_be_bytes());
    let checksum = crc32fast::hash(&content);
    content.extend_from_slice(&checksum.to_be_bytes());
    content
}

fn decode(content: &[u8]) -> Result<LastSeen, &'static str> {
    let (body, checksum) = content.split_last_chunk::<4>().ok_or("it is too short")?;
    if !body.starts_with(MAGIC) {
        return Err("it does not begin with TLCK");
    }
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return Err("its checksum does not fit its content");
    }
    let field = |at: usize| body.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or("it is too short");
    match body.get(4..6).and_then(|version| version.first_chunk::<2>()).map(|version| u16::from_be_bytes(*version)) {
        Some(VERSION) => Ok(LastSeen {
            time_ms: i64::from_be_bytes(*field(8)?),
            wall_ms: i64::from_be_bytes(*field(16)?),
            doubted_for_ms: u64::from_be_bytes(*field(24)?),
        }),
        _ => Err("it is of another version"),
    }
}

/// What the last run has left, if anything. The file is of less worth than a start: what is wrong with it is said, and it is
/// written anew.
fn last_seen(disk: &dyn Disk, path: &Path) -> Option<LastSeen> {
    match disk.exists(path).and_then(|there| if there { disk::read_file(disk, path).map(Some) } else { Ok(None) }) {
        Ok(None) => None,
        Ok(Some(content)) => decode(&content)
            .inspect_err(|what| tracing::warn!(file = %path.display(), what, "the time of the last run cannot be read"))
            .ok(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the time of the last run cannot be read");
            None
        }
    }
}

/// Begins a run of the clock after the one that the data directory knows of. `newest_event_ms` is the time of the journal's
/// newest event.
pub(super) fn begin(
    clock: &TrustedClock,
    (disk, folder): (&dyn Disk, &Path),
    newest_event_ms: Option<i64>,
    quarantine: Millis,
    health: &Health,
) {
    let by_journal = || newest_event_ms.map(|time_ms| LastSeen { time_ms, wall_ms: time_ms, doubted_for_ms: 0 });
    let seen = last_seen(disk, &folder.join(FILE)).or_else(by_journal);
    if let Some(news) = clock.begin(seen, quarantine.0) {
        say(health, clock, news);
    }
}

fn say(health: &Health, clock: &TrustedClock, news: ClockNews) {
    let left = clock.describe().doubt.map_or(0, |doubt| doubt.quarantine_ms.saturating_sub(doubt.steady_ms));
    match news {
        ClockNews::Doubted { ahead_ms, at_start } => {
            // To the minute, or the second for less than an hour.
            let unit = if ahead_ms.unsigned_abs() < 3_600_000 { 1000 } else { 60_000 };
            let by = Millis(ahead_ms.unsigned_abs() / unit * unit);
            let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
            let what = if at_start { "when the server was last seen to run" } else { "the time: it has leapt" };
            let reason = format!(
                "the wall clock is doubted, {by} {side} {what}; nothing is deleted, expires or times out because of it until it has \
                 kept steady for {}, or `tidelog clock confirm` says that it is right",
                Millis(left)
            );
            health.set(Condition::Clock, reason);
        }
        ClockNews::Returned => {
            health.clear(Condition::Clock);
            tracing::info!("the wall clock is where it should be again");
        }
        ClockNews::Believed { step_ms } => {
            health.clear(Condition::Clock);
            tracing::info!(step_ms, "the wall clock is believed");
        }
    }
}

/// What upkeep remembers of the file.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// When it was written, on the monotonic clock.
    written: Option<u64>,
    failing: bool,
}

impl Broker {
    /// Compares the clocks, and keeps the time when that is due.
    pub(super) fn tend_clock(&self, keeping: &mut Keeping) {
        let news = self.clock.look();
        if let Some(news) = news {
            self.on_clock_news(news);
        }
        let now = self.clock.monotonic_ms();
        let due = keeping.written.is_none_or(|at| now.saturating_sub(at) >= limits::CLOCK_KEEP_MS);
        if !due && news.is_none() {
            return;
        }
        // A disk that is full is not asked oftener than one that is not.
        keeping.written = Some(now);
        match self.keep_time() {
            Ok(()) => keeping.failing = false,
            Err(error) if !keeping.failing => {
                keeping.failing = true;
                tracing::warn!(file = %self.clock_file().display(), %error, "the time cannot be kept for the next start");
            }
            Err(_) => {}
        }
    }

    fn on_clock_news(&self, news: ClockNews) {
        say(&self.health, &self.clock, news);
        if !matches!(news, ClockNews::Doubted { .. }) {
            self.queues.time_stepped();
            self.requests.wake.notify_one();
            self.receipts.wake.notify_one();
        }
    }

    fn clock_file(&self) -> PathBuf {
        self.dir.path.join(FILE)
    }

    /// Keeps the time for the next start.
    pub(super) fn keep_time(&self) -> std::io::Result<()> {
        disk::replace_file(self.disk.as_ref(), &self.clock_file(), &encode(&self.clock.seen()))
    }

    /// The clock that everything here goes by.
    pub fn clock(&self) -> &Arc<TrustedClock> {
        &self.clock
    }

    /// What there is to say about the clock.
    pub fn clock_look(&self) -> ClockLook {
        self.clock.describe()
    }

    /// The wall clock is right, as an operator says: it is doubted no more. What was to be said about it before.
    ///
    /// # Errors
    /// That it is right could not be kept for the next start; it holds until then.
    pub async fn confirm_clock(self: &Arc<Self>) -> Result<ClockLook, BrokerError> {
        let look = self.clock.describe();
        if let Some(news) = self.clock.confirm() {
            self.on_clock_news(news);
            let broker = Arc::clone(self);
            super::broker::blocking(move || broker.keep_time()).await.map_err(|error| {
                let path = self.clock_file().display().to_string();
                BrokerError::new(crate::base::ErrorKind::Io, format!("cannot write {path}: {error}"))
            })?;
        }
        Ok(look)
    }
}

#[cfg(test)]
mod tests;
