//! Reading the body of a request: within its limit, its time, and the budget of the server.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::answer::Caller;
use super::problem::Problem;
use crate::base::{ErrorKind, limits};
use crate::server::budget::Grant;

/// A body, and what it holds of the budget.
#[derive(Debug)]
pub struct Taken {
    /// All of it.
    pub bytes: Bytes,
    /// Its share.
    pub grant: Vec<Grant>,
}

/// Takes in a body. Of one whose length is said, the memory is waited for before the first byte is read; one that grows
/// as it comes is refused when there is no more.
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
    let busy = || Problem::new(ErrorKind::Overloaded, "the server has no memory left for this body at present");
    let mut grant = Vec::new();
    let mut granted = 0;
    if let Some(exact) = hint.exact() {
        granted = usize::try_from(exact).unwrap_or(usize::MAX);
        let taken = timeout_at(deadline, caller.incoming.take(granted * limits::HTTP_BODY_TIMES)).await;
        grant.push(taken.map_err(|_| busy())?);
    }
    let mut body = body;
    let mut bytes = BytesMut::new();
    while let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(late)? {
        let frame = frame.map_err(|error| Problem::wrong(format!("the body breaks off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(too_large(format!("more than {length}")));
        }
        if length > granted {
            // In steps, or a body of single bytes would take a grant each.
            let more = (length - granted).max(64 * 1024).min(limit - granted);
            grant.push(
                caller
                    .incoming
                    .try_take(more * limits::HTTP_BODY_TIMES, more * limits::HTTP_BODY_TIMES)
                    .ok_or_else(busy)?,
            );
            granted += more;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Taken { bytes: bytes.freeze(), grant })
}
