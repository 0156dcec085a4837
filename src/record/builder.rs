//! Building batches.

use bytes::BytesMut;

use crate::base::{Offset, TimestampMs, limits};

use super::header::{LENGTH_END, seal};
use super::{BatchHeader, Compression, Headers, Record, varint};

/// What a batch is to be.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions {
    /// Codec of the records.
    pub compression: Compression,
    /// Idempotent producer, −1 for none.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record, −1 for none.
    pub base_sequence: i32,
    /// Offset of the first record; a log assigns its own.
    pub base_offset: Offset,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { compression: Compression::None, producer_id: -1, producer_epoch: -1, base_sequence: -1, base_offset: 0 }
    }
}

/// Headers of a record that is to be written.
trait Named {
    fn count(&self) -> usize;
    /// What they take.
    fn bytes(&self) -> usize;
    fn put(&self, out: &mut Vec<u8>);
}

impl Named for [(&str, Option<&[u8]>)] {
    fn count(&self) -> usize {
        self.len()
    }

    fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| field_bytes(Some(name.as_bytes())) + field_bytes(*value)).sum()
    }

    fn put(&self, out: &mut Vec<u8>) {
        for (name, value) in self {
            put_field(out, Some(name.as_bytes()));
            put_field(out, *value);
        }
    }
}

impl Named for Headers {
    fn count(&self) -> usize {
        self.len()
    }

    fn bytes(&self) -> usize {
        self.weight()
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.encoded());
    }
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |field| varint::size(field.len() as i64) + field.len())
}

pub(super) fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    varint::put(out, field.map_or(-1, |field| field.len() as i64));
    out.extend_from_slice(field.unwrap_or_default());
}

/// A batch being filled. Records are encoded behind room for the header, so that an uncompressed batch is built in one
/// allocation.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    bytes: Vec<u8>,
    count: u32,
    /// Offset delta of the next record that is pushed without one.
    next_delta: u32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(options: BatchOptions) -> Self {
        Self::with_capacity(options, 1024)
    }

    /// An empty batch with room for this many bytes, header and all.
    pub fn with_capacity(options: BatchOptions, bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(bytes.max(limits::BATCH_HEADER_BYTES));
        bytes.resize(limits::BATCH_HEADER_BYTES, 0);
        Self { options, bytes, count: 0, next_delta: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Adds a record.
    pub fn push(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        self.put(self.next_delta, timestamp, key, value, headers);
    }

    /// Adds a record as it is, at its own offset: not below [`BatchOptions::base_offset`], above that of the record before,
    /// and less than 2³¹ above the first. For batches that hold some of the records of others.
    pub fn push_record(&mut self, record: &Record) {
        let delta = record.offset.saturating_sub(self.options.base_offset);
        let delta = u32::try_from(delta).unwrap_or(u32::MAX).min(i32::MAX as u32).max(self.next_delta);
        self.put(delta, record.timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers);
    }

    fn put<H: Named + ?Sized>(
        &mut self,
        offset_delta: u32,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &H,
    ) {
        if self.count == 0 {
            (self.base_timestamp, self.max_timestamp) = (timestamp, timestamp);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.saturating_sub(self.base_timestamp);
        let length = Self::body_bytes(timestamp_delta, offset_delta, key, value, headers);
        varint::put(&mut self.bytes, length as i64);
        self.bytes.push(0);
        varint::put(&mut self.bytes, timestamp_delta);
        varint::put(&mut self.bytes, i64::from(offset_delta));
        put_field(&mut self.bytes, key);
        put_field(&mut self.bytes, value);
        varint::put(&mut self.bytes, headers.count() as i64);
        headers.put(&mut self.bytes);
        self.count += 1;
        self.next_delta = offset_delta + 1;
    }

    fn body_bytes<H: Named + ?Sized>(
        timestamp_delta: i64,
        offset_delta: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &H,
    ) -> usize {
        1 + varint::size(timestamp_delta)
            + varint::size(i64::from(offset_delta))
            + field_bytes(key)
            + field_bytes(value)
            + varint::size(headers.count() as i64)
            + headers.bytes()
    }

    /// At most the bytes that a record takes in a batch of its own, the header of the batch not counted.
    pub fn record_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> usize {
        let body = Self::body_bytes(i64::MAX, u32::MAX, key, value, headers);
        body + varint::size(body as i64)
    }

    /// The bytes of an uncompressed batch that holds a record alone, at its own offset and time.
    pub fn lone_bytes(record: &Record) -> usize {
        let body = Self::body_bytes(0, 0, record.key.as_deref(), record.value.as_deref(), &record.headers);
        limits::BATCH_HEADER_BYTES + varint::size(body as i64) + body
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, uncompressed, the header included.
    pub fn bytes_so_far(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch. A codec that fails (none is known to) leaves the records uncompressed.
    pub fn build(self) -> BytesMut {
        let Self { options, mut bytes, count, next_delta, base_timestamp, max_timestamp } = self;
        let mut codec = options.compression;
        if codec != Compression::None {
            let mut packed = Vec::with_capacity(bytes.len() / 2 + limits::BATCH_HEADER_BYTES);
            packed.resize(limits::BATCH_HEADER_BYTES, 0);
            match codec.compress(&bytes[limits::BATCH_HEADER_BYTES..], &mut packed) {
                Ok(()) => bytes = packed,
                Err(_) => codec = Compression::None,
            }
        }
        let header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: (bytes.len() - LENGTH_END) as u32,
            leader_epoch: 0,
            crc: 0,
            attributes: codec.bits(),
            last_offset_delta: next_delta.saturating_sub(1),
            base_timestamp,
            max_timestamp,
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: count,
        };
        header.write(&mut bytes);
        seal(&mut bytes);
        // Takes the memory over; nothing is copied.
        BytesMut::from(bytes::Bytes::from(bytes))
    }
}

/// Gives a finished batch another producer identity and sequence, and a new checksum.
pub fn set_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) {
    batch[43..51].copy_from_slice(&id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&base_sequence.to_be_bytes());
    seal(batch);
}
