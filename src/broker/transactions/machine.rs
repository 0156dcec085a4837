//! What there is to know of transactional ids: who has one, what is written under it, and what becomes of that. Pure: what
//! happened and the time in, what follows out.
//!
//! ```text
//! empty ──add──▶ ongoing ──end──▶ prepare commit ──finish──▶ committed ──add──▶ ongoing ...
//!                   └─end, time-out, another producer─▶ prepare abort ──finish──▶ aborted ──add──▶ ongoing ...
//! ```
//!
//! An epoch counts who has the id. It goes up whenever somebody else is to have it, or the same producer anew, and with it
//! all who had it before are superseded.

mod ageing;
mod ids;
mod shares;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::base::{GroupName, Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId, limits};
use crate::catalog::{Place, Position, TransactionClient, TransactionEntry, TransactionPhase as Phase};
use crate::record::Marker;

use super::TransactionError;
use shares::Shares;

/// The last epoch that a producer is given: the one after it is left to supersede it.
const LAST_EPOCH: ProducerEpoch = ProducerEpoch::MAX - 1;

/// The time, by both clocks: what is written down by the one, deadlines by the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Milliseconds since the Unix epoch.
    pub(crate) wall: TimestampMs,
    /// Milliseconds that never go back.
    pub(crate) monotonic: u64,
}

/// What an operator has set for transactions, and the fixed limits beside it.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The longest time-out that a producer may ask for, in milliseconds.
    pub(crate) max_timeout_ms: u64,
    /// How long an id without use is remembered, in milliseconds.
    pub(crate) expiration_ms: u64,
    /// Ids that are remembered.
    pub(crate) ids: usize,
    /// Of these, the ids of one address.
    pub(crate) ids_of_address: usize,
    /// Bytes of all ids together.
    pub(crate) id_bytes: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_timeout_ms: limits::TRANSACTION_TIMEOUT_MS,
            expiration_ms: limits::TRANSACTIONAL_ID_EXPIRATION_MS,
            ids: limits::TRANSACTIONAL_IDS,
            ids_of_address: limits::TRANSACTIONAL_IDS_OF_ADDRESS,
            id_bytes: limits::TRANSACTIONAL_IDS_BYTES,
        }
    }
}

/// A request for a transactional id.
#[derive(Debug, Clone, Copy)]
pub struct BeginTransactional<'a> {
    /// The id.
    pub id: &'a str,
    /// How long a transaction of it may be open, in milliseconds.
    pub timeout_ms: u64,
    /// The producer id and epoch that the producer says it has the id with.
    pub resume: Option<(ProducerId, ProducerEpoch)>,
    /// Who asks.
    pub client: &'a TransactionClient,
}

/// Who speaks: the transactional id, and what it was given for it.
#[derive(Debug, Clone, Copy)]
pub struct Producer<'a> {
    /// The transactional id.
    pub id: &'a str,
    /// The producer id.
    pub producer: ProducerId,
    /// The epoch.
    pub epoch: ProducerEpoch,
}

/// What becomes of who wants to have an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is his, with this producer id and epoch.
    Ready(ProducerId, ProducerEpoch),
    /// The transaction that was open is being ended; it is his when that is done and he asks again.
    Ending,
    /// A new producer id is needed.
    NeedsProducer,
}

/// What becomes of an end that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It has ended so before.
    Before,
    /// It is decided.
    Decided,
}

/// A transaction that is decided and whose end is to be written to the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) id: String,
    pub(super) producer: ProducerId,
    pub(super) epoch: ProducerEpoch,
    pub(super) marker: Marker,
    pub(super) partitions: Vec<(TopicId, PartitionId)>,
}

#[derive(Debug, Clone)]
struct Transaction {
    entry: TransactionEntry,
    /// The monotonic time to which `entry.open_ms` counts while a transaction is open, and from which the id is idle
    /// while none is.
    since: u64,
    /// How long the id had been idle at `since`, in milliseconds.
    idle_ms: u64,
    /// All its markers are written, and what is to be kept of it is on its way.
    finishing: bool,
    /// That the transaction holds up readers was logged.
    reported: bool,
    /// Orders ids by their last use.
    used: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    rules: Rules,
    /// When this run began.
    began: u64,
    ids: BTreeMap<Arc<str>, Transaction>,
    by_producer: HashMap<ProducerId, Arc<str>>,
    shares: Shares,
    /// Bytes of all ids.
    id_bytes: usize,
    /// Counts uses of ids.
    uses: u64,
    /// Ids that were forgotten to make room for others.
    crowded_out: u64,
    /// The ids whose transaction is open or being ended.
    live: BTreeSet<String>,
    /// The ids of which something is to be kept.
    changed: BTreeSet<String>,
    endings: Vec<String>,
    /// Bytes of what the live ones hold.
    held: usize,
}

