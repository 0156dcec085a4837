//! Offsets by their time, and by words for some of them.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use tokio::time::Instant;

use super::errors;
use super::session::Session;
use crate::base::{ErrorKind, TopicName};
use crate::broker::{Isolation, OffsetAt, SETTLE};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Answers ListOffsets.
pub async fn list(session: Arc<Session>, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = if request.isolation_level == 1 { Isolation::Committed } else { Isolation::Uncommitted };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut named = HashSet::new();
    let until = Instant::now() + SETTLE;
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            // As Kafka has it: a partition is asked about once.
            let again = !named.insert((topic.name.clone(), partition.partition_index));
            partitions.push(match again {
                true => refused(&partition, errors::INVALID_REQUEST),
                false => list_one(&session, version, &topic.name, &partition, (isolation, until)).await,
            });
            tokio::task::consume_budget().await;
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn refused(partition: &ListOffsetsPartition, code: i16) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(partition.partition_index)
        .with_timestamp(-1)
        .with_offset(-1)
        .with_error_code(code)
}

async fn list_one(
    session: &Session,
    version: i16,
    topic: &str,
    partition: &ListOffsetsPartition,
    (isolation, until): (Isolation, Instant),
) -> ListOffsetsPartitionResponse {
    // Older versions have no place for the epoch.
    let epoch = if version >= 4 { 0 } else { -1 };
    let answer = refused(partition, errors::NONE);
    let refused = |code| refused(partition, code);
    if TopicName::new(topic).is_err() {
        return refused(errors::INVALID_TOPIC);
    }
    let Ok(number) = u32::try_from(partition.partition_index) else {
        return refused(errors::UNKNOWN_TOPIC_OR_PARTITION);
    };
    if partition.current_leader_epoch > 0 {
        return refused(errors::UNKNOWN_LEADER_EPOCH);
    }
    let at = match partition.timestamp {
        LATEST => OffsetAt::End,
        EARLIEST => OffsetAt::Beginning,
        MAX_TIMESTAMP if version >= 7 => OffsetAt::Newest,
        EARLIEST_LOCAL if version >= 8 => OffsetAt::Beginning,
        // Nothing is kept elsewhere.
        LATEST_TIERED if version >= 9 => return answer,
        time @ 0.. => OffsetAt::Timestamp(time),
        _ => return refused(errors::INVALID_REQUEST),
    };
    match session.broker().list_offset_as(topic, number, at, isolation, until).await {
        // There is no such record: none is said, not the end.
        Ok((_, -1)) if matches!(at, OffsetAt::Timestamp(_) | OffsetAt::Newest) => answer,
        Ok((offset, time)) => {
            answer.with_offset(i64::try_from(offset).unwrap_or(-1)).with_timestamp(time).with_leader_epoch(epoch)
        }
        // Clients then ask again: what they were told of as written cannot be read yet.
        Err(error) if error.kind() == ErrorKind::TimedOut && version >= 5 => refused(errors::OFFSET_NOT_AVAILABLE),
        Err(error) => refused(errors::code(&error)),
    }
}

/// Answers OffsetForLeaderEpoch: the one epoch that there has ever been ends where the partition ends, with what is written and
/// not synced yet: nobody who stands there has lost anything.
pub async fn for_leader_epoch(
    session: Arc<Session>,
    _version: i16,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let end = |part: &OffsetForLeaderPartition| {
            let answer =
                EpochEndOffset::default().with_partition(part.partition).with_leader_epoch(-1).with_end_offset(-1);
            let Ok(number) = u32::try_from(part.partition) else {
                return answer.with_error_code(errors::UNKNOWN_TOPIC_OR_PARTITION);
            };
            if TopicName::new(&topic.topic).is_err() {
                return answer.with_error_code(errors::INVALID_TOPIC);
            }
            match session.broker().partition_ends(&topic.topic, number) {
                Ok(_) if part.current_leader_epoch > 0 => answer.with_error_code(errors::UNKNOWN_LEADER_EPOCH),
                Ok(ends) if part.leader_epoch == 0 => answer.with_leader_epoch(0).with_end_offset(ends.written as i64),
                Ok(_) => answer,
                Err(error) => answer.with_error_code(errors::code(&error)),
            }
        };
        let partitions = topic.partitions.iter().map(end).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
