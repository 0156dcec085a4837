//! What a request is answered with, and who asks.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use super::problem::Problem;
use crate::base::ErrorKind;
use crate::broker::WorkKey;
use crate::server::accept::Open;
use crate::server::budget::{Account, Gate, Grant, Holder};
use crate::server::connections::Connection;
use crate::server::shared::Shared;
use crate::server::tasks;

/// Who asks: what the requests of one connection share.
pub struct Caller {
    /// The server.
    pub shared: Arc<Shared>,
    /// It came over loopback.
    pub is_local: bool,
    /// Bytes of its requests.
    pub incoming: Arc<Account>,
    /// Bytes of its answers.
    pub outgoing: Arc<Account>,
    /// For work that its requests make.
    pub work: WorkKey,
    /// Its place among the connections, which it holds until the last of its work has ended: an append goes on when the
    /// connection is gone, and whoever stops the server waits for that as well. Dropped behind all else.
    open: Open,
    /// Requests that are being answered.
    answering: AtomicUsize,
}

/// A request that is being answered.
pub struct Busy<'a>(&'a Caller);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Caller {
    /// A connection that has just been made.
    pub fn new(shared: Arc<Shared>, peer: IpAddr, is_local: bool, open: Open) -> Self {
        let limit = shared.config.max_connection_bytes.as_usize();
        let holder = Holder::client(Gate::Http, peer);
        let (incoming, outgoing) = (shared.incoming.account(limit, holder), shared.outgoing.account(limit, holder));
        Self { shared, is_local, incoming, outgoing, work: WorkKey::new(), open, answering: AtomicUsize::new(0) }
    }

    /// Whether the connection has one of the places that are kept for the server's health.
    pub fn is_kept(&self) -> bool {
        self.open.kept
    }

    /// Notes that a request has come. `false` if the connection's place was given away just before.
    pub fn used(&self) -> bool {
        self.open.used()
    }

    /// Returns when the place of a connection without a request was given to a new one.
    pub async fn given_away(&self) {
        self.open.given_away().await;
    }

    /// What is listed of the connection.
    pub fn connection(&self) -> &Connection {
        self.open.connection()
    }

    /// Notes that a request is being answered.
    pub fn busy(&self) -> Busy<'_> {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// Whether a request is being answered, or an answer is on its way out.
    pub fn is_busy(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0 || self.outgoing.is_peers_turn()
    }
}

/// Runs something to its end, also when nobody waits for it any more.
pub async fn finished<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tasks::spawn(name, async move {
        // Nobody listens any more: it is done all the same.
        drop(sender.send(work.await));
        Ok::<(), Infallible>(())
    });
    receiver.await.unwrap_or_else(|_| Err(Problem::new(ErrorKind::Internal, "the work ended without an answer")))
}

/// An answer.
pub type Answer = Response<Content>;

/// The content of an answer.
pub enum Content {
    /// All of it.
    Whole(Option<Bytes>),
    /// What comes, until the sender is gone.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(from) => from.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Bytes with their share of the budget, which is given back when the connection has let go of them.
pub fn granted(bytes: Vec<u8>, grant: Grant) -> Bytes {
    struct Granted(Vec<u8>, #[expect(dead_code, reason = "held, not read")] Grant);
    impl AsRef<[u8]> for Granted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Granted(bytes, grant))
}

/// Text, or whatever the type says.
pub fn content(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let bytes = bytes.into();
    answer_with(status, kind, Content::Whole((!bytes.is_empty()).then_some(bytes)))
}

/// The same, with any content.
pub fn answer_with(status: StatusCode, kind: &'static str, content: Content) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Whatever a record holds, a browser shall not run it.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A value as JSON, with a line end for people.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // What is answered here has text for keys and no way to fail.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    content(status, "application/json", bytes)
}
