//! The log on the simulated disk: a model, faults, power cuts. Seeds are printed; `TIDELOG_SEED=n` runs one,
//! `TIDELOG_ROUNDS=n` more of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::base::{ErrorKind, Offset};
use crate::disk::{Disk, Fault, OpKind, RealDisk, SimDisk, SimOptions};
use crate::record::{BatchBuilder, BatchOptions, Batches, read_records};

const DIR: &str = "/data/p";

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2_000, checkpoint_bytes: 1_500, ..LogConfig::default() }
}

fn disk_of(sim: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(sim.clone())
}

fn open(sim: &SimDisk) -> Result<(PartitionLog, Recovery), LogError> {
    let disk = disk_of(sim);
    PartitionLog::create(&disk, Path::new(DIR))?;
    PartitionLog::open(disk, PathBuf::from(DIR), config(), 1_000)
}

/// A batch of records whose values are their sequence numbers, padded.
fn batch(producer: i64, sequence: i32, records: i32, padding: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: producer,
        producer_epoch: 0,
        base_sequence: sequence,
        ..BatchOptions::default()
    });
    for at in 0..records {
        let value = format!("{:08}{}", sequence + at, "x".repeat(padding));
        builder.push(i64::from(sequence + at) * 10, None, Some(value.as_bytes()), &[]);
    }
    builder.build().to_vec()
}

fn values(chunk: &Bytes) -> Vec<(Offset, String)> {
    let mut out = Vec::new();
    for batch in Batches::new(chunk.clone()) {
        let (_, batch) = batch.unwrap();
        for record in read_records(&batch, 1 << 20).unwrap() {
            let record = record.unwrap();
            out.push((record.offset, String::from_utf8(record.value.unwrap()[..8].to_vec()).unwrap()));
        }
    }
    out
}

fn read_all(log: &PartitionLog, limit: Offset) -> Result<Vec<(Offset, String)>, LogError> {
    let mut out = Vec::new();
    let mut offset = log.start_offset();
    while offset < limit {
        let chunk = log.read(offset, 700, limit)?;
        assert!(chunk.next_offset > offset, "no progress at {offset}");
        out.extend(values(&chunk.bytes).into_iter().filter(|(at, _)| *at >= offset));
        offset = chunk.next_offset;
    }
    Ok(out)
}

fn assert_verified(sim: &SimDisk) {
    let mut damage = Vec::new();
    verify_partition(&disk_of(sim), Path::new(DIR), &mut |finding| damage.push(finding), &mut |_| {}).unwrap();
    damage.retain(|finding| finding.damage);
    assert_eq!(damage, [], "{}", sim.op_log());
}

fn seeds(rounds: u64) -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("TIDELOG_SEED") {
        let seed = seed.parse().unwrap();
        return seed..seed + 1;
    }
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(rounds);
    0..rounds
}

#[test]
fn what_is_appended_is_read_back_over_segments_and_a_clean_reopen() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    let mut sequence = 0;
    for round in 0..60 {
        let records = 1 + round % 4;
        let appended = log.append(&mut batch(1, sequence, records, 40), 1_000).unwrap();
        assert_eq!((appended.base_offset, appended.last_offset), (sequence as u64, (sequence + records - 1) as u64));
        sequence += records;
        log.assert_invariants();
    }
    assert_eq!(log.read(0, 100, log.synced_end()).unwrap().bytes.len(), 0, "nothing is stable before a sync");
    log.sync().unwrap();
    let all = read_all(&log, log.stable_end()).unwrap();
    assert_eq!(all.len(), sequence as usize);
    assert!(all.iter().enumerate().all(|(at, (offset, value))| *offset == at as u64 && *value == format!("{at:08}")));
    for offset in 0..sequence as u64 {
        let chunk = log.read(offset, 1, log.stable_end()).unwrap();
        assert!(values(&chunk.bytes).iter().any(|(at, _)| *at == offset));
        let found = log.offset_for_time(offset as i64 * 10 - 5, log.stable_end()).unwrap();
        assert_eq!(found, Some((offset, offset as i64 * 10)));
    }
    assert_eq!(log.offset_for_time(1_000_000, log.stable_end()).unwrap(), None);
    log.close(0).unwrap();
    let (log, recovery) = open(&sim.restart()).unwrap();
    assert_eq!((recovery.scanned_bytes, recovery.damage.len()), (0, 0), "a clean close leaves nothing to scan");
    assert_eq!(read_all(&log, log.stable_end()).unwrap(), all);
    assert_verified(&sim.restart());
}

