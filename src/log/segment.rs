//! One segment: its files and its index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Offset;

use super::checkpoint::SealedSegment;
use super::files::FileCache;
use super::index::SparseIndex;
use super::scan::{Check, Found, Scanner};
use super::{Damage, LogError};

/// The name of a segment file: its first offset in twenty digits, so that names sort as offsets do (as in Kafka).
pub fn segment_file_name(base_offset: Offset, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

/// The first offset that a segment file's name states, `None` if it is no such name.
pub fn parse_segment_name(name: &str, extension: &str) -> Option<Offset> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|&offset| i64::try_from(offset).is_ok())
}

/// Where a segment lies.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) log: PathBuf,
    pub(crate) offsets: PathBuf,
    pub(crate) times: PathBuf,
}

impl Segment {
    pub(crate) fn new(dir: &Path, base_offset: Offset) -> Arc<Self> {
        let path = |extension| dir.join(segment_file_name(base_offset, extension));
        Arc::new(Self { base_offset, log: path("log"), offsets: path("index"), times: path("timeindex") })
    }

    /// Removes its files, the indexes first: a log without indexes is whole, the other way round is litter.
    pub(crate) fn remove(&self, files: &FileCache) -> Result<(), LogError> {
        for path in [&self.offsets, &self.times, &self.log] {
            files.forget(path);
            match files.disk().remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LogError::Io { doing: "cannot remove", path: path.clone(), source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The index of this segment while it is sealed, from memory, from its files, or built anew from the log.
    pub(crate) fn sealed_index(&self, files: &FileCache, info: &SealedSegment) -> Result<Arc<SparseIndex>, LogError> {
        if let Some(index) = files.index(&self.offsets) {
            return Ok(index);
        }
        let loaded = SparseIndex::load(files.disk().as_ref(), &self.offsets, &self.times)
            .ok()
            .filter(|index| index.base_offset == self.base_offset && index.covered == info.bytes);
        let index = match loaded {
            Some(index) => Arc::new(index),
            None => return self.rebuild_index(files, info.bytes),
        };
        files.keep_index(&self.offsets, Arc::clone(&index));
        Ok(index)
    }

    /// Builds the index from the headers of the first `bytes` bytes, as far as they can be followed, and stores it.
    pub(crate) fn rebuild_index(&self, files: &FileCache, bytes: u64) -> Result<Arc<SparseIndex>, LogError> {
        let index = Arc::new(self.index_from_log(files, bytes)?);
        if index.covered == bytes
            && let Err(error) = index.store(files.disk().as_ref(), &self.offsets, &self.times)
        {
            tracing::warn!(file = %self.offsets.display(), %error, "cannot store an index; it will be built again");
        }
        files.keep_index(&self.offsets, Arc::clone(&index));
        Ok(index)
    }

    /// The index of the first `bytes` bytes, from their batch headers.
    pub(crate) fn index_from_log(&self, files: &FileCache, bytes: u64) -> Result<SparseIndex, LogError> {
        let file = files.get(&self.log).map_err(|error| self.open_error(error))?;
        let mut index = SparseIndex::new(self.base_offset);
        let mut scanner = Scanner::new(file.as_ref(), &self.log, 0, bytes, Check::Header);
        while let Found::Batch(header) = scanner.next(Some(index.next_offset))? {
            index.add(&header);
        }
        Ok(index)
    }

    /// A segment that belongs to the log but is not there is damage; anything else is the disk's word.
    pub(crate) fn open_error(&self, error: std::io::Error) -> LogError {
        if error.kind() == std::io::ErrorKind::NotFound {
            return LogError::Damaged(Box::new(Damage {
                file: self.log.clone(),
                position: 0,
                from: self.base_offset,
                to: None,
                what: "the segment file is missing".to_owned(),
            }));
        }
        LogError::Io { doing: "cannot open", path: self.log.clone(), source: error }
    }
}
