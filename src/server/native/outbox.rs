//! The writing half of a connection: a bounded queue, and one task that sends what has gathered in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::server::budget::Grant;
use crate::server::metrics::ServerMetrics;

/// Frames that may wait to be sent. What they hold is bounded by the budget and by the requests in flight.
const QUEUE_FRAMES: usize = 256;
/// Frames sent in one go.
const COALESCE_FRAMES: usize = 64;

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

/// Where everything that is to be sent on a connection goes.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Outgoing>,
}

impl Outbox {
    /// A queue and its other end, for [`write_all`].
    pub fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (queue, other_end) = mpsc::channel(QUEUE_FRAMES);
        (Self { queue }, other_end)
    }

    /// Queues a frame; waits while the queue is full. A connection that is gone swallows it: nobody is left to tell.
    pub async fn send(&self, frame: Outgoing) {
        let _ = self.queue.send(frame).await;
    }
}

/// Sends what is queued until every sender is gone or a last frame was sent, then ends this side of the connection.
///
/// # Errors
/// The socket's, and `TimedOut` if the peer took nothing for `patience`.
pub async fn write_all(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
    metrics: Arc<ServerMetrics>,
    patience: Duration,
) -> io::Result<()> {
    let mut frames = Vec::new();
    let mut parts = Parts::default();
    while queue.recv_many(&mut frames, COALESCE_FRAMES).await > 0 {
        for frame in &frames {
            parts.push(&frame.head);
            parts.push(&frame.payload);
            if frame.last {
                break;
            }
        }
        while parts.has_remaining() {
            let written = tokio::time::timeout(patience, socket.write_buf(&mut parts)).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("the peer took nothing for {patience:?}"))
            })??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            metrics.bytes_out.inc_by(written as u64);
        }
        if frames.iter().any(|frame| frame.last) {
            break;
        }
        // What the frames held is free again.
        frames.clear();
        if frames.capacity() > COALESCE_FRAMES / 8 && queue.is_empty() {
            frames = Vec::new();
        }
    }
    socket.shutdown().await
}

/// Several pieces as one buffer, so that they go out in one vectored write.
#[derive(Debug, Default)]
struct Parts {
    pieces: VecDeque<Bytes>,
    left: usize,
}

impl Parts {
    fn push(&mut self, piece: &Bytes) {
        if !piece.is_empty() {
            self.left += piece.len();
            self.pieces.push_back(piece.clone());
        }
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
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
