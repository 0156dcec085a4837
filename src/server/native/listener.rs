//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::connection;
use super::mapping::Refusal;
use super::session::goodbye;
use crate::base::ErrorKind;
use crate::server::shared::Shared;

/// The pause after an accept that failed for want of file descriptors or memory: some may be free then.
const PAUSE: Duration = Duration::from_millis(200);
/// How long telling a connection that there is no room for it may take.
const REFUSAL: Duration = Duration::from_secs(2);

/// Accepts connections until the server stops. Nothing that a peer or the machine does ends it earlier.
///
/// # Errors
/// None; the type is that of a task.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let mut failures: u64 = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return Ok(()),
        };
        match accepted {
            Ok((socket, peer)) => {
                if failures > 0 {
                    tracing::info!(failures, "accepting connections again");
                    failures = 0;
                }
                admit(socket, peer, &shared);
            }
            Err(error) if is_of_the_peer(&error) => tracing::debug!(%error, "a connection ended before it began"),
            Err(error) => {
                // Once in a while is enough for the log: the next try follows at once.
                if failures.is_power_of_two() || failures == 0 {
                    tracing::warn!(%error, failures, "cannot accept a connection; trying again");
                }
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether only this one connection is concerned.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn admit(socket: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    match shared.connections.clone().try_acquire_owned() {
        Ok(permit) => connection::spawn(socket, peer, shared.clone(), permit),
        Err(_) => {
            shared.metrics.refused.inc();
            shared.metrics.error(ErrorKind::Overloaded);
            tracing::warn!(%peer, limit = shared.config.max_connections, "connection refused: the limit is reached");
            // Beyond so many that are being told, the others just see the connection close.
            if let Ok(turn) = shared.refusals.clone().try_acquire_owned() {
                tokio::spawn(refuse(socket, shared.config.max_connections, turn));
            }
        }
    }
}

async fn refuse(mut socket: TcpStream, limit: usize, turn: OwnedSemaphorePermit) {
    let message = format!("the server has {limit} connections, which is the most");
    let frame = goodbye(&Refusal::new(ErrorKind::Overloaded, message));
    let tell = async {
        socket.write_all(&frame.head).await?;
        socket.shutdown().await?;
        // What the client has sent is read, or closing would take the message back.
        let mut scratch = [0; 512];
        while tokio::io::AsyncReadExt::read(&mut socket, &mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(REFUSAL, tell).await;
    drop(turn);
}
