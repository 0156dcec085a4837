//! `tidelog reply`: answers each request on a topic with the output of a command.

use std::process::Stdio;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidelog::base::TopicName;
use tidelog::client::{ClientError, ErrorReply, Incoming, IncomingRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;

/// Bytes of a command's output that make a reply.
const REPLY_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of what it says on stderr that are sent with an error reply.
const ERROR_BYTES: u64 = 1024;

const EXAMPLES: &str = "\
Examples:
  tidelog reply crm.phone --exec './phone.sh'         each request's body on its stdin, its output is the reply
  tidelog reply echo --exec cat
  tidelog reply upper --exec 'tr a-z A-Z' --parallel 8 --max 100

The command runs in a shell. Exit status 0: its output is the reply. Anything else: an error reply with the code 'exit-N' and
what it said on stderr. It finds in its environment TIDELOG_TOPIC, TIDELOG_STEP and, of a durable request, TIDELOG_REQUEST_ID.";

/// Options of `reply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplyArgs {
    /// Topic to respond on
    topic: TopicName,
    /// Command that answers a request
    #[arg(long, value_name = "CMD")]
    exec: String,
    /// Requests answered at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    parallel: u32,
    /// Stop after this many requests
    #[arg(long, short = 'n', value_name = "N")]
    max: Option<u64>,
    /// Take no durable requests
    #[arg(long)]
    ephemeral_only: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs `reply`.
pub async fn run(args: ReplyArgs) -> Result<(), Failure> {
    let cannot = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let client = args.server.connect().await?;
    let mut builder = client.responder(args.topic.as_str()).capacity(args.parallel);
    if args.ephemeral_only {
        builder = builder.ephemeral_only();
    }
    let mut responder = builder.listen().await?;
    output::complain(&format!("responding on '{}'", args.topic));
    let command: Arc<str> = args.exec.into();
    let (mut taken, mut working) = (0, FuturesUnordered::new());
    let max = args.max.unwrap_or(u64::MAX);
    while taken < max || !working.is_empty() {
        tokio::select! {
            Some(replied) = working.next(), if !working.is_empty() => {
                let replied: Result<(), ClientError> = replied;
                if let Err(error) = replied {
                    output::complain(&format!("a reply could not be sent: {error}"));
                }
            }
            incoming = responder.next(), if taken < max => {
                taken += 1;
                working.push(answer(incoming?, Arc::clone(&command)));
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    // What is being answered is handed back or failed; what was answered is on its way or on the disk.
    drop(working);
    Ok(responder.close().await?)
}

async fn answer(incoming: Incoming, command: Arc<str>) -> Result<(), ClientError> {
    let request = incoming.request().clone();
    match incoming.working_on(execute(&request, &command)).await {
        Ok(output) => incoming.reply(output).await,
        Err(error) => incoming.fail(error).await,
    }
}

async fn execute(request: &IncomingRequest, command: &str) -> Result<Vec<u8>, ErrorReply> {
    let failed = |error: std::io::Error| ErrorReply::new("exec", format!("cannot run the command: {error}"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).kill_on_drop(true);
    shell.env("TIDELOG_TOPIC", &*request.topic).env("TIDELOG_STEP", request.step.to_string());
    if let Some(id) = &request.id {
        shell.env("TIDELOG_REQUEST_ID", id);
    }
    let mut child =
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it is asked.
            let _ = stdin.write_all(&request.body).await;
        }
    };
    let (mut output, mut said) = (Vec::new(), Vec::new());
    let read = async {
        if let Some(stdout) = stdout {
            stdout.take(REPLY_BYTES + 1).read_to_end(&mut output).await.map_err(failed)?;
        }
        Ok::<_, ErrorReply>(())
    };
    let listen = async {
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr).take(ERROR_BYTES).read_to_end(&mut said).await;
            // The rest is read and thrown away, so that the command is not held up.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
    };
    let ((), read, ()) = tokio::join!(write, read, listen);
    read?;
    if output.len() as u64 > REPLY_BYTES {
        return Err(ErrorReply::new("too_large", format!("the command wrote more than {REPLY_BYTES} bytes")));
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        return Ok(output);
    }
    let code = status.code().map_or_else(|| "killed".to_owned(), |code| format!("exit-{code}"));
    Err(ErrorReply::new(code, String::from_utf8_lossy(&said).trim().to_owned()))
}
