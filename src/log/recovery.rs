//! Opening a log: what a crash left is brought back to whole batches, and what is damaged is told apart from what was
//! never finished.
//!
//! Everything before the checkpoint was synced and verified; it is looked at only by file sizes. What follows is read
//! and verified batch by batch. At the first place that holds no whole batch of this log:
//! - at or above the *trusted end* (the checkpoint, or the mark of the last sync, whichever is later) a write was not
//!   finished: the log is cut there, also if whole batches follow, since nothing above was acknowledged as durable;
//! - below it, something that was synced has changed: that is damage. It is reported, the log goes on behind it, its
//!   offsets are never used again, and readers are told when they come to it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Offset, TimestampMs};
use crate::disk::DiskFile;
use crate::record::read_marker;

use super::checkpoint::{Checkpoint, SyncMark};
use super::files::FileCache;
use super::index::SparseIndex;
use super::keys::TakenPlaces;
use super::listing::{Listing, is_outdated, segment_names};
use super::partition::{Active, PartitionLog, Sealed};
use super::producers::Producers;
use super::room::is_room;
use super::scan::{Check, Depth, Found, Scanner, damage_in};
use super::segment::{Segment, SegmentName};
use super::{Damage, DamageList, LogConfig, LogError};

/// From so many bytes read on, a new checkpoint is written at once. Less is read again sooner than a checkpoint is written, and
/// with many topics that is what counts.
const WORTH_SAVING: u64 = 4 * 1024 * 1024;

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// First offset of the log.
    pub log_start: Offset,
    /// The offset after its last record.
    pub log_end: Offset,
    /// Bytes read and verified.
    pub scanned_bytes: u64,
    /// Bytes of unfinished writes that were cut off.
    pub cut_bytes: u64,
    /// Damage to data that had been synced.
    pub damage: Vec<Damage>,
    /// Anything else worth a line.
    pub notes: Vec<String>,
}

impl Recovery {
    /// Whether there was nothing to do and nothing to report.
    pub fn is_clean(&self) -> bool {
        self.scanned_bytes == 0 && self.cut_bytes == 0 && self.damage.is_empty() && self.notes.is_empty()
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offsets {} to {} (end not included)", self.log_start, self.log_end)?;
        write!(f, ", {} bytes verified, {} bytes of unfinished writes cut", self.scanned_bytes, self.cut_bytes)?;
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        for damage in &self.damage {
            write!(f, "; {damage}")?;
        }
        Ok(())
    }
}

impl PartitionLog {
    /// Opens a log: recovers it as the module describes. When it returns, everything in it is durable.
    ///
    /// # Errors
    /// Those of the disk. Damage is no error: see [`Recovery::damage`].
    pub fn open_with(
        files: Arc<FileCache>,
        dir: PathBuf,
        config: LogConfig,
        now_ms: TimestampMs,
    ) -> Result<(Self, Recovery), LogError> {
        let mut opening = Opening::look(files, dir)?;
        opening.check_sealed()?;
        opening.scan(now_ms)?;
        opening.settle()?;
        let Opening {
            files,
            dir,
            checkpoint,
            log_start,
            sealed,
            last,
            producers,
            mut recovery,
            changed,
            next_generation,
            ..
        } = opening;
        let (segment, index) = last;
        let damage = known_damage(&files, &dir, log_start, now_ms, &mut recovery);
        let synced = SyncMark { offset: index.next_offset, segment: segment.base_offset, position: index.covered };
        let scanned = recovery.scanned_bytes;
        let key_places = TakenPlaces::new(files.keys(), &producers.keys);
        let mut log = PartitionLog {
            dir,
            files,
            config,
            sealed,
            active: Active {
                first_append_ms: (index.covered > 0).then_some(now_ms),
                length: index.covered,
                segment,
                index,
            },
            log_start,
            synced,
            last_mark: Arc::default(),
            dirty: Vec::new(),
            dir_changes: 0,
            dir_synced: 0,
            sync_running: false,
            producers,
            key_places,
            poisoned: None,
            cleaned_to: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.cleaned_to),
            next_generation,
            retired: Vec::new(),
            forgotten: 0,
            held: BTreeMap::new(),
            litter: false,
            last_checkpoint: checkpoint.unwrap_or_default(),
            checkpoint_due: changed || scanned >= WORTH_SAVING,
            checkpoint_running: false,
            checkpoint_ready: None,
            bytes_since_checkpoint: scanned,
            checkpoint_failures: 0,
            checkpoint_pause: 0,
            unstored: Vec::new(),
            damage,
        };
        // Saves the work just done for the next time, if it was any. All is synced, so this writes only the checkpoint and the
        // mark.
        log.sync()?;
        let recovery = Recovery { log_start, log_end: log.written_end(), ..recovery };
        Ok((log, recovery))
    }
}

