//! One connection from its handshake to its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::framing::FrameReader;
use super::handshake::{HandshakeError, shake_hands};
use super::mapping::Refusal;
use super::outbox::{Outbox, write_all};
use super::requests::take_in;
use super::session::{Session, goodbye};
use crate::base::{ErrorKind, limits};
use crate::broker::Client;
use crate::protocol::FrameDecoder;
use crate::server::accept::{Door, NoRoom, Open};
use crate::server::budget::{Evicted, Gate, Holder};
use crate::server::frames::ReadEnd;
use crate::server::places::Full;
use crate::server::shared::Shared;
use crate::server::tasks;

/// How long requests in flight get when their own client has ended or broken the connection.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long the farewell of subscriptions may take.
const LAST_PUSHES: Duration = Duration::from_secs(1);
/// What a client hears whose connection an operator ends.
const CLOSED: &str = "an operator has closed this connection";
/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client ended it.
    Closed,
    /// It cannot be written to or read from.
    Broken(io::Error),
    /// The server ends it, and says why.
    Goodbye(Refusal),
    /// Others wait for what it holds.
    Evicted(Evicted),
}

/// Serves a connection until it ends.
///
/// # Errors
/// What broke it: a socket error, or what the peer did wrong.
async fn serve(socket: TcpStream, peer: IpAddr, shared: Arc<Shared>, open: &Open) -> Result<(), Refusal> {
    let _ = socket.set_nodelay(true);
    let (read, mut write) = socket.into_split();
    let config = &shared.config;
    let holder = Holder::client(Gate::Native, peer);
    let account = shared.incoming.account(config.max_connection_bytes.as_usize(), holder);
    let outgoing = shared.outgoing.account(config.max_connection_bytes.as_usize(), holder);
    let first = FrameDecoder::new(limits::HELLO_FRAME_BYTES);
    let mut reader =
        FrameReader::new(read, account.clone(), shared.metrics.clone(), first, config.handshake_timeout.as_duration());
    let shaken = tokio::select! {
        shaken = shake_hands(&mut reader, &mut write, &shared) => shaken,
        () = open.given_away() => return Err(given_away()),
    };
    if shaken.is_ok() && !open.used() {
        return Err(given_away());
    }
    let client = match shaken {
        Ok(hello) => {
            tracing::info!(client = hello.client_name, version = hello.client_version, "connected");
            open.connection().is_of(&hello.client_name);
            hello.client_name
        }
        Err(HandshakeError::Gone(ReadEnd::Closed)) => return Ok(()),
        Err(HandshakeError::Gone(end)) => return Err(Refusal::new(ErrorKind::Disconnected, end.to_string())),
        Err(HandshakeError::Refused(refusal)) => {
            drop(write);
            reader.drain().await;
            return told(refusal);
        }
    };
    reader.relax(FrameDecoder::new(config.max_frame_bytes()), config.idle_timeout.as_duration());
    let (outbox, lane) = Outbox::new(write, shared.metrics.clone(), outgoing.clone());
    let mut writer = tokio::spawn(write_all(lane, config.write_timeout.as_duration()));
    let session = Session::new(shared, outbox, outgoing, client);
    let end = tokio::select! {
        end = run(&session, &mut reader, &mut writer) => end,
        evicted = account.evicted() => End::Evicted(evicted),
        evicted = session.outgoing.evicted() => End::Evicted(evicted),
        () = open.connection().closed() => End::Goodbye(Refusal::new(ErrorKind::Disconnected, CLOSED)),
    };
    finish(session, reader, writer, end).await
}

/// Takes requests in until something ends the connection.
async fn run(session: &Arc<Session>, reader: &mut FrameReader, writer: &mut JoinHandle<io::Result<()>>) -> End {
    let requests = async {
        loop {
            let (frame, bytes) = match reader.next().await {
                Ok(next) => next,
                Err(end) => return end_of(end),
            };
            session.arrived(reader.waited());
            if let Err(refusal) = take_in(session, frame, bytes).await {
                return End::Goodbye(refusal);
            }
        }
    };
    tokio::select! {
        end = requests => end,
        refusal = session.failed() => End::Goodbye(refusal),
        () = session.shared.stopped() => {
            End::Goodbye(Refusal::new(ErrorKind::ShuttingDown, "the server is stopping"))
        }
        ended = writer => End::Broken(match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::ErrorKind::BrokenPipe.into(),
            Err(panic) => io::Error::other(panic),
        }),
    }
}

