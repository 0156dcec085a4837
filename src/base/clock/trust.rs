//! What is believed of the wall clock. Pure: readings in, verdicts out.
//!
//! The wall clock is not obeyed but followed. The trusted time begins at the wall clock's, goes on with the monotonic clock,
//! and is drawn towards the wall clock by at most a tenth of the time that passes. A difference above
//! [`limits::CLOCK_LEAP_MS`] is a leap, and is *doubted*: the trusted time goes on as if there had been none until
//!
//! - the wall clock is back, or
//! - it has kept steady for the quarantine, or
//! - an operator confirms it.
//!
//! In the last two cases the trusted time steps to the wall clock.
//!
//! At a start the wall clock is compared with the time that was kept by the last run. One that is behind it is a leap. One
//! that is ahead by up to [`limits::CLOCK_DOWN_MS`] is believed: the server was down. One further ahead is doubted, though
//! that is what two weeks without a server look like too. So there are two times then: delays and stamps go by the wall
//! clock's, and what cannot be taken back goes by the *certain* one, which goes on from the last run.

use super::TimestampMs;
use crate::base::limits;

/// The clocks at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall_ms: TimestampMs,
    /// What has passed while the machine was awake.
    pub monotonic_ms: u64,
    /// What has passed, also while the machine was suspended.
    pub elapsed_ms: u64,
}

/// What a run leaves for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSeen {
    /// The certain time.
    pub time_ms: TimestampMs,
    /// What the wall clock said at that moment.
    pub wall_ms: TimestampMs,
    /// For how long the wall clock had been doubted and had kept steady. Zero without a doubt.
    pub doubted_for_ms: u64,
}

/// What a look at the clocks has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockNews {
    /// The wall clock is doubted from now on, or has leapt again. The number is by how much it is ahead of the certain time.
    Doubted {
        /// Milliseconds, negative for a wall clock that is behind.
        ahead_ms: i64,
        /// It was so when the server started.
        at_start: bool,
    },
    /// The wall clock is where it should be again.
    Returned,
    /// The wall clock has kept steady for long enough, or was confirmed; the trusted time stepped by so much.
    Believed {
        /// Milliseconds, negative for a step back.
        step_ms: i64,
    },
}

/// Why the wall clock is doubted, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDoubt {
    /// It was so when the server started; otherwise it has leapt since.
    pub at_start: bool,
    /// By how much it is ahead of the certain time; negative for one that is behind.
    pub ahead_ms: i64,
    /// For how long it has kept steady.
    pub steady_ms: u64,
    /// How long it is to keep steady before it is believed.
    pub quarantine_ms: u64,
}

/// The machine that follows the wall clock.
#[derive(Debug)]
pub(super) struct Trust {
    quarantine_ms: u64,
    last: Reading,
    /// The certain time at the last reading.
    certain: TimestampMs,
    /// By how much the time that delays go by is ahead of the certain one: not zero only in a doubt at the start.
    lead: i64,
    /// All steps of the time that delays go by in this run.
    stepped: i64,
    /// When this run began, by the time that delays go by.
    began: TimestampMs,
    /// Time that has passed and was not used yet to draw the trusted time towards the wall clock.
    spare: u64,
    /// At the start or not, and for how long the wall clock has kept steady since.
    doubt: Option<(bool, u64)>,
}

impl Trust {
    /// Begins a run.
    pub(super) fn begin(seen: Option<LastSeen>, reading: Reading, quarantine_ms: u64) -> (Self, Option<ClockNews>) {
        let wall = reading.wall_ms;
        let mut trust = Self {
            quarantine_ms,
            last: reading,
            certain: wall,
            lead: 0,
            stepped: 0,
            began: wall,
            spare: 0,
            doubt: None,
        };
        let Some(seen) = seen else { return (trust, None) };
        let ahead = wall.saturating_sub(seen.time_ms);
        if ahead >= 0 && is_downtime(ahead) || quarantine_ms == 0 {
            return (trust, None);
        }
        trust.certain = seen.time_ms;
        if is_downtime(ahead) {
            trust.began = trust.certain;
            return (trust, None);
        }
        trust.lead = ahead.max(0);
        trust.began = trust.now();
        // A server that is restarted again and again comes to an end of the doubt, too.
        let goes_on = seen.doubted_for_ms > 0 && is_downtime(wall.saturating_sub(seen.wall_ms));
        trust.doubt = Some((true, if goes_on { seen.doubted_for_ms } else { 0 }));
        (trust, Some(ClockNews::Doubted { ahead_ms: ahead, at_start: true }))
    }

