//! Compaction by key: of the records of a key only the newest stays, and a tombstone for as long as it is to be seen.
//!
//! Only sealed segments are compacted, those before the active segment of the last checkpoint: all synced, all verified.
//! A run goes over them in one or more *passes*:
//!
//! 1. From the records that no pass has compared yet it makes a map of each key's newest offset, up to the end or until
//!    the map is full ([`Limits::key_bytes`]; the next pass goes on from there).
//! 2. It goes over all segments from the front. A record for whose key the map knows a newer one goes, and so does a
//!    tombstone whose time is over. What stays is written to a new file; batches of which all records stay are copied as
//!    they are. Several small segments become one file.
//! 3. Each new file is synced, gets its name (a generation of its own), the folder is synced; then a checkpoint with the
//!    new file in the place of the old ones is written, synced and renamed. *That is the moment the log changes over.*
//!    Old files go when the last reader has let go of them.
//!
//! What a crash leaves: before 3, a `.tmp` file; between the new name and the checkpoint, a file that no checkpoint names;
//! after it, old files that no checkpoint names any more. The next opening removes them. So at each moment the log is
//! the old one or the new one, and segments change over from the front to the back, one file at a time.
//!
//! **Offsets never change and stay contiguous.** Where a whole batch is gone there is one without records that stands for
//! its offsets ([`gap_batches`](crate::record::gap_batches)), so recovery, verification and reading still tell a hole from
//! what was removed on purpose, in compacted segments as elsewhere.
//!
//! **Tombstones** may go once everything older of their key is surely gone. The pass that compares one sets its batch's
//! delete horizon, and since segments change over in order, everything before it has changed over by then. A later pass
//! removes it when the horizon has passed.
//!
//! **Transactions.** Nothing is compacted that is part of an open one. Records of an aborted one go, whatever their key, and
//! make nothing obsolete; those of a committed one are records like any other. Markers go when nothing is left of their
//! transaction (`outcomes.rs`).
//!
//! Never removed: records without a key; batches that cannot be opened; the last batches of the server's own producers, which tell routes how far they have written, and with them the tombstones behind; the headers of the batches that a
//! producer may still send again, so that they are known for duplicates without a checkpoint, too.

mod keys;
mod outcomes;
mod output;
mod repair;
mod swap;

use std::sync::Arc;

use crate::base::{Offset, TimestampMs, limits};
use crate::record::{BatchHeader, Thinned, each_key, empty_batch, read_marker, thin};

use super::checkpoint::SealedSegment;
use super::index::SparseIndex;
use super::partition::{PartitionLog, Sealed};
use super::scan::{Check, Found, Scanner};
use super::segment::Segment;
use super::{Damage, LogError};
use keys::KeyMap;
use outcomes::Met;
use output::Output;
use swap::{Begun, Plan};

pub use repair::Repaired;
pub use swap::CleanState;

/// How long tombstones that may not go yet are left alone.
const LOOK_AGAIN_MS: TimestampMs = 600_000;

/// Offsets that one file may span: positions of an index are relative to its first.
const SPAN: u64 = u32::MAX as u64 / 2;

/// The log that is compacted, which others use meanwhile.
pub trait SharedLog {
    /// Runs something on the log itself.
    fn with_log<R>(&self, work: impl FnOnce(&mut PartitionLog) -> R) -> R;
    /// Whether to stop, asked once a batch.
    fn is_stopped(&self) -> bool;
    /// Waits a moment.
    fn pause(&self);
}

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the map of keys. Beside it there is one batch at a time, opened, and a few megabytes of buffers.
    pub key_bytes: usize,
    /// The key of the hash: random, and told to nobody.
    pub secret: u128,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Passes over the log.
    pub passes: u32,
    /// Bytes of segments read, those that were left as they are included.
    pub read_bytes: u64,
    /// Bytes of the segments that were replaced.
    pub replaced_bytes: u64,
    /// Bytes of the files in their place.
    pub made_bytes: u64,
    /// Segments that were replaced.
    pub replaced_segments: u32,
    /// Files in their place.
    pub made_segments: u32,
    /// Records that were removed.
    pub removed_records: u64,
    /// The most keys that were in the map.
    pub keys: usize,
    /// The most bytes of the map.
    pub key_bytes: usize,
}

