//! Classic groups and positions over the wire. The rounds themselves are tested where their machine is.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use tidelog::base::Millis;
use tidelog::client::Client as Native;

use super::client::{Client, Running, batch, text};
use super::producing::produce;
use super::topics::{create_topic, name};

pub fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

pub fn join(member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// What a consumer is assigned, as consumers write it.
pub fn share(topic: &str, partitions: &[i32]) -> Bytes {
    let mut out = vec![0, 0, 0, 0, 0, 1];
    out.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    out.extend(topic.as_bytes());
    out.extend(u32::try_from(partitions.len()).unwrap().to_be_bytes());
    partitions.iter().for_each(|partition| out.extend(partition.to_be_bytes()));
    out.extend([0xff; 4]);
    Bytes::from(out)
}

/// Joins in any version; the id that is given out first is used.
pub async fn joined(client: &mut Client, version: i16) -> JoinGroupResponse {
    let first = client.call(version, &join("")).await;
    if version < 4 {
        return first;
    }
    assert_eq!(first.error_code, 79, "version {version}");
    client.call(version, &join(&first.member_id)).await
}

/// Tries to become the first member of the group `g`: the code.
pub async fn try_join(client: &mut Client) -> i16 {
    client.call(3, &join("")).await.error_code
}

pub async fn synced(client: &mut Client, version: i16, joined: &JoinGroupResponse, share: Bytes) -> i16 {
    let assignment =
        SyncGroupRequestAssignment::default().with_member_id(joined.member_id.clone()).with_assignment(share.clone());
    let request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type((version >= 5).then(|| text("consumer")))
        .with_protocol_name((version >= 5).then(|| text("range")))
        .with_assignments(vec![assignment]);
    let answer = client.call(version, &request).await;
    assert!(answer.error_code != 0 || answer.assignment == share);
    answer.error_code
}

pub fn commit(member: &str, generation: i32, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_retention_time_ms(-1)
        .with_topics(vec![topic])
}

pub async fn committed(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> i16 {
    let mut request = request.clone();
    if version > 4 {
        request.retention_time_ms = -1;
    }
    client.call(version, &request).await.topics[0].partitions[0].error_code
}

/// Offset, metadata, error.
pub async fn position(client: &mut Client, version: i16, of: &str, partition: i32) -> (i64, String, i16) {
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default().with_group_id(group(of)).with_topics(Some(vec![topic]));
        let answer = client.call(version, &request).await;
        assert_eq!(answer.error_code, 0);
        let part = &answer.topics[0].partitions[0];
        return (part.committed_offset, part.metadata.clone().unwrap().to_string(), part.error_code);
    }
    let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![partition]);
    let wanted = OffsetFetchRequestGroup::default().with_group_id(group(of)).with_topics(Some(vec![topic]));
    let answer = client.call(version, &OffsetFetchRequest::default().with_groups(vec![wanted])).await;
    assert_eq!(answer.groups[0].error_code, 0);
    let part = &answer.groups[0].topics[0].partitions[0];
    (part.committed_offset, part.metadata.clone().unwrap().to_string(), part.error_code)
}

#[tokio::test]
async fn a_member_goes_through_a_round_in_every_version() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for version in 0..=9 {
        let member = joined(&mut client, version).await;
        assert_eq!((member.error_code, &member.leader), (0, &member.member_id), "version {version}");
        assert_eq!((member.members.len(), &member.members[0].metadata[..]), (1, &b"m"[..]));
        let id = member.member_id.clone();
        assert_eq!(synced(&mut client, version.min(5), &member, Bytes::from_static(b"all")).await, 0);
        let beat = HeartbeatRequest::default().with_group_id(group("g")).with_member_id(id.clone());
        for generation in [member.generation_id, member.generation_id + 1] {
            let code = client.call(version.min(4), &beat.clone().with_generation_id(generation)).await.error_code;
            assert_eq!(code, if generation == member.generation_id { 0 } else { 22 });
        }
        let offset = i64::from(version) + 10;
        let request = commit(&id, member.generation_id, offset, "note");
        assert_eq!(committed(&mut client, version.max(2), &request).await, 0, "version {version}");
        assert_eq!(committed(&mut client, version.max(2), &commit(&id, 99, 1, "")).await, 22);
        assert_eq!(committed(&mut client, version.max(2), &commit("", -1, 1, "")).await, 25, "it has members");
        assert_eq!(position(&mut client, version.max(1), "g", 0).await, (offset, "note".to_owned(), 0));
        let leave = LeaveGroupRequest::default().with_group_id(group("g"));
        if version < 3 {
            assert_eq!(client.call(version, &leave.with_member_id(id)).await.error_code, 0);
        } else {
            let who = [id, text("stranger")].map(|id| MemberIdentity::default().with_member_id(id));
            let answer = client.call(version.min(5), &leave.with_members(who.to_vec())).await;
            let codes: Vec<_> = answer.members.iter().map(|member| member.error_code).collect();
            assert_eq!((answer.error_code, codes), (0, vec![0, 25]));
        }
    }
    running.stop().await;
}

