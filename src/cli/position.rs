//! Positions in a log as the command line writes them.

use tidelog::base::{Millis, TimestampMs, time_of, whole};
use tidelog::client::StartAt;

/// What `--from` says.
///
/// # Errors
/// One line with what is allowed.
pub fn parse_from(text: &str) -> Result<StartAt, String> {
    text.parse()
}

/// Where a range ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The end that there is when the command starts.
    End,
    /// Before this offset, in each partition.
    Offset(u64),
    /// Before the first record with this timestamp or a later one, in each partition.
    Time(TimestampMs),
    /// The same, so many milliseconds before now.
    Ago(Millis),
}

/// What `--to` says.
///
/// # Errors
/// One line with what is allowed.
pub fn parse_to(text: &str) -> Result<Until, String> {
    match text.split_once(':') {
        None if text == "end" => Ok(Until::End),
        Some(("offset", number)) => whole(number, "offset").map(Until::Offset),
        Some(("time", time)) => time_of(time).map(Until::Time),
        Some(("ago", span)) => span.parse().map(Until::Ago).map_err(one_line),
        _ => Err("use end, offset:N, time:2026-01-31T08:00:00Z or ago:15m".to_owned()),
    }
}

/// What `--rate` says: records a second, `500` or `500/s`.
///
/// # Errors
/// One line with what is allowed.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim().parse::<f64>();
    number.ok().filter(|rate| rate.is_finite() && *rate > 0.0).ok_or_else(|| "write it like 500/s".to_owned())
}

/// What `--header` says: `NAME=VALUE`.
///
/// # Errors
/// One line with what is allowed.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like name=value".to_owned()),
    }
}

fn one_line(error: impl std::fmt::Display) -> String {
    error.to_string()
}
