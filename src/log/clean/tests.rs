//! Compaction on the simulated disk, against a model: power cuts, faults, readers and appends in between. Seeds are
//! printed; `TIDELOG_SEED=n` runs one, `TIDELOG_ROUNDS=n` more of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::keys::SLOT_BYTES;
use super::*;
use crate::base::ErrorKind;
use crate::disk::{Disk, Fault, OpKind, SimDisk, SimOptions};
use crate::log::{Checkpoint, Compaction, LogConfig, ReadPlan, SegmentName, StableEnd, verify_partition};
use crate::record::{BatchBuilder, BatchOptions, Batches, Compression, Record, read_records};

mod transactions;

const DIR: &str = "/data/p";
const DAY: u64 = 86_400_000;
const LIMITS: Limits = Limits { key_bytes: 1 << 20, secret: 42 };

fn config() -> LogConfig {
    let compaction = Compaction { delete_retention_ms: DAY, min_lag_ms: 0, dirty_permille: 0 };
    LogConfig { segment_bytes: 2_000, checkpoint_bytes: 1_500, compaction: Some(compaction), ..LogConfig::default() }
}

fn disk_of(sim: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(sim.clone())
}

fn open(sim: &SimDisk) -> Result<(PartitionLog, crate::log::Recovery), LogError> {
    let disk = disk_of(sim);
    // A folder with segments in it has been made.
    if segment_names(sim).is_empty() {
        PartitionLog::create(&disk, Path::new(DIR))?;
    }
    PartitionLog::open(disk, PathBuf::from(DIR), config(), 1_000)
}

/// What was handed to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Put {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
}

/// Every record by its offset, as it was appended; it is never forgotten.
#[derive(Debug, Clone, Default)]
struct Model {
    records: BTreeMap<Offset, Put>,
    sequence: i32,
}

impl Model {
    fn batch(&mut self, puts: &[Put], codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            compression: codec,
            producer_id: 9,
            producer_epoch: 0,
            base_sequence: self.sequence,
            ..BatchOptions::default()
        });
        for put in puts {
            builder.push(put.timestamp, put.key.as_deref(), put.value.as_deref(), &[("h", Some(b"1"))]);
        }
        builder.build().to_vec()
    }

    /// Appends, and notes what was appended. `false` if the log refused.
    fn append(&mut self, log: &mut PartitionLog, puts: &[Put], codec: Compression) -> bool {
        let mut batch = self.batch(puts, codec);
        let Ok(appended) = log.append(&mut batch, 1_000) else { return false };
        for (at, put) in puts.iter().enumerate() {
            self.records.insert(appended.base_offset + at as u64, put.clone());
        }
        self.sequence += puts.len() as i32;
        true
    }

    /// The offsets of the newest record of each key below `end`, records without key included.
    fn newest(&self, end: Offset) -> Vec<Offset> {
        let mut newest = HashMap::new();
        for (offset, put) in self.records.range(..end) {
            if let Some(key) = &put.key {
                newest.insert(key, *offset);
            }
        }
        let stays = |(offset, put): &(&Offset, &Put)| put.key.as_ref().is_none_or(|key| newest[key] == **offset);
        self.records.range(..end).filter(stays).map(|(offset, _)| *offset).collect()
    }
}

fn put(key: u32, value: &str, padding: usize) -> Put {
    let value = format!("{value}{}", "x".repeat(padding));
    Put { key: Some(format!("key-{key}").into_bytes()), value: Some(value.into_bytes()), timestamp: 5 }
}

fn tombstone(key: u32) -> Put {
    Put { value: None, ..put(key, "", 0) }
}

/// Done between two batches; `true` stops it.
type Between<'a> = Box<dyn FnMut(&mut PartitionLog) -> bool + 'a>;

/// The log as compaction sees it, with something to do between two batches.
struct Shared<'a> {
    log: RefCell<PartitionLog>,
    between: RefCell<Between<'a>>,
}

impl<'a> Shared<'a> {
    fn alone(log: PartitionLog) -> Self {
        Self { log: RefCell::new(log), between: RefCell::new(Box::new(|_| false)) }
    }
}

impl SharedLog for Shared<'_> {
    fn with_log<R>(&self, work: impl FnOnce(&mut PartitionLog) -> R) -> R {
        work(&mut self.log.borrow_mut())
    }

    fn is_stopped(&self) -> bool {
        (self.between.borrow_mut())(&mut self.log.borrow_mut())
    }

    fn pause(&self) {}
}

/// Compacts with nothing going on meanwhile.
fn clean_alone(log: PartitionLog, limits: Limits, now: i64) -> (PartitionLog, Result<Option<Cleaned>, LogError>) {
    let shared = Shared::alone(log);
    let cleaned = clean(&shared, limits, now);
    (shared.log.into_inner(), cleaned)
}

fn records(bytes: &Bytes) -> Vec<Record> {
    let mut out = Vec::new();
    for batch in Batches::new(bytes.clone()) {
        out.extend(read_records(&batch.unwrap().1, 1 << 20).unwrap().map(Result::unwrap));
    }
    out
}

