//! What can go wrong with the data directory and the catalog, told apart where a caller could act differently.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::{ErrorKind, Offset, TopicName};
use crate::log::LogError;

use super::event::EventError;
use super::settings::SettingError;

/// An error of the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
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
    /// Another server has the data directory open.
    #[error("data directory {} is in use by another Tidelog server ({})", path.display(), process(.pid))]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The other server's process id, where it could be read.
        pid: Option<u32>,
    },
    /// The folder is not a data directory, and not an empty folder that could become one.
    #[error("{} is not a Tidelog data directory: {what}", path.display())]
    NotADataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The data directory was written by a newer version.
    #[error(
        "data directory {} has format version {found}; this version of Tidelog reads up to {supported}: \
         use the newer version",
        path.display()
    )]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// The version in its format file.
        found: u32,
        /// The newest version that is understood here.
        supported: u32,
    },
    /// The format file is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    DamagedFormat {
        /// The format file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The journal is gone while there are topics.
    #[error("the journal in {} is missing, but there are topics: restore it, starting without it would lose them",
        path.display())]
    JournalMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The journal cannot be read or written.
    #[error("journal: {0}")]
    Journal(#[from] LogError),
    /// A record of the journal is whole but makes no sense.
    #[error("journal: offset {offset}: {source}")]
    Event {
        /// The record's offset.
        offset: Offset,
        /// What is wrong with it.
        source: EventError,
    },
    /// A setting's name or value is refused.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A topic of that name exists.
    #[error("topic '{name}' already exists")]
    TopicExists {
        /// The name.
        name: TopicName,
    },
    /// No such topic, or another incarnation of it.
    #[error("topic '{name}' does not exist")]
    NoTopic {
        /// The name.
        name: TopicName,
    },
    /// The change contradicts a limit or what exists.
    #[error("{what}")]
    Invalid {
        /// What was wrong, with the limit and the value.
        what: String,
    },
    /// The catalog was closed.
    #[error("the catalog is closed")]
    Closed,
}

fn process(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "process unknown".to_owned(), |pid| format!("process {pid}"))
}

impl CatalogError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::InUse { .. } => ErrorKind::Busy,
            Self::NotADataDir { .. } | Self::Invalid { .. } => ErrorKind::InvalidRequest,
            Self::NewerFormat { .. } => ErrorKind::Unsupported,
            Self::DamagedFormat { .. } | Self::JournalMissing { .. } => ErrorKind::Damaged,
            Self::Journal(error) => error.kind(),
            Self::Event { source, .. } => source.kind(),
            Self::Setting(error) => error.kind(),
            Self::TopicExists { .. } => ErrorKind::AlreadyExists,
            Self::NoTopic { .. } => ErrorKind::NotFound,
            Self::Closed => ErrorKind::ShuttingDown,
        }
    }

    /// For `map_err` on a disk operation.
    pub(super) fn io<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> CatalogError + use<'p> {
        move |source| CatalogError::Io { doing, path: path.to_owned(), source }
    }
}
