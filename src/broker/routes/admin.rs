//! What people do with routes: apply, list, describe, pause, resume, reset, delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{ErrorKind, Offset, PartitionId, TopicId, TopicName, limits};
use crate::catalog::{Event, RouteCounts, RouteEntry, RoutePlace, RouteProgress};
use crate::route::{self, Mistake, Route, RouteSpec, Start};

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError, OffsetAt};
use super::settle::Still;
use super::{ActiveRoute, Trouble};

/// How a file of routes is applied.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// The file.
    pub text: String,
    /// Only say what would change.
    pub dry_run: bool,
    /// Routes that are not in the file are deleted.
    pub prune: bool,
}

/// What applying a file comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was applied, or would be: what changes.
    Changes(Vec<Change>),
    /// Nothing was: the file has mistakes.
    Mistakes(Vec<Mistake>),
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    New,
    /// It is declared otherwise from now on.
    Changed,
    /// It is as it was.
    Unchanged,
    /// It goes.
    Removed,
}

/// What changes of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: TopicName,
    /// What becomes of it.
    pub kind: ChangeKind,
    /// Its version then.
    pub version: u32,
    /// What was declared.
    pub before: Option<String>,
    /// What is declared now.
    pub after: Option<String>,
    /// From where on it holds, of topics that are there.
    pub from: Vec<StartPoint>,
}

/// A place in a log from where on something holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPoint {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
}

/// A place in a log from where on a route goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetPoint {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Where the route was.
    pub before: Offset,
    /// Where it goes on.
    pub offset: Offset,
}

/// A route in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSummary {
    /// Its name.
    pub name: TopicName,
    /// Its version.
    pub version: u32,
    /// `running`, `paused`, or `stuck`.
    pub state: &'static str,
    /// What it reads.
    pub from: Vec<String>,
    /// Records that it has not routed.
    pub lag: u64,
    /// Records that are dead letters.
    pub failed: u64,
}

/// A route in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDescription {
    /// What is in a list of it.
    pub summary: RouteSummary,
    /// Its declaration.
    pub definition: String,
    /// When it was first applied.
    pub created_ms: i64,
    /// When it was last changed.
    pub changed_ms: i64,
    /// Records read.
    pub read: u64,
    /// Parts, or whole records, that no condition wanted.
    pub unwanted: u64,
    /// Destinations, `otherwise` and the tap among them: name, topic, records since the version was applied.
    pub destinations: Vec<(String, String, u64)>,
    /// Where its dead letters go.
    pub dead_letter: TopicName,
    /// Topics that it has made because a destination was computed.
    pub made: Vec<TopicName>,
    /// What it reads, partition by partition.
    pub partitions: Vec<RoutePartition>,
}

/// A partition that a route reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The next record that is not routed.
    pub offset: Offset,
    /// Where the partition ends.
    pub end: Offset,
    /// Parts that wait for others.
    pub waiting: u64,
    /// It stands still because of its last trouble.
    pub stuck: bool,
    /// What went wrong last.
    pub trouble: Option<Trouble>,
}

/// A route as it is to be.
struct Planned {
    change: Change,
    spec: Option<RouteSpec>,
    entry: Option<RouteEntry>,
    /// Progress in places that are new to it, or are its own no longer.
    moves: Vec<(RoutePlace, Option<RouteProgress>)>,
}

impl Broker {
    /// Applies a file of routes as a whole: all of it or nothing. What is as it was stays untouched.
    ///
    /// # Errors
    /// The routes would make a loop or are too many; one that changes cannot end what it has begun; the journal's.
    pub async fn apply_routes(self: &Arc<Self>, options: ApplyOptions) -> Result<Applied, BrokerError> {
        let specs = match route::read(&options.text) {
            Ok(specs) => specs,
            Err(mistakes) => return Ok(Applied::Mistakes(mistakes)),
        };
        let _changing = self.routes.changing.lock().await;
        let held = self.held_specs();
        check_together(&specs, &held, options.prune)?;
        let mut planned = Vec::new();
        for spec in &specs {
            planned.push(self.plan(spec, held.get(&spec.name)).await?);
        }
        if options.prune {
            for name in held.keys().filter(|name| !specs.iter().any(|spec| spec.name == **name)) {
                planned.push(self.plan_removal(name)?);
            }
        }
        if !options.dry_run {
            self.carry_out(&mut planned).await?;
        }
        Ok(Applied::Changes(planned.into_iter().map(|planned| planned.change).collect()))
    }

