use std::sync::Arc;

use super::positions::{name, topic, with_records};
use crate::base::{Bytes, Clock, ErrorKind, ManualClock, Millis, TopicName, TopicPattern, limits};
use crate::broker::groups::table::GRACE_MS;
use crate::broker::*;
use crate::catalog::QueueSettings;
use crate::disk::RealDisk;

const DAY: u32 = 86_400_000;

pub(super) struct Bench {
    dir: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    config: BrokerConfig,
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut BrokerConfig)) -> (Self, Arc<Broker>) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = BrokerConfig { data_dir: dir.path().to_owned(), ..BrokerConfig::default() };
        change(&mut config);
        let bench = Self { dir, clock: Arc::new(ManualClock::at(1_700_000_000_000)), config };
        let broker = bench.open();
        // Members of groups of before have had their time to come back.
        bench.clock.advance(limits::MEMBERS_RETURN_MS as u32);
        (bench, broker)
    }

    fn open(&self) -> Arc<Broker> {
        assert!(self.dir.path().exists());
        Broker::open(self.config.clone(), Arc::new(RealDisk), self.clock.clone()).unwrap()
    }

    /// Lets so many days pass; groups that have expired are gone then.
    fn days(&self, broker: &Broker, days: u32) {
        for _ in 0..days {
            self.clock.advance(DAY);
            broker.find_expired_groups(self.clock.wall_ms());
        }
        broker.remove_expired_groups();
    }
}

pub(super) fn client(last: u8) -> Client {
    Client::of([10, 0, 0, last].into())
}

pub(super) async fn committed(broker: &Arc<Broker>, group: &str, metadata: &str) -> Result<u64, BrokerError> {
    let commits =
        vec![Commit { topic: topic(), partition: 0, offset: 1, metadata: metadata.to_owned(), leader_epoch: None }];
    let by = Committer::Admin;
    broker.commit_positions(&name(group), by, commits, Terms::AsSaid, true).await.and_then(|mut all| all.remove(0))
}

pub(super) fn queue(group: &str, topic: &str, settings: Option<QueueSettings>) -> JoinQueue {
    JoinQueue {
        group: name(group),
        settings,
        topics: vec![TopicPattern::new(topic).unwrap()],
        filter: None,
        start: OffsetAt::Beginning,
        prefetch: 1,
        client: String::new(),
    }
}

