//! What there is: topics, and the one server.

use std::sync::Arc;

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    MetadataRequest, MetadataResponse, TopicName as KafkaName,
};
use kafka_protocol::protocol::StrBytes;

use super::once::once;
use super::session::Session;
use super::{errors, rights};
use crate::base::{ErrorKind, TopicId, TopicName};
use crate::broker::TopicSummary;

/// What may be described of a cluster: what serves clients.
const BROKERS: i8 = 1;
/// And what does not.
const CONTROLLERS: i8 = 2;
/// The version of Metadata from which on topics may be named by their ids.
const IDS_SINCE: i16 = 12;

/// The id on the wire of an incarnation of a topic.
pub fn uuid(id: TopicId) -> uuid::Uuid {
    uuid::Uuid::from_u128(id.0)
}

/// A name on the wire.
pub fn kafka_name(name: &str) -> KafkaName {
    KafkaName(StrBytes::from_string(name.to_owned()))
}

/// Answers Metadata: named topics, all, or none. Topics that are named are created, if the request and the server allow it, as fast
/// as a client may have them created (`broker/creations.rs`), and as long as its connection lasts.
pub async fn metadata(session: Arc<Session>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let create = version < 4 || request.allow_auto_topic_creation;
    let mut topics = match request.topics {
        // An empty list has meant all in the first version, and none since.
        Some(mut topics) if !(version == 0 && topics.is_empty()) => {
            once(&mut topics, |topic| (topic.name.clone(), topic.topic_id));
            let mut found = Vec::with_capacity(topics.len());
            for topic in topics {
                found.push(named(&session, version, topic, create && !session.is_closing()).await);
                tokio::task::consume_budget().await;
            }
            found
        }
        _ => {
            let broker = session.broker().clone();
            let node = session.node();
            let described = move |topic: TopicSummary| described(node, topic.name.as_str(), topic.id, topic.partitions);
            let all = move |_| broker.list_topics().into_iter().map(described).collect();
            session.broker().work(&session.work, all).await.unwrap_or_default()
        }
    };
    let asked = request.include_topic_authorized_operations;
    for topic in topics.iter_mut().filter(|topic| topic.error_code == errors::NONE) {
        topic.topic_authorized_operations = rights::told(asked, rights::TOPIC);
    }
    let (host, port) = session.advertised();
    let broker = MetadataResponseBroker::default()
        .with_node_id(session.node().into())
        .with_host(StrBytes::from_string(host))
        .with_port(port.into());
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(session.broker().server_id())))
        .with_controller_id(session.node().into())
        .with_cluster_authorized_operations(rights::told(
            request.include_cluster_authorized_operations,
            rights::CLUSTER,
        ))
        .with_topics(topics)
}

async fn named(session: &Session, version: i16, topic: MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    let refused = |code| {
        // That there is no name can be said only since later than topics can be asked for by their ids.
        let by_id = |name: &KafkaName| version >= IDS_SINCE && name.is_empty() && !topic.topic_id.is_nil();
        let name = topic.name.clone().filter(|name| !by_id(name));
        let name = name.or_else(|| (version < IDS_SINCE).then(KafkaName::default));
        MetadataResponseTopic::default().with_error_code(code).with_name(name).with_topic_id(topic.topic_id)
    };
    // Kafka's own client says an empty name beside an id.
    let by_name = topic.name.as_ref().filter(|name| !name.is_empty() || topic.topic_id.is_nil());
    let Some(name) = by_name else {
        if version < IDS_SINCE {
            return refused(errors::INVALID_REQUEST);
        }
        let id = TopicId(topic.topic_id.as_u128());
        let found = session.broker().topic_named(id);
        let summary = match found {
            Some(name) => session.broker().metadata(&name, false).await.ok().map(|metadata| (name, metadata)),
            None => None,
        };
        return match summary.filter(|(_, metadata)| metadata.id == id) {
            Some((name, metadata)) => described(session.node(), name.as_str(), metadata.id, metadata.partitions),
            None => refused(errors::UNKNOWN_TOPIC_ID),
        };
    };
    let Ok(name) = TopicName::new(name) else { return refused(errors::INVALID_TOPIC) };
    match session.broker().metadata(&name, create).await {
        Ok(metadata) => described(session.node(), name.as_str(), metadata.id, metadata.partitions),
        Err(error) if error.kind() == ErrorKind::NotFound => refused(errors::UNKNOWN_TOPIC_OR_PARTITION),
        // It is created when its client asks again: this is what Kafka says of a topic that is being created.
        Err(error) if error.kind() == ErrorKind::Overloaded => refused(errors::LEADER_NOT_AVAILABLE),
        Err(error) => refused(errors::code(&error)),
    }
}

