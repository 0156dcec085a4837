//! Receipts that are to be POSTed, as a table: which are waited for, what each says, which are to be sent. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{GroupName, TimestampMs};
use crate::catalog::{GivenUp, Processed, ReceiptEntry, ReceiptNews, ReceiptPlace};

/// Receipts that the table holds; beyond, those that were given up first make room.
pub(crate) const HELD: usize = 100_000;

/// Why a receipt is not taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAsked {
    /// It goes to another URL already.
    Elsewhere(String),
    /// So many are held.
    Full,
}

/// How many receipts are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiptCounts {
    /// The group has not processed the record yet.
    pub waiting: usize,
    /// It is known what they say, and their endpoint has not taken them yet.
    pub sending: usize,
    /// They are not sent any more.
    pub given_up: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<ReceiptPlace, ReceiptEntry>,
    /// Those of which it is not known what they say, by group.
    waiting: BTreeMap<GroupName, BTreeSet<ReceiptPlace>>,
    untils: BTreeSet<(TimestampMs, ReceiptPlace)>,
    /// It is known what they say, but that is not durable yet.
    deciding: BTreeSet<ReceiptPlace>,
    /// They are to be sent, and nobody has been told yet.
    to_send: Vec<ReceiptPlace>,
    given_up: BTreeSet<(TimestampMs, ReceiptPlace)>,
    /// Why those could not be delivered that are tried again.
    troubles: BTreeMap<ReceiptPlace, String>,
}

impl Table {
    /// The table as it was kept.
    pub(crate) fn restore(entries: impl IntoIterator<Item = ReceiptEntry>) -> Self {
        let mut table = Self::default();
        for entry in entries {
            let place = entry.place.clone();
            match (&entry.given_up, &entry.news) {
                (Some(given_up), _) => drop(table.given_up.insert((given_up.at_ms, place.clone()))),
                (None, Some(_)) => table.to_send.push(place.clone()),
                (None, None) => table.wait(&entry),
            }
            table.entries.insert(place, entry);
        }
        table
    }

    fn wait(&mut self, entry: &ReceiptEntry) {
        self.waiting.entry(entry.place.group.clone()).or_default().insert(entry.place.clone());
        self.untils.insert((entry.until_ms, entry.place.clone()));
    }

    /// Takes one in. The same again is the same, whatever has become of it; one that was given up begins anew. What had to make
    /// room for it is named.
    pub(crate) fn ask(&mut self, entry: ReceiptEntry) -> Result<Option<ReceiptPlace>, NotAsked> {
        if let Some(known) = self.entries.get(&entry.place) {
            if known.given_up.is_none() {
                let same = known.url == entry.url;
                return if same { Ok(None) } else { Err(NotAsked::Elsewhere(known.url.clone())) };
            }
            self.remove(&entry.place);
        }
        let mut gone = None;
        if self.entries.len() >= HELD {
            let Some((_, oldest)) = self.given_up.first().cloned() else { return Err(NotAsked::Full) };
            self.remove(&oldest);
            gone = Some(oldest);
        }
        self.wait(&entry);
        self.entries.insert(entry.place.clone(), entry);
        Ok(gone)
    }

    fn no_longer_waits(&mut self, place: &ReceiptPlace, until_ms: TimestampMs) -> bool {
        if !self.untils.remove(&(until_ms, place.clone())) {
            return false;
        }
        if let Some(of_group) = self.waiting.get_mut(&place.group) {
            of_group.remove(place);
            if of_group.is_empty() {
                self.waiting.remove(&place.group);
            }
        }
        true
    }

    fn remove(&mut self, place: &ReceiptPlace) -> bool {
        let Some(entry) = self.entries.remove(place) else { return false };
        self.no_longer_waits(place, entry.until_ms);
        self.deciding.remove(place);
        self.troubles.remove(place);
        if let Some(given_up) = entry.given_up {
            self.given_up.remove(&(given_up.at_ms, place.clone()));
        }
        true
    }

    pub(crate) fn get(&self, place: &ReceiptPlace) -> Option<&ReceiptEntry> {
        self.entries.get(place)
    }

