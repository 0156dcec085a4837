//! Subscriptions: a task each that reads on and pushes, as far as the client's credit goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::mapping::{self, Refusal};
use super::purse::Purse;
use super::reading::{Want, read};
use super::session::{Answer, Session};
use crate::base::ErrorKind;
use crate::broker::{Fetched, PartitionEnds};
use crate::expr::Filter;
use crate::protocol::{Credit, Delivery, Kind, Subscribe, SubscribeOk};
use crate::server::tasks;

/// The most that one delivery carries, unless one batch is larger. Small, so that subscriptions take turns.
const DELIVERY_BYTES: usize = 1024 * 1024;
/// How long one wait for new records lasts before it is begun again.
const WAIT: Duration = Duration::from_secs(60);
/// Characters of a filter's reason.
const REASON_CHARS: usize = 200;
/// What a delivery weighs in the budget beside its batches.
const DELIVERY_OVERHEAD: usize = 256;

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    next_id: AtomicU64,
    running: Mutex<HashMap<u64, Running>>,
}

#[derive(Debug)]
struct Running {
    purse: Arc<Purse>,
    task: Option<JoinHandle<()>>,
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds credit. For a subscription that has just ended it is too late, which is no fault of the client's.
    pub fn add_credit(&self, credit: &Credit) {
        if let Some(running) = self.lock().get(&credit.subscription) {
            running.purse.add(credit.records, credit.bytes);
        }
    }

    /// Ends one; when this returns, nothing more is pushed for it.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn end(&self, id: u64) -> Result<(), Refusal> {
        let running = self.lock().remove(&id);
        let Some(running) = running else {
            return Err(Refusal::new(ErrorKind::NotFound, format!("there is no subscription {id}")));
        };
        if let Some(task) = running.task {
            task.abort();
            let _ = task.await;
        }
        Ok(())
    }

    /// Ends all: waits a moment for those that have something to say, then stops them.
    pub async fn end_all(&self, patience: Duration) {
        let all: Vec<Running> = self.lock().drain().map(|(_, running)| running).collect();
        let deadline = tokio::time::Instant::now() + patience;
        for mut task in all.into_iter().filter_map(|running| running.task) {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
    }
}

/// Begins a subscription and answers the request; what is pushed comes behind the answer.
pub async fn subscribe(session: &Arc<Session>, correlation: u64, slot: OwnedSemaphorePermit, request: Subscribe) {
    let kind = Kind::Subscribe.code();
    let (id, purse, filter, answer) = match begin(session, &request) {
        Ok(begun) => begun,
        Err(refusal) => {
            tracing::debug!(topic = request.topic, partition = request.partition, %refusal, "subscribe refused");
            return session.answer::<SubscribeOk>(kind, correlation, Some(slot), Err(refusal));
        }
    };
    tracing::debug!(topic = request.topic, partition = request.partition, offset = request.offset, id, "subscribed");
    session.answer(kind, correlation, Some(slot), Ok(answer.into()));
    // Under the lock, so that whoever ends the subscription finds either nothing begun or the task.
    if let Some(running) = session.subscriptions.lock().get_mut(&id) {
        let counted = Counted::new(&session.shared.metrics.subscriptions);
        let run = run(session.clone(), id, purse, filter, request);
        running.task = Some(tasks::spawn("subscription", async move {
            let _counted = counted;
            run.await;
            Ok::<(), Refusal>(())
        }));
    }
}

type Begun = (u64, Arc<Purse>, Option<Arc<Filter>>, SubscribeOk);

fn begin(session: &Session, request: &Subscribe) -> Result<Begun, Refusal> {
    let filter = request.filter.as_deref().map(mapping::filter).transpose()?;
    let broker = &session.shared.broker;
    let ends = broker.partition_ends(&request.topic, request.partition)?;
    let PartitionEnds { log_start, written, .. } = ends;
    if request.offset < log_start || request.offset > written {
        let message = format!(
            "offset {} of {}/{} is out of range: the partition has {log_start} to {written}",
            request.offset, request.topic, request.partition
        );
        let range = Some((log_start, written));
        return Err(Refusal { kind: ErrorKind::OffsetOutOfRange, message, range });
    }
    let limit = session.shared.config.max_subscriptions;
    let mut running = session.subscriptions.lock();
    if running.len() >= limit {
        let message = format!("this connection has {limit} subscriptions, which is the most");
        return Err(Refusal::new(ErrorKind::Overloaded, message));
    }
    let id = session.subscriptions.next_id.fetch_add(1, Ordering::Relaxed) + 1;
    let purse = Arc::new(Purse::new(request.credit_records, request.credit_bytes));
    running.insert(id, Running { purse: purse.clone(), task: None });
    Ok((id, purse, filter, SubscribeOk { subscription: id, log_start, stable_end: ends.end(request.isolation) }))
}

/// Pushes until something ends it, and says what.
async fn run(session: Arc<Session>, id: u64, purse: Arc<Purse>, filter: Option<Arc<Filter>>, request: Subscribe) {
    let end = tokio::select! {
        refusal = deliver(&session, id, &purse, filter.as_ref(), &request) => Some(refusal),
        () = session.closing() => session
            .shared
            .is_stopping()
            .then(|| Refusal::new(ErrorKind::ShuttingDown, "the server is stopping")),
    };
    session.subscriptions.lock().remove(&id);
    if let Some(refusal) = end {
        tracing::debug!(topic = request.topic, partition = request.partition, id, %refusal, "subscription ended");
        session.push_end(id, &refusal).await;
    }
}

async fn deliver(
    session: &Session,
    id: u64,
    purse: &Purse,
    filter: Option<&Arc<Filter>>,
    request: &Subscribe,
) -> Refusal {
    let mut position = request.offset;
    // Whether the client knows that it has all there is.
    let mut told_end = false;
    loop {
        let (records, bytes) = purse.credit().await;
        let want = Want {
            topic: &request.topic,
            partition: request.partition,
            offset: position,
            max_bytes: bytes.min(DELIVERY_BYTES),
            min_bytes: 1,
            max_wait: if told_end { WAIT } else { Duration::ZERO },
            skip_damaged: request.skip_damaged,
            isolation: request.isolation,
            records,
        };
        let (fetched, mut grant) = match read(session, want, filter).await {
            Ok(read) => read,
            Err(refusal) => return refusal,
        };
        let Fetched { bytes: payload, next_offset, stable_end, skipped, unanswered, .. } = fetched;
        let nothing = payload.is_empty() && skipped.is_empty() && next_offset == position;
        if nothing && told_end {
            continue;
        }
        let mut skipped = mapping::skipped(&skipped);
        grant.settle(payload.len() + DELIVERY_OVERHEAD);
        purse.spend(next_offset.saturating_sub(position), payload.len());
        position = next_offset;
        // Where nothing can be read although the end is further, only a change helps: wait for it, do not spin.
        told_end = nothing || position >= stable_end;
        skipped.retain(|skipped| skipped.from < next_offset);
        let (unanswered, reason) = (unanswered.records, unanswered.reason.map(shortened));
        let message = Delivery { subscription: id, next_offset, stable_end, skipped, unanswered, reason };
        if let Err(refusal) = session.push(Kind::Delivery, id, Answer { message, payload, grant: Some(grant) }).await {
            return refusal;
        }
    }
}

/// A reason as it is sent.
fn shortened(reason: String) -> String {
    reason.chars().take(REASON_CHARS).collect()
}

/// Counts itself in a gauge while it lives.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
