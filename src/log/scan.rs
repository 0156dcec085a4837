//! Walking the batches of a segment file from front to back, with large reads.

use std::io;
use std::ops::Range;
use std::path::Path;

use crate::base::{Offset, limits};
use crate::disk::DiskFile;
use crate::record::{BatchHeader, check_stored, verify_batch};

use super::{Damage, LogError};

/// Bytes read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// How much of a batch is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Header and checksum.
    Whole,
    /// The header only; for rebuilding what is derived from verified data.
    Header,
}

/// What is at a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A batch, well formed as far as it was checked.
    Batch(BatchHeader),
    /// The end of what is to be scanned.
    End,
    /// No whole batch of this log: one line on why.
    Broken(String),
}

/// A cursor over a segment file.
pub(crate) struct Scanner<'f> {
    file: &'f dyn DiskFile,
    path: &'f Path,
    end: u64,
    check: Check,
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Where the next batch is looked for.
    pub(crate) position: u64,
}

impl<'f> Scanner<'f> {
    /// Scans from `position` up to `end` (not included).
    pub(crate) fn new(file: &'f dyn DiskFile, path: &'f Path, position: u64, end: u64, check: Check) -> Self {
        Self { file, path, end, check, buffer: Vec::new(), buffer_at: position, position }
    }

    /// The batch at the current position, which must begin with offset `expected` if one is given. Moves behind it;
    /// stays when there is none.
    pub(crate) fn next(&mut self, expected: Option<Offset>) -> Result<Found, LogError> {
        if self.position >= self.end {
            return Ok(Found::End);
        }
        let left = self.end - self.position;
        let head = self.bytes(limits::BATCH_HEADER_BYTES)?;
        if head.len() < limits::BATCH_HEADER_BYTES {
            return Ok(Found::Broken(format!(
                "{} bytes where a batch header has {}",
                head.len(),
                limits::BATCH_HEADER_BYTES
            )));
        }
        let header = match BatchHeader::parse(head) {
            Ok(header) => header,
            Err(error) => return Ok(Found::Broken(error.to_string())),
        };
        if let Some(expected) = expected
            && header.base_offset != expected
        {
            return Ok(Found::Broken(format!("a batch with offset {} where {expected} follows", header.base_offset)));
        }
        let total = header.total_bytes();
        if total as u64 > left {
            return Ok(Found::Broken(format!("a batch of {total} bytes of which {left} are there")));
        }
        if self.check == Check::Whole {
            let batch = self.bytes(total)?;
            if batch.len() < total {
                return Ok(Found::Broken(format!("a batch of {total} bytes of which {} are there", batch.len())));
            }
            if let Err(error) = verify_batch(batch) {
                return Ok(Found::Broken(error.to_string()));
            }
        }
        self.position += total as u64;
        Ok(Found::Batch(header))
    }

    /// The bytes of the batch that [`Scanner::next`] has just found, with [`Check::Whole`].
    pub(crate) fn previous(&self, header: &BatchHeader) -> &[u8] {
        let end = usize::try_from(self.position - self.buffer_at).unwrap_or(usize::MAX).min(self.buffer.len());
        &self.buffer[end.saturating_sub(header.total_bytes())..end]
    }

    /// The next position behind the current one where a whole batch with an offset of at least `least` lies, whatever
    /// is between. Moves there; `None` and at the end if there is no such batch.
    pub(crate) fn resume(&mut self, least: Offset) -> Result<Option<BatchHeader>, LogError> {
        if let Some(header) = self.hop(least)? {
            return Ok(Some(header));
        }
        self.position += 1;
        while self.position + limits::BATCH_HEADER_BYTES as u64 <= self.end {
            let window = self.window()?;
            // The magic byte is the cheapest filter: it is at byte 16 of a batch.
            let candidate = (0..window.len().saturating_sub(limits::BATCH_HEADER_BYTES - 1))
                .find(|&at| window[at + 16] == 2 && plausible(&window[at..], least));
            match candidate {
                None => {
                    let skip = window.len().saturating_sub(limits::BATCH_HEADER_BYTES - 1).max(1);
                    self.position += skip as u64;
                }
                Some(at) => {
                    self.position += at as u64;
                    let check = std::mem::replace(&mut self.check, Check::Whole);
                    let found = self.next(None);
                    self.check = check;
                    if let Found::Batch(header) = found? {
                        self.position -= header.total_bytes() as u64;
                        return Ok(Some(header));
                    }
                    self.position += 1;
                }
            }
        }
        self.position = self.end;
        Ok(None)
    }