fn read_all(log: &PartitionLog) -> BTreeMap<Offset, Put> {
    let (mut offset, end) = (log.start_offset(), log.stable_end());
    let mut out = BTreeMap::new();
    while offset < end {
        let chunk = log.read(offset, 700, end).unwrap_or_else(|error| panic!("at {offset}: {error}"));
        assert!(chunk.next_offset > offset, "no progress at {offset}");
        for record in records(&chunk.bytes).into_iter().filter(|record| record.offset >= offset) {
            let field = |field: Option<Bytes>| field.map(|bytes| bytes.to_vec());
            let put = Put { key: field(record.key), value: field(record.value), timestamp: record.timestamp };
            assert_eq!(out.insert(record.offset, put), None, "twice at {}", record.offset);
        }
        offset = chunk.next_offset;
    }
    out
}

fn findings(sim: &SimDisk) -> Vec<crate::log::Finding> {
    let mut found = Vec::new();
    verify_partition(&disk_of(sim), Path::new(DIR), &mut |finding| found.push(finding), &mut |_| {}).unwrap();
    found
}

fn segment_names(sim: &SimDisk) -> Vec<SegmentName> {
    crate::log::listing::segment_names(sim, Path::new(DIR)).unwrap_or_default()
}

fn seeds(rounds: u64) -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("TIDELOG_SEED") {
        let seed = seed.parse().unwrap();
        return seed..seed + 1;
    }
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(rounds);
    0..rounds
}

/// What is read is what was appended, nothing that must be there is missing.
#[track_caller]
fn assert_holds(log: &PartitionLog, model: &Model, durable: Offset, context: &str) {
    log.assert_invariants();
    let found = read_all(log);
    for (offset, record) in &found {
        assert_eq!(model.records.get(offset), Some(record), "{context}: offset {offset} is something else now");
    }
    let end = log.stable_end();
    assert!(end >= durable, "{context}: the log ends at {end}, {durable} was durable");
    for offset in model.newest(end) {
        let gone = model.records[&offset].value.is_none();
        assert!(gone || found.contains_key(&offset), "{context}: offset {offset} is missing");
    }
    // What lies behind everything that was ever compacted has not been touched.
    for offset in log.cleaned_to.max(log.compacted_end())..end {
        assert!(found.contains_key(&offset), "{context}: offset {offset} is missing though it was not compared");
    }
}

/// A log of `rounds` updates of `keys` keys, one batch of `records` records each.
fn filled(sim: &SimDisk, rounds: u32, keys: u32, records: u32, codec: Compression) -> (PartitionLog, Model) {
    let (mut log, _) = open(sim).unwrap();
    let mut model = Model::default();
    let all: Vec<Put> =
        (0..rounds).flat_map(|round| (0..keys).map(move |key| put(key, &format!("{round} "), 60))).collect();
    for puts in all.chunks(records as usize) {
        assert!(model.append(&mut log, puts, codec));
        log.sync().unwrap();
    }
    (log, model)
}

#[test]
fn the_map_holds_the_newest_offset_of_as_many_keys_as_it_says() {
    let mut map = KeyMap::new(u64::MAX, 1000 * SLOT_BYTES, 7);
    assert_eq!((map.room(), map.bytes()), (750, 24_000));
    for round in 0..3u64 {
        for key in 0..750u64 {
            map.put(&key.to_be_bytes(), round * 1000 + key);
        }
        assert_eq!((map.len(), map.room()), (750, 0));
    }
    map.put(&3u64.to_be_bytes(), 1);
    assert!((0..750u64).all(|key| map.get(&key.to_be_bytes()) == Some(2000 + key)));
    assert!((750..5000u64).all(|key| map.get(&key.to_be_bytes()).is_none()));
    assert_eq!(KeyMap::new(0, 0, 1).get(b"x"), None);
    for keys in 0..50 {
        assert!(KeyMap::new(keys, 1 << 20, 1).room() as u64 >= keys, "{keys}");
        let mut small = KeyMap::new(keys, 0, 1);
        small.grow(keys as usize);
        assert!(small.room() as u64 >= keys, "{keys}");
    }
}

