//! Groups whose partitions the server shares out (KIP-848), over the wire. What becomes of partitions is tested where the
//! machine is.

use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DescribeGroupsRequest,
    GroupId, HeartbeatRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use tidelog::base::Millis;
use tidelog::client::Client as Native;
use uuid::Uuid;

use super::client::{Client, Running, batch, text};
use super::grouping;
use super::producing::produce;
use super::topics::{create_topic, name};

fn group() -> GroupId {
    GroupId(text("g"))
}

pub fn beat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

pub fn join(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    beat(member, 0)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(topics.iter().map(|topic| name(topic)).collect()))
        .with_topic_partitions(Some(Vec::new()))
}

/// A member that does what it is told.
struct Member {
    id: String,
    epoch: i32,
    works: Vec<(Uuid, i32)>,
}

/// What an answer assigns, if it says.
fn assigned(answer: &ConsumerGroupHeartbeatResponse) -> Option<Vec<(Uuid, i32)>> {
    let topics = &answer.assignment.as_ref()?.topic_partitions;
    let mut all: Vec<_> =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(|number| (topic.topic_id, *number))).collect();
    all.sort();
    Some(all)
}

impl Member {
    async fn join(client: &mut Client, request: ConsumerGroupHeartbeatRequest) -> Self {
        let answer = client.call(1, &request).await;
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
        let works = assigned(&answer).expect("who joins is told what it has");
        Self { id: answer.member_id.unwrap().to_string(), epoch: answer.member_epoch, works }
    }

    fn says(&self) -> Vec<TopicPartitions> {
        let one = |(topic, number): &(Uuid, i32)| {
            TopicPartitions::default().with_topic_id(*topic).with_partitions(vec![*number])
        };
        self.works.iter().map(one).collect()
    }

    /// A heartbeat that says nothing new.
    async fn beat(&mut self, client: &mut Client) -> ConsumerGroupHeartbeatResponse {
        let answer = client.call(1, &beat(&self.id, self.epoch)).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        self.epoch = answer.member_epoch;
        answer
    }

    /// One that says what it has; does what it is told. Whether there was anything to do.
    async fn follow(&mut self, client: &mut Client) -> bool {
        let request = beat(&self.id, self.epoch).with_topic_partitions(Some(self.says()));
        let answer = client.call(1, &request).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let before = (self.epoch, self.works.clone());
        self.epoch = answer.member_epoch;
        self.works = assigned(&answer).unwrap_or_else(|| self.works.clone());
        before != (self.epoch, self.works.clone())
    }
}

async fn settle(client: &mut Client, members: &mut [&mut Member]) {
    for _ in 0..20 {
        let mut any = false;
        for member in &mut *members {
            any |= member.follow(client).await;
        }
        if !any {
            return;
        }
    }
    panic!("it does not settle");
}

async fn described(client: &mut Client, version: i16) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    client.call(version, &request).await.groups.remove(0)
}

