//! The two small files beside the segments that make recovery short and honest.
//!
//! `checkpoint`, replaced as a whole (all integers big-endian):
//!
//! ```text
//! magic "TLCP" | u16 version = 3 | u16 0 | u64 log start offset
//! | u64 active segment's base offset | u64 position in it | u64 next offset        everything before is synced, verified
//! | u64 offset up to which the log was compacted
//! | u32 count of sealed segments: (u64 base, u32 generation, u64 bytes, u64 next offset, i64 newest timestamp,
//!                                  i64 earliest delete horizon, the largest number for none)*
//! | u32 count of producers: (i64 id, i16 epoch, i64 last use, i64 begin of its open transaction or −1,
//!                            u8 count: (i32 first, i32 last, u64 base, u64 last offset)*)*     keys are among them
//! | u32 count of aborted transactions: (i64 producer, u64 first, u64 marker, u64 stable)*
//! | u32 CRC-32 of all before
//! ```
//!
//! Older versions are still read: 1 has no compacted offset, no generations and no horizons, and 2 no transactions. Which files make up the log
//! is what its sealed segments say: replacing the checkpoint is the moment at which compacted files take the place of
//! others.
//!
//! `synced`, overwritten in place after every sync and not itself synced: a lower bound of the synced end. After a
//! SIGKILL it is exact; after a power cut it is some earlier truth. Below it, an unreadable batch is damage; at or above
//! it, it is a write that never finished.
//!
//! ```text
//! magic "TLSM" | u32 0 | u64 synced end offset | u64 segment base | u64 position | u32 CRC-32 of all before
//! ```

use std::path::Path;

use crate::base::{Offset, TimestampMs};
use crate::disk::{self, Disk};

use super::SegmentName;
use super::keys::is_key;
use super::producers::{ProducerBatch, ProducerState, Producers};
use super::transactions::Aborted;

const MAGIC: &[u8; 4] = b"TLCP";
const VERSION: u16 = 3;
const MARK_MAGIC: &[u8; 4] = b"TLSM";

/// Bytes of a sync mark.
pub(crate) const MARK_BYTES: usize = 36;

/// A segment that takes no more batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset, which names the file.
    pub base_offset: Offset,
    /// Which file of that offset: see [`SegmentName`](super::SegmentName).
    pub generation: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// The offset after its last record.
    pub next_offset: Offset,
    /// The newest record timestamp in it.
    pub newest_timestamp: TimestampMs,
    /// The time from which on the first tombstones in it may go.
    pub horizon: Option<TimestampMs>,
}

impl SealedSegment {
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }
}

/// What is known to be synced and verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// First offset of the log.
    pub log_start: Offset,
    /// Base offset of the segment that was active.
    pub active_base: Offset,
    /// Position in it up to which everything is synced and verified.
    pub position: u64,
    /// The offset at that position.
    pub next_offset: Offset,
    /// Records before this have been compared by key: a lower bound.
    pub cleaned_to: Offset,
    /// The segments before it.
    pub sealed: Vec<SealedSegment>,
    pub(crate) producers: Producers,
}

impl Checkpoint {
    /// The file's name.
    pub const FILE: &str = "checkpoint";

    /// The segment of this name, if it is one of the sealed ones.
    pub(crate) fn sealed(&self, name: SegmentName) -> Option<&SealedSegment> {
        self.sealed.iter().find(|sealed| sealed.name() == name)
    }

    /// How many producers it remembers.
    pub fn producers(&self) -> usize {
        self.producers.states.len()
    }

