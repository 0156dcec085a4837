//! What a log knows of transactions, against a count of all its batches: with faults, restarts and power cuts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::base::TimestampMs;
use crate::disk::{Disk, Fault, OpKind, SimDisk, SimOptions};
use crate::log::{Checkpoint, LogConfig, LogError, PartitionLog};
use crate::record::{BatchBuilder, BatchOptions, Batches, marker_batch, read_marker};

const DIR: &str = "/data/p";

fn open(sim: &SimDisk) -> PartitionLog {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    PartitionLog::create(&disk, Path::new(DIR)).unwrap();
    open_as_it_is(sim)
}

fn open_as_it_is(sim: &SimDisk) -> PartitionLog {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let config = LogConfig {
        segment_bytes: 2_000,
        checkpoint_bytes: 1_500,
        retention_bytes: Some(6_000),
        ..LogConfig::default()
    };
    let (log, recovery) = PartitionLog::open(disk, PathBuf::from(DIR), config, 1_000).unwrap();
    assert_eq!(recovery.damage, []);
    log
}

fn data(producer: ProducerId, sequence: i32, padding: usize) -> Vec<u8> {
    let options =
        BatchOptions { producer_id: producer, producer_epoch: 0, base_sequence: sequence, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    builder.push(5, None, Some(&vec![b'x'; padding]), &[]);
    let mut batch = builder.build();
    batch[22] |= 0x10;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.to_vec()
}

/// Where open transactions begin, and the aborted ones: producer, begin, marker.
type Counted = (BTreeMap<ProducerId, Offset>, Vec<(ProducerId, Offset, Offset)>);

/// What all batches of a log add up to: where open transactions begin, and the aborted ones.
fn count(log: &PartitionLog) -> Counted {
    let (mut open, mut aborted) = (BTreeMap::new(), Vec::new());
    let (mut offset, end) = (log.start_offset(), log.written_end());
    while offset < end {
        let chunk = log.read(offset, 1_000, end).unwrap();
        for batch in Batches::new(chunk.bytes) {
            let (header, batch) = batch.unwrap();
            match read_marker(&batch) {
                None => drop(open.entry(header.producer_id).or_insert(header.base_offset)),
                Some(how) => {
                    if let Some(first) = open.remove(&header.producer_id)
                        && how == Marker::Abort
                    {
                        aborted.push((header.producer_id, first, header.base_offset));
                    }
                }
            }
        }
        offset = chunk.next_offset;
    }
    (open, aborted)
}

#[track_caller]
fn assert_agrees(log: &PartitionLog, rng: &mut fastrand::Rng, context: &str) {
    log.assert_invariants();
    let (open, aborted) = count(log);
    let known: BTreeMap<_, _> = log.open_transactions().iter().map(|open| (open.producer, open.first)).collect();
    assert_eq!(known, open, "{context}");
    let first = open.values().min().copied().unwrap_or(Offset::MAX);
    assert_eq!(log.committed_end(), log.stable_end().min(first), "{context}");
    for _ in 0..3 {
        let to = rng.u64(log.start_offset()..=log.committed_end());
        let from = rng.u64(log.start_offset()..=to);
        let mut found = log.aborted(from, to);
        assert!(found.is_sorted_by_key(|known| known.first), "{context}");
        let mut expected: Vec<_> =
            aborted.iter().filter(|(_, first, marker)| *first < to && *marker >= from).copied().collect();
        // One that began before the log start may have nothing left there but its marker.
        let counted = |known: &Aborted| aborted.iter().any(|(_, _, marker)| *marker == known.marker);
        found.retain(|known| known.first >= log.start_offset() || counted(known));
        found.sort_by_key(|known| known.marker);
        expected.sort_by_key(|(_, _, marker)| *marker);
        let markers = |found: &[Aborted]| found.iter().map(|known| (known.producer, known.marker)).collect::<Vec<_>>();
        // Where one began that was cut off, its batches do not say any more: it may be found for more than they say.
        let more = |known: &Aborted| known.first < log.start_offset();
        if found.iter().any(more) {
            found.retain(|known| !more(known));
            expected.retain(|(_, _, marker)| found.iter().any(|known| known.marker == *marker));
        }
        let expected: Vec<_> = expected.iter().map(|(producer, _, marker)| (*producer, *marker)).collect();
        assert_eq!(markers(&found), expected, "{context}: {from} to {to}");
    }
}

#[test]
fn what_is_known_of_transactions_is_what_the_batches_say() {
    for seed in seeds(60) {
        println!("TIDELOG_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
        let mut log = open(&sim);
        let mut now: TimestampMs = 1;
        for step in 0..120 {
            let context = format!("seed {seed} step {step}");
            now += 1;
            let producer = rng.i64(1..5);
            match rng.u32(0..100) {
                0..50 => {
                    let mut group: Vec<Vec<u8>> = (0..rng.i32(1..4))
                        .map(|at| {
                            let last = log.last_of(producer).map_or(-1, |batch| batch.last_sequence);
                            data(producer, last + 1 + at, rng.usize(0..200))
                        })
                        .collect();
                    if rng.u32(0..6) == 0 {
                        sim.inject(OpKind::Write, ".log", Fault::Full, 1);
                    }
                    let mut parts: Vec<&mut [u8]> = group.iter_mut().map(|batch| &mut batch[..]).collect();
                    let _some_fail = log.append_group(&mut parts, now);
                    sim.heal();
                }
                50..80 => {
                    let how = if rng.bool() { Marker::Abort } else { Marker::Commit };
                    let mut marker = marker_batch(producer, 0, how, now);
                    let other = rng.i64(1..5);
                    let last = log.last_of(other).map_or(-1, |batch| batch.last_sequence);
                    let mut behind = data(other, last + 1, 10);
                    if rng.u32(0..6) == 0 {
                        sim.inject(OpKind::Write, ".log", Fault::Error, 1);
                    }
                    let _some_fail = log.append_group(&mut [&mut marker[..], &mut behind[..]], now);
                    sim.heal();
                }
                80..92 => log.sync().unwrap(),
                92..95 => drop(log.retain(None).unwrap()),
                95..97 => {
                    log.close(now).unwrap();
                    sim = sim.restart();
                    log = open(&sim);
                }
                _ => {
                    drop(log);
                    sim = if rng.bool() { sim.restart() } else { sim.reboot() };
                    log = open(&sim);
                }
            }
            assert_agrees(&log, &mut rng, &context);
        }
        // Without the checkpoint all of it follows from the batches.
        log.sync().unwrap();
        drop(log);
        let sim = sim.restart();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        disk.remove_file(&Path::new(DIR).join(Checkpoint::FILE)).unwrap();
        assert_agrees(&open_as_it_is(&sim), &mut rng, &format!("seed {seed} without a checkpoint"));
    }
}

#[test]
fn retention_waits_for_an_open_transaction() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = open(&sim);
    log.append(&mut data(1, 0, 100), 0).unwrap();
    for sequence in 0..80 {
        log.append(&mut data(2, sequence, 200), 0).unwrap();
    }
    log.append(&mut marker_batch(2, 0, Marker::Commit, 0), 0).unwrap();
    log.sync().unwrap();
    assert_eq!(log.retain(None).unwrap(), 0);
    assert_eq!((log.start_offset(), log.committed_end()), (0, 0));
    log.append(&mut marker_batch(1, 0, Marker::Abort, 0), 0).unwrap();
    log.sync().unwrap();
    assert!(log.retain(None).unwrap() > 0);
    assert_eq!(log.committed_end(), log.written_end());
}

#[test]
fn a_batch_outside_of_its_producers_open_transaction_is_refused() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = open(&sim);
    log.append(&mut data(1, 0, 10), 0).unwrap();
    let options = BatchOptions { producer_id: 1, producer_epoch: 0, base_sequence: 1, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    builder.push(5, None, Some(b"x"), &[]);
    let mut plain = builder.build();
    let error = log.append(&mut plain, 0).unwrap_err();
    assert!(matches!(error, LogError::OpenTransaction { id: 1, first: 0 }), "{error}");
    log.append(&mut marker_batch(1, 0, Marker::Commit, 0), 0).unwrap();
    log.append(&mut plain, 0).unwrap();
}

#[test]
fn a_marker_of_a_newer_epoch_supersedes_the_producer() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = open(&sim);
    log.append(&mut data(1, 0, 10), 0).unwrap();
    log.append(&mut marker_batch(1, 1, Marker::Abort, 0), 0).unwrap();
    let error = log.append(&mut data(1, 1, 10), 0).unwrap_err();
    assert!(matches!(error, LogError::FencedProducer { current: 1, .. }), "{error}");
}

fn seeds(rounds: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TIDELOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDELOG_ROUNDS").unwrap_or(rounds),
    }
}
