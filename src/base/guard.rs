//! Threads that must not die alone. A panic in a thread or task of the engine leaves half of a step done in memory (a queue
//! that says "being written", a lock that nobody gives back), and no other thread could tell. Recovery from the disk is what
//! is tested most, so the process ends at once, with a line that says which thread it was and why, and is started anew by
//! whatever supervises it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

/// The exit status of a process that ended because of a panic: that of a Rust program whose main thread panics.
pub const PANIC_STATUS: i32 = 101;

/// Does a step of the engine. A panic in it ends the process.
pub fn guarded<R>(name: &str, work: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| end_process(name, panic.as_ref()))
}

/// Starts a thread of the engine. A panic in it ends the process.
///
/// # Errors
/// The system's, if the thread cannot be started.
pub fn thread(name: &str, stack_bytes: usize, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let own = name.to_owned();
    std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(move || guarded(&own, work))
}

/// Ends the process because of a panic in this thread or task.
pub fn end_process(name: &str, panic: &(dyn Any + Send)) -> ! {
    let reason = panic_text(panic);
    tracing::error!(
        part = name,
        panic = reason,
        "a part of the server panicked: the process ends; a new start recovers"
    );
    std::process::exit(PANIC_STATUS)
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}
