//! Memberships of queue groups: a task each that pushes what the broker hands out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::mapping::{self, Refusal};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, GroupName, TopicName, TopicPattern};
use crate::broker::{self, JoinQueue, QueueMember};
use crate::catalog::QueueSettings;
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
    pub fn end_all(&self, session: &Session) {
        for joined in self.lock().drain().map(|(_, joined)| joined) {
            dismiss(session, &joined.member);
            if let Some(task) = joined.task {
                task.abort();
            }
        }
    }
}

/// A member goes with its connection. Of a connection that breaks, one record counts as delivered: it may be what broke the member.
/// That the server stops says nothing of any record.
fn dismiss(session: &Session, member: &QueueMember) {
    match session.shared.is_stopping() {
        true => member.retire(),
        false => member.leave(),
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
            dismiss(&session, &member);
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
    let group = group_name(&request.group)?;
    joinable(&group)?;
    let join = JoinQueue {
        group,
        settings: request.rules.map(settings).transpose()?,
        topics: patterns(&request.topics)?,
        filter: request.filter,
        start: mapping::offset_at(request.start),
        prefetch: request.prefetch,
        client: session.client.clone(),
    };
    Ok(session.shared.broker.join_queue(join).await?)
}

async fn push(session: &Session, member: &QueueMember) -> Refusal {
    while let Some(handed) = member.next().await {
        let bytes = handed.batch.len();
        let grant = session.outgoing.take(bytes + OVERHEAD).await;
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
    // A member that says that it goes has said what failed. What it still had it has not handed on.
    joined.member.retire();
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

/// Topics or patterns.
///
/// # Errors
/// A name that is none.
pub fn patterns(topics: &[String]) -> Result<Vec<TopicPattern>, Refusal> {
    Ok(topics.iter().map(|topic| TopicPattern::new(topic)).collect::<Result<_, _>>()?)
}

/// A checked name.
///
/// # Errors
/// The rule it breaks.
pub fn group_name(name: &str) -> Result<GroupName, Refusal> {
    GroupName::new(name).map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error.to_string()))
}
