//! The machine against simulated members: answers get lost, members die and fall silent, topics come and grow, the server
//! crashes and goes on with what was kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::machine::*;
use crate::base::{TopicId, TopicName, TopicPattern, TopicRegex};
use crate::catalog::{Assignor, ConsumerEntry, MemberEntry};

const SESSION: Ms = 1000;
const HANDOVER: Ms = 3000;

fn topics(of: &[(&str, u128, u32)]) -> Topics {
    of.iter().map(|(name, id, partitions)| (TopicName::new(name).unwrap(), (TopicId(*id), *partitions))).collect()
}

fn joining(id: &str, topics: &[&str]) -> Joining {
    Joining {
        id: id.into(),
        instance: None,
        client: "test".into(),
        topics: topics.iter().map(|topic| TopicPattern::new(topic).unwrap()).collect(),
        session_ms: SESSION,
        handover_ms: HANDOVER,
        joined_ms: 0,
        consumer: None,
    }
}

/// A member that does what it is told: its epoch, and what it works on.
#[derive(Default, Clone, Debug)]
struct Client {
    epoch: Epoch,
    works: BTreeSet<At>,
}

impl Client {
    fn hear(&mut self, share: &Share) {
        self.epoch = share.epoch;
        for at in &share.taken {
            self.works.remove(at);
        }
        self.works.extend(&share.granted);
    }

    fn beat(&mut self, machine: &mut Machine, id: &str, now: Ms) -> Share {
        let share = machine.beat(id, self.epoch, Some(self.works.clone()), now).unwrap();
        self.hear(&share);
        share
    }
}

fn join(machine: &mut Machine, id: &str, of: &[&str], all: &Topics, now: Ms) -> Client {
    machine.join(joining(id, of), all, now).unwrap();
    let mut client = Client::default();
    client.hear(&machine.first_share(id, now).unwrap());
    client
}

/// Heartbeats until nobody is told anything new.
fn settle(machine: &mut Machine, clients: &mut [(&str, &mut Client)], now: Ms) {
    for _ in 0..10 {
        let mut news = false;
        for (id, client) in clients.iter_mut() {
            news |= client.beat(machine, id, now).news;
        }
        if !news {
            return;
        }
    }
    panic!("does not settle");
}

#[test]
fn a_partition_moves_only_when_its_owner_has_given_it_up() {
    let all = topics(&[("t", 1, 4)]);
    let mut machine = Machine::default();
    let mut one = join(&mut machine, "a", &["t"], &all, 0);
    assert_eq!((one.works.len(), one.epoch), (4, 1));
    let mut two = join(&mut machine, "b", &["t"], &all, 0);
    assert_eq!((two.works.len(), two.epoch), (0, 2));
    // It waits: nothing is free.
    let waits = machine.beat("b", two.epoch, None, 10).unwrap();
    assert!(!waits.news);
    let told = machine.beat("a", one.epoch, Some(one.works.clone()), 10).unwrap();
    assert_eq!((told.taken.len(), told.granted.len(), told.epoch, told.news), (2, 0, 1, true));
    // Told once; while it finishes, a heartbeat says nothing new, and the other still has nothing.
    assert!(!machine.beat("a", one.epoch, None, 20).unwrap().news);
    assert_eq!(machine.look_again("b", two.epoch, waits.beat, 20).unwrap().unwrap().granted, []);
    // What it is to give up is still its own to commit, the other's not yet.
    assert_eq!(machine.may_commit("a", 1, told.taken[0]), Ok(()));
    assert!(matches!(machine.may_commit("b", 2, told.taken[0]), Err(MemberError::NotOwner { .. })));
    let before = machine.version();
    one.hear(&told);
    let share = one.beat(&mut machine, "a", 30);
    assert_eq!((share.epoch, share.news), (2, true));
    assert_ne!(machine.version(), before);
    let share = machine.look_again("b", two.epoch, waits.beat, 30).unwrap().unwrap();
    assert_eq!((share.granted.clone(), share.epoch), (told.taken.clone(), 2));
    two.hear(&share);
    assert!(matches!(machine.may_commit("a", 1, told.taken[0]), Err(MemberError::NotOwner { .. })));
    assert_eq!(machine.may_commit("b", 2, told.taken[0]), Ok(()));
    // From before it owned it, and from a time that is not yet.
    assert!(machine.may_commit("b", 1, told.taken[0]).is_err());
    assert!(matches!(machine.may_commit("b", 3, told.taken[0]), Err(MemberError::Epoch { .. })));
    assert!(matches!(machine.may_commit("c", 1, told.taken[0]), Err(MemberError::Unknown { .. })));
    // A newer heartbeat takes the place of one that waits.
    let newer = machine.beat("b", 2, Some(two.works.clone()), 40).unwrap();
    assert_ne!(newer.beat, waits.beat);
    assert_eq!(machine.look_again("b", 2, waits.beat, 40), Ok(None));
}

