//! Micro-benchmarks of the hot paths: `cargo bench`. Each says its throughput in bytes or items.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use tidelog::disk::{Disk, RealDisk, SimDisk, SimOptions};
use tidelog::log::{LogConfig, PartitionLog, StableEnd};
use tidelog::protocol::{Ack, FrameDecoder, Kind, Produce, encode_frame};
use tidelog::record::{BatchBuilder, BatchOptions, Bounds, Compression, check_produced, read_records};

fn main() {
    divan::main();
}

/// Records of 1 KiB in a batch.
const SIZES: [usize; 3] = [1, 16, 256];

fn batch(records: usize, compression: Compression) -> BytesMut {
    let value = vec![b'v'; 1024];
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    for record in 0..records {
        builder.push(1_700_000_000_000 + record as i64, Some(b"key"), Some(&value), &[]);
    }
    builder.build()
}

#[divan::bench(args = SIZES)]
fn batch_encode(bencher: Bencher, records: usize) {
    bencher.counter(BytesCount::new(records * 1024)).bench(|| batch(black_box(records), Compression::None));
}

#[divan::bench(args = SIZES)]
fn batch_check(bencher: Bencher, records: usize) {
    let batch = batch(records, Compression::None);
    bencher
        .counter(BytesCount::new(batch.len()))
        .bench(|| check_produced(black_box(&batch), Bounds::accepting(64 << 20)).unwrap());
}

#[divan::bench(args = SIZES)]
fn batch_read(bencher: Bencher, records: usize) {
    let batch = batch(records, Compression::None).freeze();
    bencher
        .counter(ItemsCount::new(records))
        .bench(|| read_records(black_box(&batch), 64 << 20).unwrap().map(Result::unwrap).count());
}

#[divan::bench(args = SIZES)]
fn frame_encode_and_decode(bencher: Bencher, records: usize) {
    let payload = batch(records, Compression::None);
    let request = Produce { topic: "billing.invoices".to_owned(), partition: 3, ack: Ack::Durable };
    bencher.counter(BytesCount::new(payload.len())).bench(|| {
        let mut frame = encode_frame(Kind::Produce.code(), 0, 7, black_box(&request), payload.len()).unwrap();
        frame.extend_from_slice(&payload);
        FrameDecoder::new(64 << 20).decode(&mut frame).unwrap().unwrap()
    });
}

fn log_in(disk: Arc<dyn Disk>, dir: &Path) -> PartitionLog {
    PartitionLog::create(&disk, dir).unwrap();
    let config = LogConfig { stable: StableEnd::Written, ..LogConfig::default() };
    PartitionLog::open(disk, dir.to_owned(), config, 0).unwrap().0
}

/// Batches written to the page cache of the real disk, without a sync.
#[divan::bench(args = SIZES, max_time = 2)]
fn append(bencher: Bencher, records: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log_in(Arc::new(RealDisk), &folder.path().join("t/0"));
    let mut batch = batch(records, Compression::None);
    bencher.counter(BytesCount::new(batch.len())).bench_local(|| log.append(&mut batch, 0).unwrap());
}

/// One batch somewhere in a log of 32 MiB, found by its offset and read.
#[divan::bench]
fn index_lookup_and_read(bencher: Bencher) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(SimOptions::default()));
    let mut log = log_in(disk, Path::new("/t/0"));
    let mut one = batch(4, Compression::None);
    for _ in 0..8_000 {
        log.append(&mut one, 0).unwrap();
    }
    let end = log.written_end();
    let mut random = fastrand::Rng::with_seed(7171);
    bencher.bench_local(|| log.read(random.u64(..end), 1, end).unwrap());
}

/// Opening a log of which 32 MiB lie behind its last checkpoint.
#[divan::bench(sample_count = 10)]
fn recovery_scan(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("t/0");
    let mut log = log_in(Arc::new(RealDisk), &dir);
    let mut one = batch(16, Compression::None);
    let mut bytes = 0;
    while bytes < 32 << 20 {
        log.append(&mut one, 0).unwrap();
        bytes += one.len();
    }
    drop(log);
    // Each opening gets the folder as it was: what the first one saves would spare the next one the work.
    let copy = |to: PathBuf| {
        RealDisk.create_dir_all(&to).unwrap();
        for entry in RealDisk.list(&dir).unwrap() {
            let content = tidelog::disk::read_file(&RealDisk, &dir.join(&entry.name)).unwrap();
            tidelog::disk::replace_file(&RealDisk, &to.join(&entry.name), &content).unwrap();
        }
        to
    };
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            copy(folder.path().join(format!("copy-{number}/0")))
        })
        .counter(BytesCount::new(bytes))
        .bench_local_values(|dir| PartitionLog::open(Arc::new(RealDisk), dir, LogConfig::default(), 0).unwrap().1);
}