#[test]
fn producers_are_deduplicated_fenced_and_kept_in_sequence_also_after_a_restart() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    for at in 0..8 {
        log.append(&mut batch(9, at * 2, 2, 10), 0).unwrap();
    }
    for restarted in [false, true] {
        if restarted {
            log.sync().unwrap();
            log = open(&sim.restart()).unwrap().0;
        }
        let again = log.append(&mut batch(9, 14, 2, 10), 0).unwrap();
        assert_eq!((again.duplicate, again.base_offset, again.last_offset), (true, 14, 15));
        let error = log.append(&mut batch(9, 18, 2, 10), 0).unwrap_err();
        assert!(matches!(error, LogError::OutOfOrderSequence { got: 18, expected: 16, .. }), "{error}");
        assert_eq!(log.append(&mut batch(9, 2, 2, 10), 0).unwrap_err().kind(), ErrorKind::OutOfOrderSequence);
        assert_eq!(log.written_end(), 16);
        if restarted {
            let mut newer = batch(9, 0, 1, 10);
            crate::record::set_producer(&mut newer, 9, 1, 0);
            log.append(&mut newer, 0).unwrap();
            assert_eq!(log.append(&mut batch(9, 16, 2, 10), 0).unwrap_err().kind(), ErrorKind::FencedProducer);
        }
    }
}

/// Runs a fixed script until the disk fails; what was acknowledged as durable, in order.
fn script(sim: &SimDisk) -> Vec<i32> {
    let mut durable = Vec::new();
    let mut written = Vec::new();
    let Ok((mut log, _)) = open(sim) else { return durable };
    for at in 0..14 {
        if log.append(&mut batch(3, at, 1, 200), 0).is_err() {
            return durable;
        }
        written.push(at);
        if at % 3 == 1 {
            if log.sync().is_err() {
                return durable;
            }
            durable.append(&mut written);
        }
        if at == 9 {
            log.set_config(LogConfig { retention_bytes: Some(10_000), ..config() });
            let _ = log.retain(None);
        }
    }
    durable
}

fn assert_holds(sim: &SimDisk, durable: &[i32], context: &str) {
    let (log, recovery) = open(sim).unwrap_or_else(|error| panic!("{context}: {error}\n{}", sim.op_log()));
    log.assert_invariants();
    assert_eq!(recovery.damage, [], "{context}");
    let found = read_all(&log, log.stable_end()).unwrap_or_else(|error| panic!("{context}: {error}"));
    for (at, (offset, value)) in found.iter().enumerate() {
        assert_eq!((*offset, value.as_str()), (at as u64, format!("{at:08}").as_str()), "{context}");
    }
    assert!(
        found.len() >= durable.len(),
        "{context}: {} of {} acknowledged\n{}",
        found.len(),
        durable.len(),
        sim.op_log()
    );
    drop(log);
    let (again, recovery) = open(&sim.restart()).unwrap();
    assert_eq!((again.written_end() as usize, recovery.cut_bytes), (found.len(), 0), "{context}: opening twice");
    assert_verified(&sim.restart());
}

#[test]
fn a_power_cut_after_every_disk_operation_loses_nothing_acknowledged() {
    let total = {
        let sim = SimDisk::new(SimOptions::default());
        assert_eq!(script(&sim).len(), 14);
        sim.operations()
    };
    for operation in 0..=total {
        for seed in seeds(12) {
            let sim = SimDisk::new(SimOptions { seed, capacity: None });
            sim.cut_power_at(operation);
            let durable = script(&sim);
            let context = format!("power cut at operation {operation} of {total}, seed {seed}");
            assert_holds(&sim.reboot(), &durable, &context);
        }
    }
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_either() {
    for seed in seeds(20) {
        let sim = SimDisk::new(SimOptions { seed, capacity: None });
        sim.cut_power_at(60);
        let durable = script(&sim);
        let mut sim = sim.reboot();
        for operation in 0..25 {
            sim.cut_power_at(operation);
            let _ = open(&sim);
            sim = sim.reboot();
        }
        assert_holds(&sim, &durable, &format!("seed {seed}"));
    }
}

/// Random operations against a model, with faults and restarts as ordinary operations.
#[test]
fn random_operations_agree_with_a_model() {
    for seed in seeds(150).chain((std::env::var_os("TIDELOG_SEED").is_none()).then_some(1714)) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
        let mut log = Some(open(&sim).unwrap().0);
        // Batches written, and how many of their records are surely durable.
        let (mut written, mut durable) = (0i32, 0i32);
        let context = format!("seed {seed}");
        for _ in 0..80 {
            let Some(current) = log.as_mut() else {
                let (reopened, recovery) =
                    open(&sim).unwrap_or_else(|error| panic!("{context}: {error}\n{}", sim.op_log()));
                assert_eq!(recovery.damage, [], "{context}");
                let found = read_all(&reopened, reopened.stable_end()).unwrap();
                assert!(found.len() as i32 >= durable, "{context}: {} < {durable}\n{}", found.len(), sim.op_log());
                assert!(
                    found
                        .iter()
                        .enumerate()
                        .all(|(at, (offset, value))| { *offset == at as u64 && *value == format!("{at:08}") }),
                    "{context}: {found:?}\n{}",
                    sim.op_log()
                );
                (written, durable) = (found.len() as i32, found.len() as i32);
                log = Some(reopened);
                continue;
            };
            match rng.u32(..100) {
                0..50 => {
                    let mut group: Vec<Vec<u8>> = Vec::new();
                    let mut next = written;
                    for _ in 0..rng.i32(1..4) {
                        let records = rng.i32(1..4);
                        group.push(batch(4, next, records, rng.usize(..300)));
                        next += records;
                    }
                    let mut parts: Vec<&mut [u8]> = group.iter_mut().map(|batch| &mut batch[..]).collect();
                    for appended in current.append_group(&mut parts, 0).into_iter().flatten() {
                        assert_eq!(appended.base_offset, written as u64, "{context}");
                        written = appended.last_offset as i32 + 1;
                    }
                }
                50..75 => {
                    if current.sync().is_ok() {
                        durable = written;
                    }
                }
                75..80 => sim.inject(OpKind::Write, ".log", if rng.bool() { Fault::Full } else { Fault::Error }, 1),
                80..84 => sim.inject(OpKind::Sync, ".log", Fault::Error, 1),
                84..86 => sim.inject(OpKind::SetLen, ".log", Fault::Error, 1),
                86..90 => {
                    sim.heal();
                    if current.poisoned().is_some() {
                        current.reopen(0).unwrap_or_else(|error| panic!("{context}: {error}"));
                        assert!(current.written_end() as i32 >= durable, "{context}");
                        assert_eq!(current.written_end(), current.synced_end());
                        (written, durable) = (current.written_end() as i32, current.written_end() as i32);
                    }
                }
                90..94 => {
                    // SIGKILL: everything written is there.
                    log = None;
                    sim.heal();
                    sim = sim.restart();
                    durable = durable.max(0);
                }
                94..97 => {
                    log = None;
                    sim = sim.reboot();
                }
                _ => {
                    sim.cut_power_at(rng.u64(..12));
                    let _ = current.append(&mut batch(4, written, 1, 100), 0);
                    let _ = current.sync();
                    log = None;
                    sim = sim.reboot();
                }
            }
            if let Some(log) = &log {
                log.assert_invariants();
            }
        }
        drop(log);
        sim.heal();
        println!("{context}: verifying");
        assert_verified(&sim.restart());
    }
}

