//! A server that ends at any operation of its disk, by a kill or a power cut, in the midst of rounds: what a member was told of
//! its share holds afterwards, or the group has gone on from there.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::base::{GroupName, SystemClock, TopicName};
use crate::broker::broker::lock;
use crate::broker::{
    Broker, BrokerConfig, BrokerError, ClassicError, ClassicJoin, ClassicVoice, Commit, GroupProtocol, OffsetAt,
    ResetQueue, ResetTo,
};
use crate::disk::{SimDisk, SimOptions};

use super::wish;

fn name() -> GroupName {
    GroupName::new("g").unwrap()
}

fn start(disk: &SimDisk) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: Path::new("/data").to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(disk.clone()), Arc::new(SystemClock::new()))
}

/// What a member was told last: its id, the generation, its share.
type Told = Arc<Mutex<Vec<(String, i32, Bytes)>>>;

fn member(id: &str) -> ClassicJoin {
    ClassicJoin { session_ms: 600_000, ..wish(id) }
}

/// Takes part in a round: joins, assigns to everybody the generation and its id if it leads, and notes what it hears.
async fn take_part(broker: Arc<Broker>, id: String, told: Told) -> Option<String> {
    let joined = broker.join_classic(&name(), member(&id)).await.ok()?;
    let share = |id: &str| (id.to_owned(), Bytes::from(format!("{}: {id}", joined.generation)));
    let shares = joined.members.iter().map(|(id, ..)| share(id)).collect();
    let voice = ClassicVoice { member: &joined.member, instance: None, generation: joined.generation };
    let share = broker.sync_classic(&name(), voice, (None, None), shares).await.ok()?;
    told.lock().unwrap().push((joined.member.clone(), joined.generation, share.assignment));
    Some(joined.member)
}

