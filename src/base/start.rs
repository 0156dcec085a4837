//! Where reading begins, as people write it.

use std::str::FromStr;
use std::time::Duration;

use super::{Millis, Offset, TimestampMs};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record there is.
    Beginning,
    /// With the first record that comes after building the consumer.
    End,
    /// At this offset, in each partition.
    Offset(Offset),
    /// So many offsets before the end, in each partition.
    Last(u64),
    /// At the first record with this timestamp or a later one, in milliseconds since the Unix epoch.
    Time(TimestampMs),
    /// The same, so long before now.
    Ago(Duration),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "beginning" => Ok(Self::Beginning),
            None if text == "end" => Ok(Self::End),
            Some(("offset", number)) => whole(number, "offset").map(Self::Offset),
            Some(("last", number)) => whole(number, "number of records").map(Self::Last),
            Some(("time", time)) => time_of(time).map(Self::Time),
            Some(("ago", span)) => {
                span.parse::<Millis>().map(|span| Self::Ago(span.as_duration())).map_err(|error| error.to_string())
            }
            _ => {
                let words = "use beginning, end, offset:N, last:N, time:2026-01-31T08:00:00Z or ago:15m";
                // What other tools call a time before now, or an offset.
                let bare = text.strip_prefix('-').unwrap_or(text);
                Err(match (bare.parse::<Millis>(), bare.parse::<u64>(), time_of(text)) {
                    (Ok(_), ..) => format!("{words}; did you mean ago:{bare}?"),
                    (_, Ok(_), _) if text.starts_with('-') => format!("{words}; did you mean last:{bare}?"),
                    (_, Ok(_), _) => format!("{words}; did you mean offset:{bare}?"),
                    (.., Ok(_)) => format!("{words}; did you mean time:{text}?"),
                    _ => words.to_owned(),
                })
            }
        }
    }
}

/// A whole number.
///
/// # Errors
/// One line that says of what.
pub fn whole(text: &str, what: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a whole {what}"))
}

/// A time with its zone.
///
/// # Errors
/// One line with an example.
pub fn time_of(text: &str) -> Result<TimestampMs, String> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(|time| time.as_millisecond())
        .map_err(|_| format!("'{text}' is not a time with its zone; write it like 2026-01-31T08:00:00Z"))
}
