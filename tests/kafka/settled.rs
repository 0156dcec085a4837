//! What acks=1 has acknowledged is there at once for whoever asks. The disk is a simulated one, whose syncs of topics hang
//! until they are let go on.

use std::sync::Arc;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use tidelog::base::{Millis, SystemClock};
use tidelog::disk::{Fault, OpKind, SimDisk, SimOptions};
use tidelog::record::Batches;
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

use super::client::{Client, Running, batch};
use super::producing::{produce, produce_request};
use super::topics::{create_topic, name};

fn end(time: i64) -> ListOffsetsRequest {
    let part = ListOffsetsPartition::default().with_timestamp(time).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![part]);
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
}

fn fetch(offset: i64) -> FetchRequest {
    let part = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![part]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn below(offset: i64, timeout_ms: i32) -> DeleteRecordsRequest {
    let part = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![part]);
    DeleteRecordsRequest::default().with_timeout_ms(timeout_ms).with_topics(vec![topic])
}

async fn deleted(client: &mut Client, request: &DeleteRecordsRequest) -> (i16, i64) {
    let answer = client.call(2, request).await.topics[0].partitions[0].clone();
    (answer.error_code, answer.low_watermark)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_acks_1_acknowledged_is_there_for_the_end_a_fetch_and_a_deletion() {
    let disk = SimDisk::new(SimOptions { seed: 5, capacity: None });
    let config = ServerConfig {
        data_dir: "/data".into(),
        listen: "127.0.0.1:0".to_owned(),
        kafka_listen: "127.0.0.1:0".to_owned(),
        http_listen: "off".to_owned(),
        shutdown_timeout: Millis(100),
        ..ServerConfig::default()
    };
    let server = Server::start_on(config, Arc::new(disk.clone()), Arc::new(SystemClock::new())).await.unwrap();
    let connect = async || Client::connect(server.kafka_addresses()[0]).await;
    let (mut client, mut listing, mut fetching) = (connect().await, connect().await, connect().await);
    create_topic(&mut client, "t", 1).await;
    assert_eq!(produce(&mut client, 9, "t", batch(&["durable"])).await.base_offset, 0);
    disk.inject(OpKind::Sync, "/data/topics/", Fault::Hang, 1_000);
    let answer = client.call(9, &produce_request(1, vec![("t", 0, Some(batch(&["written"])))])).await;
    let answer = &answer.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (0, 1));
    // Nobody who stands behind it hears that he is out of range, or has to go back.
    let found = client.call(11, &fetch(2)).await.responses[0].partitions[0].clone();
    assert_eq!((found.error_code, found.high_watermark), (0, 1));
    assert_eq!(client.call(11, &fetch(3)).await.responses[0].partitions[0].error_code, 1);
    let part = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
    let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![part]);
    let epoch = client.call(2, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
    assert_eq!(epoch.topics[0].partitions[0].end_offset, 2);
    assert_eq!(deleted(&mut client, &below(2, 20)).await, (7, -1), "not within its time");
    assert_eq!(deleted(&mut client, &below(3, 20)).await, (1, -1));
    // The sync is let go on while these wait for it.
    listing.send(5, &end(-1)).await;
    fetching.send(11, &fetch(1)).await;
    client.send(2, &below(-1, 60_000)).await;
    disk.heal();
    let listed = listing.answer::<ListOffsetsRequest>(5).await.1.topics[0].partitions[0].clone();
    assert_eq!((listed.error_code, listed.offset), (0, 2));
    let deleted = client.answer::<DeleteRecordsRequest>(2).await.1.topics[0].partitions[0].clone();
    assert_eq!((deleted.error_code, deleted.low_watermark), (0, 2));
    let found = fetching.answer::<FetchRequest>(11).await.1.responses[0].partitions[0].clone();
    // Unless the deletion came first.
    let bases: Vec<_> =
        Batches::new(found.records.unwrap_or_default()).map(|batch| batch.unwrap().0.base_offset).collect();
    assert!(found.error_code == 1 || bases == [1], "{} {bases:?}", found.error_code);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_interval_topic_can_be_deleted_as_soon_as_they_are_acknowledged() {
    let running = Running::start_in(tempfile::tempdir().unwrap(), |config| {
        // No sync comes by itself.
        config.sync_interval = Millis(3_600_000);
        config.topic_defaults.durability = tidelog::catalog::Durability::Interval;
    })
    .await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for offset in 0..20 {
        let answer = client.call(9, &produce_request(1, vec![("t", 0, Some(batch(&["v"])))])).await;
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, offset);
        let listed = client.call(5, &end(-1)).await.topics[0].partitions[0].clone();
        assert_eq!((listed.error_code, listed.offset), (0, offset + 1));
        assert_eq!(deleted(&mut client, &below(offset + 1, 30_000)).await, (0, offset + 1));
    }
    running.stop().await;
}
