//! Memberships of queue groups: a task each that pushes what the broker hands out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::mapping::{self, Refusal};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, GroupName, TopicName, TopicPattern};
use crate::broker::{self, JoinQueue, OffsetAt, QueueMember, ResetQueue, ResetTo};
use crate::catalog::{GroupEntry, GroupKind, QueueSettings};
use crate::protocol as wire;
use crate::protocol::Kind;
use crate::server::tasks;

/// What a push weighs in the budget beside its batch.
const OVERHEAD: usize = 512;

/// The memberships of one connection.
#[derive(Default)]
pub struct Members(Mutex<HashMap<u64, Joined>>);

struct Joined {
    member: Arc<QueueMember>,
    task: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Members").field(&self.lock().len()).finish()
    }
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Joined>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: u64) -> Result<Arc<QueueMember>, Refusal> {
        self.lock().get(&id).map(|joined| Arc::clone(&joined.member)).ok_or_else(|| none(id))
    }

    /// Ends all: what they had goes to others at once.
    pub fn end_all(&self) {
        for joined in self.lock().drain().map(|(_, joined)| joined) {
            joined.member.leave();
            if let Some(task) = joined.task {
                task.abort();
            }
        }
    }
}

fn none(id: u64) -> Refusal {
    Refusal::new(ErrorKind::NotFound, format!("there is no membership {id} on this connection"))
}

/// Joins and answers the request; what is pushed comes behind the answer.
pub async fn join(session: &Arc<Session>, correlation: u64, slot: OwnedSemaphorePermit, request: wire::JoinGroup) {
    let kind = Kind::JoinGroup.code();
    let member = match begin(session, request).await {
        Ok(member) => Arc::new(member),
        Err(refusal) => {
            tracing::debug!(%refusal, "join refused");
            return session.answer::<wire::JoinGroupOk>(kind, correlation, Some(slot), Err(refusal));
        }
    };
    let id = member.id();
    session.members.lock().insert(id, Joined { member: Arc::clone(&member), task: None });
    let answer = wire::JoinGroupOk { member: id, lease_ms: member.lease_ms() };
    session.answer(kind, correlation, Some(slot), Ok(answer.into()));
    // Under the lock, so that whoever ends the membership finds either nothing begun or the task.
    if let Some(joined) = session.members.lock().get_mut(&id) {
        let session = Arc::clone(session);
        joined.task = Some(tasks::spawn("member", async move {
            let ended = tokio::select! {
                refusal = push(&session, &member) => Some(refusal),
                () = session.closing() => None,
            };
            session.members.lock().remove(&id);
            member.leave();
            if let Some(refusal) = ended {
                session.push_member_end(id, &refusal).await;
            }
            Ok::<(), Refusal>(())
        }));
    }
}

async fn begin(session: &Session, request: wire::JoinGroup) -> Result<QueueMember, Refusal> {
    let limit = session.shared.config.max_subscriptions;
    if session.members.lock().len() >= limit {
        let message = format!("this connection has {limit} memberships, which is the most");
        return Err(Refusal::new(ErrorKind::Overloaded, message));
    }
    let topics: Result<Vec<_>, _> = request.topics.iter().map(|topic| TopicPattern::new(topic)).collect();
    let group = group_name(&request.group)?;
    joinable(&group)?;
    let join = JoinQueue {
        group,
        settings: request.rules.map(settings).transpose()?,
        topics: topics?,
        filter: request.filter,
        start: mapping::offset_at(request.start),
        prefetch: request.prefetch,
        client: session.client.clone(),
    };
    Ok(session.shared.broker.join_queue(join).await?)
}

