//! Intents that nobody is at work on: those that a crash left, and those of groups that have let go of a topic. What was written
//! is found out, and that it was is kept, so that the logs that are held because of it are let go of, though the group may never
//! be used again.

use std::sync::{Arc, Mutex, OnceLock};

use tokio::runtime::Handle;

use crate::catalog::{GroupKind, Place, QueueSettings};
use crate::record::Record;

use super::super::broker::lock;
use super::super::hold::Hold;
use super::super::task;
use super::super::{Broker, BrokerError};
use super::bury::{Intent, is_request};
use super::keeper::event_of;
use super::machine::Machine;
use super::redrive;

/// What could not be found out yet.
#[derive(Default)]
pub(crate) struct Unsettled {
    burials: Mutex<Vec<Burial>>,
    /// Requests that are dead letters, as it turned out, which those who asked are to be told.
    given_up: Mutex<Vec<Record>>,
    /// Where tasks are run.
    runtime: OnceLock<Handle>,
}

/// Dead letters of a partition that may have been written.
struct Burial {
    place: Place,
    rules: QueueSettings,
    /// Of the logs that they go to; only there to be held.
    _holds: Vec<Hold>,
}

impl Broker {
    /// At the start, before anything can be deleted, compacted or written: finds out what was written before. Tells of what it
    /// found, and of what it could not find out and goes on trying.
    pub(crate) fn settle_intents(&self) -> Vec<String> {
        let mut open = Vec::new();
        {
            let catalog = lock(&self.catalog);
            for entry in catalog.groups() {
                let GroupKind::Queue(rules) = &entry.kind else { continue };
                for ((topic, partition), position) in catalog.positions(&entry.name) {
                    if !position.metadata.is_empty() {
                        open.push((Place { group: entry.name.clone(), topic, partition }, rules.clone()));
                    }
                }
            }
        }
        let mut notes = Vec::new();
        for (place, rules) in open {
            let outcome = match redrive::topic_of(&place.group) {
                Some(topic) => self.settle_redrive_at_start(&topic),
                None => self.hold_burial(&place).and_then(|holds| {
                    let outcome = self.settle_burial(&place, &rules);
                    if outcome.is_err() {
                        lock(&self.queues.unsettled.burials).push(Burial {
                            place: place.clone(),
                            rules,
                            _holds: holds,
                        });
                    }
                    outcome
                }),
            };
            match outcome {
                Ok(0) => {}
                Ok(found) => {
                    notes.push(format!("group '{}': {found} records had been written before a stop", place.group))
                }
                Err(error) => {
                    notes.push(format!("group '{}': what was written is not known yet: {error}", place.group))
                }
            }
        }
        notes
    }

    /// A group has let go of a partition of which it is not known what was written as dead letters.
    pub(super) fn settle_later(&self, place: &Place, rules: &QueueSettings, holds: Vec<Hold>) {
        let burial = Burial { place: place.clone(), rules: rules.clone(), _holds: holds };
        lock(&self.queues.unsettled.burials).push(burial);
    }

    /// Tries again what could not be found out. Blocks.
    pub(crate) fn settle_again(self: &Arc<Self>) {
        // Nobody takes a group into use meanwhile; who does later goes on from what is kept.
        let declaring = lock(&self.queues.declaring);
        let burials = std::mem::take(&mut *lock(&self.queues.unsettled.burials));
        for burial in burials {
            let in_use = self.queues.partitions_in_use(&burial.place.group).unwrap_or_default();
            if in_use.iter().any(|partition| partition.place == burial.place) {
                // It holds what is to be held itself, and finds out.
                continue;
            }
            let _keeping = lock(&self.queues.keeper.keeping);
            if let Err(error) = self.settle_burial(&burial.place, &burial.rules) {
                tracing::warn!(group = %burial.place.group, %error, "which dead letters were written is not known yet");
                lock(&self.queues.unsettled.burials).push(burial);
            }
        }
        drop(declaring);
        self.tell_of_given_up();
        self.settle_redrives_again();
    }

    /// Tells those whose requests turned out to be dead letters.
    pub(crate) fn tell_of_given_up(self: &Arc<Self>) {
        if let Ok(runtime) = Handle::try_current() {
            let _ = self.queues.unsettled.runtime.set(runtime);
        }
        let Some(runtime) = self.queues.unsettled.runtime.get() else { return };
        let given_up = std::mem::take(&mut *lock(&self.queues.unsettled.given_up));
        if given_up.is_empty() {
            return;
        }
        let broker = Arc::clone(self);
        task::spawn_on(runtime, "dead letters of requests", async move {
            for record in given_up {
                // If it cannot be said, the request ends with its deadline.
                if let Err(error) = broker.request_undeliverable(&record, "given up".to_owned()).await {
                    tracing::warn!(%error, "a requester cannot be told");
                }
            }
        });
    }

    fn hold_burial(&self, place: &Place) -> Result<Vec<Hold>, BrokerError> {
        self.intent_of(place)?.map_or(Ok(Vec::new()), |intent| intent.hold(self))
    }

    fn intent_of(&self, place: &Place) -> Result<Option<Intent>, BrokerError> {
        let catalog = lock(&self.catalog);
        let position = catalog.position_of(&place.group, (place.topic, place.partition));
        let text = position.map(|position| position.metadata.to_owned());
        let Some(topic) = catalog.topic_by_id(place.topic) else { return Ok(None) };
        Intent::read(&text.unwrap_or_default(), &topic.name, place.partition)
    }

    /// How many dead letters had been written; that they were is kept.
    fn settle_burial(&self, place: &Place, rules: &QueueSettings) -> Result<usize, BrokerError> {
        let Some(intent) = self.intent_of(place)? else { return Ok(0) };
        let mut found = intent.search(self, place)?;
        // None is made of a record that a power cut can take away. One that names an offset behind the end is of a log
        // that was put in the place of a newer one.
        let source = self.topic_named(place.topic).and_then(|name| self.topic(name.as_str()).ok());
        if let Some(log) = source.and_then(|topic| topic.partition(place.partition).ok()?.log().ok().cloned()) {
            let end = log.with(|log| log.written_end());
            found.retain(|(offset, _)| *offset < end);
        }
        let now = self.clock.now_ms();
        let mut catalog = lock(&self.catalog);
        let Some(topic) = catalog.topic_by_id(place.topic).map(|topic| topic.name.clone()) else { return Ok(0) };
        let progress = catalog.progress(&place.group, (place.topic, place.partition));
        let mut machine = Machine::new(rules.clone(), progress.as_ref(), 0);
        for (offset, record) in &found {
            machine.mark_buried(*offset, now);
            if is_request(&place.group, &topic, record) {
                lock(&self.queues.unsettled.given_up).push(record.clone());
            }
        }
        machine.touch_floor();
        let events = machine.take_changes(now).iter().map(|change| event_of(place, change, "", now)).collect();
        catalog.commit_all(events, now)?;
        Ok(found.len())
    }
}
