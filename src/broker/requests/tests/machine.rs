//! The table of durable requests against a model: replies in any order, lost and repeated reading, time-outs.

use crate::base::limits::OPEN_REQUESTS;
use crate::broker::Client;
use std::collections::HashMap;

use super::super::machine::*;
use crate::base::{RequestId, TopicName};
use crate::catalog::{Callback, OutcomeKind, RequestEntry};

fn id(number: u64) -> RequestId {
    RequestId::new(&format!("r{number}")).unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn entry(number: u64, steps: usize, deadline_ms: i64) -> RequestEntry {
    RequestEntry {
        id: id(number),
        steps: (0..steps).map(|step| topic(&format!("step.{step}"))).collect(),
        step: 0,
        requester: String::new(),
        created_ms: 0,
        deadline_ms,
        callback: number.is_multiple_of(2).then(|| Callback::Topic(topic("back"))),
        outcome: None,
        writing: None,
        content: None,
    }
}

fn opened(machine: &mut Machine, entry: RequestEntry) {
    let id = entry.id.clone();
    machine.open(entry, Client::Server, OPEN_REQUESTS).unwrap();
    machine.opened(&id);
}

#[test]
fn an_id_that_asks_something_else_is_taken() {
    let mut machine = Machine::default();
    let asked = RequestEntry { content: Some([1; 16]), ..entry(1, 1, 100) };
    opened(&mut machine, asked.clone());
    let mut again = |entry: RequestEntry| machine.open(entry, Client::Server, OPEN_REQUESTS).unwrap_err();
    assert!(matches!(again(asked.clone()), NotOpened::Known(_)));
    assert_eq!(again(RequestEntry { content: Some([2; 16]), ..asked.clone() }), NotOpened::Taken);
    assert_eq!(again(RequestEntry { steps: vec![topic("other")], ..asked }), NotOpened::Taken);
    // An earlier version kept nothing to compare with.
    opened(&mut machine, entry(3, 1, 100));
    let known =
        machine.open(RequestEntry { content: Some([2; 16]), ..entry(3, 1, 100) }, Client::Server, OPEN_REQUESTS);
    assert!(matches!(known.unwrap_err(), NotOpened::Known(_)));
}

#[test]
fn the_first_word_about_the_present_step_decides() {
    let mut machine = Machine::default();
    opened(&mut machine, entry(1, 1, 100));
    assert_eq!(machine.decide(&id(9), 0, Word::Reply, 0, 5), Decided::Nothing, "nobody knows it");
    assert_eq!(machine.decide(&id(1), 1, Word::Reply, 1, 5), Decided::Nothing, "of another step");
    assert_eq!(machine.decide(&id(1), 0, Word::Reply, 2, 5), Decided::Over(None));
    assert_eq!(machine.decide(&id(1), 0, Word::Cancelled, 3, 6), Decided::Nothing);
    let outcome = machine.get(&id(1)).unwrap().outcome.clone().unwrap();
    assert_eq!((outcome.kind, outcome.at, outcome.finished_ms), (OutcomeKind::Replied, 2, 5));
    assert!(machine.is_over(&id(1), 0));
    assert_eq!(machine.take_late(1000, |_, _| true), [], "what is over is not late");
}

#[test]
fn a_chain_goes_on_with_each_reply_and_a_late_one_of_an_earlier_step_changes_nothing() {
    let mut machine = Machine::default();
    opened(&mut machine, entry(2, 3, 100));
    assert_eq!(machine.decide(&id(2), 0, Word::Reply, 0, 5), Decided::Next(topic("step.1")));
    machine.announce(&id(2), Some((topic("step.1"), 0)), 7, 0);
    assert_eq!(machine.writings().len(), 1);
    assert!(!machine.written(&id(2), 3), "something else was written");
    assert!(machine.written(&id(2), 0));
    assert!(machine.is_over(&id(2), 0) && !machine.is_over(&id(2), 1));
    assert_eq!(machine.decide(&id(2), 0, Word::Reply, 1, 5), Decided::Nothing);
    let error = Word::Error { code: "c".into(), text: "t".into() };
    assert_eq!(machine.decide(&id(2), 1, error, 2, 5), Decided::Over(Some(Callback::Topic(topic("back")))));
    assert_eq!(machine.get(&id(2)).unwrap().step, 1, "the step at which it failed");
}

#[test]
fn the_same_id_again_is_the_same_request_and_another_one_is_refused() {
    let mut machine = Machine::default();
    machine.open(entry(1, 1, 100), Client::Server, OPEN_REQUESTS).unwrap();
    assert_eq!(machine.open(entry(1, 1, 100), Client::Server, OPEN_REQUESTS), Err(NotOpened::Opening));
    assert!(machine.get(&id(1)).is_none() && !machine.is_over(&id(1), 0), "not accepted, but a reply counts");
    machine.opened(&id(1));
    assert!(
        matches!(machine.open(entry(1, 1, 900), Client::Server, OPEN_REQUESTS), Err(NotOpened::Known(known)) if known.deadline_ms == 100)
    );
    assert_eq!(machine.open(entry(1, 2, 100), Client::Server, OPEN_REQUESTS), Err(NotOpened::Taken));
    machine.open(entry(3, 1, 100), Client::Server, OPEN_REQUESTS).unwrap();
    machine.not_opened(&id(3));
    assert!(machine.is_over(&id(3), 0));
    assert_eq!(machine.open_count(), 1);
}

#[test]
fn late_ones_are_named_once_until_that_could_not_be_written() {
    let mut machine = Machine::default();
    opened(&mut machine, entry(1, 1, 100));
    opened(&mut machine, entry(2, 1, 200));
    assert_eq!(machine.next_deadline(), Some(100));
    assert_eq!(machine.take_late(150, |_, _| true), [id(1)]);
    assert_eq!((machine.take_late(150, |_, _| true), machine.next_deadline()), (vec![], Some(200)));
    machine.not_late(&[id(1)]);
    assert_eq!(machine.take_late(150, |asked, deadline| asked > 0 || deadline > 100), [], "the clock is doubted");
    assert_eq!(machine.take_late(150, |_, _| true), [id(1)]);
    assert_eq!(machine.decide(&id(1), 7, Word::TimedOut, 0, 160), Decided::Over(None));
    assert_eq!(machine.open_count(), 1);
}

#[test]
fn what_ended_long_ago_is_forgotten_but_not_while_its_callback_is_to_be_written() {
    let mut machine = Machine::default();
    for number in 1..=2 {
        opened(&mut machine, entry(number, 1, 100));
        machine.decide(&id(number), 0, Word::Reply, number, 10);
    }
    machine.announce(&id(2), Some((topic("back"), 0)), 0, 2);
    assert_eq!(machine.forget(10, OPEN_REQUESTS), []);
    assert_eq!(machine.forget(11, OPEN_REQUESTS), [id(1)]);
    machine.written(&id(2), 2);
    assert_eq!(machine.forget(11, OPEN_REQUESTS), [id(2)]);
    assert!(machine.list().is_empty());
}

/// A log of replies, read by a machine that crashes: it is restored from what was kept, which may be any earlier state with
/// the position that was kept with it. Whatever happens, it comes to what one reading from the beginning comes to.
#[test]
fn reading_again_after_a_crash_decides_nothing_else() {
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let first = std::env::var("TIDELOG_SEED").ok().and_then(|text| text.parse().ok());
    for seed in first.map_or(0..rounds, |seed: u64| seed..seed + 1) {
        println!("TIDELOG_SEED={seed}");
        round(seed);
    }
}

fn round(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let entries: Vec<RequestEntry> = (0..8).map(|number| entry(number, random.usize(1..4), 1000)).collect();
    let log: Vec<(RequestId, u32, Word)> = (0..60)
        .map(|_| {
            let word = match random.u32(..12) {
                0 => Word::TimedOut,
                1 => Word::Cancelled,
                2 => Word::Error { code: "c".into(), text: "t".into() },
                _ => Word::Reply,
            };
            (id(random.u64(..8)), random.u32(..3), word)
        })
        .collect();
    let read = |machine: &mut Machine, from: usize, to: usize| {
        let mut told = Vec::new();
        for (at, (id, step, word)) in log.iter().enumerate().take(to).skip(from) {
            match machine.decide(id, *step, word.clone(), at as u64, at as i64) {
                Decided::Nothing => {}
                decided => {
                    machine.announce(id, Some((topic("x"), 0)), 0, at as u64);
                    told.push((at, decided));
                }
            }
        }
        told
    };
    let mut once = Machine::restore(entries.clone());
    let told = read(&mut once, 0, log.len());
    let ends = told.iter().filter(|(_, decided)| matches!(decided, Decided::Over(_))).count();
    let over = once.list().iter().filter(|entry| entry.outcome.is_some()).count();
    assert_eq!(ends, over, "one end for each that ended");

    let mut machine = Machine::restore(entries);
    let (mut at, mut kept, mut all) = (0, None, HashMap::new());
    while at < log.len() {
        let to = (at + random.usize(1..8)).min(log.len());
        for (at, decided) in read(&mut machine, at, to) {
            // What is decided again after a crash is the same, at the same place.
            assert_eq!(all.entry(at).or_insert_with(|| decided.clone()), &decided);
        }
        at = to;
        match random.u32(..4) {
            0 => kept = Some((at, machine.list().into_iter().cloned().collect::<Vec<_>>())),
            1 => {
                if let Some((position, entries)) = kept.clone() {
                    (at, machine) = (position, Machine::restore(entries));
                }
                kept = None;
            }
            _ => {}
        }
    }
    assert_eq!(machine.list(), once.list());
    assert_eq!(all.len(), told.len());
}

#[test]
fn one_client_may_have_half_of_all_open_requests() {
    let mut machine = Machine::default();
    let (one, other) = (Client::of([10, 0, 0, 1].into()), Client::of([10, 0, 0, 2].into()));
    machine.open(entry(1, 1, 100), one, 4).unwrap();
    machine.open(entry(2, 1, 100), one, 4).unwrap();
    assert_eq!(machine.open(entry(3, 1, 100), one, 4), Err(NotOpened::Share(2)));
    machine.open(entry(3, 1, 100), other, 4).unwrap();
    // The server's own have no share to keep to, but the limit.
    machine.open(entry(4, 1, 100), Client::Server, 4).unwrap();
    assert_eq!(machine.open(entry(5, 1, 100), other, 4), Err(NotOpened::Full(4)));
    // One that has ended takes no place.
    machine.opened(&id(1));
    machine.decide(&id(1), 0, Word::Reply, 0, 10);
    machine.open(entry(5, 1, 100), one, 4).unwrap();
}
