//! Fetch, walked and written by hand: batches go out as they lie in the log. There are no fetch sessions: the answer says
//! so, and clients then name all their partitions in every request.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::errors;
use super::response::{Asked, Response};
use super::session::{Hangup, Session};
use super::wire::{Reader, WireError};
use crate::base::{TopicId, TopicName};
use crate::broker::{BrokerError, FetchRequest, Isolation, Marked, PartitionEnds};
use crate::log::Aborted;
use crate::server::budget::Grant;

/// The most that one answer brings, unless one batch is larger.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// What is enough to begin with when the budget is short.
const LEAST_BYTES: usize = 64 * 1024;
/// The longest wait; who asks for more hears "nothing yet" sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The pause before it is looked again whether there is enough for who wants more than one byte: not once for each append.
const PAUSE: Duration = Duration::from_millis(5);
/// The version from which on topics are named by their ids.
const IDS_SINCE: i16 = 13;

/// What is asked for.
#[derive(Debug)]
pub struct Wanted {
    max_wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
    session: (i32, i32),
    topics: Vec<WantedTopic>,
}

#[derive(Debug)]
struct WantedTopic {
    name: String,
    id: u128,
    partitions: Vec<WantedPartition>,
}

#[derive(Debug, Clone, Copy)]
struct WantedPartition {
    partition: i32,
    leader_epoch: i32,
    offset: i64,
    max_bytes: i32,
}

/// One partition's part of the answer.
struct Found {
    partition: i32,
    error: i16,
    stable_end: i64,
    /// No transaction is open below it.
    committed_end: i64,
    log_start: i64,
    bytes: Bytes,
    /// What of the batches is of aborted transactions; for who asks.
    aborted: Vec<Aborted>,
    /// Its own limit is reached: no reason to wait for more.
    full: bool,
}

impl Wanted {
    fn isolation(&self) -> Isolation {
        if self.read_committed { Isolation::Committed } else { Isolation::Uncommitted }
    }
}

/// Reads a request.
///
/// # Errors
/// It cannot be followed.
pub fn parse(body: &[u8], asked: Asked) -> Result<Wanted, WireError> {
    let version = asked.version;
    let mut reader = Reader::new(body, asked.flexible);
    let at_least = |since: i16| version >= since;
    if version <= 14 {
        // Whether another broker asks. There is none.
        reader.i32()?;
    }
    let max_wait = Duration::from_millis(u64::try_from(reader.i32()?).unwrap_or(0));
    let min_bytes = usize::try_from(reader.i32()?).unwrap_or(0);
    let max_bytes = usize::try_from(reader.i32()?).unwrap_or(0);
    let read_committed = reader.i8()? == 1;
    let session = if at_least(7) { (reader.i32()?, reader.i32()?) } else { (0, -1) };
    let mut topics = Vec::new();
    for _ in 0..reader.count()? {
        let (name, id) = if at_least(IDS_SINCE) { ("", reader.uuid()?) } else { (reader.text()?, 0) };
        let mut partitions = Vec::new();
        for _ in 0..reader.count()? {
            let partition = reader.i32()?;
            let leader_epoch = if at_least(9) { reader.i32()? } else { -1 };
            let offset = reader.i64()?;
            if at_least(12) {
                // The epoch of the last record that was fetched: there is but one epoch.
                reader.i32()?;
            }
            if at_least(5) {
                // A follower's log start.
                reader.i64()?;
            }
            let max_bytes = reader.i32()?;
            reader.tags()?;
            partitions.push(WantedPartition { partition, leader_epoch, offset, max_bytes });
        }
        reader.tags()?;
        topics.push(WantedTopic { name: name.to_owned(), id, partitions });
    }
    // What else there is (forgotten partitions of a session, a rack) means nothing here.
    Ok(Wanted { max_wait, min_bytes, max_bytes, read_committed, session, topics })
}

