//! What a caller of the client hears when something does not work.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorKind, Offset};
use crate::protocol::{ErrorBody, FrameError};

/// A refusal by the server, or a failure on the way to it: one clear line, and a kind that says what to do about it.
#[derive(Debug, Clone)]
pub struct ClientError {
    kind: ErrorKind,
    message: String,
    range: Option<(Offset, Offset)>,
    retry_after: Option<Duration>,
    maybe_stored: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ClientError {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), range: None, retry_after: None, maybe_stored: false, source: None }
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Arc::new(source)), ..Self::new(kind, message) }
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The first offset there is and the one behind the last, where an offset was out of range.
    pub fn range(&self) -> Option<(Offset, Offset)> {
        self.range
    }

    /// Whether the same may succeed later without anybody changing it.
    pub fn is_retriable(&self) -> bool {
        self.kind.is_retriable()
    }

    /// Whether records that were sent may have been stored although no acknowledgement came.
    pub fn maybe_stored(&self) -> bool {
        self.maybe_stored
    }

    /// When the server would like to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) fn with_range(mut self, range: (Offset, Offset)) -> Self {
        self.range = Some(range);
        self
    }

    /// The same error behind words that say what was being done.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub(crate) fn with_maybe_stored(mut self, maybe: bool) -> Self {
        self.maybe_stored = maybe;
        self
    }
}

impl From<ErrorBody> for ClientError {
    fn from(body: ErrorBody) -> Self {
        let kind = ErrorKind::from_code(body.code);
        let message = match kind {
            Some(_) => body.message,
            None => format!("{} (error code {}, unknown to this client)", body.message, body.code),
        };
        let mut error = Self::new(kind.unwrap_or(ErrorKind::Internal), message);
        error.range = body.range.map(|range| (range.log_start, range.log_end));
        error.retry_after = body.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
        error
    }
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::caused(ErrorKind::BadFrame, format!("the server's answer is no frame of the protocol: {error}"), error)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
