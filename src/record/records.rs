//! The records of a batch, read. How they lie in it is said in `walk.rs`.

use bytes::Bytes;

use crate::base::{Offset, TimestampMs, limits};

use super::walk::{Slice, Source, Walker, header};
use super::{BatchError, BatchHeader, Bounds, Compression, verify_batch};

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
    let bounds = Bounds::reading(max_decompressed.max(limits::MAX_BATCH_BYTES));
    Ok(RecordIter { header, records, at: 0, walker: Walker::new(bounds), ended: false })
}

/// Iterates over the records of one batch; ends after the first fault.
pub struct RecordIter {
    header: BatchHeader,
    records: Bytes,
    at: usize,
    walker: Walker,
    ended: bool,
}

impl RecordIter {
    fn read(&mut self) -> Result<Record, BatchError> {
        let index = self.walker.index();
        let mut source = Slice::new(&self.records, self.at);
        let walk = self.walker.record(&mut source)?;
        self.at = source.at();
        let offset = self.header.offset_of(index, &walk)?;
        let mut headers = Vec::with_capacity(walk.header_count);
        let mut at = walk.headers.start;
        for _ in 0..walk.header_count {
            let (name, value) = header(&self.records, &mut at)
                .ok_or(BatchError::Record { index, what: "a header changed while it was read" })?;
            headers
                .push(Header { name: self.records.slice(name), value: value.map(|range| self.records.slice(range)) });
        }
        let timestamp = if self.header.log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.saturating_add(walk.timestamp_delta)
        };
        Ok(Record {
            offset,
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
        if self.ended || self.walker.index() >= self.header.record_count {
            return None;
        }
        let record = self.read();
        self.ended = record.is_err();
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
