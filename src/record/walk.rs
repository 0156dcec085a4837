//! The one walk over records, whatever they are in: a slice of memory, or a stream that is being decompressed. Checking and
//! reading both go through it, so what is accepted is what is read. One record (varints are zigzag):
//!
//! ```text
//! varint length | i8 attributes = 0 | varint timestamp delta | varint offset delta
//! | varint key length or −1, key | varint value length or −1, value
//! | varint headers: (varint name length, name, varint value length or −1, value)*
//! ```

use std::convert::Infallible;
use std::io::{ErrorKind, Read};
use std::ops::Range;

use crate::base::{Offset, limits};

use super::{BatchError, BatchHeader, Bounds, varint};

/// Where records come from.
pub(crate) trait Source {
    /// Why they cannot be had. Memory has no such reason, and a walk over it pays nothing for one.
    type Error: Into<BatchError>;

    /// Bytes walked over so far.
    fn at(&self) -> usize;

    /// The next byte, `None` at the end.
    fn byte(&mut self) -> Result<Option<u8>, Self::Error>;

    /// Moves over so many bytes; `false` if the source ends before.
    fn skip(&mut self, bytes: usize) -> Result<bool, Self::Error>;
}

impl From<Infallible> for BatchError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Records in memory.
pub(crate) struct Slice<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes of records before these.
    base: usize,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, base: 0 }
    }

    /// Records behind so many bytes of others: places are counted from the first of those.
    pub(crate) fn behind(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }
}

impl Source for Slice<'_> {
    type Error = Infallible;

    #[inline]
    fn at(&self) -> usize {
        self.base + self.at
    }

    #[inline]
    fn byte(&mut self) -> Result<Option<u8>, Infallible> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, bytes: usize) -> Result<bool, Infallible> {
        let end = self.at.checked_add(bytes).filter(|&end| end <= self.bytes.len());
        self.at = end.unwrap_or(self.at);
        Ok(end.is_some())
    }
}

/// Bytes of a stream that are looked at together.
const STREAM_BYTES: usize = 16 * 1024;

/// Records that are decompressed while they are walked over. Nothing is kept of them, so a bomb takes no memory.
pub(crate) struct Stream<R> {
    from: R,
    buffer: Vec<u8>,
    used: usize,
    at: usize,
    limit: usize,
    /// Of the batch, for what is said about it.
    codec: &'static str,
    compressed: usize,
}

impl<R: Read> Stream<R> {
    /// Walks over at most `limit` bytes of what `compressed` bytes become.
    pub(crate) fn new(from: R, limit: usize, codec: &'static str, compressed: usize) -> Self {
        Self { from, buffer: Vec::new(), used: 0, at: 0, limit, codec, compressed }
    }

