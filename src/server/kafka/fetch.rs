//! Fetch, walked and written by hand: batches go out as they lie in the log. There are no fetch sessions: the answer says
//! so, and clients then name all their partitions in every request.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::errors;
use super::response::{Asked, Response};
use super::session::{Hangup, Session};
use super::told::Codes;
use super::wire::{Reader, WireError};
use crate::base::{TopicId, TopicName, limits};
use crate::broker::{BrokerError, Isolation, Marked, PartitionEnds, PartitionReader, ReadAt, SETTLE};
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
}

/// A partition of a request, resolved once.
struct Place {
    /// What the request says of it.
    part: WantedPartition,
    /// None where the request cannot be followed.
    reader: Option<PartitionReader>,
    /// Why nothing is read.
    error: i16,
    /// The ends when it was looked at last.
    ends: Option<PartitionEnds>,
    /// Bytes that can be read. A request that waits for one byte only learns whether there are any.
    bytes: usize,
    /// More is there than the partition's own limit allows: no reason to wait for more.
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
        return Ok(Some(encode(asked, code, &wanted, None)));
    }
    if asked.version >= IDS_SINCE {
        for topic in &mut wanted.topics {
            let name = session.broker().topic_named(TopicId(topic.id));
            topic.name = name.map(|name| name.as_str().to_owned()).unwrap_or_default();
        }
    }
    let deadline = Instant::now() + wanted.max_wait.min(LONGEST_WAIT);
    let mut places = resolve(&session, asked, &wanted).await;
    let mut changed: Vec<usize> = (0..places.len()).collect();
    let mut waiting = FuturesUnordered::new();
    let mut settled = false;
    loop {
        for at in &changed {
            look(&session, &mut places[*at], &wanted).await;
            tokio::task::consume_budget().await;
        }
        let in_time = Instant::now() < deadline;
        // Who asks for what was acknowledged to somebody gets it, however little he wants to wait.
        if !in_time && !std::mem::replace(&mut settled, true) && places.iter().all(|place| place.bytes == 0) {
            changed = settle(&mut places).await;
            if !changed.is_empty() {
                continue;
            }
        }
        if is_enough(&places, &wanted) || !in_time {
            let (found, grant) = read(&session, &mut places, &wanted).await;
            // Nothing may be left of what was seen: it has been deleted meanwhile.
            let any = found.iter().any(|found| !found.bytes.is_empty() || found.error != errors::NONE);
            if any || !in_time || wanted.min_bytes == 0 {
                return Ok(Some(encode(asked, errors::NONE, &wanted, Some((found, grant)))));
            }
            places.iter_mut().for_each(|place| (place.bytes, place.full) = (0, false));
        }
        // A request that waits holds nothing of the budget, so any number of them may.
        for at in changed.drain(..) {
            if let Some(watch) = places[at].reader.as_ref().map(PartitionReader::watch) {
                waiting.push(watch.changed().map(move |()| at));
            }
        }
        let waited = async {
            match waiting.next().await {
                Some(at) => changed.push(at),
                // Nothing to wait for but the end of the time.
                None => std::future::pending().await,
            }
            if wanted.min_bytes > 1 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            _ = timeout_at(deadline, waited) => {}
            () = session.closing() => wanted.min_bytes = 0,
        }
        while let Some(Some(at)) = waiting.next().now_or_never() {
            changed.push(at);
        }
    }
}