#[test]
fn a_failed_sync_poisons_until_reopened_and_what_was_written_survives_in_a_new_file() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    log.append(&mut batch(1, 0, 1, 10), 0).unwrap();
    log.sync().unwrap();
    log.append(&mut batch(1, 1, 1, 10), 0).unwrap();
    sim.inject(OpKind::Sync, ".log", Fault::Error, 1);
    assert_eq!(log.sync().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(log.append(&mut batch(1, 2, 1, 10), 0).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(log.sync().unwrap_err().kind(), ErrorKind::Poisoned, "the sync is not tried again");
    assert_eq!(read_all(&log, log.stable_end()).unwrap().len(), 1, "reading goes on");
    log.reopen(0).unwrap();
    assert_eq!((log.written_end(), log.synced_end()), (2, 2));
    assert!(log.append(&mut batch(1, 1, 1, 10), 0).unwrap().duplicate, "the retry is known");
    let (log, _) = open(&sim.reboot()).unwrap();
    assert_eq!(read_all(&log, log.stable_end()).unwrap().len(), 2, "and really on the disk");
}

#[test]
fn what_is_lost_after_a_failed_sync_leaves_its_offsets_to_nobody_else() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    log.set_config(LogConfig { stable: StableEnd::Written, ..config() });
    for sequence in 0..3 {
        log.append(&mut batch(1, sequence, 1, 10), 0).unwrap();
        if sequence == 0 {
            log.sync().unwrap();
        }
    }
    // Readers have seen three records when the disk loses two of them.
    sim.inject(OpKind::Sync, ".log", Fault::Error, 1);
    log.sync().unwrap_err();
    sim.inject(OpKind::Read, ".log", Fault::Error, 1);
    log.reopen(0).unwrap();
    assert_eq!((log.written_end(), log.synced_end()), (3, 3));
    assert_eq!(log.append(&mut batch(1, 1, 1, 10), 0).unwrap().base_offset, 3, "the retry is none");
    log.sync().unwrap();
    let (log, recovery) = open(&sim.reboot()).unwrap();
    assert_eq!(recovery.damage, []);
    let offsets: Vec<_> = read_all(&log, 4).unwrap().into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [0, 3]);
}

