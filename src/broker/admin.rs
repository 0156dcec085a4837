//! Creating, altering, deleting and describing topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::{ErrorKind, Offset, PartitionId, TopicId, TopicName, TopicPattern, limits};
use crate::catalog::{Event, Hint, SETTINGS, TopicEntry, TopicSettings};
use crate::log::PartitionLog;

use super::broker::{blocking, lock};
use super::partition::{Partition, Topic, log_config};
use super::routes::TopicChange;
use super::stream::Streams;
use super::{
    Broker, BrokerError, NewTopic, PartitionDescription, REPLIES, SettingValue, TopicDescription, TopicMetadata,
    TopicSummary,
};

/// The setting by which it depends whether a routed record is a dead letter.
const MAX_MESSAGE_BYTES: &str = "max_message_bytes";
/// How often, and after which pause, it is tried to move the start of a log that is at work.
const GIVE_UP_TRIES: usize = 500;
const GIVE_UP_PAUSE: Duration = Duration::from_millis(10);

impl Broker {
    /// Creates a topic.
    ///
    /// # Errors
    /// It exists, a setting or the number of partitions is out of bounds, the disk's. Nothing is created then.
    pub async fn create_topic(self: &Arc<Self>, new: NewTopic) -> Result<TopicDescription, BrokerError> {
        let _held = self.hold_routes(TopicChange::Created).await?;
        let broker = Arc::clone(self);
        blocking(move || broker.create(new).map(|(topic, _)| broker.describe(&topic))).await
    }

    /// Changes a topic: more partitions, settings.
    ///
    /// # Errors
    /// There is none of that name, a value is out of bounds, the disk's. Nothing is changed then.
    pub async fn alter_topic(
        self: &Arc<Self>,
        name: &TopicName,
        partitions: Option<u32>,
        set: &[(String, String)],
        unset: &[String],
    ) -> Result<TopicDescription, BrokerError> {
        // Keys go to other partitions from then on, so routes finish first what they have half written.
        let sizes = set.iter().map(|(name, _)| name).chain(unset).any(|name| name == MAX_MESSAGE_BYTES);
        let _held = match partitions {
            _ if sizes => self.hold_routes(TopicChange::Sizes(name)).await?,
            Some(_) => self.hold_routes(TopicChange::Partitions(name)).await?,
            None => None,
        };
        let (broker, name, set, unset) = (Arc::clone(self), name.clone(), set.to_vec(), unset.to_vec());
        blocking(move || {
            let topic = broker.alter(&name, partitions, set, unset)?;
            Ok(broker.describe(&topic))
        })
        .await
    }

    /// Deletes a topic and its data. When it returns, the topic is gone for good; files may take longer.
    ///
    /// # Errors
    /// There is none of that name, the journal's.
    pub async fn delete_topic(self: &Arc<Self>, name: &TopicName) -> Result<(), BrokerError> {
        let _held = self.hold_routes(TopicChange::Deleted).await?;
        let (broker, name) = (Arc::clone(self), name.clone());
        blocking(move || broker.delete(&name)).await
    }