/// The list of known damage beside the log, with what this opening found. A list that cannot be read or stored is worth a
/// note and keeps nobody from opening the log.
fn known_damage(
    files: &FileCache,
    dir: &Path,
    log_start: Offset,
    now_ms: TimestampMs,
    recovery: &mut Recovery,
) -> DamageList {
    let disk = files.disk().as_ref();
    let mut list = DamageList::read(disk, dir).unwrap_or_else(|what| {
        recovery.notes.push(format!("the list of known damage is unusable ({what}): it begins anew"));
        DamageList::default()
    });
    let mut changed = list.forget_below(log_start);
    for damage in &recovery.damage {
        changed |= list.note(damage, now_ms);
    }
    if changed && let Err(error) = list.store(disk, dir) {
        recovery.notes.push(format!("the list of known damage cannot be stored: {error}"));
    }
    list
}

struct Opening {
    files: Arc<FileCache>,
    dir: PathBuf,
    checkpoint: Option<Checkpoint>,
    /// Synced data ends here at the least.
    trusted_end: Offset,
    /// What the mark of the last sync says.
    marked: Offset,
    log_start: Offset,
    /// The segment files that are there, and what else there was.
    bases: Vec<SegmentName>,
    listing: Listing,
    next_generation: u32,
    sealed: Vec<Sealed>,
    /// The segment that will be active.
    last: (Arc<Segment>, SparseIndex),
    producers: Producers,
    recovery: Recovery,
    /// Files read or cut, to be synced before anything in them is relied on.
    touched: Vec<(Arc<Segment>, Arc<dyn DiskFile>)>,
    changed: bool,
}

