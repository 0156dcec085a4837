//! Snappy, decompressed as it is read. Small blocks are opened whole; large ones keep a window of what they became, so that a
//! block of any size takes [`BLOCK_BYTES`] or twice [`WINDOW_BYTES`] of memory at most.
//!
//! Format: `format_description.txt` of google/snappy, and the framing of xerial's snappy-java that Kafka's clients use.

use std::io::{self, Read};
use std::ops::Range;

/// What xerial's framing begins with: magic, then two version numbers.
pub(super) const XERIAL: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEAD: usize = 16;

/// Blocks that become at most so many bytes are opened whole.
const BLOCK_BYTES: usize = 1024 * 1024;

/// How far back a copy may refer. The format allows more; encoders compress pieces of 64 KiB (Google's and those made after
/// it) or 4 MiB (S2's) by themselves.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that are decompressed at a time.
const STEP_BYTES: usize = 64 * 1024;

/// A reader of what some bytes become.
pub(super) struct Snappy<T> {
    input: T,
    /// Where the next block begins.
    next: usize,
    framed: bool,
    /// What a small block became.
    whole: Vec<u8>,
    at: usize,
    large: Option<Large>,
}

impl<T: AsRef<[u8]>> Snappy<T> {
    pub(super) fn new(input: T) -> Self {
        let framed = input.as_ref().starts_with(XERIAL);
        let next = if framed { XERIAL_HEAD.min(input.as_ref().len()) } else { 0 };
        Self { input, next, framed, whole: Vec::new(), at: 0, large: None }
    }

    /// Begins with the next block.
    fn next_block(&mut self) -> io::Result<()> {
        let input = self.input.as_ref();
        let (mut begin, mut block) = (self.next, input.get(self.next..).unwrap_or_default());
        self.next = input.len();
        if self.framed {
            let (length, tail) = block.split_first_chunk::<4>().ok_or_else(|| wrong("a block ends too early"))?;
            let length = u32::from_be_bytes(*length) as usize;
            block = tail.get(..length).ok_or_else(|| wrong("a block ends too early"))?;
            begin += 4;
            self.next = begin + length;
        }
        self.at = 0;
        self.whole.clear();
        // The length is the block's own word: memory is taken for a small one only.
        let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        if length > BLOCK_BYTES {
            let head =
                block.iter().position(|byte| byte & 0x80 == 0).ok_or_else(|| wrong("its length does not end"))?;
            self.large = Some(Large::new(begin + head + 1..begin + block.len(), length));
            return Ok(());
        }
        self.whole.resize(length, 0);
        let got = snap::raw::Decoder::new().decompress(block, &mut self.whole).map_err(io::Error::other)?;
        self.whole.truncate(got);
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Read for Snappy<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(large) = &mut self.large {
                let read = large.read(self.input.as_ref(), out)?;
                if read > 0 {
                    return Ok(read);
                }
                self.large = None;
            }
            if self.at < self.whole.len() {
                let count = out.len().min(self.whole.len() - self.at);
                out[..count].copy_from_slice(&self.whole[self.at..self.at + count]);
                self.at += count;
                return Ok(count);
            }
            if self.next >= self.input.as_ref().len() {
                return Ok(0);
            }
            self.next_block()?;
        }
    }
}

/// A block that is decompressed piece by piece.
struct Large {
    /// What of the input it has still to read.
    rest: Range<usize>,
    /// The last bytes that it became, some of which were read.
    window: Vec<u8>,
    read: usize,
    /// Bytes of a literal that are to come.
    literal: usize,
    /// Bytes that it still becomes, by its own word.
    left: usize,
}

impl Large {
    fn new(rest: Range<usize>, length: usize) -> Self {
        Self { rest, window: Vec::new(), read: 0, literal: 0, left: length }
    }

    fn read(&mut self, input: &[u8], out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.window.len() {
            if self.window.len() >= 2 * WINDOW_BYTES - STEP_BYTES {
                self.window.drain(..self.window.len() - WINDOW_BYTES);
            }
            self.read = self.window.len();
            while self.left > 0 && self.window.len() - self.read < STEP_BYTES - 64 {
                self.element(input)?;
            }
            if self.left == 0 && (self.literal > 0 || !self.rest.is_empty()) {
                return Err(wrong("a block becomes more than it says"));
            }
        }
        let count = out.len().min(self.window.len() - self.read);
        out[..count].copy_from_slice(&self.window[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }

    /// The next bytes of the block.
    fn next<'a>(&mut self, input: &'a [u8], length: usize) -> io::Result<&'a [u8]> {
        let bytes = input.get(self.rest.clone()).and_then(|rest| rest.get(..length));
        let bytes = bytes.ok_or_else(|| wrong("a block ends too early"))?;
        self.rest.start += length;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self, input: &[u8]) -> io::Result<[u8; N]> {
        self.next(input, N)?.try_into().map_err(|_| wrong("a block ends too early"))
    }

