//! `tidelog consume --group`: a member of a group, from the command line; here of a queue group.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt;
use tidelog::base::ErrorKind;
use tidelog::client::{Admin, Client, Delivery, QueueConsumer, QueueRules};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::Signal;

use super::consume::{ConsumeArgs, Printer};
use super::failure::Failure;
use super::group_options::{AckMode, GroupKind};
use super::{output, stream_consume};

/// How long nothing may come before it is asked whether there is anything left.
const QUIET: Duration = Duration::from_millis(300);
/// Characters of a command's error output that go into the reason.
const REASON_CHARS: usize = 500;

/// Reads as a member of the group until there is nothing left, or for as long as records come.
///
/// # Errors
/// The server's, those of standard output.
pub async fn run(
    args: &ConsumeArgs,
    group: &str,
    printer: &mut Printer,
    interrupt: &mut Signal,
) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    if stream_consume::kind(args, group, &client).await? == GroupKind::Stream {
        return stream_consume::run(args, group, &client, printer, interrupt).await;
    }
    if let Some(option) = args.group.only_for_streams() {
        return Err(Failure::Usage(format!("{option} is for stream groups; '{group}' is a queue group")));
    }
    let member = join(args, group, &client).await?;
    let mut work = Work { args, admin: client.admin(), group, member, kept: Vec::new() };
    let worked = tokio::select! {
        worked = work.run(printer) => worked,
        _ = interrupt.recv() => Ok(()),
    };
    for delivery in work.kept {
        delivery.release();
    }
    // What was printed before a failure is done all the same.
    let left = work.member.close().await;
    worked?;
    Ok(left?)
}

async fn join(args: &ConsumeArgs, group: &str, client: &Client) -> Result<QueueConsumer, Failure> {
    let mut builder = client.queue(group).from(args.from).prefetch(args.group.prefetch);
    for topic in &args.topics {
        builder = builder.topic(topic.as_str());
    }
    if let Some(filter) = &args.filter {
        builder = builder.filter(filter);
    }
    if args.group.changes_rules() {
        let rules = match client.admin().describe_group(group).await {
            Ok(group) => group.rules,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        builder = builder.rules(args.group.rules(rules.unwrap_or_else(QueueRules::default)));
    }
    Ok(builder.join().await?)
}

struct Work<'a> {
    args: &'a ConsumeArgs,
    admin: Admin,
    group: &'a str,
    member: QueueConsumer,
    /// Records that are not to be acked.
    kept: Vec<Delivery>,
}

impl Work<'_> {
    async fn run(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        loop {
            let next = match self.member.next().now_or_never() {
                Some(next) => next,
                None => {
                    printer.flush()?;
                    match tokio::time::timeout(QUIET, self.member.next()).await {
                        Ok(next) => next,
                        Err(_) if self.args.follow => self.member.next().await,
                        Err(_) if self.is_done().await? => return Ok(()),
                        Err(_) => continue,
                    }
                }
            };
            let Some(delivery) = next else { return Ok(()) };
            self.take(delivery?, printer).await?;
            if self.args.max.is_some_and(|max| printer.records() >= max) {
                return Ok(());
            }
        }
    }

    /// Whether nothing is left that could come now: what others have, and what waits for its time, is not waited for.
    async fn is_done(&self) -> Result<bool, Failure> {
        let group = self.admin.describe_group(self.group).await?;
        let left =
            |partition: &tidelog::client::GroupPartition| partition.lag > partition.in_flight + partition.waiting;
        Ok(!group.partitions.iter().any(left))
    }

    async fn take(&mut self, delivery: Delivery, printer: &mut Printer) -> Result<(), Failure> {
        if let Some(command) = &self.args.group.exec {
            match execute(command, &delivery).await {
                Ok(()) => delivery.ack(),
                Err(reason) => {
                    let record = delivery.record();
                    let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
                    let attempt = delivery.attempt();
                    output::complain(&format!("{topic}/{partition} at offset {offset}, attempt {attempt}: {reason}"));
                    delivery.nack(reason);
                }
            }
            printer.count(0);
            return Ok(());
        }
        printer.print(delivery.record(), Some(delivery.attempt()))?;
        match self.args.group.ack_mode {
            AckMode::Auto => delivery.ack(),
            AckMode::Durable => {
                printer.flush()?;
                delivery.ack_durable().await?;
            }
            AckMode::None => self.kept.push(delivery),
            AckMode::Nack => delivery.nack("sent back with --ack-mode nack"),
        }
        Ok(())
    }
}

/// Runs a command for a record, and says why it failed. The lease is extended while it runs.
async fn execute(command: &str, delivery: &Delivery) -> Result<(), String> {
    let record = delivery.record();
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", command])
        .env("TIDELOG_TOPIC", record.topic.as_ref())
        .env("TIDELOG_PARTITION", record.partition.to_string())
        .env("TIDELOG_OFFSET", record.offset.to_string())
        .env("TIDELOG_ATTEMPT", delivery.attempt().to_string())
        .env("TIDELOG_KEY", String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).as_ref())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run '{command}': {error}"))?;
    let (stdin, value) = (child.stdin.take(), record.value.clone().unwrap_or_default());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that reads no input closes it early, and may succeed all the same.
            let _ = stdin.write_all(&value).await;
        }
    };
    let done = async { tokio::join!(feed, child.wait_with_output()).1 };
    tokio::pin!(done);
    let output = loop {
        tokio::select! {
            output = &mut done => break output,
            () = tokio::time::sleep(delivery.lease() / 3) => delivery.extend(),
        }
    };
    let output = output.map_err(|error| format!("cannot run '{command}': {error}"))?;
    // The command's own words are for whoever watches, whatever it came to.
    let _ = std::io::stderr().write_all(&output.stderr);
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let last: String = last.chars().take(REASON_CHARS).collect();
    let status = output.status.code().map_or_else(|| "was killed".to_owned(), |code| format!("exit status {code}"));
    Err(if last.is_empty() { format!("the command's {status}") } else { format!("{last} ({status})") })
}
