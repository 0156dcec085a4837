//! Appending.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use crate::base::{ErrorKind, Millis, PartitionId, TimestampMs, limits};
use crate::catalog::{TimestampType, TopicSettings};
use crate::log::{AppendRequest, WaitFor};
use crate::record::{
    BatchError, BatchHeader, Bounds, Checked, CheckedRecords, Compression, Look, check_compressed, check_produced,
    repack, set_append_time, set_max_timestamp,
};

use super::work::WorkKey;
use super::{AckLevel, Broker, BrokerError, Produced};

/// Bytes of an uncompressed batch that is checked where the caller runs: its records are walked over, and with a header for
/// every two bytes that takes about a millisecond. A batch of this crate's client fits, when nobody says otherwise.
const INLINE_BATCH_BYTES: usize = 288 * 1024;

/// Bytes of an uncompressed batch that is compressed where the caller runs, if its topic has a codec: gzip, the slowest, takes
/// half a millisecond for them.
const INLINE_PACK_BYTES: usize = 16 * 1024;

/// A batch on its way to the log, and what a look into it has found, if there was one.
pub struct Offer {
    batch: BytesMut,
    checked: Option<Result<(BatchHeader, CheckedRecords), BrokerError>>,
}

impl From<BytesMut> for Offer {
    fn from(batch: BytesMut) -> Self {
        Self { batch, checked: None }
    }
}

/// The one gate to every topic, for producers of every protocol and for the server itself: what gets through can be read to
/// its last record, in bounded memory, and be carried by every door. Compressed batches are looked into.
fn check(batch: &[u8], bounds: Bounds) -> Result<(BatchHeader, CheckedRecords), BatchError> {
    let Checked { header, records } = check_produced(batch, bounds)?;
    let records = match records {
        Some(records) => records,
        None => check_compressed(batch, bounds)?,
    };
    Ok((header, records))
}

fn bounds_of(settings: &TopicSettings, own: bool) -> Bounds {
    let most = settings.max_message_bytes.as_usize();
    if own { Bounds::own(most) } else { Bounds::accepting(most) }
}

/// The codec of a batch, as far as it can be read.
fn codec_of(batch: &[u8]) -> Option<Compression> {
    BatchHeader::parse(batch).and_then(|header| header.compression()).ok()
}

/// The codec in which a topic wants a batch that is in another.
fn wanted_codec(settings: &TopicSettings, batch: &[u8]) -> Option<Compression> {
    settings.compression.filter(|wanted| codec_of(batch).is_some_and(|codec| codec != *wanted))
}

/// Checks that no timestamp is further from now than the topic allows, as Kafka does. One in the far future would keep a
/// partition's records from being deleted by age.
fn check_times(settings: &TopicSettings, records: &CheckedRecords, now: TimestampMs) -> Result<(), BatchError> {
    let limit = |limit: Option<Millis>| limit.map(|limit| i64::try_from(limit.0).unwrap_or(i64::MAX));
    let check = |time: TimestampMs, by: i64, limit: Option<i64>, side| match limit {
        Some(limit) if by > limit => Err(BatchError::Timestamp { time, by, side, limit }),
        _ => Ok(()),
    };
    let Some(oldest) = records.oldest else { return Ok(()) };
    let newest = records.newest;
    check(newest, newest.saturating_sub(now), limit(settings.timestamp_after_max), "ahead of")?;
    check(oldest, now.saturating_sub(oldest), limit(settings.timestamp_before_max), "behind")
}

/// Where an append is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// By a commit thread, in a group with others; the caller goes on at once.
    CommitThread,
    /// By the caller, who has nothing else to do until it is answered, if the partition is idle and not too many do the same.
    Here,
}

/// Resolves when the ack level is reached. Dropping it does not undo the append.
pub struct ProduceFuture(oneshot::Receiver<Result<Produced, BrokerError>>);

impl Future for ProduceFuture {
    type Output = Result<Produced, BrokerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = || BrokerError::new(ErrorKind::Internal, "the append was dropped without an answer");
        Pin::new(&mut self.0).poll(context).map(|result| result.unwrap_or_else(|_| Err(lost())))
    }
}

