//! Receipts that are to be POSTed, as a table: which are waited for, what each says, which are to be sent. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::clients::{Client, Shares, share_of};
use crate::base::{GroupName, Offset, PartitionId, TimestampMs, TopicId, TopicName};
use crate::catalog::{GivenUp, Place, Processed, ReceiptEntry, ReceiptNews, ReceiptPlace};

/// Bytes of their URLs that the table holds for each receipt.
pub(crate) const URL_BYTES: usize = 160;

/// Why a receipt is not taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAsked {
    /// It goes to another URL already.
    Elsewhere(String),
    /// So many are held.
    Full,
    /// The client has asked for so many, which is its share.
    Share(usize),
}

/// What came of asking for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is held from now on; these made room for it.
    New(Vec<ReceiptPlace>),
    /// It was before.
    Same,
}

/// One that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) place: ReceiptPlace,
    pub(crate) topic: TopicName,
    pub(crate) asked_ms: TimestampMs,
    pub(crate) until_ms: TimestampMs,
}

/// Which of those that wait are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All.
    All,
    /// Those of which it is not known that they are not done, and those whose time is over.
    Fresh(TimestampMs),
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
#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<ReceiptPlace, ReceiptEntry>,
    /// Receipts that it holds; beyond, those that were given up first make room.
    most: usize,
    /// Who has asked for those that were not given up.
    asked: Shares<ReceiptPlace>,
    url_bytes: usize,
    /// Those of which it is not known what they say, with when their time is over.
    waiting: BTreeMap<ReceiptPlace, TimestampMs>,
    untils: BTreeSet<(TimestampMs, ReceiptPlace)>,
    /// Of these, those that were not done when it was looked: whoever commits a group's progress sees to them.
    attached: BTreeMap<(GroupName, TopicId, PartitionId), BTreeSet<Offset>>,
    /// They are to be sent, and nobody has been told yet.
    to_send: Vec<ReceiptPlace>,
    given_up: BTreeSet<(TimestampMs, ReceiptPlace)>,
    /// Why those could not be delivered that are tried again.
    troubles: BTreeMap<ReceiptPlace, String>,
}

impl Table {
    /// An empty table for so many receipts.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            most,
            asked: Shares::default(),
            url_bytes: 0,
            waiting: BTreeMap::new(),
            untils: BTreeSet::new(),
            attached: BTreeMap::new(),
            to_send: Vec::new(),
            given_up: BTreeSet::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// The table as it was kept.
    pub(crate) fn restore(entries: impl IntoIterator<Item = ReceiptEntry>, most: usize) -> Self {
        let mut table = Self::new(most);
        for entry in entries {
            let place = entry.place.clone();
            match (&entry.given_up, &entry.news) {
                (Some(given_up), _) => drop(table.given_up.insert((given_up.at_ms, place.clone()))),
                (None, Some(_)) => table.to_send.push(place.clone()),
                (None, None) => table.wait(&entry),
            }
            table.url_bytes += entry.url.len();
            table.entries.insert(place, entry);
        }
        table
    }

    fn wait(&mut self, entry: &ReceiptEntry) {
        self.waiting.insert(entry.place.clone(), entry.until_ms);
        self.untils.insert((entry.until_ms, entry.place.clone()));
    }

