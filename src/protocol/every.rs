//! Every message, by its kind: for fuzz targets and tests that decode all of them. Not there otherwise.

use serde::{Serialize, de::DeserializeOwned};

use super::*;

/// Decodes a body as each message of the kind. What can be decoded is encoded again, and must be the same then.
///
/// # Panics
/// It is not.
pub fn decode_every(kind: Kind, body: &[u8]) {
    match kind {
        Kind::Goodbye => same::<ErrorBody>(body),
        Kind::Hello => {
            same::<Hello>(body);
            same::<HelloOk>(body);
        }
        Kind::Ping => {
            same::<Ping>(body);
            same::<Pong>(body);
        }
        Kind::ServerInfo => {
            same::<ServerInfo>(body);
            same::<ServerInfoOk>(body);
        }
        Kind::Metrics => {
            same::<Metrics>(body);
            same::<MetricsOk>(body);
        }
        Kind::CreateTopic => {
            same::<CreateTopic>(body);
            same::<TopicOk>(body);
        }
        Kind::AlterTopic => {
            same::<AlterTopic>(body);
            same::<TopicOk>(body);
        }
        Kind::DeleteTopic => {
            same::<DeleteTopic>(body);
            same::<DeleteTopicOk>(body);
        }
        Kind::ListTopics => {
            same::<ListTopics>(body);
            same::<ListTopicsOk>(body);
        }
        Kind::DescribeTopic => {
            same::<DescribeTopic>(body);
            same::<TopicOk>(body);
        }
        Kind::Metadata => {
            same::<Metadata>(body);
            same::<MetadataOk>(body);
        }
        Kind::InitProducer => {
            same::<InitProducer>(body);
            same::<InitProducerOk>(body);
        }
        Kind::Produce => {
            same::<Produce>(body);
            same::<ProduceOk>(body);
        }
        Kind::Fetch => {
            same::<Fetch>(body);
            same::<FetchOk>(body);
        }
        Kind::ListOffsets => {
            same::<ListOffsets>(body);
            same::<ListOffsetsOk>(body);
        }
        Kind::WatchTopics => {
            same::<WatchTopics>(body);
            same::<WatchTopicsOk>(body);
        }
        Kind::TopicsChanged => same::<TopicsChanged>(body),
        Kind::MatchTopics => {
            same::<MatchTopics>(body);
            same::<MatchTopicsOk>(body);
        }
        Kind::Subscribe => {
            same::<Subscribe>(body);
            same::<SubscribeOk>(body);
        }
        Kind::Credit => same::<Credit>(body),
        Kind::Unsubscribe => {
            same::<Unsubscribe>(body);
            same::<UnsubscribeOk>(body);
        }
        Kind::Delivery => same::<Delivery>(body),
        Kind::SubscriptionEnded => same::<ErrorBody>(body),
        Kind::JoinStream => {
            same::<JoinStream>(body);
            same::<JoinStreamOk>(body);
        }
        Kind::StreamHeartbeat => {
            same::<StreamHeartbeat>(body);
            same::<StreamHeartbeatOk>(body);
        }
        Kind::LeaveStream => {
            same::<LeaveStream>(body);
            same::<LeaveStreamOk>(body);
        }
        Kind::CommitPositions => {
            same::<CommitPositions>(body);
            same::<CommitPositionsOk>(body);
        }
        Kind::Positions => {
            same::<Positions>(body);
            same::<PositionsOk>(body);
        }
        Kind::JoinGroup => {
            same::<JoinGroup>(body);
            same::<JoinGroupOk>(body);
        }
        Kind::LeaveGroup => {
            same::<LeaveGroup>(body);
            same::<LeaveGroupOk>(body);
        }
        Kind::Settle => {
            same::<Settle>(body);
            same::<SettleOk>(body);
        }
        Kind::Handed => same::<Handed>(body),
        Kind::MemberEnded => same::<ErrorBody>(body),
        Kind::ListGroups => {
            same::<ListGroups>(body);
            same::<ListGroupsOk>(body);
        }
        Kind::DescribeGroup => {
            same::<DescribeGroup>(body);
            same::<GroupOk>(body);
        }
        Kind::DeleteGroup => {
            same::<DeleteGroup>(body);
            same::<DeleteGroupOk>(body);
        }
        Kind::ResetGroup => {
            same::<ResetGroup>(body);
            same::<ResetGroupOk>(body);
        }
        Kind::ApplyRoutes => {
            same::<ApplyRoutes>(body);
            same::<ApplyRoutesOk>(body);
        }
        Kind::ListRoutes => {
            same::<ListRoutes>(body);
            same::<ListRoutesOk>(body);
        }
        Kind::DescribeRoute => {
            same::<DescribeRoute>(body);
            same::<DescribeRouteOk>(body);
        }
        Kind::PauseRoute => {
            same::<PauseRoute>(body);
            same::<PauseRouteOk>(body);
        }
        Kind::ResetRoute => {
            same::<ResetRoute>(body);
            same::<ResetRouteOk>(body);
        }
        Kind::DeleteRoute => {
            same::<DeleteRoute>(body);
            same::<DeleteRouteOk>(body);
        }
        Kind::ExplainRecord => {
            same::<ExplainRecord>(body);
            same::<ExplainRecordOk>(body);
        }
        Kind::Ask => {
            same::<Ask>(body);
            same::<AskOk>(body);
        }
        Kind::Respond => {
            same::<Respond>(body);
            same::<RespondOk>(body);
        }
        Kind::StopResponding => {
            same::<StopResponding>(body);
            same::<StopRespondingOk>(body);
        }
        Kind::Asked => same::<Asked>(body),
        Kind::Reply => same::<Reply>(body),
        Kind::Progress => {
            same::<Progress>(body);
            same::<ReplyPart>(body);
            same::<ProgressOk>(body);
        }
        Kind::ResponderEnded => same::<ErrorBody>(body),
        Kind::AwaitReply => {
            same::<AwaitReply>(body);
            same::<AwaitReplyOk>(body);
        }
        Kind::ListRequests => {
            same::<ListRequests>(body);
            same::<ListRequestsOk>(body);
        }
        Kind::CancelRequest => {
            same::<CancelRequest>(body);
            same::<CancelRequestOk>(body);
        }
        Kind::CreatePush => {
            same::<CreatePush>(body);
            same::<CreatePushOk>(body);
        }
        Kind::ListPushes => {
            same::<ListPushes>(body);
            same::<ListPushesOk>(body);
        }
        Kind::DescribePush => {
            same::<DescribePush>(body);
            same::<DescribePushOk>(body);
        }
        Kind::PausePush => {
            same::<PausePush>(body);
            same::<PausePushOk>(body);
        }
        Kind::DeletePush => {
            same::<DeletePush>(body);
            same::<DeletePushOk>(body);
        }
        Kind::Processed => {
            same::<Processed>(body);
            same::<ProcessedOk>(body);
        }
        Kind::Redrive => {
            same::<Redrive>(body);
            same::<RedriveOk>(body);
        }
        Kind::ListDeadLetters => {
            same::<ListDeadLetters>(body);
            same::<ListDeadLettersOk>(body);
        }
        Kind::AskReceipts => {
            same::<AskReceipts>(body);
            same::<AskReceiptsOk>(body);
        }
        Kind::ListReceipts => {
            same::<ListReceipts>(body);
            same::<ListReceiptsOk>(body);
        }
        Kind::CancelReceipts => {
            same::<CancelReceipts>(body);
            same::<CancelReceiptsOk>(body);
        }
        Kind::ListDamage => {
            same::<ListDamage>(body);
            same::<ListDamageOk>(body);
        }
        Kind::AcknowledgeDamage => {
            same::<AcknowledgeDamage>(body);
            same::<AcknowledgeDamageOk>(body);
        }
        Kind::ListTransactions => {
            same::<ListTransactions>(body);
            same::<ListTransactionsOk>(body);
        }
        Kind::DescribeTransaction => {
            same::<DescribeTransaction>(body);
            same::<DescribeTransactionOk>(body);
        }
        Kind::AbortTransaction => {
            same::<AbortTransaction>(body);
            same::<AbortTransactionOk>(body);
        }
        Kind::ForgetTransaction => {
            same::<ForgetTransaction>(body);
            same::<ForgetTransactionOk>(body);
        }
        Kind::ListHeld => {
            same::<ListHeld>(body);
            same::<ListHeldOk>(body);
        }
        Kind::ListGroupPage => {
            same::<ListGroupPage>(body);
            same::<ListGroupPageOk>(body);
        }
        Kind::ListTopicPage => {
            same::<ListTopicPage>(body);
            same::<ListTopicPageOk>(body);
        }
        Kind::DescribeClock => {
            same::<DescribeClock>(body);
            same::<DescribeClockOk>(body);
        }
        Kind::CreateGroup => {
            same::<CreateGroup>(body);
            same::<CreateGroupOk>(body);
        }
        Kind::AlterGroup => {
            same::<AlterGroup>(body);
            same::<AlterGroupOk>(body);
        }
        Kind::SettleDeadLetters => {
            same::<SettleDeadLetters>(body);
            same::<SettleDeadLettersOk>(body);
        }
        Kind::DescribeFilter => {
            same::<DescribeFilter>(body);
            same::<DescribeFilterOk>(body);
        }
        Kind::ListGroupRecords => {
            same::<ListGroupRecords>(body);
            same::<ListGroupRecordsOk>(body);
        }
        Kind::PauseGroup => {
            same::<PauseGroup>(body);
            same::<PauseGroupOk>(body);
        }
        Kind::PausedGroups => {
            same::<PausedGroups>(body);
            same::<PausedGroupsOk>(body);
        }
        Kind::SkipRecord => {
            same::<SkipRecord>(body);
            same::<SkipRecordOk>(body);
        }
        Kind::ResetPartitions => {
            same::<ResetPartitions>(body);
            same::<ResetPartitionsOk>(body);
        }
        Kind::DeleteRecords => {
            same::<DeleteRecords>(body);
            same::<DeleteRecordsOk>(body);
        }
        Kind::ListConnections => {
            same::<ListConnections>(body);
            same::<ListConnectionsOk>(body);
        }
        Kind::CloseConnection => {
            same::<CloseConnection>(body);
            same::<CloseConnectionOk>(body);
        }
        Kind::ListDependents => {
            same::<ListDependents>(body);
            same::<ListDependentsOk>(body);
        }
        Kind::ConfirmClock => {
            same::<ConfirmClock>(body);
            same::<ConfirmClockOk>(body);
        }
        Kind::CreatePushWith => {
            same::<CreatePushWith>(body);
            same::<CreatePushWithOk>(body);
        }
        Kind::AlterPush => {
            same::<AlterPush>(body);
            same::<AlterPushOk>(body);
        }
        Kind::DescribeEndpoints => {
            same::<DescribeEndpoints>(body);
            same::<DescribeEndpointsOk>(body);
        }
    }
    same::<ErrorBody>(body);
}

fn same<M: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(message) = decode_body::<M>(0, body) else { return };
    let what = std::any::type_name::<M>();
    let again =
        encode_body(&message).unwrap_or_else(|error| panic!("{what} was decoded and cannot be encoded: {error}"));
    // Behind it may be what a newer peer has added.
    assert!(body.starts_with(&again), "{what} is not what it was: {body:02x?}, {again:02x?}");
}