impl Transaction {
    /// Takes the id from who has it.
    fn supersede(&mut self, may_ask_again: bool) {
        let entry = &mut self.entry;
        entry.last_epoch = may_ask_again.then_some(entry.epoch);
        entry.epoch = entry.epoch.saturating_add(1);
    }

    fn writes_to(&self, at: (TopicId, PartitionId)) -> bool {
        self.entry.partitions.binary_search(&at).is_ok()
    }
}

/// Bytes of positions, about.
fn weight_of(positions: &[(Place, Position)]) -> usize {
    positions.iter().map(|(place, position)| place.group.as_str().len() + position.metadata.len() + 64).sum()
}

/// Bytes of what a transaction holds, about.
fn weight(entry: &TransactionEntry) -> usize {
    let groups: usize = entry.groups.iter().map(|group| group.as_str().len() + 32).sum();
    entry.partitions.len() * 16 + groups + weight_of(&entry.positions)
}

/// Whether so much may be held in the place of what was.
fn room(held: usize, was: usize, is: usize) -> Result<usize, TransactionError> {
    let held = held.saturating_sub(was) + is;
    if is > was && held > limits::TRANSACTIONS_BYTES { Err(TransactionError::TooMuchHeld) } else { Ok(held) }
}

fn is_live(phase: Phase) -> bool {
    matches!(phase, Phase::Ongoing | Phase::PrepareCommit | Phase::PrepareAbort)
}