#[test]
fn the_newest_of_each_key_stays_at_its_offset_and_everything_finds_it() {
    for codec in Compression::ALL {
        for batch in [1, 3, 7] {
            let sim = SimDisk::new(SimOptions::default());
            let (log, model) = filled(&sim, 10, 12, batch, codec);
            let before = segment_names(&sim).len();
            let (mut log, cleaned) = clean_alone(log, LIMITS, 1_000);
            let cleaned = cleaned.unwrap().unwrap();
            assert_eq!(cleaned.passes, 1);
            let context = format!("{codec}, {batch} a batch");
            assert_holds(&log, &model, 120, &context);
            let cleaned_to = log.cleaned_to;
            assert!(cleaned_to > 60, "{context}: {cleaned_to}");
            let check = |log: &PartitionLog, context: &str| {
                let found = read_all(log);
                let below: Vec<_> = found.range(..cleaned_to).map(|(offset, _)| *offset).collect();
                assert_eq!(below, model.newest(cleaned_to), "{context}");
                for offset in 0..120 {
                    let chunk = log.read(offset, 1, 120).unwrap();
                    let header = BatchHeader::parse(&chunk.bytes).unwrap();
                    assert!((header.base_offset..header.next_offset()).contains(&offset), "{context}");
                }
                assert_eq!(log.offset_for_time(5, 120).unwrap().unwrap().0, *found.keys().next().unwrap());
                assert_eq!(log.offset_for_time(6, 120).unwrap(), None);
            };
            check(&log, &context);
            assert_eq!(findings(&sim), [], "{context}");
            assert!(segment_names(&sim).len() < before.max(3), "{context}: files are merged");
            assert_eq!(cleaned.removed_records, cleaned_to - model.newest(cleaned_to).len() as u64);
            let (again, nothing) = clean_alone(log, LIMITS, 1_000);
            assert_eq!(nothing.unwrap(), None, "{context}: nothing is left to do");
            log = again;
            log.close(0).unwrap();
            let (mut log, recovery) = open(&sim.restart()).unwrap();
            assert!(recovery.is_clean(), "{context}: {recovery}");
            assert_eq!(log.cleaned_to, cleaned_to);
            check(&log, &format!("{context}, reopened"));
            // A producer's retry is known, and the log goes on.
            let last = 119 % batch + 1;
            let mut retry = Model { sequence: 120 - last as i32, ..Model::default() };
            let retry = &mut retry.batch(&vec![put(0, "", 0); last as usize], codec);
            assert!(log.append(retry, 0).unwrap().duplicate, "{context}");
            log.close(0).unwrap();
            for file in ["checkpoint", "synced"] {
                let sim = sim.restart();
                let path = Path::new(DIR).join(file);
                let content = sim.content(&path).unwrap();
                disk_of(&sim).remove_file(&path).unwrap();
                let (log, recovery) = open(&sim).unwrap();
                assert_eq!((recovery.damage.len(), log.written_end()), (0, 120), "{context}: {recovery}");
                check(&log, &format!("{context}, without {file}"));
                assert_eq!(findings(&sim), [], "{context}, without {file}");
                sim.plant(&path, &content);
            }
        }
    }
}

#[test]
fn what_is_younger_than_the_lag_and_the_active_segment_are_left_alone() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, model) = filled(&sim, 10, 12, 3, Compression::None);
    let lag = |lag| LogConfig {
        compaction: Some(Compaction { min_lag_ms: lag, ..config().compaction.unwrap() }),
        ..config()
    };
    log.set_config(lag(100));
    assert!(!log.clean_state(Some(100)).due);
    assert!(log.clean_state(Some(105)).due && !log.clean_state(None).due);
    let active = log.active.segment.base_offset;
    let (log, cleaned) = clean_alone(log, LIMITS, 105);
    assert!(cleaned.unwrap().is_some());
    assert_eq!(log.cleaned_to, active);
    assert_holds(&log, &model, 120, "");
    // Half of it must be new before it is begun again.
    let mut log = log;
    let half = Compaction { dirty_permille: 500, ..config().compaction.unwrap() };
    log.set_config(LogConfig { compaction: Some(half), ..config() });
    let mut model = model;
    let mut rounds = 0;
    while !log.clean_state(Some(105)).due {
        assert!(model.append(&mut log, &[put(100 + rounds, "new", 100)], Compression::None));
        log.sync().unwrap();
        rounds += 1;
    }
    let state = log.clean_state(Some(105));
    assert!(state.clean_bytes > 0 && state.dirty_bytes >= state.clean_bytes, "{state:?}");
}

