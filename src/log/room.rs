//! Room ahead of the written end: zeros, written with the batches before them and made durable by the same sync.
//!
//! A sync of a file that has grown must also commit the file system's own journal (the new length, the new blocks); one
//! of a file whose blocks were written before need not, and costs about half. So when little is written at a time, which is when
//! the cost of a sync is felt most, the file is extended by more than is needed; later batches overwrite zeros. When much
//! is written at a time the file just grows: the disk is busy with data then, and writing it twice would cost more than
//! it saves.
//!
//! The room holds nothing but zeros of this very file, never an older file's bytes, and no reader goes beyond the
//! written end. A crash leaves it as a tail of zeros, which recovery cuts off as it does any tail that is no whole batch. It
//! is cut off, too, when a segment is closed: a segment that is followed by another one ends with its last batch, and
//! that is made durable before anything in the next one is.

use std::sync::LazyLock;

use crate::disk::DiskFile;

/// The least and the most room made at a time, in bytes.
const LEAST: u64 = 16 * 1024;
const MOST: u64 = 1024 * 1024;

/// From this many bytes written at a time on, room is not worth what it costs.
const LARGE: u64 = 128 * 1024;

static ZEROS: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; MOST as usize]);

/// The zeros to write behind `bytes` bytes that go to `position` of a segment that is to hold at most `limit` bytes. In
/// proportion to what is there, so that a topic that gets little does not take up much.
pub(crate) fn zeros(position: u64, bytes: u64, limit: u64) -> &'static [u8] {
    if bytes >= LARGE {
        return &[];
    }
    let end = position + bytes;
    let room = (end / 4).clamp(LEAST, MOST).min(limit.saturating_sub(end));
    &ZEROS[..usize::try_from(room).unwrap_or(0)]
}

/// Whether a file holds only zeros from `from` on up to `to`.
///
/// # Errors
/// Those of reading.
pub fn is_room(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<bool> {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read_at(&mut buffer[..want], at)?;
        if read == 0 {
            break;
        }
        if buffer[..read].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
