//! The accept loop, and one connection from its begin to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{Caller, Open};
use super::router;
use super::stall::Stall;
use crate::base::{ErrorKind, limits};
use crate::server::shared::Shared;
use crate::server::tasks;

/// The pause after an accept that failed for want of file descriptors or memory: some may be free then.
const PAUSE: Duration = Duration::from_millis(200);
/// What a connection gets for which there is no room, and how long telling it may take.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";
const REFUSAL: Duration = Duration::from_secs(2);

/// Accepts connections until the server stops. Nothing that a peer or the machine does ends it earlier.
///
/// # Errors
/// None; the type is that of a task.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return Ok(()),
        };
        match accepted {
            Ok((socket, peer)) => admit(socket, peer, &shared),
            Err(error) => {
                tracing::debug!(%error, "cannot accept an HTTP connection; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn admit(socket: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    let Ok(permit) = shared.http_connections.clone().try_acquire_owned() else {
        shared.metrics.refused.inc();
        shared.metrics.error(ErrorKind::Overloaded);
        if let Ok(turn) = shared.refusals.clone().try_acquire_owned() {
            tokio::spawn(refuse(socket, turn));
        }
        return;
    };
    let span = tracing::info_span!("http", %peer);
    let _entered = span.enter();
    let local = socket.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let open = Open::new(&shared.metrics, permit);
    let caller = Arc::new(Caller::new(shared.clone(), local, open));
    tasks::spawn("HTTP connection", async move {
        serve(socket, caller).await;
        Ok::<(), io::Error>(())
    });
}

async fn refuse(mut socket: TcpStream, turn: OwnedSemaphorePermit) {
    let tell = async {
        socket.write_all(FULL).await?;
        socket.shutdown().await?;
        let mut scratch = [0; 512];
        while tokio::io::AsyncReadExt::read(&mut socket, &mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(REFUSAL, tell).await;
    drop(turn);
}

async fn serve(socket: TcpStream, caller: Arc<Caller>) {
    let shared = &caller.shared;
    let config = &shared.config;
    let _ = socket.set_nodelay(true);
    let io = TokioIo::new(Stall::new(socket, config.write_timeout.as_duration()));
    let service = service_fn(|request| {
        let caller = caller.clone();
        async move { Ok::<_, std::convert::Infallible>(router::answer(caller, request).await) }
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
