//! `POST /topics/{topic}`: appends, and answers after the ack.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::answer::{Answer, Caller, finished, json};
use super::body::{self, Taken};
use super::idempotency::IdempotencyKey;
use super::problem::Problem;
use super::query::{Query, topic_name};
use super::records;
use crate::base::{GroupName, Millis, PartitionId, TopicName, limits};
use crate::broker::{AckLevel, Broker, BrokerError, MAX_ASKED, Place, Produced, RecordAt, TopicMetadata};
use crate::record::json::NewRecord;
use crate::record::{BatchBuilder, Record, partition_for_key};
use crate::server::budget::Grant;
use crate::server::outgoing::Url;

/// After this time a receipt says that nothing has become of a record, unless the query says another.
const RECEIPT_TIMEOUT: Millis = Millis(7 * 86_400_000);

/// Where the next record without a key goes.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Appends the records of a body: to each partition as a whole or not at all.
///
/// # Errors
/// The request is wrong, or the broker refuses; `appended` then says what had been appended to other partitions.
pub async fn append(caller: &Arc<Caller>, topic: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    let topic = topic_name(topic)?;
    let known = ["ack", "key", "partition", "format", "receipt_of", "receipt_to", "receipt_timeout"];
    let query = Query::read(request.uri().query(), &known)?;
    let ack = match query.get("ack") {
        None | Some("durable") => AckLevel::Durable,
        Some("written") => AckLevel::Written,
        Some("none") => AckLevel::None,
        Some(other) => return Err(Problem::wrong(format!("ack={other}: use durable, written or none"))),
    };
    let wanted = Wanted::read(&query, ack)?;
    let (head, body) = request.into_parts();
    let key = IdempotencyKey::read(&head.headers)?;
    let Taken { bytes, grant } = body::take(caller, body).await?;
    let new = if bytes.len() <= limits::INLINE_BYTES {
        records::read(&head.headers, &query, bytes)?
    } else {
        let headers = head.headers;
        caller.shared.broker.work(&caller.work, move |_| records::read(&headers, &query, bytes)).await??
    };
    let mut wanted = wanted;
    if let Some(wanted) = &mut wanted {
        // Before anything is appended.
        caller.shared.broker.may_ask_receipts(new.len(), wanted.timeout)?;
        wanted.group_is_there = caller.shared.broker.group_reads(&wanted.group, &topic).await?;
    }
    let metadata = caller.shared.broker.metadata(&topic, true).await?;
    let placed = place(new, &metadata, key.as_ref(), caller.shared.clock.stamp_ms())?;
    let caller = caller.clone();
    // Whoever goes away after asking has asked all the same: what was begun is done to its end.
    let work = async move { produce(&caller, &topic, placed, key, (ack, wanted), grant).await };
    finished("HTTP append", work).await
}

/// Records for a partition, each with its place in the request.
pub type Placed = BTreeMap<PartitionId, Vec<(usize, Record)>>;

fn place(
    new: Vec<NewRecord>,
    metadata: &TopicMetadata,
    same: Option<&IdempotencyKey>,
    now: i64,
) -> Result<Placed, Problem> {
    let mut placed = Placed::new();
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    for (at, record) in new.into_iter().enumerate() {
        let NewRecord { key, value, headers, partition, timestamp } = record;
        let partition = match (partition, &key, same) {
            (Some(partition), ..) => partition,
            (None, Some(key), _) => partition_for_key(key, metadata.partitions),
            (None, None, Some(same)) => same.partition(metadata.partitions),
            (None, None, None) => u32::try_from(turn % metadata.partitions.max(1) as usize).unwrap_or(0),
        };
        if partition >= metadata.partitions {
            let detail = format!("there is no partition {partition}: the topic has {}", metadata.partitions);
            return Err(Problem::wrong(detail).with("record", at));
        }
        let record = Record { offset: 0, timestamp: timestamp.unwrap_or(now), key, value, headers };
        placed.entry(partition).or_default().push((at, record));
    }
    Ok(placed)
}

