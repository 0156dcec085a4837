//! Reading batches: a plan is made with the log at hand, and run without it, so that appends go on meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::base::{Offset, limits};
use crate::disk::DiskFile;
use crate::record::{BatchHeader, verify_batch};

use super::checkpoint::SealedSegment;
use super::files::FileCache;
use super::partition::PartitionLog;
use super::scan::{Check, Found, Scanner, read_up_to};
use super::segment::Segment;
use super::{Damage, LogError};

/// Batches read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadChunk {
    /// Whole, verified batches; the first may begin before the offset asked for. Empty at the end.
    pub bytes: Bytes,
    /// The offset to go on from.
    pub next_offset: Offset,
    /// The first batch has so many bytes, more than it might have; it was not read.
    pub needs: Option<usize>,
}

impl ReadChunk {
    /// Nothing, and where to go on.
    pub fn empty(next_offset: Offset) -> Self {
        Self { bytes: Bytes::new(), next_offset, needs: None }
    }
}

/// What one read has to do.
pub struct ReadPlan {
    files: Arc<FileCache>,
    segment: Arc<Segment>,
    /// `None` while the segment is active.
    sealed: Option<SealedSegment>,
    /// Where to begin, known for the active segment; a sealed one's index may have to be loaded.
    start: Option<u64>,
    /// Bytes of the segment that may be read.
    end: u64,
    /// First offset of the segment behind, or the end of the log.
    following: Offset,
    offset: Offset,
    max_bytes: usize,
    limit: Offset,
    /// Bytes of the largest batch that is read.
    largest: usize,
    /// Only what is in memory is read.
    at_once: bool,
}

impl PartitionLog {
    /// Plans a read of batches from `offset` on, up to `max_bytes` (but at least one batch), of records below `limit`.
    /// `Ok(None)` at the limit.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`].
    pub fn plan_read(&self, offset: Offset, max_bytes: usize, limit: Offset) -> Result<Option<ReadPlan>, LogError> {
        let limit = limit.min(self.written_end());
        if offset < self.log_start || offset > limit {
            return Err(LogError::OffsetOutOfRange { offset, start: self.log_start, end: limit });
        }
        if offset == limit {
            return Ok(None);
        }
        let plan = |segment: &Arc<Segment>, sealed, start, end, following| ReadPlan {
            files: Arc::clone(&self.files),
            segment: Arc::clone(segment),
            sealed,
            start,
            end,
            following,
            offset,
            max_bytes,
            limit,
            largest: usize::MAX,
            at_once: false,
        };
        let active = &self.active;
        if offset >= active.segment.base_offset {
            let start = active.index.position_of(offset);
            return Ok(Some(plan(&active.segment, None, Some(start), active.index.covered, self.written_end())));
        }
        let after = self.sealed.partition_point(|sealed| sealed.segment.base_offset <= offset);
        let Some(at) = after.checked_sub(1) else {
            // The first segment begins behind the log start: its predecessor is missing.
            let first = self.sealed.first().map_or(&active.segment, |sealed| &sealed.segment);
            return Err(missing(first, offset, first.base_offset));
        };
        let sealed = &self.sealed[at];
        let following = self.sealed.get(after).map_or(&active.segment, |next| &next.segment);
        if offset >= sealed.info.next_offset {
            return Err(missing(&sealed.segment, offset, following.base_offset));
        }
        // A read from the front of a segment needs no index.
        let start = (offset == sealed.segment.base_offset).then_some(0);
        Ok(Some(plan(&sealed.segment, Some(sealed.info), start, sealed.info.bytes, following.base_offset)))
    }

    /// Plans and runs a read. See [`PartitionLog::plan_read`].
    ///
    /// # Errors
    /// As there, and those of the read itself.
    pub fn read(&self, offset: Offset, max_bytes: usize, limit: Offset) -> Result<ReadChunk, LogError> {
        match self.plan_read(offset, max_bytes, limit)? {
            Some(plan) => plan.run(),
            None => Ok(ReadChunk::empty(offset)),
        }
    }
}

fn missing(segment: &Segment, from: Offset, to: Offset) -> LogError {
    LogError::Damaged(Box::new(Damage {
        file: segment.log.clone(),
        position: 0,
        from,
        to: Some(to),
        what: "the log has no data for these offsets beside this segment".to_owned(),
    }))
}

/// A place in the segment where reading cannot go on.
struct Fault {
    position: u64,
    from: Offset,
    what: String,
}

