//! Settings, partitions, deleted records, disk space.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as IncrementalResource, AlterableConfig as Change,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, DeleteRecordsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    DescribeTopicPartitionsRequest, FetchRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
};
use tidelog::client::{Client as Native, Message};
use tidelog::record::Batches;

use super::client::{Client, Running, batch, text};
use super::producing::produce;
use super::topics::{create_topic, name};

fn ask(kind: i8, of: &str) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configuration_keys(None);
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

/// Value and source.
async fn config(client: &mut Client, setting: &str) -> (String, i8) {
    let answer = client.call(4, &ask(2, "t")).await;
    let config = answer.results[0].configs.iter().find(|config| &*config.name == setting).unwrap();
    (config.value.clone().unwrap().to_string(), config.config_source)
}

/// Trap 11: schema registries, Connect and web pages refuse to start without these.
#[tokio::test]
async fn settings_are_described_completely() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let of_topic = [
        "cleanup.policy",
        "retention.ms",
        "retention.bytes",
        "segment.bytes",
        "segment.ms",
        "max.message.bytes",
        "min.insync.replicas",
        "compression.type",
        "message.timestamp.type",
        "delete.retention.ms",
        "min.compaction.lag.ms",
        "unclean.leader.election.enable",
    ];
    let of_server = [
        "num.partitions",
        "default.replication.factor",
        "log.retention.ms",
        "auto.create.topics.enable",
        "message.max.bytes",
        "advertised.listeners",
        "inter.broker.protocol.version",
        "log.flush.interval.messages",
        "group.min.session.timeout.ms",
    ];
    for version in 1..=4 {
        for (kind, of, names) in [(2, "t", &of_topic[..]), (4, "0", &of_server), (4, "", &of_server)] {
            let request = ask(kind, of).with_include_synonyms(true).with_include_documentation(version >= 3);
            let answer = client.call(version, &request).await;
            let result = &answer.results[0];
            assert_eq!(result.error_code, 0);
            for name in names {
                let config =
                    result.configs.iter().find(|config| &*config.name == *name).unwrap_or_else(|| panic!("{name}"));
                assert!(config.value.is_some() && config.config_source > 0 && !config.synonyms.is_empty());
                assert!(version < 3 || config.config_type > 0);
            }
        }
    }
    let mut some = ask(2, "t");
    some.resources[0].configuration_keys = Some(vec![text("cleanup.policy")]);
    let answer = client.call(4, &some).await;
    assert_eq!(answer.results[0].configs.len(), 1);
    assert_eq!(answer.results[0].configs[0].value.as_deref(), Some("delete"));
    let all = client.call(4, &ask(2, "t")).await.results[0].configs.len();
    some.resources[0].configuration_keys = Some(Vec::new());
    assert_eq!(client.call(4, &some).await.results[0].configs.len(), all, "an empty list asks for all");
    for (kind, of, code) in [(2, "nowhere", 3), (2, "a b", 17), (4, "9", 42), (9, "t", 42)] {
        assert_eq!(client.call(4, &ask(kind, of)).await.results[0].error_code, code, "{kind} {of}");
    }
    running.stop().await;
}