#[test]
fn a_silent_member_is_gone_with_its_session_and_one_that_does_not_give_up_with_its_time() {
    let all = topics(&[("t", 1, 4)]);
    let mut machine = Machine::default();
    let mut one = join(&mut machine, "a", &["t"], &all, 0);
    let mut two = join(&mut machine, "b", &["t"], &all, 0);
    settle(&mut machine, &mut [("a", &mut one), ("b", &mut two)], 0);
    assert_eq!(two.works.len(), 2);
    two.beat(&mut machine, "b", 500);
    assert_eq!(machine.next_deadline(), Some(SESSION));
    assert_eq!(machine.tick(SESSION - 1), Vec::<Id>::new());
    assert_eq!(machine.tick(SESSION), [Id::from("a")]);
    assert_eq!(machine.beat("a", one.epoch, None, SESSION), Err(MemberError::Unknown { id: "a".into() }));
    two.beat(&mut machine, "b", SESSION);
    assert_eq!(two.works.len(), 4);
    // The newcomer is to have two; the owner lives but does not give up.
    join(&mut machine, "c", &["t"], &all, SESSION);
    let mut now = SESSION;
    let told = machine.beat("b", two.epoch, None, now).unwrap();
    assert_eq!(told.taken.len(), 2);
    while now < SESSION + HANDOVER {
        assert_eq!(machine.tick(now), Vec::<Id>::new());
        machine.beat("b", two.epoch, None, now).unwrap();
        machine.beat("c", 4, None, now).unwrap();
        now += SESSION / 2;
    }
    assert_eq!(machine.tick(now), [Id::from("b")]);
    let three = machine.beat("c", 4, None, now).unwrap();
    assert_eq!(three.granted.len(), 4);
}

#[test]
fn a_lost_answer_is_made_up_for_and_a_stale_epoch_is_not_heard() {
    let all = topics(&[("t", 1, 4)]);
    let mut machine = Machine::default();
    let mut one = join(&mut machine, "a", &["t"], &all, 0);
    join(&mut machine, "b", &["t"], &all, 0);
    // Lost: it is told the same again, and once it has heard, it goes on.
    let lost = machine.beat("a", 1, Some(one.works.clone()), 0).unwrap();
    assert_eq!(machine.beat("a", 1, Some(one.works.clone()), 0).unwrap().taken, lost.taken);
    one.hear(&lost);
    let lost = machine.beat("a", 1, Some(one.works.clone()), 0).unwrap();
    assert_eq!(lost.epoch, 2);
    assert_eq!(one.beat(&mut machine, "a", 0).epoch, 2);
    for epoch in [0, 1 + 2, 7] {
        assert!(matches!(machine.beat("a", epoch, None, 0), Err(MemberError::Epoch { current: 2, .. })), "{epoch}");
    }
    // One that joins again under its id has nothing in its hands.
    let again = join(&mut machine, "a", &["t"], &all, 0);
    assert_eq!((again.works.len(), again.epoch), (2, 3));
}