impl ReadPlan {
    /// Leaves a first batch of more than so many bytes where it is: what is read then says how large it is.
    pub fn up_to(self, largest: usize) -> Self {
        Self { largest, ..self }
    }

    /// Reads what is in memory, without waiting for the disk. `None` if that does not do; then [`ReadPlan::run`] does.
    pub fn run_at_once(&mut self) -> Option<ReadChunk> {
        if self.start.is_none() && self.files.index(&self.segment.offsets).is_none() {
            return None;
        }
        self.at_once = true;
        let chunk = self.run();
        self.at_once = false;
        // Damage is looked at, and reported, by the read that may take its time.
        chunk.ok()
    }

    /// Reads.
    ///
    /// # Errors
    /// [`LogError::Damaged`] with the place if what is stored there is not a whole batch of this log with the offset
    /// that follows; errors of the disk.
    pub fn run(&self) -> Result<ReadChunk, LogError> {
        let file = self.files.get(&self.segment.log).map_err(|error| match self.segment.open_error(error) {
            LogError::Damaged(mut damage) => {
                (damage.from, damage.to) = (self.offset, Some(self.following));
                LogError::Damaged(damage)
            }
            other => other,
        })?;
        let (start, indexed) = match (self.start, &self.sealed) {
            (Some(start), _) => (start, false),
            (None, Some(info)) => (self.segment.sealed_index(&self.files, info)?.position_of(self.offset), true),
            (None, None) => (0, false),
        };
        match self.collect_past_damage(file.as_ref(), start)? {
            Ok(chunk) => Ok(chunk),
            Err(_) if indexed => {
                // The index is only a cache: it is not believed over the log.
                let start = self.segment.rebuild_index(&self.files, self.end)?.position_of(self.offset);
                self.collect_past_damage(file.as_ref(), start)?.map_err(|damage| LogError::Damaged(Box::new(damage)))
            }
            Err(damage) => Err(LogError::Damaged(Box::new(damage))),
        }
    }

    /// Where the batch with the offset lies: the segment file, and the position in it.
    ///
    /// # Errors
    /// Those of the disk; [`LogError::Damaged`] if it cannot be found.
    pub fn place(&self) -> Result<(PathBuf, u64), LogError> {
        let file = self.files.get(&self.segment.log).map_err(|error| self.segment.open_error(error))?;
        let start = match (self.start, &self.sealed) {
            (Some(start), _) => start,
            (None, Some(info)) => self.segment.sealed_index(&self.files, info)?.position_of(self.offset),
            (None, None) => 0,
        };
        let mut scanner = Scanner::new(file.as_ref(), &self.segment.log, start, self.end, Check::Header);
        loop {
            let position = scanner.position;
            match scanner.next(None)? {
                Found::Batch(header) if header.next_offset() > self.offset => {
                    return Ok((self.segment.log.clone(), position));
                }
                Found::Batch(_) => {}
                Found::End | Found::Broken(_) => return Err(missing(&self.segment, self.offset, self.following)),
            }
        }
    }

    /// Collects, and steps over damage that lies wholly before the offset asked for: a reader that was told to go on
    /// behind it must not meet it again on its way from the nearest index entry.
    fn collect_past_damage(&self, file: &dyn DiskFile, start: u64) -> Result<Result<ReadChunk, Damage>, LogError> {
        let mut start = start;
        loop {
            let fault = match self.collect(file, start)? {
                Ok(chunk) => return Ok(Ok(chunk)),
                Err(_) if self.at_once => {
                    let source = std::io::ErrorKind::WouldBlock.into();
                    return Err(LogError::Io { doing: "cannot read", path: self.segment.log.clone(), source });
                }
                Err(fault) => fault,
            };
            let mut scanner = Scanner::new(file, &self.segment.log, fault.position, self.end, Check::Whole);
            let mut to = self.following;
            while let Some(header) = scanner.resume(0)? {
                if header.next_offset() > self.offset {
                    to = header.base_offset;
                    break;
                }
            }
            if to > self.offset || scanner.position <= start {
                let Fault { position, from, what } = fault;
                return Ok(Err(Damage { file: self.segment.log.clone(), position, from, to: Some(to), what }));
            }
            start = scanner.position;
        }
    }

