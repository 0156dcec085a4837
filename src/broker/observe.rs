//! What is measured when somebody asks, rather than counted as it happens: how far groups and routes are behind, what waits,
//! what there is and how large it is, and which partitions are not in order.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::{PartitionId, TopicName};
use crate::catalog::{GroupEntry, GroupKind};

use super::Broker;
use super::broker::{blocking, lock};
use super::lag::Distance;
use super::partition::Topic;
use super::queue::dead_letters;

/// Gauges, and counts that are kept elsewhere; set when they are asked for.
#[derive(Default)]
pub(crate) struct Observed {
    groups: OfGroups,
    topics: OfTopics,
    routes: OfRoutes,
    pushes: Family<StateLabel, Gauge>,
    requests_open: Gauge,
    requests_kept: Gauge,
    callbacks_waiting: Gauge,
    receipts: Family<StateLabel, Gauge>,
    live_requests: Gauge,
    live_responders: Gauge,
    transactions_open: Gauge,
    transactional_ids: Gauge,
    queued: Gauge,
    queued_most: Gauge,
    broken: Gauge,
    segment_files: Gauge,
    journal_bytes: Gauge,
    free: Gauge,
}

#[derive(Default)]
struct OfGroups {
    lag: Family<GroupLabels, Gauge>,
    in_flight: Family<GroupLabels, Gauge>,
    ready: Family<GroupLabels, Gauge>,
    waiting: Family<GroupLabels, Gauge>,
    delayed: Family<GroupLabels, Gauge>,
    members: Family<GroupLabel, Gauge>,
    dead_letters: Family<GroupLabel, Gauge>,
}

#[derive(Default)]
struct OfTopics {
    records: Family<TopicLabel, Gauge>,
    bytes: Family<TopicLabel, Gauge>,
    segments: Gauge,
}

#[derive(Default)]
struct OfRoutes {
    states: Family<StateLabel, Gauge>,
    lag: Family<RouteLabel, Gauge>,
    waiting: Family<RouteLabel, Gauge>,
    read: Family<RouteLabel, Counter>,
    written: Family<RouteLabel, Counter>,
    failed: Family<RouteLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
    topic: String,
    partition: PartitionId,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Observed {
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.groups.register(registry);
        self.topics.register(registry);
        self.routes.register(registry);
        let mut register = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        register("requests_open", "Durable requests without an outcome", &self.requests_open);
        register("requests_kept", "Durable requests in the table, also those that ended", &self.requests_kept);
        register("callbacks_waiting", "Callbacks that are not delivered yet", &self.callbacks_waiting);
        register("live_requests", "Requests in memory that wait for their reply", &self.live_requests);
        register("live_responders", "Responders to requests in memory", &self.live_responders);
        register("transactions_open", "Transactions that have begun and not ended", &self.transactions_open);
        register("transactional_ids", "Transactional ids that are known", &self.transactional_ids);
        register("append_queue", "Batches that wait to be written or synced", &self.queued);
        register("append_queue_longest", "Batches that wait in the partition where most do", &self.queued_most);
        register("partitions_broken", "Partitions that take no writes or are offline", &self.broken);
        register("segment_files_open", "Segment files that are kept open", &self.segment_files);
        register("journal_bytes", "Bytes in the journal's segment files", &self.journal_bytes);
        register("disk_free_bytes", "Bytes free on the data directory's disk, -1 if unknown", &self.free);
        registry.register("receipts", "Receipts to be POSTed by state", self.receipts.clone());
        registry.register("pushes", "Push subscriptions by state", self.pushes.clone());
    }
}

impl OfGroups {
    fn register(&self, registry: &mut Registry) {
        registry.register("group_lag", "Records of a partition that a group has not done", self.lag.clone());
        registry.register("group_in_flight", "Records out with members of a queue group", self.in_flight.clone());
        registry.register("group_ready", "Records that a queue group could be handed now", self.ready.clone());
        registry.register("group_waiting", "Records that wait to be delivered again", self.waiting.clone());
        registry.register("group_delayed", "Of those, the ones whose time has not come", self.delayed.clone());
        registry.register("group_members", "Members of a group", self.members.clone());
        registry.register(
            "group_dead_letters",
            "Records in the dead-letter topic of a queue group",
            self.dead_letters.clone(),
        );
    }

