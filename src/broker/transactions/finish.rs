//! The end of a transaction that was decided: the decision on the disk, then its marker in every partition, then the
//! positions. After a crash it is begun anew with what was decided, and does no harm where it was done before.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::oneshot;

use crate::base::{ErrorKind, PartitionId, TopicId};
use crate::catalog::{Event, TransactionEntry};
use crate::log::{AppendRequest, LogError, WaitFor};
use crate::record::marker_batch;

use super::super::broker::lock;
use super::super::{Broker, BrokerError};
use super::machine::Ending;

/// Partitions that are marked at a time.
const AT_ONCE: usize = 64;
/// The first wait before a marker is tried again; it doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Ends a transaction. Returns when that is done, or the server stops.
pub(super) async fn finish(broker: Arc<Broker>, ending: Ending) {
    // Nothing is marked before the decision is durable, or a crash could take it back.
    if !keep(&broker).await {
        return;
    }
    let marked = stream::iter(ending.partitions.iter().copied().map(|at| mark_surely(&broker, &ending, at)));
    let marked: Vec<bool> = marked.buffer_unordered(AT_ONCE).collect().await;
    if marked.contains(&false) {
        return;
    }
    let Some(entry) = put(&broker, &ending.id) else { return };
    broker.queues.keeper.note_pending();
    if !keep(&broker).await {
        return;
    }
    lock(&broker.transactions.machine).finish(entry, super::now(broker.clock.as_ref()));
    broker.metrics.transaction(ending.marker);
    broker.transactions.done.send_modify(|done| *done += 1);
}

/// Hands in what is to be kept of a transaction that is marked everywhere; returns what it is once that is done.
fn put(broker: &Broker, id: &str) -> Option<TransactionEntry> {
    let now = super::now(&broker.clock);
    let mut machine = lock(&broker.transactions.machine);
    let (positions, entry) = machine.finished(id, now)?;
    let positions =
        positions.into_iter().map(|(place, position)| Event::PositionSet { place, position: Some(position) });
    let done = Event::TransactionSet { id: entry.id.clone(), entry: Some(entry.clone()) };
    // Within the lock: who deletes a group finds its positions here or there.
    broker.groups.pending.put(positions.chain([done]));
    Some(entry)
}

/// Waits until everything that was said is on the disk; `false` if the server stops.
async fn keep(broker: &Broker) -> bool {
    loop {
        match broker.queues.keeper.kept().await {
            Ok(()) => return true,
            Err(error) if error.kind() == ErrorKind::ShuttingDown => return false,
            Err(_) => tokio::time::sleep(PAUSE.0).await,
        }
    }
}

/// Marks the end in a partition, however often that takes; `false` if the server stops.
async fn mark_surely(broker: &Broker, ending: &Ending, at: (TopicId, PartitionId)) -> bool {
    let mut pause = PAUSE.0;
    loop {
        match mark(broker, ending, at).await {
            Ok(()) => return true,
            // There is nothing left that could be read.
            Err(_) if lock(&broker.catalog).topic_by_id(at.0).is_none() => return true,
            Err(error) if broker.queues.keeper.is_stopping() => {
                tracing::debug!(id = ending.id, %error, "the server stops before a transaction is ended everywhere");
                return false;
            }
            Err(error) => {
                tracing::warn!(id = ending.id, %error, "the end of a transaction cannot be marked; trying again")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn mark(broker: &Broker, ending: &Ending, at: (TopicId, PartitionId)) -> Result<(), BrokerError> {
    let gone = || BrokerError::new(ErrorKind::NotFound, format!("topic {} is gone", at.0));
    let name = broker.topic_named(at.0).ok_or_else(gone)?;
    let topic = broker.topic(name.as_str())?;
    if topic.entry.id != at.0 {
        return Err(gone());
    }
    let partition = topic.partition(at.1)?;
    let (sender, receiver) = oneshot::channel();
    partition.log()?.enqueue(AppendRequest {
        batch: marker_batch(ending.producer, ending.epoch, ending.marker, broker.clock.stamp_ms()),
        wait: WaitFor::Durable,
        // Nobody waits for it any more: it stands all the same.
        done: Box::new(move |result| drop(sender.send(result))),
    });
    let appended = receiver.await.unwrap_or(Err(LogError::Closed));
    appended.map(drop).map_err(|error| partition.error(error))
}