#[tokio::test]
async fn settings_are_altered_whole_or_one_by_one() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let alter = |pairs: &[(&str, &str)]| {
        let configs = pairs
            .iter()
            .map(|(name, value)| AlterableConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
        AlterConfigsRequest::default().with_resources(vec![resource.with_configs(configs.collect())])
    };
    let change = |operation: i8, name: &str, value: Option<&str>| {
        let config =
            Change::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text));
        let resource = IncrementalResource::default().with_resource_type(2).with_resource_name(text("t"));
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])])
    };
    let first = alter(&[("retention.ms", "60000"), ("segment.bytes", "67108864")]);
    assert_eq!(client.call(2, &first).await.responses[0].error_code, 0);
    assert_eq!(config(&mut client, "retention.ms").await, ("60000".to_owned(), 1));
    assert_eq!(client.call(2, &alter(&[("retention.bytes", "1000000")])).await.responses[0].error_code, 0);
    assert_eq!(config(&mut client, "retention.ms").await, ("-1".to_owned(), 5), "what is not named goes back");
    assert_eq!(config(&mut client, "retention.bytes").await, ("1000000".to_owned(), 1));
    assert_eq!(client.call(1, &change(0, "retention.ms", Some("90000"))).await.responses[0].error_code, 0);
    assert_eq!(config(&mut client, "retention.bytes").await.1, 1, "what is not named stays");
    let only = change(0, "retention.ms", Some("5000")).with_validate_only(true);
    assert_eq!(client.call(1, &only).await.responses[0].error_code, 0);
    assert_eq!(config(&mut client, "retention.ms").await.0, "90000");
    assert_eq!(client.call(1, &change(1, "retention.ms", None)).await.responses[0].error_code, 0);
    assert_eq!(config(&mut client, "retention.ms").await, ("-1".to_owned(), 5));
    assert_eq!(client.call(1, &change(2, "cleanup.policy", Some("delete"))).await.responses[0].error_code, 0);
    for (operation, name, value, code) in [
        (0, "no.such.setting", Some("1"), 40),
        (0, "retention.ms", Some("soon"), 40),
        (0, "segment.bytes", Some("1"), 40),
        (0, "min.insync.replicas", Some("2"), 40),
        (2, "retention.ms", Some("1"), 40),
        (9, "retention.ms", Some("1"), 42),
    ] {
        let answer = client.call(1, &change(operation, name, value)).await;
        assert_eq!(answer.responses[0].error_code, code, "{operation} {name} {value:?}");
        let only = change(operation, name, value).with_validate_only(true);
        assert_eq!(client.call(1, &only).await.responses[0].error_code, code);
    }
    for setting in ["num.partitions", "log.flush.interval.messages", "no.such.setting"] {
        let mut of_server = alter(&[(setting, "3")]);
        of_server.resources[0].resource_type = 4;
        let answer = client.call(2, &of_server).await.responses[0].clone();
        assert!(answer.error_code == 42 && answer.error_message.unwrap().contains("in its configuration"), "{setting}");
        let mut of_server = change(0, setting, Some("3"));
        of_server.resources[0].resource_type = 4;
        assert_eq!(client.call(1, &of_server).await.responses[0].error_code, 42, "{setting}");
    }
    running.stop().await;
}

#[tokio::test]
async fn topics_get_more_partitions_never_fewer() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let grow = |count: i32| {
        let topic = CreatePartitionsTopic::default().with_name(name("t")).with_count(count).with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    };
    for (count, code) in [(2, 37), (1, 37), (-1, 37), (5_000, 37)] {
        assert_eq!(client.call(3, &grow(count)).await.results[0].error_code, code);
    }
    assert_eq!(client.call(3, &grow(4).with_validate_only(true)).await.results[0].error_code, 0);
    assert_eq!(client.call(3, &grow(3)).await.results[0].error_code, 0);
    let topics = vec![TopicRequest::default().with_name(name("t")), TopicRequest::default().with_name(name("nowhere"))];
    let request = DescribeTopicPartitionsRequest::default().with_topics(topics).with_response_partition_limit(2);
    let first = client.call(0, &request).await;
    assert_eq!(first.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [3, 0]);
    assert_eq!(first.topics[1].partitions.len(), 2);
    let cursor = first.next_cursor.unwrap();
    assert_eq!((cursor.topic_name.0.to_string(), cursor.partition_index), ("t".to_owned(), 2));
    let from = kafka_protocol::messages::describe_topic_partitions_request::Cursor::default()
        .with_topic_name(cursor.topic_name)
        .with_partition_index(cursor.partition_index);
    let rest = client.call(0, &request.with_cursor(Some(from))).await;
    assert_eq!((rest.topics[0].partitions.len(), rest.next_cursor), (1, None));
    running.stop().await;
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset_and_stay_deleted() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for _ in 0..5 {
        produce(&mut client, 9, "t", batch(&["a", "b"])).await;
    }
    let below = |offset: i64| {
        let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![part]);
        DeleteRecordsRequest::default().with_topics(vec![topic])
    };
    for (offset, code, start) in [(3, 0, 3), (1, 0, 3), (11, 1, -1), (-2, 1, -1)] {
        let answer = client.call(2, &below(offset)).await.topics[0].partitions[0].clone();
        assert_eq!((answer.error_code, answer.low_watermark), (code, start), "below {offset}");
    }
    let (address, dir) = (running.server.addresses()[0].to_string(), ());
    let native = tidelog::client::Client::connect(address).await.unwrap();
    let mut consumer =
        native.consumer().topic("t").until_end(true).from(tidelog::client::StartAt::Beginning).build().await.unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().offset, 3);
    drop((consumer, native, dir));
    let dir = running.stop().await;
    let running = Running::start_in(dir, |_| {}).await;
    let mut client = running.client().await;
    assert_eq!(client.call(2, &below(0)).await.topics[0].partitions[0].low_watermark, 3, "after a restart");
    assert_eq!(client.call(2, &below(-1)).await.topics[0].partitions[0].low_watermark, 10, "all of them");
    assert_eq!(produce(&mut client, 9, "t", batch(&["c"])).await.base_offset, 10);
    running.stop().await;
}