async fn push(session: &Session, member: &QueueMember) -> Refusal {
    let most = session.shared.config.max_connection_bytes.as_usize();
    while let Some(handed) = member.next().await {
        let bytes = handed.batch.len();
        let grant = session.outgoing.take((bytes + OVERHEAD).min(most)).await;
        let message = wire::Handed {
            member: member.id(),
            topic: handed.topic.to_string(),
            partition: handed.partition,
            attempt: handed.attempt,
            next_offset: handed.next_offset,
        };
        let answer = Answer { message, payload: handed.batch, grant: Some(grant) };
        if let Err(refusal) = session.push(Kind::Handed, member.id(), answer).await {
            return refusal;
        }
        member.sent(bytes);
    }
    member.ended().into()
}

/// Ends a membership.
///
/// # Errors
/// There is none of this id.
pub async fn leave(session: Arc<Session>, request: wire::LeaveGroup) -> Result<Answer<wire::LeaveGroupOk>, Refusal> {
    let joined = session.members.lock().remove(&request.member).ok_or_else(|| none(request.member))?;
    if let Some(task) = joined.task {
        task.abort();
        let _ = task.await;
    }
    joined.member.leave();
    Ok(wire::LeaveGroupOk {}.into())
}

/// Takes what a member says about records.
///
/// # Errors
/// There is no such membership, a name is none, the journal's.
pub async fn settle(session: Arc<Session>, request: wire::Settle) -> Result<Answer<wire::SettleOk>, Refusal> {
    let member = session.members.get(request.member)?;
    let settlements: Result<Vec<_>, Refusal> = request.settlements.into_iter().map(settlement).collect();
    let settled = member.settle(&settlements?, request.durable).await?;
    Ok(wire::SettleOk { settled: settled.settled, lost: settled.lost }.into())
}

fn settlement(of: wire::Settlement) -> Result<broker::Settlement, Refusal> {
    Ok(broker::Settlement {
        topic: TopicName::new(&of.topic)?,
        partition: of.partition,
        from: of.from,
        to: of.to,
        verdict: match of.verdict {
            wire::Verdict::Ack => broker::Verdict::Ack,
            wire::Verdict::Nack { delay_ms, reason } => broker::Verdict::Nack { delay_ms, reason },
            wire::Verdict::Release => broker::Verdict::Release,
            wire::Verdict::Extend => broker::Verdict::Extend,
        },
    })
}

/// All groups.
pub async fn list(session: Arc<Session>, _: wire::ListGroups) -> Result<Answer<wire::ListGroupsOk>, Refusal> {
    // It waits for the journal's lock, which is held during a sync.
    let broker = session.shared.broker.clone();
    let groups = tokio::task::spawn_blocking(move || broker.list_groups()).await;
    let failed = |error| Refusal::new(ErrorKind::Internal, format!("the groups cannot be listed: {error}"));
    let groups = groups.map_err(failed)?;
    Ok(wire::ListGroupsOk { groups: groups.iter().map(summary).collect() }.into())
}

/// One group.
pub async fn describe(session: Arc<Session>, request: wire::DescribeGroup) -> Result<Answer<wire::GroupOk>, Refusal> {
    let group = session.shared.broker.describe_group(&group_name(&request.name)?).await?;
    let partition = |of: broker::GroupPartition| wire::GroupPartition {
        topic: of.topic.to_string(),
        partition: of.partition,
        floor: of.floor,
        end: of.end,
        lag: of.lag,
        in_flight: of.in_flight,
        waiting: of.waiting,
        redeliveries: of.redeliveries,
        oldest_ms: of.oldest_ms,
        owner: of.owner,
        trouble: of.trouble,
    };
    let member = |of: broker::GroupMember| wire::GroupMember {
        id: of.id,
        client: of.client,
        in_flight: of.in_flight,
        owns: of.owns.into_iter().map(|(topic, partition)| owned(&topic, partition)).collect(),
        joined_ms: of.joined_ms,
        heard_ms: of.heard_ms,
    };
    let rules = match &group.entry.kind {
        GroupKind::Queue(rules) => Some(wire::QueueRules {
            lease_ms: rules.lease_ms,
            max_deliveries: rules.max_deliveries,
            backoff_ms: rules.backoff_ms,
            backoff_max_ms: rules.backoff_max_ms,
            dead_letter: rules.dead_letter.as_ref().map(ToString::to_string),
            ordered_by_key: rules.ordered_by_key,
        }),
        GroupKind::Stream => None,
    };
    let group = wire::GroupDescription {
        summary: summary(&group.entry),
        rules,
        dead_letter: group.dead_letter.map(|topic| topic.to_string()),
        members: group.members.into_iter().map(member).collect(),
        partitions: group.partitions.into_iter().map(partition).collect(),
    };
    Ok(wire::GroupOk { group }.into())
}

