//! Where a reader is in the partitions of a topic, as text that a client keeps.

use std::fmt;
use std::str::FromStr;

use tokio::time::Instant;

use super::answer::Caller;
use super::problem::Problem;
use crate::base::{Isolation, Offset, PartitionId, StartAt, TimestampMs, TopicId, TopicName, limits};
use crate::broker::{BrokerError, OffsetAt, SETTLE};

/// Partitions that one reader may read together: as many as a topic may have.
const TOGETHER: usize = limits::PARTITIONS_PER_TOPIC as usize;

/// The next offset in each partition of a topic.
///
/// Written `2f0a91c4.0:15,1:7,*`: the beginning of the topic's id, the next offset of each partition, and `*` where the
/// reader reads the whole topic, so that partitions which are added later are read too, from their beginning. One that is
/// written by hand may leave out the id, which then is not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which topic of its name.
    pub topic: Option<ShortId>,
    /// The next offsets, by partition.
    pub positions: Vec<(PartitionId, Offset)>,
    /// Partitions that are not named are read too.
    pub all: bool,
}

/// The first 32 bits of a topic's id: enough to tell a topic from an earlier one of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortId(u32);

impl From<TopicId> for ShortId {
    fn from(id: TopicId) -> Self {
        Self((id.0 >> 96) as u32)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ShortId(id)) = self.topic {
            write!(f, "{id:08x}.")?;
        }
        for (at, (partition, offset)) in self.positions.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        match (self.all, self.positions.is_empty()) {
            (true, true) => f.write_str("*"),
            (true, false) => f.write_str(",*"),
            (false, _) => Ok(()),
        }
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is written PARTITION:OFFSET, with commas, like 0:15,1:7".to_owned();
        let (topic, text) = match text.trim().split_once('.') {
            Some((id, rest)) if id.len() == 8 => {
                (Some(ShortId(u32::from_str_radix(id, 16).map_err(|_| wrong())?)), rest)
            }
            Some(_) => return Err(wrong()),
            None => (None, text),
        };
        let (mut positions, mut all) = (Vec::new(), false);
        for part in text.split(',').map(str::trim) {
            if part == "*" && !all {
                all = true;
                continue;
            }
            let (partition, offset) = part.split_once(':').ok_or_else(wrong)?;
            let partition: PartitionId = partition.parse().map_err(|_| wrong())?;
            positions.push((partition, offset.parse().map_err(|_| wrong())?));
            if positions.len() > TOGETHER {
                return Err(format!("{TOGETHER} partitions are the most that a topic has"));
            }
        }
        positions.sort_unstable();
        if let Some(pair) = positions.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("partition {} is named twice", pair[0].0));
        }
        Ok(Self { topic, positions, all })
    }
}

impl Cursor {
    /// The places in a topic, or in one of its partitions, that a start stands for.
    ///
    /// # Errors
    /// There is no such topic or partition, or offset in it.
    pub async fn at(
        caller: &Caller,
        topic: &TopicName,
        partition: Option<PartitionId>,
        from: StartAt,
        isolation: Isolation,
    ) -> Result<Self, Problem> {
        let broker = &caller.shared.broker;
        let metadata = broker.metadata(topic, false).await?;
        let partitions = match partition {
            Some(partition) => partition..partition.saturating_add(1),
            None => 0..metadata.partitions,
        };
        let until = Instant::now() + SETTLE;
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let offset = async |at| {
                let found = broker.list_offset_as(topic.as_str(), partition, at, isolation, until).await;
                found.map(|(offset, _)| offset)
            };
            let begin = offset(OffsetAt::Beginning).await?;
            let at = match from {
                StartAt::Beginning => begin,
                StartAt::End => offset(OffsetAt::End).await?,
                StartAt::Offset(offset) => {
                    let end = broker.partition_ends(topic.as_str(), partition)?.written;
                    if !(begin..=end).contains(&offset) {
                        let message = format!(
                            "topic '{topic}' partition {partition}: offset {offset} is out of range: the log has {begin} to \
                             {end} (end not included)"
                        );
                        return Err(BrokerError::out_of_range(message, (begin, end)).into());
                    }
                    offset
                }
                StartAt::Last(count) => offset(OffsetAt::End).await?.saturating_sub(count).max(begin),
                StartAt::Time(time) => offset(OffsetAt::Timestamp(time)).await?,
                StartAt::Ago(span) => {
                    let span = TimestampMs::try_from(span.as_millis()).unwrap_or(TimestampMs::MAX);
                    offset(OffsetAt::Timestamp(caller.shared.clock.now_ms().saturating_sub(span))).await?
                }
            };
            positions.push((partition, at));
        }
        Ok(Self { topic: Some(metadata.id.into()), positions, all: partition.is_none() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for text in ["0:15,1:7", "2f0a91c4.0:15,1:7,*", "00000000.3:1", "*", "ffffffff.*", "0:1,*"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert_eq!("1:7, 0:15".parse::<Cursor>().unwrap().to_string(), "0:15,1:7");
        for wrong in ["", "0", "0:", "x:1", "0:1,0:2", "2f0a.0:1", "2f0a91cg.0:1", "*,*", "0:-1", "0:1,"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
