//! The sparse indexes of a segment: where offsets and timestamps begin, every
//! [`INDEX_INTERVAL_BYTES`](crate::base::limits::INDEX_INTERVAL_BYTES) of log.
//!
//! An index is a cache. On disk it is two files with one header (big-endian, CRC-32 of everything before it at the end):
//!
//! ```text
//! magic "TLOI" (offsets) or "TLTI" (times) | u16 version = 1 | u16 0 | u64 base offset | u64 bytes of log covered
//! | u64 next offset after them | i64 newest timestamp in them | u32 entries
//! | offsets: (u32 offset − base, u32 position)*        times: (i64 newest timestamp before that entry, u32 offset − base)*
//! | u32 CRC-32
//! ```

use std::path::Path;

use crate::base::{Offset, TimestampMs, limits};
use crate::disk::{self, Disk, OpenMode};
use crate::record::BatchHeader;

use super::checkpoint::{Fields, seal};

const OFFSETS: &[u8; 4] = b"TLOI";
const TIMES: &[u8; 4] = b"TLTI";
const VERSION: u16 = 1;

/// One entry: a batch, and the newest timestamp of all batches of the segment before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
    pub(crate) newest_before: TimestampMs,
}

/// The index of one segment, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    pub(crate) base_offset: Offset,
    /// Bytes of the segment that it covers.
    pub(crate) covered: u64,
    /// The offset after them.
    pub(crate) next_offset: Offset,
    /// The newest timestamp in them; `TimestampMs::MIN` if there is none.
    pub(crate) newest: TimestampMs,
    /// The earliest delete horizon in them. Only where the headers were seen: it is not stored.
    pub(crate) horizon: Option<TimestampMs>,
    pub(crate) entries: Vec<IndexEntry>,
}

impl SparseIndex {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self {
            base_offset,
            covered: 0,
            next_offset: base_offset,
            newest: TimestampMs::MIN,
            horizon: None,
            entries: Vec::new(),
        }
    }

    /// Takes in the batch at the end of what is covered.
    pub(crate) fn add(&mut self, header: &BatchHeader) {
        let due = match self.entries.last() {
            None => true,
            Some(last) => self.covered - u64::from(last.position) >= limits::INDEX_INTERVAL_BYTES,
        };
        if let (true, Ok(relative_offset), Ok(position)) =
            (due, u32::try_from(header.base_offset - self.base_offset), u32::try_from(self.covered))
        {
            self.entries.push(IndexEntry { relative_offset, position, newest_before: self.newest });
        }
        self.covered += header.total_bytes() as u64;
        self.next_offset = header.next_offset();
        self.newest = self.newest.max(header.max_timestamp);
        self.horizon = self.horizon.into_iter().chain(header.delete_horizon()).min();
    }

    /// A position at or before the batch that holds `offset`, the nearest one known.
    pub(crate) fn position_of(&self, offset: Offset) -> u64 {
        let relative = offset.saturating_sub(self.base_offset);
        let after = self.entries.partition_point(|entry| u64::from(entry.relative_offset) <= relative);
        after.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// A position before which every record is older than `time`, the last one known.
    pub(crate) fn position_of_time(&self, time: TimestampMs) -> u64 {
        let after = self.entries.partition_point(|entry| entry.newest_before < time);
        after.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// Writes both files, unsynced: a torn file fails its checksum and is built anew.
    pub(crate) fn store(&self, disk: &dyn Disk, offsets: &Path, times: &Path) -> std::io::Result<()> {
        let head = |magic: &[u8; 4]| {
            let mut out = Vec::with_capacity(48 + self.entries.len() * 12);
            out.extend_from_slice(magic);
            out.extend_from_slice(&VERSION.to_be_bytes());
            out.extend_from_slice(&0u16.to_be_bytes());
            for number in [self.base_offset, self.covered, self.next_offset] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&self.newest.to_be_bytes());
            out.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
            out
        };
        let (mut by_offset, mut by_time) = (head(OFFSETS), head(TIMES));
        for entry in &self.entries {
            by_offset.extend_from_slice(&entry.relative_offset.to_be_bytes());
            by_offset.extend_from_slice(&entry.position.to_be_bytes());
            by_time.extend_from_slice(&entry.newest_before.to_be_bytes());
            by_time.extend_from_slice(&entry.relative_offset.to_be_bytes());
        }
        for (path, content) in [(offsets, seal(by_offset)), (times, seal(by_time))] {
            let file = disk.open(path, OpenMode::Create)?;
            file.write_at(&content, 0)?;
            file.set_len(content.len() as u64)?;
        }
        Ok(())
    }

    /// Reads both files.
    ///
    /// # Errors
    /// One line on why they are of no use.
    pub(crate) fn load(disk: &dyn Disk, offsets: &Path, times: &Path) -> Result<Self, String> {
        let [by_offset, by_time] = [(offsets, OFFSETS), (times, TIMES)].map(|(path, magic)| {
            let content = disk::read_file(disk, path).map_err(|error| error.to_string())?;
            IndexFile::decode(&content, magic)
        });
        let (by_offset, by_time) = (by_offset?, by_time?);
        let same = |index: &IndexFile| (index.base_offset, index.covered, index.next_offset, index.entries.len());
        if same(&by_offset) != same(&by_time) {
            return Err("the offset index and the time index are of different times".to_owned());
        }
        let entries = by_offset.entries.iter().zip(&by_time.entries).map(|(offset, time)| {
            Some(IndexEntry {
                relative_offset: u32::try_from(offset.0.checked_sub(by_offset.base_offset)?).ok()?,
                position: u32::try_from(offset.1).ok()?,
                newest_before: time.1,
            })
        });
        let entries: Vec<_> = entries.collect::<Option<_>>().ok_or("an entry out of range")?;
        let sorted = entries
            .windows(2)
            .all(|pair| pair[0].relative_offset < pair[1].relative_offset && pair[0].position < pair[1].position);
        if !sorted || entries.last().is_some_and(|entry| u64::from(entry.position) >= by_offset.covered) {
            return Err("entries out of order".to_owned());
        }
        Ok(Self {
            base_offset: by_offset.base_offset,
            covered: by_offset.covered,
            next_offset: by_offset.next_offset,
            newest: by_offset.newest_timestamp,
            horizon: None,
            entries,
        })
    }
}

