//! A batch in another codec.

use std::borrow::Cow;

use bytes::BytesMut;

use super::header::{LENGTH_END, seal};
use super::{BatchError, BatchHeader, Bounds, Compression};
use crate::base::limits;

/// The batch with its records in `codec`, all else as it was; `None` if it stays as it is: it is in this codec already, or
/// has no room within the bounds when it is. The batch has been checked.
///
/// # Errors
/// Its records cannot be decompressed within the bounds, or have no room without compression.
pub fn repack(batch: &[u8], codec: Compression, bounds: Bounds) -> Result<Option<BytesMut>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let (was, total) = (header.compression()?, header.total_bytes());
    if was == codec {
        return Ok(None);
    }
    let records =
        batch.get(limits::BATCH_HEADER_BYTES..total).ok_or(BatchError::Truncated { need: total, have: batch.len() })?;
    let records = match was {
        Compression::None => Cow::Borrowed(records),
        was => Cow::Owned(was.decompress(records, bounds.opened)?),
    };
    let mut out = vec![0; limits::BATCH_HEADER_BYTES];
    let packed = codec.compress(&records, &mut out).is_ok() && out.len() <= bounds.batch;
    match codec {
        _ if packed => {}
        Compression::None => return Err(BatchError::TooLarge { size: out.len(), limit: bounds.batch }),
        // Random bytes grow when they are compressed; what was accepted is not refused for that.
        _ => return Ok(None),
    }
    let header = BatchHeader {
        batch_length: (out.len() - LENGTH_END) as u32,
        attributes: header.attributes & !7 | codec.bits(),
        ..header
    };
    header.write(&mut out);
    seal(&mut out);
    Ok(Some(BytesMut::from(bytes::Bytes::from(out))))
}
