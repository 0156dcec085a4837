//! Transactions: what a producer writes to several partitions, and the positions of groups that it commits with it, counts
//! as a whole or not at all.
//!
//! Which id belongs to whom and what becomes of its transaction, [`machine`] knows; it is in the journal before anybody is
//! told. [`finish`] writes what was decided to the logs. What is open and what was aborted in a partition, its log knows.

mod admin;
mod error;
mod finish;
mod held;
mod look;
mod machine;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::base::{
    GroupName, Offset, PartitionId, ProducerEpoch, ProducerId, TopicId, TopicName, TrustedClock, limits,
};
use crate::catalog::{Catalog, Event, Place, Position};
use crate::record::{Marker, marker_batch};

use super::broker::{blocking, lock};
use super::task;
use super::{Broker, BrokerConfig, BrokerError, Commit, Terms};
pub use error::TransactionError;
pub use held::Held;
pub use look::{ProducerLook, TransactionLook};
pub use machine::{BeginTransactional, Producer};
use machine::{Begun, Ended, Machine, Now, Rules};

/// How often it is looked for transactions that have been open for too long.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked for ids that nobody uses any more.
const IDLE_CHECK: Duration = Duration::from_secs(60);
/// How often transactions are looked for that hold up readers for long.
const HELD_CHECK: Duration = Duration::from_secs(1);
/// How long it is waited for the end of a transaction; it goes on without anybody waiting.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least time between two lines in the log about producers that are refused.
const REFUSALS_EVERY_MS: u64 = 1_000;

/// The transactions of a broker.
pub(crate) struct Transactions {
    machine: Mutex<Machine>,
    /// Bumped when a transaction has been ended in all its partitions.
    done: watch::Sender<u64>,
    /// Something was decided.
    wake: Notify,
    running: AtomicBool,
    refusals: Mutex<Refusals>,
}

/// What was said in the log about producers that are refused: a line a second, so that a peer cannot fill it.
#[derive(Debug, Default)]
struct Refusals {
    next_ms: u64,
    unsaid: u64,
}

fn now(clock: &TrustedClock) -> Now {
    Now { wall: clock.now_ms(), monotonic: clock.monotonic_ms() }
}

impl Transactions {
    /// As they were kept.
    pub(crate) fn restore(catalog: &Catalog, config: &BrokerConfig, clock: &TrustedClock) -> Self {
        let rules = Rules {
            max_timeout_ms: config.transaction_max_timeout.0,
            expiration_ms: config.transactional_id_expiration.0,
            ..Rules::default()
        };
        // How long ids had been idle before the start counts when they are forgotten, which cannot be taken back.
        let now = Now { wall: clock.final_ms(), ..now(clock) };
        Self {
            machine: Mutex::new(Machine::restore(catalog.transactions().cloned(), rules, now)),
            refusals: Mutex::default(),
            done: watch::Sender::new(0),
            wake: Notify::new(),
            running: AtomicBool::new(false),
        }
    }

    /// Whether a batch may be written to a partition as part of its producer's transaction. While the answer is held, that
    /// does not end.
    pub(crate) fn writing(
        &self,
        (producer, epoch): (ProducerId, ProducerEpoch),
        at: (TopicId, PartitionId),
    ) -> Result<MutexGuard<'_, Machine>, TransactionError> {
        let machine = lock(&self.machine);
        machine.may_write(producer, epoch, at)?;
        Ok(machine)
    }
}

async fn run(broker: Weak<Broker>) {
    let (mut forgot, mut looked) = (Instant::now(), Instant::now());
    loop {
        let Some(strong) = broker.upgrade() else { return };
        for (id, age_ms) in strong.transact(Machine::tick) {
            tracing::warn!(id, age_ms, "a transaction was open for longer than its time-out and is aborted");
        }
        if looked.elapsed() >= HELD_CHECK {
            looked = Instant::now();
            strong.report_held();
        }
        if forgot.elapsed() >= IDLE_CHECK {
            forgot = Instant::now();
            strong.transact(Machine::forget_idle);
        }
        strong.end_decided();
        let transactions = Arc::clone(&strong.transactions);
        drop(strong);
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = transactions.wake.notified() => {}
        }
    }
}

impl Broker {
    /// Goes on with what was being ended, and ends what is open in a log and nobody knows of: its end was damaged, or the
    /// journal is older than the log.
    pub(crate) fn resume_transactions(self: &Arc<Self>) {
        self.abort_unknown();
        if tokio::runtime::Handle::try_current().is_ok() {
            self.run_transactions();
        }
    }

