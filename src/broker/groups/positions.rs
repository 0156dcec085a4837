//! The positions that groups have committed: one place for every door.
//!
//! A position is seen only when it is durable, so that nobody is told one that a crash takes back. It goes back only by
//! an explicit act: a reset of an empty group, or a commit on [`Terms::AsSaid`].

use std::sync::{Arc, PoisonError};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TimestampMs, TopicName, limits};
use crate::catalog::{CHUNK_OFFSETS, Catalog, Event, GroupKind, KeptPosition, Place, Position};

use super::super::broker::{blocking, lock};
use super::super::partition::Topic;
use super::super::stream::{Epoch, MemberError, StreamGroup};
use super::super::{Broker, BrokerError};
use super::GroupHold;

/// Who commits.
#[derive(Debug, Clone, Copy)]
pub enum Committer<'a> {
    /// A member of a stream group: in partitions that it owns, and owned at the epoch that it speaks of.
    Member {
        /// Its id.
        id: &'a str,
        /// The epoch that it was told last when it was done with what it commits.
        epoch: Epoch,
    },
    /// A member of a stream group that speaks Kafka's protocol: at its present epoch also where nobody owns the partition.
    Consumer {
        /// Its id.
        id: &'a str,
        /// The epoch that it was told last.
        epoch: Epoch,
    },
    /// Who holds the group, and has checked by its own rules that the member may.
    Holder(&'a GroupHold),
    /// Nobody in particular: only while the group has no members. Makes the group if it is not there.
    Admin,
}

/// [`Committer`], on its way to another thread.
enum By {
    Member(Arc<StreamGroup>, String, Epoch),
    Consumer(Arc<StreamGroup>, String, Epoch),
    Hold(GroupHold),
}

/// What a commit may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    /// Positions go forward: one below what holds changes nothing (it is an old commit that comes late, or again), and
    /// one behind the end of the partition is refused.
    Forward,
    /// As it is said, also back: for doors whose clients seek and mean it.
    AsSaid,
}

/// A position to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Everything below it is done.
    pub offset: Offset,
    /// What the member wants to remember with it.
    pub metadata: String,
    /// The leader epoch of the last record before it, if the member says one.
    pub leader_epoch: Option<u32>,
}

/// A position that a group has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPosition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Everything below it is done.
    pub offset: Offset,
    /// What was to be remembered with it.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub time_ms: TimestampMs,
    /// The leader epoch that was said with it.
    pub leader_epoch: Option<u32>,
}

impl Broker {
    /// Commits positions of a group that shares out partitions; for each, in order, the position that holds then, or why
    /// it was refused. If it is to be durable, they are on the disk when this returns; else soon.
    ///
    /// # Errors
    /// The committer may not; the journal's. A durable commit that failed may still take hold later.
    pub async fn commit_positions(
        self: &Arc<Self>,
        group: &GroupName,
        by: Committer<'_>,
        commits: Vec<Commit>,
        terms: Terms,
        durable: bool,
    ) -> Result<Vec<Result<Offset, BrokerError>>, BrokerError> {
        let by = match by {
            Committer::Member { id, epoch } | Committer::Consumer { id, epoch } => {
                let stream = self.streams.get(group);
                let stream = stream.ok_or_else(|| MemberError::Unknown { id: id.to_owned() })?;
                match by {
                    Committer::Consumer { .. } => By::Consumer(stream, id.to_owned(), epoch),
                    _ => By::Member(stream, id.to_owned(), epoch),
                }
            }
            Committer::Holder(hold) if hold.is_ended() || hold.name() != group => return Err(taken_away(group)),
            Committer::Holder(hold) => By::Hold(hold.clone()),
            Committer::Admin => {
                let (broker, name) = (Arc::clone(self), group.clone());
                let take = move || {
                    let hold = broker.groups.take_empty(&name, false)?;
                    broker.declare_stream(&name)?;
                    Ok::<_, BrokerError>(hold)
                };
                By::Hold(blocking(take).await?)
            }
        };
        let (broker, name) = (Arc::clone(self), group.clone());
        let put = move || {
            let put = |commit| broker.put_position(&name, &by, commit, terms);
            let outcomes: Vec<_> = commits.into_iter().map(put).collect();
            (outcomes, by)
        };
        let (outcomes, by) = blocking(put).await;
        self.queues.keeper.note_pending();
        if durable && outcomes.iter().any(Result::is_ok) {
            self.queues.keeper.kept().await?;
        }
        drop(by);
        Ok(outcomes)
    }

