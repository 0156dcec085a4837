//! How a command ends when it does not succeed.

use std::fmt;
use std::io;

use tidelog::base::ErrorKind;
use tidelog::client::ClientError;

/// What a failure is, for whoever called the command: its exit status. 0 is done, 2 wrong usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Any other failure.
    Failed = 1,
    /// What was named is not there, or nobody listens.
    NotThere = 3,
    /// It is there already, is defined otherwise, or is in use.
    Conflict = 4,
    /// Nothing happened in time.
    TimedOut = 5,
    /// The server cannot be reached, or is stopping.
    Unreachable = 6,
    /// The answer came, and is an error; or the record was given up.
    Refused = 7,
}

/// The exit statuses, for `--help`.
pub const STATUSES: &str = "\
Exit status:
  0 done   1 failed   2 wrong usage   3 not there, or nobody listens   4 there already, defined otherwise or in use
  5 not in time   6 the server cannot be reached   7 an error reply, or the record was given up";

/// Why a command stops.
#[derive(Debug)]
pub enum Failure {
    /// It failed; one line says why. Exit status 1.
    Failed(String),
    /// It failed in a way of its own; one line says why.
    As(Status, String),
    /// What was asked for makes no sense; one line says why. Exit status 2.
    Usage(String),
    /// Whoever read stdout has enough. Not a failure: exit status 0, in silence.
    Closed,
}

impl Failure {
    /// A failure of a kind.
    pub fn of(kind: ErrorKind, message: String) -> Self {
        let status = match kind {
            ErrorKind::NotFound => Status::NotThere,
            ErrorKind::AlreadyExists | ErrorKind::Busy | ErrorKind::FencedMember | ErrorKind::FencedProducer => {
                Status::Conflict
            }
            ErrorKind::TimedOut => Status::TimedOut,
            ErrorKind::Disconnected | ErrorKind::ShuttingDown => Status::Unreachable,
            _ => Status::Failed,
        };
        Self::As(status, message)
    }

    /// A failure for any reason that can be shown.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::of(error.kind(), error.to_string())
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