/// Trap 9: a group that nobody knows has no positions, which is no error; where an error belongs depends on the version.
#[tokio::test]
async fn positions_of_nobody_are_no_error() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for version in 1..=9 {
        for partition in [0, 7] {
            assert_eq!(position(&mut client, version, "nobody", partition).await, (-1, String::new(), 0));
        }
    }
    let all = OffsetFetchRequest::default().with_group_id(group("nobody")).with_topics(None);
    let answer = client.call(7, &all).await;
    assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
    let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let wrong = OffsetFetchRequest::default().with_group_id(group("")).with_topics(Some(vec![topic]));
    assert_eq!(client.call(1, &wrong).await.topics[0].partitions[0].error_code, 24, "in the partition at first");
    assert_eq!(client.call(2, &wrong).await.error_code, 24, "then for the whole");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_nothing_makes_no_group() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let nothing = commit("", -1, 5, "").with_topics(Vec::new());
    assert!(client.call(8, &nothing).await.topics.is_empty());
    assert!(client.call(4, &ListGroupsRequest::default()).await.groups.is_empty(), "it is of nothing");
    assert_eq!(committed(&mut client, 8, &commit("", -1, 5, "")).await, 0);
    let listed = client.call(4, &ListGroupsRequest::default()).await.groups;
    assert_eq!((&*listed[0].group_id.0, &*listed[0].group_state), ("g", "Empty"));
    running.stop().await;
}

#[tokio::test]
async fn positions_are_the_owners_to_move_they_last_and_native_tools_see_them() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    for _ in 0..10 {
        produce(&mut client, 9, "t", batch(&["a"])).await;
    }
    let member = joined(&mut client, 5).await;
    assert_eq!(synced(&mut client, 3, &member, share("t", &[0])).await, 0);
    let id = member.member_id.to_string();
    for offset in [7, 3] {
        assert_eq!(committed(&mut client, 9, &commit(&id, member.generation_id, offset, "m")).await, 0);
        assert_eq!(position(&mut client, 9, "g", 0).await.0, offset, "also back");
    }
    let long = commit(&id, member.generation_id, 5, &"x".repeat(5_000));
    assert_eq!(committed(&mut client, 9, &long).await, 12);
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let seen = native.admin().describe_group("g").await.unwrap();
    assert_eq!(seen.members.len(), 1, "{seen:?}");
    assert_eq!(seen.members[0].client, "test");
    let part = seen.partitions.iter().find(|part| part.partition == 0).unwrap();
    assert_eq!((part.floor, part.lag), (3, 7), "{part:?}");
    assert_eq!(part.owner.as_deref(), Some(&*id));
    drop(native);
    // The positions last, and so do the members.
    let dir = running.stop().await;
    let running = Running::start_in(dir, |_| {}).await;
    let mut client = running.client().await;
    assert_eq!(position(&mut client, 9, "g", 0).await, (3, "m".to_owned(), 0));
    assert_eq!(committed(&mut client, 9, &commit("", -1, 5, "")).await, 25, "it has members");
    assert_eq!(committed(&mut client, 9, &commit(&id, member.generation_id, 5, "")).await, 0);
    let who = vec![MemberIdentity::default().with_member_id(text(&id))];
    let left = client.call(5, &LeaveGroupRequest::default().with_group_id(group("g")).with_members(who)).await;
    assert_eq!((left.error_code, left.members[0].error_code), (0, 0));
    assert_eq!(client.call(5, &join(&id)).await.error_code, 25);
    // Nobody in particular may commit while there are no members.
    assert_eq!(committed(&mut client, 9, &commit("", -1, 9, "")).await, 0);
    assert_eq!(position(&mut client, 9, "g", 0).await.0, 9);
    running.stop().await;
}

