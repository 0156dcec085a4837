//! The handshake: the first frame is a Hello, in time, or the connection ends.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use super::framing::FrameReader;
use super::mapping::Refusal;
use super::session::{goodbye, head, refused};
use crate::base::{ErrorKind, limits};
use crate::protocol::{Hello, HelloOk, Kind, Message, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, ServerLimits, flags};
use crate::server::frames::ReadEnd;
use crate::server::shared::Shared;

/// A connection that does not get past its handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Told to the peer.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer is gone.
    #[error("{0}")]
    Gone(ReadEnd),
}

/// Reads the Hello and answers it, within the time allowed for both.
///
/// # Errors
/// The peer said something else, nothing in time, or is gone.
pub async fn shake_hands(
    reader: &mut FrameReader,
    writer: &mut OwnedWriteHalf,
    shared: &Shared,
) -> Result<Hello, HandshakeError> {
    let allowed = shared.config.handshake_timeout.as_duration();
    let greeting = tokio::select! {
        greeting = tokio::time::timeout(allowed, greet(reader, shared)) => {
            greeting.unwrap_or_else(|_| Greeting::goodbye(too_late(shared)))
        }
        () = shared.stopped() => {
            Greeting::goodbye(Refusal::new(ErrorKind::ShuttingDown, "the server is stopping"))
        }
    };
    if let Err(HandshakeError::Refused(refusal)) = &greeting.outcome {
        shared.metrics.error(refusal.kind);
    }
    let send = tokio::time::timeout(allowed.max(Duration::from_secs(1)), writer.write_all(&greeting.answer));
    if let Ok(Err(error)) = send.await {
        return Err(HandshakeError::Gone(ReadEnd::Io(error)));
    }
    shared.metrics.bytes_out.inc_by(greeting.answer.len() as u64);
    greeting.outcome
}

fn too_late(shared: &Shared) -> Refusal {
    Refusal::new(ErrorKind::TimedOut, format!("no hello within {}", shared.config.handshake_timeout))
}

/// What came of a hello: the frame to send, empty for none, and whether the connection goes on.
struct Greeting {
    answer: Bytes,
    outcome: Result<Hello, HandshakeError>,
}

impl Greeting {
    fn goodbye(refusal: Refusal) -> Self {
        Self { answer: goodbye(&refusal).head, outcome: Err(HandshakeError::Refused(refusal)) }
    }
}

async fn greet(reader: &mut FrameReader, shared: &Shared) -> Greeting {
    let (frame, _grant) = match reader.next().await {
        Ok(frame) => frame,
        Err(end @ (ReadEnd::BadFrame(_) | ReadEnd::Truncated(_))) => {
            return Greeting::goodbye(Refusal::new(ErrorKind::BadFrame, end.to_string()));
        }
        // The reader's own clock was a moment faster.
        Err(ReadEnd::Idle(_) | ReadEnd::Stalled(_)) => return Greeting::goodbye(too_late(shared)),
        Err(end) => return Greeting { answer: Bytes::new(), outcome: Err(HandshakeError::Gone(end)) },
    };
    let refuse = |refusal: Refusal| {
        let answer = refused(frame.kind, flags::RESPONSE, frame.correlation, &refusal).head;
        Greeting { answer, outcome: Err(HandshakeError::Refused(refusal)) }
    };
    if frame.kind != Hello::KIND.code() {
        let name = Kind::from_code(frame.kind).map_or("unknown", Kind::name);
        let message = format!("the first message must be hello, not kind {} ({name})", frame.kind);
        return refuse(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    if frame.flags != 0 || !frame.payload.is_empty() {
        let (flags, bytes) = (frame.flags, frame.payload.len());
        let message = format!("a hello has no flags and no payload, this one has {flags:#x} and {bytes} bytes");
        return refuse(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let hello: Hello = match frame.decode() {
        Ok(hello) => hello,
        Err(error) => return refuse(Refusal::new(ErrorKind::InvalidRequest, error.to_string())),
    };
    if hello.max_version < PROTOCOL_VERSION_MIN || hello.min_version > PROTOCOL_VERSION_MAX {
        let message = format!(
            "this server ({}) speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}; \
             the client asks for {} to {}",
            env!("CARGO_PKG_VERSION"),
            hello.min_version,
            hello.max_version
        );
        return refuse(Refusal::new(ErrorKind::Unsupported, message));
    }
    if hello.credentials.is_some() {
        let message = "this server has no authentication, and credentials were sent; connect without them";
        return refuse(Refusal::new(ErrorKind::Unsupported, message));
    }
    shared.metrics.request(Kind::Hello.name());
    let answer = HelloOk {
        version: PROTOCOL_VERSION_MAX.min(hello.max_version),
        server_id: shared.broker.server_id(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: server_limits(shared),
    };
    match head(frame.kind, flags::RESPONSE, frame.correlation, &answer, 0) {
        Ok(answer) => Greeting { answer, outcome: Ok(hello) },
        Err(refusal) => refuse(refusal),
    }
}

fn server_limits(shared: &Shared) -> ServerLimits {
    let config = &shared.config;
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    ServerLimits {
        max_frame_bytes: small(config.max_frame_bytes()),
        max_batch_bytes: small(config.max_batch_bytes().min(limits::MAX_BATCH_BYTES)),
        max_requests_in_flight: small(config.max_requests_in_flight),
        max_bytes_in_flight: config.max_connection_bytes.0,
        max_subscriptions: small(config.max_subscriptions),
        idle_timeout_ms: config.idle_timeout.0,
    }
}