/// Finds each partition that a request names. One that is named again is refused: each would be read at every change.
async fn resolve(session: &Session, asked: Asked, wanted: &Wanted) -> Vec<Place> {
    let mut named = HashSet::new();
    let mut places = Vec::new();
    for topic in &wanted.topics {
        let handle = if asked.version >= IDS_SINCE && topic.name.is_empty() {
            Err(errors::UNKNOWN_TOPIC_ID)
        } else if asked.version < IDS_SINCE && TopicName::new(&topic.name).is_err() {
            Err(errors::INVALID_TOPIC)
        } else {
            session.broker().handle(&topic.name).map_err(|error| code(&error))
        };
        for part in &topic.partitions {
            let reader = handle.as_ref().map_err(|code| *code).and_then(|topic_handle| {
                let number = u32::try_from(part.partition).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
                if part.leader_epoch > 0 {
                    // There has never been another epoch than 0.
                    return Err(errors::UNKNOWN_LEADER_EPOCH);
                }
                let reader = topic_handle.reader(number).map_err(|error| code(&error))?;
                if named.len() >= limits::FETCH_PARTITIONS || !named.insert((topic.name.as_str(), number)) {
                    let (topic, limit) = (&topic.name, limits::FETCH_PARTITIONS);
                    tracing::debug!(topic, number, limit, "a Fetch names a partition twice, or too many");
                    return Err(errors::INVALID_REQUEST);
                }
                Ok(reader)
            });
            let error = reader.as_ref().err().copied().unwrap_or(errors::NONE);
            let reader = reader.ok();
            places.push(Place { part: *part, reader, error, ends: None, bytes: 0, full: false });
            tokio::task::consume_budget().await;
        }
    }
    places
}

/// Waits until what is written where places begin can be read. Which places those are.
async fn settle(places: &mut [Place]) -> Vec<usize> {
    let until = Instant::now() + SETTLE;
    let mut short = Vec::new();
    for (at, place) in places.iter_mut().enumerate() {
        let (Some(reader), Some(ends)) = (&mut place.reader, place.ends) else { continue };
        let offset = u64::try_from(place.part.offset).unwrap_or(u64::MAX);
        if place.error == errors::NONE && (ends.stable..ends.written).contains(&offset) {
            // Why nothing can be read the next look tells.
            let _ = reader.settle(offset + 1, until).await;
            short.push(at);
        }
    }
    short
}

/// Whether what can be read is worth an answer.
fn is_enough(places: &[Place], wanted: &Wanted) -> bool {
    let all = || places.iter();
    let bytes: usize = all().map(|place| place.bytes).sum();
    bytes >= wanted.min_bytes || all().any(|place| place.full || place.error != errors::NONE)
}

/// Looks at a partition that may have changed.
async fn look(session: &Session, place: &mut Place, wanted: &Wanted) {
    let Some(reader) = place.reader.as_mut().filter(|_| place.error == errors::NONE) else { return };
    let ends = match reader.look() {
        Ok(ends) => ends,
        Err(error) => return place.refuse(code(&error)),
    };
    place.ends = Some(ends);
    let end = if wanted.read_committed { ends.committed } else { ends.stable };
    let offset = u64::try_from(place.part.offset).ok();
    let Some(offset) = offset.filter(|offset| (ends.log_start..=ends.written).contains(offset)) else {
        place.error = errors::OFFSET_OUT_OF_RANGE;
        return;
    };
    (place.bytes, place.full) = (usize::from(offset < end), false);
    if place.bytes == 0 || wanted.min_bytes <= 1 {
        return;
    }
    // How much there is only a read tells; what it brings is given back.
    let own = place.part.own_bytes().clamp(1, MOST_BYTES);
    let grant = session.outgoing.take_some(own.min(LEAST_BYTES), own).await;
    let at = ReadAt { offset, max_bytes: grant.bytes(), largest: grant.bytes(), skip_damaged: false };
    match reader.read_as(at, wanted.isolation()).await {
        Ok(Marked { fetched, .. }) if fetched.needs.is_some() => place.full = true,
        Ok(Marked { fetched, .. }) => {
            place.bytes = fetched.bytes.len();
            place.full = fetched.next_offset < fetched.stable_end;
        }
        // The read that answers will say so.
        Err(_) => place.full = true,
    }
}

