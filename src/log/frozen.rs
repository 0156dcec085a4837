//! The on-disk formats as they were first written. `TIDELOG_BLESS=1` writes those that are missing; what is there never
//! changes: a new version gets new files, and these stay readable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::disk::{self, Disk, RealDisk, SimDisk, SimOptions};
use crate::record::{BatchBuilder, BatchOptions};

const DIR: &str = "/data/p";

/// The folders in `data/frozen`, the newest last. 2: the checkpoint knows of compaction. 3: and of transactions.
const VERSIONS: [&str; 3] = ["log", "log-2", "log-3"];

fn config() -> LogConfig {
    LogConfig { segment_bytes: 18_000, ..LogConfig::default() }
}

/// A log of two segments: two producers, some index entries.
fn write(disk: &Arc<dyn Disk>) {
    PartitionLog::create(disk, Path::new(DIR)).unwrap();
    let (mut log, _) = PartitionLog::open(Arc::clone(disk), PathBuf::from(DIR), config(), 1_000).unwrap();
    for at in 0..12 {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: i64::from(at % 2) + 7,
            producer_epoch: 1,
            base_sequence: at / 2 * 3,
            ..BatchOptions::default()
        });
        for record in 0..3 {
            let value = format!("{{\"n\":{at},\"text\":\"{}\"}}", "gezeiten ".repeat(60));
            let key = format!("key-{record}");
            builder.push(
                1_700_000_000_000 + i64::from(at * 10 + record),
                Some(key.as_bytes()),
                Some(value.as_bytes()),
                &[("source", Some(b"crm")), ("empty", None)],
            );
        }
        log.append(&mut builder.build(), 2_000).unwrap();
    }
    log.close(3_000).unwrap();
}

fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/frozen").join(version)
}

#[test]
fn a_log_is_written_as_in_the_newest_version() {
    let sim = SimDisk::new(SimOptions::default());
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    write(&disk);
    let written = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(written.len(), 8, "two segments with two indexes each, checkpoint, sync mark: {written:?}");
    let folder = folder(VERSIONS[VERSIONS.len() - 1]);
    for entry in written {
        let content = disk::read_file(disk.as_ref(), &Path::new(DIR).join(&entry.name)).unwrap();
        let file = folder.join(&entry.name);
        if std::env::var_os("TIDELOG_BLESS").is_some() && !RealDisk.exists(&file).unwrap() {
            RealDisk.create_dir_all(&folder).unwrap();
            disk::replace_file(&RealDisk, &file, &content).unwrap();
        }
        let frozen = disk::read_file(&RealDisk, &file).unwrap();
        assert!(frozen == content, "{} is written differently now", file.display());
    }
}

#[test]
fn a_log_of_every_version_stays_readable() {
    for version in VERSIONS {
        let old = SimDisk::new(SimOptions::default());
        let disk: Arc<dyn Disk> = Arc::new(old.clone());
        disk.create_dir_all(Path::new(DIR)).unwrap();
        for entry in RealDisk.list(&folder(version)).unwrap() {
            let frozen = disk::read_file(&RealDisk, &folder(version).join(&entry.name)).unwrap();
            old.plant(&Path::new(DIR).join(&entry.name), &frozen);
        }
        let (log, recovery) = PartitionLog::open(Arc::clone(&disk), PathBuf::from(DIR), config(), 4_000).unwrap();
        assert!(recovery.is_clean(), "{version}: {recovery}");
        assert_eq!((log.start_offset(), log.written_end()), (0, 36), "{version}");
        let chunk = log.read(20, 100, 36).unwrap();
        assert_eq!(chunk.next_offset, 21, "{version}");
        let mut findings = Vec::new();
        verify_partition(&disk, Path::new(DIR), &mut |finding| findings.push(finding), &mut |_| {}).unwrap();
        assert_eq!(findings, [], "{version}");
    }
}
