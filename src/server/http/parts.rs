//! `POST /requests/{topic}` for those who accept `text/event-stream` or `application/x-ndjson`: a reply in parts, each passed
//! on as it comes.
//!
//! | event, or line with this `event` | what it says |
//! |---|---|
//! | `part` | `part` (its number, from 0), `headers`, `value` |
//! | `end` | the responder's last word: `parts` (how many came before), `headers`, `value`; nothing follows |
//! | `error` | how it ended instead: problem details, `parts`; nothing follows |
//!
//! The status is 200 with the first part or the end. What goes wrong before that has the status that it has without parts. The
//! time-out is that of the whole. What the client has not taken yet waits in its share of the outgoing budget; a part that
//! finds no room there ends the request, so that a slow reader is told so and costs nobody else anything.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::answer::{self, Answer, Caller, answer_with, granted};
use super::problem::Problem;
use super::read::{ALIVE, EVERY, Form};
use super::records::NDJSON;
use super::requests::{Asking, refused};
use crate::base::ErrorKind;
use crate::broker::{Asker, Broker, Content, Ending, LiveRequest};
use crate::record::Headers;
use crate::record::json::Text;
use crate::server::budget::Account;
use crate::server::tasks;

/// What a part weighs in the budget beside its text, so that empty ones weigh something too.
const OVERHEAD: usize = 256;

/// Asks, and answers with what comes of it, part by part.
///
/// # Errors
/// It failed before the first part.
pub async fn ask(caller: &Arc<Caller>, form: Form, request: LiveRequest) -> Result<Answer, Problem> {
    let asking = Asking::new(caller);
    let (pieces, coming) = mpsc::unbounded_channel();
    let (first, begun) = oneshot::channel();
    let waiting = Streaming {
        form,
        account: Arc::clone(&caller.outgoing),
        broker: Arc::clone(&caller.shared.broker),
        id: asking.id(),
        state: Mutex::new(State { pieces: Some(pieces), first: Some(first), parts: 0 }),
    };
    asking.ask(Arc::new(waiting), request);
    let stopping = || Problem::new(ErrorKind::ShuttingDown, "the server is stopping");
    tokio::select! {
        begun = begun => begun.unwrap_or_else(|_| {
            Err(Problem::new(ErrorKind::Internal, "the request ended without an outcome"))
        })?,
        () = caller.shared.stopped() => return Err(stopping()),
    }
    let (sender, receiver) = mpsc::channel(1);
    let caller = Arc::clone(caller);
    tasks::spawn("parts of a reply", async move {
        let stopped = async {
            caller.shared.stopped().await;
            piece(form, "error", &stopping().body())
        };
        pass_on(form, coming, &sender, stopped).await;
        // If that was before its end, the client is gone or the server about to be: it is given up.
        drop(asking);
        Ok::<(), Infallible>(())
    });
    let kind = if form == Form::Events { "text/event-stream" } else { NDJSON };
    Ok(answer_with(StatusCode::OK, kind, answer::Content::Stream(receiver)))
}

/// Passes on what comes until its end, or until the client is gone.
async fn pass_on(
    form: Form,
    mut coming: mpsc::UnboundedReceiver<Bytes>,
    to: &mpsc::Sender<Bytes>,
    stopped: impl Future<Output = Vec<u8>>,
) {
    tokio::pin!(stopped);
    loop {
        let piece = tokio::select! {
            piece = coming.recv() => match piece {
                Some(piece) => piece,
                None => return,
            },
            last = &mut stopped => {
                // Whoever does not take it any more need not hear it.
                let _ = to.send(last.into()).await;
                return;
            }
            () = to.closed() => return,
            () = tokio::time::sleep(EVERY), if form == Form::Events => Bytes::from(format!("{ALIVE}\n")),
        };
        if to.send(piece).await.is_err() {
            return;
        }
    }
}

/// A request whose reply is passed on in parts.
struct Streaming {
    form: Form,
    account: Arc<Account>,
    broker: Arc<Broker>,
    id: u64,
    state: Mutex<State>,
}

struct State {
    /// The way to the client, until the end is on it. What is in it holds its share of the budget.
    pieces: Option<mpsc::UnboundedSender<Bytes>>,
    /// Whoever waits to hear that there will be an answer, until it is known.
    first: Option<oneshot::Sender<Result<(), Problem>>>,
    parts: u64,
}

impl Streaming {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a piece; without room, it is the end. Whether there was.
    fn send(&self, state: &mut State, piece: Vec<u8>) -> bool {
        let bytes = piece.len() + OVERHEAD;
        let Some(grant) = self.account.try_take(bytes, bytes) else {
            let what = format!("a part of {bytes} bytes came while the client leaves too much unread");
            self.fail(state, Problem::new(ErrorKind::Overloaded, what).with("outcome", "overloaded"));
            return false;
        };
        if let Some(pieces) = &state.pieces {
            // The client may be gone; then the request is being given up.
            let _ = pieces.send(granted(piece, grant));
        }
        if let Some(first) = state.first.take() {
            let _ = first.send(Ok(()));
        }
        true
    }

    /// The end, otherwise than by a reply.
    fn fail(&self, state: &mut State, problem: Problem) {
        let Some(pieces) = state.pieces.take() else { return };
        let unheard = match state.first.take() {
            Some(first) => first.send(Err(problem)),
            None => {
                // One short line, whatever else waits.
                let problem = problem.with("parts", state.parts);
                pieces.send(piece(self.form, "error", &problem.body()).into()).map_err(|_| Ok(()))
            }
        };
        // Nobody is there any more to hear it.
        drop(unheard);
    }
}

impl Asker for Streaming {
    fn part(&self, content: Content) {
        let lost = {
            let mut state = self.lock();
            if state.pieces.is_none() {
                return;
            }
            let (headers, value) = (&content.headers, Text(&content.body));
            let said = Said { part: Some(state.parts), parts: None, headers, value };
            let sent = self.send(&mut state, piece(self.form, "part", &said));
            state.parts += u64::from(sent);
            !sent
        };
        if lost {
            // The responder need not go on.
            self.broker.abandon_live(self.id);
        }
    }

    fn finish(&self, ending: Ending) {
        let mut state = self.lock();
        match ending {
            Ending::Reply(content) => {
                let (headers, value) = (&content.headers, Text(&content.body));
                let said = Said { part: None, parts: Some(state.parts), headers, value };
                self.send(&mut state, piece(self.form, "end", &said));
            }
            other => self.fail(&mut state, refused(other)),
        }
        state.pieces = None;
    }
}

/// What a responder said.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<u64>,
    headers: &'a Headers,
    value: Text<'a>,
}

/// Anything with its name, as an event or as a line.
fn piece(form: Form, name: &'static str, said: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a, T> {
        event: &'static str,
        #[serde(flatten)]
        said: &'a T,
    }
    let (mut out, end): (_, &[u8]) = match form {
        Form::Events => (format!("event: {name}\ndata: ").into_bytes(), b"\n\n"),
        _ => (Vec::new(), b"\n"),
    };
    // What is written here has text for keys and no way to fail, and a vector takes it all.
    let _ = match form {
        Form::Events => serde_json::to_writer(&mut out, said),
        _ => serde_json::to_writer(&mut out, &Line { event: name, said }),
    };
    out.extend_from_slice(end);
    out
}
