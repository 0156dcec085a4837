//! Durable requests as a table: what is asked, what decides it, what is still to be written. Pure.
//!
//! What decides a request is a record in the topic of replies: of those that are about its present step, the first in the
//! log. Time-outs and cancellations are such records too, so that the order of the log is the only judge, and reading it
//! again, from any earlier point, decides nothing else.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::clients::{Client, Shares, share_of};
use crate::base::{Offset, PartitionId, RequestId, TimestampMs, TopicName};
use crate::catalog::{Callback, OutcomeKind, RequestEntry, RequestOutcome, Writing};

/// Requests that the table holds for each one that may be open; beyond, the one that ended first is forgotten.
const HELD_TIMES: usize = 2;

/// What a record in the topic of replies says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    Reply,
    Error { code: String, text: String },
    TimedOut,
    Cancelled,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decided {
    /// Nothing: it was decided before, is of another step, or about a request that nobody knows.
    Nothing,
    /// The reply is the request of this topic's responder.
    Next(TopicName),
    /// It is over, and this is to be told.
    Over(Option<Callback>),
}

/// Why a request is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// It is there already.
    Known(Box<RequestEntry>),
    /// It is being opened at this moment.
    Opening,
    /// The id is that of another request.
    Taken,
    /// So many are open, and no more may be.
    Full(usize),
    /// The client has so many open, which is its share.
    Share(usize),
}

/// All durable requests.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    entries: BTreeMap<RequestId, RequestEntry>,
    /// Not yet accepted: the request itself is not on the disk for certain.
    opening: HashSet<RequestId>,
    /// Who has asked those that are open.
    asked: Shares<RequestId>,
    deadlines: BTreeSet<(TimestampMs, RequestId)>,
    /// Their time is over, and the record that says so is being written.
    timing_out: HashSet<RequestId>,
    finished: BTreeSet<(TimestampMs, RequestId)>,
    /// Their callbacks are to be POSTed, and nobody has been told yet.
    to_post: Vec<RequestId>,
}

impl Machine {
    /// The table as it was kept.
    pub(crate) fn restore(entries: impl IntoIterator<Item = RequestEntry>) -> Self {
        let mut machine = Self::default();
        for entry in entries {
            machine.file(&entry);
            if entry.writing.as_ref().is_some_and(|writing| writing.to.is_none()) {
                machine.to_post.push(entry.id.clone());
            }
            machine.entries.insert(entry.id.clone(), entry);
        }
        machine
    }

    fn file(&mut self, entry: &RequestEntry) {
        match &entry.outcome {
            Some(outcome) => self.finished.insert((outcome.finished_ms, entry.id.clone())),
            None => self.deadlines.insert((entry.deadline_ms, entry.id.clone())),
        };
    }

    /// Begins to open a request: from here on a reply to it counts.
    /// `most` may be open, and a client may have half of them.
    pub(crate) fn open(&mut self, entry: RequestEntry, client: Client, most: usize) -> Result<(), NotOpened> {
        if let Some(known) = self.entries.get(&entry.id) {
            let address = |entry: &RequestEntry| entry.callback.as_ref().map(|callback| callback.address().to_owned());
            let other = known.content.is_some() && known.content != entry.content;
            let same = !other && known.steps == entry.steps && address(known) == address(&entry);
            return Err(match (same, self.opening.contains(&entry.id)) {
                (false, _) => NotOpened::Taken,
                (true, true) => NotOpened::Opening,
                (true, false) => NotOpened::Known(Box::new(known.clone())),
            });
        }
        // Beyond what it holds are only those that wait for somebody else's endpoint.
        if self.open_count() >= most || self.entries.len() >= (HELD_TIMES + 1).saturating_mul(most) {
            return Err(NotOpened::Full(self.open_count()));
        }
        let own = self.asked.count(client);
        if own >= share_of(most) {
            return Err(NotOpened::Share(own));
        }
        self.asked.add(entry.id.clone(), client);
        self.opening.insert(entry.id.clone());
        self.file(&entry);
        self.entries.insert(entry.id.clone(), entry);
        Ok(())
    }

