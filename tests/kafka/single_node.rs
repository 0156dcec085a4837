//! What a cluster of one node says of itself, and what it answers to requests that mean something with several nodes.

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ConsumerGroupDescribeRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeGroupsRequest, DescribeLogDirsRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    ElectLeadersRequest, FindCoordinatorRequest, GroupId, ListConfigResourcesRequest,
    ListPartitionReassignmentsRequest, MetadataRequest,
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

/// Kafka with one broker refuses it; programs that are written for three brokers need it granted.
#[tokio::test]
async fn more_replicas_than_one_are_refused_unless_they_are_granted() {
    for granted in [false, true] {
        let running = Running::start_with(|config| config.kafka_grant_replication = granted).await;
        let mut client = running.client().await;
        let topic = |of: &str| CreatableTopic::default().with_name(name(of)).with_num_partitions(1);
        let assigned = |of: &str, brokers: &[i32]| {
            let on =
                CreatableReplicaAssignment::default().with_broker_ids(brokers.iter().map(|id| (*id).into()).collect());
            topic(of).with_num_partitions(-1).with_replication_factor(-1).with_assignments(vec![on])
        };
        let (refused, elsewhere) = if granted { (0, 0) } else { (38, 39) };
        let wishes = [
            (topic("one").with_replication_factor(1), 0),
            (topic("three").with_replication_factor(3), refused),
            (assigned("elsewhere", &[0, 1]), elsewhere),
            (assigned("other", &[2]), elsewhere),
            (topic("none").with_replication_factor(0), 38),
            (assigned("nowhere", &[]), 39),
            (assigned("wrong", &[-1]), 39),
        ];
        for (wanted, code) in wishes {
            let told = client.call(7, &CreateTopicsRequest::default().with_topics(vec![wanted.clone()])).await;
            let told = &told.topics[0];
            assert_eq!(told.error_code, code, "{wanted:?}");
            if code == 0 {
                assert_eq!(told.replication_factor, 1, "what there is, is told");
            }
        }
        for (brokers, code) in [(&[0][..], 0), (&[1, 2], elsewhere), (&[], 39)] {
            let on =
                CreatePartitionsAssignment::default().with_broker_ids(brokers.iter().map(|id| (*id).into()).collect());
            let grow = CreatePartitionsTopic::default().with_name(name("one")).with_count(2);
            let request = CreatePartitionsRequest::default().with_topics(vec![grow.with_assignments(Some(vec![on]))]);
            let answer = client.call(3, &request.with_validate_only(true)).await;
            assert_eq!(answer.results[0].error_code, code, "{brokers:?}");
        }
        running.stop().await;
    }
}

/// Kafka without an authorizer allows all that there is to do with a kind of thing, and says so to who asks.
#[tokio::test]
async fn who_asks_what_it_may_do_is_told_everything() {
    const NOT_ASKED: i32 = i32::MIN;
    let (topic, cluster, group) = (3576, 8096, 328);
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let told = |asked: bool, operations| if asked { operations } else { NOT_ASKED };
    for asked in [false, true] {
        for version in 8..=12 {
            let wanted = [MetadataRequestTopic::default().with_name(Some(name("t"))), {
                MetadataRequestTopic::default().with_name(Some(name("a b")))
            }];
            let request = MetadataRequest::default()
                .with_topics(Some(wanted.to_vec()))
                .with_include_topic_authorized_operations(asked)
                .with_include_cluster_authorized_operations(asked && version <= 10);
            let answer = client.call(version, &request).await;
            assert_eq!(answer.topics[0].topic_authorized_operations, told(asked, topic), "version {version}");
            assert_eq!(answer.topics[1].topic_authorized_operations, NOT_ASKED, "there is no such topic");
            assert_eq!(answer.cluster_authorized_operations, told(asked && version <= 10, cluster));
        }
        for version in 0..=1 {
            let request = DescribeClusterRequest::default().with_endpoint_type(1);
            let answer = client.call(version, &request.with_include_cluster_authorized_operations(asked)).await;
            assert_eq!(answer.cluster_authorized_operations, told(asked, cluster));
        }
        for version in 3..=6 {
            let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g"))]);
            let answer = client.call(version, &request.with_include_authorized_operations(asked)).await;
            assert_eq!(answer.groups[0].authorized_operations, told(asked && version < 6, group), "none such in 6");
        }
    }
    assert_eq!(client.call(1, &super::consuming::join("m", &["t"])).await.error_code, 0);
    for (version, asked) in [(0, false), (0, true), (1, false), (1, true)] {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text("g"))]);
        let answer = client.call(version, &request.with_include_authorized_operations(asked)).await;
        assert_eq!(answer.groups[0].authorized_operations, told(asked, group));
    }
    let wanted = vec![TopicRequest::default().with_name(name("t"))];
    let request = DescribeTopicPartitionsRequest::default().with_topics(wanted).with_response_partition_limit(1);
    assert_eq!(client.call(0, &request).await.topics[0].topic_authorized_operations, topic, "always");
    running.stop().await;
}

