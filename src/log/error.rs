//! What can go wrong in a log, told apart where a caller could act differently.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::{ErrorKind, Offset, limits};
use crate::record::BatchError;

/// Stored data that is not what was stored: where, and which offsets it takes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment file.
    pub file: PathBuf,
    /// Byte position in it where the damage begins.
    pub position: u64,
    /// First offset that cannot be read.
    pub from: Offset,
    /// First offset after it that can be read again, if one is known.
    pub to: Option<Offset>,
    /// What was found there.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged data in {} at position {}: ", self.file.display(), self.position)?;
        match self.to {
            Some(to) if to == self.from + 1 => write!(f, "offset {}", self.from)?,
            Some(to) => write!(f, "offsets {} to {}", self.from, to.saturating_sub(1))?,
            None => write!(f, "from offset {} on", self.from)?,
        }
        write!(f, ": {}", self.what)
    }
}

/// An error of a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused an operation.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "cannot read".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Stored data is damaged.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// A batch handed in is not well formed.
    #[error("{0}")]
    Batch(#[from] BatchError),
    /// A batch is larger than this log takes.
    #[error("batch of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The offset is not in the log.
    #[error("offset {offset} is out of range: the log has {start} to {end} (end not included)")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log start offset.
        start: Offset,
        /// The end that readers see.
        end: Offset,
    },
    /// Writes are refused after a failed sync or write, until the log has been reopened and verified.
    #[error("the partition takes no writes until it has been verified: {reason}")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// A newer incarnation of the producer exists.
    #[error("producer {id} epoch {epoch} is fenced: epoch {current} is active")]
    FencedProducer {
        /// The producer's id.
        id: i64,
        /// Its epoch.
        epoch: i16,
        /// The epoch that fences it.
        current: i16,
    },
    /// A sequence number that leaves a gap or lies behind what is remembered.
    #[error("producer {id} epoch {epoch} sent sequence {got}; {expected} comes next")]
    OutOfOrderSequence {
        /// The producer's id.
        id: i64,
        /// Its epoch.
        epoch: i16,
        /// The first sequence number of the batch.
        got: i32,
        /// The one that would follow.
        expected: i32,
    },
    /// A batch that is part of no transaction, of a producer that has one open.
    #[error("producer {id} has a transaction open since offset {first}; a batch that is not part of it is not taken")]
    OpenTransaction {
        /// The producer's id.
        id: i64,
        /// Where its transaction begins.
        first: Offset,
    },
    /// There is no place for a new idempotency key.
    #[error(
        "no place for a new idempotency key: {whose} remember {limit}, and all are of the last {} minutes; try again in {} s",
        limits::KEY_PROMISE_MS / 60_000,
        wait_ms.div_ceil(1000)
    )]
    TooManyKeys {
        /// Whose limit is reached.
        whose: &'static str,
        /// The limit.
        limit: usize,
        /// Milliseconds until the next key may be forgotten.
        wait_ms: u64,
    },
    /// The log was closed, or deleted.
    #[error("the partition is closed")]
    Closed,
    /// A file is not in a form this version reads.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl LogError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Damaged(_) => ErrorKind::Damaged,
            Self::Batch(_) => ErrorKind::CorruptBatch,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::OffsetOutOfRange { .. } => ErrorKind::OffsetOutOfRange,
            Self::Poisoned { .. } => ErrorKind::Poisoned,
            Self::FencedProducer { .. } => ErrorKind::FencedProducer,
            Self::OutOfOrderSequence { .. } => ErrorKind::OutOfOrderSequence,
            Self::OpenTransaction { .. } => ErrorKind::InvalidRequest,
            Self::TooManyKeys { .. } => ErrorKind::Overloaded,
            Self::Closed => ErrorKind::NotFound,
            Self::Format { .. } => ErrorKind::Damaged,
        }
    }

    /// For `map_err` on a disk operation.
    pub(crate) fn io<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> LogError + use<'p> {
        move |source| LogError::Io { doing, path: path.to_owned(), source }
    }
}
