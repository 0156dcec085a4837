//! Reads from the log on behalf of a client, within the budget for answers.

use std::time::Duration;

use super::mapping::Refusal;
use super::session::Session;
use crate::base::{Offset, PartitionId};
use crate::broker::{FetchRequest, Fetched};
use crate::server::budget::Grant;

/// The most that is read at a time, unless one batch is larger.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// What is enough to begin with when the budget is short, and what a read that has waited brings at first.
const LEAST_BYTES: usize = 64 * 1024;
/// The longest wait; who asks for more hears "nothing yet" sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: PartitionId,
    /// From where.
    pub offset: Offset,
    /// How much at most, one batch at least.
    pub max_bytes: usize,
    /// How much is worth answering before `max_wait` is over.
    pub min_bytes: usize,
    /// How long to wait for that.
    pub max_wait: Duration,
    /// Whether to go on behind damaged data.
    pub skip_damaged: bool,
}

/// Reads what there is; if that is too little, waits for more. A read that waits holds nothing of the budget, so any
/// number of them may wait.
///
/// # Errors
/// The broker's.
pub async fn read(session: &Session, want: Want<'_>) -> Result<(Fetched, Grant), Refusal> {
    let max_bytes = want.max_bytes.clamp(1, MOST_BYTES);
    let min_bytes = want.min_bytes.clamp(1, max_bytes);
    let (fetched, grant) = read_now(session, &want, max_bytes).await?;
    if want.max_wait.is_zero() || fetched.bytes.len() >= min_bytes || !fetched.skipped.is_empty() {
        return Ok((fetched, grant));
    }
    drop((fetched, grant));
    let waiting = session.shared.broker.fetch(FetchRequest {
        topic: want.topic,
        partition: want.partition,
        offset: want.offset,
        max_bytes: max_bytes.min(LEAST_BYTES).max(min_bytes),
        min_bytes,
        max_wait: want.max_wait.min(LONGEST_WAIT),
        skip_damaged: want.skip_damaged,
    });
    tokio::select! {
        fetched = waiting => {
            let fetched = fetched?;
            let grant = session.outgoing.take(fetched.bytes.len()).await;
            Ok((fetched, grant))
        }
        () = session.closing() => read_now(session, &want, max_bytes).await,
    }
}

/// Reads what there is, with the bytes granted before they are read.
async fn read_now(session: &Session, want: &Want<'_>, max_bytes: usize) -> Result<(Fetched, Grant), Refusal> {
    let mut grant = session.outgoing.take_some(max_bytes.min(LEAST_BYTES), max_bytes).await;
    let request = FetchRequest {
        topic: want.topic,
        partition: want.partition,
        offset: want.offset,
        max_bytes: grant.bytes(),
        min_bytes: 1,
        max_wait: Duration::ZERO,
        skip_damaged: want.skip_damaged,
    };
    let fetched = session.shared.broker.fetch(request).await?;
    grant.settle(fetched.bytes.len());
    Ok((fetched, grant))
}
