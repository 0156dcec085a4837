//! Produce, walked by hand: each batch is cut out of the request and handed to the broker as it is. And the identities
//! of idempotent producers.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use tokio::sync::oneshot;

use super::connection::Pending;
use super::errors;
use super::response::Asked;
use super::session::{Hangup, Session};
use super::transactions;
use super::wire::{Reader, WireError};
use crate::base::{ErrorKind, TopicName};
use crate::broker::{AckLevel, BadRecord, BrokerError, OffsetAt, Place, Produced};
use crate::record::{self, BatchHeader, Compression};
use crate::server::budget::Grant;

/// The first version whose clients know that a transaction is to be aborted, and not the producer closed (KIP-890).
const ABORTABLE_SINCE: i16 = 11;
/// The first version that may carry zstd.
const ZSTD_SINCE: i16 = 7;

/// Topics, each with something for each of its partitions that is named.
type ByPartition<T> = Vec<(String, Vec<(i32, T)>)>;

/// What was asked, with the batches still in the request.
pub struct Request {
    has_transactional_id: bool,
    acks: i16,
    topics: ByPartition<Option<Range<usize>>>,
}

/// What becomes of one batch.
enum Outcome {
    Refused(i16, String),
    Under(oneshot::Receiver<Result<Produced, Failure>>),
}

/// Why a batch is not taken, and what its bytes hold of the budget: it is looked at once more, when its turn to be answered comes.
type Failure = (BrokerError, Arc<Grant>);

/// Records of one answer that are said to be the reason for a refusal.
const MOST_BAD_RECORDS: usize = 10_000;

/// One partition's part of the answer.
struct Answer {
    error: i16,
    message: Option<String>,
    /// Records that are the reason.
    bad: Vec<BadRecord>,
    base_offset: i64,
    /// The time that the server has given to the records, −1 if they have the producer's.
    append_time: i64,
    log_start: i64,
}

/// Hands every batch of a request to the broker, in order; answers when all have reached the ack level.
///
/// # Errors
/// The request cannot be read; nothing was handed over then.
pub async fn begin(
    session: &Arc<Session>,
    asked: Asked,
    mut body: BytesMut,
    grant: Grant,
) -> Result<Pending, WireError> {
    let request = parse(&body, asked)?;
    let level = match request.acks {
        0 => Some(AckLevel::None),
        1 => Some(AckLevel::Written),
        -1 => Some(AckLevel::Durable),
        _ => None,
    };
    // Who waits for each answer is served fastest by the thread that has just read the request. Several batches are
    // written and synced beside each other.
    let only = request.topics.iter().map(|(_, partitions)| partitions.len()).sum::<usize>() == 1;
    let place = if only && session.one_at_a_time() { Place::Here } else { Place::CommitThread };
    // As with Kafka, such a request is refused as a whole.
    let unnamed = !request.has_transactional_id
        && request.topics.iter().flat_map(|(_, partitions)| partitions).any(|(_, range)| {
            let batch = range.clone().and_then(|range| body.get(range));
            batch.and_then(|batch| BatchHeader::parse(batch).ok()).is_some_and(|header| header.is_transactional())
        });
    // Held by the appends until the last of them has ended, also when the connection has gone before.
    let grant = Arc::new(grant);
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut cut = 0;
    for (topic, partitions) in request.topics {
        let mut outcomes = Vec::with_capacity(partitions.len());
        for (partition, range) in partitions {
            let batch = range.map(|range| {
                // Ranges come in order, so the front is cut away up to each of them, without a copy.
                let _ = body.split_to(range.start - cut);
                cut = range.end;
                body.split_to(range.len())
            });
            let outcome = match (level, batch) {
                _ if unnamed => {
                    let what = "a batch of a transaction in a request that names no transactional id";
                    Outcome::Refused(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, what.to_owned())
                }
                (None, _) => {
                    let what = format!("acks {} is none of 0, 1 and -1", request.acks);
                    Outcome::Refused(errors::INVALID_REQUIRED_ACKS, what)
                }
                (_, None) => Outcome::Refused(errors::INVALID_RECORD, "no batch".to_owned()),
                (Some(level), Some(batch)) => {
                    hand_over(session, asked, (&topic, partition), batch, (level, place), grant.clone()).await
                }
            };
            outcomes.push((partition, outcome));
        }
        topics.push((topic, outcomes));
    }
    drop(grant);
    let session = session.clone();
    Ok(Box::pin(async move {
        let answers = settle(&session, asked.version, topics).await;
        if request.acks != 0 {
            return Ok(Some(encode(asked, &answers)));
        }
        // There is no answer that could carry it: the end of the connection tells the producer.
        let failed = answers.iter().flat_map(|(_, partitions)| partitions).find(|(_, answer)| answer.error != 0);
        match failed {
            Some((_, answer)) => Err(Hangup::Unacknowledged(answer.message.clone().unwrap_or_default())),
            None => Ok(None),
        }
    }))
}

