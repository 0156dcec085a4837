//! Room on the disk: when appends are refused so that what makes room can still be written.
//!
//! | state | appends | reserve |
//! |---|---|---|
//! | room | taken | held |
//! | less than the low-water mark free | refused | held |
//! | an operation failed for want of room | refused | given up to journal, checkpoints and small files |
//!
//! Appends are taken again when the reserve is made anew and a quarter more than the low-water mark is free beside it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::{Bytes, Condition, ErrorKind, Health, guard};
use crate::disk::Watch;

use super::broker::lock;
use super::{Broker, BrokerError};

/// How often the free space is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What is known of the room.
pub(crate) struct Storage {
    watch: Arc<Watch>,
    health: Arc<Health>,
    low_water: u64,
    /// Less than the low-water mark is free.
    low: AtomicBool,
    /// Free bytes at the last look, −1 if the file system does not tell.
    free: AtomicI64,
    /// Bytes that may be appended before the low-water mark is reached, by the last look.
    left: AtomicI64,
    signal: Arc<(Mutex<Signal>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Signal {
    look: bool,
    stop: bool,
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Storage {
    /// Looks at the room for the first time: takes the reserve into use, makes it if there is room, and gives it up if there is
    /// none, so that whatever the start has to write has some.
    pub(crate) fn open(watch: Arc<Watch>, health: Arc<Health>, low_water: u64) -> Self {
        let storage = Self {
            watch,
            health,
            low_water,
            low: AtomicBool::new(false),
            free: AtomicI64::new(-1),
            left: AtomicI64::new(i64::MAX),
            signal: Arc::default(),
            thread: Mutex::default(),
        };
        if let Err(error) = storage.watch.find_reserve() {
            tracing::warn!(%error, "cannot look for the reserve of room");
        }
        if storage.watch.free_bytes().ok().flatten().is_some_and(|free| free < low_water / 2)
            && let Err(error) = storage.watch.spend_reserve()
        {
            tracing::warn!(%error, "cannot give up the reserve of room");
        }
        storage.look();
        storage
    }

    /// Looks at the free space, makes the reserve if there is room for it, and decides whether appends are taken. Blocks on the
    /// disk.
    pub(crate) fn look(&self) {
        let Ok(free) = self.watch.free_bytes() else { return };
        let Some(mut free) = free else {
            // Nothing to go by but refusals of the disk itself, and no file is there that could be given up.
            self.health.clear(Condition::StorageFull);
            return;
        };
        let enough = self.low_water.saturating_add(self.low_water / 4);
        if !self.watch.is_reserved() && free >= enough.saturating_add(self.watch.reserve_bytes()) {
            match self.watch.make_reserve() {
                Ok(()) => free = free.saturating_sub(self.watch.reserve_bytes()),
                Err(error) => tracing::debug!(%error, "cannot make the reserve of room yet"),
            }
        }
        let low = free < if self.low.load(Ordering::Acquire) { enough } else { self.low_water };
        self.low.store(low, Ordering::Release);
        self.free.store(signed(free), Ordering::Release);
        self.left.store(signed(free).saturating_sub(signed(self.low_water)), Ordering::Release);
        if self.is_refusing() {
            self.health.set(Condition::StorageFull, self.reason());
        } else {
            self.health.clear(Condition::StorageFull);
        }
    }

    fn is_refusing(&self) -> bool {
        self.low.load(Ordering::Acquire) || (self.free.load(Ordering::Acquire) >= 0 && !self.watch.is_reserved())
    }

    fn reason(&self) -> String {
        let free = Bytes(u64::try_from(self.free.load(Ordering::Acquire)).unwrap_or(0));
        let reserve = if self.watch.is_reserved() { 0 } else { self.watch.reserve_bytes() };
        let needed = Bytes(self.low_water.saturating_add(self.low_water / 4).saturating_add(reserve));
        format!(
            "no space for appends: {free} free on the disk, and appends are taken again from {needed} on \
             (storage_low_water is {}); deleting topics and records, retention, settings, commits and acks still work",
            Bytes(self.low_water)
        )
    }

    /// Whether `bytes` may be appended.
    ///
    /// # Errors
    /// [`ErrorKind::StorageFull`], with what is free and what has to be.
    pub(crate) fn admit(&self, bytes: usize) -> Result<(), BrokerError> {
        self.check()?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = self.left.fetch_sub(bytes, Ordering::AcqRel);
        if left >= 0 && left < bytes {
            self.look_soon();
        }
        Ok(())
    }

    /// Whether there is room for what takes up room.
    ///
    /// # Errors
    /// As [`Storage::admit`].
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        if self.is_refusing() {
            return Err(BrokerError::new(ErrorKind::StorageFull, self.reason()));
        }
        Ok(())
    }

    /// Whether not even the reserve is left.
    pub(crate) fn is_spent(&self) -> bool {
        self.free.load(Ordering::Acquire) >= 0 && !self.watch.is_reserved()
    }

    /// Free bytes at the last look.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        u64::try_from(self.free.load(Ordering::Acquire)).ok()
    }

    fn look_soon(&self) {
        lock(&self.signal.0).look = true;
        self.signal.1.notify_all();
    }

    /// Starts the thread that looks again and again.
    pub(crate) fn start(&self, broker: &Arc<Broker>) -> Result<(), BrokerError> {
        let (weak, signal) = (Arc::downgrade(broker), Arc::clone(&self.signal));
        let thread = guard::thread("tidelog-storage", 2 * 1024 * 1024, move || run(&weak, &signal))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the storage thread: {error}")))?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Ends the thread. It may be at the disk, so nobody waits for it.
    pub(crate) fn stop(&self) {
        lock(&self.signal.0).stop = true;
        self.signal.1.notify_all();
        lock(&self.thread).take();
    }
}

fn run(broker: &Weak<Broker>, signal: &(Mutex<Signal>, Condvar)) {
    loop {
        let waiting = |signal: &mut Signal| !signal.look && !signal.stop;
        let held = lock(&signal.0);
        let (mut held, _) = signal.1.wait_timeout_while(held, EVERY, waiting).unwrap_or_else(PoisonError::into_inner);
        if held.stop {
            return;
        }
        held.look = false;
        drop(held);
        let Some(broker) = broker.upgrade() else { return };
        broker.storage.look();
        // Whoever commits next finds out by himself; without anybody it would be ill for ever.
        if broker.health.holds(Condition::Journal) {
            let now = broker.clock.now_ms();
            if let Err(error) = lock(&broker.catalog).try_journal(now) {
                tracing::debug!(%error, "the journal is still not in order");
            }
        }
    }
}
