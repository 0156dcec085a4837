//! Transactions of a whole broker on a simulated disk: the power goes, or the process, at any operation. Seeds are printed;
//! `TIDELOG_SEED=n` runs one, `TIDELOG_ROUNDS=n` more of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::base::{GroupName, PartitionId, ProducerEpoch, ProducerId, SystemClock, TopicName};
use crate::broker::*;
use crate::catalog::TransactionClient;
use crate::disk::{SimDisk, SimOptions};
use crate::record::{BatchBuilder, BatchOptions, Batches, Marker, read_records};

const PATIENCE: Duration = Duration::from_secs(60);
const ID: &str = "copier";

fn wanted(client: &TransactionClient) -> BeginTransactional<'_> {
    BeginTransactional { id: ID, timeout_ms: 60_000, resume: None, client }
}

fn open(sim: &SimDisk) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig {
        data_dir: "/simulated".into(),
        sync_interval: crate::base::Millis(3_600_000),
        commit_threads: 2,
        ..BrokerConfig::default()
    };
    Broker::open(config, Arc::new(sim.clone()), Arc::new(SystemClock::new()))
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

async fn create(broker: &Arc<Broker>, partitions: u32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let new = NewTopic { name: topic(), partitions: Some(partitions), settings, if_not_exists: false };
    broker.create_topic(new).await.unwrap();
}

fn batch(value: &str, sequence: i32, (producer_id, producer_epoch): (ProducerId, ProducerEpoch)) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch,
        base_sequence: sequence,
        ..BatchOptions::default()
    });
    builder.push(5, None, Some(value.as_bytes()), &[]);
    builder.push(5, None, Some(value.as_bytes()), &[]);
    let mut batch = builder.build();
    if producer_id >= 0 {
        batch[22] |= 0x10;
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

fn reading(partition: PartitionId, offset: u64) -> FetchRequest<'static> {
    FetchRequest {
        topic: "t",
        partition,
        offset,
        max_bytes: 1 << 20,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    }
}

/// The values of the records of a partition that readers of what is committed see; each was written twice.
async fn values(broker: &Broker, partition: PartitionId) -> BTreeSet<u64> {
    let mut counts = std::collections::BTreeMap::new();
    let ends = broker.partition_ends("t", partition).unwrap();
    let mut offset = ends.log_start;
    while offset < ends.committed {
        let fetched = broker.fetch(reading(partition, offset)).await.unwrap();
        assert!(fetched.next_offset > offset);
        offset = fetched.next_offset;
        for value in texts(fetched.bytes) {
            *counts.entry(value.parse().unwrap()).or_insert(0) += 1;
        }
    }
    assert!(counts.values().all(|count| *count == 2), "not whole, or twice: {counts:?}");
    counts.into_keys().collect()
}

