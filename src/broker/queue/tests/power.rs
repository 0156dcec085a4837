//! Power cuts on the simulated disk at any operation take records of a topic with `durability=interval` that were written and not
//! synced, and their offsets are given anew. What a group has done of those is nothing that it has done of the new ones: a queue
//! group and a stream group both see every record that is there in the end, and of what is gone there is no dead letter.
//! `TIDELOG_ROUNDS=n` cuts it that many times for each seed (12 if not set).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::groups::{join, name, next, number, say};
use crate::base::{GroupName, Offset, SystemClock, TopicName};
use crate::broker::records::Reading;
use crate::broker::*;
use crate::disk::{Disk, RealDisk, SimDisk, SimOptions};
use crate::record::{BatchBuilder, BatchOptions};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
/// Records that are a multiple of it are never acked.
const POISON: u64 = 23;

fn start(sim: &SimDisk, dir: &Path) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(sim.clone()), Arc::new(SystemClock::new()))
}

/// What the groups have seen, by what it was and not by where it was.
#[derive(Default)]
struct Seen {
    queue: Mutex<BTreeSet<u64>>,
    stream: Mutex<BTreeSet<u64>>,
}

/// Acks what comes, but poison, until the broker is gone.
async fn work(broker: Arc<Broker>, seen: Arc<Seen>) {
    let Ok(member) = broker.join_queue(join("orders", 5)).await else { return };
    while let Ok(Some(handed)) = tokio::time::timeout(LONG, member.next()).await {
        member.sent(handed.batch.len());
        let mut says = Vec::new();
        for record in super::groups::records(handed.batch.clone()) {
            let poison = number(&record).is_multiple_of(POISON);
            let verdict = if poison { Verdict::Nack { delay_ms: Some(0), reason: None } } else { Verdict::Ack };
            says.push(say(&handed, record.offset, record.offset + 1, verdict));
            seen.queue.lock().unwrap().insert(number(&record));
        }
        let _ = member.settle(&says, true).await;
    }
}

fn reader() -> GroupName {
    GroupName::new("reader").unwrap()
}

/// Reads on from its position and commits, until that fails or it is at the end.
async fn read_on(broker: &Arc<Broker>, seen: &Seen) {
    loop {
        let at: Offset = broker.positions(&reader(), None).await.first().map_or(0, |position| position.offset);
        let Ok((records, end)) =
            broker.records_on(&mut Reading::passing(), "test", ("orders", 0), at, 1 << 20, Isolation::Committed).await
        else {
            return;
        };
        if end == at {
            return;
        }
        seen.stream.lock().unwrap().extend(records.iter().map(number));
        let topic = TopicName::new("orders").unwrap();
        let commit = vec![Commit { topic, partition: 0, offset: end, metadata: String::new(), leader_epoch: None }];
        if broker.commit_positions(&reader(), Committer::Admin, commit, Terms::Forward, true).await.is_err() {
            return;
        }
    }
}

async fn values_of(broker: &Arc<Broker>, topic: &str) -> Vec<u64> {
    let (mut at, mut values) = (0, Vec::new());
    loop {
        let (records, end) = broker
            .records_on(&mut Reading::passing(), "test", (topic, 0), at, 1 << 20, Isolation::Committed)
            .await
            .unwrap();
        if end == at {
            return values;
        }
        values.extend(records.iter().map(number));
        at = end;
    }
}

