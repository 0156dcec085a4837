//! The writing half of a connection: whatever is queued goes out in as few system calls as possible.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

/// Pieces of memory handed to one system call; the kernel takes at most 1024.
const PIECES: usize = 128;
/// Bytes gathered before writing; more would only wait.
const GATHER_BYTES: usize = 1024 * 1024;

/// A frame on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Header and body.
    pub(crate) head: Bytes,
    /// Record batches; not copied.
    pub(crate) payload: Bytes,
    /// Permits of the queue's bound, given back once written.
    pub(crate) room: usize,
}

/// Writes frames until the queue's senders are gone, then ends the stream.
pub(crate) async fn write_frames(
    mut socket: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    room: Arc<Semaphore>,
) -> io::Result<()> {
    let mut pieces = VecDeque::with_capacity(PIECES);
    while let Some(first) = queue.recv().await {
        let (mut gathered, mut permits) = (0, 0);
        let mut next = Some(first);
        while let Some(frame) = next.take() {
            gathered += frame.head.len() + frame.payload.len();
            permits += frame.room;
            pieces.push_back(frame.head);
            if !frame.payload.is_empty() {
                pieces.push_back(frame.payload);
            }
            if pieces.len() + 1 < PIECES && gathered < GATHER_BYTES {
                next = queue.try_recv().ok();
            }
        }
        write_pieces(&mut socket, &mut pieces).await?;
        room.add_permits(permits);
    }
    socket.shutdown().await
}

async fn write_pieces(socket: &mut (impl AsyncWrite + Unpin), pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let count = pieces.len().min(PIECES);
        for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
            *slice = IoSlice::new(piece);
        }
        let mut written = socket.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            let part = written.min(front.len());
            front.advance(part);
            written -= part;
            if !front.is_empty() {
                break;
            }
            pieces.pop_front();
        }
    }
    socket.flush().await
}
