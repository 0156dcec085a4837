//! `tidelog consume --group`: a member of a group, from the command line; here of a queue group.
//!
//! A record is acked when it has been handed on: its output is out, or its command has succeeded. Whatever ends the command (`--max`, a
//! signal, a closed or full output, an error), what was only fetched goes back and has not been delivered. While the output is held
//! up, leases are extended.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt;
use tidelog::base::ErrorKind;
use tidelog::client::{Admin, Client, ClientError, Delivery, GroupChange, QueueConsumer, QueueRules};
use tokio::time::Instant;

use super::consume::{ConsumeArgs, Printer};
use super::ending::Ending;
use super::failure::Failure;
use super::group_options::{AckMode, GroupKind};
use super::shell::{GRACE, Output, Shell};
use super::spout::{Spout, Written};
use super::{output, stream_consume};

/// How long nothing may come before it is asked whether there is anything left.
const QUIET: Duration = Duration::from_millis(300);
/// How long output that is held up may take once the command is to end.
pub const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How long the server may take to hear that the member leaves, once the command is to end.
pub const LEAVING: Duration = Duration::from_secs(10);
/// Bytes of output that are written at a time.
pub const OUTPUT_BYTES: usize = 64 * 1024;
/// Characters of a command's error output that go into the reason.
const REASON_CHARS: usize = 500;
/// Bytes of a command's error output that are kept.
const ERROR_BYTES: usize = 64 * 1024;
/// Bytes of a key in a variable for a command. Linux takes 128 KiB, name included.
const VARIABLE_BYTES: usize = 120 * 1024;

/// Reads as a member of the group until there is nothing left, or for as long as records come.
///
/// # Errors
/// The server's, those of standard output.
pub async fn run(args: &ConsumeArgs, group: &str, printer: &mut Printer, ending: &Ending) -> Result<(), Failure> {
    let open = async {
        let client = args.server.connect().await?;
        let kind = stream_consume::kind(args, group, &client).await?;
        let wrong = match kind {
            GroupKind::Stream => args.group.only_for_queues(),
            GroupKind::Queue => args.group.only_for_streams(),
        };
        if let Some(option) = wrong {
            let (for_kind, name) = match kind {
                GroupKind::Stream => (GroupKind::Queue.name(), kind.name()),
                GroupKind::Queue => (GroupKind::Stream.name(), kind.name()),
            };
            return Err(Failure::Usage(format!("{option} is for {for_kind} groups; '{group}' is a {name} group")));
        }
        let is_redefined = redefine(args, group, &client).await?;
        Ok((client, kind, is_redefined))
    };
    let (client, kind, as_it_is) = tokio::select! {
        opened = open => opened?,
        () = ending.asked() => return Ok(()),
    };
    if kind == GroupKind::Stream {
        return stream_consume::run(args, group, (&client, as_it_is), printer, ending).await;
    }
    let member = tokio::select! {
        member = join(args, group, &client, as_it_is) => member?,
        () = ending.asked() => return Ok(()),
    };
    let spout = Spout::start().map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
    let mut work = Work {
        args,
        admin: client.admin(),
        group,
        ending,
        member,
        spout,
        printed: Vec::new(),
        kept: Vec::new(),
        extend_at: Instant::now(),
    };
    let worked = work.run(printer).await;
    // What was printed before a failure is done all the same, once it is out.
    let out = match work.spout.is_busy() {
        true => Ok(()),
        false => work.put_out(printer).await,
    };
    for delivery in work.kept {
        delivery.release();
    }
    let left = match ending.is_asked() {
        true => tokio::time::timeout(LEAVING, work.member.close()).await.unwrap_or(Ok(())),
        false => work.member.close().await,
    };
    worked?;
    out?;
    Ok(left?)
}

