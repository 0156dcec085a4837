//! Durable requests: asked (`POST /requests/{topic}?durable=true`), looked at and waited for (`GET /requests/{id}`), cancelled
//! (`DELETE /requests/{id}`), listed (`GET /requests`).
//!
//! | what became of it | status |
//! |---|---|
//! | it is on the disk, and open when the wait is over | 202, what is known of it, its place in `Location` |
//! | a reply | 200, its body and headers as those of a request in memory |
//! | an error reply | 422, with `code` and `text` |
//! | nothing came before its deadline | 504 |
//! | it was cancelled | 410 |
//!
//! Every answer names it in `Tidelog-Request-Id`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{Answer, Caller, content, finished, granted, json as json_answer};
use super::body::{self, Taken};
use super::problem::Problem;
use super::query::{Query, part_of_path, topic_name};
use super::{records, requests};
use crate::base::{ErrorKind, Millis, RequestId, TopicName, limits};
use crate::broker::{self, Content, DurableRequest, RequestFilter};
use crate::catalog::{OutcomeKind, RequestEntry};
use crate::record::{Headers, Record};

/// What a request waits for its outcome, and a look at it, at the most.
const LONGEST_WAIT: Millis = Millis(60_000);
/// The longest time that a durable request may take.
const LONGEST: Millis = Millis(365 * 24 * 3_600_000);
/// Requests in a list if nothing is said, and at the most.
const LISTED: (usize, usize) = (100, 1000);
/// A request can be asked again with the same key, and is the same then.
pub const KEY: &str = "idempotency-key";
/// Which request it is.
const ID: HeaderName = HeaderName::from_static("tidelog-request-id");

/// Whether a request asks to be kept.
pub fn is_asked_for(query: &Query) -> Result<bool, Problem> {
    let durable: bool = query.parse("durable")?.unwrap_or(false);
    if !durable && let Some(name) = ["id", "callback", "wait"].into_iter().find(|name| query.get(name).is_some()) {
        return Err(Problem::wrong(format!("'{name}' goes with durable=true")));
    }
    Ok(durable)
}

/// Takes a request in, and waits for its outcome as long as it is told to. It is asked even if the client goes away.
///
/// # Errors
/// The request is wrong, the broker refuses, or anything but a reply came of it.
pub async fn ask(
    caller: &Arc<Caller>,
    topic: TopicName,
    itinerary: VecDeque<TopicName>,
    timeout: Option<Millis>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Problem> {
    let timeout = timeout.unwrap_or(Millis(limits::DURABLE_REQUEST_MS));
    if timeout.0 == 0 || timeout > LONGEST {
        return Err(Problem::wrong(format!("timeout={timeout}: allowed are 1ms to {LONGEST}")));
    }
    let callback =
        query.get("callback").map(|text| caller.shared.calls.callback(text)).transpose().map_err(Problem::wrong)?;
    // Who is called back need not wait.
    let wait = wait(query)?.unwrap_or(if callback.is_some() { Millis(0) } else { timeout.min(LONGEST_WAIT) });
    let (head, body) = request.into_parts();
    let key = head.headers.get(KEY).map(|key| key.to_str().map_err(|_| Problem::wrong("idempotency-key: no text")));
    let id = match (query.get("id"), key.transpose()?) {
        (Some(id), _) | (None, Some(id)) => read_id(id)?,
        (None, None) => RequestId::random(),
    };
    let Taken { bytes, grant } = body::take(caller, body).await?;
    let content = Content { headers: records::headers_of(&head.headers), body: bytes, hold: Some(Box::new(grant)) };
    let steps = std::iter::once(topic).chain(itinerary).collect();
    let (requester, timeout) = ("http".to_owned(), timeout.as_duration());
    let new = DurableRequest { id: id.clone(), steps, timeout, callback, requester, content };
    let held = Arc::clone(caller);
    let asked = finished("HTTP request", async move { Ok(held.shared.broker.ask_durable(new).await?) }).await;
    asked.map_err(|problem| match problem.kind() {
        // As `POST /topics` says of a key that was used for other records.
        ErrorKind::AlreadyExists => problem.with_status(StatusCode::UNPROCESSABLE_ENTITY),
        _ => problem,
    })?;
    outcome_of(caller, &id, wait.as_duration()).await
}

/// What became of a request.
///
/// # Errors
/// There is none of this id; anything but a reply came of it.
pub async fn show(caller: &Arc<Caller>, id: &str, query: Option<&str>) -> Result<Answer, Problem> {
    let query = Query::read(query, &["wait"])?;
    let wait = wait(&query)?.unwrap_or(Millis(0));
    outcome_of(caller, &read_id(&part_of_path(id)?)?, wait.as_duration()).await
}

/// Ends a request, unless it has ended; says what it is then.
///
/// # Errors
/// There is none of this id; the disk's.
pub async fn cancel(caller: &Arc<Caller>, id: &str, query: Option<&str>) -> Result<Answer, Problem> {
    Query::read(query, &[])?;
    let id = read_id(&part_of_path(id)?)?;
    let held = Arc::clone(caller);
    let entry = finished("HTTP request", async move { Ok(held.shared.broker.cancel_request(&id).await?) }).await?;
    Ok(json_answer(StatusCode::OK, &info(&entry)))
}

/// Requests, newest first. `next` is what to ask for as `before` to go on, if there are more.
///
/// # Errors
/// A parameter is wrong.
pub async fn list(caller: &Arc<Caller>, query: Option<&str>) -> Result<Answer, Problem> {
    let query = Query::read(query, &["state", "topic", "before", "max"])?;
    let max: usize = query.parse("max")?.unwrap_or(LISTED.0);
    if max == 0 || max > LISTED.1 {
        return Err(Problem::wrong(format!("max={max}: allowed are 1 to {}", LISTED.1)));
    }
    let state = query.get("state").map(str::to_owned);
    if let Some(state) = state.as_deref().filter(|state| !broker::REQUEST_STATES.contains(state)) {
        return Err(Problem::wrong(format!("state={state}: use one of {}", broker::REQUEST_STATES.join(", "))));
    }
    let filter = RequestFilter {
        state,
        topic: query.get("topic").map(topic_name).transpose()?,
        before: query.get("before").map(read_id).transpose()?,
        limit: max,
    };
    let broker = Arc::clone(&caller.shared.broker);
    let looked = tokio::task::spawn_blocking(move || broker.list_requests(&filter)).await;
    let (entries, more) =
        looked.map_err(|_| Problem::new(ErrorKind::Internal, "the requests could not be looked at"))??;
    let next = entries.last().filter(|_| more).map(|last| last.id.to_string());
    let requests: Vec<Value> = entries.iter().map(info).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "requests": requests, "next": next })))
}

