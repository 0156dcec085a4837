//! What is measured when somebody asks, rather than counted as it happens: how far groups and routes are behind, what waits,
//! what there is and how large it is, and which partitions are not in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::{Condition, GroupName, PartitionId, TopicName, limits};
use crate::catalog::{GroupEntry, GroupKind};
use crate::log::{KnownDamage, LogHandle};

use super::broker::lock;
use super::lag::Distance;
use super::partition::Topic;
use super::queue::dead_letters;
use super::scrub::{ScrubProgress, damage_of};
use super::{Broker, RouteDescription};

/// Clients that are named as those that have most in a table.
const TOP_CLIENTS: usize = 5;

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
    clients: Family<ClientLabel, Gauge>,
    live_requests: Gauge,
    live_responders: Gauge,
    transactions_open: Gauge,
    oldest_transaction: Gauge<f64, AtomicU64>,
    transactional_ids: Gauge,
    transactional_ids_most: Gauge,
    crowded_out: Counter,
    queued: Gauge,
    queued_most: Gauge,
    broken: Gauge,
    segment_files: Gauge,
    key_forgotten: Gauge<f64, AtomicU64>,
    producer_forgotten: Gauge<f64, AtomicU64>,
    journal_bytes: Gauge,
    free: Gauge,
    conditions: Family<ConditionLabel, Gauge>,
    age: Gauge<f64, AtomicU64>,
    clock_doubted: Gauge,
    clock_ahead: Gauge,
    damage: OfDamage,
}

/// What is known of damage, and how far the scrubber is.
#[derive(Default)]
struct OfDamage {
    places: Family<TopicLabel, Gauge>,
    offsets: Family<TopicLabel, Gauge>,
    journal: Gauge,
    unacknowledged: Gauge,
    round_bytes: Gauge,
    round_done: Gauge,
    scrubbed: Counter,
    rounds: Counter,
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
    all: Gauge,
    unlisted: Gauge,
}

#[derive(Default)]
struct OfTopics {
    records: Family<TopicLabel, Gauge>,
    bytes: Family<TopicLabel, Gauge>,
    held: Family<TopicLabel, Gauge>,
    unlisted: Gauge,
    segments: Gauge,
    keys: Gauge,
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
struct ClientLabel {
    table: &'static str,
    client: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabel {
    condition: &'static str,
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Observed {
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.groups.register(registry);
        self.topics.register(registry);
        self.routes.register(registry);
        self.damage.register(registry);
        let mut register = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        register("requests_open", "Durable requests without an outcome", &self.requests_open);
        register("requests_kept", "Durable requests in the table, also those that ended", &self.requests_kept);
        register("callbacks_waiting", "Callbacks that are not delivered yet", &self.callbacks_waiting);
        register("live_requests", "Requests in memory that wait for their reply", &self.live_requests);
        register("live_responders", "Responders to requests in memory", &self.live_responders);
        register("transactions_open", "Transactions that have begun and not ended", &self.transactions_open);
        register("transactional_ids", "Transactional ids that are known", &self.transactional_ids);
        register("transactional_ids_most", "The most transactional ids that are known", &self.transactional_ids_most);
        register("append_queue", "Batches that wait to be written or synced", &self.queued);
        register("append_queue_longest", "Batches that wait in the partition where most do", &self.queued_most);
        register("partitions_broken", "Partitions that take no writes or are offline", &self.broken);
        register("segment_files_open", "Segment files that are kept open", &self.segment_files);
        register("journal_bytes", "Bytes in the journal's segment files", &self.journal_bytes);
        register("disk_free_bytes", "Bytes free on the data directory's disk, -1 if unknown", &self.free);
        register("clock_doubted", "1 while the wall clock is doubted, 0 while it is believed", &self.clock_doubted);
        register("clock_ahead_seconds", "By how much the wall clock is ahead of the certain time", &self.clock_ahead);
        registry.register("condition", "1 while the server has this trouble", self.conditions.clone());
        registry.register("observed_age_seconds", "Age of the gauges that are looked at", self.age.clone());
        registry.register(
            "transaction_oldest_seconds",
            "How long the oldest open transaction has been open, 0 if none is",
            self.oldest_transaction.clone(),
        );
        registry.register(
            "transactional_ids_crowded_out",
            "Transactional ids forgotten to make room for others",
            self.crowded_out.clone(),
        );
        registry.register(
            "client_entries",
            "What a client has in a table, for the five that have most since the start",
            self.clients.clone(),
        );
        registry.register(
            "idempotency_key_forgotten_seconds",
            "Age of the youngest idempotency key forgotten since the start, -1 if none was",
            self.key_forgotten.clone(),
        );
        registry.register(
            "producer_forgotten_seconds",
            "Shortest idle time of a producer forgotten for a new one since the start, -1 if none was",
            self.producer_forgotten.clone(),
        );
        registry.register("receipts", "Receipts to be POSTed by state", self.receipts.clone());
        registry.register("pushes", "Push subscriptions by state", self.pushes.clone());
    }
}

impl OfDamage {
    fn register(&self, registry: &mut Registry) {
        registry.register("damaged_places", "Damaged places of a topic that has any", self.places.clone());
        registry.register("damaged_records", "Offsets of a topic that cannot be read", self.offsets.clone());
        registry.register("journal_damaged_places", "Damaged places of the journal", self.journal.clone());
        registry.register(
            "damage_unacknowledged",
            "Damaged places that no operator has acknowledged",
            self.unacknowledged.clone(),
        );
        registry.register("scrub_round_bytes", "Bytes that this round of scrubbing reads", self.round_bytes.clone());
        registry.register("scrub_round_done_bytes", "Bytes that this round has read", self.round_done.clone());
        registry.register("scrubbed_bytes", "Bytes read again by the scrubber", self.scrubbed.clone());
        registry.register("scrub_rounds", "Rounds of scrubbing that ended", self.rounds.clone());
    }

