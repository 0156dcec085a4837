//! The consumer of a stream group: the partitions that it has, and their records one after the other.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::base::{ErrorKind, Isolation, Offset};
use crate::client::consumer::stream::Reading;
use crate::client::consumer::subscriber::{Chunk, Event, Share, Subscriber};
use crate::client::link::Link;
use crate::client::{ClientError, ConsumedRecord};
use crate::protocol::TopicPartition;

use super::member::{Assigned, At, Member, Notice, place};
use super::{GroupEvent, WhenMissed};

/// Subscriptions of one connection; a server takes 1024 unless it is told otherwise.
const SUBSCRIPTIONS: usize = 900;
/// The least that one partition may have under way, in bytes.
const LEAST_CREDIT: u64 = 64 * 1024;

/// A member of a stream group. Gives the records of the partitions that it owns, in order within each. The application is
/// done with a record when it asks for the next; that is committed by itself, unless it is to be done by hand. A member
/// joins again by itself after a break, and goes on with what it had.
///
/// Dropping it leaves the group; the record in hand counts as not done, then, and comes again.
#[derive(Debug)]
pub struct GroupConsumer {
    member: Arc<Member>,
    notices: mpsc::UnboundedReceiver<Notice>,
    tasks: Vec<AbortHandle>,
    by_hand: bool,
    when_missed: WhenMissed,
    prefetch: (u64, u64),
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    /// By the number of their subscriber; a number is never used again.
    parts: HashMap<usize, Part>,
    numbers: HashMap<At, usize>,
    next_number: usize,
    current: Option<Reading>,
    /// The partition of the record that the application has in hand.
    in_hand: Option<At>,
    /// To be given up as soon as the application comes back.
    revoked: Vec<At>,
    told: VecDeque<GroupEvent>,
    /// Connections, with their subscriptions.
    links: Vec<(Arc<Link>, usize)>,
    over: bool,
}

#[derive(Debug)]
struct Part {
    at: At,
    share: Arc<Share>,
    next_offset: Offset,
    task: AbortHandle,
    link: usize,
}

impl GroupConsumer {
    pub(super) fn new(
        member: Arc<Member>,
        notices: mpsc::UnboundedReceiver<Notice>,
        tasks: Vec<AbortHandle>,
        by_hand: bool,
        when_missed: WhenMissed,
        prefetch: (u64, u64),
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let links = vec![(Arc::clone(&member.link), 0)];
        Self {
            member,
            notices,
            tasks,
            by_hand,
            when_missed,
            prefetch,
            sender,
            events,
            parts: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            current: None,
            in_hand: None,
            revoked: Vec::new(),
            told: VecDeque::new(),
            links,
            over: false,
        }
    }

    /// The member's id.
    pub fn member(&self) -> &str {
        self.member.id()
    }

