//! A segment file that is being made from others.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::{Offset, TimestampMs};
use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::record::{BatchHeader, gap_batches};

use super::super::LogError;
use super::super::checkpoint::SealedSegment;
use super::super::index::SparseIndex;
use super::super::segment::Segment;

/// Bytes written with one call.
const WRITE_BYTES: usize = 1024 * 1024;

/// Bytes after which what was written is synced. Syncs of others on the same file system may have to wait for data that
/// nobody has synced, so there should never be much of it.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// The file, under a temporary name until it is whole.
pub(super) struct Output {
    disk: Arc<dyn Disk>,
    segment: Arc<Segment>,
    /// Where the file is now: under its temporary name, in the end under its own.
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
    /// Of everything that was put in, what is still in the buffer included.
    index: SparseIndex,
    mark: Option<SparseIndex>,
    finished: bool,
}

impl Output {
    /// An empty file for this segment; `index` is that of what will be copied to its beginning by [`Output::copy`].
    pub(super) fn create(disk: &Arc<dyn Disk>, segment: Arc<Segment>, index: SparseIndex) -> Result<Self, LogError> {
        let path = PathBuf::from(format!("{}.tmp", segment.log.display()));
        let file = disk.open(&path, OpenMode::Create).map_err(LogError::io("cannot make", &path))?;
        let output = Self {
            disk: Arc::clone(disk),
            segment,
            path,
            file,
            buffer: Vec::new(),
            written: 0,
            synced: 0,
            index,
            mark: None,
            finished: false,
        };
        output.file.set_len(0).map_err(LogError::io("cannot cut", &output.path))?;
        Ok(output)
    }

    /// Copies the first bytes of a source as they are, up to what the index covers.
    pub(super) fn copy(&mut self, source: &dyn DiskFile, from: &Segment) -> Result<(), LogError> {
        let mut at = 0;
        while at < self.index.covered {
            let length = usize::try_from(self.index.covered - at).unwrap_or(usize::MAX).min(WRITE_BYTES);
            self.buffer.resize(length, 0);
            disk::read_exact_at(source, &mut self.buffer, at).map_err(LogError::io("cannot read", &from.log))?;
            self.flush()?;
            at += length as u64;
        }
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.index.covered
    }

    /// The earliest delete horizon in it.
    pub(super) fn horizon(&self) -> Option<TimestampMs> {
        self.index.horizon
    }

    /// Adds a batch; a gap before it is filled.
    pub(super) fn push(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        self.fill_gap(header.base_offset)?;
        self.put(header, batch)
    }

    fn fill_gap(&mut self, to: Offset) -> Result<(), LogError> {
        for gap in gap_batches(self.index.next_offset, to) {
            self.put(&BatchHeader::parse(&gap)?, &gap)?;
        }
        Ok(())
    }

    fn put(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        self.buffer.extend_from_slice(batch);
        self.index.add(header);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let failed = LogError::io("cannot write", &self.path);
        self.file.write_at(&self.buffer, self.written).map_err(failed)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data().map_err(LogError::io("cannot sync", &self.path))?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Remembers this point, for [`Output::roll_back`].
    pub(super) fn mark(&mut self) {
        self.mark = Some(self.index.clone());
    }

    /// Takes back what was added since the last mark.
    pub(super) fn roll_back(&mut self) -> Result<(), LogError> {
        if let Some(index) = self.mark.take() {
            self.flush()?;
            self.file.set_len(index.covered).map_err(LogError::io("cannot cut", &self.path))?;
            (self.written, self.synced) = (index.covered, self.synced.min(index.covered));
            self.index = index;
        }
        Ok(())
    }

    /// Makes the file whole up to `end` and durable, and gives it its name.
    pub(super) fn finish(mut self, end: Offset) -> Result<(Arc<Segment>, SealedSegment), LogError> {
        self.fill_gap(end)?;
        self.flush()?;
        self.file.sync_data().map_err(LogError::io("cannot sync", &self.path))?;
        let segment = Arc::clone(&self.segment);
        self.disk.rename(&self.path, &segment.log).map_err(LogError::io("cannot rename", &self.path))?;
        self.path.clone_from(&segment.log);
        if let Some(folder) = segment.log.parent() {
            self.disk.sync_dir(folder).map_err(LogError::io("cannot sync", folder))?;
        }
        self.finished = true;
        if let Err(error) = self.index.store(self.disk.as_ref(), &segment.offsets, &segment.times) {
            tracing::warn!(file = %segment.offsets.display(), %error, "cannot store an index; it will be built again");
        }
        let sealed = segment.sealed(&self.index);
        Ok((segment, sealed))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.disk.remove_file(&self.path)
        {
            // The next opening does.
            tracing::debug!(file = %self.path.display(), %error, "cannot remove an unfinished segment");
        }
    }
}