    /// All topics, by name.
    pub fn list_topics(&self) -> Vec<TopicSummary> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().map(|topic| summary(topic)).collect()
    }

    /// The topics that meet one of these patterns, by name.
    pub fn match_topics(&self, patterns: &[TopicPattern]) -> Vec<TopicSummary> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let exact: Option<BTreeSet<_>> = patterns.iter().map(TopicPattern::exact).collect();
        match exact {
            Some(names) => names.iter().filter_map(|name| topics.get(name)).map(|topic| summary(topic)).collect(),
            None => {
                let wanted = |topic: &&Arc<Topic>| patterns.iter().any(|pattern| pattern.matches(&topic.entry.name));
                topics.values().filter(wanted).map(|topic| summary(topic)).collect()
            }
        }
    }

    /// Changes whenever a topic is created, altered or deleted.
    pub fn watch_topics(&self) -> watch::Receiver<u64> {
        self.topics_version.subscribe()
    }

    /// One topic in full.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn describe_topic(self: &Arc<Self>, name: &TopicName) -> Result<TopicDescription, BrokerError> {
        let (broker, topic) = (Arc::clone(self), self.topic(name.as_str())?);
        Ok(blocking(move || broker.describe(&topic)).await)
    }

    /// The settings that hold for a topic.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn topic_settings(&self, name: &str) -> Result<TopicSettings, BrokerError> {
        Ok(self.topic(name)?.settings.clone())
    }

    /// What a producer or consumer has to know; creates the topic if asked to and allowed.
    ///
    /// # Errors
    /// There is none of that name and it may not be created.
    pub async fn metadata(self: &Arc<Self>, name: &TopicName, create: bool) -> Result<TopicMetadata, BrokerError> {
        let metadata = |topic: &Topic, created| TopicMetadata {
            id: topic.entry.id,
            partitions: topic.entry.partitions,
            max_batch_bytes: topic.settings.max_message_bytes.as_usize(),
            created,
        };
        match self.topic(name.as_str()) {
            Ok(topic) => return Ok(metadata(&topic, false)),
            Err(error) if !create => return Err(error),
            Err(_) if !self.config.auto_create_topics => {
                let message = format!("there is no topic '{name}', and topics are not created by themselves here");
                return Err(BrokerError::new(ErrorKind::NotFound, message));
            }
            Err(_) => {}
        }
        self.admit_named_topic(name)?;
        let _held = self.hold_routes(TopicChange::Created).await?;
        let (broker, name) = (Arc::clone(self), name.clone());
        let new = NewTopic { name, partitions: None, settings: Vec::new(), if_not_exists: true };
        let (topic, created) = blocking(move || broker.create(new)).await?;
        Ok(metadata(&topic, created))
    }

    /// Folders first, then the journal: a crash in between leaves empty folders, which the next start removes.
    pub(crate) fn create(self: &Arc<Self>, new: NewTopic) -> Result<(Arc<Topic>, bool), BrokerError> {
        let mut catalog = lock(&self.catalog);
        if let Ok(topic) = self.topic(new.name.as_str()) {
            return if new.if_not_exists {
                Ok((topic, false))
            } else {
                Err(BrokerError::new(ErrorKind::AlreadyExists, format!("topic '{}' exists", new.name)))
            };
        }
        let entry = self.entry_of(new)?;
        self.storage.check()?;
        let partitions = entry.partitions;
        self.make_folders(&entry, 0..partitions)?;
        let mut notes = Vec::new();
        let topic = Arc::new(self.open_topic(entry.clone(), &mut notes)?);
        for partition in &topic.partitions {
            partition.log()?;
        }
        catalog.commit(Event::TopicCreated(entry), self.clock.now_ms())?;
        self.put(&topic);
        drop(catalog);
        self.queues.welcome(self, &topic);
        self.routes.welcome(self, &topic);
        Streams::welcome(self, &topic);
        tracing::info!(topic = %topic.entry.name, id = %topic.entry.id, partitions, "topic created");
        Ok((topic, true))
    }

    /// The entry of a topic that may be created.
    fn entry_of(&self, new: NewTopic) -> Result<TopicEntry, BrokerError> {
        let partitions = new.partitions.unwrap_or(self.config.default_partitions);
        check_partitions(partitions)?;
        self.admit_partitions(partitions)?;
        let entry = TopicEntry {
            name: new.name,
            id: TopicId::random(),
            partitions,
            // What is kept is short, whatever was said.
            settings: TopicSettings::canonical(&new.settings.into_iter().collect())?,
            created_ms: self.clock.now_ms(),
        };
        self.config.topic_defaults.with(&entry.settings)?;
        Ok(entry)
    }

    /// What a topic would be, without creating it.
    ///
    /// # Errors
    /// As [`Broker::create_topic`], but for the disk's.
    pub fn validate_topic(&self, new: NewTopic) -> Result<TopicDescription, BrokerError> {
        if self.topic(new.name.as_str()).is_ok() {
            return Err(BrokerError::new(ErrorKind::AlreadyExists, format!("topic '{}' exists", new.name)));
        }
        let entry = self.entry_of(new)?;
        let settings = self.config.topic_defaults.with(&entry.settings)?;
        let numbers = 0..entry.partitions;
        let mut description = self.describe(&Topic { entry, settings, partitions: Vec::new() });
        description.partitions = numbers.map(PartitionDescription::empty).collect();
        Ok(description)
    }

    /// Whether there may be so many partitions more.
    fn admit_partitions(&self, more: u32) -> Result<(), BrokerError> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let held: usize = topics.values().map(|topic| topic.partitions.len()).sum();
        let most = self.config.max_partitions;
        if held + more as usize <= most {
            return Ok(());
        }
        let message =
            format!("the server has {held} partitions, and {more} more would be above {most} (max_partitions)");
        Err(BrokerError::new(ErrorKind::InvalidRequest, message))
    }

    fn make_folders(&self, entry: &TopicEntry, numbers: std::ops::Range<u32>) -> Result<(), BrokerError> {
        for number in numbers {
            let folder = self.dir.partition_dir(&entry.name, entry.id, number);
            PartitionLog::create(&self.disk, &folder)
                .map_err(|error| BrokerError::of_log(&entry.name, number, error))?;
        }
        Ok(())
    }

    fn alter(
        self: &Arc<Self>,
        name: &TopicName,
        partitions: Option<u32>,
        set: Vec<(String, String)>,
        unset: Vec<String>,
    ) -> Result<Arc<Topic>, BrokerError> {
        let mut catalog = lock(&self.catalog);
        let topic = self.topic(name.as_str())?;
        let mut entry = topic.entry.clone();
        for name in unset {
            // Names the setting if there is none such.
            topic.settings.get(&name)?;
            entry.settings.remove(&name);
        }
        entry.settings.extend(TopicSettings::canonical(&set.into_iter().collect())?);
        let settings = self.config.topic_defaults.with(&entry.settings)?;
        if let Some(partitions) = partitions {
            check_partitions(partitions)?;
            if partitions < entry.partitions {
                let message = format!(
                    "topic '{name}' has {} partitions; there can be more, not fewer ({partitions})",
                    entry.partitions
                );
                return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
            }
            if partitions > entry.partitions {
                self.storage.check()?;
            }
            self.admit_partitions(partitions - entry.partitions)?;
            self.make_folders(&entry, entry.partitions..partitions)?;
            entry.partitions = partitions;
        }
        let mut notes = Vec::new();
        let mut open = topic.partitions.clone();
        for number in open.len() as u32..entry.partitions {
            let partition = self.open_partition(&entry, &settings, number, &mut notes);
            partition.log()?;
            open.push(partition);
        }
        catalog.commit(Event::TopicAltered(entry.clone()), self.clock.now_ms())?;
        for partition in &open {
            if let Ok(log) = partition.log() {
                log.with(|log| log.set_config(log_config(&settings)));
            }
        }
        let topic = Arc::new(Topic { entry, settings, partitions: open });
        self.put(&topic);
        drop(catalog);
        self.queues.welcome(self, &topic);
        self.routes.welcome(self, &topic);
        Streams::welcome(self, &topic);
        Ok(topic)
    }

    /// Whether a topic could be changed like this, without changing it.
    ///
    /// # Errors
    /// As [`Broker::alter_topic`], but for the disk's.
    pub fn validate_alter(
        &self,
        name: &TopicName,
        set: &[(String, String)],
        unset: &[String],
    ) -> Result<(), BrokerError> {
        let topic = self.topic(name.as_str())?;
        let mut settings = topic.entry.settings.clone();
        for name in unset {
            topic.settings.get(name)?;
            settings.remove(name);
        }
        settings.extend(set.iter().cloned());
        self.config.topic_defaults.with(&settings)?;
        Ok(())
    }

    /// Gives up all records of a partition below an offset (all that are written now, if none is named); the log start then.
    /// What is not synced of them is synced first, within `patience`: a log never begins behind what is durable of it.
    ///
    /// # Errors
    /// No such topic or partition; the offset is behind the end; the sync takes too long; the disk's.
    pub async fn delete_records(
        self: &Arc<Self>,
        topic: &str,
        partition: PartitionId,
        below: Option<Offset>,
        patience: Duration,
    ) -> Result<Offset, BrokerError> {
        let partition = Arc::clone(self.topic(topic)?.partition(partition)?);
        let (start, end) = partition.log()?.with(|log| (log.start_offset(), log.written_end()));
        let below = below.unwrap_or(end);
        if below > end {
            let message =
                format!("offset {below} is behind the end of {}/{}, {end}", partition.topic, partition.number);
            return Err(BrokerError::out_of_range(message, (start, end)));
        }
        partition.synced_within(below, patience).await?;
        for _ in 0..GIVE_UP_TRIES {
            let (broker, held) = (Arc::clone(self), Arc::clone(&partition));
            if let Some(log_start) = blocking(move || broker.give_up(&held, below)).await? {
                return Ok(log_start);
            }
            tokio::time::sleep(GIVE_UP_PAUSE).await;
        }
        let message = format!("{}/{} is busy: try again", partition.topic, partition.number);
        Err(BrokerError::new(ErrorKind::Busy, message))
    }

    /// `None` if the log is at work, or what lies there may still be needed to find out what was written before a crash.
    fn give_up(&self, partition: &Partition, below: Offset) -> Result<Option<Offset>, BrokerError> {
        let log = partition.log()?;
        if !self.know_what_routes_wrote() {
            return Ok(None);
        }
        let given_up = log.with(|log| log.begin_give_up(below)).map_err(|error| partition.error(error))?;
        if given_up.is_none() {
            return Ok(None);
        }
        for segment in log.with(|log| log.take_unused()) {
            if let Err(error) = segment.remove(&self.files) {
                tracing::warn!(topic = %partition.topic, %error, "removed at the next start");
            }
        }
        Ok(Some(log.with(|log| log.start_offset())))
    }

    /// The journal first: from then on the topic is gone, whatever happens to its files.
    fn delete(&self, name: &TopicName) -> Result<(), BrokerError> {
        let topic = {
            let mut catalog = lock(&self.catalog);
            let topic = self.topic(name.as_str())?;
            if name.as_str() == REPLIES {
                let message = format!("topic '{name}' holds the replies to durable requests; it cannot be deleted");
                return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
            }
            let TopicEntry { id, partitions, .. } = topic.entry;
            catalog.commit(Event::TopicDeleted { name: name.clone(), id, partitions }, self.clock.now_ms())?;
            self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
            self.names.write().unwrap_or_else(PoisonError::into_inner).remove(&topic.entry.id);
            self.queues.forget(topic.entry.id);
            self.routes.forget(topic.entry.id);
            topic
        };
        Streams::forget(self, name);
        self.count_topics();
        for partition in &topic.partitions {
            partition.close_readers();
            if let Ok(log) = partition.log() {
                log.quiesce();
            }
        }
        if let Err(error) = self.purge(name, topic.entry.id) {
            tracing::warn!(topic = %name, %error, "the files of a deleted topic are removed at the next start");
        }
        tracing::info!(topic = %name, "topic deleted");
        Ok(())
    }

    fn put(&self, topic: &Arc<Topic>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic.entry.name.clone(), Arc::clone(topic));
        drop(topics);
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.insert(topic.entry.id, topic.entry.name.clone());
        drop(names);
        self.count_topics();
    }

    fn describe(&self, topic: &Topic) -> TopicDescription {
        let hints = topic.settings.hints.keys().filter_map(|name| Some((*name, Hint::find(name)?.setting.meaning)));
        let all = SETTINGS.iter().map(|setting| (setting.name, setting.meaning)).chain(hints);
        let values: BTreeMap<_, _> = all.collect();
        let settings = values.into_iter().map(|(name, meaning)| SettingValue {
            name,
            value: topic.settings.get(name).unwrap_or_default(),
            is_default: !topic.entry.settings.contains_key(name),
            meaning,
        });
        TopicDescription {
            name: topic.entry.name.clone(),
            id: topic.entry.id,
            settings: settings.collect(),
            partitions: topic.partitions.iter().map(|partition| partition.describe(self.clock.now_ms())).collect(),
        }
    }
}

pub(super) fn summary(topic: &Topic) -> TopicSummary {
    let TopicEntry { ref name, id, partitions, .. } = topic.entry;
    TopicSummary { name: name.clone(), id, partitions }
}

fn check_partitions(partitions: u32) -> Result<(), BrokerError> {
    if (1..=limits::PARTITIONS_PER_TOPIC).contains(&partitions) {
        return Ok(());
    }
    let message = format!("{partitions} partitions; a topic has 1 to {}", limits::PARTITIONS_PER_TOPIC);
    Err(BrokerError::new(ErrorKind::InvalidRequest, message))
}
