//! The messages about what of a topic's records is given up, and who would miss a topic.

use serde::{Deserialize, Serialize};

use super::kind::request;

/// Gives up all records of a partition below an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRecords {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first offset that stays; all that are written now are given up if there is none.
    pub below: Option<u64>,
}

/// They are given up, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRecordsOk {
    /// Where the log begins now.
    pub log_start: u64,
}

request!(DeleteRecords, DeleteRecordsOk);

/// Asks who reads a topic, or writes to it by the server's own hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDependents {
    /// The topic.
    pub topic: String,
}

/// Who would miss it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDependentsOk {
    /// Groups, pushes and routes, by kind and name; 1,000 at most.
    pub dependents: Vec<Dependent>,
    /// There are more.
    pub more: bool,
}

/// Who would miss a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependent {
    /// `group`, `push` or `route`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `reads` it, `writes` to it, or has its `dead letters` there.
    pub how: String,
}

request!(ListDependents, ListDependentsOk);
