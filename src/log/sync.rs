//! Making what was written durable, in two halves around the system call, and checkpoints, which ride on a sync.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::{Offset, Seldom, TimestampMs};
use crate::disk;

use super::LogError;
use super::checkpoint::{Checkpoint, SyncMark};
use super::files::FileCache;
use super::index::SparseIndex;
use super::partition::{Dirty, PartitionLog};
use super::segment::Segment;

/// After so many failures in a row, the number of syncs between two attempts at a checkpoint grows no more: 2 to this power.
const CHECKPOINT_BACKOFF: u32 = 8;

/// Indexes of closed segments that wait to be stored.
const UNSTORED: usize = 64;

/// What one sync has to do; runs without the log, so that appends go on meanwhile.
pub struct SyncTicket {
    files: Arc<FileCache>,
    dir: PathBuf,
    dirty: Vec<Dirty>,
    dir_changes: u64,
    sync_dir: bool,
    reached: SyncMark,
    last_mark: Arc<Mutex<Offset>>,
    checkpoint: Option<CheckpointDraft>,
}

/// A checkpoint that may be written once the sync it was drafted for has succeeded.
#[derive(Clone)]
pub(crate) struct CheckpointDraft {
    checkpoint: Checkpoint,
    indexes: Vec<(Arc<Segment>, Arc<SparseIndex>)>,
}

/// Writes a checkpoint; runs without the log.
pub struct CheckpointJob {
    files: Arc<FileCache>,
    dir: PathBuf,
    draft: CheckpointDraft,
}

impl SyncTicket {
    /// The offset below which everything is durable once [`SyncTicket::run`] has returned `Ok`.
    pub fn reached(&self) -> Offset {
        self.reached.offset
    }

    /// Syncs every file written since the last sync, in log order, and the folder if files were made in it.
    ///
    /// # Errors
    /// The state of everything written since the last sync is unknown then.
    pub fn run(&self) -> Result<(), LogError> {
        // In log order: a later segment that survives a power cut must not have a hole before it.
        for dirty in &self.dirty {
            dirty.file.sync_data().map_err(LogError::io("cannot sync", &dirty.segment.log))?;
        }
        if self.sync_dir {
            self.files.disk().sync_dir(&self.dir).map_err(LogError::io("cannot sync", &self.dir))?;
        }
        Ok(())
    }

    /// The note of how far this sync reached, to be written once it has succeeded and those who wait for it have been
    /// answered.
    pub fn mark(&self) -> MarkJob {
        MarkJob {
            files: Arc::clone(&self.files),
            path: self.dir.join(SyncMark::FILE),
            mark: self.reached,
            last: Arc::clone(&self.last_mark),
        }
    }
}

/// Notes how far a sync reached; runs without the log.
pub struct MarkJob {
    files: Arc<FileCache>,
    path: PathBuf,
    mark: SyncMark,
    last: Arc<Mutex<Offset>>,
}

impl MarkJob {
    /// Writes the note, unless a later one is there. Only a lower bound of the truth, so a failure costs nothing but
    /// precision.
    pub fn run(self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.mark.offset < *last {
            return;
        }
        let file = match self.files.get(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.files.create(&self.path),
            other => other,
        };
        match file.and_then(|file| file.write_at(&self.mark.encode(), 0)) {
            Ok(()) => *last = self.mark.offset,
            Err(error) => tracing::debug!(file = %self.path.display(), %error, "cannot note the synced end"),
        }
    }
}

impl CheckpointJob {
    /// Writes the index files that are due, and the checkpoint; durable when it returns.
    ///
    /// # Errors
    /// The former checkpoint stays.
    pub fn run(&mut self) -> Result<(), LogError> {
        static TOLD: Seldom = Seldom::new();
        let disk = self.files.disk().as_ref();
        let mut stored = 0;
        for (segment, index) in &self.draft.indexes {
            if let Err(error) = index.store(disk, &segment.offsets, &segment.times) {
                // What keeps one from being stored keeps the others from it.
                if let Some(left_out) = TOLD.turn() {
                    let file = segment.offsets.display();
                    tracing::warn!(%file, %error, left_out, "cannot store an index; it is tried with the next checkpoint");
                }
                break;
            }
            stored += 1;
        }
        self.draft.indexes.drain(..stored);
        let path = self.dir.join(Checkpoint::FILE);
        disk::replace_file(disk, &path, &self.draft.checkpoint.encode()).map_err(LogError::io("cannot write", &path))
    }
}

impl PartitionLog {
    /// The first half of a sync: what is to be synced. `None` if there is nothing, or one is running.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    pub fn begin_sync(&mut self) -> Result<Option<SyncTicket>, LogError> {
        if let Some(reason) = &self.poisoned {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        if self.sync_running || !(self.is_dirty() || self.checkpoint_due) {
            return Ok(None);
        }
        self.sync_running = true;
        let reached = SyncMark {
            offset: self.written_end(),
            segment: self.active.segment.base_offset,
            position: self.active.index.covered,
        };
        Ok(Some(SyncTicket {
            files: Arc::clone(&self.files),
            dir: self.dir.clone(),
            dirty: self.dirty.clone(),
            dir_changes: self.dir_changes,
            sync_dir: self.dir_synced < self.dir_changes,
            reached,
            last_mark: Arc::clone(&self.last_mark),
            checkpoint: self.draft_checkpoint(reached),
        }))
    }