/// Two rounds: one member, then two. Ends where the disk does.
async fn rounds(broker: &Arc<Broker>, told: &Told) -> Option<()> {
    let first = take_part(Arc::clone(broker), String::new(), Arc::clone(told)).await?;
    let generation = told.lock().unwrap().last()?.1;
    let new = tokio::spawn(take_part(Arc::clone(broker), String::new(), Arc::clone(told)));
    let voice = ClassicVoice { member: &first, instance: None, generation };
    while broker.beat_classic(&name(), voice).is_ok() {
        if new.is_finished() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let old = take_part(Arc::clone(broker), first.clone(), Arc::clone(told)).await;
    old.and(new.await.unwrap()).map(drop)
}

async fn crash_at(nth: u64, power: bool) -> bool {
    let disk = SimDisk::new(SimOptions { seed: nth, capacity: None });
    let broker = start(&disk).unwrap();
    match power {
        true => disk.cut_power_at(nth),
        false => disk.kill_at(nth),
    }
    let told = Told::default();
    let whole = rounds(&broker, &told).await.is_some();
    // Where it has not come to an end, nothing reaches the disk any more.
    broker.shutdown().await;
    drop(broker);
    let disk = if power { disk.reboot() } else { disk.restart() };
    let broker = start(&disk).unwrap();
    let look = broker.classic_look(&name());
    let told = told.lock().unwrap().clone();
    let newest = told.iter().map(|(_, generation, _)| *generation).max().unwrap_or(0);
    let there = look.as_ref().map(|look| look.members.len()).unwrap_or_default();
    for (id, generation, share) in told.iter().filter(|(_, generation, _)| *generation == newest) {
        let voice = |generation| ClassicVoice { member: id, instance: None, generation };
        let look = look.as_ref().unwrap_or_else(|| panic!("at {nth}: nothing is known of {id}"));
        assert_eq!(look.protocol_type, "consumer");
        let found = look.members.iter().find(|member| member.id == *id);
        let found = found.unwrap_or_else(|| panic!("at {nth}: {id} is no member"));
        if broker.beat_classic(&name(), voice(*generation)).is_ok() {
            assert_eq!(found.assignment, *share, "at {nth}");
        } else {
            // The next round had been kept, and nobody had heard of it yet.
            assert_eq!(broker.beat_classic(&name(), voice(generation + 1)), Ok(()), "at {nth}");
        }
        assert_eq!(broker.beat_classic(&name(), voice(generation - 1)), Err(ClassicError::IllegalGeneration));
    }
    assert!(there >= usize::from(newest > 0));
    broker.shutdown().await;
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_a_member_was_told_outlives_a_crash_at_any_operation() {
    let at_each = async |power| {
        let mut nth = 0;
        while !crash_at(nth, power).await {
            nth += 1;
            assert!(nth < 200, "it never comes to an end");
        }
        assert!(nth > 3, "only {nth} operations");
    };
    tokio::join!(at_each(false), at_each(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_group_goes_with_its_members_and_with_the_group() {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: None });
    let broker = start(&disk).unwrap();
    let told = Told::default();
    rounds(&broker, &told).await.unwrap();
    let ids: Vec<String> = broker.classic_look(&name()).unwrap().members.into_iter().map(|member| member.id).collect();
    assert_eq!(ids.len(), 2);
    broker.shutdown().await;
    drop(broker);
    let broker = start(&disk.restart()).unwrap();
    assert_eq!(broker.group_protocol(&name()), Some(GroupProtocol::Classic));
    assert_eq!(broker.classic_members(&name()).len(), 2);
    for id in &ids {
        broker.leave_classic(&name(), id, None).unwrap();
    }
    broker.queues.keeper.kept().await.unwrap();
    broker.shutdown().await;
    drop(broker);
    let broker = start(&disk.restart()).unwrap();
    assert_eq!(broker.group_protocol(&name()), None, "everybody had left");
    rounds(&broker, &told).await.unwrap();
    broker.delete_group(&name(), true).await.unwrap();
    broker.shutdown().await;
    drop(broker);
    let broker = start(&disk.restart()).unwrap();
    assert!(broker.classic_look(&name()).is_none());
    // A group that is taken from its members by force is not theirs again.
    rounds(&broker, &told).await.unwrap();
    let topic = TopicName::new("t").unwrap();
    broker.metadata(&topic, true).await.unwrap();
    let (id, generation, _) = told.lock().unwrap().last().cloned().unwrap();
    let voice = ClassicVoice { member: &id, instance: None, generation };
    let commit = Commit { topic, partition: 0, offset: 5, metadata: String::new(), leader_epoch: None };
    assert!(broker.commit_classic(&name(), voice, vec![commit]).await.unwrap()[0].is_ok());
    let to = ResetTo::At(OffsetAt::Beginning);
    let reset =
        ResetQueue { group: name(), topics: Vec::new(), partitions: Vec::new(), to, force: true, dry_run: false };
    assert_eq!(broker.reset_queue(reset).await.unwrap().len(), 1);
    broker.shutdown().await;
    drop(broker);
    let broker = start(&disk.restart()).unwrap();
    assert!(broker.classic_look(&name()).is_none());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_too_large_is_not_kept_and_the_one_before_neither() {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: None });
    let broker = start(&disk).unwrap();
    let share = |bytes| vec![(String::new(), Bytes::from(vec![b'x'; bytes]))];
    let joined = broker.join_classic(&name(), member("")).await.unwrap();
    let kept = || broker.classics.2.load(std::sync::atomic::Ordering::Relaxed);
    let mut generation = joined.generation;
    for (bytes, is_kept) in [(700 * 1024, true), (800 * 1024, false), (700 * 1024, true)] {
        let mut shares = share(bytes);
        shares[0].0.clone_from(&joined.member);
        let voice = ClassicVoice { member: &joined.member, instance: None, generation };
        broker.sync_classic(&name(), voice, (None, None), shares).await.unwrap();
        broker.queues.keeper.kept().await.unwrap();
        let there = lock(&broker.catalog).classic(&name()).cloned();
        assert_eq!(there.map(|entry| entry.generation), is_kept.then_some(generation), "{bytes}");
        assert_eq!(kept() > bytes, is_kept);
        // The leader that joins again begins a round.
        generation = broker.join_classic(&name(), member(&joined.member)).await.unwrap().generation;
    }
    broker.shutdown().await;
    drop(broker);
    let broker = start(&disk.restart()).unwrap();
    assert_eq!(broker.classic_look(&name()).unwrap().members[0].assignment.len(), 700 * 1024);
    broker.shutdown().await;
}
