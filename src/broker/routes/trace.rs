//! Where a record went, and why.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{ErrorKind, Offset, PartitionId, TopicName};
use crate::expr::Input;
use crate::record::{Record, partition_for_key};
use crate::route::{self, Explanation, Output};

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError, FetchRequest, OffsetAt};
use super::active::{ActiveRoute, Reading};

/// How often it is looked whether a record was routed.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of a destination that are read to find a record in it.
const LOOKED_THROUGH: usize = 4 * 1024 * 1024;
/// Outputs whose places are looked up.
const OUTPUTS: usize = 100;

/// What a route made of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The route.
    pub route: TopicName,
    /// The destination's name of each output.
    pub rules: Vec<String>,
    /// What was asked, and what was made.
    pub explanation: Explanation,
    /// Where each of the first outputs is: partition, and offset if it was found.
    pub places: Vec<(PartitionId, Option<Offset>)>,
    /// It was routed.
    pub done: bool,
    /// It waits for other parts of its whole, or was put together with them.
    pub aggregated: bool,
}

impl Broker {
    /// Where the routes sent a record, and why; waits for them a while.
    ///
    /// # Errors
    /// There is no such record; damage, the disk's.
    pub async fn trace_record(
        self: &Arc<Self>,
        topic: &TopicName,
        partition: PartitionId,
        offset: Offset,
        wait: Duration,
    ) -> Result<Vec<Trace>, BrokerError> {
        let record = self.record_at(topic, partition, offset).await?.ok_or_else(|| {
            let message = format!("there is no record at offset {offset} of topic '{topic}' partition {partition}");
            BrokerError::new(ErrorKind::NotFound, message)
        })?;
        let deadline = Instant::now() + wait.min(Duration::from_secs(60));
        let id = self.topic(topic.as_str())?.entry.id;
        let mut traces = Vec::new();
        for active in self.routes.all() {
            let reading = lock(&active.readings).get(&(id, partition)).cloned();
            if let Some(reading) = reading {
                traces.push(self.trace(&active, &reading, &record, deadline).await?);
            }
        }
        Ok(traces)
    }

    async fn trace(
        self: &Arc<Self>,
        active: &Arc<ActiveRoute>,
        reading: &Arc<Reading>,
        record: &Record,
        deadline: Instant,
    ) -> Result<Trace, BrokerError> {
        let is_done = || lock(&reading.inside).progress.offset > record.offset;
        while !is_done() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        let route = active.route();
        let (topic, number) = (reading.topic.clone(), reading.place.partition);
        let aggregated = route.spec().aggregate.is_some();
        let explanation = if aggregated {
            Explanation { parts: Vec::new(), routed: route::Routed::default() }
        } else {
            let (route, record, topic) = (Arc::clone(&route), record.clone(), topic.clone());
            blocking(move || {
                let input = Input { topic: topic.as_str(), partition: number, offset: record.offset, record: &record };
                route.explain(&input)
            })
            .await
        };
        let done = is_done();
        let source = format!("{topic}/{number}/{}", record.offset);
        let mut places = Vec::new();
        for output in explanation.routed.outputs.iter().take(OUTPUTS) {
            places.push(self.find(output, &source, number, done).await);
        }
        let rules = explanation.routed.outputs.iter().map(|output| route.name_of(output.rule).to_owned()).collect();
        Ok(Trace { route: active.name(), rules, explanation, places, done, aggregated })
    }

    /// Where an output is. It has its source's timestamp, so it is looked for from there on.
    async fn find(
        self: &Arc<Self>,
        output: &Output,
        source: &str,
        from: PartitionId,
        done: bool,
    ) -> (PartitionId, Option<Offset>) {
        let Ok(topic) = self.topic(output.topic.as_str()) else { return (0, None) };
        let partitions = topic.entry.partitions;
        let number = output.key.as_ref().map_or(from % partitions, |key| partition_for_key(key, partitions));
        if !done {
            return (number, None);
        }
        let name = output.topic.as_str();
        let wanted = output.headers.get(route::OUTPUT);
        let route = output.headers.get(route::ROUTE);
        let Ok((start, _)) = self.list_offset(name, number, OffsetAt::Timestamp(output.timestamp)).await else {
            return (number, None);
        };
        let request = FetchRequest {
            topic: name,
            partition: number,
            offset: start,
            max_bytes: LOOKED_THROUGH,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            skip_damaged: false,
        };
        let Ok(fetched) = self.fetch(request).await else { return (number, None) };
        let is_it = |record: &Record| {
            record.headers.get(route::SOURCE) == Some(source.as_bytes())
                && record.headers.get(route::OUTPUT) == wanted
                && record.headers.get(route::ROUTE) == route
        };
        let offset = |record: &Record| is_it(record).then_some(record.offset);
        let found = self.find_opened((name, number), fetched.bytes, start, offset).await;
        (number, found.ok().flatten())
    }

    async fn record_at(
        &self,
        topic: &TopicName,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<Record>, BrokerError> {
        let request = FetchRequest {
            topic: topic.as_str(),
            partition,
            offset,
            max_bytes: 1,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            skip_damaged: false,
        };
        let fetched = self.fetch(request).await?;
        match self.open_first((topic.as_str(), partition), fetched.bytes, offset).await? {
            Some(Err(unreadable)) => Err(self.unreadable(topic.as_str(), partition, &unreadable).await),
            Some(Ok(record)) => Ok((record.offset == offset).then_some(record)),
            None => Ok(None),
        }
    }
}
