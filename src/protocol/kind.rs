//! Message kinds, and what makes a struct a message.

use serde::{Serialize, de::DeserializeOwned};

/// A message with a kind.
pub trait Message: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;
}

/// A message that is answered.
pub trait Request: Message {
    /// What answers it.
    type Response: Message;
}

/// A request of the kind of its name, and what answers it.
macro_rules! request {
    ($request:ident, $response:ident) => {
        impl $crate::protocol::Message for $request {
            const KIND: $crate::protocol::Kind = $crate::protocol::Kind::$request;
        }

        impl $crate::protocol::Request for $request {
            type Response = $response;
        }

        impl $crate::protocol::Message for $response {
            const KIND: $crate::protocol::Kind = $crate::protocol::Kind::$request;
        }
    };
}

pub(super) use request;

macro_rules! kinds {
    ($($(#[$meta:meta])* $number:literal $kind:ident $name:literal;)*) => {
        /// Message kinds; an answer has the kind of its request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$meta])* $kind = $number,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Self::$kind,)*];

            /// The name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

// Number, kind, and name: one line each.
kinds! {
    /// Pushed before the server closes a connection, with an error body.
    0 Goodbye "goodbye";
    /// [`super::Hello`].
    1 Hello "hello";
    /// [`super::Ping`].
    2 Ping "ping";
    /// [`super::ServerInfo`].
    3 ServerInfo "server_info";
    /// [`super::Metrics`].
    4 Metrics "metrics";
    /// [`super::CreateTopic`].
    10 CreateTopic "create_topic";
    /// [`super::AlterTopic`].
    11 AlterTopic "alter_topic";
    /// [`super::DeleteTopic`].
    12 DeleteTopic "delete_topic";
    /// [`super::ListTopics`].
    13 ListTopics "list_topics";
    /// [`super::DescribeTopic`].
    14 DescribeTopic "describe_topic";
    /// [`super::Metadata`].
    15 Metadata "metadata";
    /// [`super::InitProducer`].
    20 InitProducer "init_producer";
    /// [`super::Produce`].
    21 Produce "produce";
    /// [`super::Fetch`].
    30 Fetch "fetch";
    /// [`super::ListOffsets`].
    31 ListOffsets "list_offsets";
    /// [`super::WatchTopics`].
    36 WatchTopics "watch_topics";
    /// [`super::TopicsChanged`].
    37 TopicsChanged "topics_changed";
    /// [`super::MatchTopics`].
    38 MatchTopics "match_topics";
    /// [`super::Subscribe`].
    40 Subscribe "subscribe";
    /// [`super::Credit`].
    41 Credit "credit";
    /// [`super::Unsubscribe`].
    42 Unsubscribe "unsubscribe";
    /// [`super::Delivery`].
    43 Delivery "delivery";
    /// Pushed when a subscription ends by itself, with an error body.
    44 SubscriptionEnded "subscription_ended";
    /// [`super::JoinStream`].
    45 JoinStream "join_stream";
    /// [`super::StreamHeartbeat`].
    46 StreamHeartbeat "stream_heartbeat";
    /// [`super::LeaveStream`].
    47 LeaveStream "leave_stream";
    /// [`super::CommitPositions`].
    48 CommitPositions "commit_positions";
    /// [`super::Positions`].
    49 Positions "positions";
    /// [`super::JoinGroup`].
    50 JoinGroup "join_group";
    /// [`super::LeaveGroup`].
    51 LeaveGroup "leave_group";
    /// [`super::Settle`].
    52 Settle "settle";
    /// [`super::Handed`].
    53 Handed "handed";
    /// Pushed when a membership ends by itself, with an error body.
    54 MemberEnded "member_ended";
    /// [`super::ListGroups`].
    60 ListGroups "list_groups";
    /// [`super::DescribeGroup`].
    61 DescribeGroup "describe_group";
    /// [`super::DeleteGroup`].
    62 DeleteGroup "delete_group";
    /// [`super::ResetGroup`].
    63 ResetGroup "reset_group";
    /// [`super::ApplyRoutes`].
    70 ApplyRoutes "apply_routes";
    /// [`super::ListRoutes`].
    71 ListRoutes "list_routes";
    /// [`super::DescribeRoute`].
    72 DescribeRoute "describe_route";
    /// [`super::PauseRoute`].
    73 PauseRoute "pause_route";
    /// [`super::ResetRoute`].
    74 ResetRoute "reset_route";
    /// [`super::DeleteRoute`].
    75 DeleteRoute "delete_route";
    /// [`super::ExplainRecord`].
    76 ExplainRecord "explain_record";
    /// [`super::Ask`].
    80 Ask "ask";
    /// [`super::Respond`].
    81 Respond "respond";
    /// [`super::StopResponding`].
    82 StopResponding "stop_responding";
    /// [`super::Asked`].
    83 Asked "asked";
    /// [`super::Reply`].
    84 Reply "reply";
    /// [`super::Progress`] of a responder, and [`super::ReplyPart`] to a requester.
    85 Progress "progress";
    /// Pushed when a responder ends by itself, with an error body.
    86 ResponderEnded "responder_ended";
    /// [`super::AwaitReply`].
    87 AwaitReply "await_reply";
    /// [`super::ListRequests`].
    88 ListRequests "list_requests";
    /// [`super::CancelRequest`].
    89 CancelRequest "cancel_request";
    /// [`super::CreatePush`].
    90 CreatePush "create_push";
    /// [`super::ListPushes`].
    91 ListPushes "list_pushes";
    /// [`super::DescribePush`].
    92 DescribePush "describe_push";
    /// [`super::PausePush`].
    93 PausePush "pause_push";
    /// [`super::DeletePush`].
    94 DeletePush "delete_push";
    /// [`super::Processed`].
    96 Processed "processed";
    /// [`super::Redrive`].
    97 Redrive "redrive";
    /// [`super::ListDeadLetters`].
    98 ListDeadLetters "list_dead_letters";
    /// [`super::AskReceipts`].
    99 AskReceipts "ask_receipts";
    /// [`super::ListReceipts`].
    100 ListReceipts "list_receipts";
    /// [`super::CancelReceipts`].
    101 CancelReceipts "cancel_receipts";
    /// [`super::ListDamage`].
    102 ListDamage "list_damage";
    /// [`super::AcknowledgeDamage`].
    103 AcknowledgeDamage "acknowledge_damage";
    /// [`super::ListTransactions`].
    110 ListTransactions "list_transactions";
    /// [`super::DescribeTransaction`].
    111 DescribeTransaction "describe_transaction";
    /// [`super::AbortTransaction`].
    112 AbortTransaction "abort_transaction";
    /// [`super::ForgetTransaction`].
    113 ForgetTransaction "forget_transaction";
    /// [`super::ListHeld`].
    114 ListHeld "list_held";
    /// [`super::ListGroupPage`].
    115 ListGroupPage "list_group_page";
    /// [`super::ListTopicPage`].
    116 ListTopicPage "list_topic_page";
    /// [`super::DescribeClock`].
    120 DescribeClock "describe_clock";
    /// [`super::ConfirmClock`].
    121 ConfirmClock "confirm_clock";
    /// [`super::CreateGroup`].
    122 CreateGroup "create_group";
    /// [`super::AlterGroup`].
    123 AlterGroup "alter_group";
    /// [`super::ListGroupRecords`].
    124 ListGroupRecords "list_group_records";
    /// [`super::PauseGroup`].
    125 PauseGroup "pause_group";
    /// [`super::PausedGroups`].
    126 PausedGroups "paused_groups";
    /// [`super::SkipRecord`].
    127 SkipRecord "skip_record";
    /// [`super::ResetPartitions`].
    128 ResetPartitions "reset_partitions";
    /// [`super::SettleDeadLetters`].
    129 SettleDeadLetters "settle_dead_letters";
    /// [`super::CreatePushWith`].
    130 CreatePushWith "create_push_with";
    /// [`super::AlterPush`].
    131 AlterPush "alter_push";
    /// [`super::DescribeEndpoints`].
    132 DescribeEndpoints "describe_endpoints";
    /// [`super::DeleteRecords`].
    136 DeleteRecords "delete_records";
    /// [`super::ListDependents`].
    137 ListDependents "list_dependents";
    /// [`super::ListConnections`].
    138 ListConnections "list_connections";
    /// [`super::CloseConnection`].
    139 CloseConnection "close_connection";
    /// [`super::DescribeFilter`].
    140 DescribeFilter "describe_filter";
}

impl Kind {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The kind of a number, `None` for one that this version does not know.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}
