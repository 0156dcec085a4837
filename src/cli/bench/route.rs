//! `bench route`: what rules cost, and how far routing lags behind the producer's answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidelog::client::{Client, Message, StartAt};

use super::Options;
use super::latencies::Latencies;
use super::outcome::Outcome;
use super::process::cpu_seconds;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Messages that are routed by each set of rules, if not said.
const MESSAGES: u64 = 100_000;
/// How long a set of rules may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether everything is routed.
const LOOK: Duration = Duration::from_millis(5);

/// Rules that are measured.
struct Case {
    name: &'static str,
    rules: usize,
    condition: fn(usize, usize) -> String,
}

fn header(rules: usize, value: usize) -> String {
    format!("headers.h{rules} == \"v{value}\"")
}

fn json(rules: usize, value: usize) -> String {
    format!("value.f{rules} == \"v{value}\"")
}

/// One that cannot be looked up by the field's value.
fn scanned(rules: usize, value: usize) -> String {
    format!("value.f{rules}.endsWith(\"v{value}\")")
}

const CASES: [Case; 7] = [
    Case { name: "header ==", rules: 1, condition: header },
    Case { name: "header ==", rules: 10, condition: header },
    Case { name: "header ==", rules: 100, condition: header },
    Case { name: "JSON ==", rules: 1, condition: json },
    Case { name: "JSON ==", rules: 10, condition: json },
    Case { name: "JSON ==", rules: 100, condition: json },
    Case { name: "JSON endsWith", rules: 100, condition: scanned },
];

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let partitions = options.partitions();
    let topic = session.topic(&client, partitions, options.ack).await?;
    let messages = options.messages.unwrap_or(MESSAGES).max(1);
    fill(&client, options, &topic, messages).await?;
    let mut notes = Vec::new();
    let mut first = None;
    let meters = session.meters();
    for case in &CASES {
        let measured = measure(&session, &client, &topic, case, messages).await?;
        let rate = messages as f64 / measured.seconds;
        let per_core =
            measured.cpu.map_or("unknown".to_owned(), |cpu| grouped((messages as f64 / cpu.max(0.01)) as u64));
        let (name, rules) = (case.name, case.rules);
        notes.push(format!(
            "{rules:>3} rules, {name:<13}  {:>9} records/s, {per_core:>9} a second and core",
            grouped(rate as u64)
        ));
        first.get_or_insert(measured.seconds);
    }
    let usage = session.usage(&meters);
    let lag = lag(&session, &client, options).await?;
    notes.push(format!(
        "lag behind the answer at {} messages/s: p50 {} us, p99 {} us",
        grouped(options.rate),
        grouped(lag.at(0.5)),
        grouped(lag.at(0.99))
    ));
    let seconds = first.unwrap_or_default();
    Ok(Outcome {
        work: "route",
        title: format!("route, {} byte messages, {partitions} partitions; figures of 1 rule on a header", options.size),
        messages: Some(messages),
        seconds,
        messages_per_s: Some(messages as f64 / seconds),
        bytes: Some(messages * u64::from(options.size)),
        latency: Some(lag),
        usage,
        notes,
        ..Outcome::default()
    })
}

/// A message with a field and a header for each number of rules.
fn message(topic: &Arc<str>, number: u64, size: u32) -> Message {
    let value = |rules: u64| format!("v{}", number % rules);
    let fields = format!(
        "{{\"id\":{number},\"f1\":\"{}\",\"f10\":\"{}\",\"f100\":\"{}\",\"text\":\"\"}}",
        value(1),
        value(10),
        value(100)
    );
    let padding = "x".repeat((size as usize).saturating_sub(fields.len()));
    let text = format!("{}{padding}\"}}", &fields[..fields.len() - 2]);
    Message::to(Arc::clone(topic))
        .key(format!("k{}", number % 1000))
        .value(text)
        .header("h1", value(1))
        .header("h10", value(10))
        .header("h100", value(100))
}

async fn fill(client: &Client, options: &Options, topic: &str, messages: u64) -> Result<(), Failure> {
    let producer = client.producer().build().await?;
    let topic: Arc<str> = topic.into();
    for number in 0..messages {
        producer.send(message(&topic, number, options.size)).await?;
    }
    Ok(producer.flush().await?)
}

struct Measured {
    seconds: f64,
    cpu: Option<f64>,
}

