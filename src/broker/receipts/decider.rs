//! Finds out what receipts say: looks at the groups whenever something was committed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{GroupName, TimestampMs};
use crate::catalog::{Processed, ReceiptEntry, ReceiptPlace};

use super::super::broker::lock;
use super::super::{Broker, BrokerError, MAX_ASKED, RecordAt};

/// The shortest rest between two looks.
const REST: Duration = Duration::from_millis(20);
/// The longest one; a look takes a tenth of the time at the most.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How often it is looked without a reason.
const SLEEP: Duration = Duration::from_secs(10);
/// The wait after something did not work.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks until the broker is gone or stops.
pub(super) async fn run(broker: Weak<Broker>) {
    let Some(live) = broker.upgrade() else { return };
    let (mut commits, mut topics) = (live.queues.keeper.commits.subscribe(), live.topics_version.subscribe());
    drop(live);
    loop {
        let Some(live) = broker.upgrade().filter(|broker| !broker.receipts.is_stopped()) else { return };
        commits.borrow_and_update();
        topics.borrow_and_update();
        let began = Instant::now();
        let worked = step(&live).await;
        if live.receipts.is_stopped() {
            return;
        }
        let mut wait = SLEEP;
        if let Err(error) = worked {
            tracing::warn!(%error, "receipts cannot be kept; trying again");
            wait = PAUSE;
        }
        if let Some(until) = lock(&live.receipts.table).next_until() {
            let left = u64::try_from(until.saturating_sub(live.clock.now_ms())).unwrap_or(0);
            wait = wait.min(Duration::from_millis(left.max(1)));
        }
        let receipts = Arc::clone(&live.receipts);
        drop(live);
        let rest = (began.elapsed() * 9).clamp(REST, LONGEST_REST);
        tokio::select! {
            changed = commits.changed() => if changed.is_err() { return },
            changed = topics.changed() => if changed.is_err() { return },
            () = receipts.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        tokio::time::sleep(rest).await;
    }
}

/// Looks once.
async fn step(broker: &Arc<Broker>) -> Result<(), BrokerError> {
    let receipts = &broker.receipts;
    let before = broker
        .clock
        .now_ms()
        .saturating_sub(TimestampMs::try_from(broker.config.request_retention.0).unwrap_or(TimestampMs::MAX));
    let forgotten = lock(&receipts.table).forget(before);
    if !forgotten.is_empty() {
        receipts.keep(broker, &forgotten);
    }
    let waiting = lock(&receipts.table).waiting();
    for (group, entries) in waiting {
        for entries in entries.chunks(MAX_ASKED) {
            match look(broker, &group, entries).await {
                Ok(decided) => {
                    let now = broker.clock.now_ms();
                    let mut table = lock(&receipts.table);
                    for (place, processed) in decided {
                        table.decide(&place, processed, now);
                    }
                }
                // It is not known of any of them, so the time of none is over yet either.
                Err(error) => tracing::debug!(%group, %error, "receipts cannot be decided yet"),
            }
        }
    }
    let deciding = lock(&receipts.table).deciding();
    if !deciding.is_empty() {
        receipts.keep(broker, &deciding);
        broker.queues.keeper.kept().await?;
        lock(&receipts.table).decided(deciding);
        receipts.sends.notify_one();
    }
    Ok(())
}

/// What is known of these: what became of the record, or nothing until its time was over.
async fn look(
    broker: &Arc<Broker>,
    group: &GroupName,
    entries: &[ReceiptEntry],
) -> Result<Vec<(ReceiptPlace, Option<Processed>)>, BrokerError> {
    let now = broker.clock.now_ms();
    let is_there = |entry: &&ReceiptEntry| broker.topic_named(entry.place.topic).is_some();
    let (there, gone): (Vec<_>, Vec<_>) = entries.iter().partition(is_there);
    let mut decided: Vec<_> = gone.iter().map(|entry| (entry.place.clone(), Some(Processed::Deleted))).collect();
    let at = |entry: &&ReceiptEntry| RecordAt {
        topic: entry.topic.clone(),
        partition: entry.place.partition,
        offset: entry.place.offset,
    };
    let records: Vec<_> = there.iter().map(at).collect();
    let done = broker.processed(group, &records, Duration::ZERO).await?;
    let done: std::collections::HashMap<_, _> = done.into_iter().collect();
    for (entry, record) in there.into_iter().zip(records) {
        match done.get(&record) {
            Some(processed) => decided.push((entry.place.clone(), Some(*processed))),
            None if entry.until_ms <= now => decided.push((entry.place.clone(), None)),
            None => {}
        }
    }
    Ok(decided)
}
