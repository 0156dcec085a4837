//! Batches of dead letters that were written, or not, when something cut them off from their progress.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicId, TopicName};

use super::super::super::broker::lock;
use super::super::super::hold::Hold;
use super::super::super::{Broker, BrokerError};
use super::super::graves::text;
use super::{Intent, REDRIVEN, done_events, group_of, position};

impl Broker {
    /// A batch may have been written whose progress was not kept: it is looked for where it was to go. How many records that
    /// were. Blocks.
    ///
    /// # Errors
    /// There is no such topic; it cannot be found out.
    pub(in crate::broker::queue) fn settle_redrive(&self, topic: &TopicName) -> Result<usize, BrokerError> {
        let open = self.topic(topic.as_str())?;
        let (id, partitions, group) = (open.entry.id, open.entry.partitions, group_of(topic)?);
        let Some(intent) = self.redrive_intent(topic, id, &group)? else { return Ok(0) };
        let prefix = format!("{topic}/");
        let mut there: BTreeMap<PartitionId, BTreeSet<Offset>> = BTreeMap::new();
        for (target, partition, from) in &intent.0 {
            // A topic that is gone holds nothing.
            let Ok(found) = self.topic(target.as_str()) else { continue };
            found.partition(*partition)?.search(*from, |record| {
                let source = text(record, REDRIVEN).and_then(|source| source.strip_prefix(&prefix));
                if let Some((partition, offset)) = source.and_then(|source| source.split_once('/'))
                    && let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse())
                {
                    there.entry(partition).or_default().insert(offset);
                }
                false
            })?;
        }
        let mut went_back = 0;
        for (number, offsets) in there.into_iter().filter(|(number, _)| *number < partitions) {
            let mut part = self.part(topic, id, number, &group)?;
            let new = |offset: &Offset| !part.machine.is_done(*offset) && *offset < part.end;
            let offsets: Vec<Offset> = offsets.into_iter().filter(new).collect();
            went_back += offsets.len();
            let events = done_events(&mut part, &offsets, self.clock.now_ms());
            self.keep_done(&part.place, events)?;
        }
        self.keep_intent(id, &group, &Intent::default())?;
        Ok(went_back)
    }

    fn redrive_intent(&self, topic: &TopicName, id: TopicId, group: &GroupName) -> Result<Option<Intent>, BrokerError> {
        let metadata = position(&lock(&self.catalog), group, id).map(|position| position.metadata.to_owned());
        let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty()) else { return Ok(None) };
        serde_json::from_str(&metadata).map(Some).map_err(|error| {
            BrokerError::new(ErrorKind::Damaged, format!("what was being sent back from '{topic}' is unknown: {error}"))
        })
    }

    /// [`Broker::settle_redrive`] before anything else happens; if that fails, what may have been written is held.
    pub(in crate::broker::queue) fn settle_redrive_at_start(&self, topic: &TopicName) -> Result<usize, BrokerError> {
        // The group outlives the topic.
        let Ok(open) = self.topic(topic.as_str()) else { return Ok(0) };
        let intent = self.redrive_intent(topic, open.entry.id, &group_of(topic)?)?.unwrap_or_default();
        let places = intent.0.iter().filter_map(|(target, number, from)| {
            let target = self.topic(target.as_str()).ok()?;
            Hold::from(target.partition(*number).ok()?, *from).ok()
        });
        let holds: Vec<Hold> = places.collect();
        let outcome = self.settle_redrive(topic);
        if let (Err(_), Ok(mut redriving)) = (&outcome, self.queues.redriving.try_lock()) {
            redriving.insert(open.entry.id, holds);
        }
        outcome
    }

    /// Tries again where it is not known what was sent back. Blocks.
    pub(in crate::broker::queue) fn settle_redrives_again(&self) {
        // Who is at it finds out himself.
        let Ok(mut redriving) = self.queues.redriving.try_lock() else { return };
        redriving.retain(|id, _| {
            let Some(topic) = self.topic_named(*id) else { return false };
            match self.settle_redrive(&topic) {
                Ok(_) => false,
                Err(error) => {
                    tracing::warn!(%topic, %error, "what was sent back is not known yet");
                    true
                }
            }
        });
    }
}