/// Routes the topic from its beginning to its end.
async fn measure(
    session: &Session,
    client: &Client,
    topic: &str,
    case: &Case,
    messages: u64,
) -> Result<Measured, Failure> {
    let name = format!("bench.{:08x}", fastrand::u32(..));
    let mut file = format!("[[route]]\nname = \"{name}\"\nfrom = \"{topic}\"\nstart = \"beginning\"\n");
    for value in 0..case.rules {
        let condition = (case.condition)(case.rules, value);
        file += &format!("[[route.to]]\nname = \"{value}\"\nwhen = '{condition}'\ntopic = \"{name}.out\"\n");
    }
    let cpu_before = session.pid().and_then(cpu_seconds);
    let started = Instant::now();
    apply(client, file).await?;
    let admin = client.admin();
    loop {
        let route = admin.list_routes().await?.into_iter().find(|route| route.name == name);
        match route {
            Some(route) if route.lag == 0 => break,
            Some(_) if started.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
            _ => return Err(Failure::Failed(format!("{messages} messages are not routed after {PATIENCE:?}"))),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = session.pid().and_then(cpu_seconds).zip(cpu_before).map(|(after, before)| after - before);
    let described = admin.describe_route(name.as_str()).await?;
    let routed: u64 = described.destinations.iter().map(|destination| destination.records).sum();
    if routed != messages || described.summary.failed > 0 {
        return Err(Failure::Failed(format!("{routed} of {messages} messages were routed")));
    }
    admin.delete_route(name.as_str()).await?;
    admin.delete_topic(format!("{name}.out")).await?;
    Ok(Measured { seconds, cpu })
}

async fn apply(client: &Client, file: String) -> Result<(), Failure> {
    let applied = client.admin().apply_routes(file, false, false).await?;
    match applied.mistakes.first() {
        Some(mistake) => Err(Failure::Failed(format!("line {}: {}", mistake.line, mistake.message))),
        None => Ok(()),
    }
}

/// Sends at a steady rate; counts from a message's answer until a consumer of the destination has it.
async fn lag(session: &Session, client: &Client, options: &Options) -> Result<Latencies, Failure> {
    let topic: Arc<str> = session.topic(client, 1, options.ack).await?.into();
    let name = format!("bench.{:08x}", fastrand::u32(..));
    let out = session.topic(client, 1, options.ack).await?;
    let condition = json(1, 0);
    apply(
        client,
        format!(
            "[[route]]\nname = \"{name}\"\nfrom = \"{topic}\"\n[[route.to]]\nwhen = '{condition}'\ntopic = \"{out}\"\n"
        ),
    )
    .await?;
    let count = (options.rate as f64 * options.seconds()) as u64;
    let mut consumer = session.client().await?.consumer().topic(&out).from(StartAt::Beginning).build().await?;
    let producer = session.client().await?.producer().ack(options.ack).build().await?;
    let answered: Arc<Mutex<Vec<Option<Instant>>>> = Arc::new(Mutex::new(vec![None; count as usize]));
    let (rate, size, sending) = (options.rate, options.size, Arc::clone(&answered));
    let sender = tokio::spawn(async move {
        let started = tokio::time::Instant::now();
        let mut receipts = Vec::new();
        for number in 0..count {
            tokio::time::sleep_until(started + Duration::from_secs_f64(number as f64 / rate as f64)).await;
            let receipt = producer.send(message(&topic, number, size)).await?;
            let sending = Arc::clone(&sending);
            receipts.push(tokio::spawn(async move {
                let stored = receipt.await;
                sending.lock().unwrap_or_else(PoisonError::into_inner)[number as usize] = Some(Instant::now());
                stored.map(|_| ())
            }));
        }
        for receipt in receipts {
            receipt.await.map_err(Failure::failed)??;
        }
        Ok::<(), Failure>(())
    });
    let mut seen = Vec::with_capacity(count as usize);
    while (seen.len() as u64) < count {
        match tokio::time::timeout(PATIENCE, consumer.next()).await {
            Ok(Some(record)) => drop(record?),
            _ => return Err(Failure::Failed(format!("{} of {count} messages came through", seen.len()))),
        }
        seen.push(Instant::now());
    }
    sender.await.map_err(Failure::failed)??;
    client.admin().delete_route(name.as_str()).await?;
    let mut lag = Latencies::default();
    let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
    // One partition, one producer: they come in the order sent.
    for (answered, seen) in answered.iter().zip(&seen) {
        // Routing may be seen by its consumer before the producer's answer is by the producer.
        lag.record(answered.map_or(Duration::ZERO, |answered| seen.saturating_duration_since(answered)));
    }
    Ok(lag)
}
