//! What is stuck in a queue group: the records that it has begun with and not done, page by page.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{GroupName, Offset, TimestampMs};

use super::super::broker::{blocking, lock};
use super::super::records::{Read, Reading};
use super::super::{Broker, BrokerError, Isolation};
use super::group::{Inside, QueuePartition};
use super::machine::{Listed, ListedState};
use super::{MemberId, RecordAt, refused};

/// Records of a page.
pub const MAX_LISTED: usize = 1_000;
/// Bytes of a page, about: it is to fit a frame.
const PAGE_BYTES: usize = 512 * 1024;
/// Reads for the keys of a page; a page ends after so many.
const READS: usize = 64;
/// Bytes of a read, unless one batch is larger.
const READ_BYTES: usize = 64 * 1024;
/// Bytes that are told of a key.
const KEY_BYTES: usize = 256;
/// Bytes that are told of the reason of a failure.
const ERROR_BYTES: usize = 1024;
/// What a record of a page takes beside its texts.
const RECORD_BYTES: usize = 128;

/// A record that a queue group has begun with and not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// Which one.
    pub record: RecordAt,
    /// The beginning of its key, if it has one and it could be read.
    pub key: Option<Bytes>,
    /// `in_hand`, `backing_off`, `delayed`, `blocked`, `due` or `burying`; of one that was skipped before it was reached,
    /// `not_reached`.
    pub state: &'static str,
    /// The member that has it.
    pub member: Option<MemberId>,
    /// Who that member says it is.
    pub client: Option<String>,
    /// Its deliveries so far, the one under way included.
    pub attempt: u32,
    /// When its lease ends, or when it may be delivered.
    pub next_ms: Option<TimestampMs>,
    /// The reason that was last given for a failure of it, if it is remembered.
    pub error: Option<String>,
}

/// A page of such records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupRecords {
    /// The records, by topic, partition and offset.
    pub records: Vec<GroupRecord>,
    /// Where to go on; `None` at the end.
    pub next: Option<RecordAt>,
}

