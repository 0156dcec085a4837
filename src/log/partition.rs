//! One ordered log: its state, and appending to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::base::{Offset, ProducerId, TimestampMs};
use crate::disk::{self, Disk, DiskFile};
use crate::record::{BatchHeader, patch_assigned, read_marker};

use super::checkpoint::{Checkpoint, SealedSegment, SyncMark};
use super::files::FileCache;
use super::index::SparseIndex;
use super::keys::{TakenPlaces, is_key};
use super::producers::{Before, Producers, Verdict};
use super::segment::Segment;
use super::sync::CheckpointDraft;
use super::{DamageList, LogConfig, LogError, Recovery, StableEnd, room};

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// It had been appended before; these are its offsets of then.
    pub duplicate: bool,
    /// When it was appended (for a duplicate: when it came again).
    pub timestamp: TimestampMs,
}

/// Figures of a log, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes in segment files.
    pub bytes: u64,
    /// Segment files.
    pub segments: u32,
    /// The newest record timestamp, −1 if there is no record.
    pub newest_timestamp: TimestampMs,
    /// Producers remembered.
    pub producers: usize,
    /// Idempotency keys remembered.
    pub keys: usize,
}

/// The last batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Sequence number of its last record.
    pub last_sequence: i32,
}

/// A sealed segment and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) segment: Arc<Segment>,
    pub(crate) info: SealedSegment,
}

/// The segment that is appended to. Its size is what its index covers.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) index: SparseIndex,
    /// The length of its file: what is behind the written end is room, all zeros.
    pub(crate) length: u64,
    /// When its first batch was appended, or when it was opened with batches in it.
    pub(crate) first_append_ms: Option<TimestampMs>,
}

/// A file with writes that no sync has covered. The handle is held, so that the error of a failed write-back reaches
/// the sync of the handle that wrote.
#[derive(Clone)]
pub(crate) struct Dirty {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// One ordered log in one folder.
pub struct PartitionLog {
    pub(crate) dir: PathBuf,
    pub(crate) files: Arc<FileCache>,
    pub(crate) config: LogConfig,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) active: Active,
    pub(crate) log_start: Offset,
    pub(crate) synced: SyncMark,
    /// What the file that notes it says, at the least.
    pub(crate) last_mark: Arc<Mutex<Offset>>,
    pub(crate) dirty: Vec<Dirty>,
    /// Counts changes of the folder; those up to `dir_synced` are durable.
    pub(crate) dir_changes: u64,
    pub(crate) dir_synced: u64,
    pub(crate) sync_running: bool,
    pub(crate) producers: Producers,
    /// Shared places that its idempotency keys take.
    pub(crate) key_places: TakenPlaces,
    pub(crate) poisoned: Option<String>,
    /// A failed write left bytes behind the written end that could not be cut off yet.
    pub(crate) litter: bool,
    /// What the checkpoint file holds.
    pub(crate) last_checkpoint: Checkpoint,
    pub(crate) checkpoint_due: bool,
    pub(crate) checkpoint_running: bool,
    pub(crate) checkpoint_ready: Option<CheckpointDraft>,
    pub(crate) bytes_since_checkpoint: u64,
    /// Checkpoints that failed in a row, and syncs that go by before the next one is tried.
    pub(crate) checkpoint_failures: u32,
    pub(crate) checkpoint_pause: u32,
    /// Sealed segments whose index files are still to be written.
    pub(crate) unstored: Vec<(Arc<Segment>, Arc<SparseIndex>)>,
    /// What is known to be damaged; stored beside the log.
    pub(crate) damage: DamageList,
    /// Records before this have been compared by key.
    pub(crate) cleaned_to: Offset,
    /// No file has had this generation or a later one.
    pub(crate) next_generation: u32,
    /// Segments that belong to the log no more; their files go when nobody reads them any longer.
    pub(crate) retired: Vec<Arc<Segment>>,
    /// Goes up when something of what is known of ended transactions is forgotten, or lost with the log's end.
    pub(crate) forgotten: u64,
    /// Offsets from which on nothing is deleted or compacted, and how often each is held.
    pub(crate) held: BTreeMap<Offset, u32>,
}

