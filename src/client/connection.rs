//! One TCP connection: many requests under way, answers in any order.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::base::{ErrorKind, limits};
use crate::protocol::{
    ErrorBody, Frame, FrameDecoder, Hello, HelloOk, Kind, Message, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Request,
    ServerLimits, SubscribeOk, encode_frame, flags,
};

use super::ClientError;

/// An answer that is awaited.
pub(super) type Answer = oneshot::Receiver<Result<Frame, ClientError>>;

struct Waiter {
    answer: oneshot::Sender<Result<Frame, ClientError>>,
    /// Where the deliveries go if the answer opens a subscription.
    deliveries: Option<mpsc::UnboundedSender<Frame>>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Waiter>,
    subscriptions: HashMap<u64, mpsc::UnboundedSender<Frame>>,
    closed: Option<ClientError>,
}

/// An open connection, after the handshake.
pub(super) struct Connection {
    server: String,
    state: Mutex<State>,
    next_correlation: AtomicU64,
    outgoing: mpsc::UnboundedSender<(BytesMut, Bytes)>,
    /// What the server takes.
    limits: ServerLimits,
}

impl Connection {
    pub(super) async fn open(server: &str, name: &str, within: Duration) -> Result<Arc<Self>, ClientError> {
        let late = || {
            let message = format!("no answer from {server} within {} ms", within.as_millis());
            ClientError::new(ErrorKind::TimedOut, message)
        };
        timeout(within, Self::handshake(server, name)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn handshake(server: &str, name: &str) -> Result<Arc<Self>, ClientError> {
        let mut stream = TcpStream::connect(server).await.map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::ConnectionRefused {
                "; is `tidelog serve` running?"
            } else {
                ""
            };
            let message = format!("cannot reach a Tidelog server at {server}: {error}{hint}");
            ClientError::new(ErrorKind::Disconnected, message)
        })?;
        let broke = |error: std::io::Error| ClientError::disconnected(server, error);
        stream.set_nodelay(true).map_err(broke)?;
        let hello = Hello {
            min_version: PROTOCOL_VERSION_MIN,
            max_version: PROTOCOL_VERSION_MAX,
            client_name: name.to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            credentials: None,
        };
        let frame = encode_frame(Hello::KIND.code(), 0, 0, &hello, 0).map_err(internal)?;
        stream.write_all(&frame).await.map_err(broke)?;
        let mut decoder = FrameDecoder::new(limits::FRAME_BYTES);
        let mut buffer = BytesMut::new();
        let frame = loop {
            if let Some(frame) = decoder.decode(&mut buffer)? {
                break frame;
            }
            if stream.read_buf(&mut buffer).await.map_err(broke)? == 0 {
                return Err(ClientError::disconnected(server, "it closed during the handshake"));
            }
        };
        let hello = answer::<HelloOk>(frame)?.0;
        let (reader, writer) = stream.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let connection = Arc::new(Self {
            server: server.to_owned(),
            state: Mutex::default(),
            next_correlation: AtomicU64::new(1),
            outgoing,
            limits: hello.limits,
        });
        tokio::spawn(write(Arc::clone(&connection), writer, queue));
        tokio::spawn(read(Arc::downgrade(&connection), reader, decoder, buffer, server.to_owned()));
        Ok(connection)
    }

    /// The largest batch that the server takes, in bytes.
    pub(super) fn max_batch_bytes(&self) -> usize {
        self.limits.max_batch_bytes as usize
    }

    /// Whether it has broken.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Sends a request; requests leave in the order of calls.
    pub(super) fn start<R: Request>(
        &self,
        request: &R,
        payload: Bytes,
        deliveries: Option<mpsc::UnboundedSender<Frame>>,
    ) -> Result<Answer, ClientError> {
        let correlation = self.next_correlation.fetch_add(1, Ordering::Relaxed);
        let head = encode_frame(R::KIND.code(), 0, correlation, request, payload.len()).map_err(internal)?;
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        state.waiting.insert(correlation, Waiter { answer: sender, deliveries });
        // Under the lock, so that the order on the wire is that of the correlation ids.
        let sent = self.outgoing.send((head, payload));
        drop(state);
        sent.map_err(|_| ClientError::disconnected(&self.server, "it is closed"))?;
        Ok(receiver)
    }

    /// Sends something that is not answered.
    pub(super) fn tell<M: Message>(&self, message: &M, payload: Bytes) -> Result<(), ClientError> {
        let head = encode_frame(M::KIND.code(), 0, 0, message, payload.len()).map_err(internal)?;
        self.outgoing.send((head, payload)).map_err(|_| ClientError::disconnected(&self.server, "it is closed"))
    }

    /// Sends a request and awaits the answer.
    pub(super) async fn request<R: Request>(&self, request: &R, within: Duration) -> Result<R::Response, ClientError> {
        let receiver = self.start(request, Bytes::new(), None)?;
        match timeout(within, receiver).await {
            Ok(frame) => Ok(answer(self.received(frame)?)?.0),
            Err(_) => {
                let message =
                    format!("no answer to {} from {} within {} ms", R::KIND.name(), self.server, within.as_millis());
                Err(ClientError::new(ErrorKind::TimedOut, message))
            }
        }
    }