    /// Those of which it is not known what they say, by group.
    pub(crate) fn waiting(&self) -> Vec<(GroupName, Vec<ReceiptEntry>)> {
        let of_group = |places: &BTreeSet<ReceiptPlace>| {
            places.iter().filter_map(|place| self.entries.get(place)).cloned().collect()
        };
        self.waiting.iter().map(|(group, places)| (group.clone(), of_group(places))).collect()
    }

    /// It is known what one says: `None` for nothing until its time was over. Whether it was waited for.
    pub(crate) fn decide(&mut self, place: &ReceiptPlace, processed: Option<Processed>, now: TimestampMs) -> bool {
        let Some(until_ms) = self.entries.get(place).map(|entry| entry.until_ms) else { return false };
        if !self.no_longer_waits(place, until_ms) {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(place) {
            entry.news = Some(ReceiptNews { processed, at_ms: now });
        }
        self.deciding.insert(place.clone());
        true
    }

    /// Those of which what they say is to be durable before they are sent.
    pub(crate) fn deciding(&self) -> Vec<ReceiptPlace> {
        self.deciding.iter().cloned().collect()
    }

    /// What these say is durable.
    pub(crate) fn decided(&mut self, places: Vec<ReceiptPlace>) {
        let places = places.into_iter().filter(|place| self.deciding.remove(place));
        self.to_send.extend(places.collect::<Vec<_>>());
    }

    /// Those that are to be sent; each is named once.
    pub(crate) fn take_to_send(&mut self) -> Vec<ReceiptEntry> {
        let places = std::mem::take(&mut self.to_send);
        places.iter().filter_map(|place| self.entries.get(place)).cloned().collect()
    }

    /// Its endpoint has it; whether there was such a one.
    pub(crate) fn delivered(&mut self, place: &ReceiptPlace) -> bool {
        self.remove(place)
    }

    /// It could not be delivered, and is tried again.
    pub(crate) fn not_yet(&mut self, place: &ReceiptPlace, reason: &str) {
        if self.entries.contains_key(place) {
            self.troubles.insert(place.clone(), reason.to_owned());
        }
    }

    /// Why it has not been delivered, as far as is known.
    pub(crate) fn trouble(&self, place: &ReceiptPlace) -> Option<&str> {
        let given_up = self.entries.get(place).and_then(|entry| entry.given_up.as_ref());
        given_up.map(|given_up| given_up.reason.as_str()).or_else(|| self.troubles.get(place).map(String::as_str))
    }

    /// It is not sent any more; whether there was such a one.
    pub(crate) fn give_up(&mut self, place: &ReceiptPlace, reason: String, now: TimestampMs) -> bool {
        let Some(entry) = self.entries.get_mut(place).filter(|entry| entry.given_up.is_none()) else { return false };
        entry.given_up = Some(GivenUp { reason, at_ms: now });
        self.troubles.remove(place);
        self.given_up.insert((now, place.clone()));
        true
    }

    /// Forgets those that were given up before.
    pub(crate) fn forget(&mut self, before: TimestampMs) -> Vec<ReceiptPlace> {
        let mut forgotten = Vec::new();
        while let Some((at, place)) = self.given_up.first().cloned()
            && at < before
        {
            self.remove(&place);
            forgotten.push(place);
        }
        forgotten
    }

    /// When the time of the next one is over.
    pub(crate) fn next_until(&self) -> Option<TimestampMs> {
        self.untils.first().map(|(until, _)| *until)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn counts(&self) -> ReceiptCounts {
        let (waiting, given_up) = (self.untils.len(), self.given_up.len());
        ReceiptCounts { waiting, given_up, sending: self.entries.len() - waiting - given_up }
    }

    /// In order of their places, behind one.
    pub(crate) fn after(&self, place: Option<&ReceiptPlace>) -> impl Iterator<Item = &ReceiptEntry> {
        let from = place.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.entries.range::<ReceiptPlace, _>((from, std::ops::Bound::Unbounded)).map(|(_, entry)| entry)
    }
}