/// Deletes a group.
pub async fn delete(session: Arc<Session>, request: wire::DeleteGroup) -> Result<Answer<wire::DeleteGroupOk>, Refusal> {
    session.shared.broker.delete_group(&group_name(&request.name)?, request.force).await?;
    Ok(wire::DeleteGroupOk {}.into())
}

/// Lets a group go on elsewhere.
pub async fn reset(session: Arc<Session>, request: wire::ResetGroup) -> Result<Answer<wire::ResetGroupOk>, Refusal> {
    let topics: Result<Vec<_>, _> = request.topics.iter().map(|topic| TopicPattern::new(topic)).collect();
    let reset = ResetQueue {
        group: group_name(&request.name)?,
        topics: topics?,
        to: match request.to {
            wire::ResetTo::Beginning => ResetTo::At(OffsetAt::Beginning),
            wire::ResetTo::End => ResetTo::At(OffsetAt::End),
            wire::ResetTo::Timestamp(time) => ResetTo::At(OffsetAt::Timestamp(time)),
            wire::ResetTo::Offset(offset) => ResetTo::Offset(offset),
            wire::ResetTo::Last(offsets) => ResetTo::Last(offsets),
        },
        dry_run: request.dry_run,
        force: request.force,
    };
    let partition = |of: broker::ResetPartition| wire::ResetPartition {
        topic: of.topic.to_string(),
        partition: of.partition,
        from: of.from,
        to: of.to,
        end: of.end,
    };
    let partitions = session.shared.broker.reset_queue(reset).await?;
    Ok(wire::ResetGroupOk { partitions: partitions.into_iter().map(partition).collect() }.into())
}

fn owned(topic: &TopicName, partition: u32) -> wire::TopicPartition {
    wire::TopicPartition { topic: topic.to_string(), partition }
}

/// A group in a list.
pub fn summary(of: &GroupEntry) -> wire::GroupSummary {
    wire::GroupSummary {
        name: of.name.to_string(),
        kind: if matches!(of.kind, GroupKind::Stream) { "stream" } else { "queue" }.to_owned(),
        topics: of.topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
        filter: of.filter.clone(),
        created_ms: of.created_ms,
    }
}

/// A group's rules.
///
/// # Errors
/// A wrong name of a topic.
pub fn settings(of: wire::QueueRules) -> Result<QueueSettings, Refusal> {
    Ok(QueueSettings {
        lease_ms: of.lease_ms,
        max_deliveries: of.max_deliveries,
        backoff_ms: of.backoff_ms,
        backoff_max_ms: of.backoff_max_ms,
        dead_letter: of.dead_letter.as_deref().map(TopicName::new).transpose()?,
        ordered_by_key: of.ordered_by_key,
    })
}

/// The server's own groups are nobody else's.
///
/// # Errors
/// It is one.
pub fn joinable(group: &GroupName) -> Result<(), Refusal> {
    if group.is_internal() {
        let message = format!("group '{group}' is the server's own: names that begin with 'tidelog.' cannot be joined");
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    Ok(())
}

/// A checked name.
///
/// # Errors
/// The rule it breaks.
pub fn group_name(name: &str) -> Result<GroupName, Refusal> {
    GroupName::new(name).map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error.to_string()))
}
