//! Who may do what in a group, by Kafka's rules: members of both protocols, and who is none.

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, DeleteGroupsRequest, DeleteRecordsRequest, InitProducerIdRequest, LeaveGroupRequest,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, TxnOffsetCommitRequest,
};
use tidelog::base::Millis;

use super::client::{Client, Running, batch, text};
use super::grouping::{commit, committed, group, joined, position, synced};
use super::producing::produce;
use super::topics::{create_topic, name};
use super::{consuming, grouping};

async fn leave(client: &mut Client, member: &str) {
    let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_member_id(text(member));
    assert_eq!(client.call(0, &leave).await.error_code, 0);
}

/// What librdkafka does under `group.protocol=consumer` where the application assigns partitions itself.
#[tokio::test]
async fn who_names_a_member_but_no_generation_commits_where_no_members_are() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for version in 2..=9 {
        let offset = i64::from(version);
        assert_eq!(committed(&mut client, version, &commit("any", -1, offset, "")).await, 0, "version {version}");
        assert_eq!(position(&mut client, 9, "g", 0).await.0, offset);
    }
    assert_eq!(committed(&mut client, 9, &commit("any", 0, 1, "")).await, 25, "that is a generation");
    let member = joined(&mut client, 9).await;
    assert_eq!(synced(&mut client, 5, &member, Bytes::new()).await, 0);
    for id in ["any", &*member.member_id] {
        let code = committed(&mut client, 9, &commit(id, -1, 20, "")).await;
        assert_eq!(code, if id == "any" { 25 } else { 22 }, "it has members");
    }
    leave(&mut client, &member.member_id).await;
    assert_eq!(committed(&mut client, 9, &commit("any", -1, 30, "")).await, 0, "they have left");

    // The same with members of the newer protocol.
    assert_eq!(client.call(1, &consuming::join("one", &["t"])).await.error_code, 0);
    for id in ["any", "one"] {
        assert_eq!(committed(&mut client, 9, &commit(id, -1, 40, "")).await, 25, "it has members");
    }
    assert_eq!(client.call(1, &consuming::beat("one", -1)).await.error_code, 0);
    assert_eq!(committed(&mut client, 9, &commit("any", -1, 50, "")).await, 0, "they have left");
    assert_eq!(position(&mut client, 9, "g", 0).await.0, 50);
    running.stop().await;
}

#[tokio::test]
async fn a_producer_commits_for_who_names_a_member_but_no_generation_where_no_members_are() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(text("x").into()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let begun = client.call(4, &init).await;
    assert_eq!(begun.error_code, 0);
    let add = AddOffsetsToTxnRequest::default()
        .with_transactional_id(text("x").into())
        .with_producer_id(begun.producer_id)
        .with_producer_epoch(begun.producer_epoch)
        .with_group_id(group("g"));
    assert_eq!(client.call(3, &add).await.error_code, 0);
    let part = TxnOffsetCommitRequestPartition::default()
        .with_committed_offset(5)
        .with_committed_leader_epoch(-1)
        .with_committed_metadata(Some(text("")));
    let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![part]);
    let stage = TxnOffsetCommitRequest::default()
        .with_transactional_id(text("x").into())
        .with_group_id(group("g"))
        .with_producer_id(begun.producer_id)
        .with_producer_epoch(begun.producer_epoch)
        .with_generation_id(-1)
        .with_member_id(text("any"))
        .with_topics(vec![topic]);
    assert_eq!(client.call(3, &stage).await.topics[0].partitions[0].error_code, 0);
    assert_eq!(client.call(1, &consuming::join("one", &["t"])).await.error_code, 0);
    assert_eq!(client.call(3, &stage).await.topics[0].partitions[0].error_code, 25, "it has members");
    running.stop().await;
}

/// A pattern of the client's own that meets no topic yet; librdkafka ends with a fatal error where it is refused.
#[tokio::test]
async fn who_joins_the_newer_protocol_may_name_no_topic_yet() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let none = consuming::join("one", &[]).with_subscribed_topic_names(None);
    assert_eq!(client.call(1, &none).await.error_code, 42, "it is to say something");
    let empty = none.with_subscribed_topic_regex(Some(text("")));
    for (group, request) in [("list", consuming::join("one", &[])), ("expression", empty)] {
        let request = request.with_group_id(grouping::group(group));
        let answer = client.call(1, &request).await;
        assert_eq!((answer.error_code, &answer.error_message), (0, &None), "an empty {group}");
        assert!(answer.assignment.unwrap().topic_partitions.is_empty());
        let names = consuming::beat("one", answer.member_epoch).with_subscribed_topic_names(Some(vec![name("t")]));
        let answer = client.call(1, &names.with_group_id(grouping::group(group))).await;
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.assignment.unwrap().topic_partitions[0].partitions, [0], "now it has named one");
    }
    running.stop().await;
}

/// Also what Kafka's own limits are; short ones only for who says so, since they let members be lost to a pause.
#[tokio::test]
async fn sessions_are_as_long_as_the_configuration_allows() {
    let ask = async |client: &mut Client, session: i32| {
        let join = grouping::join("").with_group_id(group(&format!("g{session}")));
        client.call(3, &join.with_session_timeout_ms(session)).await.error_code
    };
    let running = Running::start().await;
    let mut client = running.client().await;
    for (session, code) in [(100, 26), (5_999, 26), (6_000, 0), (1_800_000, 0), (1_800_001, 26)] {
        assert_eq!(ask(&mut client, session).await, code, "{session} ms");
    }
    let dir = running.stop().await;
    let running = Running::start_in(dir, |config| {
        (config.kafka_min_session, config.kafka_max_session) = (Millis(300), Millis(7_000));
    });
    let running = running.await;
    let mut client = running.client().await;
    for (session, code) in [(299, 26), (300, 0), (7_000, 0), (7_001, 26)] {
        assert_eq!(ask(&mut client, session).await, code, "{session} ms");
    }
    running.stop().await;
}