fn wait(query: &Query) -> Result<Option<Millis>, Problem> {
    match query.parse("wait")? {
        Some(wait) if wait > LONGEST_WAIT => {
            Err(Problem::wrong(format!("wait={wait}: the longest wait is {LONGEST_WAIT}")))
        }
        wait => Ok(wait),
    }
}

fn read_id(text: &str) -> Result<RequestId, Problem> {
    RequestId::new(text).map_err(|error| Problem::wrong(error.to_string()))
}

async fn outcome_of(caller: &Arc<Caller>, id: &RequestId, wait: Duration) -> Result<Answer, Problem> {
    let broker = &caller.shared.broker;
    let (entry, record) = tokio::select! {
        found = broker.await_request(id, wait) => found?,
        () = caller.shared.stopped() => return Err(Problem::new(ErrorKind::ShuttingDown, "the server is stopping")),
    };
    let named = HeaderValue::from_str(id.as_str()).ok();
    let mut answer = match answer(caller, &entry, record) {
        Ok(answer) => answer,
        Err(problem) => problem.with("id", id.as_str()).answer(),
    };
    if let Some(named) = named {
        answer.headers_mut().insert(ID, named);
    }
    Ok(answer)
}

fn answer(caller: &Arc<Caller>, entry: &RequestEntry, record: Option<Record>) -> Result<Answer, Problem> {
    let (step, topic) =
        (entry.step, entry.steps.get(entry.step as usize).map_or_else(String::new, ToString::to_string));
    let Some(outcome) = &entry.outcome else {
        let mut answer = json_answer(StatusCode::ACCEPTED, &info(entry));
        if let Ok(place) = HeaderValue::from_str(&format!("/requests/{}", entry.id)) {
            answer.headers_mut().insert(header::LOCATION, place);
        }
        return Ok(answer);
    };
    match &outcome.kind {
        OutcomeKind::Replied => {
            let (value, headers) = record.map_or((None, Headers::new()), |record| (record.value, record.headers));
            let body = value.unwrap_or_default();
            let grant = caller.outgoing.try_take(body.len(), body.len()).ok_or_else(requests::no_room)?;
            let mut answer = content(StatusCode::OK, "application/octet-stream", granted(body.to_vec(), grant));
            requests::pass_on(&mut answer, headers.iter().filter(|header| !header.name.starts_with(OWN)));
            Ok(answer)
        }
        OutcomeKind::Failed { code, text } => Err(requests::failed(code.clone(), text.clone(), step, topic)),
        OutcomeKind::TimedOut => Err(requests::timed_out(step, topic)),
        OutcomeKind::Cancelled => Err(Problem::new(ErrorKind::NotFound, format!("request {} was cancelled", entry.id))
            .with_status(StatusCode::GONE)
            .with("outcome", "cancelled")
            .with("step", step)
            .with("topic", topic)),
    }
}

/// Headers that a reply's record has for the server's own ends.
const OWN: &[u8] = b"tidelog-";

/// What is known of a request, as the command line has it too.
fn info(entry: &RequestEntry) -> Value {
    let error = match entry.outcome.as_ref().map(|outcome| &outcome.kind) {
        Some(OutcomeKind::Failed { code, text }) => json!({ "code": code, "text": text }),
        _ => Value::Null,
    };
    json!({
        "id": entry.id.as_str(),
        "state": broker::state_name(entry),
        "steps": entry.steps.iter().map(TopicName::as_str).collect::<Vec<_>>(),
        "step": entry.step,
        "topic": entry.steps.get(entry.step as usize).map(TopicName::as_str),
        "requester": entry.requester,
        "created": entry.created_ms,
        "deadline": entry.deadline_ms,
        "finished": entry.outcome.as_ref().map(|outcome| outcome.finished_ms),
        "error": error,
        "callback": entry.callback.as_ref().map(|callback| callback.address()),
        "callback_state": broker::callback_state(entry),
    })
}
