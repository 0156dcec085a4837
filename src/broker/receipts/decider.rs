//! Finds out what receipts say of records that were done before anybody asked, are read by nobody yet, or whose time is over;
//! what becomes done later is decided with the commit that keeps it ([`Receipts::decide_in`](super::Receipts::decide_in)).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{GroupName, TimestampMs};
use crate::catalog::{Processed, ReceiptPlace};

use super::super::broker::lock;
use super::super::{Broker, BrokerError, MAX_ASKED, RecordAt};
use super::Receipts;
use super::table::{Waiting, Which};

/// The shortest rest between two looks; a look takes a tenth of the time at the most.
const REST: Duration = Duration::from_millis(20);
/// How often all are looked at, whatever is known of them.
const SLEEP: Duration = Duration::from_secs(10);
/// The wait after something did not work, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// One decider at a time, and another one if it should end before its time.
struct Running(Arc<Receipts>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

struct Decider {
    /// Decided, but that is not durable yet.
    unkept: Vec<ReceiptPlace>,
    /// Groups of which something cannot be found out: when that is tried again, and how long it was waited for.
    resting: HashMap<GroupName, (Instant, Duration)>,
    all_at: Instant,
}

/// Looks until the broker is gone or stops.
pub(super) async fn run(broker: Weak<Broker>) {
    let Some(live) = broker.upgrade() else { return };
    let _running = Running(Arc::clone(&live.receipts));
    let (mut commits, mut topics) = (live.queues.keeper.commits.subscribe(), live.topics_version.subscribe());
    drop(live);
    let mut decider = Decider { unkept: Vec::new(), resting: HashMap::new(), all_at: Instant::now() };
    loop {
        let Some(live) = broker.upgrade().filter(|broker| !broker.receipts.is_stopped()) else { return };
        commits.borrow_and_update();
        if topics.has_changed().unwrap_or(true) {
            // One may have been deleted.
            decider.all_at = Instant::now();
            topics.borrow_and_update();
        }
        let began = Instant::now();
        let mut wait = SLEEP;
        if let Err(error) = decider.step(&live).await {
            if live.receipts.is_stopped() {
                return;
            }
            tracing::warn!(%error, "receipts cannot be kept; trying again");
            wait = PAUSE.0;
        }
        if let Some(until) = lock(&live.receipts.table).next_until() {
            let left = u64::try_from(until.saturating_sub(live.clock.now_ms())).unwrap_or(0);
            // One of a group that rests is over for longer.
            let least = if decider.resting.is_empty() { REST } else { PAUSE.0 };
            wait = wait.min(Duration::from_millis(left).max(least));
        }
        let receipts = Arc::clone(&live.receipts);
        drop(live);
        let rest = (began.elapsed() * 9).max(REST);
        tokio::select! {
            changed = commits.changed() => if changed.is_err() { return },
            changed = topics.changed() => if changed.is_err() { return },
            () = receipts.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        tokio::time::sleep(rest).await;
    }
}

impl Decider {
    /// Looks once.
    async fn step(&mut self, broker: &Arc<Broker>) -> Result<(), BrokerError> {
        let receipts = &broker.receipts;
        let kept_for = TimestampMs::try_from(broker.config.request_retention.0).unwrap_or(TimestampMs::MAX);
        let forgotten = lock(&receipts.table).forget(broker.clock.final_ms().saturating_sub(kept_for));
        if !forgotten.is_empty() {
            receipts.keep(broker, &forgotten);
        }
        let now = Instant::now();
        let which = if now >= self.all_at { Which::All } else { Which::Fresh(broker.clock.now_ms()) };
        if which == Which::All {
            self.all_at = now + SLEEP;
        }
        let waiting = lock(&receipts.table).waiting(which);
        for (group, all) in waiting {
            if self.resting.get(&group).is_some_and(|(until, _)| *until > now) {
                continue;
            }
            let mut failed = None;
            for some in all.chunks(MAX_ASKED) {
                if let Err(error) = self.look(broker, &group, some).await {
                    failed = Some(error);
                }
            }
            match failed {
                None => drop(self.resting.remove(&group)),
                Some(error) => {
                    let before = self.resting.get(&group).map_or(Duration::ZERO, |(_, wait)| *wait);
                    let wait = (before * 2).clamp(PAUSE.0, PAUSE.1);
                    tracing::warn!(%group, %error, again_in = ?wait, "it cannot be found out what became of records");
                    self.resting.insert(group, (now + wait, wait));
                }
            }
        }
        if !self.unkept.is_empty() {
            receipts.keep(broker, &self.unkept);
            broker.queues.keeper.kept().await?;
            receipts.committed(std::mem::take(&mut self.unkept), true);
        }
        Ok(())
    }

    /// Decides what is known of these: what became of the record, or nothing until its time was over.
    async fn look(&mut self, broker: &Arc<Broker>, group: &GroupName, waiting: &[Waiting]) -> Result<(), BrokerError> {
        let receipts = &broker.receipts;
        let is_there = |one: &&Waiting| broker.topic_named(one.place.topic).is_some();
        let (there, gone): (Vec<_>, Vec<_>) = waiting.iter().partition(is_there);
        for one in gone {
            self.decide(broker, &one.place, Some(Processed::Deleted));
        }
        let at = |one: &Waiting| RecordAt {
            topic: one.topic.clone(),
            partition: one.place.partition,
            offset: one.place.offset,
        };
        let places: HashMap<RecordAt, &Waiting> = there.into_iter().map(|one| (at(one), one)).collect();
        let records: Vec<_> = places.keys().cloned().collect();
        let undone = |record: &RecordAt| {
            if let Some(one) = places.get(record) {
                lock(&receipts.table).attach(&one.place);
            }
        };
        let looked = broker.look_at_records(group, &records, undone).await?;
        let unknown = looked.failed.as_ref().map(ToString::to_string);
        let done: HashMap<_, _> = looked.done.into_iter().collect();
        for (record, one) in places {
            // Another topic of this name may have come meanwhile.
            if broker.topic_named(one.place.topic).is_none() {
                continue;
            }
            match (done.get(&record), &unknown) {
                (Some(processed), _) => self.decide(broker, &one.place, Some(*processed)),
                (None, Some(why)) if !looked.undone.contains(&record) => {
                    lock(&receipts.table).not_yet(&one.place, why);
                }
                (None, _) if broker.clock.is_over(one.asked_ms, one.until_ms) => self.decide(broker, &one.place, None),
                (None, _) => {}
            }
        }
        looked.failed.map_or(Ok(()), Err)
    }

    fn decide(&mut self, broker: &Broker, place: &ReceiptPlace, processed: Option<Processed>) {
        if lock(&broker.receipts.table).decide(place, processed, broker.clock.now_ms()) {
            self.unkept.push(place.clone());
        }
    }
}
