//! Floor 1: the native wire protocol. Pure: bytes in, values out. docs/protocol.md describes it to the byte.
//!
//! Knows nothing of sockets, time or the broker.

mod clock;
mod codec;
mod connections;
mod damage;
mod error;
#[cfg(any(fuzzing, test))]
mod every;
mod frame;
mod groups;
mod kind;
mod lists;
mod messages;
mod pushes;
mod queue;
mod receipts;
mod requests;
mod routes;
mod streams;
mod topics;
mod transactions;
mod trimming;

pub use clock::*;
pub use codec::{decode_body, encode_body};
pub use connections::*;
pub use damage::*;
pub use error::FrameError;
#[cfg(any(fuzzing, test))]
pub use every::decode_every;
pub use frame::{Frame, FrameDecoder, FrameHeader, encode_frame, flags};
pub use groups::*;
pub use kind::{Kind, Message, Request};
pub use lists::*;
pub use messages::*;
pub use pushes::*;
pub use queue::*;
pub use receipts::*;
pub use requests::*;
pub use routes::*;
pub use streams::*;
pub use topics::*;
pub use transactions::*;
pub use trimming::*;

/// Oldest protocol version spoken here.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Newest protocol version spoken here.
pub const PROTOCOL_VERSION_MAX: u16 = 1;

#[cfg(test)]
mod tests;
