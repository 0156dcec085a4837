//! The records of a batch, read. How they lie in it is said in `walk.rs`.

use bytes::Bytes;

use crate::base::{Offset, TimestampMs, limits};

use super::chunks::Chunks;
use super::walk::{Slice, Source, Walk, Walker};
use super::{BatchError, BatchHeader, Bounds, Compression, Headers, verify_batch};

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
    pub headers: Headers,
}

impl Record {
    /// Bytes that it takes in a batch, or a few more.
    pub fn weight(&self) -> usize {
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        field(&self.key) + field(&self.value) + self.headers.weight() + 32
    }
}

impl Record {
    /// The same in memory of its own, for whoever keeps it: a record that was read shares that of its batch, or of a chunk of it.
    pub fn compact(&self) -> Self {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        let parts = [key.unwrap_or_default(), value.unwrap_or_default(), self.headers.encoded()];
        let mut bytes = Bytes::from(parts.concat());
        let key = key.map(|key| bytes.split_to(key.len()));
        let value = value.map(|value| bytes.split_to(value.len()));
        let headers = Headers::walked(bytes, self.headers.len());
        Self { offset: self.offset, timestamp: self.timestamp, key, value, headers }
    }
}

/// The records of one batch, verified or not. Those of a batch that is not compressed share its memory. Compressed ones are
/// decompressed as they are asked for, at most `max_decompressed` bytes in all.
///
/// # Errors
/// A header that is wrong, or a codec that cannot begin.
pub fn read_records(batch: &Bytes, max_decompressed: usize) -> Result<RecordIter, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let total = header.total_bytes();
    if batch.len() < total {
        return Err(BatchError::Truncated { need: total, have: batch.len() });
    }
    let bytes = batch.slice(limits::BATCH_HEADER_BYTES..total);
    let records = match header.compression()? {
        Compression::None => Records::Whole(bytes, 0),
        // Compaction leaves the header alone, without so much as the frame of a codec.
        _ if header.record_count == 0 => Records::Whole(Bytes::new(), 0),
        codec => Records::Chunks(Chunks::open(codec, bytes, max_decompressed)?),
    };
    let bounds = Bounds::reading(max_decompressed.max(limits::MAX_BATCH_BYTES));
    Ok(RecordIter { header, records, most: bounds.record, walker: Walker::new(bounds), ended: false })
}

/// Iterates over the records of one batch; ends after the first fault.
pub struct RecordIter {
    header: BatchHeader,
    records: Records,
    /// Bytes of a record.
    most: usize,
    walker: Walker,
    ended: bool,
}

/// Where records come from.
enum Records {
    /// Memory, and where the next one begins in it.
    Whole(Bytes, usize),
    Chunks(Chunks<'static>),
}

impl RecordIter {
    /// The bytes that the next record will take in memory, by its own word; 0 at the end, or where that cannot be told. Those of
    /// a batch that is not compressed are in memory already, and take none.
    pub fn next_bytes(&mut self) -> usize {
        match &mut self.records {
            Records::Chunks(chunks) if !self.ended && self.walker.index() < self.header.record_count => {
                chunks.next_bytes().filter(|&bytes| bytes <= self.most).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Bytes in memory beside the batch and the records that were handed out, about.
    pub fn held(&self) -> usize {
        match &self.records {
            Records::Whole(..) => 0,
            Records::Chunks(chunks) => chunks.held(),
        }
    }

    fn read(&mut self) -> Result<Record, BatchError> {
        let index = self.walker.index();
        let chunk;
        let (walk, bytes) = match &mut self.records {
            Records::Whole(bytes, at) => {
                let mut source = Slice::new(bytes, *at);
                let walk = self.walker.record(&mut source)?;
                *at = source.at();
                (walk, &*bytes)
            }
            Records::Chunks(chunks) => {
                let walk;
                (walk, chunk) = walk_chunk(chunks, &mut self.walker, self.most)?;
                (walk, &chunk)
            }
        };
        let offset = self.header.offset_of(index, &walk)?;
        let timestamp = if self.header.log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.saturating_add(walk.timestamp_delta)
        };
        Ok(Record {
            offset,
            timestamp,
            key: walk.key.map(|range| bytes.slice(range)),
            value: walk.value.map(|range| bytes.slice(range)),
            headers: match walk.header_count {
                0 => Headers::new(),
                count => Headers::walked(bytes.slice(walk.headers), count),
            },
        })
    }
}

/// Walks over the next record of a chunk. The bytes are those that the walk's places are in.
pub(super) fn walk_chunk(
    chunks: &mut Chunks<'_>,
    walker: &mut Walker,
    most: usize,
) -> Result<(Walk, Bytes), BatchError> {
    let base = chunks.at();
    let bytes = chunks.record(most)?.clone();
    let mut source = Slice::behind(&bytes, base);
    let walk = walker.record(&mut source)?;
    let moved = source.at() - base;
    chunks.moved(moved);
    Ok((walk.at_front(base), bytes))
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
