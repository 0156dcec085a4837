//! The rounds of classic groups, without sockets and without waiting; and random events against what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::base::limits;

use super::super::clients::Client;
use super::machine::{INITIAL_DELAY_MS, MEMBERS, Machine};
use super::types::{Answer, ClassicError, ClassicJoin, ClassicJoined, ClassicVoice, Ms, Ticket};

mod crash;
mod kept;

const SESSION: Ms = 10_000;
const ROUND: Ms = 60_000;

fn wish(member: &str) -> ClassicJoin {
    ClassicJoin {
        member: member.to_owned(),
        instance: None,
        client: "c".to_owned(),
        host: "h".to_owned(),
        from: Client::Server,
        session_ms: SESSION,
        rebalance_ms: ROUND,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        takes_id_first: false,
        may_skip: false,
    }
}

fn place(instance: &str, member: &str) -> ClassicJoin {
    ClassicJoin { instance: Some(instance.to_owned()), ..wish(member) }
}

fn weighing(bytes: usize) -> ClassicJoin {
    ClassicJoin { protocols: vec![("range".to_owned(), Bytes::from(vec![b'x'; bytes]))], ..wish("") }
}

#[test]
fn what_members_say_of_themselves_has_limits_and_goes_with_who_never_heard_its_id() {
    let mut group = Group::new();
    let huge = group.join(weighing(limits::CLASSIC_MEMBER_BYTES + 1), "huge");
    assert_eq!(group.answers.remove(&huge), Some(Answer::Joined(Err((ClassicError::TooLarge, String::new())))));
    let large = limits::CLASSIC_MEMBER_BYTES - 1000;
    let fit = limits::CLASSIC_GROUP_BYTES / large;
    let tickets: Vec<_> = (0..fit).map(|number| group.join(weighing(large), &format!("m{number}"))).collect();
    assert!(group.answers.is_empty());
    let beyond = group.join(weighing(large), "beyond");
    assert_eq!(group.answers.remove(&beyond), Some(Answer::Joined(Err((ClassicError::Full, String::new())))));
    let bytes = |group: &Group| group.machine.bytes_of().values().sum::<usize>();
    assert!(bytes(&group) > fit * large);
    for ticket in tickets {
        // The connection has gone before the round was over.
        group.machine.abandon(ticket, group.now);
    }
    assert_eq!(bytes(&group), 0);
    assert!(group.machine.is_over());
}

/// A machine with a clock and the answers it gave.
struct Group {
    machine: Machine,
    now: Ms,
    tickets: Ticket,
    answers: BTreeMap<Ticket, Answer>,
}

impl Group {
    fn new() -> Self {
        Self { machine: Machine::from_generation(0), now: 1_000, tickets: 0, answers: BTreeMap::new() }
    }

    fn collect(&mut self) {
        for (ticket, answer) in self.machine.take_answers() {
            assert!(self.answers.insert(ticket, answer).is_none(), "request {ticket} was answered twice");
        }
    }

    fn join(&mut self, join: ClassicJoin, id: &str) -> Ticket {
        self.tickets += 1;
        self.machine.join(self.tickets, join, id.to_owned(), self.now);
        self.collect();
        self.tickets
    }

