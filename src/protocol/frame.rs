//! Frames. All integers big-endian:
//!
//! ```text
//!  0 u32 length: bytes behind this field (20 + body + payload)
//!  4 u32 CRC-32 of bytes 8 to 24 and of the body
//!  8 u16 kind    10 u16 flags    12 u64 correlation id    20 u32 body length
//! 24 body (bincode), then payload (record batches, which carry checksums of their own)
//! ```

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;

use crate::base::limits;

use super::{FrameError, Message, codec};

/// Bits of the flags field.
pub mod flags {
    /// An answer.
    pub const RESPONSE: u16 = 1;
    /// The body is an [`ErrorBody`](super::super::ErrorBody).
    pub const ERROR: u16 = 2;
    /// Sent by the server unasked; the correlation id is the subscription's.
    pub const PUSH: u16 = 4;
}

const HEADER: usize = limits::FRAME_HEADER_BYTES;
/// Bytes of the header that the length field counts.
const COUNTED: usize = HEADER - 4;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes behind the length field.
    pub length: u32,
    /// CRC-32 of the header from `kind` on, and of the body.
    pub crc: u32,
    /// Message kind.
    pub kind: u16,
    /// See [`flags`].
    pub flags: u16,
    /// Chosen by who asks, repeated by who answers.
    pub correlation: u64,
    /// Bytes of the body.
    pub body_length: u32,
}

impl FrameHeader {
    /// Decodes a header and checks its lengths against `max_frame`, the limit on a whole frame.
    ///
    /// # Errors
    /// A length that is impossible or above the limit.
    pub fn parse(bytes: &[u8; HEADER], max_frame: usize) -> Result<Self, FrameError> {
        let mut rest = bytes.as_slice();
        let header = Self {
            length: rest.get_u32(),
            crc: rest.get_u32(),
            kind: rest.get_u16(),
            flags: rest.get_u16(),
            correlation: rest.get_u64(),
            body_length: rest.get_u32(),
        };
        if (header.length as usize) < COUNTED {
            return Err(FrameError::TooShort { length: header.length, least: COUNTED as u32 });
        }
        let whole = u64::from(header.length) + 4;
        if whole > max_frame as u64 {
            return Err(FrameError::TooLong { length: whole, limit: max_frame as u64 });
        }
        let limit = (header.length as usize - COUNTED).min(limits::FRAME_BODY_BYTES) as u32;
        if header.body_length > limit {
            return Err(FrameError::Body { length: header.body_length, limit });
        }
        Ok(header)
    }

    /// Bytes of the payload.
    pub fn payload_length(&self) -> usize {
        self.length as usize - COUNTED - self.body_length as usize
    }
}

/// A whole frame; body and payload share the memory it was received in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Message kind.
    pub kind: u16,
    /// See [`flags`].
    pub flags: u16,
    /// Correlation id.
    pub correlation: u64,
    /// The encoded message.
    pub body: Bytes,
    /// Record batches.
    pub payload: Bytes,
}

impl Frame {
    /// Decodes the body.
    ///
    /// # Errors
    /// [`FrameError::Message`].
    pub fn decode<M: Message>(&self) -> Result<M, FrameError> {
        codec::decode_body(self.kind, &self.body)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    max_frame: usize,
}

impl FrameDecoder {
    /// A decoder that takes frames of at most `max_frame` bytes.
    pub fn new(max_frame: usize) -> Self {
        Self { max_frame }
    }

    /// Changes the limit, as the handshake does.
    pub fn set_max_frame(&mut self, max_frame: usize) {
        self.max_frame = max_frame;
    }

    /// Takes a frame off the front of `buffer` if a whole one is there. If not, says with `Ok(None)` that more is needed;
    /// a wrong header is refused as soon as it is there, before memory is taken for the rest.
    ///
    /// # Errors
    /// A frame that is wrong; the stream cannot be followed any more.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.peek(buffer)? else { return Ok(None) };
        let whole = header.length as usize + 4;
        if buffer.len() < whole {
            return Ok(None);
        }
        let frame = buffer.split_to(whole).freeze();
        let body = frame.slice(HEADER..HEADER + header.body_length as usize);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[8..HEADER + body.len()]);
        let computed = crc.finalize();
        if computed != header.crc {
            return Err(FrameError::Checksum { stored: header.crc, computed });
        }
        let payload = frame.slice(HEADER + body.len()..);
        Ok(Some(Frame { kind: header.kind, flags: header.flags, correlation: header.correlation, body, payload }))
    }

    /// The header at the front of the buffer, if it is there.
    ///
    /// # Errors
    /// As [`FrameHeader::parse`].
    pub fn peek(&self, buffer: &[u8]) -> Result<Option<FrameHeader>, FrameError> {
        match buffer.first_chunk::<HEADER>() {
            Some(bytes) => FrameHeader::parse(bytes, self.max_frame).map(Some),
            None => Ok(None),
        }
    }
}

/// Encodes header and body of a frame whose payload of `payload_length` bytes is sent behind it.
///
/// # Errors
/// One line, if the message cannot be encoded, or the body or the frame would be too large.
pub fn encode_frame(
    kind: u16,
    flags: u16,
    correlation: u64,
    message: &impl Serialize,
    payload_length: usize,
) -> Result<BytesMut, String> {
    let body = codec::encode_body(message)?;
    if body.len() > limits::FRAME_BODY_BYTES {
        return Err(format!("body of {} bytes is larger than the limit of {}", body.len(), limits::FRAME_BODY_BYTES));
    }
    let length = COUNTED + body.len() + payload_length;
    if length + 4 > limits::FRAME_BYTES {
        return Err(format!("frame of {} bytes is larger than the limit of {}", length + 4, limits::FRAME_BYTES));
    }
    let mut out = BytesMut::with_capacity(HEADER + body.len());
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_be_bytes());
    Ok(out)
}
