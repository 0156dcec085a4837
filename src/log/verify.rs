//! Checking a partition folder offline: every batch, and everything beside the segments. Changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Offset;
use crate::disk::{Disk, OpenMode};
use crate::record::check_stored;

use super::LogError;
use super::checkpoint::{Checkpoint, SyncMark};
use super::index::SparseIndex;
use super::listing::{Listing, is_outdated, segment_names};
use super::room::is_room;
use super::scan::{Check, Found, Scanner};
use super::segment::{Segment, SegmentName};

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Byte position in it.
    pub position: u64,
    /// First offset concerned.
    pub from: Offset,
    /// The offset after the last one concerned, if known.
    pub to: Option<Offset>,
    /// What is wrong, one line.
    pub what: String,
    /// Data is damaged or missing. Otherwise it is something that the next start repairs by itself, such as an
    /// unfinished write at the end or an index to be rebuilt.
    pub damage: bool,
}

/// What was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// Segment files.
    pub segments: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them, by their headers.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// First offset.
    pub log_start: Offset,
    /// The offset after the last record.
    pub log_end: Offset,
}

/// Checks one partition folder: calls `found` for each finding and `progress` with the bytes read since the last call.
///
/// # Errors
/// Those of the disk while listing and reading; damage is a finding.
pub fn verify_partition(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    found: &mut dyn FnMut(Finding),
    progress: &mut dyn FnMut(u64),
) -> Result<VerifySummary, LogError> {
    let checkpoint = match Checkpoint::read(disk.as_ref(), dir) {
        Ok(checkpoint) => checkpoint,
        Err(what) => {
            let what = format!("the checkpoint is unusable: {what}");
            found(Finding { file: dir.join(Checkpoint::FILE), position: 0, from: 0, to: None, what, damage: false });
            None
        }
    };
    let marked = SyncMark::read(disk.as_ref(), dir).map_or(0, |mark| mark.offset);
    let names = segment_names(disk.as_ref(), dir).map_err(LogError::io("cannot list", dir))?;
    let outdated = checkpoint.as_ref().is_some_and(|known| is_outdated(known, &names));
    if outdated {
        let what = "the checkpoint is older than the segments and will not be used".to_owned();
        found(Finding { file: dir.join(Checkpoint::FILE), position: 0, from: 0, to: None, what, damage: false });
    }
    let checkpoint = checkpoint.filter(|_| !outdated);
    let Listing { log: mut bases, leftovers: _, strays } = Listing::new(&names, checkpoint.as_ref());
    let first = bases.first().map_or(0, |name| name.base_offset);
    let log_start = checkpoint.as_ref().map_or(first, |known| known.log_start);
    let known_end = checkpoint.as_ref().map_or(0, |known| known.next_offset);
    // What retention has given up is removed by the next start.
    let given_up = bases.windows(2).take_while(|pair| pair[1].base_offset <= log_start).count();
    bases.drain(..given_up);
    for name in strays {
        let file = Segment::named(dir, name).log.clone();
        let what = "the file is no part of the log".to_owned();
        found(Finding { file, position: 0, from: name.base_offset, to: None, what, damage: false });
    }
    let mut verify = Verify {
        disk,
        dir,
        trusted_end: known_end.max(marked).max(if checkpoint.is_none() {
            bases.last().map_or(0, |name| name.base_offset)
        } else {
            0
        }),
        checkpoint,
        summary: VerifySummary { log_start, log_end: log_start, ..VerifySummary::default() },
        found,
        progress,
    };
    let first = bases.first().map(|name| name.base_offset);
    let mut expected = first.filter(|&base| base <= log_start).unwrap_or(log_start);
    for (at, &name) in bases.iter().enumerate() {
        let segment = Segment::named(dir, name);
        if name.base_offset != expected {
            verify.gap(&segment, expected, name.base_offset);
        }
        expected = verify.segment(&segment, bases.get(at + 1).copied())?;
    }
    if expected < verify.trusted_end {
        let file = Segment::named(dir, bases.last().copied().unwrap_or(SegmentName::written(0))).log.clone();
        let what = format!("the log ends at offset {expected}; it had been synced up to {}", verify.trusted_end);
        let to = Some(verify.trusted_end);
        (verify.found)(Finding { file, position: 0, from: expected, to, what, damage: true });
    }
    verify.summary.log_end = expected.max(log_start);
    Ok(verify.summary)
}

struct Verify<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    checkpoint: Option<Checkpoint>,
    trusted_end: Offset,
    summary: VerifySummary,
    found: &'a mut dyn FnMut(Finding),
    progress: &'a mut dyn FnMut(u64),
}

