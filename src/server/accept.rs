//! The accept loop of a listener, and the one count of connections that they share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::config::ServerConfig;
use super::shared::Shared;
use crate::base::ErrorKind;

/// The pause after an accept that failed for want of file descriptors or memory: some may be free then.
const PAUSE: Duration = Duration::from_millis(200);
/// How long telling a connection that there is no room for it may take.
const REFUSAL: Duration = Duration::from_secs(2);

/// What a listener does with a connection.
#[derive(Clone, Copy)]
pub struct Door {
    /// Serves one, in a task of its own.
    pub serve: fn(TcpStream, SocketAddr, Arc<Shared>, OwnedSemaphorePermit),
    /// What is sent to one for which there is no room, in protocols that have words for that.
    pub no_room: fn(&ServerConfig) -> Option<Bytes>,
}

/// Accepts connections until the server stops. Nothing that a peer or the machine does ends it earlier.
///
/// # Errors
/// None; the type is that of a task.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>, door: Door) -> io::Result<()> {
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
                admit(socket, peer, &shared, door);
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

fn admit(socket: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, door: Door) {
    match shared.connections.clone().try_acquire_owned() {
        Ok(permit) => (door.serve)(socket, peer, shared.clone(), permit),
        Err(_) => {
            shared.metrics.refused.inc();
            shared.metrics.error(ErrorKind::Overloaded);
            tracing::warn!(%peer, limit = shared.config.max_connections, "connection refused: the limit is reached");
            // Beyond so many that are being told, the others just see the connection close.
            if let Some(words) = (door.no_room)(&shared.config)
                && let Ok(turn) = shared.refusals.clone().try_acquire_owned()
            {
                tokio::spawn(refuse(socket, words, turn));
            }
        }
    }
}

async fn refuse(mut socket: TcpStream, words: Bytes, turn: OwnedSemaphorePermit) {
    let tell = async {
        socket.write_all(&words).await?;
        socket.shutdown().await?;
        // What the client has sent is read, or closing would take the message back.
        let mut scratch = [0; 512];
        while tokio::io::AsyncReadExt::read(&mut socket, &mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(REFUSAL, tell).await;
    drop(turn);
}

/// Counts a connection while it is open, whatever ends it.
pub struct Open {
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    /// A connection that has just been accepted.
    pub fn new(shared: Arc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        shared.metrics.accepted.inc();
        shared.metrics.connections.inc();
        Self { shared, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.metrics.connections.dec();
    }
}
