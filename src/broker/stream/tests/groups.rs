use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorKind, GroupName, SystemClock, TopicId, TopicName, TopicPattern};
use crate::broker::*;
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions};

const LONG: Duration = Duration::from_secs(60);

fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap()
}

fn group() -> GroupName {
    GroupName::new("erp").unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn join(topics: &[&str]) -> JoinStream {
    JoinStream {
        group: group(),
        member: None,
        instance: None,
        topics: topics.iter().map(|topic| TopicPattern::new(topic).unwrap()).collect(),
        filter: None,
        start: Some(OffsetAt::Beginning),
        session_ms: 60_000,
        handover_ms: 60_000,
        client: "test".into(),
    }
}

async fn create(broker: &Arc<Broker>, name: &str, partitions: u32) {
    let new = NewTopic { name: topic(name), partitions: Some(partitions), settings: vec![], if_not_exists: false };
    broker.create_topic(new).await.unwrap();
}

async fn produce(broker: &Arc<Broker>, name: &str, partition: u32, records: u64) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..records {
        builder.push(5, None, Some(b"x"), &[]);
    }
    broker.produce(name, partition, builder.build(), AckLevel::Durable).await.unwrap();
}

/// A member as it sees itself.
struct Member {
    id: String,
    epoch: Epoch,
    owns: Vec<StreamPartition>,
}

impl Member {
    async fn new(broker: &Arc<Broker>, join: JoinStream) -> Self {
        let share = broker.join_stream(join).await.unwrap().share;
        let mut member = Self { id: share.member.clone(), epoch: 0, owns: Vec::new() };
        member.hear(share);
        member
    }

    fn hear(&mut self, share: StreamShare) {
        self.epoch = share.epoch;
        self.owns.retain(|own| !share.taken.contains(&(own.id, own.partition)));
        self.owns.extend(share.granted);
    }

    fn says(&self, wait: Duration) -> StreamBeat {
        let owned: Vec<(TopicId, u32)> = self.owns.iter().map(|own| (own.id, own.partition)).collect();
        let (member, epoch) = (self.id.clone(), self.epoch);
        StreamBeat { group: group(), member, epoch, owned: Some(owned), topics: None, wait }
    }

    async fn beat(&mut self, broker: &Arc<Broker>) {
        let share = broker.beat_stream(self.says(Duration::ZERO)).await.unwrap();
        self.hear(share);
    }

    async fn commit(&self, broker: &Arc<Broker>, partition: u32, offset: u64) -> Result<u64, ErrorKind> {
        let commit = Commit { topic: topic("t"), partition, offset, metadata: String::new(), leader_epoch: None };
        let by = Committer::Member { id: &self.id, epoch: self.epoch };
        let outcomes = broker.commit_positions(&group(), by, vec![commit], Terms::Forward, true).await;
        outcomes.map_err(|error| error.kind())?.remove(0).map_err(|error| error.kind())
    }