    fn put_position(&self, group: &GroupName, by: &By, commit: Commit, terms: Terms) -> Result<Offset, BrokerError> {
        let topic = self.topic(commit.topic.as_str())?;
        self.check_commit(&topic, &commit, terms)?;
        let at = (topic.entry.id, commit.partition);
        self.admit_position(group, at, commit.metadata.len())?;
        let Commit { offset, metadata, leader_epoch, .. } = commit;
        let position = Position { offset, metadata, time_ms: self.clock.now_ms(), leader_epoch };
        let forward = |now: Option<Offset>| match now {
            Some(now) if now > position.offset && terms == Terms::Forward => (None, now),
            _ => (Some(position.clone()), position.offset),
        };
        let place = Place { group: group.clone(), topic: at.0, partition: at.1 };
        self.change_position(&place, |change| match by {
            By::Member(stream, id, epoch) => {
                stream.while_it(id, |machine| machine.may_commit(id, *epoch, at), || change(&forward))
            }
            By::Consumer(stream, id, epoch) => {
                stream.while_it(id, |machine| machine.may_commit_as_consumer(id, *epoch, at), || change(&forward))
            }
            // Who takes a group away forgets what is pending after that, so nothing of the old one comes into a new one.
            By::Hold(hold) if hold.is_ended() => Err(taken_away(group)),
            By::Hold(_) => Ok(change(&forward)),
        })
    }

    /// Changes a position by what it is now, whether that is pending or durable: `act` is given the attempt to make with
    /// whatever is to hold meanwhile.
    pub(crate) fn change_position<R, E>(
        &self,
        place: &Place,
        act: impl Fn(&dyn Fn(&dyn Fn(Option<Offset>) -> (Option<Position>, R)) -> Option<R>) -> Result<Option<R>, E>,
    ) -> Result<R, E> {
        let key = Event::PositionSet { place: place.clone(), position: None }.key();
        loop {
            // What was kept is looked up outside of all that others wait for; if it has changed meanwhile, once more.
            let generation = self.groups.pending.generation();
            let kept = position_of(&lock(&self.catalog), place);
            let attempt = |decide: &dyn Fn(Option<Offset>) -> (Option<Position>, R)| {
                self.groups.pending.put_after(generation, &key, |before| {
                    let now = match before {
                        Some(Event::PositionSet { position, .. }) => position.as_ref().map(|position| position.offset),
                        _ => kept,
                    };
                    let (position, result) = decide(now);
                    let event = |position| Event::PositionSet { place: place.clone(), position: Some(position) };
                    (position.map(event), result)
                })
            };
            if let Some(result) = act(&attempt)? {
                return Ok(result);
            }
        }
    }

    pub(crate) fn check_commit(&self, topic: &Topic, commit: &Commit, terms: Terms) -> Result<(), BrokerError> {
        let partition = topic.partition(commit.partition)?;
        if commit.metadata.len() > limits::POSITION_METADATA_BYTES {
            let (length, limit) = (commit.metadata.len(), limits::POSITION_METADATA_BYTES);
            let message = format!("a position's metadata of {length} bytes; the limit is {limit}");
            return Err(BrokerError::new(ErrorKind::TooLarge, message));
        }
        if commit.offset > limits::MAX_OFFSET {
            let message = format!("position {}; the limit is {}", commit.offset, limits::MAX_OFFSET);
            return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
        }
        if terms == Terms::Forward {
            let (start, end) = partition.log()?.with(|log| (log.start_offset(), log.written_end()));
            if commit.offset > end {
                let message = format!(
                    "position {} in {}/{} is behind the partition's end, {end}",
                    commit.offset, commit.topic, commit.partition
                );
                return Err(BrokerError::out_of_range(message, (start, end)));
            }
        }
        Ok(())
    }

