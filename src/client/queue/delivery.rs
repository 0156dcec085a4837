//! One record in the hands of a member.

use std::sync::Arc;
use std::time::Duration;

use crate::client::{ClientError, ConsumedRecord};
use crate::protocol::Verdict;

use super::session::Session;

/// A record that is leased to this member. Say what became of it with [`Delivery::ack`] or [`Delivery::nack`]; one that is
/// dropped without a word counts as failed.
#[derive(Debug)]
pub struct Delivery {
    record: ConsumedRecord,
    attempt: u32,
    session: Arc<Session>,
    settled: bool,
}

impl Delivery {
    pub(super) fn new(record: ConsumedRecord, attempt: u32, session: Arc<Session>) -> Self {
        Self { record, attempt, session, settled: false }
    }

    /// The record.
    pub fn record(&self) -> &ConsumedRecord {
        &self.record
    }

    /// Which delivery of the record this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long a record is its member's, from when it is handed over or extended.
    pub fn lease(&self) -> Duration {
        self.session.lease()
    }

    /// It is done. Returns at once; [`QueueConsumer::flush`](super::QueueConsumer::flush) waits for all acks together.
    pub fn ack(mut self) {
        self.say(Verdict::Ack);
    }

    /// It is done, and that is on the server's disk when this returns.
    ///
    /// # Errors
    /// The server cannot be reached in time, or another member has the record by now.
    pub async fn ack_durable(mut self) -> Result<(), ClientError> {
        self.settled = true;
        self.session.settle_durable(&self.record, Verdict::Ack).await
    }

    /// It failed; it comes again, to any member, after the group's backoff. The reason goes with it if it becomes a dead
    /// letter.
    pub fn nack(mut self, reason: impl Into<String>) {
        self.say(Verdict::Nack { delay_ms: None, reason: Some(reason.into()) });
    }

    /// The same, after this time.
    pub fn nack_after(mut self, delay: Duration, reason: impl Into<String>) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.say(Verdict::Nack { delay_ms: Some(delay_ms), reason: Some(reason.into()) });
    }

    /// It was not handed on: somebody else may have it at once, before what comes behind it, and it was no delivery.
    pub fn release(mut self) {
        self.say(Verdict::Release);
    }

    /// The lease begins anew: it takes longer.
    pub fn extend(&self) {
        self.session.settle(&self.record, Verdict::Extend);
    }

    fn say(&mut self, verdict: Verdict) {
        self.settled = true;
        self.session.settle(&self.record, verdict);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            let reason = Some("the consumer let go of it without a word".to_owned());
            self.session.settle(&self.record, Verdict::Nack { delay_ms: None, reason });
        }
    }
}
