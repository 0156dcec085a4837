//! Bytes of what groups and their members declare.

use std::sync::Arc;

use super::positions::name;
use super::table::{Bench, client, queue};
use crate::base::{Bytes, ErrorKind, TopicName, TopicRegex};
use crate::broker::*;
use crate::catalog::QueueSettings;

/// More than half of it is more than one client may have.
const MOST: u64 = 64 * 1024;

fn with_rules(group: &str) -> JoinQueue {
    let rules = QueueSettings { max_deliveries: 3, ..QueueSettings::default() };
    // 160 bytes of a filter weigh 5 KiB.
    let filter = Some(format!("value.kind == \"{}\"", "k".repeat(142)));
    JoinQueue { filter, ..queue(group, "orders", Some(rules)) }
}

fn consumer(group: &str, member: &str, regex: Option<&str>) -> ConsumerJoin {
    ConsumerJoin {
        group: name(group),
        member: member.to_owned(),
        instance: None,
        topics: vec![TopicName::new("orders").unwrap()],
        regex: regex.map(|text| TopicRegex::new(text).unwrap()),
        assignor: None,
        rack: None,
        client: "c".to_owned(),
        host: "/10.0.0.1".to_owned(),
        session_ms: 10_000,
        handover_ms: 60_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_groups_with_rules_of_their_own_have_a_limit_in_bytes_and_other_clients_go_on() {
    let (bench, broker) = Bench::new(|config| config.max_group_declarations = Bytes(MOST));
    let declare = |last, group: String| {
        let broker = Arc::clone(&broker);
        async move { client(last).scope(broker.join_queue(with_rules(&group))).await.map(drop) }
    };
    let mut made = 0;
    let refused = loop {
        match declare(1, format!("one-{made}")).await {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((made, refused.kind()), (6, ErrorKind::Overloaded));
    let text = refused.to_string();
    assert!(text.starts_with("groups in use of 10.0.0.1 and their members declare 3"), "{text}");
    assert!(text.ends_with("the limit is half of 65536 (max_group_declarations)"), "{text}");
    // What is there is declared again, and a group without rules weighs little.
    declare(1, "one-0".to_owned()).await.unwrap();
    declare(2, "two".to_owned()).await.unwrap();
    // Nobody's group went for it.
    assert_eq!(broker.list_groups().len(), 7);
    broker.delete_group(&name("one-3"), true).await.unwrap();
    bench.clock.advance(1_000);
    declare(1, "one-6".to_owned()).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_have_a_limit_in_bytes_and_those_that_have_gone_count_no_more() {
    let (bench, broker) = Bench::new(|config| config.max_group_declarations = Bytes(MOST));
    let join = |last, group: &str, member: &str, regex: Option<&'static str>| {
        let (broker, join) = (Arc::clone(&broker), consumer(group, member, regex));
        async move { client(last).scope(broker.join_consumer(join)).await.map(drop) }
    };
    join(1, "g", "a", Some("orders.*")).await.unwrap();
    let refused = join(1, "g", "b", Some("invoices.*")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.to_string().contains("(max_group_declarations)"), "{refused}");
    // Names weigh little, and an expression that comes later is refused, too.
    join(1, "g", "b", None).await.unwrap();
    let beat = |regex: &str| ConsumerBeat {
        group: name("g"),
        member: "b".to_owned(),
        instance: None,
        epoch: 2,
        owned: None,
        topics: None,
        regex: Some(Some(TopicRegex::new(regex).unwrap())),
        assignor: None,
        rack: None,
        handover_ms: None,
    };
    let refused = client(1).scope(broker.beat_consumer(beat("i.*"))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    join(2, "h", "a", Some("orders.*")).await.unwrap();
    broker.leave_consumer(&name("g"), "a", None, false).await.unwrap();
    broker.queues.keeper.kept().await.unwrap();
    bench.clock.advance(1_000);
    join(1, "g", "c", Some("orders.*")).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_groups_are_held_to_it_too() {
    let (_bench, broker) = Bench::new(|config| config.max_group_declarations = Bytes(MOST));
    let patterns = |count: usize| (0..count).map(|n| format!("{}-{n}", "t".repeat(240)).parse().unwrap()).collect();
    let join = |topics| JoinStream {
        group: name("g"),
        member: None,
        instance: None,
        topics,
        filter: None,
        start: None,
        session_ms: 10_000,
        handover_ms: 10_000,
        client: "c".to_owned(),
    };
    let refused = client(1).scope(broker.join_stream(join(patterns(100)))).await.unwrap_err();
    assert!(refused.to_string().contains("(max_group_declarations)"), "{refused}");
    let joined = client(1).scope(broker.join_stream(join(patterns(20)))).await.unwrap();
    let beat = StreamBeat {
        group: name("g"),
        member: joined.share.member,
        epoch: joined.share.epoch,
        owned: None,
        topics: Some(patterns(100)),
        wait: std::time::Duration::ZERO,
    };
    let refused = client(1).scope(broker.beat_stream(beat)).await.unwrap_err();
    assert!(refused.to_string().contains("(max_group_declarations)"), "{refused}");
    broker.shutdown().await;
}
