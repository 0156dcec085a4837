//! Messages about damage.

use serde::{Deserialize, Serialize};

use super::kind::request;

/// Asks for the damage that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDamage {
    /// Only that of this topic.
    pub topic: Option<String>,
    /// How many places at the most; at most 1,000.
    pub limit: u32,
}

/// Damage that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDamageOk {
    /// The places, the journal's first, then by topic, partition and offset.
    pub damage: Vec<DamageInfo>,
    /// How many places are known, listed or not.
    pub total: u64,
}

request!(ListDamage, ListDamageOk);

/// Acknowledges damage: an operator has seen it, and the server is ready again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgeDamage {
    /// Only that of this topic; otherwise all of it, the journal's included.
    pub topic: Option<String>,
}

/// The damage is acknowledged, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgeDamageOk {
    /// Places that were not acknowledged before.
    pub acknowledged: u64,
}

request!(AcknowledgeDamage, AcknowledgeDamageOk);

/// A damaged place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageInfo {
    /// The topic; nothing for the journal.
    pub topic: Option<String>,
    /// The partition; 0 for the journal.
    pub partition: u32,
    /// The first offset that cannot be read.
    pub from: u64,
    /// The offset after it from which on reading goes on, if known.
    pub to: Option<u64>,
    /// The file.
    pub file: String,
    /// The byte in it where the damage begins.
    pub position: u64,
    /// What was found there.
    pub what: String,
    /// When it was found, in milliseconds since the Unix epoch.
    pub found_ms: i64,
    /// An operator has acknowledged it.
    pub acknowledged: bool,
}
