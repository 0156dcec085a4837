//! What is wrong with the server at this moment: named conditions, each begun and ended by the part that can tell.
//!
//! Readiness, the metric of each condition and the log lines all follow from here, so that they never differ. A condition
//! holds one reason at a time; the part that sets it sums up (as in "3 partitions take no writes, the first is ...").
//!
//! A part that finds trouble calls [`Health::set`] as often as it likes, and [`Health::clear`] once it is over. Both are
//! short and never wait for a disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Clock, TimestampMs};

/// Log lines of one condition within [`WINDOW_MS`]; further ones are counted, and the next line says how many there were.
const LINES: u32 = 4;
const WINDOW_MS: u64 = 60_000;

/// The least time between a line and one that only tells another reason.
const CHANGED_AFTER_MS: u64 = 10_000;

/// What can be wrong. The order is that in which `/ready` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The journal cannot be written or synced: nothing can be created, changed, committed or acknowledged.
    Journal,
    /// The disk has too little room: appends are refused, what makes room works.
    StorageFull,
    /// An operation of the disk has not returned for too long.
    DiskHung,
    /// The disk has refused operations lately, for another reason than room.
    DiskErrors,
    /// Partitions take no writes, or are offline.
    Partitions,
    /// A background task has ended that must not.
    Tasks,
    /// The runtime's threads are late.
    RuntimeDelay,
    /// A budget of bytes or connections is used up.
    BudgetExhausted,
    /// Stored data that had been acknowledged cannot be read, and no operator has acknowledged that.
    Damage,
    /// The wall clock has leapt and is doubted: nothing is deleted or expires by its word.
    Clock,
}

/// What follows from a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something is to be looked at; work goes on.
    Degraded,
    /// Work is refused or does not end: the server is not ready.
    Failing,
}

impl Severity {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

impl Condition {
    /// Every condition.
    pub const ALL: [Condition; 10] = [
        Self::Journal,
        Self::StorageFull,
        Self::DiskHung,
        Self::DiskErrors,
        Self::Partitions,
        Self::Tasks,
        Self::RuntimeDelay,
        Self::BudgetExhausted,
        Self::Damage,
        Self::Clock,
    ];

    /// The name in JSON, metrics and log lines: snake case, stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::StorageFull => "storage_full",
            Self::DiskHung => "disk_hung",
            Self::DiskErrors => "disk_errors",
            Self::Partitions => "partitions",
            Self::Tasks => "tasks",
            Self::RuntimeDelay => "runtime_delay",
            Self::BudgetExhausted => "budget_exhausted",
            Self::Damage => "damage",
            Self::Clock => "clock",
        }
    }

    /// What follows from it. Damage counts as failing although all other records can be written and read: what was acknowledged
    /// is missing, and somebody has to know. An operator who has seen it ends the condition. A clock that is doubted only puts
    /// off what cannot be taken back.
    pub fn severity(self) -> Severity {
        match self {
            Self::Clock => Severity::Degraded,
            _ => Severity::Failing,
        }
    }
}

/// A condition that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which one.
    pub condition: Condition,
    /// Since when, wall time.
    pub since_ms: TimestampMs,
    /// Why, in one line.
    pub reason: String,
}

/// Where conditions are begun and ended.
pub struct Health {
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<Condition, Known>>,
}

#[derive(Default)]
struct Known {
    holds: Option<Holding>,
    window_ms: u64,
    lines: u32,
    last_line_ms: u64,
    /// Changes since the last line.
    untold: u64,
    /// What the last line said was that it holds.
    told: bool,
}

struct Holding {
    since_ms: TimestampMs,
    since_monotonic_ms: u64,
    reason: String,
}

enum Line {
    Begun,
    Changed,
    Over { after_ms: u64 },
}

