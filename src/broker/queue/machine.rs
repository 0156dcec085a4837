//! One partition as a queue group has it: which records are out with whom, which wait, which are done. Pure: events and
//! `now` in, changes to keep out; no clock, no files, no tasks.
//!
//! Only what is *not* done between the floor and the cursor is held, as spans of offsets in the same state; whatever is
//! there without a span is done. So a million records done above a floor cost nothing.
//!
//! ```text
//!          floor = first span        cursor
//! done ------|==leased==|  done  |=waiting=|------ not looked at yet
//! ```

mod counts;
mod due;
mod endings;
mod kept;
mod listed;
mod reopen;
mod skip;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::base::{Offset, TimestampMs};
use crate::catalog::{CHUNK_OFFSETS, Processed, Progress, QueueSettings};

use endings::Endings;
pub(crate) use kept::Keep;
pub(crate) use listed::{Listed, ListedState};
pub(crate) use reopen::{FURTHEST_CHUNKS, TooMuch};
pub(crate) use skip::NotSkipped;

/// A member of a group, unique as long as the broker runs.
pub type MemberId = u64;

/// Who has a record while it is written to the dead-letter topic.
pub(crate) const BURIAL: MemberId = 0;

/// Failed deliveries of a record that is to be a dead letter for another reason.
pub(crate) const CONDEMNED: u32 = u32::MAX;

/// When a record is due that was given back: before everything else, and among those given back by offset, so that nothing
/// behind it overtakes it.
const RELEASED: TimestampMs = 0;

/// Spans beyond which nothing new is looked at: what waits must be done first.
pub(crate) const MAX_SPANS: usize = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Leased {
        member: MemberId,
        deadline: TimestampMs,
    },
    Waiting {
        due: TimestampMs,
    },
    /// Behind another record of its key; when it may be delivered once that is done, if it says so.
    Blocked {
        due: Option<TimestampMs>,
    },
}

/// Records in a row in the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    end: Offset,
    /// Deliveries that failed.
    failed: u32,
    state: State,
    /// Of groups that are ordered by key: whose turn it is when this is done. Such spans are of one record.
    key: Option<u64>,
}

/// A record as the cursor comes to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) offset: Offset,
    /// A hash of its key, in a group that is ordered by key.
    pub(crate) key: Option<u64>,
    /// When it may be delivered, if it says so.
    pub(crate) deliver_at: Option<TimestampMs>,
    /// What becomes of it, if the group does not get it.
    pub(crate) skip: Option<Processed>,
    /// It is to be a dead letter, whatever its deliveries.
    pub(crate) condemned: bool,
}

/// A span that is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) failed: u32,
    /// It was delivered often enough.
    pub(crate) dead: bool,
}

/// What became of a request about deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Records that it was good for.
    pub settled: u64,
    /// Records that are with another member by now, or were never delivered.
    pub lost: u64,
}

/// How many records are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) leased: u64,
    pub(crate) waiting: u64,
}

#[derive(Debug)]
pub(crate) struct Machine {
    rules: QueueSettings,
    cursor: Offset,
    spans: BTreeMap<Offset, Span>,
    deadlines: BTreeSet<(TimestampMs, Offset)>,
    dues: BTreeSet<(TimestampMs, Offset)>,
    /// The keys that have a record out or waiting, and who waits behind it.
    keys: HashMap<u64, VecDeque<Offset>>,
    /// Read at the start, at or above the cursor: what is done, as ranges.
    known_done: BTreeMap<Offset, Offset>,
    /// Read at the start, at or above the cursor: what has failed before, and when it is due.
    known_failed: BTreeMap<Offset, (u32, TimestampMs)>,
    dirty: BTreeSet<u64>,
    kept_floor: Option<Offset>,
    kept_chunks: BTreeSet<u64>,
    pub(crate) redeliveries: u64,
    endings: Endings,
    /// By how much the records that members have out grew or shrank since it was asked for.
    out: HashMap<MemberId, i64>,
    /// Steps of the clock that timers have followed; `None` before the first look at it.
    steps: Option<i64>,
}