    fn has(&self) -> Vec<(String, u32, Option<u64>)> {
        let mut has: Vec<_> =
            self.owns.iter().map(|own| (own.topic.to_string(), own.partition, own.position)).collect();
        has.sort();
        has
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_what_they_own_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t", 2).await;
    produce(&broker, "t", 0, 10).await;
    let mut one = Member::new(&broker, join(&["t"])).await;
    let mut two = Member::new(&broker, join(&["t"])).await;
    one.beat(&broker).await;
    one.beat(&broker).await;
    two.beat(&broker).await;
    assert_eq!((one.has().len(), two.has().len()), (1, 1));
    let (zero, other) = if one.has()[0].1 == 0 { (&one, &two) } else { (&two, &one) };
    assert_eq!(zero.commit(&broker, 0, 7).await, Ok(7));
    assert_eq!(zero.commit(&broker, 0, 6).await, Ok(7), "an old commit that comes late");
    assert_eq!(zero.commit(&broker, 0, 11).await, Err(ErrorKind::OffsetOutOfRange));
    assert_eq!(other.commit(&broker, 0, 8).await, Err(ErrorKind::FencedMember));
    let epoch = one.epoch;
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    assert_eq!(broker.group_protocol(&group()), Some(GroupProtocol::Stream));
    // They go on without joining, and nothing moves.
    for member in [&mut one, &mut two] {
        let share = broker.beat_stream(member.says(Duration::ZERO)).await.unwrap();
        assert_eq!((share.granted, share.taken, share.epoch), (vec![], vec![], epoch));
    }
    let described = broker.describe_group(&group()).await.unwrap();
    let lags: Vec<_> = described.partitions.iter().map(|partition| (partition.floor, partition.lag)).collect();
    assert_eq!(lags, [(7, 3), (0, 0)]);
    assert_eq!((described.members.len(), described.members[0].owns.len()), (2, 1));
    assert!(described.members.iter().all(|member| member.heard_ms.is_some() && member.client == "test"));
    assert!(described.partitions.iter().all(|partition| partition.owner.is_some()));
    assert_eq!(described.partitions[0].oldest_ms, Some(5));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_when_another_goes_and_goes_on_where_that_was() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t", 1).await;
    produce(&broker, "t", 0, 10).await;
    let one = Member::new(&broker, join(&["t"])).await;
    let mut two = Member::new(&broker, JoinStream { session_ms: 300, ..join(&["t"]) }).await;
    assert_eq!((one.has(), two.has()), (vec![("t".into(), 0, Some(0))], vec![]));
    let waits = tokio::spawn({
        let (broker, beat) = (Arc::clone(&broker), two.says(LONG));
        async move { broker.beat_stream(beat).await }
    });
    assert_eq!(one.commit(&broker, 0, 4).await, Ok(4));
    broker.leave_stream(&group(), &one.id, false).await.unwrap();
    two.hear(waits.await.unwrap().unwrap());
    assert_eq!(two.has(), [("t".into(), 0, Some(4))]);
    assert_eq!(one.commit(&broker, 0, 5).await, Err(ErrorKind::FencedMember));
    // It falls silent: soon another protocol may have the group.
    while broker.group_protocol(&group()).is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = broker.beat_stream(two.says(LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FencedMember);
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<MemberError>().unwrap();
    assert_eq!(*cause, MemberError::Unknown { id: two.id.clone() });
    let hold = broker.hold_group(&group(), GroupProtocol::Classic).await.unwrap();
    assert!(broker.join_stream(join(&["t"])).await.is_err());
    drop(hold);
    let three = Member::new(&broker, join(&[])).await;
    assert_eq!(three.has(), [("t".into(), 0, Some(4))]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_where_it_is_told_and_in_what_comes_later_at_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t.old", 1).await;
    produce(&broker, "t.old", 0, 10).await;
    let join = JoinStream { start: Some(OffsetAt::End), ..join(&["t.>"]) };
    let mut member = Member::new(&broker, join.clone()).await;
    assert_eq!(member.has(), [("t.old".into(), 0, Some(10))]);
    create(&broker, "t.new", 1).await;
    create(&broker, "other", 1).await;
    produce(&broker, "t.new", 0, 3).await;
    member.beat(&broker).await;
    assert_eq!(member.has(), [("t.new".into(), 0, Some(0)), ("t.old".into(), 0, Some(10))]);
    broker.leave_stream(&group(), &member.id, false).await.unwrap();
    // Also while nobody is there.
    create(&broker, "t.late", 1).await;
    produce(&broker, "t.late", 0, 3).await;
    broker.alter_topic(&topic("t.old"), Some(2), &[], &[]).await.unwrap();
    broker.delete_topic(&topic("t.new")).await.unwrap();
    let mut member = Member::new(&broker, join.clone()).await;
    let has = [("t.late".into(), 0, Some(0)), ("t.old".into(), 0, Some(10)), ("t.old".into(), 1, Some(0))];
    assert_eq!(member.has(), has);
    broker.delete_topic(&topic("t.late")).await.unwrap();
    member.beat(&broker).await;
    assert_eq!(member.has(), has[1..]);

    let wrong = JoinStream { filter: Some("offset >".into()), ..join.clone() };
    assert_eq!(broker.join_stream(wrong).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    broker.leave_stream(&group(), &member.id, false).await.unwrap();
    for (wrong, says) in [
        (JoinStream { session_ms: 99, ..join.clone() }, "a session of 99 ms; allowed are 100 to 3600000"),
        (JoinStream { member: Some("a/b".into()), ..join.clone() }, "member id \"a/b\"; allowed are letters"),
        (JoinStream { group: GroupName::new("new").unwrap(), topics: vec![], ..join }, "there is no group 'new'"),
    ] {
        let error = broker.join_stream(wrong).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_reset_when_it_is_empty_or_by_force_and_members_then_have_to_join_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t", 2).await;
    produce(&broker, "t", 0, 10).await;
    let member = Member::new(&broker, join(&["t"])).await;
    assert_eq!(member.commit(&broker, 0, 8).await, Ok(8));
    let reset = |dry_run, force| ResetQueue {
        group: group(),
        topics: vec![],
        partitions: vec![],
        to: ResetTo::Offset(3),
        dry_run,
        force,
    };
    let seen = |changes: Vec<ResetPartition>| -> Vec<_> {
        changes.iter().map(|change| (change.partition, change.from, change.to, change.end)).collect()
    };
    let changes = [(0, 8, 3, 10), (1, 0, 0, 0)];
    assert_eq!(seen(broker.reset_queue(reset(true, false)).await.unwrap()), changes);
    assert_eq!(broker.reset_queue(reset(false, false)).await.unwrap_err().kind(), ErrorKind::Busy);
    let waits = tokio::spawn({
        let (broker, beat) = (Arc::clone(&broker), member.says(LONG));
        async move { broker.beat_stream(beat).await }
    });
    assert_eq!(seen(broker.reset_queue(reset(false, true)).await.unwrap()), changes);
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::FencedMember);
    assert_eq!(member.commit(&broker, 0, 9).await, Err(ErrorKind::FencedMember));
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let member = Member::new(&broker, join(&["t"])).await;
    assert_eq!(member.has(), [("t".into(), 0, Some(3)), ("t".into(), 1, Some(0))]);
    assert_eq!(broker.delete_group(&group(), false).await.unwrap_err().kind(), ErrorKind::Busy);
    broker.delete_group(&group(), true).await.unwrap();
    assert_eq!(member.commit(&broker, 0, 9).await, Err(ErrorKind::FencedMember));
    assert!(broker.describe_group(&group()).await.is_err());
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(broker.group_protocol(&group()), None);
    broker.shutdown().await;
}