    fn held_specs(&self) -> BTreeMap<TopicName, RouteSpec> {
        self.routes.all().iter().map(|active| (active.name(), active.route().spec().clone())).collect()
    }

    async fn plan(&self, spec: &RouteSpec, held: Option<&RouteSpec>) -> Result<Planned, BrokerError> {
        let now = self.clock.now_ms();
        let active = lock(&self.routes.active).get(&spec.name).cloned();
        let entry = active.as_ref().map(|active| lock(&active.entry).clone());
        let kind = match held {
            None => ChangeKind::New,
            Some(held) if held == spec => ChangeKind::Unchanged,
            Some(_) => ChangeKind::Changed,
        };
        let version = entry.as_ref().map_or(0, |entry| entry.version) + u32::from(kind != ChangeKind::Unchanged);
        let mut change = Change {
            name: spec.name.clone(),
            kind,
            version,
            before: held.map(RouteSpec::to_toml),
            after: Some(spec.to_toml()),
            from: Vec::new(),
        };
        let mut moves = Vec::new();
        let known: BTreeMap<(TopicId, PartitionId), Offset> = active
            .iter()
            .flat_map(|active| active.readings())
            .map(|reading| ((reading.place.topic, reading.place.partition), lock(&reading.inside).progress.offset))
            .collect();
        for topic in self.topics_read_by(spec) {
            for partition in 0..topic.entry.partitions {
                let at = (topic.entry.id, partition);
                let offset = match (known.get(&at), spec.start) {
                    (Some(offset), _) => *offset,
                    (None, start) => {
                        let start = if start == Start::End { OffsetAt::End } else { OffsetAt::Beginning };
                        let (offset, _) = self.list_offset(topic.entry.name.as_str(), partition, start).await?;
                        let place = RoutePlace { route: spec.name.clone(), topic: at.0, partition };
                        moves.push((place, Some(RouteProgress { offset, ..RouteProgress::default() })));
                        offset
                    }
                };
                change.from.push(StartPoint { topic: topic.entry.name.clone(), partition, offset });
            }
        }
        for reading in active.iter().flat_map(|active| active.readings()) {
            if !spec.reads(&reading.topic) {
                moves.push((reading.place.clone(), None));
            }
        }
        let entry = RouteEntry {
            name: spec.name.clone(),
            definition: spec.to_toml(),
            version,
            paused: entry.as_ref().is_some_and(|entry| entry.paused),
            made: entry.as_ref().map_or_else(Vec::new, |entry| entry.made.clone()),
            created_ms: entry.as_ref().map_or(now, |entry| entry.created_ms),
            changed_ms: now,
        };
        Ok(Planned { change, spec: Some(spec.clone()), entry: Some(entry), moves })
    }

    fn plan_removal(&self, name: &TopicName) -> Result<Planned, BrokerError> {
        let active = self.routes.get(name)?;
        let version = lock(&active.entry).version;
        let before = Some(active.route().spec().to_toml());
        let change =
            Change { name: name.clone(), kind: ChangeKind::Removed, version, before, after: None, from: Vec::new() };
        Ok(Planned { change, spec: None, entry: None, moves: Vec::new() })
    }

    /// Stops what changes, makes the change durable as a whole, and runs what is to run.
    async fn carry_out(self: &Arc<Self>, planned: &mut [Planned]) -> Result<(), BrokerError> {
        let changed: Vec<&mut Planned> =
            planned.iter_mut().filter(|planned| planned.change.kind != ChangeKind::Unchanged).collect();
        // Whatever comes of it, what is applied runs when these are dropped.
        let mut still = Vec::new();
        self.stop_and_commit(changed, &mut still).await?;
        drop(still);
        for active in self.routes.all() {
            self.run_route(&active);
        }
        Ok(())
    }

