use std::collections::{BTreeMap, HashMap};

use super::super::machine::{BURIAL, Keep, ListedState, MAX_SPANS, Machine, NotSkipped, Seen};
use crate::base::Offset;
use crate::catalog::{Position, Processed, Progress, QueueSettings};

const A: u64 = 1;
const B: u64 = 2;

fn rules() -> QueueSettings {
    QueueSettings { lease_ms: 100, max_deliveries: 3, backoff_ms: 10, backoff_max_ms: 25, ..QueueSettings::default() }
}

fn seen(offset: Offset) -> Seen {
    Seen { offset, key: None, deliver_at: None, skip: None, condemned: false }
}

fn keep(progress: &mut Progress, kept: Vec<Keep>) {
    for one in kept {
        match one {
            Keep::Floor(offset) => {
                progress.position = Some(Position { offset, metadata: String::new(), time_ms: 0, leader_epoch: None });
            }
            Keep::Chunk(number, Some(chunk)) => drop(progress.chunks.insert(number, chunk)),
            Keep::Chunk(number, None) => drop(progress.chunks.remove(&number)),
        }
    }
}

fn redeliver(machine: &mut Machine, member: u64, now: i64) -> Option<(Offset, Offset, u32)> {
    let due = machine.due(now)?;
    let there: Vec<Offset> = (due.from..due.to).collect();
    machine.lease_due(due, (&there, &[]), member, now);
    Some((due.from, due.to, due.failed))
}

#[test]
fn a_record_is_one_members_until_it_is_acked_nacked_or_its_time_is_over() {
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..10 {
        assert!(machine.admit(seen(offset), A, 0));
    }
    assert_eq!(machine.ack(A, 0, 5, 1).settled, 5);
    assert_eq!(machine.floor(), 5);
    // Another's, one that was never delivered, one that is done already.
    assert_eq!(machine.ack(B, 5, 7, 1).lost, 2);
    assert_eq!(machine.ack(A, 10, 12, 1).lost, 2);
    assert_eq!(machine.ack(A, 0, 5, 1).lost, 0);
    assert_eq!(machine.nack(A, (5, 6), None, 1).settled, 1);
    assert_eq!(machine.due(10), None);
    assert_eq!(machine.next_timer(10), Some(11));
    assert_eq!(redeliver(&mut machine, B, 11), Some((5, 6, 1)));
    // Extended, the lease of 6 outlives that of 7 to 9.
    machine.extend(A, 6, 7, 50);
    assert_eq!(machine.expire(100), 3);
    // A late ack is good as long as nobody else has the record.
    assert_eq!(machine.ack(A, 7, 8, 101).settled, 1);
    assert_eq!(redeliver(&mut machine, B, 110), Some((8, 10, 1)));
    let late = machine.ack(A, 8, 9, 111);
    assert_eq!((late.settled, late.lost), (0, 1));
    assert_eq!(machine.ack(B, 5, 10, 111).lost, 1);
    assert_eq!((machine.floor(), machine.is_done(7), machine.is_done(6)), (6, true, false));
    assert_eq!(machine.ack(A, 6, 7, 112).settled, 1);
    assert_eq!(machine.floor(), 10);
}

#[test]
fn what_is_acked_while_it_is_being_handed_out_again_is_not_handed_out() {
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..3 {
        machine.admit(seen(offset), A, 0);
    }
    machine.nack(A, (0, 3), Some(0), 1);
    let due = machine.due(1).unwrap();
    // Between the look at what is due and the lease.
    assert_eq!(machine.ack(A, 1, 2, 1).settled, 1);
    assert_eq!(machine.lease_due(due, (&[0, 1, 2], &[]), B, 1), [0, 2]);
}