#[test]
fn the_next_of_an_instance_goes_on_with_what_the_one_before_had() {
    let all = topics(&[("t", 1, 4)]);
    let mut machine = Machine::default();
    let named = |id: &str| Joining { instance: Some("one".into()), ..joining(id, &["t"]) };
    machine.join(named("a"), &all, 0).unwrap();
    let mut two = join(&mut machine, "b", &["t"], &all, 0);
    let mut one = Client::default();
    one.hear(&machine.first_share("a", 0).unwrap());
    settle(&mut machine, &mut [("a", &mut one), ("b", &mut two)], 0);
    let in_use = machine.join(named("a2"), &all, 10).unwrap_err();
    assert_eq!(in_use.to_string(), "instance 'one' is in the group already, as member a");
    machine.leave("a", true, 10).unwrap();
    let epoch = two.beat(&mut machine, "b", 20).epoch;
    machine.join(named("a2"), &all, 20).unwrap();
    let share = machine.first_share("a2", 20).unwrap();
    assert_eq!((share.granted.iter().copied().collect::<BTreeSet<_>>(), share.epoch), (one.works, epoch));
    assert!(!machine.beat("b", two.epoch, None, 20).unwrap().news, "nothing changes for the others");
    // Away for longer than its session, it is gone; without a name there is nothing to keep.
    machine.leave("a2", true, 30).unwrap();
    two.beat(&mut machine, "b", 1000);
    assert_eq!(machine.tick(1030), [Id::from("a2")]);
    machine.leave("b", true, 1030).unwrap();
    assert!(machine.is_empty());
}

#[test]
fn members_get_what_they_want_of_what_there_is() {
    let mut all = topics(&[("crm.a", 1, 3), ("crm.b", 2, 3), ("erp", 3, 2)]);
    let mut machine = Machine::default();
    let mut crm = join(&mut machine, "crm", &["crm.>"], &all, 0);
    let mut erp = join(&mut machine, "erp", &["erp", "crm.b"], &all, 0);
    settle(&mut machine, &mut [("crm", &mut crm), ("erp", &mut erp)], 0);
    assert_eq!((crm.works.len(), erp.works.len()), (4, 4));
    assert!(erp.works.iter().all(|at| at.0 != TopicId(1)));
    // A topic that is created later, one with more partitions, and one that is gone.
    all.insert(TopicName::new("crm.c").unwrap(), (TopicId(4), 2));
    all.insert(TopicName::new("erp").unwrap(), (TopicId(3), 4));
    all.remove(&TopicName::new("crm.b").unwrap());
    machine.set_topics(&all);
    settle(&mut machine, &mut [("crm", &mut crm), ("erp", &mut erp)], 0);
    let of = |client: &Client| client.works.iter().map(|at| at.0.0).collect::<BTreeSet<_>>();
    assert_eq!((crm.works.len(), of(&crm)), (5, [1, 4].into()));
    assert_eq!((erp.works.len(), of(&erp)), (4, [3].into()));
    // It changes its mind, and what nobody wants is nobody's.
    machine.set_interest("erp", vec![TopicPattern::new("nothing").unwrap()], &all).unwrap();
    settle(&mut machine, &mut [("crm", &mut crm), ("erp", &mut erp)], 0);
    assert_eq!((crm.works.len(), erp.works.len()), (5, 0));
    assert!(machine.wants(&TopicName::new("crm.c").unwrap()) && !machine.wants(&TopicName::new("erp").unwrap()));
}

#[test]
fn a_large_share_is_told_piece_by_piece() {
    let many: Vec<(String, u128)> = (0..2500).map(|at| (format!("t.n{at}"), at + 1)).collect();
    let all: Topics = many.iter().map(|(name, id)| (TopicName::new(name).unwrap(), (TopicId(*id), 1))).collect();
    let mut machine = Machine::default();
    let mut one = join(&mut machine, "a", &["t.>"], &all, 0);
    assert_eq!(one.works.len(), TOLD_AT_ONCE);
    settle(&mut machine, &mut [("a", &mut one)], 0);
    assert_eq!(one.works.len(), 2500);
}

