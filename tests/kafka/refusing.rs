//! Trap 15: an error can be said in every version of every kind of request, with nothing in it that the version does not know
//! and no null where clients expect none. (A client that reads it strictly is in `client.rs`.)

use std::collections::BTreeSet;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource as IncrementalResource;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest,
    AlterReplicaLogDirsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest, ElectLeadersRequest,
    EndTxnRequest, FetchRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    SyncGroupRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request};
use uuid::Uuid;

use super::client::{Client, Running, batch, text};
use super::producing::produce_request;
use super::topics::{create_topic, name};

/// A client, what it was offered, and the kinds of which an error was heard.
struct Asker {
    client: Client,
    offered: Vec<(i16, i16, i16)>,
    heard: BTreeSet<i16>,
}

impl Asker {
    /// Asks in every version; the error must be this one.
    async fn refused<Q: Request>(
        &mut self,
        request: impl Fn(i16) -> Q,
        code: impl Fn(i16, &Q::Response) -> i16,
        is: i16,
    ) where
        Q::Response: Decodable + Encodable + std::fmt::Debug,
    {
        let (_, first, last) = *self.offered.iter().find(|offered| offered.0 == Q::KEY).unwrap();
        // Produce is offered from 0 on, and begins with 3.
        for version in if Q::KEY == 0 { 3..=last } else { first..=last } {
            let answer = self.client.call(version, &request(version)).await;
            assert_eq!(code(version, &answer), is, "key {} in version {version}: {answer:?}", Q::KEY);
        }
        self.heard.insert(Q::KEY);
    }
}

fn group() -> GroupId {
    GroupId(text("g"))
}

#[tokio::test]
async fn an_error_can_be_said_in_every_version() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let offered = client.call(0, &ApiVersionsRequest::default()).await.api_keys;
    let offered = offered.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    let mut asker = Asker { client, offered, heard: BTreeSet::new() };
    records(&mut asker).await;
    topics(&mut asker).await;
    nodes(&mut asker).await;
    members(&mut asker).await;
    positions(&mut asker).await;
    transactions(&mut asker).await;
    // ApiVersions is in `talking.rs`; groups, transactions, space and moves are listed, whatever there is.
    let silent = [16, 18, 35, 46, 66];
    let missing: Vec<_> =
        asker.offered.iter().filter(|of| !asker.heard.contains(&of.0) && !silent.contains(&of.0)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    running.stop().await;
}

async fn records(asker: &mut Asker) {
    let produce = |_| produce_request(-1, vec![("nowhere", 0, Some(batch(&["a"])))]);
    asker.refused(produce, |_, answer| answer.responses[0].partition_responses[0].error_code, 3).await;
    let fetch = |version: i16, session| {
        let part = FetchPartition::default().with_current_leader_epoch(-1).with_log_start_offset(-1);
        let topic = FetchTopic::default().with_partitions(vec![part]);
        let topic = if version >= 13 { topic.with_topic_id(Uuid::from_u128(9)) } else { topic.with_topic(name("a b")) };
        FetchRequest::default().with_replica_id((-1).into()).with_session_id(session).with_topics(vec![topic])
    };
    let code = |version: i16, answer: &kafka_protocol::messages::FetchResponse| {
        let part = &answer.responses[0].partitions[0];
        assert!(part.current_leader == Default::default() && part.diverging_epoch == Default::default());
        if version < 13 { part.error_code } else { part.error_code - 100 + 17 }
    };
    asker.refused(|version| fetch(version, 0).with_session_epoch(-1), code, 17).await;
    let sessions = |version: i16| {
        fetch(version, if version < 7 { 0 } else { 7 }).with_session_epoch(if version < 7 { -1 } else { 1 })
    };
    let code = |version: i16, answer: &kafka_protocol::messages::FetchResponse| {
        if version < 7 { 70 } else { answer.error_code }
    };
    asker.refused(sessions, code, 70).await;
    let list = |_| {
        let part = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(name("nowhere")).with_partitions(vec![part]);
        ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
    };
    asker.refused(list, |_, answer| answer.topics[0].partitions[0].error_code, 3).await;
    let epoch = |_| {
        let part = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
        let topic = OffsetForLeaderTopic::default().with_topic(name("nowhere")).with_partitions(vec![part]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    };
    asker.refused(epoch, |_, answer| answer.topics[0].partitions[0].error_code, 3).await;
    let delete = |_| {
        let part = DeleteRecordsPartition::default();
        let topic = DeleteRecordsTopic::default().with_name(name("nowhere")).with_partitions(vec![part]);
        DeleteRecordsRequest::default().with_topics(vec![topic])
    };
    asker.refused(delete, |_, answer| answer.topics[0].partitions[0].error_code, 3).await;
}

async fn topics(asker: &mut Asker) {
    let metadata = |_| {
        let topic = MetadataRequestTopic::default().with_name(Some(name("a b")));
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    asker.refused(metadata, |_, answer| answer.topics[0].error_code, 17).await;
    let create = |_| {
        let topic = CreatableTopic::default().with_name(name("t")).with_num_partitions(1).with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic])
    };
    asker.refused(create, |_, answer| answer.topics[0].error_code, 36).await;
    let delete = |version| {
        let topic = DeleteTopicState::default().with_name(Some(name("nowhere")));
        match version {
            ..6 => DeleteTopicsRequest::default().with_topic_names(vec![name("nowhere")]),
            _ => DeleteTopicsRequest::default().with_topics(vec![topic]),
        }
    };
    asker.refused(delete, |_, answer| answer.responses[0].error_code, 3).await;
    let grow = |_| {
        let topic = CreatePartitionsTopic::default().with_name(name("nowhere")).with_count(4).with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    };
    asker.refused(grow, |_, answer| answer.results[0].error_code, 3).await;
    let configs = |_| {
        let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("nowhere"));
        DescribeConfigsRequest::default().with_resources(vec![topic.with_configuration_keys(None)])
    };
    asker.refused(configs, |_, answer| answer.results[0].error_code, 3).await;
    let alter = |_| {
        let topic = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("nowhere"));
        AlterConfigsRequest::default().with_resources(vec![topic])
    };
    asker.refused(alter, |_, answer| answer.responses[0].error_code, 3).await;
    let change = |_| {
        let topic = IncrementalResource::default().with_resource_type(2).with_resource_name(text("nowhere"));
        IncrementalAlterConfigsRequest::default().with_resources(vec![topic])
    };
    asker.refused(change, |_, answer| answer.responses[0].error_code, 3).await;
    let describe = |_| {
        let topic = kafka_protocol::messages::describe_topic_partitions_request::TopicRequest::default();
        DescribeTopicPartitionsRequest::default().with_topics(vec![topic.with_name(name("nowhere"))])
    };
    asker.refused(describe, |_, answer| answer.topics[0].error_code, 3).await;
    // Its later version can ask for controllers, and for what nobody knows.
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    assert_eq!(asker.client.call(1, &controllers).await.error_code, 114);
    let cluster = |version| DescribeClusterRequest::default().with_endpoint_type(if version == 0 { 1 } else { 3 });
    let code = |version, answer: &kafka_protocol::messages::DescribeClusterResponse| {
        if version == 0 { 115 } else { answer.error_code }
    };
    asker.refused(cluster, code, 115).await;
}

