//! `bench request`: how long it takes until a request is answered, by a responder that has its answer at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidelog::client::{Client, ClientError, ErrorReply, Outcome as Answer};
use tokio::sync::oneshot;

use super::Options;
use super::latencies::Latencies;
use super::limits::{self, Layout, Volume};
use super::outcome::Outcome;
use super::session::Session;
use crate::cli::failure::Failure;

/// Requests of each requester before measuring begins.
const WARM_UP: u64 = 200;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a batch around one body.
const ENVELOPE: usize = 200;

/// Runs it: `--connections` requesters, each with one request at a time; one responder, on a thread of its own.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let topic = format!("bench.{:08x}", fastrand::u32(..));
    let (stop, responder) = respond(session.address.clone(), topic.clone()).await?;
    let requesters = options.connections();
    let clients = session.clients(requesters).await?;
    let load = Load { topic, body: Bytes::from(vec![7; options.size as usize]), durable: options.durable };
    ask_all(&clients, &load, Some(WARM_UP * u64::from(requesters)), None).await?;
    let meters = session.meters();
    let started = Instant::now();
    let until = options.messages.is_none().then(|| started + Duration::from_secs_f64(options.seconds()));
    let latencies = ask_all(&clients, &load, options.messages, until).await?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    drop((stop, clients));
    let _ = responder.join();
    let (size, messages) = (options.size as usize, latencies.count());
    let folder = session.workspace.path().to_owned();
    let durable = options.durable;
    let bare = tokio::task::spawn_blocking(move || {
        let trip = limits::ping_pongs(size, messages, requesters)?;
        let volume = Volume::of(messages.saturating_mul((size + ENVELOPE) as u64));
        let sync = match durable {
            true => Some(limits::sync_loop(&folder, size + ENVELOPE, 1, Layout::Prepared, volume)?.sync),
            false => None,
        };
        Ok::<_, Failure>((trip, sync))
    });
    let (trip, sync) = bare.await.map_err(Failure::failed)??;
    let (limit, note) = match &sync {
        None => (
            2.0 * trip.at(0.5) as f64,
            format!(
                "the bare limit is two ping-pongs: p50 / p99 / p99.9 of one, with as many at a time, {}",
                trip.shown_to_the_tail()
            ),
        ),
        Some(sync) => (
            sync.at(0.5) as f64,
            format!(
                "the bare limit is one fdatasync: p50 / p99 / p99.9 {}; a ping-pong, with as many at a time, takes {}; three syncs \
                 follow each other (request, table, reply)",
                sync.shown_to_the_tail(),
                trip.shown_to_the_tail()
            ),
        ),
    };
    Ok(Outcome {
        work: "request",
        title: format!(
            "request and reply, {}, {} byte bodies, {requesters} requesters",
            if durable { "durable" } else { "in memory" },
            options.size
        ),
        messages: Some(messages),
        seconds,
        messages_per_s: Some(messages as f64 / seconds),
        limit_us: Some(limit),
        latency: Some(latencies),
        usage,
        notes: vec![note],
        ..Outcome::default()
    })
}

struct Load {
    topic: String,
    body: Bytes,
    durable: bool,
}

/// All requesters beside each other, until so many requests are answered or the time is over.
async fn ask_all(
    clients: &[Client],
    load: &Load,
    messages: Option<u64>,
    until: Option<Instant>,
) -> Result<Latencies, Failure> {
    let each = messages.map(|messages| messages.div_ceil(clients.len() as u64).max(1));
    let asking = clients.iter().map(|client| async move {
        let mut latencies = Latencies::default();
        while each.is_none_or(|each| latencies.count() < each) && until.is_none_or(|until| Instant::now() < until) {
            let began = Instant::now();
            ask(client, load).await?;
            latencies.since(began);
        }
        Ok::<_, Failure>(latencies)
    });
    let mut all = Latencies::default();
    for latencies in futures_util::future::join_all(asking).await {
        all.add(&latencies?);
    }
    Ok(all)
}

async fn ask(client: &Client, load: &Load) -> Result<(), Failure> {
    let request = client.request(load.topic.as_str(), load.body.clone(), PATIENCE);
    let outcome = if load.durable { request.durable().send().await? } else { request.send().await? };
    match outcome {
        Answer::Reply(_) => Ok(()),
        other => Err(Failure::Failed(format!("a request was not answered: {other:?}"))),
    }
}

/// A responder on a thread of its own, which replies with what it is asked; it ends when the sender is dropped.
async fn respond(
    address: String,
    topic: String,
) -> Result<(oneshot::Sender<()>, std::thread::JoinHandle<()>), Failure> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, listening) = oneshot::channel::<Result<(), ClientError>>();
    let work = async move {
        let opened = async {
            let client = Client::builder().server(address).name("tidelog-bench").build().await?;
            client.responder(topic).capacity(1024).listen().await
        };
        match opened.await {
            Ok(mut responder) => {
                let _ = ready.send(Ok(()));
                tokio::select! {
                    ended = responder.handle(|request| async move { Ok::<_, ErrorReply>(request.body) }) => {
                        if let Err(error) = ended {
                            crate::cli::output::complain(&format!("the responder ended: {error}"));
                        }
                    }
                    _ = stopped => {}
                }
            }
            Err(error) => _ = ready.send(Err(error)),
        }
    };
    let thread = std::thread::Builder::new().name("responder".to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => crate::cli::output::complain(&format!("cannot start the runtime: {error}")),
        }
    });
    let thread = thread.map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
    let gone = || Failure::Failed("the responder did not start".to_owned());
    listening.await.map_err(|_| gone())??;
    Ok((stop, thread))
}
