//! What time does: limits of it, restarts, clocks that leap, and ids that are forgotten.

use super::super::TransactionError;
use super::super::machine::{BeginTransactional, Begun, Machine, Now, Producer, Rules};
use crate::base::{ProducerId, TopicId, limits};
use crate::catalog::{TransactionClient, TransactionEntry, TransactionPhase};
use crate::record::Marker;

const PLACE: (TopicId, u32) = (TopicId(1), 0);
const HOUR: u64 = 3_600_000;

fn at(monotonic: u64) -> Now {
    Now { wall: monotonic as i64, monotonic }
}

fn begin(
    machine: &mut Machine,
    address: &str,
    id: &str,
    producer: ProducerId,
    now: Now,
) -> Result<Begun, TransactionError> {
    let client = TransactionClient { address: address.to_owned(), name: "test".to_owned() };
    machine.begin(BeginTransactional { id, timeout_ms: 60_000, resume: None, client: &client }, Some(producer), now)
}

/// An open transaction of a new id.
fn open(machine: &mut Machine, address: &str, id: &str, producer: ProducerId, now: Now) {
    begin(machine, address, id, producer, now).unwrap();
    machine.add(Producer { id, producer, epoch: 0 }, &[PLACE], None, now).unwrap();
}

fn end(machine: &mut Machine, id: &str, producer: ProducerId, now: Now) {
    machine.end(Producer { id, producer, epoch: 0 }, Marker::Commit, now).unwrap();
    let (_, entry) = machine.finished(id, now).unwrap();
    machine.finish(entry, now);
}

/// What was kept, as a crash finds it.
fn kept(machine: &mut Machine) -> Vec<TransactionEntry> {
    machine.take_changes();
    machine.entries_after(None).cloned().collect()
}