#[test]
fn a_group_with_many_members_and_topics_is_shared_out_by_few_answers() {
    let many: Vec<(String, u128)> = (0..2000).map(|at| (format!("t.n{at}"), at + 1)).collect();
    let all: Topics = many.iter().map(|(name, id)| (TopicName::new(name).unwrap(), (TopicId(*id), 2))).collect();
    let mut machine = Machine::default();
    let ids: Vec<String> = (0..100).map(|at| format!("m{at}")).collect();
    let mut clients: Vec<(&str, Client)> = Vec::new();
    for id in &ids {
        clients.push((id, join(&mut machine, id, &["t.>"], &all, 0)));
    }
    let mut list: Vec<(&str, &mut Client)> = clients.iter_mut().map(|(id, client)| (*id, client)).collect();
    settle(&mut machine, &mut list, 0);
    assert!(clients.iter().all(|(_, client)| client.works.len() == 40));
    // One goes: only those who get something of it are told; the others go on waiting, and their epochs hold.
    let waiting: Vec<Share> =
        clients.iter().map(|(id, client)| machine.beat(id, client.epoch, None, 0).unwrap()).collect();
    machine.leave("m0", false, 0).unwrap();
    let told = clients
        .iter()
        .zip(&waiting)
        .skip(1)
        .filter(|((id, client), waits)| machine.look_again(id, client.epoch, waits.beat, 0).unwrap().unwrap().news);
    assert_eq!(told.count(), 40);
    assert!(clients[1..].iter().all(|(id, client)| machine.beat(id, client.epoch, None, 0).is_ok()));
}

/// How many moves it takes at the least to make it even when all want the same.
fn least_moves(had: &[usize], members: usize, partitions: usize) -> usize {
    let mut had: Vec<usize> = had.to_vec();
    had.resize(members, 0);
    had.sort_by_key(|had| std::cmp::Reverse(*had));
    let (each, more) = (partitions / members, partitions % members);
    had.iter().enumerate().map(|(at, had)| had.saturating_sub(each + usize::from(at < more))).sum()
}

#[test]
fn shares_are_even_and_as_few_partitions_move_as_that_takes() {
    let mut random = seeded();
    for _ in 0..50 {
        let all = topics(&[("t.a", 1, random.u32(1..40)), ("t.b", 2, random.u32(1..40)), ("t.c", 3, random.u32(1..5))]);
        let partitions: usize = all.values().map(|(_, partitions)| *partitions as usize).sum();
        let mut machine = Machine::default();
        let mut clients: BTreeMap<String, Client> = BTreeMap::new();
        for step in 0..30 {
            let before: BTreeMap<String, BTreeSet<At>> =
                clients.iter().map(|(id, client)| (id.clone(), client.works.clone())).collect();
            if clients.len() > 1 && random.bool() {
                let gone = clients.keys().nth(random.usize(..clients.len())).unwrap().clone();
                clients.remove(&gone);
                machine.leave(&gone, false, 0).unwrap();
            } else {
                let id = format!("m{step}");
                clients.insert(id.clone(), join(&mut machine, &id, &["t.>"], &all, 0));
            }
            let mut list: Vec<_> = clients.iter_mut().map(|(id, client)| (id.as_str(), client)).collect();
            settle(&mut machine, &mut list, 0);
            let counts: Vec<usize> = clients.values().map(|client| client.works.len()).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), partitions);
            let stayed: Vec<&BTreeSet<At>> =
                before.iter().filter(|(id, _)| clients.contains_key(*id)).map(|(_, had)| had).collect();
            let lost: usize =
                before.iter().filter_map(|(id, had)| Some(had.difference(&clients.get(id)?.works).count())).sum();
            let had: Vec<usize> = stayed.iter().map(|had| had.len()).collect();
            assert_eq!(lost, least_moves(&had, clients.len(), partitions), "{had:?} {counts:?}");
        }
    }
}