impl Opening {
    /// Reads what is beside the segments, and which segments there are.
    fn look(files: Arc<FileCache>, dir: PathBuf) -> Result<Self, LogError> {
        let disk = Arc::clone(files.disk());
        let mut recovery = Recovery::default();
        let checkpoint = Checkpoint::read(disk.as_ref(), &dir).unwrap_or_else(|what| {
            recovery.notes.push(format!("the checkpoint is unusable ({what}): every segment is read instead"));
            None
        });
        let mark = SyncMark::read(disk.as_ref(), &dir);
        for entry in disk.list(&dir).map_err(LogError::io("cannot list", &dir))? {
            if entry.name.ends_with(".tmp") && !entry.is_dir {
                let path = dir.join(&entry.name);
                disk.remove_file(&path).map_err(LogError::io("cannot remove", &path))?;
            }
        }
        let names = segment_names(disk.as_ref(), &dir).map_err(LogError::io("cannot list", &dir))?;
        if checkpoint.is_none() && recovery.notes.is_empty() {
            recovery.notes.push("there is no checkpoint: every segment is read".to_owned());
        }
        let outdated = checkpoint.as_ref().is_some_and(|checkpoint| is_outdated(checkpoint, &names));
        if outdated {
            recovery.notes.push("the checkpoint is older than the segments: every segment is read instead".to_owned());
        }
        let checkpoint = checkpoint.filter(|_| !outdated);
        let mut listing = Listing::new(&names, checkpoint.as_ref());
        let bases = std::mem::take(&mut listing.log);
        let next_generation = names.iter().map(|name| name.generation).max().unwrap_or(0).saturating_add(1);
        let marked = mark.map_or(0, |mark| mark.offset);
        let (log_start, trusted_end, active) = match &checkpoint {
            Some(checkpoint) => {
                (checkpoint.log_start, marked.max(checkpoint.next_offset), Segment::new(&dir, checkpoint.active_base))
            }
            // Without a checkpoint every segment but the last is taken for synced: better to report too much damage
            // than to cut away what was acknowledged.
            None => {
                let first = bases.first().copied().unwrap_or(SegmentName::written(marked));
                let last = bases.last().map_or(0, |last| last.base_offset);
                (first.base_offset, marked.max(last), Segment::named(&dir, first))
            }
        };
        let index = SparseIndex::new(active.base_offset);
        let changed = checkpoint.is_none();
        let producers = checkpoint.as_ref().map(|checkpoint| checkpoint.producers.clone()).unwrap_or_default();
        Ok(Self {
            files,
            dir,
            checkpoint,
            trusted_end,
            marked,
            log_start,
            bases,
            listing,
            next_generation,
            sealed: Vec::new(),
            last: (active, index),
            producers,
            recovery,
            touched: Vec::new(),
            changed,
        })
    }

