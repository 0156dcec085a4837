//! Reading on from a cursor: records as lines of JSON, from all partitions of a topic, those that are added included.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answer::Caller;
use super::cursor::{Cursor, ShortId};
use super::problem::Problem;
use crate::base::{ErrorKind, Isolation, Offset, PartitionId, TopicId, TopicName};
use crate::broker::{FilterAt, Next, Opened, PartitionReader, Portion, SETTLE, Unreadable};
use crate::expr::Filter;
use crate::record::json::{RecordLine, Shown, Text};
use crate::server::budget::Grant;
use crate::server::reads::{self, Want};

/// Bytes read from a partition at a time, unless one batch is larger.
const READ_BYTES: usize = 256 * 1024;
/// What is enough to begin with when the budget is short.
const LEAST_BYTES: usize = 64 * 1024;
/// Bytes of JSON after which an answer is full.
const FULL_BYTES: usize = 4 * 1024 * 1024;

/// What a line weighs beside its JSON.
const LINE_WEIGHT: usize = 64;

/// A record as a line of JSON.
pub struct Line {
    /// The JSON, without a line end.
    pub json: Vec<u8>,
    /// Which position of the cursor is its, and what it is behind the record.
    pub after: (usize, Offset),
}

/// What a reader gets no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Missed {
    /// Retention, or a deletion, has passed the reader.
    Deleted {
        /// The partition.
        partition: PartitionId,
        /// The first offset that is missing.
        from: Offset,
        /// The offset behind the last one.
        to: Offset,
    },
    /// The topic was deleted and created again; reading goes on at the beginning of the new one.
    Recreated,
}

/// What was read at a time.
#[derive(Default)]
pub struct Piece {
    /// The records.
    pub lines: Vec<Line>,
    /// What was missed before them.
    pub missed: Vec<Missed>,
    /// Their share of the budget.
    pub grant: Option<Grant>,
}

impl Piece {
    /// Nothing worth saying.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.missed.is_empty()
    }
}

/// What became of batches that were to be lines.
enum Took {
    All,
    /// There is no room for more.
    Some,
    /// The next record has so many bytes, and there is no room for it.
    Larger(usize),
    /// The next record cannot be read.
    Unreadable(Unreadable),
}

/// What is read, and from where.
pub struct Reading {
    /// The topic.
    pub topic: TopicName,
    /// What a record must meet.
    pub filter: Option<Arc<Filter>>,
    /// What is seen of transactions.
    pub isolation: Isolation,
    /// Values that are JSON documents are told as such.
    pub json_values: bool,
    /// Where reading goes on.
    pub cursor: Cursor,
    id: TopicId,
    /// One for each position of the cursor.
    readers: Vec<PartitionReader>,
    /// Changes with the topics there are.
    topics: watch::Receiver<u64>,
    /// Not told yet.
    missed: Vec<Missed>,
}

impl Reading {
    /// Finds the partitions of a cursor. One that is of an earlier topic of this name goes on at the beginning of the
    /// present one if it is a stream's, which has a way to say so.
    ///
    /// # Errors
    /// There is no such topic or partition; the cursor is of an earlier topic.
    pub fn new(
        caller: &Caller,
        topic: TopicName,
        filter: Option<Arc<Filter>>,
        isolation: Isolation,
        mut cursor: Cursor,
        is_stream: bool,
    ) -> Result<Self, Problem> {
        let topics = caller.shared.broker.watch_topics();
        let handle = caller.shared.broker.handle(topic.as_str())?;
        let id = handle.id();
        let mut missed = Vec::new();
        if cursor.topic.is_some_and(|known| known != ShortId::from(id)) {
            if !is_stream {
                let detail = format!(
                    "topic '{topic}' was deleted and created again after cursor {cursor} was made; begin anew with \
                     from=beginning"
                );
                return Err(Problem::new(ErrorKind::NotFound, detail).with_status(http::StatusCode::GONE));
            }
            missed.push(Missed::Recreated);
            match cursor.all {
                true => cursor.positions.clear(),
                false => cursor.positions.iter_mut().for_each(|(_, offset)| *offset = 0),
            }
        }
        cursor.topic = Some(id.into());
        let readers =
            cursor.positions.iter().map(|(partition, _)| handle.reader(*partition)).collect::<Result<_, _>>()?;
        let mut reading = Self { topic, filter, isolation, json_values: false, cursor, id, readers, topics, missed };
        reading.take_in_partitions(caller)?;
        Ok(reading)
    }

    /// Takes in partitions that the topic has by now, from their beginning.
    fn take_in_partitions(&mut self, caller: &Caller) -> Result<(), Problem> {
        if !self.cursor.all {
            return Ok(());
        }
        // A topic that is gone, or another of its name: the readers say so.
        let Ok(handle) = caller.shared.broker.handle(self.topic.as_str()) else { return Ok(()) };
        if handle.id() != self.id || handle.partitions() as usize <= self.cursor.positions.len() {
            return Ok(());
        }
        for partition in 0..handle.partitions() {
            if let Err(at) = self.cursor.positions.binary_search_by_key(&partition, |(known, _)| *known) {
                let mut reader = handle.reader(partition)?;
                let begin = reader.look()?.log_start;
                self.cursor.positions.insert(at, (partition, begin));
                self.readers.insert(at, reader);
            }
        }
        Ok(())
    }

