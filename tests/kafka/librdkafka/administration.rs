//! What the crate's admin client can ask for.

use std::collections::HashMap;

use rdkafka::admin::{AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::super::client::Running;
use super::{Content, PATIENCE, admin, consumer, create, options, places, producer};

fn partitions(reader: &BaseConsumer, topic: &str) -> Option<usize> {
    let metadata = reader.fetch_metadata(None, PATIENCE).unwrap();
    metadata.topics().iter().find(|found| found.name() == topic).map(|found| found.partitions().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_described_changed_and_deleted() {
    let running = Running::start().await;
    let (admin, options) = (admin(&running), options());
    let reader: BaseConsumer = consumer(&running, "admin", &[]).create().unwrap();
    let new = || NewTopic::new("made", 3, TopicReplication::Fixed(1)).set("retention.ms", "3600000");
    let only_checked = super::options().validate_only(true);
    assert_eq!(admin.create_topics(&[new()], &only_checked).await.unwrap(), [Ok("made".to_owned())]);
    assert_eq!(partitions(&reader, "made"), None);
    let misnamed = NewTopic::new("a/b", 1, TopicReplication::Fixed(1));
    let misset = NewTopic::new("misset", 1, TopicReplication::Fixed(1)).set("retention.ms", "soon");
    assert_eq!(
        admin.create_topics(&[new(), misnamed, misset], &options).await.unwrap(),
        [
            Ok("made".to_owned()),
            Err(("a/b".to_owned(), RDKafkaErrorCode::InvalidTopic)),
            Err(("misset".to_owned(), RDKafkaErrorCode::InvalidConfig)),
        ]
    );
    assert_eq!(partitions(&reader, "made"), Some(3));
    let again = admin.create_topics(&[new()], &options).await.unwrap();
    assert_eq!(again, [Err(("made".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);
    // More partitions, never fewer.
    let more = admin.create_partitions(&[NewPartitions::new("made", 5)], &options).await.unwrap();
    assert_eq!(more, [Ok("made".to_owned())]);
    assert_eq!(partitions(&reader, "made"), Some(5));
    let fewer = admin.create_partitions(&[NewPartitions::new("made", 4)], &options).await.unwrap();
    assert_eq!(fewer, [Err(("made".to_owned(), RDKafkaErrorCode::InvalidPartitions))]);
    // Settings.
    let made = ResourceSpecifier::Topic("made");
    let set = AlterConfig::new(made).set("retention.ms", "7200000").set("max.message.bytes", "2000000");
    assert!(admin.alter_configs(&[set], &options).await.unwrap()[0].is_ok());
    // The crate does not pass on what became of each: whether it was refused shows in what holds then.
    let wrong = AlterConfig::new(made).set("retention.ms", "-7").set("max.message.bytes", "3000000");
    admin.alter_configs(&[wrong], &options).await.unwrap();
    let described = admin
        .describe_configs(&[made, ResourceSpecifier::Broker(0), ResourceSpecifier::Topic("none")], &options)
        .await
        .unwrap();
    let topic = described[0].as_ref().unwrap();
    let entry = |name: &str| topic.get(name).unwrap_or_else(|| panic!("no {name} in {topic:?}"));
    assert_eq!(entry("retention.ms").value.as_deref(), Some("7200000"));
    assert_eq!(entry("retention.ms").source, ConfigSource::DynamicTopic);
    assert_eq!(entry("max.message.bytes").value.as_deref(), Some("2000000"));
    assert!(entry("cleanup.policy").value.as_deref() == Some("delete") && entry("cleanup.policy").is_default);
    assert!(described[1].as_ref().unwrap().get("num.partitions").is_some());
    assert!(described[2].as_ref().unwrap().entries.is_empty());
    // What is not said is as if it had never been set.
    assert!(admin.alter_configs(&[AlterConfig::new(made)], &options).await.unwrap()[0].is_ok());
    let described = admin.describe_configs(&[made], &options).await.unwrap();
    assert_ne!(described[0].as_ref().unwrap().get("retention.ms").unwrap().value.as_deref(), Some("7200000"));
    let gone = admin.delete_topics(&["made", "none"], &options).await.unwrap();
    let unknown = Err(("none".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(gone, [Ok("made".to_owned()), unknown]);
    assert_eq!(partitions(&reader, "made"), None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_up_to_an_offset() {
    let running = Running::start().await;
    create(&running, "cut", 2).await;
    let producer = producer(&running, "none");
    for number in 0..20 {
        let content = Content { timestamp: 1_700_000_000_000 + number, ..Content::default() };
        let delivery = content.send(&producer, "cut", number as i32 % 2);
        tokio::time::timeout(PATIENCE, delivery).await.expect("no delivery").unwrap().unwrap();
    }
    let mut upto = TopicPartitionList::new();
    upto.add_partition_offset("cut", 0, Offset::Offset(4)).unwrap();
    upto.add_partition_offset("cut", 1, Offset::End).unwrap();
    let cut = places(&admin(&running).delete_records(&upto, &options()).await.unwrap());
    let expected = [(("cut".to_owned(), 0), Offset::Offset(4)), (("cut".to_owned(), 1), Offset::Offset(10))];
    assert_eq!(cut, expected.into());
    let reader: BaseConsumer = consumer(&running, "cutter", &[]).create().unwrap();
    assert_eq!(reader.fetch_watermarks("cut", 0, PATIENCE).unwrap(), (4, 10));
    assert_eq!(reader.fetch_watermarks("cut", 1, PATIENCE).unwrap(), (10, 10));
    let mut beyond = TopicPartitionList::new();
    beyond.add_partition_offset("cut", 0, Offset::Offset(11)).unwrap();
    let refused = admin(&running).delete_records(&beyond, &options()).await.unwrap();
    let code = refused.elements()[0].error().unwrap_err().rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::OffsetOutOfRange));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_described_and_deleted() {
    let running = Running::start().await;
    create(&running, "grouped", 1).await;
    let reader: BaseConsumer = consumer(&running, "alone", &[("client.id", "anna")]).create().unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition_offset("grouped", 0, Offset::Offset(0)).unwrap();
    reader.commit(&place, CommitMode::Sync).unwrap();
    reader.subscribe(&["grouped"]).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    while reader.assignment().unwrap().count() == 0 {
        assert!(reader.poll(std::time::Duration::from_millis(100)).is_none());
        assert!(std::time::Instant::now() < until, "nothing is assigned");
    }
    let (admin, options) = (admin(&running), options());
    let other: BaseConsumer = consumer(&running, "other", &[]).create().unwrap();
    let listed = other.fetch_group_list(None, PATIENCE).unwrap();
    let group = listed.groups().iter().find(|group| group.name() == "alone").expect("it is not listed");
    assert_eq!((group.state(), group.protocol_type(), group.members().len()), ("Stable", "consumer", 1));
    assert_eq!(group.members()[0].client_id(), "anna");
    let in_use = admin.delete_groups(&["alone", "nobody"], &options).await.unwrap();
    let codes: HashMap<_, _> = in_use.into_iter().map(Result::unwrap_err).collect();
    assert_eq!(codes["alone"], RDKafkaErrorCode::NonEmptyGroup);
    assert_eq!(codes["nobody"], RDKafkaErrorCode::GroupIdNotFound);
    drop(reader);
    assert_eq!(admin.delete_groups(&["alone"], &options).await.unwrap(), [Ok("alone".to_owned())]);
    let listed = other.fetch_group_list(None, PATIENCE).unwrap();
    assert!(listed.groups().iter().all(|group| group.name() != "alone"));
    running.stop().await;
}
