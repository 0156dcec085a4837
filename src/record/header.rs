//! The header of a batch. All integers big-endian:
//!
//! ```text
//!  0 i64 base offset            8 i32 batch length (bytes after this field)   12 i32 partition leader epoch
//! 16 i8  magic = 2             17 u32 CRC-32C of everything from 21 on
//! 21 i16 attributes            23 i32 last offset delta    27 i64 base timestamp    35 i64 max timestamp
//! 43 i64 producer id           51 i16 producer epoch       53 i32 base sequence     57 i32 record count
//! 61 records
//! ```
//!
//! Attributes: bits 0–2 codec, 3 timestamp is that of the append, 4 transactional, 5 control, 6 delete horizon.

use crate::base::{Offset, TimestampMs, limits};

use super::{BatchError, Compression};

/// The header's fields, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub batch_length: u32,
    /// Leader epoch; always 0 here.
    pub leader_epoch: i32,
    /// CRC-32C from the attributes on.
    pub crc: u32,
    /// Attribute bits.
    pub attributes: u16,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: u32,
    /// Timestamp that the records' are relative to.
    pub base_timestamp: TimestampMs,
    /// Newest timestamp of its records.
    pub max_timestamp: TimestampMs,
    /// Idempotent producer, −1 for none.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record, −1 for none.
    pub base_sequence: i32,
    /// Records in it.
    pub record_count: u32,
}

/// The attribute bit that says that the max timestamp is every record's.
const APPEND_TIME: u16 = 0x08;
/// The attribute bit of batches that are part of a transaction.
pub(crate) const TRANSACTIONAL: u16 = 0x10;
/// The attribute bit of batches that mark something.
pub(crate) const CONTROL: u16 = 0x20;
/// The attribute bit that says that the base timestamp is a delete horizon.
pub(crate) const DELETE_HORIZON: u16 = 0x40;
/// Bytes before what the length field counts.
pub(crate) const LENGTH_END: usize = 12;
/// Where the checksummed part begins.
pub(crate) const CRC_END: usize = 21;

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Decodes the header at the front of `bytes`. The rest of the batch need not be there, and is not checked.
    ///
    /// # Errors
    /// Too few bytes, another format, or an impossible length, offset or count.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < limits::BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated { need: limits::BATCH_HEADER_BYTES, have: bytes.len() });
        }
        if bytes[16] != 2 {
            return Err(BatchError::Magic { magic: bytes[16] });
        }
        let length = i32::from_be_bytes(array(bytes, 8));
        let shortest = (limits::BATCH_HEADER_BYTES - LENGTH_END) as i64;
        let longest = (limits::MAX_BATCH_BYTES - LENGTH_END) as i64;
        if !(shortest..=longest).contains(&i64::from(length)) {
            return Err(BatchError::Field { field: "batch length", value: i64::from(length) });
        }
        let unsigned = |field, value: i64| u64::try_from(value).map_err(|_| BatchError::Field { field, value });
        let base_offset = unsigned("base offset", i64::from_be_bytes(array(bytes, 0)))?;
        let last_offset_delta = unsigned("last offset delta", i32::from_be_bytes(array(bytes, 23)).into())? as u32;
        let record_count = unsigned("record count", i32::from_be_bytes(array(bytes, 57)).into())? as u32;
        if base_offset > i64::MAX as u64 - u64::from(last_offset_delta) - 1 {
            return Err(BatchError::Field { field: "base offset", value: base_offset as i64 });
        }
        Ok(Self {
            base_offset,
            batch_length: length as u32,
            leader_epoch: i32::from_be_bytes(array(bytes, 12)),
            crc: u32::from_be_bytes(array(bytes, 17)),
            attributes: u16::from_be_bytes(array(bytes, 21)),
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)),
            producer_id: i64::from_be_bytes(array(bytes, 43)),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            record_count,
        })
    }

    /// Encodes the header; the checksum is as the field says.
    pub(crate) fn write(&self, out: &mut [u8]) {
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// Bytes of the whole batch.
    pub fn total_bytes(&self) -> usize {
        LENGTH_END + self.batch_length as usize
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset + u64::from(self.last_offset_delta)
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset() + 1
    }

    /// Sequence number of the last record; sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        let last = (i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) % (i64::from(i32::MAX) + 1);
        i32::try_from(last).unwrap_or(-1)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// A codec number that is not defined.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_bits(self.attributes & 7)
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Written by the server to mark something; holds no user records.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The time from which on the tombstones in it may go, if compaction has set one. It is in the place of the base
    /// timestamp, to which the records' timestamps stay relative.
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Written by compaction in the place of records that are gone, so that offsets stay contiguous.
    pub fn is_gap(&self) -> bool {
        self.record_count == 0 && self.producer_id < 0
    }

    /// All records have the time of the append, which is the max timestamp.
    pub fn log_append_time(&self) -> bool {
        self.attributes & APPEND_TIME != 0
    }
}

/// Writes what the log assigns, in place: both fields lie outside the checksum. `bytes` holds at least a header.
pub fn patch_assigned(bytes: &mut [u8], base_offset: Offset, leader_epoch: i32) {
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Sets the newest timestamp of a whole batch, and its checksum.
pub fn set_max_timestamp(batch: &mut [u8], newest: TimestampMs) {
    if batch.len() >= limits::BATCH_HEADER_BYTES {
        batch[35..43].copy_from_slice(&newest.to_be_bytes());
        seal(batch);
    }
}

/// Gives all records of a whole batch the time of its append, and the batch its new checksum. What their producer said stays in
/// the records, and is read no more.
pub fn set_append_time(batch: &mut [u8], now: TimestampMs) {
    if batch.len() >= limits::BATCH_HEADER_BYTES {
        batch[22] |= APPEND_TIME as u8;
        batch[35..43].copy_from_slice(&now.to_be_bytes());
        seal(batch);
    }
}

/// Computes and stores the checksum of a whole batch.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_END..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}