/// What a consumer says of itself.
fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(u32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        out.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        out.extend(topic.as_bytes());
    }
    out.extend([0xff; 4]);
    Bytes::from(out)
}

fn forget(topics: &[&str]) -> OffsetDeleteRequest {
    let part = || OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic = |of: &&str| OffsetDeleteRequestTopic::default().with_name(name(of)).with_partitions(vec![part()]);
    OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(topics.iter().map(topic).collect())
}

/// Of the whole, and of each topic.
fn codes(answer: &OffsetDeleteResponse) -> (i16, Vec<i16>) {
    (answer.error_code, answer.topics.iter().map(|topic| topic.partitions[0].error_code).collect())
}

/// KIP-496: else what a group has left shows a lag for ever, and goes only when the group stands still.
#[tokio::test]
async fn a_group_in_use_forgets_positions_in_topics_that_no_member_reads() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for topic in ["t", "read"] {
        create_topic(&mut client, topic, 1).await;
    }
    // The classic protocol: what members say of themselves tells it, if they are consumers.
    for (kind, said, told) in [
        ("consumer", subscription(&["read"]), (0, vec![0, 86])),
        ("consumer", Bytes::from_static(b"?"), (0, vec![86, 86])),
        ("connect", subscription(&["read"]), (68, vec![])),
    ] {
        assert_eq!(committed(&mut client, 9, &commit("", -1, 5, "")).await, 0);
        let mut join = grouping::join("").with_protocol_type(text(kind));
        join.protocols[0].metadata = said;
        let member = client.call(3, &join).await;
        assert_eq!(synced(&mut client, 3, &member, Bytes::new()).await, 0);
        assert_eq!(codes(&client.call(0, &forget(&["t", "read"])).await), told, "{kind}");
        assert_eq!(position(&mut client, 9, "g", 0).await.0, if told.1.first() == Some(&0) { -1 } else { 5 });
        leave(&mut client, &member.member_id).await;
    }
    // The newer one.
    let by_expression = consuming::join("two", &[]).with_subscribed_topic_regex(Some(text("re.*")));
    for (member, join) in [("one", consuming::join("one", &["read"])), ("two", by_expression)] {
        assert_eq!(committed(&mut client, 9, &commit("", -1, 5, "")).await, 0);
        assert_eq!(client.call(1, &join).await.error_code, 0);
        assert_eq!(codes(&client.call(0, &forget(&["t", "read"])).await), (0, vec![0, 86]), "{member}");
        assert_eq!(position(&mut client, 9, "g", 0).await.0, -1);
        assert_eq!(client.call(1, &consuming::beat(member, -1)).await.error_code, 0);
    }
    assert_eq!(codes(&client.call(0, &forget(&["read"])).await), (0, vec![0]), "nobody reads it any more");
    running.stop().await;
}

/// An empty group keeps its generation, and becoming empty is one: whoever was a member before does not find its own in use again.
#[tokio::test]
async fn generations_go_on_where_a_group_became_empty() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for generation in [1, 3, 5] {
        let member = joined(&mut client, 5).await;
        assert_eq!((member.error_code, member.generation_id), (0, generation));
        leave(&mut client, &member.member_id).await;
    }
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g")]);
    assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
    assert_eq!(joined(&mut client, 5).await.generation_id, 1, "this is another group");
    running.stop().await;
}

/// kafkajs commits -1 and -2 when it is reset, or when its offset is out of range, and stops where that is refused.
#[tokio::test]
async fn offsets_below_0_are_given_back_as_they_were_said_and_mean_an_offset_for_everybody_else() {
    let mut running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for _ in 0..5 {
        produce(&mut client, 9, "t", batch(&["a", "b"])).await;
    }
    let below = DeleteRecordsPartition::default().with_partition_index(0).with_offset(4);
    let below = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![below]);
    assert_eq!(
        client.call(2, &DeleteRecordsRequest::default().with_topics(vec![below])).await.topics[0].partitions[0]
            .error_code,
        0
    );
    let floor = async |running: &Running| {
        let native = tidelog::client::Client::connect(running.server.addresses()[0].to_string()).await.unwrap();
        let seen = native.admin().describe_group("g").await.unwrap();
        seen.partitions.iter().find(|part| part.partition == 0).unwrap().floor
    };
    for version in 2..=9 {
        for (offset, meant) in [(-1, 10), (7, 7), (-2, 4), (-3, 4), (i64::MIN, 4)] {
            for said in ["", "note", "\0", "\0-2\0x"] {
                assert_eq!(
                    committed(&mut client, version, &commit("", -1, offset, said)).await,
                    0,
                    "{offset} {said:?}"
                );
                assert_eq!(position(&mut client, version.min(7), "g", 0).await, (offset, said.to_owned(), 0));
            }
            assert_eq!(floor(&running).await, meant, "what {offset} means to others");
        }
    }
    // Also of a member, in all positions of the group, and after a restart.
    let member = joined(&mut client, 5).await;
    assert_eq!(synced(&mut client, 3, &member, Bytes::new()).await, 0);
    assert_eq!(committed(&mut client, 9, &commit(&member.member_id, member.generation_id, -2, "n")).await, 0);
    for _ in 0..2 {
        let all = OffsetFetchRequest::default().with_group_id(group("g")).with_topics(None);
        let part = client.call(7, &all).await.topics[0].partitions[0].clone();
        assert_eq!((part.committed_offset, part.metadata), (-2, Some(text("n"))));
        running = Running::start_in(running.stop().await, |_| {}).await;
        client = running.client().await;
    }
    running.stop().await;
}
