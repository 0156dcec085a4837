//! Records are pushed as far as the credit goes, and no further.

use tidelog::base::{ErrorKind, Isolation};
use tidelog::protocol::{Credit, DeleteTopic, Delivery, Frame, Kind, Ping, Subscribe, Unsubscribe, decode_body, flags};
use tidelog::record::{BatchBuilder, BatchOptions, Batches, read_records};

use crate::harness::{Raw, Running, batch, error_of};

const PLENTY: u64 = 1 << 30;

fn delivery(frame: &Frame) -> Delivery {
    assert_eq!((frame.kind, frame.flags), (Kind::Delivery.code(), flags::PUSH), "{frame:?}");
    let delivery: Delivery = decode_body(frame.kind, &frame.body).unwrap();
    assert_eq!(frame.correlation, delivery.subscription);
    delivery
}

async fn next_delivery(raw: &mut Raw) -> (Delivery, usize) {
    let frame = raw.next().await.unwrap();
    (delivery(&frame), frame.payload.len())
}

async fn filled(running: &Running, batches: usize, records: u32) -> Raw {
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    for correlation in 0..batches as u64 {
        raw.produce(100 + correlation, "a", &batch(records, 100)).await;
        raw.produced(100 + correlation).await;
    }
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_delivers_what_there_is_and_then_what_comes() {
    let running = Running::start(|_| ()).await;
    let mut producer = filled(&running, 3, 10).await;
    let mut consumer = running.client().await;
    let ok = consumer.subscribe("a", 5, PLENTY, PLENTY).await;
    assert_eq!((ok.log_start, ok.stable_end), (0, 30));
    let (first, bytes) = next_delivery(&mut consumer).await;
    assert_eq!((first.next_offset, first.stable_end), (30, 30));
    assert_eq!(bytes, 3 * batch(10, 100).len(), "whole batches, from the one that holds the offset");
    producer.produce(1, "a", &batch(2, 5)).await;
    producer.produced(1).await;
    assert_eq!(next_delivery(&mut consumer).await.0.next_offset, 32);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_an_empty_delivery_says_so_once() {
    let running = Running::start(|_| ()).await;
    let mut producer = filled(&running, 1, 4).await;
    let mut consumer = running.client().await;
    consumer.subscribe("a", 4, PLENTY, PLENTY).await;
    let (told, bytes) = next_delivery(&mut consumer).await;
    assert_eq!((told.next_offset, told.stable_end, bytes), (4, 4, 0));
    // The next frames are the pong and then new records, not the same news again.
    consumer.call(2, &Ping {}).await.unwrap();
    producer.produce(1, "a", &batch(1, 5)).await;
    assert_eq!(next_delivery(&mut consumer).await.0.next_offset, 5);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_bounds_what_is_sent() {
    let running = Running::start(|_| ()).await;
    filled(&running, 6, 10).await;
    let mut consumer = running.client().await;
    let subscription = consumer.subscribe("a", 0, 15, PLENTY).await.subscription;
    // 15 records are granted: the batch that goes beyond them is the last.
    assert_eq!(next_delivery(&mut consumer).await.0.next_offset, 20);
    consumer.call(2, &Ping {}).await.unwrap();
    // Five were overdrawn, so five more grant nothing.
    consumer.send(0, &Credit { subscription, records: 5, bytes: 0 }).await;
    consumer.call(3, &Ping {}).await.unwrap();
    consumer.send(0, &Credit { subscription, records: 1, bytes: 0 }).await;
    assert_eq!(next_delivery(&mut consumer).await.0.next_offset, 30);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_credit_count_too() {
    let running = Running::start(|_| ()).await;
    filled(&running, 4, 10).await;
    let mut consumer = running.client().await;
    let subscription = consumer.subscribe("a", 0, PLENTY, 1).await.subscription;
    let (first, bytes) = next_delivery(&mut consumer).await;
    assert_eq!((first.next_offset, bytes), (10, batch(10, 100).len()));
    consumer.call(2, &Ping {}).await.unwrap();
    consumer.send(0, &Credit { subscription, records: 0, bytes: bytes as u64 }).await;
    assert_eq!(next_delivery(&mut consumer).await.0.next_offset, 20);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_behind_the_answer_to_an_unsubscribe() {
    let running = Running::start(|_| ()).await;
    let mut producer = filled(&running, 1, 1).await;
    let mut consumer = running.client().await;
    let subscription = consumer.subscribe("a", 0, PLENTY, PLENTY).await.subscription;
    next_delivery(&mut consumer).await;
    consumer.call(2, &Unsubscribe { subscription }).await.unwrap();
    producer.produce(1, "a", &batch(1, 5)).await;
    producer.produced(1).await;
    consumer.call(3, &Ping {}).await.unwrap();
    let error = consumer.call(4, &Unsubscribe { subscription }).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::NotFound.code());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_ends_its_subscriptions() {
    let running = Running::start(|_| ()).await;
    let mut admin = filled(&running, 1, 1).await;
    let mut consumer = running.client().await;
    let subscription = consumer.subscribe("a", 0, PLENTY, PLENTY).await.subscription;
    next_delivery(&mut consumer).await;
    admin.call(1, &DeleteTopic { name: "a".to_owned() }).await.unwrap();
    let frame = consumer.next().await.unwrap();
    assert_eq!((frame.kind, frame.correlation), (Kind::SubscriptionEnded.code(), subscription));
    assert_eq!(frame.flags, flags::PUSH | flags::ERROR);
    assert_eq!(error_of(&frame).code, ErrorKind::NotFound.code());
    consumer.call(2, &Ping {}).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_out_of_range_or_over_the_limit_is_refused() {
    let running = Running::start(|config| config.max_subscriptions = 1).await;
    filled(&running, 1, 3).await;
    let mut consumer = running.client().await;
    let request = |offset| Subscribe {
        topic: "a".to_owned(),
        partition: 0,
        offset,
        credit_records: 0,
        credit_bytes: 0,
        skip_damaged: false,
        filter: None,
        isolation: Isolation::Committed,
    };
    let error = consumer.call(1, &request(4)).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::OffsetOutOfRange.code());
    assert_eq!(error.range.map(|range| (range.log_start, range.log_end)), Some((0, 3)));
    consumer.call(2, &request(3)).await.unwrap();
    let error = consumer.call(3, &request(0)).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::Overloaded.code());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_out_what_does_not_match_and_still_advances() {
    let running = Running::start(|_| ()).await;
    let mut producer = running.client().await;
    producer.create_topic("a").await;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for number in 0..10u8 {
        let value = if number == 3 { "not json".to_owned() } else { format!(r#"{{"n": {number}}}"#) };
        builder.push(1000 + i64::from(number), Some(&[b'a' + number]), Some(value.as_bytes()), &[]);
    }
    producer.produce(1, "a", &builder.build()).await;
    producer.produced(1).await;
    let mut consumer = running.client().await;
    let request = |filter: &str| Subscribe {
        topic: "a".to_owned(),
        partition: 0,
        offset: 1,
        credit_records: PLENTY,
        credit_bytes: PLENTY,
        skip_damaged: false,
        filter: Some(filter.to_owned()),
        isolation: Isolation::Committed,
    };
    let error = consumer.call(1, &request("value.n >\n 2 &&")).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::InvalidRequest.code());
    assert!(error.message.contains("filter: line 2, column"), "{}", error.message);
    consumer.call(2, &request("value.n % 2 == 0")).await.unwrap();
    let frame = consumer.next().await.unwrap();
    assert_eq!(delivery(&frame).next_offset, 10, "beyond what does not match");
    let records: Vec<_> = Batches::new(frame.payload)
        .flat_map(|batch| read_records(&batch.unwrap().1, 1 << 20).unwrap().map(Result::unwrap))
        .collect();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 4, 6, 8]);
    assert_eq!((records[1].timestamp, records[1].key.as_deref()), (1004, Some(&b"e"[..])));
    // Nothing matches, and the end is told all the same.
    consumer.call(3, &request("key == 'z'")).await.unwrap();
    let (told, bytes) = next_delivery(&mut consumer).await;
    assert_eq!((told.next_offset, told.stable_end, bytes), (10, 10, 0));
    let metrics = consumer.call(4, &tidelog::protocol::Metrics {}).await.unwrap().text;
    assert!(metrics.contains("tidelog_filter_failures_total 1\n"), "{metrics}");
    assert!(metrics.contains("tidelog_filtered_total 18\n"), "{metrics}");
    assert!(metrics.contains("tidelog_filter_values_total 9\n"), "the filter on the key parsed values: {metrics}");
    running.stop().await;
}