/// Reads a request.
///
/// # Errors
/// It cannot be followed.
pub fn parse(body: &[u8], asked: Asked) -> Result<Request, WireError> {
    let mut reader = Reader::new(body, asked.flexible);
    // Whether a batch is part of a transaction, and of which, it says itself.
    let has_transactional_id = reader.optional_text()?.is_some();
    let acks = reader.i16()?;
    reader.i32()?;
    let mut topics = Vec::new();
    for _ in 0..reader.count()? {
        let topic = reader.text()?.to_owned();
        let mut partitions = Vec::new();
        for _ in 0..reader.count()? {
            let partition = reader.i32()?;
            partitions.push((partition, reader.blob()?));
            reader.tags()?;
        }
        reader.tags()?;
        topics.push((topic, partitions));
    }
    reader.tags()?;
    Ok(Request { has_transactional_id, acks, topics })
}

async fn hand_over(
    session: &Session,
    asked: Asked,
    (topic, partition): (&str, i32),
    batch: BytesMut,
    (level, place): (AckLevel, Place),
    grant: Arc<Grant>,
) -> Outcome {
    if let Err(error) = TopicName::new(topic) {
        return Outcome::Refused(errors::INVALID_TOPIC, error.to_string());
    }
    let Ok(partition) = u32::try_from(partition) else {
        return Outcome::Refused(errors::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no partition {partition}"));
    };
    match check(&batch, asked.version) {
        Ok(()) => {
            let batch = session.broker().look_into(&session.work, topic, batch).await;
            let (sender, receiver) = oneshot::channel();
            session.broker().produce_then(topic, partition, batch, level, place, move |outcome| {
                // Nobody listens any more: the append stands all the same.
                drop(sender.send(outcome.map_err(|error| (error, grant))));
            });
            Outcome::Under(receiver)
        }
        Err((code, what)) => Outcome::Refused(code, what),
    }
}

/// What the broker does not look at: rules of this protocol.
fn check(batch: &[u8], version: i16) -> Result<(), (i16, String)> {
    // The old formats have their version in the same place.
    if let Some(magic @ (0 | 1)) = batch.get(16) {
        return Err((errors::UNSUPPORTED_FOR_MESSAGE_FORMAT, format!("message format {magic} is not taken")));
    }
    let of_batch = |error: record::BatchError| (errors::batch_code(&error), error.to_string());
    let header = BatchHeader::parse(batch).map_err(of_batch)?;
    if header.log_append_time() {
        let what = "the timestamps of a batch are the producer's, not those of the append";
        return Err((errors::INVALID_TIMESTAMP, what.to_owned()));
    }
    let codec = header.compression().map_err(of_batch)?;
    if codec == Compression::Zstd && version < ZSTD_SINCE {
        let what = format!("zstd in version {version} of the request; it is taken from version {ZSTD_SINCE} on");
        return Err((errors::UNSUPPORTED_COMPRESSION_TYPE, what));
    }
    Ok(())
}

async fn settle(session: &Session, version: i16, topics: ByPartition<Outcome>) -> ByPartition<Answer> {
    let mut answers = Vec::with_capacity(topics.len());
    let mut left = MOST_BAD_RECORDS;
    for (topic, outcomes) in topics {
        let mut partitions = Vec::with_capacity(outcomes.len());
        for (partition, outcome) in outcomes {
            let mut answer = match outcome {
                Outcome::Refused(code, what) => refused(code, what),
                Outcome::Under(produced) => match produced.await {
                    Ok(Ok(produced)) => accepted(session, &topic, partition, produced).await,
                    Ok(Err((mut error, _grant))) => {
                        let bad = session.broker().bad_records(&session.work, &topic, &mut error).await;
                        let abortable = version >= ABORTABLE_SINCE && errors::is_abortable(&error);
                        let failed = failed(&topic, &error);
                        let code = if abortable { errors::TRANSACTION_ABORTABLE } else { failed.error };
                        Answer { bad, error: code, ..failed }
                    }
                    Err(_) => {
                        let lost = "the append was dropped without an answer";
                        failed(&topic, &BrokerError::new(ErrorKind::Internal, lost))
                    }
                },
            };
            answer.bad.truncate(left);
            left -= answer.bad.len();
            partitions.push((partition, answer));
        }
        answers.push((topic, partitions));
    }
    answers
}

async fn accepted(session: &Session, topic: &str, partition: i32, produced: Produced) -> Answer {
    let base_offset = produced.base_offset;
    let partition = u32::try_from(partition).unwrap_or(u32::MAX);
    let log_start = session.broker().list_offset(topic, partition, OffsetAt::Beginning).await;
    let log_start = log_start.map_or(-1, |(offset, _)| offset as i64);
    let append_time = match produced.duplicate {
        true => session.broker().append_time(topic, partition, base_offset).await,
        false => produced.stamped,
    };
    let (base_offset, append_time) = (base_offset as i64, append_time.unwrap_or(-1));
    Answer { error: errors::NONE, message: None, bad: Vec::new(), base_offset, append_time, log_start }
}

fn failed(topic: &str, error: &BrokerError) -> Answer {
    tracing::debug!(topic, %error, "batch refused");
    refused(errors::code(error), error.to_string())
}

fn refused(error: i16, message: String) -> Answer {
    Answer { error, message: Some(message), bad: Vec::new(), base_offset: -1, append_time: -1, log_start: -1 }
}

fn encode(asked: Asked, answers: &ByPartition<Answer>) -> super::response::Response {
    let mut writer = asked.writer();
    writer.count(Some(answers.len()));
    for (topic, partitions) in answers {
        writer.text(topic);
        writer.count(Some(partitions.len()));
        for (partition, answer) in partitions {
            writer.out.put_i32(*partition);
            writer.out.put_i16(answer.error);
            writer.out.put_i64(answer.base_offset);
            writer.out.put_i64(answer.append_time);
            if asked.version >= 5 {
                writer.out.put_i64(answer.log_start);
            }
            if asked.version >= 8 {
                writer.count(Some(answer.bad.len()));
                for BadRecord { index, why } in &answer.bad {
                    writer.out.put_i32(i32::try_from(*index).unwrap_or(i32::MAX));
                    writer.optional_text(why.map(|why| why.to_string()).as_deref());
                    writer.tags();
                }
                writer.optional_text(answer.message.as_deref());
            }
            writer.tags();
        }
        writer.tags();
    }
    writer.out.put_i32(0);
    writer.tags();
    let mut response = Asked::finish(writer.out, [], None);
    answers.iter().flat_map(|(_, answers)| answers).for_each(|(_, answer)| response.errors.note(answer.error));
    response
}

/// A new identity. One that a producer brings along is not gone on with: without a transactional id nobody else can have it.
pub async fn init_producer_id(
    session: Arc<Session>,
    version: i16,
    request: InitProducerIdRequest,
    client: String,
) -> InitProducerIdResponse {
    let refuse = |code| {
        InitProducerIdResponse::default().with_error_code(code).with_producer_id((-1).into()).with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return match transactions::begin(&session, version, &request, &client).await {
            Ok((id, epoch)) => InitProducerIdResponse::default().with_producer_id(id.into()).with_producer_epoch(epoch),
            Err(code) => refuse(code),
        };
    }
    match session.broker().init_producer(None).await {
        Ok((id, epoch)) => InitProducerIdResponse::default().with_producer_id(id.into()).with_producer_epoch(epoch),
        Err(error) => refuse(errors::code(&error)),
    }
}
