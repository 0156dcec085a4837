//! One Kafka connection. Requests are answered in the order in which they came, one at a time, but for batches: they are
//! in the broker's queue as soon as they are read, so that a producer may have several on their way.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::framing::KafkaFraming;
use super::response::Response;
use super::session::{Hangup, Session};
use super::{api, requests};
use crate::broker::Client;
use crate::server::accept::{Door, NoRoom, Open};
use crate::server::budget::{Account, Evicted, Gate, Grant, Holder};
use crate::server::frames::{FrameReader, ReadEnd};
use crate::server::metrics::ServerMetrics;
use crate::server::shared::Shared;
use crate::server::tasks;

/// How long requests in flight get when their own client has ended the connection.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Kinds of requests that wait for records or for other members.
const WAITING: [i16; 3] = [api::FETCH, api::JOIN_GROUP, api::SYNC_GROUP];
/// Pieces that go out in one call.
const PIECES: usize = 64;
/// Bytes of small answers that are collected before they go out.
const COALESCE_BYTES: usize = 64 * 1024;

/// What becomes of a request: an answer, none at all, or the end of the connection.
pub type Pending = Pin<Box<dyn Future<Output = Result<Option<Response>, Hangup>> + Send>>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Read(ReadEnd),
    #[error("{0}")]
    Hangup(#[from] Hangup),
    #[error("writing failed: {0}")]
    Write(#[from] io::Error),
    #[error("{0}")]
    Evicted(Evicted),
    #[error("no request yet, and a new connection needed the place")]
    GivenAway,
    #[error("an operator has closed it")]
    Closed,
}

/// The Kafka listener's door. It has no words for a full house: the connection is closed, and clients try again.
pub const DOOR: Door = Door {
    name: "kafka",
    serve: spawn,
    places: |shared| &shared.doors.kafka,
    taken: |metrics| &metrics.kafka_connections,
    no_room: NoRoom::Close,
};

fn spawn(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>, open: Open) {
    let span = tracing::info_span!("kafka", %peer);
    let _entered = span.enter();
    tasks::spawn_for(Client::of(peer.ip()), "Kafka connection", async move {
        // What a peer does to its own connection is worth a line, not a warning.
        match serve(socket, peer, shared, &open).await {
            Ok(()) => tracing::debug!("disconnected"),
            Err(End::Hangup(reason @ Hangup::Fault(_))) => tracing::error!(%reason, "connection ended"),
            Err(reason) => tracing::info!(%reason, "connection ended"),
        }
        Ok::<(), End>(())
    });
}

async fn serve(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>, open: &Open) -> Result<(), End> {
    let _ = socket.set_nodelay(true);
    let reached = socket.local_addr()?;
    let (read, write) = socket.into_split();
    let config = &shared.config;
    let holder = Holder::client(Gate::Kafka, peer.ip());
    let account = shared.incoming.account(config.max_connection_bytes.as_usize(), holder);
    let framing = KafkaFraming { max_frame: config.max_frame_bytes() };
    // The first request must come as soon as a native client's hello; what is silent from the start costs a place.
    let mut reader = FrameReader::new(
        read,
        account.clone(),
        shared.metrics.clone(),
        framing,
        config.handshake_timeout.as_duration(),
    );
    let session = Session::new(shared.clone(), reached, peer);
    let _ = session.line.set(Arc::clone(open.connection()));
    let (queue, pending) = mpsc::channel(config.max_requests_in_flight);
    let writer = Writer {
        socket: write,
        session: session.clone(),
        incoming: account.clone(),
        metrics: shared.metrics.clone(),
        patience: config.write_timeout.as_duration(),
        pieces: VecDeque::new(),
        grants: Vec::new(),
        collected: 0,
    };
    let mut writing = Box::pin(writer.run(pending));
    let reading = async {
        let mut first = Some(framing);
        loop {
            let (frame, grant) = reader.next().await.map_err(End::Read)?;
            if let Some(framing) = first.take() {
                if !open.used() {
                    return Err(End::GivenAway);
                }
                reader.relax(framing, config.idle_timeout.as_duration());
            }
            session.arrived(reader.waited());
            // Its answer may be put off for as long as the client has said.
            let waits = frame.get(..2).is_some_and(|key| WAITING.iter().any(|kind| kind.to_be_bytes() == key));
            let pending = requests::begin(&session, frame, grant).await?;
            if queue.send((pending, waits)).await.is_err() {
                return Ok(());
            }
        }
    };
    let end: Result<(), End> = tokio::select! {
        end = reading => end,
        // The answers go with the connection, or their bytes would not be free.
        () = open.given_away() => return Err(End::GivenAway),
        () = open.connection().closed() => return Err(End::Closed),
        evicted = account.evicted() => return Err(End::Evicted(evicted)),
        evicted = session.outgoing.evicted() => return Err(End::Evicted(evicted)),
        () = shared.stopped() => Ok(()),
        written = &mut writing => return written,
    };
    // What is under way may end; nothing new is taken in.
    drop(queue);
    session.close();
    let patience = if shared.is_stopping() { config.shutdown_timeout.as_duration() } else { LAST_ANSWERS };
    let written = tokio::time::timeout(patience, writing).await;
    match (end, written) {
        (Err(End::Read(ReadEnd::Closed)) | Ok(()), Ok(written)) => written,
        (Err(End::Read(ReadEnd::Closed)) | Ok(()), Err(_)) => Ok(()),
        (Err(end), _) => {
            // A peer that has sent what cannot be read still hears the answers before it.
            if matches!(end, End::Hangup(_) | End::Read(ReadEnd::BadFrame(_))) {
                reader.drain().await;
            }
            Err(end)
        }
    }
}

/// The writing half: answers in order, small ones together.
struct Writer {
    socket: OwnedWriteHalf,
    session: Arc<Session>,
    incoming: Arc<Account>,
    metrics: Arc<ServerMetrics>,
    patience: Duration,
    pieces: VecDeque<Bytes>,
    grants: Vec<Grant>,
    /// Requests whose answers these are.
    collected: usize,
}

impl Writer {
    async fn run(mut self, mut pending: mpsc::Receiver<(Pending, bool)>) -> Result<(), End> {
        loop {
            let (mut next, waits) = match pending.try_recv() {
                Ok(next) => next,
                Err(_) => {
                    self.flush().await?;
                    match pending.recv().await {
                        Some(next) => next,
                        None => return Ok(()),
                    }
                }
            };
            // What is answered at once goes out with what was answered before it.
            let outcome = match AssertUnwindSafe(&mut next).catch_unwind().now_or_never() {
                Some(outcome) => outcome,
                None => {
                    self.flush().await?;
                    self.incoming.asked_to_wait(waits);
                    let outcome = AssertUnwindSafe(&mut next).catch_unwind().await;
                    self.incoming.asked_to_wait(false);
                    outcome
                }
            };
            drop(next);
            let outcome = outcome.unwrap_or_else(|panic| {
                let text = tasks::panic_text(panic.as_ref());
                Err(Hangup::Fault(format!("the server failed on a request: {text}")))
            });
            let response = match outcome {
                Ok(response) => response,
                Err(hangup) => {
                    self.flush().await?;
                    return Err(hangup.into());
                }
            };
            self.collected += 1;
            let Some(Response { pieces, grant, .. }) = response else { continue };
            self.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
            self.grants.extend(grant);
            if self.pieces.len() >= PIECES || self.pieces.iter().map(Bytes::len).sum::<usize>() >= COALESCE_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Sends what is collected.
    async fn flush(&mut self) -> Result<(), End> {
        while !self.pieces.is_empty() {
            let slices: Vec<IoSlice<'_>> = self.pieces.iter().take(PIECES).map(|piece| IoSlice::new(piece)).collect();
            match self.socket.try_write_vectored(&slices) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => {
                    self.metrics.bytes_out.inc_by(written as u64);
                    self.session.outgoing.moved(written);
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.session.outgoing.peers_turn(true);
                    let ready = tokio::time::timeout(self.patience, self.socket.writable()).await;
                    self.session.outgoing.peers_turn(false);
                    ready.map_err(|_| {
                        let what = format!("the peer took nothing for {:?}", self.patience);
                        io::Error::new(io::ErrorKind::TimedOut, what)
                    })??;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // What the answers held is free again.
        self.grants.clear();
        self.session.answered(std::mem::take(&mut self.collected));
        Ok(())
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                return front.advance(count);
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }
}