    /// How many idempotency keys it remembers.
    pub fn keys(&self) -> usize {
        self.producers.keys.len()
    }

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(64 + self.sealed.len() * 44 + self.producers.states.len() * 140 + self.keys() * 51);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&0u16.to_be_bytes());
        for number in [self.log_start, self.active_base, self.position, self.next_offset, self.cleaned_to] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&(self.sealed.len() as u32).to_be_bytes());
        for segment in &self.sealed {
            out.extend_from_slice(&segment.base_offset.to_be_bytes());
            out.extend_from_slice(&segment.generation.to_be_bytes());
            out.extend_from_slice(&segment.bytes.to_be_bytes());
            out.extend_from_slice(&segment.next_offset.to_be_bytes());
            out.extend_from_slice(&segment.newest_timestamp.to_be_bytes());
            out.extend_from_slice(&segment.horizon.unwrap_or(TimestampMs::MAX).to_be_bytes());
        }
        // Sorted, so that the same state gives the same bytes.
        let mut producers: Vec<_> = self.producers.states.iter().collect();
        producers.sort_by_key(|(id, _)| **id);
        out.extend_from_slice(&((producers.len() + self.keys()) as u32).to_be_bytes());
        for (id, state) in producers {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&state.epoch.to_be_bytes());
            out.extend_from_slice(&state.last_ms.to_be_bytes());
            out.extend_from_slice(&state.open_from.map_or(-1, |first| first as i64).to_be_bytes());
            out.push(state.batches.len() as u8);
            for batch in &state.batches {
                put_batch(&mut out, batch);
            }
        }
        for (id, appended_ms, batch) in self.producers.keys.iter() {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&0i16.to_be_bytes());
            out.extend_from_slice(&appended_ms.to_be_bytes());
            out.extend_from_slice(&(-1i64).to_be_bytes());
            out.push(1);
            put_batch(&mut out, &batch);
        }
        let aborted = &self.producers.transactions.aborted;
        out.extend_from_slice(&(aborted.len() as u32).to_be_bytes());
        for aborted in aborted {
            out.extend_from_slice(&aborted.producer.to_be_bytes());
            for offset in [aborted.first, aborted.marker, aborted.stable] {
                out.extend_from_slice(&offset.to_be_bytes());
            }
        }
        seal(out)
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// One line on what is wrong with it.
    pub fn decode(content: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(content, MAGIC)?;
        let version = fields.u16()?;
        if !(1..=VERSION).contains(&version) {
            return Err(format!("version {version}; this version reads up to {VERSION}"));
        }
        fields.u16()?;
        let (compacts, transacts) = (version >= 2, version >= 3);
        let mut checkpoint = Checkpoint {
            log_start: fields.u64()?,
            active_base: fields.u64()?,
            position: fields.u64()?,
            next_offset: fields.u64()?,
            cleaned_to: if compacts { fields.u64()? } else { 0 },
            ..Checkpoint::default()
        };
        for _ in 0..fields.u32()? {
            checkpoint.sealed.push(SealedSegment {
                base_offset: fields.u64()?,
                generation: if compacts { fields.u32()? } else { 0 },
                bytes: fields.u64()?,
                next_offset: fields.u64()?,
                newest_timestamp: fields.i64()?,
                horizon: if compacts { Some(fields.i64()?).filter(|&at| at != TimestampMs::MAX) } else { None },
            });
        }
        for _ in 0..fields.u32()? {
            let id = fields.i64()?;
            let mut state = ProducerState { epoch: fields.i16()?, last_ms: fields.i64()?, ..ProducerState::default() };
            if transacts {
                state.open_from = u64::try_from(fields.i64()?).ok();
                checkpoint.producers.transactions.open.extend(state.open_from);
            }
            for _ in 0..fields.u8()? {
                state.batches.push_back(ProducerBatch {
                    first_sequence: fields.i32()?,
                    last_sequence: fields.i32()?,
                    base_offset: fields.u64()?,
                    last_offset: fields.u64()?,
                });
            }
            match state.batches.back() {
                Some(batch) if is_key(id) => checkpoint.producers.keys.restore(id, state.last_ms, *batch),
                _ => drop(checkpoint.producers.states.insert(id, state)),
            }
        }
        checkpoint.producers.keys.sort();
        if transacts {
            for _ in 0..fields.u32()? {
                checkpoint.producers.transactions.aborted.push(Aborted {
                    producer: fields.i64()?,
                    first: fields.u64()?,
                    marker: fields.u64()?,
                    stable: fields.u64()?,
                });
            }
        }
        fields.end()?;
        Ok(checkpoint)
    }

    /// Reads the checkpoint of a partition folder: `Ok(None)` if there is none, `Err` with one line if it is unusable.
    ///
    /// # Errors
    /// One line on what is wrong with it.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, String> {
        match disk::read_file(disk, &dir.join(Self::FILE)) {
            Ok(content) => Self::decode(&content).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn put_batch(out: &mut Vec<u8>, batch: &ProducerBatch) {
    out.extend_from_slice(&batch.first_sequence.to_be_bytes());
    out.extend_from_slice(&batch.last_sequence.to_be_bytes());
    out.extend_from_slice(&batch.base_offset.to_be_bytes());
    out.extend_from_slice(&batch.last_offset.to_be_bytes());
}

/// How far the last sync reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncMark {
    /// Everything below this offset was synced.
    pub offset: Offset,
    /// The segment in which it ends.
    pub segment: Offset,
    /// The position in that segment.
    pub position: u64,
}

impl SyncMark {
    /// The file's name.
    pub const FILE: &str = "synced";

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MARK_BYTES);
        out.extend_from_slice(MARK_MAGIC);
        out.extend_from_slice(&0u32.to_be_bytes());
        for number in [self.offset, self.segment, self.position] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        seal(out)
    }

    /// Reads the file's content; `None` if it is not whole (a mark that a crash tore says nothing).
    pub fn decode(content: &[u8]) -> Option<Self> {
        let mut fields = Fields::open(content.get(..MARK_BYTES)?, MARK_MAGIC).ok()?;
        fields.u32().ok()?;
        Some(Self { offset: fields.u64().ok()?, segment: fields.u64().ok()?, position: fields.u64().ok()? })
    }

    /// Reads the mark of a partition folder; `None` if there is none or it is unusable.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Option<Self> {
        disk::read_file(disk, &dir.join(Self::FILE)).ok().and_then(|content| Self::decode(&content))
    }
}

/// Appends the CRC-32 of what is there.
pub(crate) fn seal(mut content: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_be_bytes());
    content
}

/// Big-endian fields of a sealed file, every read checked against what is there.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

macro_rules! read_number {
    ($($name:ident: $number:ty),*) => {$(
        pub(crate) fn $name(&mut self) -> Result<$number, String> {
            let (bytes, rest) = self.rest.split_first_chunk().ok_or("ends too early")?;
            self.rest = rest;
            Ok(<$number>::from_be_bytes(*bytes))
        }
    )*};
}

impl<'a> Fields<'a> {
    /// Checks magic and CRC.
    pub(crate) fn open(content: &'a [u8], magic: &[u8; 4]) -> Result<Self, String> {
        let (content, crc) = content.split_last_chunk::<4>().ok_or("too short")?;
        let rest = content.strip_prefix(magic.as_slice()).ok_or("does not begin with the right magic")?;
        let (stored, computed) = (u32::from_be_bytes(*crc), crc32fast::hash(content));
        if stored != computed {
            return Err(format!("checksum {computed:08x} where {stored:08x} is stored"));
        }
        Ok(Self { rest })
    }

    read_number!(u8: u8, u16: u16, u32: u32, u64: u64, i16: i16, i32: i32, i64: i64);

    /// A text of at most 65,535 bytes behind its length.
    pub(crate) fn text(&mut self) -> Result<String, String> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.rest.split_at_checked(length).ok_or("ends too early")?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).map_err(|_| "a text is not UTF-8".to_owned())
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", self.rest.len())) }
    }
}