#[test]
fn a_time_out_above_the_operators_limit_is_refused_and_the_refusal_says_both() {
    let mut machine = Machine::restore([], Rules { max_timeout_ms: 30_000, ..Rules::default() }, at(0));
    let error = begin(&mut machine, "a", "x", 1, at(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "transactional id 'x' asks for a transaction time-out of 60000 ms; allowed are 1 to 30000 ms \
         (transaction_max_timeout)"
    );
}

#[test]
fn a_limit_that_was_lowered_holds_for_what_is_open_since_before() {
    let mut machine = Machine::default();
    open(&mut machine, "a", "x", 1, at(0));
    let entries = kept(&mut machine);
    let mut machine = Machine::restore(entries, Rules { max_timeout_ms: 30_000, ..Rules::default() }, at(0));
    assert_eq!(machine.tick(at(29_999)), []);
    assert_eq!(machine.tick(at(30_000)), [("x".to_owned(), 30_000)]);
}

/// Restarts do not give a transaction its whole time anew: what it has used is kept every few seconds.
#[test]
fn a_server_that_restarts_again_and_again_still_ends_what_is_open_for_too_long() {
    let mut machine = Machine::default();
    open(&mut machine, "a", "x", 1, at(0));
    let (mut entries, mut used) = (kept(&mut machine), 0);
    for run in 0.. {
        // Each run has its own monotonic clock, and lasts 20 s; before the next one a day passes.
        let start = Now { wall: run * 86_400_000, monotonic: 7 };
        machine = Machine::restore(entries.clone(), Rules::default(), start);
        let mut late = false;
        for ms in (0..20_000).step_by(100) {
            late = late || !machine.tick(Now { wall: start.wall, monotonic: start.monotonic + ms }).is_empty();
            if !machine.take_changes().is_empty() {
                entries = machine.entries_after(None).cloned().collect();
            }
        }
        used += 20_000;
        if late {
            break;
        }
        assert!(used < 90_000, "it is open for {used} ms");
    }
    assert!(used >= 60_000, "the days without a server do not count");
}

#[test]
fn a_wall_clock_that_leaps_ends_nothing_early_and_keeps_nothing_open() {
    for leap in [-10 * 86_400_000, 10 * 86_400_000] {
        let mut machine = Machine::default();
        open(&mut machine, "a", "x", 1, at(0));
        assert_eq!(machine.tick(Now { wall: leap, monotonic: 59_999 }), []);
        assert_eq!(machine.tick(Now { wall: leap, monotonic: 60_000 }).len(), 1);
    }
}

#[test]
fn what_is_left_of_the_time_is_said() {
    let mut machine = Machine::default();
    open(&mut machine, "a", "x", 1, at(0));
    assert_eq!(machine.times("x", at(20_000)), Some((20_000, 40_000)));
    assert_eq!(machine.oldest_ms(at(20_000)), 20_000);
    end(&mut machine, "x", 1, at(20_000));
    assert_eq!((machine.times("x", at(30_000)), machine.oldest_ms(at(30_000))), (None, 0));
}

#[test]
fn a_transaction_that_is_open_for_long_is_reported_once_and_the_next_one_again() {
    let mut machine = Machine::default();
    open(&mut machine, "a", "x", 1, at(0));
    assert!(machine.long_open(1_000, at(999)).is_empty());
    assert_eq!(machine.long_open(1_000, at(1_000)).len(), 1);
    machine.reported("x");
    assert!(machine.long_open(1_000, at(2_000)).is_empty());
    end(&mut machine, "x", 1, at(2_000));
    machine.add(Producer { id: "x", producer: 1, epoch: 0 }, &[PLACE], None, at(2_000)).unwrap();
    assert_eq!(machine.long_open(1_000, at(3_000)).len(), 1);
}

#[test]
fn ids_that_nobody_uses_are_forgotten_and_those_in_use_are_not() {
    let mut machine = Machine::default();
    begin(&mut machine, "a", "idle", 1, at(0)).unwrap();
    open(&mut machine, "a", "open", 2, at(0));
    machine.take_changes();
    machine.forget_idle(at(limits::TRANSACTIONAL_ID_EXPIRATION_MS));
    assert_eq!(machine.entries_after(None).count(), 2);
    machine.forget_idle(at(limits::TRANSACTIONAL_ID_EXPIRATION_MS + 1));
    assert_eq!(machine.take_changes(), [("idle".to_owned(), None)]);
    assert_eq!(machine.entry("open").map(|entry| entry.phase), Some(TransactionPhase::Ongoing));
}

/// The wall clock says how long an id was idle before the start; alone it forgets none.
#[test]
fn a_wrong_clock_at_the_start_forgets_no_id_that_is_used_again_within_the_hour() {
    let mut machine = Machine::default();
    for id in ["used", "idle"] {
        begin(&mut machine, "a", id, 1, at(0)).unwrap();
    }
    let entries = kept(&mut machine);
    let start = Now { wall: 400 * 86_400_000, monotonic: 0 };
    let mut machine = Machine::restore(entries, Rules::default(), start);
    let then = |monotonic| Now { wall: start.wall + monotonic as i64, monotonic };
    machine.forget_idle(then(HOUR - 1));
    assert_eq!(machine.entries_after(None).count(), 2);
    begin(&mut machine, "a", "used", 3, then(HOUR - 1)).unwrap();
    machine.forget_idle(then(HOUR));
    assert_eq!(machine.entries_after(None).map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["used"]);
}

fn small(ids: usize, ids_of_address: usize) -> Machine {
    Machine::restore([], Rules { ids, ids_of_address, ..Rules::default() }, at(0))
}

fn ids(machine: &Machine) -> Vec<&str> {
    machine.entries_after(None).map(|entry| entry.id.as_str()).collect()
}

/// An address that makes up ids gets room for them from its own old ones.
#[test]
fn an_address_with_its_share_of_ids_forgets_its_own_and_nobody_elses() {
    let mut machine = small(10, 4);
    open(&mut machine, "b", "theirs", 100, at(0));
    end(&mut machine, "theirs", 100, at(0));
    for number in 0..50 {
        begin(&mut machine, "a", &format!("made-up-{number:02}"), number, at(1)).unwrap();
    }
    assert_eq!(ids(&machine), ["made-up-46", "made-up-47", "made-up-48", "made-up-49", "theirs"]);
    assert_eq!(machine.counts(), (5, 0, 46));
    let changes = machine.take_changes();
    assert_eq!(changes.len(), 51, "each id once, as it is or as forgotten");
    assert_eq!(changes.iter().filter(|(_, entry)| entry.is_none()).count(), 46);
}

#[test]
fn a_full_table_gives_room_at_the_cost_of_the_address_that_has_most_and_never_of_an_open_transaction() {
    let mut machine = small(6, 5);
    for (producer, id) in [(1, "open-1"), (2, "open-2")] {
        open(&mut machine, "a", id, producer, at(0));
    }
    open(&mut machine, "a", "ended", 3, at(0));
    end(&mut machine, "ended", 3, at(0));
    begin(&mut machine, "a", "never-written", 4, at(1)).unwrap();
    open(&mut machine, "b", "b-1", 5, at(0));
    end(&mut machine, "b-1", 5, at(0));
    begin(&mut machine, "c", "c-1", 6, at(2)).unwrap();
    begin(&mut machine, "d", "d-1", 7, at(3)).unwrap();
    assert_eq!(ids(&machine), ["b-1", "c-1", "d-1", "ended", "open-1", "open-2"], "what never wrote goes first");
    begin(&mut machine, "d", "d-2", 8, at(4)).unwrap();
    assert_eq!(ids(&machine), ["b-1", "c-1", "d-1", "d-2", "open-1", "open-2"], "then what was used longest ago");
    begin(&mut machine, "d", "d-3", 9, at(4)).unwrap();
    assert!(ids(&machine).contains(&"b-1"), "of those who have most");
}

#[test]
fn who_finds_only_open_transactions_is_refused_with_the_limit() {
    let mut machine = small(3, 2);
    open(&mut machine, "a", "a-1", 1, at(0));
    open(&mut machine, "a", "a-2", 2, at(0));
    let error = begin(&mut machine, "a", "a-3", 3, at(0)).unwrap_err().to_string();
    assert!(error.contains("'a-3': 2 of address a, which is the most"), "{error}");
    open(&mut machine, "b", "b-1", 4, at(0));
    let error = begin(&mut machine, "b", "b-2", 5, at(0)).unwrap_err().to_string();
    assert!(error.contains("'b-2': 3, or 16384 KiB of them, which is the most"), "{error}");
    end(&mut machine, "a-1", 1, at(0));
    begin(&mut machine, "b", "b-2", 5, at(0)).unwrap();
    assert_eq!(ids(&machine), ["a-2", "b-1", "b-2"]);
}

#[test]
fn long_ids_fill_the_table_by_their_bytes() {
    let mut machine = Machine::restore([], Rules { id_bytes: 100, ..Rules::default() }, at(0));
    for (producer, name) in (0..).zip('a'..='z') {
        begin(&mut machine, "a", &name.to_string().repeat(40), producer, at(0)).unwrap();
    }
    assert_eq!(machine.counts(), (2, 0, 24));
}

/// What was forgotten and asked for anew in one portion of events is there.
#[test]
fn an_id_that_is_forgotten_and_asked_for_at_once_is_one_change() {
    let mut machine = Machine::default();
    begin(&mut machine, "a", "x", 1, at(0)).unwrap();
    machine.take_changes();
    machine.forget("x").unwrap();
    assert_eq!(begin(&mut machine, "a", "x", 2, at(0)), Ok(Begun::Ready(2, 0)));
    let changes = machine.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1.as_ref().map(|entry| entry.producer), Some(2));
    let old = machine.add(Producer { id: "x", producer: 1, epoch: 0 }, &[PLACE], None, at(0));
    assert_eq!(old, Err(TransactionError::Unknown { id: "x".to_owned() }));
}

