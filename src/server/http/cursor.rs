//! Where a reader is in the partitions of a topic, and reading on from there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use tokio::time::{Instant, sleep_until};

use super::answer::Caller;
use super::problem::Problem;
use crate::base::{ErrorKind, Offset, PartitionId, StartAt, TimestampMs, TopicName};
use crate::broker::{FilterAt, Next, OffsetAt, Opened, PartitionReader, Portion, Unreadable};
use crate::expr::Filter;
use crate::record::json::{RecordLine, Text};
use crate::server::budget::Grant;
use crate::server::reads::{self, Want};

/// Bytes read from a partition at a time, unless one batch is larger.
const READ_BYTES: usize = 256 * 1024;
/// What is enough to begin with when the budget is short.
const LEAST_BYTES: usize = 64 * 1024;
/// Bytes of JSON after which an answer is full.
const FULL_BYTES: usize = 4 * 1024 * 1024;
/// Partitions that one reader may read together.
const TOGETHER: u32 = 64;

/// The next offset in each partition. Written `0:15,1:7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<(PartitionId, Offset)>);

/// A record as a line of JSON, and where a reader is behind it.
pub struct Line {
    /// The JSON, without a line end.
    pub json: Vec<u8>,
    /// Which partition of the cursor it is from, and the next offset there.
    after: (usize, Offset),
}

/// What a line weighs beside its JSON.
const LINE_WEIGHT: usize = 64;

/// What became of batches that were to be lines.
enum Took {
    All,
    /// There is no room for more.
    Some,
    /// The next record cannot be read.
    Unreadable(Unreadable),
    /// There is no room for the next record, of so many bytes.
    Larger(usize),
}

/// What is read, and from where.
pub struct Reading {
    /// The topic.
    pub topic: TopicName,
    /// What a record must meet.
    pub filter: Option<Arc<Filter>>,
    /// Where reading goes on.
    pub cursor: Cursor,
    /// One for each partition of the cursor.
    readers: Vec<PartitionReader>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is written PARTITION:OFFSET, with commas, like 0:15,1:7".to_owned();
        let mut positions = Vec::new();
        for part in text.split(',') {
            let (partition, offset) = part.trim().split_once(':').ok_or_else(wrong)?;
            let partition: PartitionId = partition.parse().map_err(|_| wrong())?;
            positions.push((partition, offset.parse().map_err(|_| wrong())?));
            if positions.len() > TOGETHER as usize {
                return Err(format!("{TOGETHER} partitions are the most that can be read together"));
            }
        }
        positions.sort_unstable();
        if let Some(pair) = positions.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("partition {} is named twice", pair[0].0));
        }
        Ok(Self(positions))
    }
}

impl Cursor {
    /// Moves behind a line.
    pub fn pass(&mut self, line: &Line) {
        if let Some(place) = self.0.get_mut(line.after.0) {
            place.1 = line.after.1;
        }
    }

    /// The places in a topic, or in one of its partitions, that a start stands for.
    ///
    /// # Errors
    /// There is no such topic or partition, or offset in it; there are too many partitions to be read together.
    pub async fn at(
        caller: &Caller,
        topic: &TopicName,
        partition: Option<PartitionId>,
        from: StartAt,
    ) -> Result<Self, Problem> {
        let broker = &caller.shared.broker;
        let count = broker.metadata(topic, false).await?.partitions;
        let partitions: Vec<PartitionId> = match partition {
            Some(partition) => vec![partition],
            None if count > TOGETHER => {
                let detail =
                    format!("the topic has {count} partitions; {TOGETHER} can be read together: say partition=N");
                return Err(Problem::wrong(detail));
            }
            None => (0..count).collect(),
        };
        let mut positions = Vec::new();
        for partition in partitions {
            let offset = async |at| broker.list_offset(topic.as_str(), partition, at).await.map(|(offset, _)| offset);
            let begin = offset(OffsetAt::Beginning).await?;
            let at = match from {
                StartAt::Beginning => begin,
                StartAt::End => offset(OffsetAt::End).await?,
                StartAt::Offset(offset) => offset,
                StartAt::Last(count) => offset(OffsetAt::End).await?.saturating_sub(count).max(begin),
                StartAt::Time(time) => offset(OffsetAt::Timestamp(time)).await?,
                StartAt::Ago(span) => {
                    let span = TimestampMs::try_from(span.as_millis()).unwrap_or(TimestampMs::MAX);
                    offset(OffsetAt::Timestamp(caller.shared.clock.now_ms().saturating_sub(span))).await?
                }
            };
            positions.push((partition, at));
        }
        Ok(Self(positions))
    }
}

