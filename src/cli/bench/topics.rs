//! `bench topics`: many topics written in turn, compared with one topic that gets as much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidelog::client::{Client, Message, NewTopic, Producer};

use super::Options;
use super::outcome::Outcome;
use super::producing::value;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::{grouped, seconds};

/// Topics created at a time.
const CREATING: usize = 64;

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let messages = options.messages_or(1_000_000_000);
    let began = Instant::now();
    let topics = create(&client, options.topics).await?;
    let created = began.elapsed();
    let producer = client.producer().ack(options.ack).delivery_timeout(Duration::from_secs(120)).build().await?;
    let value = value(options.size as usize);
    // The first message to a topic asks the server for it.
    send(&producer, &topics, u64::from(options.topics), &value).await?;
    let meters = session.meters();
    let many = send(&producer, &topics, messages, &value).await?;
    let usage = session.usage(&meters);
    let single: Arc<str> = session.topic(&client, 1, options.ack).await?.into();
    send(&producer, std::slice::from_ref(&single), messages.min(100), &value).await?;
    let one = send(&producer, std::slice::from_ref(&single), messages, &value).await?;
    let bytes = messages * u64::from(options.size);
    Ok(Outcome {
        work: "topics",
        title: format!(
            "produce to {} topics in turn, {} byte messages; the limit is one topic",
            grouped(u64::from(options.topics)),
            options.size
        ),
        messages: Some(messages),
        seconds: many.as_secs_f64(),
        messages_per_s: Some(messages as f64 / many.as_secs_f64()),
        bytes: Some(bytes),
        limit_bytes_per_second: Some(bytes as f64 / one.as_secs_f64()),
        usage,
        notes: vec![format!("{} topics created in {}", grouped(u64::from(options.topics)), seconds(created))],
        ..Outcome::default()
    })
}

async fn create(client: &Client, count: u32) -> Result<Vec<Arc<str>>, Failure> {
    use futures_util::{StreamExt, TryStreamExt};
    let prefix = format!("bench.{:08x}", fastrand::u32(..));
    let admin = client.admin();
    let names = (0..count).map(|number| {
        let (admin, name) = (admin.clone(), format!("{prefix}.{number:06}"));
        async move {
            admin.create_topic(NewTopic::new(&name).partitions(1)).await?;
            Ok::<Arc<str>, Failure>(name.into())
        }
    });
    futures_util::stream::iter(names).buffered(CREATING).try_collect().await
}

/// Sends so many messages to the topics in turn; how long until all are acknowledged.
async fn send(producer: &Producer, topics: &[Arc<str>], messages: u64, value: &Bytes) -> Result<Duration, Failure> {
    let began = Instant::now();
    for topic in topics.iter().cycle().take(usize::try_from(messages).unwrap_or(usize::MAX)) {
        producer.send(Message::to(topic.clone()).value(value.clone())).await?;
    }
    producer.flush().await?;
    Ok(began.elapsed())
}
