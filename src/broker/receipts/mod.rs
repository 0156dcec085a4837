//! Receipts that are POSTed: who asks for one says which record it is of, which group is to process it, and where the
//! receipt goes. [`table`] holds them, pure; [`decider`] finds out what they say. That is durable before anything is sent, so a
//! receipt says the same however often it is.
//!
//! Knows no HTTP: whoever makes the calls takes what is to be sent, and says what became of it.

mod decider;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TimestampMs, TopicName};
use crate::catalog::{Catalog, Event, ReceiptEntry, ReceiptPlace};

use super::broker::lock;
use super::{Broker, BrokerError, MAX_ASKED, RecordAt};
use table::{HELD, NotAsked, Table};

pub use table::ReceiptCounts;

/// The longest time after which a receipt says that nothing has become of the record.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// All receipts that are to be POSTed.
#[derive(Default)]
pub(crate) struct Receipts {
    table: Mutex<Table>,
    /// The decider has something to look at.
    wake: Notify,
    /// There are receipts to be sent.
    sends: Notify,
    running: AtomicBool,
    stopped: AtomicBool,
}

/// Which receipts are asked for.
#[derive(Debug, Clone, Default)]
pub struct ReceiptFilter {
    /// Only those in this state: `waiting`, `sending` or `given_up`.
    pub state: Option<String>,
    /// Only those of this group.
    pub group: Option<GroupName>,
    /// Only those behind this one.
    pub after: Option<ReceiptPlace>,
    /// So many at the most.
    pub limit: usize,
}

/// The names of the states of receipts.
pub const RECEIPT_STATES: [&str; 3] = ["waiting", "sending", "given_up"];

/// The name of a receipt's state: `waiting`, `sending` or `given_up`.
pub fn receipt_state(entry: &ReceiptEntry) -> &'static str {
    match (&entry.given_up, &entry.news) {
        (Some(_), _) => "given_up",
        (None, Some(_)) => "sending",
        (None, None) => "waiting",
    }
}

impl Receipts {
    /// Takes over what was kept.
    pub(crate) fn restore(catalog: &Catalog) -> Self {
        Self { table: Mutex::new(Table::restore(catalog.receipts().cloned())), ..Self::default() }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
        self.sends.notify_one();
    }

    /// Hands the present state of receipts to the keeper.
    fn keep(&self, broker: &Broker, places: &[ReceiptPlace]) {
        // Under the lock, so that a newer state is never overtaken by an older one.
        let table = lock(&self.table);
        let event = |place: &ReceiptPlace| Event::ReceiptSet { place: place.clone(), entry: table.get(place).cloned() };
        broker.groups.pending.put(places.iter().map(event));
        drop(table);
        broker.queues.keeper.note_pending();
    }
}

impl Broker {
    /// Asks for receipts of records that a group is to process: for each, what became of it in the group, or after
    /// `timeout` that nothing has, is to be POSTed to the URL. When this returns, that is durable. The same again is the same.
    ///
    /// # Errors
    /// Too many records at once or in all, no such topic or record, the receipt goes elsewhere already, the disk's. After
    /// an error of the disk it is unknown whether they were asked for.
    pub async fn ask_receipts(
        self: &Arc<Self>,
        group: &GroupName,
        url: &str,
        records: &[RecordAt],
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let too = |kind, message: String| Err(BrokerError::new(kind, message));
        if records.len() > MAX_ASKED {
            let message = format!("receipts of {} records at once; the limit is {MAX_ASKED}", records.len());
            return too(ErrorKind::TooLarge, message);
        }
        if timeout.is_zero() || timeout > LONGEST {
            let message =
                format!("a receipt within {} s; allowed are 1 s to {} s", timeout.as_secs(), LONGEST.as_secs());
            return too(ErrorKind::InvalidRequest, message);
        }
        let now = self.clock.now_ms();
        let until_ms = now.saturating_add(TimestampMs::try_from(timeout.as_millis()).unwrap_or(TimestampMs::MAX));
        let mut entries = Vec::with_capacity(records.len());
        let mut ends: BTreeMap<(&TopicName, PartitionId), Offset> = BTreeMap::new();
        for RecordAt { topic, partition, offset } in records {
            let open = self.topic_of(topic)?;
            let end = open.partition(*partition)?.log()?.with(|log| log.written_end());
            if *offset >= end {
                let message = format!(
                    "topic '{topic}' partition {partition} has no record at offset {offset} yet: it ends at {end}"
                );
                return too(ErrorKind::OffsetOutOfRange, message);
            }
            let place =
                ReceiptPlace { topic: open.entry.id, partition: *partition, offset: *offset, group: group.clone() };
            let behind = ends.entry((topic, *partition)).or_default();
            *behind = (*behind).max(offset + 1);
            let (topic, url) = (topic.clone(), url.to_owned());
            entries.push(ReceiptEntry { place, topic, url, asked_ms: now, until_ms, news: None, given_up: None });
        }
        // A power cut takes what is only written, and another record comes to its offset.
        for ((topic, partition), end) in ends {
            self.topic_of(topic)?.partition(partition)?.synced(end).await?;
        }
        if self.receipts.is_stopped() {
            return too(ErrorKind::ShuttingDown, "the server is stopping".to_owned());
        }
        let mut changed = Vec::with_capacity(entries.len());
        let mut refused = None;
        {
            let mut table = lock(&self.receipts.table);
            for entry in entries {
                let place = entry.place.clone();
                match table.ask(entry) {
                    Ok(gone) => changed.extend(gone.into_iter().chain([place])),
                    Err(why) => {
                        refused = Some((place, why));
                        break;
                    }
                }
            }
        }
        // What was taken in before one was refused is asked for all the same.
        self.receipts.keep(self, &changed);
        self.decide_receipts();
        self.queues.keeper.kept().await?;
        self.metrics.receipts_asked.inc_by(changed.len() as u64);
        self.receipts.wake.notify_one();
        match refused {
            None => Ok(()),
            Some((_, NotAsked::Full)) => {
                too(ErrorKind::Overloaded, format!("{HELD} receipts are waited for or being sent, which is the limit"))
            }
            Some((at, NotAsked::Elsewhere(url))) => too(
                ErrorKind::InvalidRequest,
                format!(
                    "the receipt of group '{group}' for partition {} offset {} goes to {url} already",
                    at.partition, at.offset
                ),
            ),
        }
    }