/// Reads what there is; if that is too little, waits for more.
///
/// # Errors
/// None; the type is that of what becomes of a request.
pub async fn answer(session: Arc<Session>, asked: Asked, mut wanted: Wanted) -> Result<Option<Response>, Hangup> {
    let (id, epoch) = wanted.session;
    let refusal = match (id, epoch) {
        (0, -1 | 0) => None,
        (0, _) => Some(errors::INVALID_FETCH_SESSION_EPOCH),
        _ => Some(errors::FETCH_SESSION_ID_NOT_FOUND),
    };
    if let Some(code) = refusal {
        return Ok(Some(encode(asked, code, &wanted, Vec::new(), None)));
    }
    if asked.version >= IDS_SINCE {
        for topic in &mut wanted.topics {
            let name = session.broker().topic_named(TopicId(topic.id));
            topic.name = name.map(|name| name.as_str().to_owned()).unwrap_or_default();
        }
    }
    let deadline = Instant::now() + wanted.max_wait.min(LONGEST_WAIT);
    loop {
        // What changes from here on is noticed below.
        let watches = watches(&session, &wanted);
        let (found, grant) = read(&session, asked, &wanted).await;
        let all = || found.iter().flatten();
        let bytes: usize = all().map(|found| found.bytes.len()).sum();
        let enough = bytes >= wanted.min_bytes || all().any(|found| found.full || found.error != 0);
        if enough || Instant::now() >= deadline {
            return Ok(Some(encode(asked, errors::NONE, &wanted, found, Some(grant))));
        }
        // Who waits holds nothing of the budget, so any number of them may.
        drop((found, grant));
        let mut changes: FuturesUnordered<_> =
            watches.into_iter().map(|mut watch| async move { watch.changed().await }).collect();
        let waited = async {
            if changes.next().await.is_none() {
                // Nothing to wait for but the end of the time.
                std::future::pending::<()>().await;
            }
            if wanted.min_bytes > 1 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            _ = timeout_at(deadline, waited) => {}
            () = session.closing() => wanted.min_bytes = 0,
        }
    }
}

fn watches(session: &Session, wanted: &Wanted) -> Vec<crate::broker::PartitionWatch> {
    let pairs = wanted.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part)));
    pairs
        .filter_map(|(topic, part)| {
            let partition = u32::try_from(part.partition).ok()?;
            session.broker().watch_partition(&topic.name, partition).ok()
        })
        .collect()
}

/// Reads each partition, in the order of the request, up to its own limit and that of the whole. The first batch of all is
/// read whatever its size, or its reader could never go on; all others must fit.
async fn read(session: &Session, asked: Asked, wanted: &Wanted) -> (Vec<Vec<Found>>, Grant) {
    let most = wanted.max_bytes.clamp(1, MOST_BYTES);
    let mut grant = session.outgoing.take_some(most.min(LEAST_BYTES), most).await;
    let mut left = grant.bytes();
    let mut total = 0;
    let mut topics = Vec::with_capacity(wanted.topics.len());
    for topic in &wanted.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for part in &topic.partitions {
            let found = read_one(session, asked, topic, *part, left, total == 0, wanted.isolation()).await;
            total += found.bytes.len();
            left = left.saturating_sub(found.bytes.len());
            partitions.push(found);
        }
        topics.push(partitions);
    }
    grant.settle(total);
    (topics, grant)
}