#[test]
fn a_map_that_is_too_small_takes_more_passes_and_comes_to_the_same() {
    let mut survivors = Vec::new();
    for slots in [0, 8, 16, 1000] {
        let sim = SimDisk::new(SimOptions::default());
        let (log, model) = filled(&sim, 6, 20, 4, Compression::None);
        let limits = Limits { key_bytes: slots * SLOT_BYTES, secret: 1 };
        let (log, cleaned) = clean_alone(log, limits, 1_000);
        let cleaned = cleaned.unwrap().unwrap();
        assert!(slots == 1000 || cleaned.passes > 3, "{cleaned:?}");
        assert!(cleaned.key_bytes <= limits.key_bytes.max(8 * SLOT_BYTES), "{cleaned:?}");
        assert_holds(&log, &model, 120, "");
        assert_eq!(findings(&sim), []);
        survivors.push(read_all(&log).into_keys().collect::<Vec<_>>());
    }
    assert!(survivors.windows(2).all(|pair| pair[0] == pair[1]), "{survivors:?}");
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes_and_nothing_comes_back() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, mut model) = filled(&sim, 3, 12, 4, Compression::Zstd);
    for key in 0..6 {
        assert!(model.append(&mut log, &[tombstone(key), put(50 + key, "x", 200)], Compression::Zstd));
        log.sync().unwrap();
    }
    for round in 0..12 {
        assert!(model.append(&mut log, &[put(30, &round.to_string(), 400)], Compression::None));
        log.sync().unwrap();
    }
    let gone = |log: &PartitionLog| read_all(log).values().filter(|put| put.value.is_none()).count();
    let (log, cleaned) = clean_alone(log, LIMITS, 1_000);
    cleaned.unwrap().unwrap();
    assert!(log.cleaned_to > 48);
    assert_eq!(gone(&log), 6, "for a day everybody can still see that they are gone");
    assert_holds(&log, &model, 60, "");
    assert!(!log.clean_state(Some(1_000 + DAY as i64 - 1)).due);
    assert!(log.clean_state(Some(1_000 + DAY as i64)).due, "without anything new");
    // Also when the process ended in between, and when nothing but the segments is left.
    drop(log);
    for lost in [false, true] {
        let copy = SimDisk::new(SimOptions::default());
        disk_of(&copy).create_dir_all(Path::new(DIR)).unwrap();
        for entry in sim.restart().list(Path::new(DIR)).unwrap_or_default() {
            let path = Path::new(DIR).join(&entry.name);
            copy.plant(&path, &sim.content(&path).unwrap());
        }
        if lost {
            disk_of(&copy).remove_file(&Path::new(DIR).join("checkpoint")).unwrap();
        }
        let (log, _) = open(&copy).unwrap();
        let (log, cleaned) = clean_alone(log, LIMITS, 1_001 + DAY as i64);
        cleaned.unwrap().unwrap();
        assert_eq!(gone(&log), 0);
        let found = read_all(&log);
        for key in 0..6u32 {
            let key = format!("key-{key}").into_bytes();
            assert!(found.values().all(|put| put.key.as_ref() != Some(&key)), "it came back");
        }
        assert_holds(&log, &model, 60, "");
        assert!(!log.clean_state(Some(1_001 + DAY as i64)).due, "and it is done");
        assert_eq!(findings(&copy), []);
    }
}

#[test]
fn what_has_no_key_or_is_no_marker_or_cannot_be_opened_stays() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    let single = |key: Option<&[u8]>, attributes: u8, garbage: bool| {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(5, key, Some(&[b'x'; 300]), &[]);
        let mut batch = builder.build().to_vec();
        batch[22] |= attributes;
        if garbage {
            batch[61..].fill(0xff);
        }
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        batch
    };
    // Plain, without key, plain, a control batch of an unknown kind, zstd that is none.
    let kinds = [
        (Some(b"k".as_slice()), 0, false),
        (None, 0, false),
        (Some(b"k"), 0, false),
        (Some(b"k"), 0x30, false),
        (Some(b"k"), 4, true),
    ];
    for _ in 0..6 {
        for (key, attributes, garbage) in kinds {
            log.append(&mut single(key, attributes, garbage), 0).unwrap();
            log.sync().unwrap();
        }
    }
    let (log, cleaned) = clean_alone(log, LIMITS, 1_000);
    cleaned.unwrap().unwrap();
    let mut kept = [0; 5];
    let mut offset = 0;
    while offset < log.cleaned_to {
        let chunk = log.read(offset, 1, log.stable_end()).unwrap();
        let header = BatchHeader::parse(&chunk.bytes).unwrap();
        if header.record_count > 0 {
            kept[(header.base_offset % 5) as usize] += 1;
        }
        offset = chunk.next_offset;
    }
    let rounds = log.cleaned_to / 5;
    assert!(rounds >= 4);
    assert_eq!(kept[0] + kept[2], 1, "the last plain one makes older ones obsolete");
    assert!(kept[1] >= rounds && kept[3] >= rounds && kept[4] >= rounds, "{kept:?}");
    let whole = |finding: &crate::log::Finding| finding.what.starts_with("its records cannot be read: zstd");
    assert!(findings(&sim).iter().all(whole), "nothing is wrong but what was wrong before: {:?}", findings(&sim));
}

#[test]
fn a_producer_is_known_after_compaction_even_without_a_checkpoint() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    let from = |producer: i64, sequence: i32| {
        let options = BatchOptions {
            producer_id: producer,
            producer_epoch: 3,
            base_sequence: sequence,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        builder.push(5, Some(b"one key"), Some(&[b'x'; 200]), &[]);
        builder.push(5, Some(b"one key"), Some(&[b'y'; 200]), &[]);
        builder.build().to_vec()
    };
    for round in 0..10 {
        for producer in [1, 2] {
            log.append(&mut from(producer, round * 2), 0).unwrap();
        }
        log.sync().unwrap();
    }
    for round in 0..10 {
        log.append(&mut from(3, round * 2), 0).unwrap();
        log.sync().unwrap();
    }
    let (mut log, cleaned) = clean_alone(log, LIMITS, 1_000);
    assert!(cleaned.unwrap().unwrap().removed_records > 30);
    assert_eq!(log.append(&mut from(1, 18), 0).unwrap().base_offset, 36);
    drop(log);
    disk_of(&sim).remove_file(&Path::new(DIR).join("checkpoint")).unwrap();
    let (mut log, _) = open(&sim.restart()).unwrap();
    for producer in [1, 2] {
        for sequence in [18, 10] {
            let again = log.append(&mut from(producer, sequence), 0).unwrap();
            assert!(again.duplicate, "producer {producer} sequence {sequence}");
        }
        assert_eq!(log.append(&mut from(producer, 22), 0).unwrap_err().kind(), ErrorKind::OutOfOrderSequence);
        assert!(!log.append(&mut from(producer, 20), 0).unwrap().duplicate);
    }
}

