//! From names and patterns to partitions, and from ways to begin and end to offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};

use crate::base::{ErrorKind, Isolation, Offset, PartitionId, TopicPattern};
use crate::client::ClientError;
use crate::client::link::{Again, Link};
use crate::protocol::{ListOffsets, MatchTopics, Metadata, OffsetAt};

use super::{ConsumerBuilder, StartAt};

/// Questions about offsets under way at a time while a consumer is built.
const ASKING: usize = 32;

/// A partition that is to be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Arc<str>,
    pub(crate) partition: PartitionId,
    /// By a pattern.
    pub(crate) by_pattern: bool,
}

/// A partition with its ends resolved.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) found: Found,
    pub(crate) start: Offset,
    pub(crate) stable_end: Offset,
    pub(crate) until: Option<Offset>,
}

impl Span {
    /// From the beginning, without end.
    pub(crate) async fn whole(link: &Arc<Link>, found: Found, isolation: Isolation) -> Result<Self, ClientError> {
        let start = offset(link, &found, OffsetAt::Beginning, isolation).await?;
        let stable_end = offset(link, &found, OffsetAt::End, isolation).await?;
        Ok(Self { found, start, stable_end, until: None })
    }
}

/// The pattern that a name is, if it has wildcards.
pub(crate) fn pattern(name: &str) -> Option<TopicPattern> {
    TopicPattern::new(name).ok().filter(|pattern| pattern.exact().is_none())
}

/// The partitions of the topics that meet one of these patterns.
pub(crate) async fn matching(link: &Arc<Link>, patterns: Vec<String>) -> Result<Vec<Found>, ClientError> {
    let topics = link.ask(&MatchTopics { patterns }, Again::Yes).await?.topics;
    let partitions = topics.into_iter().flat_map(|topic| {
        let (name, id): (Arc<str>, Arc<str>) = (topic.name.into(), topic.id.into());
        (0..topic.partitions).map(move |partition| Found {
            topic: name.clone(),
            topic_id: id.clone(),
            partition,
            by_pattern: true,
        })
    });
    Ok(partitions.collect())
}

async fn offset(link: &Arc<Link>, found: &Found, at: OffsetAt, isolation: Isolation) -> Result<Offset, ClientError> {
    let (topic, partition) = (found.topic.as_ref().to_owned(), found.partition);
    let request = ListOffsets { topic, partition, at, isolation };
    link.ask(&request, Again::Yes).await.map(|found| found.offset)
}

impl ConsumerBuilder {
    /// Every partition once.
    pub(super) async fn find(&self) -> Result<Vec<Found>, ClientError> {
        if self.sources.is_empty() {
            return Err(ClientError::new(ErrorKind::InvalidRequest, "a consumer needs a topic"));
        }
        let mut all: Vec<Found> = Vec::new();
        let mut patterns = Vec::new();
        for (name, partition) in &self.sources {
            if pattern(name).is_some() {
                if let Some(partition) = partition {
                    let message = format!("'{name}' stands for many topics; partition {partition} is one of one topic");
                    return Err(ClientError::new(ErrorKind::InvalidRequest, message));
                }
                patterns.push(name.clone());
                continue;
            }
            let request = Metadata { topic: name.clone(), create: false };
            let metadata = self.link.ask(&request, Again::Yes).await?;
            let (count, id): (u32, Arc<str>) = (metadata.partitions, metadata.id.into());
            let name: Arc<str> = name.as_str().into();
            let found = |partition| Found { topic: name.clone(), topic_id: id.clone(), partition, by_pattern: false };
            match partition {
                None => all.extend((0..count).map(found)),
                Some(partition) if *partition < count => all.push(found(*partition)),
                Some(partition) => {
                    let message = format!("topic {name} has {count} partitions and no {partition}");
                    return Err(ClientError::new(ErrorKind::NotFound, message));
                }
            }
        }
        if !patterns.is_empty() {
            all.extend(matching(&self.link, patterns).await?);
        }
        // What was named comes before what a pattern found: its deletion is news to whoever named it.
        all.sort();
        let mut seen = BTreeSet::new();
        all.retain(|found| seen.insert((found.topic.clone(), found.partition)));
        Ok(all)
    }

    /// Where each begins and ends. What a pattern found may be gone by now.
    pub(super) async fn spans(&self, found: &[Found]) -> Result<Vec<Span>, ClientError> {
        let asked = found.iter().cloned().map(|found| async move {
            let by_pattern = found.by_pattern;
            match self.span(found).await {
                Err(error) if by_pattern && error.kind() == ErrorKind::NotFound => Ok(None),
                span => span.map(Some),
            }
        });
        let spans: Vec<Option<Span>> = futures_util::stream::iter(asked).buffered(ASKING).try_collect().await?;
        Ok(spans.into_iter().flatten().collect())
    }

    async fn span(&self, found: Found) -> Result<Span, ClientError> {
        let offset = async |at| offset(&self.link, &found, at, self.isolation).await;
        let begin = offset(OffsetAt::Beginning).await?;
        let end = offset(OffsetAt::End).await?;
        let start = match self.from {
            StartAt::Beginning => begin,
            StartAt::End => end,
            StartAt::Offset(offset) if offset < begin || offset > end => {
                let (topic, partition) = (&found.topic, found.partition);
                let message = match end.checked_sub(1).filter(|last| *last >= begin) {
                    Some(last) => format!(
                        "offset {offset} of {topic}/{partition} is out of range: it has offsets {begin} to {last}, and the next is \
                             {end}"
                    ),
                    None => format!(
                        "offset {offset} of {topic}/{partition} is out of range: it is empty, and the next is {end}"
                    ),
                };
                return Err(ClientError::new(ErrorKind::OffsetOutOfRange, message).with_range((begin, end)));
            }
            StartAt::Offset(offset) => offset,
            StartAt::Last(count) => end.saturating_sub(count).max(begin),
            StartAt::Time(time) => offset(OffsetAt::Timestamp(time)).await?,
            StartAt::Ago(span) => {
                let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                offset(OffsetAt::Timestamp(self.link.now_ms().saturating_sub(span))).await?
            }
        };
        let mut until = self.until_offset;
        if let Some(time) = self.until_time {
            let found = offset(OffsetAt::Timestamp(time)).await?;
            until = Some(until.map_or(found, |until| until.min(found)));
        }
        if self.until_end {
            until = Some(until.map_or(end, |until| until.min(end)));
        }
        Ok(Span { found, start, stable_end: end, until })
    }
}