impl Machine {
    /// Goes on where the kept progress ends; `start` if there is none.
    pub(crate) fn new(rules: QueueSettings, progress: Option<&Progress>, start: Offset) -> Self {
        let kept_floor = progress.and_then(|progress| progress.position.as_ref()).map(|position| position.offset);
        let mut machine = Self {
            rules,
            cursor: kept_floor.unwrap_or(start),
            spans: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dues: BTreeSet::new(),
            keys: HashMap::new(),
            known_done: BTreeMap::new(),
            known_failed: BTreeMap::new(),
            dirty: BTreeSet::new(),
            kept_floor,
            kept_chunks: BTreeSet::new(),
            redeliveries: 0,
            endings: Endings::default(),
            out: HashMap::new(),
            steps: None,
        };
        for (&number, chunk) in progress.into_iter().flat_map(|progress| &progress.chunks) {
            let base = number * CHUNK_OFFSETS;
            machine.kept_chunks.insert(number);
            for &(at, len) in &chunk.done {
                let (from, to) = (base + u64::from(at), base + u64::from(at) + u64::from(len));
                match machine.known_done.last_entry() {
                    Some(mut last) if *last.get() == from => *last.get_mut() = to,
                    _ => drop(machine.known_done.insert(from, to)),
                }
            }
            for failed in &chunk.failed {
                let what = (failed.deliveries, failed.due_ms);
                machine.known_failed.insert(base + u64::from(failed.at), what);
            }
        }
        machine.pass_done();
        if kept_floor.is_none() {
            machine.endings.add(0, start, Processed::Skipped);
        }
        machine
    }

    pub(crate) fn set_rules(&mut self, rules: QueueSettings) {
        self.rules = rules;
    }

    /// The next offset to look at.
    pub(crate) fn cursor(&self) -> Offset {
        self.cursor
    }

    /// Everything below is done.
    pub(crate) fn floor(&self) -> Offset {
        self.spans.first_key_value().map_or(self.cursor, |(first, _)| *first)
    }

    /// Whether something new may be looked at.
    pub(crate) fn has_room(&self) -> bool {
        self.spans.len() < MAX_SPANS
    }

    /// Whether the record is done.
    pub(crate) fn is_done(&self, offset: Offset) -> bool {
        if offset >= self.cursor {
            return self.known_done.range(..=offset).next_back().is_some_and(|(_, end)| *end > offset);
        }
        self.spans.range(..=offset).next_back().is_none_or(|(_, span)| span.end <= offset)
    }

    /// By how much the records that each member has out grew or shrank since this was asked last.
    pub(crate) fn take_out(&mut self) -> HashMap<MemberId, i64> {
        std::mem::take(&mut self.out)
    }