impl Health {
    /// Nothing is wrong yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// The condition holds, for this reason. Logged when it begins, and when the reason changes.
    pub fn set(&self, condition: Condition, reason: impl Into<String>) {
        let (reason, now) = (reason.into(), self.clock.monotonic_ms());
        let told = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.entry(condition).or_default();
            let line = match &mut known.holds {
                Some(holding) if holding.reason == reason => {
                    (!known.told && known.may_tell(now)).then_some(Line::Begun)
                }
                Some(holding) => {
                    reason.clone_into(&mut holding.reason);
                    Some(Line::Changed)
                }
                None => {
                    let since_ms = self.clock.wall_ms();
                    known.holds = Some(Holding { since_ms, since_monotonic_ms: now, reason: reason.clone() });
                    known.told = false;
                    Some(Line::Begun)
                }
            };
            line.and_then(|line| known.tell(now, line))
        };
        // Not under the lock: standard error may be slow.
        if let Some((line, untold)) = told {
            write(condition, &line, &reason, untold);
        }
    }

    /// The condition does not hold (any more). Logged if it did.
    pub fn clear(&self, condition: Condition) {
        let now = self.clock.monotonic_ms();
        let told = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(known) = known.get_mut(&condition) else { return };
            let Some(holding) = known.holds.take() else { return };
            let after_ms = now.saturating_sub(holding.since_monotonic_ms);
            // An end is told whenever the begin was: two lines for each begin that is told.
            let told = std::mem::take(&mut known.told);
            told.then(|| (Line::Over { after_ms }, std::mem::take(&mut known.untold), holding.reason))
        };
        if let Some((line, untold, reason)) = told {
            write(condition, &line, &reason, untold);
        }
    }

    /// All conditions that hold.
    pub fn troubles(&self) -> Vec<Trouble> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let holding = known.iter().filter_map(|(condition, known)| Some((condition, known.holds.as_ref()?)));
        let trouble = |(condition, holding): (&Condition, &Holding)| Trouble {
            condition: *condition,
            since_ms: holding.since_ms,
            reason: holding.reason.clone(),
        };
        holding.map(trouble).collect()
    }

    /// Whether this condition holds.
    pub fn holds(&self, condition: Condition) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&condition).is_some_and(|known| known.holds.is_some())
    }
}

impl Known {
    fn may_tell(&self, now: u64) -> bool {
        self.lines < LINES || now.saturating_sub(self.window_ms) >= WINDOW_MS
    }

    /// The line, and how many changes were not told before it; `None` if too many lines came before.
    fn tell(&mut self, now: u64, line: Line) -> Option<(Line, u64)> {
        let soon = matches!(line, Line::Changed) && now.saturating_sub(self.last_line_ms) < CHANGED_AFTER_MS;
        if soon || !self.may_tell(now) {
            self.untold += 1;
            return None;
        }
        if now.saturating_sub(self.window_ms) >= WINDOW_MS {
            (self.window_ms, self.lines) = (now, 0);
        }
        self.lines += 1;
        self.last_line_ms = now;
        self.told = true;
        Some((line, std::mem::take(&mut self.untold)))
    }
}

fn write(condition: Condition, line: &Line, reason: &str, untold: u64) {
    let name = condition.name();
    match (line, condition.severity()) {
        (Line::Begun, Severity::Failing) => tracing::error!(condition = name, untold, "not ready: {reason}"),
        (Line::Changed, Severity::Failing) => tracing::error!(condition = name, untold, "still not ready: {reason}"),
        // Two weeks without a server look like a wrong clock, too: most often nothing is wrong.
        (Line::Begun | Line::Changed, _) if condition == Condition::Clock => {
            tracing::warn!(condition = name, untold, "{reason}");
        }
        (Line::Over { after_ms }, _) if condition == Condition::Clock => {
            tracing::warn!(condition = name, after_ms, untold, "over: {reason}");
        }
        (Line::Begun | Line::Changed, Severity::Degraded) => tracing::error!(condition = name, untold, "{reason}"),
        (Line::Over { after_ms }, _) => tracing::info!(condition = name, after_ms, untold, "over: {reason}"),
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.troubles()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ManualClock;
    use super::*;

    #[test]
    fn a_condition_holds_from_its_first_reason_to_its_end_and_keeps_when_it_began() {
        let clock = Arc::new(ManualClock::at(1_000));
        let health = Health::new(clock.clone());
        assert!(health.troubles().is_empty());
        health.set(Condition::Journal, "cannot sync");
        clock.advance(500);
        health.set(Condition::Journal, "cannot write");
        health.set(Condition::Damage, "orders/0");
        let troubles = health.troubles();
        assert_eq!(troubles.len(), 2);
        let journal = Trouble { condition: Condition::Journal, since_ms: 1_000, reason: "cannot write".to_owned() };
        assert_eq!(troubles[0], journal);
        assert!(health.holds(Condition::Journal));
        health.clear(Condition::Journal);
        health.clear(Condition::Journal);
        assert!(!health.holds(Condition::Journal));
        assert_eq!(health.troubles().len(), 1);
    }

    #[test]
    fn a_condition_that_comes_and_goes_is_told_a_few_times_a_minute_and_then_with_a_count() {
        let mut known = Known::default();
        let told = |known: &mut Known, now| known.tell(now, Line::Begun).map(|(_, untold)| untold);
        for _ in 0..LINES {
            assert_eq!(told(&mut known, 100), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(told(&mut known, 200), None);
        }
        assert_eq!(told(&mut known, WINDOW_MS), Some(1_000), "the window that began at 0 is over");
        assert_eq!(told(&mut known, WINDOW_MS + 1), Some(0));
    }
}
