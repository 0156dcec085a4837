//! Transactions: between the wire and the broker.

use std::sync::Arc;

use super::mapping::{Refusal, topic_name};
use super::requests::long;
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicName, limits};
use crate::broker::{Held, TransactionLook};
use crate::catalog::{TransactionEntry, TransactionPhase};
use crate::protocol as wire;

/// What a list may hold: an answer must fit a frame.
const LIST_BYTES: usize = 512 * 1024;
/// Transactional ids of one answer.
const LISTED: usize = 1000;
/// Bytes of numbers and words of a row, about.
const ROW_BYTES: usize = 192;

/// The words for how far a transaction has come.
const STATES: [(&str, TransactionPhase); 6] = [
    ("empty", TransactionPhase::Empty),
    ("ongoing", TransactionPhase::Ongoing),
    ("prepare_commit", TransactionPhase::PrepareCommit),
    ("prepare_abort", TransactionPhase::PrepareAbort),
    ("committed", TransactionPhase::Committed),
    ("aborted", TransactionPhase::Aborted),
];

fn state_name(phase: TransactionPhase) -> &'static str {
    STATES.iter().find(|(_, known)| *known == phase).map_or("", |(name, _)| name)
}

/// A state by its word, of which `open` stands for all in which readers are held up.
fn states(name: &str) -> Result<Vec<TransactionPhase>, Refusal> {
    if name == "open" {
        return Ok(vec![TransactionPhase::Ongoing, TransactionPhase::PrepareCommit, TransactionPhase::PrepareAbort]);
    }
    let found = STATES.iter().find(|(known, _)| *known == name).map(|(_, phase)| vec![*phase]);
    found.ok_or_else(|| {
        let names: Vec<&str> = STATES.iter().map(|(name, _)| *name).collect();
        let message = format!("'{name}' is no state of a transaction; there are open, {}", names.join(", "));
        Refusal::new(ErrorKind::InvalidRequest, message)
    })
}

fn summary(look: &TransactionLook) -> wire::TransactionSummary {
    wire::TransactionSummary {
        id: look.id.clone(),
        producer_id: look.producer,
        epoch: look.epoch,
        state: state_name(look.phase).to_owned(),
        partitions: look.partitions.len() as u64,
        started_ms: (look.started_ms >= 0).then_some(look.started_ms),
        updated_ms: look.updated_ms,
        age_ms: look.age_ms,
        left_ms: look.left_ms,
        timeout_ms: look.timeout_ms,
        address: look.client.address.clone(),
        client: look.client.name.clone(),
    }
}

/// Transactional ids, a page of them.
pub async fn list(
    session: Arc<Session>,
    request: wire::ListTransactions,
) -> Result<Answer<wire::ListTransactionsOk>, Refusal> {
    let phases = request.state.as_deref().map(states).transpose()?;
    let least = request.open_for_ms.unwrap_or(0);
    let wanted = move |entry: &TransactionEntry, age_ms: Option<u64>| {
        phases.as_ref().is_none_or(|phases| phases.contains(&entry.phase)) && age_ms.unwrap_or(0) >= least
    };
    let _turn = session.long_answers.acquire().await;
    let broker = Arc::clone(&session.shared.broker);
    let (looks, more) = blocking(move || broker.transactions_where(request.after.as_deref(), LISTED, wanted)).await?;
    let mut bytes = 0;
    let fits = |look: &&TransactionLook| {
        bytes += look.id.len() + look.client.address.len() + look.client.name.len() + ROW_BYTES;
        bytes <= LIST_BYTES
    };
    let transactions: Vec<_> = looks.iter().take_while(fits).map(summary).collect();
    let goes_on = more || transactions.len() < looks.len();
    let next = transactions.last().filter(|_| goes_on).map(|last| last.id.clone());
    long(&session, wire::ListTransactionsOk { transactions, next }).await
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(ErrorKind::NotFound, format!("there is no transactional id '{id}'"))
}

/// One transactional id, with where its transaction begins in each partition.
pub async fn describe(
    session: Arc<Session>,
    request: wire::DescribeTransaction,
) -> Result<Answer<wire::DescribeTransactionOk>, Refusal> {
    let broker = Arc::clone(&session.shared.broker);
    let mut look = broker.transaction(&request.id).ok_or_else(|| unknown(&request.id))?;
    let transaction = summary(&look);
    look.partitions.sort();
    let _turn = session.long_answers.acquire().await;
    let (look, first) = blocking(move || {
        let first = broker.first_offsets(look.producer, &look.partitions);
        (look, first)
    })
    .await?;
    let mut bytes = 0;
    let partitions = look.partitions.into_iter().zip(first).map(|((topic, partition), first_offset)| {
        wire::TransactionPartition { topic: topic.to_string(), partition, first_offset }
    });
    let fits = |at: &wire::TransactionPartition| {
        bytes += at.topic.len() + 32;
        bytes <= LIST_BYTES
    };
    let partitions = partitions.take(limits::TRANSACTION_PARTITIONS).take_while(fits).collect();
    let groups = look.groups.iter().map(ToString::to_string).collect();
    long(&session, wire::DescribeTransactionOk { transaction, partitions, groups }).await
}

/// Aborts an open transaction.
pub async fn abort(
    session: Arc<Session>,
    request: wire::AbortTransaction,
) -> Result<Answer<wire::AbortTransactionOk>, Refusal> {
    let (look, aborted) = session.shared.broker.abort_transaction(&request.id).await?;
    Ok(wire::AbortTransactionOk { aborted, transaction: summary(&look) }.into())
}

/// Forgets a transactional id.
pub async fn forget(
    session: Arc<Session>,
    request: wire::ForgetTransaction,
) -> Result<Answer<wire::ForgetTransactionOk>, Refusal> {
    session.shared.broker.forget_transactional(&request.id).await?;
    Ok(wire::ForgetTransactionOk {}.into())
}

/// Which partitions open transactions hold up.
pub async fn held(session: Arc<Session>, request: wire::ListHeld) -> Result<Answer<wire::ListHeldOk>, Refusal> {
    let topics: Result<Vec<TopicName>, Refusal> = request.topics.iter().map(|name| topic_name(name)).collect();
    let (topics, broker) = (topics?, Arc::clone(&session.shared.broker));
    let _turn = session.long_answers.acquire().await;
    let held = blocking(move || broker.held(&topics)).await?;
    let mut bytes = 0;
    let fits = |held: &&Held| {
        bytes += held.topic.as_str().len() + held.transaction.as_ref().map_or(0, String::len) + ROW_BYTES;
        bytes <= LIST_BYTES
    };
    let partitions: Vec<_> = held.iter().take_while(fits).map(partition).collect();
    let more = partitions.len() < held.len();
    long(&session, wire::ListHeldOk { partitions, more }).await
}

/// Runs what looks at many things, away from the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Refusal::new(ErrorKind::Internal, format!("the look at transactions failed: {error}")))
}

fn partition(held: &Held) -> wire::HeldPartition {
    wire::HeldPartition {
        topic: held.topic.to_string(),
        partition: held.partition,
        offset: held.from,
        records: held.records,
        producer_id: held.producer,
        transaction: held.transaction.clone(),
        since_ms: held.since_ms,
        age_ms: held.age_ms,
    }
}