    /// Walks from `start`, whose batch begins at or before the offset, and takes what fits.
    fn collect(&self, file: &dyn DiskFile, start: u64) -> Result<Result<ReadChunk, Fault>, LogError> {
        let mut want = (self.max_bytes as u64).saturating_add(limits::INDEX_INTERVAL_BYTES);
        let mut at = start;
        let mut expected: Option<Offset> = (start == 0).then_some(self.segment.base_offset);
        loop {
            let buffer = self.fill(file, at, want)?;
            // What the file has. A file that was cut off still hands out every batch that is whole in it.
            let there = at + buffer.len() as u64;
            let cut_off = there < self.end && (buffer.len() as u64) < want;
            let mut walked = 0;
            let mut taken: Option<(usize, Offset)> = None;
            let mut next = expected;
            let stop = loop {
                let rest = &buffer[walked..];
                let position = at + walked as u64;
                let fault = |what| Fault { position, from: next.unwrap_or(self.offset).max(self.offset), what };
                if rest.len() < limits::BATCH_HEADER_BYTES {
                    break if cut_off {
                        Stop::Fault(fault(self.cut_off_at(there)))
                    } else if position + (rest.len() as u64) < self.end {
                        Stop::More(limits::BATCH_HEADER_BYTES as u64)
                    } else {
                        Stop::Fault(fault(format!("the segment ends with {} bytes of a batch", rest.len())))
                    };
                }
                let header = match BatchHeader::parse(rest) {
                    Ok(header) => header,
                    Err(error) => break Stop::Fault(fault(error.to_string())),
                };
                if next.map_or(header.base_offset > self.offset, |next| header.base_offset != next) {
                    let what = format!(
                        "a batch with offset {} where {} follows",
                        header.base_offset,
                        next.unwrap_or(self.offset)
                    );
                    break Stop::Fault(fault(what));
                }
                if header.base_offset >= self.limit {
                    break Stop::Done;
                }
                let total = header.total_bytes();
                let wanted = header.next_offset() > self.offset;
                if wanted && taken.is_none() && total > self.largest && position + total as u64 <= self.end {
                    return Ok(Ok(ReadChunk { needs: Some(total), ..ReadChunk::empty(self.offset) }));
                }
                if total > rest.len() {
                    break if position + total as u64 > self.end {
                        Stop::Fault(fault(format!(
                            "a batch of {total} bytes of which {} are there",
                            self.end - position
                        )))
                    } else if cut_off {
                        Stop::Fault(fault(self.cut_off_at(there)))
                    } else {
                        Stop::More(total as u64)
                    };
                }
                if wanted {
                    if let Some((from, _)) = taken
                        && walked + total - from > self.max_bytes
                    {
                        break Stop::Done;
                    }
                    if let Err(error) = verify_batch(&rest[..total]) {
                        break Stop::Fault(fault(error.to_string()));
                    }
                    taken = Some((taken.map_or(walked, |(from, _)| from), header.next_offset()));
                }
                next = Some(header.next_offset());
                walked += total;
            };
            match (taken, stop) {
                // What is whole is handed out; the next read meets what stopped this one.
                (Some((from, next_offset)), _) => {
                    let bytes = buffer.freeze().slice(from..walked);
                    return Ok(Ok(ReadChunk { bytes, next_offset, needs: None }));
                }
                (None, Stop::More(need)) => {
                    // Either skipped batches filled the buffer, or the first batch is larger than it.
                    at += walked as u64;
                    expected = next;
                    want = need.max(self.max_bytes as u64);
                }
                (None, Stop::Fault(fault)) => return Ok(Err(fault)),
                (None, Stop::Done) => {
                    return Ok(Ok(ReadChunk::empty(self.offset)));
                }
            }
        }
    }

    /// Up to `want` bytes of the segment from `at` on; fewer at the segment's end, or where its file is cut off.
    fn fill(&self, file: &dyn DiskFile, at: u64, want: u64) -> Result<BytesMut, LogError> {
        let length = want.min(self.end.saturating_sub(at));
        let mut buffer = BytesMut::zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        let read = if self.at_once { file.read_at_once(&mut buffer, at) } else { read_up_to(file, &mut buffer, at) };
        let filled = read.map_err(LogError::io("cannot read", &self.segment.log))?;
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// Why nothing can be read at `there`, where the file ends although the segment has more bytes.
    fn cut_off_at(&self, there: u64) -> String {
        format!("the file ends at byte {there}; {} bytes are missing", self.end.saturating_sub(there))
    }
}

enum Stop {
    /// Enough.
    Done,
    /// The buffer ends too early; this much is needed from here on.
    More(u64),
    /// Here is no batch that follows.
    Fault(Fault),
}