/// Trap 6: there is one epoch, and it ends where the partition ends.
#[tokio::test]
async fn the_epoch_ends_where_the_partition_ends() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    produce(&mut client, 9, "t", batch(&["a", "b"])).await;
    for version in 2..=4 {
        for (current, epoch, expected) in
            [(-1, 0, (0, 0, 2)), (0, 0, (0, 0, 2)), (-1, 5, (0, -1, -1)), (3, 0, (75, -1, -1))]
        {
            let part = OffsetForLeaderPartition::default()
                .with_partition(0)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![part]);
            let answer = client.call(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
            let end = &answer.topics[0].partitions[0];
            assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected);
        }
    }
    running.stop().await;
}

/// Trap 6: the epoch is the same in every answer, in every batch whatever door it came through, and after a restart.
#[tokio::test]
async fn there_is_one_epoch_for_ever() {
    let mut running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    produce(&mut client, 9, "t", batch(&["a"])).await;
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let producer = native.producer().build().await.unwrap();
    producer.send_and_wait(Message::to("t").value("b")).await.unwrap();
    drop((producer, native));
    for _ in 0..2 {
        let metadata = client.call(12, &MetadataRequest::default().with_topics(None)).await;
        assert_eq!(metadata.topics[0].partitions[0].leader_epoch, 0);
        for version in 4..=9 {
            let part = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(0);
            let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![part]);
            let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
            let part = client.call(version, &request).await.topics[0].partitions[0].clone();
            assert_eq!((part.error_code, part.offset, part.leader_epoch), (0, 2, 0));
        }
        let part = FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(0);
        let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![part]);
        let fetch =
            FetchRequest::default().with_replica_id((-1).into()).with_max_bytes(1 << 20).with_topics(vec![topic]);
        let part = client.call(12, &fetch.with_session_epoch(-1)).await.responses[0].partitions[0].clone();
        let batches = Batches::new(part.records.unwrap()).map(|batch| batch.unwrap().0.leader_epoch);
        assert_eq!(batches.collect::<Vec<_>>(), [0, 0]);
        let part = OffsetCommitRequestPartition::default().with_committed_offset(1).with_committed_leader_epoch(0);
        let part = part.with_committed_metadata(Some(text("")));
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![part]);
        let commit = OffsetCommitRequest::default().with_group_id(text("g").into()).with_topics(vec![topic]);
        assert_eq!(client.call(8, &commit).await.topics[0].partitions[0].error_code, 0);
        for version in 5..=7 {
            let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0, 1]);
            let request = OffsetFetchRequest::default().with_group_id(text("g").into()).with_topics(Some(vec![topic]));
            let parts = client.call(version, &request).await.topics[0].partitions.clone();
            let epochs = parts.iter().map(|part| (part.committed_offset, part.committed_leader_epoch));
            assert_eq!(epochs.collect::<Vec<_>>(), [(1, 0), (-1, -1)]);
        }
        let dir = running.stop().await;
        running = Running::start_in(dir, |_| {}).await;
        client = running.client().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn the_space_that_topics_take_is_told() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let size = batch(&["a"]).len() as i64;
    produce(&mut client, 9, "t", batch(&["a"])).await;
    for version in 1..=4 {
        let answer = client.call(version, &DescribeLogDirsRequest::default().with_topics(None)).await;
        let dir = &answer.results[0];
        assert_eq!((dir.error_code, dir.topics.len()), (0, 1));
        let sizes: Vec<_> = dir.topics[0].partitions.iter().map(|part| part.partition_size).collect();
        assert_eq!(sizes, [size, 0]);
    }
    running.stop().await;
}

/// Else an operator's slip takes the only record of a key.
#[tokio::test]
async fn records_of_a_topic_that_is_only_compacted_are_not_deleted_by_their_offset() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for (topic, policy, outcome) in [("state", "compact", (44, -1)), ("both", "compact,delete", (0, 2))] {
        create_topic(&mut client, topic, 1).await;
        let config = Change::default().with_name(text("cleanup.policy")).with_value(Some(text(policy)));
        let resource = IncrementalResource::default().with_resource_type(2).with_resource_name(text(topic));
        let request =
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
        assert_eq!(client.call(1, &request).await.responses[0].error_code, 0);
        produce(&mut client, 9, topic, batch(&["a", "b", "c"])).await;
        let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(2);
        let part = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![part]);
        let answer = client.call(2, &DeleteRecordsRequest::default().with_topics(vec![part])).await;
        let answer = answer.topics[0].partitions[0].clone();
        assert_eq!((answer.error_code, answer.low_watermark), outcome, "{policy}");
    }
    running.stop().await;
}
