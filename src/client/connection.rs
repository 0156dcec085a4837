//! One TCP connection: the handshake, requests and their answers, subscriptions and their pushes.

mod arriving;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::base::{ErrorKind, limits};
use crate::protocol::{
    Asked, Delivery, ErrorBody, Frame, FrameDecoder, Handed, Hello, HelloOk, JoinGroup, JoinGroupOk, Kind, LeaveGroup,
    Message, NamedValue, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Ping, Produce, ReplyPart, Request, Respond,
    RespondOk, StopResponding, Subscribe, SubscribeOk, Unsubscribe, decode_body, encode_frame, flags,
};

use super::ClientError;
use super::handle::Config;
use super::write::{Outgoing, write_frames};

/// Bytes that may wait to be written, the bound of the outgoing queue.
const OUTBOX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes asked of the socket at a time while no large frame is under way.
const READ_BYTES: usize = 64 * 1024;
/// How long frames already queued may take to go out once nobody uses the connection any more.
const CLOSING: Duration = Duration::from_secs(5);
/// Correlation id of requests whose answer nobody waits for.
const UNHEARD: u64 = 0;

/// A connection after its handshake. Dropping it sends what is queued, then closes.
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Outgoing>,
    next_correlation: AtomicU64,
}

/// What the connection's tasks hold too.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    room: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    outbox: mpsc::WeakUnboundedSender<Outgoing>,
    ended: watch::Sender<bool>,
    /// Goes up when the server says that what topics there are has changed.
    topics: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<u64, Waiting>,
    feeds: HashMap<FeedId, mpsc::UnboundedSender<Push>>,
    ended: Option<ClientError>,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<Frame, ClientError>>,
    /// Where pushes go, if the answer opens a feed: they may be right behind it.
    feed: Option<mpsc::UnboundedSender<Push>>,
    /// Parts of the answer that came ahead of it, for a request without a feed.
    parts: Vec<Bytes>,
    _slot: OwnedSemaphorePermit,
}

/// What the server pushes for: each kind has ids of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FeedId {
    Subscription(u64),
    Member(u64),
    Responder(u64),
}

impl FeedId {
    fn id(self) -> u64 {
        match self {
            Self::Subscription(id) | Self::Member(id) | Self::Responder(id) => id,
        }
    }
}

/// What the server sends for a subscription or a membership.
#[derive(Debug)]
pub(crate) enum Push {
    /// Batches, or the news that the end is reached.
    Delivery(Delivery, Bytes),
    /// Records for a member of a queue group.
    Handed(Handed, Bytes),
    /// A request for a responder.
    Asked(Asked, Bytes),
    /// A part of a reply.
    Part(Vec<NamedValue>, Bytes),
    /// It is over.
    Ended(ClientError),
}

/// An answer to come. Dropping it forgets the request, which the server may fulfil all the same.
#[derive(Debug)]
pub(crate) struct Answer {
    connection: Arc<Connection>,
    correlation: u64,
    receiver: oneshot::Receiver<Result<Frame, ClientError>>,
}

/// A subscription or a membership; dropping it ends it at the server.
#[derive(Debug)]
pub(crate) struct Feed {
    connection: Arc<Connection>,
    id: FeedId,
    pushes: mpsc::UnboundedReceiver<Push>,
}

impl Connection {
    /// Connects and shakes hands.
    pub(crate) async fn open(config: &Config) -> Result<Arc<Self>, ClientError> {
        match tokio::time::timeout(config.connect_timeout, Self::handshake(config)).await {
            Ok(opened) => opened,
            Err(_) => Err(ClientError::new(
                ErrorKind::Disconnected,
                format!("no answer from a Tidelog server at {} within {:?}", config.server, config.connect_timeout),
            )),
        }
    }

