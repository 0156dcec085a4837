//! `POST /requests/{topic}`: asks whoever responds on a topic, and answers with the reply. In memory, if it is not asked to be
//! [durable](super::durable).
//!
//! | what became of it | status |
//! |---|---|
//! | a reply | 200, its body, its headers as `Tidelog-Header-NAME`, `content-type` as itself |
//! | an error reply | 422, with `code` and `text` |
//! | nobody responds on the topic, or those who do have no room | 503, at once |
//! | nothing came in time | 504 |
//!
//! A reply may come in parts: they are one body then, each behind the one before, with the headers of the last word. Whoever
//! accepts events or lines gets each part as it comes ([`parts`](super::parts)).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::oneshot;

use super::answer::{Answer, Caller, content, granted};
use super::body::{self, Taken};
use super::problem::Problem;
use super::query::{Query, topic_name};
use super::read::{Form, form};
use super::{durable, parts, records};
use crate::base::{ErrorKind, Millis, TopicName};
use crate::broker::{Asker, Content, Ending, LiveRequest};
use crate::record::Header;
use crate::server::budget::{Account, Grant};

/// How long a reply is waited for if nothing is said, and the longest wait.
const WAIT: Millis = Millis(30_000);
const LONGEST_WAIT: Millis = Millis(3_600_000);
/// Topics of a chain behind the first.
const STEPS: usize = 100;
/// Bytes of a reply's headers that are passed on; what is beyond is left out.
const HEADER_BYTES: usize = 32 * 1024;

/// Asks, and waits for what becomes of it.
///
/// # Errors
/// The request is wrong, or anything but a reply came of it.
pub async fn ask(caller: &Arc<Caller>, topic: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    let topic = topic_name(topic)?;
    let query = Query::read(request.uri().query(), &["timeout", "then", "durable", "id", "callback", "wait"])?;
    let timeout: Option<Millis> = query.parse("timeout")?;
    if durable::is_asked_for(&query)? {
        let itinerary = itinerary(query.get("then"))?;
        return durable::ask(caller, topic, itinerary, timeout, &query, request).await;
    }
    let timeout = timeout.unwrap_or(WAIT);
    if request.headers().contains_key(durable::KEY) {
        return Err(Problem::wrong("Idempotency-Key goes with durable=true: a request in memory is not known again"));
    }
    if timeout.0 == 0 || timeout > LONGEST_WAIT {
        return Err(Problem::wrong(format!("timeout={timeout}: allowed are 1ms to {LONGEST_WAIT}")));
    }
    let itinerary = itinerary(query.get("then"))?;
    let (head, body) = request.into_parts();
    let Taken { bytes, mut grant } = body::take(caller, body).await?;
    // It is passed on as it is.
    grant.settle(bytes.len());
    let headers = records::headers_of(&head.headers);
    let content = Content { headers, body: bytes, hold: Some(Box::new(grant.asking())) };
    let request = LiveRequest { topic, itinerary, timeout: timeout.as_duration(), content };
    match form(&head.headers) {
        Form::List => {}
        form => return parts::ask(caller, form, request).await,
    }
    let (sender, receiver) = oneshot::channel();
    let waiting = Waiting {
        account: caller.outgoing.clone(),
        state: Mutex::new(State { parts: Vec::new(), held: Vec::new(), lost: false, sender: Some(sender) }),
    };
    // Whoever goes away gives up what was asked.
    let asker = Asking::new(caller);
    asker.ask(Arc::new(waiting), request);
    tokio::select! {
        answer = receiver => {
            answer.unwrap_or_else(|_| Err(Problem::new(ErrorKind::Internal, "the request ended without an outcome")))
        }
        evicted = caller.incoming.evicted() => Err(Problem::new(ErrorKind::Overloaded, evicted.to_string())),
        () = caller.shared.stopped() => Err(Problem::new(ErrorKind::ShuttingDown, "the server is stopping")),
    }
}

fn itinerary(then: Option<&str>) -> Result<VecDeque<TopicName>, Problem> {
    let Some(then) = then else { return Ok(VecDeque::new()) };
    let topics: VecDeque<_> = then.split(',').map(str::trim).map(topic_name).collect::<Result<_, _>>()?;
    if topics.len() > STEPS {
        return Err(Problem::wrong(format!("a chain of {} more topics; at most {STEPS} are allowed", topics.len())));
    }
    Ok(topics)
}

/// A requester; what it has asked is given up when it is dropped.
pub struct Asking {
    caller: Arc<Caller>,
    id: u64,
}

