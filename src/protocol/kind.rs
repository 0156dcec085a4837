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

/// Message kinds; an answer has the kind of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Pushed before the server closes a connection, with an error body.
    Goodbye = 0,
    /// [`super::Hello`].
    Hello = 1,
    /// [`super::Ping`].
    Ping = 2,
    /// [`super::ServerInfo`].
    ServerInfo = 3,
    /// [`super::Metrics`].
    Metrics = 4,
    /// [`super::CreateTopic`].
    CreateTopic = 10,
    /// [`super::AlterTopic`].
    AlterTopic = 11,
    /// [`super::DeleteTopic`].
    DeleteTopic = 12,
    /// [`super::ListTopics`].
    ListTopics = 13,
    /// [`super::DescribeTopic`].
    DescribeTopic = 14,
    /// [`super::Metadata`].
    Metadata = 15,
    /// [`super::InitProducer`].
    InitProducer = 20,
    /// [`super::Produce`].
    Produce = 21,
    /// [`super::Fetch`].
    Fetch = 30,
    /// [`super::ListOffsets`].
    ListOffsets = 31,
    /// [`super::Subscribe`].
    Subscribe = 40,
    /// [`super::Credit`].
    Credit = 41,
    /// [`super::Unsubscribe`].
    Unsubscribe = 42,
    /// [`super::Delivery`].
    Delivery = 43,
    /// Pushed when a subscription ends by itself, with an error body.
    SubscriptionEnded = 44,
    /// [`super::JoinStream`].
    JoinStream = 45,
    /// [`super::StreamHeartbeat`].
    StreamHeartbeat = 46,
    /// [`super::LeaveStream`].
    LeaveStream = 47,
    /// [`super::CommitPositions`].
    CommitPositions = 48,
    /// [`super::Positions`].
    Positions = 49,
    /// [`super::JoinGroup`].
    JoinGroup = 50,
    /// [`super::LeaveGroup`].
    LeaveGroup = 51,
    /// [`super::Settle`].
    Settle = 52,
    /// [`super::Handed`].
    Handed = 53,
    /// Pushed when a membership ends by itself, with an error body.
    MemberEnded = 54,
    /// [`super::ListGroups`].
    ListGroups = 60,
    /// [`super::DescribeGroup`].
    DescribeGroup = 61,
    /// [`super::DeleteGroup`].
    DeleteGroup = 62,
    /// [`super::ResetGroup`].
    ResetGroup = 63,
    /// [`super::Ask`].
    Ask = 80,
    /// [`super::Respond`].
    Respond = 81,
    /// [`super::StopResponding`].
    StopResponding = 82,
    /// [`super::Asked`].
    Asked = 83,
    /// [`super::Reply`].
    Reply = 84,
    /// [`super::Progress`] of a responder, and [`super::ReplyPart`] to a requester.
    Progress = 85,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 40] = [
        Self::Goodbye,
        Self::Hello,
        Self::Ping,
        Self::ServerInfo,
        Self::Metrics,
        Self::CreateTopic,
        Self::AlterTopic,
        Self::DeleteTopic,
        Self::ListTopics,
        Self::DescribeTopic,
        Self::Metadata,
        Self::InitProducer,
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Subscribe,
        Self::Credit,
        Self::Unsubscribe,
        Self::Delivery,
        Self::SubscriptionEnded,
        Self::JoinStream,
        Self::StreamHeartbeat,
        Self::LeaveStream,
        Self::CommitPositions,
        Self::Positions,
        Self::JoinGroup,
        Self::LeaveGroup,
        Self::Settle,
        Self::Handed,
        Self::MemberEnded,
        Self::ListGroups,
        Self::DescribeGroup,
        Self::DeleteGroup,
        Self::ResetGroup,
        Self::Ask,
        Self::Respond,
        Self::StopResponding,
        Self::Asked,
        Self::Reply,
        Self::Progress,
    ];

    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The kind of a number, `None` for one that this version does not know.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Hello => "hello",
            Self::Ping => "ping",
            Self::ServerInfo => "server_info",
            Self::Metrics => "metrics",
            Self::CreateTopic => "create_topic",
            Self::AlterTopic => "alter_topic",
            Self::DeleteTopic => "delete_topic",
            Self::ListTopics => "list_topics",
            Self::DescribeTopic => "describe_topic",
            Self::Metadata => "metadata",
            Self::InitProducer => "init_producer",
            Self::Produce => "produce",
            Self::Fetch => "fetch",
            Self::ListOffsets => "list_offsets",
            Self::Subscribe => "subscribe",
            Self::Credit => "credit",
            Self::Unsubscribe => "unsubscribe",
            Self::Delivery => "delivery",
            Self::SubscriptionEnded => "subscription_ended",
            Self::JoinStream => "join_stream",
            Self::StreamHeartbeat => "stream_heartbeat",
            Self::LeaveStream => "leave_stream",
            Self::CommitPositions => "commit_positions",
            Self::Positions => "positions",
            Self::JoinGroup => "join_group",
            Self::LeaveGroup => "leave_group",
            Self::Settle => "settle",
            Self::Handed => "handed",
            Self::MemberEnded => "member_ended",
            Self::ListGroups => "list_groups",
            Self::DescribeGroup => "describe_group",
            Self::DeleteGroup => "delete_group",
            Self::ResetGroup => "reset_group",
            Self::Ask => "ask",
            Self::Respond => "respond",
            Self::StopResponding => "stop_responding",
            Self::Asked => "asked",
            Self::Reply => "reply",
            Self::Progress => "progress",
        }
    }
}
