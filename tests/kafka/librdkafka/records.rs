//! Records there and back: each compression, each kind of producer and consumer.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::super::client::Running;
use super::super::foreign::codecs_in;
use super::{CODECS, Content, PATIENCE, awkward, config, consumer, contents, create, producer, take};

#[tokio::test(flavor = "multi_thread")]
async fn with_every_compression_what_is_produced_is_consumed() {
    let running = Running::start().await;
    let sent = awkward();
    for codec in CODECS {
        create(&running, codec, 1).await;
        let producer = producer(&running, codec);
        let deliveries: Vec<_> = sent.iter().map(|content| content.send(&producer, codec, 0)).collect();
        for (offset, delivery) in (0..).zip(deliveries) {
            let delivered = tokio::time::timeout(PATIENCE, delivery).await.expect("no delivery").unwrap();
            let delivered = delivered.map_err(|(error, _)| error).unwrap();
            assert_eq!((delivered.partition, delivered.offset), (0, offset), "{codec}");
        }
        let reader: StreamConsumer = consumer(&running, codec, &[("check.crcs", "true")]).create().unwrap();
        reader.subscribe(&[codec]).unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let message = tokio::time::timeout(PATIENCE, reader.recv()).await.expect("no message").unwrap();
            assert_eq!(message.offset(), got.len() as i64);
            got.push(Content::seen(&message));
        }
        assert!(got == sent, "{codec}: other records came back");
        assert!(codecs_in(running.dir.path(), codec).contains(codec), "it was not compressed");
    }
    running.stop().await;
}

/// Notes what became of each message.
#[derive(Default)]
struct Noted(Mutex<Vec<Result<(usize, i64), KafkaError>>>);

impl ClientContext for Noted {}

impl ProducerContext for Noted {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, number: usize) {
        let noted = match delivered {
            Ok(message) => Ok((number, message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap().push(noted);
    }
}

/// A producer without a runtime, an idempotent one and one that is not, with each degree of acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_producer_is_told_of_each_message_in_order() {
    let running = Running::start().await;
    for (acks, idempotent) in [("all", "true"), ("all", "false"), ("1", "false"), ("0", "false")] {
        let topic = format!("base.{acks}.{idempotent}");
        create(&running, &topic, 1).await;
        let settings = [("acks", acks), ("enable.idempotence", idempotent), ("batch.num.messages", "100")];
        let producer: BaseProducer<Noted> = config(&running, &settings).create_with_context(Noted::default()).unwrap();
        for number in 0..1_000 {
            let (key, value) = (format!("{}", number % 3), format!("{number}"));
            let record = BaseRecord::with_opaque_to(&topic, number).key(&key).payload(&value).partition(0);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.poll(Duration::ZERO);
        }
        let until = Instant::now() + PATIENCE;
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(10));
            assert!(Instant::now() < until, "{} messages are not delivered", producer.in_flight_count());
        }
        let noted = std::mem::take(&mut *producer.context().0.lock().unwrap());
        let expected: Vec<_> = (0..1_000).map(|number| Ok((number, number as i64))).collect();
        match acks {
            // Nobody tells where they are.
            "0" => assert_eq!(noted.iter().filter(|noted| noted.is_ok()).count(), 1_000),
            _ => assert_eq!(noted, expected, "acks={acks}, idempotent={idempotent}"),
        }
        let reader: BaseConsumer = consumer(&running, "base", &[]).create().unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
        reader.assign(&all).unwrap();
        let values = contents(take(&[&reader], 1_000)).into_iter().map(|content| content.value.unwrap());
        let expected = (0..1_000).map(|number| format!("{number}").into_bytes());
        assert!(values.eq(expected), "acks={acks}, idempotent={idempotent}");
    }
    running.stop().await;
}

/// What is refused is refused with the code that tells why.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_comes_back_with_its_reason() {
    let running = Running::start().await;
    create(&running, "one", 1).await;
    let producer = producer(&running, "none");
    let reason = |delivered: Result<_, (KafkaError, _)>| delivered.map_err(|(error, _)| error.rdkafka_error_code());
    let lost = Content { value: Some(b"lost".to_vec()), ..Content::default() };
    let delivered = tokio::time::timeout(PATIENCE, lost.send(&producer, "one", 7)).await.expect("no answer").unwrap();
    assert_eq!(reason(delivered).unwrap_err(), Some(RDKafkaErrorCode::UnknownPartition));
    // What follows is not held up.
    let kept = lost.send(&producer, "one", 0);
    assert_eq!(tokio::time::timeout(PATIENCE, kept).await.expect("no answer").unwrap().unwrap().offset, 0);
    running.stop().await;
}
