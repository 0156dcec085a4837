//! Background tasks whose end is always told: done, error or panic.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts a task in the current span. Its end is logged: done at debug, an error at warn, a panic at error.
pub fn spawn<E: Display>(
    name: &'static str,
    task: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(
        async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => tracing::debug!(task = name, "task done"),
                Ok(Err(error)) => tracing::warn!(task = name, %error, "task ended with an error"),
                Err(panic) => tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked"),
            }
        }
        .in_current_span(),
    )
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}
