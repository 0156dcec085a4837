//! The log's side of compaction: what can be compacted, and putting new files in the place of others.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::{Offset, TimestampMs, limits};
use crate::disk;

use super::super::checkpoint::{Checkpoint, SealedSegment};
use super::super::files::FileCache;
use super::super::partition::{PartitionLog, Sealed};
use super::super::segment::{Segment, SegmentName};
use super::super::{Compaction, LogError};
use super::outcomes::AbortedOnes;

/// How much of a log is compacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanState {
    /// Bytes of sealed segments that have been compacted.
    pub clean_bytes: u64,
    /// Bytes of sealed segments that could be compacted now.
    pub dirty_bytes: u64,
    /// Whether that is enough to begin, or tombstones have outlived their time.
    pub due: bool,
}

/// What one run works on.
pub(super) struct Plan {
    pub(super) files: Arc<FileCache>,
    pub(super) settings: Compaction,
    /// Files are not made larger than this by merging.
    pub(super) segment_bytes: u64,
    /// The segments that may be compacted, in order; contiguous.
    pub(super) segments: Vec<Sealed>,
    /// Records before this have been compared by key already.
    pub(super) cleaned_to: Offset,
    /// First offsets of the batches that producers may still send again.
    pub(super) remembered: HashSet<Offset>,
    /// The first of those that are kept with all their records: the server's own, which are looked up to learn what has
    /// been written.
    pub(super) first_own: Option<Offset>,
    /// The aborted transactions with batches in the segments.
    pub(super) aborted: AbortedOnes,
}

/// A checkpoint to be written; runs without the log.
pub(super) struct SwapJob {
    files: Arc<FileCache>,
    path: PathBuf,
    checkpoint: Checkpoint,
    sources: Vec<Arc<Segment>>,
    made: Option<(Arc<Segment>, SealedSegment)>,
    /// Where the markers were that are gone, in order.
    markers: Vec<Offset>,
}

/// What became of the wish to change the log over.
pub(super) enum Begun {
    /// Now write the checkpoint.
    Job(Box<SwapJob>),
    /// Another checkpoint is being written: later.
    Later,
    /// The log has changed: it was opened anew, or retention has taken a segment. What was made is of no use.
    Outdated,
}

impl SwapJob {
    /// Writes the checkpoint. Once it is durable, the log is changed over.
    ///
    /// # Errors
    /// The log stays as it is. The new file is removed, unless the checkpoint may be on the disk all the same.
    pub(super) fn run(&self) -> Result<(), LogError> {
        let disk = self.files.disk().as_ref();
        let written = disk::replace_file(disk, &self.path, &self.checkpoint.encode());
        if let (Err(_), Some((segment, _)), Some(dir)) = (&written, &self.made, self.path.parent())
            && let Ok(Some(there)) = Checkpoint::read(disk, dir)
            && there.sealed(segment.name()).is_none()
            && let Err(error) = segment.remove(&self.files)
        {
            tracing::debug!(%error, "the next start removes it");
        }
        written.map_err(LogError::io("cannot write", &self.path))
    }
}

impl PartitionLog {
    /// How much of the log is compacted, and whether to begin. `now_ms` is `None` when the time is not to be trusted.
    pub fn clean_state(&self, now_ms: Option<TimestampMs>) -> CleanState {
        let Some(settings) = self.config.compaction else { return CleanState::default() };
        let mut state = CleanState::default();
        let mut expired = false;
        for Sealed { info, .. } in self.cleanable(&settings, now_ms) {
            if info.next_offset <= self.cleaned_to {
                state.clean_bytes += info.bytes;
            } else {
                state.dirty_bytes += info.bytes;
            }
            expired |= info.horizon.zip(now_ms).is_some_and(|(horizon, now)| horizon <= now);
        }
        let all = state.clean_bytes + state.dirty_bytes;
        let enough = u128::from(state.dirty_bytes) * 1000 >= u128::from(all) * u128::from(settings.dirty_permille);
        state.due = state.dirty_bytes > 0 && enough || expired;
        state
    }

    /// The end of the last segment that compaction has made; from below it, deletions may be missing in the log.
    pub fn compacted_end(&self) -> Offset {
        let made = self.sealed.iter().filter(|sealed| sealed.segment.generation > 0);
        made.map(|sealed| sealed.info.next_offset).max().unwrap_or(self.log_start)
    }

    /// The sealed segments from the front on that may be compacted: those that the checkpoint holds, so that they are
    /// synced and every later checkpoint begins behind them, and that are old enough.
    fn cleanable(&self, settings: &Compaction, now_ms: Option<TimestampMs>) -> impl Iterator<Item = &Sealed> {
        let newest = match settings.min_lag_ms {
            0 => TimestampMs::MAX,
            lag => now_ms.map_or(TimestampMs::MIN, |now| now.saturating_sub(i64::try_from(lag).unwrap_or(i64::MAX))),
        };
        // Nothing that an open transaction has written is touched, and nothing that is held. What is taken hold of later lies
        // behind all that was planned before.
        let reached = self.synced.offset.min(self.committed_end()).min(self.held_from());
        let active = self.last_checkpoint.active_base;
        self.sealed.iter().take_while(move |Sealed { segment, info }| {
            segment.base_offset < active && info.next_offset <= reached && info.newest_timestamp <= newest
        })
    }

