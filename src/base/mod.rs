//! Floor 0: ids and validated names, offsets, the clock, limits, error kinds.
//!
//! Knows nothing of files, sockets or formats.

mod clock;
mod error;
mod group;
pub mod guard;
mod health;
mod ids;
mod isolation;
pub mod limits;
mod pattern;
pub mod priority;
mod regex;
mod request;
mod seldom;
mod start;
mod units;

pub use clock::{
    Clock, ClockDoubt, ClockLook, ClockNews, LastSeen, ManualClock, Reading, SystemClock, TimestampMs, TrustedClock,
};
pub use error::ErrorKind;
pub use group::{GroupName, GroupNameError};
pub use health::{Condition, Health, Severity, Trouble};
pub use ids::{NameError, Offset, PartitionId, ProducerEpoch, ProducerId, TopicId, TopicName};
pub use isolation::Isolation;
pub use pattern::TopicPattern;
pub use regex::{TopicRegex, TopicRegexError};
pub use request::{RequestId, RequestIdError};
pub use seldom::Seldom;
pub use start::{StartAt, time_of, whole};
pub use units::{Bytes, Millis, UnitError};

#[cfg(test)]
mod tests;
