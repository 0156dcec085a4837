//! The bare machine: what a loop without any message queue around it reaches, on the same disk and the same loopback.

mod disk;
mod net;

use std::time::Duration;

pub use disk::{Layout, SyncLimit, sync_loop, write_loop};
pub use net::{Source, loopback, ping_pong, ping_pongs};

/// How long each limit is measured at most.
const MEASURE: Duration = Duration::from_millis(1_500);
/// Bytes handled at a time where the size does not matter.
const BLOCK: usize = 256 * 1024;
/// Operations that are measured at least, so that the percentiles mean something.
const LEAST: u64 = 200;

/// How much is measured: as many bytes as the run itself had, or 1.5 seconds of it.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    bytes: u64,
}

impl Volume {
    /// That of a run with so many bytes; at least 4 MiB, below which there is nothing to see.
    pub fn of(bytes: u64) -> Self {
        Self { bytes: bytes.max(4 << 20) }
    }

    /// Bytes of a file to work on: not more than the page cache of a small machine holds.
    fn file(self) -> u64 {
        self.bytes.min(256 << 20)
    }
}
