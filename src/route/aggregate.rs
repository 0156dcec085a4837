//! Putting parts back together. A state machine: a part and the time in, what follows from it out.
//!
//! Parts of one whole have the same `tidelog-correlation-id`; `tidelog-part` says which each is and how many there are. What is
//! held is only what is not complete, so it can be built anew from the log by reading the parts that are open.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::base::{Millis, Offset, TimestampMs, limits};
use crate::record::{Headers, Record};

use super::evaluate::{Failure, fail};
use super::{CORRELATION, HOPS, PART};

/// What follows from a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Others are missing.
    Waiting,
    /// It was the last: the whole, at this part's offset. Key and headers are those of the first part, the value is the parts'
    /// values as a JSON array.
    Complete(Box<Record>),
    /// It is no part, or none that can be used.
    Refused(Failure),
}

/// A part that waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Its offset.
    pub offset: Offset,
    /// When the first part of its whole came.
    pub since_ms: TimestampMs,
}

/// Parts that waited too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What they have in common.
    pub correlation: Bytes,
    /// When the first came.
    pub since_ms: TimestampMs,
    /// Those that are there, in order of their offsets.
    pub there: Vec<Record>,
    /// What is missing, in words.
    pub failure: Failure,
}

/// The parts that wait for others, of one partition.
#[derive(Debug)]
pub struct Aggregate {
    timeout: Millis,
    wholes: HashMap<Bytes, Whole>,
    /// By when they began.
    by_age: BTreeMap<(TimestampMs, Bytes), ()>,
    parts: usize,
    bytes: usize,
    /// The whole that was completed last, and the offset of the part that completed it.
    completed: Option<(Bytes, Whole, Offset)>,
    /// Steps of the clock that the times of wholes have followed; `None` before the first look at it.
    steps: Option<i64>,
}

#[derive(Debug)]
struct Whole {
    since_ms: TimestampMs,
    count: usize,
    parts: BTreeMap<usize, Record>,
}

impl Aggregate {
    /// Nothing waits.
    pub fn new(timeout: Millis) -> Self {
        Self {
            timeout,
            wholes: HashMap::new(),
            by_age: BTreeMap::new(),
            parts: 0,
            bytes: 0,
            completed: None,
            steps: None,
        }
    }

    /// Parts that wait for others.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The clock has made so many steps, in milliseconds, since the server started. How long a whole has waited does not change
    /// with them, so its time moves along.
    pub fn follow(&mut self, steps: i64) {
        let step = steps.saturating_sub(self.steps.replace(steps).unwrap_or(steps));
        if step == 0 {
            return;
        }
        self.by_age.clear();
        for (correlation, whole) in &mut self.wholes {
            whole.since_ms = whole.since_ms.saturating_add(step);
            self.by_age.insert((whole.since_ms, correlation.clone()), ());
        }
        if let Some((_, whole, _)) = &mut self.completed {
            whole.since_ms = whole.since_ms.saturating_add(step);
        }
    }

    /// Takes a part. `since_ms` is when its whole is taken to have begun if it is the first of it.
    pub fn add(&mut self, record: &Record, since_ms: TimestampMs) -> Effect {
        let (correlation, at, count) = match part_of(record) {
            Ok(found) => found,
            Err(message) => return Effect::Refused(fail("aggregate", message)),
        };
        let known = self.wholes.get(&correlation);
        let held = known.map(|whole| (whole.count, whole.parts.contains_key(&at)));
        let refused = match held {
            Some((other, _)) if other != count => Some(format!("it is part {at} of {count}, others are of {other}")),
            Some((_, true)) => Some(format!("part {at} of {count} is there already")),
            _ if self.parts >= limits::AGGREGATE_PARTS => {
                Some(format!("{} parts wait for others, the limit", limits::AGGREGATE_PARTS))
            }
            _ if self.bytes + weight(record) > limits::AGGREGATE_BYTES => {
                Some(format!("parts that wait for others have {} bytes, the limit", limits::AGGREGATE_BYTES))
            }
            _ => None,
        };
        if let Some(message) = refused {
            return Effect::Refused(fail("aggregate", message));
        }
        if held.is_none() {
            self.by_age.insert((since_ms, correlation.clone()), ());
        }
        let whole =
            self.wholes.entry(correlation.clone()).or_insert_with(|| Whole { since_ms, count, parts: BTreeMap::new() });
        // A copy: what it lies in is a chunk of a batch.
        whole.parts.insert(at, record.compact());
        self.parts += 1;
        self.bytes += weight(record);
        if whole.parts.len() < count {
            return Effect::Waiting;
        }
        let Some(whole) = self.remove(&correlation) else { return Effect::Waiting };
        let complete = together(&whole, record.offset);
        self.completed = Some((correlation, whole, record.offset));
        Effect::Complete(Box::new(complete))
    }

    /// Takes back the part that completed a whole just now: it will be added again.
    pub fn take_back(&mut self, offset: Offset) {
        let Some((correlation, mut whole, _)) = self.completed.take_if(|(.., completed)| *completed == offset) else {
            return;
        };
        whole.parts.retain(|_, record| record.offset != offset);
        if whole.parts.is_empty() {
            return;
        }
        self.parts += whole.parts.len();
        self.bytes += whole.parts.values().map(weight).sum::<usize>();
        self.by_age.insert((whole.since_ms, correlation.clone()), ());
        self.wholes.insert(correlation, whole);
    }