async fn nodes(asker: &mut Asker) {
    let elect = |version: i16| {
        let topic = TopicPartitions::default().with_topic(name("t")).with_partitions(vec![0]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
        if version == 0 { request } else { request.with_election_type(1) }
    };
    asker.refused(elect, |_, answer| answer.replica_election_results[0].partition_result[0].error_code, 84).await;
    let move_to = |_| {
        let topic = AlterReplicaLogDirTopic::default().with_name(name("t")).with_partitions(vec![0]);
        let dir = AlterReplicaLogDir::default().with_path(text("/elsewhere")).with_topics(vec![topic]);
        AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
    };
    asker.refused(move_to, |_, answer| answer.results[0].partitions[0].error_code, 57).await;
    let reassign = |_| {
        let part = ReassignablePartition::default().with_replicas(Some(vec![3.into()]));
        let topic = ReassignableTopic::default().with_name(name("t")).with_partitions(vec![part]);
        AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
    };
    asker.refused(reassign, |_, answer| answer.responses[0].partitions[0].error_code, 39).await;
    let quorum = |_| {
        let topic = TopicData::default().with_topic_name(name("t")).with_partitions(vec![PartitionData::default()]);
        DescribeQuorumRequest::default().with_topics(vec![topic])
    };
    asker.refused(quorum, |_, answer| answer.topics[0].partitions[0].error_code, 3).await;
    // Its first version asks for one kind, which there is.
    let list = |version| {
        let request = ListConfigResourcesRequest::default();
        if version == 0 { request } else { request.with_resource_types(vec![77]) }
    };
    let code = |version, answer: &kafka_protocol::messages::ListConfigResourcesResponse| {
        if version == 0 { 35 } else { answer.error_code }
    };
    asker.refused(list, code, 35).await;
}

async fn members(asker: &mut Asker) {
    let join = |version: i16, member: &str| {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(if version >= 1 { 60_000 } else { -1 })
            .with_member_id(text(member))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    };
    // No group is made for it: the one that is to be deleted below is not there.
    asker.refused(|version| join(version, "stranger"), |_, answer| answer.error_code, 25).await;
    let none = |version| join(version, "").with_protocols(Vec::new());
    asker.refused(none, |_, answer| answer.error_code, 23).await;
    let sync = |version| {
        let said = (version >= 5).then(|| text("consumer"));
        let request = SyncGroupRequest::default().with_group_id(group()).with_member_id(text("stranger"));
        request.with_protocol_type(said.clone()).with_protocol_name(said)
    };
    asker.refused(sync, |_, answer| answer.error_code, 25).await;
    let beat = |_| HeartbeatRequest::default().with_group_id(group()).with_member_id(text("stranger"));
    asker.refused(beat, |_, answer| answer.error_code, 25).await;
    let leave = |version| {
        let request = LeaveGroupRequest::default().with_group_id(group());
        match version {
            ..3 => request.with_member_id(text("stranger")),
            _ => request.with_members(vec![MemberIdentity::default().with_member_id(text("stranger"))]),
        }
    };
    let code = |version, answer: &kafka_protocol::messages::LeaveGroupResponse| {
        if version < 3 { answer.error_code } else { answer.members[0].error_code }
    };
    asker.refused(leave, code, 25).await;
    let describe = |_| DescribeGroupsRequest::default().with_groups(vec![GroupId(text(""))]);
    asker.refused(describe, |_, answer| answer.groups[0].error_code, 24).await;
    let delete = |_| DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    asker.refused(delete, |_, answer| answer.results[0].error_code, 69).await;
    let find = |version| {
        // The first version knows groups only.
        let request = FindCoordinatorRequest::default().with_key_type(if version == 0 { 0 } else { 2 });
        if version < 4 { request.with_key(text("g")) } else { request.with_coordinator_keys(vec![text("g")]) }
    };
    let code = |version, answer: &kafka_protocol::messages::FindCoordinatorResponse| match version {
        0 => 42 + answer.error_code,
        ..4 => answer.error_code,
        _ => answer.coordinators[0].error_code,
    };
    asker.refused(find, code, 42).await;
    let beat = |_| {
        ConsumerGroupHeartbeatRequest::default().with_group_id(group()).with_member_epoch(3).with_member_id(text("m"))
    };
    asker.refused(beat, |_, answer| answer.error_code, 25).await;
    let describe = |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    asker.refused(describe, |_, answer| answer.groups[0].error_code, 69).await;
}

async fn positions(asker: &mut Asker) {
    let commit = |version: i16| {
        let part = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("")));
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![part]);
        OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(1)
            .with_member_id(text("stranger"))
            .with_retention_time_ms(if version <= 4 { 1 } else { -1 })
            .with_topics(vec![topic])
    };
    asker.refused(commit, |_, answer| answer.topics[0].partitions[0].error_code, 25).await;
    let fetch = |version| {
        let of = OffsetFetchRequestGroup::default().with_topics(None);
        let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0]);
        match version {
            ..8 => OffsetFetchRequest::default().with_topics(Some(vec![topic])),
            _ => OffsetFetchRequest::default().with_groups(vec![of]),
        }
    };
    let code = |version, answer: &kafka_protocol::messages::OffsetFetchResponse| match version {
        1 => answer.topics[0].partitions[0].error_code,
        ..8 => answer.error_code,
        _ => answer.groups[0].error_code,
    };
    asker.refused(fetch, code, 24).await;
    let forget = |_| OffsetDeleteRequest::default().with_group_id(group());
    asker.refused(forget, |_, answer| answer.error_code, 69).await;
}

