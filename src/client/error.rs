//! The client's error.

use std::fmt;

use crate::base::{ErrorKind, Offset};
use crate::protocol::{ErrorBody, FrameError};

/// Why something failed. Cheap to clone: every record of a failed batch has it.
#[derive(Debug, Clone)]
pub struct ClientError {
    kind: ErrorKind,
    message: String,
    range: Option<(Offset, Offset)>,
}

impl ClientError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), range: None }
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What offsets there are, if one was out of range: the first, and the one behind the last.
    pub fn range(&self) -> Option<(Offset, Offset)> {
        self.range
    }

    pub(crate) fn with_range(mut self, start: Offset, end: Offset) -> Self {
        self.range = Some((start, end));
        self
    }

    pub(crate) fn disconnected(server: &str, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Disconnected, format!("the connection to {server} broke: {why}"))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {}

impl From<ErrorBody> for ClientError {
    fn from(body: ErrorBody) -> Self {
        Self {
            // A code of a newer server: the message says what it is.
            kind: ErrorKind::from_code(body.code).unwrap_or(ErrorKind::Internal),
            message: body.message,
            range: body.range.map(|range| (range.log_start, range.log_end)),
        }
    }
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::new(ErrorKind::BadFrame, format!("the server sent something else than a frame: {error}"))
    }
}
