//! Frames out of a socket, with memory bounded by what the peer really sent. What a frame is, a listener says.
//!
//! An idle connection holds no buffer. A small frame is read into a small buffer that grows while the peer keeps it
//! full; a large one gets its bytes from the budget in steps as they arrive, in a buffer of its own, which is handed on
//! without a copy. What a peer announces and does not send takes no memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

use crate::server::budget::{Account, Arriving, Grant};
use crate::server::metrics::ServerMetrics;

/// Frames up to this size are buffered before the budget is asked; the most that a connection holds without a grant.
const SMALL_BYTES: usize = 16 * 1024;
const LEAST_CHUNK: usize = 2048;
/// What a frame may take from its first byte on, beside the time that its length allows.
const FRAME_GRACE: Duration = Duration::from_secs(30);
/// The slowest pace at which a large frame may come in while nobody waits for memory, in bytes a second. A line of that
/// pace needs 17 minutes for a batch of 8 MiB, in which the frame holds what has come of it. While others wait, the floor
/// is the budget's.
const SLOWEST_PACE: usize = 8 * 1024;
/// How long a peer may be silent within a frame: longer than the pauses of a line that loses packets.
const SILENCE_IN_FRAME: Duration = Duration::from_secs(60);

/// How long a peer that was told goodbye may be quiet before the connection is closed.
const DRAIN_QUIET: Duration = Duration::from_millis(250);
/// How long it may go on sending.
const DRAIN_LONGEST: Duration = Duration::from_secs(2);

/// How a protocol cuts a stream into frames.
pub trait Framing {
    /// A whole frame.
    type Frame;
    /// What is wrong with a stream that cannot be followed any more.
    type Error: std::error::Error;

    /// Takes a frame off the front of the buffer, with its length in bytes, if a whole one is there.
    ///
    /// # Errors
    /// The frame is wrong.
    fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<(Self::Frame, usize)>, Self::Error>;

    /// Bytes of the frame that begins the buffer, as soon as that can be known.
    ///
    /// # Errors
    /// It is wrong, or too large: it is refused before memory is taken for it.
    fn length(&self, buffer: &[u8]) -> Result<Option<usize>, Self::Error>;
}

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub enum ReadEnd {
    /// The peer ended its side, between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer ended its side within a frame.
    #[error("the connection ended within a frame, after {0} bytes of it")]
    Truncated(usize),
    /// Not a frame of this protocol, or too large a one.
    #[error("{0}")]
    BadFrame(String),
    /// No byte in the time allowed.
    #[error("nothing received for {0:?}")]
    Idle(Duration),
    /// A frame was begun and not finished in the time allowed.
    #[error("a frame of {0} bytes was begun and not finished in time")]
    Stalled(usize),
    /// The socket failed.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
}

/// The reading half of a connection.
pub struct FrameReader<F> {
    socket: OwnedReadHalf,
    framing: F,
    buffer: BytesMut,
    chunk: usize,
    arriving: Option<Arriving>,
    account: Arc<Account>,
    metrics: Arc<ServerMetrics>,
    idle: Duration,
    /// Nothing was there when the last frame was asked for.
    waited: bool,
}

impl<F: Framing> FrameReader<F> {
    /// A reader that gives up after `idle` without a byte.
    pub fn new(
        socket: OwnedReadHalf,
        account: Arc<Account>,
        metrics: Arc<ServerMetrics>,
        framing: F,
        idle: Duration,
    ) -> Self {
        Self {
            socket,
            framing,
            buffer: BytesMut::new(),
            chunk: LEAST_CHUNK,
            arriving: None,
            account,
            metrics,
            idle,
            waited: false,
        }
    }

    /// Whether the last frame was waited for: the peer had sent nothing ahead.
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// Goes on with other frames and another silence, after a handshake.
    pub fn relax(&mut self, framing: F, idle: Duration) {
        self.framing = framing;
        self.idle = idle;
    }

    /// The next frame, and the bytes that it holds of the budget. Safe to drop between two calls, not within one that
    /// has begun to wait: whoever cancels it closes the connection.
    pub async fn next(&mut self) -> Result<(F::Frame, Grant), ReadEnd> {
        let mut deadline = None;
        self.waited = false;
        loop {
            if let Some((frame, bytes)) = self.framing.take(&mut self.buffer).map_err(bad::<F>)? {
                return Ok((frame, self.settle(bytes).await));
            }
            let missing = self.missing()?;
            if let Some((length, _)) = missing
                && length > SMALL_BYTES
                && self.buffer.len() >= LEAST_CHUNK
            {
                self.step(length, &mut deadline).await;
            }
            if self.buffer.is_empty() {
                self.wait_readable().await?;
            } else if deadline.is_none() {
                deadline = Some(Instant::now() + FRAME_GRACE);
            }
            self.fill(missing, deadline).await?;
        }
    }

