//! Connections that are open: between the wire and the server.

use std::sync::Arc;

use super::mapping::Refusal;
use super::session::{Answer, Session};
use crate::base::ErrorKind;
use crate::protocol as wire;

/// Connections of a page at most.
const PAGE: usize = 1_000;

/// A page of them.
pub async fn list(
    session: Arc<Session>,
    request: wire::ListConnections,
) -> Result<Answer<wire::ListConnectionsOk>, Refusal> {
    let limit = usize::try_from(request.limit).unwrap_or(PAGE).clamp(1, PAGE);
    let (page, more) = session.shared.connections.page(request.door.as_deref(), request.after, limit);
    let line = |one: &Arc<crate::server::connections::Connection>| wire::ConnectionInfo {
        id: one.id,
        door: one.door.to_owned(),
        peer: one.peer.to_string(),
        client: one.name().to_owned(),
        since_ms: one.since_ms,
    };
    Ok(wire::ListConnectionsOk { connections: page.iter().map(line).collect(), more }.into())
}

/// Ends one.
pub async fn close(
    session: Arc<Session>,
    request: wire::CloseConnection,
) -> Result<Answer<wire::CloseConnectionOk>, Refusal> {
    if !session.shared.connections.close(request.id) {
        return Err(Refusal::new(ErrorKind::NotFound, format!("there is no connection {}", request.id)));
    }
    tracing::info!(id = request.id, by = session.client, "an operator closes a connection");
    Ok(wire::CloseConnectionOk {}.into())
}