    pub(super) fn plan_clean(&self, now_ms: TimestampMs) -> Option<Plan> {
        let settings = self.config.compaction.filter(|_| self.poisoned.is_none())?;
        let mut segments: Vec<Sealed> = Vec::new();
        for sealed in self.cleanable(&settings, Some(now_ms)) {
            // Behind a hole (damage that was found when the log was opened) nothing is compacted.
            if segments.last().is_some_and(|before| before.info.next_offset != sealed.info.base_offset) {
                break;
            }
            segments.push(sealed.clone());
        }
        let (from, to) = (segments.first()?.info.base_offset, segments.last()?.info.next_offset);
        let states = self.producers.states.values();
        let own = self.producers.states.iter().filter(|(id, _)| **id >= limits::OWN_PRODUCER_IDS);
        let first_own = own.flat_map(|(_, state)| &state.batches).map(|batch| batch.base_offset).min();
        Some(Plan {
            files: Arc::clone(&self.files),
            settings,
            segment_bytes: self.config.segment_bytes,
            segments,
            cleaned_to: self.cleaned_to,
            remembered: states
                .flat_map(|state| &state.batches)
                .map(|batch| batch.base_offset)
                .chain(self.producers.keys.iter().map(|(.., batch)| batch.base_offset))
                .collect(),
            first_own,
            aborted: AbortedOnes::new(self.aborted(from, to)),
        })
    }

    /// A place for a new file. No generation is used twice, whatever became of it: a checkpoint whose writing failed may
    /// be on the disk all the same.
    pub(super) fn new_generation(&mut self, base_offset: Offset) -> Arc<Segment> {
        let generation = self.next_generation;
        self.next_generation = generation.saturating_add(1);
        Segment::named(&self.dir, SegmentName { base_offset, generation })
    }

    /// The first half of changing over: `made` takes the place of `sources`, of which some may only have another
    /// `info` now; everything below `cleaned_to` has been compared. The markers at `markers`, which are in order, are gone.
    pub(super) fn begin_swap(
        &mut self,
        sources: &[Sealed],
        made: Option<(Arc<Segment>, SealedSegment)>,
        cleaned_to: Option<Offset>,
        markers: &[Offset],
    ) -> Begun {
        let at = sources.first().and_then(|first| self.place_of(&first.segment));
        let same = |at: usize| {
            let there = self.sealed[at..].iter().map(|sealed| &sealed.segment);
            sources.len() <= self.sealed.len() - at
                && there.zip(sources).all(|(there, source)| Arc::ptr_eq(there, &source.segment))
        };
        if self.poisoned.is_some() || !at.is_some_and(same) {
            return Begun::Outdated;
        }
        if self.checkpoint_running {
            return Begun::Later;
        }
        let mut checkpoint = self.last_checkpoint.clone();
        let names: Vec<_> = sources.iter().map(|source| source.info.name()).collect();
        match made {
            Some((_, info)) => {
                let Some(at) = checkpoint.sealed.iter().position(|sealed| sealed.name() == names[0]) else {
                    return Begun::Outdated;
                };
                checkpoint.sealed.retain(|sealed| !names.contains(&sealed.name()));
                checkpoint.sealed.insert(at, info);
            }
            None => {
                for sealed in &mut checkpoint.sealed {
                    if let Some(source) = sources.iter().find(|source| source.info.name() == sealed.name()) {
                        *sealed = source.info;
                    }
                }
            }
        }
        checkpoint.cleaned_to = cleaned_to.unwrap_or(self.cleaned_to);
        checkpoint.producers.transactions.forget_marked(markers);
        self.checkpoint_running = true;
        Begun::Job(Box::new(SwapJob {
            files: Arc::clone(&self.files),
            path: self.dir.join(Checkpoint::FILE),
            checkpoint,
            sources: sources.iter().map(|source| Arc::clone(&source.segment)).collect(),
            made,
            markers: markers.to_vec(),
        }))
    }

    /// The second half: if the checkpoint could be written, the log is changed over, and the sources are retired.
    pub(super) fn finish_swap(&mut self, job: Box<SwapJob>, result: Result<(), LogError>) -> Result<(), LogError> {
        self.checkpoint_running = false;
        // Whatever is on the disk after an error: the old files are still there, and the next checkpoint names them.
        result?;
        self.cleaned_to = job.checkpoint.cleaned_to;
        if !job.markers.is_empty() {
            self.producers.transactions.forget_marked(&job.markers);
            self.forgotten += 1;
        }
        match job.made {
            Some((segment, info)) => {
                if let Some(at) = self.place_of(&job.sources[0]) {
                    let gone = self.sealed.splice(at..at + job.sources.len(), [Sealed { segment, info }]);
                    self.retired.extend(gone.map(|sealed| sealed.segment));
                }
                self.unstored.retain(|(segment, _)| !job.sources.iter().any(|source| Arc::ptr_eq(source, segment)));
            }
            None => {
                for sealed in &mut self.sealed {
                    if let Some(info) = job.checkpoint.sealed(sealed.info.name()) {
                        sealed.info = *info;
                    }
                }
            }
        }
        self.last_checkpoint = job.checkpoint;
        Ok(())
    }

    fn place_of(&self, segment: &Arc<Segment>) -> Option<usize> {
        self.sealed.iter().position(|sealed| Arc::ptr_eq(&sealed.segment, segment))
    }
}
