//! Versions of requests that are not offered, that the crate does not know, and that clients of some years send all the same. They are
//! walked and written by hand. Two of them are done; the others are refused in their own words, because a client that finds the connection
//! closed tries again for ever, and its log says no more than that there is no broker.
//!
//! | request | versions | sent by | answer |
//! |---|---|---|---|
//! | Produce | 0 to 2 | clients of before Kafka 0.11, of which kafka-node is still in use | UNSUPPORTED_VERSION: their record formats are not taken |
//! | Fetch | 0 to 3 | the same | UNSUPPORTED_VERSION: records are not converted to those formats |
//! | ListOffsets | 0 | kafkajs, and clients of before Kafka 0.10.1 | one offset at most |
//! | OffsetCommit | 0 | clients of before Kafka 0.9 | UNSUPPORTED_VERSION: it means positions in ZooKeeper |
//! | OffsetCommit | 1 | sarama up to 1.38, where nobody tells it otherwise | as version 2; the time that it says for each position is not kept |

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{ListOffsetsRequest, OffsetCommitRequest};
use kafka_protocol::protocol::StrBytes;

use super::connection::Pending;
use super::metadata::kafka_name;
use super::response::{Asked, Response};
use super::session::{Hangup, Session};
use super::wire::{Reader, WireError};
use super::{api, errors, offsets, positions};
use crate::server::budget::Grant;

/// Topics, each with something for each partition that is named.
type Named<T> = Vec<(String, Vec<T>)>;

/// A request of such a version.
#[derive(Debug, PartialEq, Eq)]
enum Old {
    /// To be refused for each partition; with the acks that it asks for.
    Produce(i16, Named<i32>),
    Fetch(Named<i32>),
    Commit(Named<i32>),
    /// To be done: partition, time, most offsets.
    List(Named<(i32, i64, i32)>),
    /// Group, generation, member; partition, offset, metadata.
    Committed(String, i32, String, Named<(i32, i64, Option<String>)>),
}

/// Whether this is a version of which this module knows.
pub fn knows(key: i16, version: i16) -> bool {
    match key {
        api::PRODUCE => (0..=2).contains(&version),
        api::FETCH => (0..=3).contains(&version),
        api::LIST_OFFSETS => version == 0,
        api::OFFSET_COMMIT => (0..=1).contains(&version),
        _ => false,
    }
}

/// Reads topics with their partitions.
fn named<'a, T>(
    reader: &mut Reader<'a>,
    mut partition: impl FnMut(&mut Reader<'a>) -> Result<T, WireError>,
) -> Result<Named<T>, WireError> {
    let mut topics = Vec::new();
    for _ in 0..reader.count()? {
        let topic = reader.text()?.to_owned();
        let mut partitions = Vec::new();
        for _ in 0..reader.count()? {
            partitions.push(partition(reader)?);
        }
        topics.push((topic, partitions));
    }
    Ok(topics)
}

/// Reads the body of a request.
fn parse(key: i16, version: i16, body: &[u8]) -> Result<Old, WireError> {
    let mut reader = Reader::new(body, false);
    let reader = &mut reader;
    match key {
        api::PRODUCE => {
            let acks = reader.i16()?;
            reader.i32()?;
            let numbers = named(reader, |reader| {
                let number = reader.i32()?;
                reader.blob()?;
                Ok(number)
            })?;
            Ok(Old::Produce(acks, numbers))
        }
        api::FETCH => {
            // A broker that asks, the longest wait, the least bytes, and in the last of these versions the most.
            for _ in 0..if version >= 3 { 4 } else { 3 } {
                reader.i32()?;
            }
            let numbers = named(reader, |reader| {
                let number = reader.i32()?;
                reader.i64()?;
                reader.i32()?;
                Ok(number)
            })?;
            Ok(Old::Fetch(numbers))
        }
        api::LIST_OFFSETS => {
            reader.i32()?;
            Ok(Old::List(named(reader, |reader| Ok((reader.i32()?, reader.i64()?, reader.i32()?)))?))
        }
        _ if version == 0 => {
            reader.text()?;
            let numbers = named(reader, |reader| {
                let number = reader.i32()?;
                reader.i64()?;
                reader.optional_text()?;
                Ok(number)
            })?;
            Ok(Old::Commit(numbers))
        }
        _ => {
            let group = reader.text()?.to_owned();
            let generation = reader.i32()?;
            let member = reader.text()?.to_owned();
            let positions = named(reader, |reader| {
                let (number, offset) = (reader.i32()?, reader.i64()?);
                // When it was committed, as the client says.
                reader.i64()?;
                Ok((number, offset, reader.optional_text()?.map(str::to_owned)))
            })?;
            Ok(Old::Committed(group, generation, member, positions))
        }
    }
}