async fn cut_again_and_again(seed: u64) {
    println!("seed {seed}");
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
    let broker = start(&sim, dir.path()).unwrap();
    let settings = vec![("durability".to_owned(), "interval".to_owned())];
    let topic = TopicName::new("orders").unwrap();
    broker.create_topic(NewTopic { name: topic, partitions: Some(1), settings, if_not_exists: false }).await.unwrap();
    let (mut running, mut value, mut forgotten) = (Some(broker), 0, 0);
    let seen = Arc::new(Seen::default());
    for _ in 0..rounds {
        sim.cut_power_at(random.u64(1..500));
        let broker = match running.take() {
            Some(broker) => Some(broker),
            None => start(&sim, dir.path()).ok(),
        };
        if let Some(broker) = broker {
            forgotten += broker.startup().notes.iter().filter(|note| note.contains("group 'erp'")).count();
            let working = tokio::spawn(work(Arc::clone(&broker), Arc::clone(&seen)));
            for _ in 0..60 {
                let mut builder = BatchBuilder::new(BatchOptions::default());
                for _ in 0..random.u64(1..5) {
                    value += 1;
                    builder.push(5, Some(b"k"), Some(value.to_string().as_bytes()), &[]);
                }
                let produced = broker.produce("orders", 0, builder.build(), AckLevel::Written);
                if tokio::time::timeout(LONG, produced).await.unwrap().is_err() {
                    break;
                }
                read_on(&broker, &seen).await;
                // Not for long: the power may be gone.
                for _ in 0..40 {
                    let described = broker.describe_group(&name()).await;
                    if described.is_ok_and(|group| group.partitions.iter().all(|partition| partition.lag == 0)) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            broker.shutdown().await;
            working.await.unwrap();
        }
        sim = sim.reboot();
        if random.bool() {
            // The view is no part of what must survive.
            let _ = RealDisk.remove_dir_all(&dir.path().join("view"));
        }
    }
    let broker = start(&sim, dir.path()).unwrap();
    // What is there then is all that is looked at.
    let there: BTreeSet<u64> = values_of(&broker, "orders").await.into_iter().collect();
    let working = tokio::spawn(work(Arc::clone(&broker), Arc::clone(&seen)));
    read_on(&broker, &seen).await;
    let done = tokio::time::timeout(LONG, async {
        // Another may be taking the group into use at this moment.
        let lag = |group: GroupDescription| group.partitions.first().map_or(1, |partition| partition.lag);
        while broker.describe_group(&name()).await.map_or(1, lag) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    done.await.unwrap();
    for (group, seen) in [("queue", &seen.queue), ("stream", &seen.stream)] {
        let missed: Vec<u64> = there.difference(&seen.lock().unwrap()).copied().collect();
        assert!(missed.is_empty(), "seed {seed}: never seen by the {group} group: {missed:?}");
    }
    let poison: Vec<u64> = there.iter().copied().filter(|value| value.is_multiple_of(POISON)).collect();
    let mut dead = match poison.is_empty() {
        true => Vec::new(),
        false => values_of(&broker, "dead-letter.erp").await,
    };
    dead.sort_unstable();
    assert_eq!(dead, poison, "seed {seed}: dead letters, each once, and none of what is gone");
    println!("{} of {value} records left, {forgotten} times something was forgotten", there.len());
    broker.shutdown().await;
    working.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_group_takes_a_record_for_one_that_a_power_cut_took_away() {
    for seed in 0..4 {
        cut_again_and_again(seed).await;
    }
}

/// As if the log had been longer: what is beyond its end is forgotten, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_beyond_what_a_log_has_left_is_forgotten() {
    use super::groups::{open, produce};
    use crate::catalog::{Chunk, Event, Failed, Place, Position};
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["ahead", "apart"] {
        produce(&broker, topic, 0..10).await;
    }
    drop(broker.join_queue(join(">", 1)).await.unwrap());
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    let place = |topic: &str| Place { group: name(), topic: broker.topic(topic).unwrap().entry.id, partition: 0 };
    let position = |offset| Some(Position { offset, metadata: String::new(), time_ms: 5, leader_epoch: None });
    let failed = |at| Failed { at, deliveries: 1, due_ms: 5 };
    let chunk = Chunk { done: vec![(7, 1), (9, 4), (15, 2)], failed: vec![failed(8), failed(13)] };
    let events = vec![
        Event::PositionSet { place: place("ahead"), position: position(15) },
        Event::PositionSet { place: place("apart"), position: position(7) },
        Event::ChunkSet { place: place("apart"), number: 0, chunk: Some(chunk) },
    ];
    crate::broker::broker::lock(&broker.catalog).commit_all(events, 5).unwrap();
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let notes = &broker.startup().notes;
    assert!(notes.contains(&"group 'erp': position 15 of ahead/0 is now 10, its end".to_owned()), "{notes:?}");
    let forgotten = "group 'erp': 5 acks of records that a power cut took from apart/0 are forgotten".to_owned();
    assert!(notes.contains(&forgotten), "{notes:?}");
    for topic in ["ahead", "apart"] {
        produce(&broker, topic, 10..20).await;
    }
    let member = broker.join_queue(JoinQueue { topics: vec![], settings: None, ..join("x", 1000) }).await.unwrap();
    let mut got = BTreeSet::new();
    while got.len() < 10 + 11 {
        let (handed, records) = next(&member).await;
        got.extend(records.iter().map(|record| (handed.topic.to_string(), number(record))));
    }
    let expected = (10..20).map(|at| ("ahead", at)).chain([8].into_iter().chain(10..20).map(|at| ("apart", at)));
    assert!(got.iter().map(|(topic, at)| (topic.as_str(), *at)).eq(expected), "{got:?}");
    broker.shutdown().await;
}