/// Pages and tools for operators ask for all of this, whatever they are to show.
#[tokio::test]
async fn what_means_something_with_several_nodes_is_answered_as_one_node_does() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    for version in 0..=2 {
        let topic = TopicPartitions::default().with_topic(name("t")).with_partitions(vec![0, 1, 2]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
        let answer = client.call(version, &request).await;
        let parts = &answer.replica_election_results[0].partition_result;
        let codes: Vec<_> = parts.iter().map(|part| (part.partition_id, part.error_code)).collect();
        assert_eq!((answer.error_code, codes), (0, vec![(0, 84), (1, 84), (2, 3)]), "each has its leader");
        let all = client.call(version, &ElectLeadersRequest::default().with_topic_partitions(None)).await;
        assert_eq!((all.error_code, all.replica_election_results.len()), (0, 0));
    }
    let dirs = client.call(4, &DescribeLogDirsRequest::default().with_topics(None)).await;
    let own = dirs.results[0].log_dir.clone();
    for version in 1..=2 {
        let topic = AlterReplicaLogDirTopic::default().with_name(name("t")).with_partitions(vec![0, 7]);
        let dir = |path| AlterReplicaLogDir::default().with_path(path).with_topics(vec![topic.clone()]);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir(own.clone()), dir(text("/elsewhere"))]);
        let answer = client.call(version, &request).await;
        let codes: Vec<_> = answer.results[0].partitions.iter().map(|part| part.error_code).collect();
        assert_eq!((answer.results.len(), codes), (1, vec![0, 3, 57, 3]));
    }
    for version in 0..=1 {
        let to = |replicas: Option<&[i32]>| {
            let replicas = replicas.map(|replicas| replicas.iter().map(|id| (*id).into()).collect());
            let part = ReassignablePartition::default().with_partition_index(0).with_replicas(replicas);
            let topic = ReassignableTopic::default().with_name(name("t")).with_partitions(vec![part]);
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
        };
        for (replicas, code) in [(Some(&[0][..]), 0), (Some(&[1]), 39), (Some(&[0, 1]), 39), (None, 85)] {
            let answer = client.call(version, &to(replicas)).await;
            let part = &answer.responses[0].partitions[0];
            assert_eq!((answer.error_code, part.error_code), (0, code), "{replicas:?}");
            assert_eq!((answer.error_message, part.error_message.is_some()), (None, code != 0));
        }
    }
    let ongoing = client.call(0, &ListPartitionReassignmentsRequest::default().with_topics(None)).await;
    assert_eq!((ongoing.error_code, ongoing.error_message, ongoing.topics.len()), (0, None, 0));
    for version in 0..=2 {
        let topic = TopicData::default().with_topic_name(name("__cluster_metadata"));
        let topic = topic.with_partitions(vec![PartitionData::default()]);
        let answer = client.call(version, &DescribeQuorumRequest::default().with_topics(vec![topic])).await;
        let part = &answer.topics[0].partitions[0];
        assert_eq!((answer.error_code, part.error_code, part.leader_id.0), (0, 0, 0));
        assert_eq!(part.current_voters.iter().map(|voter| voter.replica_id.0).collect::<Vec<_>>(), [0]);
        assert_eq!(answer.nodes.len(), usize::from(version == 2));
    }
    let listed = async |client: &mut Client, version, kinds: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let answer = client.call(version, &request).await;
        assert_eq!(answer.error_code, 0);
        let listed = answer.config_resources.into_iter();
        listed.map(|found| (found.resource_type, found.resource_name.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut client, 0, &[]).await, [], "metrics of clients");
    assert_eq!(listed(&mut client, 1, &[2]).await, [(2, "t".to_owned())]);
    assert_eq!(listed(&mut client, 1, &[]).await, [(2, "t".to_owned()), (4, "0".to_owned())]);
    assert_eq!(listed(&mut client, 1, &[8, 16, 32]).await, []);
    running.stop().await;
}
