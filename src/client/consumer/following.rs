//! Starting subscribers, and finding partitions that were not there when the consumer was built.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::base::{ErrorKind, Isolation};
use crate::client::ClientError;
use crate::client::link::{Link, pause};
use crate::protocol::WatchTopics;

use super::spans::{Found, Span, matching, pattern};
use super::stream::Part;
use super::subscriber::{Event, Share, Subscriber};
use super::{ConsumerBuilder, LEAST_CREDIT, PartitionPosition};

/// Partitions found that the consumer has not taken in yet; more wait to be found.
const WAITING: usize = 64;

/// Starts the subscribers of a consumer, all alike.
#[derive(Debug)]
pub(crate) struct Starter {
    link: Arc<Link>,
    events: mpsc::UnboundedSender<Event>,
    runtime: Handle,
    records: u64,
    bytes: u64,
    skip_damaged: bool,
    isolation: Isolation,
    filter: Option<Arc<str>>,
    retry_timeout: Duration,
}

impl Starter {
    /// For so many partitions to begin with, which share what may be sent ahead.
    pub(crate) fn new(builder: &ConsumerBuilder, parts: usize, events: mpsc::UnboundedSender<Event>) -> Self {
        let count = (parts as u64).max(1);
        let most = builder.max_records.unwrap_or(u64::MAX).saturating_mul(count);
        Self {
            link: builder.link.clone(),
            events,
            runtime: Handle::current(),
            records: builder.prefetch_records.min(most) / count,
            bytes: (builder.prefetch_bytes / count).max(LEAST_CREDIT.min(builder.prefetch_bytes)),
            skip_damaged: builder.skip_damaged,
            isolation: builder.isolation,
            filter: builder.filter.clone(),
            retry_timeout: builder.retry_timeout,
        }
    }

    /// Starts one, unless there is nothing to come.
    pub(crate) fn start(&self, index: usize, span: Span) -> Part {
        let Span { found, start, stable_end, until } = span;
        let Found { topic, topic_id, partition, by_pattern } = found;
        let share = Share::new(topic.clone(), topic_id, partition, self.records, self.bytes);
        let over = until.is_some_and(|until| start >= until);
        let task = (!over).then(|| {
            let subscriber = Subscriber {
                index,
                share: share.clone(),
                link: self.link.clone(),
                events: self.events.clone(),
                position: start,
                skip_damaged: self.skip_damaged,
                isolation: self.isolation,
                filter: self.filter.clone(),
                retry_timeout: self.retry_timeout,
            };
            self.runtime.spawn(subscriber.run()).abort_handle()
        });
        let position = PartitionPosition { topic, partition, start, next_offset: start, stable_end, until };
        Part { share, position, task, found: by_pattern }
    }
}

/// What a consumer that follows holds of its search for more.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) starter: Starter,
    pub(crate) found: mpsc::Receiver<Span>,
    /// There may be more when there is nothing left of what there was: it looks for a pattern.
    pub(crate) wild: bool,
    task: AbortHandle,
}

impl Following {
    /// Begins to look for what is not known yet.
    pub(crate) fn begin(builder: &ConsumerBuilder, starter: Starter, known: &[Found]) -> Self {
        let (sender, found) = mpsc::channel(WAITING);
        let whole = builder.sources.iter().filter(|(_, partition)| partition.is_none());
        let (wild, names): (Vec<_>, Vec<_>) =
            whole.map(|(name, _)| name.clone()).partition(|name| pattern(name).is_some());
        let search = Search {
            link: builder.link.clone(),
            wild: !wild.is_empty(),
            patterns: wild.into_iter().chain(names).collect(),
            known: known.iter().map(|found| (found.topic_id.clone(), found.partition)).collect(),
            named: known
                .iter()
                .filter(|found| !found.by_pattern)
                .map(|found| (found.topic.clone(), found.topic_id.clone()))
                .collect(),
            isolation: builder.isolation,
            sender,
        };
        let wild = search.wild;
        let task = starter.runtime.spawn(search.run()).abort_handle();
        Self { starter, found, wild, task }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Search {
    link: Arc<Link>,
    /// Names too: partitions may be added to their topics.
    patterns: Vec<String>,
    wild: bool,
    known: BTreeSet<(Arc<str>, u32)>,
    /// Topics that were named, and which of that name.
    named: BTreeSet<(Arc<str>, Arc<str>)>,
    isolation: Isolation,
    sender: mpsc::Sender<Span>,
}

impl Search {
    /// Runs until it is aborted, or the server is one that does not tell.
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            match self.session(&mut failures).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => return,
                Err(error) => {
                    failures += 1;
                    tokio::time::sleep(error.retry_after().unwrap_or_default().max(pause(failures))).await;
                }
                Ok(()) => {}
            }
        }
    }

    /// Looks, and looks again whenever the server says that something has changed, until the connection is over.
    async fn session(&mut self, failures: &mut u32) -> Result<(), ClientError> {
        let connection = self.link.connection().await?;
        let mut changes = connection.watch_topics();
        connection.ask(&WatchTopics {}, self.link.config().request_timeout).await?;
        loop {
            // What changes from here on is noticed below.
            changes.borrow_and_update();
            self.look().await?;
            *failures = 0;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                () = connection.ended() => return Ok(()),
            }
        }
    }

    async fn look(&mut self) -> Result<(), ClientError> {
        let all = matching(&self.link, self.patterns.clone()).await?;
        let there: BTreeSet<_> = all.iter().map(|found| (found.topic_id.clone(), found.partition)).collect();
        // A topic that is gone does not come back: another of its name has another id.
        self.known.retain(|known| there.contains(known));
        for mut found in all {
            let place = (found.topic_id.clone(), found.partition);
            if self.known.contains(&place) {
                continue;
            }
            let named = self.named.iter().find(|(name, _)| *name == found.topic);
            match named {
                // A new topic of the name of one that was deleted is not the one that was asked for.
                Some((_, id)) if *id != found.topic_id && !self.meets_a_pattern(&found) => continue,
                Some((_, id)) => found.by_pattern = *id != found.topic_id,
                None => {}
            }
            match Span::whole(&self.link, found, self.isolation).await {
                Ok(span) => {
                    if self.sender.send(span).await.is_err() {
                        return std::future::pending().await;
                    }
                    self.known.insert(place);
                }
                // Gone again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn meets_a_pattern(&self, found: &Found) -> bool {
        let Ok(name) = crate::base::TopicName::new(&found.topic) else { return false };
        self.patterns.iter().filter_map(|name| pattern(name)).any(|pattern| pattern.matches(&name))
    }
}
