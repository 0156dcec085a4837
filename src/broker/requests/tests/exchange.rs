//! The exchange against a model: random events, and after each what must hold.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::exchange::*;
use crate::base::TopicName;

type Machine = Exchange<u64, u64, u64>;
type Done = Effect<u64, u64, u64>;

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn ask(machine: &mut Machine, asker: u64, at: &str, then: &[&str], deadline: u64) -> Vec<Done> {
    let itinerary = then.iter().map(|name| topic(name)).collect();
    let new = NewRequest { asker_id: asker, asker, topic: topic(at), itinerary, deadline, payload: asker, bytes: 8 };
    let done = machine.ask(new);
    machine.check();
    done
}

fn delivered(effects: &[Done]) -> Vec<(u64, RequestNo)> {
    let of = |effect: &Done| match effect {
        Effect::Deliver { responder, request, .. } => Some((*responder, *request)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn ends(effects: &[Done]) -> Vec<(u64, End<u64>)> {
    let of = |effect: &Done| match effect {
        Effect::Finish { to, end } => Some((*to, end.clone())),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

#[test]
fn without_a_responder_the_requester_hears_so_at_once() {
    let mut machine = Machine::default();
    let done = ask(&mut machine, 1, "crm", &[], 100);
    assert_eq!(ends(&done), [(1, End::NoResponder { step: 0, topic: topic("crm") })]);
    assert_eq!(machine.counts(), (0, 0));
}

#[test]
fn who_has_least_to_do_is_asked_and_equals_take_turns() {
    let mut machine = Machine::default();
    for id in [11, 12, 13] {
        machine.listen(id, id, topic("crm"), 2);
    }
    let order: Vec<u64> = (0..6).map(|_| delivered(&ask(&mut machine, 1, "crm", &[], 100))[0].0).collect();
    assert_eq!(order, [11, 12, 13, 11, 12, 13]);
    assert_eq!(delivered(&ask(&mut machine, 1, "crm", &[], 100)), [], "all have what they take");
    let (wanted, done) = machine.say(12, 2, Word::Reply(5, 1));
    assert!(wanted);
    assert_eq!((ends(&done), delivered(&done)), (vec![(1, End::Reply(5))], vec![(12, 7)]));
    machine.check();
}

#[test]
fn a_responder_that_goes_fails_what_it_had_and_the_last_one_what_waits() {
    let mut machine = Machine::default();
    machine.listen(11, 11, topic("crm"), 1);
    ask(&mut machine, 1, "crm", &[], 100);
    ask(&mut machine, 2, "crm", &[], 100);
    let done = machine.leave(11);
    let (code, text) = ("responder_gone".to_owned(), "the responder went away before it replied".to_owned());
    let gone = End::Error { code, text, step: 0, topic: topic("crm") };
    assert_eq!(ends(&done), [(1, gone), (2, End::NoResponder { step: 0, topic: topic("crm") })]);
    machine.check();
}

#[test]
fn what_is_too_late_is_not_delivered_and_a_late_reply_only_makes_room() {
    let mut machine = Machine::default();
    machine.listen(11, 11, topic("crm"), 1);
    ask(&mut machine, 1, "crm", &[], 100);
    ask(&mut machine, 2, "crm", &[], 100);
    ask(&mut machine, 3, "crm", &[], 200);
    let late = End::TimedOut { step: 0, topic: topic("crm") };
    assert_eq!(ends(&machine.expire(100)), [(1, late.clone()), (2, late)]);
    assert!(!machine.is_wanted(11, 1));
    machine.check();
    let (wanted, done) = machine.say(11, 1, Word::Reply(0, 0));
    assert!(!wanted);
    assert_eq!((ends(&done), delivered(&done)), (vec![], vec![(11, 3)]));
    machine.check();
}

#[test]
fn an_itinerary_hands_each_reply_on_and_a_failure_names_the_step() {
    let mut machine = Machine::default();
    machine.listen(11, 11, topic("load"), 5);
    machine.listen(12, 12, topic("analyse"), 5);
    ask(&mut machine, 1, "load", &["analyse", "nobody"], 100);
    let (_, done) = machine.say(11, 1, Word::Reply(70, 3));
    assert!(matches!(done[..], [Effect::Deliver { responder: 12, request: 1, step: 1, payload: 70, .. }]));
    let (_, done) = machine.say(12, 1, Word::Reply(71, 3));
    assert_eq!(ends(&done), [(1, End::NoResponder { step: 2, topic: topic("nobody") })]);
    ask(&mut machine, 1, "load", &["analyse"], 100);
    machine.say(11, 2, Word::Reply(70, 3));
    let (_, done) = machine.say(12, 2, Word::Error { code: "c".into(), text: "t".into() });
    let failed = End::Error { code: "c".into(), text: "t".into(), step: 1, topic: topic("analyse") };
    assert_eq!(ends(&done), [(1, failed)]);
    machine.check();
}

#[test]
fn a_topic_takes_so_much_to_wait_and_no_more() {
    let mut machine = Machine::default();
    machine.listen(11, 11, topic("crm"), 1);
    for _ in 0..=QUEUED {
        let new = NewRequest {
            asker_id: 1,
            asker: 1,
            topic: topic("crm"),
            itinerary: VecDeque::new(),
            deadline: 9,
            payload: 0,
            bytes: 1,
        };
        assert!(ends(&machine.ask(new)).is_empty());
    }
    let done = ask(&mut machine, 2, "crm", &[], 100);
    assert!(matches!(&ends(&done)[..], [(2, End::Overloaded(why))] if why.contains("10000 requests")), "{done:?}");
}

/// What the model knows of a request: who asked, when it is over.
#[derive(Default)]
struct Model {
    open: HashMap<RequestNo, (u64, u64)>,
    /// What responders were handed and have not had the last word on.
    out: HashMap<u64, HashSet<RequestNo>>,
    ended: HashSet<RequestNo>,
    next: RequestNo,
}

impl Model {
    fn take(&mut self, effects: Vec<Done>, by: &str) {
        for effect in effects {
            match effect {
                Effect::Deliver { responder, request, deadline, .. } => {
                    assert_eq!(self.open[&request].1, deadline, "{by}");
                    assert!(self.out.entry(responder).or_default().insert(request), "{by}: handed twice");
                }
                Effect::Part { .. } => {}
                Effect::Finish { to, .. } => {
                    // The model's askers are one for each request, so the outcome says whose it is.
                    let found = self.open.iter().find(|(_, (asker, _))| *asker == to);
                    let number = *found.unwrap_or_else(|| panic!("{by}: {to} is told twice or unasked")).0;
                    self.open.remove(&number);
                    assert!(self.ended.insert(number));
                }
            }
        }
    }
}

#[test]
fn every_request_ends_once_whatever_happens() {
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let first = std::env::var("TIDELOG_SEED").ok().and_then(|text| text.parse().ok());
    for seed in first.map_or(0..rounds, |seed| seed..seed + 1) {
        println!("TIDELOG_SEED={seed}");
        round(seed);
    }
}

fn round(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut machine, mut model, mut now, mut asker) = (Machine::default(), Model::default(), 0, 1_000_000);
    let topics = ["a", "b", "c"];
    let mut responders = Vec::new();
    for _ in 0..400 {
        let name = topics[random.usize(..3)];
        match random.u32(..20) {
            0..7 => {
                asker += 1;
                model.next += 1;
                let deadline = now + random.u64(1..50);
                model.open.insert(model.next, (asker, deadline));
                let then: Vec<&str> = (0..random.usize(..3)).map(|_| topics[random.usize(..3)]).collect();
                let done = ask(&mut machine, asker, name, &then, deadline);
                model.take(done, "ask");
            }
            7..9 => {
                let id = random.u64(1..1_000_000);
                responders.push(id);
                let done = machine.listen(id, id, topic(name), random.usize(1..4));
                model.take(done, "listen");
            }
            9 if !responders.is_empty() => {
                let id = responders.swap_remove(random.usize(..responders.len()));
                let done = machine.leave(id);
                model.out.remove(&id);
                model.take(done, "leave");
            }
            10..16 => {
                let held: Vec<_> =
                    model.out.iter().flat_map(|(id, all)| all.iter().map(|number| (*id, *number))).collect();
                if held.is_empty() {
                    continue;
                }
                let (id, number) = held[random.usize(..held.len())];
                let word = match random.u32(..4) {
                    0 => Word::Error { code: String::new(), text: String::new() },
                    1 => Word::Part(1),
                    _ => Word::Reply(random.u64(..), 8),
                };
                let last = !matches!(word, Word::Part(_));
                let (wanted, done) = machine.say(id, number, word);
                if last {
                    assert_eq!(wanted, model.open.contains_key(&number));
                    model.out.get_mut(&id).unwrap().remove(&number);
                }
                model.take(done, "say");
            }
            16 => {
                // A requester goes: it is told nothing.
                if let Some((&number, &(gone, _))) = model.open.iter().next() {
                    machine.abandon(gone);
                    model.open.remove(&number);
                    model.ended.insert(number);
                }
            }
            _ => {
                now += random.u64(..10);
                let done = machine.expire(now);
                model.take(done, "expire");
                assert!(model.open.values().all(|(_, deadline)| *deadline > now), "something is too late");
            }
        }
        machine.check();
        assert_eq!(machine.counts().0, model.open.len());
    }
    let end = machine.expire(u64::MAX);
    model.take(end, "end");
    assert!(model.open.is_empty());
    assert_eq!(model.ended.len() as u64, model.next);
}