    fn clear(&self) {
        for family in [&self.lag, &self.in_flight, &self.ready, &self.waiting, &self.delayed] {
            family.clear();
        }
        self.members.clear();
        self.dead_letters.clear();
    }

    fn set(&self, entry: &GroupEntry, at: &Distance) {
        let labels =
            GroupLabels { group: entry.name.to_string(), topic: at.topic.to_string(), partition: at.partition };
        self.lag.get_or_create(&labels).set(gauge(at.lag));
        if matches!(entry.kind, GroupKind::Queue(_)) {
            self.in_flight.get_or_create(&labels).set(gauge(at.in_flight));
            self.ready.get_or_create(&labels).set(gauge(at.lag.saturating_sub(at.in_flight + at.delayed)));
            self.waiting.get_or_create(&labels).set(gauge(at.waiting));
            self.delayed.get_or_create(&labels).set(gauge(at.delayed));
        }
    }
}

impl OfTopics {
    fn register(&self, registry: &mut Registry) {
        registry.register("topic_records", "Offsets between log start and log end", self.records.clone());
        registry.register("topic_bytes", "Bytes in a topic's segment files", self.bytes.clone());
        registry.register("segments", "Segment files of all topics", self.segments.clone());
    }

    /// Sets what is known of each topic; how many records it has, by its name.
    fn set(&self, topics: &[Arc<Topic>]) -> HashMap<TopicName, u64> {
        self.records.clear();
        self.bytes.clear();
        let mut segments = 0;
        let mut found = HashMap::with_capacity(topics.len());
        for topic in topics {
            let (mut records, mut bytes) = (0, 0);
            for log in topic.partitions.iter().filter_map(|partition| partition.log().ok()) {
                let (span, stats) = log.with(|log| (log.written_end() - log.start_offset(), log.stats()));
                records += span;
                bytes += stats.bytes;
                segments += i64::from(stats.segments);
            }
            let label = TopicLabel { topic: topic.entry.name.to_string() };
            self.records.get_or_create(&label).set(gauge(records));
            self.bytes.get_or_create(&label).set(gauge(bytes));
            found.insert(topic.entry.name.clone(), records);
        }
        self.segments.set(segments);
        found
    }
}

impl OfRoutes {
    fn register(&self, registry: &mut Registry) {
        registry.register("routes", "Routes by state", self.states.clone());
        registry.register("route_lag", "Records that a route has not routed", self.lag.clone());
        registry.register("route_waiting", "Parts that wait in a route's aggregate", self.waiting.clone());
        registry.register("route_read", "Records that a route has read", self.read.clone());
        registry.register("route_written", "Records that a route has written", self.written.clone());
        registry.register("route_failed", "Records that a route could not evaluate", self.failed.clone());
    }

    fn set(&self, broker: &Broker) {
        for family in [&self.lag, &self.waiting] {
            family.clear();
        }
        for family in [&self.read, &self.written, &self.failed] {
            family.clear();
        }
        let mut states: HashMap<&str, i64> = HashMap::new();
        for route in broker.describe_routes() {
            let label = RouteLabel { route: route.summary.name.to_string() };
            *states.entry(route.summary.state).or_default() += 1;
            self.lag.get_or_create(&label).set(gauge(route.summary.lag));
            let waiting = route.partitions.iter().map(|partition| partition.waiting).sum();
            self.waiting.get_or_create(&label).set(gauge(waiting));
            self.read.get_or_create(&label).inc_by(route.read);
            self.written.get_or_create(&label).inc_by(route.destinations.iter().map(|(_, _, count)| count).sum());
            self.failed.get_or_create(&label).inc_by(route.summary.failed);
        }
        for state in ["running", "paused", "stuck"] {
            self.states.get_or_create(&StateLabel { state }).set(states.get(state).copied().unwrap_or(0));
        }
    }
}

