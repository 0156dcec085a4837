//! What of a group is in its dead-letter topic, as the topic itself says it.

use std::collections::{HashSet, VecDeque};

use crate::base::{GroupName, Offset, PartitionId, TopicId, TopicName};
use crate::catalog::QueueSettings;
use crate::record::Record;

use super::super::records::Reading;
use super::super::{Broker, BrokerError, Isolation};

/// The headers of a dead letter.
pub(crate) mod headers {
    /// Where the record came from: topic/partition/offset.
    pub(crate) const SOURCE: &str = "tidelog-source";
    /// The id of that topic's incarnation.
    pub(crate) const SOURCE_ID: &str = "tidelog-source-id";
    /// Deliveries that failed.
    pub(crate) const ATTEMPTS: &str = "tidelog-attempts";
    /// Why the last one did.
    pub(crate) const ERROR: &str = "tidelog-error";
    /// The group that gave up.
    pub(crate) const GROUP: &str = "tidelog-group";
    /// A group of which it has been a dead letter, this one included; as often as there were any, the first first.
    pub(crate) const PATH: &str = "tidelog-dead-letter-of";
    /// When it was to be done, of a record that expired.
    pub(crate) const EXPIRED_AT: &str = "tidelog-expired-at";
    /// All that come once.
    pub(crate) const ALL: [&str; 5] = [SOURCE, SOURCE_ID, ATTEMPTS, ERROR, GROUP];
}

/// Dead letters that are remembered; of older ones it is forgotten that they are such.
const REMEMBERED: usize = 1_000_000;
/// Bytes read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Where a record is.
type Place = (TopicId, PartitionId, Offset);

/// The dead letters of a group.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    all: HashSet<Place>,
    order: VecDeque<Place>,
}

impl Graves {
    /// Reads the group's dead letters.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) async fn read(broker: &Broker, group: &GroupName, topic: &TopicName) -> Result<Self, BrokerError> {
        let mut graves = Self::default();
        // Without the topic there are none.
        let Ok(found) = broker.topic(topic.as_str()) else { return Ok(graves) };
        for number in 0..found.entry.partitions {
            let mut at = 0;
            let mut reading = Reading::passing();
            loop {
                let at_place = (topic.as_str(), number);
                let (records, next) = broker
                    .records_on(&mut reading, "dead letters", at_place, at, READ_BYTES, Isolation::Uncommitted)
                    .await?;
                if next == at {
                    break;
                }
                at = next;
                for record in &records {
                    if let Some((place, of)) = place(record)
                        && of == group.as_str()
                    {
                        graves.add(place);
                    }
                }
            }
        }
        Ok(graves)
    }

    /// A record is in the topic.
    pub(crate) fn add(&mut self, place: Place) {
        if self.all.insert(place) {
            self.order.push_back(place);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// It comes again to its group: what becomes of it is not known.
    pub(crate) fn remove(&mut self, place: &Place) {
        self.all.remove(place);
    }

    pub(crate) fn contains(&self, place: &Place) -> bool {
        self.all.contains(place)
    }
}

/// Where a dead letter came from, and whose it is.
pub(crate) fn place(record: &Record) -> Option<(Place, &str)> {
    let topic = TopicId::parse(text(record, headers::SOURCE_ID)?)?;
    let mut parts = text(record, headers::SOURCE)?.rsplitn(3, '/');
    let (offset, partition) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(((topic, partition, offset), text(record, headers::GROUP)?))
}

/// A header's text.
pub(crate) fn text<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    std::str::from_utf8(record.headers.get(name)?).ok()
}

/// Where the dead letters of a group with these rules go.
///
/// # Errors
/// The group's name makes no topic name.
pub(crate) fn dead_letters(group: &GroupName, rules: &QueueSettings) -> Result<TopicName, BrokerError> {
    match &rules.dead_letter {
        Some(topic) => Ok(topic.clone()),
        None => TopicName::new(&format!("dead-letter.{group}")).map_err(|_| {
            let wrong = group.as_str().chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c));
            let what = wrong.map_or_else(|| "is no part of a topic's name".to_owned(), |c| format!("has the character '{c}'"));
            super::refused(format!(
                "group name '{group}' {what}: a queue group has letters, digits, '.', '_' and '-', as its dead letters go to the topic \
                 'dead-letter.NAME' (unless another is named for them), and 249 characters with that"
            ))
        }),
    }
}
