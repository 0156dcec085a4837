//! A group is defined once, whoever joins, restarts or reconnects.

use std::path::Path;
use std::sync::Arc;

use crate::base::{ErrorKind, GroupName, SystemClock, TopicName, TopicPattern};
use crate::broker::*;
use crate::catalog::{GroupEntry, GroupKind, QueueSettings};
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions};

fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap()
}

async fn again(broker: Arc<Broker>, dir: &Path) -> Arc<Broker> {
    broker.shutdown().await;
    drop(broker);
    open(dir)
}

fn name(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn topics(topics: &[&str]) -> Vec<TopicPattern> {
    topics.iter().map(|topic| TopicPattern::new(topic).unwrap()).collect()
}

async fn create(broker: &Arc<Broker>, topic: &str) {
    let name = TopicName::new(topic).unwrap();
    let new = NewTopic { name, partitions: Some(1), settings: vec![], if_not_exists: false };
    broker.create_topic(new).await.unwrap();
}

async fn produce(broker: &Arc<Broker>, topic: &str) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(5, Some(b"k"), Some(topic.as_bytes()), &[]);
    broker.produce(topic, 0, builder.build(), AckLevel::Durable).await.unwrap();
}

/// Somebody who joins, of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queue,
    Stream,
}

/// What they say of the group.
#[derive(Debug, Clone, Default)]
struct Says {
    topics: Vec<TopicPattern>,
    filter: Option<&'static str>,
    rules: Option<QueueSettings>,
}

impl Says {
    fn of(named: &[&str]) -> Self {
        Self { topics: topics(named), ..Self::default() }
    }

    fn filter(self, filter: &'static str) -> Self {
        Self { filter: Some(filter), ..self }
    }

    fn rules(self, rules: QueueSettings) -> Self {
        Self { rules: Some(rules), ..self }
    }
}

/// Joins and leaves; what is refused.
async fn visit(broker: &Arc<Broker>, kind: Kind, says: &Says) -> Result<(), (ErrorKind, String)> {
    let group = name("erp");
    let (topics, filter) = (says.topics.clone(), says.filter.map(str::to_owned));
    let outcome = match kind {
        Kind::Queue => {
            let (settings, start) = (says.rules.clone(), OffsetAt::Beginning);
            let join = JoinQueue { group, settings, topics, filter, start, prefetch: 1, client: "test".into() };
            broker.join_queue(join).await.map(drop)
        }
        Kind::Stream => match broker.join_stream(stream(topics, filter)).await {
            Ok(joined) => broker.leave_stream(&group, &joined.share.member, false).await,
            Err(error) => Err(error),
        },
    };
    outcome.map_err(|error| (error.kind(), error.to_string()))
}

fn stream(topics: Vec<TopicPattern>, filter: Option<String>) -> JoinStream {
    JoinStream {
        group: name("erp"),
        member: None,
        instance: None,
        topics,
        filter,
        start: Some(OffsetAt::Beginning),
        session_ms: 60_000,
        handover_ms: 60_000,
        client: "test".into(),
    }
}

