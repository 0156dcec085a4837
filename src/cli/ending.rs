//! The wish that a command ends in order: Ctrl-C, or SIGTERM as supervisors send it.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::failure::Failure;

/// Knows whether the command is to end. Whoever listens from here on is not ended by the signals themselves.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Listens for both signals.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> Result<Self, Failure> {
        let cannot = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            sender.send_replace(true);
            // As long as somebody may ask.
            sender.closed().await;
        });
        Ok(Self(receiver))
    }

    /// Whether it was wished by now.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is wished. May be dropped and asked again.
    pub async fn asked(&self) {
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
