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

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::base::{GroupName, Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId, limits};
use crate::catalog::{Place, Position, TransactionEntry, TransactionPhase as Phase};
use crate::record::Marker;

use super::TransactionError;

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
pub(super) enum Begun {
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
    /// When it is too old, while it is ongoing.
    deadline: u64,
    /// All its markers are written, and what is to be kept of it is on its way.
    finishing: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    ids: BTreeMap<String, Transaction>,
    by_producer: HashMap<ProducerId, String>,
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
    /// The machine as it was kept. Time-outs begin anew; what was being ended is to be ended.
    pub(super) fn restore(entries: impl IntoIterator<Item = TransactionEntry>, now: Now) -> Self {
        let mut machine = Self::default();
        for entry in entries {
            let id = entry.id.clone();
            machine.by_producer.insert(entry.producer, id.clone());
            machine.held += weight(&entry);
            if is_live(entry.phase) {
                machine.live.insert(id.clone());
                if entry.phase != Phase::Ongoing {
                    machine.endings.push(id.clone());
                }
            }
            let deadline = now.monotonic.saturating_add(entry.timeout_ms);
            machine.ids.insert(id, Transaction { entry, deadline, finishing: false });
        }
        machine
    }

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

    /// All ids.
    pub(super) fn entries(&self) -> impl Iterator<Item = &TransactionEntry> {
        self.ids.values().map(|transaction| &transaction.entry)
    }

