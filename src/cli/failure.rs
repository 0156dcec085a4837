//! How a command ends when it does not succeed.

use std::fmt;
use std::io;

use tidelog::client::ClientError;

/// Why a command stops.
#[derive(Debug)]
pub enum Failure {
    /// It failed; one line says why. Exit status 1.
    Failed(String),
    /// What was asked for makes no sense; one line says why. Exit status 2.
    Usage(String),
    /// Whoever read stdout has enough. Not a failure: exit status 0, in silence.
    Closed,
}

impl Failure {
    /// A failure for any reason that can be shown.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::failed(error)
    }
}

/// Only writing to stdout gives plain I/O errors; every other error is given its words where it happens.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}