/// As Kafka: a producer whose id was forgotten gets a new producer id, and goes on.
#[test]
fn a_producer_whose_id_was_forgotten_begins_anew() {
    let mut machine = Machine::default();
    let client = TransactionClient::default();
    let wanted = BeginTransactional { id: "x", timeout_ms: 10, resume: Some((4_711, 3)), client: &client };
    assert_eq!(machine.begin(wanted, None, at(0)), Ok(Begun::NeedsProducer));
    assert_eq!(machine.begin(wanted, Some(9), at(0)), Ok(Begun::Ready(9, 0)));
}

#[test]
fn an_operator_ends_what_is_open_and_forgets_what_is_not() {
    let mut machine = Machine::default();
    assert_eq!(machine.abort_open("x", at(0)), Err(TransactionError::NoId { id: "x".to_owned() }));
    open(&mut machine, "a", "x", 1, at(0));
    assert!(machine.forget("x").is_err());
    assert_eq!(machine.abort_open("x", at(0)), Ok(true));
    assert_eq!(machine.abort_open("x", at(0)), Ok(true), "while it is being ended");
    assert!(machine.forget("x").is_err());
    assert!(machine.may_write(1, 0, PLACE).is_err(), "its producer is superseded");
    let (_, entry) = machine.finished("x", at(0)).unwrap();
    machine.finish(entry, at(0));
    assert_eq!(machine.abort_open("x", at(0)), Ok(false), "nothing is open");
    assert!(matches!(
        machine.end(Producer { id: "x", producer: 1, epoch: 0 }, Marker::Commit, at(0)),
        Err(TransactionError::Fenced { .. })
    ));
    machine.forget("x").unwrap();
    assert_eq!(machine.entries_after(None).count(), 0);
    open(&mut machine, "a", "y", 2, at(0));
    machine.end(Producer { id: "y", producer: 2, epoch: 0 }, Marker::Commit, at(0)).unwrap();
    assert!(matches!(machine.abort_open("y", at(0)), Err(TransactionError::State { .. })), "it is decided otherwise");
}