#[test]
fn a_full_disk_refuses_without_a_trace_and_takes_more_when_there_is_room() {
    let sim = SimDisk::new(SimOptions { seed: 3, capacity: Some(6_000) });
    let (mut log, _) = open(&sim).unwrap();
    let mut sequence = 0;
    let error = loop {
        match log.append(&mut batch(1, sequence, 1, 300), 0) {
            Ok(_) => sequence += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    log.sync().unwrap();
    assert_eq!(read_all(&log, log.stable_end()).unwrap().len(), sequence as usize);
    sim.set_capacity(None);
    log.append(&mut batch(1, sequence, 1, 300), 0).unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, recovery) = open(&sim.restart()).unwrap();
    assert_eq!(recovery.damage, []);
    assert_eq!(read_all(&log, log.stable_end()).unwrap().len(), sequence as usize + 1);
}

fn filled(sim: &SimDisk, batches: i32) -> PartitionLog {
    let (mut log, _) = open(sim).unwrap();
    for at in 0..batches {
        log.append(&mut batch(1, at, 1, 200), 0).unwrap();
        log.sync().unwrap();
    }
    log
}

#[test]
fn a_flipped_bit_is_reported_with_its_place_and_only_skipped_when_told() {
    for (name, sealed) in [("00000000000000000000.log", true), ("00000000000000000014.log", false)] {
        let sim = SimDisk::new(SimOptions::default());
        let log = filled(&sim, 20);
        let size = batch(1, 0, 1, 200).len();
        let path = Path::new(DIR).join(name);
        let first = if sealed { 2 } else { 14 };
        let position = if sealed { 2 * size } else { 0 };
        assert!(sim.content(&path).unwrap().len() > position, "{name}");
        sim.flip_bit(&path, position + 100, 3);
        let check = |log: &PartitionLog| {
            let error = read_all(log, log.stable_end()).unwrap_err();
            let LogError::Damaged(damage) = &error else { panic!("{error}") };
            assert_eq!((damage.position, damage.from, damage.to), (position as u64, first, Some(first + 1)), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            let behind = log.read(first + 1, 100, log.stable_end()).unwrap();
            assert_eq!(values(&behind.bytes)[0].0, first + 1);
        };
        check(&log);
        drop(log);
        let mut findings = Vec::new();
        verify_partition(&disk_of(&sim), Path::new(DIR), &mut |finding| findings.push(finding), &mut |_| {}).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].damage && findings[0].from == first && findings[0].position == position as u64);
        let (log, _) = open(&sim.restart()).unwrap();
        assert_eq!(log.written_end(), 20, "nothing acknowledged is cut away, and no offset is used again");
        check(&log);
    }
}

#[test]
fn synced_data_that_is_gone_is_reported_and_its_offsets_are_not_used_again() {
    let sim = SimDisk::new(SimOptions::default());
    drop(filled(&sim, 20));
    let last = Path::new(DIR).join("00000000000000000014.log");
    sim.plant(&last, b"");
    let (mut log, recovery) = open(&sim.restart()).unwrap();
    assert_eq!(recovery.damage.len(), 1, "{recovery}");
    assert_eq!(log.append(&mut batch(2, 0, 1, 10), 0).unwrap().base_offset, 20);
    log.sync().unwrap();
    let error = log.read(14, 100, log.stable_end()).unwrap_err();
    assert!(matches!(&error, LogError::Damaged(damage) if damage.from == 14 && damage.to == Some(20)), "{error}");
    assert_eq!(log.read(20, 100, 21).unwrap().next_offset, 21);
}

/// Where to cut a file of batches of this size: in each of them at both ends, and at some places between.
fn cuts(batches: usize, size: usize) -> impl Iterator<Item = usize> {
    let inside = [0, 1, 16, 60, 61, 62, 100, size - 1];
    (0..batches).flat_map(move |at| inside.map(|byte| at * size + byte))
}