async fn produce(
    caller: &Caller,
    topic: &TopicName,
    placed: Placed,
    key: Option<IdempotencyKey>,
    (ack, wanted): (AckLevel, Option<Wanted>),
    grant: Grant,
) -> Result<Answer, Problem> {
    let broker = &caller.shared.broker;
    let mut appends = Vec::new();
    for (partition, records) in placed {
        let options = key.as_ref().map(|key| key.options(&records));
        let mut builder = BatchBuilder::new(options.unwrap_or_default());
        let mut places = Vec::with_capacity(records.len());
        for (delta, (at, mut record)) in records.into_iter().enumerate() {
            record.offset = delta as u64;
            builder.push_record(&record);
            places.push((at, record.timestamp));
        }
        let batch = broker.look_into(&caller.work, topic.as_str(), builder.build()).await;
        let append = broker.produce_at(topic.as_str(), partition, batch, ack, Place::CommitThread);
        appends.push((partition, places, append));
    }
    if ack == AckLevel::None {
        // Queued; whether it is appended, nobody is told. What it holds of the budget it holds until then.
        tokio::spawn(async move {
            let _held = grant;
            for (.., append) in appends {
                drop(append.await);
            }
        });
        return Ok(json(StatusCode::ACCEPTED, &json!({ "topic": topic, "accepted": true })));
    }
    let _held = grant;
    let mut done = Vec::new();
    let mut failed: Option<BrokerError> = None;
    for (partition, places, append) in appends {
        match append.await {
            Ok(produced) => done.push((partition, places, produced)),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    let lines = lines(&done);
    let problem = |error| match &key {
        Some(key) => key.problem(error),
        None => Problem::from(error),
    };
    match failed {
        Some(error) if lines.is_empty() => Err(problem(error)),
        Some(error) => Err(problem(error).with("appended", lines)),
        None => {
            let note = wanted.as_ref().and_then(Wanted::note);
            let asked = match wanted {
                Some(wanted) => wanted.ask(broker, topic, &done).await,
                None => Ok(()),
            };
            match (asked, &key) {
                (Ok(()), _) => {
                    let mut said = json!({ "topic": topic, "records": lines });
                    if let Some(note) = note {
                        said["receipts_note"] = note.into();
                    }
                    Ok(json(StatusCode::OK, &said))
                }
                // Sent again, the records are known, and receipts are asked for.
                (Err(error), Some(_)) => Err(problem(error).with("appended", lines)),
                // Sent again, they would be there twice.
                (Err(error), None) => {
                    let said = json!({ "topic": topic, "records": lines, "receipts_error": error.to_string() });
                    Ok(json(StatusCode::OK, &said))
                }
            }
        }
    }
}

/// Receipts that are wanted of what is appended.
struct Wanted {
    group: GroupName,
    url: Url,
    timeout: Duration,
    /// The group was there when it was looked, and reads the topic.
    group_is_there: bool,
}

impl Wanted {
    fn read(query: &Query, ack: AckLevel) -> Result<Option<Self>, Problem> {
        let (Some(group), Some(url)) = (query.get("receipt_of"), query.parse("receipt_to")?) else {
            let (of, to, timeout) = ("receipt_of", "receipt_to", "receipt_timeout");
            return match [of, to, timeout].into_iter().any(|name| query.get(name).is_some()) {
                true => Err(Problem::wrong(format!("a receipt needs both {of}=GROUP and {to}=URL"))),
                false => Ok(None),
            };
        };
        if ack == AckLevel::None {
            return Err(Problem::wrong("with ack=none nobody knows where a record is, so there are no receipts"));
        }
        let group = GroupName::new(group).map_err(|error| Problem::wrong(error.to_string()))?;
        let timeout: Millis = query.parse("receipt_timeout")?.unwrap_or(RECEIPT_TIMEOUT);
        Ok(Some(Self { group, url, timeout: timeout.as_duration(), group_is_there: false }))
    }

    /// What whoever asks should know of a group that may be misspelt.
    fn note(&self) -> Option<String> {
        let Self { group, timeout, .. } = self;
        let timeout = Millis(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let note = || format!("there is no group '{group}' yet; it has {timeout} to process the records");
        (!self.group_is_there).then(note)
    }

    async fn ask(&self, broker: &Arc<Broker>, topic: &TopicName, done: &[Appended]) -> Result<(), BrokerError> {
        let mut records = Vec::new();
        for (partition, places, produced) in done {
            let at = |offset| RecordAt { topic: topic.clone(), partition: *partition, offset };
            records.extend((produced.base_offset..).take(places.len()).map(at));
        }
        for records in records.chunks(MAX_ASKED) {
            broker.ask_receipts(&self.group, &self.url.to_string(), records, self.timeout).await?;
        }
        Ok(())
    }
}

/// What was appended to a partition: the place and time of each record, and where it is now.
type Appended = (PartitionId, Vec<(usize, i64)>, Produced);

/// What became of each record, in the order of the request.
fn lines(done: &[Appended]) -> Vec<serde_json::Value> {
    let mut lines = Vec::new();
    for (partition, places, produced) in done {
        for (delta, (at, timestamp)) in places.iter().enumerate() {
            let offset = produced.base_offset + delta as u64;
            let line = match produced.duplicate {
                // When it was first appended is in the log.
                true => json!({ "partition": partition, "offset": offset, "duplicate": true }),
                false => json!({ "partition": partition, "offset": offset, "timestamp": timestamp }),
            };
            lines.push((*at, line));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().map(|(_, line)| line).collect()
}