impl Broker {
    /// Sets what is only set when somebody asks. Blocks for as long as a few locks take, and one question to the file system;
    /// to be called by one at a time, and until what was set has been written down.
    pub(super) fn observe(&self) {
        let observed = &self.metrics.observed;
        let topics = self.all_topics();
        let logs = topics.iter().flat_map(|topic| &topic.partitions);
        let depths = logs.map(|partition| partition.log().map_or(0, |log| log.queued() as i64));
        let (sum, most) = depths.fold((0, 0), |(sum, most), depth| (sum + depth, depth.max(most)));
        observed.queued.set(sum);
        observed.queued_most.set(most);
        observed.broken.set(broken(&topics).len() as i64);
        observed.segment_files.set(self.files.len() as i64);
        observed.journal_bytes.set(gauge(lock(&self.catalog).journal_bytes()));
        observed.free.set(self.disk_free_bytes().map_or(-1, gauge));
        let records = observed.topics.set(&topics);
        self.observe_groups(&topics, &records);
        observed.routes.set(self);
        self.observe_requests();
        let (open, ids) = self.transaction_counts();
        observed.transactions_open.set(open as i64);
        observed.transactional_ids.set(ids as i64);
        let pushes = self.pushes();
        let paused = pushes.iter().filter(|push| push.paused.is_some()).count();
        for (state, count) in [("paused", paused), ("running", pushes.len() - paused)] {
            observed.pushes.get_or_create(&StateLabel { state }).set(count as i64);
        }
    }

    fn observe_groups(&self, topics: &[Arc<Topic>], records: &HashMap<TopicName, u64>) {
        let groups = &self.metrics.observed.groups;
        groups.clear();
        for entry in self.list_groups() {
            for at in self.distances(&entry, topics) {
                groups.set(&entry, &at);
            }
            let label = GroupLabel { group: entry.name.to_string() };
            let members = match &entry.kind {
                GroupKind::Stream => self.stream_member_count(&entry.name),
                GroupKind::Queue(rules) => {
                    let dead = dead_letters(&entry.name, rules).ok().and_then(|topic| records.get(&topic));
                    groups.dead_letters.get_or_create(&label).set(gauge(dead.copied().unwrap_or(0)));
                    self.queues.member_count(&entry.name)
                }
            };
            groups.members.get_or_create(&label).set(members as i64);
        }
    }

    fn observe_requests(&self) {
        let observed = &self.metrics.observed;
        let (open, kept, callbacks) = {
            let machine = lock(&self.requests.machine);
            (machine.open_count(), machine.len(), machine.callbacks_waiting())
        };
        observed.requests_open.set(open as i64);
        observed.requests_kept.set(kept as i64);
        observed.callbacks_waiting.set(callbacks as i64);
        let receipts = self.receipt_counts();
        let states = [("waiting", receipts.waiting), ("sending", receipts.sending), ("given_up", receipts.given_up)];
        for (state, count) in states {
            observed.receipts.get_or_create(&StateLabel { state }).set(count as i64);
        }
        let (requests, responders) = self.live_counts();
        observed.live_requests.set(requests as i64);
        observed.live_responders.set(responders as i64);
    }

    /// Partitions that take no writes: their topic, number and state.
    pub async fn broken_partitions(self: &Arc<Self>) -> Vec<(TopicName, PartitionId, String)> {
        let broker = Arc::clone(self);
        blocking(move || broken(&broker.all_topics())).await
    }
}

fn broken(topics: &[Arc<Topic>]) -> Vec<(TopicName, PartitionId, String)> {
    let mut broken = Vec::new();
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        let state = match partition.log() {
            Ok(log) => log.with(|log| log.poisoned().map(|why| format!("takes no writes: {why}"))),
            Err(error) => Some(error.to_string()),
        };
        if let Some(state) = state {
            broken.push((partition.topic.clone(), partition.number, state));
        }
    }
    broken
}