#[test]
fn damage_in_a_compacted_segment_is_found_and_not_compacted_over() {
    let sim = SimDisk::new(SimOptions::default());
    let (log, model) = filled(&sim, 10, 12, 3, Compression::None);
    let (mut log, cleaned) = clean_alone(log, LIMITS, 1_000);
    cleaned.unwrap().unwrap();
    log.close(0).unwrap();
    let name = segment_names(&sim).into_iter().find(|name| name.generation > 0).unwrap();
    let path = Path::new(DIR).join(name.file("log"));
    let content = sim.content(&path).unwrap();
    let mut sim = sim.restart();
    let intact = read_all(&open(&sim).unwrap().0);
    for at in 0..content.len() {
        if (12..16).contains(&(at % 61)) && at % 7 > 0 {
            continue;
        }
        sim = sim.restart();
        sim.flip_bit(&path, at, 5);
        let found = findings(&sim);
        let epoch = found.is_empty();
        if epoch {
            // The leader epoch is not covered by a checksum, and nothing depends on it.
            let (log, _) = open(&sim).unwrap();
            assert_eq!(read_all(&log), intact, "byte {at}");
        } else {
            assert!(found.iter().any(|finding| finding.damage && finding.file == path), "byte {at}: {found:?}");
        }
        sim.flip_bit(&path, at, 5);
    }
    // A whole batch missing, as if cut out: its offsets are.
    let header = BatchHeader::parse(&content).unwrap();
    let sim = sim.restart();
    sim.plant(&path, &content[header.total_bytes()..]);
    assert!(findings(&sim).iter().any(|finding| finding.damage), "a missing batch is found");
    disk_of(&sim).remove_file(&path).unwrap();
    assert!(findings(&sim).iter().any(|finding| finding.damage), "a missing segment is found");
    let (log, recovery) = open(&sim).unwrap();
    assert!(recovery.damage.iter().any(|damage| damage.file == path), "{recovery}");
    assert_eq!(log.read(0, 10, 120).unwrap_err().kind(), ErrorKind::Damaged);
    // Once there is something new to compact, damage stops it: nothing is made of what cannot be read.
    sim.plant(&path, &content);
    let sim = sim.restart();
    let (mut log, _) = open(&sim).unwrap();
    let mut model = model;
    for key in 0..30 {
        model.append(&mut log, &[put(key % 12, "new", 200)], Compression::None);
        log.sync().unwrap();
    }
    sim.flip_bit(&path, 100, 1);
    let before = segment_names(&sim);
    let (log, result) = clean_alone(log, LIMITS, 1_000);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(segment_names(&sim), before, "nothing was replaced, nothing is left over");
    sim.flip_bit(&path, 100, 1);
    let (log, result) = clean_alone(log, LIMITS, 1_000);
    assert!(result.unwrap().is_some());
    assert_holds(&log, &model, 150, "");
}

#[test]
fn a_copy_with_an_older_checkpoint_is_read_as_it_is() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, model) = filled(&sim, 10, 12, 3, Compression::None);
    log.request_checkpoint();
    log.sync().unwrap();
    let old = sim.content(&Path::new(DIR).join("checkpoint")).unwrap();
    let (log, cleaned) = clean_alone(log, LIMITS, 1_000);
    cleaned.unwrap().unwrap();
    let expected = read_all(&log);
    drop(log);
    sim.plant(&Path::new(DIR).join("checkpoint"), &old);
    let notes = findings(&sim);
    assert!(notes.len() == 1 && !notes[0].damage && notes[0].what.contains("older"), "{notes:?}");
    let (log, recovery) = open(&sim.restart()).unwrap();
    assert_eq!((recovery.damage.len(), recovery.notes.len()), (0, 1), "{recovery}");
    assert_eq!(read_all(&log), expected);
    assert_holds(&log, &model, 120, "");
}

/// Appends, compacts, appends and compacts again, until the disk fails. What was acknowledged as durable, and all that was
/// handed to the log.
fn script(sim: &SimDisk) -> (Model, Offset) {
    let mut model = Model::default();
    let mut durable = 0;
    let Ok((mut log, _)) = open(sim) else { return (model, durable) };
    for round in 0..3u32 {
        for at in 0..8u32 {
            let key = (at * 5 + round) % 6;
            let mut puts = vec![put(key, &format!("{round}.{at} "), 250), put(10 + at % 2, "y", 50)];
            if at % 4 == 3 {
                puts.push(tombstone(5 - key));
            }
            if !model.append(&mut log, &puts, Compression::None) {
                // It may be there all the same, if the power went between the two.
                let base = log.written_end();
                puts.into_iter().enumerate().for_each(|(n, put)| drop(model.records.insert(base + n as u64, put)));
                return (model, durable);
            }
            if log.sync().is_err() {
                return (model, durable);
            }
            durable = log.synced_end();
        }
        let now = i64::from(round) * 2 * DAY as i64;
        let (after, result) = clean_alone(log, LIMITS, now);
        log = after;
        if result.is_err() {
            return (model, durable);
        }
    }
    (model, durable)
}

