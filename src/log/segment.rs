//! One segment: its files and its index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Offset, Seldom};

use super::checkpoint::SealedSegment;
use super::files::FileCache;
use super::index::SparseIndex;
use super::scan::{Check, Found, Scanner};
use super::{Damage, LogError};

/// What the name of a segment file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Its first offset.
    pub base_offset: Offset,
    /// 0 as it was written; a file that compaction made has a higher one than those it was made from.
    pub generation: u32,
}

impl SegmentName {
    /// The name of a file that was appended to.
    pub fn written(base_offset: Offset) -> Self {
        Self { base_offset, generation: 0 }
    }

    /// The file's name: the first offset in twenty digits, so that names sort as offsets do (as in Kafka), and the
    /// generation if there is one.
    pub fn file(self, extension: &str) -> String {
        match self.generation {
            0 => format!("{:020}.{extension}", self.base_offset),
            generation => format!("{:020}-{generation}.{extension}", self.base_offset),
        }
    }

    /// Reads a file's name; `None` if it is no such name.
    pub fn parse(name: &str, extension: &str) -> Option<Self> {
        let stem = name.strip_suffix(extension)?.strip_suffix('.')?;
        let (digits, generation) = match stem.split_once('-') {
            None => (stem, 0),
            Some((digits, generation)) if !generation.starts_with('0') => (digits, number(generation)?),
            Some(_) => return None,
        };
        let base_offset = number(digits).filter(|&offset| digits.len() == 20 && i64::try_from(offset).is_ok())?;
        Some(Self { base_offset, generation: u32::try_from(generation).ok()? })
    }
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Where a segment lies.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) generation: u32,
    pub(crate) log: PathBuf,
    pub(crate) offsets: PathBuf,
    pub(crate) times: PathBuf,
}

impl Segment {
    /// One that is appended to, or was.
    pub(crate) fn new(dir: &Path, base_offset: Offset) -> Arc<Self> {
        Self::named(dir, SegmentName::written(base_offset))
    }

    pub(crate) fn named(dir: &Path, name: SegmentName) -> Arc<Self> {
        let path = |extension| dir.join(name.file(extension));
        let SegmentName { base_offset, generation } = name;
        Arc::new(Self { base_offset, generation, log: path("log"), offsets: path("index"), times: path("timeindex") })
    }

    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }

    /// What is known of it once nothing more is appended, by its index.
    pub(crate) fn sealed(&self, index: &SparseIndex) -> SealedSegment {
        SealedSegment {
            base_offset: self.base_offset,
            generation: self.generation,
            bytes: index.covered,
            next_offset: index.next_offset,
            newest_timestamp: index.newest,
            horizon: index.horizon,
        }
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
            static TOLD: Seldom = Seldom::new();
            if let Some(left_out) = TOLD.turn() {
                let file = self.offsets.display();
                tracing::warn!(%file, %error, left_out, "cannot store an index; it will be built again");
            }
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