/// Reads each partition in which something is, in the order of the request, up to its own limit and that of the whole. The
/// first batch of all is read whatever its size, or its reader could never go on; all others must fit.
async fn read(session: &Session, places: &mut [Place], wanted: &Wanted) -> (Vec<Found>, Grant) {
    let most = wanted.max_bytes.clamp(1, MOST_BYTES);
    let mut grant = match places.iter().any(|place| place.bytes > 0) {
        true => session.outgoing.take_some(most.min(LEAST_BYTES), most).await,
        false => session.outgoing.take(0).await,
    };
    let mut left = grant.bytes();
    let mut total = 0;
    let mut all = Vec::with_capacity(places.len());
    for place in places {
        let (mut found, needs) = read_one(place, left, (total == 0).then_some(left), wanted.isolation()).await;
        if let Some(bytes) = needs {
            // The first batch of all is larger than what was granted: its bytes are granted before it is read.
            drop(grant);
            grant = session.outgoing.take(bytes).await;
            left = bytes;
            (found, _) = read_one(place, left, Some(usize::MAX), wanted.isolation()).await;
        }
        total += found.bytes.len();
        left = left.saturating_sub(found.bytes.len());
        all.push(found);
        tokio::task::consume_budget().await;
    }
    grant.settle(total);
    (all, grant)
}

/// Reads a partition; of the first in which something is, also a batch that is larger than what it may have, up to `first` bytes.
/// Beyond that it is told how many are needed.
async fn read_one(
    place: &mut Place,
    left: usize,
    first: Option<usize>,
    isolation: Isolation,
) -> (Found, Option<usize>) {
    let nothing = |place: &Place, error| {
        let end = |of: fn(PartitionEnds) -> u64| place.ends.map_or(-1, |ends| of(ends) as i64);
        Found {
            partition: place.part.partition,
            error,
            stable_end: end(|ends| ends.stable),
            committed_end: end(|ends| ends.committed),
            log_start: end(|ends| ends.log_start),
            bytes: Bytes::new(),
            aborted: Vec::new(),
        }
    };
    let room = place.part.own_bytes().min(left);
    let offset = u64::try_from(place.part.offset).unwrap_or(0);
    if place.error != errors::NONE || place.bytes == 0 || (room == 0 && first.is_none()) {
        return (nothing(place, place.error), None);
    }
    let Some(reader) = place.reader.as_mut() else { return (nothing(place, place.error), None) };
    let at = ReadAt { offset, max_bytes: room.max(1), largest: first.unwrap_or(room), skip_damaged: false };
    match reader.read_as(at, isolation).await {
        Ok(Marked { fetched, ends, aborted }) => {
            place.ends = Some(ends);
            let needs = fetched.needs.filter(|_| first.is_some());
            (Found { bytes: fetched.bytes, aborted, ..nothing(place, errors::NONE) }, needs)
        }
        Err(error) if error.range().is_some() => (nothing(place, errors::OFFSET_OUT_OF_RANGE), None),
        Err(error) => {
            place.refuse(code(&error));
            (nothing(place, place.error), None)
        }
    }
}

impl WantedPartition {
    /// The most that the request wants of this partition.
    fn own_bytes(&self) -> usize {
        usize::try_from(self.max_bytes).unwrap_or(0)
    }
}

impl Place {
    /// Notes why nothing can be read, or be said of the ends.
    fn refuse(&mut self, error: i16) {
        (self.error, self.ends) = (error, None);
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

/// Without anything found, the answer of a request that is refused as a whole.
fn encode(asked: Asked, error: i16, wanted: &Wanted, found: Option<(Vec<Found>, Grant)>) -> Response {
    let version = asked.version;
    let mut writer = asked.writer();
    let mut pieces = Vec::new();
    writer.out.put_i32(0);
    if version >= 7 {
        writer.out.put_i16(error);
        writer.out.put_i32(0);
    }
    let topics = if found.is_some() { wanted.topics.as_slice() } else { &[] };
    let (found, grant) = found.map_or((Vec::new(), None), |(found, grant)| (found, Some(grant)));
    let mut errors = Codes::default();
    found.iter().map(|found| found.error).chain([error]).for_each(|code| errors.note(code));
    let mut found = found.into_iter();
    writer.count(Some(topics.len()));
    for topic in topics {
        if version >= IDS_SINCE {
            writer.out.put_u128(topic.id);
        } else {
            writer.text(&topic.name);
        }
        writer.count(Some(topic.partitions.len()));
        for found in found.by_ref().take(topic.partitions.len()) {
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
    let response = match pieces.next() {
        None => Asked::finish(bytes::BytesMut::from(tail), [], grant),
        Some(head) => Asked::finish(bytes::BytesMut::from(head), pieces.chain([tail]), grant),
    };
    Response { errors, ..response }
}