fn groups(broker: &Broker) -> Vec<String> {
    broker.list_groups().into_iter().map(|entry| entry.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_nobody_uses_expires_and_one_with_members_does_not() {
    let (bench, broker) = Bench::new(|_| {});
    with_records(&broker, 10).await;
    committed(&broker, "idle", "").await.unwrap();
    committed(&broker, "busy", "").await.unwrap();
    let hold = broker.hold_group(&name("busy"), GroupProtocol::Classic).await.unwrap();
    bench.days(&broker, 6);
    assert_eq!(groups(&broker), ["busy", "idle"]);
    bench.days(&broker, 2);
    assert_eq!(groups(&broker), ["busy"]);
    assert_eq!(broker.positions(&name("idle"), None).await, []);
    drop(hold);
    bench.days(&broker, 6);
    assert_eq!(groups(&broker), ["busy"], "it had members six days ago");
    // A commit alone is use.
    committed(&broker, "busy", "").await.unwrap();
    bench.days(&broker, 6);
    assert_eq!(groups(&broker), ["busy"]);
    bench.days(&broker, 2);
    assert_eq!(groups(&broker), [""; 0]);
    assert_eq!(broker.metrics.groups_expired.get(), 2);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_members_have_time_to_come_back() {
    let (bench, broker) = Bench::new(|_| {});
    with_records(&broker, 10).await;
    committed(&broker, "idle", "").await.unwrap();
    broker.shutdown().await;
    drop(broker);
    bench.clock.advance(30 * DAY);
    let broker = bench.open();
    broker.find_expired_groups(bench.clock.wall_ms());
    broker.remove_expired_groups();
    assert_eq!(groups(&broker), ["idle"]);
    bench.clock.advance(GRACE_MS as u32);
    broker.find_expired_groups(bench.clock.wall_ms());
    broker.remove_expired_groups();
    assert_eq!(groups(&broker), [""; 0]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_group_with_work_or_rules_of_its_own_stays() {
    let (bench, broker) = Bench::new(|_| {});
    with_records(&broker, 10).await;
    broker.metadata(&TopicName::new("empty").unwrap(), true).await.unwrap();
    let rules = QueueSettings { max_deliveries: 3, ..QueueSettings::default() };
    for (group, topic, settings) in
        [("with-work", "orders", None), ("with-rules", "empty", Some(rules)), ("nothing", "empty", None)]
    {
        drop(broker.join_queue(queue(group, topic, settings)).await.unwrap());
    }
    while !broker.queues.with_members().is_empty() {
        tokio::task::yield_now().await;
    }
    // Where they begin is kept with a time, which is to be one of before.
    broker.queues.keeper.kept().await.unwrap();
    bench.days(&broker, 30);
    assert_eq!(groups(&broker), ["with-rules", "with-work"]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_made_half_of_all_groups_pushes_out_his_own() {
    let (_bench, broker) = Bench::new(|config| config.max_groups = 8);
    with_records(&broker, 10).await;
    client(1).scope(committed(&broker, "honest", "")).await.unwrap();
    for number in 0..20 {
        let group = format!("random-{number:02}");
        client(2).scope(committed(&broker, &group, "")).await.unwrap();
    }
    assert_eq!(groups(&broker), ["honest", "random-16", "random-17", "random-18", "random-19"]);
    client(1).scope(committed(&broker, "another", "")).await.unwrap();
    // With every place taken, those of the client that has most go.
    for number in 0..4 {
        client(3).scope(committed(&broker, &format!("third-{number}"), "")).await.unwrap();
    }
    let left = groups(&broker);
    assert!(left.len() == 8 && left.contains(&"honest".to_owned()) && left.contains(&"another".to_owned()), "{left:?}");
    assert_eq!(broker.metrics.groups_evicted.get(), 18);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_that_makes_groups_knows_the_limit_and_names_it() {
    let (_bench, broker) = Bench::new(|config| config.max_groups = 2);
    with_records(&broker, 10).await;
    let mut holds = Vec::new();
    for group in ["a", "b"] {
        holds.push(broker.hold_group(&name(group), GroupProtocol::Stream).await.unwrap());
    }
    let says = |error: BrokerError| {
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(error.to_string(), "there are 2 groups that are in use, and the limit is 2 (max_groups)");
    };
    says(committed(&broker, "c", "").await.unwrap_err());
    for protocol in [GroupProtocol::Stream, GroupProtocol::Classic] {
        says(broker.hold_group(&name("c"), protocol).await.unwrap_err());
    }
    says(broker.declare_stream(&name("c")).unwrap_err());
    says(broker.join_queue(queue("c", "orders", None)).await.err().unwrap());
    // What is there already is not new.
    holds.push(broker.hold_group(&name("a"), GroupProtocol::Stream).await.unwrap());
    drop(holds);
    // Nobody looks again at once.
    _bench.clock.advance(1_000);
    committed(&broker, "c", "").await.unwrap();
    assert!(groups(&broker).contains(&"c".to_owned()));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_and_their_metadata_have_limits_for_all_and_for_each_client() {
    let (bench, broker) = Bench::new(|config| {
        config.max_group_positions = 4;
        config.max_group_metadata = Bytes(100);
    });
    with_records(&broker, 10).await;
    let mut holds = Vec::new();
    for group in ["a", "b", "c", "d", "e"] {
        holds.push(broker.hold_group(&name(group), GroupProtocol::Stream).await.unwrap());
    }
    let commit = async |group: usize, metadata: usize| {
        let commits = vec![Commit {
            topic: topic(),
            partition: 0,
            offset: 1,
            metadata: "m".repeat(metadata),
            leader_epoch: None,
        }];
        let by = Committer::Holder(&holds[group]);
        let outcome = broker.commit_positions(holds[group].name(), by, commits, Terms::AsSaid, true).await;
        outcome.unwrap().remove(0).map_err(|error| error.to_string())
    };
    let error = client(1).scope(commit(0, 51)).await.unwrap_err();
    assert!(error.contains("half of 100 (max_group_metadata)"), "{error}");
    client(1).scope(commit(0, 50)).await.unwrap();
    client(1).scope(commit(0, 50)).await.unwrap();
    client(1).scope(commit(1, 0)).await.unwrap();
    bench.clock.advance(1_000);
    let error = client(1).scope(commit(2, 0)).await.unwrap_err();
    assert!(error.starts_with("groups in use of 10.0.0.1 hold 2 positions"), "{error}");
    client(2).scope(commit(2, 50)).await.unwrap();
    client(2).scope(commit(3, 0)).await.unwrap();
    bench.clock.advance(1_000);
    let error = client(3).scope(commit(4, 0)).await.unwrap_err();
    assert!(error.starts_with("groups in use hold 4 positions; the limit is 4 (max_group_positions)"), "{error}");
    // What is there is committed on.
    client(3).scope(commit(2, 50)).await.unwrap();
    drop(holds);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_for_which_there_is_no_room_removes_one_unused_group_and_not_all() {
    let (_bench, broker) = Bench::new(|config| {
        config.max_group_positions = 8;
        config.max_group_metadata = Bytes(80);
    });
    with_records(&broker, 10).await;
    for number in 0..20 {
        client(1).scope(committed(&broker, &format!("g-{number:02}"), "0123456789")).await.unwrap();
    }
    assert_eq!(groups(&broker), ["g-16", "g-17", "g-18", "g-19"]);
    assert_eq!(broker.metrics.groups_evicted.get(), 16);
    broker.shutdown().await;
}

#[test]
fn a_group_is_remembered_for_seven_days() {
    assert_eq!(BrokerConfig::default().group_retention, Millis(u64::from(7 * DAY)));
}
