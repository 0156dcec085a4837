//! A member of a classic group, as the machine has it.

use bytes::Bytes;

use super::super::clients::Client;
use super::types::{ClassicJoin, Ms, Ticket, said_bytes};
use crate::base::TimestampMs;

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(super) from: Client,
    pub(super) session_ms: Ms,
    pub(super) rebalance_ms: Ms,
    pub(super) protocols: Vec<(String, Bytes)>,
    /// Bytes of what it says of itself.
    pub(super) weight: usize,
    /// It knows its id. One that does not cannot come back to it.
    pub(super) knows_id: bool,
    pub(crate) assignment: Bytes,
    /// Its place in the order of joining.
    pub(super) order: u64,
    pub(super) joining: Option<Ticket>,
    pub(super) syncing: Option<Ticket>,
    /// It has asked for its share in this generation.
    pub(super) synced: bool,
    /// The end of its session, unless it waits for an answer.
    pub(super) expires: Ms,
    /// When it joined, on the monotonic clock: below 0 is before the clock began.
    pub(crate) joined: i64,
    pub(crate) heard: Ms,
}

/// What was said in a protocol.
pub(super) fn said(protocols: &[(String, Bytes)], protocol: &str) -> Bytes {
    let found = protocols.iter().find(|(name, _)| name == protocol);
    found.map(|(_, said)| said.clone()).unwrap_or_default()
}

impl Member {
    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub(super) fn said(&self, protocol: &str) -> Bytes {
        said(&self.protocols, protocol)
    }

    /// Bytes of what it says of itself.
    pub(super) fn weigh(&self) -> usize {
        let instance = self.instance.as_ref().map_or(0, String::len);
        said_bytes(&self.protocols) + instance + self.client.len() + self.host.len()
    }

    /// When it joined, by the wall clock.
    pub(crate) fn joined_ms(&self, now: Ms, wall: TimestampMs) -> TimestampMs {
        wall.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(self.joined))
    }

    pub(super) fn alive(&mut self, now: Ms) {
        self.heard = now;
        self.expires = now + self.session_ms;
    }

    /// The end of its session; who waits for an answer is alive.
    pub(super) fn expires(&self) -> Option<Ms> {
        (self.joining.is_none() && self.syncing.is_none()).then_some(self.expires)
    }

    /// Takes over what it says now; the request of it that has waited until now.
    pub(super) fn update(&mut self, ticket: Ticket, join: ClassicJoin, now: Ms) -> Option<Ticket> {
        self.weight = join.weight();
        self.client = join.client;
        self.host = join.host;
        self.from = join.from;
        self.session_ms = join.session_ms;
        self.rebalance_ms = join.rebalance_ms;
        self.protocols = join.protocols;
        self.alive(now);
        self.joining.replace(ticket)
    }
}