/// Compacts a log as its settings say, by a clock that is to be trusted. `Ok(None)` if it has none of that, or there is
/// nothing to do.
///
/// # Errors
/// Those of the disk, damage in a segment, [`LogError::Closed`] when stopped. The log is whole then, compacted in part or
/// not at all.
pub fn clean(log: &impl SharedLog, limits: Limits, now_ms: TimestampMs) -> Result<Option<Cleaned>, LogError> {
    let mut cleaned = Cleaned::default();
    loop {
        let due = log.with_log(|log| log.clean_state(Some(now_ms)).due || cleaned.passes > 0);
        let Some(plan) = log.with_log(|log| log.plan_clean(now_ms)).filter(|_| due) else { break };
        let Some(end) = plan.segments.last().map(|last| last.info.next_offset) else { break };
        if cleaned.passes > 0 && plan.cleaned_to >= end {
            break;
        }
        let mut pass = Pass::prepare(log, plan, limits, now_ms, &mut cleaned)?;
        let compared = pass.compared;
        let changed = pass.run();
        remove_unused(log);
        if !changed? {
            break;
        }
        cleaned.passes += 1;
        if compared >= end {
            break;
        }
    }
    Ok((cleaned.passes > 0).then_some(cleaned))
}

/// Removes the files of segments that nobody reads any more; what is left is removed later.
fn remove_unused(log: &impl SharedLog) {
    let (unused, files) = log.with_log(|log| (log.take_unused(), Arc::clone(&log.files)));
    for segment in unused {
        if let Err(error) = segment.remove(&files) {
            tracing::warn!(%error, "the next start removes it");
        }
    }
}

/// One pass over the log.
struct Pass<'a, L> {
    log: &'a L,
    plan: Plan,
    keys: KeyMap,
    /// Everything before this is in the map, or was in one of an earlier pass.
    compared: Offset,
    now_ms: TimestampMs,
    cleaned: &'a mut Cleaned,
    /// What the segments gone over so far are now.
    done: Vec<Sealed>,
    /// The transactions in them.
    met: Met,
}

impl<'a, L: SharedLog> Pass<'a, L> {
    /// Makes the map.
    fn prepare(
        log: &'a L,
        plan: Plan,
        limits: Limits,
        now_ms: TimestampMs,
        cleaned: &'a mut Cleaned,
    ) -> Result<Self, LogError> {
        let end = plan.segments.last().map_or(plan.cleaned_to, |last| last.info.next_offset);
        let from = plan.segments.first().map_or(0, |first| first.info.base_offset).max(plan.cleaned_to);
        let keys = KeyMap::new(end.saturating_sub(from), limits.key_bytes, limits.secret);
        let mut pass = Self { log, plan, keys, compared: from, now_ms, cleaned, done: Vec::new(), met: Met::default() };
        pass.compare(from)?;
        pass.cleaned.keys = pass.cleaned.keys.max(pass.keys.len());
        pass.cleaned.key_bytes = pass.cleaned.key_bytes.max(pass.keys.bytes());
        Ok(pass)
    }

    /// Fills the map with what lies from `from` on.
    fn compare(&mut self, from: Offset) -> Result<(), LogError> {
        let Self { plan, keys, compared, log, cleaned, .. } = self;
        for Sealed { segment, info } in plan.segments.iter().filter(|sealed| sealed.info.next_offset > from) {
            let start = segment.sealed_index(&plan.files, info)?.position_of(from);
            let mut full = false;
            cleaned.read_bytes += info.bytes - start;
            each_batch(*log, plan, segment, info, start, |header, batch| {
                if header.base_offset < from {
                    return Ok(true);
                }
                if !header.is_control() && !plan.aborted.hold(header) {
                    let records = usize::try_from(header.record_count).unwrap_or(usize::MAX);
                    keys.grow(records);
                    full = keys.room() < records;
                    if full {
                        return Ok(false);
                    }
                    // One that cannot be opened makes nothing obsolete.
                    let _ = each_key(batch, |record| {
                        if let Some(key) = record.key {
                            keys.put(key, record.offset);
                        }
                    });
                }
                *compared = header.next_offset();
                Ok(true)
            })?;
            if full {
                break;
            }
        }
        Ok(())
    }

