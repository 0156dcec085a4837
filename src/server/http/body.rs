//! Reading the body of a request: within its limit, its time, and the budget of the server.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::answer::Caller;
use super::listener::{STOP_GRACE, stopped_for};
use super::problem::Problem;
use crate::base::{ErrorKind, limits};
use crate::server::budget::{Arriving, Grant};

/// A body, and what it holds of the budget.
#[derive(Debug)]
pub struct Taken {
    /// All of it.
    pub bytes: Bytes,
    /// Its share.
    pub grant: Grant,
}

/// Takes in a body, with memory taken as it comes. While others wait for memory, a body that comes too slowly is refused.
///
/// # Errors
/// It is too large, too slow, breaks off, or there is no memory for it.
pub async fn take(caller: &Arc<Caller>, body: Incoming) -> Result<Taken, Problem> {
    let config = &caller.shared.config;
    let limit = config.http_max_body_bytes.as_usize();
    let too_large = |bytes: String| {
        Problem::new(ErrorKind::TooLarge, format!("a body of {bytes} bytes; the limit is {limit} bytes"))
    };
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(too_large(hint.lower().to_string()));
    }
    let allowed = config.http_body_timeout;
    let deadline = Instant::now() + allowed.as_duration();
    let late = |_| {
        let detail = format!("the body was not here within {allowed}");
        Problem::new(ErrorKind::TimedOut, detail).with_status(StatusCode::REQUEST_TIMEOUT)
    };
    let busy = |_| Problem::new(ErrorKind::Overloaded, "the server has no memory left for this body at present");
    let announced = hint.exact().map_or(limit, |exact| usize::try_from(exact).unwrap_or(limit).min(limit));
    let mut arriving: Option<Arriving> = None;
    let mut body = body;
    let mut bytes = BytesMut::new();
    loop {
        // Before the first byte nothing is held.
        caller.incoming.peers_turn(arriving.is_some());
        let frame = tokio::select! {
            frame = timeout_at(deadline, body.frame()) => frame.map_err(late),
            () = stopped_for(&caller.shared, STOP_GRACE) => {
                Err(Problem::new(ErrorKind::ShuttingDown, "the server stops, and the body was not here a second later"))
            }
            evicted = caller.incoming.evicted() => Err(Problem::new(ErrorKind::Overloaded, evicted.to_string())),
        };
        caller.incoming.peers_turn(false);
        let Some(frame) = frame? else { break };
        let frame = frame.map_err(|error| Problem::wrong(format!("the body breaks off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(too_large(format!("more than {length}")));
        }
        caller.incoming.moved(data.len());
        let times = limits::HTTP_BODY_TIMES;
        let arriving = match &mut arriving {
            Some(arriving) => arriving,
            None => {
                let begun = timeout_at(deadline, caller.incoming.begin(announced * times)).await;
                arriving.insert(begun.map_err(busy)?)
            }
        };
        // A chunk may be larger than one step.
        while !arriving.covers(length * times) {
            timeout_at(deadline, arriving.grow_on()).await.map_err(busy)?;
        }
        bytes.extend_from_slice(&data);
    }
    let mut grant = match arriving {
        Some(arriving) => arriving.whole(),
        None => caller.incoming.take(0).await,
    };
    grant.settle(bytes.len() * limits::HTTP_BODY_TIMES);
    Ok(Taken { bytes: bytes.freeze(), grant })
}