#[tokio::test]
async fn partitions_go_over_when_they_were_given_up_and_everybody_is_told_all_of_his() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 4).await;
    let mut one = Member::join(&mut client, join("one", &["t"])).await;
    assert_eq!((one.works.len(), one.epoch), (4, 1));
    assert_eq!(
        assigned(&one.beat(&mut client).await).map(|all| all.len()),
        Some(4),
        "it has not said that it has them"
    );
    assert!(!one.follow(&mut client).await);
    let quiet = one.beat(&mut client).await;
    assert_eq!((assigned(&quiet), quiet.heartbeat_interval_ms), (None, 5000), "nothing is new");

    let mut two = Member::join(&mut client, join("two", &["t"])).await;
    assert_eq!((two.works.len(), two.epoch), (0, 2));
    let told = one.beat(&mut client).await;
    let left = assigned(&told).unwrap();
    assert_eq!(
        (left.len(), told.member_epoch, told.heartbeat_interval_ms),
        (2, 1, 500),
        "to give up, at its old epoch"
    );
    assert_eq!(assigned(&two.beat(&mut client).await), None, "they are not free yet");
    let state = described(&mut client, 1).await;
    assert_eq!(
        (state.group_state.as_str(), state.group_epoch, state.assignor_name.as_str()),
        ("Reconciling", 2, "uniform")
    );
    // It goes on with what is left, and the other one gets what it gave up.
    one.works = left;
    settle(&mut client, &mut [&mut one, &mut two]).await;
    assert_eq!((one.works.len(), two.works.len(), one.epoch, two.epoch), (2, 2, 2, 2));

    for version in [0, 1] {
        let state = described(&mut client, version).await;
        assert_eq!((state.error_code, state.group_state.as_str(), state.members.len()), (0, "Stable", 2));
        let member = &state.members[0];
        assert_eq!((member.member_id.as_str(), member.member_epoch, member.client_id.as_str()), ("one", 2, "test"));
        assert_eq!(
            (member.client_host.as_str(), member.subscribed_topic_names.as_slice()),
            ("/127.0.0.1", &[name("t")][..])
        );
        assert_eq!(member.member_type, if version == 0 { -1 } else { 1 });
        assert_eq!(member.assignment, member.target_assignment);
        assert_eq!(member.assignment.topic_partitions[0].topic_name, name("t"));
        assert_eq!(member.assignment.topic_partitions[0].partitions.len(), 2);
    }
    let wanted = ListGroupsRequest::default().with_types_filter(vec![text("consumer")]);
    let listed = client.call(5, &wanted).await;
    assert_eq!((listed.groups[0].group_type.as_str(), listed.groups[0].group_state.as_str()), ("consumer", "Stable"));

    // One leaves, the other gets everything.
    let left = client.call(1, &beat("two", -1)).await;
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    settle(&mut client, &mut [&mut one]).await;
    assert_eq!((one.works.len(), one.epoch), (4, 3));
    assert_eq!(client.call(1, &beat("two", 2)).await.error_code, 25, "it is none any more");
    client.call(1, &beat("one", -1)).await;
    assert_eq!(described(&mut client, 1).await.error_code, 69, "it is empty: any kind of group");
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_own_code() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let no_names = || beat("m", 0).with_rebalance_timeout_ms(1).with_topic_partitions(Some(Vec::new()));
    let cases = [
        (42, join("m", &["t"]).with_group_id(GroupId(text("")))),
        (42, join("", &["t"])),
        (42, join("m", &["t"]).with_rebalance_timeout_ms(-1)),
        (42, join("m", &["t"]).with_topic_partitions(None)),
        (42, join("m", &["t"]).with_instance_id(Some(text("")))),
        (42, no_names()),
        (112, join("m", &["t"]).with_server_assignor(Some(text("sticky")))),
        (128, no_names().with_subscribed_topic_regex(Some(text("(")))),
        (42, beat("m", -2)),
        (42, beat("m", -3)),
        (25, beat("m", 1)),
        (25, beat("m", -1)),
    ];
    for (code, request) in cases {
        let answer = client.call(1, &request).await;
        assert_eq!(answer.error_code, code, "{request:?} {answer:?}");
        assert!(answer.error_message.is_some());
    }
    // The oldest version gives out ids.
    let answer = client.call(0, &join("", &["t"])).await;
    assert_eq!((answer.error_code, answer.member_id.as_ref().map(|id| id.len())), (0, Some(32)));
    let id = answer.member_id.unwrap().to_string();
    assert_eq!(client.call(0, &beat(&id, 1)).await.error_code, 0);
    for epoch in [2, 7] {
        assert_eq!(client.call(1, &beat(&id, epoch)).await.error_code, 110, "another time");
    }
    let negative = TopicPartitions::default().with_partitions(vec![-1]);
    let negative = beat(&id, 1).with_topic_partitions(Some(vec![negative]));
    assert_eq!(client.call(1, &negative).await.error_code, 42);
    running.stop().await;
}