/// Cuts a sealed file anywhere: what is whole in it is read by every way of reading, and only the rest is damage.
#[test]
fn a_file_that_is_cut_off_hides_only_what_it_lost() {
    let size = batch(1, 0, 1, 200).len();
    let path = Path::new(DIR).join("00000000000000000007.log");
    for cut in cuts(7, size) {
        let sim = SimDisk::new(SimOptions::default());
        drop(filled(&sim, 30));
        let whole = sim.content(&path).unwrap();
        assert_eq!(whole.len(), 7 * size);
        sim.plant(&path, &whole[..cut]);
        let (log, recovery) = open(&sim.restart()).unwrap();
        let first_lost = 7 + (cut / size) as u64;
        let lost: Vec<_> = recovery.damage.iter().map(|damage| (damage.from, damage.to, damage.position)).collect();
        assert_eq!(lost, [(first_lost, Some(14), (cut / size * size) as u64)], "cut at {cut}");
        // A window that reaches over the end of the file, one that ends before it, and one for each record.
        for window in [1, 700, 1 << 20] {
            let mut read = Vec::new();
            let mut offset = 0;
            while offset < 30 {
                match log.read(offset, window, log.stable_end()) {
                    Ok(chunk) => {
                        read.extend(values(&chunk.bytes).into_iter().map(|(at, _)| at).filter(|at| *at >= offset));
                        offset = chunk.next_offset;
                    }
                    Err(LogError::Damaged(damage)) => {
                        assert_eq!((damage.from, damage.to), (first_lost.max(offset), Some(14)), "cut at {cut}");
                        offset = 14;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(read, (0..first_lost).chain(14..30).collect::<Vec<_>>(), "cut at {cut}, window {window}");
        }
        for offset in 7..first_lost {
            assert_eq!(values(&log.read(offset, 1, log.stable_end()).unwrap().bytes)[0].0, offset, "cut at {cut}");
        }
    }
}

/// The file of the active segment, cut off below what the checkpoint says was synced.
#[test]
fn an_active_file_that_is_cut_off_hides_only_what_it_lost_too() {
    let size = batch(1, 0, 1, 200).len();
    let path = Path::new(DIR).join("00000000000000000014.log");
    for cut in cuts(3, size) {
        let sim = SimDisk::new(SimOptions::default());
        let mut log = filled(&sim, 17);
        log.close(0).unwrap();
        drop(log);
        let whole = sim.content(&path).unwrap();
        sim.plant(&path, &whole[..cut]);
        let (log, recovery) = open(&sim.restart()).unwrap();
        let first_lost = 14 + (cut / size) as u64;
        let lost: Vec<_> = recovery.damage.iter().map(|damage| (damage.from, damage.to)).collect();
        assert_eq!(lost, [(first_lost, Some(17))], "cut at {cut}: {recovery}");
        for offset in 0..first_lost {
            assert_eq!(
                values(&log.read(offset, 1 << 20, 17).unwrap().bytes)[0].0,
                log.read(offset, 1, 17).map(|_| offset).unwrap()
            );
        }
        assert_eq!(log.written_end(), 17, "no offset is used again");
    }
}

#[test]
fn damage_that_was_found_is_known_after_every_restart_until_retention_has_passed_it() {
    let sim = SimDisk::new(SimOptions::default());
    drop(filled(&sim, 20));
    // Lies behind the checkpoint: recovery goes on behind it, and the checkpoint that it writes hides it from the next one.
    let path = Path::new(DIR).join("00000000000000000014.log");
    sim.flip_bit(&path, batch(1, 0, 1, 200).len() + 100, 3);
    let known =
        |log: &PartitionLog| log.damage().map(|known| (known.damage.from, known.acknowledged)).collect::<Vec<_>>();
    let (log, recovery) = open(&sim.restart()).unwrap();
    assert_eq!((recovery.damage.len(), known(&log)), (1, vec![(15, false)]));
    drop(log);
    let (mut log, recovery) = open(&sim.restart()).unwrap();
    assert_eq!((recovery.damage.len(), known(&log)), (0, vec![(15, false)]), "{recovery}");
    assert_eq!(log.acknowledge_damage().unwrap(), 1);
    drop(log);
    let (mut log, _) = open(&sim.restart()).unwrap();
    assert_eq!((known(&log), log.acknowledge_damage().unwrap()), (vec![(15, true)], 0));
    // What a reader finds is kept once it is stored.
    let damage = Damage { file: path, position: 0, from: 3, to: Some(4), what: "bit rot".to_owned() };
    assert!(log.note_damage(&damage, 0) && !log.note_damage(&damage, 0));
    log.store_damage().unwrap();
    drop(log);
    let (log, _) = open(&sim.restart()).unwrap();
    assert_eq!(known(&log), [(3, false), (15, true)]);
}

#[test]
fn a_missing_segment_is_reported() {
    let sim = SimDisk::new(SimOptions::default());
    drop(filled(&sim, 30));
    let missing = Path::new(DIR).join("00000000000000000007.log");
    disk_of(&sim).remove_file(&missing).unwrap();
    let (log, recovery) = open(&sim.restart()).unwrap();
    assert!(recovery.damage.iter().any(|damage| damage.file == missing), "{recovery}");
    let error = read_all(&log, log.stable_end()).unwrap_err();
    assert!(matches!(&error, LogError::Damaged(damage) if damage.from == 7 && damage.to == Some(14)), "{error}");
}

#[test]
fn caches_are_never_trusted_over_the_log() {
    let names = ["checkpoint", "synced", "00000000000000000000.index", "00000000000000000000.timeindex"];
    let mut rng = fastrand::Rng::with_seed(11);
    for name in names {
        for way in 0..3 {
            let sim = SimDisk::new(SimOptions::default());
            let mut log = filled(&sim, 30);
            log.close(0).unwrap();
            let path = Path::new(DIR).join(name);
            let content = sim.content(&path).unwrap();
            match way {
                0 => disk_of(&sim).remove_file(&path).unwrap(),
                1 => sim.plant(&path, &content[..content.len() / 2]),
                _ => sim.plant(&path, &(0..content.len()).map(|_| rng.u8(..)).collect::<Vec<_>>()),
            }
            let sim = sim.restart();
            let disk = disk_of(&sim);
            let (log, _) = PartitionLog::open(disk, PathBuf::from(DIR), config(), 0).unwrap();
            assert_eq!(read_all(&log, log.stable_end()).unwrap().len(), 30, "{name} {way}");
            assert_eq!(log.offset_for_time(35, 30).unwrap(), Some((4, 40)), "{name} {way}");
        }
    }
}

#[test]
fn retention_deletes_whole_segments_from_the_front_and_survives_a_crash_between_its_steps() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = filled(&sim, 40);
    log.set_config(LogConfig { retention_bytes: Some(4_000), ..config() });
    sim.inject(OpKind::Entry, "00000000000000000000.log", Fault::Error, 1);
    assert!(log.retain(None).is_err(), "a file could not be removed");
    let start = log.start_offset();
    assert!(start > 0 && log.stats().bytes >= 4_000);
    assert_eq!(log.read(0, 10, 40).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    drop(log);
    let sim = sim.reboot();
    let (mut log, recovery) = open(&sim).unwrap();
    assert_eq!((log.start_offset(), recovery.damage.len()), (start, 0));
    assert!(sim.content(&Path::new(DIR).join("00000000000000000000.log")).is_none(), "the rest is removed");
    log.set_config(LogConfig { retention_ms: Some(1_000), ..config() });
    assert_eq!(log.retain(Some(1_000)).unwrap(), 0, "nothing is old enough yet");
    log.retain(Some(10_000)).unwrap();
    assert_eq!((log.start_offset(), log.written_end()), (40, 40));
    log.append(&mut batch(1, 40, 1, 10), 0).unwrap();
    log.sync().unwrap();
    assert_eq!(read_all(&log, 41).unwrap(), [(40, "00000040".to_owned())]);
    drop(log);
    assert_verified(&sim.restart());
}

#[test]
fn a_segment_without_times_counts_from_when_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let path = dir.path().join("p");
    PartitionLog::create(&disk, &path).unwrap();
    let config = LogConfig { segment_bytes: 2_000, retention_ms: Some(60_000), ..LogConfig::default() };
    let (mut log, _) = PartitionLog::open(disk, path, config, 1_000).unwrap();
    for _ in 0..20 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(-1, None, Some(&[0; 300]), &[]);
        log.append(&mut builder.build(), 0).unwrap();
    }
    log.sync().unwrap();
    let now = crate::base::Clock::wall_ms(&crate::base::SystemClock::new());
    assert_eq!(log.retain(Some(now)).unwrap(), 0, "written just now");
    assert!(log.retain(Some(now + 3_600_000)).unwrap() > 2);
    assert_eq!(log.start_offset(), 20);
}

#[test]
fn stale_bytes_behind_the_end_are_never_taken_for_new() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = filled(&sim, 4);
    log.close(0).unwrap();
    let path = Path::new(DIR).join("00000000000000000000.log");
    let content = sim.content(&path).unwrap();
    // A tail of zeros, of old batches of this very log, of a foreign batch with the right offset but torn.
    let mut torn = batch(1, 4, 1, 200);
    crate::record::patch_assigned(&mut torn, 4, 0);
    torn.truncate(torn.len() - 1);
    for tail in [vec![0; 700], content.clone(), torn] {
        let sim = sim.restart();
        sim.plant(&path, &[content.clone(), tail].concat());
        let (log, recovery) = open(&sim).unwrap();
        assert_eq!((log.written_end(), recovery.damage.len()), (4, 0));
        let room = sim.content(&path).unwrap() == content && recovery.cut_bytes == 0;
        assert!(room || recovery.cut_bytes > 0);
    }
}

