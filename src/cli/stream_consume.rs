//! `tidelog consume --group` in a stream group: records of the partitions that this member owns, in order. A position is committed
//! when everything below it is out.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use tidelog::base::ErrorKind;
use tidelog::client::{Admin, Client, ClientError, GroupConsumer, GroupEvent, TopicPartition};
use tokio::time::Instant;

use super::consume::{ConsumeArgs, Printer};
use super::ending::Ending;
use super::failure::Failure;
use super::group_consume::{LAST_OUTPUT, LEAVING, OUTPUT_BYTES};
use super::group_options::{AckMode, GroupKind};
use super::output;
use super::spout::Spout;

/// How long nothing may come before it is asked whether there is anything left.
const QUIET: Duration = Duration::from_millis(300);
/// How often what is out is committed.
const COMMIT: Duration = Duration::from_secs(1);

/// The kind of group that is meant: what is said, else what it is, else a queue group.
///
/// # Errors
/// It is of another kind than was said; the server's.
pub async fn kind(args: &ConsumeArgs, group: &str, client: &Client) -> Result<GroupKind, Failure> {
    let held = match client.admin().describe_group(group).await {
        Ok(held) => Some(if held.summary.kind == "stream" { GroupKind::Stream } else { GroupKind::Queue }),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if held.is_some() {
        args.warn_of_from(group);
    }
    match (args.group.group_kind, held) {
        (Some(said), Some(held)) if said != held => {
            Err(Failure::Failed(format!("group '{group}' is a {} group", held.name())))
        }
        (said, held) => Ok(said.or(held).unwrap_or(GroupKind::Queue)),
    }
}

/// Reads as a member of the group until there is nothing left for it, or for as long as records come. `as_it_is`: nothing is said of
/// what the group is.
///
/// # Errors
/// The server's, those of standard output.
pub async fn run(
    args: &ConsumeArgs,
    group: &str,
    (client, as_it_is): (&Client, bool),
    printer: &mut Printer,
    ending: &Ending,
) -> Result<(), Failure> {
    // Committed is what is out, and nothing else: by hand.
    let mut builder = client.group_consumer(group).from(args.start()).commit_by_hand();
    if !as_it_is {
        builder = builder.topics(args.topics.iter().map(|topic| topic.as_str()));
        if let Some(filter) = &args.filter {
            builder = builder.filter(filter);
        }
    }
    if let Some(instance) = &args.group.instance {
        builder = builder.instance(instance);
    }
    if let Some(session) = args.group.session {
        builder = builder.session_timeout(session.as_duration());
    }
    let member = tokio::select! {
        member = builder.join() => member?,
        () = ending.asked() => return Ok(()),
    };
    let spout = Spout::start().map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
    let commit_at = Instant::now() + COMMIT;
    let mut work =
        Work { args, admin: client.admin(), group, ending, member, spout, is_out: true, is_broken: false, commit_at };
    let worked = work.run(printer).await;
    // What was printed before a failure is done all the same, once it is out.
    let out = match work.spout.is_busy() {
        true => Ok(()),
        false => work.put_out(printer).await,
    };
    let committed = work.commit().await;
    let left = match ending.is_asked() {
        true => tokio::time::timeout(LEAVING, work.member.close()).await.unwrap_or(Ok(())),
        false => work.member.close().await,
    };
    worked?;
    out?;
    committed?;
    Ok(left?)
}

struct Work<'a> {
    args: &'a ConsumeArgs,
    admin: Admin,
    group: &'a str,
    ending: &'a Ending,
    member: GroupConsumer,
    spout: Spout,
    /// All that was handed over is out.
    is_out: bool,
    /// The output has failed, or is held up for good: what it did not take is never out.
    is_broken: bool,
    commit_at: Instant,
}

type Next = Option<Result<GroupEvent, ClientError>>;

