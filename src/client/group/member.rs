//! What stands behind a group consumer: joins, sends heartbeats, commits, and joins again when it was sent away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::base::{ErrorKind, Offset, PartitionId, TopicId};
use crate::client::ClientError;
use crate::client::link::{Again, Link, pause};
use crate::protocol::{
    CommitPosition, CommitPositions, CommittingMember, JoinStream, JoinStreamOk, LeaveStream, OwnedTopic,
    StreamHeartbeat, StreamShare, TopicPartition,
};

/// Positions of one request.
const POSITIONS: usize = 1000;
/// How long leaving may take when nobody waits for it.
const LEAVING: Duration = Duration::from_secs(5);

/// A partition: its topic's id, and its number.
pub(super) type At = (TopicId, PartitionId);

/// What the member's task tells the consumer.
#[derive(Debug)]
pub(super) enum Notice {
    /// These are the member's.
    Assigned(Vec<Assigned>),
    /// These are to be given up.
    Revoke(Vec<At>),
    /// These are lost.
    Lost(Vec<At>),
    /// The session is alive again.
    Alive,
    /// It gives up.
    Failed(ClientError),
}

/// A partition that is the member's from now on.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) at: At,
    pub(super) topic: Arc<str>,
    pub(super) position: Offset,
    pub(super) log_start: Offset,
    pub(super) stable_end: Offset,
}

#[derive(Debug)]
struct Own {
    topic: Arc<str>,
    /// Everything below was handed to the application, or is none of the group's.
    handed: Offset,
    /// The application is done with everything below.
    done: Offset,
    /// What the server is known to have.
    committed: Offset,
    /// The application has let go of it.
    released: bool,
}

#[derive(Debug)]
struct Inside {
    epoch: u32,
    filter: Option<Arc<str>>,
    owns: BTreeMap<At, Own>,
    /// The server may not know what this member has.
    changed: bool,
    /// When the session ends, should nothing more be heard.
    alive_until: Instant,
    /// When it is sent away unless it has given up what it was told to.
    give_up_by: Option<Instant>,
    heartbeat: Duration,
}

impl Inside {
    fn is_alive(&self) -> bool {
        let now = Instant::now();
        now < self.alive_until && self.give_up_by.is_none_or(|by| now < by)
    }
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) link: Arc<Link>,
    request: JoinStream,
    id: String,
    session: Duration,
    handover: Duration,
    pub(super) retry_timeout: Duration,
    inside: Mutex<Inside>,
    notices: mpsc::UnboundedSender<Notice>,
    /// Something was released.
    released: Notify,
    /// Commits one after the other.
    committing: tokio::sync::Mutex<()>,
    /// The group has been joined once: a member that joins again says nothing of what the group is.
    joined: AtomicBool,
}

