//! What a process uses, as the system tells.

use tidelog::server::process;

/// Resident memory, in MiB.
pub fn resident_mib(pid: u32) -> Option<f64> {
    process::resident_bytes(&pid.to_string()).map(|bytes| bytes as f64 / (1024.0 * 1024.0))
}

/// CPU seconds that a process has used so far, user and system.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    process::cpu_seconds(&pid.to_string())
}

/// CPU used between two looks, in cores.
pub struct CpuMeter {
    pid: u32,
    before: Option<f64>,
    since: std::time::Instant,
}

impl CpuMeter {
    /// Begins to count.
    pub fn start(pid: u32) -> Self {
        Self { pid, before: cpu_seconds(pid), since: std::time::Instant::now() }
    }

    /// Cores used since the start: 1.0 is one, all the time.
    pub fn cores(&self) -> Option<f64> {
        let used = cpu_seconds(self.pid)? - self.before?;
        Some(used / self.since.elapsed().as_secs_f64().max(1e-3))
    }
}
