//! Saves how far routes are: a task that collects what has moved and commits it, many positions with one sync.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::catalog::Event;

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError};
use super::active::Reading;

/// How long a position may wait for others to share a sync. It is what a crash makes be routed again.
const LINGER: Duration = Duration::from_millis(200);

/// Where readings that have moved are handed in.
#[derive(Default)]
pub(crate) struct Keeper {
    moved: Mutex<Vec<Arc<Reading>>>,
    more: Notify,
    /// Held while positions are collected and committed; who replaces or deletes them holds it too.
    keeping: Mutex<()>,
}

impl Keeper {
    /// Notes that a reading has moved.
    pub(super) fn note(&self, reading: &Arc<Reading>) {
        if !reading.noted.swap(true, Ordering::AcqRel) {
            lock(&self.moved).push(Arc::clone(reading));
            self.more.notify_one();
        }
    }

    /// Commits what there is. Blocks.
    ///
    /// # Errors
    /// The journal's; what was noted stays noted.
    pub(super) fn commit(&self, broker: &Broker) -> Result<(), BrokerError> {
        let _keeping = lock(&self.keeping);
        let moved = std::mem::take(&mut *lock(&self.moved));
        let (mut events, mut held) = (Vec::new(), Vec::new());
        for reading in &moved {
            reading.noted.store(false, Ordering::Release);
            if !reading.is_closed() {
                let mut inside = lock(&reading.inside);
                let progress = Some(inside.progress.clone());
                held.push((reading, inside.take_held()));
                drop(inside);
                events.push(Event::RouteMoved { place: reading.place.clone(), progress });
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let committed = lock(&broker.catalog).commit_all(events, broker.clock.now_ms());
        if committed.is_err() {
            for (reading, held) in held {
                lock(&reading.inside).hold_again(held);
            }
            for reading in &moved {
                self.note(reading);
            }
        }
        Ok(committed?)
    }

    /// Saves until the broker is gone.
    pub(super) async fn run(broker: Weak<Broker>) {
        loop {
            let Some(strong) = broker.upgrade() else { return };
            let routes = Arc::clone(&strong.routes);
            drop(strong);
            routes.keeper.more.notified().await;
            tokio::time::sleep(LINGER).await;
            let Some(broker) = broker.upgrade() else { return };
            let saved = blocking(move || broker.routes.keeper.commit(&broker)).await;
            if let Err(error) = saved {
                tracing::warn!(%error, "positions of routes cannot be kept; trying again");
            }
        }
    }
}
