//! On a simulated disk whose syncs of topics hang until they are let go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{ErrorKind, GroupName, SystemClock, TopicName};
use crate::broker::*;
use crate::disk::{Fault, OpKind, SimDisk, SimOptions};
use crate::record::{BatchBuilder, BatchOptions};

fn batch(time: i64) -> bytes::BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(time, None, Some(b"v"), &[]);
    builder.build()
}

/// A broker with a topic `t` of one durable record, and one that is written and cannot be synced yet.
async fn bench() -> (Arc<Broker>, SimDisk) {
    let disk = SimDisk::new(SimOptions { seed: 3, capacity: None });
    let config = BrokerConfig { data_dir: Path::new("/data").to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(disk.clone()), Arc::new(SystemClock::new())).unwrap();
    broker.metadata(&TopicName::new("t").unwrap(), true).await.unwrap();
    broker.produce("t", 0, batch(5), AckLevel::Durable).await.unwrap();
    disk.inject(OpKind::Sync, "/data/topics/", Fault::Hang, 1_000);
    assert_eq!(broker.produce("t", 0, batch(7), AckLevel::Written).await.unwrap().base_offset, 1);
    (broker, disk)
}

fn fetch(offset: u64) -> FetchRequest<'static> {
    FetchRequest {
        topic: "t",
        partition: 0,
        offset,
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_as_written_counts_for_whoever_asks_for_the_end() {
    let (broker, disk) = bench().await;
    // Readers see only what is durable, and may stand where the next record will be.
    assert_eq!(broker.fetch(fetch(0)).await.unwrap().stable_end, 1);
    for offset in [1, 2] {
        assert_eq!(broker.fetch(fetch(offset)).await.unwrap().next_offset, offset);
    }
    assert_eq!(broker.fetch(fetch(3)).await.unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    // Who has no time is told that it is not there yet, never an end before it.
    let at = |at, until| broker.list_offset_as("t", 0, at, Isolation::Uncommitted, until);
    for what in [OffsetAt::End, OffsetAt::Newest, OffsetAt::Timestamp(6)] {
        assert_eq!(at(what, Instant::now()).await.unwrap_err().kind(), ErrorKind::TimedOut, "{what:?}");
    }
    let refused = broker.delete_records("t", 0, Some(2), Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut);
    let late = Instant::now() + Duration::from_secs(600);
    let (ends, healed) = tokio::join!(
        async {
            let (end, newest, time) =
                tokio::join!(at(OffsetAt::End, late), at(OffsetAt::Newest, late), at(OffsetAt::Timestamp(6), late));
            let mut reader = broker.reader("t", 0).unwrap();
            reader.settle(2, late).await.unwrap();
            (end.unwrap().0, newest.unwrap(), time.unwrap().0, reader.look().unwrap().stable)
        },
        async {
            tokio::task::yield_now().await;
            disk.heal();
        }
    );
    assert_eq!((ends, healed), ((2, (1, 7), 1, 2), ()));
    assert_eq!(broker.delete_records("t", 0, None, SETTLE).await.unwrap(), 2);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_and_not_synced_is_work_that_a_group_has_not_done() {
    let (broker, disk) = bench().await;
    let group = GroupName::new("g").unwrap();
    let topic = TopicName::new("t").unwrap();
    let commit = |offset| {
        vec![Commit { topic: topic.clone(), partition: 0, offset, metadata: String::new(), leader_epoch: None }]
    };
    broker.commit_positions(&group, Committer::Admin, commit(1), Terms::Forward, true).await.unwrap();
    let lag = || async {
        let described = broker.describe_group(&group).await.unwrap();
        described.partitions.iter().map(|partition| partition.lag).sum::<u64>()
    };
    assert_eq!(lag().await, 1);
    // Whoever has written the last record may say that the group is behind it.
    let committed = broker.commit_positions(&group, Committer::Admin, commit(2), Terms::Forward, true).await.unwrap();
    assert!(committed[0].is_ok(), "{committed:?}");
    assert_eq!(lag().await, 0);
    disk.heal();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_sync_failed_is_read_up_to_what_is_durable() {
    let (broker, disk) = bench().await;
    disk.heal();
    let mut reader = broker.reader("t", 0).unwrap();
    reader.settle(2, Instant::now() + SETTLE).await.unwrap();
    disk.inject(OpKind::Sync, "/data/topics/", Fault::Error, 1_000);
    disk.inject(OpKind::Read, "/data/topics/", Fault::Error, 1_000);
    broker.produce("t", 0, batch(9), AckLevel::Durable).await.unwrap_err();
    let end = broker.list_offset("t", 0, OffsetAt::End).await.unwrap().0;
    assert_eq!(end, 2, "what cannot be verified is not waited for");
    disk.heal();
    broker.shutdown().await;
}