impl Reading {
    /// Finds the partitions of a cursor.
    ///
    /// # Errors
    /// There is no such topic or partition.
    pub fn new(
        caller: &Caller,
        topic: TopicName,
        filter: Option<Arc<Filter>>,
        cursor: Cursor,
    ) -> Result<Self, Problem> {
        let handle = caller.shared.broker.handle(topic.as_str())?;
        let readers = cursor.0.iter().map(|(partition, _)| handle.reader(*partition)).collect::<Result<_, _>>()?;
        Ok(Self { topic, filter, cursor, readers })
    }

    /// Reads on: what there is, at most `max` records and not much more than fits an answer; if there is nothing, what
    /// comes within `wait`. The grant is of what the lines hold.
    ///
    /// # Errors
    /// The broker's.
    pub async fn next(
        &mut self,
        caller: &Caller,
        max: usize,
        wait: Duration,
    ) -> Result<(Vec<Line>, Option<Grant>), Problem> {
        let deadline = Instant::now() + wait;
        loop {
            let (lines, grant, at_end) = self.there(caller, max).await?;
            if !lines.is_empty() {
                return Ok((lines, grant));
            }
            drop(grant);
            if !at_end {
                continue;
            }
            if wait.is_zero() {
                return Ok((lines, None));
            }
            let changed = select_all(self.readers.iter_mut().map(|reader| Box::pin(reader.changed())));
            tokio::select! {
                _ = changed => {}
                () = sleep_until(deadline) => return Ok((lines, None)),
                () = caller.shared.stopped() => return Ok((lines, None)),
            }
        }
    }

    /// One round over the partitions; whether all of them were at their end.
    async fn there(&mut self, caller: &Caller, max: usize) -> Result<(Vec<Line>, Option<Grant>, bool), Problem> {
        let (mut lines, mut bytes, mut at_end) = (Vec::new(), 0, true);
        let mut grant: Option<Grant> = None;
        for at in 0..self.cursor.0.len() {
            if lines.len() >= max || bytes >= FULL_BYTES {
                at_end = false;
                break;
            }
            let (partition, offset) = self.cursor.0[at];
            if self.readers[at].is_at_end(offset)? {
                continue;
            }
            let room = (max - lines.len(), FULL_BYTES - bytes);
            // Whoever holds lines waits for no room: it hands them out.
            let Some(mut part) = self.part(caller, at, room, lines.is_empty()).await? else {
                at_end = false;
                break;
            };
            at_end &= part.at_end;
            let before = bytes;
            bytes += part.taking.bytes;
            self.cursor.0[at].1 = part.taking.next;
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
                self.cursor.0[at].1 = part.next_offset.max(self.cursor.0[at].1);
                if let Some(last) = lines.last_mut().filter(|line: &&mut Line| line.after.0 == at) {
                    last.after.1 = self.cursor.0[at].1;
                }
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
        let (partition, offset) = self.cursor.0[at];
        let mut want = Want { offset, skip_damaged: false, least: LEAST_BYTES, most: READ_BYTES, keep: 0 };
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
        let (partition, offset) = self.cursor.0[at];
        Taking {
            topic: self.topic.clone(),
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
                value: record.value.as_deref().map(Text),
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
