//! Administration of push subscriptions.

use std::time::Duration;

use crate::protocol::{
    AlterPush, CreatePush, CreatePushWith, DeletePush, DescribeEndpoints, DescribePush, ListPushes, OffsetAt,
    PausePush, PushDescription, PushEndpoint, PushHeader, PushSecret, QueueRules,
};

use super::consumer::start_of_group;
use super::link::Again;
use super::{Admin, ClientError, StartAt};

/// A push subscription to be made: a queue group whose consumer is an HTTP endpoint.
#[derive(Debug, Clone)]
pub struct NewPush {
    request: CreatePush,
    headers: Option<Vec<PushHeader>>,
    secret: Option<PushSecret>,
    start: StartAt,
}

/// What is to be different of a push subscription. What is not said stays.
#[derive(Debug, Clone)]
pub struct PushChange {
    request: AlterPush,
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
            start: OffsetAt::End,
            replace: false,
        };
        Self { request, headers: None, secret: None, start: StartAt::End }
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
        self.request.timeout_ms = Some(millis(timeout));
        self
    }

    /// The group's rules: how often a record is sent before it is a dead letter, and the waits between.
    pub fn rules(mut self, rules: QueueRules) -> Self {
        self.request.rules = Some(rules);
        self
    }

    /// Where it begins: beginning, end, or a time. Default [`StartAt::End`]: it sends what comes from now on. A group that is
    /// there goes on where it is.
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// It takes the place of one of that name, and goes on where that was.
    pub fn replace(mut self, replace: bool) -> Self {
        self.request.replace = replace;
        self
    }

    /// A header that the endpoint gets with each call; may be said for several. Nobody is shown its value again. With
    /// [`NewPush::replace`] those that are said take the place of all before.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.get_or_insert_default().push(PushHeader { name: name.into(), value: value.into() });
        self
    }

    /// What signs its calls (`whsec_` and base64), instead of the secret that the server has for all.
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(PushSecret { secret: secret.into(), keep_old_ms: 0 });
        self
    }
}

impl PushChange {
    /// No change yet.
    pub fn new(name: impl Into<String>) -> Self {
        let request = AlterPush {
            name: name.into(),
            topics: Vec::new(),
            filter: None,
            no_filter: false,
            url: None,
            batch: None,
            concurrency: None,
            timeout_ms: None,
            lease_ms: None,
            max_deliveries: None,
            backoff_ms: None,
            backoff_max_ms: None,
            dead_letter: None,
            ordered_by_key: None,
            start: OffsetAt::End,
            drop_headers: false,
            drop: Vec::new(),
            headers: Vec::new(),
            secret: None,
        };
        Self { request, start: StartAt::End }
    }

    /// Where to. Headers are for the host that they were given for: for another one they are to be set anew, or dropped.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.request.url = Some(url.into());
        self
    }

    /// A topic that it reads from now on, or a pattern; may be said for several, and takes the place of those it had.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.request.topics.push(topic.into());
        self
    }

    /// Where it begins in partitions of which it has done nothing yet. Default [`StartAt::End`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Only records for which this CEL expression is true from now on; `None` for all.
    pub fn filter(mut self, expression: Option<String>) -> Self {
        self.request.no_filter = expression.is_none();
        self.request.filter = expression;
        self
    }

    /// So many records together, at most; `None` for each by itself.
    pub fn batch(mut self, records: Option<u32>) -> Self {
        self.request.batch = Some(records.unwrap_or(0));
        self
    }

    /// So many calls at a time, at most.
    pub fn concurrency(mut self, calls: u32) -> Self {
        self.request.concurrency = Some(calls);
        self
    }

    /// So long for a call; `None` for as long as the server allows.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request.timeout_ms = Some(timeout.map_or(0, |timeout| millis(timeout).max(1)));
        self
    }

    /// Deliveries of a record after which it is a dead letter.
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.request.max_deliveries = Some(deliveries);
        self
    }

    /// The wait before a second delivery; it doubles each time.
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.request.backoff_ms = Some(millis(backoff));
        self
    }

    /// The longest wait between two deliveries.
    pub fn backoff_max(mut self, longest: Duration) -> Self {
        self.request.backoff_max_ms = Some(millis(longest));
        self
    }

    /// The topic for dead letters.
    pub fn dead_letter(mut self, topic: impl Into<String>) -> Self {
        self.request.dead_letter = Some(topic.into());
        self
    }

    /// Whether the next record of a key is sent only when the one before is done.
    pub fn ordered_by_key(mut self, ordered: bool) -> Self {
        self.request.ordered_by_key = Some(ordered);
        self
    }

    /// A header that the endpoint gets with each call, instead of the one of the same name.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.headers.push(PushHeader { name: name.into(), value: value.into() });
        self
    }

    /// The header of this name goes.
    pub fn drop_header(mut self, name: impl Into<String>) -> Self {
        self.request.drop.push(name.into());
        self
    }

    /// All the headers that it has go.
    pub fn drop_headers(mut self) -> Self {
        self.request.drop_headers = true;
        self
    }

    /// What signs its calls from now on (`whsec_` and base64; `None` for the secret that the server has for all), and how long the
    /// secret before signs as well.
    pub fn secret(mut self, secret: Option<String>, keep_old: Duration) -> Self {
        self.request.secret = Some(PushSecret { secret: secret.unwrap_or_default(), keep_old_ms: millis(keep_old) });
        self
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

impl Admin {
    /// Makes a push subscription with its group.
    pub async fn create_push(&self, push: NewPush) -> Result<PushDescription, ClientError> {
        let start = start_of_group(push.start, self.link.now_ms())?;
        let request = CreatePush { start, ..push.request };
        let again = if request.replace { Again::Yes } else { Again::No };
        if push.headers.is_none() && push.secret.is_none() {
            return Ok(self.link.ask(&request, again).await?.push);
        }
        let request = CreatePushWith { push: request, headers: push.headers, secret: push.secret };
        Ok(self.link.ask(&request, again).await?.push)
    }

    /// Changes a push subscription; where it is and whether it is paused stays.
    pub async fn alter_push(&self, change: PushChange) -> Result<(PushDescription, PushEndpoint), ClientError> {
        let start = start_of_group(change.start, self.link.now_ms())?;
        // What is to be dropped is not there the second time.
        let again = if change.request.drop.is_empty() { Again::Yes } else { Again::No };
        let altered = self.link.ask(&AlterPush { start, ..change.request }, again).await?;
        Ok((altered.push, altered.endpoint))
    }

    /// What the endpoints of push subscriptions get beside records, without the secrets themselves. Names of which there is none are
    /// passed over.
    pub async fn push_endpoints(&self, mut names: Vec<String>) -> Result<Vec<PushEndpoint>, ClientError> {
        let mut endpoints = Vec::new();
        while !names.is_empty() {
            let page = self.link.ask(&DescribeEndpoints { names: names.clone() }, Again::Yes).await?;
            endpoints.extend(page.endpoints);
            // A server that looks at none would never be done.
            names.drain(..(page.seen.max(1) as usize).min(names.len()));
        }
        Ok(endpoints)
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
