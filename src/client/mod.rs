//! Floor 5: the Rust client library: [`Client`], [`Producer`], [`Consumer`], [`Admin`].
//!
//! ```no_run
//! # async fn example() -> Result<(), tidelog::client::ClientError> {
//! use tidelog::client::{Client, Message};
//! let client = Client::connect("127.0.0.1:7171").await?;
//! let producer = client.producer().build().await?;
//! let receipt = producer.send(Message::to("crm.accounts").key("42").value("{}")).await?;
//! println!("on disk at offset {:?}", receipt.await?.offset);
//! # Ok(()) }
//! ```
//!
//! Knows the wire and the record format; nothing of the log, the catalog or the broker.

mod admin;
#[expect(clippy::module_inception, reason = "the type that gives the module its name")]
mod client;
mod connection;
mod consumer;
mod error;
mod lane;
mod producer;

pub use admin::{Admin, NewTopic, TopicChange};
pub use client::{Client, ClientBuilder};
pub use consumer::{ConsumedRecord, Consumer, ConsumerBuilder, SkippedRange, StartAt};
pub use error::ClientError;
pub use lane::Receipt;
pub use producer::{Message, Producer, ProducerBuilder, RecordMetadata};

pub use crate::protocol::{Ack, OffsetAt, ServerInfoOk, TopicDescription, TopicSummary};