#[test]
fn room_ahead_is_zeros_of_the_active_segment_only() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    let length =
        |base: u64| sim.content(&Path::new(DIR).join(SegmentName::written(base).file("log"))).unwrap().len() as u64;
    log.append(&mut batch(1, 0, 1, 300), 0).unwrap();
    assert_eq!(length(0), 2_000, "up to the end of the segment");
    for at in 1..8 {
        log.append(&mut batch(1, at, 1, 300), 0).unwrap();
    }
    let second = log.active.segment.base_offset;
    assert!(second > 0 && length(0) == log.sealed[0].info.bytes && length(second) == 2_000);
    log.sync().unwrap();
    assert_verified(&sim);
    log.close(0).unwrap();
    assert_eq!(length(second), log.active.index.covered);
    let (reopened, recovery) = open(&sim.restart()).unwrap();
    assert_eq!((reopened.written_end(), recovery.cut_bytes), (8, 0), "{recovery}");

    // Where the disk has no place for room, the batch still fits.
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    sim.set_capacity(Some(1_200));
    log.append(&mut batch(1, 0, 1, 300), 0).unwrap();
    log.sync().unwrap();
    assert_eq!(log.synced_end(), 1);
}

struct Deaf;

impl LogObserver for Deaf {
    fn stable_end(&self, _: Offset, _: Offset) {}
    fn synced(&self, _: u64, _: usize) {}
    fn sync_failed(&self) {}
}