fn seeded() -> fastrand::Rng {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7171);
    eprintln!("TIDELOG_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Everything: the machine, what is on its disk, and members in the world.
struct World {
    random: fastrand::Rng,
    machine: Machine,
    all: Topics,
    /// What is kept, and what is said but not kept yet, in the order it was said.
    disk: BTreeMap<Id, MemberEntry>,
    pending: Vec<(Id, Option<MemberEntry>)>,
    now: Ms,
    clients: BTreeMap<Id, Living>,
    ids: u32,
    next_topic: u128,
}

/// A member in the world, which knows only what it was told.
#[derive(Default)]
struct Living {
    epoch: Epoch,
    /// `None` until it has heard that it is in.
    works: Option<BTreeSet<At>>,
    /// Told to give up, and not finished yet; and until when it may take, for which it cannot have been told later than by
    /// the heartbeat after the last one whose answer it heard.
    finishing: BTreeMap<At, Ms>,
    /// When it sent the last heartbeat that was answered: its own idea of its session.
    sent: Ms,
    wants: Vec<TopicPattern>,
    /// It says what it has next time.
    changed: bool,
    /// A heartbeat that waits for news, and when it was sent.
    waits: Option<(u64, Ms)>,
}

impl Living {
    /// What it touches: nothing when its session may have ended, or when it may have been sent away for what it did not give
    /// up in time.
    fn touches(&self, now: Ms) -> BTreeSet<At> {
        if now >= self.sent + SESSION || self.finishing.values().any(|until| now >= *until) {
            return BTreeSet::new();
        }
        self.works.iter().flatten().chain(self.finishing.keys()).copied().collect()
    }
}

impl World {
    fn new(random: fastrand::Rng) -> Self {
        Self {
            random,
            machine: Machine::default(),
            all: topics(&[("t.a", 1, 5), ("u.b", 2, 3)]),
            disk: BTreeMap::new(),
            pending: Vec::new(),
            now: 0,
            clients: BTreeMap::new(),
            ids: 0,
            next_topic: 3,
        }
    }

    fn say(&mut self) {
        for change in self.machine.take_changes() {
            self.pending.retain(|(id, _)| *id != change.0);
            self.pending.push(change);
        }
    }

    fn keep(&mut self, count: usize) {
        for (id, entry) in self.pending.drain(..count) {
            match entry {
                Some(entry) => drop(self.disk.insert(id, entry)),
                None => drop(self.disk.remove(&id)),
            }
        }
    }

    fn interest(&mut self) -> Vec<TopicPattern> {
        let patterns: &[&str] = match self.random.u32(..4) {
            0 => &["t.>"],
            1 => &["u.>", "t.a"],
            _ => &["t.>", "u.>"],
        };
        patterns.iter().map(|pattern| TopicPattern::new(pattern).unwrap()).collect()
    }

    /// An answer reaches the member, or gets lost. It was durable before it was sent.
    fn answer(&mut self, id: &Id, sent: Ms, share: &Share, lost: bool) {
        self.say();
        if share.news {
            self.keep(self.pending.len());
        }
        if lost {
            return;
        }
        let Some(client) = self.clients.get_mut(id) else { return };
        let until = client.sent + HANDOVER;
        client.sent = client.sent.max(sent);
        client.epoch = share.epoch;
        let works = client.works.get_or_insert_default();
        for at in &share.taken {
            if works.remove(at) {
                client.finishing.insert(*at, until);
            }
        }
        client.changed |= !share.granted.is_empty();
        works.extend(&share.granted);
    }

    fn join(&mut self, id: Id) {
        let wants = self.clients[&id].wants.clone();
        let sent = self.now;
        // Some speak Kafka's protocol, and have a way of sharing out that they want.
        let consumer =
            self.random.bool().then(|| ConsumerEntry { assignor: self.assignor(), ..ConsumerEntry::default() });
        let joining = Joining { topics: wants, consumer, ..joining(&id, &[]) };
        let joined = self.machine.join(joining, &self.all, self.now);
        joined.unwrap();
        let share = self.machine.first_share(&id, self.now).unwrap();
        let lost = self.random.u32(..5) == 0;
        self.answer(&id, sent, &share, lost);
    }

    fn beat(&mut self, id: &Id) {
        let client = self.clients.get_mut(id).unwrap();
        if client.works.is_none() {
            return self.join(Arc::clone(id));
        }
        // It may take a while to finish what it is to give up.
        let finished: Vec<At> = client.finishing.keys().filter(|_| self.random.bool()).copied().collect();
        for at in &finished {
            client.finishing.remove(at);
        }
        client.changed |= !finished.is_empty();
        let all = client.works.iter().flatten().chain(client.finishing.keys()).copied().collect();
        let says = (client.changed || self.random.u32(..3) == 0).then_some(all);
        client.changed = false;
        let (epoch, sent) = (client.epoch, self.now);
        match self.machine.beat(id, epoch, says, self.now) {
            Ok(share) => {
                if let Some(client) = self.clients.get_mut(id) {
                    client.waits = (!share.news).then_some((share.beat, sent));
                }
                let lost = self.random.u32(..5) == 0;
                self.answer(id, sent, &share, lost);
                if lost && let Some(client) = self.clients.get_mut(id) {
                    client.changed = true;
                }
            }
            Err(_) => {
                // Sent away: all is lost, and it begins anew, under its id or another.
                let wants = self.clients.remove(id).unwrap().wants;
                let new = if self.random.bool() { Arc::clone(id) } else { self.new_id() };
                self.clients.insert(new, Living { wants, ..Living::default() });
            }
        }
    }

    /// A heartbeat that waits looks again.
    fn look(&mut self, id: &Id) {
        let client = self.clients.get_mut(id).unwrap();
        let Some((beat, sent)) = client.waits else { return };
        match self.machine.look_again(id, client.epoch, beat, self.now) {
            Ok(Some(share)) if share.news => {
                client.waits = None;
                let lost = self.random.u32(..5) == 0;
                client.changed |= lost;
                self.answer(id, sent, &share, lost);
            }
            Ok(Some(_)) => self.say(),
            // Superseded, or sent away, which its next heartbeat hears.
            Ok(None) | Err(_) => client.waits = None,
        }
    }

    fn assignor(&mut self) -> Option<Assignor> {
        *self.random.choice([None, Some(Assignor::Uniform), Some(Assignor::Range)].as_slice()).unwrap()
    }

    fn new_id(&mut self) -> Id {
        self.ids += 1;
        format!("m{}", self.ids).into()
    }

    fn any(&mut self) -> Option<Id> {
        let count = self.clients.len();
        (count > 0).then(|| Arc::clone(self.clients.keys().nth(self.random.usize(..count)).unwrap()))
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..4 if self.clients.len() < 8 => {
                let (id, wants) = (self.new_id(), self.interest());
                self.clients.insert(id, Living { wants, ..Living::default() });
            }
            // Killed: nobody is told.
            4..6 => {
                if let Some(id) = self.any() {
                    self.clients.remove(&id);
                }
            }
            6..8 => {
                if let Some(id) = self.any() {
                    self.clients.remove(&id);
                    let _ = self.machine.leave(&id, false, self.now);
                    self.say();
                }
            }
            8..10 => {
                let name = TopicName::new(&format!("{}.{}", self.random.choice(["t", "u"]).unwrap(), self.next_topic));
                let partitions = self.random.u32(1..6);
                self.all.insert(name.unwrap(), (TopicId(self.next_topic), partitions));
                self.next_topic += 1;
                if self.all.len() > 4 {
                    let gone = self.all.keys().nth(self.random.usize(..self.all.len())).unwrap().clone();
                    self.all.remove(&gone);
                }
                self.machine.set_topics(&self.all);
                self.say();
            }
            10..12 => {
                if let Some(mut of) = self.all.first_entry() {
                    of.get_mut().1 += 1;
                }
                self.machine.set_topics(&self.all);
                self.say();
            }
            12..14 => self.crash(),
            14 => {
                if let Some(id) = self.any() {
                    let change = Change { assignor: self.assignor(), ..Change::default() };
                    let _ = self.machine.change(&id, change, &self.all);
                    self.say();
                }
            }
            15..30 => {
                self.now += self.random.u64(1..SESSION / 2);
                self.machine.tick(self.now);
                self.say();
            }
            30..35 => {
                let count = self.random.usize(..=self.pending.len());
                self.keep(count);
            }
            35..55 => {
                if let Some(id) = self.any() {
                    self.look(&id);
                }
            }
            _ => {
                if let Some(id) = self.any() {
                    self.beat(&id);
                }
            }
        }
        self.check();
    }

    /// The server is killed and goes on with what it finds.
    fn crash(&mut self) {
        let count = self.random.usize(..=self.pending.len());
        self.keep(count);
        self.pending.clear();
        let kept = self.disk.iter().map(|(id, entry)| (Arc::clone(id), entry.clone()));
        self.machine = Machine::load(kept, &self.all, self.now);
        self.say();
    }

    /// One owner at a time.
    fn check(&self) {
        let mut owner: BTreeMap<At, &Id> = BTreeMap::new();
        for (id, client) in &self.clients {
            for at in client.touches(self.now) {
                if let Some(other) = owner.insert(at, id) {
                    panic!("{at:?} is worked on by {other} and {id}");
                }
            }
        }
    }

    /// Left alone, everybody soon has an even share, and every partition that is wanted is somebody's.
    fn calm(&mut self) {
        for _ in 0..60 {
            self.now += SESSION / 4;
            self.machine.tick(self.now);
            self.say();
            let ids: Vec<Id> = self.clients.keys().cloned().collect();
            for id in ids {
                if self.clients.contains_key(&id) {
                    self.beat(&id);
                    self.check();
                }
            }
        }
        let mut owner: BTreeMap<At, &Id> = BTreeMap::new();
        for (id, client) in &self.clients {
            assert!(client.finishing.is_empty());
            owner.extend(client.works.iter().flatten().map(|at| (*at, id)));
        }
        let load = |id: &Id| self.clients[id].works.as_ref().unwrap().len();
        for (name, (topic, partitions)) in &self.all {
            let wants = |client: &Living| client.wants.iter().any(|pattern| pattern.matches(name));
            let able: Vec<&Id> = self.clients.iter().filter(|(_, client)| wants(client)).map(|(id, _)| id).collect();
            for partition in 0..*partitions {
                match owner.get(&(*topic, partition)) {
                    Some(id) if self.machine.assignor_name() == "uniform" => {
                        assert!(able.iter().all(|other| load(id) <= load(other) + 1), "{name}/{partition}");
                    }
                    Some(id) => assert!(able.contains(id), "{name}/{partition}"),
                    None => assert!(able.is_empty(), "{name}/{partition} is nobody's"),
                }
            }
        }
    }
}

