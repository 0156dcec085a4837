//! The writing half of a connection: a bounded queue, sent in order, as much as has gathered in one system call.
//!
//! Who has a frame to send and finds nothing before it sends it himself, right there, as far as the socket takes it without
//! waiting: an acknowledgement goes out from the thread that made it true, and costs nobody's waking up. What the socket
//! does not take, and what comes meanwhile, is left to the connection's writer task.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::server::budget::{Account, Grant};
use crate::server::metrics::ServerMetrics;

/// Frames that may wait to be sent, beside answers, which the requests in flight bound. What they hold is bounded by the
/// budget.
const QUEUE_FRAMES: usize = 256;
/// Frames sent in one go.
const COALESCE_FRAMES: usize = 64;
/// Pieces handed to the system in one call.
const PIECES: usize = 64;

/// A frame on its way out, with what it holds until it is sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Header and body.
    pub head: Bytes,
    /// Record batches.
    pub payload: Bytes,
    /// The slot of the request that it answers.
    pub slot: Option<OwnedSemaphorePermit>,
    /// Its bytes of the outgoing budget; held, never looked at.
    #[expect(dead_code, reason = "dropping it gives the bytes back")]
    pub grant: Option<Grant>,
    /// Nothing goes out behind it: the writer ends this side of the connection.
    pub last: bool,
}

/// Where everything that is to be sent on a connection goes. Dropping it lets the writer end once all is sent.
#[derive(Debug)]
pub struct Outbox {
    lane: Arc<Lane>,
}

/// What the outbox and the writer task share.
#[derive(Debug)]
pub struct Lane {
    socket: OwnedWriteHalf,
    metrics: Arc<ServerMetrics>,
    account: Arc<Account>,
    state: Mutex<State>,
    /// There is something for the writer task to do.
    work: Notify,
    /// There is room in the queue.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    /// Somebody is writing to the socket.
    busy: bool,
    /// The outbox is gone: nothing more will come.
    ended: bool,
    /// The writer is gone: nothing goes out any more.
    closed: bool,
}

impl Outbox {
    /// An outbox on a socket, and what [`write_all`] is to be run with.
    pub fn new(socket: OwnedWriteHalf, metrics: Arc<ServerMetrics>, account: Arc<Account>) -> (Self, Arc<Lane>) {
        let (work, room) = (Notify::new(), Notify::new());
        let lane = Arc::new(Lane { socket, metrics, account, state: Mutex::default(), work, room });
        (Self { lane: lane.clone() }, lane)
    }

    /// Sends a frame; waits while the queue is full. A connection that is gone swallows it: nobody is left to tell.
    pub async fn send(&self, frame: Outgoing) {
        loop {
            let room = self.lane.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let state = self.lane.lock();
                if state.closed || state.queue.len() < QUEUE_FRAMES {
                    break;
                }
            }
            room.await;
        }
        self.send_now(frame);
    }

    /// Sends a frame without waiting, from any thread. For answers only: their number is bounded elsewhere.
    pub fn send_now(&self, frame: Outgoing) {
        let lane = &*self.lane;
        let mut state = lane.lock();
        if state.closed {
            return;
        }
        if state.busy || !state.queue.is_empty() || frame.last {
            state.queue.push_back(frame);
            if !state.busy {
                lane.work.notify_one();
            }
            return;
        }
        state.busy = true;
        drop(state);
        let rest = lane.try_send(frame);
        let mut state = lane.lock();
        state.busy = false;
        if state.closed {
            return;
        }
        if let Some(rest) = rest {
            state.queue.push_front(rest);
        }
        if !state.queue.is_empty() || state.ended {
            lane.work.notify_one();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.lane.lock().ended = true;
        self.lane.work.notify_one();
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes as much of a frame as the socket takes at once; what is left of it. An error is for the writer to meet.
    fn try_send(&self, mut frame: Outgoing) -> Option<Outgoing> {
        let slices = [IoSlice::new(&frame.head), IoSlice::new(&frame.payload)];
        let mut written = self.socket.try_write_vectored(&slices).unwrap_or(0);
        self.metrics.bytes_out.inc_by(written as u64);
        self.account.moved(written);
        let of_head = written.min(frame.head.len());
        frame.head.advance(of_head);
        written -= of_head;
        frame.payload.advance(written);
        (frame.head.has_remaining() || frame.payload.has_remaining()).then_some(frame)
    }

    /// Frames to be sent by the writer task, which alone writes from then on; `None` when there will be none.
    async fn take(&self, frames: &mut Vec<Outgoing>) -> Option<()> {
        loop {
            {
                let mut state = self.lock();
                if !state.busy && !state.queue.is_empty() {
                    state.busy = true;
                    let count = state.queue.len().min(COALESCE_FRAMES);
                    frames.extend(state.queue.drain(..count));
                    drop(state);
                    self.room.notify_waiters();
                    return Some(());
                }
                if !state.busy && state.ended {
                    return None;
                }
            }
            self.work.notified().await;
        }
    }
}

/// However the writer ends, nothing is sent any more, and nobody waits for it to be.
struct Closing<'a>(&'a Lane);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.queue);
        drop(state);
        drop(left);
        self.0.room.notify_waiters();
    }
}

/// Sends what is queued until the outbox is gone or a last frame was sent, then ends this side of the connection.
///
/// # Errors
/// The socket's, and `TimedOut` if the peer took nothing for `patience`.
pub async fn write_all(lane: Arc<Lane>, patience: Duration) -> io::Result<()> {
    let _closing = Closing(&lane);
    let mut frames = Vec::new();
    let mut parts = Parts::default();
    while lane.take(&mut frames).await.is_some() {
        for frame in &frames {
            parts.push(&frame.head);
            parts.push(&frame.payload);
            if frame.last {
                break;
            }
        }
        while parts.has_remaining() {
            match lane.socket.try_write_vectored(&parts.slices()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    parts.advance(written);
                    lane.metrics.bytes_out.inc_by(written as u64);
                    lane.account.moved(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    lane.account.peers_turn(true);
                    let ready = tokio::time::timeout(patience, lane.socket.writable()).await;
                    lane.account.peers_turn(false);
                    ready.map_err(|_| {
                        io::Error::new(io::ErrorKind::TimedOut, format!("the peer took nothing for {patience:?}"))
                    })??;
                }
                Err(error) => return Err(error),
            }
        }
        if frames.iter().any(|frame| frame.last) {
            break;
        }
        // What the frames held is free again.
        frames.clear();
        lane.lock().busy = false;
        if frames.capacity() > COALESCE_FRAMES / 8 {
            frames = Vec::new();
        }
    }
    socket2::SockRef::from(lane.socket.as_ref()).shutdown(std::net::Shutdown::Write)
}

/// Several pieces, to go out in one vectored write.
#[derive(Debug, Default)]
struct Parts {
    pieces: VecDeque<Bytes>,
}

impl Parts {
    fn push(&mut self, piece: &Bytes) {
        if !piece.is_empty() {
            self.pieces.push_back(piece.clone());
        }
    }

    fn has_remaining(&self) -> bool {
        !self.pieces.is_empty()
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces.iter().take(PIECES).map(|piece| IoSlice::new(piece)).collect()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }
}
