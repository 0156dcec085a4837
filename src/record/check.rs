//! Checking batches: when they come in, and when they are read back.

use std::sync::Arc;

use bytes::BytesMut;

use crate::base::{Offset, TimestampMs, limits};

use super::chunks::Chunks;
use super::compress::Opened;
use super::header::CRC_END;
use super::records::walk_chunk;
use super::walk::{Slice, Source, Stream, Walker};
use super::{BatchError, BatchHeader, Bounds, Compression};

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
/// Compressed records are not opened here, but by [`check_compressed`].
///
/// # Errors
/// What is wrong with it.
pub fn check_produced(bytes: &[u8], bounds: Bounds) -> Result<Checked, BatchError> {
    let header = check_head(bytes, bounds)?;
    let records = match header.compression()? {
        Compression::None => {
            Some(check_records(&mut Slice::new(&bytes[limits::BATCH_HEADER_BYTES..], 0), &header, bounds)?)
        }
        _ => None,
    };
    Ok(Checked { header, records })
}

/// What [`check_produced`] checks beside the records.
fn check_head(bytes: &[u8], bounds: Bounds) -> Result<BatchHeader, BatchError> {
    if bytes.len() > bounds.batch {
        return Err(BatchError::TooLarge { size: bytes.len(), limit: bounds.batch });
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
    if header.record_count == 0 {
        return field("record count", header.record_count.into());
    }
    if header.last_offset_delta != header.record_count - 1 {
        return field("last offset delta", header.last_offset_delta.into());
    }
    if header.record_count > limits::RECORDS_PER_BATCH {
        return Err(BatchError::TooMany { count: header.record_count, limit: limits::RECORDS_PER_BATCH });
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
    Ok(header)
}

/// Checks the records of a compressed batch while they are decompressed: that they are within the limits, as many, as whole
/// and where they say. Nothing is kept of them.
///
/// # Errors
/// What is wrong with it.
pub fn check_compressed(batch: &[u8], bounds: Bounds) -> Result<CheckedRecords, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let total = header.total_bytes();
    if batch.len() < total {
        return Err(BatchError::Truncated { need: total, have: batch.len() });
    }
    let (codec, records) = (header.compression()?, &batch[limits::BATCH_HEADER_BYTES..total]);
    let mut stream = Stream::new(codec.open(records)?, bounds.opened, codec.name(), records.len());
    check_records(&mut stream, &header, bounds)
}

/// Checks that every record of a stored batch can be read, within the limits of readers. Nothing is kept of them.
///
/// # Errors
/// The first fault, and the offset from which on readers cannot read the batch because of it.
pub fn check_stored(batch: &[u8]) -> Result<(), (Offset, BatchError)> {
    let header = BatchHeader::parse(batch).map_err(|error| (0, error))?;
    let mut at = header.base_offset;
    look_through(batch, &header, &mut at).map_err(|error| (at, error))
}

/// What stands for no timestamp.
const NO_TIMESTAMP: TimestampMs = -1;

/// What readers read of a stored batch.
const STORED: Bounds = Bounds::reading(limits::MAX_DECOMPRESSED_BYTES);

fn look_through(batch: &[u8], header: &BatchHeader, at: &mut Offset) -> Result<(), BatchError> {
    let (codec, total) = (header.compression()?, header.total_bytes());
    let records =
        batch.get(limits::BATCH_HEADER_BYTES..total).ok_or(BatchError::Truncated { need: total, have: batch.len() })?;
    // Compaction leaves the header alone, without so much as the frame of a codec.
    if header.record_count == 0 {
        return Ok(());
    }
    let mut walker = Walker::new(STORED);
    match codec {
        Compression::None => {
            let mut source = Slice::new(records, 0);
            for index in 0..header.record_count {
                let walk = walker.record(&mut source)?;
                *at = header.offset_of(index, &walk)? + 1;
            }
        }
        codec => {
            // As readers have them, so that what is before a fault is the same here.
            let mut chunks = Chunks::open(codec, records, STORED.opened)?;
            for index in 0..header.record_count {
                let (walk, _) = walk_chunk(&mut chunks, &mut walker, STORED.record)?;
                *at = header.offset_of(index, &walk)? + 1;
            }
        }
    }
    Ok(())
}

/// What is known of a batch that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Its header, as it came.
    pub header: BatchHeader,
    /// What is known of its records, unless they are compressed: then [`check_compressed`] says it.
    pub records: Option<CheckedRecords>,
}