fn texts(bytes: Bytes) -> Vec<String> {
    let mut texts = Vec::new();
    for batch in Batches::new(bytes) {
        let records = read_records(&batch.unwrap().1, 1 << 20).unwrap().map(Result::unwrap);
        texts.extend(records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    texts
}

async fn position(broker: &Arc<Broker>) -> Option<u64> {
    broker.positions(&group(), Some(vec![(topic(), 0)])).await.first().map(|position| position.offset)
}

/// What was said of the transactions, by their numbers.
#[derive(Default)]
struct Told {
    committed: BTreeSet<u64>,
    aborted: BTreeSet<u64>,
}

/// One transaction: a batch in each of two partitions, and a position.
async fn transact(
    broker: &Arc<Broker>,
    identity: (ProducerId, ProducerEpoch),
    (number, sequence): (u64, i32),
    marker: Marker,
    told: &mut Told,
) -> Result<(), BrokerError> {
    let who = Producer { id: ID, producer: identity.0, epoch: identity.1 };
    broker.add_partitions(who, &[(topic(), 0), (topic(), 1)]).await?;
    broker.add_group(who, &group()).await?;
    for partition in [0, 1] {
        broker.produce("t", partition, batch(&number.to_string(), sequence, identity), AckLevel::Durable).await?;
    }
    let commit = Commit { topic: topic(), partition: 0, offset: number, metadata: String::new(), leader_epoch: None };
    for outcome in broker.stage_positions(who, &group(), vec![commit]).await? {
        outcome?;
    }
    broker.end_transaction(who, marker).await?;
    match marker {
        Marker::Commit => told.committed.insert(number),
        Marker::Abort => told.aborted.insert(number),
    };
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_counts_as_a_whole_or_not_at_all_wherever_the_power_or_the_process_goes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TIDELOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDELOG_ROUNDS").unwrap_or(3),
    };
    for seed in seeds {
        println!("TIDELOG_SEED={seed}");
        tokio::time::timeout(PATIENCE * 10, crashes(seed)).await.expect("it hangs");
    }
}

async fn crashes(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sim = SimDisk::new(SimOptions { seed, ..SimOptions::default() });
    let mut broker = open(&sim).unwrap();
    create(&broker, 2, &[]).await;
    let mut told = Told::default();
    let mut next = 1;
    let mut before = None;
    for round in 0..8 {
        // Who asks anew for the id ends what was open or decided when the server went.
        let identity = broker.begin_transactional(wanted(&TransactionClient::default())).await.unwrap();
        let context = format!("seed {seed} round {round}");
        let seen = values(&broker, 0).await;
        assert_eq!(seen, values(&broker, 1).await, "{context}: all partitions, or none");
        assert!(told.committed.is_subset(&seen), "{context}: {:?} were committed, {seen:?} are seen", told.committed);
        assert!(told.aborted.is_disjoint(&seen), "{context}: {:?} were aborted, {seen:?} are seen", told.aborted);
        assert_eq!(position(&broker).await, seen.last().copied(), "{context}: positions go with it");
        for partition in [0, 1] {
            let ends = broker.partition_ends("t", partition).unwrap();
            assert_eq!(ends.committed, ends.stable, "{context}: nothing is open");
        }
        if let Some(old) = before {
            let refused = broker.produce("t", 0, batch("0", 0, old), AckLevel::Durable).await.unwrap_err();
            assert_eq!(refused.kind(), crate::base::ErrorKind::FencedProducer, "{context}: {refused}");
        }
        before = Some(identity);
        let kill = rng.bool();
        let at = rng.u64(0..90);
        if kill {
            sim.kill_at(at)
        } else {
            sim.cut_power_at(at)
        }
        for at in 0..6 {
            let marker = if rng.u32(0..3) == 0 { Marker::Abort } else { Marker::Commit };
            let number = next;
            next += 1;
            // What is decided is carried out for as long as it takes; with the power off, that is not waited for.
            let done = transact(&broker, identity, (number, at * 2), marker, &mut told);
            if !matches!(tokio::time::timeout(Duration::from_secs(1), done).await, Ok(Ok(()))) {
                break;
            }
        }
        broker.shutdown().await;
        drop(broker);
        sim = if kill { sim.restart() } else { sim.reboot() };
        broker = open(&sim).unwrap();
    }
    assert!(!told.committed.is_empty());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_in_a_transaction_does_not_hold_beyond_what_a_power_cut_left() {
    let mut lost = 0;
    for seed in 0..6 {
        let sim = SimDisk::new(SimOptions { seed, ..SimOptions::default() });
        let broker = open(&sim).unwrap();
        create(&broker, 1, &[("durability", "interval")]).await;
        for _ in 0..5 {
            broker.produce("t", 0, batch("1", -1, (-1, -1)), AckLevel::Written).await.unwrap();
        }
        let (producer, epoch) = broker.begin_transactional(wanted(&TransactionClient::default())).await.unwrap();
        let who = Producer { id: ID, producer, epoch };
        broker.add_group(who, &group()).await.unwrap();
        let commit = Commit { topic: topic(), partition: 0, offset: 10, metadata: String::new(), leader_epoch: None };
        broker.stage_positions(who, &group(), vec![commit]).await.unwrap();
        let before = sim.reboot();
        broker.shutdown().await;
        drop(broker);
        let broker = open(&before).unwrap();
        let end = broker.partition_ends("t", 0).unwrap().stable;
        lost += u64::from(end < 10);
        broker.end_transaction(who, Marker::Commit).await.unwrap();
        assert_eq!(position(&broker).await, Some(end), "seed {seed}");
        broker.shutdown().await;
    }
    assert!(lost > 0, "nothing was lost, so nothing was shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_aborted_is_not_shown_to_who_reads_while_it_is_deleted() {
    let sim = SimDisk::new(SimOptions::default());
    let broker = open(&sim).unwrap();
    create(&broker, 2, &[]).await;
    let identity = broker.begin_transactional(wanted(&TransactionClient::default())).await.unwrap();
    transact(&broker, identity, (1, 0), Marker::Abort, &mut Told::default()).await.unwrap();
    // It has read what there is and waits for more.
    let request = FetchRequest { min_bytes: 1 << 20, max_wait: Duration::from_secs(2), ..reading(0, 0) };
    let mut waiting = Box::pin(broker.fetch(request));
    let begun = futures_util::poll!(&mut waiting);
    assert!(begun.is_pending());
    broker.delete_records("t", 0, None, SETTLE).await.unwrap();
    let texts = waiting.await.map_or_else(|_| Vec::new(), |fetched| texts(fetched.bytes));
    assert_eq!(texts, [""; 0], "it was aborted");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_aborted_is_given_to_no_member_of_a_queue_group() {
    let sim = SimDisk::new(SimOptions::default());
    let broker = open(&sim).unwrap();
    create(&broker, 2, &[]).await;
    for (number, marker) in [(1, Marker::Abort), (2, Marker::Commit), (3, Marker::Abort), (4, Marker::Commit)] {
        let identity = broker.begin_transactional(wanted(&TransactionClient::default())).await.unwrap();
        transact(&broker, identity, (number, 0), marker, &mut Told::default()).await.unwrap();
    }
    let join = JoinQueue {
        group: GroupName::new("workers").unwrap(),
        settings: None,
        topics: vec![crate::base::TopicPattern::new("t").unwrap()],
        filter: None,
        start: OffsetAt::Beginning,
        prefetch: 100,
        client: "test".into(),
    };
    let member = broker.join_queue(join).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 8 {
        let handed = tokio::time::timeout(PATIENCE, member.next()).await.expect("nothing comes").unwrap();
        got.extend(texts(handed.batch));
    }
    got.sort();
    assert_eq!(got, ["2", "2", "2", "2", "4", "4", "4", "4"], "two records in two partitions each");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_deleted_takes_along_what_a_transaction_has_for_it() {
    let sim = SimDisk::new(SimOptions::default());
    let broker = open(&sim).unwrap();
    create(&broker, 1, &[]).await;
    let (producer, epoch) = broker.begin_transactional(wanted(&TransactionClient::default())).await.unwrap();
    let who = Producer { id: ID, producer, epoch };
    broker.add_group(who, &group()).await.unwrap();
    let commit = Commit { topic: topic(), partition: 0, offset: 0, metadata: String::new(), leader_epoch: None };
    broker.stage_positions(who, &group(), vec![commit.clone()]).await.unwrap();
    broker.delete_group(&group(), false).await.unwrap();
    assert!(broker.stage_positions(who, &group(), vec![commit]).await.is_err(), "it is no part of it any more");
    broker.declare_stream(&group()).unwrap();
    broker.end_transaction(who, Marker::Commit).await.unwrap();
    assert_eq!(position(&broker).await, None, "the new group has nothing of the old one");
    broker.shutdown().await;
}
