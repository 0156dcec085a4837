//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::config::ServerConfig;
use super::places::{ADMIN_PLACES, HEALTH_PLACES};

/// Files beside segments and connections: journal, view, listeners, standard streams, the runtime's own.
const OTHERS: u64 = 128;

/// How many connections may be open beside the files of the log, which come first. Raises the soft limit of open files to
/// what the configuration needs, as far as the hard limit allows; the usual soft limit of 1,024 is a relic of `select`, and
/// far less than a server needs. Says so if connections must do with fewer.
pub fn allow(config: &ServerConfig) -> usize {
    let connections = config.max_connections + config.kafka_max_connections + config.http_max_connections;
    let connections = connections + HEALTH_PLACES + ADMIN_PLACES;
    let own = (config.max_open_files + config.outgoing_calls) as u64 + OTHERS;
    let wanted = own + connections as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let target = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        // What came of it is looked at next.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum });
    }
    let Some(allowed) = getrlimit(Resource::Nofile).current else { return connections };
    let left = left(allowed, own, connections);
    if left < connections {
        tracing::warn!(
            allowed,
            wanted,
            connections = left,
            "fewer open files are allowed than the log and all connections need: the log's come first, and connections \
             beyond this number are refused; raise the limit of open files, or lower max_open_files or max_connections"
        );
    }
    left
}

/// What is left for connections. Where the log alone would take nearly all, it has to do with half: it closes and opens
/// files then, and nobody could connect otherwise.
fn left(allowed: u64, own: u64, connections: usize) -> usize {
    let left = allowed.saturating_sub(own).max(allowed / 2);
    usize::try_from(left).unwrap_or(usize::MAX).min(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_log_leaves() {
        assert_eq!(left(100_000, 4_000, 24_000), 24_000);
        assert_eq!(left(20_000, 4_000, 24_000), 16_000);
        assert_eq!(left(300, 4_000, 24_000), 150);
    }
}