    async fn stop_and_commit(
        self: &Arc<Self>,
        changed: Vec<&mut Planned>,
        still: &mut Vec<Still>,
    ) -> Result<(), BrokerError> {
        let mut events = Vec::new();
        let mut later = Vec::new();
        let mut routes = Vec::new();
        for planned in changed {
            let active = lock(&self.routes.active).get(&planned.change.name).cloned();
            if let Some(active) = &active {
                still.push(match planned.change.kind {
                    ChangeKind::Removed => self.quiesce_for_good(active).await?,
                    _ => self.quiesce(active).await?,
                });
                // Where it stands now is where the new rules begin.
                for point in &mut planned.change.from {
                    let found = active
                        .readings()
                        .into_iter()
                        .find(|reading| reading.topic == point.topic && reading.place.partition == point.partition);
                    if let Some(reading) = found {
                        point.offset = lock(&reading.inside).progress.offset;
                    }
                }
                if let Some(entry) = &mut planned.entry {
                    entry.made.clone_from(&lock(&active.entry).made);
                }
            }
            match (&planned.entry, &planned.spec) {
                (Some(entry), Some(spec)) => {
                    let route =
                        Route::compile(spec).map_err(|error| BrokerError::new(ErrorKind::InvalidRequest, error))?;
                    events.push(Event::RouteSet(entry.clone()));
                    routes.push((entry.clone(), Some(route), active));
                }
                _ => {
                    events.push(Event::RouteDeleted { name: planned.change.name.clone() });
                    if let Some(active) = active {
                        let entry = lock(&active.entry).clone();
                        routes.push((entry, None, Some(active)));
                    }
                }
            }
            let moved = |(place, progress): &(RoutePlace, Option<RouteProgress>)| Event::RouteMoved {
                place: place.clone(),
                progress: progress.clone(),
            };
            later.extend(planned.moves.iter().map(moved));
        }
        // What routes are comes first, so that it is in one batch, whole or not at all.
        events.append(&mut later);
        if !events.is_empty() {
            let broker = Arc::clone(self);
            blocking(move || lock(&broker.catalog).commit_all(events, broker.clock.now_ms())).await?;
        }
        for (entry, route, active) in routes {
            let Some(route) = route else {
                lock(&self.routes.active).remove(&entry.name);
                for reading in active.iter().flat_map(|active| active.readings()) {
                    reading.closed.store(true, Ordering::Release);
                }
                tracing::info!(route = %entry.name, "route deleted");
                continue;
            };
            self.take_in(entry, route, active);
        }
        Ok(())
    }

    fn take_in(&self, entry: RouteEntry, route: Route, active: Option<Arc<ActiveRoute>>) {
        tracing::info!(route = %entry.name, version = entry.version, "route applied");
        let active = match active {
            Some(active) => {
                *lock(&active.entry) = entry;
                *lock(&active.route) = Arc::new(route);
                active
            }
            None => {
                let name = entry.name.clone();
                let active = Arc::new(ActiveRoute::new(entry, route));
                lock(&self.routes.active).insert(name, Arc::clone(&active));
                active
            }
        };
        let route = active.route();
        lock(&active.readings).retain(|_, reading| {
            let reads = route.spec().reads(&reading.topic);
            if !reads {
                reading.closed.store(true, Ordering::Release);
            }
            reads
        });
        for topic in self.topics_read_by(route.spec()) {
            active.add(self, &topic);
        }
    }

    /// All routes, by name.
    pub fn list_routes(&self) -> Vec<RouteSummary> {
        self.routes.all().iter().map(|active| self.describe_active(active).summary).collect()
    }

    /// What all routes are to do, by name.
    pub(crate) fn route_specs(&self) -> Vec<RouteSpec> {
        self.routes.all().iter().map(|active| active.route().spec().clone()).collect()
    }