    /// Goes over the segments; `false` if the log has changed under it.
    fn run(&mut self) -> Result<bool, LogError> {
        let mut segments = std::mem::take(&mut self.plan.segments);
        segments.reverse();
        while let Some(first) = segments.pop() {
            if !self.concerns(&first.info) {
                self.met.pass_over();
                self.done.push(first);
                continue;
            }
            if !self.group(first, &mut segments)? {
                return Ok(false);
            }
            remove_unused(self.log);
        }
        let done = std::mem::take(&mut self.done);
        self.swap(&done, None, Some(self.compared.max(self.plan.cleaned_to)), &[])
    }

    /// Whether anything in the segment may have to go.
    fn concerns(&self, info: &SealedSegment) -> bool {
        let expired = info.horizon.is_some_and(|horizon| horizon <= self.now_ms);
        // Where it has been compared, nothing of them is left.
        let aborted = info.next_offset > self.plan.cleaned_to && self.plan.aborted.reach_into(info);
        expired || aborted || self.keys.len() > 0 && info.base_offset < self.compared
    }

    /// Whether a segment is worth trying behind `len` bytes of a file that begins at `base`: one that was compacted before
    /// will hardly get smaller.
    fn fits(&self, base: Offset, len: u64, next: &Sealed) -> bool {
        let small = match next.info.next_offset <= self.plan.cleaned_to {
            true => len + next.info.bytes <= self.plan.segment_bytes,
            false => len < self.plan.segment_bytes,
        };
        small && self.concerns(&next.info) && next.info.next_offset - base <= SPAN
    }

    /// Goes over one segment, and those behind it that fit the same file; `false` if the log has changed under it.
    fn group(&mut self, first: Sealed, rest: &mut Vec<Sealed>) -> Result<bool, LogError> {
        let base = first.info.base_offset;
        let mut draft = Draft::new(base);
        let small = first.info.bytes < self.plan.segment_bytes / 2;
        if small && rest.last().is_some_and(|next| self.fits(base, first.info.bytes, next)) {
            draft.out = Some(self.output(base, SparseIndex::new(base))?);
        }
        self.go_over(&first, &mut draft, u64::MAX)?;
        let (mut changed, mut removed) = (draft.changed, draft.removed);
        let mut sources = vec![first];
        while let Some(next) = rest.last() {
            let Some(out) = draft.out.as_mut().filter(|out| self.fits(base, out.len(), next)) else { break };
            out.mark();
            (draft.changed, draft.removed) = (false, 0);
            let (met, markers) = (self.met.clone(), draft.markers.len());
            if !self.go_over(next, &mut draft, self.plan.segment_bytes)? {
                draft.out.as_mut().map_or(Ok(()), Output::roll_back)?;
                self.met = met;
                draft.markers.truncate(markers);
                break;
            }
            (changed, removed) = (changed | draft.changed, removed + draft.removed);
            sources.extend(rest.pop());
        }
        match draft.out {
            Some(out) if changed || sources.len() > 1 => self.replace(sources, out, removed, &draft.markers),
            kept => {
                // What is known of it may have changed, if it is read for the first time since a checkpoint was lost.
                let horizon = self.next_look(kept.as_ref().map_or(draft.index.horizon, Output::horizon));
                self.done.extend(sources.into_iter().map(|mut source| {
                    source.info.horizon = horizon;
                    source
                }));
                Ok(true)
            }
        }
    }

    /// Changes the log over to what was made of these segments.
    fn replace(
        &mut self,
        sources: Vec<Sealed>,
        out: Output,
        removed: u64,
        markers: &[Offset],
    ) -> Result<bool, LogError> {
        let end = sources.last().map_or(0, |last| last.info.next_offset);
        let (segment, mut info) = out.finish(end)?;
        info.horizon = self.next_look(info.horizon);
        if !self.swap(&sources, Some((Arc::clone(&segment), info)), None, markers)? {
            return Ok(false);
        }
        self.cleaned.replaced_bytes += sources.iter().map(|source| source.info.bytes).sum::<u64>();
        self.cleaned.replaced_segments += sources.len() as u32;
        self.cleaned.made_bytes += info.bytes;
        self.cleaned.made_segments += 1;
        self.cleaned.removed_records += removed;
        self.done.push(Sealed { segment, info });
        Ok(true)
    }

