//! One connection from its begin to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::answer::Caller;
use super::router;
use super::stall::Stall;
use crate::base::limits;
use crate::server::accept::{Door, Open};
use crate::server::shared::Shared;
use crate::server::tasks;

/// What a connection gets for which there is no room.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// The HTTP listener's door.
pub const DOOR: Door = Door {
    serve: spawn,
    places: |shared| &shared.http_connections,
    taken: |metrics| &metrics.http_connections,
    no_room: |_| Some(Bytes::from_static(FULL)),
};

fn spawn(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>, open: Open) {
    let span = tracing::info_span!("http", %peer);
    let _entered = span.enter();
    let local = socket.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let caller = Arc::new(Caller::new(shared, peer.ip(), local, open));
    tasks::spawn("HTTP connection", async move {
        serve(socket, caller).await;
        Ok::<(), Infallible>(())
    });
}

async fn serve(socket: TcpStream, caller: Arc<Caller>) {
    let shared = &caller.shared;
    let config = &shared.config;
    let _ = socket.set_nodelay(true);
    let io = TokioIo::new(Stall::new(socket, config.write_timeout.as_duration(), caller.outgoing.clone()));
    let service = service_fn(|request| {
        let caller = caller.clone();
        async move { Ok::<_, Infallible>(router::answer(caller, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.http_header_timeout.as_duration())
        .max_headers(limits::HTTP_HEADERS)
        .max_buf_size(limits::HTTP_HEAD_BYTES)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        evicted = caller.outgoing.evicted() => return tracing::info!(reason = %evicted, "HTTP connection ended"),
        () = shared.stopped() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(config.shutdown_timeout.as_duration(), connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::warn!("HTTP connection ends with a request still in flight"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}
