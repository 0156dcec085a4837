//! Requests that mean something where there are several nodes, or several disks: moving replicas, electing leaders, asking for the
//! quorum. They are answered as a cluster of one node with one directory answers them: what is wanted is there already, or cannot be.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::describe_quorum_request::PartitionData as AskedPartition;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse, DescribeQuorumRequest, DescribeQuorumResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListConfigResourcesRequest, ListConfigResourcesResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, TopicName as KafkaName,
};

use super::errors;
use super::groups::text;
use super::once::once_each;
use super::session::Session;
use super::topics::{Refused, is_here};
use crate::base::TopicName;

/// The log of a quorum, which tools ask for by this name.
const METADATA: &str = "__cluster_metadata";
/// What is described of topics and brokers, among the kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Kinds of resources of which there are none here: loggers, client metrics, groups.
const EMPTY_KINDS: [i8; 3] = [8, 16, 32];

/// Whether there is such a partition.
fn partition(session: &Session, topic: &str, number: i32) -> Result<(), Refused> {
    TopicName::new(topic).map_err(|error| (errors::INVALID_TOPIC, error.to_string()))?;
    let number = u32::try_from(number)
        .map_err(|_| (errors::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no partition {number}")))?;
    let there = session.broker().partition_ends(topic, number);
    there.map(drop).map_err(|error| (errors::code(&error), error.to_string()))
}

/// Answers ElectLeaders: every partition has its leader. Who names none is told only of those that have not, which are none.
pub async fn elect_leaders(session: Arc<Session>, _version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let elect = |topic: &KafkaName, number: i32| {
        let (code, why) = match partition(&session, topic, number) {
            Ok(()) => (errors::ELECTION_NOT_NEEDED, "this server is the partition's leader already".to_owned()),
            Err(refused) => refused,
        };
        PartitionResult::default().with_partition_id(number).with_error_code(code).with_error_message(Some(text(why)))
    };
    let mut topics = request.topic_partitions.unwrap_or_default();
    once_each(&mut topics, |topic| topic.topic.clone(), |topic| &mut topic.partitions, |number| *number);
    let topics = topics.into_iter().map(|topic| {
        let results = topic.partitions.iter().map(|number| elect(&topic.topic, *number)).collect();
        ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(results)
    });
    ElectLeadersResponse::default().with_replica_election_results(topics.collect())
}

/// Answers AlterReplicaLogDirs: partitions are in the one directory already.
pub async fn alter_replica_log_dirs(
    session: Arc<Session>,
    _version: i16,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let own = session.shared.config.data_dir.display().to_string();
    let mut topics: BTreeMap<KafkaName, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            for number in topic.partitions {
                let code = match partition(&session, &topic.name, number) {
                    Err((code, _)) => code,
                    Ok(()) if *dir.path != *own => errors::LOG_DIR_NOT_FOUND,
                    Ok(()) => errors::NONE,
                };
                let result = AlterReplicaLogDirPartitionResult::default().with_partition_index(number);
                topics.entry(topic.name.clone()).or_default().push(result.with_error_code(code));
            }
        }
    }
    let results = topics.into_iter().map(|(name, partitions)| {
        AlterReplicaLogDirTopicResult::default().with_topic_name(name).with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}

/// Answers AlterPartitionReassignments: to this server, where every partition is.
pub async fn alter_reassignments(
    session: Arc<Session>,
    version: i16,
    mut request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let number = |part: &ReassignablePartition| part.partition_index;
    once_each(&mut request.topics, |topic| topic.name.clone(), |topic| &mut topic.partitions, number);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let number = wanted.partition_index;
            let outcome = partition(&session, &topic.name, number).and_then(|()| match &wanted.replicas {
                None => Err((errors::NO_REASSIGNMENT_IN_PROGRESS, "no partition is being moved".to_owned())),
                Some(replicas) if is_here(&session, replicas) => Ok(()),
                Some(_) => {
                    let what = format!("there is one broker, {}, and each partition has one replica", session.node());
                    Err((errors::INVALID_REPLICA_ASSIGNMENT, what))
                }
            });
            let answer = ReassignablePartitionResponse::default().with_partition_index(number);
            match outcome {
                Ok(()) => answer.with_error_message(None),
                Err((code, why)) => answer.with_error_code(code).with_error_message(Some(text(why))),
            }
        });
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    let answer =
        AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(topics.collect());
    match version {
        0 => answer,
        _ => answer.with_allow_replication_factor_change(request.allow_replication_factor_change),
    }
}

/// Answers ListPartitionReassignments: no partition is being moved.
pub async fn list_reassignments(
    _session: Arc<Session>,
    _version: i16,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}

/// Answers DescribeQuorum: this server is the only voter. There is no log that others would follow, so its end is 0.
pub async fn describe_quorum(
    session: Arc<Session>,
    version: i16,
    mut request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let number = |part: &AskedPartition| part.partition_index;
    once_each(&mut request.topics, |topic| topic.topic_name.clone(), |topic| &mut topic.partitions, number);
    let node = session.node();
    let topics = request.topics.into_iter().map(|topic| {
        let describe = |number: i32| {
            let answer = PartitionData::default().with_partition_index(number);
            if topic.topic_name.as_str() != METADATA || number != 0 {
                return answer.with_error_code(errors::UNKNOWN_TOPIC_OR_PARTITION).with_leader_id((-1).into());
            }
            let mut voter = ReplicaState::default().with_replica_id(node.into()).with_log_end_offset(0);
            if version >= 1 {
                let now = session.broker().now_ms();
                voter = voter.with_last_fetch_timestamp(now).with_last_caught_up_timestamp(now);
            }
            answer.with_leader_id(node.into()).with_leader_epoch(0).with_current_voters(vec![voter])
        };
        let partitions = topic.partitions.iter().map(|part| describe(part.partition_index)).collect();
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions)
    });
    let answer = DescribeQuorumResponse::default().with_topics(topics.collect());
    if version < 2 {
        return answer;
    }
    let (host, port) = session.advertised();
    let listener = Listener::default().with_name(text("PLAINTEXT")).with_host(text(host)).with_port(port);
    answer.with_nodes(vec![Node::default().with_node_id(node.into()).with_listeners(vec![listener])])
}

/// Answers ListConfigResources: what DescribeConfigs can be asked for. Its first version asks for the metrics of clients only.
pub async fn list_config_resources(
    session: Arc<Session>,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    if version == 0 {
        return ListConfigResourcesResponse::default();
    }
    let known = |kind: &i8| [TOPIC, BROKER].contains(kind) || EMPTY_KINDS.contains(kind);
    if !request.resource_types.iter().all(known) {
        return ListConfigResourcesResponse::default().with_error_code(errors::UNSUPPORTED_VERSION);
    }
    let wanted = |kind: i8| request.resource_types.is_empty() || request.resource_types.contains(&kind);
    let resource =
        |kind: i8, name: String| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    let mut found = Vec::new();
    if wanted(TOPIC) {
        let topics = session.broker().list_topics().into_iter();
        found.extend(topics.map(|topic| resource(TOPIC, topic.name.to_string())));
    }
    if wanted(BROKER) {
        found.push(resource(BROKER, session.node().to_string()));
    }
    ListConfigResourcesResponse::default().with_config_resources(found)
}
