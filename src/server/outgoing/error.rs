//! Why a call was not answered.

use std::error::Error;
use std::fmt;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailure {
    /// The place may not be called by what is configured.
    Refused,
    /// No connection came about.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The connection or the answer broke.
    Broken,
    /// As many calls as are allowed to this endpoint were under way all the time.
    Busy,
}

/// Why a call was not answered, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The kind.
    pub failure: CallFailure,
    /// The line.
    pub message: String,
}

impl CallError {
    pub(super) fn refused(message: String) -> Self {
        Self { failure: CallFailure::Refused, message }
    }

    pub(super) fn unreachable(message: String) -> Self {
        Self { failure: CallFailure::Unreachable, message }
    }

    pub(super) fn timed_out(message: String) -> Self {
        Self { failure: CallFailure::TimedOut, message }
    }

    pub(super) fn busy(message: String) -> Self {
        Self { failure: CallFailure::Busy, message }
    }

    /// What the HTTP client says, with the connector's own words where it was that.
    pub(super) fn of_client(error: &hyper_util::client::legacy::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut words: Vec<String> = Vec::new();
        while let Some(error) = cause {
            if let Some(own) = error.downcast_ref::<Self>() {
                return own.clone();
            }
            // An I/O error made of another says the same twice.
            let text = error.to_string();
            if !words.iter().any(|word| word.contains(&text)) {
                words.push(text);
            }
            cause = error.source();
        }
        let failure = if error.is_connect() { CallFailure::Unreachable } else { CallFailure::Broken };
        Self { failure, message: words.join(": ") }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CallError {}