#[test]
fn what_is_known_to_be_done_stays_so_when_the_cursor_jumps_into_it_over_a_gap() {
    let mut before = Machine::new(rules(), None, 0);
    for offset in 0..10 {
        before.admit(seen(offset), A, 0);
    }
    before.ack(A, 2, 10, 0);
    let mut progress = Progress::default();
    keep(&mut progress, before.take_changes(0));
    let mut machine = Machine::new(rules(), Some(&progress), 0);
    // Records 1 to 4 are gone from the log.
    assert!(machine.admit(seen(0), B, 0));
    for offset in 5..10 {
        assert!(!machine.admit(seen(offset), B, 0), "{offset}");
    }
    assert_eq!(machine.cursor(), 10);
}

#[test]
fn the_wait_doubles_up_to_its_bound_and_the_last_failure_makes_a_dead_letter() {
    let mut machine = Machine::new(QueueSettings { max_deliveries: 5, ..rules() }, None, 0);
    assert!(machine.admit(seen(0), A, 0));
    let mut now = 0;
    for wait in [10, 20, 25, 25] {
        machine.nack(A, (0, 1), None, now);
        assert_eq!(machine.next_timer(now), Some(now + wait));
        now += wait;
        assert!(!machine.due(now).unwrap().dead);
        redeliver(&mut machine, A, now).unwrap();
    }
    machine.nack(A, (0, 1), Some(1_000_000), now);
    let due = machine.due(now).unwrap();
    assert_eq!((due.dead, due.failed), (true, 5));
}

#[test]
fn of_what_a_lost_member_had_only_the_first_counts_as_delivered() {
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..6 {
        machine.admit(seen(offset), if offset < 3 { A } else { B }, 0);
    }
    machine.leave(B, 5);
    assert_eq!(redeliver(&mut machine, A, 5), Some((4, 6, 0)));
    assert_eq!(redeliver(&mut machine, A, 15), Some((3, 4, 1)));
    // Given back by hand, none counts.
    machine.release(A, 0, 6);
    assert_eq!(redeliver(&mut machine, B, 20), Some((0, 3, 0)));
}

/// Whatever the order in which they are given back, and whatever else has become due meanwhile.
#[test]
fn records_that_are_given_back_come_again_first_in_the_order_of_the_log_and_were_not_delivered() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let ordered_by_key = seed % 2 == 0;
        let rules = QueueSettings { ordered_by_key, max_deliveries: 1, ..rules() };
        let mut machine = Machine::new(rules, None, 0);
        let (mut now, mut leased) = (1_000, Vec::new());
        // One that was delayed is due in between, and is no reason to overtake.
        machine.admit(Seen { deliver_at: Some(now + 5), ..seen(0) }, A, now);
        for offset in 1..20 {
            let key = ordered_by_key.then_some(offset);
            if machine.admit(Seen { key, ..seen(offset) }, if random.bool() { A } else { B }, now) {
                leased.push(offset);
            }
        }
        let mut given_back: Vec<u64> = leased.clone();
        random.shuffle(&mut given_back);
        given_back.truncate(random.usize(1..=leased.len()));
        for &offset in &given_back {
            now += random.i64(0..10);
            for member in [A, B] {
                machine.release(member, offset, offset + 1);
            }
        }
        now += 100;
        let left = leased.len() - given_back.len();
        assert_eq!(machine.next_timer(now), (left > 0).then_some(1_100), "what is due waits for no time");
        given_back.sort_unstable();
        let mut again = Vec::new();
        while let Some((from, to, failed)) = redeliver(&mut machine, A, now) {
            assert_eq!(failed, 0, "seed {seed}");
            again.extend(from..to);
        }
        assert_eq!(again.pop(), Some(0), "seed {seed}: the delayed one comes behind them");
        assert_eq!(again, given_back, "seed {seed}");
    }
}