    fn sync(&mut self, member: &str, generation: i32, shares: &[(&str, &'static str)]) -> Ticket {
        self.tickets += 1;
        let voice = ClassicVoice { member, instance: None, generation };
        let shares = shares.iter().map(|(id, share)| ((*id).to_owned(), Bytes::from_static(share.as_bytes())));
        self.machine.sync(self.tickets, voice, (None, None), shares.collect(), self.now);
        self.collect();
        self.tickets
    }

    fn beat(&mut self, member: &str, generation: i32) -> Result<(), ClassicError> {
        let beat = self.machine.beat(ClassicVoice { member, instance: None, generation }, self.now);
        self.collect();
        beat
    }

    fn leave(&mut self, member: &str) -> Result<(), ClassicError> {
        let left = self.machine.leave(member, None, self.now);
        self.collect();
        left
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, ms: Ms) -> Vec<String> {
        let end = self.now + ms;
        let mut gone = Vec::new();
        while let Some(deadline) = self.machine.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            let before = self.machine.next_deadline();
            gone.extend(self.machine.tick(self.now));
            self.collect();
            assert!(self.machine.next_deadline() != before, "nothing comes of the deadline {before:?}");
        }
        self.now = end;
        gone
    }

    #[track_caller]
    fn joined(&mut self, ticket: Ticket) -> ClassicJoined {
        match self.answers.remove(&ticket) {
            Some(Answer::Joined(Ok(joined))) => joined,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, ticket: Ticket) -> ClassicError {
        match self.answers.remove(&ticket) {
            Some(Answer::Joined(Err((error, _))) | Answer::Synced(Err(error))) => error,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn share(&mut self, ticket: Ticket) -> Bytes {
        match self.answers.remove(&ticket) {
            Some(Answer::Synced(Ok(share))) => share.assignment,
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of these members, the first of which leads; its generation.
    fn stable(&mut self, members: &[&str]) -> i32 {
        let tickets: Vec<_> = members.iter().map(|id| self.join(wish(""), id)).collect();
        self.pass(3 * INITIAL_DELAY_MS);
        let generation = tickets.into_iter().map(|ticket| self.joined(ticket).generation).max().unwrap();
        for member in members.iter().rev() {
            self.sync(member, generation, &[]);
        }
        self.answers.clear();
        assert_eq!(self.machine.state_name(), "Stable");
        generation
    }
}

#[test]
fn members_join_in_a_round_the_first_leads_and_everybody_gets_its_share() {
    let mut group = Group::new();
    let one = group.join(wish(""), "a");
    let other = group.join(wish(""), "b");
    assert!(group.answers.is_empty(), "the round waits for further members");
    group.pass(3 * INITIAL_DELAY_MS);
    let (one, other) = (group.joined(one), group.joined(other));
    assert_eq!((one.generation, &*one.leader, one.members.len()), (1, "a", 2));
    assert_eq!((other.generation, &*other.leader, other.members.len()), (1, "a", 0));
    assert_eq!(one.protocol, "range");
    let waits = group.sync("b", 1, &[]);
    assert!(group.answers.is_empty(), "the leader has not spoken");
    let leads = group.sync("a", 1, &[("a", "0"), ("b", "1"), ("stranger", "2")]);
    assert_eq!((&group.share(waits)[..], &group.share(leads)[..]), (&b"1"[..], &b"0"[..]));
    let again = group.sync("b", 1, &[]);
    assert_eq!(&group.share(again)[..], b"1");
    assert_eq!(group.beat("b", 1), Ok(()));
}

#[test]
fn a_new_member_begins_a_round_that_the_others_hear_of_and_join() {
    let mut group = Group::new();
    group.stable(&["a"]);
    let new = group.join(wish(""), "b");
    assert_eq!(group.beat("a", 1), Err(ClassicError::Rebalancing));
    assert!(group.answers.is_empty());
    let old = group.join(wish("a"), "unused");
    assert_eq!((group.joined(new).generation, group.joined(old).generation), (2, 2));
    assert_eq!(group.beat("a", 1), Err(ClassicError::IllegalGeneration));
}

/// Trap 10: who leaves while others wait ends their wait.
#[test]
fn a_member_that_leaves_ends_the_wait_for_it() {
    let mut group = Group::new();
    group.stable(&["a", "b"]);
    let new = group.join(wish(""), "c");
    let old = group.join(wish("a"), "");
    assert!(group.answers.is_empty());
    assert_eq!(group.leave("b"), Ok(()));
    assert_eq!((group.joined(new).generation, group.joined(old).generation), (2, 2));
    assert_eq!(group.leave("b"), Err(ClassicError::UnknownMember));
}

#[test]
fn who_does_not_join_again_is_out_after_the_time_of_a_round() {
    let mut group = Group::new();
    group.stable(&["a", "b"]);
    let again = group.join(wish("b"), "");
    assert!(group.answers.contains_key(&again), "nothing has changed for b, which does not lead");
    group.answers.clear();
    let again = group.join(wish("a"), "");
    // It goes on to say that it is alive, and never joins.
    for _ in 0..6 {
        group.pass(SESSION - 1);
        assert_eq!(group.beat("b", 1), Err(ClassicError::Rebalancing));
    }
    group.pass(ROUND);
    let joined = group.joined(again);
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(group.beat("b", 1), Err(ClassicError::UnknownMember));
}

#[test]
fn a_session_ends_without_heartbeats_but_not_while_an_answer_is_waited_for() {
    let mut group = Group::new();
    group.stable(&["a", "b"]);
    group.pass(SESSION - 1);
    assert_eq!(group.beat("a", 1), Ok(()));
    assert_eq!(group.pass(1), ["b"]);
    assert_eq!(group.beat("a", 1), Err(ClassicError::Rebalancing));
    let again = group.join(wish("a"), "");
    assert_eq!(group.joined(again).members.len(), 1);
    group.sync("a", 2, &[]);
    let new = group.join(wish(""), "c");
    assert_eq!(group.pass(SESSION), ["a"]);
    assert_eq!(group.joined(new).leader, "c");
}

#[test]
fn who_never_asks_for_its_share_is_sent_away() {
    let mut group = Group::new();
    let tickets = [group.join(wish(""), "a"), group.join(wish(""), "b")];
    group.pass(3 * INITIAL_DELAY_MS);
    let _ = tickets.map(|ticket| group.joined(ticket));
    let waits = group.sync("b", 1, &[]);
    let mut gone = Vec::new();
    for _ in 0..7 {
        gone.extend(group.pass(SESSION - 1));
        let _ = group.beat("a", 1);
    }
    assert_eq!(gone[0], "a");
    assert_eq!(group.refused(waits), ClassicError::Rebalancing);
}

#[test]
fn an_id_is_given_out_first_to_who_understands_that() {
    let mut group = Group::new();
    let careful = ClassicJoin { takes_id_first: true, ..wish("") };
    let ticket = group.join(careful.clone(), "a");
    match group.answers.remove(&ticket) {
        Some(Answer::Joined(Err((ClassicError::IdRequired, id)))) => assert_eq!(id, "a"),
        other => panic!("{other:?}"),
    }
    assert!(!group.machine.is_over());
    let ticket = group.join(ClassicJoin { member: "a".to_owned(), ..careful.clone() }, "unused");
    group.pass(3 * INITIAL_DELAY_MS);
    assert_eq!(group.joined(ticket).member, "a");
    // One that is not used is forgotten.
    let mut group = Group::new();
    group.join(careful.clone(), "b");
    group.pass(SESSION);
    assert!(group.machine.is_over());
    let ticket = group.join(ClassicJoin { member: "b".to_owned(), ..careful }, "unused");
    assert_eq!(group.refused(ticket), ClassicError::UnknownMember);
}

#[test]
fn protocols_are_chosen_by_vote_and_who_has_none_in_common_is_refused() {
    let mut group = Group::new();
    let speaks = |names: &[&str]| ClassicJoin {
        protocols: names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect(),
        ..wish("")
    };
    let tickets = [
        group.join(speaks(&["range", "sticky"]), "a"),
        group.join(speaks(&["sticky", "range", "other"]), "b"),
        group.join(speaks(&["sticky", "range"]), "c"),
    ];
    let alien = group.join(speaks(&["other"]), "d");
    assert_eq!(group.refused(alien), ClassicError::InconsistentProtocol);
    let connect = ClassicJoin { protocol_type: "connect".to_owned(), ..speaks(&["range"]) };
    let connect = group.join(connect, "e");
    assert_eq!(group.refused(connect), ClassicError::InconsistentProtocol);
    group.pass(5 * INITIAL_DELAY_MS);
    assert!(tickets.iter().all(|ticket| group.joined(*ticket).protocol == "sticky"));
}

/// Trap 15: static members are what the versions promise.
#[test]
fn a_named_place_is_taken_over_without_a_round_and_the_old_one_is_fenced() {
    let mut group = Group::new();
    let tickets = [group.join(place("one", ""), "a"), group.join(place("two", ""), "b")];
    group.pass(3 * INITIAL_DELAY_MS);
    let _ = tickets.map(|ticket| group.joined(ticket));
    group.sync("b", 1, &[]);
    group.sync("a", 1, &[("a", "0"), ("b", "1")]);
    group.answers.clear();
    let new = group.join(place("two", ""), "b2");
    let joined = group.joined(new);
    assert_eq!((joined.generation, &*joined.member, &*joined.leader), (1, "b2", "a"));
    assert_eq!(group.machine.state_name(), "Stable");
    let share = group.sync("b2", 1, &[]);
    assert_eq!(&group.share(share)[..], b"1", "with what the old one had");
    let old = ClassicVoice { member: "b", instance: Some("two"), generation: 1 };
    assert_eq!(group.machine.beat(old, group.now), Err(ClassicError::Fenced));
    let old = group.join(place("two", "b"), "");
    assert_eq!(group.refused(old), ClassicError::Fenced);
    // The leader's place: an old client is not told that it leads, or it would assign; a new one is told to skip that.
    let new = group.join(place("one", ""), "a2");
    let joined = group.joined(new);
    assert_eq!((&*joined.leader, joined.members.len()), ("a", 0));
    let new = group.join(ClassicJoin { may_skip: true, ..place("one", "") }, "a3");
    let joined = group.joined(new);
    assert_eq!((&*joined.leader, joined.skip, joined.members.len()), ("a3", true, 2));
    // One that wants something else begins a round, and one that comes while the leader assigns too.
    let other = ClassicJoin { protocols: vec![("range".to_owned(), Bytes::from_static(b"x"))], ..place("two", "") };
    let new = group.join(other, "b3");
    assert_eq!(group.machine.state_name(), "PreparingRebalance");
    let again = group.join(place("one", "a3"), "");
    assert_eq!((group.joined(new).generation, group.joined(again).generation), (2, 2));
    let waits = group.sync("b3", 2, &[]);
    group.join(place("two", ""), "b4");
    assert_eq!(group.refused(waits), ClassicError::Fenced);
    assert_eq!(group.machine.state_name(), "PreparingRebalance");
}

#[test]
fn a_named_place_is_kept_over_a_round_and_given_up_with_its_session_or_by_name() {
    let mut group = Group::new();
    let tickets = [group.join(place("one", ""), "a"), group.join(wish(""), "b")];
    group.pass(3 * INITIAL_DELAY_MS);
    let _ = tickets.map(|ticket| group.joined(ticket));
    assert_eq!(group.machine.leave("", Some("one"), group.now), Ok(()));
    assert_eq!(group.machine.leave("", Some("one"), group.now), Err(ClassicError::UnknownMember));
    assert_eq!(group.machine.members().count(), 1);
}

#[test]
fn who_stops_waiting_is_a_member_until_its_session_ends() {
    let mut group = Group::new();
    let ticket = group.join(wish(""), "a");
    group.machine.abandon(ticket, group.now);
    group.pass(SESSION + ROUND);
    assert!(group.machine.is_over());
    assert!(group.answers.is_empty(), "nobody is there to hear it");
}

#[test]
fn there_are_so_many_members_and_no_more() {
    let mut group = Group::new();
    for number in 0..MEMBERS {
        group.join(wish(""), &format!("m{number}"));
    }
    let one_more = group.join(wish(""), "too-many");
    assert_eq!(group.refused(one_more), ClassicError::Full);
}

#[test]
fn only_members_of_this_generation_commit_and_not_while_it_is_being_shared_out() {
    let mut group = Group::new();
    let ticket = group.join(wish(""), "a");
    group.pass(3 * INITIAL_DELAY_MS);
    group.joined(ticket);
    let voice = |member, generation| ClassicVoice { member, instance: None, generation };
    let now = group.now;
    assert_eq!(group.machine.may_commit(voice("a", 1), now), Err(ClassicError::Rebalancing));
    group.sync("a", 1, &[]);
    assert_eq!(group.machine.may_commit(voice("a", 1), now), Ok(()));
    assert_eq!(group.machine.may_commit(voice("a", 0), now), Err(ClassicError::IllegalGeneration));
    assert_eq!(group.machine.may_commit(voice("b", 1), now), Err(ClassicError::UnknownMember));
    group.join(wish(""), "b");
    assert_eq!(group.machine.may_commit(voice("a", 1), now), Ok(()), "before it gives up what it had");
}

/// Members that do the right thing, the wrong thing, and nothing: no request is answered twice or forgotten, a round ends in
/// time, and all that are told a generation are told the same leader and protocol.
#[test]
fn whatever_members_do_rounds_end_and_nobody_is_forgotten() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("TIDELOG_SEED").unwrap_or(7);
    println!("TIDELOG_SEED={seed}");
    for round in 0..number("TIDELOG_ROUNDS").unwrap_or(60) {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(round));
        let mut group = Group::new();
        let mut waiting: BTreeMap<Ticket, Ms> = BTreeMap::new();
        let mut leaders: BTreeMap<i32, (String, String)> = BTreeMap::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut weighed = (0, Default::default());
        for step in 0..300 {
            let id = known.iter().nth(rng.usize(0..known.len().max(1))).cloned().unwrap_or_default();
            let generation = group.machine.generation - i32::from(rng.u8(0..6) == 0);
            match rng.u32(0..10) {
                0 | 1 => {
                    let mut join = wish("");
                    join.from = Client::of([10, 0, 0, rng.u8(0..3)].into());
                    join.takes_id_first = rng.bool();
                    join.may_skip = rng.bool();
                    if rng.u8(0..3) == 0 {
                        join.instance = Some(format!("i{}", rng.u8(0..3)));
                    }
                    let ticket = group.join(join, &format!("m{step}"));
                    known.insert(format!("m{step}"));
                    waiting.insert(ticket, group.now);
                }
                2..=4 => {
                    let mut join = wish(&id);
                    join.from = Client::of([10, 0, 0, rng.u8(0..3)].into());
                    waiting.insert(group.join(join, &format!("u{step}")), group.now);
                }
                5 | 6 => _ = waiting.insert(group.sync(&id, generation, &[("m1", "x")]), group.now),
                7 => _ = group.beat(&id, generation),
                8 => _ = group.leave(&id),
                _ => _ = group.pass(rng.u64(0..SESSION)),
            }
            let counted = (group.machine.weighed(), group.machine.bytes_of());
            assert!(counted.0 > weighed.0 || counted.1 == weighed.1, "seed {seed} round {round}: uncounted bytes");
            weighed = counted;
            for (ticket, answer) in std::mem::take(&mut group.answers) {
                assert!(waiting.remove(&ticket).is_some(), "seed {seed} round {round}: {ticket} waited for nothing");
                if let Answer::Joined(Ok(joined)) = answer {
                    let told = (joined.leader.clone(), joined.protocol.clone());
                    let before = leaders.entry(joined.generation).or_insert_with(|| told.clone());
                    assert_eq!(before.1, told.1, "seed {seed} round {round}");
                    assert!(!joined.protocol.is_empty());
                }
            }
        }
        group.pass(20 * (ROUND + SESSION));
        for ticket in std::mem::take(&mut group.answers).into_keys() {
            waiting.remove(&ticket);
        }
        assert!(waiting.is_empty(), "seed {seed} round {round}: {waiting:?} are never answered");
        assert!(group.machine.is_over(), "seed {seed} round {round}");
    }
}