    fn set(&self, topics: &[Arc<Topic>], journal: &[KnownDamage], progress: &ScrubProgress) {
        self.places.clear();
        self.offsets.clear();
        let damage = damage_of(topics);
        let mut listed = HashSet::new();
        for damage in &damage {
            if listed.len() == limits::METRIC_TOPICS && !listed.contains(&damage.topic) {
                continue;
            }
            listed.insert(&damage.topic);
            let label = TopicLabel { topic: damage.topic.to_string() };
            self.places.get_or_create(&label).inc();
            self.offsets.get_or_create(&label).inc_by(gauge(damage.known.offsets()));
        }
        let known = damage.iter().map(|damage| &damage.known).chain(journal);
        self.unacknowledged.set(known.filter(|known| !known.acknowledged).count() as i64);
        self.journal.set(journal.len() as i64);
        self.round_bytes.set(gauge(progress.round_bytes.load(Ordering::Relaxed)));
        self.round_done.set(gauge(progress.round_done.load(Ordering::Relaxed)));
        for (counter, value) in [(&self.scrubbed, &progress.bytes), (&self.rounds, &progress.rounds)] {
            counter.inc_by(value.load(Ordering::Relaxed).saturating_sub(counter.get()));
        }
    }
}

impl OfGroups {
    fn register(&self, registry: &mut Registry) {
        registry.register("group_lag", "Records of a partition that a group has not done", self.lag.clone());
        registry.register("group_in_flight", "Records out with members of a queue group", self.in_flight.clone());
        registry.register("group_ready", "Records that a queue group could be handed now", self.ready.clone());
        registry.register("group_waiting", "Records that wait to be delivered again", self.waiting.clone());
        registry.register("group_delayed", "Of those, the ones whose time has not come", self.delayed.clone());
        registry.register("groups", "Groups", self.all.clone());
        registry.register(
            "groups_unlisted",
            "Groups of which nothing else is said here, because there are too many",
            self.unlisted.clone(),
        );
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

    fn set_all(&self, (groups, unlisted): &(Vec<SeenGroup>, usize)) {
        self.clear();
        self.all.set((groups.len() + unlisted) as i64);
        self.unlisted.set(*unlisted as i64);
        for group in groups {
            for at in &group.distances {
                self.set(&group.entry, at);
            }
            let label = GroupLabel { group: group.entry.name.to_string() };
            self.members.get_or_create(&label).set(group.members as i64);
            if let Some(dead) = group.dead_letters {
                self.dead_letters.get_or_create(&label).set(gauge(dead));
            }
        }
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
        registry.register(
            "topic_held_records",
            "Offsets that open transactions keep from readers of what is committed",
            self.held.clone(),
        );
        registry.register(
            "topics_unlisted",
            "Topics without series of their own, because there are too many",
            self.unlisted.clone(),
        );
        registry.register("segments", "Segment files of all topics", self.segments.clone());
        registry.register("idempotency_keys", "Idempotency keys remembered in all partitions", self.keys.clone());
    }

    /// Sets what was seen of each topic.
    fn set(&self, seen: &[SeenTopic]) {
        self.records.clear();
        self.bytes.clear();
        self.held.clear();
        let listed = largest(seen, limits::METRIC_TOPICS);
        self.unlisted.set((seen.len() - listed.len()) as i64);
        for topic in listed {
            let label = TopicLabel { topic: topic.name.to_string() };
            self.records.get_or_create(&label).set(gauge(topic.records));
            self.bytes.get_or_create(&label).set(gauge(topic.bytes));
            self.held.get_or_create(&label).set(gauge(topic.held));
        }
        self.segments.set(seen.iter().map(|topic| topic.segments).sum());
        self.keys.set(seen.iter().map(|topic| topic.keys as i64).sum());
    }
}

/// So many of the topics, the largest by bytes if there are more.
fn largest(seen: &[SeenTopic], most: usize) -> Vec<&SeenTopic> {
    let mut listed: Vec<&SeenTopic> = seen.iter().collect();
    if listed.len() > most {
        listed.sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
        listed.truncate(most);
    }
    listed
}

/// What was seen of a topic.
struct SeenTopic {
    name: TopicName,
    records: u64,
    bytes: u64,
    /// Offsets that open transactions keep from readers.
    held: u64,
    segments: i64,
    keys: usize,
}

impl SeenTopic {
    fn of(topic: &Topic) -> Self {
        let mut seen = Self { name: topic.entry.name.clone(), records: 0, bytes: 0, held: 0, segments: 0, keys: 0 };
        for log in topic.partitions.iter().filter_map(|partition| partition.log().ok()) {
            let (span, stats, held) = log.with(|log| {
                let held = log.stable_end().saturating_sub(log.committed_end());
                (log.written_end() - log.start_offset(), log.stats(), held)
            });
            seen.records += span;
            seen.held += held;
            seen.bytes += stats.bytes;
            seen.segments += i64::from(stats.segments);
            seen.keys += stats.keys;
        }
        seen
    }
}

/// What was seen of a group.
struct SeenGroup {
    entry: GroupEntry,
    distances: Vec<Distance>,
    members: usize,
    dead_letters: Option<u64>,
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