    /// Goes on with the receipts that were kept, if there are any.
    pub(crate) fn resume_receipts(self: &Arc<Self>) {
        if !lock(&self.receipts.table).is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            self.decide_receipts();
        }
    }

    fn decide_receipts(self: &Arc<Self>) {
        if !self.receipts.running.swap(true, Ordering::AcqRel) {
            tokio::spawn(decider::run(Arc::downgrade(self)));
        }
    }

    /// Receipts that are to be sent from now on, each until it is said what became of it. Each is named once, and all that
    /// were not delivered once more after a restart.
    pub fn take_receipts(&self) -> Vec<ReceiptEntry> {
        lock(&self.receipts.table).take_to_send()
    }

    /// Returns when there may be more of them.
    pub async fn receipts_come(&self) {
        self.receipts.sends.notified().await;
    }

    /// Its endpoint has it.
    pub fn receipt_delivered(&self, place: &ReceiptPlace) {
        if lock(&self.receipts.table).delivered(place) {
            self.metrics.receipts_delivered.inc();
            self.receipts.keep(self, std::slice::from_ref(place));
        }
    }

    /// It could not be delivered, and is tried again.
    pub fn receipt_not_yet(&self, place: &ReceiptPlace, reason: &str) {
        lock(&self.receipts.table).not_yet(place, reason);
    }

    /// It is given up, which the list of receipts says for a while.
    pub fn give_up_receipt(&self, place: &ReceiptPlace, reason: String) {
        if lock(&self.receipts.table).give_up(place, reason, self.clock.now_ms()) {
            self.metrics.receipts_given_up.inc();
            self.receipts.keep(self, std::slice::from_ref(place));
        }
    }

    /// Receipts by topic, partition, offset and group, each with why it has not been delivered; and whether there are more.
    pub fn list_receipts(&self, filter: &ReceiptFilter) -> (Vec<(ReceiptEntry, Option<String>)>, bool) {
        let table = lock(&self.receipts.table);
        let wanted = |entry: &&ReceiptEntry| {
            filter.state.as_ref().is_none_or(|state| state == receipt_state(entry))
                && filter.group.as_ref().is_none_or(|group| *group == entry.place.group)
        };
        let from = table.after(filter.after.as_ref()).filter(wanted);
        let with_trouble = |entry: &ReceiptEntry| (entry.clone(), table.trouble(&entry.place).map(str::to_owned));
        let mut found: Vec<_> = from.take(filter.limit.saturating_add(1)).map(with_trouble).collect();
        let more = found.len() > filter.limit;
        found.truncate(filter.limit);
        (found, more)
    }

    /// How many receipts are in which state.
    pub fn receipt_counts(&self) -> ReceiptCounts {
        lock(&self.receipts.table).counts()
    }
}
