//! `tidelog reply`: answers each request on a topic with the output of a command.

use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidelog::base::TopicName;
use tidelog::client::{ClientError, ErrorReply, Incoming, IncomingRequest};
use tokio::process::Command;

use super::connection::ServerArgs;
use super::ending::Ending;
use super::failure::Failure;
use super::output;
use super::shell::{Output, Shell};

/// Bytes of a command's output that make a reply.
const REPLY_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of what it says on stderr that are sent with an error reply.
const ERROR_BYTES: usize = 1024;

const EXAMPLES: &str = "\
Examples:
  tidelog reply crm.phone --exec './phone.sh'         each request's body on its stdin, its output is the reply
  tidelog reply echo --exec cat
  tidelog reply upper --exec 'tr a-z A-Z' --parallel 8 --max 100

The command runs in a shell. Exit status 0: its output is the reply. Anything else: an error reply with the code 'exit-N' and
what it said on stderr. It finds in its environment TIDELOG_TOPIC, TIDELOG_STEP
and, of a durable request, TIDELOG_REQUEST_ID. The output is the reply to the last byte: with --trim, 'echo 42' replies 42 without a
newline.";

/// Options of `reply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplyArgs {
    /// Topic to respond on
    topic: TopicName,
    /// Command that answers a request
    #[arg(long, value_name = "CMD")]
    exec: String,
    /// Leave out a newline at the end of the output
    #[arg(long)]
    trim: bool,
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
    let ending = Ending::listen()?;
    let client = args.server.connect().await?;
    let mut builder = client.responder(args.topic.as_str()).capacity(args.parallel);
    if args.ephemeral_only {
        builder = builder.ephemeral_only();
    }
    let mut responder = builder.listen().await?;
    output::complain(&format!("responding on '{}'", args.topic));
    let command: Arc<str> = args.exec.into();
    let trim = args.trim;
    let (mut taken, mut working) = (0, FuturesUnordered::new());
    let max = args.max.unwrap_or(u64::MAX);
    while (taken < max && !ending.is_asked()) || !working.is_empty() {
        tokio::select! {
            Some(replied) = working.next(), if !working.is_empty() => {
                let replied: Result<(), ClientError> = replied;
                if let Err(error) = replied {
                    output::complain(&format!("a reply could not be sent: {error}"));
                }
            }
            incoming = responder.next(), if taken < max && !ending.is_asked() => {
                taken += 1;
                working.push(answer(incoming?, Arc::clone(&command), trim, ending.clone()));
            }
            // Commands under way are told to end, and are waited for.
            () = ending.asked(), if !ending.is_asked() => {}
        }
    }
    // What was not answered is handed back or failed; what was answered is on its way or on the disk.
    Ok(responder.close().await?)
}

async fn answer(incoming: Incoming, command: Arc<str>, trim: bool, ending: Ending) -> Result<(), ClientError> {
    let request = incoming.request().clone();
    match incoming.working_on(execute(&request, &command, &ending)).await {
        Some(Ok(mut output)) => {
            // What a shell leaves out of $(...), but one only: the others may be the reply's.
            output.pop_if(|last| trim && *last == b'\n');
            incoming.reply(output).await
        }
        Some(Err(error)) => incoming.fail(error).await,
        None => {
            incoming.release();
            Ok(())
        }
    }
}

/// Runs the command; none if it was told to end and did not succeed, which says nothing of the request.
async fn execute(request: &IncomingRequest, command: &str, ending: &Ending) -> Option<Result<Vec<u8>, ErrorReply>> {
    let failed = |error: std::io::Error| ErrorReply::new("exec", format!("cannot run the command: {error}"));
    let prepare = |shell: &mut Command| {
        shell.env("TIDELOG_TOPIC", &*request.topic).env("TIDELOG_STEP", request.step.to_string());
        if let Some(id) = &request.id {
            shell.env("TIDELOG_REQUEST_ID", id);
        }
    };
    let body = request.body.clone();
    let mut shell = match Shell::start(command, prepare, body, Output::Kept(REPLY_BYTES + 1), ERROR_BYTES) {
        Ok(shell) => shell,
        Err(error) => return Some(Err(failed(error))),
    };
    let mut is_told = false;
    let ended = loop {
        tokio::select! {
            ended = shell.wait() => break ended,
            () = ending.asked(), if !is_told => {
                is_told = true;
                shell.end();
            }
        }
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return Some(Err(failed(error))),
    };
    if ended.status.success() {
        let fits = ended.stdout.len() <= REPLY_BYTES;
        let too_large = || ErrorReply::new("too_large", format!("the command wrote more than {REPLY_BYTES} bytes"));
        return Some(if fits { Ok(ended.stdout) } else { Err(too_large()) });
    }
    if is_told {
        return None;
    }
    let code = ended.status.code().map_or_else(|| "killed".to_owned(), |code| format!("exit-{code}"));
    Some(Err(ErrorReply::new(code, String::from_utf8_lossy(&ended.stderr).trim().to_owned())))
}
