//! What an operator does with transactions: ends them, and forgets their ids.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::base::{PartitionId, ProducerEpoch, ProducerId};
use crate::log::{AppendRequest, LogError, WaitFor};
use crate::record::{Marker, marker_batch};

use super::super::broker::lock;
use super::super::{Broker, BrokerError};
use super::{PATIENCE, TransactionError, TransactionLook};

impl Broker {
    /// Aborts the open transaction of an id and supersedes its producer, as somebody who asks for the id does; what is known
    /// of the id afterwards. When this returns the abort is decided and on the disk, and as a rule marked in all partitions.
    /// Nothing is done where no transaction is open.
    ///
    /// # Errors
    /// There is no such id; the transaction is already decided to count; the journal's.
    pub async fn abort_transaction(self: &Arc<Self>, id: &str) -> Result<(TransactionLook, bool), BrokerError> {
        self.run_transactions();
        let deadline = Instant::now() + PATIENCE;
        let mut done = self.transactions.done.subscribe();
        let aborted = self.transact(|machine, now| machine.abort_open(id, now))?;
        if aborted {
            self.end_decided();
            self.queues.keeper.kept().await?;
            while lock(&self.transactions.machine).is_ending(id) {
                if timeout_at(deadline, done.changed()).await.is_err() {
                    break;
                }
            }
            tracing::info!(id, "a transaction was aborted by an operator");
        }
        let look = self.transaction(id).ok_or_else(|| TransactionError::NoId { id: id.to_owned() })?;
        Ok((look, aborted))
    }

    /// Forgets an id without an open transaction: its producer begins anew.
    ///
    /// # Errors
    /// There is no such id, or it has an open transaction; the journal's.
    pub async fn forget_transactional(self: &Arc<Self>, id: &str) -> Result<(), BrokerError> {
        self.transact(|machine, _| machine.forget(id))?;
        self.queues.keeper.kept().await?;
        tracing::info!(id, "a transactional id was forgotten by an operator");
        Ok(())
    }

    /// Aborts what a producer has open in a partition, on behalf of Kafka's tools. A transaction that is known here is aborted
    /// as a whole; one that is open in the log alone gets its marker there. Nothing is done where none is open.
    ///
    /// # Errors
    /// No such topic or partition; the epoch is older than the producer's; the disk's and the journal's.
    pub async fn abort_producer(
        self: &Arc<Self>,
        (producer, epoch): (ProducerId, ProducerEpoch),
        (topic, partition): (&str, PartitionId),
    ) -> Result<(), BrokerError> {
        let topic = self.topic(topic)?;
        let partition = topic.partition(partition)?;
        let log = partition.log()?;
        let open = log.with(|log| log.open_transactions().into_iter().find(|open| open.producer == producer));
        let Some(open) = open else { return Ok(()) };
        if epoch < open.epoch {
            return Err(TransactionError::Superseded { producer, epoch, current: open.epoch }.into());
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let known = {
            // While this is held nobody makes the partition part of a transaction of the producer.
            let machine = lock(&self.transactions.machine);
            let here = machine.knows(producer, (topic.entry.id, partition.number));
            let id = machine.id_of(producer).filter(|_| here).map(str::to_owned);
            if id.is_none() {
                log.enqueue(AppendRequest {
                    batch: marker_batch(producer, epoch, Marker::Abort, self.clock.now_ms()),
                    wait: WaitFor::Durable,
                    // The tool may be gone: the marker stands all the same.
                    done: Box::new(move |result| drop(sender.send(result))),
                });
            }
            id
        };
        if let Some(id) = known {
            return self.abort_transaction(&id).await.map(drop);
        }
        let appended = receiver.await.unwrap_or(Err(LogError::Closed));
        appended.map_err(|error| partition.error(error))?;
        tracing::warn!(
            topic = %partition.topic, partition = partition.number, producer, from = open.first,
            "a transaction that only the log knew was aborted by an operator"
        );
        Ok(())
    }
}