#[test]
fn a_checkpoint_that_had_to_wait_for_compaction_is_written_behind_it() {
    let sim = SimDisk::new(SimOptions::default());
    let disk: Arc<dyn Disk> = Arc::new(sim);
    let path = PathBuf::from("/t/0");
    PartitionLog::create(&disk, &path).unwrap();
    let (log, _) = PartitionLog::open(disk, path, config(), 0).unwrap();
    let clock = Arc::new(crate::base::TrustedClock::new(Arc::new(crate::base::SystemClock::new())));
    let committer = Committer::start(CommitterConfig { threads: 2 }, clock).unwrap();
    let handle = committer.manage(log, Arc::new(Deaf));
    // Compaction is at its checkpoint while all is written.
    handle.with(|log| log.checkpoint_running = true);
    let (sender, receiver) = std::sync::mpsc::channel();
    for at in 0..50 {
        let sender = sender.clone();
        handle.enqueue(AppendRequest {
            batch: batch(1, at, 1, 200).as_slice().into(),
            wait: WaitFor::Durable,
            done: Box::new(move |result| sender.send(result.map(drop)).unwrap()),
        });
        receiver.recv().unwrap().unwrap();
    }
    handle.with(|log| assert_eq!(log.last_checkpoint.active_base, 0));
    handle.with(|log| log.checkpoint_running = false);
    let limits = CleanLimits { key_bytes: 1 << 20, secret: 7 };
    handle.clean(limits, 0, &std::sync::atomic::AtomicBool::new(false)).unwrap();
    let bases = || handle.with(|log| (log.last_checkpoint.active_base, log.active.segment.base_offset));
    assert!(bases().1 > 0);
    // The thread of the last sync may be at it just now.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while bases().0 < bases().1 {
        assert!(std::time::Instant::now() < deadline, "{:?}", bases());
        std::thread::yield_now();
    }
    handle.close().unwrap();
    committer.stop();
}

#[test]
fn the_group_commit_answers_every_producer_in_order_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t/0");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    PartitionLog::create(&disk, &path).unwrap();
    let (log, _) = PartitionLog::open(disk.clone(), path.clone(), config(), 0).unwrap();
    let clock = Arc::new(crate::base::TrustedClock::new(Arc::new(crate::base::SystemClock::new())));
    let committer = Committer::start(CommitterConfig { threads: 3 }, clock).unwrap();
    let handle = committer.manage(log, Arc::new(Deaf));
    let (sender, receiver) = std::sync::mpsc::channel();
    for at in 0..500 {
        let sender = sender.clone();
        handle.enqueue(AppendRequest {
            batch: batch(1, at, 1, 50).as_slice().into(),
            wait: if at % 7 == 0 { WaitFor::Written } else { WaitFor::Durable },
            done: Box::new(move |result| drop(sender.send((at, result)))),
        });
    }
    for _ in 0..500 {
        let (at, result) = receiver.recv().unwrap();
        assert_eq!(result.unwrap().base_offset, at as u64);
    }
    handle.close().unwrap();
    committer.stop();
    let (log, _) = PartitionLog::open(disk, path, config(), 0).unwrap();
    assert_eq!(read_all(&log, 500).unwrap().len(), 500);
}

#[test]
fn retention_without_room_for_a_checkpoint_overwrites_it_and_survives_a_power_cut_at_any_operation() {
    let mut cut = 0;
    for nth in 0..60 {
        let sim = SimDisk::new(SimOptions { seed: nth, capacity: None });
        let mut log = filled(&sim, 40);
        let end = log.written_end();
        log.request_checkpoint();
        log.sync().unwrap();
        log.set_config(LogConfig { retention_bytes: Some(1), ..config() });
        sim.inject(OpKind::Write, "checkpoint.tmp", Fault::Full, u32::MAX);
        sim.cut_power_at(nth);
        match log.retain(None) {
            Ok(gone) => assert!(gone > 0, "cut at {nth}: {}", sim.op_log()),
            Err(_) => cut += 1,
        }
        let (log, recovery) = open(&sim.reboot()).unwrap();
        assert_eq!(recovery.damage, [], "cut at {nth}: {}", sim.op_log());
        assert_eq!(log.written_end(), end, "cut at {nth}");
        let read = read_all(&log, end).unwrap();
        let wanted: Vec<_> = (log.start_offset()..end).collect();
        assert_eq!(read.into_iter().map(|(offset, _)| offset).collect::<Vec<_>>(), wanted, "cut at {nth}");
    }
    assert!((8..60).contains(&cut), "{cut} of 60 cut it off");
}

#[test]
fn a_checkpoint_that_fails_is_tried_less_and_less_often_and_keeps_no_more_than_it_needs() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = filled(&sim, 10);
    sim.inject(OpKind::Write, "checkpoint.tmp", Fault::Error, u32::MAX);
    log.checkpoint_due = true;
    for at in 10..1_000 {
        log.append(&mut batch(1, at, 1, 20), 0).unwrap();
        log.sync().unwrap();
    }
    assert!(log.unstored.len() <= 64, "{}", log.unstored.len());
    assert_eq!(log.checkpoint_failures, 8, "after 2, 4, 8 and so on up to 256 syncs");
    sim.heal();
    log.request_checkpoint();
    log.sync().unwrap();
    assert_eq!((log.checkpoint_failures, log.unstored.len()), (0, 0));
}