#[test]
fn a_partition_never_has_two_owners_whatever_happens_and_all_is_shared_out_in_the_end() {
    let mut random = seeded();
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    for _ in 0..rounds {
        let mut world = World::new(random.fork());
        for _ in 0..5 {
            for _ in 0..150 {
                world.step();
            }
            world.calm();
        }
    }
}

fn consuming(id: &str, instance: Option<&str>, assignor: Option<Assignor>, regex: Option<&str>) -> Joining {
    let regex = regex.map(|regex| TopicRegex::new(regex).unwrap());
    Joining {
        instance: instance.map(str::to_owned),
        consumer: Some(ConsumerEntry { assignor, regex, ..ConsumerEntry::default() }),
        ..joining(id, if regex_only(id) { &[] } else { &["t.a", "t.b"] })
    }
}

/// Members whose id begins so want what an expression says, and nothing else.
fn regex_only(id: &str) -> bool {
    id.starts_with('r')
}

fn owned(client: &Client) -> Vec<(u128, u32)> {
    client.works.iter().map(|at| (at.0.0, at.1)).collect()
}

#[test]
fn what_has_one_number_in_two_topics_goes_to_one_member_where_most_want_it_so() {
    let all = topics(&[("t.a", 1, 5), ("t.b", 2, 5)]);
    let mut machine = Machine::default();
    let mut clients: Vec<(&str, Client)> = Vec::new();
    for (id, instance) in [("z", Some("first")), ("a", None), ("b", None)] {
        machine.join(consuming(id, instance, Some(Assignor::Range), None), &all, 0).unwrap();
        let mut client = Client::default();
        client.hear(&machine.first_share(id, 0).unwrap());
        clients.push((id, client));
        settle(&mut machine, &mut clients.iter_mut().map(|(id, client)| (*id, client)).collect::<Vec<_>>(), 0);
    }
    assert_eq!((machine.assignor_name(), machine.is_settled()), ("range", true));
    assert_eq!(owned(&clients[0].1), [(1, 0), (1, 1), (2, 0), (2, 1)], "who has a place by name comes first");
    assert_eq!(owned(&clients[1].1), [(1, 2), (1, 3), (2, 2), (2, 3)]);
    assert_eq!(owned(&clients[2].1), [(1, 4), (2, 4)]);
    // Most want it evenly now, and it comes to that by few moves.
    for id in ["a", "b"] {
        let change = Change { assignor: Some(Assignor::Uniform), ..Change::default() };
        assert_eq!(machine.change(id, change.clone(), &all), Ok(true));
        assert_eq!(machine.change(id, change, &all), Ok(false));
    }
    settle(&mut machine, &mut clients.iter_mut().map(|(id, client)| (*id, client)).collect::<Vec<_>>(), 0);
    let mut loads: Vec<usize> = clients.iter().map(|(_, client)| client.works.len()).collect();
    loads.sort_unstable();
    assert_eq!((machine.assignor_name(), loads), ("uniform", vec![3, 3, 4]));
}

