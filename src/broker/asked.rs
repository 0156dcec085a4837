//! Metrics for whoever asks: a thread that looks at what is only looked at then, and writes everything down.
//!
//! It may have to wait for a lock that somebody holds while the disk hangs. Whoever asked is answered all the same, after
//! [`PATIENCE`], with the gauges of the last look and how old they are.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::base::{ErrorKind, guard};

use super::broker::lock;
use super::{Broker, BrokerError};

/// How long a look may take before the last one has to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes all metrics down as text.
pub type Encode = Arc<dyn Fn() -> String + Send + Sync>;

/// Where it is asked.
pub(crate) struct Asked {
    work: Arc<(Mutex<Work>, Condvar)>,
    /// Which question was answered last, and the answer.
    answered: watch::Sender<(u64, Arc<str>)>,
    /// When the last look ended.
    looked: Mutex<Instant>,
}

#[derive(Default)]
struct Work {
    asked: u64,
    answered: u64,
    encode: Option<Encode>,
    stop: bool,
}

impl Asked {
    pub(crate) fn new() -> Self {
        Self {
            work: Arc::default(),
            answered: watch::Sender::new((0, Arc::from(""))),
            looked: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn start(&self, broker: &Arc<Broker>) -> Result<(), BrokerError> {
        let (weak, work) = (Arc::downgrade(broker), Arc::clone(&self.work));
        let thread = guard::thread("tidelog-metrics", 512 * 1024, move || run(&weak, &work))
            .map_err(|error| BrokerError::new(ErrorKind::Io, format!("cannot start the metrics thread: {error}")))?;
        // It may wait for a lock for long, so nobody waits for its end.
        drop(thread);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        lock(&self.work.0).stop = true;
        self.work.1.notify_all();
    }

    /// Seconds since the last look ended.
    pub(crate) fn age(&self) -> f64 {
        lock(&self.looked).elapsed().as_secs_f64()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(broker: &Weak<Broker>, work: &(Mutex<Work>, Condvar)) {
    loop {
        let mut held = lock(&work.0);
        while held.asked == held.answered && !held.stop {
            held = work.1.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        if held.stop {
            return;
        }
        let (asked, encode) = (held.asked, held.encode.take());
        drop(held);
        let Some(broker) = broker.upgrade() else { return };
        broker.observe();
        *lock(&broker.asked.looked) = Instant::now();
        lock(&work.0).answered = asked;
        let text = encode.map_or(String::new(), |encode| encode());
        broker.asked.answered.send_replace((asked, Arc::from(text)));
    }
}

impl Broker {
    /// All metrics as they are now, as `encode` writes them down. Gauges that are only set when somebody asks may be those of
    /// an earlier time if they cannot be had at once.
    pub async fn metrics_text(&self, encode: Encode) -> Arc<str> {
        let mut answered = self.asked.answered.subscribe();
        let number = {
            let mut work = lock(&self.asked.work.0);
            work.asked += 1;
            work.encode = Some(Arc::clone(&encode));
            work.asked
        };
        self.asked.work.1.notify_all();
        let answer = tokio::time::timeout(PATIENCE, answered.wait_for(|(answered, _)| *answered >= number)).await;
        match answer {
            Ok(Ok(answer)) => Arc::clone(&answer.1),
            // Only in trouble, so a thread of the runtime may be held up for it.
            _ => Arc::from(encode()),
        }
    }

    /// Sets what is known without a lock, and writes all metrics down.
    pub fn encode_metrics(&self, more: Option<&prometheus_client::registry::Registry>) -> String {
        self.observe_health();
        self.metrics.encode(more)
    }
}