#[test]
fn records_of_a_key_wait_for_the_one_before_while_others_go_on() {
    let mut machine = Machine::new(QueueSettings { ordered_by_key: true, ..rules() }, None, 0);
    let keyed = |offset, key| Seen { key: Some(key), ..seen(offset) };
    assert!(machine.admit(keyed(0, 7), A, 0));
    assert!(!machine.admit(keyed(1, 7), B, 0));
    assert!(machine.admit(keyed(2, 8), B, 0));
    assert!(!machine.admit(keyed(3, 7), B, 0));
    machine.nack(A, (0, 1), Some(50), 0);
    assert_eq!(machine.due(49), None);
    assert_eq!(redeliver(&mut machine, B, 50), Some((0, 1, 1)));
    machine.ack(B, 0, 1, 51);
    assert_eq!(redeliver(&mut machine, A, 51), Some((1, 2, 0)));
    assert_eq!(machine.due(51), None);
    machine.ack(A, 1, 2, 52);
    assert_eq!(redeliver(&mut machine, A, 52), Some((3, 4, 0)));
    machine.ack(A, 3, 4, 53);
    assert!(machine.admit(keyed(4, 7), A, 54));
}

#[test]
fn delayed_skipped_and_vanished_records() {
    let mut machine = Machine::new(rules(), None, 3);
    assert!(!machine.admit(Seen { deliver_at: Some(500), ..seen(3) }, A, 0));
    assert!(!machine.admit(Seen { skip: Some(Processed::NotWanted), ..seen(4) }, A, 0));
    // 5 to 8 are not in the log.
    assert!(machine.admit(Seen { deliver_at: Some(-5), ..seen(9) }, A, 0));
    assert_eq!((machine.floor(), machine.cursor()), (3, 10));
    assert!(machine.is_done(4) && machine.is_done(7) && !machine.is_done(9));
    assert_eq!(machine.next_timer(0), Some(100));
    assert_eq!(redeliver(&mut machine, A, 500), Some((3, 4, 0)));
    machine.forget_below(9, 500);
    assert_eq!(machine.floor(), 9);
    let endings = |machine: &Machine| (0..11).map(|offset| machine.ending(offset)).collect::<Vec<_>>();
    let (skipped, gone) = (Some(Processed::Skipped), Some(Processed::Deleted));
    let begin = [skipped, skipped, skipped, gone, Some(Processed::NotWanted), gone, gone, gone, gone];
    assert_eq!(endings(&machine), [&begin[..], &[None, None]].concat());
    // What is gone from the log when it is due again is done.
    machine.release(A, 9, 10);
    let due = machine.due(600).unwrap();
    machine.lease_due(due, (&[], &[9]), A, 600);
    assert_eq!(machine.floor(), 10);
    assert_eq!(endings(&machine), [&begin[..], &[Some(Processed::Expired), None]].concat());
}

#[test]
fn what_is_deleted_before_it_is_done_is_told_from_what_is_done() {
    let mut before = Machine::new(rules(), None, 0);
    for offset in 0..20 {
        before.admit(seen(offset), A, 0);
    }
    before.ack(A, 0, 5, 0);
    before.ack(A, 8, 10, 0);
    before.ack(A, 15, 20, 0);
    let mut progress = Progress::default();
    keep(&mut progress, before.take_changes(0));
    // One goes on, the other is after a restart.
    let after = Machine::new(rules(), Some(&progress), 0);
    for mut machine in [before, after] {
        machine.forget_below(12, 0);
        let gone: Vec<_> = (0..30).filter(|offset| machine.ending(*offset) == Some(Processed::Deleted)).collect();
        assert_eq!(gone, [5, 6, 7, 10, 11]);
        machine.forget_below(25, 0);
        let gone: Vec<_> = (0..30).filter(|offset| machine.ending(*offset) == Some(Processed::Deleted)).collect();
        assert_eq!(gone, [5, 6, 7, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24]);
    }
}

/// A million records done above a floor are a few spans; kept, they are small too.
#[test]
fn what_is_done_costs_nothing_and_what_waits_is_bounded() {
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..1_000_001 {
        machine.admit(seen(offset), A, 0);
    }
    machine.ack(A, 1, 1_000_001, 0);
    assert_eq!((machine.floor(), machine.counts().leased), (0, 1));
    let mut progress = Progress::default();
    keep(&mut progress, machine.take_changes(0));
    assert!(progress.chunks.values().all(|chunk| chunk.done.len() == 1 && chunk.failed.is_empty()));
    let again = Machine::new(rules(), Some(&progress), 0);
    assert_eq!((again.floor(), again.known_done_below(u64::MAX)), (0, 1_000_000));
    assert!(machine.has_room());
    const { assert!(MAX_SPANS <= 1_000_000) };
}