    /// How far it has read in each partition that it owns: the offset behind the last record that was handed over or
    /// passed over.
    pub fn positions(&self) -> impl Iterator<Item = (TopicPartition, Offset)> + use<'_> {
        self.parts.values().map(|part| (place(&part.share.topic, part.at), part.next_offset))
    }

    /// The next record; `None` after an error that is final. May be dropped while it waits. An error that concerns one
    /// partition is not final.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The next record, or whatever else there is to tell.
    pub async fn next_event(&mut self) -> Option<Result<GroupEvent, ClientError>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// Commits all that was handed over so far; it is on the server's disk when this returns.
    ///
    /// # Errors
    /// A partition is another's by now, the member was sent away, the server cannot be reached.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.in_hand = None;
        self.member.done();
        self.member.commit().await
    }

    /// Commits what the application is done with, the record in hand too (by hand: nothing), and leaves the group.
    ///
    /// # Errors
    /// It could not be committed; it has left all the same, if the server could be reached.
    pub async fn close(mut self) -> Result<(), ClientError> {
        if !self.by_hand {
            self.member.done();
        }
        self.over = true;
        self.stop();
        self.member.leave().await
    }

    fn stop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        for part in self.parts.values() {
            part.task.abort();
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<GroupEvent, ClientError>>> {
        // The application is back: it is done with what it had.
        if let Some(at) = self.in_hand.take()
            && !self.by_hand
        {
            self.member.done_in(at);
        }
        if !self.revoked.is_empty() {
            self.member.release(&std::mem::take(&mut self.revoked));
        }
        loop {
            if let Some(event) = self.told.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            // Before the notices: the news that partitions are lost comes before the session is alive again, so whoever saw
            // it alive again finds that news.
            let alive = self.member.is_alive();
            match self.notices.poll_recv(context) {
                Poll::Ready(Some(notice)) => {
                    if let Some(error) = self.heed(notice) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            // Whose partitions may be others' by now touches nothing. It is told when it is alive again.
            if !alive {
                return Poll::Pending;
            }
            match self.read() {
                Some(Ok(record)) => return Poll::Ready(Some(Ok(GroupEvent::Record(record)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {}
            }
            match std::task::ready!(self.events.poll_recv(context)) {
                Some(Event::Chunk(number, chunk)) => self.begin(number, chunk),
                Some(Event::Failed(number, error)) => {
                    if let Some(error) = self.failed(number, error) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Does what the member's task says.
    fn heed(&mut self, notice: Notice) -> Option<ClientError> {
        match notice {
            Notice::Assigned(assigned) => {
                let event = GroupEvent::Assigned(assigned.iter().map(|of| place(&of.topic, of.at)).collect());
                self.told.push_back(event);
                let count = self.parts.len() + assigned.len();
                let mut failed = None;
                for of in assigned {
                    if let Err(error) = self.take_up(of, count) {
                        failed.get_or_insert(error);
                    }
                }
                return failed;
            }
            Notice::Revoke(taken) => {
                let places = taken.iter().filter_map(|at| self.let_go(*at)).collect();
                self.told.push_back(GroupEvent::Revoked(places));
                self.revoked.extend(taken);
            }
            Notice::Lost(lost) => {
                let places = lost.iter().filter_map(|at| self.let_go(*at)).collect();
                self.revoked.retain(|at| !lost.contains(at));
                self.told.push_back(GroupEvent::Lost(places));
            }
            Notice::Alive => {}
            Notice::Failed(error) => {
                self.over = true;
                self.stop();
                return Some(error);
            }
        }
        None
    }

    fn take_up(&mut self, of: Assigned, count: usize) -> Result<(), ClientError> {
        let Assigned { at, topic, position, log_start, stable_end } = of;
        let position = match position < log_start {
            true => self.missed(at, &topic, position, (log_start, stable_end))?,
            false => position,
        };
        let count = (count as u64).max(1);
        let bytes = (self.prefetch.0 / count).max(LEAST_CREDIT.min(self.prefetch.0));
        let share = Share::new(topic, at.0.to_string().into(), at.1, (self.prefetch.1 / count).max(1), bytes);
        self.subscribe(at, share, position);
        Ok(())
    }

    /// Where to go on behind what retention has deleted.
    fn missed(
        &mut self,
        at: At,
        topic: &Arc<str>,
        position: Offset,
        (log_start, stable_end): (Offset, Offset),
    ) -> Result<Offset, ClientError> {
        let to = match self.when_missed {
            WhenMissed::Earliest => log_start,
            WhenMissed::Latest => stable_end,
            WhenMissed::Fail => {
                let message = format!(
                    "{topic}/{}: the group's position is {position}, and retention has deleted what was before {log_start}",
                    at.1
                );
                let error = ClientError::new(ErrorKind::OffsetOutOfRange, message);
                return Err(error.with_range((log_start, stable_end)));
            }
        };
        self.member.handed(at, to);
        if !self.by_hand {
            self.member.done_in(at);
        }
        self.told.push_back(GroupEvent::Missed { place: place(topic, at), from: position, to });
        Ok(to)
    }

    fn subscribe(&mut self, at: At, share: Arc<Share>, position: Offset) {
        let number = self.next_number;
        self.next_number += 1;
        let link = self.link();
        let subscriber = Subscriber {
            index: number,
            share: Arc::clone(&share),
            link: Arc::clone(&self.links[link].0),
            events: self.sender.clone(),
            position,
            skip_damaged: false,
            filter: self.member.filter(),
            isolation: Isolation::Committed,
            retry_timeout: self.member.retry_timeout,
        };
        self.links[link].1 += 1;
        let task = tokio::spawn(subscriber.run()).abort_handle();
        self.parts.insert(number, Part { at, share, next_offset: position, task, link });
        self.numbers.insert(at, number);
    }

    /// A connection that has room for a subscription.
    fn link(&mut self) -> usize {
        if let Some(free) = self.links.iter().position(|(_, used)| *used < SUBSCRIPTIONS) {
            return free;
        }
        self.links.push((Arc::new(Link::new(self.member.link.config().clone())), 0));
        self.links.len() - 1
    }

    /// Reads no further in a partition; names it.
    fn let_go(&mut self, at: At) -> Option<TopicPartition> {
        let number = self.numbers.remove(&at)?;
        if self.current.as_ref().is_some_and(|reading| reading.part == number) {
            self.current = None;
        }
        let part = self.parts.remove(&number)?;
        part.task.abort();
        self.links[part.link].1 -= 1;
        Some(place(&part.share.topic, at))
    }

    fn begin(&mut self, number: usize, chunk: Chunk) {
        // One of a partition that it has let go of is of no use.
        if self.parts.contains_key(&number) {
            self.current = Some(Reading::new(number, chunk));
        }
    }

    /// The next record of the current chunk; `None` behind the last.
    fn read(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        let reading = self.current.as_mut()?;
        let part = self.parts.get_mut(&reading.part)?;
        loop {
            match reading.next_record() {
                Some(Ok(record)) if record.offset < part.next_offset => {}
                Some(Ok(record)) => {
                    part.next_offset = record.offset + 1;
                    self.member.handed(part.at, part.next_offset);
                    self.in_hand = Some(part.at);
                    return Some(Ok(ConsumedRecord {
                        topic: Arc::clone(&part.share.topic),
                        partition: part.share.partition,
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                Some(Err(error)) => {
                    let (topic, number, at) = (&part.share.topic, part.share.partition, part.next_offset);
                    let message = format!("{topic}/{number} at offset {at}: what the server sent is damaged: {error}");
                    let at = part.at;
                    self.let_go(at);
                    return Some(Err(ClientError::caused(ErrorKind::CorruptBatch, message, error)));
                }
                None => break,
            }
        }
        // What the filter passed over is done as well.
        let (at, passed) = (part.at, part.next_offset.max(reading.chunk.delivery.next_offset));
        part.next_offset = passed;
        part.share.taken(&reading.chunk);
        self.current = None;
        self.member.handed(at, passed);
        if !self.by_hand {
            self.member.done_in(at);
        }
        None
    }

    /// A partition cannot be read any further; what of it the application should know.
    fn failed(&mut self, number: usize, error: ClientError) -> Option<ClientError> {
        let part = self.parts.get(&number)?;
        let (at, share, position) = (part.at, Arc::clone(&part.share), part.next_offset);
        self.let_go(at);
        match (error.kind(), error.range()) {
            // The topic is gone; soon the server says so.
            (ErrorKind::NotFound, _) => None,
            (ErrorKind::OffsetOutOfRange, Some(range)) if position < range.0 => {
                match self.missed(at, &share.topic, position, range) {
                    Ok(position) => self.subscribe(at, share, position),
                    Err(error) => return Some(error),
                }
                None
            }
            _ => Some(error),
        }
    }
}

impl Stream for GroupConsumer {
    type Item = Result<ConsumedRecord, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(self.poll_event(context)) {
                Some(Ok(GroupEvent::Record(record))) => return Poll::Ready(Some(Ok(record))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.stop();
        if !self.over {
            Arc::clone(&self.member).leave_alone();
        }
    }
}