    /// The request is on the disk.
    pub(crate) fn opened(&mut self, id: &RequestId) {
        self.opening.remove(id);
    }

    /// It could not be written.
    pub(crate) fn not_opened(&mut self, id: &RequestId) {
        if self.opening.remove(id) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: &RequestId) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.asked.remove(id);
        match &entry.outcome {
            Some(outcome) => self.finished.remove(&(outcome.finished_ms, id.clone())),
            None => self.deadlines.remove(&(entry.deadline_ms, id.clone())),
        };
        self.timing_out.remove(id);
    }

    /// What [`Machine::decide`] would say, without deciding. Only the watcher decides, so for the watcher it stays true.
    pub(crate) fn foresee(&self, id: &RequestId, step: u32, word: &Word) -> Decided {
        let Some(entry) = self.entries.get(id).filter(|entry| entry.outcome.is_none()) else {
            return Decided::Nothing;
        };
        let of_step = matches!(word, Word::Reply | Word::Error { .. });
        if of_step && entry.step != step {
            return Decided::Nothing;
        }
        match entry.steps.get(step as usize + 1) {
            Some(next) if *word == Word::Reply => Decided::Next(next.clone()),
            _ => Decided::Over(entry.callback.clone()),
        }
    }

    /// Takes a record of the topic of replies in, in the order of the log.
    pub(crate) fn decide(&mut self, id: &RequestId, step: u32, word: Word, at: Offset, now: TimestampMs) -> Decided {
        let decided = self.foresee(id, step, &word);
        let Some(entry) = self.entries.get_mut(id).filter(|_| decided != Decided::Nothing) else {
            return Decided::Nothing;
        };
        // The earlier output has been written, or nobody needs it any more.
        entry.writing = None;
        if let Decided::Next(_) = decided {
            entry.step += 1;
            return decided;
        }
        let kind = match word {
            Word::Reply => OutcomeKind::Replied,
            Word::Error { code, text } => OutcomeKind::Failed { code, text },
            Word::TimedOut => OutcomeKind::TimedOut,
            Word::Cancelled => OutcomeKind::Cancelled,
        };
        entry.outcome = Some(RequestOutcome { kind, finished_ms: now, at });
        self.deadlines.remove(&(entry.deadline_ms, id.clone()));
        self.timing_out.remove(id);
        self.asked.remove(id);
        self.finished.insert((now, id.clone()));
        decided
    }

    /// Notes what is to be written of it, and where.
    pub(crate) fn announce(
        &mut self,
        id: &RequestId,
        to: Option<(TopicName, PartitionId)>,
        from: Offset,
        source: Offset,
    ) {
        if let Some(entry) = self.entries.get_mut(id) {
            if to.is_none() {
                self.to_post.push(id.clone());
            }
            entry.writing = Some(Writing { to, from, source });
        }
    }

    /// Requests whose callbacks are to be POSTed; each is named once.
    pub(crate) fn take_posts(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.to_post)
    }

    /// The POST made from `source` is given up, and becomes a dead letter; whether it was still waited for.
    pub(crate) fn give_up(&mut self, id: &RequestId, source: Offset, reason: String) -> bool {
        let waiting = self.entries.get_mut(id).filter(|entry| {
            entry.writing.as_ref().is_some_and(|writing| writing.to.is_none() && writing.source == source)
        });
        let Some(entry) = waiting else { return false };
        let url = entry.callback.as_ref().map_or_else(String::new, |callback| callback.address().to_owned());
        entry.callback = Some(Callback::DeadLetter { url, reason });
        true
    }

    /// What was made from `source` has been written; whether that was still waited for.
    pub(crate) fn written(&mut self, id: &RequestId, source: Offset) -> bool {
        let waiting = self
            .entries
            .get_mut(id)
            .filter(|entry| entry.writing.as_ref().is_some_and(|writing| writing.source == source));
        waiting.map(|entry| entry.writing = None).is_some()
    }

    /// Whether something made from `source` is still to be written.
    pub(crate) fn is_writing(&self, id: &RequestId, source: Offset) -> bool {
        let writing = self.entries.get(id).and_then(|entry| entry.writing.as_ref());
        writing.is_some_and(|writing| writing.source == source)
    }

    /// What is made from `source` is not before `from`, as was found out; whether it is still waited for.
    pub(crate) fn look_from(&mut self, id: &RequestId, source: Offset, from: Offset) -> bool {
        let writing = self.entries.get_mut(id).and_then(|entry| entry.writing.as_mut());
        let waiting = writing.filter(|writing| writing.source == source);
        waiting.map(|writing| writing.from = from).is_some()
    }

    /// All of which something is still to be written.
    pub(crate) fn writings(&self) -> Vec<RequestEntry> {
        self.entries.values().filter(|entry| entry.writing.is_some()).cloned().collect()
    }

    /// Whether a request of this step is not to be delivered any more.
    pub(crate) fn is_over(&self, id: &RequestId, step: u32) -> bool {
        !self.entries.get(id).is_some_and(|entry| entry.outcome.is_none() && entry.step == step)
    }

    pub(crate) fn get(&self, id: &RequestId) -> Option<&RequestEntry> {
        self.entries.get(id).filter(|_| !self.opening.contains(id))
    }

    /// Of these, also what is being opened: what is kept of it is what counts later.
    pub(crate) fn entry(&self, id: &RequestId) -> Option<&RequestEntry> {
        self.entries.get(id)
    }

    /// All that were accepted, newest first.
    pub(crate) fn list(&self) -> Vec<&RequestEntry> {
        let mut list: Vec<_> = self.entries.values().filter(|entry| !self.opening.contains(&entry.id)).collect();
        list.sort_by(|one, other| (other.created_ms, &other.id).cmp(&(one.created_ms, &one.id)));
        list
    }

    /// Requests whose time is over, and for which that is to be written to the topic of replies; each is named once.
    /// `is_over` says of when it was asked and its deadline whether that has passed, whatever the clock did meanwhile.
    pub(crate) fn take_late(
        &mut self,
        now: TimestampMs,
        is_over: impl Fn(TimestampMs, TimestampMs) -> bool,
    ) -> Vec<RequestId> {
        let late = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| id);
        let over =
            |id: &RequestId| self.entries.get(id).is_none_or(|entry| is_over(entry.created_ms, entry.deadline_ms));
        let late: Vec<_> = late.filter(|id| !self.timing_out.contains(*id) && over(id)).cloned().collect();
        self.timing_out.extend(late.iter().cloned());
        late
    }

    /// That could not be written: they are to be named again.
    pub(crate) fn not_late(&mut self, ids: &[RequestId]) {
        for id in ids {
            self.timing_out.remove(id);
        }
    }

    /// When the next one is late.
    pub(crate) fn next_deadline(&self) -> Option<TimestampMs> {
        self.deadlines.iter().find(|(_, id)| !self.timing_out.contains(id)).map(|(deadline, _)| *deadline)
    }

    /// Forgets those that ended before `before` and of which nothing is to be written, and the oldest beyond what the table
    /// holds.
    pub(crate) fn forget(&mut self, before: TimestampMs, most: usize) -> Vec<RequestId> {
        let too_many = self.entries.len().saturating_sub(HELD_TIMES.saturating_mul(most));
        let gone: Vec<_> = self
            .finished
            .iter()
            .enumerate()
            .take_while(|(at, (finished, _))| *finished < before || *at < too_many)
            .map(|(_, (_, id))| id.clone())
            .filter(|id| self.entries.get(id).is_some_and(|entry| entry.writing.is_none()))
            .collect();
        for id in &gone {
            self.remove(id);
        }
        gone
    }

    /// All requests that are known.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Requests that ended and whose callback is not delivered.
    pub(crate) fn callbacks_waiting(&self) -> usize {
        let waiting = |entry: &&RequestEntry| entry.outcome.is_some() && entry.writing.is_some();
        self.entries.values().filter(waiting).count()
    }

    /// The clients that have most requests open.
    pub(crate) fn top_clients(&self, clients: usize) -> Vec<(Client, usize)> {
        self.asked.top(clients)
    }

    /// Requests that are open.
    pub(crate) fn open_count(&self) -> usize {
        self.deadlines.len()
    }
}