    /// An answer as it came out of its channel.
    pub(super) fn received(
        &self,
        frame: Result<Result<Frame, ClientError>, oneshot::error::RecvError>,
    ) -> Result<Frame, ClientError> {
        frame.unwrap_or_else(|_| Err(ClientError::disconnected(&self.server, "it is closed")))
    }

    /// Stops listening to a subscription.
    pub(super) fn forget(&self, subscription: u64) {
        self.lock().subscriptions.remove(&subscription);
    }

    fn close(&self, error: ClientError) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(error.clone());
        let waiting = std::mem::take(&mut state.waiting);
        state.subscriptions.clear();
        drop(state);
        for waiter in waiting.into_values() {
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, frame: Frame) -> Result<(), ClientError> {
        if frame.kind == Kind::Goodbye.code() {
            return Err(frame.decode::<Goodbye>().map_or_else(ClientError::from, |goodbye| goodbye.0.into()));
        }
        let mut state = self.lock();
        if frame.has(flags::PUSH) {
            let ended = frame.kind == Kind::SubscriptionEnded.code();
            let subscription = frame.correlation;
            if let Some(deliveries) = state.subscriptions.get(&subscription) {
                let _ = deliveries.send(frame);
            }
            if ended {
                state.subscriptions.remove(&subscription);
            }
            return Ok(());
        }
        let Some(waiter) = state.waiting.remove(&frame.correlation) else { return Ok(()) };
        if let (Some(deliveries), false) = (waiter.deliveries, frame.has(flags::ERROR)) {
            // Before the next frame is looked at: it may be the first delivery.
            state.subscriptions.insert(frame.decode::<SubscribeOk>()?.subscription, deliveries);
        }
        drop(state);
        let _ = waiter.answer.send(Ok(frame));
        Ok(())
    }
}

/// The body of a goodbye is an error.
#[derive(serde::Serialize, serde::Deserialize)]
struct Goodbye(ErrorBody);

impl Message for Goodbye {
    const KIND: Kind = Kind::Goodbye;
}

/// Decodes an answer, or the error in its place.
pub(super) fn answer<M: Message>(frame: Frame) -> Result<(M, Bytes), ClientError> {
    if frame.has(flags::ERROR) {
        return Err(frame.decode::<Goodbye>()?.0.into());
    }
    Ok((frame.decode::<M>()?, frame.payload))
}

pub(super) fn internal(message: String) -> ClientError {
    ClientError::new(ErrorKind::Internal, message)
}

async fn read(
    connection: std::sync::Weak<Connection>,
    mut reader: OwnedReadHalf,
    mut decoder: FrameDecoder,
    mut buffer: BytesMut,
    server: String,
) {
    let error = 'connection: loop {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    let Some(connection) = connection.upgrade() else { return };
                    if let Err(error) = connection.dispatch(frame) {
                        break 'connection error;
                    }
                }
                Ok(None) => break,
                Err(error) => break 'connection error.into(),
            }
        }
        buffer.reserve(64 * 1024);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break ClientError::disconnected(&server, "the server closed it"),
            Ok(_) => {}
            Err(error) => break ClientError::disconnected(&server, error),
        }
    };
    if let Some(connection) = connection.upgrade() {
        connection.close(error);
    }
}

/// Writes what is queued, as much of it as is there with one system call. Ends when the last user of the connection
/// has gone.
async fn write(
    connection: Arc<Connection>,
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<(BytesMut, Bytes)>,
) {
    let (weak, server) = (Arc::downgrade(&connection), connection.server.clone());
    drop(connection);
    let mut group = Vec::new();
    loop {
        group.clear();
        if queue.recv_many(&mut group, 64).await == 0 {
            return;
        }
        let mut parts: Vec<&[u8]> = group.iter().flat_map(|(head, payload)| [&head[..], &payload[..]]).collect();
        parts.retain(|part| !part.is_empty());
        if let Err(error) = write_all(&mut writer, &mut parts).await {
            if let Some(connection) = weak.upgrade() {
                connection.close(ClientError::disconnected(&server, error));
            }
            return;
        }
    }
}

async fn write_all(writer: &mut OwnedWriteHalf, parts: &mut [&[u8]]) -> std::io::Result<()> {
    let mut rest = parts;
    while !rest.is_empty() {
        let slices: Vec<IoSlice<'_>> = rest.iter().take(64).map(|part| IoSlice::new(part)).collect();
        let mut written = writer.write_vectored(&slices).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while written > 0 {
            if written >= rest[0].len() {
                written -= rest[0].len();
                rest = &mut rest[1..];
            } else {
                rest[0] = &rest[0][written..];
                written = 0;
            }
        }
    }
    Ok(())
}