    fn set(&self, routes: Vec<RouteDescription>) {
        for family in [&self.lag, &self.waiting] {
            family.clear();
        }
        for family in [&self.read, &self.written, &self.failed] {
            family.clear();
        }
        let mut states: HashMap<&str, i64> = HashMap::new();
        for route in routes {
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
    /// Sets what is only set when somebody asks. Everything is looked at before anything is set, so that what was set last
    /// stays whole if a lock is held for long. To be called by one at a time.
    pub(super) fn observe(&self) {
        let observed = &self.metrics.observed;
        let topics = self.all_topics();
        let logs = topics.iter().flat_map(|topic| &topic.partitions);
        let depths = logs.map(|partition| partition.log().map_or(0, |log| log.queued() as i64));
        let (sum, most) = depths.fold((0, 0), |(sum, most), depth| (sum + depth, depth.max(most)));
        let seen: Vec<SeenTopic> = topics.iter().map(|topic| SeenTopic::of(topic)).collect();
        let groups = self.look_at_groups(&topics, &seen);
        let routes = self.describe_routes();
        let journal_bytes = lock(&self.catalog).journal_bytes();
        let counts = self.transaction_counts();
        let pushes = self.pushes();
        observed.queued.set(sum);
        observed.queued_most.set(most);
        observed.broken.set(broken(&topics));
        observed.segment_files.set(self.files.len() as i64);
        let age = |age: Option<u64>| age.map_or(-1.0, |millis| millis as f64 / 1e3);
        observed.key_forgotten.set(age(self.files.keys().youngest_forgotten()));
        observed.producer_forgotten.set(age(self.files.youngest_producer_forgotten()));
        observed.journal_bytes.set(gauge(journal_bytes));
        observed.topics.set(&seen);
        observed.damage.set(&topics, &self.journal_damage(), &self.damages.progress);
        observed.groups.set_all(&groups);
        observed.routes.set(routes);
        self.observe_requests();
        self.observe_clients();
        observed.transactions_open.set(counts.open as i64);
        observed.oldest_transaction.set(counts.oldest_ms as f64 / 1e3);
        observed.transactional_ids.set(counts.ids as i64);
        observed.transactional_ids_most.set(counts.most_ids as i64);
        observed.crowded_out.inc_by(counts.crowded_out.saturating_sub(observed.crowded_out.get()));
        let paused = pushes.iter().filter(|push| push.paused.is_some()).count();
        for (state, count) in [("paused", paused), ("running", pushes.len() - paused)] {
            observed.pushes.get_or_create(&StateLabel { state }).set(count as i64);
        }
    }

    /// Sets what needs no lock that is held for long.
    pub(super) fn observe_health(&self) {
        let observed = &self.metrics.observed;
        observed.free.set(self.disk_free_bytes().map_or(-1, gauge));
        observed.age.set(self.asked.age());
        let clock = self.clock.describe();
        observed.clock_doubted.set(clock.doubt.is_some().into());
        observed.clock_ahead.set(clock.wall_ms.saturating_sub(clock.certain_ms) / 1000);
        let troubles = self.health.troubles();
        for condition in Condition::ALL {
            let holds = troubles.iter().any(|trouble| trouble.condition == condition);
            let label = ConditionLabel { condition: condition.name() };
            observed.conditions.get_or_create(&label).set(i64::from(holds));
        }
    }

    /// The groups that are listed, and how many others there are.
    fn look_at_groups(&self, topics: &[Arc<Topic>], seen: &[SeenTopic]) -> (Vec<SeenGroup>, usize) {
        let records: HashMap<&TopicName, u64> = seen.iter().map(|topic| (&topic.name, topic.records)).collect();
        let look = |entry: GroupEntry, distances: Vec<Distance>| {
            let (members, dead_letters) = match &entry.kind {
                GroupKind::Stream => (self.stream_member_count(&entry.name), None),
                GroupKind::Queue(rules) => {
                    let dead = dead_letters(&entry.name, rules).ok();
                    let dead = dead.and_then(|topic| records.get(&topic).copied()).unwrap_or(0);
                    (self.queues.member_count(&entry.name), Some(dead))
                }
            };
            SeenGroup { distances, entry, members, dead_letters }
        };
        let all = self.group_names();
        let (count, few) = (all.len(), all.len() <= limits::METRIC_GROUPS);
        let in_use: HashSet<GroupName> = self.groups.held().into_iter().chain(self.queues.with_members()).collect();
        let (first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| in_use.contains(name));
        let (mut listed, mut partitions) = (Vec::new(), 0);
        for name in first.into_iter().chain(others).take(limits::METRIC_GROUPS_LOOKED_AT) {
            let Some(entry) = lock(&self.catalog).group(&name).cloned() else { continue };
            if listed.len() >= limits::METRIC_GROUPS || partitions >= limits::METRIC_GROUP_PARTITIONS {
                break;
            }
            let distances = self.distances(&entry, topics);
            if few || in_use.contains(&entry.name) || distances.iter().any(|at| at.lag > 0) {
                partitions += distances.len();
                listed.push(look(entry, distances));
            }
        }
        let unlisted = count - listed.len();
        (listed, unlisted)
    }

    /// Sets who has most of what clients share.
    fn observe_clients(&self) {
        let most = lock(&self.requests.machine).top_clients(TOP_CLIENTS);
        let tables = [
            ("groups", self.groups.table.top_clients(TOP_CLIENTS)),
            ("classic_member_bytes", self.classics.top_clients(TOP_CLIENTS)),
            ("requests", most),
            ("receipts", self.receipts.top_clients(TOP_CLIENTS)),
        ];
        let clients = &self.metrics.observed.clients;
        clients.clear();
        for (table, top) in tables {
            for (client, count) in top {
                clients.get_or_create(&ClientLabel { table, client: client.to_string() }).set(count as i64);
            }
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
}

/// How many partitions take no writes.
fn broken(topics: &[Arc<Topic>]) -> i64 {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let is_broken = |log: &LogHandle| log.with(|log| log.poisoned().is_some());
    partitions.filter(|partition| partition.log().map_or(true, is_broken)).count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_topics_the_largest_have_series_of_their_own() {
        let of = |name: &str, bytes| SeenTopic {
            name: TopicName::new(name).unwrap(),
            records: 0,
            bytes,
            held: 0,
            segments: 1,
            keys: 0,
        };
        let seen = [of("a", 1), of("b", 3), of("c", 2), of("d", 3)];
        let names = |most| largest(&seen, most).iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(4), ["a", "b", "c", "d"]);
        assert_eq!(names(3), ["b", "d", "c"]);
        let topics = OfTopics::default();
        topics.set(&seen);
        assert_eq!((topics.unlisted.get(), topics.segments.get()), (0, 4));
        // One that is gone has no series any more.
        topics.set(&seen[..1]);
        let label = |topic: &str| TopicLabel { topic: topic.to_owned() };
        assert!(topics.bytes.get(&label("a")).is_some() && topics.bytes.get(&label("b")).is_none());
    }
}
