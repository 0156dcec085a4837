//! `POST /topics/{topic}`: appends, and answers after the ack.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{Answer, Caller, finished, json};
use super::body::{self, Taken};
use super::idempotency::IdempotencyKey;
use super::problem::Problem;
use super::query::{Query, topic_name};
use super::records;
use crate::base::{ErrorKind, GroupName, Millis, PartitionId, TopicName, limits};
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
    let short = bytes.len() <= limits::INLINE_BYTES;
    let new = if short {
        records::read(&head.headers, &query, bytes)?
    } else {
        let headers = head.headers;
        caller.shared.broker.work(&caller.work, move |_| records::read(&headers, &query, bytes)).await??
    };
    let mut wanted = wanted;
    if let Some(wanted) = &mut wanted {
        let judged = caller.shared.calls.judge(&wanted.url);
        judged.map_err(|error| Problem::wrong(format!("receipt_to: {error}")))?;
        // Before anything is appended.
        caller.shared.broker.may_ask_receipts(new.len(), wanted.timeout)?;
        wanted.group_is_there = caller.shared.broker.group_reads(&wanted.group, &topic).await?;
    }
    let metadata = caller.shared.broker.metadata(&topic, true).await?;
    let now = caller.shared.clock.stamp_ms();
    let build = move || place(new, &metadata, key.as_ref(), now).map(|placed| (built(placed, key.as_ref()), key));
    let (batches, key) = match short {
        true => build()?,
        false => caller.shared.broker.work(&caller.work, move |_| build()).await??,
    };
    if let Some(key) = &key {
        // Other records with this key may have gone to other partitions.
        let named = |at| batches.iter().any(|(partition, ..)| *partition == at);
        if caller.shared.broker.key_elsewhere(topic.as_str(), key.producer(), named)?.is_some() {
            return Err(key.used());
        }
    }
    let caller = caller.clone();
    // Whoever goes away after asking has asked all the same: what was begun is done to its end.
    let work = async move { produce(&caller, &topic, batches, key, (ack, wanted), grant).await };
    finished("HTTP append", work).await
}

/// Records for a partition, each with its place in the request.
type Placed = BTreeMap<PartitionId, Vec<(usize, Record)>>;

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

/// A batch for a partition, and of each of its records the place in the request and the time.
type Built = (PartitionId, Vec<(usize, i64)>, BytesMut);

fn built(placed: Placed, key: Option<&IdempotencyKey>) -> Vec<Built> {
    let build = |(partition, records): (PartitionId, Vec<(usize, Record)>)| {
        let options = key.map(|key| key.options(&records));
        let mut builder = BatchBuilder::new(options.unwrap_or_default());
        let mut places = Vec::with_capacity(records.len());
        for (delta, (at, mut record)) in records.into_iter().enumerate() {
            record.offset = delta as u64;
            builder.push_record(&record);
            places.push((at, record.timestamp));
        }
        (partition, places, builder.build())
    };
    placed.into_iter().map(build).collect()
}

async fn produce(
    caller: &Caller,
    topic: &TopicName,
    batches: Vec<Built>,
    key: Option<IdempotencyKey>,
    (ack, wanted): (AckLevel, Option<Wanted>),
    grant: Grant,
) -> Result<Answer, Problem> {
    let broker = &caller.shared.broker;
    let mut appends = Vec::new();
    for (partition, places, batch) in batches {
        let batch = broker.look_into(&caller.work, topic.as_str(), batch).await;
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
    let done = Arc::new(done);
    let lines = told(caller, &done).await?;
    let appended = || serde_json::from_str::<serde_json::Value>(lines.get()).unwrap_or_default();
    let problem = |error| match &key {
        Some(key) => key.problem(error),
        None => Problem::from(error),
    };
    match failed {
        Some(error) if done.is_empty() => Err(problem(error)),
        Some(error) => Err(problem(error).with("appended", appended())),
        None => {
            let note = wanted.as_ref().and_then(Wanted::note);
            let asked = match wanted {
                Some(wanted) => wanted.ask(broker, topic, &done).await,
                None => Ok(()),
            };
            match (asked, &key) {
                (Ok(()), _) => Ok(json(
                    StatusCode::OK,
                    &Told { receipts_error: None, receipts_note: note, records: &lines, topic },
                )),
                // Sent again, the records are known, and receipts are asked for.
                (Err(error), Some(_)) => Err(problem(error).with("appended", appended())),
                // Sent again, they would be there twice.
                (Err(error), None) => {
                    let said =
                        Told { receipts_error: Some(error.to_string()), receipts_note: None, records: &lines, topic };
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

/// Records about which an answer is written where the connection runs.
const FEW: usize = 256;

/// An answer: what was appended, in the order of the request.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts_note: Option<String>,
    records: &'a RawValue,
    topic: &'a TopicName,
}

/// What became of each record, in the order of the request, as JSON.
async fn told(caller: &Caller, done: &Arc<Vec<Appended>>) -> Result<Box<RawValue>, Problem> {
    let count: usize = done.iter().map(|(_, places, _)| places.len()).sum();
    if count > FEW {
        let shared = Arc::clone(done);
        // If the server stops meanwhile it is done here: they are appended.
        if let Ok(lines) = caller.shared.broker.work(&caller.work, move |_| lines(&shared)).await {
            return lines;
        }
    }
    lines(done)
}

fn lines(done: &[Appended]) -> Result<Box<RawValue>, Problem> {
    let mut lines = Vec::new();
    for (partition, places, produced) in done {
        for (delta, (at, timestamp)) in places.iter().enumerate() {
            let offset = produced.base_offset + delta as u64;
            let line = match produced.duplicate {
                // When it was first appended is in the log.
                true => json!({ "partition": partition, "offset": offset, "duplicate": true }),
                false => {
                    let timestamp = produced.stamped.unwrap_or(*timestamp);
                    json!({ "partition": partition, "offset": offset, "timestamp": timestamp })
                }
            };
            lines.push((*at, line));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    let lines: Vec<serde_json::Value> = lines.into_iter().map(|(_, line)| line).collect();
    serde_json::value::to_raw_value(&lines).map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))
}