#[tokio::test]
async fn groups_are_found_listed_described_emptied_and_deleted() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for version in 0..=5 {
        let request = FindCoordinatorRequest::default();
        if version < 4 {
            let answer = client.call(version, &request.with_key(text("g"))).await;
            assert_eq!((answer.error_code, answer.node_id.0), (0, 0));
        } else {
            let keys = vec![text("g"), text("h")];
            let answer = client.call(version, &request.with_coordinator_keys(keys)).await;
            assert!(answer.coordinators.iter().all(|found| found.node_id.0 == 0 && found.error_code == 0));
        }
    }
    let others = FindCoordinatorRequest::default().with_key(text("x")).with_key_type(2);
    assert_ne!(client.call(3, &others).await.error_code, 0);
    let member = joined(&mut client, 9).await;
    assert_eq!(synced(&mut client, 5, &member, share("t", &[0])).await, 0);
    committed(&mut client, 9, &commit(&member.member_id, member.generation_id, 0, "")).await;
    for version in 0..=6 {
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g"), group("nobody")]);
        let answer = client.call(version, &request).await;
        let (there, dead) = (&answer.groups[0], &answer.groups[1]);
        assert_eq!(
            (&*there.group_state, &*there.protocol_type, &*there.protocol_data),
            ("Stable", "consumer", "range")
        );
        assert_eq!(there.members[0].member_assignment, share("t", &[0]));
        assert_eq!(&*there.members[0].client_id, "test");
        assert_eq!((&*dead.group_state, dead.error_code), ("Dead", if version < 6 { 0 } else { 69 }));
    }
    for version in 0..=5 {
        let listed = client.call(version, &ListGroupsRequest::default()).await;
        assert_eq!((&*listed.groups[0].group_id.0, &*listed.groups[0].protocol_type), ("g", "consumer"));
    }
    let empty = ListGroupsRequest::default().with_states_filter(vec![text("Empty")]);
    assert!(client.call(4, &empty).await.groups.is_empty());
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g"), group("nobody")]);
    let codes = |answer: kafka_protocol::messages::DeleteGroupsResponse| {
        answer.results.iter().map(|result| result.error_code).collect::<Vec<_>>()
    };
    assert_eq!(codes(client.call(2, &delete).await), [68, 69], "it has members");
    let part = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic = OffsetDeleteRequestTopic::default().with_name(name("t")).with_partitions(vec![part]);
    let forget = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![topic]);
    let answer = client.call(0, &forget).await;
    assert_eq!((answer.error_code, answer.topics[0].partitions[0].error_code), (0, 86), "what it reads is not known");
    let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_member_id(member.member_id);
    assert_eq!(client.call(0, &leave).await.error_code, 0);
    assert_eq!(client.call(4, &empty).await.groups.len(), 1);
    assert_eq!(position(&mut client, 9, "g", 0).await.0, 0);
    let answer = client.call(0, &forget).await;
    assert_eq!((answer.error_code, answer.topics[0].partitions[0].error_code), (0, 0));
    assert_eq!(position(&mut client, 9, "g", 0).await.0, -1);
    assert_eq!(codes(client.call(2, &delete).await), [0, 69]);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_ends_in_a_round_does_not_hold_the_others_up_for_ever() {
    let running = Running::start_with(|config| config.kafka_min_session = Millis(100)).await;
    let mut gone = running.client().await;
    let mut stays = running.client().await;
    let short = |client: JoinGroupRequest| client.with_session_timeout_ms(500).with_rebalance_timeout_ms(1_500);
    let id = gone.call(5, &short(join(""))).await.member_id;
    gone.send(5, &short(join(&id))).await;
    drop(gone);
    let id = stays.call(5, &short(join(""))).await.member_id;
    let answer = stays.call(5, &short(join(&id))).await;
    assert_eq!(answer.error_code, 0);
    assert!(answer.members.iter().any(|member| member.member_id == id));
    running.stop().await;
}

/// Longer than any test: only what is tested ends a wait.
fn for_long(join: JoinGroupRequest) -> JoinGroupRequest {
    join.with_session_timeout_ms(1_800_000).with_rebalance_timeout_ms(1_800_000)
}

