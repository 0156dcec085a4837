//! Positions that groups commit and read. They are those of the native doors too.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName as KafkaName,
};

use super::commits::Commits;
use super::groups::{group_name, text};
use super::metadata::kafka_name;
use super::once::{once, once_each};
use super::session::Session;
use super::{errors, said};
use crate::base::{GroupName, PartitionId, TopicName};
use crate::broker::{BrokerError, ClassicRefusal, ClassicVoice, Commit, Epoch, GroupPosition, GroupProtocol};

/// The version of OffsetCommit from which on clients know the epochs of members.
const EPOCHS_SINCE: i16 = 9;

/// Answers OffsetCommit; what is said to be committed is on the disk.
pub async fn commit(session: Arc<Session>, version: i16, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let voice = ClassicVoice {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let metadata = partition.committed_metadata.as_deref();
            let offset = (partition.committed_offset, partition.committed_leader_epoch);
            (topic.name.as_str(), partition.partition_index, offset, metadata)
        })
    });
    let (named, commits) = Commits::of(session.broker(), named);
    if request.topics.is_empty() {
        // Nothing makes no group.
        return OffsetCommitResponse::default();
    }
    let outcomes = match group_name(&request.group_id) {
        Ok(name) => commit_as(&session, version, &name, voice, commits).await,
        Err(code) => Err(code),
    };
    let mut codes = named.codes(&outcomes);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(codes.next().unwrap_or(errors::UNKNOWN_SERVER_ERROR))
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Commits as the group's members do, or as nobody in particular.
async fn commit_as(
    session: &Session,
    version: i16,
    name: &GroupName,
    voice: ClassicVoice<'_>,
    commits: Vec<Commit>,
) -> Result<Vec<Result<(), BrokerError>>, i16> {
    if let Some(epoch) = as_consumer(session, name, &voice) {
        let committed = session.broker().commit_consumer(name, (voice.member, epoch), commits).await;
        return committed.map_err(|error| match errors::stale_code(&error) {
            // Who speaks an older version knows no such code.
            errors::STALE_MEMBER_EPOCH if version < EPOCHS_SINCE => errors::UNSUPPORTED_VERSION,
            code => code,
        });
    }
    let committed = session.broker().commit_classic(name, voice, commits).await;
    committed.map_err(|refusal| match refusal {
        ClassicRefusal::Group(error, _) => errors::group_code(error),
        ClassicRefusal::Broker(error) => errors::whole_group_code(&error),
    })
}

/// The epoch of who speaks as a member of a group whose partitions the server shares out; `None` if it is another group, or who
/// speaks names no epoch: it is no member then, whatever id it has made itself.
pub fn as_consumer(session: &Session, name: &GroupName, voice: &ClassicVoice<'_>) -> Option<Epoch> {
    match session.broker().group_protocol(name) {
        Some(GroupProtocol::Stream) => u32::try_from(voice.generation).ok(),
        _ => None,
    }
}

/// A position as it is told: offset, epoch, metadata, error.
type Told = (i64, i32, String, i16);

/// What is told of a partition in which there is no position; that is no error.
const NOWHERE: Told = (-1, -1, String::new(), errors::NONE);

/// What is told of a partition in which a position waits for the end of a transaction, to who wants none that may change.
const UNSTABLE: Told = (-1, -1, String::new(), errors::UNSTABLE_OFFSET_COMMIT);

/// The leader epoch that was committed with a position, −1 if there was none.
fn epoch_of(position: &GroupPosition) -> i32 {
    position.leader_epoch.and_then(|epoch| i32::try_from(epoch).ok()).unwrap_or(-1)
}