async fn read_one(
    session: &Session,
    asked: Asked,
    topic: &WantedTopic,
    part: WantedPartition,
    left: usize,
    first: bool,
    isolation: Isolation,
) -> Found {
    let WantedPartition { partition, leader_epoch, offset, max_bytes } = part;
    let refused = |error| Found {
        partition,
        error,
        stable_end: -1,
        committed_end: -1,
        log_start: -1,
        bytes: Bytes::new(),
        aborted: Vec::new(),
        full: false,
    };
    if asked.version >= IDS_SINCE && topic.name.is_empty() {
        return refused(errors::UNKNOWN_TOPIC_ID);
    }
    if asked.version < IDS_SINCE && TopicName::new(&topic.name).is_err() {
        return refused(errors::INVALID_TOPIC);
    }
    let Ok(number) = u32::try_from(partition) else { return refused(errors::UNKNOWN_TOPIC_OR_PARTITION) };
    if leader_epoch > 0 {
        // There has never been another epoch than 0.
        return refused(errors::UNKNOWN_LEADER_EPOCH);
    }
    let own = usize::try_from(max_bytes).unwrap_or(0);
    let ends = session.broker().partition_ends(&topic.name, number);
    let ends = match ends {
        Ok(ends) => ends,
        Err(error) => return refused(code(&error)),
    };
    let nothing = |error, ends: PartitionEnds| Found {
        error,
        stable_end: ends.stable as i64,
        committed_end: ends.committed as i64,
        log_start: ends.log_start as i64,
        ..refused(errors::NONE)
    };
    let Ok(offset) = u64::try_from(offset) else { return nothing(errors::OFFSET_OUT_OF_RANGE, ends) };
    let room = own.min(left);
    if room == 0 && !first && (ends.log_start..=ends.stable).contains(&offset) {
        return nothing(errors::NONE, ends);
    }
    let request = FetchRequest {
        topic: &topic.name,
        partition: number,
        offset,
        max_bytes: room.max(1),
        min_bytes: 1,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    match session.broker().fetch_as(request, isolation).await {
        Ok(Marked { fetched, ends, .. }) if fetched.bytes.len() > room && !first => nothing(errors::NONE, ends),
        Ok(Marked { fetched, ends, aborted }) => Found {
            // More is there than fits the partition's own limit.
            full: !fetched.bytes.is_empty() && fetched.next_offset < fetched.stable_end,
            bytes: fetched.bytes,
            aborted,
            ..nothing(errors::NONE, ends)
        },
        Err(error) if error.range().is_some() => nothing(errors::OFFSET_OUT_OF_RANGE, ends),
        Err(error) => refused(code(&error)),
    }
}

/// Damage is told loudly, and the record is not passed over: consumers stop there.
fn code(error: &BrokerError) -> i16 {
    match error.kind() {
        crate::base::ErrorKind::Damaged => {
            tracing::warn!(%error, "a consumer met damage");
            errors::CORRUPT_MESSAGE
        }
        _ => errors::code(error),
    }
}

fn encode(asked: Asked, error: i16, wanted: &Wanted, found: Vec<Vec<Found>>, grant: Option<Grant>) -> Response {
    let version = asked.version;
    let mut writer = asked.writer();
    let mut pieces = Vec::new();
    writer.out.put_i32(0);
    if version >= 7 {
        writer.out.put_i16(error);
        writer.out.put_i32(0);
    }
    writer.count(Some(found.len()));
    for (topic, partitions) in wanted.topics.iter().zip(found) {
        if version >= IDS_SINCE {
            writer.out.put_u128(topic.id);
        } else {
            writer.text(&topic.name);
        }
        writer.count(Some(partitions.len()));
        for found in partitions {
            writer.out.put_i32(found.partition);
            writer.out.put_i16(found.error);
            writer.out.put_i64(found.stable_end);
            writer.out.put_i64(found.committed_end);
            if version >= 5 {
                writer.out.put_i64(found.log_start);
            }
            // Nothing is said of aborted transactions to who does not ask.
            writer.count(wanted.read_committed.then_some(found.aborted.len()));
            for aborted in &found.aborted {
                writer.out.put_i64(aborted.producer);
                writer.out.put_i64(aborted.first as i64);
                writer.tags();
            }
            if version >= 11 {
                // There is no other replica to read from.
                writer.out.put_i32(-1);
            }
            writer.count(Some(found.bytes.len()));
            if !found.bytes.is_empty() {
                pieces.push(writer.out.split().freeze());
                pieces.push(found.bytes);
            }
            writer.tags();
        }
        writer.tags();
    }
    writer.tags();
    let tail = writer.out.freeze();
    let mut pieces = pieces.into_iter();
    match pieces.next() {
        None => Asked::finish(bytes::BytesMut::from(tail), [], grant),
        Some(head) => Asked::finish(bytes::BytesMut::from(head), pieces.chain([tail]), grant),
    }
}
