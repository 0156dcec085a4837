use super::*;
use crate::disk::{Disk, SimDisk, SimOptions};
use crate::log::checkpoint::Checkpoint;
use crate::log::producers::ProducerState;
use crate::log::{LogConfig, PartitionLog};
use crate::record::{BatchBuilder, BatchOptions};

const MINUTE: i64 = 60_000;

fn batch(producer_id: i64, base_sequence: i32, records: u32) -> Vec<u8> {
    let options = BatchOptions { producer_id, producer_epoch: 0, base_sequence, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for _ in 0..records {
        builder.push(0, None, Some(b"x"), &[]);
    }
    builder.build().to_vec()
}

fn header(id: ProducerId, offset: Offset) -> BatchHeader {
    let mut header = BatchHeader::parse(&batch(id, 7, 1)).unwrap();
    header.base_offset = offset;
    header
}

fn places(kept: usize, per_partition: usize, per_server: usize) -> Arc<KeyPlaces> {
    Arc::new(KeyPlaces { kept, per_partition, per_server, ..KeyPlaces::default() })
}

fn key(number: i64) -> ProducerId {
    limits::KEY_PRODUCER_IDS + number
}

fn open(disk: &SimDisk) -> PartitionLog {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = std::path::PathBuf::from("/p");
    PartitionLog::create(&disk, &dir).unwrap();
    PartitionLog::open(disk, dir, LogConfig::default(), 0).unwrap().0
}

/// Adds a key as a log does, at a time.
fn add(keys: &mut Keys, taken: &mut TakenPlaces, number: i64, now: i64) -> Result<(), LogError> {
    keys.make_place(now, taken.places())?;
    keys.remember(&header(key(number), number as u64), now);
    taken.count(keys);
    Ok(())
}

#[test]
fn any_number_of_keys_leaves_producers_known() {
    let sim = SimDisk::new(SimOptions::default());
    let mut log = open(&sim);
    log.append(&mut batch(9, 0, 2), 0).unwrap();
    for number in 0..=limits::PRODUCERS_PER_PARTITION as i64 {
        log.append(&mut batch(key(number), 5, 1), 1).unwrap();
    }
    let again = log.append(&mut batch(9, 0, 2), 2).unwrap();
    assert_eq!((again.duplicate, again.base_offset), (true, 0));
    let first = log.append(&mut batch(key(0), 5, 1), 2).unwrap();
    assert_eq!(
        (first.duplicate, first.base_offset),
        (true, 2),
        "a key of seconds ago is known, however many came since"
    );
}

#[test]
fn a_key_is_known_after_a_restart_from_the_log_and_from_the_checkpoint() {
    for closed in [false, true] {
        let sim = SimDisk::new(SimOptions::default());
        let mut log = open(&sim);
        log.append(&mut batch(key(1), i32::MAX, 3), 0).unwrap();
        log.sync().unwrap();
        if closed {
            log.close(0).unwrap();
        }
        let mut log = open(&sim.restart());
        let again = log.append(&mut batch(key(1), i32::MAX, 3), 0).unwrap();
        assert_eq!((again.duplicate, again.base_offset, again.last_offset), (true, 0, 2));
        let other = log.append(&mut batch(key(1), 4, 3), 0).unwrap_err();
        assert!(matches!(other, LogError::OutOfOrderSequence { .. }), "{other}");
        assert_eq!((log.stats().keys, log.stats().producers), (1, 0));
    }
}

#[test]
fn a_new_key_is_refused_rather_than_a_young_one_forgotten() {
    for (per_partition, per_server, whose) in [(4, 100, "the partition"), (100, 2, "all partitions together")] {
        let (mut keys, places) = (Keys::default(), places(2, per_partition, per_server));
        let mut taken = TakenPlaces::new(Arc::clone(&places), &keys);
        for number in 0..4 {
            add(&mut keys, &mut taken, number, number * MINUTE).unwrap();
        }
        let error = add(&mut keys, &mut taken, 9, 14 * MINUTE).unwrap_err();
        assert!(matches!(error, LogError::TooManyKeys { wait_ms: 60_000, .. }), "{error}");
        assert!(error.to_string().contains(whose), "{error}");
        assert_eq!((keys.len(), places.youngest_forgotten()), (4, None));
        add(&mut keys, &mut taken, 9, 15 * MINUTE).unwrap();
        assert!(
            !keys.known.contains_key(&key(0)) && keys.known.contains_key(&key(1)) && keys.known.contains_key(&key(9))
        );
        assert_eq!(places.youngest_forgotten(), Some(limits::KEY_PROMISE_MS));
    }
}

#[test]
fn what_one_partition_takes_leaves_the_others_their_own_places() {
    let places = places(2, 100, 3);
    let (mut greedy, mut modest) = (Keys::default(), Keys::default());
    let mut of_greedy = TakenPlaces::new(Arc::clone(&places), &greedy);
    let mut of_modest = TakenPlaces::new(Arc::clone(&places), &modest);
    let added = (0..50).filter(|number| add(&mut greedy, &mut of_greedy, *number, 0).is_ok()).count();
    assert_eq!(added, 5, "two of its own, and all three that are shared");
    for number in 0..2 {
        add(&mut modest, &mut of_modest, number, 0).unwrap();
    }
    add(&mut modest, &mut of_modest, 2, 0).unwrap_err();
    drop(of_greedy);
    add(&mut modest, &mut of_modest, 2, 0).unwrap();
}

#[test]
fn shared_places_are_given_back_when_the_promised_time_is_over_and_few_keys_stay_for_ever() {
    let (mut keys, places) = (Keys::default(), places(2, 100, 100));
    let mut taken = TakenPlaces::new(Arc::clone(&places), &keys);
    for number in 0..20 {
        add(&mut keys, &mut taken, number, number * MINUTE).unwrap();
    }
    keys.forget_old(20 * MINUTE, &places);
    taken.count(&keys);
    assert_eq!((keys.len(), places.taken.load(Ordering::Relaxed)), (14, 12));
    keys.forget_old(1_000 * MINUTE, &places);
    taken.count(&keys);
    assert_eq!((keys.len(), places.taken.load(Ordering::Relaxed)), (2, 0));
    assert!(keys.known.contains_key(&key(18)) && keys.known.contains_key(&key(19)));
}

#[test]
fn a_checkpoint_in_which_keys_were_producers_among_others_is_read() {
    let mut checkpoint = Checkpoint::default();
    // By offset, the order is not that of the ids.
    for (number, offset) in [(1, 30), (2, 10), (3, 20)] {
        let batch = ProducerBatch { first_sequence: 7, last_sequence: 8, base_offset: offset, last_offset: offset + 1 };
        let state = ProducerState { last_ms: 5, batches: [batch].into(), ..ProducerState::default() };
        checkpoint.producers.states.insert(key(number), state.clone());
        checkpoint.producers.states.insert(number, state);
    }
    let read = Checkpoint::decode(&checkpoint.encode()).unwrap();
    assert_eq!((read.producers(), read.keys()), (3, 3));
    let offsets: Vec<_> = read.producers.keys.iter().map(|(_, _, batch)| batch.base_offset).collect();
    assert_eq!(offsets, [10, 20, 30]);
    assert_eq!(Checkpoint::decode(&read.encode()).unwrap(), read);
}

#[test]
fn a_write_that_fails_leaves_no_key_behind() {
    let mut keys = Keys::default();
    keys.remember(&header(key(1), 0), 0);
    let before = keys.clone();
    keys.remember(&header(key(2), 1), 0);
    keys.undo(key(2));
    assert_eq!(keys, before);
}