/// Begins with a request of a version that [`knows`] knows.
///
/// # Errors
/// It cannot be read.
pub fn begin(session: &Arc<Session>, asked: Asked, body: BytesMut, grant: Grant) -> Result<Pending, WireError> {
    let old = parse(asked.key, asked.version, &body)?;
    drop(body);
    let session = session.clone();
    Ok(Box::pin(async move {
        let answer = answer(&session, asked, old).await;
        drop(grant);
        answer
    }))
}

async fn answer(session: &Arc<Session>, asked: Asked, old: Old) -> Result<Option<Response>, Hangup> {
    let refused = |topics: &Named<i32>, rest: &dyn Fn(&mut BytesMut)| {
        let mut out = asked.writer();
        out.count(Some(topics.len()));
        for (topic, partitions) in topics {
            out.text(topic);
            out.count(Some(partitions.len()));
            for partition in partitions {
                out.out.put_i32(*partition);
                out.out.put_i16(errors::UNSUPPORTED_VERSION);
                rest(&mut out.out);
            }
        }
        out.out
    };
    let head = match old {
        Old::Produce(0, _) => {
            let what = format!("version {} of Produce is not taken; the first is 3", asked.version);
            return Err(Hangup::Unacknowledged(what));
        }
        Old::Produce(_, topics) => {
            let mut out = refused(&topics, &|out| {
                out.put_i64(-1);
                if asked.version >= 2 {
                    out.put_i64(-1);
                }
            });
            if asked.version >= 1 {
                out.put_i32(0);
            }
            out
        }
        Old::Fetch(topics) => {
            let out = refused(&topics, &|out| {
                out.put_i64(-1);
                out.put_i32(0);
            });
            throttled(asked, out)
        }
        Old::Commit(topics) => refused(&topics, &|_| {}),
        Old::List(topics) => return list(session, asked, topics).await,
        Old::Committed(group, generation, member, topics) => {
            let topics = topics.into_iter().map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(number, offset, metadata)| {
                    OffsetCommitRequestPartition::default()
                        .with_partition_index(number)
                        .with_committed_offset(offset)
                        .with_committed_metadata(metadata.map(StrBytes::from_string))
                });
                let partitions = partitions.collect();
                OffsetCommitRequestTopic::default().with_name(kafka_name(&topic)).with_partitions(partitions)
            });
            let request = OffsetCommitRequest::default()
                .with_group_id(StrBytes::from_string(group).into())
                .with_generation_id_or_member_epoch(generation)
                .with_member_id(StrBytes::from_string(member))
                .with_topics(topics.collect());
            // The answer has the same form.
            let asked = Asked { version: 2, ..asked };
            return asked.answer(&positions::commit(session.clone(), asked.version, request).await).map(Some);
        }
    };
    let mut response = Asked::finish(head, [], None);
    response.errors.note(errors::UNSUPPORTED_VERSION);
    Ok(Some(response))
}

/// From the second version on the answer to Fetch begins with the time for which the client is throttled.
fn throttled(asked: Asked, out: BytesMut) -> BytesMut {
    if asked.version == 0 {
        return out;
    }
    let body = asked.writer().out.len();
    let mut whole = BytesMut::with_capacity(out.len() + 4);
    whole.put_slice(&out[..body]);
    whole.put_i32(0);
    whole.put_slice(&out[body..]);
    whole
}

async fn list(
    session: &Arc<Session>,
    asked: Asked,
    topics: Named<(i32, i64, i32)>,
) -> Result<Option<Response>, Hangup> {
    let most: Vec<i32> = topics.iter().flat_map(|(_, parts)| parts.iter().map(|(_, _, most)| *most)).collect();
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(number, time, _)| {
            ListOffsetsPartition::default()
                .with_partition_index(number)
                .with_timestamp(time)
                .with_current_leader_epoch(-1)
        });
        ListOffsetsTopic::default().with_name(kafka_name(&topic)).with_partitions(partitions.collect())
    });
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics.collect());
    let found = offsets::list(session.clone(), 1, request).await;
    let mut out = asked.writer();
    out.count(Some(found.topics.len()));
    let mut most = most.into_iter();
    for topic in &found.topics {
        out.text(&topic.name);
        out.count(Some(topic.partitions.len()));
        for partition in &topic.partitions {
            out.out.put_i32(partition.partition_index);
            out.out.put_i16(partition.error_code);
            let there = most.next().is_some_and(|most| most > 0) && partition.offset >= 0;
            out.count(Some(usize::from(there)));
            if there {
                out.out.put_i64(partition.offset);
            }
        }
    }
    let mut response = Asked::finish(out.out, [], None);
    for partition in found.topics.iter().flat_map(|topic| &topic.partitions) {
        response.errors.note(partition.error_code);
    }
    Ok(Some(response))
}

/// Reads a request and does nothing with it, for tests of many requests.
#[cfg(any(fuzzing, test))]
pub fn decode(key: i16, version: i16, body: &[u8]) -> Result<(), WireError> {
    parse(key, version, body).map(drop)
}
