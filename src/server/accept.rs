//! The accept loop of every listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::ServerConfig;
use super::metrics::ServerMetrics;
use super::shared::Shared;
use crate::base::ErrorKind;

/// The pause after an accept that failed for want of file descriptors or memory: some may be free then.
const PAUSE: Duration = Duration::from_millis(200);
/// How long telling a connection that there is no room for it may take.
const REFUSAL: Duration = Duration::from_secs(2);

/// What a listener does with a connection.
#[derive(Clone, Copy)]
pub struct Door {
    /// Serves one, in a task of its own, which holds its place.
    pub serve: fn(TcpStream, SocketAddr, Arc<Shared>, Open),
    /// One permit a connection.
    pub places: fn(&Shared) -> &Arc<Semaphore>,
    /// How many places are taken.
    pub taken: fn(&ServerMetrics) -> &Gauge,
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
    match (door.places)(shared).clone().try_acquire_owned() {
        Ok(permit) => {
            shared.metrics.accepted.inc();
            let open = Open::new((door.taken)(&shared.metrics), permit);
            (door.serve)(socket, peer, shared.clone(), open);
        }
        Err(_) => {
            shared.metrics.refused.inc();
            shared.metrics.error(ErrorKind::Overloaded);
            tracing::warn!(%peer, "connection refused: the limit is reached");
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

/// A place among the connections of a listener, counted while it is held, whatever ends it.
pub struct Open {
    taken: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(taken: &Gauge, permit: OwnedSemaphorePermit) -> Self {
        taken.inc();
        Self { taken: taken.clone(), _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.taken.dec();
    }
}
