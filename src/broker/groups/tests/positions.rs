use std::path::Path;
use std::sync::Arc;

use crate::base::{ErrorKind, GroupName, SystemClock, TopicName, TopicPattern};
use crate::broker::*;
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions};

fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap()
}

pub(super) fn name(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(super) fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

pub(super) async fn with_records(broker: &Arc<Broker>, records: u64) {
    broker.metadata(&topic(), true).await.unwrap();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..records {
        builder.push(5, None, Some(b"x"), &[]);
    }
    broker.produce("orders", 0, builder.build(), AckLevel::Durable).await.unwrap();
}

fn commit(offset: u64) -> Vec<Commit> {
    vec![Commit { topic: topic(), partition: 0, offset, metadata: format!("at {offset}"), leader_epoch: None }]
}

fn one(mut outcomes: Vec<Result<u64, BrokerError>>) -> Result<u64, ErrorKind> {
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_goes_back_only_when_that_is_meant_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    with_records(&broker, 10).await;
    let group = name("erp/é");
    let hold = broker.hold_group(&group, GroupProtocol::Classic).await.unwrap();
    let by = Committer::Holder(&hold);
    for (offset, terms, holds) in [
        (5, Terms::Forward, Ok(5)),
        (3, Terms::Forward, Ok(5)),
        (11, Terms::Forward, Err(ErrorKind::OffsetOutOfRange)),
        (4, Terms::AsSaid, Ok(4)),
        (10, Terms::Forward, Ok(10)),
        (9, Terms::Forward, Ok(10)),
    ] {
        // Not durable, so that what is pending counts too.
        let committed = broker.commit_positions(&group, by, commit(offset), terms, false).await.unwrap();
        assert_eq!(one(committed), holds, "{offset}");
    }
    let committed = broker.commit_positions(&group, by, commit(10), Terms::Forward, true).await.unwrap();
    assert_eq!(one(committed), Ok(10));
    let unknown = vec![Commit { topic: TopicName::new("other").unwrap(), ..commit(0).remove(0) }];
    let committed = broker.commit_positions(&group, by, unknown, Terms::AsSaid, true).await.unwrap();
    assert_eq!(one(committed), Err(ErrorKind::NotFound));
    let long = vec![Commit { metadata: "x".repeat(4097), ..commit(10).remove(0) }];
    let committed = broker.commit_positions(&group, by, long, Terms::AsSaid, true).await.unwrap();
    assert_eq!(one(committed), Err(ErrorKind::TooLarge));
    drop(hold);
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let positions = broker.positions(&group, None).await;
    assert_eq!((positions[0].offset, positions[0].metadata.as_str(), positions.len()), (10, "at 10", 1));
    assert_eq!(broker.positions(&group, Some(vec![(topic(), 0), (topic(), 1)])).await, positions);
    broker.forget_positions(&group, vec![(topic(), 0)]).await.unwrap();
    assert_eq!(broker.positions(&group, None).await, []);
    broker.delete_group(&group, false).await.unwrap();
    assert_eq!(broker.positions(&name("nobody"), None).await, []);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_what_a_log_has_left_goes_back_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    with_records(&broker, 10).await;
    let by = Committer::Admin;
    for (group, offset) in [("lost", 12), ("kept", 10)] {
        let committed = broker.commit_positions(&name(group), by, commit(offset), Terms::AsSaid, true).await.unwrap();
        assert_eq!(one(committed), Ok(offset));
    }
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(broker.startup().notes, ["group 'lost': position 12 of orders/0 is now 10, its end"]);
    for group in ["lost", "kept"] {
        assert_eq!(broker.positions(&name(group), None).await[0].offset, 10);
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_belongs_to_one_protocol_as_long_as_it_has_members() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    with_records(&broker, 10).await;
    let group = name("erp");
    let admin = |offset| broker.commit_positions(&group, Committer::Admin, commit(offset), Terms::AsSaid, true);
    assert_eq!(one(admin(7).await.unwrap()), Ok(7));
    let classic = broker.hold_group(&group, GroupProtocol::Classic).await.unwrap();
    let another = broker.hold_group(&group, GroupProtocol::Classic).await.unwrap();
    drop(classic);
    assert_eq!(broker.group_protocol(&group), Some(GroupProtocol::Classic));
    assert_eq!(admin(3).await.unwrap_err().kind(), ErrorKind::Busy);
    let refused = broker.hold_group(&group, GroupProtocol::Stream).await.unwrap_err();
    assert!(refused.to_string().contains("has members of the classic protocol"), "{refused}");
    assert_eq!(broker.delete_group(&group, false).await.unwrap_err().kind(), ErrorKind::Busy);
    drop(another);
    assert_eq!(broker.group_protocol(&group), None);
    let stream = broker.hold_group(&group, GroupProtocol::Stream).await.unwrap();
    assert_eq!(broker.positions(&group, None).await[0].offset, 7);

    // Taken away by force: what its members still say does not count.
    broker.delete_group(&group, true).await.unwrap();
    assert!(stream.is_ended());
    let late = broker.commit_positions(&group, Committer::Holder(&stream), commit(9), Terms::AsSaid, true).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::NotFound);
    let new = broker.hold_group(&group, GroupProtocol::Classic).await.unwrap();
    drop(stream);
    assert_eq!(broker.group_protocol(&group), Some(GroupProtocol::Classic));
    assert_eq!(broker.positions(&group, None).await, []);
    drop(new);

    let queue = JoinQueue {
        group: name("queue"),
        settings: None,
        topics: vec![TopicPattern::new("orders").unwrap()],
        filter: None,
        start: OffsetAt::Beginning,
        prefetch: 1,
        client: String::new(),
    };
    drop(broker.join_queue(queue).await.unwrap());
    assert!(broker.hold_group(&name("queue"), GroupProtocol::Stream).await.is_err());
    let by = Committer::Admin;
    assert!(broker.commit_positions(&name("queue"), by, commit(1), Terms::AsSaid, true).await.is_err());
    broker.shutdown().await;
}