    /// All routes in full, by name.
    pub(crate) fn describe_routes(&self) -> Vec<RouteDescription> {
        self.routes.all().iter().map(|active| self.describe_active(active)).collect()
    }

    /// One route in full.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn describe_route(&self, name: &TopicName) -> Result<RouteDescription, BrokerError> {
        Ok(self.describe_active(&*self.routes.get(name)?))
    }

    fn describe_active(&self, active: &ActiveRoute) -> RouteDescription {
        let entry = lock(&active.entry).clone();
        let route = active.route();
        let spec = route.spec();
        let mut partitions = Vec::new();
        let mut counts = RouteCounts { by_rule: vec![0; spec.to.len() + 2], ..RouteCounts::default() };
        for reading in active.readings() {
            let number = reading.place.partition;
            let end = self.topic(reading.topic.as_str()).ok().and_then(|topic| {
                let log = topic.partition(number).ok()?.log().ok()?.clone();
                Some(log.with(|log| log.stable_end()))
            });
            let inside = lock(&reading.inside);
            let progress = &inside.progress;
            counts.read += progress.counts.read;
            counts.unwanted += progress.counts.unwanted;
            counts.failed += progress.counts.failed;
            if progress.counts.version == entry.version {
                for (sum, count) in counts.by_rule.iter_mut().zip(&progress.counts.by_rule) {
                    *sum += count;
                }
            }
            partitions.push(RoutePartition {
                topic: reading.topic.clone(),
                partition: number,
                offset: progress.offset,
                end: end.unwrap_or(progress.offset).max(progress.offset),
                waiting: progress.open.len() as u64,
                stuck: inside.stuck,
                trouble: inside.trouble.clone(),
            });
        }
        partitions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        let lag = partitions.iter().map(|partition| partition.end - partition.offset + partition.waiting).sum();
        let state = if entry.paused {
            "paused"
        } else if partitions.iter().any(|partition| partition.stuck) {
            "stuck"
        } else {
            "running"
        };
        let mut by_rule = counts.by_rule.iter().copied();
        let mut destinations: Vec<_> =
            spec.to.iter().map(|one| (one.name.clone(), one.topic.to_string(), by_rule.next().unwrap_or(0))).collect();
        let (otherwise, tapped) = (by_rule.next().unwrap_or(0), by_rule.next().unwrap_or(0));
        if let Some(destination) = &spec.otherwise {
            destinations.push(("otherwise".to_owned(), destination.topic.to_string(), otherwise));
        }
        if let Some(tap) = &spec.tap {
            destinations.push(("tap".to_owned(), tap.to_string(), tapped));
        }
        RouteDescription {
            summary: RouteSummary {
                name: entry.name.clone(),
                version: entry.version,
                state,
                from: spec.from.iter().map(ToString::to_string).collect(),
                lag,
                failed: counts.failed,
            },
            definition: entry.definition,
            created_ms: entry.created_ms,
            changed_ms: entry.changed_ms,
            read: counts.read,
            unwanted: counts.unwanted,
            destinations,
            dead_letter: spec.dead_letters(),
            made: entry.made,
            partitions,
        }
    }

    /// Lets a route stand still, or go on.
    ///
    /// # Errors
    /// There is none of that name; it cannot end what it has begun; the journal's.
    pub async fn pause_route(self: &Arc<Self>, name: &TopicName, paused: bool) -> Result<(), BrokerError> {
        let _changing = self.routes.changing.lock().await;
        let active = self.routes.get(name)?;
        let still = if paused { Some(self.quiesce(&active).await?) } else { None };
        let mut entry = lock(&active.entry).clone();
        entry.paused = paused;
        let (broker, event) = (Arc::clone(self), Event::RouteSet(entry.clone()));
        let committed = blocking(move || lock(&broker.catalog).commit(event, broker.clock.now_ms())).await;
        if committed.is_ok() {
            *lock(&active.entry) = entry;
        }
        drop(still);
        self.run_route(&active);
        Ok(committed?)
    }

    /// Lets a route go on from another place: what it reads from there on it routes as if for the first time. Or only says, for
    /// `dry_run`, where it is and would go on.
    ///
    /// # Errors
    /// There is none of that name; it cannot end what it has begun; damage; the journal's.
    pub async fn reset_route(
        self: &Arc<Self>,
        name: &TopicName,
        to: OffsetAt,
        dry_run: bool,
    ) -> Result<Vec<ResetPoint>, BrokerError> {
        let _changing = self.routes.changing.lock().await;
        let active = self.routes.get(name)?;
        if dry_run {
            let mut points = Vec::new();
            for reading in active.readings() {
                let (topic, partition) = (reading.topic.clone(), reading.place.partition);
                let (offset, _) = self.list_offset(topic.as_str(), partition, to).await?;
                let before = lock(&reading.inside).progress.offset;
                points.push(ResetPoint { topic, partition, before, offset });
            }
            return Ok(points);
        }
        let _still = self.quiesce(&active).await?;
        self.reset(&active, to).await
    }

    async fn reset(self: &Arc<Self>, active: &Arc<ActiveRoute>, to: OffsetAt) -> Result<Vec<ResetPoint>, BrokerError> {
        let mut points = Vec::new();
        let mut moves = Vec::new();
        for reading in active.readings() {
            let number = reading.place.partition;
            let (offset, _) = self.list_offset(reading.topic.as_str(), number, to).await?;
            let (before, counts) = {
                let inside = lock(&reading.inside);
                (inside.progress.offset, inside.progress.counts.clone())
            };
            points.push(ResetPoint { topic: reading.topic.clone(), partition: number, before, offset });
            moves.push((reading, RouteProgress { offset, counts, ..RouteProgress::default() }));
        }
        let broker = Arc::clone(self);
        blocking(move || {
            let now = broker.clock.now_ms();
            let mut catalog = lock(&broker.catalog);
            if moves.is_empty() {
                return Ok(());
            }
            // Another identity: what was written before counts for nothing now.
            let ids = catalog.next_producer_ids(moves.len() as u32, now)?;
            for ((_, progress), id) in moves.iter_mut().zip(ids) {
                progress.producer = limits::OWN_PRODUCER_IDS + id;
            }
            let moved = |(reading, progress): &(Arc<super::Reading>, RouteProgress)| Event::RouteMoved {
                place: reading.place.clone(),
                progress: Some(progress.clone()),
            };
            catalog.commit_all(moves.iter().map(moved).collect(), now)?;
            drop(catalog);
            for (reading, progress) in moves {
                lock(&reading.marks).clear();
                let mut inside = lock(&reading.inside);
                inside.progress = progress;
                (inside.stuck, inside.trouble) = (false, None);
                let found = std::mem::take(&mut inside.found);
                drop(inside);
                drop(found);
            }
            Ok::<_, BrokerError>(())
        })
        .await?;
        Ok(points)
    }

    /// Deletes a route. What it has written stays.
    ///
    /// # Errors
    /// There is none of that name; it cannot end what it has begun; the journal's.
    pub async fn delete_route(self: &Arc<Self>, name: &TopicName) -> Result<(), BrokerError> {
        let _changing = self.routes.changing.lock().await;
        let mut planned = [self.plan_removal(name)?];
        self.carry_out(&mut planned).await
    }
}

/// Whether the routes that there would be are few enough, and none would route its own records again.
fn check_together(specs: &[RouteSpec], held: &BTreeMap<TopicName, RouteSpec>, prune: bool) -> Result<(), BrokerError> {
    let others = held.values().filter(|held| !prune && !specs.iter().any(|spec| spec.name == held.name));
    let all: Vec<RouteSpec> = specs.iter().chain(others).cloned().collect();
    if all.len() > limits::ROUTES {
        let message = format!("{} routes; the limit is {}", all.len(), limits::ROUTES);
        return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
    }
    match route::find_loop(&all) {
        Some(found) => Err(BrokerError::new(ErrorKind::InvalidRequest, found.to_string())),
        None => Ok(()),
    }
}
