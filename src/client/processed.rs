//! Waiting for what becomes of records in a group: many waiters, few requests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};

use crate::protocol::{Processed, ReceiptOutcome, RecordAt};

use super::ClientError;
use super::link::{Again, Link, pause};

/// How long the server may wait with an answer; shorter than a request may take.
const WAIT: Duration = Duration::from_secs(10);
/// Records of one request: with names of any length they fit a frame.
const AT_ONCE: usize = 3_000;
/// Requests under way at a time.
const REQUESTS: usize = 8;
/// How long the first of several may wait for others.
const GATHER: Duration = Duration::from_millis(2);

type Told = oneshot::Sender<Result<ReceiptOutcome, ClientError>>;

/// Those who wait for records in one group.
#[derive(Debug)]
struct Hub {
    group: String,
    inside: Mutex<Inside>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: HashMap<RecordAt, Vec<Told>>,
    /// Those that no request under way asks about.
    fresh: HashSet<RecordAt>,
}

/// The hubs of a client, by group.
#[derive(Debug, Default)]
pub(crate) struct Hubs(Mutex<HashMap<String, Weak<Hub>>>);

impl Hubs {
    /// Waits until it is known what became of a record.
    ///
    /// # Errors
    /// The server refuses: there is no such topic or group name.
    pub(crate) async fn outcome(
        link: &Arc<Link>,
        group: &str,
        record: RecordAt,
    ) -> Result<ReceiptOutcome, ClientError> {
        let (told, outcome) = oneshot::channel();
        let hub = link.hubs().hub(link, group);
        {
            let mut inside = hub.lock();
            inside.fresh.insert(record.clone());
            inside.waiting.entry(record).or_default().push(told);
        }
        hub.more.notify_one();
        // The hub's task ends only with those who wait.
        outcome.await.unwrap_or_else(|_| {
            Err(ClientError::new(crate::base::ErrorKind::Disconnected, "the client is shutting down"))
        })
    }

    fn hub(&self, link: &Arc<Link>, group: &str) -> Arc<Hub> {
        let mut hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hubs.get(group).and_then(Weak::upgrade) {
            return hub;
        }
        let hub = Arc::new(Hub { group: group.to_owned(), inside: Mutex::default(), more: Notify::new() });
        hubs.insert(group.to_owned(), Arc::downgrade(&hub));
        tokio::spawn(Arc::clone(&hub).run(Arc::downgrade(link)));
        hub
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks as long as the client lives.
    async fn run(self: Arc<Self>, link: Weak<Link>) {
        let mut requests = FuturesUnordered::new();
        loop {
            if requests.len() < REQUESTS {
                let records = self.lock().take();
                if !records.is_empty() {
                    let Some(link) = link.upgrade() else { return };
                    requests.push(self.ask(link, records));
                    continue;
                }
            }
            tokio::select! {
                Some(()) = requests.next() => {}
                () = self.more.notified(), if requests.len() < REQUESTS => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(WAIT) => {
                    if link.strong_count() == 0 {
                        return;
                    }
                }
            }
        }
    }

    async fn ask(&self, link: Arc<Link>, records: Vec<RecordAt>) {
        let wait = WAIT.min(link.config().request_timeout / 2);
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = Processed { group: self.group.clone(), records, wait_ms };
        match link.ask(&request, Again::Yes).await {
            Ok(answer) => {
                let mut inside = self.lock();
                for done in answer.done {
                    for told in inside.waiting.remove(&done.record).unwrap_or_default() {
                        // Who no longer waits need not know.
                        let _ = told.send(Ok(done.outcome));
                    }
                }
                inside.again(request.records);
            }
            Err(error) if error.is_retriable() => {
                tokio::time::sleep(error.retry_after().unwrap_or_default().max(pause(3))).await;
                self.lock().again(request.records);
            }
            Err(error) => {
                let mut inside = self.lock();
                for record in request.records {
                    for told in inside.waiting.remove(&record).unwrap_or_default() {
                        let _ = told.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

impl Inside {
    fn take(&mut self) -> Vec<RecordAt> {
        let records: Vec<_> = self.fresh.iter().take(AT_ONCE).cloned().collect();
        for record in &records {
            self.fresh.remove(record);
        }
        records
    }

    /// These are still to be asked about, unless nobody waits for them any more.
    fn again(&mut self, records: Vec<RecordAt>) {
        for record in records {
            if let Some(waiting) = self.waiting.get_mut(&record) {
                waiting.retain(|told| !told.is_closed());
                if waiting.is_empty() {
                    self.waiting.remove(&record);
                } else {
                    self.fresh.insert(record);
                }
            }
        }
    }
}
