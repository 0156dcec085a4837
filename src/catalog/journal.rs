//! The log of every change to what exists: a [`PartitionLog`] with one batch an event.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::{Offset, TimestampMs, limits};
use crate::disk::{self, Disk};
use crate::log::{Checkpoint, Compaction, LogConfig, LogError, PartitionLog, segment_files};
use crate::record::{BatchHeader, Batches, read_records};

use super::event::EventError;
use super::state::State;
use super::{CatalogError, DataDir};

/// Bytes read at a time when replaying.
const REPLAY_BYTES: usize = 1024 * 1024;

/// What a replay meets.
pub(super) enum Replayed<'a> {
    /// Key and value of a record.
    Change(&'a [u8], Option<&'a [u8]>),
    /// The records of this batch were before.
    Batch(&'a BatchHeader),
}

pub(super) struct Journal {
    log: PartitionLog,
}

impl Journal {
    /// Opens the journal; makes it if it is not there and nothing depends on it. With it come lines on what was found.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        dir: &DataDir,
        now_ms: TimestampMs,
    ) -> Result<(Self, Vec<String>), CatalogError> {
        let path = dir.journal_dir();
        prepare(disk, dir, &path)?;
        let config = LogConfig {
            // Events are small. Of each key the newest is needed as long as there is one: nothing is deleted by age.
            segment_bytes: 4 * 1024 * 1024,
            // Who reads the journal reads all of it, or goes on where nothing was compacted: tombstones are of no use to
            // anybody later.
            compaction: Some(Compaction { delete_retention_ms: 0, min_lag_ms: 0, dirty_permille: 500 }),
            max_batch_bytes: limits::DEFAULT_BATCH_BYTES,
            ..LogConfig::default()
        };
        let (log, recovery) = PartitionLog::open(Arc::clone(disk), path, config, now_ms)?;
        let mut notes = Vec::new();
        if recovery.cut_bytes > 0 || !recovery.damage.is_empty() || !recovery.notes.is_empty() {
            notes.push(format!("journal: {recovery}"));
        }
        Ok((Self { log }, notes))
    }

    /// Bytes in its segment files.
    pub(super) fn bytes(&self) -> u64 {
        self.log.stats().bytes
    }

    /// The time of its newest event; not above zero if there is none.
    pub(super) fn newest_ms(&self) -> TimestampMs {
        self.log.stats().newest_timestamp
    }

    /// The first offset.
    pub(super) fn start(&self) -> Offset {
        self.log.start_offset()
    }

    /// The offset up to which everything is durable; nothing above it counts.
    pub(super) fn end(&self) -> Offset {
        self.log.synced_end()
    }

    /// The log itself, for compaction.
    pub(super) fn log(&mut self) -> &mut PartitionLog {
        &mut self.log
    }

    /// The end of what has been compacted: deletions may be missing below it.
    pub(super) fn compacted_end(&self) -> Offset {
        self.log.compacted_end()
    }

    /// Appends batches with one sync, durable when it returns the journal's new end.
    ///
    /// # Errors
    /// The batches may be there or not, the first of them at least, at the next open or [`Journal::reopen`].
    pub(super) fn append(&mut self, batches: Vec<BytesMut>, now_ms: TimestampMs) -> Result<Offset, LogError> {
        for (at, mut batch) in batches.into_iter().enumerate() {
            if let Err(error) = self.log.append(&mut batch, now_ms) {
                // Those before it are there and will be read back; better now than behind a later commit.
                if at > 0 {
                    self.log.sync()?;
                }
                return Err(error);
            }
        }
        self.log.sync()?;
        Ok(self.end())
    }

    /// Writes room for what comes next, and syncs.
    pub(super) fn make_room(&mut self) -> Result<(), LogError> {
        self.log.make_room()?;
        self.log.sync()
    }

    /// Whether a sync failed, so that what it covered is unknown.
    pub(super) fn is_poisoned(&self) -> bool {
        self.log.poisoned().is_some()
    }

    /// After a failed sync: verifies what is there and makes it durable. There may be more behind the old end then.
    pub(super) fn reopen(&mut self, now_ms: TimestampMs) -> Result<(), LogError> {
        self.log.reopen(now_ms).map(drop)
    }

    pub(super) fn close(&mut self, now_ms: TimestampMs) -> Result<(), LogError> {
        self.log.close(now_ms)
    }

    /// Hands every record from `from` to the end to `take`, and each batch after its records.
    pub(super) fn replay(
        &self,
        from: Offset,
        mut take: impl FnMut(Replayed<'_>) -> Result<(), EventError>,
    ) -> Result<(), CatalogError> {
        let malformed = |offset, what: String| CatalogError::Event { offset, source: EventError::malformed(what) };
        let mut at = from;
        while at < self.end() {
            let chunk = self.log.read(at, REPLAY_BYTES, self.end())?;
            if chunk.next_offset <= at {
                return Err(malformed(at, "the journal ends before its end".to_owned()));
            }
            for batch in Batches::new(chunk.bytes) {
                let (header, batch) = batch.map_err(|error| malformed(at, error.to_string()))?;
                let base = header.base_offset;
                let records = read_records(&batch, limits::DEFAULT_BATCH_BYTES);
                for record in records.map_err(|error| malformed(base, error.to_string()))? {
                    let record = record.map_err(|error| malformed(base, error.to_string()))?;
                    if record.offset < from {
                        continue;
                    }
                    take(Replayed::Change(record.key.as_deref().unwrap_or_default(), record.value.as_deref()))
                        .map_err(|source| CatalogError::Event { offset: record.offset, source })?;
                }
                take(Replayed::Batch(&header)).map_err(|source| CatalogError::Event { offset: base, source })?;
            }
            at = chunk.next_offset;
        }
        Ok(())
    }

    /// The checksum of the batch that ends at `end`, `None` if no batch ends there or it cannot be read.
    pub(super) fn checksum_before(&self, end: Offset) -> Option<u32> {
        let chunk = self.log.read(end.checked_sub(1)?, 1, self.end()).ok()?;
        let (header, _) = Batches::new(chunk.bytes).next()?.ok()?;
        (header.next_offset() == end).then_some(header.crc)
    }
}