async fn entry(broker: &Arc<Broker>) -> GroupEntry {
    broker.describe_group(&name("erp")).await.unwrap().entry
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_says_otherwise_is_refused_with_both_values_and_changes_nothing() {
    for kind in [Kind::Queue, Kind::Stream] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = open(dir.path());
        for topic in ["crm.a", "crm.b", "erp.a"] {
            create(&broker, topic).await;
        }
        let unknown = visit(&broker, kind, &Says::default()).await.unwrap_err();
        assert_eq!(unknown.0, ErrorKind::NotFound, "{kind:?}: {}", unknown.1);
        assert!(broker.list_groups().is_empty(), "{kind:?}: a member that says nothing makes no group");

        let first = Says::of(&["crm.>", "erp.a"]).filter("key != 'x'");
        visit(&broker, kind, &first).await.unwrap();
        let defined = entry(&broker).await;
        for restart in [false, true] {
            if restart {
                broker = again(broker, dir.path()).await;
            }
            // The same in another order, or nothing of it.
            let same = Says::of(&["erp.a", "crm.>", "erp.a"]).filter(" key != 'x' ");
            for says in [&first, &same, &Says::default(), &Says::default().filter("key != 'x'")] {
                visit(&broker, kind, says).await.unwrap();
            }
            for (says, difference) in [
                (Says::of(&["crm.>"]).filter("key != 'x'"), "its topics are crm.> erp.a, not crm.>"),
                (Says::of(&["crm.>", "erp.a"]), "its filter is 'key != 'x'', not none"),
                (Says::default().filter("key == 'y'"), "its filter is 'key != 'x'', not 'key == 'y''"),
                (Says::of(&["st"]), "its topics are crm.> erp.a, not st; its filter is 'key != 'x'', not none"),
            ] {
                let (kind_of_error, message) = visit(&broker, kind, &says).await.unwrap_err();
                assert_eq!(kind_of_error, ErrorKind::AlreadyExists, "{kind:?}: {message}");
                let said = format!("group 'erp' is defined otherwise: {difference}. Say nothing of these");
                assert!(message.starts_with(&said) && message.contains("tidelog group alter erp"), "{message}");
            }
            let other = if kind == Kind::Queue { Kind::Stream } else { Kind::Queue };
            assert!(visit(&broker, other, &first).await.is_err());
            assert_eq!(entry(&broker).await, defined);
        }
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_belong_to_the_group_too() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "t").await;
    let rules = QueueSettings { max_deliveries: 3, lease_ms: 5_000, ..QueueSettings::default() };
    visit(&broker, Kind::Queue, &Says::of(&["t"]).rules(rules.clone())).await.unwrap();
    for says in [Says::of(&["t"]), Says::default(), Says::default().rules(rules.clone())] {
        visit(&broker, Kind::Queue, &says).await.unwrap();
    }
    let other =
        QueueSettings { max_deliveries: 5, dead_letter: Some(TopicName::new("dead").unwrap()), ..rules.clone() };
    let (kind, message) = visit(&broker, Kind::Queue, &Says::of(&["t"]).rules(other)).await.unwrap_err();
    assert_eq!(kind, ErrorKind::AlreadyExists);
    let said = "its number of deliveries is 3, not 5; its dead-letter topic is dead-letter.erp, not dead.";
    assert!(message.contains(said), "{message}");
    assert_eq!(entry(&broker).await.kind, GroupKind::Queue(rules));
    broker.shutdown().await;
}

/// Whoever is first, everybody agrees on it: each who is let in says what the group is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_join_at_the_same_time_with_different_definitions_one_defines_the_group() {
    for round in 0..10 {
        for kind in [Kind::Queue, Kind::Stream] {
            let dir = tempfile::tempdir().unwrap();
            let broker = open(dir.path());
            let visits = (0..8).map(|number| {
                let (broker, own) = (Arc::clone(&broker), format!("t{}", number % 4));
                tokio::spawn(async move { (visit(&broker, kind, &Says::of(&[own.as_str()])).await, own) })
            });
            let mut let_in = Vec::new();
            for visit in visits.collect::<Vec<_>>() {
                match visit.await.unwrap() {
                    (Ok(()), own) => let_in.push(own),
                    (Err((kind, _)), _) => assert_eq!(kind, ErrorKind::AlreadyExists),
                }
            }
            let defined = entry(&broker).await.topics;
            assert_eq!(defined.len(), 1);
            assert_eq!(let_in, vec![defined[0].as_str(); 2], "{kind:?} in round {round}");
            broker.shutdown().await;
        }
    }
}

fn change(topics_now: &[&str], filter: Option<Option<&str>>) -> AlterGroup {
    AlterGroup {
        name: name("erp"),
        topics: topics(topics_now),
        filter: filter.map(|filter| filter.map(str::to_owned)),
        rules: RulesChange::default(),
        start: OffsetAt::Beginning,
    }
}