/// Trap 10: a round waits for members that are to join again, and for nobody who has left meanwhile.
#[tokio::test]
async fn who_leaves_in_a_round_is_not_waited_for() {
    let running = Running::start().await;
    for version in 1..=9 {
        let (mut leaves, mut waits) = (running.client().await, running.client().await);
        let join_as = |id: &str| for_long(join(id));
        let mut first = leaves.call(version, &join_as("")).await;
        if version >= 4 {
            first = leaves.call(version, &join_as(&first.member_id)).await;
        }
        assert_eq!(synced(&mut leaves, version.min(5), &first, Bytes::new()).await, 0, "version {version}");
        let mut id = String::new();
        if version >= 4 {
            id = waits.call(version, &join_as("")).await.member_id.to_string();
        }
        let sent = waits.send(version, &join_as(&id)).await;
        // The round has begun when the first one hears of it.
        let beat = HeartbeatRequest::default().with_group_id(group("g")).with_member_id(first.member_id.clone());
        let beat = beat.with_generation_id(first.generation_id);
        while leaves.call(version.min(4), &beat).await.error_code != 27 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let leave = LeaveGroupRequest::default().with_group_id(group("g"));
        assert_eq!(leaves.call(0, &leave.clone().with_member_id(first.member_id)).await.error_code, 0);
        let (correlation, second) = waits.answer::<JoinGroupRequest>(version).await;
        assert_eq!((correlation, second.error_code, second.members.len()), (sent, 0, 1), "version {version}");
        assert_eq!(waits.call(0, &leave.with_member_id(second.member_id)).await.error_code, 0);
    }
    running.stop().await;
}

/// Trap 10: the first version says no time for a round, and others may say none. It is that of the session.
#[tokio::test]
async fn a_round_without_a_time_of_its_own_takes_as_long_as_a_session() {
    let running = Running::start_with(|config| config.kafka_min_session = Millis(100)).await;
    for (version, rebalance) in [(0, -1), (1, -1), (3, 0)] {
        let (mut silent, mut waits) = (running.client().await, running.client().await);
        let join = join("").with_group_id(group(&format!("g{version}")));
        let join = join.with_session_timeout_ms(1_000).with_rebalance_timeout_ms(rebalance);
        assert_eq!(silent.call(version, &join).await.error_code, 0);
        let second = waits.call(version, &join).await;
        // Or both were in the first round, if this test was held up.
        assert!(second.error_code == 0 && second.generation_id <= 2, "version {version}: {second:?}");
    }
    running.stop().await;
}

/// Trap 15: what offers the versions of static members has them. Who takes a place over has the share of who was there,
/// without a round, and who was there hears that another one is.
#[tokio::test]
async fn a_place_by_name_is_taken_over_at_once() {
    let running = Running::start().await;
    for version in 5..=9 {
        let (mut old, mut new) = (running.client().await, running.client().await);
        let place = for_long(join("")).with_group_instance_id(Some(text("place")));
        let first = old.call(version, &place).await;
        assert_eq!(first.error_code, 0, "an id is not asked for first where there is a name");
        assert_eq!(synced(&mut old, version.min(5), &first, Bytes::from_static(b"share")).await, 0);
        let second = new.call(version, &place).await;
        assert_eq!((second.error_code, second.generation_id), (0, first.generation_id), "version {version}");
        assert_ne!(second.member_id, first.member_id);
        assert_eq!(second.skip_assignment, version >= 9);
        let sync = SyncGroupRequest::default()
            .with_group_id(group("g"))
            .with_generation_id(second.generation_id)
            .with_member_id(second.member_id.clone())
            .with_group_instance_id(Some(text("place")));
        assert_eq!(new.call(3, &sync).await.assignment, Bytes::from_static(b"share"));
        let beat = HeartbeatRequest::default().with_group_id(group("g")).with_generation_id(first.generation_id);
        let beat = beat.with_group_instance_id(Some(text("place")));
        let codes = [first.member_id.clone(), second.member_id.clone()].map(|id| beat.clone().with_member_id(id));
        assert_eq!(old.call(4, &codes[0]).await.error_code, 82);
        assert_eq!(new.call(4, &codes[1]).await.error_code, 0);
        let late = commit(&first.member_id, first.generation_id, 1, "").with_group_instance_id(Some(text("place")));
        assert_eq!(committed(&mut old, 8, &late).await, 82);
        let who = MemberIdentity::default().with_group_instance_id(Some(text("place")));
        let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_members(vec![who]);
        assert_eq!(new.call(4, &leave).await.members[0].error_code, 0);
    }
    running.stop().await;
}

#[tokio::test]
async fn wishes_that_cannot_be_are_refused() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let refused = [
        (join("").with_group_id(group("")), 24),
        (join("").with_group_id(group("tidelog.own")), 24),
        (join("").with_session_timeout_ms(5_999), 26),
        (join("").with_session_timeout_ms(1_800_001), 26),
        (join("").with_session_timeout_ms(-1), 26),
        (join("").with_protocols(Vec::new()), 23),
        (join("").with_protocol_type(text("")), 23),
        (join("stranger"), 25),
    ];
    for (request, code) in refused {
        assert_eq!(client.call(5, &request).await.error_code, code, "{request:?}");
    }
    running.stop().await;
}
