//! Bodies: `bincode` 2 with fixed-width big-endian integers, so that they can be described in a table.
//! Strings and sequences have a u64 length before them, an option one byte, an enum a u32.

use serde::{Serialize, de::DeserializeOwned};

use crate::base::limits;

use super::FrameError;

const fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<{ limits::FRAME_BODY_BYTES }>()
}

/// Appends the encoded message.
///
/// # Errors
/// One line, if it cannot be encoded.
pub fn encode_body(message: &impl Serialize) -> Result<Vec<u8>, String> {
    bincode::serde::encode_to_vec(message, config()).map_err(|error| error.to_string())
}

/// Decodes a message that fills the body. Bytes behind what this version knows are ignored: a newer peer may add fields
/// at the end.
///
/// # Errors
/// [`FrameError::Message`].
pub fn decode_body<M: DeserializeOwned>(kind: u16, body: &[u8]) -> Result<M, FrameError> {
    bincode::serde::decode_from_slice(body, config())
        .map(|(message, _)| message)
        .map_err(|error| FrameError::Message { kind, what: error.to_string() })
}
