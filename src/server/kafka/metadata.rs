//! What there is: topics, and the one server.

use std::sync::Arc;

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, MetadataResponse, TopicName as KafkaName,
};
use kafka_protocol::protocol::StrBytes;

use super::errors;
use super::session::{NODE_ID, Session};
use crate::base::{ErrorKind, TopicId, TopicName};

/// The id on the wire of an incarnation of a topic.
pub fn uuid(id: TopicId) -> uuid::Uuid {
    uuid::Uuid::from_u128(id.0)
}

/// A name on the wire.
pub fn kafka_name(name: &str) -> KafkaName {
    KafkaName(StrBytes::from_string(name.to_owned()))
}

/// Answers Metadata: named topics, all, or none. Topics that are named are created, if the request and the server allow it.
pub async fn metadata(session: Arc<Session>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let create = version < 4 || request.allow_auto_topic_creation;
    let topics = match request.topics {
        // An empty list has meant all in the first version, and none since.
        Some(topics) if !(version == 0 && topics.is_empty()) => {
            let mut found = Vec::with_capacity(topics.len());
            for topic in topics {
                found.push(named(&session, topic, create).await);
            }
            found
        }
        _ => session
            .broker()
            .list_topics()
            .into_iter()
            .map(|topic| described(topic.name.as_str(), topic.id, topic.partitions))
            .collect(),
    };
    let (host, port) = session.advertised();
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE_ID.into())
        .with_host(StrBytes::from_string(host))
        .with_port(port.into());
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(session.broker().server_id())))
        .with_controller_id(NODE_ID.into())
        .with_topics(topics)
}

async fn named(session: &Session, topic: MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    let refused = |code| {
        MetadataResponseTopic::default()
            .with_error_code(code)
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
    };
    let Some(name) = &topic.name else {
        let id = TopicId(topic.topic_id.as_u128());
        let found = session.broker().topic_named(id);
        let summary = match found {
            Some(name) => session.broker().metadata(&name, false).await.ok().map(|metadata| (name, metadata)),
            None => None,
        };
        return match summary.filter(|(_, metadata)| metadata.id == id) {
            Some((name, metadata)) => described(name.as_str(), metadata.id, metadata.partitions),
            None => refused(errors::UNKNOWN_TOPIC_ID),
        };
    };
    let Ok(name) = TopicName::new(name) else { return refused(errors::INVALID_TOPIC) };
    match session.broker().metadata(&name, create).await {
        Ok(metadata) => described(name.as_str(), metadata.id, metadata.partitions),
        Err(error) if error.kind() == ErrorKind::NotFound => refused(errors::UNKNOWN_TOPIC_OR_PARTITION),
        Err(error) => refused(errors::code(&error)),
    }
}

fn described(name: &str, id: TopicId, partitions: u32) -> MetadataResponseTopic {
    let partition = |number: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(number).unwrap_or(i32::MAX))
            .with_leader_id(NODE_ID.into())
            .with_leader_epoch(0)
            .with_replica_nodes(vec![NODE_ID.into()])
            .with_isr_nodes(vec![NODE_ID.into()])
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
    if request.endpoint_type != 1 {
        // Controllers are not for clients.
        return DescribeClusterResponse::default()
            .with_error_code(errors::INVALID_REQUEST)
            .with_error_message(Some(StrBytes::from_static_str("only brokers are described")));
    }
    let (host, port) = session.advertised();
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE_ID.into())
        .with_host(StrBytes::from_string(host))
        .with_port(port.into());
    DescribeClusterResponse::default()
        .with_endpoint_type(1)
        .with_cluster_id(StrBytes::from_string(session.broker().server_id()))
        .with_controller_id(NODE_ID.into())
        .with_brokers(vec![broker])
}