    /// A checkpoint of this very moment: the producers are exactly those of the written end.
    fn draft_checkpoint(&mut self, reached: SyncMark) -> Option<CheckpointDraft> {
        if !self.checkpoint_due || self.checkpoint_running {
            return None;
        }
        if self.checkpoint_pause > 0 {
            self.checkpoint_pause -= 1;
            return None;
        }
        self.checkpoint_due = false;
        self.bytes_since_checkpoint = 0;
        let mut indexes = std::mem::take(&mut self.unstored);
        indexes.push((Arc::clone(&self.active.segment), Arc::new(self.active.index.clone())));
        Some(CheckpointDraft {
            checkpoint: Checkpoint {
                log_start: self.log_start,
                active_base: reached.segment,
                position: reached.position,
                next_offset: reached.offset,
                cleaned_to: self.cleaned_to,
                sealed: self.sealed.iter().map(|sealed| sealed.info).collect(),
                producers: self.producers.clone(),
            },
            indexes,
        })
    }

    /// The second half of a sync: takes its result in. After a failure the log is poisoned.
    ///
    /// # Errors
    /// The error given, after poisoning.
    pub fn finish_sync(&mut self, ticket: SyncTicket, result: Result<(), LogError>) -> Result<(), LogError> {
        self.sync_running = false;
        if let Err(error) = result {
            if let Some(draft) = ticket.checkpoint {
                self.checkpoint_due = true;
                self.keep_unstored(draft);
            }
            self.poisoned = Some(error.to_string());
            return Err(error);
        }
        self.synced = ticket.reached;
        self.dir_synced = ticket.dir_changes;
        let active = self.active.segment.base_offset;
        let unsynced = self.active.index.covered > ticket.reached.position;
        self.dirty.retain(|dirty| {
            let base = dirty.segment.base_offset;
            base > ticket.reached.segment || (base == ticket.reached.segment && (base != active || unsynced))
        });
        if ticket.checkpoint.is_some() {
            self.checkpoint_ready = ticket.checkpoint;
        }
        Ok(())
    }

    /// Syncs everything written, and writes a checkpoint if one is due.
    ///
    /// # Errors
    /// Those of the sync, which poisons the log. A failed checkpoint is only reported: the former one stays.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if let Some(ticket) = self.begin_sync()? {
            let result = ticket.run();
            let mark = ticket.mark();
            self.finish_sync(ticket, result)?;
            mark.run();
        }
        if let Some(mut job) = self.begin_checkpoint() {
            let result = job.run();
            self.finish_checkpoint(job, result);
        }
        Ok(())
    }

    /// The checkpoint that is ready to be written, if there is one and none is being written.
    pub fn begin_checkpoint(&mut self) -> Option<CheckpointJob> {
        if self.checkpoint_running {
            return None;
        }
        let mut draft = self.checkpoint_ready.take()?;
        // Retention and compaction may have moved on since the draft was made.
        let (log_start, active_base) = (self.log_start, draft.checkpoint.active_base);
        (draft.checkpoint.log_start, draft.checkpoint.cleaned_to) = (log_start, self.cleaned_to);
        let sealed = self.sealed.iter().map(|sealed| sealed.info);
        draft.checkpoint.sealed =
            sealed.filter(|info| info.base_offset < active_base && info.next_offset > log_start).collect();
        draft.indexes.retain(|(segment, index)| index.next_offset > log_start || segment.base_offset >= log_start);
        self.checkpoint_running = true;
        Some(CheckpointJob { files: Arc::clone(&self.files), dir: self.dir.clone(), draft })
    }

    /// Takes the result of a checkpoint in; a failure is logged and the checkpoint is due again.
    pub fn finish_checkpoint(&mut self, job: CheckpointJob, result: Result<(), LogError>) {
        self.checkpoint_running = false;
        static TOLD: Seldom = Seldom::new();
        let draft = job.draft;
        match result {
            Ok(()) => {
                self.last_checkpoint = draft.checkpoint.clone();
                self.checkpoint_failures = 0;
            }
            Err(error) => {
                if let Some(left_out) = TOLD.turn() {
                    let what = "cannot write a checkpoint; recovery will take longer until one is written";
                    tracing::warn!(%error, left_out, "{what}");
                }
                self.checkpoint_due = true;
                self.checkpoint_failures = (self.checkpoint_failures + 1).min(CHECKPOINT_BACKOFF);
                self.checkpoint_pause = 1 << self.checkpoint_failures;
            }
        }
        self.keep_unstored(draft);
    }

    /// Indexes of a draft that are not stored are for the next one: those of closed segments, the latest ones. The active
    /// segment's goes into every draft; others are built again when somebody needs them.
    fn keep_unstored(&mut self, draft: CheckpointDraft) {
        let active = draft.checkpoint.active_base;
        let closed = draft.indexes.into_iter().filter(|(segment, _)| segment.base_offset != active);
        self.unstored.splice(0..0, closed);
        let excess = self.unstored.len().saturating_sub(UNSTORED);
        self.unstored.drain(..excess);
    }

    /// Makes a checkpoint due, whatever was written since the last one, if anything was.
    pub fn request_checkpoint(&mut self) {
        self.checkpoint_pause = 0;
        self.checkpoint_due |= self.written_end() != self.last_checkpoint.next_offset;
    }

    /// Syncs, writes a checkpoint and takes no more appends.
    ///
    /// # Errors
    /// Those of the sync.
    pub fn close(&mut self, _now_ms: TimestampMs) -> Result<(), LogError> {
        if self.poisoned.is_none() {
            self.cut_room()?;
            self.request_checkpoint();
            self.sync()?;
        }
        self.poisoned.get_or_insert_with(|| "the partition is closed".to_owned());
        self.files.forget(&self.dir);
        Ok(())
    }
}