#[test]
fn an_expression_brings_topics_that_come_later_too() {
    let mut all = topics(&[("t.a", 1, 1), ("u.a", 2, 2)]);
    let mut machine = Machine::default();
    machine.join(consuming("r1", None, None, Some("[tv][.].*")), &all, 0).unwrap();
    let mut client = Client::default();
    client.hear(&machine.first_share("r1", 0).unwrap());
    assert_eq!(owned(&client), [(1, 0)]);
    let new = TopicName::new("v.x").unwrap();
    assert!(machine.wants(&new));
    all.insert(new, (TopicId(3), 1));
    machine.set_topics(&all);
    assert!(!machine.is_settled());
    settle(&mut machine, &mut [("r1", &mut client)], 0);
    assert_eq!(owned(&client), [(1, 0), (3, 0)]);
    let change = Change { regex: Some(TopicRegex::new("u.*").ok()), ..Change::default() };
    machine.change("r1", change, &all).unwrap();
    settle(&mut machine, &mut [("r1", &mut client)], 0);
    assert_eq!(owned(&client), [(2, 0), (2, 1)]);
    // All of that is kept.
    let kept: Vec<(Id, MemberEntry)> =
        machine.take_changes().into_iter().filter_map(|(id, entry)| Some((id, entry?))).collect();
    let mut machine = Machine::load(kept, &all, 0);
    assert!(machine.wants(&TopicName::new("u.b").unwrap()));
    assert!(!client.beat(&mut machine, "r1", 0).news);
}

