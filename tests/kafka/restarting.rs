//! Members of classic groups go on after a restart of the server as if nothing had been.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
};

use super::client::{Client, Running, text};

fn group() -> GroupId {
    GroupId(text("connect"))
}

fn join(member: &str, instance: Option<&str>) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("sessioned")).with_metadata(Bytes::from("url"));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_protocol_type(text("connect"))
        .with_protocols(vec![protocol])
}

/// Asks for a share; says everybody's if it leads: its own id.
async fn share(client: &mut Client, joined: &JoinGroupResponse, instance: Option<&str>) -> Bytes {
    let all = joined.members.iter().map(|member| {
        let share = Bytes::from(format!("of {}", &*member.member_id));
        SyncGroupRequestAssignment::default().with_member_id(member.member_id.clone()).with_assignment(share)
    });
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(instance.map(text))
        .with_assignments(all.collect());
    let answer = client.call(4, &request).await;
    assert_eq!(answer.error_code, 0);
    answer.assignment
}

async fn beat(client: &mut Client, joined: &JoinGroupResponse, instance: Option<&str>) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(instance.map(text));
    client.call(4, &request).await.error_code
}

#[tokio::test]
async fn members_heartbeat_on_after_a_restart_also_those_with_a_place() {
    let mut running = Running::start().await;
    let (mut one, mut two) = (running.client().await, running.client().await);
    let id = one.call(6, &join("", None)).await;
    assert_eq!(id.error_code, 79);
    one.send(6, &join(&id.member_id, None)).await;
    two.send(6, &join("", Some("place"))).await;
    let first = one.answer::<JoinGroupRequest>(6).await.1;
    let second = two.answer::<JoinGroupRequest>(6).await.1;
    assert_eq!((first.error_code, second.error_code, first.members.len() + second.members.len()), (0, 0, 2));
    let (leads, follows) = if first.members.is_empty() { (1, 0) } else { (0, 1) };
    let mut members = [(one, first, None), (two, second, Some("place"))];
    for at in [leads, follows] {
        let (client, joined, instance) = &mut members[at];
        let expected = Bytes::from(format!("of {}", &*joined.member_id));
        assert_eq!(share(client, joined, *instance).await, expected);
    }
    let [(_, first, _), (_, mut second, _)] = members;
    for _ in 0..2 {
        running = Running::start_in(running.stop().await, |_| {}).await;
        let mut client = running.client().await;
        assert_eq!(beat(&mut client, &first, None).await, 0);
        assert_eq!(beat(&mut client, &second, Some("place")).await, 0);
        let expected = Bytes::from(format!("of {}", &*first.member_id));
        assert_eq!(share(&mut client, &first, None).await, expected);
        let described = client.call(5, &DescribeGroupsRequest::default().with_groups(vec![group()])).await;
        let described = &described.groups[0];
        assert_eq!((&*described.group_state, &*described.protocol_type), ("Stable", "connect"));
        let mut ids: Vec<_> = described.members.iter().map(|member| member.member_id.to_string()).collect();
        let mut expected = [first.member_id.to_string(), second.member_id.to_string()];
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected);
        // Its process has begun anew: it goes on in its place, and the group in its round, also after the next restart.
        let again = client.call(6, &join("", Some("place"))).await;
        assert_eq!((again.error_code, again.generation_id), (0, first.generation_id));
        assert_ne!(again.member_id, second.member_id);
        assert_eq!(beat(&mut client, &second, Some("place")).await, 82);
        second = again;
    }
    running.stop().await;
}