/// Random events against a table of every record, with restarts from what was kept: nothing that was kept as done comes
/// again, nothing is ever lost, nobody has what another has.
#[test]
fn random_events_agree_with_a_table_of_every_record() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Record {
        Out(u64, u32),
        Back(u32),
        Done,
    }
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ordered = rng.bool();
        let rules = QueueSettings { ordered_by_key: ordered, max_deliveries: 1000, lease_ms: 50, ..rules() };
        let key = |offset: Offset| ordered.then_some(offset * 7 % 5);
        let mut machine = Machine::new(rules.clone(), None, 0);
        let mut table: BTreeMap<Offset, Record> = BTreeMap::new();
        let (mut progress, mut kept) = (Progress::default(), table.clone());
        let mut now = 0;
        for _ in 0..300 {
            now += rng.i64(0..8);
            // Far from one another, so that they fall into several chunks.
            let any = rng.u64(0..machine.cursor().max(1));
            let to = any + rng.u64(1..600);
            let member = rng.u64(1..4);
            let held = |record: &Record| matches!(record, Record::Out(with, _) if *with == member);
            match rng.u32(0..20) {
                0..6 => {
                    for offset in machine.cursor()..machine.cursor() + rng.u64(1..300) {
                        let out = machine.admit(Seen { key: key(offset), ..seen(offset) }, member, now);
                        let record = if out { Record::Out(member, 1) } else { Record::Back(0) };
                        match table.get(&offset) {
                            Some(Record::Done) => assert!(!out, "{offset} again"),
                            Some(_) => {}
                            None => drop(table.insert(offset, record)),
                        }
                        if out {
                            table.insert(offset, record);
                        }
                    }
                }
                6..9 => {
                    while let Some(due) = machine.due(now) {
                        let there: Vec<Offset> = (due.from..due.to).collect();
                        machine.lease_due(due, (&there, &[]), member, now);
                        for offset in there {
                            assert!(!matches!(table[&offset], Record::Out(..) | Record::Done), "{offset} is out");
                            table.insert(offset, Record::Out(member, due.failed + 1));
                        }
                    }
                }
                9..13 => {
                    machine.ack(member, any, to, now);
                    for (at, record) in table.range_mut(any..to) {
                        // A late ack is good for what failed, unless it is behind another of its key.
                        let late = matches!(record, Record::Back(1..)) && machine.is_done(*at);
                        if held(record) || late {
                            *record = Record::Done;
                        }
                    }
                }
                13..15 => {
                    machine.nack(member, (any, to), None, now);
                    for (_, record) in table.range_mut(any..to).filter(|(_, record)| held(record)) {
                        if let Record::Out(_, attempt) = *record {
                            *record = Record::Back(attempt);
                        }
                    }
                }
                15 => {
                    machine.extend(member, any, to, now);
                }
                16 => {
                    let first = table.iter().find(|(_, record)| held(record)).map(|(at, _)| *at);
                    machine.leave(member, now);
                    for (at, record) in table.iter_mut().filter(|(_, record)| held(record)) {
                        if let Record::Out(_, attempt) = *record {
                            *record = Record::Back(if Some(*at) == first { attempt } else { attempt - 1 });
                        }
                    }
                }
                17 | 18 => {
                    let failing = rng.bool();
                    let changes = machine.take_changes(now);
                    if failing {
                        machine.not_kept(&changes);
                    } else {
                        keep(&mut progress, changes);
                        kept = table.clone();
                    }
                }
                _ => {
                    machine = Machine::new(rules.clone(), Some(&progress), 0);
                    table = kept.clone();
                    for record in table.values_mut() {
                        if let Record::Out(_, attempt) = *record {
                            *record = Record::Back(attempt - 1);
                        }
                    }
                    table.retain(|_, record| *record == Record::Done || matches!(record, Record::Back(1..)));
                }
            }
            // Time ends leases whenever it likes: the table follows.
            machine.expire(now);
            let mut out_by_key: HashMap<u64, u32> = HashMap::new();
            let mut leased = 0;
            for (&offset, record) in &mut table {
                if offset >= machine.cursor() {
                    continue;
                }
                assert_eq!(machine.is_done(offset), *record == Record::Done, "seed {seed}, {offset} {record:?}");
                if let Record::Out(with, attempt) = *record {
                    let still = machine.has(with, offset);
                    if still {
                        leased += 1;
                        if let Some(key) = key(offset) {
                            *out_by_key.entry(key).or_default() += 1;
                        }
                    } else {
                        *record = Record::Back(attempt);
                    }
                }
            }
            assert_eq!(machine.counts().leased, leased, "seed {seed}");
            assert!(out_by_key.values().all(|out| *out <= 1), "seed {seed}: two of a key are out");
            let first = table.range(..machine.cursor()).find(|(_, record)| **record != Record::Done);
            assert_eq!(machine.floor(), first.map_or(machine.cursor(), |(at, _)| *at), "seed {seed}");
        }
    }
}

