//! The native protocol's frames, as the reader of a connection takes them.

use bytes::BytesMut;

use crate::base::limits;
use crate::protocol::{Frame, FrameDecoder, FrameError};
use crate::server::frames::{self, Framing};

/// The reader of a native connection.
pub type FrameReader = frames::FrameReader<FrameDecoder>;

impl Framing for FrameDecoder {
    type Frame = Frame;
    type Error = FrameError;

    fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<(Frame, usize)>, FrameError> {
        let frame = self.decode(buffer)?;
        Ok(frame.map(|frame| {
            let bytes = limits::FRAME_HEADER_BYTES + frame.body.len() + frame.payload.len();
            (frame, bytes)
        }))
    }

    fn length(&self, buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        Ok(self.peek(buffer)?.map(|header| header.length as usize + 4))
    }
}