async fn transactions(asker: &mut Asker) {
    let id = || text("nobody").into();
    let init = |_| InitProducerIdRequest::default().with_transactional_id(Some(id())).with_transaction_timeout_ms(0);
    asker.refused(init, |_, answer| answer.error_code, 50).await;
    let add = |_| {
        let topic = AddPartitionsToTxnTopic::default().with_name(name("t")).with_partitions(vec![0]);
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_producer_id(7.into())
            .with_v3_and_below_topics(vec![topic])
    };
    let code = |_, answer: &kafka_protocol::messages::AddPartitionsToTxnResponse| {
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    };
    asker.refused(add, code, 49).await;
    let add = |_| {
        AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_producer_id(7.into()).with_group_id(group())
    };
    asker.refused(add, |_, answer| answer.error_code, 49).await;
    let commit = |_| {
        let part = TxnOffsetCommitRequestPartition::default().with_committed_metadata(Some(text("")));
        let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![part]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(id())
            .with_group_id(group())
            .with_producer_id(7.into())
            .with_topics(vec![topic])
    };
    asker.refused(commit, |_, answer| answer.topics[0].partitions[0].error_code, 49).await;
    let end = |_| EndTxnRequest::default().with_transactional_id(id()).with_producer_id(7.into());
    asker.refused(end, |_, answer| answer.error_code, 49).await;
    let describe = |_| DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
    asker.refused(describe, |_, answer| answer.transaction_states[0].error_code, 105).await;
    let producers = |_| {
        let topic = kafka_protocol::messages::describe_producers_request::TopicRequest::default();
        DescribeProducersRequest::default()
            .with_topics(vec![topic.with_name(name("nowhere")).with_partition_indexes(vec![0])])
    };
    asker.refused(producers, |_, answer| answer.topics[0].partitions[0].error_code, 3).await;
    let markers = |_| {
        let topic = WritableTxnMarkerTopic::default().with_name(name("nowhere")).with_partition_indexes(vec![0]);
        let marker = WritableTxnMarker::default().with_producer_id(7.into()).with_topics(vec![topic]);
        WriteTxnMarkersRequest::default().with_markers(vec![marker])
    };
    asker.refused(markers, |_, answer| answer.markers[0].topics[0].partitions[0].error_code, 3).await;
}