    async fn handshake(config: &Config) -> Result<Arc<Self>, ClientError> {
        let mut socket = TcpStream::connect(&config.server).await.map_err(|error| unreachable(config, error))?;
        socket.set_nodelay(true).map_err(|error| unreachable(config, error))?;
        let hello = Hello {
            min_version: PROTOCOL_VERSION_MIN,
            max_version: PROTOCOL_VERSION_MAX,
            client_name: config.name.clone(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            credentials: None,
        };
        let frame = encode_frame(Kind::Hello.code(), 0, 0, &hello, 0).map_err(unencodable)?;
        socket.write_all(&frame).await.map_err(|error| unreachable(config, error))?;
        let mut decoder = FrameDecoder::new(limits::HELLO_FRAME_BYTES);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let strange = |error: ClientError| error.context(format!("{} does not answer as Tidelog does", config.server));
        let frame = loop {
            if buffer.starts_with(b"HTTP/") {
                let message =
                    format!("{} speaks HTTP; the native listener is on port 7171 unless it was moved", config.server);
                return Err(ClientError::new(ErrorKind::Unsupported, message));
            }
            if let Some(frame) = decoder.decode(&mut buffer).map_err(|error| strange(error.into()))? {
                break frame;
            }
            if socket.read_buf(&mut buffer).await.map_err(|error| unreachable(config, error))? == 0 {
                let message = format!(
                    "{} closed the connection during the handshake: is it a Tidelog server's native port (7171 unless it was \
                     moved), and not its Kafka port?",
                    config.server
                );
                return Err(ClientError::new(ErrorKind::Disconnected, message));
            }
        };
        if frame.has(flags::ERROR) {
            return Err(refusal(&frame).context(format!("{} refuses the connection", config.server)));
        }
        let hello: HelloOk = frame.decode().map_err(|error| strange(error.into()))?;
        decoder.set_max_frame(limits::FRAME_BYTES);
        Ok(Self::start(config, socket, hello, decoder, buffer))
    }

    fn start(config: &Config, socket: TcpStream, hello: HelloOk, decoder: FrameDecoder, buffer: BytesMut) -> Arc<Self> {
        let (reader, writer) = socket.into_split();
        let (outbox, queue) = mpsc::unbounded_channel();
        let slots = usize::try_from(hello.limits.max_requests_in_flight).unwrap_or(1).clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            room: Arc::new(Semaphore::new(OUTBOX_BYTES)),
            slots: Arc::new(Semaphore::new(slots)),
            outbox: outbox.downgrade(),
            ended: watch::Sender::new(false),
            topics: watch::Sender::new(0),
        });
        let connection = Arc::new(Self { shared: shared.clone(), outbox, next_correlation: AtomicU64::new(1) });
        let writing = shared.clone();
        tokio::spawn(async move {
            let result = tokio::select! {
                result = write_frames(writer, queue, writing.room.clone()) => result,
                () = writing.ended() => Ok(()),
            };
            match result {
                Ok(()) => writing.end(ClientError::new(ErrorKind::Disconnected, "the connection is closed")),
                Err(error) => writing.end(broken(error)),
            }
        });
        tokio::spawn(async move {
            let error = tokio::select! {
                error = shared.read_frames(reader, decoder, buffer) => error,
                () = shared.ended() => return,
            };
            shared.end(error);
        });
        let idle = hello.limits.idle_timeout_ms;
        let interval = if idle == 0 { config.request_timeout } else { Duration::from_millis(idle / 3) };
        let interval = interval.min(config.request_timeout).max(Duration::from_millis(20));
        tokio::spawn(keep_alive(
            Arc::downgrade(&connection),
            connection.shared.clone(),
            interval,
            config.request_timeout,
        ));
        connection
    }

    /// Whether it can be used.
    pub(crate) fn is_alive(&self) -> bool {
        !*self.shared.ended.borrow()
    }

    /// Returns when it is over.
    pub(crate) async fn ended(&self) {
        self.shared.ended().await;
    }

    /// Changes whenever the server says that what topics there are has changed, once it was asked to.
    pub(crate) fn watch_topics(&self) -> watch::Receiver<u64> {
        self.shared.topics.subscribe()
    }

    /// Why it ended, as far as that is known.
    pub(crate) fn why(&self) -> ClientError {
        self.shared.why()
    }

    /// Queues a request. When this returns, requests sent later go behind it.
    ///
    /// # Errors
    /// The request was not sent: the connection is over, or it does not fit a frame.
    pub(crate) async fn send<R: Request>(
        self: &Arc<Self>,
        request: &R,
        payload: Bytes,
        feed: Option<mpsc::UnboundedSender<Push>>,
    ) -> Result<Answer, ClientError> {
        let slot = self.shared.slots.clone().acquire_owned().await.map_err(|_| self.why())?;
        let correlation = self.next_correlation.fetch_add(1, Ordering::Relaxed);
        let frame = self.frame(R::KIND, correlation, request, payload).await?;
        let (answer, receiver) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            state.pending.insert(correlation, Waiting { answer, feed, parts: Vec::new(), _slot: slot });
        }
        let answer = Answer { connection: self.clone(), correlation, receiver };
        self.outbox.send(frame).map_err(|_| self.why())?;
        Ok(answer)
    }

    /// Queues a message that is not answered.
    pub(crate) async fn tell<M: Message>(&self, message: &M, payload: Bytes) -> Result<(), ClientError> {
        let frame = self.frame(M::KIND, 0, message, payload).await?;
        self.outbox.send(frame).map_err(|_| self.why())
    }

    /// Queues a short message that is not answered, whatever waits ahead of it; if the connection is over, it is dropped.
    pub(crate) fn tell_at_once<M: Message>(&self, message: &M) {
        if let Ok(head) = encode_frame(M::KIND.code(), 0, 0, message, 0) {
            let _ = self.outbox.send(Outgoing { head: head.freeze(), payload: Bytes::new(), room: 0 });
        }
    }

    async fn frame<M: Message>(
        &self,
        kind: Kind,
        correlation: u64,
        message: &M,
        payload: Bytes,
    ) -> Result<Outgoing, ClientError> {
        let head = encode_frame(kind.code(), 0, correlation, message, payload.len()).map_err(unencodable)?.freeze();
        // A frame larger than the whole queue takes all of it.
        let room = (head.len() + payload.len()).min(OUTBOX_BYTES);
        let permits = u32::try_from(room).unwrap_or(u32::MAX);
        self.shared.room.acquire_many(permits).await.map_err(|_| self.why())?.forget();
        Ok(Outgoing { head, payload, room })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask<R: Request>(
        self: &Arc<Self>,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let asked = async { answer_of::<R>(&self.send(request, Bytes::new(), None).await?.await?) };
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            let message = format!("the server did not answer {} within {timeout:?}", R::KIND.name());
            Err(ClientError::new(ErrorKind::TimedOut, message))
        })
    }

    /// Queues a batch.
    pub(crate) async fn produce(self: &Arc<Self>, request: &Produce, batch: Bytes) -> Result<Answer, ClientError> {
        self.send(request, batch, None).await
    }

    /// Subscribes.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        request: &Subscribe,
        timeout: Duration,
    ) -> Result<(SubscribeOk, Feed), ClientError> {
        self.open_feed(request, timeout, |opened| FeedId::Subscription(opened.subscription)).await
    }

    /// Becomes a member of a queue group.
    pub(crate) async fn join_group(
        self: &Arc<Self>,
        request: &JoinGroup,
        timeout: Duration,
    ) -> Result<(JoinGroupOk, Feed), ClientError> {
        self.open_feed(request, timeout, |opened| FeedId::Member(opened.member)).await
    }

    /// Becomes a responder.
    pub(crate) async fn respond(
        self: &Arc<Self>,
        request: &Respond,
        timeout: Duration,
    ) -> Result<(RespondOk, Feed), ClientError> {
        self.open_feed(request, timeout, |opened| FeedId::Responder(opened.responder)).await
    }

    /// Ends a membership, and waits until what the member still had went back.
    pub(crate) async fn leave_group(self: &Arc<Self>, feed: Feed, timeout: Duration) -> Result<(), ClientError> {
        self.shared.lock().feeds.remove(&feed.id);
        self.ask(&LeaveGroup { member: feed.id() }, timeout).await.map(drop)
    }

    /// Ends a responder, and waits until its replies are where they belong.
    pub(crate) async fn stop_responding(self: &Arc<Self>, feed: Feed, timeout: Duration) -> Result<(), ClientError> {
        self.shared.lock().feeds.remove(&feed.id);
        self.ask(&StopResponding { responder: feed.id() }, timeout).await.map(drop)
    }

    async fn open_feed<R: Request>(
        self: &Arc<Self>,
        request: &R,
        timeout: Duration,
        id: impl FnOnce(&R::Response) -> FeedId,
    ) -> Result<(R::Response, Feed), ClientError> {
        let (feed, pushes) = mpsc::unbounded_channel();
        let asked = async {
            let frame = self.send(request, Bytes::new(), Some(feed)).await?.await?;
            let opened = answer_of::<R>(&frame)?;
            let feed = Feed { connection: self.clone(), id: id(&opened), pushes };
            Ok((opened, feed))
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            // Whether it is open now is unknown; only a new connection makes it certain.
            let message = format!("the server did not answer {} within {timeout:?}", R::KIND.name());
            let error = ClientError::new(ErrorKind::TimedOut, message);
            self.shared.end(error.clone());
            Err(error)
        })
    }
}

