//! The codecs of the format, all bounded when they decompress.

use std::io::{Cursor, Read, Write};

use serde::{Deserialize, Serialize};

use super::BatchError;
use super::snappy::{Snappy, XERIAL};

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

/// A reader of what a compressed batch becomes.
pub(crate) type Opened<'a> = Box<dyn Read + Send + Sync + 'a>;

/// Bytes of a block of xerial's framing.
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
        let mut out = Vec::new();
        self.open(input)?.take(limit as u64 + 1).read_to_end(&mut out).map_err(|error| self.failed(&error))?;
        if out.len() > limit { Err(BatchError::Bomb { size: input.len(), limit }) } else { Ok(out) }
    }

    /// A reader of the decompressed form of `input`, unbounded. Takes memory for a window, whatever the input says. A first read of
    /// nothing is the end.
    pub(crate) fn open<'a, T: AsRef<[u8]> + Send + Sync + 'a>(self, input: T) -> Result<Opened<'a>, BatchError> {
        Ok(match self {
            Self::None => Box::new(Cursor::new(input)),
            // As Kafka's clients do, members one behind the other are read as one.
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(Cursor::new(input))),
            Self::Snappy => Box::new(Snappy::new(input)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(Cursor::new(input))),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(Cursor::new(input));
                Box::new(decoder.map_err(|error| self.failed(&error))?)
            }
        })
    }

    /// Bytes of memory that [`Compression::open`] takes beside its input, about, for what the usual encoders make. A batch may say
    /// of itself that it needs a larger window (Zstandard's levels above 19 do); that takes no more than the batch becomes.
    pub(crate) fn window_bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Gzip => 64 * 1024,
            Self::Snappy | Self::Lz4 => 256 * 1024,
            Self::Zstd => 2 * 1024 * 1024,
        }
    }

    pub(super) fn failed(self, error: &dyn std::fmt::Display) -> BatchError {
        BatchError::Decompress { codec: self.name(), what: error.to_string() }
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
