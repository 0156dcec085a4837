//! What a process uses, as the system tells. Only Linux does; elsewhere nothing is known.

use std::path::Path;

use tidelog::disk::{Disk, OpenMode, RealDisk};

/// Clock ticks a second that /proc counts in: 100 on every Linux since 2.6 (USER_HZ).
const TICKS: f64 = 100.0;

/// CPU seconds that a process has used so far, user and system.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; behind it come the fields from the third on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS)
}

/// Resident memory, in MiB.
pub fn resident_mib(pid: u32) -> Option<f64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib as f64 / 1024.0)
}

/// A file of /proc, which has no length before it is read.
fn read(path: &str) -> Option<String> {
    let file = RealDisk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut content = vec![0; 16 * 1024];
    let mut length = 0;
    loop {
        match file.read_at(&mut content[length..], length as u64).ok()? {
            0 => break,
            read => length += read,
        }
    }
    content.truncate(length);
    String::from_utf8(content).ok()
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