/// What is in an index file, for `tidelog dump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFile {
    /// The segment's first offset.
    pub base_offset: Offset,
    /// Bytes of the segment that are covered.
    pub covered: u64,
    /// The offset after them.
    pub next_offset: Offset,
    /// The newest timestamp in them.
    pub newest_timestamp: TimestampMs,
    /// Whether it is the time index.
    pub by_time: bool,
    /// (offset, position) of an offset index, (offset, newest timestamp before it) of a time index.
    pub entries: Vec<(Offset, i64)>,
}

impl IndexFile {
    fn decode(content: &[u8], magic: &[u8; 4]) -> Result<Self, String> {
        let mut fields = Fields::open(content, magic)?;
        let version = fields.u16()?;
        if version != VERSION {
            return Err(format!("version {version}; this version reads {VERSION}"));
        }
        fields.u16()?;
        let mut index = IndexFile {
            base_offset: fields.u64()?,
            covered: fields.u64()?,
            next_offset: fields.u64()?,
            newest_timestamp: fields.i64()?,
            by_time: magic == TIMES,
            entries: Vec::new(),
        };
        for _ in 0..fields.u32()? {
            let (relative, value) = if index.by_time {
                let newest = fields.i64()?;
                (fields.u32()?, newest)
            } else {
                (fields.u32()?, i64::from(fields.u32()?))
            };
            index.entries.push((index.base_offset + u64::from(relative), value));
        }
        fields.end()?;
        Ok(index)
    }
}

/// Reads an index file of either sort.
///
/// # Errors
/// One line on what is wrong with it.
pub fn read_index_file(content: &[u8]) -> Result<IndexFile, String> {
    if content.starts_with(TIMES) { IndexFile::decode(content, TIMES) } else { IndexFile::decode(content, OFFSETS) }
}
