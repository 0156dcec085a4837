//! Reads under a grant for what is made of them: nothing is read, opened or made before there is room for it in the outgoing
//! budget. Whoever needs more than it has been granted gives all of it back first, so no two readers wait for each other.

use std::sync::Arc;

use super::budget::{Account, Grant};
use crate::base::{Isolation, Offset};
use crate::broker::{BrokerError, Fetched, PartitionReader, ReadAt};

/// Bytes that a reader of single records counts for a window of a batch's codec and a chunk of what it becomes.
pub const OPENED_BYTES: usize = 256 * 1024;

/// What a record counts for that does not fit what a reader has been granted, as a multiple of its bytes: itself, and what is made
/// of it, in two places.
const RECORD_TIMES: usize = 4;

/// What a read wants of the budget.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// From where.
    pub offset: Offset,
    /// Go on behind damage.
    pub skip_damaged: bool,
    /// What to see of transactions.
    pub isolation: Isolation,
    /// Bytes that are enough to begin with, unless one batch is larger.
    pub least: usize,
    /// How much at most.
    pub most: usize,
    /// Bytes that stay granted, whatever is read: for what is made of it.
    pub keep: usize,
}

impl Want {
    /// The same, after a look at batches of `wire` bytes has met a first record of `record` bytes for which there was no room.
    pub fn with_room_for(self, wire: usize, record: usize) -> Self {
        Self { keep: wire + OPENED_BYTES + record.saturating_mul(RECORD_TIMES), ..self }
    }

    /// Bytes of the largest record that there is room for, with so many granted for what is made of a read.
    pub fn largest_record(self, made: usize) -> usize {
        // More than the budget has is given to one at a time.
        if self.keep > 0 { usize::MAX } else { made / RECORD_TIMES }
    }
}

/// Reads what there is, with the bytes granted before they are read.
///
/// # Errors
/// The broker's.
pub async fn read(
    account: &Arc<Account>,
    reader: &mut PartitionReader,
    want: Want,
) -> Result<(Fetched, Grant), BrokerError> {
    let mut grant = account.take_some(want.least.max(want.keep), want.most.max(want.keep)).await;
    let largest = if want.keep > 0 { usize::MAX } else { grant.bytes() };
    let mut fetched = read_within(reader, want, grant.bytes(), largest).await?;
    if let Some(bytes) = fetched.needs {
        drop(grant);
        grant = account.take(bytes).await;
        fetched = read_within(reader, want, bytes, usize::MAX).await?;
    }
    grant.settle(fetched.bytes.len().max(want.keep));
    Ok((fetched, grant))
}

/// The same without waiting for room; `None` if there is not enough.
///
/// # Errors
/// The broker's.
pub async fn try_read(
    account: &Arc<Account>,
    reader: &mut PartitionReader,
    want: Want,
) -> Result<Option<(Fetched, Grant)>, BrokerError> {
    let Some(mut grant) = account.try_take(want.least, want.most) else { return Ok(None) };
    let fetched = read_within(reader, want, grant.bytes(), grant.bytes()).await?;
    if fetched.needs.is_some() {
        return Ok(None);
    }
    grant.settle(fetched.bytes.len());
    Ok(Some((fetched, grant)))
}

async fn read_within(
    reader: &mut PartitionReader,
    want: Want,
    max_bytes: usize,
    largest: usize,
) -> Result<Fetched, BrokerError> {
    let Want { offset, skip_damaged, isolation, most, .. } = want;
    reader.read_for(ReadAt { offset, max_bytes: max_bytes.min(most), largest, skip_damaged }, isolation).await
}

/// Room for what is made of a read: what there is, without waiting, and what a reader may make in any case.
pub struct Room {
    /// Bytes.
    pub bytes: usize,
    _grant: Option<Grant>,
}

/// Takes room for what is made of a read, at most `most` bytes. `least` bytes may be made without room for them, so that
/// every reader goes on.
pub fn room(account: &Arc<Account>, (least, most): (usize, usize)) -> Room {
    let grant = account.try_take(0, most);
    let bytes = grant.as_ref().map_or(0, Grant::bytes).max(least);
    Room { bytes, _grant: grant }
}
