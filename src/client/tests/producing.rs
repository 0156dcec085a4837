use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fake::{Fake, Fault, headers};
use super::*;

/// Sends `count` numbered records, a batch each, and returns the outcome of each.
async fn numbered(producer: &Producer, count: usize) -> Vec<Result<RecordMetadata, ClientError>> {
    let mut receipts = Vec::new();
    for n in 0..count {
        receipts.push(producer.send(Message::to("t").partition(0).value(format!("{n:04}"))).await.unwrap());
    }
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await);
    }
    outcomes
}

/// A producer whose batches hold one record each.
async fn single(fake: &Fake) -> Producer {
    client(fake).await.producer().batch_bytes(1).build().await.unwrap()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:04}")).collect()
}

#[tokio::test]
async fn records_are_stored_in_order_with_several_batches_on_their_way() {
    let fake = Fake::start().await;
    fake.delay_ms.store(5, Ordering::SeqCst);
    let outcomes = numbered(&single(&fake).await, 50).await;
    let offsets: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().offset.unwrap()).collect();
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
    assert_eq!(fake.values("t", 0), numbers(50));
    assert_eq!(fake.most_in_flight.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_record_is_stored_as_it_was_sent() {
    let fake = Fake::start().await;
    for compression in Compression::ALL {
        let producer = client(&fake).await.producer().compression(compression).build().await.unwrap();
        let message = Message::to("whole").key("k").value("v").header("h", "1").empty_header("e").timestamp(1234);
        let stored = producer.send_and_wait(message).await.unwrap();
        assert_eq!((&*stored.topic, stored.partition, stored.timestamp), ("whole", 0, 1234));
        let record = fake.records("whole", 0).pop().unwrap();
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!((record.timestamp, Some(record.offset)), (1234, stored.offset));
        assert_eq!(record.headers, [("h", Some("1")), ("e", None)].into_iter().collect());
    }
    let producer = client(&fake).await.producer().build().await.unwrap();
    producer.send_and_wait(Message::to("whole").key("k")).await.unwrap();
    assert_eq!(fake.records("whole", 0).pop().unwrap().value, None, "a tombstone");
}

#[tokio::test]
async fn batches_are_formed_by_linger_and_by_size() {
    let fake = Fake::start().await;
    let linger = Duration::from_millis(80);
    let producer = client(&fake).await.producer().linger(linger).build().await.unwrap();
    let begun = Instant::now();
    assert!(numbered(&producer, 20).await.iter().all(Result::is_ok));
    assert!(begun.elapsed() >= linger);
    assert_eq!(fake.batches("t", 0), 1);

    let fake = Fake::start().await;
    let linger = Duration::from_secs(30);
    let producer = client(&fake).await.producer().linger(linger).batch_bytes(300).build().await.unwrap();
    for n in 0..100 {
        producer.send(Message::to("t").value(format!("{n:04}"))).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(fake.values("t", 0), numbers(100));
    let headers = headers(&fake, "t", 0);
    assert!(headers.len() > 4 && headers.iter().all(|header| header.total_bytes() <= 300), "{}", headers.len());
}

#[tokio::test]
async fn waiting_for_one_record_does_not_linger() {
    let fake = Fake::start().await;
    let producer = client(&fake).await.producer().linger(Duration::from_secs(30)).build().await.unwrap();
    producer.send_and_wait(Message::to("t").value("x")).await.unwrap();
}

#[tokio::test]
async fn sending_waits_while_the_memory_is_full() {
    let fake = Fake::start().await;
    fake.delay_ms.store(60, Ordering::SeqCst);
    let producer = client(&fake).await.producer().linger(Duration::from_secs(9)).memory(2000).build().await.unwrap();
    let begun = Instant::now();
    for n in 0..40 {
        producer.send(Message::to("t").value(format!("{n:04}"))).await.unwrap();
    }
    // Each holds some 80 bytes: 40 need the room twice, so that sending had to wait for an answer, though not for linger.
    assert!(begun.elapsed() >= Duration::from_millis(55), "{:?}", begun.elapsed());
    producer.close().await.unwrap();
    assert_eq!(fake.values("t", 0), numbers(40));
    let error = producer.send(Message::to("t")).await.unwrap_err();
    assert_eq!(error.to_string(), "the producer is closed");
}

#[tokio::test]
async fn nothing_is_lost_doubled_or_reordered_when_connections_break() {
    let fake = Fake::start().await;
    fake.delay_ms.store(2, Ordering::SeqCst);
    for (nth, fault) in [
        (1, Fault::DropAfter),
        (9, Fault::DropBefore),
        (14, Fault::DropAfter),
        (23, Fault::DropAfter),
        (31, Fault::DropBefore),
    ] {
        fake.fault(nth, fault);
    }
    let outcomes = numbered(&single(&fake).await, 60).await;
    assert_eq!(fake.values("t", 0), numbers(60));
    for (n, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap().offset, Some(n as u64));
    }
    assert!(fake.connections.load(Ordering::SeqCst) >= 6);
    assert!(headers(&fake, "t", 0).iter().all(|header| header.producer_epoch == 0), "retries keep their numbers");
}

#[tokio::test]
async fn random_faults_neither_lose_nor_double_nor_reorder() {
    for seed in 0..8 {
        println!("seed {seed}");
        let fake = Fake::start().await;
        let mut rng = fastrand::Rng::with_seed(seed);
        for nth in 1..200 {
            let fault = match rng.u8(..30) {
                0 => Fault::DropBefore,
                1 => Fault::DropAfter,
                2 => Fault::Refuse(ErrorKind::Overloaded),
                3 => Fault::Refuse(ErrorKind::Poisoned),
                _ => continue,
            };
            fake.fault(nth, fault);
        }
        let outcomes = numbered(&single(&fake).await, 60).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(fake.values("t", 0), numbers(60));
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_fails_its_batch_only() {
    let fake = Fake::start().await;
    fake.delay_ms.store(2, Ordering::SeqCst);
    fake.fault(3, Fault::Refuse(ErrorKind::StorageFull));
    fake.fault(4, Fault::Refuse(ErrorKind::Overloaded));
    fake.fault(20, Fault::Refuse(ErrorKind::TooLarge));
    let producer = single(&fake).await;
    let outcomes = numbered(&producer, 40).await;
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].kind(), failed[0].maybe_stored()), (ErrorKind::TooLarge, false));
    let lost = outcomes.iter().position(Result::is_err).unwrap();
    let mut expected = numbers(40);
    expected.remove(lost);
    assert_eq!(fake.values("t", 0), expected);
    assert_eq!(headers(&fake, "t", 0).last().unwrap().producer_epoch, 1, "the gap needed a new epoch");
    assert_eq!(producer.flush().await.unwrap_err().kind(), ErrorKind::TooLarge);
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn a_batch_of_unknown_fate_is_reported_as_such() {
    let fake = Fake::start().await;
    fake.fault(1, Fault::Silent);
    let timeout = Duration::from_millis(150);
    let producer = client(&fake).await.producer().delivery_timeout(timeout).build().await.unwrap();
    let error = producer.send_and_wait(Message::to("t").value("0000")).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_stored()), (ErrorKind::TimedOut, true));
    assert!(error.to_string().contains("whether they are stored is unknown"), "{error}");
    let next = producer.send_and_wait(Message::to("t").value("0001")).await.unwrap();
    assert_eq!(next.offset, Some(1));
    assert_eq!(fake.values("t", 0), numbers(2));
}