    /// Where a log has lost its unsynced end (a power cut on a topic with `durability=interval`), positions beyond what is
    /// left go back to its end, and what a queue group has done or failed to do there is forgotten: what is written there next
    /// is something else. Tells of each.
    pub(crate) fn settle_positions(&self) -> Result<Vec<String>, BrokerError> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = lock(&self.catalog);
        let (mut events, mut notes) = (Vec::new(), Vec::new());
        for entry in catalog.groups() {
            for ((id, partition), progress) in catalog.all_progress(&entry.name) {
                let end = catalog.topic_by_id(id).and_then(|topic| {
                    let log = topics.get(&topic.name)?.partition(partition).ok()?.log().ok()?;
                    Some((&topic.name, log.with(|log| log.written_end())))
                });
                let Some((topic, end)) = end else { continue };
                let (group, place) = (&entry.name, Place { group: entry.name.clone(), topic: id, partition });
                if let Some(position) = progress.position.as_ref().filter(|position| position.offset > end) {
                    let was = position.offset;
                    notes.push(format!("group '{group}': position {was} of {topic}/{partition} is now {end}, its end"));
                    let position = Position { offset: end, ..position.clone() };
                    events.push(Event::PositionSet { place: place.clone(), position: Some(position) });
                }
                let mut forgotten = 0;
                for (number, chunk) in progress.chunks {
                    let Some((left, lost)) = chunk.cut(end.saturating_sub(number * CHUNK_OFFSETS)) else { continue };
                    let chunk = (!left.is_empty()).then_some(left);
                    events.push(Event::ChunkSet { place: place.clone(), number, chunk });
                    forgotten += lost;
                }
                if forgotten > 0 {
                    let what = "acks of records that a power cut took from";
                    notes.push(format!("group '{group}': {forgotten} {what} {topic}/{partition} are forgotten"));
                }
            }
        }
        catalog.commit_all(events, self.clock.now_ms())?;
        Ok(notes)
    }

    /// The positions that a group has committed, of all partitions or of those that are named, as far as there are any.
    /// A group that does not exist has none.
    pub async fn positions(
        self: &Arc<Self>,
        group: &GroupName,
        of: Option<Vec<(TopicName, PartitionId)>>,
    ) -> Vec<GroupPosition> {
        let (broker, group) = (Arc::clone(self), group.clone());
        blocking(move || broker.positions_now(&group, of.as_deref())).await
    }

    /// [`Broker::positions`], blocking.
    pub(crate) fn positions_now(
        &self,
        group: &GroupName,
        of: Option<&[(TopicName, PartitionId)]>,
    ) -> Vec<GroupPosition> {
        let catalog = lock(&self.catalog);
        let found = |topic: &TopicName, partition, position: KeptPosition<'_>| GroupPosition {
            topic: topic.clone(),
            partition,
            offset: position.offset,
            metadata: position.metadata.to_owned(),
            time_ms: position.time_ms,
            leader_epoch: position.leader_epoch,
        };
        let mut positions: Vec<GroupPosition> = match of {
            Some(named) => named
                .iter()
                .filter_map(|(topic, partition)| {
                    let position = catalog.position_of(group, (catalog.topic(topic)?.id, *partition))?;
                    Some(found(topic, *partition, position))
                })
                .collect(),
            None => catalog
                .positions(group)
                .filter_map(|((topic, partition), position)| {
                    Some(found(&catalog.topic_by_id(topic)?.name, partition, position))
                })
                .collect(),
        };
        positions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        positions
    }

    /// Forgets positions of a group that shares out partitions and has no members, durably.
    ///
    /// # Errors
    /// There is none of that name, it is a queue group or has members; the journal's.
    pub async fn forget_positions(
        self: &Arc<Self>,
        group: &GroupName,
        of: Vec<(TopicName, PartitionId)>,
    ) -> Result<(), BrokerError> {
        self.members_may_return(group).await;
        let (broker, name) = (Arc::clone(self), group.clone());
        let hold = blocking(move || {
            let hold = broker.groups.take_empty(&name, false)?;
            if lock(&broker.catalog).group(&name).is_none_or(|entry| entry.kind != GroupKind::Stream) {
                let message = format!("there is no group '{name}' that shares out partitions");
                return Err(BrokerError::new(ErrorKind::NotFound, message));
            }
            broker.put_forgotten(&name, &of);
            Ok(hold)
        })
        .await?;
        self.queues.keeper.note_pending();
        self.queues.keeper.kept().await?;
        drop(hold);
        Ok(())
    }

    /// Forgets positions of a group that may have members, durably. They are of topics that no member reads, as the caller knows.
    ///
    /// # Errors
    /// The journal's.
    pub async fn forget_unread_positions(
        self: &Arc<Self>,
        group: &GroupName,
        of: Vec<(TopicName, PartitionId)>,
    ) -> Result<(), BrokerError> {
        let (broker, name) = (Arc::clone(self), group.clone());
        blocking(move || broker.put_forgotten(&name, &of)).await;
        self.queues.keeper.note_pending();
        self.queues.keeper.kept().await
    }

    fn put_forgotten(&self, group: &GroupName, of: &[(TopicName, PartitionId)]) {
        let forgotten = of.iter().filter_map(|(topic, partition)| {
            let topic = self.topic(topic.as_str()).ok()?.entry.id;
            let place = Place { group: group.clone(), topic, partition: *partition };
            Some(Event::PositionSet { place, position: None })
        });
        self.groups.pending.put(forgotten);
    }
}

fn taken_away(group: &GroupName) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("group '{group}' was taken away"))
}

fn position_of(catalog: &Catalog, place: &Place) -> Option<Offset> {
    catalog.position_of(&place.group, (place.topic, place.partition)).map(|position| position.offset)
}
