//! Topics with `message.timestamp.type=LogAppendTime`, and with a `compression.type`.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, FetchRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
};
use tidelog::base::{Clock, SystemClock};
use tidelog::client::{Client as Native, StartAt};
use tidelog::record::{BatchHeader, BatchOptions, Batches, Compression};

use super::client::{Client, Running, batch_of, packed, text};
use super::producing::produce;
use super::topics::name;

async fn create(client: &mut Client, topic: &str, configs: &[(&str, &str)]) -> i16 {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic])).await.topics[0].error_code
}

async fn alter(client: &mut Client, operation: i8, setting: &str, value: Option<&str>) -> i16 {
    let config = AlterableConfig::default()
        .with_name(text(setting))
        .with_config_operation(operation)
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
    client.call(1, &request).await.responses[0].error_code
}

/// Value, source, read only.
async fn described(client: &mut Client, setting: &str) -> (String, i8, bool) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text(setting)]));
    let answer = client.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource])).await;
    let config = answer.results[0].configs[0].clone();
    (config.value.unwrap().to_string(), config.config_source, config.read_only)
}

async fn headers(client: &mut Client, offset: i64) -> Vec<BatchHeader> {
    let part = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![part]);
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer = client.call(11, &request).await;
    let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
    Batches::new(records).map(|batch| batch.unwrap().0).collect()
}

async fn offset_at(client: &mut Client, version: i16, time: i64) -> (i64, i64) {
    let part = ListOffsetsPartition::default().with_timestamp(time).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![part]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let answer = client.call(version, &request).await.topics[0].partitions[0].clone();
    (answer.offset, answer.timestamp)
}

#[tokio::test]
async fn records_of_a_topic_with_log_append_time_have_the_servers_time_through_every_door() {
    let running = Running::start().await;
    let mut client = running.client().await;
    assert_eq!(create(&mut client, "t", &[("message.timestamp.type", "ServerTime")]).await, 40);
    assert_eq!(create(&mut client, "t", &[("message.timestamp.type", "LogAppendTime")]).await, 0);
    assert_eq!(described(&mut client, "message.timestamp.type").await, ("LogAppendTime".to_owned(), 1, false));
    let began = SystemClock::new().wall_ms();
    let mut stamps = Vec::new();
    for version in 3..=11 {
        // The producer says that it is a second after the epoch.
        let answer = produce(&mut client, version, "t", batch_of(packed(Compression::Gzip), &["a", "b"])).await;
        assert_eq!(answer.error_code, 0);
        // The server's clock may be a little ahead of the wall clock.
        assert!((began..began + 3_600_000).contains(&answer.log_append_time_ms), "version {version}");
        stamps.push(answer.log_append_time_ms);
    }
    let found = headers(&mut client, 0).await;
    assert!(found.iter().all(|header| header.attributes == 0x09), "gzip, and the time of the append");
    assert_eq!(found.iter().map(|header| header.max_timestamp).collect::<Vec<_>>(), stamps);
    let last = *stamps.last().unwrap();
    let first_of_last = stamps.iter().position(|stamp| *stamp == last).unwrap() as i64 * 2;
    assert_eq!(offset_at(&mut client, 5, began).await, (0, stamps[0]));
    assert_eq!(offset_at(&mut client, 7, -3).await, (first_of_last, last));
    assert_eq!(offset_at(&mut client, 5, last + 1).await, (-1, -1));
    // A producer that repeats a batch hears the time of the first.
    let options = BatchOptions { producer_id: 9, producer_epoch: 0, base_sequence: 0, ..BatchOptions::default() };
    let first = produce(&mut client, 9, "t", batch_of(options, &["once"])).await;
    let again = produce(&mut client, 9, "t", batch_of(options, &["once"])).await;
    assert_eq!((again.base_offset, again.log_append_time_ms), (first.base_offset, first.log_append_time_ms));
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let mut consumer = native.consumer().topic("t").from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let mut times = Vec::new();
    while let Some(record) = consumer.next().await {
        times.push(record.unwrap().timestamp);
    }
    let mut expected: Vec<_> = stamps.iter().flat_map(|stamp| [*stamp, *stamp]).collect();
    expected.push(first.log_append_time_ms);
    assert_eq!(times, expected);
    // Back, and what is there stays as it is.
    assert_eq!(alter(&mut client, 1, "message.timestamp.type", None).await, 0);
    assert_eq!(described(&mut client, "message.timestamp.type").await, ("CreateTime".to_owned(), 5, false));
    let answer = produce(&mut client, 9, "t", batch_of(BatchOptions::default(), &["own"])).await;
    assert_eq!(answer.log_append_time_ms, -1);
    let all = headers(&mut client, 0).await;
    assert_eq!(all[..found.len()], found);
    assert!(!all.last().unwrap().log_append_time() && all.last().unwrap().max_timestamp == 1_000);
    running.stop().await;
}

#[tokio::test]
async fn batches_are_stored_in_the_compression_type_of_their_topic() {
    let running = Running::start().await;
    let mut client = running.client().await;
    assert_eq!(create(&mut client, "t", &[("compression.type", "brotli")]).await, 40);
    assert_eq!(create(&mut client, "t", &[("compression.type", "gzip")]).await, 0);
    assert_eq!(described(&mut client, "compression.type").await, ("gzip".to_owned(), 1, false));
    let mut offset = 0;
    for wanted in ["gzip", "snappy", "lz4", "zstd", "uncompressed", "producer"] {
        assert_eq!(alter(&mut client, 0, "compression.type", Some(wanted)).await, 0);
        assert_eq!(described(&mut client, "compression.type").await.0, wanted);
        for codec in Compression::ALL {
            let answer = produce(&mut client, 9, "t", batch_of(packed(codec), &["a", "b", "c"])).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, offset));
            let header = headers(&mut client, offset).await[0];
            let expected = match wanted {
                "producer" => codec,
                "uncompressed" => Compression::None,
                name => name.parse().unwrap(),
            };
            assert_eq!(header.compression(), Ok(expected), "{codec} in a topic of {wanted}");
            offset += 3;
        }
    }
    running.stop().await;
}