/// Makes the journal's folder. One that has gone missing is not replaced by an empty one: that would be to forget every
/// topic.
fn prepare(disk: &Arc<dyn Disk>, dir: &DataDir, path: &Path) -> Result<(), CatalogError> {
    let checkpoint = path.join(Checkpoint::FILE);
    if !disk.exists(&checkpoint).map_err(CatalogError::io("cannot look at", &checkpoint))? {
        let there = disk.exists(path).map_err(CatalogError::io("cannot look at", path))?;
        let files = if there { disk.list(path).map_err(CatalogError::io("cannot list", path))? } else { Vec::new() };
        if files.iter().any(|file| file.name.ends_with(".log")) {
            // The log knows how to do without a checkpoint.
            return Ok(());
        }
        let topics = dir.topics_dir();
        if !disk.list(&topics).map_err(CatalogError::io("cannot list", &topics))?.is_empty() {
            return Err(CatalogError::JournalMissing { path: path.to_owned() });
        }
    }
    PartitionLog::create(disk, path)?;
    Ok(())
}

/// What the journal's segments add up to, as far as they can be read, without opening (and so recovering) the journal.
pub(super) fn read_state(disk: &dyn Disk, dir: &DataDir) -> State {
    let mut state = State::default();
    let Ok(files) = segment_files(disk, &dir.journal_dir()) else { return state };
    for file in files {
        let Ok(content) = disk::read_file(disk, &file) else { return state };
        for batch in Batches::new(content.into()) {
            let Ok((_, batch)) = batch else { return state };
            let Ok(records) = read_records(&batch, limits::DEFAULT_BATCH_BYTES) else { return state };
            for record in records {
                let Ok(record) = record else { return state };
                let key = record.key.as_deref().unwrap_or_default();
                if state.apply_change(key, record.value.as_deref()).is_err() {
                    return state;
                }
            }
        }
    }
    state
}