fn described(node: i32, name: &str, id: TopicId, partitions: u32) -> MetadataResponseTopic {
    let partition = |number: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(number).unwrap_or(i32::MAX))
            .with_leader_id(node.into())
            .with_leader_epoch(0)
            .with_replica_nodes(vec![node.into()])
            .with_isr_nodes(vec![node.into()])
    };
    MetadataResponseTopic::default()
        .with_name(Some(kafka_name(name)))
        .with_topic_id(uuid(id))
        .with_partitions((0..partitions).map(partition).collect())
}

/// Answers DescribeCluster.
pub async fn describe_cluster(
    session: Arc<Session>,
    _version: i16,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        // Controllers are not for clients.
        let mismatch = request.endpoint_type == CONTROLLERS;
        let code = if mismatch { errors::MISMATCHED_ENDPOINT_TYPE } else { errors::UNSUPPORTED_ENDPOINT_TYPE };
        return DescribeClusterResponse::default()
            .with_error_code(code)
            .with_error_message(Some(StrBytes::from_static_str("only brokers are described")));
    }
    let (host, port) = session.advertised();
    let broker = DescribeClusterBroker::default()
        .with_broker_id(session.node().into())
        .with_host(StrBytes::from_string(host))
        .with_port(port.into());
    DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(StrBytes::from_string(session.broker().server_id()))
        .with_controller_id(session.node().into())
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(rights::told(
            request.include_cluster_authorized_operations,
            rights::CLUSTER,
        ))
}

/// Partitions of all topics that one answer to DescribeTopicPartitions may have.
const MOST_PARTITIONS: usize = 2000;

/// Answers DescribeTopicPartitions: topics in the order of their names, so many partitions at a time.
pub async fn describe_topic_partitions(
    session: Arc<Session>,
    _version: i16,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let broker = session.broker();
    let mut names: Vec<String> = match request.topics.is_empty() {
        true => broker.list_topics().into_iter().map(|topic| topic.name.to_string()).collect(),
        false => request.topics.iter().map(|topic| topic.name.to_string()).collect(),
    };
    names.sort();
    names.dedup();
    let from = request.cursor.map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index.max(0)));
    let mut left = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, MOST_PARTITIONS);
    let mut topics = Vec::new();
    for name in names {
        let first = match &from {
            Some((topic, _)) if name < *topic => continue,
            Some((topic, partition)) if name == *topic => u32::try_from(*partition).unwrap_or(0),
            _ => 0,
        };
        if left == 0 {
            let next = Cursor::default().with_topic_name(kafka_name(&name)).with_partition_index(0);
            return DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(Some(next));
        }
        let answer = DescribeTopicPartitionsResponseTopic::default().with_name(Some(kafka_name(&name)));
        let known = match TopicName::new(&name) {
            Ok(name) => broker.metadata(&name, false).await.map_err(|error| errors::code(&error)),
            Err(_) => Err(errors::INVALID_TOPIC),
        };
        let known = match known {
            Ok(known) => known,
            Err(code) => {
                topics.push(answer.with_error_code(code));
                continue;
            }
        };
        let numbers = first.min(known.partitions)..known.partitions;
        let told: Vec<_> = numbers.clone().take(left).map(|number| told_partition(session.node(), number)).collect();
        let (count, whole) = (told.len(), told.len() == numbers.len());
        left -= count;
        // This request does not ask, and is always told.
        let answer = answer.with_topic_authorized_operations(rights::TOPIC);
        topics.push(answer.with_topic_id(uuid(known.id)).with_partitions(told));
        if !whole {
            let next = first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            let next = Cursor::default()
                .with_topic_name(kafka_name(&name))
                .with_partition_index(i32::try_from(next).unwrap_or(i32::MAX));
            return DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(Some(next));
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics)
}

fn told_partition(node: i32, number: u32) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(i32::try_from(number).unwrap_or(i32::MAX))
        .with_leader_id(node.into())
        .with_leader_epoch(0)
        .with_replica_nodes(vec![node.into()])
        .with_isr_nodes(vec![node.into()])
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}
