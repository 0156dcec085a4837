//! Administration.

use crate::base::{Offset, TimestampMs};
use crate::protocol::{
    AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, ListOffsets, ListTopics, Metadata, MetadataOk, Metrics,
    OffsetAt, ServerInfo, ServerInfoOk, Setting, TopicDescription, TopicSummary,
};

use super::{Client, ClientError};

/// Topics, offsets, facts.
#[derive(Clone)]
pub struct Admin {
    pub(super) client: Client,
}

/// A topic to be created.
#[derive(Debug, Clone)]
pub struct NewTopic {
    name: String,
    partitions: Option<u32>,
    settings: Vec<Setting>,
    if_not_exists: bool,
}

impl NewTopic {
    /// A topic with the server's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: None, settings: Vec::new(), if_not_exists: false }
    }

    /// How many partitions.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// A setting, as `tidelog topic create --set` takes it.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push(Setting { name: name.into(), value: value.into() });
        self
    }

    /// An existing topic is fine.
    pub fn if_not_exists(mut self) -> Self {
        self.if_not_exists = true;
        self
    }
}

/// A change of a topic.
#[derive(Debug, Clone)]
pub struct TopicChange(AlterTopic);

impl TopicChange {
    /// No change yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self(AlterTopic { name: name.into(), partitions: None, set: Vec::new(), unset: Vec::new() })
    }

    /// A larger number of partitions.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.0.partitions = Some(partitions);
        self
    }

    /// A setting's new value.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.set.push(Setting { name: name.into(), value: value.into() });
        self
    }

    /// A setting goes back to its default.
    pub fn unset(mut self, name: impl Into<String>) -> Self {
        self.0.unset.push(name.into());
        self
    }
}

impl Admin {
    /// Creates a topic.
    ///
    /// # Errors
    /// It exists, or something about it is out of bounds.
    pub async fn create_topic(&self, new: NewTopic) -> Result<TopicDescription, ClientError> {
        let NewTopic { name, partitions, settings, if_not_exists } = new;
        Ok(self.client.request(&CreateTopic { name, partitions, settings, if_not_exists }).await?.topic)
    }

    /// Changes a topic.
    ///
    /// # Errors
    /// There is no such topic, or a value is out of bounds.
    pub async fn alter_topic(&self, change: TopicChange) -> Result<TopicDescription, ClientError> {
        Ok(self.client.request(&change.0).await?.topic)
    }

    /// Deletes a topic and its data.
    ///
    /// # Errors
    /// There is no such topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        self.client.request(&DeleteTopic { name: name.to_owned() }).await.map(drop)
    }

    /// All topics.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, ClientError> {
        Ok(self.client.request(&ListTopics {}).await?.topics)
    }

    /// One topic in full.
    ///
    /// # Errors
    /// There is no such topic.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, ClientError> {
        Ok(self.client.request(&DescribeTopic { name: name.to_owned() }).await?.topic)
    }

    /// Partitions and limits of a topic.
    ///
    /// # Errors
    /// There is no such topic, and it is not to be created.
    pub async fn metadata(&self, topic: &str, create: bool) -> Result<MetadataOk, ClientError> {
        self.client.request(&Metadata { topic: topic.to_owned(), create }).await
    }

    /// An offset, and the timestamp of its record (−1 if there is none).
    ///
    /// # Errors
    /// There is no such topic or partition.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partition: u32,
        at: OffsetAt,
    ) -> Result<(Offset, TimestampMs), ClientError> {
        let found = self.client.request(&ListOffsets { topic: topic.to_owned(), partition, at }).await?;
        Ok((found.offset, found.timestamp))
    }

    /// Facts about the server.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn server_info(&self) -> Result<ServerInfoOk, ClientError> {
        self.client.request(&ServerInfo {}).await
    }

    /// The server's metrics, in the Prometheus text format.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.client.request(&Metrics {}).await?.text)
    }
}