    /// Looks at the clocks. To be called every so often, and the oftener the sooner a leap is known.
    pub(super) fn look(&mut self, reading: Reading) -> Option<ClockNews> {
        let ran = reading.monotonic_ms.saturating_sub(self.last.monotonic_ms);
        let passed = reading.elapsed_ms.saturating_sub(self.last.elapsed_ms).max(ran);
        let leap = reading.wall_ms.saturating_sub(self.last.wall_ms).saturating_sub_unsigned(passed);
        self.last = reading;
        self.certain = self.certain.saturating_add_unsigned(passed);
        // Time in which the machine was suspended has passed, but not for who was suspended with it.
        self.stepped = self.stepped.saturating_add_unsigned(passed - ran);
        let ahead = reading.wall_ms.saturating_sub(self.certain);
        let Some((at_start, steady)) = self.doubt else {
            if is_leap(ahead) {
                self.doubt = Some((false, 0));
                let news = ClockNews::Doubted { ahead_ms: ahead, at_start: false };
                return Some(if self.quarantine_ms == 0 { self.believe() } else { news });
            }
            self.follow(ahead, ran);
            return None;
        };
        if at_start && is_downtime(ahead) {
            if ahead >= 0 {
                let _ = self.believe();
            } else {
                self.stepped = self.stepped.saturating_sub(self.lead);
                (self.lead, self.doubt) = (0, None);
            }
            return Some(ClockNews::Returned);
        }
        if !at_start && !is_leap(ahead) {
            self.doubt = None;
            return Some(ClockNews::Returned);
        }
        if is_leap(leap) {
            self.doubt = Some((at_start, 0));
            return Some(ClockNews::Doubted { ahead_ms: ahead, at_start });
        }
        let steady = steady.saturating_add(ran);
        self.doubt = Some((at_start, steady));
        (steady >= self.quarantine_ms).then(|| self.believe())
    }

    /// The wall clock is right, as somebody says who knows. `None` if that is not doubted.
    pub(super) fn confirm(&mut self, reading: Reading) -> Option<ClockNews> {
        let _ = self.look(reading);
        self.doubt.is_some().then(|| self.believe())
    }

    fn believe(&mut self) -> ClockNews {
        let step_ms = self.last.wall_ms.saturating_sub(self.now());
        self.stepped = self.stepped.saturating_add(step_ms);
        (self.certain, self.lead, self.doubt) = (self.last.wall_ms, 0, None);
        ClockNews::Believed { step_ms }
    }

    /// Draws the trusted time towards the wall clock, so slowly that it never goes back and no lease feels it.
    fn follow(&mut self, ahead: i64, ran: u64) {
        self.spare = self.spare.saturating_add(ran).min(ran.max(1000));
        let most = i64::try_from(self.spare / limits::CLOCK_PACE).unwrap_or(i64::MAX);
        let by = ahead.clamp(-most, most);
        self.spare -= by.unsigned_abs() * limits::CLOCK_PACE;
        self.certain = self.certain.saturating_add(by);
    }

    /// The time that delays and stamps go by, at the last reading.
    pub(super) fn now(&self) -> TimestampMs {
        self.certain.saturating_add(self.lead)
    }

    pub(super) fn certain(&self) -> TimestampMs {
        self.certain
    }

    pub(super) fn last(&self) -> Reading {
        self.last
    }

    pub(super) fn stepped(&self) -> i64 {
        self.stepped
    }

    /// When this run began.
    pub(super) fn began(&self) -> TimestampMs {
        self.began
    }

    pub(super) fn doubt(&self) -> Option<ClockDoubt> {
        let (at_start, steady_ms) = self.doubt?;
        let ahead_ms = self.last.wall_ms.saturating_sub(self.certain);
        Some(ClockDoubt { at_start, ahead_ms, steady_ms, quarantine_ms: self.quarantine_ms })
    }

    pub(super) fn seen(&self) -> LastSeen {
        // One millisecond, so that a doubt that has just begun is one.
        let doubted_for_ms = self.doubt.map_or(0, |(_, steady)| steady.max(1));
        LastSeen { time_ms: self.certain, wall_ms: self.last.wall_ms, doubted_for_ms }
    }
}

fn is_leap(ahead_ms: i64) -> bool {
    ahead_ms.unsigned_abs() > limits::CLOCK_LEAP_MS
}

/// Whether a wall clock that is ahead of the last time seen by so much says that the server was down, and no more.
fn is_downtime(ahead_ms: i64) -> bool {
    if ahead_ms < 0 { !is_leap(ahead_ms) } else { ahead_ms.unsigned_abs() <= limits::CLOCK_DOWN_MS }
}