    /// Reads on: what there is, at most `max` records and not much more than fits an answer; if there is nothing, what
    /// comes within `wait`. With a filter that meets nothing, a reader that waits comes back after that time too, further on
    /// than it was.
    ///
    /// # Errors
    /// The broker's.
    pub async fn next(&mut self, caller: &Caller, max: usize, wait: Duration) -> Result<Piece, Problem> {
        let deadline = Instant::now() + wait;
        if wait.is_zero() {
            // Who does not wait gets all that was acknowledged to anyone.
            let until = Instant::now() + SETTLE;
            let reach = if self.filter.is_none() { max as Offset } else { Offset::MAX };
            for (reader, (_, offset)) in self.readers.iter_mut().zip(&self.cursor.positions) {
                reader.settle(offset.saturating_add(reach), until).await?;
            }
        }
        loop {
            if self.topics.has_changed().unwrap_or(false) {
                self.topics.borrow_and_update();
                self.take_in_partitions(caller)?;
            }
            let (lines, grant, at_end) = self.there(caller, max).await?;
            let piece = Piece { lines, missed: std::mem::take(&mut self.missed), grant };
            if !piece.is_empty() {
                return Ok(piece);
            }
            drop(piece);
            if !at_end && (wait.is_zero() || Instant::now() < deadline) {
                continue;
            }
            if wait.is_zero() || !at_end {
                return Ok(Piece::default());
            }
            let changed = select_all(self.readers.iter_mut().map(|reader| Box::pin(reader.changed())));
            tokio::select! {
                _ = changed => {}
                _ = self.topics.changed() => {
                    // Looked at above, where it counts as a change no more.
                    self.topics.mark_changed();
                }
                () = sleep_until(deadline) => return Ok(Piece::default()),
                () = caller.shared.stopped() => return Ok(Piece::default()),
            }
        }
    }

