//! What is *half written* is finished before anything changes that routing depends on: rules, positions, partitions of
//! destinations, which topics there are.
//!
//! Half written are records at or above a reading's position of which a log may hold some outputs. There are three ways to come by
//! them: a write that failed (`begun`), a killed server (what [`survey`](super::runner) finds above the position), and a start after
//! which nobody has looked yet (`surveyed`). All three count the same. A record that is half written is routed again, and
//! only the same rules and the same topics make the same outputs of it, so a change waits for the route to pass it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedRwLockWriteGuard;
use tokio::time::Instant;

use crate::base::{ErrorKind, TopicId, TopicName};

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError};
use super::active::{ActiveRoute, Inside, Reading};

/// How long a change waits for what is half written, and then for the route to stop.
const QUIESCE: Duration = Duration::from_secs(10);
/// How often it is looked whether something is still half written.
const LOOK: Duration = Duration::from_millis(10);

/// A change of something that routing depends on.
pub(crate) enum TopicChange<'a> {
    /// A topic gets more partitions: keys go to other ones. Matters to readings that have half written into this topic.
    Partitions(&'a TopicName),
    /// A topic takes other sizes of records: one may become a dead letter. Matters to routes that may write to this topic.
    Sizes(&'a TopicName),
    /// A topic comes to be: matters to routes that send records to dead letters because they may not make it.
    Created,
    /// A topic goes, and records for it become dead letters, or it is made again. A route that stands still holds up no deletion:
    /// the topic may be the reason.
    Deleted,
}

/// A route that stands still until this is dropped.
pub(super) struct Still {
    broker: Arc<Broker>,
    active: Arc<ActiveRoute>,
}

impl Drop for Still {
    fn drop(&mut self) {
        self.active.changing.store(false, Ordering::Release);
        self.broker.run_route(&self.active);
    }
}

impl Broker {
    /// Stops a route and waits until nothing of it is half written and its positions are saved.
    ///
    /// # Errors
    /// Something half written cannot be finished in time; the route runs again then.
    pub(super) async fn quiesce(self: &Arc<Self>, active: &Arc<ActiveRoute>) -> Result<Still, BrokerError> {
        let until = Instant::now() + QUIESCE;
        // While it runs: what was half written before a kill may lie many records behind the position.
        while active.left_over().is_some() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        let still = self.stop(active).await?;
        match active.unsettled(None) {
            None => Ok(still),
            Some(unsettled) => Err(unsettled.refused()),
        }
    }

    /// Stops a route that is to be deleted. What is half written is finished if that is possible: a route that stands still must
    /// not stay for ever.
    ///
    /// # Errors
    /// It does not stop in time; it runs again then.
    pub(super) async fn quiesce_for_good(self: &Arc<Self>, active: &Arc<ActiveRoute>) -> Result<Still, BrokerError> {
        let until = Instant::now() + QUIESCE;
        while active.left_over().is_some_and(|unsettled| !unsettled.stuck) && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        let still = self.stop(active).await?;
        if let Some(unsettled) = active.unsettled(None) {
            tracing::warn!(route = %active.name(), "the route is deleted, and not all it had begun is written: {}", unsettled.message);
        }
        Ok(still)
    }

    /// Stops a route, and saves its positions. What it is writing at this moment is written to the end, unless that fails.
    async fn stop(self: &Arc<Self>, active: &Arc<ActiveRoute>) -> Result<Still, BrokerError> {
        active.changing.store(true, Ordering::Release);
        let still = Still { broker: Arc::clone(self), active: Arc::clone(active) };
        let tasks: Vec<_> = active.readings().iter().filter_map(|reading| reading.stop()).collect();
        let ended = async {
            for task in tasks {
                // How it ends is nothing to this.
                let _ended = task.await;
            }
        };
        if tokio::time::timeout(QUIESCE, ended).await.is_err() {
            let message = format!("route '{}' does not stop in time; try again", active.name());
            return Err(BrokerError::new(ErrorKind::Busy, message));
        }
        let broker = Arc::clone(self);
        blocking(move || broker.routes.keeper.commit(&broker)).await?;
        Ok(still)
    }

    /// Ends all routes: what they are writing is written and saved, as far as can be. The next start goes on with the rest.
    pub(crate) async fn stop_routes(self: &Arc<Self>) {
        self.routes.stopping.store(true, Ordering::Release);
        for active in self.routes.all() {
            if let Err(error) = self.stop(&active).await {
                tracing::warn!(%error, "it goes on with the next start");
            } else if let Some(unsettled) = active.unsettled(None) {
                tracing::info!("it goes on with the next start: {}", unsettled.message);
            }
        }
    }

    /// Before a change that routes depend on: waits until nothing is half written that the change would make otherwise, and
    /// positions are saved, so that a record that is routed again after a crash goes where it went before. Until the
    /// guard is dropped nothing is written; `None` if the change matters to no route.
    ///
    /// # Errors
    /// A route cannot finish in time; the journal's.
    pub(crate) async fn hold_routes(
        self: &Arc<Self>,
        change: TopicChange<'_>,
    ) -> Result<Option<OwnedRwLockWriteGuard<()>>, BrokerError> {
        let in_topic = match change {
            TopicChange::Partitions(name) => self.topic_of(name).ok().map(|topic| topic.entry.id),
            _ => None,
        };
        let until = Instant::now() + QUIESCE;
        loop {
            let concerned: Vec<_> = self.routes.all().into_iter().filter(|active| change.matters_to(active)).collect();
            if concerned.is_empty() {
                return Ok(None);
            }
            let gate = Arc::clone(&self.routes.gate).write_owned();
            let Ok(guard) = tokio::time::timeout_at(until.max(Instant::now() + LOOK), gate).await else {
                if matches!(change, TopicChange::Deleted) {
                    tracing::warn!("a topic is deleted although a route has been writing for {QUIESCE:?}");
                    return Ok(None);
                }
                return Err(BrokerError::new(ErrorKind::Busy, "routes are writing; try again"));
            };
            let unsettled = concerned.iter().find_map(|active| active.unsettled(in_topic));
            let late = Instant::now() >= until;
            match unsettled {
                Some(unsettled) if matches!(change, TopicChange::Deleted) && (unsettled.stuck || late) => {
                    tracing::warn!("a topic is deleted although a route has not finished: {}", unsettled.message);
                }
                Some(unsettled) if late => return Err(unsettled.refused()),
                Some(_) => {
                    drop(guard);
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                None => {}
            }
            let broker = Arc::clone(self);
            blocking(move || broker.routes.keeper.commit(&broker)).await?;
            self.routes.epoch.fetch_add(1, Ordering::AcqRel);
            return Ok(Some(guard));
        }
    }
}

impl TopicChange<'_> {
    fn matters_to(&self, active: &ActiveRoute) -> bool {
        let route = active.route();
        let spec = route.spec();
        match self {
            Self::Partitions(_) | Self::Deleted => true,
            Self::Sizes(topic) => spec.may_write(topic),
            Self::Created => {
                spec.computes_topics() && (!spec.create_topics || lock(&active.entry).made.len() >= spec.max_topics)
            }
        }
    }
}

/// Why a route's records may not be routed another way now.
struct Unsettled {
    message: String,
    /// It stands still because of an error.
    stuck: bool,
}

impl Unsettled {
    fn refused(&self) -> BrokerError {
        let way_out = if self.stuck { " once that is mended, or delete the route" } else { "" };
        BrokerError::new(ErrorKind::Busy, format!("{}; try again{way_out}", self.message))
    }
}

impl ActiveRoute {
    /// The first reading of which something is half written, in this topic or anywhere, or of which that is not known yet.
    fn unsettled(&self, topic: Option<TopicId>) -> Option<Unsettled> {
        let name = self.name();
        self.readings().iter().find_map(|reading| {
            reading.unsettled(&name, |inside| match topic {
                Some(topic) => inside.is_half_written_to(topic),
                None => inside.is_half_written(),
            })
        })
    }

    /// As [`ActiveRoute::unsettled`], without what is being written at this moment.
    fn left_over(&self) -> Option<Unsettled> {
        let name = self.name();
        self.readings().iter().find_map(|reading| reading.unsettled(&name, Inside::has_left_over))
    }
}

impl Reading {
    fn unsettled(&self, route: &TopicName, is_half_written: impl Fn(&Inside) -> bool) -> Option<Unsettled> {
        if self.is_closed() {
            return None;
        }
        let known = self.surveyed.load(Ordering::Acquire);
        let inside = lock(&self.inside);
        let at = format!("{}/{}", self.topic, self.place.partition);
        let mut message = match known {
            false => format!("it is not known yet how much route '{route}' had written of {at} when the server ended"),
            true if is_half_written(&inside) => {
                let offset = inside.progress.offset;
                format!("route '{route}' has not written all that it makes of {at} from offset {offset} on")
            }
            true => return None,
        };
        let stuck = inside.stuck;
        if let Some(trouble) = inside.trouble.as_ref().filter(|_| stuck) {
            message = format!("{message} ({})", trouble.message);
        }
        Some(Unsettled { message, stuck })
    }
}