impl Machine {
    /// What is to be kept: ids with what they are, or that they are forgotten.
    pub(super) fn take_changes(&mut self) -> Vec<(String, Option<TransactionEntry>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|id| (self.entry(&id).cloned(), id)).map(|(entry, id)| (id, entry)).collect()
    }

    /// The transactions that were decided since it was asked last.
    pub(super) fn take_endings(&mut self) -> Vec<Ending> {
        let endings = std::mem::take(&mut self.endings);
        endings.iter().filter_map(|id| self.ending(id)).collect()
    }

    fn ending(&self, id: &str) -> Option<Ending> {
        let entry = self.entry(id)?;
        let marker = match entry.phase {
            Phase::PrepareCommit => Marker::Commit,
            Phase::PrepareAbort => Marker::Abort,
            _ => return None,
        };
        Some(Ending {
            id: id.to_owned(),
            producer: entry.producer,
            epoch: entry.epoch,
            marker,
            partitions: entry.partitions.clone(),
        })
    }

    /// What is known of an id.
    pub(super) fn entry(&self, id: &str) -> Option<&TransactionEntry> {
        self.ids.get(id).map(|transaction| &transaction.entry)
    }

    /// The ids behind one, or all of them, by name.
    pub(super) fn entries_after(&self, after: Option<&str>) -> impl Iterator<Item = &TransactionEntry> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.ids.range::<str, _>((from, Bound::Unbounded)).map(|(_, transaction)| &transaction.entry)
    }

    /// Whether a transaction of the id is being ended.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.entry(id).is_some_and(|entry| matches!(entry.phase, Phase::PrepareCommit | Phase::PrepareAbort))
    }

    /// The transaction of who speaks, if he is who has the id.
    fn of(&mut self, who: Producer<'_>) -> Result<&mut Transaction, TransactionError> {
        let unknown = || TransactionError::Unknown { id: who.id.to_owned() };
        let transaction = self.ids.get_mut(who.id).ok_or_else(unknown)?;
        if transaction.entry.producer != who.producer {
            return Err(unknown());
        }
        if transaction.entry.epoch != who.epoch {
            return Err(TransactionError::Fenced { id: who.id.to_owned(), epoch: transaction.entry.epoch });
        }
        Ok(transaction)
    }

    /// Partitions that will be written to, and groups whose positions will be committed, are part of the transaction from
    /// now on; it begins with the first.
    pub(super) fn add(
        &mut self,
        who: Producer<'_>,
        partitions: &[(TopicId, PartitionId)],
        group: Option<&GroupName>,
        now: Now,
    ) -> Result<(), TransactionError> {
        let held_before = self.held;
        let transaction = self.of(who)?;
        let entry = &mut transaction.entry;
        let begins = match entry.phase {
            Phase::PrepareCommit | Phase::PrepareAbort => return Err(TransactionError::Ending),
            Phase::Ongoing => false,
            Phase::Empty | Phase::Committed | Phase::Aborted => true,
        };
        let mut all: BTreeSet<_> = entry.partitions.iter().copied().collect();
        let (before, groups) = (all.len(), entry.groups.len());
        all.extend(partitions);
        let new_group = group.filter(|group| !entry.groups.contains(group));
        if all.len() > limits::TRANSACTION_PARTITIONS
            || groups + usize::from(new_group.is_some()) > limits::TRANSACTION_GROUPS
        {
            return Err(TransactionError::TooLarge);
        }
        let more = all.len() > before || new_group.is_some();
        if begins && !more {
            return Ok(());
        }
        let was = weight(entry);
        let more_bytes = (all.len() - before) * 16 + new_group.map_or(0, |group| group.as_str().len() + 32);
        let held = room(held_before, was, was + more_bytes)?;
        entry.partitions = all.into_iter().collect();
        entry.groups.extend(new_group.cloned());
        if begins {
            (entry.phase, entry.started_ms, entry.open_ms) = (Phase::Ongoing, now.wall, 0);
            (transaction.since, transaction.reported) = (now.monotonic, false);
            self.live.insert(who.id.to_owned());
            self.used(who.id);
        }
        self.held = held;
        if more {
            self.touch(who.id, now);
        }
        Ok(())
    }

    fn touch(&mut self, id: &str, now: Now) {
        if let Some(transaction) = self.ids.get_mut(id) {
            transaction.count_time(now);
            transaction.entry.updated_ms = now.wall;
        }
        self.changed.insert(id.to_owned());
    }

    /// Positions that are to hold once the transaction is committed.
    pub(super) fn stage(
        &mut self,
        who: Producer<'_>,
        group: &GroupName,
        positions: Vec<(Place, Position)>,
        now: Now,
    ) -> Result<(), TransactionError> {
        let held_before = self.held;
        let entry = &mut self.of(who)?.entry;
        if matches!(entry.phase, Phase::PrepareCommit | Phase::PrepareAbort) {
            return Err(TransactionError::Ending);
        }
        if entry.phase != Phase::Ongoing || !entry.groups.contains(group) {
            let what = format!("group '{group}' is no part of it");
            return Err(TransactionError::State { id: who.id.to_owned(), what });
        }
        let (was, more) = (weight_of(&entry.positions), weight_of(&positions));
        if was + more > limits::TRANSACTION_POSITION_BYTES {
            return Err(TransactionError::TooLarge);
        }
        room(held_before, was, was + more)?;
        let mut at: HashMap<Place, usize> =
            entry.positions.iter().enumerate().map(|(at, (place, _))| (place.clone(), at)).collect();
        for (place, position) in positions {
            match at.get(&place) {
                Some(at) => entry.positions[*at].1 = position,
                None => {
                    at.insert(place.clone(), entry.positions.len());
                    entry.positions.push((place, position));
                }
            }
        }
        self.held = held_before - was + weight_of(&entry.positions);
        self.touch(who.id, now);
        Ok(())
    }

    /// Decides a transaction.
    pub(super) fn end(&mut self, who: Producer<'_>, marker: Marker, now: Now) -> Result<Ended, TransactionError> {
        let entry = &mut self.of(who)?.entry;
        match (entry.phase, marker) {
            (Phase::Ongoing, marker) => {
                entry.phase = match marker {
                    Marker::Commit => Phase::PrepareCommit,
                    Marker::Abort => Phase::PrepareAbort,
                };
                self.touch(who.id, now);
                self.endings.push(who.id.to_owned());
                Ok(Ended::Decided)
            }
            (Phase::PrepareCommit, Marker::Commit) | (Phase::PrepareAbort, Marker::Abort) => Ok(Ended::Decided),
            (Phase::Committed, Marker::Commit) | (Phase::Aborted, Marker::Abort) => Ok(Ended::Before),
            (phase, marker) => {
                let what = format!("its state is {phase:?}; it cannot end with a {marker:?}");
                Err(TransactionError::State { id: who.id.to_owned(), what })
            }
        }
    }

    /// Ends an open transaction against who has it.
    fn abort(&mut self, id: &str, may_ask_again: bool, now: Now) {
        let Some(transaction) = self.ids.get_mut(id) else { return };
        transaction.supersede(may_ask_again);
        transaction.entry.phase = Phase::PrepareAbort;
        self.touch(id, now);
        self.endings.push(id.to_owned());
    }

    /// Whether a producer may write to a partition as part of its transaction.
    pub(super) fn may_write(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        at: (TopicId, PartitionId),
    ) -> Result<(), TransactionError> {
        let known = self.by_producer.get(&producer).and_then(|id| self.ids.get(&**id));
        let Some(transaction) = known else {
            return Err(TransactionError::Unknown { id: format!("of producer {producer}") });
        };
        let entry = &transaction.entry;
        if entry.epoch != epoch {
            return Err(TransactionError::Superseded { producer, epoch, current: entry.epoch });
        }
        if entry.phase != Phase::Ongoing || !transaction.writes_to(at) {
            let what = "the partition is no part of an open transaction of its".to_owned();
            return Err(TransactionError::State { id: entry.id.clone(), what });
        }
        Ok(())
    }

    /// Whether a transaction that is open in a partition is known here.
    pub(super) fn knows(&self, producer: ProducerId, at: (TopicId, PartitionId)) -> bool {
        let known = self.by_producer.get(&producer).and_then(|id| self.ids.get(&**id));
        known.is_some_and(|transaction| is_live(transaction.entry.phase) && transaction.writes_to(at))
    }

    /// Whether a position in a partition waits for the end of a transaction.
    pub(super) fn is_staged(&self, place: &Place) -> bool {
        self.live.iter().filter_map(|id| self.entry(id)).any(|entry| {
            entry.groups.contains(&place.group) && entry.positions.iter().any(|(staged, _)| staged == place)
        })
    }

    /// A group is gone, and with it what was to become of its positions.
    pub(super) fn forget_group(&mut self, group: &GroupName, now: Now) {
        let concerned =
            |id: &&String| self.ids.get(id.as_str()).is_some_and(|of| !of.finishing && of.entry.groups.contains(group));
        let concerned: Vec<String> = self.live.iter().filter(concerned).cloned().collect();
        for id in concerned {
            let Some(transaction) = self.ids.get_mut(id.as_str()) else { continue };
            let was = weight(&transaction.entry);
            transaction.entry.groups.retain(|of| of != group);
            transaction.entry.positions.retain(|(place, _)| place.group != *group);
            self.held = self.held.saturating_sub(was) + weight(&transaction.entry);
            self.touch(&id, now);
        }
    }

    /// Positions that wait for the end of a transaction and lie beyond the end of what is left of their partition's log
    /// go back to it. `end_of` says where that is.
    pub(super) fn settle(
        &mut self,
        end_of: impl Fn(&Place) -> Option<Offset>,
        now: Now,
    ) -> Vec<(Place, Offset, Offset)> {
        let mut settled = Vec::new();
        for id in self.live.iter().cloned().collect::<Vec<_>>() {
            let Some(transaction) = self.ids.get_mut(id.as_str()) else { continue };
            let before = settled.len();
            for (place, position) in &mut transaction.entry.positions {
                if let Some(end) = end_of(place).filter(|end| position.offset > *end) {
                    settled.push((place.clone(), position.offset, end));
                    position.offset = end;
                }
            }
            if settled.len() > before {
                self.touch(&id, now);
            }
        }
        settled
    }

    /// What is to be kept of a transaction of which all markers are written: the positions that hold now, and the entry.
    pub(super) fn finished(&mut self, id: &str, now: Now) -> Option<(Vec<(Place, Position)>, TransactionEntry)> {
        let transaction = self.ids.get_mut(id)?;
        let mut entry = transaction.entry.clone();
        let (phase, positions) = match entry.phase {
            Phase::PrepareCommit => (Phase::Committed, std::mem::take(&mut entry.positions)),
            Phase::PrepareAbort => (Phase::Aborted, Vec::new()),
            _ => return None,
        };
        transaction.finishing = true;
        (entry.phase, entry.updated_ms, entry.open_ms) = (phase, now.wall, 0);
        (entry.partitions, entry.groups, entry.positions) = (Vec::new(), Vec::new(), Vec::new());
        Some((positions, entry))
    }

    /// That is kept.
    pub(super) fn finish(&mut self, entry: TransactionEntry, now: Now) {
        self.live.remove(&entry.id);
        let id = entry.id.clone();
        if let Some(transaction) = self.ids.get_mut(id.as_str()) {
            self.held = self.held.saturating_sub(weight(&transaction.entry)) + weight(&entry);
            (transaction.entry, transaction.finishing) = (entry, false);
            (transaction.since, transaction.idle_ms) = (now.monotonic, 0);
        }
        self.used(&id);
    }

    /// Ends an open transaction against its producer, which is superseded. `true` if it is being ended, `false` if there is
    /// none.
    ///
    /// # Errors
    /// There is no such id; the transaction is decided to count.
    pub(super) fn abort_open(&mut self, id: &str, now: Now) -> Result<bool, TransactionError> {
        let entry = self.entry(id).ok_or_else(|| TransactionError::NoId { id: id.to_owned() })?;
        match entry.phase {
            Phase::Ongoing => {
                self.abort(id, false, now);
                Ok(true)
            }
            Phase::PrepareAbort => Ok(true),
            Phase::PrepareCommit => {
                let what = "its producer has committed it, and that is being written".to_owned();
                Err(TransactionError::State { id: id.to_owned(), what })
            }
            Phase::Empty | Phase::Committed | Phase::Aborted => Ok(false),
        }
    }
}
