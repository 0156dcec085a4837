//! The newer protocol of groups (KIP-848): the server shares partitions out, and each heartbeat says what is new.

use std::sync::Arc;

use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as Owned;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};
use uuid::Uuid;

use super::groups::{group_name, text};
use super::metadata::{kafka_name, uuid};
use super::once::once;
use super::session::Session;
use super::{errors, rights};
use crate::base::{PartitionId, TopicId, TopicName, TopicRegex};
use crate::broker::{BrokerError, ConsumerBeat, ConsumerJoin, ConsumerMember, ConsumerShare, GroupProtocol};
use crate::catalog::Assignor;

/// The epoch of who joins.
const JOINING: i32 = 0;
/// The epoch of who leaves.
const LEAVING: i32 = -1;
/// The epoch of who leaves a place that the next of its name takes.
const AWAY: i32 = -2;
/// Heartbeats in a session.
pub const BEATS: u64 = 9;
/// How soon the next heartbeat is to come while partitions change hands, in milliseconds.
const SOON_MS: u64 = 500;
/// A member of this protocol, among the types of members.
const CONSUMER_MEMBER: i8 = 1;

/// A refusal: its code, and why.
type Refused = (i16, String);

/// Answers ConsumerGroupHeartbeat.
pub async fn heartbeat(
    session: Arc<Session>,
    version: i16,
    request: ConsumerGroupHeartbeatRequest,
    client: String,
) -> ConsumerGroupHeartbeatResponse {
    match beat(&session, version, request, client).await {
        Ok(answer) => answer,
        Err((code, why)) => {
            ConsumerGroupHeartbeatResponse::default().with_error_code(code).with_error_message(Some(text(why)))
        }
    }
}

async fn beat(
    session: &Arc<Session>,
    version: i16,
    request: ConsumerGroupHeartbeatRequest,
    client: String,
) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
    let group = group_name(&request.group_id).map_err(|_| invalid("the group's name is none that a group can have"))?;
    if request.group_id.trim().is_empty() {
        return Err(invalid("the group's name is empty"));
    }
    check(version, &request)?;
    let assignor = request.server_assignor.as_deref().map(assignor).transpose()?;
    let regex = request.subscribed_topic_regex.as_deref().map(regex).transpose()?;
    let topics = request.subscribed_topic_names.map(|names| {
        // What is no name is no topic either, and never will be.
        names.iter().filter_map(|name| TopicName::new(name).ok()).collect::<Vec<_>>()
    });
    let instance = request.instance_id.map(|instance| instance.to_string());
    let rack = request.rack_id.map(|rack| rack.to_string());
    let handover_ms = u64::try_from(request.rebalance_timeout_ms).ok();
    let broker = session.broker();
    let member = request.member_id.to_string();
    let (member, told) = match request.member_epoch {
        JOINING if broker.group_protocol(&group) == Some(GroupProtocol::Classic) => {
            let why = format!("group '{group}' has members of the classic protocol");
            return Err((errors::GROUP_ID_NOT_FOUND, why));
        }
        JOINING => {
            let member = if member.is_empty() { Uuid::new_v4().simple().to_string() } else { member };
            let join = ConsumerJoin {
                group,
                member: member.clone(),
                instance,
                topics: topics.unwrap_or_default(),
                regex: regex.flatten(),
                assignor,
                rack,
                client,
                host: format!("/{}", session.peer.ip().to_canonical()),
                session_ms: session_ms(session),
                handover_ms: handover_ms.unwrap_or(0),
            };
            let told = broker.join_consumer(join).await.map_err(|error| refused(&error))?;
            (member, told)
        }
        epoch @ (LEAVING | AWAY) => {
            let left = broker.leave_consumer(&group, &member, instance.as_deref(), epoch == AWAY).await;
            left.map_err(|error| refused(&error))?;
            return Ok(ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text(member)))
                .with_member_epoch(epoch));
        }
        epoch => {
            let epoch = u32::try_from(epoch).map_err(|_| invalid("the member's epoch is below -2"))?;
            let beat = ConsumerBeat {
                group,
                member: member.clone(),
                instance,
                epoch,
                owned: request.topic_partitions.map(owned).transpose()?,
                topics,
                regex,
                assignor,
                rack,
                handover_ms,
            };
            let told = broker.beat_consumer(beat).await.map_err(|error| refused(&error))?;
            (member, told)
        }
    };
    Ok(answer(session, member, told))
}

fn session_ms(session: &Session) -> u64 {
    session.shared.config.kafka_consumer_session.0
}

