//! Compaction of what was written in transactions, against a model, with restarts, power cuts and lost checkpoints.

use std::collections::BTreeSet;

use super::*;
use crate::base::ProducerId;
use crate::log::Aborted;
use crate::record::{Marker, marker_batch, read_marker};

const KEYS: u32 = 8;

#[derive(Default)]
struct World {
    /// Every record of a transaction that was committed, and every plain one, by offset.
    committed: BTreeMap<Offset, Put>,
    /// What open transactions have written.
    open: BTreeMap<ProducerId, BTreeMap<Offset, Put>>,
    sequences: BTreeMap<ProducerId, i32>,
    values: u32,
}

fn write(producer: ProducerId, sequence: i32, puts: &[Put]) -> Vec<u8> {
    let options =
        BatchOptions { producer_id: producer, producer_epoch: 0, base_sequence: sequence, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for put in puts {
        builder.push(put.timestamp, put.key.as_deref(), put.value.as_deref(), &[]);
    }
    let mut batch = builder.build();
    batch[22] |= 0x10;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.to_vec()
}

impl World {
    fn write(&mut self, log: &mut PartitionLog, producer: ProducerId, keys: &[u32]) {
        let sequence = self.sequences.entry(producer).or_default();
        let puts: Vec<Put> = keys.iter().map(|key| put(*key, &format!("{} ", self.values + key), 40)).collect();
        self.values += 100;
        let appended = log.append(&mut write(producer, *sequence, &puts), 1_000).unwrap();
        *sequence += keys.len() as i32;
        let open = self.open.entry(producer).or_default();
        open.extend(puts.into_iter().enumerate().map(|(at, put)| (appended.base_offset + at as u64, put)));
    }

    fn end(&mut self, log: &mut PartitionLog, producer: ProducerId, how: Marker) {
        log.append(&mut marker_batch(producer, 0, how, 1_000), 1_000).unwrap();
        let written = self.open.remove(&producer).unwrap_or_default();
        if how == Marker::Commit {
            self.committed.extend(written);
        }
    }

    /// The offsets of the newest committed record of each key.
    fn newest(&self, end: Offset) -> BTreeSet<Offset> {
        let newest: BTreeMap<_, _> = self.committed.range(..end).map(|(offset, put)| (&put.key, *offset)).collect();
        newest.into_values().collect()
    }

    #[track_caller]
    fn assert_seen(&self, log: &PartitionLog, step: usize, context: &str) {
        log.assert_invariants();
        let end = log.committed_end();
        let first = self.open.values().filter_map(|written| written.keys().next()).min();
        assert_eq!(end, first.copied().unwrap_or(log.stable_end()), "{context}");
        let mut seen = [BTreeMap::new(), BTreeMap::new()];
        let mut offset = log.start_offset();
        while offset < end {
            let chunk = log.read(offset, step, end).unwrap();
            let aborted = log.aborted(offset, chunk.next_offset);
            for (seen, found) in
                seen.iter_mut().zip([as_told(&chunk.bytes, &aborted), as_kafka(&chunk.bytes, &aborted)])
            {
                seen.extend(found.into_iter().filter(|(at, _)| *at >= offset));
            }
            offset = chunk.next_offset;
        }
        let [told, kafka] = seen;
        assert_eq!(told, kafka, "{context}: readers disagree");
        for (offset, value) in &told {
            let was = self.committed.get(offset).unwrap_or_else(|| panic!("{context}: {offset} was never committed"));
            assert_eq!(was.value.as_ref(), Some(value), "{context}: at {offset}");
        }
        for offset in self.newest(end) {
            assert!(told.contains_key(&offset), "{context}: {offset} is missing");
        }
    }
}

/// Values by offset, as the broker hands them out.
fn as_told(bytes: &Bytes, aborted: &[Aborted]) -> BTreeMap<Offset, Vec<u8>> {
    values(bytes, |header, _| header.is_control() || aborted.iter().any(|aborted| aborted.holds(header)))
}

/// Values by offset, as Kafka's clients take them: a producer's records are left out from the begin of a transaction of
/// which they are told until they meet its marker.
fn as_kafka(bytes: &Bytes, aborted: &[Aborted]) -> BTreeMap<Offset, Vec<u8>> {
    let mut coming = aborted.iter().peekable();
    let mut leaving_out = BTreeSet::new();
    values(bytes, |header, batch| {
        while let Some(begun) = coming.next_if(|aborted| aborted.first < header.next_offset()) {
            leaving_out.insert(begun.producer);
        }
        match read_marker(batch) {
            Some(Marker::Abort) => drop(leaving_out.remove(&header.producer_id)),
            Some(Marker::Commit) => {}
            None => return header.is_transactional() && leaving_out.contains(&header.producer_id),
        }
        true
    })
}

fn values(bytes: &Bytes, mut hidden: impl FnMut(&BatchHeader, &[u8]) -> bool) -> BTreeMap<Offset, Vec<u8>> {
    let mut out = BTreeMap::new();
    for batch in Batches::new(bytes.clone()) {
        let (header, batch) = batch.unwrap();
        if !hidden(&header, &batch) {
            let records = read_records(&batch, 1 << 20).unwrap().map(Result::unwrap);
            out.extend(records.map(|record| (record.offset, record.value.unwrap_or_default().to_vec())));
        }
    }
    out
}

#[test]
fn readers_of_what_is_committed_see_the_newest_of_each_key_and_nothing_that_was_aborted() {
    for seed in seeds(60) {
        println!("TIDELOG_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = SimDisk::new(SimOptions { seed, ..SimOptions::default() });
        let (mut log, _) = open(&sim).unwrap();
        let mut world = World::default();
        for step in 0..120 {
            let producer = rng.i64(1..5);
            match rng.u32(0..20) {
                0..12 => {
                    let keys: Vec<u32> = (0..rng.usize(1..4)).map(|_| rng.u32(0..KEYS)).collect();
                    world.write(&mut log, producer, &keys);
                }
                12..17 => world.end(&mut log, producer, if rng.bool() { Marker::Commit } else { Marker::Abort }),
                17 => {
                    log.sync().unwrap();
                    let small = Limits { key_bytes: if rng.bool() { 1 << 20 } else { 0 }, ..LIMITS };
                    let cut = rng.bool();
                    if cut {
                        sim.cut_power_at(rng.u64(0..40));
                    }
                    let (cleaned, result) = clean_alone(log, small, 1_000);
                    log = cleaned;
                    if cut {
                        drop(log);
                        sim = sim.reboot();
                        log = open(&sim).unwrap().0;
                    } else {
                        result.unwrap();
                    }
                }
                18 => {
                    log.sync().unwrap();
                    drop(log);
                    sim = if rng.bool() { sim.restart() } else { sim.reboot() };
                    if rng.bool() {
                        let _ = disk_of(&sim).remove_file(&Path::new(DIR).join("checkpoint"));
                    }
                    let (opened, recovery) = open(&sim).unwrap();
                    assert_eq!(recovery.damage, [], "step {step}");
                    log = opened;
                }
                _ => log.sync().unwrap(),
            }
            log.sync().unwrap();
            world.assert_seen(&log, rng.usize(1..3_000), &format!("step {step}"));
        }
    }
}

#[test]
fn a_topic_that_is_written_in_transactions_alone_shrinks() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    let mut world = World::default();
    let mut largest = 0;
    for round in 0..400u32 {
        let producer = i64::from(round % 2) + 1;
        world.write(&mut log, producer, &[round % KEYS]);
        world.end(&mut log, producer, if round % 3 == 0 { Marker::Abort } else { Marker::Commit });
        log.sync().unwrap();
        if round % 40 == 39 {
            let (cleaned, result) = clean_alone(log, LIMITS, 1_000);
            result.unwrap().unwrap();
            log = cleaned;
            world.assert_seen(&log, 1_000, &format!("round {round}"));
            largest = largest.max(log.stats().bytes);
        }
    }
    assert!(largest < 10_000, "{largest} bytes for {KEYS} keys");
    assert!(log.aborted(0, log.committed_end()).len() < 20, "what is known of aborted ones goes with them");
    drop(log);
    disk_of(&sim).remove_file(&Path::new(DIR).join("checkpoint")).unwrap();
    let sim = sim.restart();
    let (log, _) = open(&sim).unwrap();
    world.assert_seen(&log, 1_000, "without a checkpoint");
    assert_eq!(findings(&sim), []);
}

#[test]
fn what_was_aborted_goes_also_where_nothing_else_is() {
    let sim = SimDisk::new(SimOptions::default());
    let (mut log, _) = open(&sim).unwrap();
    let mut world = World::default();
    for _ in 0..40 {
        world.write(&mut log, 1, &[1, 2, 3]);
        world.end(&mut log, 1, Marker::Abort);
        log.sync().unwrap();
    }
    let before = log.stats().bytes;
    let (log, cleaned) = clean_alone(log, LIMITS, 1_000);
    assert!(cleaned.unwrap().unwrap().removed_records > 60);
    assert!(log.stats().bytes < before / 3, "{} of {before}", log.stats().bytes);
    world.assert_seen(&log, 1_000, "");
}