/// The positions of a group, in partitions that are named, in their order, or in all.
async fn positions_of(
    session: &Session,
    group: &str,
    topics: Option<Vec<(KafkaName, Vec<i32>)>>,
    stable: bool,
) -> Result<Vec<(KafkaName, Vec<(i32, Told)>)>, i16> {
    let name = group_name(group)?;
    let Some(topics) = topics else {
        let mut found: Vec<(KafkaName, Vec<(i32, Told)>)> = Vec::new();
        for position in said::told(session.broker().positions(&name, None).await) {
            let waits = stable && session.broker().is_position_staged(&name, &position.topic, position.partition);
            let told = match waits {
                true => UNSTABLE,
                false => (position.offset as i64, epoch_of(&position), position.metadata, errors::NONE),
            };
            let partition = i32::try_from(position.partition).unwrap_or(i32::MAX);
            match found.last_mut().filter(|(topic, _)| topic.as_str() == position.topic.as_str()) {
                Some((_, partitions)) => partitions.push((partition, told)),
                None => found.push((kafka_name(position.topic.as_str()), vec![(partition, told)])),
            }
        }
        return Ok(found);
    };
    let mut named: Vec<(TopicName, PartitionId)> = Vec::new();
    for (topic, partitions) in &topics {
        if let Ok(topic) = TopicName::new(topic) {
            named.extend(partitions.iter().filter_map(|number| Some((topic.clone(), u32::try_from(*number).ok()?))));
        }
    }
    let held = said::told(session.broker().positions(&name, Some(named)).await);
    let held: HashMap<(&str, i32), &GroupPosition> = held
        .iter()
        .filter_map(|position| Some(((position.topic.as_str(), i32::try_from(position.partition).ok()?), position)))
        .collect();
    let waits = |topic: &str, number: i32| {
        let place = TopicName::new(topic).ok().zip(u32::try_from(number).ok());
        stable && place.is_some_and(|(topic, number)| session.broker().is_position_staged(&name, &topic, number))
    };
    let told = |topic: &KafkaName, number: i32| match held.get(&(topic.as_str(), number)) {
        _ if waits(topic, number) => UNSTABLE,
        Some(position) => (position.offset as i64, epoch_of(position), position.metadata.clone(), errors::NONE),
        None => NOWHERE,
    };
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|number| (number, told(&topic, number))).collect();
        (topic, partitions)
    });
    Ok(topics.collect())
}

/// Answers OffsetFetch: one group, or (from version 8 on) several.
pub async fn fetch(session: Arc<Session>, version: i16, mut request: OffsetFetchRequest) -> OffsetFetchResponse {
    once(&mut request.groups, |group| group.group_id.clone());
    if let Some(topics) = &mut request.topics {
        once_each(topics, |topic| topic.name.clone(), |topic| &mut topic.partition_indexes, |number| *number);
    }
    for topics in request.groups.iter_mut().filter_map(|group| group.topics.as_mut()) {
        once_each(topics, |topic| topic.name.clone(), |topic| &mut topic.partition_indexes, |number| *number);
    }
    let stable = request.require_stable;
    if version < 8 {
        let topics = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect::<Vec<_>>());
        // A list that is missing means all, since it may be missing.
        let topics = if version < 2 { Some(topics.unwrap_or_default()) } else { topics };
        return match positions_of(&session, &request.group_id, topics.clone(), stable).await {
            Ok(found) => OffsetFetchResponse::default().with_topics(found.into_iter().map(old_topic).collect()),
            // The first versions have no place for an error of the whole.
            Err(code) if version < 2 => {
                let refused = topics.unwrap_or_default().into_iter().map(|(topic, partitions)| {
                    let nowhere = |number| (number, NOWHERE);
                    let mut topic = old_topic((topic, partitions.into_iter().map(nowhere).collect()));
                    topic.partitions.iter_mut().for_each(|partition| partition.error_code = code);
                    topic
                });
                OffsetFetchResponse::default().with_topics(refused.collect())
            }
            Err(code) => OffsetFetchResponse::default().with_error_code(code),
        };
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let topics = group
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect::<Vec<_>>());
        let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        if let Err(code) = may_ask(&session, &group.group_id, group.member_id.as_deref(), group.member_epoch) {
            groups.push(answer.with_error_code(code));
            continue;
        }
        groups.push(match positions_of(&session, &group.group_id, topics, stable).await {
            Ok(found) => answer.with_topics(found.into_iter().map(new_topic).collect()),
            Err(code) => answer.with_error_code(code),
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// Whether who asks for positions, if it says that it is a member, is one. Members of the older protocol do not say so.
fn may_ask(session: &Session, group: &str, member: Option<&str>, epoch: i32) -> Result<(), i16> {
    let (Some(member), Ok(epoch)) = (member, u32::try_from(epoch)) else { return Ok(()) };
    let name = group_name(group)?;
    if session.broker().group_protocol(&name) == Some(GroupProtocol::Classic) {
        return Ok(());
    }
    session.broker().check_consumer(&name, member, epoch).map_err(|error| errors::stale_code(&error))
}

fn old_topic((name, partitions): (KafkaName, Vec<(i32, Told)>)) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(number, (offset, epoch, metadata, code))| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(number)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(text(metadata)))
            .with_error_code(code)
    });
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
}

fn new_topic((name, partitions): (KafkaName, Vec<(i32, Told)>)) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(number, (offset, epoch, metadata, code))| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(number)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(text(metadata)))
            .with_error_code(code)
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}
