//! `GET /topics/{topic}`: records as a list, as lines, or as a stream of events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::answer::{Answer, Caller, Content, answer_with, content, granted};
use super::cursor::{Cursor, Line, Reading};
use super::problem::Problem;
use super::query::{Query, topic_name};
use super::records::NDJSON;
use crate::base::{Millis, PartitionId, StartAt};
use crate::expr::Filter;
use crate::server::budget::Grant;
use crate::server::tasks;

/// Records of an answer, if nobody says, and at most.
const RECORDS: usize = 100;
const MOST_RECORDS: usize = 10_000;
/// The longest wait.
const LONGEST_WAIT: Millis = Millis(60_000);
/// What keeps a stream open that has nothing to say, and how often.
pub const ALIVE: &[u8] = b": nothing new\n\n";
pub const EVERY: Duration = Duration::from_secs(15);
/// The header with which a stream goes on, and the one with the cursor for the next request.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NEXT: HeaderName = HeaderName::from_static("tidelog-next");

/// How an answer of many comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All together.
    List,
    /// One a line.
    Lines,
    /// Server-sent events.
    Events,
}

/// Reads.
///
/// # Errors
/// The request is wrong, or the broker refuses.
pub async fn read(caller: &Arc<Caller>, topic: &str, request: &Request<Incoming>) -> Result<Answer, Problem> {
    let topic = topic_name(topic)?;
    let known = ["from", "cursor", "partition", "max", "filter", "wait"];
    let query = Query::read(request.uri().query(), &known)?;
    let form = form(request.headers());
    let wait: Millis = query.parse("wait")?.unwrap_or(Millis(0));
    if wait > LONGEST_WAIT {
        return Err(Problem::wrong(format!("wait={wait}: the longest wait is {LONGEST_WAIT}")));
    }
    let max: Option<usize> = query.parse("max")?;
    if max == Some(0) || (form != Form::Events && max.is_some_and(|max| max > MOST_RECORDS)) {
        return Err(Problem::wrong(format!("max={}: allowed are 1 to {MOST_RECORDS}", max.unwrap_or(0))));
    }
    let filter = query.get("filter").map(Filter::compile).transpose();
    let filter = filter.map_err(|error| Problem::wrong(format!("filter: {error}")))?.map(Arc::new);
    let cursor = cursor(caller, &topic, &query, request.headers()).await?;
    let mut reading = Reading::new(caller, topic, filter, cursor)?;
    if form == Form::Events {
        return events(caller, reading, max).await;
    }
    let (lines, grant) = reading.next(caller, max.unwrap_or(RECORDS), wait.as_duration()).await?;
    let next = reading.cursor.to_string();
    let mut answer = match form {
        Form::Lines => content(StatusCode::OK, NDJSON, held(in_lines(&lines), grant)),
        _ => content(StatusCode::OK, "application/json", held(in_list(&reading, &lines, &next), grant)),
    };
    if let Ok(next) = HeaderValue::from_str(&next) {
        answer.headers_mut().insert(NEXT, next);
    }
    Ok(answer)
}

/// The form that a client accepts.
pub fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let first = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    for kind in first {
        match kind.as_str() {
            "text/event-stream" => return Form::Events,
            NDJSON | "application/ndjson" | "application/jsonl" => return Form::Lines,
            "application/json" => return Form::List,
            _ => {}
        }
    }
    Form::List
}

/// Where to begin: behind the last event that a stream has had, at a cursor, or where `from` says; at the end, for a
/// stream to which nobody says anything, and at the beginning for a list.
async fn cursor(
    caller: &Caller,
    topic: &crate::base::TopicName,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Cursor, Problem> {
    let given = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).or(query.get("cursor"));
    if let Some(text) = given {
        return text.parse().map_err(|error| Problem::wrong(format!("cursor {text:?}: {error}")));
    }
    let partition: Option<PartitionId> = query.parse("partition")?;
    let default = if form(headers) == Form::Events { StartAt::End } else { StartAt::Beginning };
    let from = query.parse::<StartAt>("from")?.unwrap_or(default);
    Cursor::at(caller, topic, partition, from).await
}

fn held(bytes: Vec<u8>, grant: Option<Grant>) -> Bytes {
    match grant {
        Some(mut grant) => {
            grant.settle(bytes.len());
            granted(bytes, grant)
        }
        None => bytes.into(),
    }
}

fn in_lines(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        out.extend_from_slice(&line.json);
        out.push(b'\n');
    }
    out
}

fn in_list(reading: &Reading, lines: &[Line], next: &str) -> Vec<u8> {
    let mut out = format!("{{\"topic\":\"{}\",\"next\":\"{next}\",\"records\":[", reading.topic).into_bytes();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&line.json);
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// A stream: every record an event whose id is the cursor behind it.
async fn events(caller: &Arc<Caller>, mut reading: Reading, max: Option<usize>) -> Result<Answer, Problem> {
    let cursor = reading.cursor.clone();
    // What is wrong with the place to begin is said as a status.
    let (first, grant) = reading.next(caller, max.unwrap_or(RECORDS).min(RECORDS), Duration::ZERO).await?;
    let (sender, receiver) = mpsc::channel(1);
    let caller = caller.clone();
    tasks::spawn("event stream", async move {
        let mut left = max;
        let mut next = Ok((first, grant));
        // Behind the last event that was said.
        let mut cursor = cursor;
        loop {
            let piece = match next {
                Ok((lines, grant)) => {
                    left = left.map(|left| left.saturating_sub(lines.len()));
                    held(in_events(&mut cursor, &lines, &reading.cursor), grant)
                }
                Err(problem) => {
                    let last = format!("event: error\ndata: {}\n\n", Problem::body(&problem));
                    let _ = sender.send(last.into()).await;
                    break;
                }
            };
            if sender.send(piece).await.is_err() || left == Some(0) || caller.shared.is_stopping() {
                break;
            }
            let most = left.unwrap_or(RECORDS).min(RECORDS);
            next = tokio::select! {
                next = reading.next(&caller, most, EVERY) => next,
                () = sender.closed() => break,
            };
        }
        Ok::<(), std::convert::Infallible>(())
    });
    Ok(answer_with(StatusCode::OK, "text/event-stream", Content::Stream(receiver)))
}

/// Each line with the cursor behind it; the last with the one behind all that was looked at.
fn in_events(cursor: &mut Cursor, lines: &[Line], end: &Cursor) -> Vec<u8> {
    if lines.is_empty() {
        return ALIVE.to_vec();
    }
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        cursor.pass(line);
        if at + 1 == lines.len() {
            cursor.clone_from(end);
        }
        out.extend_from_slice(format!("id: {cursor}\nevent: record\ndata: ").as_bytes());
        out.extend_from_slice(&line.json);
        out.extend_from_slice(b"\n\n");
    }
    out
}
