//! What the requests of one connection share.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::wire::WireError;
use crate::broker::Broker;
use crate::server::budget::Account;
use crate::server::shared::Shared;

/// This server's number among its own kind, of which there is one.
pub const NODE_ID: i32 = 1;

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
    /// The address that the client has connected to.
    pub reached: SocketAddr,
    /// The client's own address.
    pub peer: SocketAddr,
    closing: watch::Sender<bool>,
}

impl Session {
    /// The session of a new connection.
    pub fn new(shared: Arc<Shared>, reached: SocketAddr, peer: SocketAddr) -> Arc<Self> {
        let outgoing = shared.outgoing.account(shared.config.max_connection_bytes.as_usize());
        Arc::new(Self { shared, outgoing, reached, peer, closing: watch::Sender::new(false) })
    }

    /// The one that does the work.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
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

    /// Returns when the connection is about to end.
    pub async fn closing(&self) {
        // The sender is ours: this cannot fail.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}