    /// Decompresses an element, or a piece of a literal.
    fn element(&mut self, input: &[u8]) -> io::Result<()> {
        if self.literal == 0 {
            let [tag] = self.take(input)?;
            let high = usize::from(tag >> 2);
            let (length, back) = match tag & 3 {
                0 => {
                    self.literal = 1 + match high {
                        60 => usize::from(self.take::<1>(input)?[0]),
                        61 => usize::from(u16::from_le_bytes(self.take(input)?)),
                        62 => {
                            let [low, middle, high] = self.take(input)?;
                            u32::from_le_bytes([low, middle, high, 0]) as usize
                        }
                        63 => u32::from_le_bytes(self.take(input)?) as usize,
                        length => length,
                    };
                    return self.literal(input);
                }
                1 => (4 + (high & 7), usize::from(tag >> 5) << 8 | usize::from(self.take::<1>(input)?[0])),
                2 => (1 + high, usize::from(u16::from_le_bytes(self.take(input)?))),
                _ => (1 + high, u32::from_le_bytes(self.take(input)?) as usize),
            };
            return self.copy(length, back);
        }
        self.literal(input)
    }

    fn literal(&mut self, input: &[u8]) -> io::Result<()> {
        let length = self.literal.min(STEP_BYTES / 2);
        let bytes = self.next(input, length)?;
        self.became(length)?;
        self.window.extend_from_slice(bytes);
        self.literal -= length;
        Ok(())
    }

    fn copy(&mut self, length: usize, back: usize) -> io::Result<()> {
        let from = self.window.len().checked_sub(back).filter(|_| back > 0);
        let Some(from) = from else {
            let what = if back > WINDOW_BYTES { "a copy refers too far back" } else { "a copy refers to nothing" };
            return Err(wrong(what));
        };
        self.became(length)?;
        if back >= length {
            self.window.extend_from_within(from..from + length);
        } else {
            // It repeats what it writes.
            for at in from..from + length {
                self.window.push(self.window[at]);
            }
        }
        Ok(())
    }

    fn became(&mut self, bytes: usize) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| wrong("a block becomes more than it says"))?;
        Ok(())
    }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_become_the_same_as_when_they_are_opened_whole() {
        let seed = 5;
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for round in 0..40 {
            let words: Vec<Vec<u8>> = (0..20).map(|_| (0..rng.usize(1..90)).map(|_| rng.u8(..)).collect()).collect();
            let mut plain = Vec::new();
            let size = rng.usize(..300_000);
            while plain.len() < size {
                match rng.u8(..8) {
                    0 => plain.extend((0..rng.usize(..5000)).map(|_| rng.u8(..))),
                    1 => plain.resize(plain.len() + rng.usize(..5000), 7),
                    _ => plain.extend_from_slice(&words[rng.usize(..words.len())]),
                }
            }
            let packed = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            let mut out = Vec::new();
            let large = |block: &[u8], length| {
                let head = block.iter().position(|byte| byte & 0x80 == 0).map(|head| head + 1);
                head.map(|head| Large::new(head..block.len(), length)).ok_or_else(|| wrong("its length does not end"))
            };
            let mut whole = large(&packed, plain.len()).unwrap();
            let mut piece = vec![0; rng.usize(1..70_000)];
            loop {
                match whole.read(&packed, &mut piece).unwrap() {
                    0 => break,
                    count => out.extend_from_slice(&piece[..count]),
                }
            }
            assert!(out == plain, "round {round}");
            assert!(whole.window.capacity() <= 4 * WINDOW_BYTES);
            // Whatever is wrong in it is found, or is what the whole opener makes of it.
            let mut bad = packed.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bad.len());
                bad[at] = rng.u8(..);
            }
            let Ok(length) = snap::raw::decompress_len(&bad) else { continue };
            if length > 1 << 20 {
                continue;
            }
            let whole = snap::raw::Decoder::new().decompress_vec(&bad).ok();
            let pieces = large(&bad, length).and_then(|mut large| {
                let mut out = Vec::new();
                loop {
                    match large.read(&bad, &mut piece)? {
                        0 => return Ok(out),
                        count => out.extend_from_slice(&piece[..count]),
                    }
                }
            });
            assert_eq!(pieces.ok().filter(|out| out.len() == length), whole, "round {round}");
        }
    }

    #[test]
    fn a_block_of_any_size_takes_no_more_memory_than_its_windows() {
        let plain = vec![1; 40 << 20];
        let packed = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let mut snappy = Snappy::new(&packed);
        let (mut piece, mut length) = (vec![0; 16 * 1024], 0);
        loop {
            match snappy.read(&mut piece).unwrap() {
                0 => break,
                count => length += count,
            }
            let held = snappy.whole.capacity() + snappy.large.as_ref().map_or(0, |large| large.window.capacity());
            assert!(held <= 4 * WINDOW_BYTES, "{held}");
        }
        assert_eq!(length, plain.len());
    }
}