/// Decodes the answer to a request.
pub(crate) fn answer_of<R: Request>(frame: &Frame) -> Result<R::Response, ClientError> {
    Ok(frame.decode::<R::Response>()?)
}

impl Future for Answer {
    type Output = Result<Frame, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.connection.why())))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.shared.lock().pending.remove(&self.correlation);
    }
}

impl Feed {
    /// Its id on the connection.
    pub(crate) fn id(&self) -> u64 {
        self.id.id()
    }

    /// The next push; the connection's error once that is over. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Push {
        match self.pushes.recv().await {
            Some(push) => push,
            None => Push::Ended(self.connection.why()),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let open = self.connection.shared.lock().feeds.remove(&self.id).is_some();
        if open {
            self.connection.shared.close_feed(self.id);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why(&self) -> ClientError {
        let ended = self.lock().ended.clone();
        ended.unwrap_or_else(|| ClientError::new(ErrorKind::Disconnected, "the connection is closed"))
    }

    async fn ended(&self) {
        // The sender is ours: this cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends the connection; everybody who waits on it hears why. The first reason stays.
    fn end(&self, error: ClientError) {
        let (pending, feeds) = {
            let mut state = self.lock();
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(error.clone());
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.feeds))
        };
        self.room.close();
        self.slots.close();
        self.ended.send_replace(true);
        for waiting in pending.into_values() {
            let _ = waiting.answer.send(Err(error.clone()));
        }
        drop(feeds);
    }
}

/// Sends a ping at every interval, so that the server does not take the connection for idle and a server that is gone
/// without a word is noticed. Once nobody uses the connection, sees to it that it ends.
async fn keep_alive(connection: Weak<Connection>, shared: Arc<Shared>, interval: Duration, timeout: Duration) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shared.ended() => return,
        }
        let Some(connection) = connection.upgrade() else { break };
        if let Err(error) = connection.ask(&Ping {}, timeout).await {
            shared.end(ClientError::caused(ErrorKind::Disconnected, format!("the connection is dead: {error}"), error));
            return;
        }
    }
    tokio::time::sleep(CLOSING).await;
    shared.end(ClientError::new(ErrorKind::Disconnected, "the connection is closed"));
}

fn unreachable(config: &Config, error: io::Error) -> ClientError {
    let server = &config.server;
    let message = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("cannot reach a Tidelog server at {server}: connection refused; is `tidelog serve` running?")
        }
        _ => format!("cannot reach a Tidelog server at {server}: {error}"),
    };
    let kind = match error.kind() {
        io::ErrorKind::InvalidInput => ErrorKind::InvalidRequest,
        _ => ErrorKind::Disconnected,
    };
    ClientError::caused(kind, message, error)
}

fn broken(error: io::Error) -> ClientError {
    ClientError::caused(ErrorKind::Disconnected, format!("the connection to the server broke: {error}"), error)
}

fn unencodable(reason: String) -> ClientError {
    ClientError::new(ErrorKind::TooLarge, format!("the request does not fit a frame: {reason}"))
}

/// What an error frame says.
fn refusal(frame: &Frame) -> ClientError {
    match decode_body::<ErrorBody>(frame.kind, &frame.body) {
        Ok(body) => body.into(),
        Err(error) => error.into(),
    }
}
