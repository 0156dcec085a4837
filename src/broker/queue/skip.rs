//! A record that a queue group is to be done with, without a delivery.

use std::sync::Arc;

use crate::base::{ErrorKind, GroupName};

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError};
use super::machine::{Listed, ListedState, MAX_SPANS, NotSkipped};
use super::stuck::{GroupRecord, clients, described};
use super::{RecordAt, refused};

impl Broker {
    /// Says that a record is done for a queue group. When this returns, that is durable; what the record was before. If a member has
    /// it, what that member says of it later counts for nothing.
    ///
    /// # Errors
    /// There is no such group or record, or the group does not read it; it is done, or is being written as a dead letter; the
    /// journal's.
    pub async fn skip_record(
        self: &Arc<Self>,
        name: &GroupName,
        record: &RecordAt,
    ) -> Result<GroupRecord, BrokerError> {
        let (broker, of) = (Arc::clone(self), name.clone());
        let group = blocking(move || match broker.stream_entry(&of) {
            Some(_) => Err(refused(format!(
                "group '{of}' is a stream group, which has no single records to skip: reset it behind the record"
            ))),
            None => broker.queue_group(&of),
        })
        .await?;
        let RecordAt { topic, partition: number, offset } = record;
        let open = self.topic(topic.as_str())?;
        let log = open.partition(*number)?.log()?;
        let (start, end) = log.with(|log| (log.start_offset(), log.committed_end()));
        if !(start..end).contains(offset) {
            let message =
                format!("{topic}/{number} has no offset {offset}: it has {start} to {end} (end not included)");
            return Err(BrokerError::out_of_range(message, (start, end)));
        }
        let (found, members) = {
            let inside = lock(&group.inside);
            (inside.partitions.get(&(open.entry.id, *number)).cloned(), clients(&inside))
        };
        let partition = found.ok_or_else(|| {
            let message = format!("group '{name}' does not read topic '{topic}'");
            BrokerError::new(ErrorKind::NotFound, message)
        })?;
        let key = self.keys_of(&partition, &[*offset], &mut 0).await?.0.remove(offset);
        let was = group.with(self, &partition, |machine, now| {
            let listed = machine.listed(*offset, 1, now).first().copied().filter(|listed| listed.offset == *offset);
            machine.skip(*offset, now).map(|()| listed)
        });
        let listed = was.map_err(|why| {
            let place = format!("{topic}/{number} offset {offset}");
            match why {
                NotSkipped::Done => refused(format!("group '{name}' is done with {place} already")),
                NotSkipped::Burying => {
                    let message = format!("{place} is being written as a dead letter of group '{name}'");
                    BrokerError::new(ErrorKind::Busy, message)
                }
                NotSkipped::Full => {
                    let message = format!(
                        "group '{name}' has skipped {MAX_SPANS} records ahead of it in {topic}/{number}, which is the most"
                    );
                    BrokerError::new(ErrorKind::TooLarge, message)
                }
            }
        })?;
        let reached = listed.is_some();
        let listed = listed.unwrap_or(Listed { offset: *offset, attempt: 0, state: ListedState::Due });
        let mut was = described(&partition, listed, key, &members);
        if !reached {
            was.state = "not_reached";
        }
        partition.forget_reason(*offset);
        partition.wake.notify_one();
        self.queues.keeper.kept().await?;
        group.check_kept()?;
        tracing::info!(group = %name, %topic, partition = number, offset, state = was.state, "record skipped");
        Ok(was)
    }
}