    /// The batch behind the one here, if the header here is good enough to tell where that is. Tried first: a payload may
    /// hold bytes that are themselves a whole batch.
    fn hop(&mut self, least: Offset) -> Result<Option<BatchHeader>, LogError> {
        let here = self.position;
        if let Ok(header) = BatchHeader::parse(self.bytes(limits::BATCH_HEADER_BYTES)?) {
            self.position += header.total_bytes() as u64;
            let check = std::mem::replace(&mut self.check, Check::Whole);
            let found = self.next(Some(header.next_offset()));
            self.check = check;
            if let Found::Batch(next) = found?
                && next.base_offset >= least
            {
                self.position -= next.total_bytes() as u64;
                return Ok(Some(next));
            }
        }
        self.position = here;
        Ok(None)
    }

    /// What is buffered from the current position on, at least a header's worth before the end.
    fn window(&mut self) -> Result<&[u8], LogError> {
        self.bytes(limits::BATCH_HEADER_BYTES)?;
        let from = usize::try_from(self.position - self.buffer_at).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(&self.buffer[from..])
    }

    /// Up to `want` bytes at the current position; fewer only at the end.
    fn bytes(&mut self, want: usize) -> Result<&[u8], LogError> {
        let want = want.min(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
        let have = (self.buffer_at + self.buffer.len() as u64).saturating_sub(self.position);
        if self.position < self.buffer_at || have < want as u64 {
            let read = want.max(READ_BYTES).min(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
            self.buffer.resize(read, 0);
            let filled = read_up_to(self.file, &mut self.buffer, self.position)
                .map_err(LogError::io("cannot read", self.path))?;
            self.buffer.truncate(filled);
            self.buffer_at = self.position;
        }
        let from = usize::try_from(self.position - self.buffer_at).unwrap_or(usize::MAX).min(self.buffer.len());
        let to = (from + want).min(self.buffer.len());
        Ok(&self.buffer[from..to])
    }
}

/// How deep damage is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Headers, checksums and offsets of batches.
    Batches,
    /// The records in them, too: of a batch of which one cannot be read, all count as lost.
    Records,
}

/// The damaged places of a part of a segment, each with exactly the offsets that it takes. The part is given by position and
/// offset at its beginning and behind its end; what the file lacks of it is damage too. `pace` is told of the bytes read, about
/// once a mebibyte, and ends the work by `false`.
///
/// # Errors
/// Those of reading; [`LogError::Closed`] if `pace` ended it.
pub(crate) fn damage_in(
    file: &dyn DiskFile,
    path: &Path,
    part: Range<(u64, Offset)>,
    depth: Depth,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<Damage>, LogError> {
    let ((start, mut expected), (end, following)) = (part.start, part.end);
    let length = file.len().map_err(LogError::io("cannot look at", path))?;
    let mut scanner = Scanner::new(file, path, start, end.min(length), Check::Whole);
    let mut damage = Vec::new();
    let mut told = start;
    while expected < following {
        let position = scanner.position;
        if position - told >= READ_BYTES as u64 {
            if !pace(position - told) {
                return Err(LogError::Closed);
            }
            told = position;
        }
        let what = match scanner.next(Some(expected))? {
            Found::Batch(header) => {
                let records = if depth == Depth::Records { check_stored(scanner.previous(&header)) } else { Ok(()) };
                if let Err((_, error)) = records {
                    let (from, to) = (header.base_offset, Some(header.next_offset()));
                    let what = format!("its records cannot be read: {error}");
                    damage.push(Damage { file: path.to_owned(), position, from, to, what });
                }
                expected = header.next_offset();
                continue;
            }
            Found::Broken(what) => what,
            Found::End => format!("the file has {length} of {end} bytes"),
        };
        let resumed = scanner.resume(expected + 1)?.map(|header| header.base_offset).filter(|&base| base < following);
        let to = resumed.unwrap_or(following);
        damage.push(Damage { file: path.to_owned(), position, from: expected, to: Some(to), what });
        expected = to;
    }
    let left = scanner.position.min(end).saturating_sub(told);
    if left > 0 && !pace(left) {
        return Err(LogError::Closed);
    }
    Ok(damage)
}

fn plausible(bytes: &[u8], least: Offset) -> bool {
    BatchHeader::parse(bytes).is_ok_and(|header| header.base_offset >= least)
}

/// Reads until the buffer is full or the file ends; how much it was.
pub(crate) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], position + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
