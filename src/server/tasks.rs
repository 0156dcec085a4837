//! Background tasks whose end is always told: done, error or panic.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::base::guard;
pub use crate::base::guard::panic_text;
use crate::broker::Client;

/// Starts a task in the current span, for the client for whom this runs. Its end is logged: done at debug, an error at warn, a
/// panic at error.
pub fn spawn<E: Display>(
    name: &'static str,
    task: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    spawn_for(Client::current(), name, task)
}

/// The same for a client.
pub fn spawn_for<E: Display>(
    client: Client,
    name: &'static str,
    task: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    let work = async move {
        match AssertUnwindSafe(task).catch_unwind().await {
            Ok(Ok(())) => tracing::debug!(task = name, "task done"),
            Ok(Err(error)) => tracing::warn!(task = name, %error, "task ended with an error"),
            Err(panic) => tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked"),
        }
    }
    .in_current_span();
    tokio::spawn(client.scope(work))
}

/// Starts a task that must not end while the server runs, and that nobody would take up again. A panic in it ends the
/// process: see [`crate::base::guard`].
pub fn spawn_lasting(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let guarded = async move {
        if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
            guard::end_process(name, panic.as_ref());
        }
    };
    tokio::spawn(guarded.in_current_span())
}