impl Verify<'_> {
    fn gap(&mut self, segment: &Segment, expected: Offset, base: Offset) {
        let (from, to) = (expected.min(base), expected.max(base));
        let damage = base > expected && expected < self.trusted_end;
        let what = if base > expected {
            "the log has no data for these offsets before this segment".to_owned()
        } else {
            "the segment repeats offsets that lie before it; the next start removes it".to_owned()
        };
        (self.found)(Finding { file: segment.log.clone(), position: 0, from, to: Some(to), what, damage });
    }

    /// Checks one segment; the offset that follows it.
    fn segment(&mut self, segment: &Segment, following: Option<SegmentName>) -> Result<Offset, LogError> {
        let following = following.map(|name| name.base_offset);
        let path = &segment.log;
        let file = self.disk.open(path, OpenMode::Read).map_err(LogError::io("cannot open", path))?;
        let sealed = self.checkpoint.as_ref().and_then(|known| known.sealed(segment.name()));
        let length = file.len().map_err(LogError::io("cannot look at", path))?;
        // A sealed segment's length is known; what lies behind it belongs to nobody.
        let end = sealed.map_or(length, |sealed| sealed.bytes.min(length));
        self.summary.segments += 1;
        let mut index = SparseIndex::new(segment.base_offset);
        let mut damaged = false;
        let mut expected = segment.base_offset;
        let mut scanner = Scanner::new(file.as_ref(), path, 0, end, Check::Whole);
        loop {
            let position = scanner.position;
            match scanner.next(Some(expected))? {
                Found::Batch(header) => {
                    if let Err((from, error)) = check_stored(scanner.previous(&header)) {
                        let to = Some(header.next_offset());
                        let what = format!("its records cannot be read: {error}");
                        (self.found)(Finding { file: path.clone(), position, from, to, what, damage: true });
                    }
                    index.add(&header);
                    self.summary.batches += 1;
                    self.summary.records += u64::from(header.record_count);
                    self.summary.bytes += header.total_bytes() as u64;
                    expected = header.next_offset();
                }
                Found::End => break,
                Found::Broken(what) => {
                    let torn = expected >= self.trusted_end;
                    let whole = torn || following == Some(expected);
                    if whole && is_room(file.as_ref(), position, end).map_err(LogError::io("cannot read", path))? {
                        break;
                    }
                    damaged = true;
                    let resumed = scanner.resume(expected + 1)?.map(|header| header.base_offset);
                    let to = resumed.or(following).unwrap_or(self.trusted_end.max(expected));
                    let what =
                        if torn { format!("an unfinished write, which the next start cuts off: {what}") } else { what };
                    (self.found)(Finding {
                        file: path.clone(),
                        position,
                        from: expected,
                        to: Some(to),
                        what,
                        damage: !torn,
                    });
                    if torn {
                        break;
                    }
                    expected = to;
                }
            }
            (self.progress)(scanner.position - position);
        }
        if let Some(sealed) = sealed
            && length < sealed.bytes
            && !damaged
        {
            let what = format!("the file has {length} of {} bytes", sealed.bytes);
            let (from, to) = (expected, Some(sealed.next_offset));
            (self.found)(Finding { file: path.clone(), position: length, from, to, what, damage: true });
            expected = sealed.next_offset;
        }
        if !damaged {
            self.index(segment, &index);
        }
        Ok(expected)
    }

    /// Compares the index files with the log.
    fn index(&mut self, segment: &Segment, truth: &SparseIndex) {
        let stored = match SparseIndex::load(self.disk.as_ref(), &segment.offsets, &segment.times) {
            Ok(stored) => stored,
            // A missing index is no finding: the active segment's is written with the checkpoint.
            Err(_) if matches!(self.disk.exists(&segment.offsets), Ok(false)) => return,
            Err(what) => {
                self.index_finding(segment, format!("the index is unusable and will be rebuilt: {what}"));
                return;
            }
        };
        let agrees = stored.covered <= truth.covered
            && stored.entries.len() <= truth.entries.len()
            && stored.entries == truth.entries[..stored.entries.len()];
        if !agrees {
            self.index_finding(segment, "the index is at odds with the log and will be rebuilt".to_owned());
        }
    }

    fn index_finding(&mut self, segment: &Segment, what: String) {
        let from = segment.base_offset;
        (self.found)(Finding { file: segment.offsets.clone(), position: 0, from, to: None, what, damage: false });
        debug_assert!(segment.offsets.starts_with(self.dir));
    }
}