    /// One round over the partitions; whether all of them were at their end.
    async fn there(&mut self, caller: &Caller, max: usize) -> Result<(Vec<Line>, Option<Grant>, bool), Problem> {
        let (mut lines, mut bytes, mut at_end) = (Vec::new(), 0, true);
        let mut grant: Option<Grant> = None;
        for at in 0..self.cursor.positions.len() {
            if lines.len() >= max || bytes >= FULL_BYTES {
                at_end = false;
                break;
            }
            let (partition, offset) = self.cursor.positions[at];
            let log_start = self.readers[at].look()?.log_start;
            if offset < log_start {
                self.missed.push(Missed::Deleted { partition, from: offset, to: log_start });
                self.cursor.positions[at].1 = log_start;
            }
            let offset = offset.max(log_start);
            if self.readers[at].is_at_end(offset, self.isolation)? {
                continue;
            }
            let room = (max - lines.len(), FULL_BYTES - bytes);
            // Whoever holds lines waits for no room: it hands them out.
            let mut part = match self.part(caller, at, room, lines.is_empty()).await {
                Ok(Some(part)) => part,
                Ok(None) => {
                    at_end = false;
                    break;
                }
                // Retention has passed it since it was looked at.
                Err(problem) if problem.kind() == ErrorKind::OffsetOutOfRange && self.passed(at)? => {
                    at_end = false;
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            at_end &= part.at_end;
            let before = bytes;
            bytes += part.taking.bytes;
            self.cursor.positions[at].1 = part.taking.next;
            lines.append(&mut part.taking.lines);
            let whole = match part.taking.took {
                Took::All => true,
                Took::Some | Took::Larger(_) => {
                    at_end = false;
                    false
                }
                // What was read before it is handed out; the next read meets it first.
                Took::Unreadable(_) if !lines.is_empty() => {
                    at_end = false;
                    false
                }
                Took::Unreadable(unreadable) => {
                    let broker = &caller.shared.broker;
                    return Err(broker.unreadable(self.topic.as_str(), partition, &unreadable).await.into());
                }
            };
            if whole {
                let position = &mut self.cursor.positions[at].1;
                *position = part.next_offset.max(*position);
            }
            // As lines, and as the body that is made of them.
            match &mut grant {
                Some(grant) => grant.settle(2 * bytes),
                None if bytes > before => {
                    part.grant.settle(2 * bytes);
                    grant = Some(part.grant);
                }
                None => {}
            }
        }
        Ok((lines, grant, at_end))
    }

    /// Whether the log begins behind a position by now.
    fn passed(&mut self, at: usize) -> Result<bool, Problem> {
        Ok(self.readers[at].look()?.log_start > self.cursor.positions[at].1)
    }

    /// Reads a partition: as many records as there is room for (lines, and their bytes). `None` if there is no room in the
    /// budget and nobody is to wait for it.
    async fn part(
        &mut self,
        caller: &Caller,
        at: usize,
        (max, full): (usize, usize),
        waits: bool,
    ) -> Result<Option<Part>, Problem> {
        let broker = &caller.shared.broker;
        let (partition, offset) = self.cursor.positions[at];
        let (least, most) = (LEAST_BYTES, READ_BYTES);
        let mut want = Want { offset, skip_damaged: false, isolation: self.isolation, least, most, keep: 0 };
        loop {
            let reader = &mut self.readers[at];
            let read = match waits {
                true => Some(reads::read(&caller.outgoing, reader, want).await?),
                false => reads::try_read(&caller.outgoing, reader, want).await?,
            };
            let Some((fetched, grant)) = read else { return Ok(None) };
            let wire = fetched.bytes.len();
            // For the lines and the body, and what is held of a batch meanwhile.
            let room = reads::room(&caller.outgoing, (2 * LEAST_BYTES, 2 * full + reads::OPENED_BYTES));
            let made = room.bytes.max(want.keep.saturating_sub(wire));
            let record = want.largest_record(made);
            let (mut next_offset, mut batches) = (fetched.next_offset, fetched.bytes);
            let mut larger = None;
            if let Some(filter) = &self.filter {
                let how = FilterAt { from: offset, skip_damaged: false, most: record.min(made) };
                let place = (self.topic.as_str(), partition);
                let left = broker.filter(&caller.work, filter, place.0, place.1, batches, how).await?;
                (next_offset, batches, larger) = (left.next.unwrap_or(next_offset), left.batches, left.larger);
            }
            let taking = match larger {
                Some(bytes) => Taking { took: Took::Larger(bytes), ..self.taking(at, Bytes::new(), (0, 0), record) },
                None => take_lines(caller, self.taking(at, batches, (max, full.min(made / 2)), record)).await?,
            };
            if let (Took::Larger(bytes), true, true) = (&taking.took, taking.lines.is_empty(), want.keep == 0) {
                if !waits {
                    return Ok(None);
                }
                want = want.with_room_for(wire, *bytes);
                continue;
            }
            return Ok(Some(Part { taking, next_offset, at_end: next_offset == offset, grant }));
        }
    }

    /// Batches of the partition that is `at` in the cursor, to be turned into lines.
    fn taking(&self, at: usize, batches: Bytes, room: (usize, usize), record: usize) -> Taking {
        let (partition, offset) = self.cursor.positions[at];
        Taking {
            topic: self.topic.clone(),
            json_values: self.json_values,
            at,
            partition,
            next: offset,
            records: Opened::new(batches, offset),
            room,
            record,
            lines: Vec::new(),
            bytes: 0,
            took: Took::All,
        }
    }
}

/// What was read of a partition.
struct Part {
    taking: Taking,
    /// Where to go on when all of it is taken.
    next_offset: Offset,
    /// There was nothing.
    at_end: bool,
    grant: Grant,
}

/// Turns batches into lines, as many as there is room for. The work is the connection's.
async fn take_lines(caller: &Caller, taking: Taking) -> Result<Taking, Problem> {
    let mut taking = taking;
    loop {
        let portion = move |portion: Portion| {
            let done = taking.go_on(portion);
            (taking, done)
        };
        let done;
        (taking, done) = caller.shared.broker.work(&caller.work, portion).await?;
        if done? {
            return Ok(taking);
        }
    }
}

/// Batches that are being turned into lines.
struct Taking {
    topic: TopicName,
    json_values: bool,
    at: usize,
    partition: PartitionId,
    /// Behind the last line.
    next: Offset,
    records: Opened,
    /// Lines, and their bytes.
    room: (usize, usize),
    /// Bytes of the largest record that is opened.
    record: usize,
    lines: Vec<Line>,
    bytes: usize,
    took: Took,
}

impl Taking {
    /// Goes on for a portion; whether all is done.
    fn go_on(&mut self, portion: Portion) -> Result<bool, Problem> {
        loop {
            if self.lines.len() >= self.room.0 || self.bytes >= self.room.1 {
                self.took = Took::Some;
                return Ok(true);
            }
            let record = match self.records.next_within(self.record) {
                None => return Ok(true),
                Some(Next::Record(record)) => record,
                Some(Next::Unreadable(unreadable)) => {
                    self.took = Took::Unreadable(unreadable);
                    return Ok(true);
                }
                Some(Next::Larger(bytes)) => {
                    self.took = Took::Larger(bytes);
                    return Ok(true);
                }
            };
            let line = RecordLine {
                topic: self.topic.as_str(),
                partition: self.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref().map(Text),
                headers: &record.headers,
                value: record.value.as_deref().map(|value| Shown::of(value, self.json_values)),
                attempt: None,
            };
            let json =
                serde_json::to_vec(&line).map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))?;
            self.bytes += json.len() + LINE_WEIGHT;
            self.next = record.offset + 1;
            self.lines.push(Line { json, after: (self.at, self.next) });
            if portion.is_over() {
                return Ok(false);
            }
        }
    }
}
