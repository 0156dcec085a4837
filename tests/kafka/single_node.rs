//! What a cluster of one node says of itself, and what it answers to requests that mean something with several nodes.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeConfigsRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest,
    MetadataRequest,
};

use super::client::{Client, Running, text};
use super::topics::{create_topic, name};

/// Every number of a node that answers name.
async fn nodes(client: &mut Client) -> Vec<i32> {
    let mut seen = Vec::new();
    for version in [0, 5, 12] {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let request = if version == 0 { request } else { request.with_topics(None) };
        let answer = client.call(version, &request).await;
        seen.extend(answer.brokers.iter().map(|broker| broker.node_id.0));
        if version > 0 {
            seen.push(answer.controller_id.0);
        }
        let part = &answer.topics[0].partitions[0];
        seen.push(part.leader_id.0);
        seen.extend(part.replica_nodes.iter().chain(&part.isr_nodes).map(|node| node.0));
    }
    let answer = client.call(1, &DescribeClusterRequest::default().with_endpoint_type(1)).await;
    seen.push(answer.controller_id.0);
    seen.extend(answer.brokers.iter().map(|broker| broker.broker_id.0));
    let answer = client.call(3, &FindCoordinatorRequest::default().with_key(text("g"))).await;
    seen.push(answer.node_id.0);
    let answer = client.call(5, &FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")])).await;
    seen.push(answer.coordinators[0].node_id.0);
    let topic = vec![TopicRequest::default().with_name(name("t"))];
    let request = DescribeTopicPartitionsRequest::default().with_topics(topic).with_response_partition_limit(1);
    let part = client.call(0, &request).await.topics[0].partitions[0].clone();
    seen.push(part.leader_id.0);
    seen.extend(part.replica_nodes.iter().chain(&part.isr_nodes).map(|node| node.0));
    seen
}

/// Of the settings of a broker.
async fn described(client: &mut Client, broker: &str) -> i16 {
    let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(text(broker));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]);
    client.call(4, &request).await.results[0].error_code
}

/// Examples and test suites ask for broker 0, other installations for what they have.
#[tokio::test]
async fn the_node_has_the_same_number_everywhere_which_is_configured() {
    for (configured, node) in [(None, 0), (Some(7), 7)] {
        let change = |config: &mut tidelog::server::config::ServerConfig| {
            config.kafka_node_id = configured.unwrap_or(config.kafka_node_id);
        };
        let running = Running::start_with(change).await;
        let mut client = running.client().await;
        create_topic(&mut client, "t", 1).await;
        let seen = nodes(&mut client).await;
        assert!(seen.len() > 20 && seen.iter().all(|seen| *seen == node), "{seen:?}");
        assert_eq!(described(&mut client, &node.to_string()).await, 0);
        assert_eq!(described(&mut client, "").await, 0, "whichever there is");
        assert_eq!(described(&mut client, "1").await, 42, "there is none such");
        running.stop().await;
    }
}
