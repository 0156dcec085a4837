//! Offsets below 0 that clients commit. Kafka keeps them and gives them back: kafkajs commits -1 for "the latest" and -2 for "the earliest"
//! when it is reset or finds its offset out of range, and finds out what that is when it reads them. A position here is an offset that there
//! is, for every door: it is the one that was meant at the time of the commit, and what was said instead stands in front of its metadata:
//!
//! ```text
//! NUL, the offset that was said, NUL, metadata
//! ```
//!
//! Metadata of a client's own that begins with NUL is kept with one more in front, so that none is taken for that.

use crate::base::{Offset, PartitionId, TopicName};
use crate::broker::{Broker, GroupPosition};

/// The latest offset, in the words of kafkajs.
const LATEST: i64 = -1;
/// What is in front of metadata that has something in front.
const MARK: char = '\0';

/// What is to be kept of a commit: the offset and the metadata.
pub fn keep(broker: &Broker, (topic, number): (&TopicName, PartitionId), offset: i64, said: &str) -> (Offset, String) {
    match Offset::try_from(offset) {
        Ok(offset) if said.starts_with(MARK) => (offset, format!("{MARK}{said}")),
        Ok(offset) => (offset, said.to_owned()),
        Err(_) => {
            let ends = broker.partition_ends(topic.as_str(), number);
            // Of a partition that does not exist nothing is kept.
            let meant = ends.map_or(0, |ends| if offset == LATEST { ends.stable } else { ends.log_start });
            (meant, format!("{MARK}{offset}{MARK}{said}"))
        }
    }
}

/// Positions as they were said: an offset below 0 has the bits of the number that was said.
pub fn told(mut positions: Vec<GroupPosition>) -> Vec<GroupPosition> {
    for position in &mut positions {
        let Some(rest) = position.metadata.strip_prefix(MARK) else { continue };
        let said = rest.split_once(MARK).and_then(|(said, rest)| Some((said.parse::<i64>().ok()?, rest)));
        let (offset, metadata) = match said.filter(|(said, _)| *said < 0) {
            Some((said, rest)) => (said as Offset, rest.to_owned()),
            None => (position.offset, rest.to_owned()),
        };
        (position.offset, position.metadata) = (offset, metadata);
    }
    positions
}
