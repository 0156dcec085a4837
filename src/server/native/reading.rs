//! Reads from the log on behalf of a client, within the budget for answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::mapping::{self, Refusal};
use super::session::{Answer, Session};
use crate::base::{Isolation, Offset, PartitionId};
use crate::broker::{Fetched, FilterAt};
use crate::expr::Filter;
use crate::protocol as wire;
use crate::record::BatchHeader;
use crate::server::budget::Grant;
use crate::server::reads;

/// The most that is read at a time, unless one batch is larger.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// What is enough to begin with when the budget is short, and what a read that has waited brings at first.
const LEAST_BYTES: usize = 64 * 1024;
/// Bytes that a filter leaves at a time.
const FILTERED_BYTES: usize = 1024 * 1024;
/// The pause before a reader that wants more than one byte reads again.
const PAUSE: Duration = Duration::from_millis(5);
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
    /// What to see of transactions.
    pub isolation: Isolation,
    /// Records after which it is enough.
    pub records: u64,
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
        isolation: request.isolation,
        records: u64::MAX,
    };
    // Who does not wait for more gets all that was acknowledged to anyone.
    if max_wait.is_zero() {
        session.shared.broker.settle(want.topic, want.partition, want.offset.saturating_add(1)).await?;
    }
    loop {
        let (fetched, grant) = read(&session, want, filter.as_ref()).await?;
        if filter.is_some() {
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

/// Reads what there is; if that is too little, waits for more. A read that waits holds nothing, neither of the budget nor in
/// memory, so any number of them may wait.
///
/// # Errors
/// The broker's.
pub async fn read(
    session: &Session,
    want: Want<'_>,
    filter: Option<&Arc<Filter>>,
) -> Result<(Fetched, Grant), Refusal> {
    let max_bytes = want.max_bytes.clamp(1, MOST_BYTES);
    let min_bytes = want.min_bytes.clamp(1, max_bytes);
    let mut reader = session.shared.broker.reader(want.topic, want.partition)?;
    let deadline = Instant::now() + want.max_wait.min(LONGEST_WAIT);
    let mut wants = reads::Want {
        offset: want.offset,
        skip_damaged: want.skip_damaged,
        isolation: want.isolation,
        least: max_bytes.min(LEAST_BYTES),
        most: max_bytes,
        keep: 0,
    };
    let mut last = want.max_wait.is_zero();
    loop {
        let (fetched, mut grant) = reads::read(&session.outgoing, &mut reader, wants).await?;
        let enough = fetched.bytes.len() >= min_bytes || !fetched.skipped.is_empty();
        if !enough && !last {
            drop((fetched, grant));
            tokio::select! {
                () = reader.changed() => {
                    if min_bytes > 1 {
                        // A read that finds too little is thrown away, so it is not done once for each append.
                        sleep_until(deadline.min(Instant::now() + PAUSE)).await;
                    }
                }
                () = sleep_until(deadline) => last = true,
                () = session.closing() => last = true,
            }
            // What a read that has waited brings at first is little.
            wants.most = max_bytes.min(LEAST_BYTES).max(min_bytes);
            continue;
        }
        let (payload, next_offset) = within(&fetched, want.offset, want.records);
        let mut fetched = Fetched { bytes: payload, next_offset, ..fetched };
        if let Some(filter) = filter {
            match filtered(session, &want, wants, filter, &mut fetched).await? {
                None => {}
                // For which there is no room: everything is given back, and room is waited for.
                Some(record) => {
                    wants = wants.with_room_for(fetched.bytes.len(), record);
                    continue;
                }
            }
        }
        grant.settle(fetched.bytes.len());
        return Ok((fetched, grant));
    }
}

/// Leaves what the filter wants, as much as there is room for; or says how large the first record is that there is no room for.
async fn filtered(
    session: &Session,
    want: &Want<'_>,
    wants: reads::Want,
    filter: &Arc<Filter>,
    fetched: &mut Fetched,
) -> Result<Option<usize>, Refusal> {
    let broker = &session.shared.broker;
    let wire = fetched.bytes.len();
    let room = reads::room(&session.outgoing, (2 * LEAST_BYTES, 2 * FILTERED_BYTES + reads::OPENED_BYTES));
    let made = room.bytes.max(wants.keep.saturating_sub(wire));
    let most = wants.largest_record(made).min(made / 2);
    let at = FilterAt { from: want.offset, skip_damaged: want.skip_damaged, most };
    let batches = fetched.bytes.clone();
    let left = broker.filter(&session.work, filter, want.topic, want.partition, batches, at).await?;
    if left.larger.is_some() {
        return Ok(left.larger);
    }
    (fetched.bytes, fetched.next_offset) = (left.batches, left.next.unwrap_or(fetched.next_offset));
    fetched.skipped.extend(left.skipped);
    fetched.unanswered = left.unanswered;
    Ok(None)
}

/// As many whole batches from the front as reach `records`, one at least, and the offset behind them.
pub(super) fn within(fetched: &Fetched, position: Offset, records: u64) -> (Bytes, Offset) {
    let mut length = 0;
    if fetched.next_offset.saturating_sub(position) > records {
        while let Ok(batch) = BatchHeader::parse(&fetched.bytes[length..]) {
            length += batch.total_bytes();
            if length >= fetched.bytes.len() {
                break;
            }
            if batch.next_offset().saturating_sub(position) >= records {
                return (fetched.bytes.slice(..length), batch.next_offset());
            }
        }
    }
    (fetched.bytes.clone(), fetched.next_offset)
}