/// After a restart: everything holds, opening twice changes nothing, no files are left over, and it can be compacted.
fn assert_recovers(sim: &SimDisk, model: &Model, durable: Offset, context: &str) {
    let (log, recovery) = open(sim).unwrap_or_else(|error| panic!("{context}: {error}\n{}", sim.op_log()));
    assert_eq!(recovery.damage, [], "{context}\n{}", sim.op_log());
    assert_eq!(recovery.notes, [""; 0], "{context}");
    assert_holds(&log, model, durable, context);
    let found = read_all(&log);
    let files: Vec<_> = log.sealed.iter().map(|sealed| sealed.segment.name()).collect();
    drop(log);
    let sim = sim.restart();
    let (log, recovery) = open(&sim).unwrap();
    assert!(recovery.cut_bytes == 0 && recovery.damage.is_empty(), "{context}: {recovery}");
    assert_eq!(read_all(&log), found, "{context}: opening twice");
    let mut names = segment_names(&sim);
    names.pop();
    assert_eq!(names, files, "{context}: nothing is left over");
    assert!(findings(&sim).iter().all(|finding| !finding.damage), "{context}");
    drop(log);
    let (log, _) = open(&sim.restart()).unwrap();
    let (log, cleaned) = clean_alone(log, LIMITS, 1_000);
    cleaned.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_holds(&log, model, durable, context);
    assert_eq!(
        read_all(&log).range(..log.cleaned_to).filter(|(_, put)| put.value.is_some()).count(),
        {
            let newest = model.newest(log.cleaned_to);
            newest.iter().filter(|offset| model.records[*offset].value.is_some()).count()
        },
        "{context}"
    );
}

#[test]
fn a_power_cut_at_every_operation_leaves_the_old_log_or_the_new_one() {
    let total = {
        let sim = SimDisk::new(SimOptions::default());
        assert_eq!(script(&sim).1, 54);
        sim.operations()
    };
    for operation in 0..=total {
        for seed in seeds(2) {
            let seed = seed * 1_000 + operation;
            let sim = SimDisk::new(SimOptions { seed, capacity: None });
            sim.cut_power_at(operation);
            let (model, durable) = script(&sim);
            let context = format!("power cut at operation {operation} of {total}, seed {seed}");
            assert_recovers(&sim.reboot(), &model, durable, &context);
        }
    }
}

#[test]
fn a_kill_at_every_operation_leaves_the_old_log_or_the_new_one() {
    let total = {
        let sim = SimDisk::new(SimOptions::default());
        script(&sim);
        sim.operations()
    };
    for operation in (0..=total).step_by(2) {
        let sim = SimDisk::new(SimOptions { seed: 1, capacity: None });
        sim.kill_at(operation);
        let (model, durable) = script(&sim);
        assert_recovers(&sim.restart(), &model, durable, &format!("killed at operation {operation}"));
    }
}

#[test]
fn a_fault_in_the_middle_loses_nothing_and_the_log_goes_on() {
    let places = [
        (OpKind::Write, ".log.tmp", Fault::Full),
        (OpKind::Write, ".log.tmp", Fault::Error),
        (OpKind::Sync, ".log.tmp", Fault::Error),
        (OpKind::SetLen, ".log.tmp", Fault::Error),
        (OpKind::Entry, ".log.tmp", Fault::Error),
        (OpKind::Entry, "-1.log", Fault::Error),
        (OpKind::Entry, "checkpoint.tmp", Fault::Error),
        (OpKind::Write, "checkpoint.tmp", Fault::Full),
        (OpKind::Sync, "checkpoint.tmp", Fault::Error),
        (OpKind::SyncDir, "", Fault::Error),
        (OpKind::Read, ".log", Fault::Error),
        (OpKind::Write, ".index", Fault::Full),
    ];
    for (kind, path, fault) in places {
        for skip in 0..4 {
            for crash in [false, true] {
                let context = format!("{fault:?} of {kind:?} {path}, after {skip}, crash {crash}");
                let sim = SimDisk::new(SimOptions { seed: skip, capacity: None });
                let (log, mut model) = filled(&sim, 10, 12, 3, Compression::None);
                sim.inject_after(kind, path, fault, skip as u32, 1);
                let (mut log, result) = clean_alone(log, LIMITS, 1_000);
                sim.heal();
                assert_holds(&log, &model, 120, &context);
                if result.is_err() && !crash {
                    let left = segment_names(&sim).into_iter().filter(|name| name.generation > 0).count();
                    let used = log.sealed.iter().filter(|sealed| sealed.segment.generation > 0).count();
                    // Only a checkpoint of which nobody knows whether it is on the disk keeps a file.
                    assert!(left <= used + usize::from(kind == OpKind::SyncDir), "{context}");
                }
                assert!(model.append(&mut log, &[put(1, "after", 10)], Compression::None), "{context}");
                log.sync().unwrap();
                if crash {
                    drop(log);
                    assert_recovers(&sim.reboot(), &model, 121, &context);
                    continue;
                }
                let (log, result) = clean_alone(log, LIMITS, 1_000);
                result.unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_holds(&log, &model, 121, &context);
                assert_eq!(
                    read_all(&log).range(..log.cleaned_to).map(|(offset, _)| *offset).collect::<Vec<_>>(),
                    model.newest(log.cleaned_to),
                    "{context}"
                );
                drop(log);
                assert_recovers(&sim.restart(), &model, 121, &context);
            }
        }
    }
}