    fn run_transactions(self: &Arc<Self>) {
        if !self.transactions.running.swap(true, Ordering::AcqRel) {
            task::spawn("transactions", run(Arc::downgrade(self)));
        }
    }

    fn abort_unknown(&self) {
        let now_ms = self.clock.now_ms();
        for topic in self.all_topics() {
            for partition in &topic.partitions {
                let Ok(log) = partition.log() else { continue };
                let open = log.with(|log| log.open_transactions());
                let machine = lock(&self.transactions.machine);
                let unknown: Vec<_> = open
                    .into_iter()
                    .filter(|open| !machine.knows(open.producer, (topic.entry.id, partition.number)))
                    .collect();
                drop(machine);
                for open in unknown {
                    tracing::warn!(
                        topic = %partition.topic, partition = partition.number, producer = open.producer, from = open.first,
                        "a transaction is open here of which nothing is known: it is aborted"
                    );
                    let mut batch = marker_batch(open.producer, open.epoch, Marker::Abort, now_ms);
                    if let Err(error) = log.with(|log| log.append(&mut batch, now_ms)) {
                        tracing::error!(topic = %partition.topic, partition = partition.number, %error, "not aborted");
                    }
                    log.request_sync();
                }
            }
        }
    }

    /// A group is being deleted: what was to become of its positions is no more. What is on its way to the journal, who
    /// deletes it forgets after this.
    pub(crate) fn forget_in_transactions(&self, group: &GroupName) {
        self.transact(|machine, now| machine.forget_group(group, now));
    }

    /// As [`Broker::settle_positions`], for positions that wait for the end of a transaction.
    pub(crate) fn settle_staged(&self) -> Vec<String> {
        let end_of = |place: &Place| {
            let topic = self.topic(self.topic_named(place.topic)?.as_str()).ok()?;
            Some(topic.partition(place.partition).ok()?.log().ok()?.with(|log| log.stable_end()))
        };
        let settled = self.transact(|machine, now| machine.settle(end_of, now));
        let note = |(place, was, end): (Place, Offset, Offset)| {
            let (group, partition) = (place.group, place.partition);
            let topic = self.topic_named(place.topic)?;
            Some(format!(
                "group '{group}': position {was} of {topic}/{partition}, in a transaction, is now {end}, its end"
            ))
        };
        settled.into_iter().filter_map(note).collect()
    }

    /// Does something with the machine; what has changed is to be kept.
    fn transact<R>(&self, act: impl FnOnce(&mut Machine, Now) -> R) -> R {
        let mut machine = lock(&self.transactions.machine);
        let result = act(&mut machine, now(&self.clock));
        let changes = machine.take_changes();
        let any = !changes.is_empty();
        // Within the lock, so that what is said later of an id is kept later.
        self.groups.pending.put(changes.into_iter().map(|(id, entry)| Event::TransactionSet { id, entry }));
        drop(machine);
        if any {
            self.queues.keeper.note_pending();
        }
        result
    }

    /// Begins to end what was decided.
    fn end_decided(self: &Arc<Self>) {
        for ending in lock(&self.transactions.machine).take_endings() {
            task::spawn("end of a transaction", finish::finish(Arc::clone(self), ending));
        }
    }

    /// Gives a transactional id to the producer that asks for it: a producer id and an epoch, by which all who had it before
    /// are superseded. A transaction that is open is aborted first.
    ///
    /// # Errors
    /// A [`TransactionError`]; the journal's.
    pub async fn begin_transactional(
        self: &Arc<Self>,
        wanted: BeginTransactional<'_>,
    ) -> Result<(ProducerId, ProducerEpoch), BrokerError> {
        let id = wanted.id;
        if id.is_empty() || id.len() > limits::TRANSACTIONAL_ID_BYTES {
            return Err(TransactionError::Id { bytes: id.len() }.into());
        }
        self.run_transactions();
        let deadline = Instant::now() + PATIENCE;
        let mut done = self.transactions.done.subscribe();
        let mut fresh = None;
        loop {
            let begun = self.transact(|machine, now| machine.begin(wanted, fresh, now));
            match begun.inspect_err(|error| self.say_refused(wanted, error))? {
                Begun::Ready(producer, epoch) => {
                    self.queues.keeper.kept().await?;
                    return Ok((producer, epoch));
                }
                Begun::NeedsProducer => fresh = Some(self.init_producer(None).await?.0),
                Begun::Ending => {
                    self.end_decided();
                    if timeout_at(deadline, done.changed()).await.is_err() {
                        return Err(TransactionError::Ending.into());
                    }
                }
            }
        }
    }