#[test]
fn what_is_condemned_while_it_is_due_again_becomes_a_dead_letter() {
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..3 {
        machine.admit(seen(offset), A, 0);
    }
    machine.nack(A, (0, 3), Some(10), 0);
    let due = machine.due(10).unwrap();
    // The second one has expired, which is a reason for a dead letter here.
    machine.condemn(1, 10);
    assert_eq!(machine.lease_due(due, (&[0, 2], &[]), A, 10), [0, 2]);
    let due = machine.due(10).unwrap();
    assert_eq!((due.from, due.to, due.dead), (1, 2, true));
    assert_eq!(machine.lease_due(due, (&[1], &[]), BURIAL, 10), [1]);
    machine.ack(BURIAL, 1, 2, 10);
    assert_eq!((machine.ending(0), machine.ending(1)), (None, Some(Processed::DeadLettered)));
}

#[test]
fn leases_and_back_offs_move_along_with_steps_of_the_clock_and_delays_do_not() {
    for step in [1_000_000, -1_000_000] {
        let at = 5_000_000;
        let mut machine = Machine::new(rules(), None, 0);
        machine.follow(at, 77);
        for offset in 0..3 {
            assert!(machine.admit(seen(offset), A, at));
        }
        assert!(!machine.admit(Seen { deliver_at: Some(at + 500), ..seen(3) }, A, at));
        machine.nack(A, (0, 1), None, at);
        machine.release(A, 1, 2);
        let now = at + 5 + step;
        machine.follow(now, 77 + step);
        assert_eq!(machine.expire(now), 0);
        assert_eq!(machine.due(now).map(|due| due.from), Some(1), "what was given back still is due first");
        let mut due = Vec::new();
        while let Some((from, to, _)) = redeliver(&mut machine, B, now) {
            due.extend(from..to);
        }
        due.sort_unstable();
        assert_eq!(due, if step > 0 { vec![1, 3] } else { vec![1] });
        assert_eq!(machine.due(now + 4), None);
        assert_eq!(redeliver(&mut machine, B, now + 5), Some((0, 1, 1)), "the back-off is as long as it was");
        assert_eq!(machine.expire(now + 94), 0);
        assert_eq!(machine.expire(now + 95), 1, "and so is the lease");
        let mut later = |now| std::iter::from_fn(|| redeliver(&mut machine, B, now)).any(|(from, ..)| from == 3);
        assert_eq!((later(at + 499), later(at + 500)), (false, step < 0), "the delay ends at its time");
    }
}