/// Random operations with compaction in between and during them, and faults, kills and power cuts.
#[test]
fn random_operations_during_compaction_agree_with_a_model() {
    for seed in seeds(25) {
        let context = format!("seed {seed}");
        println!("{context}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
        let mut log = open(&sim).unwrap().0;
        let model = RefCell::new(Model::default());
        let mut now = 1_000;
        let mut durable = 0;
        for _ in 0..40 {
            match rng.u32(..100) {
                0..55 => {
                    for _ in 0..rng.u32(1..6) {
                        append_some(&mut rng, &mut log, &model);
                    }
                    if rng.bool() && log.sync().is_ok() {
                        durable = log.synced_end();
                    }
                }
                55..80 => {
                    now += rng.i64(0..DAY as i64);
                    let limits = Limits { key_bytes: [0, 200, 1 << 20][rng.usize(..3)], secret: u128::from(seed) };
                    let fault = rng.u32(..6);
                    match fault {
                        0 => sim.inject(OpKind::Write, ".log.tmp", Fault::Full, 1),
                        1 => sim.inject(OpKind::Sync, "", Fault::Error, 1),
                        2 => sim.cut_power_at(rng.u64(..60)),
                        _ => {}
                    }
                    log = clean_among_others(&mut rng, log, &model, limits, now, &context);
                    sim.heal();
                    durable = durable.max(if log.poisoned().is_none() { log.synced_end() } else { 0 });
                    if fault == 2 || log.sync().is_err() && log.reopen(0).is_err() {
                        drop(log);
                        sim = sim.reboot();
                        log = reopened(&sim, &model, durable, &context);
                    }
                }
                80..84 => {
                    let mut config = config();
                    config.retention_bytes = Some(rng.u64(1..20_000));
                    log.set_config(config);
                    let _ = log.retain(None);
                    let start = log.start_offset();
                    let mut model = model.borrow_mut();
                    model.records = model.records.split_off(&start);
                }
                84..92 => {
                    drop(log);
                    sim = sim.restart();
                    log = reopened(&sim, &model, durable, &context);
                }
                92..97 => {
                    drop(log);
                    sim = sim.reboot();
                    log = reopened(&sim, &model, durable, &context);
                }
                _ => {
                    drop(log);
                    sim = sim.restart();
                    let _ = disk_of(&sim).remove_file(&Path::new(DIR).join("checkpoint"));
                    log = reopened(&sim, &model, durable, &context);
                }
            }
            assert_holds(&log, &model.borrow(), durable, &context);
        }
        drop(log);
        let found = findings(&sim.restart());
        assert!(found.iter().all(|finding| !finding.damage), "{context}: {found:?}");
    }
}

fn append_some(rng: &mut fastrand::Rng, log: &mut PartitionLog, model: &RefCell<Model>) {
    let puts: Vec<Put> = (0..rng.u32(1..5))
        .map(|_| match rng.u32(..12) {
            0 => tombstone(rng.u32(..10)),
            1 => Put { key: None, ..put(0, "no key", rng.usize(..20)) },
            _ => put(rng.u32(..10), &rng.u32(..).to_string(), rng.usize(..200)),
        })
        .collect();
    let codec = Compression::ALL[rng.usize(..5)];
    let _ = model.borrow_mut().append(log, &puts, codec);
}

/// Opens the log; what lies behind its end now was never acknowledged.
fn reopened(sim: &SimDisk, model: &RefCell<Model>, durable: Offset, context: &str) -> PartitionLog {
    let (log, recovery) = open(sim).unwrap_or_else(|error| panic!("{context}: {error}\n{}", sim.op_log()));
    assert_eq!(recovery.damage, [], "{context}\n{}", sim.op_log());
    assert!(log.written_end() >= durable, "{context}");
    let mut model = model.borrow_mut();
    let lost = model.records.split_off(&log.written_end());
    model.sequence -= lost.len() as i32;
    // Without a checkpoint the log begins where its first file does.
    log
}

/// Compacts while others append, sync, and hold and run plans to read.
fn clean_among_others(
    rng: &mut fastrand::Rng,
    log: PartitionLog,
    model: &RefCell<Model>,
    limits: Limits,
    now: i64,
    context: &str,
) -> PartitionLog {
    let plans: RefCell<Vec<(ReadPlan, Offset)>> = RefCell::default();
    let mut rng = rng.fork();
    let shared = Shared {
        log: RefCell::new(log),
        between: RefCell::new(Box::new(|log| {
            match rng.u32(..12) {
                0 => append_some(&mut rng, log, model),
                1 => drop(log.sync()),
                2..5 if log.stable_end() > log.start_offset() => {
                    let offset = rng.u64(log.start_offset()..log.stable_end());
                    if let Ok(Some(plan)) = log.plan_read(offset, 500, log.stable_end()) {
                        plans.borrow_mut().push((plan, offset));
                    }
                }
                5..9 if !plans.borrow().is_empty() => {
                    let at = rng.usize(..plans.borrow().len());
                    let (plan, offset) = plans.borrow_mut().swap_remove(at);
                    run_plan(&plan, offset, &model.borrow(), context);
                }
                _ => {}
            }
            rng.u32(..200) == 0
        })),
    };
    // Faults are part of the game.
    let _ = clean(&shared, limits, now);
    let Shared { log, between } = shared;
    drop(between);
    for (plan, offset) in plans.take() {
        run_plan(&plan, offset, &model.borrow(), context);
    }
    let mut log = log.into_inner();
    for segment in log.take_unused() {
        let _ = segment.remove(&log.files);
    }
    log
}

/// A plan made at any time reads what was appended, whatever happened to the files since.
fn run_plan(plan: &ReadPlan, offset: Offset, model: &Model, context: &str) {
    match plan.run() {
        Ok(chunk) => {
            assert!(chunk.next_offset > offset, "{context}");
            for record in records(&chunk.bytes) {
                let put = &model.records[&record.offset];
                assert_eq!(put.value.as_deref(), record.value.as_deref(), "{context}");
            }
        }
        Err(LogError::Io { .. }) => {}
        Err(error) => panic!("{context}: reading at {offset}: {error}"),
    }
}

#[test]
fn a_reader_that_holds_the_old_files_reads_on_and_they_go_when_it_lets_go() {
    let sim = SimDisk::new(SimOptions::default());
    let (log, model) = filled(&sim, 10, 12, 3, Compression::None);
    let plan = log.plan_read(3, 600, 120).unwrap().unwrap();
    let old = sim.content(&Path::new(DIR).join(SegmentName::written(0).file("log"))).unwrap();
    let (mut log, cleaned) = clean_alone(log, LIMITS, 1_000);
    cleaned.unwrap().unwrap();
    assert!(segment_names(&sim).contains(&SegmentName::written(0)), "somebody may read it");
    assert!(log.take_unused().is_empty());
    let chunk = plan.run().unwrap();
    assert!(old.windows(chunk.bytes.len()).any(|part| part == &chunk.bytes[..]), "as it was");
    drop(plan);
    let unused = log.take_unused();
    assert_eq!(unused.len(), 1);
    unused[0].remove(&log.files).unwrap();
    assert!(!segment_names(&sim).contains(&SegmentName::written(0)));
    assert_holds(&log, &model, 120, "");
    assert_eq!(log.config().stable, StableEnd::Synced);
    assert!(Checkpoint::read(&sim, Path::new(DIR)).unwrap().unwrap().cleaned_to > 0);
}

#[test]
fn what_is_held_is_neither_compacted_nor_deleted_until_it_is_let_go_of() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, model) = filled(&sim, 10, 12, 3, Compression::None);
    log.hold_from(50);
    log.hold_from(50);
    log.hold_from(90);
    assert_eq!(log.hold(), 120);
    let (mut log, cleaned) = clean_alone(log, LIMITS, 1_000);
    assert!(cleaned.unwrap().unwrap().removed_records > 0);
    assert!(log.cleaned_to > 20 && log.cleaned_to <= 50, "{}", log.cleaned_to);
    assert_holds(&log, &model, 120, "held");
    let everything = LogConfig { retention_bytes: Some(1), compaction: None, ..config() };
    log.set_config(everything.clone());
    log.let_go(50);
    log.retain(None).unwrap();
    assert!(log.start_offset() > 20 && log.start_offset() <= 50, "{}", log.start_offset());
    assert_eq!(log.begin_give_up(51).unwrap(), None);
    assert!(log.begin_give_up(50).unwrap().is_some());
    log.let_go(50);
    assert_eq!(log.begin_give_up(91).unwrap(), None);
    // It is held, too, when the log is opened anew after a failed sync.
    log.append(&mut Model::default().batch(&[put(1, "x", 1)], Compression::None), 0).unwrap_err();
    sim.inject(OpKind::Sync, ".log", Fault::Error, 1);
    log.append(&mut Model { sequence: 120, ..Model::default() }.batch(&[put(1, "x", 1)], Compression::None), 0)
        .unwrap();
    assert!(log.sync().is_err());
    log.reopen(0).unwrap();
    assert_eq!(log.begin_give_up(91).unwrap(), None);
    log.let_go(90);
    log.let_go(120);
    assert!(log.begin_give_up(120).unwrap().is_some());
    assert_eq!(log.start_offset(), 120);
}
