//! The machine against a model, with restarts that lose what nobody was told. Seeds are printed; `TIDELOG_SEED=n` runs one,
//! `TIDELOG_ROUNDS=n` more of them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::TransactionError;
use super::super::machine::{BeginTransactional, Begun, Ended, Ending, Machine, Now, Producer, Rules};
use crate::base::{GroupName, ProducerEpoch, ProducerId, TopicId, limits};
use crate::catalog::{Place, Position, TransactionClient, TransactionEntry};
use crate::record::Marker;

const IDS: [&str; 3] = ["a", "b", "c"];

fn at(wall: i64) -> Now {
    Now { wall, monotonic: wall as u64 }
}

/// A producer asks for an id.
fn begin(
    machine: &mut Machine,
    id: &str,
    timeout_ms: u64,
    resume: Option<(ProducerId, ProducerEpoch)>,
    fresh: Option<ProducerId>,
    now: Now,
) -> Result<Begun, TransactionError> {
    let client = TransactionClient { address: "192.0.2.1".to_owned(), name: "test".to_owned() };
    machine.begin(BeginTransactional { id, timeout_ms, resume, client: &client }, fresh, now)
}

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

fn place(partition: u32) -> Place {
    Place { group: group(), topic: TopicId(1), partition }
}

fn position(offset: u64) -> Position {
    Position { offset, metadata: String::new(), time_ms: 0, leader_epoch: None }
}

/// What a transactional id is in the model.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Everybody who was given the id, in order; the last one has it.
    given: Vec<(ProducerId, ProducerEpoch)>,
    /// Somebody was superseded without anybody having it yet.
    superseded: bool,
    open: Option<Open>,
    decided: Option<(Marker, Open)>,
    ended: Option<Marker>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Open {
    partitions: BTreeSet<u32>,
    staged: BTreeMap<u32, u64>,
    grouped: bool,
    until: i64,
}