async fn next(member: &QueueMember) -> String {
    let handed = tokio::time::timeout(std::time::Duration::from_secs(60), member.next()).await.unwrap().unwrap();
    member.sent(handed.batch.len());
    let all = Settlement {
        topic: handed.topic.clone(),
        partition: handed.partition,
        from: handed.base_offset,
        to: handed.next_offset,
        verdict: Verdict::Ack,
    };
    member.settle(&[all], false).await.unwrap();
    handed.topic.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alteration_holds_at_once_for_members_of_a_queue_group_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["a", "b"] {
        create(&broker, topic).await;
    }
    assert_eq!(broker.alter_group(change(&["a"], None)).await.unwrap_err().kind(), ErrorKind::NotFound);
    let rules = QueueSettings { max_deliveries: 3, ..QueueSettings::default() };
    let new = |kind: GroupKind, of: &[&str]| NewGroup {
        name: name("erp"),
        kind,
        topics: topics(of),
        filter: None,
        start: OffsetAt::Beginning,
    };
    assert!(broker.create_group(new(GroupKind::Queue(rules.clone()), &["a"])).await.unwrap());
    assert!(
        !broker.create_group(new(GroupKind::Queue(rules.clone()), &["a"])).await.unwrap(),
        "it is there, and the same"
    );
    let other = broker.create_group(new(GroupKind::Queue(rules), &["b"])).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::AlreadyExists);
    assert!(broker.create_group(new(GroupKind::Stream, &["a"])).await.is_err());

    let (group, start) = (name("erp"), OffsetAt::Beginning);
    let join =
        JoinQueue { group, settings: None, topics: vec![], filter: None, start, prefetch: 1, client: "test".into() };
    let member = broker.join_queue(join).await.unwrap();
    produce(&broker, "a").await;
    assert_eq!(next(&member).await, "a");
    let filter = Some(Some("topic == 'b'"));
    let rules = RulesChange { backoff_ms: Some(120_000), ..RulesChange::default() };
    broker.alter_group(AlterGroup { rules, ..change(&["b", "a"], filter) }).await.unwrap();
    produce(&broker, "a").await;
    produce(&broker, "b").await;
    assert_eq!(next(&member).await, "b");
    for (wrong, says) in [
        (change(&[], Some(Some("key =="))), "filter:"),
        (AlterGroup { name: name("nobody"), ..change(&["a"], None) }, "there is no group 'nobody'"),
        (
            AlterGroup { rules: RulesChange { lease_ms: Some(1), ..RulesChange::default() }, ..change(&[], None) },
            "a lease (ms) of 1; allowed are 100",
        ),
    ] {
        let error = broker.alter_group(wrong).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    drop(member);
    let altered = entry(&broker).await;
    let broker = again(broker, dir.path()).await;
    assert_eq!(entry(&broker).await, altered);
    assert_eq!((altered.topics, altered.filter.as_deref()), (topics(&["b", "a"]), Some("topic == 'b'")));
    let GroupKind::Queue(rules) = altered.kind else { panic!("it is a queue group") };
    assert_eq!((rules.max_deliveries, rules.backoff_ms, rules.backoff_max_ms), (3, 120_000, 120_000));
    broker.shutdown().await;
}

/// What a member had out of a topic that the group reads no more does not count against it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_room_again_when_its_group_lets_go_of_a_topic() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["a", "b", "c"] {
        create(&broker, topic).await;
        produce(&broker, topic).await;
    }
    let (group, start) = (name("erp"), OffsetAt::Beginning);
    let join = JoinQueue {
        group,
        settings: None,
        topics: topics(&["a"]),
        filter: None,
        start,
        prefetch: 1,
        client: "test".into(),
    };
    let member = broker.join_queue(join).await.unwrap();
    let handed = member.next().await.unwrap();
    member.sent(handed.batch.len());
    broker.alter_group(change(&["b"], None)).await.unwrap();
    let handed = tokio::time::timeout(std::time::Duration::from_secs(60), member.next()).await.unwrap().unwrap();
    member.sent(handed.batch.len());
    assert_eq!(handed.topic.as_str(), "b");
    // The same with a topic that is deleted.
    broker.alter_group(change(&["b", "c"], None)).await.unwrap();
    broker.delete_topic(&TopicName::new("b").unwrap()).await.unwrap();
    assert_eq!(next(&member).await, "c");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_stream_group_have_the_new_topics_and_join_again_for_a_new_filter() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["a", "b"] {
        create(&broker, topic).await;
    }
    let joined = broker.join_stream(stream(topics(&["a"]), None)).await.unwrap();
    let member = joined.share.member.clone();
    let has = |share: &StreamShare| share.granted.iter().map(|of| of.topic.to_string()).collect::<Vec<_>>();
    assert_eq!(has(&joined.share), ["a"]);
    let owned: Vec<_> = joined.share.granted.iter().map(|of| (of.id, of.partition)).collect();
    broker.alter_group(change(&["a", "b"], None)).await.unwrap();
    let beat = StreamBeat {
        group: name("erp"),
        member: member.clone(),
        epoch: joined.share.epoch,
        owned: Some(owned),
        topics: None,
        wait: std::time::Duration::from_secs(60),
    };
    assert_eq!(has(&broker.beat_stream(beat.clone()).await.unwrap()), ["b"]);
    broker.alter_group(change(&[], Some(Some("key == 'k'")))).await.unwrap();
    assert_eq!(broker.beat_stream(beat).await.unwrap_err().kind(), ErrorKind::FencedMember);
    let again = broker.join_stream(stream(vec![], None)).await.unwrap();
    assert_eq!((again.filter.as_deref(), has(&again.share).len()), (Some("key == 'k'"), 2));
    let rules = RulesChange { max_deliveries: Some(2), ..RulesChange::default() };
    let refused = broker.alter_group(AlterGroup { rules, ..change(&[], None) }).await.unwrap_err();
    assert_eq!(refused.to_string(), "group 'erp' is a stream group, which has no rules");
    broker.shutdown().await;
}

