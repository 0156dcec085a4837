//! The records of a batch. One record (varints are zigzag):
//!
//! ```text
//! varint length | i8 attributes = 0 | varint timestamp delta | varint offset delta
//! | varint key length or −1, key | varint value length or −1, value
//! | varint headers: (varint name length, name, varint value length or −1, value)*
//! ```

use bytes::Bytes;

use crate::base::{Offset, TimestampMs, limits};

use super::{BatchError, BatchHeader, Compression, varint, verify_batch};

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name; UTF-8 by the format, though not every producer keeps to it.
    pub name: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the partition.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp: TimestampMs,
    /// What records are routed and compacted by.
    pub key: Option<Bytes>,
    /// The content.
    pub value: Option<Bytes>,
    /// Named values beside it.
    pub headers: Vec<Header>,
}

impl Record {
    /// Bytes that it takes in a batch, or a few more.
    pub fn weight(&self) -> usize {
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|header| header.name.len() + field(&header.value) + 4);
        field(&self.key) + field(&self.value) + headers.sum::<usize>() + 32
    }
}

/// Where the parts of a record lie.
pub(crate) struct Walk {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i64,
    pub(crate) key: Option<std::ops::Range<usize>>,
    pub(crate) value: Option<std::ops::Range<usize>>,
    headers: std::ops::Range<usize>,
    header_count: usize,
}

/// Walks over the record at `at`, checking every length, and moves behind it.
pub(crate) fn walk_record(bytes: &[u8], at: &mut usize, index: u32) -> Result<Walk, BatchError> {
    let wrong = |what| BatchError::Record { index, what };
    let length = varint::get(bytes, at).ok_or(wrong("its length does not end"))?;
    let length = usize::try_from(length).map_err(|_| wrong("its length is negative"))?;
    let end = at.checked_add(length).filter(|&end| end <= bytes.len()).ok_or(wrong("it ends behind the batch"))?;
    let bytes = &bytes[..end];
    if *at >= end {
        return Err(wrong("it is empty"));
    }
    *at += 1;
    let timestamp_delta = varint::get(bytes, at).ok_or(wrong("its timestamp does not end"))?;
    let offset_delta = varint::get(bytes, at).ok_or(wrong("its offset does not end"))?;
    let key = walk_field(bytes, at).ok_or(wrong("its key ends behind it"))?;
    let value = walk_field(bytes, at).ok_or(wrong("its value ends behind it"))?;
    let count = varint::get(bytes, at).ok_or(wrong("its header count does not end"))?;
    let header_count = usize::try_from(count).map_err(|_| wrong("its header count is negative"))?;
    let from = *at;
    for _ in 0..header_count {
        walk_field(bytes, at).flatten().ok_or(wrong("a header's name ends behind it"))?;
        walk_field(bytes, at).ok_or(wrong("a header's value ends behind it"))?;
    }
    if *at != end {
        return Err(wrong("it has bytes behind its headers"));
    }
    Ok(Walk { timestamp_delta, offset_delta, key, value, headers: from..end, header_count })
}

/// A length and that many bytes; −1 is no value. The outer `None` is a fault.
fn walk_field(bytes: &[u8], at: &mut usize) -> Option<Option<std::ops::Range<usize>>> {
    let length = varint::get(bytes, at)?;
    if length == -1 {
        return Some(None);
    }
    let end = at.checked_add(usize::try_from(length).ok()?).filter(|&end| end <= bytes.len())?;
    let from = std::mem::replace(at, end);
    Some(Some(from..end))
}

/// The records of one batch, verified or not; the slices share its memory (or that of its decompressed records, at most
/// `max_decompressed` bytes).
///
/// # Errors
/// A header that is wrong, or records that cannot be decompressed.
pub fn read_records(batch: &Bytes, max_decompressed: usize) -> Result<RecordIter, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let total = header.total_bytes();
    if batch.len() < total {
        return Err(BatchError::Truncated { need: total, have: batch.len() });
    }
    let records = batch.slice(limits::BATCH_HEADER_BYTES..total);
    let records = match header.compression()? {
        Compression::None => records,
        // Compaction leaves the header alone, without so much as the frame of a codec.
        _ if header.record_count == 0 => Bytes::new(),
        codec => Bytes::from(codec.decompress(&records, max_decompressed)?),
    };
    Ok(RecordIter { header, records, at: 0, index: 0 })
}

/// Iterates over the records of one batch; ends after the first fault.
pub struct RecordIter {
    header: BatchHeader,
    records: Bytes,
    at: usize,
    index: u32,
}

impl RecordIter {
    fn read(&mut self) -> Result<Record, BatchError> {
        let index = self.index;
        let walk = walk_record(&self.records, &mut self.at, index)?;
        let delta = u64::try_from(walk.offset_delta)
            .ok()
            .filter(|&delta| delta <= u64::from(self.header.last_offset_delta))
            .ok_or(BatchError::Record { index, what: "its offset lies outside the batch" })?;
        let mut headers = Vec::with_capacity(walk.header_count.min(64));
        let mut at = walk.headers.start;
        let whole = BatchError::Record { index, what: "a header changed while it was read" };
        for _ in 0..walk.header_count {
            let name = walk_field(&self.records, &mut at).flatten().ok_or(whole.clone())?;
            let value = walk_field(&self.records, &mut at).ok_or(whole.clone())?;
            headers
                .push(Header { name: self.records.slice(name), value: value.map(|range| self.records.slice(range)) });
        }
        let timestamp = if self.header.log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.saturating_add(walk.timestamp_delta)
        };
        Ok(Record {
            offset: self.header.base_offset + delta,
            timestamp,
            key: walk.key.map(|range| self.records.slice(range)),
            value: walk.value.map(|range| self.records.slice(range)),
            headers,
        })
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.record_count {
            return None;
        }
        let record = self.read();
        self.index = if record.is_ok() { self.index + 1 } else { u32::MAX };
        Some(record)
    }
}

/// Iterates over whole batches that lie back to back, verifying each; ends quietly before a partial one at the end, and
/// after the first fault.
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// The batches in `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not iterated over yet; after the end, those of a partial batch.
    pub fn remainder(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.len() < limits::BATCH_HEADER_BYTES {
            return None;
        }
        match verify_batch(&self.rest) {
            Ok(header) => Some(Ok((header, self.rest.split_to(header.total_bytes())))),
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.rest = Bytes::new();
                Some(Err(error))
            }
        }
    }
}
