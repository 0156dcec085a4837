//! Floor 3: what a route is and what it makes of a record. Pure: no files, no clock, no sockets.
//!
//! ```text
//! file::read       text -> what is declared, or every mistake with its place
//! Route::compile   a declaration -> conditions, an index of those that compare with a literal, paths
//! Route::route     a record -> what goes where, or why it cannot be said
//! Route::explain   the same, with the verdict of each condition, for people
//! Aggregate        parts in, wholes and what is missing out
//! ```
//!
//! A record is routed as a whole or not at all: if one condition or part of it cannot be evaluated, it is a dead letter and
//! nothing else of it goes anywhere (but its copy to the tap). The same record makes the same outputs in the same order,
//! every time.
//!
//! Knows nothing of logs, positions or what is running.

mod aggregate;
mod compile;
mod cut;
mod evaluate;
mod explain;
mod file;
mod index;
mod loops;
mod patterns;
mod spec;

pub use aggregate::{Aggregate, Effect, Open, Waiting};
pub use compile::Route;
pub use cut::Cut;
pub use evaluate::{Failure, Output, Routed, Rule};
pub use explain::{Explanation, PartExplanation, RuleVerdict, Verdict};
pub use file::{Mistake, read};
pub use loops::{Loop, find as find_loop};
pub use spec::{AggregateSpec, DestinationSpec, Matching, RouteSpec, Start, Target};

/// Where a record was routed from: `topic/partition/offset`.
pub const SOURCE: &str = "tidelog-source";
/// The route that a record came by.
pub const ROUTE: &str = "tidelog-route";
/// Which of the records that a route made of one it is, from 0; 0 if there is no such header.
pub const OUTPUT: &str = "tidelog-route-output";
/// Which part of a whole it is, and how many there are: `2/5`.
pub const PART: &str = "tidelog-part";
/// What the parts of one whole have in common.
pub const CORRELATION: &str = "tidelog-correlation-id";
/// Routes that it has passed, from the second on.
pub const HOPS: &str = "tidelog-hops";
/// Why it is a dead letter.
pub const ERROR: &str = "tidelog-error";
/// The rule that could not be evaluated.
pub const RULE: &str = "tidelog-rule";

#[cfg(test)]
mod tests;
