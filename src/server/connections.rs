//! The connections that are open, for an operator: who they are, and how to end one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::base::TimestampMs;

/// Bytes of a client's name that are kept.
const NAME_BYTES: usize = 100;

/// A connection that is open.
#[derive(Debug)]
pub struct Connection {
    /// Its number; no other connection has had it since the server started.
    pub id: u64,
    /// The door that it came in by.
    pub door: &'static str,
    /// The client's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub since_ms: TimestampMs,
    name: OnceLock<Box<str>>,
    close: watch::Sender<bool>,
}

impl Connection {
    /// Notes who the client says it is; the first word counts.
    pub fn is_of(&self, name: &str) {
        if self.name.get().is_none() && !name.is_empty() {
            let name: String = name.chars().filter(|char| !char.is_control()).collect();
            let _ = self.name.set(name[..name.floor_char_boundary(NAME_BYTES)].into());
        }
    }

    /// Who the client says it is; empty if it has not said so.
    pub fn name(&self) -> &str {
        self.name.get().map_or("", |name| name)
    }

    /// Returns when an operator has ended it.
    pub async fn closed(&self) {
        // The sender lives as long as this.
        let _ = self.close.subscribe().wait_for(|close| *close).await;
    }
}

/// All that are open.
#[derive(Debug, Default)]
pub struct Connections {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// A connection among those that are open; dropped, it is not.
#[derive(Debug)]
pub struct Listed {
    all: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Connections {
    /// Adds one.
    pub fn add(self: &Arc<Self>, door: &'static str, peer: SocketAddr, since_ms: TimestampMs) -> Listed {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let close = watch::Sender::new(false);
        let connection = Arc::new(Connection { id, door, peer, since_ms, name: OnceLock::new(), close });
        self.lock().insert(id, Arc::clone(&connection));
        Listed { all: Arc::clone(self), connection }
    }

    /// Those behind a number, of a door or of all, in the order in which they came, `limit` at most; and whether there are more.
    pub fn page(&self, door: Option<&str>, after: u64, limit: usize) -> (Vec<Arc<Connection>>, bool) {
        let open = self.lock();
        let rest = open.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, one)| one);
        let mut rest = rest.filter(|one| door.is_none_or(|door| one.door == door));
        let page = rest.by_ref().take(limit).cloned().collect();
        (page, rest.next().is_some())
    }

    /// Ends one; `false` if it is not open.
    pub fn close(&self, id: u64) -> bool {
        let connection = self.lock().get(&id).cloned();
        connection.is_some_and(|connection| !connection.close.send_replace(true))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// The connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.lock().remove(&self.connection.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn connections_are_listed_while_they_are_open_and_ended_once() {
        let all = Arc::new(Connections::default());
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let listed: Vec<_> = (1..=5).map(|port| all.add(["a", "b"][usize::from(port % 2)], peer(port), 7)).collect();
        let ids =
            |(page, more): (Vec<Arc<Connection>>, bool)| (page.iter().map(|one| one.id).collect::<Vec<_>>(), more);
        assert_eq!(ids(all.page(None, 0, 3)), (vec![1, 2, 3], true));
        assert_eq!(ids(all.page(None, 3, 3)), (vec![4, 5], false));
        assert_eq!(ids(all.page(Some("a"), 0, 2)), (vec![2, 4], false));
        let first = listed[0].connection();
        first.is_of("crm\n");
        first.is_of("other");
        assert_eq!(first.name(), "crm");
        listed[1].connection().is_of(&"ü".repeat(80));
        assert_eq!(listed[1].connection().name().len(), NAME_BYTES);
        assert!(first.closed().now_or_never().is_none());
        assert!(all.close(1) && !all.close(1) && !all.close(99));
        assert!(first.closed().now_or_never().is_some() && listed[1].connection().closed().now_or_never().is_none());
        drop(listed);
        assert_eq!(ids(all.page(None, 0, 3)), (vec![], false));
    }
}