#[tokio::test]
async fn records_that_cannot_be_sent_time_out_as_not_stored() {
    let fake = Fake::start().await;
    for nth in 1..100 {
        fake.fault(nth, Fault::Refuse(ErrorKind::StorageFull));
    }
    let timeout = Duration::from_millis(300);
    let producer = client(&fake).await.producer().delivery_timeout(timeout).build().await.unwrap();
    let error = producer.send_and_wait(Message::to("t").value("0000")).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_stored()), (ErrorKind::TimedOut, false));
    assert!(error.to_string().contains("they are not stored: as told"), "{error}");
}

#[tokio::test]
async fn after_a_failed_write_or_sync_a_batch_may_be_stored() {
    let fake = Fake::start().await;
    fake.fault(1, Fault::Refuse(ErrorKind::Io));
    let producer = client(&fake).await.producer().build().await.unwrap();
    let error = producer.send_and_wait(Message::to("t").value("0000")).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_stored()), (ErrorKind::Io, true));
    for nth in 2..100 {
        fake.fault(nth, Fault::Refuse(ErrorKind::Poisoned));
    }
    let timeout = Duration::from_millis(300);
    let producer = client(&fake).await.producer().delivery_timeout(timeout).build().await.unwrap();
    let error = producer.send_and_wait(Message::to("t").value("0001")).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_stored()), (ErrorKind::TimedOut, true));
}

