//! Members of stream groups, and positions: requests like any other. What a member owns it subscribes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::mapping::{self, Refusal, topic_name};
use super::members::{group_name, joinable};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicId, TopicPattern};
use crate::broker::{self, Commit, Committer, JoinStream, StreamBeat, Terms};
use crate::protocol as wire;

/// How many heartbeats a session holds.
const BEATS_A_SESSION: u64 = 3;

/// Joins a stream group.
pub async fn join(session: Arc<Session>, request: wire::JoinStream) -> Result<Answer<wire::JoinStreamOk>, Refusal> {
    let group = group_name(&request.group)?;
    joinable(&group)?;
    let topics: Result<Vec<_>, _> = request.topics.iter().map(|topic| TopicPattern::new(topic)).collect();
    let join = JoinStream {
        group,
        member: request.member,
        instance: request.instance,
        topics: topics?,
        filter: request.filter,
        start: Some(mapping::offset_at(request.start)),
        session_ms: request.session_ms,
        handover_ms: request.handover_ms,
        client: session.client.clone(),
    };
    let joined = session.shared.broker.join_stream(join).await?;
    let heartbeat_ms = u32::try_from(request.session_ms / BEATS_A_SESSION).unwrap_or(u32::MAX);
    Ok(wire::JoinStreamOk { filter: joined.filter, heartbeat_ms, share: share(joined.share) }.into())
}

/// Takes a sign of life; the answer waits for news, but not longer than the connection.
pub async fn heartbeat(
    session: Arc<Session>,
    request: wire::StreamHeartbeat,
) -> Result<Answer<wire::StreamHeartbeatOk>, Refusal> {
    let owned = request.owned.map(|owned| {
        let topics = owned.into_iter().map(|topic| {
            let unknown = || Refusal::new(ErrorKind::InvalidRequest, format!("topic id {:?} is none", topic.id));
            let id = TopicId::parse(&topic.id).ok_or_else(unknown)?;
            Ok(topic.partitions.into_iter().map(move |partition| (id, partition)))
        });
        Ok::<_, Refusal>(topics.collect::<Result<Vec<_>, Refusal>>()?.into_iter().flatten().collect())
    });
    let beat = StreamBeat {
        group: group_name(&request.group)?,
        member: request.member,
        epoch: request.epoch,
        owned: owned.transpose()?,
        topics: None,
        wait: Duration::from_millis(request.wait_ms.into()),
    };
    let told = tokio::select! {
        told = session.shared.broker.beat_stream(beat) => told?,
        () = session.closing() => return Err(Refusal::new(ErrorKind::ShuttingDown, "the connection ends")),
    };
    Ok(wire::StreamHeartbeatOk { share: share(told) }.into())
}

/// Leaves a stream group.
pub async fn leave(session: Arc<Session>, request: wire::LeaveStream) -> Result<Answer<wire::LeaveStreamOk>, Refusal> {
    session.shared.broker.leave_stream(&group_name(&request.group)?, &request.member, request.keep).await?;
    Ok(wire::LeaveStreamOk {}.into())
}

/// Commits positions.
pub async fn commit(
    session: Arc<Session>,
    request: wire::CommitPositions,
) -> Result<Answer<wire::CommitPositionsOk>, Refusal> {
    let group = group_name(&request.group)?;
    joinable(&group)?;
    let commits = request.positions.into_iter().map(|of| {
        let topic = topic_name(&of.topic)?;
        Ok(Commit { topic, partition: of.partition, offset: of.offset, metadata: of.metadata, leader_epoch: None })
    });
    let commits = commits.collect::<Result<Vec<_>, Refusal>>()?;
    let by = match &request.member {
        Some(member) => Committer::Member { id: &member.id, epoch: member.epoch },
        None => Committer::Admin,
    };
    let broker = &session.shared.broker;
    let outcomes = broker.commit_positions(&group, by, commits, Terms::Forward, request.durable).await?;
    let outcome = |of: Result<u64, broker::BrokerError>| match of {
        Ok(position) => wire::CommitOutcome { position: Some(position), error: None },
        Err(error) => wire::CommitOutcome { position: None, error: Some(Refusal::from(error).body()) },
    };
    Ok(wire::CommitPositionsOk { outcomes: outcomes.into_iter().map(outcome).collect() }.into())
}

/// A group's positions.
pub async fn positions(session: Arc<Session>, request: wire::Positions) -> Result<Answer<wire::PositionsOk>, Refusal> {
    let named = request.partitions.iter().map(|of| Ok((topic_name(&of.topic)?, of.partition)));
    let named = named.collect::<Result<Vec<_>, Refusal>>()?;
    let of = (!named.is_empty()).then_some(named);
    let positions = session.shared.broker.positions(&group_name(&request.group)?, of).await;
    let positions = positions.into_iter().map(|of| wire::GroupPosition {
        topic: of.topic.to_string(),
        partition: of.partition,
        offset: of.offset,
        metadata: of.metadata,
        time_ms: of.time_ms,
    });
    Ok(wire::PositionsOk { positions: positions.collect() }.into())
}

fn share(of: broker::StreamShare) -> wire::StreamShare {
    let granted = of.granted.into_iter().map(|of| wire::StreamPartition {
        topic: of.topic.to_string(),
        id: of.id.to_string(),
        partition: of.partition,
        position: of.position,
        log_start: of.log_start,
        stable_end: of.end,
    });
    let mut taken: BTreeMap<TopicId, Vec<u32>> = BTreeMap::new();
    for (id, partition) in of.taken {
        taken.entry(id).or_default().push(partition);
    }
    let taken = taken.into_iter().map(|(id, partitions)| wire::OwnedTopic { id: id.to_string(), partitions });
    wire::StreamShare { member: of.member, epoch: of.epoch, granted: granted.collect(), taken: taken.collect() }
}