    /// Logs that a producer is refused by a limit: its client says no more than a code.
    fn say_refused(&self, wanted: BeginTransactional<'_>, error: &TransactionError) {
        if !matches!(error, TransactionError::Timeout { .. } | TransactionError::TooManyIds { .. }) {
            return;
        }
        let now = self.clock.monotonic_ms();
        let mut refusals = lock(&self.transactions.refusals);
        if now < refusals.next_ms {
            refusals.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut refusals.unsaid);
        refusals.next_ms = now + REFUSALS_EVERY_MS;
        drop(refusals);
        let (address, client) = (&wanted.client.address, &wanted.client.name);
        tracing::warn!(%error, address, client, unsaid, "a transactional producer is refused");
    }

    /// Makes partitions part of a producer's transaction, which begins with the first; it may write to them then.
    ///
    /// # Errors
    /// A [`TransactionError`]; there is no such partition; the journal's.
    pub async fn add_partitions(
        self: &Arc<Self>,
        who: Producer<'_>,
        partitions: &[(TopicName, PartitionId)],
    ) -> Result<(), BrokerError> {
        let mut places = Vec::with_capacity(partitions.len());
        for (name, number) in partitions {
            let topic = self.topic(name.as_str())?;
            topic.partition(*number)?;
            places.push((topic.entry.id, *number));
        }
        self.transact(|machine, now| machine.add(who, &places, None, now))?;
        self.queues.keeper.kept().await
    }

    /// Makes a group part of a producer's transaction, which may commit positions of it then. The group is made if it is
    /// not there.
    ///
    /// # Errors
    /// A [`TransactionError`]; it is a queue group; the journal's.
    pub async fn add_group(self: &Arc<Self>, who: Producer<'_>, group: &GroupName) -> Result<(), BrokerError> {
        let (broker, name) = (Arc::clone(self), group.clone());
        blocking(move || broker.declare_stream(&name)).await?;
        self.transact(|machine, now| machine.add(who, &[], Some(group), now))?;
        // From here on a look for unused groups finds it in the transaction; one from before finds it used since.
        self.groups.table.touch(group, self.clock.now_ms());
        self.queues.keeper.kept().await
    }

    /// Notes positions of a group that hold once the producer's transaction is committed; for each, in order, what became
    /// of it. Whether the member may commit, the door has checked.
    ///
    /// # Errors
    /// A [`TransactionError`]; the journal's.
    pub async fn stage_positions(
        self: &Arc<Self>,
        who: Producer<'_>,
        group: &GroupName,
        commits: Vec<Commit>,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        let time_ms = self.clock.now_ms();
        let (broker, name) = (Arc::clone(self), group.clone());
        let check = move |commit: Commit| {
            let topic = broker.topic(commit.topic.as_str())?;
            broker.check_commit(&topic, &commit, Terms::AsSaid)?;
            let place = Place { group: name.clone(), topic: topic.entry.id, partition: commit.partition };
            broker.admit_position(&name, (place.topic, place.partition), commit.metadata.len())?;
            let Commit { offset, metadata, leader_epoch, .. } = commit;
            Ok::<_, BrokerError>((place, Position { offset, metadata, time_ms, leader_epoch }))
        };
        let checked = blocking(move || commits.into_iter().map(check).collect::<Vec<_>>()).await;
        let mut positions = Vec::new();
        let outcomes = checked.into_iter().map(|checked| checked.map(|position| positions.push(position))).collect();
        self.transact(|machine, now| machine.stage(who, group, positions, now))?;
        self.queues.keeper.kept().await?;
        Ok(outcomes)
    }

    /// Ends a producer's transaction. When this returns it is decided and on the disk; as a rule it is in force in all its
    /// partitions too, and the positions hold.
    ///
    /// # Errors
    /// A [`TransactionError`]; the journal's.
    pub async fn end_transaction(self: &Arc<Self>, who: Producer<'_>, marker: Marker) -> Result<(), BrokerError> {
        self.run_transactions();
        let deadline = Instant::now() + PATIENCE;
        let mut done = self.transactions.done.subscribe();
        if self.transact(|machine, now| machine.end(who, marker, now))? == Ended::Before {
            return self.queues.keeper.kept().await;
        }
        self.end_decided();
        self.queues.keeper.kept().await?;
        while lock(&self.transactions.machine).is_ending(who.id) {
            if timeout_at(deadline, done.changed()).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Whether a position of a group in a partition waits for the end of a transaction.
    pub fn is_position_staged(&self, group: &GroupName, topic: &TopicName, partition: PartitionId) -> bool {
        let Ok(topic) = self.topic(topic.as_str()) else { return false };
        let place = Place { group: group.clone(), topic: topic.entry.id, partition };
        lock(&self.transactions.machine).is_staged(&place)
    }
}