fn end_of(end: ReadEnd) -> End {
    match end {
        ReadEnd::Closed => End::Closed,
        ReadEnd::Io(error) => End::Broken(error),
        ReadEnd::Idle(_) | ReadEnd::Stalled(_) => End::Goodbye(Refusal::new(ErrorKind::TimedOut, end.to_string())),
        ReadEnd::Truncated(_) | ReadEnd::BadFrame(_) => {
            End::Goodbye(Refusal::new(ErrorKind::BadFrame, end.to_string()))
        }
    }
}

/// Lets what is in flight end, says goodbye, and closes so that the peer can read it.
async fn finish(
    session: Arc<Session>,
    mut reader: FrameReader,
    mut writer: JoinHandle<io::Result<()>>,
    end: End,
) -> Result<(), Refusal> {
    session.close();
    // Nobody waits for replies any more: the requests in flight are over with this.
    session.exchange.end_all(&session);
    if let End::Broken(error) = end {
        session.subscriptions.end_all(Duration::ZERO).await;
        return Err(Refusal::new(ErrorKind::Disconnected, error.to_string()));
    }
    if let End::Evicted(evicted) = end {
        // What it holds is let go before anybody is told: nothing in flight is waited for.
        reader.let_go();
        session.subscriptions.end_all(Duration::ZERO).await;
        session.members.end_all(&session);
        let refusal = Refusal::new(ErrorKind::Overloaded, evicted.to_string());
        session.goodbye_now(&refusal);
        drop(session);
        if tokio::time::timeout(LAST_PUSHES, &mut writer).await.is_err() {
            writer.abort();
        }
        return Err(refusal);
    }
    let stopping = session.shared.is_stopping();
    let patience = if stopping { session.shared.config.shutdown_timeout.as_duration() } else { LAST_ANSWERS };
    let farewell = async {
        session.members.end_all(&session);
        session.subscriptions.end_all(LAST_PUSHES).await;
        if tokio::time::timeout(patience, session.drained()).await.is_err() {
            tracing::warn!("connection ends with requests still in flight");
        }
        if let End::Goodbye(refusal) = &end {
            session.goodbye(refusal).await;
        }
    };
    let gone = tokio::select! {
        () = farewell => false,
        _ = &mut writer => true,
    };
    // The last sender but for requests that did not end in time.
    drop(session);
    if !gone && tokio::time::timeout(LAST_ANSWERS, &mut writer).await.is_err() {
        writer.abort();
    }
    match end {
        End::Goodbye(refusal) => {
            reader.drain().await;
            told(refusal)
        }
        _ => Ok(()),
    }
}

/// The end of a connection that was told why: a stop of the server is nothing to warn of.
fn told(refusal: Refusal) -> Result<(), Refusal> {
    if refusal.kind == ErrorKind::ShuttingDown { Ok(()) } else { Err(refusal) }
}

/// Serves a connection in a task of its own; its end is logged, with its peer.
fn spawn(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>, open: Open) {
    let span = tracing::info_span!("connection", %peer);
    let _entered = span.enter();
    tasks::spawn_for(Client::of(peer.ip()), "connection", async move {
        // What a peer does to its own connection is worth a line, not a warning.
        match serve(socket, peer.ip(), shared, &open).await {
            Ok(()) => tracing::info!("disconnected"),
            Err(reason) => tracing::info!(kind = reason.kind.name(), %reason, "connection ended"),
        }
        Ok::<(), Refusal>(())
    });
}

fn given_away() -> Refusal {
    Refusal::new(ErrorKind::Overloaded, "no hello yet, and a new connection needed the place")
}

/// What a connection hears for which there is no room.
fn no_room(full: Full) -> Bytes {
    goodbye(&Refusal::new(ErrorKind::Overloaded, full.to_string())).head
}

/// The native listener's door.
pub const DOOR: Door = Door {
    name: "native",
    serve: spawn,
    places: |shared| &shared.doors.native,
    taken: |metrics| &metrics.connections,
    no_room: NoRoom::Tell(no_room),
};

/// The door of administration: the native protocol, with places of its own.
pub const ADMIN_DOOR: Door = Door { name: "admin", places: |shared| &shared.doors.admin, ..DOOR };
