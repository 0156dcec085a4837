//! Receipts that are POSTed: who asks for one says which record it is of, which group is to process it, and where the
//! receipt goes. [`table`] holds them, pure; [`decider`] finds out what they say. That is durable before anything is sent, so a
//! receipt says the same however often it is.
//!
//! Knows no HTTP: whoever makes the calls takes what is to be sent, and says what became of it.

mod decider;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::{ErrorKind, GroupName, Millis, Offset, PartitionId, TimestampMs, TopicName};
use crate::catalog::{CHUNK_OFFSETS, Catalog, Event, Place, Processed, ReceiptEntry, ReceiptPlace};

use super::broker::lock;
use super::clients::Client;
use super::queue::{Keep, Machine};
use super::task;
use super::{Broker, BrokerError, MAX_ASKED, RecordAt};
use table::{Asked, NotAsked, Table};

pub use table::ReceiptCounts;

/// The longest time after which a receipt says that nothing has become of the record.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// All receipts that are to be POSTed.
pub(crate) struct Receipts {
    table: Mutex<Table>,
    /// The decider has something to look at.
    pub(crate) wake: Notify,
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

fn full(table: &Table) -> String {
    let (most, urls) = (table.most(), table.most_url_bytes());
    format!(
        "{most} receipts are waited for or being sent, or {urls} bytes of their URLs, which is the limit (max_receipts)"
    )
}

fn beyond_share(table: &Table, client: Client, own: usize) -> String {
    format!("{client} has asked for {own} receipts that wait, and may ask for half of max_receipts, {}", table.most())
}

impl Receipts {
    /// Takes over what was kept.
    pub(crate) fn restore(catalog: &Catalog, most: usize) -> Self {
        Self::of(Table::restore(catalog.receipts().cloned(), most))
    }

