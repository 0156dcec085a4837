//! The messages about routes.

use serde::{Deserialize, Serialize};

use super::OffsetAt;
use super::kind::request;

/// Applies a file of routes as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRoutes {
    /// The file, TOML.
    pub text: String,
    /// Only say what would change.
    pub dry_run: bool,
    /// Routes that are not in the file are deleted.
    pub prune: bool,
}

/// What applying comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRoutesOk {
    /// What is wrong in the file; if anything is, nothing was applied.
    pub mistakes: Vec<RouteMistake>,
    /// What becomes of each route of the file, and of those that are deleted.
    pub changes: Vec<RouteChange>,
}

request!(ApplyRoutes, ApplyRoutesOk);

/// Something that is wrong in a file of routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMistake {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// One line.
    pub message: String,
}

/// What becomes of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// The route.
    pub name: String,
    /// What becomes of it.
    pub kind: RouteChangeKind,
    /// Its version then.
    pub version: u32,
    /// Lines of its declaration that go (`-`) and come (`+`).
    pub difference: Vec<String>,
    /// From where on the version holds, in partitions that are there.
    pub from: Vec<RoutePoint>,
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteChangeKind {
    /// It is new.
    New,
    /// It is declared otherwise from now on.
    Changed,
    /// It is as it was.
    Unchanged,
    /// It is deleted.
    Removed,
}

/// A place in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePoint {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// Asks for all routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRoutes {}

/// All routes, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRoutesOk {
    /// The routes.
    pub routes: Vec<RouteSummary>,
}

request!(ListRoutes, ListRoutesOk);

/// A route in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSummary {
    /// Its name.
    pub name: String,
    /// Its version, from 1.
    pub version: u32,
    /// `running`, `paused` or `stuck`.
    pub state: String,
    /// The topics that it reads.
    pub from: Vec<String>,
    /// Records that it has not routed.
    pub lag: u64,
    /// Records that became dead letters.
    pub failed: u64,
}

/// Asks for one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeRoute {
    /// The route.
    pub name: String,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeRouteOk {
    /// The route.
    pub route: RouteDescription,
}

request!(DescribeRoute, DescribeRouteOk);

/// A route in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDescription {
    /// What the list says of it.
    pub summary: RouteSummary,
    /// Its declaration, TOML.
    pub definition: String,
    /// When it was first applied.
    pub created_ms: i64,
    /// When it was last changed.
    pub changed_ms: i64,
    /// Records read.
    pub read: u64,
    /// Parts, or whole records, that no condition wanted while there is no `otherwise`.
    pub unwanted: u64,
    /// Destinations, with `otherwise` and the tap.
    pub destinations: Vec<RouteDestination>,
    /// Where its dead letters go.
    pub dead_letter: String,
    /// Topics that it has made because a destination is computed.
    pub made: Vec<String>,
    /// What it reads, by topic and number.
    pub partitions: Vec<RoutePartition>,
}

/// A destination of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDestination {
    /// Its name.
    pub name: String,
    /// Its topic, or the expression for it.
    pub topic: String,
    /// Records sent there since this version was applied.
    pub records: u64,
}

/// A partition that a route reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next record that is not routed.
    pub offset: u64,
    /// Where the partition ends.
    pub end: u64,
    /// Parts that wait for others of their whole.
    pub waiting: u64,
    /// It stands still because of the last error.
    pub stuck: bool,
    /// The last error.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ms: Option<i64>,
}

/// Lets a route stand still, or go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRoute {
    /// The route.
    pub name: String,
    /// Whether it is to stand still.
    pub paused: bool,
}

/// It stands still, and everything that it had begun is done; or it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRouteOk {}

request!(PauseRoute, PauseRouteOk);

/// Lets a route go on from another place: it routes what it reads there as if for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRoute {
    /// The route.
    pub name: String,
    /// From where on, in every partition that it reads.
    pub to: OffsetAt,
    /// Only say what would change.
    pub dry_run: bool,
}

/// From where on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRouteOk {
    /// Partition by partition.
    pub from: Vec<ResetPoint>,
}

/// Where a route was and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetPoint {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where it was: what lies from `offset` up to here is routed again.
    pub before: u64,
    /// Where it goes on.
    pub offset: u64,
}

request!(ResetRoute, ResetRouteOk);

/// Deletes a route. What it has written stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRoute {
    /// The route.
    pub name: String,
}

/// It is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRouteOk {}

request!(DeleteRoute, DeleteRouteOk);

/// Asks where routes sent a record, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRecord {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// How long to wait for the routes, at most 60,000.
    pub wait_ms: u32,
}

/// Where it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRecordOk {
    /// What each route that reads the topic made of it.
    pub routes: Vec<ExplainedRoute>,
}

request!(ExplainRecord, ExplainRecordOk);

/// What a route made of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRoute {
    /// The route.
    pub route: String,
    /// It was routed in time; otherwise it is what will become of it by the rules of now.
    pub done: bool,
    /// The route puts parts together, so it says nothing of one record.
    pub aggregated: bool,
    /// The first parts, or the whole where nothing is split.
    pub parts: Vec<ExplainedPart>,
    /// The first outputs.
    pub outputs: Vec<ExplainedOutput>,
    /// Outputs that are not listed.
    pub more_outputs: u64,
    /// Parts, or whole records, that no condition wanted.
    pub unwanted: u64,
    /// The rule that could not be evaluated, and why: it is a dead letter.
    pub failure: Option<ExplainedFailure>,
}

/// A part, or the whole where nothing is split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPart {
    /// `2/5`.
    pub part: Option<String>,
    /// Every condition, in order.
    pub rules: Vec<ExplainedRule>,
}

/// A condition and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRule {
    /// The destination's name.
    pub rule: String,
    /// The condition; none for always.
    pub when: Option<String>,
    /// What it says.
    pub verdict: RuleVerdict,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleVerdict {
    /// It holds.
    Matched,
    /// It doesn't.
    NotMatched,
    /// An earlier one decided.
    NotAsked,
    /// It cannot be said.
    Failed,
}

/// A record that a route made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedOutput {
    /// What sent it.
    pub rule: String,
    /// Where.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset, if it was found there.
    pub offset: Option<u64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Which part of a whole it is.
    pub part: Option<String>,
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedFailure {
    /// The rule.
    pub rule: String,
    /// One line.
    pub message: String,
}
