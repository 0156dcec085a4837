//! The messages about transactions, and what they hold up.

use serde::{Deserialize, Serialize};

use super::kind::request;

/// Asks for transactional ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTransactions {
    /// Only those in this state.
    pub state: Option<String>,
    /// Only those with a transaction that has been open for so long, in milliseconds.
    pub open_for_ms: Option<u64>,
    /// Only those behind this id.
    pub after: Option<String>,
}

/// Transactional ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTransactionsOk {
    /// The ids, by name.
    pub transactions: Vec<TransactionSummary>,
    /// The id to go on behind; nothing at the end.
    pub next: Option<String>,
}

request!(ListTransactions, ListTransactionsOk);

/// A transactional id in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionSummary {
    /// The id.
    pub id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// The epoch that counts.
    pub epoch: i16,
    /// `empty`, `ongoing`, `prepare_commit`, `prepare_abort`, `committed` or `aborted`.
    pub state: String,
    /// Partitions of the open transaction.
    pub partitions: u64,
    /// When the last transaction began, in milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
    /// When anything of the id changed last, in milliseconds since the Unix epoch.
    pub updated_ms: i64,
    /// How long the transaction has been open, in milliseconds, if one is.
    pub age_ms: Option<u64>,
    /// How long it may still be open, in milliseconds.
    pub left_ms: Option<u64>,
    /// The time-out that its producer asked for, in milliseconds.
    pub timeout_ms: u64,
    /// The address of the client that asked for the id last; empty if that is not known.
    pub address: String,
    /// What that client calls itself.
    pub client: String,
}

/// Asks for one transactional id in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTransaction {
    /// The id.
    pub id: String,
}

/// A transactional id in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTransactionOk {
    /// What a list says of it.
    pub transaction: TransactionSummary,
    /// The partitions of the open transaction, by topic and number; at most 10,000.
    pub partitions: Vec<TransactionPartition>,
    /// The groups whose positions it commits.
    pub groups: Vec<String>,
}

request!(DescribeTransaction, DescribeTransactionOk);

/// A partition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset of its first record there; nothing if it has written none.
    pub first_offset: Option<u64>,
}

/// Aborts the open transaction of an id and supersedes its producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortTransaction {
    /// The id.
    pub id: String,
}

/// The abort is decided and durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortTransactionOk {
    /// Whether a transaction was open.
    pub aborted: bool,
    /// The id as it is now; `prepare_abort` while markers are still being written.
    pub transaction: TransactionSummary,
}

request!(AbortTransaction, AbortTransactionOk);

/// Forgets a transactional id without an open transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetTransaction {
    /// The id.
    pub id: String,
}

/// It is forgotten, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetTransactionOk {}

request!(ForgetTransaction, ForgetTransactionOk);

/// Asks which partitions open transactions hold up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHeld {
    /// Only of these topics; of all if empty.
    pub topics: Vec<String>,
}

/// The partitions that are held up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHeldOk {
    /// By topic and number; those that fit an answer.
    pub partitions: Vec<HeldPartition>,
    /// Whether there are more.
    pub more: bool,
}

request!(ListHeld, ListHeldOk);

/// A partition with records that readers of what is committed do not see yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where the first open transaction begins: readers stop here.
    pub offset: u64,
    /// Offsets between there and the end of what is stable.
    pub records: u64,
    /// The producer that has the transaction open.
    pub producer_id: i64,
    /// Its transactional id; nothing if only the partition knows of the transaction.
    pub transaction: Option<String>,
    /// When the transaction began, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// How long it has been open, in milliseconds.
    pub age_ms: Option<u64>,
}