fn answer(session: &Session, member: String, told: ConsumerShare) -> ConsumerGroupHeartbeatResponse {
    let interval = (session_ms(session) / BEATS).max(1);
    let interval = if told.settled { interval } else { interval.min(SOON_MS) };
    let assignment = told.assignment.map(|assigned| {
        let topics = by_topic(assigned).into_iter().map(|(topic, partitions)| {
            TopicPartitions::default().with_topic_id(uuid(topic)).with_partitions(partitions)
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(member)))
        .with_member_epoch(i32::try_from(told.epoch).unwrap_or(i32::MAX))
        .with_heartbeat_interval_ms(i32::try_from(interval).unwrap_or(i32::MAX))
        .with_assignment(assignment)
}

/// Partitions by their topics; those of one topic come together.
fn by_topic(of: Vec<(TopicId, PartitionId)>) -> Vec<(TopicId, Vec<i32>)> {
    let mut topics: Vec<(TopicId, Vec<i32>)> = Vec::new();
    for (topic, partition) in of {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        match topics.last_mut().filter(|(last, _)| *last == topic) {
            Some((_, partitions)) => partitions.push(partition),
            None => topics.push((topic, vec![partition])),
        }
    }
    topics
}

fn invalid(why: &str) -> Refused {
    (errors::INVALID_REQUEST, why.to_owned())
}

fn refused(error: &BrokerError) -> Refused {
    (errors::consumer_code(error), error.to_string())
}

/// What a request must say, and must not.
fn check(version: i16, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refused> {
    let empty = |text: Option<&str>| text.is_some_and(str::is_empty);
    if empty(request.instance_id.as_deref()) || empty(request.rack_id.as_deref()) {
        return Err(invalid("an instance's or a rack's name is empty"));
    }
    if request.member_id.is_empty() && (version > 0 || request.member_epoch != JOINING) {
        return Err(invalid("the member has no id"));
    }
    match request.member_epoch {
        AWAY if request.instance_id.is_none() => Err(invalid("who leaves a place for a while says which")),
        JOINING if request.rebalance_timeout_ms == -1 => Err(invalid("who joins says its rebalance timeout")),
        JOINING if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) => {
            Err(invalid("who joins has no partitions, and says so"))
        }
        // An empty list or expression is taken, as Kafka 4 does: a pattern of the client's own may meet no topic yet.
        JOINING if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() => {
            Err(invalid("who joins names topics, or an expression"))
        }
        _ => Ok(()),
    }
}

fn assignor(name: &str) -> Result<Assignor, Refused> {
    match name {
        "uniform" => Ok(Assignor::Uniform),
        "range" => Ok(Assignor::Range),
        other => Err((errors::UNSUPPORTED_ASSIGNOR, format!("assignor '{other}'; there are uniform and range"))),
    }
}

/// An expression; none if it is empty.
fn regex(text: &str) -> Result<Option<TopicRegex>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    TopicRegex::new(text).map(Some).map_err(|error| (errors::INVALID_REGULAR_EXPRESSION, error.to_string()))
}

fn owned(topics: Vec<Owned>) -> Result<Vec<(TopicId, PartitionId)>, Refused> {
    let mut owned = Vec::new();
    for topic in topics {
        for partition in topic.partitions {
            let partition = u32::try_from(partition).map_err(|_| invalid("a partition's number is negative"))?;
            owned.push((TopicId(topic.topic_id.as_u128()), partition));
        }
    }
    Ok(owned)
}

/// Answers ConsumerGroupDescribe. A group with other members, or none, is to be asked for as the older protocol does.
pub async fn describe(
    session: Arc<Session>,
    version: i16,
    mut request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    once(&mut request.group_ids, |id| id.clone());
    let groups = request.group_ids.into_iter().map(|id| {
        let group = DescribedGroup::default().with_group_id(id.clone());
        let look = match group_name(&id) {
            Ok(name) => session.broker().consumer_look(&name),
            Err(code) => return group.with_error_code(code),
        };
        let Some(look) = look else {
            let why = format!("group '{}' has no members whose partitions the server shares out", id.as_str());
            return group.with_error_code(errors::GROUP_ID_NOT_FOUND).with_error_message(Some(text(why)));
        };
        let epoch = i32::try_from(look.epoch).unwrap_or(i32::MAX);
        group
            .with_group_state(text(if look.settled { "Stable" } else { "Reconciling" }))
            .with_group_epoch(epoch)
            .with_assignment_epoch(epoch)
            .with_assignor_name(text(look.assignor))
            .with_authorized_operations(rights::told(request.include_authorized_operations, rights::GROUP))
            .with_members(look.members.into_iter().map(|of| member(version, of)).collect())
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn member(version: i16, member: ConsumerMember) -> Member {
    let names = member.topics.iter().map(|topic| kafka_name(topic.as_str())).collect();
    let told = Member::default()
        .with_member_id(text(member.id))
        .with_instance_id(member.instance.map(text))
        .with_rack_id(member.rack.map(text))
        .with_member_epoch(i32::try_from(member.epoch).unwrap_or(i32::MAX))
        .with_client_id(text(member.client))
        .with_client_host(text(member.host))
        .with_subscribed_topic_names(names)
        .with_subscribed_topic_regex(Some(text(member.regex.unwrap_or_default())))
        .with_assignment(described(member.owns))
        .with_target_assignment(described(member.target));
    if version >= 1 { told.with_member_type(CONSUMER_MEMBER) } else { told }
}

fn described(of: Vec<(TopicName, TopicId, PartitionId)>) -> DescribedAssignment {
    let mut topics: Vec<DescribedPartitions> = Vec::new();
    for (name, id, partition) in of {
        let (id, partition) = (uuid(id), i32::try_from(partition).unwrap_or(i32::MAX));
        match topics.last_mut().filter(|last| last.topic_id == id) {
            Some(last) => last.partitions.push(partition),
            None => {
                let topic = DescribedPartitions::default().with_topic_id(id).with_topic_name(kafka_name(name.as_str()));
                topics.push(topic.with_partitions(vec![partition]));
            }
        }
    }
    DescribedAssignment::default().with_topic_partitions(topics)
}