/// What is known of the records of a batch that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedRecords {
    /// The newest timestamp of its records, as they say it: −1 if none has one.
    pub newest: TimestampMs,
    /// The oldest timestamp of those that have one.
    pub oldest: Option<TimestampMs>,
    /// The first of them that has no key.
    pub without_key: Option<u32>,
    /// Bytes of the records, decompressed.
    pub bytes: usize,
}

/// Walks over the records of a batch that was checked: for each its number, its timestamp if it has one, and whether it has a key;
/// until `each` says `false`.
///
/// # Errors
/// What is wrong with it.
pub fn walk_records(
    batch: &[u8],
    bounds: Bounds,
    each: impl FnMut(u32, Option<TimestampMs>, bool) -> bool,
) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let total = header.total_bytes();
    let records =
        batch.get(limits::BATCH_HEADER_BYTES..total).ok_or(BatchError::Truncated { need: total, have: batch.len() })?;
    match header.compression()? {
        Compression::None => walk_each(&mut Slice::new(records, 0), &header, bounds, each),
        codec => {
            let mut stream = Stream::new(codec.open(records)?, bounds.opened, codec.name(), records.len());
            walk_each(&mut stream, &header, bounds, each)
        }
    }
}

fn walk_each<S: Source>(
    source: &mut S,
    header: &BatchHeader,
    bounds: Bounds,
    mut each: impl FnMut(u32, Option<TimestampMs>, bool) -> bool,
) -> Result<(), BatchError> {
    let mut walker = Walker::new(bounds);
    for index in 0..header.record_count {
        let walk = walker.record(source)?;
        let time = match header.log_append_time() {
            true => header.max_timestamp,
            false => header.base_timestamp.saturating_add(walk.timestamp_delta),
        };
        if !each(index, (time != NO_TIMESTAMP).then_some(time), walk.key.is_some()) {
            break;
        }
    }
    Ok(())
}

fn check_records<S: Source>(
    source: &mut S,
    header: &BatchHeader,
    bounds: Bounds,
) -> Result<CheckedRecords, BatchError> {
    let mut checking = Checking::new(bounds);
    while checking.walker.index() < header.record_count {
        checking.record(source, header)?;
    }
    checking.end(source, header)
}

/// Records that are being checked.
struct Checking {
    walker: Walker,
    newest: TimestampMs,
    oldest: TimestampMs,
    without_key: Option<u32>,
}

/// Bytes behind the records that are counted.
const TRAILING: usize = 64 * 1024;

impl Checking {
    fn new(bounds: Bounds) -> Self {
        Self { walker: Walker::new(bounds), newest: NO_TIMESTAMP, oldest: TimestampMs::MAX, without_key: None }
    }

    #[inline]
    fn record<S: Source>(&mut self, source: &mut S, header: &BatchHeader) -> Result<(), BatchError> {
        let index = self.walker.index();
        let walk = self.walker.record(source)?;
        if walk.offset_delta != i64::from(index) {
            return Err(BatchError::Record { index, what: "its offset does not follow" });
        }
        // As Kafka does, −1 stands for none.
        let timestamp = header.base_timestamp.saturating_add(walk.timestamp_delta);
        self.newest = self.newest.max(timestamp);
        if timestamp != NO_TIMESTAMP {
            self.oldest = self.oldest.min(timestamp);
        }
        if walk.key.is_none() {
            self.without_key.get_or_insert(index);
        }
        Ok(())
    }

