//! Who has which transactional id: given to producers, taken over, counted by address, forgotten.

use std::sync::Arc;

use crate::base::ProducerId;
use crate::catalog::{TransactionEntry, TransactionPhase as Phase};

use super::super::TransactionError;
use super::{BeginTransactional, Begun, LAST_EPOCH, Machine, Now, Rules, Transaction, is_live, shares, weight};

impl Machine {
    /// The machine as it was kept. What was being ended is to be ended. An open transaction has been open for as long as was
    /// kept of it: the time without a server does not count, since its producer could not have ended it.
    pub(crate) fn restore(entries: impl IntoIterator<Item = TransactionEntry>, rules: Rules, now: Now) -> Self {
        let mut machine = Self { rules, began: now.monotonic, ..Self::default() };
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|entry| entry.updated_ms);
        for entry in entries {
            let id: Arc<str> = Arc::from(entry.id.as_str());
            machine.held += weight(&entry);
            if is_live(entry.phase) {
                machine.live.insert(entry.id.clone());
                if entry.phase != Phase::Ongoing {
                    machine.endings.push(entry.id.clone());
                }
            }
            let idle_ms = u64::try_from(now.wall.saturating_sub(entry.updated_ms)).unwrap_or(0);
            machine.insert(id, entry, idle_ms, now);
        }
        machine
    }

    /// Notes a new id.
    pub(super) fn insert(&mut self, id: Arc<str>, entry: TransactionEntry, idle_ms: u64, now: Now) {
        self.by_producer.insert(entry.producer, Arc::clone(&id));
        self.id_bytes += id.len();
        self.shares.add(&entry.client.address);
        let transaction =
            Transaction { entry, since: now.monotonic, idle_ms, finishing: false, reported: false, used: 0 };
        self.ids.insert(Arc::clone(&id), transaction);
        self.used(&id);
    }

    /// Notes that an id was used just now: of those without a transaction, the one used longest ago is forgotten first.
    pub(super) fn used(&mut self, id: &str) {
        self.uses += 1;
        let Some((id, transaction)) = self.ids.get_key_value(id) else { return };
        let (id, before) = (Arc::clone(id), transaction.used);
        let live = is_live(transaction.entry.phase);
        let written = transaction.entry.phase != Phase::Empty || before & shares::HAS_WRITTEN != 0;
        let address = transaction.entry.client.address.clone();
        self.shares.is_busy(&address, before);
        // One that has never had a transaction goes before all others: nothing is lost with it.
        let order = if written { self.uses | shares::HAS_WRITTEN } else { self.uses };
        if !live {
            self.shares.is_idle(&address, order, &id);
        }
        if let Some(transaction) = self.ids.get_mut(&id) {
            transaction.used = order;
        }
    }

    /// Forgets an id.
    pub(super) fn remove(&mut self, id: &str) {
        let Some((key, transaction)) = self.ids.remove_entry(id) else { return };
        self.by_producer.remove(&transaction.entry.producer);
        self.id_bytes -= key.len();
        self.held = self.held.saturating_sub(weight(&transaction.entry));
        self.shares.is_busy(&transaction.entry.client.address, transaction.used);
        self.shares.remove(&transaction.entry.client.address);
        self.live.remove(id);
        self.changed.insert(id.to_owned());
    }

    /// A producer asks for an id: the one who has it, if it says with what (`resume`), else a new one. `fresh` is a producer
    /// id that nobody has, if one was needed.
    pub(crate) fn begin(
        &mut self,
        wanted: BeginTransactional<'_>,
        fresh: Option<ProducerId>,
        now: Now,
    ) -> Result<Begun, TransactionError> {
        let BeginTransactional { id, timeout_ms, resume, client } = wanted;
        if timeout_ms == 0 || timeout_ms > self.rules.max_timeout_ms {
            let most_ms = self.rules.max_timeout_ms;
            return Err(TransactionError::Timeout { id: id.to_owned(), timeout_ms, most_ms });
        }
        let Some(transaction) = self.ids.get_mut(id) else {
            return self.begin_new(wanted, fresh, now);
        };
        let entry = &mut transaction.entry;
        let current = (entry.producer, entry.epoch);
        let before = entry.last_epoch.map(|epoch| (entry.producer, epoch));
        if resume.is_some_and(|resume| resume != current && Some(resume) != before) {
            return Err(TransactionError::Fenced { id: id.to_owned(), epoch: entry.epoch });
        }
        match entry.phase {
            Phase::PrepareCommit | Phase::PrepareAbort => return Ok(Begun::Ending),
            Phase::Ongoing => {
                self.abort(id, resume.is_some(), now);
                return Ok(Begun::Ending);
            }
            Phase::Empty | Phase::Committed | Phase::Aborted => {}
        }
        // Who asks with the epoch before was given none since: the present one is his, unless none is left behind it.
        if resume.is_none_or(|resume| resume == current) || entry.epoch > LAST_EPOCH {
            if entry.epoch >= LAST_EPOCH {
                let Some(fresh) = fresh else { return Ok(Begun::NeedsProducer) };
                let id = self.by_producer.remove(&entry.producer).unwrap_or_else(|| Arc::from(id));
                self.by_producer.insert(fresh, id);
                (entry.producer, entry.epoch, entry.last_epoch) = (fresh, 0, None);
            } else {
                transaction.supersede(resume.is_some());
            }
        }
        let entry = &mut transaction.entry;
        // Of an ended one the order says that the id has had a transaction.
        (entry.phase, entry.timeout_ms, entry.updated_ms) = (Phase::Empty, timeout_ms, now.wall);
        (transaction.since, transaction.idle_ms) = (now.monotonic, 0);
        let ready = Begun::Ready(entry.producer, entry.epoch);
        let (address, used) = (entry.client.address.clone(), transaction.used);
        entry.client.clone_from(client);
        self.shares.is_busy(&address, used);
        self.shares.remove(&address);
        self.shares.add(&client.address);
        self.used(id);
        self.changed.insert(id.to_owned());
        Ok(ready)
    }

    /// An id that is not known: it is new, or was forgotten. A producer that had it before gets a new producer id, as from
    /// Kafka, so that it can go on.
    fn begin_new(
        &mut self,
        wanted: BeginTransactional<'_>,
        fresh: Option<ProducerId>,
        now: Now,
    ) -> Result<Begun, TransactionError> {
        let Some(producer) = fresh else { return Ok(Begun::NeedsProducer) };
        self.make_room(wanted)?;
        let entry = TransactionEntry {
            id: wanted.id.to_owned(),
            producer,
            epoch: 0,
            last_epoch: None,
            timeout_ms: wanted.timeout_ms,
            phase: Phase::Empty,
            started_ms: -1,
            updated_ms: now.wall,
            partitions: Vec::new(),
            groups: Vec::new(),
            positions: Vec::new(),
            client: wanted.client.clone(),
            open_ms: 0,
        };
        self.insert(Arc::from(wanted.id), entry, 0, now);
        self.changed.insert(wanted.id.to_owned());
        Ok(Begun::Ready(producer, 0))
    }

    /// Makes room for a new id: the id without an open transaction that was used longest ago is forgotten, of the client's own
    /// address if that has its share, else of the address that has most.
    fn make_room(&mut self, wanted: BeginTransactional<'_>) -> Result<(), TransactionError> {
        let address = &wanted.client.address;
        while self.shares.count(address) >= self.rules.ids_of_address {
            let oldest = self.shares.oldest_of(address).ok_or_else(|| TransactionError::TooManyIds {
                id: wanted.id.to_owned(),
                what: format!("{} of address {address}", self.rules.ids_of_address),
            })?;
            self.crowded_out += 1;
            self.remove(&oldest);
        }
        while self.ids.len() >= self.rules.ids || self.id_bytes + wanted.id.len() > self.rules.id_bytes {
            let oldest = self.shares.oldest().ok_or_else(|| TransactionError::TooManyIds {
                id: wanted.id.to_owned(),
                what: format!("{}, or {} KiB of them", self.rules.ids, self.rules.id_bytes >> 10),
            })?;
            self.crowded_out += 1;
            self.remove(&oldest);
        }
        Ok(())
    }

    /// Forgets an id that has no open transaction.
    ///
    /// # Errors
    /// There is no such id, or it has one.
    pub(crate) fn forget(&mut self, id: &str) -> Result<(), TransactionError> {
        let entry = self.entry(id).ok_or_else(|| TransactionError::NoId { id: id.to_owned() })?;
        if is_live(entry.phase) {
            let what = "it has an open transaction; abort that first".to_owned();
            return Err(TransactionError::State { id: id.to_owned(), what });
        }
        self.remove(id);
        Ok(())
    }

    /// The transactional id that a producer id belongs to.
    pub(crate) fn id_of(&self, producer: ProducerId) -> Option<&str> {
        self.by_producer.get(&producer).map(|id| &**id)
    }

    /// How many ids there are, how many transactions are open or being ended, and how many ids were forgotten to make room
    /// for others.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        (self.ids.len(), self.live.len(), self.crowded_out)
    }
}