#[tokio::test]
async fn keys_have_partitions_and_records_without_take_turns_by_batch() {
    let fake = Fake::start().await;
    fake.topic("p", 4);
    let producer = client(&fake).await.producer().build().await.unwrap();
    for n in 0..100 {
        producer.send(Message::to("p").key(format!("{n}")).value("x")).await.unwrap();
    }
    producer.flush().await.unwrap();
    for partition in 0..4 {
        let records = fake.records("p", partition);
        assert!(!records.is_empty());
        for record in records {
            assert_eq!(crate::record::partition_for_key(&record.key.unwrap(), 4), partition as u32);
        }
    }
    let mut used = std::collections::HashSet::new();
    for _ in 0..4 {
        used.insert(producer.send_and_wait(Message::to("p").value("y")).await.unwrap().partition);
    }
    assert_eq!(used.len(), 4);
    let error = producer.send(Message::to("p").partition(4)).await.unwrap_err();
    assert_eq!(error.to_string(), "topic p has 4 partitions and no 4");
}

#[tokio::test]
async fn a_record_too_large_for_its_topic_is_refused_at_once() {
    let fake = Fake::start_with(1000, 60_000).await;
    let producer = client(&fake).await.producer().build().await.unwrap();
    let error = producer.send(Message::to("t").value(vec![0; 1000])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("larger than the 1000 bytes that topic t takes"), "{error}");
}

#[tokio::test]
async fn without_acknowledgement_records_go_out_in_order_and_have_no_offset() {
    let fake = Fake::start().await;
    let producer = client(&fake).await.producer().ack(Ack::None).batch_bytes(100).build().await.unwrap();
    for outcome in numbered(&producer, 100).await {
        assert_eq!(outcome.unwrap().offset, None);
    }
    while fake.records("t", 0).len() < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fake.values("t", 0), numbers(100));
}

#[tokio::test]
async fn a_topic_that_was_deleted_is_asked_for_anew() {
    let fake = Fake::start().await;
    let producer = client(&fake).await.producer().build().await.unwrap();
    producer.send_and_wait(Message::to("t").value("a")).await.unwrap();
    fake.state.lock().unwrap().topics.remove("t");
    let error = producer.send_and_wait(Message::to("t").value("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    producer.send_and_wait(Message::to("t").value("c")).await.unwrap();
    assert_eq!(fake.values("t", 0), ["c"]);
}

#[tokio::test]
async fn a_dropped_producer_still_sends_what_is_queued() {
    let fake = Fake::start().await;
    let producer = client(&fake).await.producer().linger(Duration::from_secs(30)).build().await.unwrap();
    let receipt = producer.send(Message::to("t").value("0000")).await.unwrap();
    drop(producer);
    assert_eq!(receipt.await.unwrap().offset, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_producer() {
    let fake = Fake::start().await;
    fake.topic("t", 3);
    let producer = client(&fake).await.producer().compression(Compression::Lz4).build().await.unwrap();
    let topic: Arc<str> = "t".into();
    let tasks = (0..8).map(|task| {
        let (producer, topic) = (producer.clone(), topic.clone());
        tokio::spawn(async move {
            for n in 0..500 {
                let message = Message::to(topic.clone()).key(format!("{task}")).value(format!("{task}-{n:04}"));
                drop(producer.send(message).await.unwrap());
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    producer.flush().await.unwrap();
    let values: Vec<String> = (0..3).flat_map(|partition| fake.values("t", partition)).collect();
    assert_eq!(values.len(), 4000);
    for task in 0..8 {
        let own: Vec<_> = values.iter().filter(|value| value.starts_with(&format!("{task}-"))).collect();
        assert!(own.len() == 500 && own.is_sorted());
    }
}
