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
use crate::broker::{OffsetAt, Opened, PartitionReader, Portion, ReadAt, SETTLE, Unreadable};
use crate::expr::Filter;
use crate::record::json::{Headers, RecordLine, Text};
use crate::server::budget::Grant;

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
    /// The cursor behind it.
    pub after: Cursor,
}

/// What became of batches that were to be lines.
enum Took {
    All,
    /// There is no room for more.
    Some,
    /// The next record cannot be read.
    Unreadable(Unreadable),
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
        if wait.is_zero() {
            // Who does not wait gets all that was acknowledged to anyone.
            let until = Instant::now() + SETTLE;
            let reach = if self.filter.is_none() { max as Offset } else { Offset::MAX };
            for (reader, (_, offset)) in self.readers.iter_mut().zip(&self.cursor.0) {
                reader.settle(offset.saturating_add(reach), until).await?;
            }
        }
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
        let broker = &caller.shared.broker;
        let topic = self.topic.clone();
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
            let mut reading = caller.outgoing.take_some(LEAST_BYTES, READ_BYTES).await;
            let read = ReadAt { offset, max_bytes: reading.bytes(), skip_damaged: false };
            let fetched = self.readers[at].read(read).await?;
            reading.settle(fetched.bytes.len());
            at_end &= fetched.next_offset == offset;
            let (mut next_offset, mut batches) = (fetched.next_offset, fetched.bytes);
            if let Some(filter) = &self.filter {
                let left =
                    broker.filter(&caller.work, filter, topic.as_str(), partition, batches, (offset, false)).await?;
                (next_offset, batches) = (left.next.unwrap_or(next_offset), left.batches);
            }
            let before = bytes;
            let room = (max - lines.len(), FULL_BYTES - bytes);
            let taken = take_lines(caller, &self.cursor, at, &topic, batches, room).await?;
            bytes += taken.bytes;
            self.cursor = taken.cursor;
            lines.extend(taken.lines);
            let whole = match taken.took {
                Took::All => true,
                Took::Some => false,
                // What was read before it is handed out; the next read meets it first.
                Took::Unreadable(_) if !lines.is_empty() => {
                    at_end = false;
                    false
                }
                Took::Unreadable(unreadable) => {
                    return Err(broker.unreadable(topic.as_str(), partition, &unreadable).await.into());
                }
            };
            if whole {
                self.cursor.0[at].1 = next_offset.max(self.cursor.0[at].1);
                if let Some(last) = lines.last_mut() {
                    last.after = self.cursor.clone();
                }
            }
            match &mut grant {
                Some(grant) => grant.settle(bytes),
                None if bytes > before => {
                    reading.settle(bytes);
                    grant = Some(reading);
                }
                None => {}
            }
        }
        Ok((lines, grant, at_end))
    }
}

/// Turns batches of the partition that is `at` in the cursor into lines, as many as there is room for (records and bytes). The
/// work is the connection's.
async fn take_lines(
    caller: &Caller,
    cursor: &Cursor,
    at: usize,
    topic: &TopicName,
    batches: Bytes,
    room: (usize, usize),
) -> Result<Taking, Problem> {
    let mut taking = Taking {
        topic: topic.clone(),
        cursor: cursor.clone(),
        at,
        records: Opened::new(batches, cursor.0[at].1),
        room,
        lines: Vec::new(),
        bytes: 0,
        took: Took::All,
    };
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
    cursor: Cursor,
    at: usize,
    records: Opened,
    room: (usize, usize),
    lines: Vec<Line>,
    bytes: usize,
    took: Took,
}

impl Taking {
    /// Goes on for a portion; whether all is done.
    fn go_on(&mut self, portion: Portion) -> Result<bool, Problem> {
        loop {
            let record = match self.records.next() {
                None => return Ok(true),
                Some(Ok(record)) => record,
                Some(Err(unreadable)) => {
                    self.took = Took::Unreadable(unreadable);
                    return Ok(true);
                }
            };
            if self.lines.len() >= self.room.0 || self.bytes >= self.room.1 {
                self.took = Took::Some;
                return Ok(true);
            }
            let line = RecordLine {
                topic: self.topic.as_str(),
                partition: self.cursor.0[self.at].0,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref().map(Text),
                headers: Headers(&record.headers),
                value: record.value.as_deref().map(Text),
                attempt: None,
            };
            let json =
                serde_json::to_vec(&line).map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))?;
            self.bytes += json.len();
            self.cursor.0[self.at].1 = record.offset + 1;
            self.lines.push(Line { json, after: self.cursor.clone() });
            if portion.is_over() {
                return Ok(false);
            }
        }
    }
}