/// Damages a log in every way, repairs it, and compares: what could be read before can be read after, and nothing else is missing.
#[test]
fn a_repaired_log_is_whole_without_what_was_lost_whatever_was_damaged() {
    let size = batch(1, 0, 1, 200).len();
    let keep = Path::new("/data/damaged");
    for seed in seeds(60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sim = SimDisk::new(SimOptions { seed, capacity: None });
        let mut log = filled(&sim, 31);
        if rng.bool() {
            log.close(0).unwrap();
        }
        drop(log);
        let bases = [0u64, 7, 14, 21, 28];
        for _ in 0..1 + rng.usize(..3) {
            let path = Path::new(DIR).join(format!("{:020}.log", bases[rng.usize(..bases.len())]));
            let Some(content) = sim.content(&path).filter(|content| !content.is_empty()) else { continue };
            match rng.u8(..4) {
                0 => sim.flip_bit(&path, rng.usize(..content.len()), rng.u8(..8)),
                1 => sim.plant(&path, &content[..rng.usize(..content.len())]),
                2 => disk_of(&sim).remove_file(&path).unwrap(),
                _ => {
                    let at = rng.usize(..content.len() / size).saturating_mul(size);
                    let mut holed = content.clone();
                    holed[at..(at + size).min(content.len())].fill(0xa5);
                    sim.plant(&path, &holed);
                }
            }
        }
        let (mut log, _) = open(&sim.restart()).unwrap();
        let readable = |log: &PartitionLog| {
            let (mut read, mut offset, mut damaged) = (Vec::new(), log.start_offset(), false);
            while offset < log.stable_end() {
                match log.read(offset, 1 << 20, log.stable_end()) {
                    Ok(chunk) => {
                        read.extend(values(&chunk.bytes).into_iter().filter(|(at, _)| *at >= offset));
                        offset = chunk.next_offset;
                    }
                    Err(LogError::Damaged(damage)) => {
                        damaged = true;
                        offset = damage.to.unwrap().max(offset + 1);
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            (read, damaged)
        };
        let (before, was_damaged) = readable(&log);
        let end = log.written_end();
        let found = log.find_damage().unwrap();
        let lost: u64 = found.iter().map(|damage| damage.to.unwrap() - damage.from).sum();
        let repaired = log.repair(keep).unwrap();
        log.assert_invariants();
        let given_up: u64 = repaired.given_up.iter().map(|damage| damage.to.unwrap() - damage.from).sum();
        assert!(given_up >= lost, "seed {seed}: {found:?} {repaired:?}");
        assert_eq!(before.len() as u64 + given_up, end, "seed {seed}: exactly what is lost is given up: {repaired:?}");
        assert_eq!(was_damaged || log.start_offset() > 0, !repaired.given_up.is_empty(), "seed {seed}");
        for restarted in [false, true] {
            if restarted {
                drop(log);
                let recovery;
                (log, recovery) = open(&sim.restart()).unwrap();
                assert_eq!(recovery.damage, [], "seed {seed}");
            }
            assert_eq!(readable(&log), (before.clone(), false), "seed {seed}, restarted: {restarted}");
            assert_eq!((log.find_damage().unwrap(), log.damage().count(), log.written_end()), (vec![], 0, end));
        }
        log.append(&mut batch(2, 0, 1, 10), 0).unwrap();
        log.sync().unwrap();
        assert_verified(&sim.restart());
    }
}

#[test]
fn a_repair_that_is_cut_off_anywhere_can_be_done_again() {
    let path = Path::new(DIR).join("00000000000000000007.log");
    let size = batch(1, 0, 1, 200).len();
    for operation in 0.. {
        let sim = SimDisk::new(SimOptions { seed: operation, capacity: None });
        let mut log = filled(&sim, 20);
        log.close(0).unwrap();
        drop(log);
        sim.flip_bit(&path, 2 * size + 100, 3);
        let (mut log, _) = open(&sim.restart()).unwrap();
        let before = sim.operations();
        sim.cut_power_at(before + operation);
        let whole = log.repair(Path::new("/data/damaged")).is_ok();
        drop(log);
        let sim = sim.reboot();
        let (mut log, _) = open(&sim).unwrap();
        log.repair(Path::new("/data/damaged")).unwrap();
        let read: Vec<_> = read_all(&log, log.stable_end()).unwrap().into_iter().map(|(at, _)| at).collect();
        assert_eq!(read, (0..9).chain(10..20).collect::<Vec<_>>(), "cut at {operation}");
        assert_verified(&sim.restart());
        if whole && sim.operations() < before + operation {
            break;
        }
        assert!(operation < 1_000, "the repair does not end");
    }
}
