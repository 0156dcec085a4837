//! The messages about connections that are open.

use serde::{Deserialize, Serialize};

use super::kind::request;

/// Asks for a page of the connections that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListConnections {
    /// Only of this door: `native`, `admin`, `kafka` or `http`.
    pub door: Option<String>,
    /// Only connections behind this number; 0 for the first page.
    pub after: u64,
    /// Connections at most; the server has a limit of its own.
    pub limit: u32,
}

/// A page of the connections that are open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListConnectionsOk {
    /// The connections, in the order in which they came.
    pub connections: Vec<ConnectionInfo>,
    /// There are more behind the last one.
    pub more: bool,
}

/// A connection that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its number; no other connection has it while the server runs.
    pub id: u64,
    /// The door that it came in by.
    pub door: String,
    /// The client's address.
    pub peer: String,
    /// Who the client says it is: its name (native), client id (Kafka) or user agent (HTTP); empty if it has not said so.
    pub client: String,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

request!(ListConnections, ListConnectionsOk);

/// Ends a connection, as if its client were gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseConnection {
    /// Its number.
    pub id: u64,
}

/// It ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseConnectionOk {}

request!(CloseConnection, CloseConnectionOk);
