//! The native client's part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::client::{Ack, Client, StartAt};

use super::super::latencies::Latencies;
use super::super::latency::{EndToEnd, LEAD, WARM_UP, Work};
use super::super::pace::Schedule;
use super::super::producing::{Load, produce as produce_all};
use super::measured::{Asked, Fetched};
use crate::cli::failure::Failure;

async fn client(address: &str) -> Result<Client, Failure> {
    Ok(Client::builder().server(address).name("tidelog-bench").build().await?)
}

fn load(asked: &Asked, topic: &Arc<str>, messages: u64) -> Load {
    Load {
        topic: Arc::clone(topic),
        partitions: 1,
        messages,
        until: None,
        size: asked.size as usize,
        in_flight: None,
        ack: Ack::Durable,
        batch_bytes: Some(asked.batch_bytes),
        linger: Some(asked.linger),
    }
}

/// Seconds until all are acknowledged.
pub async fn produce(address: &str, asked: &Asked, topic: &Arc<str>) -> Result<f64, Failure> {
    let client = client(address).await?;
    produce_all(vec![client.clone()], &load(asked, topic, 1), "warming up").await?;
    let started = Instant::now();
    produce_all(vec![client], &load(asked, topic, asked.messages), "producing").await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Reads so many messages from a topic's beginning.
pub async fn fetch(address: &str, topic: &str, messages: u64) -> Result<Fetched, Failure> {
    let client = client(address).await?;
    let asked_at = Instant::now();
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).max_records(messages).build().await?;
    let (mut got, mut first) = (0, None);
    while let Some(record) = consumer.next().await {
        record?;
        first.get_or_insert_with(Instant::now);
        got += 1;
    }
    match first {
        Some(first) if got == messages => Ok(Fetched::new(asked_at, first)),
        _ => Err(Failure::Failed(format!("the native client got {got} of {messages} messages"))),
    }
}

/// From sending a message to its acknowledgement, one at a time. On a thread of its own, as in `bench latency`.
pub async fn acknowledged(address: &str, asked: &Asked, topic: &Arc<str>) -> Result<Latencies, Failure> {
    let (address, mut load, span) = (address.to_owned(), load(asked, topic, WARM_UP), asked.span);
    on_one_thread(async move {
        load.in_flight = Some(1);
        let client = client(&address).await?;
        produce_all(vec![client.clone()], &load, "warming up").await?;
        load.messages = u64::MAX;
        load.until = Some(Instant::now() + span);
        Ok(produce_all(vec![client], &load, "measuring").await?.latencies)
    })
    .await
}

/// From when a message is due until a consumer that waits has it.
pub async fn end_to_end(address: &str, asked: &Asked, topic: &Arc<str>) -> Result<EndToEnd, Failure> {
    let (messages, size, rate) = (asked.on_time(), asked.size, asked.rate);
    let (address, topic) = (address.to_owned(), Arc::clone(topic));
    on_one_thread(async move {
        let work = Work { topic, partitions: 1, messages, size, ack: Ack::Durable };
        let (sender, consumer) = work.prepare(client(&address).await?, client(&address).await?).await?;
        sender.run_to(consumer, Schedule::new(Instant::now() + LEAD, rate)).await
    })
    .await
}

/// One message at a time is for one thread.
async fn on_one_thread<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
        let done = runtime.block_on(work);
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    });
    done.await.map_err(Failure::failed)?
}