    /// Removes what retention and compaction had given up, and compares the sealed segments with the checkpoint.
    fn check_sealed(&mut self) -> Result<(), LogError> {
        for &name in &self.listing.leftovers {
            Segment::named(&self.dir, name).remove(&self.files)?;
        }
        for &name in &self.listing.strays {
            let segment = Segment::named(&self.dir, name);
            if self.files.get(&segment.log).and_then(|file| file.len()).is_ok_and(|length| length == 0) {
                segment.remove(&self.files)?;
            } else {
                self.recovery.notes.push(format!("{} is no part of the log: left alone", segment.log.display()));
            }
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        for info in &checkpoint.sealed {
            let segment = Segment::named(&self.dir, info.name());
            let there = match self.files.get(&segment.log).and_then(|file| file.len()) {
                Ok(length) => Some(length),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(segment.open_error(error)),
            };
            match there {
                None => self.recovery.damage.push(Damage {
                    file: segment.log.clone(),
                    position: 0,
                    from: info.base_offset,
                    to: Some(info.next_offset),
                    what: "the segment file is missing".to_owned(),
                }),
                // Only what is not whole in it is lost.
                Some(length) if length < info.bytes => {
                    let file = self.files.get(&segment.log).map_err(LogError::io("cannot open", &segment.log))?;
                    let whole = Range { start: (0, info.base_offset), end: (info.bytes, info.next_offset) };
                    self.recovery.damage.extend(damage_in(
                        file.as_ref(),
                        &segment.log,
                        whole,
                        Depth::Batches,
                        &mut |_| true,
                    )?);
                }
                Some(_) => {}
            }
            self.sealed.push(Sealed { segment, info: *info });
        }
        Ok(())
    }

    /// Reads everything from the checkpoint on.
    fn scan(&mut self, now_ms: TimestampMs) -> Result<(), LogError> {
        let from = self.last.0.base_offset;
        let mut expected = self.checkpoint.as_ref().map_or(from, |checkpoint| checkpoint.next_offset);
        let mut bases: Vec<_> = self.bases.iter().copied().filter(|name| name.base_offset >= from).collect();
        if bases.first().is_none_or(|name| name.base_offset != from) {
            if expected > from {
                self.note_damage(Arc::clone(&self.last.0), 0, from, expected, "the segment file is missing".to_owned());
                self.last.1.next_offset = expected;
            }
            if bases.is_empty() || expected == from {
                bases.insert(0, SegmentName::written(from));
            }
        }
        for at in 0..bases.len() {
            let base = bases[at].base_offset;
            let segment = Segment::named(&self.dir, bases[at]);
            if base < expected && at > 0 {
                self.recovery.notes.push(format!("{} repeats what lies before it: removed", segment.log.display()));
                segment.remove(&self.files)?;
                self.changed = true;
                continue;
            }
            if base > expected {
                if expected >= self.trusted_end {
                    return self.drop_segments(&bases[at..]);
                }
                let what = "the log has no data for these offsets before this segment".to_owned();
                self.note_damage(Arc::clone(&segment), 0, expected, base, what);
                expected = base;
            }
            let following = bases.get(at + 1).map(|name| name.base_offset);
            let whole = self.scan_segment(&segment, &mut expected, following, now_ms)?;
            if !whole {
                return self.drop_segments(&bases[at + 1..]);
            }
        }
        Ok(())
    }

    /// Reads one segment. `false` if the log ends in it.
    fn scan_segment(
        &mut self,
        segment: &Arc<Segment>,
        expected: &mut Offset,
        following: Option<Offset>,
        now_ms: TimestampMs,
    ) -> Result<bool, LogError> {
        let file = self.files.create(&segment.log).map_err(LogError::io("cannot open", &segment.log))?;
        // A file just made is relied on only after its folder has been synced.
        self.changed |= !self.bases.contains(&segment.name());
        let length = file.len().map_err(LogError::io("cannot look at", &segment.log))?;
        let index = self.begin_index(segment, length)?;
        self.begin_last(Arc::clone(segment), index);
        let start = self.last.1.covered;
        self.touched.push((Arc::clone(segment), Arc::clone(&file)));
        if length < start {
            let whole = Range { start: (0, segment.base_offset), end: (start, *expected) };
            self.recovery.damage.extend(damage_in(file.as_ref(), &segment.log, whole, Depth::Batches, &mut |_| true)?);
            self.changed = true;
            return Ok(true);
        }
        let mut scanner = Scanner::new(file.as_ref(), &segment.log, start, length, Check::Whole);
        loop {
            let position = scanner.position;
            let why = match scanner.next(Some(*expected))? {
                Found::Batch(header) => {
                    if header.next_offset() > self.marked {
                        // If the last sync failed and the process then ended, the kernel may hold this clean in memory
                        // while the disk does not have it. Written again, the next sync takes it to the disk.
                        file.write_at(scanner.previous(&header), position)
                            .map_err(LogError::io("cannot write", &segment.log))?;
                        self.changed = true;
                    }
                    let marker = read_marker(scanner.previous(&header));
                    // What is forgotten here had been forgotten before.
                    let _ = self.producers.remember(&header, marker, now_ms);
                    self.last.1.add(&header);
                    *expected = header.next_offset();
                    self.recovery.scanned_bytes += header.total_bytes() as u64;
                    continue;
                }
                Found::End => return Ok(true),
                Found::Broken(why) => why,
            };
            if following == Some(*expected)
                && is_room(file.as_ref(), position, length).map_err(LogError::io("cannot read", &segment.log))?
            {
                // Nothing is missing: room whose cut a power cut took back.
                return Ok(true);
            }
            if *expected >= self.trusted_end {
                self.cut(segment, file.as_ref(), position, length)?;
                return Ok(false);
            }
            // Synced data is damaged here. Whole batches may follow, in this segment or the next.
            let resumed = scanner.resume(*expected + 1)?.map(|header| header.base_offset);
            let reach = resumed.or(following).unwrap_or(self.trusted_end).min(self.trusted_end.max(*expected + 1));
            self.note_damage(Arc::clone(segment), position, *expected, reach, why);
            *expected = reach;
            self.last.1.covered = scanner.position;
            self.last.1.next_offset = reach;
            if resumed.is_some_and(|base| base > reach) {
                // What follows lies above the trusted end, with something missing before it.
                self.cut(segment, file.as_ref(), scanner.position, length)?;
                return Ok(false);
            }
        }
    }

    /// The index of the part of a segment that lies before the checkpoint; an empty one for later segments.
    fn begin_index(&self, segment: &Segment, length: u64) -> Result<SparseIndex, LogError> {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|known| known.active_base == segment.base_offset) else {
            return Ok(SparseIndex::new(segment.base_offset));
        };
        let position = checkpoint.position;
        let stored = SparseIndex::load(self.files.disk().as_ref(), &segment.offsets, &segment.times);
        let mut index = match stored {
            Ok(index) if index.base_offset == segment.base_offset && index.covered == position => index,
            _ => segment.index_from_log(&self.files, position.min(length))?,
        };
        // Damage may have stopped the walk; reading will come to it.
        index.covered = position;
        index.next_offset = checkpoint.next_offset;
        Ok(index)
    }