/// Changes the group to what is said, if that is wished; whether it was there and is changed.
async fn redefine(args: &ConsumeArgs, group: &str, client: &Client) -> Result<bool, Failure> {
    if !args.group.redefine {
        return Ok(false);
    }
    if args.topics.is_empty() && args.filter.is_none() && !args.group.rules.are_said() {
        return Err(Failure::Usage(
            "--redefine changes the group to what is said: topics, --filter or rules".to_owned(),
        ));
    }
    let mut change = args.group.rules.change(GroupChange::new(group).from(args.start()));
    for topic in &args.topics {
        change = change.topic(topic.as_str());
    }
    change = match &args.filter {
        Some(filter) => change.filter(filter),
        None if args.topics.is_empty() => change,
        None => change.no_filter(),
    };
    match client.admin().alter_group(change).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn join(args: &ConsumeArgs, group: &str, client: &Client, as_it_is: bool) -> Result<QueueConsumer, Failure> {
    let mut builder = client.queue(group).from(args.start()).prefetch(args.group.prefetch);
    if as_it_is {
        return Ok(builder.join().await?);
    }
    for topic in &args.topics {
        builder = builder.topic(topic.as_str());
    }
    if let Some(filter) = &args.filter {
        builder = builder.filter(filter);
    }
    if args.group.rules.are_said() {
        let rules = match client.admin().describe_group(group).await {
            Ok(group) => group.rules,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        builder = builder.rules(args.group.rules.rules(rules.unwrap_or_else(QueueRules::default)));
    }
    Ok(builder.join().await?)
}

struct Work<'a> {
    args: &'a ConsumeArgs,
    admin: Admin,
    group: &'a str,
    ending: &'a Ending,
    member: QueueConsumer,
    spout: Spout,
    /// Records whose output is not out yet, with the bytes that are out when theirs are.
    printed: Vec<(usize, Delivery)>,
    /// Records that are not to be acked.
    kept: Vec<Delivery>,
    /// When the leases of what is not out yet are extended.
    extend_at: Instant,
}

type Next = Option<Result<Delivery, ClientError>>;

impl Work<'_> {
    async fn run(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        while !self.ending.is_asked() {
            let next = match self.member.next().now_or_never() {
                Some(next) => next,
                None => {
                    self.put_out(printer).await?;
                    self.wait().await?
                }
            };
            let Some(delivery) = next else { return Ok(()) };
            self.take(delivery?, printer).await?;
            if self.args.max.is_some_and(|max| printer.records() >= max) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for a record; none if there is nothing left, or the command is to end.
    async fn wait(&mut self) -> Result<Next, Failure> {
        let mut look_at = Instant::now() + QUIET;
        loop {
            tokio::select! {
                next = self.member.next() => return Ok(next),
                () = self.ending.asked() => return Ok(None),
                () = tokio::time::sleep_until(look_at), if !self.args.follow => {
                    if self.is_done().await? {
                        return Ok(None);
                    }
                    look_at = Instant::now() + QUIET;
                }
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

    /// The leases of what is not out yet begin anew. What is kept on purpose goes to others when its lease ends.
    fn extend(&mut self) {
        let mut lease = Duration::from_secs(1);
        for (_, delivery) in &self.printed {
            lease = delivery.lease();
            delivery.extend();
        }
        self.extend_at = Instant::now() + lease / 3;
    }

    async fn take(&mut self, delivery: Delivery, printer: &mut Printer) -> Result<(), Failure> {
        if let Some(command) = &self.args.group.exec {
            match execute(command, &delivery, self.ending, &mut self.spout).await {
                Outcome::Done => delivery.ack(),
                Outcome::Failed(reason) => {
                    let record = delivery.record();
                    let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
                    let attempt = delivery.attempt();
                    output::complain(&format!("{topic}/{partition} at offset {offset}, attempt {attempt}: {reason}"));
                    delivery.nack(reason);
                }
                Outcome::Interrupted => {
                    delivery.release();
                    return Ok(());
                }
            }
            printer.count(0);
            return Ok(());
        }
        if let Err(error) = printer.print(delivery.record(), Some(delivery.attempt())) {
            delivery.release();
            return Err(error);
        }
        if self.printed.is_empty() {
            self.extend_at = Instant::now() + delivery.lease() / 3;
        }
        self.printed.push((printer.held(), delivery));
        let many = (self.args.group.prefetch as usize / 2).max(1);
        let now = self.args.group.ack_mode == AckMode::Durable;
        if now || self.printed.len() >= many || printer.held() >= OUTPUT_BYTES {
            self.put_out(printer).await?;
        }
        Ok(())
    }

    /// Writes what was printed, and says of its records what is to be said of them: of those whose output is out. The others go
    /// back.
    async fn put_out(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        let block = printer.take();
        let written = match block.is_empty() {
            true => Written { bytes: 0, failed: None },
            false => self.write(block).await,
        };
        let mut failed = written.failed.map(Failure::from);
        for (end, delivery) in std::mem::take(&mut self.printed) {
            if end > written.bytes {
                delivery.release();
                continue;
            }
            match self.args.group.ack_mode {
                AckMode::Auto => delivery.ack(),
                AckMode::Durable => {
                    if let Err(error) = delivery.ack_durable().await {
                        failed.get_or_insert(error.into());
                    }
                }
                AckMode::None => self.kept.push(delivery),
                AckMode::Nack => delivery.nack("sent back with --ack-mode nack"),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes; extends leases while that is held up. When the command is to end, it waits a moment longer.
    async fn write(&mut self, block: Vec<u8>) -> Written {
        self.spout.begin(block);
        let mut until = None;
        loop {
            tokio::select! {
                written = self.spout.written() => return written,
                () = tokio::time::sleep_until(self.extend_at) => self.extend(),
                () = self.ending.asked(), if until.is_none() => until = Some(Instant::now() + LAST_OUTPUT),
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return Written { bytes: 0, failed: None };
                }
            }
        }
    }
}

/// Hands a record's key to a command. `TIDELOG_KEY` has its bytes, unless one of them is a zero byte, which no variable can hold.
/// `TIDELOG_KEY_BASE64` has any key. A key that is too long for a variable is in neither; `TIDELOG_KEY_BYTES` says how long it is.
fn set_key(shell: &mut tokio::process::Command, key: Option<&[u8]>) {
    for name in ["TIDELOG_KEY", "TIDELOG_KEY_BASE64", "TIDELOG_KEY_BYTES"] {
        shell.env_remove(name);
    }
    let Some(key) = key else {
        shell.env("TIDELOG_KEY", "");
        return;
    };
    shell.env("TIDELOG_KEY_BYTES", key.len().to_string());
    if key.len() <= VARIABLE_BYTES && !key.contains(&0) {
        shell.env("TIDELOG_KEY", OsStr::from_bytes(key));
    }
    let encoded = BASE64_STANDARD.encode(key);
    if encoded.len() <= VARIABLE_BYTES {
        shell.env("TIDELOG_KEY_BASE64", encoded);
    }
}

/// What came of a command.
enum Outcome {
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// It was told to end, and did not succeed: that says nothing of the record.
    Interrupted,
}

/// Runs a command for a record. The lease is extended while it runs.
async fn execute(command: &str, delivery: &Delivery, ending: &Ending, spout: &mut Spout) -> Outcome {
    let record = delivery.record();
    let prepare = |shell: &mut tokio::process::Command| {
        set_key(shell, record.key.as_deref());
        shell
            .env("TIDELOG_TOPIC", record.topic.as_ref())
            .env("TIDELOG_PARTITION", record.partition.to_string())
            .env("TIDELOG_OFFSET", record.offset.to_string())
            .env("TIDELOG_ATTEMPT", delivery.attempt().to_string());
    };
    let cannot = |error| Outcome::Failed(format!("cannot run '{command}': {error}"));
    let input = record.value.clone().unwrap_or_default();
    let mut shell = match Shell::start(command, prepare, input, Output::To(spout), ERROR_BYTES) {
        Ok(shell) => shell,
        Err(error) => return cannot(error),
    };
    let mut until: Option<Instant> = None;
    let ended = loop {
        tokio::select! {
            ended = shell.wait() => break ended,
            () = tokio::time::sleep(delivery.lease() / 3) => delivery.extend(),
            () = ending.asked(), if until.is_none() => {
                until = Some(Instant::now() + GRACE + LAST_OUTPUT);
                shell.end();
            }
            // It has ended, and its output is held up.
            () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                return Outcome::Interrupted;
            }
        }
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return cannot(error),
    };
    // The command's own words are for whoever watches, whatever it came to.
    let _ = std::io::stderr().write_all(&ended.stderr);
    if ended.status.success() {
        return Outcome::Done;
    }
    if until.is_some() {
        return Outcome::Interrupted;
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let last: String = last.chars().take(REASON_CHARS).collect();
    let status = ended.status.code().map_or_else(|| "was killed".to_owned(), |code| format!("exit status {code}"));
    Outcome::Failed(if last.is_empty() { format!("the command's {status}") } else { format!("{last} ({status})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(key: Option<&[u8]>) -> Vec<(String, Option<Vec<u8>>)> {
        let mut shell = tokio::process::Command::new("sh");
        set_key(&mut shell, key);
        let set = |(name, value): (&OsStr, Option<&OsStr>)| {
            (name.to_string_lossy().into_owned(), value.map(|value| value.as_bytes().to_vec()))
        };
        shell.as_std().get_envs().map(set).collect()
    }

    fn of(key: Option<&[u8]>) -> [Option<Vec<u8>>; 3] {
        let all = variables(key);
        ["TIDELOG_KEY", "TIDELOG_KEY_BASE64", "TIDELOG_KEY_BYTES"].map(|name| {
            let found = all.iter().find(|(known, _)| known == name);
            found.and_then(|(_, value)| value.clone())
        })
    }

    #[test]
    fn a_command_gets_a_key_of_any_bytes_and_starts_whatever_its_length() {
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(of(None), [bytes(""), None, None]);
        assert_eq!(of(Some(b"k1")), [bytes("k1"), bytes("azE="), bytes("2")]);
        assert_eq!(of(Some(b"\xff\xfe")), [Some(vec![0xff, 0xfe]), bytes("//4="), bytes("2")]);
        assert_eq!(of(Some(b"a\0b")), [None, bytes("YQBi"), bytes("3")]);
        let long = vec![b'x'; 100 * 1024];
        assert_eq!(of(Some(&long)), [Some(long.clone()), None, bytes("102400")]);
        assert_eq!(of(Some(&vec![b'x'; 200_000])), [None, None, bytes("200000")]);
    }
}
