//! Leader epochs that are committed with positions come back as they were said, also after a restart.

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest, TxnOffsetCommitRequest,
};

use super::client::{Client, Running, text};
use super::topics::{create_topic, name};
use super::transacting::Writer;

fn group() -> GroupId {
    GroupId(text("g"))
}

async fn commit(client: &mut Client, version: i16, partition: i32, (offset, epoch): (i64, i32)) {
    let part = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(epoch)
        .with_committed_metadata(Some(text("m")));
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![part]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(-1)
        .with_topics(vec![topic]);
    assert_eq!(client.call(version, &request).await.topics[0].partitions[0].error_code, 0, "version {version}");
}

/// Offsets and epochs of the partitions, as every version tells them that has a place for epochs, by name and all.
async fn told(client: &mut Client, partitions: i32) -> Vec<(i64, i32)> {
    let mut all = Vec::new();
    for version in 5..=9 {
        for named in [true, false] {
            let numbers: Vec<i32> = (0..partitions).collect();
            let parts: Vec<(i32, i64, i32)> = if version < 8 {
                let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(numbers);
                let request =
                    OffsetFetchRequest::default().with_group_id(group()).with_topics(named.then(|| vec![topic]));
                let answer = client.call(version, &request).await;
                let parts = answer.topics[0].partitions.iter();
                parts.map(|part| (part.partition_index, part.committed_offset, part.committed_leader_epoch)).collect()
            } else {
                let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(numbers);
                let of =
                    OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(named.then(|| vec![topic]));
                let answer = client.call(version, &OffsetFetchRequest::default().with_groups(vec![of])).await;
                let parts = answer.groups[0].topics[0].partitions.iter();
                parts.map(|part| (part.partition_index, part.committed_offset, part.committed_leader_epoch)).collect()
            };
            assert!(parts.iter().map(|(number, ..)| *number).eq(0..partitions), "{parts:?}");
            all.push(parts.into_iter().map(|(_, offset, epoch)| (offset, epoch)).collect::<Vec<_>>());
        }
    }
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[tokio::test]
async fn the_leader_epoch_of_a_position_comes_back_as_it_was_committed() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 4).await;
    // Version 5 has no place for an epoch. The topic is empty: a position beyond it would go back to its end at a restart.
    commit(&mut client, 9, 0, (0, 2)).await;
    commit(&mut client, 6, 1, (0, 0)).await;
    commit(&mut client, 9, 2, (0, -1)).await;
    commit(&mut client, 5, 3, (0, -1)).await;
    let expected = [(0, 2), (0, 0), (0, -1), (0, -1)];
    assert_eq!(told(&mut client, 4).await, expected);
    drop(client);
    let running = Running::start_in(running.stop().await, |_| {}).await;
    let mut client = running.client().await;
    assert_eq!(told(&mut client, 4).await, expected);
    // A commit without an epoch says that there is none.
    commit(&mut client, 9, 0, (0, -1)).await;
    assert_eq!(told(&mut client, 4).await[0], (0, -1));
    running.stop().await;
}

#[tokio::test]
async fn the_leader_epoch_of_a_position_in_a_transaction_is_kept_with_it() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 3).await;
    let writer = Writer::new(&mut client, "w").await;
    let (producer, epoch) = writer.identity();
    let add = AddOffsetsToTxnRequest::default()
        .with_transactional_id(text("w").into())
        .with_producer_id(producer.into())
        .with_producer_epoch(epoch)
        .with_group_id(group());
    assert_eq!(client.call(3, &add).await.error_code, 0);
    let parts = [(0, 5), (1, -1), (2, 0)].map(|(partition, epoch)| {
        TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(0)
            .with_committed_leader_epoch(epoch)
            .with_committed_metadata(Some(text("m")))
    });
    let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(parts.to_vec());
    let stage = TxnOffsetCommitRequest::default()
        .with_transactional_id(text("w").into())
        .with_group_id(group())
        .with_producer_id(producer.into())
        .with_producer_epoch(epoch)
        .with_generation_id(-1)
        .with_topics(vec![topic]);
    let staged = client.call(3, &stage).await;
    assert!(staged.topics[0].partitions.iter().all(|part| part.error_code == 0));
    drop(client);
    // What waits for the end of the transaction is kept with its epochs.
    let running = Running::start_in(running.stop().await, |_| {}).await;
    let mut client = running.client().await;
    assert_eq!(writer.end(&mut client, true).await, 0);
    assert_eq!(told(&mut client, 3).await, [(0, 5), (0, -1), (0, 0)]);
    running.stop().await;
}