impl PartitionLog {
    /// Makes the folder of an empty log with its first checkpoint, durable when it returns. Leaves one that is there
    /// alone.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn create(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), LogError> {
        disk.create_dir_all(dir).map_err(LogError::io("cannot make", dir))?;
        let checkpoint = dir.join(Checkpoint::FILE);
        if !disk.exists(&checkpoint).map_err(LogError::io("cannot look at", &checkpoint))? {
            disk::replace_file(disk.as_ref(), &checkpoint, &Checkpoint::default().encode())
                .map_err(LogError::io("cannot write", &checkpoint))?;
        }
        for folder in [Some(dir), dir.parent(), dir.parent().and_then(Path::parent)].into_iter().flatten() {
            if !folder.as_os_str().is_empty() {
                disk.sync_dir(folder).map_err(LogError::io("cannot sync", folder))?;
            }
        }
        Ok(())
    }

    /// Opens a log with a file cache of its own. See [`PartitionLog::open_with`].
    ///
    /// # Errors
    /// As there.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        config: LogConfig,
        now_ms: TimestampMs,
    ) -> Result<(Self, Recovery), LogError> {
        Self::open_with(FileCache::new(disk, 8), dir, config, now_ms)
    }

    /// First offset of the log.
    pub fn start_offset(&self) -> Offset {
        self.log_start
    }

    /// The offset after the last record written.
    pub fn written_end(&self) -> Offset {
        self.active.index.next_offset
    }

    /// The offset after the last record that is durable.
    pub fn synced_end(&self) -> Offset {
        self.synced.offset
    }

    /// The end that readers see, by [`LogConfig::stable`].
    pub fn stable_end(&self) -> Offset {
        match self.config.stable {
            StableEnd::Synced => self.synced_end(),
            StableEnd::Written => self.written_end(),
        }
    }

    /// Whether something was written that no sync has covered.
    pub fn is_dirty(&self) -> bool {
        self.synced.offset < self.written_end() || self.dir_synced < self.dir_changes
    }

    /// Why writes are refused, if they are.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings from the next operation on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Figures for people.
    pub fn stats(&self) -> LogStats {
        let newest = self.sealed.iter().map(|sealed| sealed.info.newest_timestamp).max().unwrap_or(TimestampMs::MIN);
        LogStats {
            bytes: self.sealed.iter().map(|sealed| sealed.info.bytes).sum::<u64>() + self.active.index.covered,
            segments: self.sealed.len() as u32 + 1,
            newest_timestamp: newest.max(self.active.index.newest).max(-1),
            producers: self.producers.states.len(),
            keys: self.producers.keys.len(),
        }
    }

    /// Appends one batch: assigns its offsets in place, and writes it. It is written, not durable. A batch of a known
    /// producer sequence is not appended again.
    ///
    /// # Errors
    /// Nothing is appended then; the error says why.
    pub fn append(&mut self, batch: &mut [u8], now_ms: TimestampMs) -> Result<Appended, LogError> {
        let mut results = self.append_group(&mut [batch], now_ms);
        results.pop().unwrap_or(Err(LogError::Closed))
    }

    /// Appends several batches in order, each with its own result, with as few writes as can be.
    pub fn append_group(&mut self, batches: &mut [&mut [u8]], now_ms: TimestampMs) -> Vec<Result<Appended, LogError>> {
        let mut results = Vec::with_capacity(batches.len());
        let mut run = Run::default();
        for at in 0..batches.len() {
            if let Err(error) = self.take(batches, at, now_ms, &mut run, &mut results) {
                self.write_run(batches, &mut run, &mut results, now_ms);
                if let (LogError::Io { .. }, Ok(header)) = (&error, BatchHeader::parse(batches[at])) {
                    run.failed.push((header.producer_id, copy_io(&error)));
                }
                results.push(Err(error));
            }
        }
        self.write_run(batches, &mut run, &mut results, now_ms);
        self.key_places.count(&self.producers.keys);
        results
    }

    /// Whether this idempotency key is known.
    pub fn knows_key(&self, key: ProducerId) -> bool {
        self.producers.keys.knows(key)
    }

    /// What a producer wrote last, as far as it is written: offset and sequence of its last record.
    pub fn last_of(&self, producer: ProducerId) -> Option<LastBatch> {
        let batch = self.producers.states.get(&producer)?.batches.back()?;
        Some(LastBatch {
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            last_sequence: batch.last_sequence,
        })
    }

    /// Adds batch `at` to the run of batches that are written together, or answers it at once.
    fn take(
        &mut self,
        batches: &mut [&mut [u8]],
        at: usize,
        now_ms: TimestampMs,
        run: &mut Run,
        results: &mut Vec<Result<Appended, LogError>>,
    ) -> Result<(), LogError> {
        self.check_writable()?;
        let mut header = BatchHeader::parse(batches[at])?;
        run.check(&header)?;
        let size = batches[at].len();
        if size > self.config.max_batch_bytes {
            return Err(LogError::TooLarge { size, limit: self.config.max_batch_bytes });
        }
        let mut verdict = self.producers.check(&header)?;
        if let Verdict::Duplicate(batch) = verdict
            && batch.base_offset >= self.written_end()
        {
            // The first of the two is not written yet: whether this is a duplicate depends on how that goes.
            self.write_run(batches, run, results, now_ms);
            run.check(&header)?;
            verdict = self.producers.check(&header)?;
        }
        if let Verdict::Duplicate(batch) = verdict {
            self.write_run(batches, run, results, now_ms);
            results.push(Ok(Appended {
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
                duplicate: true,
                timestamp: now_ms,
            }));
            return Ok(());
        }
        if self.must_roll(run.bytes, size, now_ms) {
            self.write_run(batches, run, results, now_ms);
            self.check_writable()?;
            // If that write failed, this batch may not follow any more.
            run.check(&header)?;
            self.producers.check(&header)?;
            if self.must_roll(0, size, now_ms) {
                self.roll()?;
            }
        }
        if is_key(header.producer_id) && !header.is_control() {
            self.producers.keys.make_place(now_ms, self.key_places.places())?;
        }
        let base_offset = run.next_offset.unwrap_or(self.written_end());
        patch_assigned(batches[at], base_offset, 0);
        header.base_offset = base_offset;
        run.undo.push(self.producers.before(&header));
        if let Some(idle_ms) = self.producers.remember(&header, read_marker(batches[at]), now_ms) {
            self.files.producer_forgotten(idle_ms);
        }
        run.next_offset = Some(header.next_offset());
        run.bytes += size as u64;
        run.first.get_or_insert(at);
        run.headers.push(header);
        Ok(())
    }

    /// Writes the run and answers its batches. On a failure none of them leaves a trace.
    fn write_run(
        &mut self,
        batches: &[&mut [u8]],
        run: &mut Run,
        results: &mut Vec<Result<Appended, LogError>>,
        now_ms: TimestampMs,
    ) {
        let failed = std::mem::take(&mut run.failed);
        let taken = std::mem::replace(run, Run { failed, ..Run::default() });
        let Some(first) = taken.first else { return };
        let parts: Vec<&[u8]> = batches[first..first + taken.headers.len()].iter().map(|batch| &**batch).collect();
        match self.write_parts(&parts, taken.bytes) {
            Ok(()) => {
                self.active.first_append_ms.get_or_insert(now_ms);
                self.bytes_since_checkpoint += taken.bytes;
                self.checkpoint_due |= self.bytes_since_checkpoint >= self.config.checkpoint_bytes;
                for header in &taken.headers {
                    self.active.index.add(header);
                    results.push(Ok(Appended {
                        base_offset: header.base_offset,
                        last_offset: header.last_offset(),
                        duplicate: false,
                        timestamp: now_ms,
                    }));
                }
            }
            Err(error) => {
                for before in taken.undo.into_iter().rev() {
                    run.failed.push((before.id, copy_io(&error)));
                    self.producers.undo(before);
                }
                let again: Vec<_> = taken.headers.iter().skip(1).map(|_| Err(copy_io(&error))).collect();
                results.push(Err(error));
                results.extend(again);
            }
        }
    }

    fn write_parts(&mut self, parts: &[&[u8]], bytes: u64) -> Result<(), LogError> {
        let segment = Arc::clone(&self.active.segment);
        let position = self.active.index.covered;
        let file = self.dirty_file(&segment)?;
        let end = position + bytes;
        let room = match self.config.stable {
            StableEnd::Synced if end > self.active.length => room::zeros(position, bytes, self.config.segment_bytes),
            _ => &[],
        };
        let mut written = write_all(file.as_ref(), parts, room, position);
        if written.is_err() && !room.is_empty() && self.cut_litter(file.as_ref(), position) {
            // There may be room on the disk for the batches alone.
            written = write_all(file.as_ref(), parts, &[], position);
            if written.is_ok() {
                self.active.length = end;
                return Ok(());
            }
        }
        match written {
            Ok(()) => {
                self.active.length = self.active.length.max(end + room.len() as u64);
                Ok(())
            }
            Err(source) => {
                self.cut_litter(file.as_ref(), position);
                Err(LogError::Io { doing: "cannot write", path: segment.log.clone(), source })
            }
        }
    }

    /// The file of the active segment, noted as one to be synced.
    fn dirty_file(&mut self, segment: &Arc<Segment>) -> Result<Arc<dyn DiskFile>, LogError> {
        let known = self.dirty.last().filter(|dirty| Arc::ptr_eq(&dirty.segment, segment));
        if let Some(dirty) = known {
            return Ok(Arc::clone(&dirty.file));
        }
        let file = self.files.get(&segment.log).map_err(|error| segment.open_error(error))?;
        self.dirty.push(Dirty { segment: Arc::clone(segment), file: Arc::clone(&file) });
        Ok(file)
    }

    /// After a failed write: what part of it was written must not lie behind the next batch. Whether that was done.
    fn cut_litter(&mut self, file: &dyn DiskFile, position: u64) -> bool {
        self.litter = file.set_len(position).is_err();
        self.active.length = position;
        !self.litter
    }

    /// Writes room behind the last batch, as much as one of a few bytes would get, whether or not there is some; made durable
    /// by the next sync.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn make_room(&mut self) -> Result<(), LogError> {
        self.check_writable()?;
        let segment = Arc::clone(&self.active.segment);
        let (file, position) = (self.dirty_file(&segment)?, self.active.index.covered);
        let zeros = room::zeros(position, 0, self.config.segment_bytes);
        if let Err(source) = file.write_at(zeros, position) {
            self.cut_litter(file.as_ref(), position);
            return Err(LogError::Io { doing: "cannot write", path: segment.log.clone(), source });
        }
        self.active.length = self.active.length.max(position + zeros.len() as u64);
        self.dir_changes += 1;
        Ok(())
    }

    /// Cuts off the room behind the last batch; durable with the next sync, which this makes necessary.
    pub(crate) fn cut_room(&mut self) -> Result<(), LogError> {
        let end = self.active.index.covered;
        if self.active.length <= end {
            return Ok(());
        }
        let segment = Arc::clone(&self.active.segment);
        let file = self.dirty_file(&segment)?;
        file.set_len(end).map_err(LogError::io("cannot cut", &segment.log))?;
        self.active.length = end;
        self.dir_changes += 1;
        Ok(())
    }

    fn check_writable(&mut self) -> Result<(), LogError> {
        if let Some(reason) = &self.poisoned {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        if self.litter {
            let path = self.active.segment.log.clone();
            let file = self.files.get(&path).map_err(LogError::io("cannot open", &path))?;
            file.set_len(self.active.index.covered).map_err(LogError::io("cannot cut", &path))?;
            self.active.length = self.active.index.covered;
            self.litter = false;
        }
        Ok(())
    }

    fn must_roll(&self, run_bytes: u64, size: usize, now_ms: TimestampMs) -> bool {
        let held = self.active.index.covered + run_bytes;
        let old = match (self.config.segment_ms, self.active.first_append_ms) {
            (Some(limit), Some(first)) => now_ms.saturating_sub(first) > i64::try_from(limit).unwrap_or(i64::MAX),
            _ => false,
        };
        let far = self.written_end() - self.active.segment.base_offset > u64::from(u32::MAX / 2);
        held > 0 && (held + size as u64 > self.config.segment_bytes || old || far)
    }

    /// Closes the active segment and begins the next one. The new file's entry becomes durable with the next sync.
    pub(crate) fn roll(&mut self) -> Result<(), LogError> {
        self.cut_room()?;
        let next = self.written_end();
        let segment = Segment::new(&self.dir, next);
        let file = self.files.create(&segment.log).map_err(LogError::io("cannot make", &segment.log))?;
        // A file of that name can only be what an earlier crash left of the same attempt.
        if let Err(source) = file.set_len(0) {
            let _ = segment.remove(&self.files);
            return Err(LogError::Io { doing: "cannot cut", path: segment.log.clone(), source });
        }
        self.dir_changes += 1;
        let index = std::mem::replace(&mut self.active.index, SparseIndex::new(next));
        let sealed = std::mem::replace(&mut self.active.segment, segment);
        self.active.first_append_ms = None;
        self.active.length = 0;
        self.sealed.push(Sealed { info: sealed.sealed(&index), segment: Arc::clone(&sealed) });
        self.unstored.push((sealed, Arc::new(index)));
        self.checkpoint_due = true;
        Ok(())
    }

    /// Panics if the log's own invariants do not hold; for tests, after every step.
    #[doc(hidden)]
    pub fn assert_invariants(&self) {
        assert!(self.log_start <= self.synced_end(), "log start {} > synced {}", self.log_start, self.synced_end());
        assert!(self.synced_end() <= self.written_end(), "{} > {}", self.synced_end(), self.written_end());
        let ends = self.sealed.iter().map(|sealed| sealed.info.next_offset);
        let bases = self.sealed.iter().skip(1).map(|sealed| sealed.segment.base_offset);
        for (end, base) in ends.zip(bases.chain([self.active.segment.base_offset])) {
            assert!(end <= base, "segments overlap: {end} > {base}");
        }
    }
}

