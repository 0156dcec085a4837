//! Records that cross between the native door and the Kafka door, unchanged in both directions.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tidelog::client::{Client, Message, StartAt};

use super::super::client::Running;
use super::{CODECS, Content, PATIENCE, awkward, consumer, contents, create, producer, take};

async fn native(running: &Running) -> Client {
    Client::connect(running.server.addresses()[0].to_string()).await.unwrap()
}

async fn natively(client: &Client, topic: &str) -> Vec<Content> {
    let mut reader = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let mut got = Vec::new();
    while let Some(record) = tokio::time::timeout(PATIENCE, reader.next()).await.expect("no record") {
        got.push(Content::native(&record.unwrap()));
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn from_librdkafka_to_the_native_door() {
    let running = Running::start().await;
    let client = native(&running).await;
    let sent = awkward();
    for codec in CODECS {
        create(&running, codec, 1).await;
        let producer = producer(&running, codec);
        let deliveries: Vec<_> = sent.iter().map(|content| content.send(&producer, codec, 0)).collect();
        for delivery in deliveries {
            tokio::time::timeout(PATIENCE, delivery).await.expect("no delivery").unwrap().unwrap();
        }
        assert!(natively(&client, codec).await == sent, "{codec}: other records came out");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_native_door_to_librdkafka() {
    let running = Running::start().await;
    let client = native(&running).await;
    let sent = awkward();
    for codec in CODECS {
        create(&running, codec, 1).await;
        let producer = client.producer().compression(codec.parse().unwrap()).build().await.unwrap();
        for content in &sent {
            producer.send(message(codec, content)).await.unwrap();
        }
        producer.close().await.unwrap();
        let reader: BaseConsumer = consumer(&running, "crossing", &[("check.crcs", "true")]).create().unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(codec, 0, Offset::Beginning).unwrap();
        reader.assign(&all).unwrap();
        assert!(contents(take(&[&reader], sent.len())) == sent, "{codec}: other records came out");
    }
    running.stop().await;
}

fn message(topic: &str, content: &Content) -> Message {
    let mut message = Message::to(topic).timestamp(content.timestamp);
    if let Some(key) = &content.key {
        message = message.key(key.clone());
    }
    if let Some(value) = &content.value {
        message = message.value(value.clone());
    }
    content.headers.iter().fold(message, |message, (name, value)| match value {
        Some(value) => message.header(name, value.clone()),
        None => message.empty_header(name),
    })
}