    /// Whether a transaction of the id is being ended.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.entry(id).is_some_and(|entry| matches!(entry.phase, Phase::PrepareCommit | Phase::PrepareAbort))
    }

    /// Somebody wants to have an id: the one who had it, if he says with what (`resume`), else somebody new. `fresh` is a
    /// producer id that nobody has, if one was needed.
    pub(super) fn begin(
        &mut self,
        id: &str,
        timeout_ms: u64,
        resume: Option<(ProducerId, ProducerEpoch)>,
        fresh: Option<ProducerId>,
        now: Now,
    ) -> Result<Begun, TransactionError> {
        if timeout_ms == 0 || timeout_ms > limits::TRANSACTION_TIMEOUT_MS {
            return Err(TransactionError::Timeout { timeout_ms });
        }
        let Some(transaction) = self.ids.get_mut(id) else {
            return self.begin_new(id, timeout_ms, resume, fresh, now);
        };
        let entry = &mut transaction.entry;
        let current = (entry.producer, entry.epoch);
        let before = entry.last_epoch.map(|epoch| (entry.producer, epoch));
        if resume.is_some_and(|resume| resume != current && Some(resume) != before) {
            return Err(TransactionError::Fenced { id: id.to_owned(), epoch: entry.epoch });
        }
        match entry.phase {
            Phase::PrepareCommit | Phase::PrepareAbort => return Ok(Begun::Ending),
            Phase::Ongoing => {
                self.abort(id, resume.is_some(), now);
                return Ok(Begun::Ending);
            }
            Phase::Empty | Phase::Committed | Phase::Aborted => {}
        }
        // Who asks with the epoch before was given none since: the present one is his, unless none is left behind it.
        if resume.is_none_or(|resume| resume == current) || entry.epoch > LAST_EPOCH {
            if entry.epoch >= LAST_EPOCH {
                let Some(fresh) = fresh else { return Ok(Begun::NeedsProducer) };
                self.by_producer.remove(&entry.producer);
                self.by_producer.insert(fresh, id.to_owned());
                (entry.producer, entry.epoch, entry.last_epoch) = (fresh, 0, None);
            } else {
                transaction.supersede(resume.is_some());
            }
        }
        let entry = &mut transaction.entry;
        (entry.phase, entry.timeout_ms, entry.updated_ms) = (Phase::Empty, timeout_ms, now.wall);
        self.changed.insert(id.to_owned());
        Ok(Begun::Ready(entry.producer, entry.epoch))
    }

    fn begin_new(
        &mut self,
        id: &str,
        timeout_ms: u64,
        resume: Option<(ProducerId, ProducerEpoch)>,
        fresh: Option<ProducerId>,
        now: Now,
    ) -> Result<Begun, TransactionError> {
        if resume.is_some() {
            return Err(TransactionError::Unknown { id: id.to_owned() });
        }
        if self.ids.len() >= limits::TRANSACTIONAL_IDS {
            return Err(TransactionError::TooManyIds);
        }
        let Some(producer) = fresh else { return Ok(Begun::NeedsProducer) };
        let entry = TransactionEntry {
            id: id.to_owned(),
            producer,
            epoch: 0,
            last_epoch: None,
            timeout_ms,
            phase: Phase::Empty,
            started_ms: -1,
            updated_ms: now.wall,
            partitions: Vec::new(),
            groups: Vec::new(),
            positions: Vec::new(),
        };
        self.ids.insert(id.to_owned(), Transaction { entry, deadline: u64::MAX, finishing: false });
        self.by_producer.insert(producer, id.to_owned());
        self.changed.insert(id.to_owned());
        Ok(Begun::Ready(producer, 0))
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
            (entry.phase, entry.started_ms) = (Phase::Ongoing, now.wall);
            transaction.deadline = now.monotonic.saturating_add(entry.timeout_ms);
            self.live.insert(who.id.to_owned());
        }
        self.held = held;
        if more {
            self.touch(who.id, now);
        }
        Ok(())
    }

    fn touch(&mut self, id: &str, now: Now) {
        if let Some(transaction) = self.ids.get_mut(id) {
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
        let known = self.by_producer.get(&producer).and_then(|id| self.ids.get(id));
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
        let known = self.by_producer.get(&producer).and_then(|id| self.ids.get(id));
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
            |id: &&String| self.ids.get(*id).is_some_and(|of| !of.finishing && of.entry.groups.contains(group));
        let concerned: Vec<String> = self.live.iter().filter(concerned).cloned().collect();
        for id in concerned {
            let Some(transaction) = self.ids.get_mut(&id) else { continue };
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
            let Some(transaction) = self.ids.get_mut(&id) else { continue };
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
        (entry.phase, entry.updated_ms) = (phase, now.wall);
        (entry.partitions, entry.groups, entry.positions) = (Vec::new(), Vec::new(), Vec::new());
        Some((positions, entry))
    }

    /// That is kept.
    pub(super) fn finish(&mut self, entry: TransactionEntry) {
        self.live.remove(&entry.id);
        if let Some(transaction) = self.ids.get_mut(&entry.id) {
            self.held = self.held.saturating_sub(weight(&transaction.entry)) + weight(&entry);
            (transaction.entry, transaction.finishing) = (entry, false);
        }
    }

    /// Ends what has been open for too long, and forgets ids that nobody has used for long; the ids whose transaction
    /// was too old.
    pub(super) fn tick(&mut self, now: Now) -> Vec<String> {
        let late = |id: &&String| {
            let of = self.ids.get(*id);
            of.is_some_and(|of| of.entry.phase == Phase::Ongoing && of.deadline <= now.monotonic)
        };
        let late: Vec<String> = self.live.iter().filter(late).cloned().collect();
        late.iter().for_each(|id| self.abort(id, true, now));
        late
    }

    /// Forgets ids that nobody has used for long.
    pub(super) fn forget_idle(&mut self, now: Now) {
        let idle = |entry: &TransactionEntry| {
            !is_live(entry.phase) && now.wall.saturating_sub(entry.updated_ms) > limits::TRANSACTIONAL_ID_IDLE_MS
        };
        let idle: Vec<(String, ProducerId)> =
            self.entries().filter(|entry| idle(entry)).map(|entry| (entry.id.clone(), entry.producer)).collect();
        for (id, producer) in idle {
            self.ids.remove(&id);
            self.by_producer.remove(&producer);
            self.changed.insert(id);
        }
    }
}
