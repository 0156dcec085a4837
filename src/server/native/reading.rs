//! Reads from the log on behalf of a client, within the budget for answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::mapping::{self, Refusal};
use super::session::{Answer, Session};
use crate::base::{Offset, PartitionId};
use crate::broker::{FetchRequest, Fetched};
use crate::protocol as wire;
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

/// Answers a fetch. With a filter it goes on while nothing matches and there is time left, and says how far it came.
///
/// # Errors
/// The broker's, and a filter that is none.
pub async fn fetch(session: Arc<Session>, request: wire::Fetch) -> Result<Answer<wire::FetchOk>, Refusal> {
    let filter = request.filter.as_deref().map(mapping::filter).transpose()?;
    let max_wait = Duration::from_millis(u64::from(request.max_wait_ms)).min(LONGEST_WAIT);
    let deadline = Instant::now() + max_wait;
    let mut want = Want {
        topic: &request.topic,
        partition: request.partition,
        offset: request.offset,
        max_bytes: request.max_bytes as usize,
        min_bytes: request.min_bytes as usize,
        max_wait,
        skip_damaged: request.skip_damaged,
    };
    // Who does not wait for more gets all that was acknowledged to anyone.
    if max_wait.is_zero() {
        session.shared.broker.settle(want.topic, want.partition, want.offset.saturating_add(1)).await?;
    }
    loop {
        let (mut fetched, mut grant) = read(&session, want).await?;
        if let Some(filter) = &filter {
            let broker = &session.shared.broker;
            let (place, how) = ((want.topic, want.partition), (want.offset, want.skip_damaged));
            let left = broker.filter(&session.work, filter, place.0, place.1, fetched.bytes, how).await?;
            (fetched.bytes, fetched.next_offset) = (left.batches, left.next.unwrap_or(fetched.next_offset));
            fetched.skipped.extend(left.skipped);
            grant.settle(fetched.bytes.len());
            // One that stopped without a record has waited out its time, or the connection ends.
            let moved = fetched.next_offset > want.offset;
            let nothing = fetched.bytes.is_empty() && fetched.skipped.is_empty();
            want.max_wait = deadline.saturating_duration_since(Instant::now());
            if nothing && moved && !want.max_wait.is_zero() {
                want.offset = fetched.next_offset;
                continue;
            }
        }
        return Ok(Answer { message: mapping::fetch_ok(&fetched), payload: fetched.bytes, grant: Some(grant) });
    }
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
