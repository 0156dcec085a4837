//! Appending.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::sync::oneshot;

use crate::base::{ErrorKind, PartitionId};
use crate::log::{AppendRequest, WaitFor};
use crate::record::check_produced;

use super::{AckLevel, Broker, BrokerError, Produced};

/// Resolves when the ack level is reached. Dropping it does not undo the append.
pub struct ProduceFuture {
    state: State,
}

enum State {
    Refused(Option<BrokerError>),
    Waiting(oneshot::Receiver<Result<Produced, BrokerError>>),
}

impl Future for ProduceFuture {
    type Output = Result<Produced, BrokerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Refused(error) => Poll::Ready(Err(error.take().unwrap_or_else(lost))),
            State::Waiting(receiver) => {
                Pin::new(receiver).poll(context).map(|result| result.unwrap_or_else(|_| Err(lost())))
            }
        }
    }
}

fn lost() -> BrokerError {
    BrokerError::new(ErrorKind::Internal, "the append was dropped without an answer")
}

impl Broker {
    /// Checks a batch and queues it for its partition before it returns: the order of calls is the order in the log.
    pub fn produce(&self, topic: &str, partition: PartitionId, batch: BytesMut, ack: AckLevel) -> ProduceFuture {
        let state = match self.enqueue(topic, partition, batch, ack) {
            Ok(receiver) => State::Waiting(receiver),
            Err(error) => State::Refused(Some(error)),
        };
        ProduceFuture { state }
    }

    fn enqueue(
        &self,
        topic: &str,
        number: PartitionId,
        batch: BytesMut,
        ack: AckLevel,
    ) -> Result<oneshot::Receiver<Result<Produced, BrokerError>>, BrokerError> {
        let topic = self.topic(topic)?;
        let partition = std::sync::Arc::clone(topic.partition(number)?);
        let header = check_produced(&batch, topic.settings.max_message_bytes.as_usize())?;
        let bytes = batch.len() as u64;
        let records = u64::from(header.record_count);
        let metrics = std::sync::Arc::clone(&self.metrics);
        let (sender, receiver) = oneshot::channel();
        let wait = if ack == AckLevel::Durable { WaitFor::Durable } else { WaitFor::Written };
        let owner = std::sync::Arc::clone(&partition);
        partition.log()?.enqueue(AppendRequest {
            batch,
            wait,
            done: Box::new(move |result| {
                match &result {
                    Ok(appended) if appended.duplicate => _ = metrics.duplicates.inc(),
                    Ok(_) => {
                        metrics.batches_in.inc();
                        metrics.records_in.inc_by(records);
                        metrics.bytes_in.inc_by(bytes);
                    }
                    Err(_) => {}
                }
                let result = result.map_err(|error| owner.error(error)).map(|appended| Produced {
                    base_offset: appended.base_offset,
                    last_offset: appended.last_offset,
                    timestamp: appended.timestamp,
                    duplicate: appended.duplicate,
                });
                // Nobody listens any more: the append stands all the same.
                let _ = sender.send(result);
            }),
        });
        Ok(receiver)
    }
}