    /// When to look again for tombstones that may go: for those that may not although their time is over, not at once.
    fn next_look(&self, horizon: Option<TimestampMs>) -> Option<TimestampMs> {
        horizon.map(|horizon| if horizon > self.now_ms { horizon } else { self.now_ms.saturating_add(LOOK_AGAIN_MS) })
    }

    fn output(&self, base: Offset, index: SparseIndex) -> Result<Output, LogError> {
        let segment = self.log.with_log(|log| log.new_generation(base));
        Output::create(self.plan.files.disk(), segment, index)
    }

    /// Adds what stays of a segment to the draft; `false` if it would become larger than `limit`.
    fn go_over(&mut self, source: &Sealed, draft: &mut Draft, limit: u64) -> Result<bool, LogError> {
        let Sealed { segment, info } = source;
        let mut fits = true;
        let mut gaps = Vec::new();
        self.cleaned.read_bytes += info.bytes;
        let mut met = std::mem::take(&mut self.met);
        let gone_over = each_batch(self.log, &self.plan, segment, info, 0, |header, batch| {
            let left = self.judge(header, batch, &mut met);
            if header.is_control() && matches!(left, Left::Nothing) {
                draft.markers.push(header.base_offset);
            }
            if let Left::Gap = left {
                if draft.out.is_none() {
                    gaps.push(*header);
                }
                return Ok(true);
            }
            if matches!(left, Left::Batch(_) | Left::Nothing) {
                draft.changed = true;
                if draft.out.is_none() {
                    // Up to here it is as it was. Gaps at its end become part of this one.
                    gaps.clear();
                    let mut out = self.output(info.base_offset, draft.index.clone())?;
                    let file = self.plan.files.get(&segment.log).map_err(|error| segment.open_error(error))?;
                    out.copy(file.as_ref(), segment)?;
                    draft.out = Some(out);
                }
            }
            draft.removed += u64::from(header.record_count);
            match (left, &mut draft.out) {
                (Left::Whole, None) => {
                    gaps.drain(..).for_each(|gap| draft.index.add(&gap));
                    draft.index.add(header);
                    draft.removed -= u64::from(header.record_count);
                }
                (Left::Whole, Some(out)) => {
                    out.push(header, batch)?;
                    draft.removed -= u64::from(header.record_count);
                }
                (Left::Batch(rebuilt), Some(out)) => {
                    let header = BatchHeader::parse(&rebuilt)?;
                    out.push(&header, &rebuilt)?;
                    draft.removed -= u64::from(header.record_count);
                }
                _ => {}
            }
            fits = draft.out.as_ref().is_none_or(|out| out.len() <= limit);
            Ok(fits)
        });
        self.met = met;
        gone_over?;
        gaps.iter().for_each(|gap| draft.index.add(gap));
        Ok(fits)
    }

    /// What stays of a batch.
    fn judge(&self, header: &BatchHeader, batch: &[u8], met: &mut Met) -> Left {
        if header.is_gap() {
            return Left::Gap;
        }
        if header.is_control() {
            let goes = read_marker(batch).is_some() && met.ends(header.producer_id);
            return if goes { Left::Nothing } else { Left::Whole };
        }
        let left = self.judge_data(header, batch);
        if matches!(left, Left::Whole | Left::Batch(_)) {
            met.stays(header);
        }
        left
    }

