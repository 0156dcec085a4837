//! Batches with some of their records gone, as compaction leaves them: the others stay as they are, at their offsets.

use std::borrow::Cow;

use crate::base::{Offset, TimestampMs, limits};

use super::header::{CONTROL, DELETE_HORIZON, LENGTH_END, TRANSACTIONAL, seal};
use super::walk::{Slice, Source, Walk, Walker};
use super::{BatchError, BatchHeader, Bounds, Compression, varint};

/// The attribute bits that an empty batch keeps: transactional and control.
const KEPT_BITS: u16 = TRANSACTIONAL | CONTROL;

/// The most offsets that one batch can stand for.
const LONGEST_GAP: u64 = i32::MAX as u64;

const READING: Bounds = Bounds::reading(limits::MAX_DECOMPRESSED_BYTES);

/// What compaction looks at in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// It has no value: its key is gone.
    pub tombstone: bool,
}

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thinned {
    /// All of it, as it is.
    Whole,
    /// Some records, or all with another delete horizon: this batch.
    Batch(Vec<u8>),
    /// No record.
    Nothing,
}

/// Hands every record of a batch to `take`, without its value and headers.
///
/// # Errors
/// Records that cannot be decompressed (to at most [`limits::MAX_DECOMPRESSED_BYTES`]) or are not well formed.
pub fn each_key(batch: &[u8], mut take: impl FnMut(KeyedRecord<'_>)) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let records = open(batch, &header)?;
    let (mut source, mut walker) = (Slice::new(&records, 0), Walker::new(READING));
    for index in 0..header.record_count {
        let walk = walker.record(&mut source)?;
        take(keyed(&records, &header, &walk, index)?);
    }
    Ok(())
}

/// Leaves only the records that `keep` wants, which is asked in order. Everything else about the batch stays: offsets,
/// codec, producer, sequence.
///
/// While a batch has tombstones it has a delete horizon, the time from which on they may go: the one it has, else
/// `horizon`, if one is given. Without tombstones it has none.
///
/// # Errors
/// As [`each_key`].
pub fn thin(
    batch: &[u8],
    horizon: Option<TimestampMs>,
    mut keep: impl FnMut(KeyedRecord<'_>) -> bool,
) -> Result<Thinned, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let records = open(batch, &header)?;
    let mut kept: Vec<(std::ops::Range<usize>, Walk)> = Vec::new();
    let mut tombstones = false;
    let (mut source, mut walker) = (Slice::new(&records, 0), Walker::new(READING));
    for index in 0..header.record_count {
        let from = source.at();
        let walk = walker.record(&mut source)?;
        let record = keyed(&records, &header, &walk, index)?;
        if keep(record) {
            tombstones |= record.tombstone;
            kept.push((from..source.at(), walk));
        }
    }
    if kept.is_empty() {
        return Ok(Thinned::Nothing);
    }
    let horizon = header.delete_horizon().or(horizon).filter(|_| tombstones);
    if kept.len() == header.record_count as usize && horizon == header.delete_horizon() {
        return Ok(Thinned::Whole);
    }
    Ok(Thinned::Batch(rebuild(&header, &records, &kept, horizon)?))
}

fn rebuild(
    header: &BatchHeader,
    records: &[u8],
    kept: &[(std::ops::Range<usize>, Walk)],
    horizon: Option<TimestampMs>,
) -> Result<Vec<u8>, BatchError> {
    let time = |walk: &Walk| header.base_timestamp.saturating_add(walk.timestamp_delta);
    let first = kept.first().map_or(-1, |(_, walk)| time(walk));
    // Timestamps are relative to it, so as long as it stays the records stay as they are, byte for byte.
    let base_timestamp = match (horizon, header.delete_horizon()) {
        (Some(horizon), _) => horizon,
        (None, Some(_)) => first,
        (None, None) => header.base_timestamp,
    };
    let mut out = Vec::with_capacity(records.len());
    for (range, walk) in kept {
        let record = &records[range.clone()];
        if base_timestamp == header.base_timestamp {
            out.extend_from_slice(record);
        } else {
            put_record(&mut out, record, time(walk).saturating_sub(base_timestamp))?;
        }
    }
    let newest = if header.log_append_time() {
        header.max_timestamp
    } else {
        kept.iter().map(|(_, walk)| time(walk)).max().unwrap_or(-1)
    };
    let mut codec = header.compression()?;
    let mut batch = vec![0; limits::BATCH_HEADER_BYTES];
    if codec.compress(&out, &mut batch).is_err() || batch.len() > limits::MAX_BATCH_BYTES {
        // No codec is known to fail. What would not fit a batch compressed must do without.
        codec = Compression::None;
        batch.truncate(limits::BATCH_HEADER_BYTES);
        batch.extend_from_slice(&out);
    }
    if batch.len() > limits::MAX_BATCH_BYTES {
        return Err(BatchError::TooLarge { size: batch.len(), limit: limits::MAX_BATCH_BYTES });
    }
    let horizon_bit = if horizon.is_some() { DELETE_HORIZON } else { 0 };
    let rebuilt = BatchHeader {
        batch_length: (batch.len() - LENGTH_END) as u32,
        attributes: header.attributes & !7 & !DELETE_HORIZON | codec.bits() | horizon_bit,
        base_timestamp,
        max_timestamp: newest,
        record_count: kept.len() as u32,
        ..*header
    };
    rebuilt.write(&mut batch);
    seal(&mut batch);
    Ok(batch)
}

/// Writes a record again with another timestamp delta; everything behind that stays.
fn put_record(out: &mut Vec<u8>, record: &[u8], timestamp_delta: i64) -> Result<(), BatchError> {
    let changed = || BatchError::Record { index: 0, what: "it changed while it was read" };
    let mut at = 0;
    varint::get(record, &mut at).ok_or_else(changed)?;
    let attributes = *record.get(at).ok_or_else(changed)?;
    at += 1;
    varint::get(record, &mut at).ok_or_else(changed)?;
    let rest = &record[at..];
    varint::put(out, (1 + varint::size(timestamp_delta) + rest.len()) as i64);
    out.push(attributes);
    varint::put(out, timestamp_delta);
    out.extend_from_slice(rest);
    Ok(())
}

/// What is left of a batch of which only the producer and its sequence are still of use.
pub fn empty_batch(of: &BatchHeader) -> Vec<u8> {
    let header = BatchHeader {
        batch_length: (limits::BATCH_HEADER_BYTES - LENGTH_END) as u32,
        attributes: of.attributes & KEPT_BITS,
        base_timestamp: -1,
        max_timestamp: -1,
        record_count: 0,
        ..*of
    };
    let mut batch = vec![0; limits::BATCH_HEADER_BYTES];
    header.write(&mut batch);
    seal(&mut batch);
    batch
}

/// Batches without records that stand for the offsets from `from` to `to` (not included), so that offsets stay contiguous
/// where records are gone. One, unless there are more than 2³¹ of them.
pub fn gap_batches(from: Offset, to: Offset) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    let mut at = from;
    while at < to {
        let offsets = (to - at).min(LONGEST_GAP);
        batches.push(empty_batch(&BatchHeader {
            base_offset: at,
            batch_length: 0,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: (offsets - 1) as u32,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        }));
        at += offsets;
    }
    batches
}

fn open<'a>(batch: &'a [u8], header: &BatchHeader) -> Result<Cow<'a, [u8]>, BatchError> {
    let total = header.total_bytes();
    if batch.len() < total {
        return Err(BatchError::Truncated { need: total, have: batch.len() });
    }
    let records = &batch[limits::BATCH_HEADER_BYTES..total];
    Ok(match header.compression()? {
        Compression::None => Cow::Borrowed(records),
        _ if header.record_count == 0 => Cow::Borrowed(&[]),
        codec => Cow::Owned(codec.decompress(records, limits::MAX_DECOMPRESSED_BYTES)?),
    })
}

fn keyed<'a>(records: &'a [u8], header: &BatchHeader, walk: &Walk, index: u32) -> Result<KeyedRecord<'a>, BatchError> {
    Ok(KeyedRecord {
        offset: header.offset_of(index, walk)?,
        key: walk.key.clone().map(|range| &records[range]),
        tombstone: walk.value.is_none(),
    })
}
