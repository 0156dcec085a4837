//! `tidelog consume --group` in a stream group: records of the partitions that this member owns, in order.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use tidelog::base::ErrorKind;
use tidelog::client::{Admin, Client, GroupConsumer, GroupEvent, TopicPartition};
use tokio::signal::unix::Signal;

use super::consume::{ConsumeArgs, Printer};
use super::failure::Failure;
use super::group_options::{AckMode, GroupKind};
use super::output;

/// How long nothing may come before it is asked whether there is anything left.
const QUIET: Duration = Duration::from_millis(300);

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
    match (args.group.group_kind, held) {
        (Some(said), Some(held)) if said != held => {
            Err(Failure::Failed(format!("group '{group}' is a {} group", held.name())))
        }
        (said, held) => Ok(said.or(held).unwrap_or(GroupKind::Queue)),
    }
}

/// Reads as a member of the group until there is nothing left for it, or for as long as records come.
///
/// # Errors
/// Options that are for queue groups; the server's, those of standard output.
pub async fn run(
    args: &ConsumeArgs,
    group: &str,
    client: &Client,
    printer: &mut Printer,
    interrupt: &mut Signal,
) -> Result<(), Failure> {
    if let Some(option) = args.group.only_for_queues() {
        return Err(Failure::Usage(format!("{option} is for queue groups; '{group}' is a stream group")));
    }
    let mut builder =
        client.group_consumer(group).from(args.from).topics(args.topics.iter().map(|topic| topic.as_str()));
    if let Some(filter) = &args.filter {
        builder = builder.filter(filter);
    }
    if let Some(instance) = &args.group.instance {
        builder = builder.instance(instance);
    }
    if let Some(session) = args.group.session {
        builder = builder.session_timeout(session.as_duration());
    }
    if args.group.ack_mode != AckMode::Auto {
        builder = builder.commit_by_hand();
    }
    let (admin, member) = (client.admin(), builder.join().await?);
    let mut work = Work { args, admin, group, member };
    let worked = tokio::select! {
        worked = work.run(printer) => worked,
        _ = interrupt.recv() => Ok(()),
    };
    // What was printed before a failure is done all the same, and nothing else is: it has to be out before.
    let flushed = printer.flush();
    let left = work.member.close().await;
    worked?;
    flushed?;
    Ok(left?)
}

struct Work<'a> {
    args: &'a ConsumeArgs,
    admin: Admin,
    group: &'a str,
    member: GroupConsumer,
}

impl Work<'_> {
    async fn run(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        loop {
            let next = match self.member.next_event().now_or_never() {
                Some(next) => next,
                None => {
                    printer.flush()?;
                    match tokio::time::timeout(QUIET, self.member.next_event()).await {
                        Ok(next) => next,
                        Err(_) if self.args.follow => self.member.next_event().await,
                        Err(_) if self.is_done().await? => return Ok(()),
                        Err(_) => continue,
                    }
                }
            };
            let Some(event) = next else { return Ok(()) };
            match event? {
                GroupEvent::Record(record) => {
                    printer.print(&record, None)?;
                    if self.args.group.ack_mode == AckMode::Durable {
                        printer.flush()?;
                        self.member.commit().await?;
                    }
                }
                GroupEvent::Missed { place: TopicPartition { topic, partition }, from, to } => {
                    let last = to.saturating_sub(1);
                    let gone = "retention has deleted them before they were done";
                    output::complain(&format!("{topic}/{partition}: passed over offsets {from} to {last}: {gone}"));
                }
                GroupEvent::Assigned(_) | GroupEvent::Revoked(_) | GroupEvent::Lost(_) => {}
            }
            if self.args.max.is_some_and(|max| printer.records() >= max) {
                return Ok(());
            }
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
