//! Metadata, creating and deleting.

use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, MetadataRequest, TopicName,
};

use super::client::{Client, Running, text};

pub fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn topic(topic: &str) -> CreatableTopic {
    CreatableTopic::default().with_name(name(topic)).with_num_partitions(1).with_replication_factor(1)
}

async fn create(client: &mut Client, version: i16, topic: CreatableTopic) -> CreateTopicsResponse {
    client.call(version, &CreateTopicsRequest::default().with_topics(vec![topic])).await
}

pub async fn create_topic(client: &mut Client, topic: &str, partitions: i32) {
    let wanted = CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions);
    let answer = create(client, 7, wanted.with_replication_factor(-1)).await;
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
}

fn ask(topics: &[&str]) -> MetadataRequest {
    let topics = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic)))).collect();
    MetadataRequest::default().with_topics(Some(topics))
}

/// Traps 6 and 8: every version of Metadata, with the one epoch from the version on that has a place for it.
#[tokio::test]
async fn metadata_names_all_some_or_none_and_creates_what_it_may() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "one", 3).await;
    for version in 1..=12 {
        let all = client.call(version, &MetadataRequest::default().with_topics(None)).await;
        assert_eq!(all.topics.len(), 1, "version {version}");
        assert_eq!(all.topics[0].partitions.len(), 3);
        let epochs = all.topics[0].partitions.iter().map(|part| part.leader_epoch);
        assert!(epochs.into_iter().all(|epoch| epoch == if version >= 7 { 0 } else { -1 }), "trap 6");
        let none = client.call(version, &ask(&[])).await;
        assert_eq!(none.topics.len(), 0, "version {version}");
        assert_eq!(none.brokers.len(), 1);
    }
    assert_eq!(client.call(0, &ask(&[])).await.topics.len(), 1, "an empty list was all, once");
    let not_allowed = ask(&["two"]).with_allow_auto_topic_creation(false);
    assert_eq!(client.call(12, &not_allowed).await.topics[0].error_code, 3);
    let allowed = ask(&["two", "a b", "..", ""]).with_allow_auto_topic_creation(true);
    let answer = client.call(12, &allowed).await;
    assert_eq!(answer.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [0, 17, 17, 17]);
    let id = answer.topics[0].topic_id;
    assert!(!id.is_nil());
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let unknown = MetadataRequestTopic::default().with_name(None).with_topic_id(uuid::Uuid::from_u128(1));
    let answer = client.call(12, &MetadataRequest::default().with_topics(Some(vec![by_id, unknown]))).await;
    assert_eq!(answer.topics[0].name.as_ref().map(|name| name.to_string()), Some("two".to_owned()));
    assert_eq!(answer.topics[1].error_code, 100);
    let dir = running.stop().await;
    let running = Running::start_in(dir, |config| config.auto_create_topics = false).await;
    let mut client = running.client().await;
    let allowed = ask(&["two", "three"]).with_allow_auto_topic_creation(true);
    let answer = client.call(12, &allowed).await;
    assert_eq!((answer.topics[0].topic_id, answer.topics[1].error_code), (id, 3));
    running.stop().await;
}

/// Trap 15: where the schema allows null, clients do not.
#[tokio::test]
async fn topics_are_created_as_asked_or_refused_with_the_right_code() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for version in 2..=7 {
        let wanted = topic(&format!("v{version}")).with_num_partitions(2);
        let answer = create(&mut client, version, wanted).await;
        assert_eq!(answer.topics[0].error_code, 0);
        if version >= 5 {
            // A list of settings, never null.
            assert!(answer.topics[0].configs.as_ref().unwrap().iter().any(|config| &*config.name == "retention.ms"));
            assert_eq!((answer.topics[0].num_partitions, answer.topics[0].replication_factor), (2, 1));
        }
    }
    let config = |name: &str, value: &str| {
        let config = CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
        topic("refused").with_configs(vec![config])
    };
    let assigned = |ids: Vec<i32>| {
        let ids = ids.into_iter().map(Into::into).collect();
        let assignment = CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(ids);
        topic("assigned").with_num_partitions(-1).with_replication_factor(-1).with_assignments(vec![assignment])
    };
    let refused = [
        (topic("v2"), 36),
        (topic("a/b"), 17),
        (topic("r").with_num_partitions(0), 37),
        (topic("r").with_num_partitions(1_000_000), 37),
        (topic("r").with_replication_factor(3), 38),
        (config("no.such.setting", "1"), 40),
        (config("retention.ms", "soon"), 40),
        (config("compression.type", "brotli"), 40),
        (assigned(vec![7]), 39),
    ];
    for (wanted, code) in refused {
        let answer = create(&mut client, 7, wanted.clone()).await;
        assert_eq!(answer.topics[0].error_code, code, "{wanted:?}");
        assert!(answer.topics[0].error_message.is_some() && answer.topics[0].configs.is_some());
    }
    let answer = create(&mut client, 7, assigned(vec![0])).await;
    assert_eq!((answer.topics[0].error_code, answer.topics[0].num_partitions), (0, 1));
    let only = CreateTopicsRequest::default().with_topics(vec![topic("only-validated")]).with_validate_only(true);
    assert_eq!(client.call(7, &only).await.topics[0].error_code, 0);
    let twice = CreateTopicsRequest::default().with_topics(vec![topic("twice"), topic("twice")]);
    assert!(client.call(7, &twice).await.topics.iter().all(|topic| topic.error_code == 42));
    let all = client.call(12, &MetadataRequest::default().with_topics(None)).await;
    assert_eq!(all.topics.len(), 7);
    running.stop().await;
}

#[tokio::test]
async fn settings_in_kafkas_units_become_ours() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let configs = [("retention.ms", "3600000"), ("segment.bytes", "16777216"), ("max.message.bytes", "1048588")];
    let configs = configs
        .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
    let answer = create(&mut client, 7, topic("set").with_configs(configs.to_vec())).await;
    let value = |name: &str| {
        let configs = answer.topics[0].configs.as_ref().unwrap();
        let config = configs.iter().find(|config| &*config.name == name).unwrap();
        (config.value.as_ref().unwrap().to_string(), config.config_source)
    };
    assert_eq!(value("retention.ms"), ("3600000".to_owned(), 1));
    assert_eq!(value("segment.bytes"), ("16777216".to_owned(), 1));
    assert_eq!(value("max.message.bytes"), ("1048588".to_owned(), 1));
    assert_eq!(value("retention.bytes"), ("-1".to_owned(), 5));
    running.stop().await;
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id_and_a_new_one_has_a_new_id() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for version in 1..=5 {
        create_topic(&mut client, "gone", 1).await;
        let request = DeleteTopicsRequest::default().with_topic_names(vec![name("gone"), name("never-was")]);
        let answer = client.call(version, &request).await;
        assert_eq!(answer.responses.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [0, 3]);
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        create_topic(&mut client, "gone", 1).await;
        let id = client.call(12, &ask(&["gone"])).await.topics[0].topic_id;
        let topics =
            [id, uuid::Uuid::from_u128(7)].map(|id| DeleteTopicState::default().with_name(None).with_topic_id(id));
        let answer = client.call(6, &DeleteTopicsRequest::default().with_topics(topics.to_vec())).await;
        assert_eq!(answer.responses.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [0, 100]);
        assert_eq!(answer.responses[0].name.as_ref().map(|name| name.to_string()), Some("gone".to_owned()));
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    running.stop().await;
}