#[test]
fn a_delay_holds_behind_another_record_of_the_key() {
    let mut machine = Machine::new(QueueSettings { ordered_by_key: true, ..rules() }, None, 0);
    let keyed = |offset, deliver_at| Seen { key: Some(7), deliver_at, ..seen(offset) };
    assert!(machine.admit(keyed(0, None), A, 0));
    assert!(!machine.admit(keyed(1, Some(8_000)), A, 0));
    assert!(!machine.admit(keyed(2, Some(50)), A, 0));
    machine.ack(A, 0, 1, 99);
    assert_eq!(machine.due(7_999), None, "its delay is not over");
    assert_eq!(redeliver(&mut machine, A, 8_000), Some((1, 2, 0)));
    // One whose delay is over when its turn comes is due at once.
    machine.ack(A, 1, 2, 8_001);
    assert_eq!(redeliver(&mut machine, A, 8_001), Some((2, 3, 0)));
}

#[test]
fn what_is_not_done_is_listed_in_parts_and_what_is_done_is_not() {
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..6 {
        machine.admit(seen(offset), A, 0);
    }
    machine.admit(Seen { deliver_at: Some(500), ..seen(6) }, A, 0);
    machine.ack(A, 1, 2, 1);
    machine.nack(A, (2, 3), None, 1);
    machine.release(A, 3, 4);
    let listed = machine.listed(0, 100, 5);
    let states: Vec<_> = listed.iter().map(|one| (one.offset, one.attempt, one.state)).collect();
    let held = ListedState::InHand { member: A, deadline: 100 };
    assert_eq!(
        states,
        [
            (0, 1, held),
            (2, 1, ListedState::BackingOff { due: 11 }),
            (3, 0, ListedState::Due),
            (4, 1, held),
            (5, 1, held),
            (6, 0, ListedState::Delayed { due: 500 }),
        ]
    );
    // From the middle of a span on, and no more than asked for.
    let part = machine.listed(5, 1, 5);
    assert_eq!((part.len(), part[0].offset), (1, 5));
    assert_eq!(machine.listed(3, 2, 5).iter().map(|one| one.offset).collect::<Vec<_>>(), [3, 4]);
    // After a restart only what failed is known: the cursor has not come to the others.
    let mut progress = Progress::default();
    keep(&mut progress, machine.take_changes(5));
    let machine = Machine::new(rules(), Some(&progress), 0);
    let listed = machine.listed(0, 100, 5);
    assert_eq!((listed.len(), listed[0].offset, listed[0].attempt), (1, 2, 1));
}

#[test]
fn a_record_that_is_skipped_is_done_whoever_has_it_and_its_key_goes_on() {
    let keyed = |offset| Seen { key: Some(7), ..seen(offset) };
    let mut machine = Machine::new(rules(), None, 0);
    for offset in 0..4 {
        machine.admit(keyed(offset), A, 0);
    }
    // Not its turn: the record before it still is the one that is worked on.
    assert_eq!(machine.skip(1, 1), Ok(()));
    assert_eq!(machine.due(1), None);
    // In hand: the next but one has its turn, and the ack that comes later is neither good nor lost.
    assert_eq!(machine.skip(0, 2), Ok(()));
    assert_eq!(machine.ack(A, 0, 1, 3), Default::default());
    assert_eq!(redeliver(&mut machine, B, 3), Some((2, 3, 0)));
    assert_eq!(machine.skip(0, 3), Err(NotSkipped::Done));
    assert_eq!(machine.take_out(), HashMap::from([(A, 0), (B, 1)]));
    // Ahead of the cursor.
    assert_eq!(machine.skip(9, 4), Ok(()));
    assert_eq!(machine.ending(9), Some(Processed::Skipped));
    machine.ack(B, 2, 3, 5);
    assert_eq!(redeliver(&mut machine, B, 5), Some((3, 4, 0)));
    assert_eq!((machine.skip(3, 6), machine.floor()), (Ok(()), 4));
    let mut progress = Progress::default();
    keep(&mut progress, machine.take_changes(7));
    let mut machine = Machine::new(rules(), Some(&progress), 0);
    assert!(machine.is_done(9) && machine.is_done(1) && !machine.is_done(8));
    assert!(!machine.admit(seen(9), A, 8));
    // One that is on its way to the dead letters is not skipped.
    machine.admit(Seen { condemned: true, ..seen(10) }, A, 8);
    let due = machine.due(8).unwrap();
    machine.lease_due(due, (&[10], &[]), BURIAL, 8);
    assert_eq!(machine.skip(10, 9), Err(NotSkipped::Burying));
}

