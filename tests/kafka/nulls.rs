//! Trap 15: null, "" and empty lists, as Kafka's own server writes them (the rule is in `server/kafka/response.rs`). Every answer
//! that any test here reads goes through [`check`].

use std::fmt::Debug;

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource as IncrementalResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest, GroupId,
    IncrementalAlterConfigsRequest, MetadataRequest,
};
use uuid::Uuid;

use super::client::{Running, text};
use super::topics::{create_topic, name};

/// Kinds whose message is not null where there is no error.
const MESSAGES: [i16; 2] = [10, 55];
/// An answer with more text has records in it.
const MOST: usize = 256 * 1024;

/// Looks for what Kafka never writes: lists that are null, and messages of errors where there is none.
pub fn check(key: i16, version: i16, answer: &impl Debug) {
    let answer = format!("{answer:?}");
    let what = || format!("key {key} in version {version}: {}", answer.get(..2_000).unwrap_or(&answer));
    if answer.len() > MOST {
        return;
    }
    for list in ["configs", "eligible_leader_replicas", "last_known_elr", "records", "offline_replicas", "topics"] {
        assert!(!answer.contains(&format!(" {list}: None")), "{list} is null; {}", what());
    }
    if !MESSAGES.contains(&key) {
        assert!(!answer.contains("error_message: Some(\"\")"), "an empty message; {}", what());
        assert!(!answer.contains("error_code: 0, error_message: Some"), "a message without an error; {}", what());
    }
}

#[tokio::test]
async fn what_succeeds_is_told_with_nulls_where_kafka_has_them() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for version in 2..=7 {
        let topic = CreatableTopic::default().with_name(name("new")).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_validate_only(true);
        let topic = client.call(version, &request).await.topics[0].clone();
        assert_eq!((topic.error_code, topic.error_message), (0, None), "CreateTopics {version}");
        assert_eq!(topic.configs.unwrap().is_empty(), version < 5);
    }
    for version in 0..=5 {
        for kind in 0..=i8::from(version > 0) {
            let request = FindCoordinatorRequest::default().with_key_type(kind);
            let request = match version {
                ..4 => request.with_key(text("g")),
                _ => request.with_coordinator_keys(vec![text("g")]),
            };
            let answer = client.call(version, &request).await;
            match version {
                0 => {}
                ..4 => assert_eq!(answer.error_message.as_deref(), Some("NONE"), "FindCoordinator {version}"),
                _ => assert_eq!(answer.coordinators[0].error_message.as_deref(), Some("")),
            }
        }
    }
    let topic = vec![TopicRequest::default().with_name(name("t"))];
    let request = DescribeTopicPartitionsRequest::default().with_topics(topic).with_response_partition_limit(10);
    let told = client.call(0, &request).await.topics[0].partitions[0].clone();
    assert_eq!((told.eligible_leader_replicas, told.last_known_elr), (Some(Vec::new()), Some(Vec::new())));
    for version in 0..=12 {
        let topic = MetadataRequestTopic::default().with_name(Some(name("t")));
        let answer = client.call(version, &MetadataRequest::default().with_topics(Some(vec![topic]))).await;
        assert_eq!((answer.topics[0].error_code, answer.brokers[0].rack.clone()), (0, None));
        assert_eq!(answer.cluster_id.is_some(), version >= 2);
    }
    // By an id, which is no topic's: before there are ids, that is no question.
    for (version, code, said) in [(10, 42, Some(name(""))), (11, 42, Some(name(""))), (12, 100, None)] {
        let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(9));
        let answer = client.call(version, &MetadataRequest::default().with_topics(Some(vec![topic]))).await;
        assert_eq!((answer.topics[0].error_code, answer.topics[0].name.clone()), (code, said), "Metadata {version}");
    }
    for version in 1..=4 {
        for documentation in if version >= 3 { &[false, true][..] } else { &[false] } {
            let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
            let request = DescribeConfigsRequest::default()
                .with_resources(vec![resource.with_configuration_keys(None)])
                .with_include_documentation(*documentation);
            let result = client.call(version, &request).await.results[0].clone();
            assert_eq!((result.error_code, result.error_message), (0, None));
            let documented = result.configs.iter().filter(|config| config.documentation.is_some()).count();
            // Versions without a place for it are read as "".
            assert!(version < 3 || (documented == result.configs.len()) == *documentation, "version {version}");
        }
    }
    for version in 0..=2 {
        let topic = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
        let request = AlterConfigsRequest::default().with_resources(vec![topic]).with_validate_only(true);
        assert_eq!(client.call(version, &request).await.responses[0].error_message, None);
    }
    for version in 0..=1 {
        let topic = IncrementalResource::default().with_resource_type(2).with_resource_name(text("t"));
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![topic]).with_validate_only(true);
        assert_eq!(client.call(version, &request).await.responses[0].error_message, None);
        let request = DescribeClusterRequest::default().with_endpoint_type(1);
        let answer = client.call(version, &request).await;
        assert_eq!((answer.error_message, answer.brokers[0].rack.clone()), (None, None));
    }
    for version in 0..=3 {
        let topic = CreatePartitionsTopic::default().with_name(name("t")).with_count(2).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_validate_only(true);
        assert_eq!(client.call(version, &request).await.results[0].error_message, None);
    }
    for version in 0..=5 {
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g"))]);
        assert_eq!(client.call(version, &request).await.groups[0].error_message, None);
    }
    for version in 1..=6 {
        create_topic(&mut client, "gone", 1).await;
        let topic = DeleteTopicState::default().with_name(Some(name("gone")));
        let request = match version {
            ..6 => DeleteTopicsRequest::default().with_topic_names(vec![name("gone")]),
            _ => DeleteTopicsRequest::default().with_topics(vec![topic]),
        };
        let result = client.call(version, &request).await.responses[0].clone();
        assert_eq!((result.error_code, result.error_message, result.name), (0, None, Some(name("gone"))));
    }
    running.stop().await;
}
