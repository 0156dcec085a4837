//! Checking batches: when they come in, and when they are read back.

use crate::base::limits;

use super::header::CRC_END;
use super::records::{Walk, walk_record};
use super::{BatchError, BatchHeader, Compression, each_key};

/// Checks the first batch in `bytes`: header, whole, checksum.
///
/// # Errors
/// What is wrong with it.
pub fn verify_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let total = header.total_bytes();
    if bytes.len() < total {
        return Err(BatchError::Truncated { need: total, have: bytes.len() });
    }
    let computed = crc32c::crc32c(&bytes[CRC_END..total]);
    if computed != header.crc {
        return Err(BatchError::Checksum { stored: header.crc, computed });
    }
    Ok(header)
}

/// Checks what a producer sent: exactly one whole batch, within the limits, with records that are where they say.
/// Compressed records are not opened here.
///
/// # Errors
/// What is wrong with it.
pub fn check_produced(bytes: &[u8], max_bytes: usize) -> Result<BatchHeader, BatchError> {
    if bytes.len() > max_bytes {
        return Err(BatchError::TooLarge { size: bytes.len(), limit: max_bytes });
    }
    let header = verify_batch(bytes)?;
    if bytes.len() > header.total_bytes() {
        return Err(BatchError::Trailing { extra: bytes.len() - header.total_bytes() });
    }
    let field = |field, value: i64| Err(BatchError::Field { field, value });
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.delete_horizon().is_some() {
        return Err(BatchError::Horizon);
    }
    if header.record_count == 0 || header.record_count > limits::RECORDS_PER_BATCH {
        return field("record count", header.record_count.into());
    }
    if header.last_offset_delta != header.record_count - 1 {
        return field("last offset delta", header.last_offset_delta.into());
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return field("base sequence", header.base_sequence.into());
    }
    if header.producer_id >= 0 && header.producer_epoch < 0 {
        return field("producer epoch", header.producer_epoch.into());
    }
    if header.max_timestamp < -1 {
        return field("max timestamp", header.max_timestamp);
    }
    if header.compression()? == Compression::None {
        let records = &bytes[limits::BATCH_HEADER_BYTES..];
        let mut at = 0;
        for index in 0..header.record_count {
            let Walk { offset_delta, .. } = walk_record(records, &mut at, index)?;
            if offset_delta != i64::from(index) {
                return Err(BatchError::Record { index, what: "its offset does not follow" });
            }
        }
        if at != records.len() {
            return Err(BatchError::Trailing { extra: records.len() - at });
        }
    }
    Ok(header)
}

/// Checks that every record has a key, as the topics that are compacted by key need it. Opens compressed records, too.
///
/// # Errors
/// The first record without one, or what is wrong with the batch.
pub fn check_keyed(batch: &[u8]) -> Result<(), BatchError> {
    let mut without = None;
    let mut index = 0;
    each_key(batch, |record| {
        if record.key.is_none() {
            without.get_or_insert(index);
        }
        index += 1;
    })?;
    without.map_or(Ok(()), |index| Err(BatchError::NoKey { index }))
}
