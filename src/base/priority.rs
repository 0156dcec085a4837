//! The priority of a thread, where the system has one for each.

/// How much less of a processor a thread of the background gets where both want it: a third of what others get.
const BACKGROUND: i32 = 5;

/// Gives the calling thread less of a busy processor than threads that answer. Where that cannot be said it stays as it is.
#[cfg(target_os = "linux")]
pub fn lower() {
    // On Linux the value is the thread's, and of nobody else (setpriority(2), "C library/kernel differences").
    if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND) {
        tracing::debug!(%error, "the priority of a thread cannot be lowered");
    }
}

/// Elsewhere it would be that of the whole process.
#[cfg(not(target_os = "linux"))]
pub fn lower() {
    let _ = BACKGROUND;
}