    /// Makes `segment` the last one; the one before is sealed.
    fn begin_last(&mut self, segment: Arc<Segment>, index: SparseIndex) {
        let (before, held) = std::mem::replace(&mut self.last, (segment, index));
        if before.base_offset == self.last.0.base_offset {
            return;
        }
        self.sealed.push(Sealed { info: before.sealed(&held), segment: before });
    }

    fn cut(&mut self, segment: &Segment, file: &dyn DiskFile, at: u64, length: u64) -> Result<(), LogError> {
        // Room ahead is no unfinished write.
        if !is_room(file, at, length).map_err(LogError::io("cannot read", &segment.log))? {
            self.recovery.cut_bytes += length - at;
            self.changed = true;
        }
        file.set_len(at).map_err(LogError::io("cannot cut", &segment.log))?;
        Ok(())
    }

    /// Removes segments above the end of the log; they hold only what was never synced.
    fn drop_segments(&mut self, names: &[SegmentName]) -> Result<(), LogError> {
        for &name in names {
            let segment = Segment::named(&self.dir, name);
            if let Ok(length) = self.files.get(&segment.log).and_then(|file| file.len()) {
                self.recovery.cut_bytes += length;
            }
            segment.remove(&self.files)?;
            self.changed = true;
        }
        Ok(())
    }

    fn note_damage(&mut self, segment: Arc<Segment>, position: u64, from: Offset, to: Offset, what: String) {
        self.recovery.damage.push(Damage { file: segment.log.clone(), position, from, to: Some(to), what });
        self.changed = true;
    }

    /// Makes everything found durable, and makes sure that what comes next gets offsets that were never used.
    fn settle(&mut self) -> Result<(), LogError> {
        let end = self.last.1.next_offset.max(self.trusted_end).max(self.log_start);
        let at_end = self.last.1.next_offset == end;
        let file_whole = self.touched.last().is_some_and(|(segment, file)| {
            segment.base_offset == self.last.0.base_offset
                && file.len().is_ok_and(|length| length == self.last.1.covered)
        });
        // A file that compaction made is never appended to.
        let compacted = self.last.0.generation > 0;
        if !at_end || !file_whole || compacted {
            if at_end && self.last.0.base_offset == end {
                self.last.1 = SparseIndex::new(end);
            } else {
                self.last.1.next_offset = end;
                self.begin_last(Segment::new(&self.dir, end), SparseIndex::new(end));
            }
            let segment = Arc::clone(&self.last.0);
            let file = self.files.create(&segment.log).map_err(LogError::io("cannot make", &segment.log))?;
            file.set_len(0).map_err(LogError::io("cannot cut", &segment.log))?;
            self.touched.push((segment, file));
            self.changed = true;
        }
        if self.changed {
            for (segment, file) in &self.touched {
                file.sync_data().map_err(LogError::io("cannot sync", &segment.log))?;
            }
            self.files.disk().sync_dir(&self.dir).map_err(LogError::io("cannot sync", &self.dir))?;
        }
        Ok(())
    }
}