    /// Takes bytes from the budget for what comes next of a large frame. The peer is given the time for which it was not
    /// read from.
    async fn step(&mut self, length: usize, deadline: &mut Option<Instant>) {
        let come = self.buffer.len();
        let began = Instant::now();
        match &mut self.arriving {
            Some(arriving) if come < arriving.granted() => return,
            Some(arriving) => {
                arriving.grow(come).await;
                *deadline = deadline.map(|deadline| deadline + began.elapsed());
            }
            None => {
                self.arriving = Some(self.account.begin(length).await);
                *deadline = Some(Instant::now() + FRAME_GRACE + Duration::from_secs((length / SLOWEST_PACE) as u64));
            }
        }
        self.buffer.reserve(self.room(length));
    }

    /// Bytes of a large frame that may be read now.
    fn room(&self, length: usize) -> usize {
        let granted = self.arriving.as_ref().map_or(0, Arriving::granted);
        granted.min(length).saturating_sub(self.buffer.len())
    }

    /// Lets go of what has come of a frame: nothing is read any more.
    pub fn let_go(&mut self) {
        self.buffer = BytesMut::new();
        self.arriving = None;
    }

    /// Length of the frame that has begun, and what is missing of it.
    fn missing(&self) -> Result<Option<(usize, usize)>, ReadEnd> {
        let length = self.framing.length(&self.buffer).map_err(bad::<F>)?;
        Ok(length.map(|length| (length, length.saturating_sub(self.buffer.len()))))
    }

    /// Waits for the first byte of a frame while holding no buffer.
    async fn wait_readable(&mut self) -> Result<(), ReadEnd> {
        self.buffer = BytesMut::new();
        if let Some(ready) = self.socket.readable().now_or_never() {
            return Ok(ready?);
        }
        self.waited = true;
        match tokio::time::timeout(self.idle, self.socket.readable()).await {
            Ok(ready) => Ok(ready?),
            Err(_) => Err(ReadEnd::Idle(self.idle)),
        }
    }

    /// Reads once: into the room left for a large frame, else up to a chunk.
    async fn fill(&mut self, missing: Option<(usize, usize)>, deadline: Option<Instant>) -> Result<(), ReadEnd> {
        let room = match missing {
            Some((length, _)) if self.arriving.is_some() => self.room(length),
            _ => self.chunk,
        };
        let silence = if self.arriving.is_some() { self.idle.min(SILENCE_IN_FRAME) } else { self.idle };
        let idle_end = Instant::now() + silence;
        let until = deadline.map_or(idle_end, |deadline| deadline.min(idle_end));
        loop {
            if self.arriving.is_none() {
                self.buffer.reserve(room);
            }
            match self.socket.try_read_buf(&mut (&mut self.buffer).limit(room)) {
                Ok(0) if self.buffer.is_empty() => return Err(ReadEnd::Closed),
                Ok(0) => return Err(ReadEnd::Truncated(self.buffer.len())),
                Ok(read) => {
                    self.metrics.bytes_in.inc_by(read as u64);
                    self.account.moved(read);
                    // A peer that fills the room gets more of it, one that does not gets less.
                    self.chunk = if read == room { self.chunk * 2 } else { self.chunk / 2 };
                    self.chunk = self.chunk.clamp(LEAST_CHUNK, SMALL_BYTES);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.waited |= self.buffer.is_empty(),
                Err(error) => return Err(error.into()),
            }
            self.account.peers_turn(self.arriving.is_some());
            let ready = tokio::time::timeout_at(until, self.socket.readable()).await;
            self.account.peers_turn(false);
            match ready {
                Ok(ready) => ready?,
                Err(_) if until == idle_end => return Err(ReadEnd::Idle(silence)),
                Err(_) => return Err(ReadEnd::Stalled(missing.map_or(self.buffer.len(), |(length, _)| length))),
            }
        }
    }

    /// The grant of the frame of `bytes` just decoded; a small one is counted only now. The buffer is given up with it if nothing is left in it, so that the frame
    /// is its only owner.
    async fn settle(&mut self, bytes: usize) -> Grant {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        match self.arriving.take() {
            Some(arriving) => arriving.whole(),
            None => self.account.take(bytes).await,
        }
    }

    /// Reads and drops what the peer still sends, so that closing does not reset the connection under the last frame
    /// that was sent to it. Ends with the peer's end, when it has been quiet for a moment, and in any case soon.
    pub async fn drain(self) {
        let drain = async {
            let mut scratch = vec![0; 4096];
            loop {
                match tokio::time::timeout(DRAIN_QUIET, self.socket.readable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
                match self.socket.try_read(&mut scratch) {
                    Ok(0) => return,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                    _ => {}
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_LONGEST, drain).await;
    }
}

fn bad<F: Framing>(error: F::Error) -> ReadEnd {
    ReadEnd::BadFrame(error.to_string())
}