    fn remove(&mut self, correlation: &Bytes) -> Option<Whole> {
        let whole = self.wholes.remove(correlation)?;
        self.by_age.remove(&(whole.since_ms, correlation.clone()));
        self.parts -= whole.parts.len();
        self.bytes -= whole.parts.values().map(weight).sum::<usize>();
        Some(whole)
    }

    /// The parts that wait, in order of their offsets.
    pub fn open(&self) -> Vec<Open> {
        let of = |whole: &Whole| {
            let since_ms = whole.since_ms;
            whole.parts.values().map(move |record| Open { offset: record.offset, since_ms }).collect::<Vec<_>>()
        };
        let mut open: Vec<Open> = self.wholes.values().flat_map(of).collect();
        open.sort_by_key(|open| open.offset);
        open
    }

    /// When the next whole has waited too long.
    pub fn deadline(&self) -> Option<TimestampMs> {
        let ((since, _), ()) = self.by_age.first_key_value()?;
        Some(since.saturating_add(self.timeout.as_i64()))
    }

    /// Takes out what has waited too long, at most `most` wholes, the oldest first.
    pub fn expire(&mut self, now_ms: TimestampMs, most: usize) -> Vec<Waiting> {
        let mut expired = Vec::new();
        while expired.len() < most && self.deadline().is_some_and(|deadline| deadline <= now_ms) {
            let Some(((_, correlation), ())) = self.by_age.pop_first() else { break };
            let Some(whole) = self.remove(&correlation) else { continue };
            expired.push(self.late(correlation, whole));
        }
        expired
    }

    fn late(&self, correlation: Bytes, whole: Whole) -> Waiting {
        let missing: Vec<String> =
            (1..=whole.count).filter(|at| !whole.parts.contains_key(at)).take(20).map(|at| at.to_string()).collect();
        let count = whole.count - whole.parts.len();
        let more = if count > missing.len() { ", ..." } else { "" };
        let message =
            format!("{count} of {} parts missing after {}: {}{more}", whole.count, self.timeout, missing.join(", "));
        let mut there: Vec<Record> = whole.parts.into_values().collect();
        there.sort_by_key(|record| record.offset);
        Waiting { correlation, since_ms: whole.since_ms, there, failure: fail("aggregate", message) }
    }
}

/// The whole of which a record is a part, which part it is, and of how many.
fn part_of(record: &Record) -> Result<(Bytes, usize, usize), String> {
    let value = |name: &str| record.headers.get(name);
    let correlation = value(CORRELATION).ok_or_else(|| format!("it has no header '{CORRELATION}'"))?;
    let part = value(PART).ok_or_else(|| format!("it has no header '{PART}'"))?;
    let text = String::from_utf8_lossy(part);
    let numbers = text.split_once('/').and_then(|(at, count)| Some((at.parse().ok()?, count.parse().ok()?)));
    let within = numbers.filter(|(at, count)| (1..=*count).contains(at) && *count <= limits::ROUTE_PARTS);
    let (at, count) = within.ok_or_else(|| {
        format!("header '{PART}' is '{text}'; it must be like 2/5, of up to {} parts", limits::ROUTE_PARTS)
    })?;
    if let Some(value) = &record.value {
        serde_json::from_slice::<&RawValue>(value).map_err(|error| format!("the value is no JSON: {error}"))?;
    }
    Ok((Bytes::copy_from_slice(correlation), at, count))
}

fn together(whole: &Whole, offset: Offset) -> Record {
    let bytes: usize = whole.parts.values().map(weight).sum();
    let mut value = Vec::with_capacity(bytes + whole.count + 2);
    value.push(b'[');
    for (at, record) in whole.parts.values().enumerate() {
        if at > 0 {
            value.push(b',');
        }
        value.extend_from_slice(record.value.as_deref().unwrap_or(b"null"));
    }
    value.push(b']');
    let hops = |record: &Record| {
        let hops = record.headers.get(HOPS).and_then(|hops| std::str::from_utf8(hops).ok());
        hops.and_then(|hops| hops.parse::<u32>().ok()).unwrap_or(0)
    };
    let most = whole.parts.values().map(hops).max().unwrap_or(0);
    let timestamp = whole.parts.values().map(|record| record.timestamp).max().unwrap_or(-1);
    let first = whole.parts.values().next();
    let (key, mut headers) =
        first.map_or((None, Headers::new()), |record| (record.key.clone(), record.headers.clone()));
    headers.retain(|header| header.name != PART.as_bytes() && header.name != HOPS.as_bytes());
    if most > 0 {
        headers.push(HOPS, Some(most.to_string().as_bytes()));
    }
    Record { offset, timestamp, key, value: Some(Bytes::from(value)), headers }
}

fn weight(record: &Record) -> usize {
    let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
    field(&record.key) + field(&record.value) + record.headers.weight() + 64
}
