//! Writing what a route made, once: each destination partition gets its records in the order of their marks, in batches that
//! carry the route's producer identity; what its log shows to be there already is left out.
//!
//! The log itself refuses a batch whose sequence does not follow the last one of the producer, so nothing can be written
//! twice or behind a gap. After any error what is there is looked up anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::base::{PartitionId, ProducerId, TopicId, TopicName, limits};
use crate::record::{BatchBuilder, BatchOptions, Record};

use super::super::broker::lock;
use super::super::hold::Hold;
use super::super::{Broker, BrokerError};
use super::active::Reading;
use super::evaluator::Made;
use super::mark::{self, Mark, Written};

/// Bytes of one batch, unless one record is larger.
const BATCH_BYTES: usize = 1024 * 1024;

/// What a runner knows of the partitions that it writes to.
pub(super) struct Writer {
    pub(super) broker: Arc<Broker>,
    reading: Arc<Reading>,
    pub(super) producer: ProducerId,
    /// Sequence numbers that come next, where they are known.
    sequences: HashMap<(TopicId, PartitionId), i32>,
    /// What was written before this runner began, or before an error.
    pub(super) marks: HashMap<(TopicId, PartitionId), Mark>,
    /// Partitions of which it must be looked up what is there.
    doubtful: HashMap<(TopicId, PartitionId), ()>,
}

impl Writer {
    pub(super) fn new(
        broker: Arc<Broker>,
        reading: Arc<Reading>,
        producer: ProducerId,
        marks: HashMap<(TopicId, PartitionId), Mark>,
    ) -> Self {
        Self { broker, reading, producer, sequences: HashMap::new(), marks, doubtful: HashMap::new() }
    }

    /// Writes all of it, durable when it returns. Some of it may have been written when it fails; the same call again writes the
    /// rest.
    ///
    /// # Errors
    /// The first partition's that refused.
    pub(super) async fn write(&mut self, made: &[Made]) -> Result<(), BrokerError> {
        let mut by_place: HashMap<(&TopicName, PartitionId), Vec<&Made>> = HashMap::new();
        // Most go where the one before went.
        for same in made.chunk_by(|a, b| a.partition == b.partition && a.output.topic == b.output.topic) {
            let Some(first) = same.first() else { continue };
            by_place.entry((&first.output.topic, first.partition)).or_default().extend(same);
        }
        let mut batches = Vec::new();
        for ((topic, partition), made) in by_place {
            batches.push(self.prepare(topic, partition, made).await?);
        }
        let broker = &self.broker;
        let sent = join_all(batches.into_iter().map(|place| place.send(broker))).await;
        let mut outcome = Ok(());
        for (at, result) in sent {
            match result {
                Ok(next) => _ = self.sequences.insert(at, next),
                Err(error) => {
                    self.sequences.remove(&at);
                    self.doubtful.insert(at, ());
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome
    }

    async fn prepare(
        &mut self,
        topic: &TopicName,
        number: PartitionId,
        made: Vec<&Made>,
    ) -> Result<Batches, BrokerError> {
        let open = self.broker.topic(topic.as_str())?;
        let partition = open.partition(number)?;
        let at = (open.entry.id, number);
        if self.doubtful.contains_key(&at) {
            let Written { next_sequence, mark } = mark::written(partition, self.producer).await?;
            self.sequences.insert(at, next_sequence);
            if let Some(mark) = mark {
                self.marks.insert(at, mark);
            }
            self.doubtful.remove(&at);
        }
        let mut sequence = match self.sequences.get(&at) {
            Some(next) => *next,
            None => mark::next_sequence(partition.log()?, self.producer).unwrap_or(0),
        };
        let mark = self.marks.get(&at).copied();
        let most = BATCH_BYTES.min(open.settings.max_message_bytes.as_usize());
        let mut batches = Vec::new();
        let mut builder: Option<BatchBuilder> = None;
        let weight = |one: &Made| one.output.weight() + 64;
        let mut left: usize = made.iter().copied().map(weight).sum();
        for one in made.into_iter().filter(|one| mark.is_none_or(|mark| one.mark > mark)) {
            let weight = weight(one);
            if let Some(full) = builder.take_if(|builder| builder.bytes_so_far() + weight > most) {
                batches.push(full);
            }
            let building = builder.get_or_insert_with(|| {
                let options = BatchOptions {
                    producer_id: self.producer,
                    producer_epoch: 0,
                    base_sequence: sequence,
                    ..BatchOptions::default()
                };
                BatchBuilder::with_capacity(options, limits::BATCH_HEADER_BYTES + left.min(most))
            });
            left = left.saturating_sub(weight);
            let record = Record {
                offset: u64::from(building.record_count()),
                timestamp: one.output.timestamp,
                key: one.output.key.clone(),
                value: one.output.value.clone(),
                headers: one.output.headers.clone(),
            };
            building.push_record(&record);
            sequence = sequence.checked_add(1).unwrap_or(0);
        }
        batches.extend(builder);
        if !batches.is_empty()
            && let Entry::Vacant(vacant) = lock(&self.reading.inside).writing.entry(at)
        {
            // Until the position is kept, the last batch is how it is known what was written.
            vacant.insert(Hold::of(partition)?);
        }
        Ok(Batches { topic: topic.clone(), at, batches, next: sequence })
    }
}

/// What one partition gets.
struct Batches {
    topic: TopicName,
    at: (TopicId, PartitionId),
    batches: Vec<BatchBuilder>,
    next: i32,
}

impl Batches {
    /// One after the other: a batch that fails has none behind it.
    async fn send(self, broker: &Broker) -> ((TopicId, PartitionId), Result<i32, BrokerError>) {
        let Self { topic, at, batches, next } = self;
        for batch in batches {
            if let Err(error) = broker.produce_own(topic.as_str(), at.1, batch.build()).await {
                return (at, Err(error));
            }
        }
        (at, Ok(next))
    }
}
