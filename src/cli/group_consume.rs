//! `tidelog consume --group`: a member of a group, from the command line; here of a queue group.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
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
/// Bytes of a key in a variable for a command. Linux takes 128 KiB, name included.
const VARIABLE_BYTES: usize = 120 * 1024;

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

/// Runs a command for a record, and says why it failed. The lease is extended while it runs.
async fn execute(command: &str, delivery: &Delivery) -> Result<(), String> {
    let record = delivery.record();
    let mut shell = tokio::process::Command::new("sh");
    set_key(&mut shell, record.key.as_deref());
    let mut child = shell
        .args(["-c", command])
        .env("TIDELOG_TOPIC", record.topic.as_ref())
        .env("TIDELOG_PARTITION", record.partition.to_string())
        .env("TIDELOG_OFFSET", record.offset.to_string())
        .env("TIDELOG_ATTEMPT", delivery.attempt().to_string())
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
