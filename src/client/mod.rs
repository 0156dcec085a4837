//! Floor 5: the Rust client library. [`Client`] keeps one connection and makes it again when it breaks; [`Producer`],
//! [`Consumer`] and [`Admin`] share it.
//!
//! Knows the wire and the batch format; nothing of how a server stores anything.
//!
//! ```no_run
//! use tidelog::client::{Client, Message, StartAt};
//!
//! # async fn run() -> Result<(), tidelog::client::ClientError> {
//! let client = Client::connect("127.0.0.1:7171").await?;
//! let producer = client.producer().build().await?;
//! let stored = producer.send_and_wait(Message::to("crm.accounts").key("4711").value("{}")).await?;
//! println!("on disk at offset {:?}", stored.offset);
//!
//! let mut consumer = client.consumer().topic("crm.accounts").from(StartAt::Beginning).until_end(true).build().await?;
//! while let Some(record) = consumer.next().await {
//!     println!("{:?}", record?.value);
//! }
//! # Ok(())
//! # }
//! ```

mod admin;
mod connection;
mod consumer;
mod error;
mod group;
mod groups;
mod handle;
mod link;
mod processed;
mod producer;
mod pushes;
mod queue;
mod request;
mod routes;
mod transactions;
mod write;

pub use crate::base::StartAt;
pub use admin::{Admin, GroupChange, GroupReset, NewGroup, NewTopic, TopicChange};
pub use consumer::{ConsumedRecord, Consumer, ConsumerBuilder, PartitionPosition, Pull, Pulled, SkippedRange};
pub use error::ClientError;
pub use group::{GroupConsumer, GroupConsumerBuilder, GroupEvent, WhenMissed};
pub use handle::{Client, ClientBuilder};
pub use producer::{Message, Producer, ProducerBuilder, Receipt, RecordMetadata};

pub use pushes::{NewPush, PushChange};
pub use queue::{Delivery, QueueConsumer, QueueConsumerBuilder};
pub use request::{
    DurableRequestBuilder, ErrorReply, Incoming, IncomingRequest, Outcome, Reply, ReplyEvent, ReplyStream,
    RequestBuilder, Responder, ResponderBuilder, Step,
};

pub use crate::protocol::{
    Ack, ClockDoubt, CommitPosition, ConnectionInfo, DamageInfo, DeadLetterAt, DeadLetterTopic, DeadLetterWay,
    Dependent, DescribeClockOk, DescribeFilterOk, GroupDescription, GroupLine, GroupMember, GroupPartition,
    GroupPosition, GroupRecord, GroupSummary, GroupTotals, ListGroupPageOk, ListPushes, ListReceipts, ListRequests,
    ListTopicPageOk, OffsetAt, PartitionDescription, PausedGroup, PushDescription, PushEndpoint, QueueRules, ReceiptAt,
    ReceiptInfo, ReceiptOutcome, RecordAt, Redrive, RedriveOk, ReplyError, RequestInfo, ResetPartition, ResetTo,
    ServerInfoOk, SettingValue, SettleDeadLetters, SettleDeadLettersOk, TopicDescription, TopicLine, TopicPartition,
    TopicSummary, TopicTotals,
};
pub use crate::record::{Compression, Header, HeaderIter, Headers};

pub use crate::protocol::{
    DescribeTransactionOk, HeldPartition, ListTransactions, TransactionPartition, TransactionSummary,
};

pub use crate::protocol::{
    ApplyRoutesOk, ExplainedRoute, ResetPoint, RouteChange, RouteChangeKind, RouteDescription, RouteMistake,
    RoutePoint, RouteSummary, RuleVerdict,
};

#[cfg(test)]
mod tests;
