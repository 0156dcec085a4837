//! Dead letters that go back to the group that gave them up and to no other: the records that they were are still in the log, and
//! the group is not done with them any more.
//!
//! That the group is not done and that the dead letter went back is one commit of the journal: a crash leaves both or neither.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{GroupName, Offset, PartitionId, TopicId};
use crate::catalog::{CHUNK_OFFSETS, Event, GroupKind};
use crate::record::Record;

use super::super::broker::lock;
use super::super::cut::LEFT_OUT;
use super::super::records::Reading;
use super::super::{Broker, BrokerError, Isolation};
use super::dispatch::{Expiry, hash};
use super::graves::{headers, place, text};
use super::machine::{FURTHEST_CHUNKS, TooMuch};
use super::redrive::{Part, done_events};

/// Bytes of a read, unless one batch is larger.
const READ_BYTES: usize = 64 * 1024;

/// A dead letter whose record is to come again to its group.
pub(super) struct Again {
    /// Its offset in the dead-letter topic.
    pub(super) dead: Offset,
    group: GroupName,
    topic: TopicId,
    partition: PartitionId,
    offset: Offset,
    key: Option<u64>,
}

/// What became of dead letters that were to come again.
#[derive(Debug, Default)]
pub(super) struct Reopened {
    /// Those that do, by their offsets in the dead-letter topic.
    pub(super) back: Vec<Offset>,
    /// Why others do not, one text for each.
    pub(super) stranded: Vec<String>,
}

impl Broker {
    /// What a dead letter was, if its group can have it again.
    ///
    /// # Errors
    /// Why it cannot, to be told; the disk's are among them, as the next one may be readable.
    pub(super) async fn again(&self, record: &Record) -> Result<Again, String> {
        let Some(((id, number, offset), of)) = place(record) else {
            return Err("it does not say where it came from".to_owned());
        };
        let source = text(record, headers::SOURCE).unwrap_or_default();
        let group = GroupName::new(of).map_err(|error| error.to_string())?;
        if !lock(&self.catalog).group(&group).is_some_and(|entry| matches!(entry.kind, GroupKind::Queue(_))) {
            return Err(super::no_group(&group).to_string());
        }
        let gone = || format!("{source} is not there any more");
        let topic = self.topic_named(id).ok_or_else(gone)?;
        let at = (topic.as_str(), number);
        let mut reading = Reading::passing();
        let read = self.read_on(&mut reading, at, offset, READ_BYTES, Isolation::Committed).await;
        let records = read.map_err(|error| format!("{source} cannot be read: {error}"))?.records;
        let was = records.into_iter().find(|was| was.offset == offset).ok_or_else(gone)?;
        // What is too large for a dead letter was left out there, and is here.
        if was.key != record.key || text(record, LEFT_OUT).is_none() && was.value != record.value {
            return Err(format!("{source} is another record"));
        }
        let (now, finally) = (self.clock.now_ms(), self.clock.final_ms());
        if Expiry::of(&was, now, finally) != Expiry::No {
            return Err(format!("{source} has expired, and would again"));
        }
        let key = was.key.as_ref().map(hash);
        Ok(Again { dead: record.offset, group, topic: id, partition: number, offset, key })
    }

    /// Lets dead letters of one partition come again to their groups, durably. What cannot is left as it is. Blocks.
    ///
    /// # Errors
    /// The journal's; what was not kept is as it was.
    pub(super) fn reopen(self: &Arc<Self>, part: &mut Part, batch: Vec<Again>) -> Result<Reopened, BrokerError> {
        let mut by_group: BTreeMap<GroupName, Vec<Again>> = BTreeMap::new();
        for again in batch {
            by_group.entry(again.group.clone()).or_default().push(again);
        }
        let mut all = Reopened::default();
        for (name, batch) in by_group {
            let group = match self.stream_entry(&name) {
                Some(_) => Err(super::no_group(&name)),
                None => self.queue_group(&name),
            };
            let group = match group {
                Ok(group) => group,
                Err(error) => {
                    all.stranded.extend(batch.iter().map(|_| error.to_string()));
                    continue;
                }
            };
            let ordered = group.rules().ordered_by_key;
            let mut wanted = Vec::new();
            {
                let inside = lock(&group.inside);
                for again in batch {
                    match inside.partitions.get(&(again.topic, again.partition)) {
                        Some(partition) => wanted.push((Arc::clone(partition), again)),
                        None => all.stranded.push(format!("group '{name}' does not read the topic any more")),
                    }
                }
            }
            let prepare = || {
                let (mut opened, mut done) = (Vec::new(), Vec::new());
                for (partition, again) in wanted {
                    let key = again.key.filter(|_| ordered);
                    match group.with(self, &partition, |machine, _| machine.reopen(again.offset, key)) {
                        // One that is not done comes anyway.
                        Ok(was_done) => {
                            done.push(again.dead);
                            opened.extend(was_done.then_some((partition, again.offset)));
                        }
                        Err(TooMuch) => all.stranded.push(format!(
                            "group '{name}' is more than {} offsets ahead of it, or has too many records that are not done",
                            FURTHEST_CHUNKS * CHUNK_OFFSETS
                        )),
                    }
                }
                done.sort_unstable();
                let mut events: Vec<Event> =
                    self.own_group(&lock(&self.catalog), &part.place.group).into_iter().collect();
                events.extend(done_events(part, &done, self.clock.now_ms()));
                (events, (opened, done))
            };
            let (outcome, kept) = self.queues.keeper.commit_with(self, prepare, |(opened, _), kept| {
                for (partition, offset) in opened {
                    group.with(self, partition, |machine, now| match kept {
                        true => machine.let_go(*offset, now),
                        false => machine.take_back(*offset, now),
                    });
                    partition.wake.notify_one();
                }
            });
            kept.map_err(|(kind, message)| BrokerError::new(kind, message))?;
            let (opened, done) = outcome;
            if let Some(graves) = group.graves.blocking_lock().as_mut() {
                opened.iter().for_each(|(at, offset)| graves.remove(&(at.place.topic, at.place.partition, *offset)));
            }
            all.back.extend(done);
        }
        Ok(all)
    }
}
