//! The codecs of the format, all bounded when they decompress.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::base::limits;

use super::BatchError;

/// A codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Records as they are.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy in the framing of xerial's snappy-java, as Kafka's Java client writes it; raw snappy is read too.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// What xerial's framing begins with: magic, then two version numbers.
const XERIAL: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEAD: usize = 16;
const XERIAL_BLOCK: usize = 32 * 1024;

impl Compression {
    /// Every codec.
    pub const ALL: [Compression; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The name people use.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn bits(self) -> u16 {
        self as u16
    }

    pub(crate) fn from_bits(bits: u16) -> Result<Self, BatchError> {
        let known = Self::ALL.get(usize::from(bits)).copied();
        known.ok_or(BatchError::Field { field: "codec", value: i64::from(bits) })
    }

    /// Appends the compressed form of `input` to `out`.
    pub(crate) fn compress(self, input: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::None => out.extend_from_slice(input),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(input)?;
                encoder.finish()?;
            }
            Self::Snappy => {
                out.extend_from_slice(XERIAL);
                out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                for block in input.chunks(XERIAL_BLOCK) {
                    let packed = snap::raw::Encoder::new().compress_vec(block).map_err(std::io::Error::other)?;
                    out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                    out.extend_from_slice(&packed);
                }
            }
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(input)?;
                encoder.finish().map_err(std::io::Error::other)?;
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::Encoder::new(out, 3)?;
                encoder.write_all(input)?;
                encoder.finish()?;
            }
        }
        Ok(())
    }

    /// The decompressed form of `input`, refused as soon as it exceeds `limit` bytes.
    pub(crate) fn decompress(self, input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
        match self {
            Self::None => Ok(input.to_vec()),
            Self::Gzip => self.read(flate2::read::GzDecoder::new(input), limit),
            Self::Snappy => self.unsnap(input, limit),
            Self::Lz4 => self.read(lz4_flex::frame::FrameDecoder::new(input), limit),
            Self::Zstd => {
                let decoder = zstd::stream::Decoder::new(input).map_err(|error| self.failed(&error))?;
                self.read(decoder, limit)
            }
        }
    }

    /// A reader of the decompressed form of `input`, unbounded. Takes memory for a window, or (Snappy) for a block.
    pub(crate) fn open<'a>(self, input: &'a [u8]) -> Result<Box<dyn Read + 'a>, BatchError> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::read::GzDecoder::new(input)),
            Self::Snappy => {
                let framed = input.starts_with(XERIAL);
                let rest = if framed { input.get(XERIAL_HEAD..).unwrap_or_default() } else { input };
                Box::new(Snapped { rest, framed, block: Vec::new(), at: 0 })
            }
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
            Self::Zstd => Box::new(zstd::stream::Decoder::new(input).map_err(|error| self.failed(&error))?),
        })
    }

    fn read(self, reader: impl Read, limit: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        reader.take(limit as u64 + 1).read_to_end(&mut out).map_err(|error| self.failed(&error))?;
        if out.len() > limit { Err(BatchError::Bomb { limit }) } else { Ok(out) }
    }

    fn unsnap(self, input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        if !input.starts_with(XERIAL) {
            self.unsnap_block(input, limit, &mut out)?;
            return Ok(out);
        }
        let mut rest = input.get(XERIAL_HEAD..).unwrap_or_default();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let block = tail.get(..length).ok_or_else(|| self.failed(&"a block ends too early"))?;
            self.unsnap_block(block, limit, &mut out)?;
            rest = &tail[length..];
        }
        if rest.is_empty() { Ok(out) } else { Err(self.failed(&"bytes behind the last block")) }
    }

    fn unsnap_block(self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
        // The length is the block's own word: it is checked before memory is taken for it.
        let length = snap::raw::decompress_len(block).map_err(|error| self.failed(&error))?;
        if out.len().saturating_add(length) > limit {
            return Err(BatchError::Bomb { limit });
        }
        // Snappy makes at most 64 bytes of three, so a longer claim is a lie.
        if length > block.len().saturating_mul(64) {
            return Err(self.failed(&"a block claims more than it can hold"));
        }
        let from = out.len();
        out.resize(from + length, 0);
        let got = snap::raw::Decoder::new().decompress(block, &mut out[from..]).map_err(|error| self.failed(&error))?;
        out.truncate(from + got);
        Ok(())
    }

    fn failed(self, error: &dyn std::fmt::Display) -> BatchError {
        BatchError::Decompress { codec: self.name(), what: error.to_string() }
    }
}

/// Snappy's blocks, one at a time.
struct Snapped<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    at: usize,
}

impl Read for Snapped<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let wrong = |error: BatchError| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        while self.at == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            let mut block = std::mem::take(&mut self.rest);
            if self.framed {
                let short = || wrong(Compression::Snappy.failed(&"a block ends too early"));
                let (length, tail) = block.split_first_chunk::<4>().ok_or_else(short)?;
                let length = u32::from_be_bytes(*length) as usize;
                block = tail.get(..length).ok_or_else(short)?;
                self.rest = &tail[length..];
            }
            self.block.clear();
            self.at = 0;
            Compression::Snappy.unsnap_block(block, limits::MAX_DECOMPRESSED_BYTES, &mut self.block).map_err(wrong)?;
        }
        let count = out.len().min(self.block.len() - self.at);
        out[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Compression {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|codec| codec.name() == name);
        known.ok_or_else(|| format!("'{name}' is not a compression; use none, gzip, snappy, lz4 or zstd"))
    }
}
