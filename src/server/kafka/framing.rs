//! Kafka's frames: a length of four bytes, and that many bytes.

use bytes::{Buf, BytesMut};

use crate::server::frames::Framing;

/// Cuts a stream into frames of at most so many bytes.
#[derive(Debug, Clone, Copy)]
pub struct KafkaFraming {
    /// Bytes, the length not counted.
    pub max_frame: usize,
}

/// A length that is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request of {length} bytes; there are requests of {LEAST} to {limit} bytes")]
pub struct BadLength {
    length: i32,
    limit: usize,
}

/// Key, version and correlation id.
const LEAST: usize = 8;

impl Framing for KafkaFraming {
    type Frame = BytesMut;
    type Error = BadLength;

    fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<(BytesMut, usize)>, BadLength> {
        let Some(whole) = self.length(buffer)?.filter(|whole| buffer.len() >= *whole) else { return Ok(None) };
        let mut frame = buffer.split_to(whole);
        frame.advance(4);
        Ok(Some((frame, whole)))
    }

    fn length(&self, buffer: &[u8]) -> Result<Option<usize>, BadLength> {
        let Some(length) = buffer.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else { return Ok(None) };
        match usize::try_from(length) {
            Ok(bytes) if (LEAST..=self.max_frame).contains(&bytes) => Ok(Some(4 + bytes)),
            _ => Err(BadLength { length, limit: self.max_frame }),
        }
    }
}
