//! What the requests of one connection share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::wire::WireError;
use crate::broker::{Broker, WorkKey};
use crate::server::budget::{Account, Gate, Holder};
use crate::server::connections::Connection;
use crate::server::shared::Shared;

/// Requests in a row that came alone, from which on a client is believed to wait for each answer.
const ALONE: u32 = 8;

/// Why a connection is ended: by Kafka's rules, what has no answer to carry an error is told this way.
#[derive(Debug, thiserror::Error)]
pub enum Hangup {
    /// The request has a kind or version that is not answered.
    #[error("request key {key} version {version} is not answered here")]
    Unknown {
        /// Its kind.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// The request cannot be understood.
    #[error("a {name} request of version {version} cannot be read: {what}")]
    Malformed {
        /// Its kind.
        name: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong.
        what: String,
    },
    /// The request's head cannot be understood.
    #[error("the head of a request cannot be read: {0}")]
    Head(#[from] WireError),
    /// A request that is larger than its kind may be.
    #[error("a {name} request of {bytes} bytes; the limit is {limit}")]
    Large {
        /// Its kind.
        name: &'static str,
        /// Its size.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// A batch that nobody wants to hear about failed.
    #[error("a produce request without acknowledgement failed: {0}")]
    Unacknowledged(String),
    /// A fault of this server.
    #[error("{0}")]
    Fault(String),
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// The server.
    pub shared: Arc<Shared>,
    /// Bytes of answers that this connection holds.
    pub outgoing: Arc<Account>,
    /// For work that its requests make.
    pub work: WorkKey,
    /// The address that the client has connected to.
    pub reached: SocketAddr,
    /// The client's own address.
    pub peer: SocketAddr,
    /// What is listed of the connection.
    pub line: OnceLock<Arc<Connection>>,
    /// Requests whose answers have not been sent.
    unanswered: AtomicUsize,
    /// Requests in a row that came alone.
    alone: AtomicU32,
    closing: watch::Sender<bool>,
}

impl Session {
    /// The session of a new connection.
    pub fn new(shared: Arc<Shared>, reached: SocketAddr, peer: SocketAddr) -> Arc<Self> {
        let holder = Holder::client(Gate::Kafka, peer.ip());
        let outgoing = shared.outgoing.account(shared.config.max_connection_bytes.as_usize(), holder);
        Arc::new(Self {
            shared,
            outgoing,
            work: WorkKey::new(),
            reached,
            peer,
            line: OnceLock::new(),
            unanswered: AtomicUsize::new(0),
            alone: AtomicU32::new(0),
            closing: watch::Sender::new(false),
        })
    }

    /// Notes that a request has come, and whether the client had sent nothing ahead of it.
    pub fn arrived(&self, waited_for: bool) {
        let first = self.unanswered.fetch_add(1, Ordering::Relaxed) == 0;
        let alone = if waited_for && first { self.alone.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.alone.store(alone, Ordering::Relaxed);
    }

    /// Notes that the answers of so many requests are sent, or that they have none.
    pub fn answered(&self, requests: usize) {
        self.unanswered.fetch_sub(requests, Ordering::Relaxed);
    }

    /// Whether the client asks one thing at a time and waits for the answer, so that the connection may be left alone
    /// until its request is done.
    pub fn one_at_a_time(&self) -> bool {
        self.alone.load(Ordering::Relaxed) >= ALONE
    }

    /// The one that does the work.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// This server's number among its own kind, of which there is one.
    pub fn node(&self) -> i32 {
        i32::try_from(self.shared.config.kafka_node_id).unwrap_or(0)
    }

    /// Host and port that clients are told to connect to.
    pub fn advertised(&self) -> (String, u16) {
        let configured = self.shared.config.advertised_address().ok().flatten();
        configured.unwrap_or_else(|| (self.reached.ip().to_canonical().to_string(), self.reached.port()))
    }

    /// Tells whoever waits (long polls, rebalances) to finish with what there is.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Whether the connection is about to end: nobody waits for what has not begun.
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Returns when the connection is about to end.
    pub async fn closing(&self) {
        // The sender is ours: this cannot fail.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}