    fn of(table: Table) -> Self {
        Self {
            table: Mutex::new(table),
            wake: Notify::new(),
            sends: Notify::new(),
            running: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
        self.sends.notify_one();
    }

    /// What the receipts say of records that become done in a queue group's partition with `changes`, which are about to be
    /// committed: it is part of the same commit, so that no crash comes in between.
    pub(crate) fn decide_in(
        &self,
        at: &Place,
        machine: &Machine,
        changes: &[Keep],
        now: TimestampMs,
    ) -> Vec<ReceiptPlace> {
        let mut table = lock(&self.table);
        let mut places = Vec::new();
        for change in changes {
            places.extend(match change {
                Keep::Floor(floor) => table.attached(at, 0..*floor),
                Keep::Chunk(number, Some(_)) => {
                    table.attached(at, number * CHUNK_OFFSETS..(number + 1) * CHUNK_OFFSETS)
                }
                Keep::Chunk(_, None) => Vec::new(),
            });
        }
        places.retain(|place| {
            let ending = || machine.ending(place.offset).unwrap_or(Processed::Acked);
            machine.is_done(place.offset) && table.decide(place, Some(ending()), now)
        });
        places
    }

    /// The same for a group that shares out partitions, and is to be at `position` in one of them.
    pub(crate) fn decide_below(&self, at: &Place, position: Offset, now: TimestampMs) -> Vec<ReceiptPlace> {
        let mut table = lock(&self.table);
        let mut places = table.attached(at, 0..position);
        places.retain(|place| table.decide(place, Some(Processed::Acked), now));
        places
    }

    /// A group is about to be moved to `to`: what lies below it and is not done, is passed over. That holds also for receipts that
    /// nobody has looked at yet, which right after a start are all: later their records would be taken for acked. What became of
    /// those that are done is looked up later as before.
    pub(crate) fn skip(
        &self,
        at: &Place,
        to: Offset,
        ending: impl Fn(Offset) -> Option<Processed>,
        now: TimestampMs,
    ) -> Vec<ReceiptPlace> {
        let mut table = lock(&self.table);
        let attached: BTreeSet<_> = table.attached(at, 0..to).into_iter().collect();
        let mut places = table.waiting_in(at, 0..to);
        places.retain(|place| match ending(place.offset) {
            Some(_) if !attached.contains(place) => false,
            ended => table.decide(place, Some(ended.unwrap_or(Processed::Skipped)), now),
        });
        places
    }

    /// The changes that say so.
    pub(crate) fn events(&self, places: &[ReceiptPlace]) -> Vec<Event> {
        let table = lock(&self.table);
        let event = |place: &ReceiptPlace| Event::ReceiptSet { place: place.clone(), entry: table.get(place).cloned() };
        places.iter().map(event).collect()
    }

    /// What these say is durable, or could not be made so.
    pub(crate) fn committed(&self, places: Vec<ReceiptPlace>, is_durable: bool) {
        if places.is_empty() {
            return;
        }
        let mut table = lock(&self.table);
        if is_durable {
            table.decided(places);
            self.sends.notify_one();
        } else {
            table.undecide(&places);
        }
    }

    /// The clients that have asked for most receipts that wait.
    pub(crate) fn top_clients(&self, clients: usize) -> Vec<(Client, usize)> {
        lock(&self.table).top_clients(clients)
    }

    /// A group begins anew somewhere: its receipts are looked at again.
    pub(crate) fn group_moved(&self, group: &GroupName) {
        lock(&self.table).detach(group);
        self.wake.notify_one();
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
    /// Whether receipts of so many records can be asked for, as far as that can be said before there are records.
    ///
    /// # Errors
    /// As [`Broker::ask_receipts`].
    pub fn may_ask_receipts(&self, count: usize, timeout: Duration) -> Result<(), BrokerError> {
        let refuse = |kind, message: String| Err(BrokerError::new(kind, message));
        if timeout.is_zero() || timeout > LONGEST {
            let (asked, longest) = (Millis(timeout.as_millis() as u64), Millis(LONGEST.as_millis() as u64));
            return refuse(
                ErrorKind::InvalidRequest,
                format!("a receipt within {asked}; allowed are 1ms to {longest}"),
            );
        }
        let (table, client) = (lock(&self.receipts.table), Client::current());
        if !table.has_room(count) {
            return refuse(ErrorKind::Overloaded, full(&table));
        }
        let (left, own) = table.share_left(client);
        if count > left {
            return refuse(ErrorKind::Overloaded, beyond_share(&table, client, own));
        }
        Ok(())
    }

    /// Asks for receipts of records that a group is to process: for each, what became of it in the group, or after
    /// `timeout` that nothing has, is to be POSTed to the URL. When this returns, that is durable. The same again is the same,
    /// also with another timeout.
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
        let refuse = |kind, message: String| Err(BrokerError::new(kind, message));
        if records.len() > MAX_ASKED {
            let message = format!("receipts of {} records at once; the limit is {MAX_ASKED}", records.len());
            return refuse(ErrorKind::TooLarge, message);
        }
        // The same again needs no room.
        self.may_ask_receipts(0, timeout)?;
        let topics: BTreeSet<&TopicName> = records.iter().map(|record| &record.topic).collect();
        for topic in topics {
            self.group_reads(group, topic).await?;
        }
        let entries = self.receipts_of(group, url, records, timeout).await?;
        if self.receipts.is_stopped() {
            return refuse(ErrorKind::ShuttingDown, "the server is stopping".to_owned());
        }
        let (mut changed, mut new, mut refused) = (Vec::with_capacity(entries.len()), 0, None);
        {
            let mut table = lock(&self.receipts.table);
            for entry in entries {
                let place = entry.place.clone();
                match table.ask(entry, Client::current()) {
                    Ok(Asked::New(gone)) => {
                        changed.extend(gone.into_iter().chain([place]));
                        new += 1;
                    }
                    Ok(Asked::Same) => {}
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
        self.metrics.receipts_asked.inc_by(new);
        self.receipts.wake.notify_one();
        match refused {
            None => Ok(()),
            Some((_, NotAsked::Full)) => refuse(ErrorKind::Overloaded, full(&lock(&self.receipts.table))),
            Some((_, NotAsked::Share(own))) => {
                let message = beyond_share(&lock(&self.receipts.table), Client::current(), own);
                refuse(ErrorKind::Overloaded, message)
            }
            Some((at, NotAsked::Elsewhere(url))) => refuse(
                ErrorKind::InvalidRequest,
                format!(
                    "the receipt of group '{group}' for partition {} offset {} goes to {url} already",
                    at.partition, at.offset
                ),
            ),
        }
    }

    /// Receipts to be, of records that are on the disk when this returns.
    async fn receipts_of(
        &self,
        group: &GroupName,
        url: &str,
        records: &[RecordAt],
        timeout: Duration,
    ) -> Result<Vec<ReceiptEntry>, BrokerError> {
        let asked_ms = self.clock.now_ms();
        let until_ms = asked_ms.saturating_add(TimestampMs::try_from(timeout.as_millis()).unwrap_or(TimestampMs::MAX));
        let mut entries = Vec::with_capacity(records.len());
        let mut ends: BTreeMap<(&TopicName, PartitionId), Offset> = BTreeMap::new();
        for RecordAt { topic, partition, offset } in records {
            let open = self.topic_of(topic)?;
            let end = open.partition(*partition)?.log()?.with(|log| log.written_end());
            if *offset >= end {
                let message = format!(
                    "topic '{topic}' partition {partition} has no record at offset {offset} yet: it ends at {end}"
                );
                return Err(BrokerError::new(ErrorKind::OffsetOutOfRange, message));
            }
            let behind = ends.entry((topic, *partition)).or_default();
            *behind = (*behind).max(offset + 1);
            let id = open.entry.id;
            let place = ReceiptPlace { topic: id, partition: *partition, offset: *offset, group: group.clone() };
            let (topic, url) = (topic.clone(), url.to_owned());
            entries.push(ReceiptEntry { place, topic, url, asked_ms, until_ms, news: None, given_up: None });
        }
        // A power cut takes what is only written, and another record comes to its offset.
        for ((topic, partition), end) in ends {
            self.topic_of(topic)?.partition(partition)?.synced(end).await?;
        }
        Ok(entries)
    }

    /// Nobody wants the receipts of a group any more, or those of it that go to a URL. How many those were.
    ///
    /// # Errors
    /// The disk's; then they may be there again after a restart.
    pub async fn cancel_receipts(&self, group: &GroupName, url: Option<&str>) -> Result<u64, BrokerError> {
        let places = lock(&self.receipts.table).cancel(group, url);
        self.receipts.keep(self, &places);
        self.queues.keeper.kept().await?;
        Ok(places.len() as u64)
    }

    /// Whether it is still to be sent.
    pub fn is_receipt_wanted(&self, place: &ReceiptPlace) -> bool {
        lock(&self.receipts.table).get(place).is_some()
    }

    /// Goes on with the receipts that were kept, if there are any.
    pub(crate) fn resume_receipts(self: &Arc<Self>) {
        if !lock(&self.receipts.table).is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            self.decide_receipts();
        }
    }

    fn decide_receipts(self: &Arc<Self>) {
        if !self.receipts.running.swap(true, Ordering::AcqRel) {
            task::spawn("decider of receipts", decider::run(Arc::downgrade(self)));
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
