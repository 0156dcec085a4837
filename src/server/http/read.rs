//! `GET /topics/{topic}`: records as a list, as lines, or as a stream of events.
//!
//! What retention deleted before a reader came to it is said, and reading goes on behind it: `missed` in a list, the header
//! `Tidelog-Missed` of lines, an event `missed` in a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::answer::{Answer, Caller, Content, answer_with, content, granted};
use super::cursor::Cursor;
use super::problem::Problem;
use super::query::{Query, topic_name};
use super::reading::{Missed, Piece, Reading};
use super::records::NDJSON;
use crate::base::{Isolation, Millis, PartitionId, StartAt};
use crate::expr::Filter;
use crate::server::budget::Grant;
use crate::server::tasks;

/// Records of an answer, if nobody says, and at most.
const RECORDS: usize = 100;
const MOST_RECORDS: usize = 10_000;
/// The longest wait.
const LONGEST_WAIT: Millis = Millis(60_000);
/// Positions of a cursor up to which every event has one. Beyond, only the last of those that are sent together has, so that an
/// event does not carry kilobytes of it.
const EACH: usize = 64;
/// What keeps a stream open that has nothing to say, and how often.
pub const ALIVE: &str = ": nothing new\n";
pub const EVERY: Duration = Duration::from_secs(15);
/// The header with which a stream goes on, and the one with the cursor for the next request.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NEXT: HeaderName = HeaderName::from_static("tidelog-next");
/// The header that says what was missed.
const MISSED: HeaderName = HeaderName::from_static("tidelog-missed");

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
    let known = ["from", "cursor", "partition", "max", "filter", "wait", "isolation", "values"];
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
    let isolation: Isolation = query.parse("isolation")?.unwrap_or_default();
    let cursor = cursor(caller, &topic, &query, request.headers(), isolation).await?;
    let json_values = match query.get("values") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Problem::wrong(format!("values={other}: there are text and json"))),
    };
    let mut reading = Reading::new(caller, topic, filter, isolation, cursor, form == Form::Events)?;
    reading.json_values = json_values;
    if form == Form::Events {
        return events(caller, reading, max).await;
    }
    let mut piece = reading.next(caller, max.unwrap_or(RECORDS), wait.as_duration()).await?;
    let next = reading.cursor.to_string();
    let grant = piece.grant.take();
    let mut answer = match form {
        Form::Lines => content(StatusCode::OK, NDJSON, held(in_lines(&piece), grant)),
        _ => content(StatusCode::OK, "application/json", held(in_list(&reading, &piece, &next), grant)),
    };
    if !piece.missed.is_empty()
        && let Ok(missed) = HeaderValue::from_str(&in_header(&piece.missed))
    {
        answer.headers_mut().insert(MISSED, missed);
    }
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
    isolation: Isolation,
) -> Result<Cursor, Problem> {
    let last = headers.get(LAST_EVENT_ID).map(|id| {
        let wrong = |_| Problem::wrong(format!("last-event-id {id:?} is no cursor"));
        id.to_str().map_err(wrong)
    });
    // An EventSource that has had no event yet sends none, or an empty one.
    let last = last.transpose()?.filter(|id| !id.is_empty());
    if let Some(text) = last.or(query.get("cursor")) {
        return text.parse().map_err(|error| Problem::wrong(format!("cursor {text:?}: {error}")));
    }
    let partition: Option<PartitionId> = query.parse("partition")?;
    let default = if form(headers) == Form::Events { StartAt::End } else { StartAt::Beginning };
    let from = query.parse::<StartAt>("from")?.unwrap_or(default);
    Cursor::at(caller, topic, partition, from, isolation).await
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

fn in_lines(piece: &Piece) -> Vec<u8> {
    let mut out = Vec::new();
    for line in &piece.lines {
        out.extend_from_slice(&line.json);
        out.push(b'\n');
    }
    out
}

/// `0:5-100, 1:0-7`: partition, first offset, and the one behind the last.
fn in_header(missed: &[Missed]) -> String {
    let ranges = missed.iter().filter_map(|missed| match missed {
        Missed::Deleted { partition, from, to } => Some(format!("{partition}:{from}-{to}")),
        Missed::Recreated => None,
    });
    ranges.collect::<Vec<_>>().join(", ")
}

fn in_list(reading: &Reading, piece: &Piece, next: &str) -> Vec<u8> {
    let mut out = format!("{{\"topic\":\"{}\",\"next\":\"{next}\",", reading.topic).into_bytes();
    if !piece.missed.is_empty() {
        out.extend_from_slice(format!("\"missed\":{},", serde_json::json!(piece.missed)).as_bytes());
    }
    out.extend_from_slice(b"\"records\":[");
    for (at, line) in piece.lines.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&line.json);
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// A stream: every record an event whose id is the cursor behind it. Where nothing comes a comment does, with the cursor, for a
/// filter may have passed over much.
async fn events(caller: &Arc<Caller>, mut reading: Reading, max: Option<usize>) -> Result<Answer, Problem> {
    // What is wrong with the place to begin is said as a status.
    let mut before = reading.cursor.clone();
    let first = reading.next(caller, max.unwrap_or(RECORDS).min(RECORDS), Duration::ZERO).await?;
    let (sender, receiver) = mpsc::channel(1);
    let caller = caller.clone();
    tasks::spawn("event stream", async move {
        let mut left = max;
        let mut next = Ok(first);
        loop {
            let piece = match next {
                Ok(mut piece) => {
                    left = left.map(|left| left.saturating_sub(piece.lines.len()));
                    let grant = piece.grant.take();
                    let events = in_events(&piece, before, &reading);
                    before = reading.cursor.clone();
                    held(events, grant)
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

/// The events of a piece that was read from a cursor on, up to where the reader is now.
fn in_events(piece: &Piece, mut cursor: Cursor, reading: &Reading) -> Vec<u8> {
    let mut out = Vec::new();
    for missed in &piece.missed {
        let mut said = serde_json::json!(missed);
        if let Some(said) = said.as_object_mut() {
            said.insert("topic".to_owned(), reading.topic.as_str().into());
        }
        out.extend_from_slice(format!("event: missed\ndata: {said}\n\n").as_bytes());
    }
    // Where positions were added or set anew, the ones before count no more.
    let is_each = reading.cursor.positions.len() <= EACH && cursor.positions.len() == reading.cursor.positions.len();
    for (at, line) in piece.lines.iter().enumerate() {
        let (position, next) = line.after;
        if at + 1 == piece.lines.len() {
            out.extend_from_slice(format!("id: {}\n", reading.cursor).as_bytes());
        } else if is_each {
            cursor.topic = reading.cursor.topic;
            cursor.positions[position].1 = next;
            out.extend_from_slice(format!("id: {cursor}\n").as_bytes());
        }
        out.extend_from_slice(b"event: record\ndata: ");
        out.extend_from_slice(&line.json);
        out.extend_from_slice(b"\n\n");
    }
    if piece.lines.is_empty() {
        // An id without data is no event, but what an EventSource begins at when it comes again.
        out.extend_from_slice(format!("{ALIVE}id: {}\n\n", reading.cursor).as_bytes());
    }
    out
}