/// Kafka's members have subscriptions of their own, and define nothing.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_kafkas_protocols_change_no_definition_and_join_no_group_with_a_filter() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["a", "b"] {
        create(&broker, topic).await;
    }
    let consumer = |member: &str, topic: &str| ConsumerJoin {
        group: name("erp"),
        member: member.into(),
        instance: None,
        topics: vec![TopicName::new(topic).unwrap()],
        regex: None,
        assignor: None,
        rack: None,
        client: "test".into(),
        host: "/127.0.0.1".into(),
        session_ms: 60_000,
        handover_ms: 60_000,
    };
    // The first is Kafka's: the first native member names the topics.
    broker.join_consumer(consumer("one", "b")).await.unwrap();
    assert_eq!(entry(&broker).await.topics, []);
    assert!(visit(&broker, Kind::Stream, &Says::default()).await.unwrap_err().1.contains("names them"));
    let filtered = visit(&broker, Kind::Stream, &Says::of(&["a"]).filter("key == 'k'")).await.unwrap_err();
    assert!(filtered.1.contains("members of Kafka's protocols, which cannot apply a filter"), "{}", filtered.1);
    visit(&broker, Kind::Stream, &Says::of(&["a"])).await.unwrap();
    broker.join_consumer(consumer("two", "b")).await.unwrap();
    assert_eq!(entry(&broker).await.topics, topics(&["a"]));
    let refused = broker.alter_group(change(&[], Some(Some("key == 'k'")))).await.unwrap_err();
    assert!(refused.to_string().contains("members of Kafka's protocols"), "{refused}");
    for member in ["one", "two"] {
        broker.leave_consumer(&name("erp"), member, None, false).await.unwrap();
    }
    broker.alter_group(change(&[], Some(Some("key == 'k'")))).await.unwrap();
    let refused = broker.join_consumer(consumer("one", "b")).await.unwrap_err();
    assert!(refused.to_string().contains("group 'erp' has the filter 'key == 'k''"), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    assert_eq!(entry(&broker).await.filter.as_deref(), Some("key == 'k'"), "and it stays");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_responders_take_no_group_away_and_a_push_is_changed_as_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, "a").await;
    let push = |of: &[&str], replace| NewPush {
        name: name("erp"),
        topics: topics(of),
        filter: None,
        start: OffsetAt::Beginning,
        rules: None,
        url: "http://127.0.0.1:1/".into(),
        batch: None,
        concurrency: 1,
        timeout_ms: None,
        endpoint: Default::default(),
        replace,
    };
    visit(&broker, Kind::Queue, &Says::of(&["a"])).await.unwrap();
    for replace in [false, true] {
        let refused = broker.create_push(push(&["b"], replace)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
    }
    broker.create_push(push(&["a"], false)).await.unwrap();
    broker.create_push(push(&["b"], true)).await.unwrap();
    assert_eq!(entry(&broker).await.topics, topics(&["b"]));
    let refused = broker.alter_group(change(&["a"], None)).await.unwrap_err();
    assert!(refused.to_string().contains("push alter"), "{refused}");

    let group = name("responders.upper");
    let new = NewGroup {
        name: group.clone(),
        kind: GroupKind::Queue(QueueSettings::default()),
        topics: topics(&["a"]),
        filter: None,
        start: OffsetAt::Beginning,
    };
    broker.create_group(new).await.unwrap();
    let upper = TopicName::new("upper").unwrap();
    let refused = broker.respond_durable(&upper, 1, "test".into()).await.err().unwrap();
    assert!(refused.to_string().contains("its topics are a, not upper"), "{refused}");
    assert_eq!(broker.describe_group(&group).await.unwrap().entry.topics, topics(&["a"]));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_a_group_that_does_not_read_the_topic_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["a", "b"] {
        create(&broker, topic).await;
        produce(&broker, topic).await;
    }
    visit(&broker, Kind::Queue, &Says::of(&["a"])).await.unwrap();
    let at = |topic: &str| [RecordAt { topic: TopicName::new(topic).unwrap(), partition: 0, offset: 0 }];
    let ask = async |group: &str, topic: &str| {
        let wait = std::time::Duration::from_secs(3600);
        broker.ask_receipts(&name(group), "http://127.0.0.1:1/", &at(topic), wait).await
    };
    ask("erp", "a").await.unwrap();
    ask("later", "b").await.unwrap();
    let refused = ask("erp", "b").await.unwrap_err().to_string();
    assert_eq!(refused, "group 'erp' does not read topic 'b': its topics are a");
    broker.shutdown().await;
}