impl Member {
    pub(super) fn new(
        link: Arc<Link>,
        request: JoinStream,
        retry_timeout: Duration,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Notice>) {
        let (notices, receiver) = mpsc::unbounded_channel();
        let inside = Inside {
            epoch: 0,
            filter: None,
            owns: BTreeMap::new(),
            changed: true,
            alive_until: Instant::now(),
            give_up_by: None,
            heartbeat: Duration::ZERO,
        };
        let member = Self {
            link,
            id: request.member.clone().unwrap_or_default(),
            session: Duration::from_millis(request.session_ms),
            handover: Duration::from_millis(request.handover_ms),
            request,
            retry_timeout,
            inside: Mutex::new(inside),
            notices,
            released: Notify::new(),
            committing: tokio::sync::Mutex::default(),
            joined: AtomicBool::new(false),
        };
        (Arc::new(member), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn filter(&self) -> Option<Arc<str>> {
        self.lock().filter.clone()
    }

    /// Whether its partitions are its own for certain.
    pub(super) fn is_alive(&self) -> bool {
        self.lock().is_alive()
    }

    /// A record was handed over, or passed: the application has had all below `offset`.
    pub(super) fn handed(&self, at: At, offset: Offset) {
        if let Some(own) = self.lock().owns.get_mut(&at) {
            own.handed = own.handed.max(offset);
        }
    }

    /// The application is done with all that it was handed.
    pub(super) fn done(&self) {
        for own in self.lock().owns.values_mut() {
            own.done = own.handed;
        }
    }

    /// The application is done with all that it was handed of a partition.
    pub(super) fn done_in(&self, at: At) {
        if let Some(own) = self.lock().owns.get_mut(&at) {
            own.done = own.handed;
        }
    }

    /// The application has let go of these.
    pub(super) fn release(&self, which: &[At]) {
        let mut inside = self.lock();
        for at in which {
            if let Some(own) = inside.owns.get_mut(at) {
                own.released = true;
            }
        }
        drop(inside);
        self.released.notify_one();
    }

    /// Joins; waits, within reason, for the one who fills its place.
    pub(super) async fn join(&self) -> Result<(Instant, JoinStreamOk), ClientError> {
        let since = Instant::now();
        let mut failures = 0;
        loop {
            let sent = Instant::now();
            let error = match self.join_once().await {
                Ok(joined) => return Ok((sent, joined)),
                Err(error) => error,
            };
            failures += 1;
            let pause = error.retry_after().unwrap_or_default().max(pause(failures));
            if !error.is_retriable() || since.elapsed() + pause > self.retry_timeout {
                return Err(error.context(format!("joining group '{}'", self.request.group)));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Joins. Whoever joins again takes the group as it is by now: somebody may have changed it, and that is not taken back. Twice is
    /// no more than once: a member begins with nothing.
    async fn join_once(&self) -> Result<JoinStreamOk, ClientError> {
        if self.joined.load(Ordering::Relaxed) {
            let as_it_is = JoinStream { topics: Vec::new(), filter: None, ..self.request.clone() };
            match self.link.ask(&as_it_is, Again::Yes).await {
                // A server whose data are new has no group of that name yet.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                joined => return joined,
            }
        }
        let joined = self.link.ask(&self.request, Again::Yes).await?;
        self.joined.store(true, Ordering::Relaxed);
        Ok(joined)
    }

    /// Runs until it fails for good or is aborted.
    pub(super) async fn run(self: Arc<Self>, joined: (Instant, JoinStreamOk)) {
        let mut joined = Some(joined);
        loop {
            let (sent, answer) = match joined.take() {
                Some(joined) => joined,
                None => match self.join().await {
                    Ok(joined) => joined,
                    Err(error) => return self.tell(Notice::Failed(error)),
                },
            };
            {
                let mut inside = self.lock();
                inside.filter = answer.filter.map(Into::into);
                inside.heartbeat = Duration::from_millis(answer.heartbeat_ms.into());
            }
            if let Err(error) = self.hear(sent, answer.share) {
                return self.tell(Notice::Failed(error));
            }
            let error = self.beat().await;
            let lost: Vec<At> = {
                let mut inside = self.lock();
                inside.changed = true;
                std::mem::take(&mut inside.owns).into_keys().collect()
            };
            if !lost.is_empty() {
                self.tell(Notice::Lost(lost));
            }
            if error.kind() != ErrorKind::FencedMember {
                return self.tell(Notice::Failed(error));
            }
        }
    }

    /// Sends heartbeats until the member is sent away, or the server cannot be reached.
    async fn beat(&self) -> ClientError {
        let (mut failures, mut since) = (0, Instant::now());
        loop {
            self.let_go().await;
            let (epoch, owned, wait) = self.says();
            let wait = wait.min(self.link.config().request_timeout / 2);
            let request = StreamHeartbeat {
                group: self.request.group.clone(),
                member: self.id.clone(),
                epoch,
                owned,
                wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            };
            let sent = Instant::now();
            let asked = tokio::time::timeout(wait + self.session, self.link.ask(&request, Again::No));
            let answer = tokio::select! {
                answer = asked => answer,
                () = self.released.notified() => {
                    // What the answer would have said is said again.
                    self.lock().changed = true;
                    continue;
                }
            };
            let late = || ClientError::new(ErrorKind::TimedOut, "the server does not answer heartbeats");
            let error = match answer.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => match self.hear(sent, answer.share) {
                    Ok(()) => {
                        (failures, since) = (0, Instant::now());
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.lock().changed = true;
            failures += 1;
            let pause = error.retry_after().unwrap_or_default().max(pause(failures));
            if !error.is_retriable() || since.elapsed() + pause > self.retry_timeout {
                return error.context(format!("group '{}'", self.request.group));
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn says(&self) -> (u32, Option<Vec<OwnedTopic>>, Duration) {
        let mut inside = self.lock();
        let owned = std::mem::take(&mut inside.changed).then(|| {
            let mut topics: BTreeMap<TopicId, Vec<PartitionId>> = BTreeMap::new();
            for (id, partition) in inside.owns.keys() {
                topics.entry(*id).or_default().push(*partition);
            }
            topics.into_iter().map(|(id, partitions)| OwnedTopic { id: id.to_string(), partitions }).collect()
        });
        (inside.epoch, owned, inside.heartbeat)
    }

    /// Takes in what it is told.
    fn hear(&self, sent: Instant, share: StreamShare) -> Result<(), ClientError> {
        let (mut assigned, mut revoked) = (Vec::new(), Vec::new());
        let mut inside = self.lock();
        inside.epoch = share.epoch;
        for granted in share.granted {
            let at = (topic_id(&granted.id)?, granted.partition);
            let position = granted.position.unwrap_or(granted.log_start);
            let topic: Arc<str> = granted.topic.into();
            let own = Own {
                topic: Arc::clone(&topic),
                handed: position,
                done: position,
                committed: position,
                released: false,
            };
            inside.changed = true;
            // What it has already it was told of before.
            if let Entry::Vacant(vacant) = inside.owns.entry(at) {
                vacant.insert(own);
                let (log_start, stable_end) = (granted.log_start, granted.stable_end);
                assigned.push(Assigned { at, topic, position, log_start, stable_end });
            }
        }
        for taken in share.taken {
            let id = topic_id(&taken.id)?;
            for partition in taken.partitions {
                match inside.owns.contains_key(&(id, partition)) {
                    true => revoked.push((id, partition)),
                    false => inside.changed = true,
                }
            }
        }
        let was_over = !inside.is_alive();
        // It cannot have been told before the answer that it heard last, which did not say so.
        let heard = inside.alive_until.checked_sub(self.session).unwrap_or(inside.alive_until);
        let by = inside.give_up_by.unwrap_or(heard + self.handover);
        inside.give_up_by = (!revoked.is_empty()).then_some(by);
        inside.alive_until = inside.alive_until.max(sent + self.session);
        drop(inside);
        if !revoked.is_empty() {
            self.tell(Notice::Revoke(revoked));
        }
        if !assigned.is_empty() {
            self.tell(Notice::Assigned(assigned));
        }
        if was_over {
            self.tell(Notice::Alive);
        }
        Ok(())
    }

    fn tell(&self, notice: Notice) {
        // A consumer that is gone takes this task along.
        let _ = self.notices.send(notice);
    }

    /// Commits what is done of partitions that were released, and has them no more.
    async fn let_go(&self) {
        if !self.lock().owns.values().any(|own| own.released) {
            return;
        }
        // Should it not succeed in time, the next owner does a little again.
        if let Ok(Err(error)) = tokio::time::timeout(self.session / 3, self.commit()).await {
            tracing::debug!(group = self.request.group, %error, "not committed before a partition was given up");
        }
        let mut inside = self.lock();
        inside.owns.retain(|_, own| !own.released);
        inside.changed = true;
    }

    /// Commits at an interval what is done.
    pub(super) async fn commit_every(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            // It is tried again; and whoever has been sent away hears it from the heartbeat.
            if let Err(error) = self.commit().await {
                tracing::debug!(group = self.request.group, %error, "not committed yet");
            }
        }
    }

    /// Commits what is done, durably.
    ///
    /// # Errors
    /// The member was sent away, a partition is not its own any more, the server cannot be reached.
    pub(super) async fn commit(&self) -> Result<(), ClientError> {
        let _turn = self.committing.lock().await;
        let (epoch, todo) = {
            let inside = self.lock();
            let todo = inside.owns.iter().filter(|(_, own)| own.done > own.committed);
            let todo: Vec<_> = todo.map(|(at, own)| (*at, Arc::clone(&own.topic), own.done)).collect();
            (inside.epoch, todo)
        };
        let mut refused = None;
        for some in todo.chunks(POSITIONS) {
            let positions = some.iter().map(|((_, partition), topic, offset)| CommitPosition {
                topic: topic.as_ref().to_owned(),
                partition: *partition,
                offset: *offset,
                metadata: String::new(),
            });
            let request = CommitPositions {
                group: self.request.group.clone(),
                member: Some(CommittingMember { id: self.id.clone(), epoch }),
                positions: positions.collect(),
                durable: true,
            };
            // An old commit that comes late changes nothing.
            let answer = self.link.ask(&request, Again::Yes).await?;
            let mut inside = self.lock();
            for ((at, topic, _), outcome) in some.iter().zip(answer.outcomes) {
                match (outcome.position, outcome.error) {
                    (Some(position), _) => {
                        if let Some(own) = inside.owns.get_mut(at) {
                            own.committed = own.committed.max(position);
                        }
                    }
                    (None, Some(error)) => {
                        refused.get_or_insert_with(|| ClientError::from(error).context(format!("{topic}/{}", at.1)));
                    }
                    (None, None) => {}
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Commits what is done and leaves.
    ///
    /// # Errors
    /// As of a commit; it has left all the same, if the server could be reached.
    pub(super) async fn leave(&self) -> Result<(), ClientError> {
        let committed = self.commit().await;
        let (group, member) = (self.request.group.clone(), self.id.clone());
        let request = LeaveStream { group, member, keep: self.request.instance.is_some() };
        match self.link.ask(&request, Again::Yes).await {
            // It had been sent away, or the first answer was lost.
            Err(error) if error.kind() == ErrorKind::FencedMember => committed,
            Err(error) => Err(error),
            Ok(_) => committed,
        }
    }

    /// Leaves while nobody waits for it.
    pub(super) fn leave_alone(self: Arc<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(LEAVING, self.leave()).await;
            });
        }
    }
}

pub(super) fn place(topic: &Arc<str>, at: At) -> TopicPartition {
    TopicPartition { topic: topic.as_ref().to_owned(), partition: at.1 }
}

fn topic_id(id: &str) -> Result<TopicId, ClientError> {
    let strange = || ClientError::new(ErrorKind::Internal, format!("the server names a topic by {id:?}"));
    TopicId::parse(id).ok_or_else(strange)
}