struct World {
    machine: Machine,
    kept: BTreeMap<String, TransactionEntry>,
    known: BTreeMap<&'static str, Known>,
    endings: Vec<Ending>,
    positions: BTreeMap<u32, u64>,
    next_producer: ProducerId,
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::default(),
            kept: BTreeMap::new(),
            known: IDS.iter().map(|id| (*id, Known::default())).collect(),
            endings: Vec::new(),
            positions: BTreeMap::new(),
            next_producer: 100,
        }
    }

    /// What has changed is on the disk.
    fn keep(&mut self) {
        for (id, entry) in self.machine.take_changes() {
            match entry {
                Some(entry) => drop(self.kept.insert(id, entry)),
                None => drop(self.kept.remove(&id)),
            }
        }
        self.endings.extend(self.machine.take_endings());
    }

    fn decide(&mut self, id: &'static str, marker: Marker) {
        let known = self.known.get_mut(id).unwrap();
        let open = known.open.take().unwrap();
        known.decided = Some((marker, open));
    }

    fn begin(&mut self, id: &'static str, resume: Option<(ProducerId, ProducerEpoch)>, now: Now) {
        let mut fresh = None;
        loop {
            let begun = begin(&mut self.machine, id, 50, resume, fresh, now);
            let known = self.known.get_mut(id).unwrap();
            match begun {
                Ok(Begun::NeedsProducer) => {
                    self.next_producer += 1;
                    fresh = Some(self.next_producer);
                }
                Ok(Begun::Ready(producer, epoch)) => {
                    assert!(known.open.is_none() && known.decided.is_none());
                    if let Some(last) = known.given.last()
                        && resume.is_none()
                    {
                        assert_ne!((producer, epoch), *last, "two have it at a time");
                        assert!(producer != last.0 || epoch > last.1);
                    }
                    if known.given.last() != Some(&(producer, epoch)) {
                        assert!(!known.given.contains(&(producer, epoch)), "given twice");
                        known.given.push((producer, epoch));
                    }
                    (known.superseded, known.ended) = (false, None);
                    return self.keep();
                }
                Ok(Begun::Ending) => {
                    if known.open.is_some() {
                        known.superseded = true;
                        self.decide(id, Marker::Abort);
                    }
                    return self.keep();
                }
                Err(TransactionError::Fenced { .. }) => {
                    assert!(resume.is_some(), "who says nothing is not refused");
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The restart of a server that was killed: what was not kept is lost.
    fn crash(&mut self, now: Now) {
        self.machine = Machine::restore(self.kept.values().cloned(), Rules::default(), now);
        self.endings = self.machine.take_endings();
        for (id, known) in &mut self.known {
            if let Some(open) = &mut known.open {
                // The time that was kept counts; the time since then, and that without a server, does not.
                open.until = now.wall + 50 - self.kept[*id].open_ms as i64;
            }
        }
    }

    /// All partitions of a transaction are marked; what follows is kept.
    fn finish(&mut self, ending: &Ending, now: Now) {
        let id = IDS.into_iter().find(|id| *id == ending.id).unwrap();
        let known = self.known.get_mut(id).unwrap();
        let (marker, open) = known.decided.take().expect("decided once");
        assert_eq!(ending.marker, marker);
        let marked: BTreeSet<u32> = ending.partitions.iter().map(|(_, partition)| *partition).collect();
        assert_eq!(marked, open.partitions);
        known.ended = Some(marker);
        let (positions, entry) = self.machine.finished(&ending.id, now).unwrap();
        let found: BTreeMap<u32, u64> = positions.iter().map(|(place, of)| (place.partition, of.offset)).collect();
        assert_eq!(found, if marker == Marker::Commit { open.staged } else { BTreeMap::new() });
        self.positions.extend(found);
        self.kept.insert(ending.id.clone(), entry.clone());
        self.machine.finish(entry, now);
    }

    fn assert_agrees(&self) {
        for (id, known) in &self.known {
            for (number, (producer, epoch)) in known.given.iter().enumerate() {
                let has_it = number + 1 == known.given.len() && !known.superseded;
                for partition in 0..4 {
                    let may = self.machine.may_write(*producer, *epoch, (TopicId(1), partition)).is_ok();
                    let open = known.open.as_ref().is_some_and(|open| open.partitions.contains(&partition));
                    assert_eq!(may, has_it && open, "{id} {producer}/{epoch} to {partition}: {known:?}");
                }
            }
            let live = known.open.as_ref().or(known.decided.as_ref().map(|(_, open)| open));
            for partition in 0..4 {
                let there = |known: &Known| {
                    let live = known.open.as_ref().or(known.decided.as_ref().map(|(_, open)| open));
                    live.is_some_and(|open| open.staged.contains_key(&partition))
                };
                assert_eq!(self.machine.is_staged(&place(partition)), self.known.values().any(there));
                if let (Some(open), Some((producer, _))) = (live, known.given.last()) {
                    let knows = self.machine.knows(*producer, (TopicId(1), partition));
                    assert_eq!(knows, open.partitions.contains(&partition));
                }
            }
            assert_eq!(self.machine.is_ending(id), known.decided.is_some(), "{id}");
        }
    }
}

#[test]
fn random_events_agree_with_a_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TIDELOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDELOG_ROUNDS").unwrap_or(200),
    };
    for seed in seeds {
        println!("TIDELOG_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut wall = 0;
        for _ in 0..300 {
            wall += rng.i64(0..4);
            let now = at(wall);
            let id = IDS[rng.usize(0..IDS.len())];
            let known = world.known[id].clone();
            let who = match rng.u32(0..5) {
                // Somebody who had it once, or nobody.
                0 if !known.given.is_empty() => known.given[rng.usize(0..known.given.len())],
                1 => (rng.i64(99..105), 0),
                _ => known.given.last().copied().unwrap_or((7, 0)),
            };
            let has_it = known.given.last() == Some(&who) && !known.superseded;
            let producer = Producer { id, producer: who.0, epoch: who.1 };
            match rng.u32(0..100) {
                0..10 => world.begin(id, None, now),
                10..18 => world.begin(id, Some(who), now),
                18..40 => {
                    let partition = rng.u32(0..4);
                    let name = group();
                    let grouped = rng.bool().then_some(&name);
                    let added = world.machine.add(producer, &[(TopicId(1), partition)], grouped, now);
                    assert_eq!(added.is_ok(), has_it && known.decided.is_none(), "{added:?} {known:?}");
                    if added.is_ok() {
                        let known = world.known.get_mut(id).unwrap();
                        known.ended = None;
                        let begins = Open { until: wall + 50, ..Open::default() };
                        let open = known.open.get_or_insert(begins);
                        open.partitions.insert(partition);
                        open.grouped |= grouped.is_some();
                    }
                    world.keep();
                }
                40..55 => {
                    let (partition, offset) = (rng.u32(0..4), rng.u64(0..1000));
                    let staged =
                        world.machine.stage(producer, &group(), vec![(place(partition), position(offset))], now);
                    let may = has_it && known.open.as_ref().is_some_and(|open| open.grouped);
                    assert_eq!(staged.is_ok(), may, "{staged:?} {known:?}");
                    if may {
                        let open = world.known.get_mut(id).unwrap().open.as_mut().unwrap();
                        open.staged.insert(partition, offset);
                    }
                    world.keep();
                }
                55..70 => {
                    let marker = if rng.bool() { Marker::Commit } else { Marker::Abort };
                    let before = world.machine.clone();
                    let ended = world.machine.end(producer, marker, now);
                    let decided = known.decided.as_ref().map(|(marker, _)| *marker);
                    let expected = match (has_it, &known.open, decided, known.ended) {
                        (true, Some(_), _, _) => Some(Ended::Decided),
                        (true, None, Some(decided), _) if decided == marker => Some(Ended::Decided),
                        (true, None, None, Some(ended)) if ended == marker => Some(Ended::Before),
                        _ => None,
                    };
                    assert_eq!(ended.as_ref().ok(), expected.as_ref(), "{known:?}");
                    if has_it && known.open.is_some() {
                        if rng.u32(0..4) == 0 {
                            // Killed before it was kept: it was not decided, and nobody was told so.
                            world.machine = before;
                            world.crash(now);
                        } else {
                            world.decide(id, marker);
                            world.keep();
                        }
                    }
                }
                70..90 if !world.endings.is_empty() => {
                    let ending = world.endings.swap_remove(rng.usize(0..world.endings.len()));
                    world.finish(&ending, now);
                }
                90..96 => {
                    for (late, _) in world.machine.tick(now) {
                        let late = IDS.into_iter().find(|id| *id == late).unwrap();
                        assert!(world.known[late].open.as_ref().is_some_and(|open| open.until <= wall));
                        world.known.get_mut(late).unwrap().superseded = true;
                        world.decide(late, Marker::Abort);
                    }
                    assert!(world.known.values().all(|known| known.open.as_ref().is_none_or(|open| open.until > wall)));
                    world.keep();
                }
                _ => world.crash(now),
            }
            world.assert_agrees();
        }
    }
}

#[test]
fn when_the_epochs_are_used_up_there_is_a_new_producer_id() {
    let mut machine = Machine::default();
    let mut given = BTreeSet::new();
    let mut fresh = Some(1);
    for _ in 0..70_000 {
        match begin(&mut machine, "a", 10, None, fresh.take(), at(0)).unwrap() {
            Begun::Ready(producer, epoch) => assert!(epoch >= 0 && given.insert((producer, epoch))),
            Begun::NeedsProducer => fresh = Some(given.last().unwrap().0 + 1),
            Begun::Ending => panic!("nothing is open"),
        }
    }
    assert_eq!(given.last().unwrap().0, 3);
}

#[test]
fn a_transaction_has_its_limits() {
    let mut machine = Machine::default();
    begin(&mut machine, "a", 10, None, Some(1), at(0)).unwrap();
    let who = Producer { id: "a", producer: 1, epoch: 0 };
    let partitions = |count: usize| (0..count as u32).map(|number| (TopicId(1), number)).collect::<Vec<_>>();
    assert_eq!(
        machine.add(who, &partitions(limits::TRANSACTION_PARTITIONS + 1), None, at(0)),
        Err(TransactionError::TooLarge)
    );
    machine.add(who, &partitions(limits::TRANSACTION_PARTITIONS), Some(&group()), at(0)).unwrap();
    let large =
        Position { offset: 1, metadata: "m".repeat(limits::POSITION_METADATA_BYTES), time_ms: 0, leader_epoch: None };
    let positions = |count: u32| (0..count).map(|number| (place(number), large.clone())).collect::<Vec<_>>();
    machine.stage(who, &group(), positions(100), at(0)).unwrap();
    assert_eq!(machine.stage(who, &group(), positions(100), at(0)), Err(TransactionError::TooLarge));
}

#[test]
fn the_last_epoch_of_all_is_given_to_nobody_so_that_it_can_supersede() {
    let mut machine = Machine::default();
    begin(&mut machine, "a", 10, None, Some(1), at(0)).unwrap();
    let mut entry = machine.entry("a").unwrap().clone();
    entry.epoch = ProducerEpoch::MAX - 1;
    let mut machine = Machine::restore([entry], Rules::default(), at(0));
    let (producer, epoch) = (1, ProducerEpoch::MAX - 1);
    machine.add(Producer { id: "a", producer, epoch }, &[(TopicId(1), 0)], None, at(0)).unwrap();
    assert_eq!(machine.tick(at(10)), [("a".to_owned(), 10)], "open for too long");
    let (_, entry) = machine.finished("a", at(10)).unwrap();
    machine.finish(entry, at(10));
    let resume = Some((producer, epoch));
    assert_eq!(begin(&mut machine, "a", 10, resume, None, at(10)), Ok(Begun::NeedsProducer));
    assert_eq!(begin(&mut machine, "a", 10, resume, Some(2), at(10)), Ok(Begun::Ready(2, 0)));
}

#[test]
fn all_open_transactions_together_hold_no_more_than_a_limit_and_room_comes_back() {
    let mut machine = Machine::default();
    let large =
        Position { offset: 1, metadata: "m".repeat(limits::POSITION_METADATA_BYTES), time_ms: 0, leader_epoch: None };
    let positions: Vec<_> = (0..100).map(|number| (place(number), large.clone())).collect();
    let mut staged = 0;
    let who = |id| Producer { id, producer: 0, epoch: 0 };
    let ids: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    for (producer, id) in (0..).zip(&ids) {
        let who = Producer { producer, ..who(id) };
        begin(&mut machine, id, 10, None, Some(producer), at(0)).unwrap();
        machine.add(who, &[], Some(&group()), at(0)).unwrap();
        match machine.stage(who, &group(), positions.clone(), at(0)) {
            Ok(()) => staged += 1,
            Err(error) => {
                assert_eq!(error, TransactionError::TooMuchHeld);
                break;
            }
        }
    }
    let each = positions.len() * limits::POSITION_METADATA_BYTES;
    assert!((1..=limits::TRANSACTIONS_BYTES / each).contains(&staged), "{staged}");
    machine.end(who("0"), Marker::Commit, at(0)).unwrap();
    let (_, entry) = machine.finished("0", at(0)).unwrap();
    machine.finish(entry, at(0));
    let last = Producer { producer: staged as i64, ..who(&ids[staged]) };
    machine.stage(last, &group(), positions, at(0)).unwrap();
}
