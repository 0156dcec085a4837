//! What a process uses, as the system tells. Only Linux does; elsewhere nothing is known.

use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

use crate::base::TimestampMs;
use crate::disk::{Disk, OpenMode, RealDisk};

/// Clock ticks a second that /proc counts in: 100 on every Linux since 2.6 (USER_HZ).
const TICKS: f64 = 100.0;

/// CPU seconds that a process has used so far, user and system. `process` is its number, or `self`.
pub fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = read(&format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; behind it come the fields from the third on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS)
}

/// Resident memory, in bytes.
pub fn resident_bytes(process: &str) -> Option<u64> {
    let status = read(&format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
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

/// What this process uses, under the names that Prometheus has for it (without a prefix, so in a registry of its own).
#[derive(Debug)]
pub struct ProcessMetrics {
    registry: Registry,
    cpu: Counter<f64, std::sync::atomic::AtomicU64>,
    resident: Gauge,
    files: Gauge,
    most_files: Gauge,
}

impl ProcessMetrics {
    /// Those of a process that was started at this time.
    pub fn new(started_ms: TimestampMs) -> Self {
        let mut registry = Registry::default();
        let started: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
        started.set(started_ms as f64 / 1000.0);
        let (cpu, resident) = (Counter::default(), Gauge::default());
        let (files, most_files) = (Gauge::default(), Gauge::default());
        registry.register("process_cpu_seconds", "CPU time, user and system", cpu.clone());
        registry.register("process_resident_memory_bytes", "Resident memory", resident.clone());
        registry.register("process_open_fds", "Open files and sockets", files.clone());
        registry.register("process_max_fds", "Files and sockets that may be open", most_files.clone());
        registry.register("process_start_time_seconds", "When the server started, since the Unix epoch", started);
        Self { registry, cpu, resident, files, most_files }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Sets them to what is now. Blocks.
    pub fn refresh(&self) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        if let Some(seconds) = cpu_seconds("self") {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Some(bytes) = resident_bytes("self") {
            self.resident.set(gauge(bytes));
        }
        if let Ok(files) = RealDisk.list(Path::new("/proc/self/fd")) {
            // One of them is the listing itself.
            self.files.set(gauge((files.len() as u64).saturating_sub(1)));
        }
        self.most_files.set(getrlimit(Resource::Nofile).current.map_or(i64::MAX, gauge));
    }
}