    /// Bytes that are there to be looked at, none at the end.
    fn fill(&mut self) -> Result<usize, BatchError> {
        if self.used == self.buffer.len() {
            self.used = 0;
            self.buffer.resize(STREAM_BYTES, 0);
            let read = loop {
                match self.from.read(&mut self.buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            let read = read.map_err(|error| BatchError::Decompress { codec: self.codec, what: error.to_string() })?;
            self.buffer.truncate(read);
        }
        Ok(self.buffer.len() - self.used)
    }

    fn moved(&mut self, bytes: usize) -> Result<(), BatchError> {
        self.used += bytes;
        self.at += bytes;
        if self.at > self.limit {
            return Err(BatchError::Bomb { size: self.compressed, limit: self.limit });
        }
        Ok(())
    }
}

impl<R: Read> Source for Stream<R> {
    type Error = BatchError;

    fn at(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Result<Option<u8>, BatchError> {
        if self.fill()? == 0 {
            return Ok(None);
        }
        let byte = self.buffer.get(self.used).copied();
        self.moved(1)?;
        Ok(byte)
    }

    fn skip(&mut self, bytes: usize) -> Result<bool, BatchError> {
        let mut left = bytes;
        while left > 0 {
            let there = self.fill()?.min(left);
            if there == 0 {
                return Ok(false);
            }
            self.moved(there)?;
            left -= there;
        }
        Ok(true)
    }
}

/// Where the parts of a record lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i64,
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Option<Range<usize>>,
    /// Its headers, one after the other.
    pub(crate) headers: Range<usize>,
    pub(crate) header_count: usize,
}

impl Walk {
    /// The same in the slice that begins behind so many bytes.
    pub(super) fn at_front(self, base: usize) -> Self {
        let moved = |range: Range<usize>| range.start - base..range.end - base;
        let (key, value, headers) = (self.key.map(moved), self.value.map(moved), moved(self.headers));
        Self { key, value, headers, ..self }
    }
}

/// A walk over the records of a batch: how many there were so far, and what they weigh.
#[derive(Debug, Clone)]
pub(crate) struct Walker {
    bounds: Bounds,
    index: u32,
    headers: usize,
}

impl Walker {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, index: 0, headers: 0 }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The number of the next record, from 0.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Walks over the next record, checking every length and limit.
    #[inline]
    pub(crate) fn record<S: Source>(&mut self, source: &mut S) -> Result<Walk, BatchError> {
        let walk = record(source, self.index, &self.bounds)?;
        self.headers += walk.header_count;
        let weight = source.at().saturating_add(self.headers.saturating_mul(limits::HEADER_WEIGHT));
        if weight > self.bounds.weight {
            let (headers, limit) = (self.headers, self.bounds.weight);
            return Err(BatchError::TooHeavy { headers, bytes: source.at(), weight, limit });
        }
        self.index += 1;
        Ok(walk)
    }
}

#[inline]
fn record<S: Source>(source: &mut S, index: u32, bounds: &Bounds) -> Result<Walk, BatchError> {
    let wrong = |what| BatchError::Record { index, what };
    let too_large = |what, size, limit| BatchError::RecordTooLarge { index, what, size, limit };
    let length = number(source).map_err(Into::into)?.ok_or_else(|| wrong("its length does not end"))?;
    let length = usize::try_from(length).map_err(|_| wrong("its length is negative"))?;
    if length > bounds.record {
        return Err(too_large("bytes", length, bounds.record));
    }
    let end = source.at() + length;
    source.byte().map_err(Into::into)?.ok_or_else(|| wrong("it ends behind the batch"))?;
    let timestamp_delta = number(source).map_err(Into::into)?.ok_or_else(|| wrong("its timestamp does not end"))?;
    let offset_delta = number(source).map_err(Into::into)?.ok_or_else(|| wrong("its offset does not end"))?;
    let key = field(source, end).map_err(Into::into)?.ok_or_else(|| wrong("its key ends behind it"))?;
    let value = field(source, end).map_err(Into::into)?.ok_or_else(|| wrong("its value ends behind it"))?;
    let count = number(source).map_err(Into::into)?.ok_or_else(|| wrong("its header count does not end"))?;
    let header_count = usize::try_from(count).map_err(|_| wrong("its header count is negative"))?;
    if header_count > bounds.headers {
        return Err(too_large("headers", header_count, bounds.headers));
    }
    let from = source.at();
    if end.saturating_sub(from) > bounds.header_bytes {
        return Err(too_large("bytes of headers", end - from, bounds.header_bytes));
    }
    for _ in 0..header_count {
        field(source, end).map_err(Into::into)?.flatten().ok_or_else(|| wrong("a header's name ends behind it"))?;
        field(source, end).map_err(Into::into)?.ok_or_else(|| wrong("a header's value ends behind it"))?;
    }
    if source.at() != end {
        return Err(wrong("its length is not that of its fields"));
    }
    Ok(Walk { timestamp_delta, offset_delta, key, value, headers: from..end, header_count })
}

impl BatchHeader {
    /// The offset of a record that was walked over.
    pub(super) fn offset_of(&self, index: u32, walk: &Walk) -> Result<Offset, BatchError> {
        let delta = u64::try_from(walk.offset_delta).ok().filter(|&delta| delta <= u64::from(self.last_offset_delta));
        let delta = delta.ok_or(BatchError::Record { index, what: "its offset lies outside the batch" })?;
        Ok(self.base_offset + delta)
    }
}

#[inline(always)]
fn number<S: Source>(source: &mut S) -> Result<Option<i64>, S::Error> {
    varint::read(|| source.byte())
}

/// A length and that many bytes, up to `end`; −1 is no value. The outer `None` is a fault.
#[inline(always)]
fn field<S: Source>(source: &mut S, end: usize) -> Result<Option<Option<Range<usize>>>, S::Error> {
    let Some(length) = number(source)? else { return Ok(None) };
    if length == -1 {
        return Ok(Some(None));
    }
    let from = source.at();
    let Some(length) = usize::try_from(length).ok().filter(|&length| length <= end.saturating_sub(from)) else {
        return Ok(None);
    };
    Ok(source.skip(length)?.then_some(Some(from..from + length)))
}

/// A header that was walked over, in the slice that it lies in.
pub(crate) fn header(bytes: &[u8], at: &mut usize) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let mut source = Slice::new(bytes, *at);
    let name = field(&mut source, bytes.len()).ok()??;
    let value = field(&mut source, bytes.len()).ok()??;
    *at = source.at();
    Some((name?, value))
}