impl Work<'_> {
    async fn run(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        while !self.ending.is_asked() {
            let next = match self.member.next_event().now_or_never() {
                Some(next) => next,
                None => {
                    self.put_out(printer).await?;
                    self.wait().await?
                }
            };
            let Some(event) = next else { return Ok(()) };
            match event? {
                GroupEvent::Record(record) => {
                    self.is_out = false;
                    printer.print(&record, None)?;
                    if self.args.group.ack_mode == AckMode::Durable {
                        self.put_out(printer).await?;
                        self.commit().await?;
                    } else if printer.held() >= OUTPUT_BYTES || Instant::now() >= self.commit_at {
                        self.put_out(printer).await?;
                        self.commit_in_time().await;
                    }
                }
                GroupEvent::Missed { place: TopicPartition { topic, partition }, from, to } => {
                    let last = to.saturating_sub(1);
                    let gone = "retention has deleted them before they were done";
                    output::complain(&format!("{topic}/{partition}: passed over offsets {from} to {last}: {gone}"));
                }
                // They are this member's until it asks for more.
                GroupEvent::Revoked(_) => {
                    self.put_out(printer).await?;
                    self.commit_now().await;
                }
                GroupEvent::Assigned(_) | GroupEvent::Lost(_) => {}
            }
            if self.args.max.is_some_and(|max| printer.records() >= max) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for something to happen; none if there is nothing left, or the command is to end.
    async fn wait(&mut self) -> Result<Next, Failure> {
        let mut look_at = Instant::now() + QUIET;
        loop {
            tokio::select! {
                next = self.member.next_event() => return Ok(next),
                () = self.ending.asked() => return Ok(None),
                () = tokio::time::sleep_until(self.commit_at) => self.commit_in_time().await,
                () = tokio::time::sleep_until(look_at), if !self.args.follow => {
                    if self.is_done().await? {
                        return Ok(None);
                    }
                    look_at = Instant::now() + QUIET;
                }
            }
        }
    }

    /// Writes what was printed. When the command is to end and that is held up, it waits a moment longer.
    async fn put_out(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        let block = printer.take();
        if !block.is_empty() {
            self.is_broken = true;
            self.spout.begin(block);
            let ending = self.ending;
            let last = async {
                ending.asked().await;
                tokio::time::sleep(LAST_OUTPUT).await;
            };
            let written = tokio::select! {
                written = self.spout.written() => written,
                () = last => return Ok(()),
            };
            if let Some(error) = written.failed {
                return Err(error.into());
            }
            self.is_broken = false;
        }
        self.is_out = !self.is_broken;
        Ok(())
    }

    /// Commits all that was handed over, unless some of it is not out.
    ///
    /// # Errors
    /// The server's.
    async fn commit(&mut self) -> Result<(), Failure> {
        self.commit_at = Instant::now() + COMMIT;
        if !self.is_out || self.args.group.ack_mode == AckMode::None {
            return Ok(());
        }
        Ok(self.member.commit().await?)
    }

    /// Commits if it is time to. What could not be committed is tried again; whoever was sent away hears it as an event.
    async fn commit_in_time(&mut self) {
        if Instant::now() >= self.commit_at {
            self.commit_now().await;
        }
    }

    async fn commit_now(&mut self) {
        if let Err(Failure::Failed(error)) = self.commit().await {
            tracing::debug!(group = self.group, error, "not committed yet");
        }
    }

    /// Whether this member has all there is of what it owns. Once it has its share, what others own is theirs to read;
    /// before that it may still become its own.
    async fn is_done(&self) -> Result<bool, Failure> {
        let group = self.admin.describe_group(self.group).await?;
        let own: HashMap<TopicPartition, u64> = self.member.positions().collect();
        let done = |at: &tidelog::client::GroupPartition| {
            let place = TopicPartition { topic: at.topic.clone(), partition: at.partition };
            match (own.get(&place), &at.owner) {
                (Some(position), _) => *position >= at.end,
                (None, Some(_)) if !own.is_empty() => true,
                (None, _) => at.lag == 0,
            }
        };
        Ok(group.partitions.iter().all(done))
    }
}