#[test]
fn a_record_that_is_done_comes_again_and_nothing_else_does_however_far_it_lies_back() {
    let mut machine = Machine::new(rules(), None, 0);
    let mut progress = Progress::default();
    for offset in 0..10_000 {
        machine.admit(seen(offset), A, 0);
    }
    machine.ack(A, 0, 9_999, 1);
    keep(&mut progress, machine.take_changes(1));
    assert_eq!((machine.floor(), progress.chunks.len()), (9_999, 0));
    assert_eq!(machine.reopen(3, None), Ok(true));
    assert_eq!(machine.reopen(5_000, None), Ok(true));
    assert_eq!(machine.reopen(9_999, None), Ok(false), "it is not done");
    assert_eq!(machine.reopen(12_000, None), Ok(false), "nobody came to it");
    assert_eq!(machine.due(1), None, "not before it is kept");
    keep(&mut progress, machine.take_changes(1));
    machine.let_go(3, 2);
    assert_eq!(redeliver(&mut machine, B, 2), Some((3, 4, 0)));

    // A crash before it is acked: these three come, and no other.
    let mut again = Machine::new(rules(), Some(&progress), 0);
    assert_eq!(again.floor(), 3);
    let came: Vec<Offset> = (again.cursor()..10_000).filter(|offset| again.admit(seen(*offset), A, 0)).collect();
    assert_eq!(came, [3, 5_000, 9_999]);

    // It could not be kept: it is done, as before.
    machine.take_back(5_000, 3);
    machine.ack(B, 3, 4, 3);
    assert_eq!(machine.floor(), 9_999);
    assert_eq!(machine.ending(5_000), Some(Processed::DeadLettered));
    assert_eq!(machine.ending(3), None);
    keep(&mut progress, machine.take_changes(3));
    assert_eq!((progress.position.as_ref().unwrap().offset, progress.chunks.len()), (9_999, 1), "of 9,999 itself");

    // So many offsets of chunks are not kept for one record.
    let far = (super::super::machine::FURTHEST_CHUNKS + 2) * 4096;
    machine.ack(A, 9_999, 10_000, 4);
    machine.pass(far);
    assert!(machine.reopen(3, None).is_err());
    assert_eq!(machine.reopen(far - 1, None), Ok(true));
}

#[test]
fn a_record_that_comes_again_has_its_turn_in_a_group_ordered_by_key() {
    let mut machine = Machine::new(rules(), None, 0);
    let keyed = |offset| Seen { key: Some(7), ..seen(offset) };
    assert!(machine.admit(keyed(0), A, 0));
    machine.ack(A, 0, 1, 0);
    assert!(machine.admit(keyed(1), A, 0));
    assert_eq!(machine.reopen(0, Some(7)), Ok(true));
    machine.let_go(0, 0);
    assert_eq!(machine.due(0), None, "another of its key is out");
    assert!(!machine.admit(keyed(2), A, 0));
    machine.ack(A, 1, 2, 0);
    assert_eq!(redeliver(&mut machine, A, 0), Some((0, 1, 0)), "it was there before 2");
    machine.ack(A, 0, 1, 0);
    assert_eq!(redeliver(&mut machine, A, 0), Some((2, 3, 0)));
    machine.ack(A, 2, 3, 0);
    assert_eq!(machine.floor(), 3);
    // Taken back, it holds up nobody, whether it waits for another or not.
    assert!(machine.admit(keyed(3), A, 0));
    assert_eq!(machine.reopen(1, Some(7)), Ok(true));
    machine.take_back(1, 0);
    machine.ack(A, 3, 4, 0);
    assert_eq!(machine.reopen(1, Some(7)), Ok(true));
    machine.take_back(1, 0);
    assert!(machine.admit(keyed(4), A, 0));
}