#[tokio::test]
async fn a_place_by_name_is_kept_for_the_next_and_nobody_else_may_have_it() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let named = |id: &str| join(id, &["t"]).with_instance_id(Some(text("place")));
    let mut other = Member::join(&mut client, join("other", &["t"])).await;
    let mut first = Member::join(&mut client, named("first")).await;
    settle(&mut client, &mut [&mut other, &mut first]).await;
    assert_eq!(client.call(1, &named("second")).await.error_code, 111, "it is not free");
    let stranger = beat("other", other.epoch).with_instance_id(Some(text("place")));
    assert_eq!(client.call(1, &stranger).await.error_code, 82);
    let away = client.call(1, &beat("first", -2).with_instance_id(Some(text("place")))).await;
    assert_eq!((away.error_code, away.member_epoch), (0, -2));
    assert_eq!(assigned(&other.beat(&mut client).await), None, "what it had is kept");
    let second = Member::join(&mut client, named("second")).await;
    assert_eq!((second.works.clone(), second.epoch), (first.works.clone(), first.epoch));
    let late = beat("first", first.epoch).with_instance_id(Some(text("place")));
    assert_eq!(client.call(1, &late).await.error_code, 82, "another one is there by now");
    assert_eq!(client.call(1, &beat("first", first.epoch)).await.error_code, 25);
    running.stop().await;
}

#[tokio::test]
async fn topics_by_an_expression_also_those_that_come_later() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "crm.a", 1).await;
    create_topic(&mut client, "old.crm.a", 1).await;
    let wanted = join("m", &[]).with_subscribed_topic_regex(Some(text("^crm[.].*")));
    let mut member = Member::join(&mut client, wanted).await;
    assert_eq!(member.works.len(), 1);
    create_topic(&mut client, "crm.b", 2).await;
    settle(&mut client, &mut [&mut member]).await;
    assert_eq!(member.works.len(), 3);
    let state = described(&mut client, 1).await;
    assert_eq!(state.members[0].subscribed_topic_regex, Some(text("^crm[.].*")));
    // By name from now on, and by nothing else.
    let change = beat("m", member.epoch)
        .with_subscribed_topic_names(Some(vec![name("old.crm.a"), name("not there"), name("*")]))
        .with_subscribed_topic_regex(Some(text("")));
    assert_eq!(client.call(1, &change).await.error_code, 0);
    settle(&mut client, &mut [&mut member]).await;
    assert_eq!(member.works.len(), 1);
    running.stop().await;
}

fn commit(member: &str, epoch: i32, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("m")));
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![topic])
}

async fn committed(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> i16 {
    client.call(version, request).await.topics[0].partitions[0].error_code
}

/// Position and codes, of the partition and of the group.
async fn position(client: &mut Client, who: Option<(&str, i32)>) -> (i64, i16, i16) {
    let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let mut of = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
    if let Some((member, epoch)) = who {
        of = of.with_member_id(Some(text(member))).with_member_epoch(epoch);
    }
    let answer = client.call(9, &OffsetFetchRequest::default().with_groups(vec![of])).await.groups.remove(0);
    let found =
        answer.topics.first().map(|topic| (topic.partitions[0].committed_offset, topic.partitions[0].error_code));
    let (offset, code) = found.unwrap_or((-2, 0));
    (offset, code, answer.error_code)
}

#[tokio::test]
async fn positions_are_committed_and_asked_for_at_the_epoch_of_the_member() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    for _ in 0..5 {
        assert_eq!(produce(&mut client, 9, "t", batch(&["x"])).await.error_code, 0);
    }
    let mut one = Member::join(&mut client, join("one", &["t"])).await;
    settle(&mut client, &mut [&mut one]).await;
    assert_eq!(committed(&mut client, 9, &commit("one", one.epoch, 0, 4)).await, 0);
    assert_eq!(committed(&mut client, 9, &commit("one", one.epoch, 0, 3)).await, 0, "back, as it says");
    assert_eq!(position(&mut client, None).await, (3, 0, 0));
    assert_eq!(position(&mut client, Some(("one", one.epoch))).await, (3, 0, 0));
    assert_eq!(position(&mut client, Some(("one", 9))).await, (-2, 0, 113));
    assert_eq!(position(&mut client, Some(("two", 1))).await, (-2, 0, 25));
    assert_eq!(committed(&mut client, 9, &commit("one", 9, 0, 4)).await, 113);
    assert_eq!(committed(&mut client, 8, &commit("one", 9, 0, 4)).await, 35, "it has no word for it");
    assert_eq!(committed(&mut client, 9, &commit("two", 1, 0, 4)).await, 25);
    assert_eq!(committed(&mut client, 9, &commit("", -1, 0, 4)).await, 25, "while there are members");
    // What it is to give up it still commits; what has gone over is another's.
    let mut two = Member::join(&mut client, join("two", &["t"])).await;
    let before = one.epoch;
    let kept = assigned(&one.beat(&mut client).await).unwrap();
    let gone = 1 - kept[0].1;
    assert_eq!(committed(&mut client, 9, &commit("one", before, gone, 2)).await, 0);
    one.works = kept;
    settle(&mut client, &mut [&mut one, &mut two]).await;
    assert_eq!(committed(&mut client, 9, &commit("one", one.epoch, gone, 2)).await, 113);
    assert_eq!(committed(&mut client, 9, &commit("two", two.epoch, gone, 2)).await, 0);
    running.stop().await;
}