#[test]
fn a_consumer_commits_where_nobody_else_is_the_owner() {
    let all = topics(&[("t.a", 1, 1), ("t.b", 2, 1)]);
    let mut machine = Machine::default();
    machine.join(consuming("a", None, None, None), &all, 0).unwrap();
    let epoch = machine.first_share("a", 0).unwrap().epoch;
    let elsewhere = (TopicId(9), 0);
    assert_eq!(machine.may_commit_as_consumer("a", epoch, elsewhere), Ok(()));
    assert!(matches!(machine.may_commit("a", epoch, elsewhere), Err(MemberError::NotOwner { .. })));
    assert!(matches!(machine.may_commit_as_consumer("a", epoch + 1, elsewhere), Err(MemberError::Epoch { .. })));
    assert!(matches!(machine.may_commit_as_consumer("b", epoch, elsewhere), Err(MemberError::Unknown { .. })));
    machine.join(consuming("b", Some("place"), None, None), &all, 0).unwrap();
    let second = machine.first_share("b", 0).unwrap();
    assert!(machine.may_commit_as_consumer("b", second.epoch, (TopicId(1), 0)).is_err(), "it is another's");
    assert_eq!(machine.check_instance("b", "place"), Ok(()));
    assert!(matches!(machine.check_instance("a", "place"), Err(MemberError::InstanceTaken { .. })));
    assert!(matches!(machine.check_instance("b", "nowhere"), Err(MemberError::Unknown { .. })));
}