impl Broker {
    /// The records of a queue group that it has begun with and not done, from a place on. The lock of a partition's machine is held
    /// for the records of one page only.
    ///
    /// # Errors
    /// There is no such group; it is a stream group; a limit that is not allowed.
    pub async fn group_records(
        self: &Arc<Self>,
        name: &GroupName,
        from: Option<&RecordAt>,
        limit: usize,
    ) -> Result<GroupRecords, BrokerError> {
        if !(1..=MAX_LISTED).contains(&limit) {
            return Err(refused(format!("a page of {limit} records; allowed are 1 to {MAX_LISTED}")));
        }
        let (broker, of) = (Arc::clone(self), name.clone());
        let group = blocking(move || match broker.stream_entry(&of) {
            Some(_) => Err(refused(format!(
                "group '{of}' is a stream group, which knows positions and no single records: only a queue group has a list of them"
            ))),
            None => broker.queue_group(&of),
        })
        .await?;
        let (mut partitions, members) = {
            let inside = lock(&group.inside);
            (inside.partitions.values().cloned().collect::<Vec<_>>(), clients(&inside))
        };
        partitions.sort_by(|one, other| (&one.topic, one.place.partition).cmp(&(&other.topic, other.place.partition)));
        let mut page = GroupRecords::default();
        let (mut bytes, mut reads) = (0, 0);
        for partition in partitions {
            tokio::task::consume_budget().await;
            let number = partition.place.partition;
            let start = match from.map(|from| ((&from.topic, from.partition), from.offset)) {
                Some((at, _)) if (&partition.topic, number) < at => continue,
                Some((at, offset)) if (&partition.topic, number) == at => offset,
                _ => 0,
            };
            // A topic that was deleted just now is none of the group's any more.
            let Ok(topic) = self.topic(partition.topic.as_str()) else { continue };
            let begins = topic.partition(number)?.log().map_or(0, |log| log.with(|log| log.start_offset()));
            let room = limit - page.records.len();
            // One more, to know where to go on.
            let mut listed = lock(&partition.machine).listed(start.max(begins), room + 1, self.clock.now_ms());
            let at = |offset| RecordAt { topic: partition.topic.clone(), partition: number, offset };
            let mut next = listed.get(room).map(|more| more.offset);
            listed.truncate(room);
            let offsets: Vec<Offset> = listed.iter().map(|listed| listed.offset).collect();
            let (mut keys, covered) = self.keys_of(&partition, &offsets, &mut reads).await?;
            if let Some(first) = listed.get(covered) {
                next = Some(first.offset);
                listed.truncate(covered);
            }
            for one in listed {
                if bytes >= PAGE_BYTES {
                    next = Some(one.offset);
                    break;
                }
                let record = described(&partition, one, keys.remove(&one.offset), &members);
                bytes += weight(&record);
                page.records.push(record);
            }
            if let Some(offset) = next {
                page.next = Some(at(offset));
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// The beginnings of the keys of records, as far as they have one and can be read; and how many of the records were looked at
    /// before there were too many reads.
    pub(super) async fn keys_of(
        &self,
        partition: &QueuePartition,
        offsets: &[Offset],
        reads: &mut usize,
    ) -> Result<(HashMap<Offset, Bytes>, usize), BrokerError> {
        let mut keys = HashMap::new();
        let mut covered = 0;
        let mut reading = Reading::passing();
        while let Some(&from) = offsets.get(covered) {
            if *reads >= READS {
                break;
            }
            *reads += 1;
            let place = (partition.topic.as_str(), partition.place.partition);
            let read = self.read_on(&mut reading, place, from, READ_BYTES, Isolation::Committed).await;
            // What cannot be read is listed all the same, without its key.
            let Ok(Read { records, next, .. }) = read else { return Ok((keys, offsets.len())) };
            let next = next.max(from + 1);
            let mut records = records.into_iter().peekable();
            while let Some(&offset) = offsets.get(covered).filter(|offset| **offset < next) {
                while records.next_if(|record| record.offset < offset).is_some() {}
                if let Some(record) = records.next_if(|record| record.offset == offset)
                    && let Some(key) = record.key
                {
                    // A copy: the key's own memory is that of the whole batch.
                    keys.insert(offset, Bytes::copy_from_slice(&key[..key.len().min(KEY_BYTES)]));
                }
                covered += 1;
            }
        }
        Ok((keys, covered))
    }
}

/// Who the members of a group say they are.
pub(super) fn clients(inside: &Inside) -> HashMap<MemberId, String> {
    inside.members.values().map(|member| (member.id, member.describe().client)).collect()
}

/// A record as it is told.
pub(super) fn described(
    partition: &QueuePartition,
    of: Listed,
    key: Option<Bytes>,
    members: &HashMap<MemberId, String>,
) -> GroupRecord {
    let (state, member, next_ms) = match of.state {
        ListedState::InHand { member, deadline } => ("in_hand", Some(member), Some(deadline)),
        ListedState::BackingOff { due } => ("backing_off", None, Some(due)),
        ListedState::Delayed { due } => ("delayed", None, Some(due)),
        ListedState::Blocked { due } => ("blocked", None, due),
        ListedState::Due => ("due", None, None),
        ListedState::Burying => ("burying", None, None),
    };
    GroupRecord {
        record: RecordAt { topic: partition.topic.clone(), partition: partition.place.partition, offset: of.offset },
        key,
        state,
        member,
        client: member.and_then(|id| members.get(&id)).cloned(),
        attempt: of.attempt,
        next_ms,
        error: partition.last_reason(of.offset).map(|reason| beginning(&reason)),
    }
}

fn beginning(reason: &str) -> String {
    reason[..reason.floor_char_boundary(ERROR_BYTES)].to_owned()
}

fn weight(of: &GroupRecord) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let key = of.key.as_ref().map_or(0, Bytes::len);
    RECORD_BYTES + of.record.topic.as_str().len() + key + text(&of.client) + text(&of.error)
}