    fn end<S: Source>(self, source: &mut S, header: &BatchHeader) -> Result<CheckedRecords, BatchError> {
        let bytes = source.at();
        while source.at() < bytes + TRAILING && source.byte().map_err(Into::into)?.is_some() {}
        if source.at() > bytes {
            return Err(BatchError::Trailing { extra: source.at() - bytes });
        }
        let (mut newest, mut oldest) = (self.newest, self.oldest);
        if header.log_append_time() {
            (newest, oldest) = (header.max_timestamp, header.max_timestamp);
        }
        let oldest = (oldest != TimestampMs::MAX && oldest != NO_TIMESTAMP).then_some(oldest);
        Ok(CheckedRecords { newest, oldest, without_key: self.without_key, bytes })
    }
}

/// The same check as [`check_produced`] and [`check_compressed`], for a batch that takes long: a portion at a time. It shares the
/// batch, which can be had back when it is done.
pub struct Look {
    header: BatchHeader,
    checking: Checking,
    records: Records,
}

/// Where the records that are looked at come from.
enum Records {
    /// Memory, and where the next one begins in it.
    Whole(Behind, usize),
    Stream(Box<Stream<Opened<'static>>>),
}

/// A batch behind its header.
struct Behind(Arc<BytesMut>);

impl AsRef<[u8]> for Behind {
    fn as_ref(&self) -> &[u8] {
        self.0.get(limits::BATCH_HEADER_BYTES..).unwrap_or_default()
    }
}

/// Records, and bytes of them, after which a look asks whether the portion is over.
const ASK_AFTER: (u32, usize) = (64, 64 * 1024);

impl Look {
    /// Checks all but the records.
    ///
    /// # Errors
    /// As [`check_produced`].
    pub fn new(batch: Arc<BytesMut>, bounds: Bounds) -> Result<Self, BatchError> {
        let header = check_head(&batch, bounds)?;
        let bytes = Behind(batch);
        let records = match header.compression()? {
            Compression::None => Records::Whole(bytes, 0),
            codec => {
                let compressed = bytes.as_ref().len();
                let stream = Stream::new(codec.open(bytes)?, bounds.opened, codec.name(), compressed);
                Records::Stream(Box::new(stream))
            }
        };
        Ok(Self { header, checking: Checking::new(bounds), records })
    }

    /// Goes on until all is checked or the portion is over, which is asked between records: one record takes as long as it takes to
    /// decompress [`limits::RECORD_BYTES`] at the most. `None` if there is more to check.
    ///
    /// # Errors
    /// What is wrong with the batch.
    pub fn go_on(
        mut self,
        is_over: impl Fn() -> bool,
    ) -> Result<(Self, Option<(BatchHeader, CheckedRecords)>), BatchError> {
        let checked = match &mut self.records {
            Records::Whole(bytes, at) => {
                let mut source = Slice::new(bytes.as_ref(), *at);
                let checked = look_on(&mut self.checking, &mut source, &self.header, is_over)?;
                *at = source.at();
                checked
            }
            Records::Stream(stream) => look_on(&mut self.checking, stream.as_mut(), &self.header, is_over)?,
        };
        let header = self.header;
        Ok((self, checked.map(|checked| (header, checked))))
    }
}

fn look_on<S: Source>(
    checking: &mut Checking,
    source: &mut S,
    header: &BatchHeader,
    is_over: impl Fn() -> bool,
) -> Result<Option<CheckedRecords>, BatchError> {
    loop {
        let (from, ask_at) = (checking.walker.index(), source.at() + ASK_AFTER.1);
        while checking.walker.index() < header.record_count {
            checking.record(source, header)?;
            if checking.walker.index() - from >= ASK_AFTER.0 || source.at() >= ask_at {
                break;
            }
        }
        if checking.walker.index() >= header.record_count {
            let whole = std::mem::replace(checking, Checking::new(checking.walker.bounds()));
            return whole.end(source, header).map(Some);
        }
        if is_over() {
            return Ok(None);
        }
    }
}

impl CheckedRecords {
    /// Checks that every record has a key, as the topics that are compacted by key need it.
    ///
    /// # Errors
    /// The first record without one.
    pub fn keyed(&self) -> Result<(), BatchError> {
        self.without_key.map_or(Ok(()), |index| Err(BatchError::NoKey { index }))
    }
}