impl Broker {
    /// Looks into a batch ahead of its append, as `key`'s work, if that may take long for a thread of the runtime: it is
    /// compressed, or large. A connection that awaits this before it reads on keeps its batches in order.
    pub async fn look_into(&self, key: &WorkKey, topic: &str, batch: BytesMut) -> Offer {
        self.look(key, topic, batch, false).await
    }

    async fn look(&self, key: &WorkKey, topic: &str, batch: BytesMut, own: bool) -> Offer {
        let compressed = codec_of(&batch).is_some_and(|codec| codec != Compression::None);
        let most = if compressed { limits::INLINE_BYTES } else { INLINE_BATCH_BYTES };
        let short = batch.len() <= most;
        if !compressed && batch.len() <= INLINE_PACK_BYTES {
            return batch.into();
        }
        let (bounds, wanted) = match self.topic(topic) {
            Ok(topic) => (bounds_of(&topic.settings, own), wanted_codec(&topic.settings, &batch)),
            Err(error) => return Offer { batch, checked: Some(Err(error)) },
        };
        if short && wanted.is_none() {
            if !compressed {
                return batch.into();
            }
            // Most compressed batches are small, and stay so when they are opened.
            match check(&batch, bounds.opened_to(limits::INLINE_BYTES)) {
                Err(error) if error.is_too_large() => {}
                checked => return Offer { batch, checked: Some(checked.map_err(BrokerError::from)) },
            }
        }
        let batch = Arc::new(batch);
        let checked = self.look_on(key, Arc::clone(&batch), bounds).await;
        // Nobody else has it any more.
        let batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| (*shared).clone());
        let (Ok(checked), Some(codec)) = (&checked, wanted) else { return Offer { batch, checked: Some(checked) } };
        let checked = *checked;
        let packed = self.workers.run(key, move |_| match repack(&batch, codec, bounds) {
            Ok(packed) => Offer { batch: packed.unwrap_or(batch), checked: Some(Ok(checked)) },
            Err(error) => Offer { batch, checked: Some(Err(error.into())) },
        });
        packed.await.unwrap_or_else(|error| Offer { batch: BytesMut::new(), checked: Some(Err(error)) })
    }

    /// Checks a batch in portions, between which others have their turn.
    async fn look_on(
        &self,
        key: &WorkKey,
        batch: Arc<BytesMut>,
        bounds: Bounds,
    ) -> Result<(BatchHeader, CheckedRecords), BrokerError> {
        let first = self
            .workers
            .run(key, move |portion| Look::new(batch, bounds).and_then(|look| look.go_on(|| portion.is_over())));
        let mut looked = first.await??;
        loop {
            looked = match looked {
                (_, Some(checked)) => return Ok(checked),
                (look, None) => self.workers.run(key, move |portion| look.go_on(|| portion.is_over())).await??,
            };
        }
    }

    /// Checks a batch and queues it for its partition before it returns: the order of calls is the order in the log.
    pub fn produce(&self, topic: &str, partition: PartitionId, batch: BytesMut, ack: AckLevel) -> ProduceFuture {
        self.produce_at(topic, partition, batch, ack, Place::CommitThread)
    }

    /// The same at a place; what is done by the caller is there when this returns.
    pub fn produce_at(
        &self,
        topic: &str,
        partition: PartitionId,
        batch: impl Into<Offer>,
        ack: AckLevel,
        place: Place,
    ) -> ProduceFuture {
        let (sender, receiver) = oneshot::channel();
        // Nobody listens any more: the append stands all the same.
        self.produce_then(topic, partition, batch, ack, place, move |outcome| drop(sender.send(outcome)));
        ProduceFuture(receiver)
    }

    /// The same; `done` is called once with the outcome, on the thread that reached the ack level (for a batch that is
    /// refused, before this returns), and must not block.
    pub fn produce_then(
        &self,
        topic: &str,
        number: PartitionId,
        batch: impl Into<Offer>,
        ack: AckLevel,
        place: Place,
        done: impl FnOnce(Result<Produced, BrokerError>) + Send + 'static,
    ) {
        self.append(topic, number, batch.into(), (ack, false), place, done);
    }

    /// As [`Broker::produce`], for producers of the server's own; durable when this returns.
    ///
    /// # Errors
    /// Those of an append.
    pub(crate) async fn produce_own(
        &self,
        topic: &str,
        partition: PartitionId,
        batch: BytesMut,
    ) -> Result<Produced, BrokerError> {
        let held = Arc::clone(self.topic(topic)?.partition(partition)?);
        let offer = self.look(&held.work, topic, batch, true).await;
        let (sender, receiver) = oneshot::channel();
        let done = move |outcome| drop(sender.send(outcome));
        self.append(topic, partition, offer, (AckLevel::Durable, true), Place::CommitThread, done);
        ProduceFuture(receiver).await
    }

    fn append(
        &self,
        topic: &str,
        number: PartitionId,
        offer: Offer,
        (ack, own): (AckLevel, bool),
        place: Place,
        done: impl FnOnce(Result<Produced, BrokerError>) + Send + 'static,
    ) {
        let Offer { mut batch, checked } = offer;
        let checked = self.topic(topic).and_then(|topic| {
            let partition = Arc::clone(topic.partition(number)?);
            let settings = &topic.settings;
            let (header, records) = match checked {
                Some(checked) => checked?,
                None => {
                    let (bounds, short) = (bounds_of(settings, own), batch.len() <= INLINE_PACK_BYTES);
                    let checked = check(&batch, bounds)?;
                    let wanted = wanted_codec(settings, &batch).filter(|_| short);
                    if let Some(packed) = wanted.map(|codec| repack(&batch, codec, bounds)).transpose()?.flatten() {
                        batch = packed;
                    }
                    checked
                }
            };
            if header.producer_id >= limits::OWN_PRODUCER_IDS && !own {
                let message = format!("producer id {} is one of the server's own", header.producer_id);
                return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
            }
            let now = self.clock.stamp_ms();
            let stamp = (settings.timestamp_type == TimestampType::Append).then_some(now);
            if !own && stamp.is_none() {
                check_times(settings, &records, now)?;
            }
            if settings.cleanup.compacts() {
                records.keyed()?;
            }
            self.storage.admit(batch.len()).map_err(|error| error.at(&partition.topic, number))?;
            let log = partition.log()?.clone();
            let transaction = header
                .is_transactional()
                .then_some(((header.producer_id, header.producer_epoch), (topic.entry.id, number)));
            let wrong = (header.max_timestamp != records.newest).then_some(records.newest);
            Ok((partition, log, u64::from(header.record_count), transaction, (stamp, wrong)))
        });
        let (partition, log, records, transaction, (stamp, wrong)) = match checked {
            Ok(checked) => checked,
            Err(error) => return done(Err(error.of_batch(batch))),
        };
        // Retention and look-ups by time go by the header, so it says what its records say, whatever the producer put there.
        match (stamp, wrong) {
            (Some(now), _) => set_append_time(&mut batch, now),
            (None, Some(newest)) => set_max_timestamp(&mut batch, newest),
            (None, None) => {}
        }
        // Held until the batch is queued, so that no end of its transaction gets before it.
        let writing = transaction.map(|(producer, at)| self.transactions.writing(producer, at)).transpose();
        let writing = match writing {
            Ok(writing) => writing,
            Err(error) => return done(Err(error.into())),
        };
        let bytes = batch.len() as u64;
        let metrics = Arc::clone(&self.metrics);
        let wait = if ack == AckLevel::Durable { WaitFor::Durable } else { WaitFor::Written };
        let request = AppendRequest {
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
                done(result.map_err(|error| partition.error(error)).map(|appended| Produced {
                    base_offset: appended.base_offset,
                    last_offset: appended.last_offset,
                    timestamp: stamp.unwrap_or(appended.timestamp),
                    stamped: stamp.filter(|_| !appended.duplicate),
                    duplicate: appended.duplicate,
                }));
            }),
        };
        if writing.is_some() {
            return log.enqueue(request);
        }
        let may = place == Place::Here && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        match may.then(|| self.here.try_acquire()) {
            Some(Ok(_permit)) => tokio::task::block_in_place(|| log.append_here(request)),
            _ => log.enqueue(request),
        }
    }
}

#[cfg(test)]
mod tests;
