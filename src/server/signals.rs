//! SIGTERM and SIGINT, on a thread of their own: it must be possible to stop a server whose runtime or disk is stuck.
//!
//! The first signal asks the server to stop. If it has not ended by a bound that is stated in the log, or a second signal
//! comes, the process ends at once with status 1: what was acknowledged is on the disk, and the next start recovers.
//!
//! SIGHUP, which a terminal sends when it is closed, ends nothing: see [`outlive_terminal`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::tasks;
use crate::base::{Health, guard};

/// The signals that stop a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {},
            _ = self.interrupt.recv() => {},
        }
    }
}

/// Listens for signals from now on. What is returned becomes true at the first one; `bound` later the process ends.
///
/// # Errors
/// The system's: no thread, or no signals.
pub(super) fn listen(bound: Duration, health: Arc<Health>) -> io::Result<watch::Receiver<bool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let (stop, stopping) = watch::channel(false);
    let wait = async move {
        signals.next().await;
        stop.send_replace(true);
        tokio::select! {
            () = signals.next() => tracing::warn!("second signal: ending at once"),
            () = tokio::time::sleep(bound) => {
                let troubles: Vec<_> = health.troubles().into_iter().map(|trouble| trouble.reason).collect();
                let bound_s = bound.as_secs();
                tracing::error!(
                    bound_s,
                    troubles = troubles.join("; "),
                    "the server does not come to rest: ending now; what was acknowledged is on the disk"
                );
            }
        }
        std::process::exit(1);
    };
    let thread = guard::thread("tidelog-signals", 256 * 1024, move || runtime.block_on(wait))?;
    // It ends with the process.
    drop(thread);
    Ok(stopping)
}

/// From now on SIGHUP is a line in the log and nothing else. Its default would end the process.
///
/// # Errors
/// The system's: no signals.
pub(super) fn outlive_terminal() -> io::Result<()> {
    let mut hang_ups = signal(SignalKind::hangup())?;
    tasks::spawn_lasting("hang-ups", async move {
        while hang_ups.recv().await.is_some() {
            tracing::info!("SIGHUP ignored: nothing is reloaded; SIGTERM stops the server");
        }
    });
    Ok(())
}