impl Asking {
    /// One who has not asked yet.
    pub fn new(caller: &Arc<Caller>) -> Self {
        Self { caller: Arc::clone(caller), id: caller.shared.broker.new_asker() }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Asks; `waiting` is told what comes of it, perhaps before this returns.
    pub fn ask(&self, waiting: Arc<dyn Asker>, request: LiveRequest) {
        self.caller.shared.broker.ask_live(self.id, waiting, request);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.caller.shared.broker.abandon_live(self.id);
    }
}

/// A request that waits for its reply.
struct Waiting {
    account: Arc<Account>,
    state: Mutex<State>,
}

struct State {
    /// Bodies of the parts that came before the end, and their share of the budget.
    parts: Vec<Bytes>,
    held: Vec<Grant>,
    /// A part found no room.
    lost: bool,
    sender: Option<oneshot::Sender<Result<Answer, Problem>>>,
}

impl Waiting {
    fn room(&self, bytes: usize) -> Option<Grant> {
        self.account.try_take(bytes, bytes)
    }
}

impl Asker for Waiting {
    fn part(&self, content: Content) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.room(content.weight()) {
            Some(grant) if !state.lost => {
                state.held.push(grant);
                state.parts.push(Bytes::copy_from_slice(&content.body));
            }
            _ => {
                state.lost = true;
                state.parts.clear();
                state.held.clear();
            }
        }
    }

    fn finish(&self, ending: Ending) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = state.sender.take() else { return };
        let parts = std::mem::take(&mut state.parts);
        state.held.clear();
        // Nobody may wait any more.
        drop(sender.send(match ending {
            Ending::Reply(_) if state.lost => Err(no_room()),
            Ending::Reply(content) => self.reply(&parts, &content),
            other => Err(refused(other)),
        }));
    }
}

impl Waiting {
    /// Parts and end as one body.
    fn reply(&self, parts: &[Bytes], reply: &Content) -> Result<Answer, Problem> {
        let bytes = parts.iter().map(Bytes::len).sum::<usize>() + reply.body.len();
        let grant = self.room(bytes).ok_or_else(no_room)?;
        let mut body = BytesMut::with_capacity(bytes);
        parts.iter().for_each(|part| body.extend_from_slice(part));
        body.extend_from_slice(&reply.body);
        let mut answer = content(StatusCode::OK, "application/octet-stream", granted(body.into(), grant));
        pass_on(&mut answer, &reply.headers);
        Ok(answer)
    }
}

/// Gives an answer the headers of a reply, as far as HTTP and the limit let them pass.
pub fn pass_on<'a>(answer: &mut Answer, headers: impl IntoIterator<Item = Header<'a>>) {
    let mut room = HEADER_BYTES;
    for Header { name, value } in headers {
        let Some((name, value)) = passed_on(name, value.unwrap_or_default()) else { continue };
        let weight = name.as_str().len() + value.len();
        if weight > room {
            break;
        }
        room -= weight;
        match name == header::CONTENT_TYPE {
            true => drop(answer.headers_mut().insert(name, value)),
            false => drop(answer.headers_mut().append(name, value)),
        }
    }
}

/// A reply's header in HTTP, if it can be one.
fn passed_on(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_bytes(value).ok()?;
    if name.eq_ignore_ascii_case(b"content-type") {
        return Some((header::CONTENT_TYPE, value));
    }
    let name = [records::HEADER.as_bytes(), name].concat();
    Some((HeaderName::from_bytes(&name).ok()?, value))
}

/// A reply that cannot be passed on now.
pub fn no_room() -> Problem {
    Problem::new(ErrorKind::Overloaded, "a reply came that the server has no memory for at present")
}

/// An error reply.
pub fn failed(code: String, text: String, step: u32, topic: String) -> Problem {
    Problem::wrong(text.clone())
        .with_status(StatusCode::UNPROCESSABLE_ENTITY)
        .with("outcome", "failed")
        .with("code", code)
        .with("text", text)
        .with("step", step)
        .with("topic", topic)
}

/// No reply in time.
pub fn timed_out(step: u32, topic: String) -> Problem {
    Problem::new(ErrorKind::TimedOut, format!("no reply from topic '{topic}' in time"))
        .with("outcome", "timed_out")
        .with("step", step)
        .with("topic", topic)
}

/// Anything but a reply.
pub fn refused(ending: Ending) -> Problem {
    match ending {
        Ending::Error { code, text, step, topic } => failed(code, text, step, topic.to_string()),
        Ending::NoResponder { step, topic } => {
            Problem::new(ErrorKind::NotFound, format!("nobody responds on topic '{topic}'"))
                .with_status(StatusCode::SERVICE_UNAVAILABLE)
                .with("outcome", "no_responder")
                .with("step", step)
                .with("topic", json!(topic))
        }
        Ending::TimedOut { step, topic } => timed_out(step, topic.to_string()),
        Ending::Overloaded(why) => Problem::new(ErrorKind::Overloaded, why).with("outcome", "overloaded"),
        // Not said here.
        Ending::Reply(_) => Problem::new(ErrorKind::Internal, "a reply is no refusal"),
    }
}
