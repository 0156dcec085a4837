//! The accept loop of every listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::connections::{Connection, Listed};
use super::metrics::ServerMetrics;
use super::places::{Full, Place, Places};
use super::shared::Shared;
use crate::base::ErrorKind;

/// The pause after an accept that failed for want of file descriptors or memory: some may be free then.
const PAUSE: Duration = Duration::from_millis(200);
/// How long telling a connection that there is no room for it may take.
const REFUSAL: Duration = Duration::from_secs(2);

/// What a listener does with a connection.
#[derive(Clone, Copy)]
pub struct Door {
    /// What it is called in lists of connections.
    pub name: &'static str,
    /// Serves one, in a task of its own, which holds its place.
    pub serve: fn(TcpStream, SocketAddr, Arc<Shared>, Open),
    /// The places of the door.
    pub places: fn(&Shared) -> &Arc<Places>,
    /// How many connections are open.
    pub taken: fn(&ServerMetrics) -> &Gauge,
    /// What becomes of one for which there is no place.
    pub no_room: NoRoom,
}

/// What becomes of a connection for which there is no place.
#[derive(Clone, Copy)]
pub enum NoRoom {
    /// It is closed: the protocol has no words for that.
    Close,
    /// It hears why.
    Tell(fn(Full) -> Bytes),
    /// It gets one of the places that are kept beside the door's, for a short while.
    Kept(fn(&Shared) -> &Arc<Places>),
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
    let full = match (door.places)(shared).admit(peer.ip()) {
        Ok(place) => {
            shared.metrics.accepted.inc();
            let open = Open::new(shared, door, peer, place, false);
            return (door.serve)(socket, peer, shared.clone(), open);
        }
        Err(full) => full,
    };
    shared.metrics.refused.inc();
    shared.metrics.error(ErrorKind::Overloaded);
    // A storm of connections shall not fill the log.
    let refused = shared.metrics.refused.get();
    if refused <= 10 || refused.is_power_of_two() || refused.is_multiple_of(1000) {
        tracing::warn!(%peer, reason = %full, refused, "connection refused");
    }
    match door.no_room {
        NoRoom::Close => {}
        NoRoom::Tell(words) => {
            // Beyond so many that are being told, the others just see the connection close.
            if let Ok(turn) = shared.refusals.clone().try_acquire_owned() {
                tokio::spawn(refuse(socket, words(full), turn));
            }
        }
        NoRoom::Kept(places) => {
            if let Ok(place) = places(shared).admit(peer.ip()) {
                let open = Open::new(shared, door, peer, place, true);
                (door.serve)(socket, peer, shared.clone(), open);
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
    place: Place,
    listed: Listed,
    /// One of the places beside the door's: for a glance at the server's health.
    pub kept: bool,
}

impl Open {
    fn new(shared: &Shared, door: Door, peer: SocketAddr, place: Place, kept: bool) -> Self {
        let taken = (door.taken)(&shared.metrics).clone();
        taken.inc();
        let listed = shared.connections.add(door.name, peer, shared.clock.now_ms());
        Self { taken, place, listed, kept }
    }

    /// What is listed of it.
    pub fn connection(&self) -> &Arc<Connection> {
        self.listed.connection()
    }

    /// Notes that the connection has made its first request. `false` if its place was given away just before.
    pub fn used(&self) -> bool {
        self.place.used()
    }

    /// Returns when the place of a connection without a request was given to a new one.
    pub async fn given_away(&self) {
        self.place.given_away().await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.taken.dec();
    }
}
