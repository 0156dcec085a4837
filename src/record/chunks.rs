//! Compressed records, decompressed a chunk at a time: a reader holds a window of the codec and a chunk of records, or one
//! record that is larger, whatever the batch becomes as a whole.

use std::io::{ErrorKind, Read};

use bytes::Bytes;

use super::compress::Opened;
use super::{BatchError, Compression, varint};

/// Bytes of decompressed records that are held at a time, unless one record is larger.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// Memory that is taken for a record on its own word. More is taken as it comes.
const LARGE_BYTES: usize = 1024 * 1024;

/// The longest varint.
const VARINT_BYTES: usize = 10;

/// Decompressed records, from front to back.
pub(super) struct Chunks<'a> {
    from: Opened<'a>,
    codec: Compression,
    /// What is decompressed and not walked over yet.
    chunk: Bytes,
    /// Bytes of records before the chunk.
    base: usize,
    /// Bytes that may be decompressed in all.
    limit: usize,
    compressed: usize,
    /// No more comes: the end, or what is wrong.
    end: Option<Result<(), BatchError>>,
}

impl<'a> Chunks<'a> {
    /// At most `limit` bytes of what `input` becomes.
    ///
    /// # Errors
    /// The codec cannot begin.
    pub(super) fn open<T: AsRef<[u8]> + Send + Sync + 'a>(
        codec: Compression,
        input: T,
        limit: usize,
    ) -> Result<Self, BatchError> {
        let compressed = input.as_ref().len();
        Ok(Self { from: codec.open(input)?, codec, chunk: Bytes::new(), base: 0, limit, compressed, end: None })
    }

    /// Bytes of records before what [`Chunks::record`] gives.
    pub(super) fn at(&self) -> usize {
        self.base
    }

    /// The bytes that the next record takes by its own word, its length included. `None` if that cannot be told: the end, or
    /// something is wrong.
    pub(super) fn next_bytes(&mut self) -> Option<usize> {
        if self.chunk.len() < VARINT_BYTES {
            self.fill(VARINT_BYTES);
        }
        let mut at = 0;
        let length = varint::get(&self.chunk, &mut at)?;
        usize::try_from(length).ok()?.checked_add(at)
    }

    /// Bytes that begin with the next record. It ends in them if it ends at all and has at most `most` bytes; so a length that
    /// is a lie takes no memory.
    ///
    /// # Errors
    /// The records cannot be decompressed, or are more than they may be.
    pub(super) fn record(&mut self, most: usize) -> Result<&Bytes, BatchError> {
        if let Some(need) = self.next_bytes().filter(|&need| need <= most.saturating_add(VARINT_BYTES)) {
            self.fill(need);
            if self.chunk.len() < need
                && let Some(Err(error)) = &self.end
            {
                return Err(error.clone());
            }
        } else if let (true, Some(Err(error))) = (self.chunk.len() < VARINT_BYTES, &self.end) {
            return Err(error.clone());
        }
        Ok(&self.chunk)
    }

    /// Moves behind so many bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        let bytes = bytes.min(self.chunk.len());
        drop(self.chunk.split_to(bytes));
        self.base += bytes;
    }

    /// Bytes in memory, beside those of the records that were handed out.
    pub(super) fn held(&self) -> usize {
        self.chunk.len() + self.codec.window_bytes()
    }

    /// Decompresses until there are so many bytes, or no more come.
    fn fill(&mut self, need: usize) {
        if self.chunk.len() >= need || self.end.is_some() {
            return;
        }
        // What is carried over is copied, so that records which were handed out hold no more than their own chunk. A large
        // record gets exactly its room.
        let guess = CHUNK_BYTES.min(self.compressed.saturating_mul(4)).max(1024);
        let (want, before) = (need.max(guess), self.chunk.len());
        let mut next = Vec::with_capacity(want.min(LARGE_BYTES));
        next.extend_from_slice(&self.chunk);
        // One more than may be, to see that it is too much.
        let room = (want - before).min(self.limit.saturating_sub(self.base + before).saturating_add(1));
        let mut from = (&mut self.from).take(room as u64);
        let ended = loop {
            match from.read_to_end(&mut next) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Some(Err(self.codec.failed(&error))),
                Ok(_) => break (next.len() - before < room).then_some(Ok(())),
            }
        };
        if self.base + next.len() > self.limit {
            next.truncate(self.limit.saturating_sub(self.base));
            self.end = Some(Err(BatchError::Bomb { size: self.compressed, limit: self.limit }));
        } else {
            self.end = ended;
        }
        if next.len() < next.capacity() / 2 {
            next.shrink_to_fit();
        }
        self.chunk = next.into();
    }
}