    /// When something happens by itself after `now`: a lease ends, or a record is due. What is due already waits for a member that
    /// has room, and not for a time.
    pub(crate) fn next_timer(&self, now: TimestampMs) -> Option<TimestampMs> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let due = self.dues.range((now.saturating_add(1), 0)..).next().map(|(at, _)| *at);
        match (deadline, due) {
            (Some(deadline), Some(due)) => Some(deadline.min(due)),
            (deadline, due) => deadline.or(due),
        }
    }

    /// Ends the leases whose time has passed; their records fail. How many those were.
    pub(crate) fn expire(&mut self, now: TimestampMs) -> u64 {
        let mut expired = 0;
        while let Some(&(deadline, from)) = self.deadlines.first()
            && deadline <= now
        {
            let Some(span) = self.take(from) else { break };
            expired += span.end - from;
            self.fail(from, span, None, now);
        }
        expired
    }

    /// What is due again, the earliest first.
    pub(crate) fn due(&self, now: TimestampMs) -> Option<Due> {
        let &(due, from) = self.dues.first()?;
        let span = self.spans.get(&from).filter(|_| due <= now)?;
        let dead = span.failed >= self.rules.max_deliveries;
        Some(Due { from, to: span.end, failed: span.failed, dead })
    }

    /// The cursor comes to a record; `true` if it is now leased to the member, as its first delivery.
    pub(crate) fn admit(&mut self, seen: Seen, member: MemberId, now: TimestampMs) -> bool {
        let Seen { offset, key, deliver_at, skip, condemned } = seen;
        if offset < self.cursor {
            return false;
        }
        let done = self.is_done(offset);
        if let Some(ending) = skip.filter(|_| !done) {
            self.endings.add(offset, offset + 1, ending);
        }
        let done = skip.is_some() || done;
        let failed = self.known_failed.get(&offset).copied();
        self.pass(offset);
        // It may lead further, over what was known to be done.
        self.cursor = self.cursor.max(offset + 1);
        self.touch(offset, offset + 1);
        self.pass_done();
        if done {
            return false;
        }
        let (failed, due) = match (failed, deliver_at) {
            _ if condemned => (CONDEMNED, Some(now)),
            (Some((failed, due)), _) => (failed, Some(due)),
            (None, at) => (0, at.filter(|at| *at > now)),
        };
        let mut state = match due {
            Some(due) => State::Waiting { due },
            None => State::Leased { member, deadline: self.deadline(now) },
        };
        if let Some(key) = key {
            match self.keys.entry(key) {
                std::collections::hash_map::Entry::Occupied(mut others) => {
                    others.get_mut().push_back(offset);
                    state = State::Blocked { due };
                }
                std::collections::hash_map::Entry::Vacant(vacant) => drop(vacant.insert(VecDeque::new())),
            }
        }
        self.put(offset, Span { end: offset + 1, failed, state, key });
        matches!(state, State::Leased { .. })
    }

    /// The cursor passes everything below `to`: there are no more records there.
    pub(crate) fn pass(&mut self, to: Offset) {
        if to > self.cursor {
            let mut from = self.cursor;
            for (&done, &end) in self.known_done.range(from..to) {
                self.endings.add(from, done, Processed::Deleted);
                from = end;
            }
            self.endings.add(from, to, Processed::Deleted);
            // A batch's gap can be wide; chunks that nothing was kept of need not be looked at.
            self.touch(self.cursor.max(to.saturating_sub(CHUNK_OFFSETS)), to);
            self.cursor = to;
        }
        self.pass_done();
    }

    fn pass_done(&mut self) {
        while let Some((&from, &to)) = self.known_done.first_key_value()
            && from <= self.cursor
        {
            self.known_done.remove(&from);
            self.cursor = self.cursor.max(to);
        }
        while let Some((&at, _)) = self.known_failed.first_key_value()
            && at < self.cursor
        {
            self.known_failed.remove(&at);
        }
    }

    /// A record is a dead letter, whatever was known of it.
    pub(crate) fn mark_buried(&mut self, offset: Offset, now: TimestampMs) {
        self.mark_done(offset, Processed::DeadLettered, now);
    }

    fn mark_done(&mut self, offset: Offset, ending: Processed, now: TimestampMs) {
        self.endings.add(offset, offset + 1, ending);
        if offset >= self.cursor {
            if !self.is_done(offset) {
                self.known_done.insert(offset, offset + 1);
            }
            self.known_failed.remove(&offset);
            self.touch(offset, offset + 1);
            self.pass_done();
            return;
        }
        for (from, span) in self.carve(offset, offset + 1) {
            self.done(from, span, now);
        }
    }

    fn deadline(&self, now: TimestampMs) -> TimestampMs {
        now.saturating_add_unsigned(self.rules.lease_ms)
    }

    /// A member has done these records. One whose lease has ended may still say so, unless another has them by now.
    pub(crate) fn ack(&mut self, member: MemberId, from: Offset, to: Offset, now: TimestampMs) -> Settled {
        self.settle(from, to, |machine, at, span| match span.state {
            State::Leased { member: with, .. } if with == member => {
                if member == BURIAL {
                    machine.endings.add(at, span.end, Processed::DeadLettered);
                }
                machine.done(at, span, now);
                true
            }
            State::Waiting { .. } if span.failed > 0 => {
                machine.done(at, span, now);
                true
            }
            _ => {
                machine.put(at, span);
                false
            }
        })
    }

    /// A member could not do these records; they come again after `delay_ms`, or as the rules say.
    pub(crate) fn nack(
        &mut self,
        member: MemberId,
        (from, to): (Offset, Offset),
        delay_ms: Option<u64>,
        now: TimestampMs,
    ) -> Settled {
        self.leased(member, from, to, |machine, at, span| machine.fail(at, span, delay_ms, now))
    }

    /// A member gives records back that it has not handed on: they come again at once, before what comes behind them, and it was
    /// no delivery.
    pub(crate) fn release(&mut self, member: MemberId, from: Offset, to: Offset) -> Settled {
        self.leased(member, from, to, |machine, at, span| {
            machine.put(at, Span { state: State::Waiting { due: RELEASED }, ..span });
        })
    }

    /// A member needs more time.
    pub(crate) fn extend(&mut self, member: MemberId, from: Offset, to: Offset, now: TimestampMs) -> Settled {
        let deadline = self.deadline(now);
        self.leased(member, from, to, |machine, at, span| {
            machine.put(at, Span { state: State::Leased { member, deadline }, ..span });
        })
    }

    /// A member is gone. The first record that it had counts as delivered and failed; the others were probably still
    /// waiting in its hands.
    pub(crate) fn leave(&mut self, member: MemberId, now: TimestampMs) {
        let held = |span: &Span| matches!(span.state, State::Leased { member: with, .. } if with == member);
        let held: Vec<Offset> = self.spans.iter().filter(|(_, span)| held(span)).map(|(from, _)| *from).collect();
        for (nth, from) in held.into_iter().enumerate() {
            let Some(span) = self.take(from) else { continue };
            let mut rest = from;
            if nth == 0 {
                self.fail(from, Span { end: from + 1, ..span }, None, now);
                rest += 1;
            }
            if rest < span.end {
                self.put(rest, Span { state: State::Waiting { due: RELEASED }, ..span });
            }
        }
    }

    /// A member is gone that has handed on nothing of what it still had.
    pub(crate) fn give_back(&mut self, member: MemberId) {
        let held = |span: &Span| matches!(span.state, State::Leased { member: with, .. } if with == member);
        let held: Vec<Offset> = self.spans.iter().filter(|(_, span)| held(span)).map(|(from, _)| *from).collect();
        for from in held {
            if let Some(span) = self.take(from) {
                self.put(from, Span { state: State::Waiting { due: RELEASED }, ..span });
            }
        }
    }

    /// The log begins at `start` now: what was below is gone, and so done.
    pub(crate) fn forget_below(&mut self, start: Offset, now: TimestampMs) {
        for (from, span) in self.carve(0, start) {
            self.endings.add(from, span.end, Processed::Deleted);
            self.done(from, span, now);
        }
        self.pass(start);
    }

    /// What became of a record that is done, unless it was acked, as far as is remembered.
    pub(crate) fn ending(&self, offset: Offset) -> Option<Processed> {
        self.endings.of(offset)
    }

    fn settle(&mut self, from: Offset, to: Offset, mut each: impl FnMut(&mut Self, Offset, Span) -> bool) -> Settled {
        let mut result = Settled::default();
        for (at, span) in self.carve(from, to) {
            let records = span.end - at;
            if each(self, at, span) {
                result.settled += records;
            } else {
                result.lost += records;
            }
        }
        result.lost += to.saturating_sub(from.max(self.cursor));
        result
    }

    fn leased(
        &mut self,
        member: MemberId,
        from: Offset,
        to: Offset,
        mut each: impl FnMut(&mut Self, Offset, Span),
    ) -> Settled {
        self.settle(from, to, |machine, at, span| {
            let own = matches!(span.state, State::Leased { member: with, .. } if with == member);
            if own {
                each(machine, at, span);
            } else {
                machine.put(at, span);
            }
            own
        })
    }

    /// The delivery of a span that was taken out failed.
    fn fail(&mut self, from: Offset, span: Span, delay_ms: Option<u64>, now: TimestampMs) {
        let burial = matches!(span.state, State::Leased { member: BURIAL, .. });
        let failed = if burial { span.failed } else { span.failed.saturating_add(1) };
        let dead = failed >= self.rules.max_deliveries;
        let backoff = || {
            let doubled = self.rules.backoff_ms.saturating_mul(1 << failed.saturating_sub(1).min(32));
            doubled.min(self.rules.backoff_max_ms)
        };
        let delay = if dead && !burial { 0 } else { delay_ms.unwrap_or_else(backoff) };
        self.touch(from, span.end);
        self.put(from, Span { failed, state: State::Waiting { due: now.saturating_add_unsigned(delay) }, ..span });
    }

    /// A span that was taken out is done; the next of its key has its turn.
    fn done(&mut self, from: Offset, span: Span, now: TimestampMs) {
        self.touch(from, span.end);
        let Some(key) = span.key else { return };
        let Some(others) = self.keys.get_mut(&key) else { return };
        match others.pop_front() {
            None => drop(self.keys.remove(&key)),
            Some(next) => {
                if let Some(span) = self.take(next) {
                    let due = match span.state {
                        State::Blocked { due } => due.map_or(now, |due| due.max(now)),
                        _ => now,
                    };
                    self.put(next, Span { state: State::Waiting { due }, ..span });
                }
            }
        }
    }

    fn touch(&mut self, from: Offset, to: Offset) {
        if from < to {
            self.dirty.extend(from / CHUNK_OFFSETS..=(to - 1) / CHUNK_OFFSETS);
        }
    }

    fn take(&mut self, from: Offset) -> Option<Span> {
        let span = self.spans.remove(&from)?;
        match span.state {
            State::Leased { member, deadline } => {
                *self.out.entry(member).or_default() -= (span.end - from).cast_signed();
                self.deadlines.remove(&(deadline, from))
            }
            State::Waiting { due } => self.dues.remove(&(due, from)),
            State::Blocked { .. } => true,
        };
        Some(span)
    }

    /// Puts a span in its place, as one with that before it if they are alike.
    fn put(&mut self, from: Offset, span: Span) {
        if let State::Leased { member, .. } = span.state {
            *self.out.entry(member).or_default() += (span.end - from).cast_signed();
        }
        if span.key.is_none()
            && let Some((_, before)) = self.spans.range_mut(..from).next_back()
            && (before.end, before.failed, before.state, before.key) == (from, span.failed, span.state, None)
        {
            before.end = span.end;
            return;
        }
        match span.state {
            State::Leased { deadline, .. } => self.deadlines.insert((deadline, from)),
            State::Waiting { due } => self.dues.insert((due, from)),
            State::Blocked { .. } => true,
        };
        self.spans.insert(from, span);
    }

    /// Takes out what lies in a range, cut at its ends.
    fn carve(&mut self, from: Offset, to: Offset) -> Vec<(Offset, Span)> {
        if from >= to {
            return Vec::new();
        }
        let before = self.spans.range(..from).next_back().filter(|(_, span)| span.end > from).map(|(at, _)| *at);
        let inside = self.spans.range(from..to).map(|(at, _)| *at);
        let starts: Vec<Offset> = before.into_iter().chain(inside).collect();
        let mut pieces = Vec::with_capacity(starts.len());
        for at in starts {
            let Some(span) = self.take(at) else { continue };
            if at < from {
                self.put(at, Span { end: from, ..span });
            }
            pieces.push((at.max(from), Span { end: span.end.min(to), ..span }));
            if span.end > to {
                self.put(to, span);
            }
        }
        pieces
    }

    #[cfg(test)]
    pub(super) fn has(&self, member: MemberId, offset: Offset) -> bool {
        let span = self.spans.range(..=offset).next_back().filter(|(_, span)| span.end > offset);
        span.is_some_and(|(_, span)| matches!(span.state, State::Leased { member: with, .. } if with == member))
    }
}
