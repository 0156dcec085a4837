//! Tasks of the broker. Each keeps something that nobody else would take up (the records of a partition, the members of a
//! group, the positions of a route), so a panic in one of them ends the process, as one in a thread of the engine does:
//! see [`crate::base::guard`].

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::base::guard;

/// Starts a task on the runtime of the caller.
pub(crate) fn spawn<F>(name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(guarded(name, task))
}

/// Starts a task on this runtime.
pub(crate) fn spawn_on<F>(runtime: &Handle, name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime.spawn(guarded(name, task))
}

async fn guarded<F: Future>(name: &'static str, task: F) -> F::Output {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(output) => output,
        Err(panic) => guard::end_process(name, panic.as_ref()),
    }
}
