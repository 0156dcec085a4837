//! What is durable of a transactional id: who has it, and how far its transaction has come.

use serde::{Deserialize, Serialize};

use crate::base::{PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId};

use super::progress::{Place, Position};

/// A transactional id: a name under which one producer at a time writes in transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionEntry {
    /// The id.
    pub id: String,
    /// The producer id that it has.
    pub producer: ProducerId,
    /// The epoch that counts; who has an older one has been superseded.
    pub epoch: ProducerEpoch,
    /// The epoch before, if whoever had it may still ask for the present one.
    pub last_epoch: Option<ProducerEpoch>,
    /// How long a transaction may be open, in milliseconds.
    pub timeout_ms: u64,
    /// How far it has come.
    pub phase: TransactionPhase,
    /// When the transaction began, in milliseconds since the Unix epoch; −1 before the first one.
    pub started_ms: TimestampMs,
    /// When anything changed last.
    pub updated_ms: TimestampMs,
    /// The partitions that it may have written to.
    pub partitions: Vec<(TopicId, PartitionId)>,
    /// The groups of which it commits positions.
    pub groups: Vec<crate::base::GroupName>,
    /// The positions that hold once it is committed.
    pub positions: Vec<(Place, Position)>,
    /// The client that asked for it last; nothing in what the first version kept.
    #[serde(skip)]
    pub client: TransactionClient,
    /// How long the open transaction had been open when this was kept, in milliseconds of the monotonic clock; 0 in what the
    /// first version kept.
    #[serde(skip)]
    pub open_ms: u64,
}

/// The client that has a transactional id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransactionClient {
    /// The address that it has connected from.
    pub address: String,
    /// What it calls itself.
    pub name: String,
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionPhase {
    /// There has been none yet.
    Empty,
    /// It is open.
    Ongoing,
    /// It is decided that it counts; not all partitions say so yet.
    PrepareCommit,
    /// It is decided that it does not count; not all partitions say so yet.
    PrepareAbort,
    /// It counts.
    Committed,
    /// It does not count.
    Aborted,
}