fn write_all(file: &dyn DiskFile, parts: &[&[u8]], room: &[u8], position: u64) -> std::io::Result<()> {
    match (parts, room) {
        ([part], []) => file.write_at(part, position),
        (parts, []) => file.write_vectored_at(parts, position),
        (parts, room) => file.write_vectored_at(&[parts, &[room]].concat(), position),
    }
}

/// Batches that are written with one call.
#[derive(Default)]
struct Run {
    first: Option<usize>,
    headers: Vec<BatchHeader>,
    bytes: u64,
    next_offset: Option<Offset>,
    undo: Vec<Before>,
    /// Producers of this group whose batches could not be written.
    failed: Vec<(i64, LogError)>,
}

impl Run {
    /// Refuses a batch behind one of the same producer that could not be written. A producer that is not known yet may
    /// begin with any sequence number: this batch would get in, and keep the other out for good.
    fn check(&self, header: &BatchHeader) -> Result<(), LogError> {
        let failed = self.failed.iter().find(|(id, _)| *id >= 0 && *id == header.producer_id);
        failed.map_or(Ok(()), |(_, error)| Err(copy_io(error)))
    }
}

/// The same error once more: several batches can fail with one write.
pub(crate) fn copy_io(error: &LogError) -> LogError {
    match error {
        LogError::Io { doing, path, source } => LogError::Io {
            doing,
            path: path.clone(),
            source: match source.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(source.kind(), source.to_string()),
            },
        },
        other => LogError::Poisoned { reason: other.to_string() },
    }
}
