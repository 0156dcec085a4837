//! The messages about the server's clock.

use serde::{Deserialize, Serialize};

use super::kind::request;

/// Asks what the server believes of its wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeClock {}

/// What there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeClockOk {
    /// What the wall clock says.
    pub wall_ms: i64,
    /// The time that delays and deadlines go by.
    pub now_ms: i64,
    /// The time that has certainly come, by which things are deleted and expire.
    pub certain_ms: i64,
    /// The wall clock is doubted.
    pub doubt: Option<ClockDoubt>,
}

/// Why the wall clock is doubted, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

request!(DescribeClock, DescribeClockOk);

/// The wall clock is right: it is doubted no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmClock {}

/// It is believed, also by the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmClockOk {
    /// What the doubt was; nothing if there was none.
    pub doubt: Option<ClockDoubt>,
}

request!(ConfirmClock, ConfirmClockOk);
