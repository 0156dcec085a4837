//! Administration of push subscriptions.

use std::time::Duration;

use crate::protocol::{
    CreatePush, DeletePush, DescribePush, ListPushes, OffsetAt, PausePush, PushDescription, QueueRules,
};

use super::consumer::start_of_group;
use super::link::Again;
use super::{Admin, ClientError, StartAt};

/// A push subscription to be made: a queue group whose consumer is an HTTP endpoint.
#[derive(Debug, Clone)]
pub struct NewPush {
    request: CreatePush,
    start: StartAt,
}

impl NewPush {
    /// One of this name, also of its group, that sends to this URL: each record by itself, four at a time.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        let request = CreatePush {
            name: name.into(),
            topics: Vec::new(),
            filter: None,
            url: url.into(),
            batch: None,
            concurrency: 4,
            timeout_ms: None,
            rules: None,
            start: OffsetAt::Beginning,
            replace: false,
        };
        Self { request, start: StartAt::Beginning }
    }

    /// A topic that it reads, or a pattern (`crm.*.accounts`, `crm.>`); may be said for several.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.request.topics.push(topic.into());
        self
    }

    /// Only records for which this CEL expression is true.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.request.filter = Some(expression.into());
        self
    }

    /// So many records together, at most, as a batch of CloudEvents in JSON.
    pub fn batch(mut self, records: u32) -> Self {
        self.request.batch = Some(records);
        self
    }

    /// So many calls at a time, at most.
    pub fn concurrency(mut self, calls: u32) -> Self {
        self.request.concurrency = calls;
        self
    }

    /// So long for a call, if the server does not allow less.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The group's rules: how often a record is sent before it is a dead letter, and the waits between.
    pub fn rules(mut self, rules: QueueRules) -> Self {
        self.request.rules = Some(rules);
        self
    }

    /// Where it begins: beginning, end, or a time. Default [`StartAt::Beginning`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// It takes the place of one of that name, and goes on where that was.
    pub fn replace(mut self, replace: bool) -> Self {
        self.request.replace = replace;
        self
    }
}

impl Admin {
    /// Makes a push subscription with its group.
    pub async fn create_push(&self, push: NewPush) -> Result<PushDescription, ClientError> {
        let start = start_of_group(push.start, self.link.now_ms())?;
        let request = CreatePush { start, ..push.request };
        let again = if request.replace { Again::Yes } else { Again::No };
        Ok(self.link.ask(&request, again).await?.push)
    }

    /// Push subscriptions, by name, and whether there are more than `limit` (at most 1000) or than fit an answer. With the name
    /// of the last one as `after` it goes on there.
    pub async fn list_pushes(&self, wanted: ListPushes) -> Result<(Vec<PushDescription>, bool), ClientError> {
        let listed = self.link.ask(&wanted, Again::Yes).await?;
        Ok((listed.pushes, listed.more))
    }

    /// One push subscription, and how it is doing.
    pub async fn describe_push(&self, name: impl Into<String>) -> Result<PushDescription, ClientError> {
        Ok(self.link.ask(&DescribePush { name: name.into() }, Again::Yes).await?.push)
    }

    /// Lets one stand still, also over restarts; calls under way come to their end.
    pub async fn pause_push(&self, name: impl Into<String>) -> Result<PushDescription, ClientError> {
        Ok(self.link.ask(&PausePush { name: name.into(), paused: true }, Again::Yes).await?.push)
    }

    /// Lets one go on.
    pub async fn resume_push(&self, name: impl Into<String>) -> Result<PushDescription, ClientError> {
        Ok(self.link.ask(&PausePush { name: name.into(), paused: false }, Again::Yes).await?.push)
    }

    /// Deletes one with its group and what that knows of what is done.
    pub async fn delete_push(&self, name: impl Into<String>) -> Result<(), ClientError> {
        self.link.ask(&DeletePush { name: name.into() }, Again::No).await.map(|_| ())
    }
}