#[tokio::test]
async fn members_and_epochs_are_there_after_a_restart_and_end_with_their_session() {
    let mut running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 4).await;
    let mut one = Member::join(&mut client, join("one", &["t"])).await;
    let mut two = Member::join(&mut client, join("+t/%2Fo=", &["t"]).with_server_assignor(Some(text("range")))).await;
    settle(&mut client, &mut [&mut one, &mut two]).await;
    let dir = running.stop().await;
    // A session so short that who says nothing is gone soon.
    running = Running::start_in(dir, |config| config.kafka_consumer_session = Millis(60_000)).await;
    client = running.client().await;
    let quiet = one.beat(&mut client).await;
    assert_eq!((assigned(&quiet), quiet.heartbeat_interval_ms), (None, 6_666), "it goes on as if nothing had been");
    assert_eq!(described(&mut client, 1).await.assignor_name.as_str(), "range");
    assert!(!two.follow(&mut client).await);
    let dir = running.stop().await;
    running = Running::start_in(dir, |config| config.kafka_consumer_session = Millis(300)).await;
    client = running.client().await;
    let three = Member::join(&mut client, join("three", &["t"])).await;
    // It says nothing any more, and goes.
    loop {
        let look = client.call(1, &beat("three", three.epoch)).await;
        if look.error_code != 0 {
            assert_eq!(look.error_code, 25);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_group_has_members_of_one_protocol_and_is_free_for_another_when_it_is_empty() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let member = Member::join(&mut client, join("one", &["t"])).await;
    assert_eq!(grouping::try_join(&mut client).await, 23, "the classic protocol cannot have it");
    let classic = HeartbeatRequest::default().with_group_id(group()).with_member_id(text("one")).with_generation_id(1);
    assert_eq!(client.call(4, &classic).await.error_code, 25);
    // The native tools see the same group, and native members may be beside it.
    let native = Native::connect(&running.server.addresses()[0].to_string()).await.unwrap();
    let seen = native.admin().describe_group("g").await.unwrap();
    assert_eq!((seen.members.len(), seen.members[0].owns.len()), (1, 1));
    let request = DescribeGroupsRequest::default().with_groups(vec![group()]);
    assert_eq!(client.call(5, &request).await.groups[0].members.len(), 1);
    client.call(1, &beat(&member.id, -1)).await;
    assert_eq!(grouping::try_join(&mut client).await, 0);
    let refused = client.call(1, &join("one", &["t"])).await;
    assert_eq!(refused.error_code, 69, "the other way round: {refused:?}");
    assert_eq!(described(&mut client, 1).await.error_code, 69);
    running.stop().await;
}