    /// Whether so many more can be held.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.entries.len() - self.given_up.len() + count <= self.most && self.url_bytes <= self.most_url_bytes()
    }

    /// How many more a client may ask for, and how many it has asked for.
    pub(crate) fn share_left(&self, client: Client) -> (usize, usize) {
        let own = self.asked.count(client);
        (share_of(self.most).saturating_sub(own), own)
    }

    /// The clients that have asked for most receipts that wait.
    pub(crate) fn top_clients(&self, clients: usize) -> Vec<(Client, usize)> {
        self.asked.top(clients)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn most_url_bytes(&self) -> usize {
        self.most.saturating_mul(URL_BYTES)
    }

    /// Takes one in. The same again is the same, whatever has become of it; one that was given up begins anew.
    pub(crate) fn ask(&mut self, entry: ReceiptEntry, client: Client) -> Result<Asked, NotAsked> {
        if let Some(known) = self.entries.get(&entry.place) {
            if known.given_up.is_none() {
                let same = known.url == entry.url;
                return if same { Ok(Asked::Same) } else { Err(NotAsked::Elsewhere(known.url.clone())) };
            }
            self.remove(&entry.place);
        }
        let (left, own) = self.share_left(client);
        if left == 0 {
            return Err(NotAsked::Share(own));
        }
        let mut gone = Vec::new();
        while self.entries.len() >= self.most || self.url_bytes + entry.url.len() > self.most_url_bytes() {
            let Some((_, oldest)) = self.given_up.first().cloned() else { return Err(NotAsked::Full) };
            self.remove(&oldest);
            gone.push(oldest);
        }
        self.asked.add(entry.place.clone(), client);
        self.wait(&entry);
        self.url_bytes += entry.url.len();
        self.entries.insert(entry.place.clone(), entry);
        Ok(Asked::New(gone))
    }

    fn no_longer_waits(&mut self, place: &ReceiptPlace) -> bool {
        let Some(until_ms) = self.waiting.remove(place) else { return false };
        self.untils.remove(&(until_ms, place.clone()));
        let at = (place.group.clone(), place.topic, place.partition);
        if let Some(offsets) = self.attached.get_mut(&at) {
            offsets.remove(&place.offset);
            if offsets.is_empty() {
                self.attached.remove(&at);
            }
        }
        true
    }

    fn remove(&mut self, place: &ReceiptPlace) -> bool {
        let Some(entry) = self.entries.remove(place) else { return false };
        self.asked.remove(place);
        self.url_bytes -= entry.url.len();
        self.no_longer_waits(place);
        self.troubles.remove(place);
        if let Some(given_up) = entry.given_up {
            self.given_up.remove(&(given_up.at_ms, place.clone()));
        }
        true
    }

    pub(crate) fn get(&self, place: &ReceiptPlace) -> Option<&ReceiptEntry> {
        self.entries.get(place)
    }

    /// Those that wait, by group.
    pub(crate) fn waiting(&self, which: Which) -> BTreeMap<GroupName, Vec<Waiting>> {
        let is_attached = |place: &ReceiptPlace| {
            let at = (place.group.clone(), place.topic, place.partition);
            self.attached.get(&at).is_some_and(|offsets| offsets.contains(&place.offset))
        };
        let wanted = |(place, until_ms): &(&ReceiptPlace, &TimestampMs)| match which {
            Which::All => true,
            Which::Fresh(now) => **until_ms <= now || !is_attached(place),
        };
        let mut found: BTreeMap<GroupName, Vec<Waiting>> = BTreeMap::new();
        for (place, until_ms) in self.waiting.iter().filter(wanted) {
            let Some(entry) = self.entries.get(place) else { continue };
            let (asked_ms, until_ms) = (entry.asked_ms, *until_ms);
            let waiting = Waiting { place: place.clone(), topic: entry.topic.clone(), asked_ms, until_ms };
            found.entry(place.group.clone()).or_default().push(waiting);
        }
        found
    }

    /// One that waits is not done at this moment. Whoever commits the group's progress sees to it from now on.
    pub(crate) fn attach(&mut self, place: &ReceiptPlace) {
        if self.waiting.contains_key(place) {
            let at = (place.group.clone(), place.topic, place.partition);
            self.attached.entry(at).or_default().insert(place.offset);
        }
    }

    /// The group begins anew somewhere: all of its are to be looked at again.
    pub(crate) fn detach(&mut self, group: &GroupName) {
        self.attached.retain(|(of, ..), _| of != group);
    }

    /// Those that are attached, in a stretch of a partition.
    pub(crate) fn attached(&self, at: &Place, offsets: Range<Offset>) -> Vec<ReceiptPlace> {
        if self.attached.is_empty() || offsets.is_empty() {
            return Vec::new();
        }
        let found = self.attached.get(&(at.group.clone(), at.topic, at.partition));
        let place = |offset: &Offset| ReceiptPlace {
            topic: at.topic,
            partition: at.partition,
            offset: *offset,
            group: at.group.clone(),
        };
        found.into_iter().flat_map(|of| of.range(offsets.clone())).map(place).collect()
    }

    /// Those that wait, attached or not, in a stretch of a partition.
    pub(crate) fn waiting_in(&self, at: &Place, offsets: Range<Offset>) -> Vec<ReceiptPlace> {
        if offsets.is_empty() {
            return Vec::new();
        }
        let (topic, partition) = (at.topic, at.partition);
        let place = |offset| ReceiptPlace { topic, partition, offset, group: at.group.clone() };
        let found = self.waiting.range(place(offsets.start)..place(offsets.end)).map(|(place, _)| place);
        found.filter(|place| place.group == at.group).cloned().collect()
    }

    /// It is known what one says: `None` for nothing until its time was over. Whether it was waited for. It is sent once that is
    /// durable ([`Table::decided`]).
    pub(crate) fn decide(&mut self, place: &ReceiptPlace, processed: Option<Processed>, now: TimestampMs) -> bool {
        if !self.no_longer_waits(place) {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(place) {
            entry.news = Some(ReceiptNews { processed, at_ms: now });
        }
        true
    }

    /// What these say could not be kept, so it is not known after all.
    pub(crate) fn undecide(&mut self, places: &[ReceiptPlace]) {
        for place in places {
            let Some(entry) = self.entries.get_mut(place) else { continue };
            entry.news = None;
            let entry = entry.clone();
            self.wait(&entry);
            self.attach(place);
        }
    }

    /// What these say is durable.
    pub(crate) fn decided(&mut self, places: impl IntoIterator<Item = ReceiptPlace>) {
        self.to_send.extend(places);
    }

    /// Nobody wants those of a group any more, or those of it that go to a URL.
    pub(crate) fn cancel(&mut self, group: &GroupName, url: Option<&str>) -> Vec<ReceiptPlace> {
        let wanted = |entry: &&ReceiptEntry| entry.place.group == *group && url.is_none_or(|url| entry.url == url);
        let places: Vec<_> = self.entries.values().filter(wanted).map(|entry| entry.place.clone()).collect();
        for place in &places {
            self.remove(place);
        }
        places
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
        self.asked.remove(place);
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
