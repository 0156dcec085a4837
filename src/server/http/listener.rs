//! One connection from its begin to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::answer::Caller;
use super::router;
use super::stall::Stall;
use super::unread::Unread;
use crate::base::limits;
use crate::broker::Client;
use crate::server::accept::{Door, NoRoom, Open};
use crate::server::budget::Evicted;
use crate::server::shared::Shared;
use crate::server::tasks;

/// Time for the head of a request on one of the places that are kept for the server's health.
const KEPT_HEAD: Duration = Duration::from_secs(2);
/// What a peer gets at a stop that has not sent a whole request.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// The HTTP listener's door.
pub const DOOR: Door = Door {
    name: "http",
    serve: spawn,
    places: |shared| &shared.doors.http,
    taken: |metrics| &metrics.http_connections,
    no_room: NoRoom::Kept(|shared| &shared.doors.health),
};

fn spawn(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>, open: Open) {
    let span = tracing::info_span!("http", %peer);
    let _entered = span.enter();
    let local = socket.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let caller = Arc::new(Caller::new(shared, peer.ip(), local, open));
    tasks::spawn_for(Client::of(peer.ip()), "HTTP connection", async move {
        serve(socket, caller).await;
        Ok::<(), Infallible>(())
    });
}

async fn serve(socket: TcpStream, caller: Arc<Caller>) {
    let shared = &caller.shared;
    let config = &shared.config;
    let _ = socket.set_nodelay(true);
    let head = if caller.is_kept() { KEPT_HEAD } else { config.http_header_timeout.as_duration() };
    // As on the other doors, the first bytes must come soon; nothing is held before.
    let first = tokio::select! {
        first = tokio::time::timeout(head.min(config.handshake_timeout.as_duration()), socket.readable()) => first.is_ok(),
        () = caller.given_away() => false,
        () = caller.connection().closed() => false,
        () = stopped_for(shared, STOP_GRACE) => false,
    };
    if !first {
        return tracing::debug!("HTTP connection ended: no request in time, or its place was needed");
    }
    let socket = Stall::new(socket, config.write_timeout.as_duration(), caller.outgoing.clone());
    let io = TokioIo::new(Unread::new(socket));
    let service = service_fn(|request| {
        let caller = caller.clone();
        async move {
            let _busy = caller.busy();
            Ok::<_, Infallible>(router::answer(caller.clone(), request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .keep_alive(!caller.is_kept())
        .max_headers(limits::HTTP_HEADERS)
        // A head that is allowed fits; whether one is, the router says to the byte.
        .max_buf_size(2 * limits::HTTP_HEAD_BYTES)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = caller.given_away() => return tracing::debug!("HTTP connection ended: its place was needed"),
        () = caller.connection().closed() => return tracing::info!("HTTP connection ended: an operator has closed it"),
        evicted = evicted_for(&caller, STOP_GRACE) => return tracing::info!(reason = %evicted, "HTTP connection ended"),
        evicted = caller.outgoing.evicted() => return tracing::info!(reason = %evicted, "HTTP connection ended"),
        () = shared.stopped() => {
            connection.as_mut().graceful_shutdown();
            let patience = config.shutdown_timeout.as_duration();
            let grace = STOP_GRACE.min(patience);
            let soon = tokio::time::timeout(grace, connection.as_mut()).await;
            match soon {
                Ok(ended) => ended,
                Err(_) if !caller.is_busy() => return tracing::debug!("HTTP connection ends without a whole request"),
                Err(_) => match tokio::time::timeout(patience - grace, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return tracing::warn!("HTTP connection ends with a request still in flight"),
                },
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// Returns when what the connection has sent has been in the way for so long: whoever works on it answers before.
async fn evicted_for(caller: &Caller, time: Duration) -> Evicted {
    let evicted = caller.incoming.evicted().await;
    tokio::time::sleep(time).await;
    evicted
}

/// Returns when the server has been stopping for so long.
pub async fn stopped_for(shared: &Shared, time: Duration) {
    shared.stopped().await;
    tokio::time::sleep(time).await;
}
