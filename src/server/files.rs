//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside segments and connections: journal, view, listeners, standard streams, the runtime's own.
const OTHERS: u64 = 128;

/// Raises the soft limit of open files to what is `wanted` (segment files and connections), as far as the hard limit allows;
/// says so if that is less. The usual soft limit of 1,024 is a relic of `select`, and far less than a server needs.
pub fn allow(wanted: usize) {
    let wanted = wanted as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let target = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum });
    if raised.is_err() || target < wanted {
        let allowed = getrlimit(Resource::Nofile).current;
        tracing::warn!(
            allowed,
            wanted,
            "fewer open files are allowed than max_open_files and max_connections need: connections beyond are refused"
        );
    }
}