    /// The same, of one that is no control batch.
    fn judge_data(&self, header: &BatchHeader, batch: &[u8]) -> Left {
        let remembered = header.producer_id >= 0 && self.plan.remembered.contains(&header.base_offset);
        if header.record_count == 0 {
            return if remembered { Left::Whole } else { Left::Nothing };
        }
        let own = remembered && header.producer_id >= limits::OWN_PRODUCER_IDS;
        if own {
            return Left::Whole;
        }
        if self.plan.aborted.hold(header) {
            return if remembered { Left::Batch(empty_batch(header)) } else { Left::Nothing };
        }
        if header.base_offset >= self.compared {
            return Left::Whole;
        }
        let retention = i64::try_from(self.plan.settings.delete_retention_ms).unwrap_or(i64::MAX);
        let horizon = Some(self.now_ms.saturating_add(retention));
        // Behind a batch that is kept although it may be obsolete, no deletion is forgotten.
        let behind_own = self.plan.first_own.is_some_and(|own| own < header.base_offset);
        let over = header.delete_horizon().is_some_and(|horizon| horizon <= self.now_ms) && !behind_own;
        let thinned = thin(batch, horizon, |record| {
            let newest = record.key.and_then(|key| self.keys.get(key));
            let obsolete = newest.is_some_and(|newest| newest > record.offset);
            let gone = over && record.tombstone && record.key.is_some();
            !(obsolete || gone)
        });
        match thinned {
            // It is as it came; nobody else can open it either.
            Err(_) | Ok(Thinned::Whole) => Left::Whole,
            Ok(Thinned::Batch(rebuilt)) => Left::Batch(rebuilt),
            Ok(Thinned::Nothing) if remembered => Left::Batch(empty_batch(header)),
            Ok(Thinned::Nothing) => Left::Nothing,
        }
    }

    /// Changes the log over; `false` if it has changed meanwhile.
    fn swap(
        &self,
        sources: &[Sealed],
        made: Option<(Arc<Segment>, SealedSegment)>,
        cleaned_to: Option<Offset>,
        markers: &[Offset],
    ) -> Result<bool, LogError> {
        loop {
            match self.log.with_log(|log| log.begin_swap(sources, made.clone(), cleaned_to, markers)) {
                Begun::Job(job) => {
                    let result = job.run();
                    self.log.with_log(|log| log.finish_swap(job, result))?;
                    return Ok(true);
                }
                Begun::Later if self.log.is_stopped() => return Err(LogError::Closed),
                Begun::Later => self.log.pause(),
                Begun::Outdated => {
                    return match made {
                        Some((segment, _)) => segment.remove(&self.plan.files).map(|()| false),
                        None => Ok(false),
                    };
                }
            }
        }
    }
}

/// What is left of a batch.
enum Left {
    Whole,
    Batch(Vec<u8>),
    Nothing,
    /// It stood for offsets, and those of a gap beside it may join it.
    Gap,
}

/// A new file on its way. As long as nothing has changed there is only the index of what it would begin with.
struct Draft {
    out: Option<Output>,
    index: SparseIndex,
    changed: bool,
    removed: u64,
    /// Where the markers were that it is without.
    markers: Vec<Offset>,
}

impl Draft {
    fn new(base: Offset) -> Self {
        Self { out: None, index: SparseIndex::new(base), changed: false, removed: 0, markers: Vec::new() }
    }
}

/// Hands every batch of a segment from position `start` on to `take`, until that says `false`.
///
/// # Errors
/// Damage: behind it nothing is touched, and neither is the segment itself.
fn each_batch(
    log: &impl SharedLog,
    plan: &Plan,
    segment: &Segment,
    info: &SealedSegment,
    start: u64,
    mut take: impl FnMut(&BatchHeader, &[u8]) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    let file = plan.files.get(&segment.log).map_err(|error| segment.open_error(error))?;
    let mut scanner = Scanner::new(file.as_ref(), &segment.log, start, info.bytes, Check::Whole);
    let mut expected = (start == 0).then_some(info.base_offset);
    loop {
        if log.is_stopped() {
            return Err(LogError::Closed);
        }
        let position = scanner.position;
        let what = match scanner.next(expected)? {
            Found::Batch(header) => {
                expected = Some(header.next_offset());
                if !take(&header, scanner.previous(&header))? {
                    return Ok(());
                }
                continue;
            }
            Found::End if expected == Some(info.next_offset) => return Ok(()),
            Found::End => "the segment ends too early".to_owned(),
            Found::Broken(what) => what,
        };
        let (file, from) = (segment.log.clone(), expected.unwrap_or(info.base_offset));
        let to = Some(info.next_offset);
        return Err(LogError::Damaged(Box::new(Damage { file, position, from, to, what })));
    }
}

#[cfg(test)]
mod tests;
