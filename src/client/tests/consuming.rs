use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fake::Fake;
use super::*;

/// Fills a partition with `count` records, `batch` to a batch, timestamps 1000, 1001, ...
async fn fill(fake: &Fake, topic: &str, partition: u32, count: usize, batch: usize) {
    let producer = client(fake).await.producer().linger(Duration::from_secs(30)).build().await.unwrap();
    for n in 0..count {
        let message = Message::to(topic).partition(partition).value(format!("{n:04}")).timestamp(1000 + n as i64);
        drop(producer.send(message).await.unwrap());
        if (n + 1) % batch == 0 {
            producer.flush().await.unwrap();
        }
    }
    producer.close().await.unwrap();
}

async fn offsets(consumer: &mut Consumer) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(record) = consumer.next().await {
        offsets.push(record.unwrap().offset);
    }
    offsets
}

#[tokio::test]
async fn until_end_returns_everything_once_and_ends() {
    let fake = Fake::start().await;
    fill(&fake, "t", 0, 100, 7).await;
    let client = client(&fake).await;
    let mut consumer = client.consumer().topic("t").until_end(true).build().await.unwrap();
    assert_eq!(offsets(&mut consumer).await, (0..100).collect::<Vec<_>>());
    let position = consumer.positions().next().unwrap();
    assert_eq!((position.start, position.next_offset, position.until), (0, 100, Some(100)));
    let mut nothing = client.consumer().topic("t").from(StartAt::End).until_end(true).build().await.unwrap();
    assert!(nothing.next().await.is_none());
}

#[tokio::test]
async fn every_way_to_begin_and_end() {
    let fake = Fake::start().await;
    fill(&fake, "t", 0, 50, 9).await;
    fake.trim("t", 0, 5);
    let client = client(&fake).await;
    for (from, first) in [
        (StartAt::Beginning, 5),
        (StartAt::Offset(12), 12),
        (StartAt::Last(3), 47),
        (StartAt::Last(1000), 5),
        (StartAt::Time(1020), 20),
    ] {
        let mut consumer = client.consumer().topic("t").from(from).until_end(true).build().await.unwrap();
        assert_eq!(offsets(&mut consumer).await, (first..50).collect::<Vec<_>>(), "{from:?}");
    }
    let ago = StartAt::Ago(Duration::from_secs(60));
    let mut consumer = client.consumer().topic("t").from(ago).until_end(true).build().await.unwrap();
    assert!(consumer.next().await.is_none());
    let builder = client.consumer().topic_partition("t", 0);
    assert_eq!(offsets(&mut builder.clone().until_offset(8).build().await.unwrap()).await, [5, 6, 7]);
    assert_eq!(offsets(&mut builder.clone().until_time(1007).build().await.unwrap()).await, [5, 6]);
    assert_eq!(offsets(&mut builder.clone().max_records(2).build().await.unwrap()).await, [5, 6]);
    for wrong in [4, 51] {
        let error = builder.clone().from(StartAt::Offset(wrong)).build().await.unwrap_err();
        assert_eq!((error.kind(), error.range()), (ErrorKind::OffsetOutOfRange, Some((5, 50))));
        let says = format!("offset {wrong} of t/0 is out of range: it has offsets 5 to 49, and the next is 50");
        assert_eq!(error.to_string(), says);
    }
    assert_eq!(client.consumer().topic("none").build().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(client.consumer().build().await.is_err());
}

#[tokio::test]
async fn the_server_sends_no_more_than_it_has_credit_for() {
    let fake = Fake::start().await;
    fill(&fake, "t", 0, 200, 1).await;
    let mut consumer = client(&fake).await.consumer().topic("t").prefetch(1 << 20, 20).build().await.unwrap();
    consumer.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fake.sent_records.load(Ordering::SeqCst), 20);
    for _ in 1..200 {
        consumer.next().await.unwrap().unwrap();
    }
    assert!((10..=40).contains(&fake.credit_messages.load(Ordering::SeqCst)), "credit comes in lumps");
    // Bytes bound it too: a batch here has some 75 bytes, and the last may overdraw.
    let sent = fake.sent_records.load(Ordering::SeqCst);
    let _second = client(&fake).await.consumer().topic("t").prefetch(200, 1000).build().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fake.sent_records.load(Ordering::SeqCst) - sent, 3);
}

#[tokio::test]
async fn a_broken_connection_leaves_no_gap_and_no_double() {
    let fake = Fake::start().await;
    fill(&fake, "t", 0, 300, 7).await;
    let mut consumer =
        client(&fake).await.consumer().topic("t").prefetch(1 << 20, 30).until_end(true).build().await.unwrap();
    for n in 0..300 {
        if n % 40 == 20 {
            fake.cut();
        }
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, n);
    }
    assert!(consumer.next().await.is_none());
    assert!(fake.connections.load(Ordering::SeqCst) >= 5);
}

#[tokio::test]
async fn records_that_come_later_are_delivered_across_a_break() {
    let fake = Fake::start().await;
    fake.topic("t", 1);
    let mut consumer = client(&fake).await.consumer().topic("t").build().await.unwrap();
    fill(&fake, "t", 0, 5, 2).await;
    for n in 0..5 {
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, n);
    }
    fake.cut();
    fill(&fake, "t", 0, 5, 2).await;
    for n in 5..10 {
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, n);
    }
}

#[tokio::test]
async fn partitions_are_merged_and_none_is_starved() {
    let fake = Fake::start().await;
    fake.topic("t", 3);
    for partition in 0..3 {
        fill(&fake, "t", partition, 60, 5).await;
    }
    let mut consumer =
        client(&fake).await.consumer().topic("t").prefetch(1 << 20, 30).until_end(true).build().await.unwrap();
    let mut seen = [0; 3];
    let mut total = 0;
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        assert_eq!(record.offset, seen[record.partition as usize]);
        seen[record.partition as usize] += 1;
        total += 1;
        if total == 90 {
            assert!(seen.iter().all(|&seen| seen > 0), "{seen:?}");
        }
    }
    assert_eq!(seen, [60; 3]);
}

#[tokio::test]
async fn what_passes_is_waited_for_and_what_does_not_ends_the_stream() {
    let fake = Fake::start().await;
    fill(&fake, "t", 0, 3, 1).await;
    let client = client(&fake).await;
    fake.state.lock().unwrap().fetch_faults.extend([ErrorKind::ShuttingDown, ErrorKind::Overloaded]);
    let mut consumer = client.consumer().topic("t").until_end(true).build().await.unwrap();
    assert_eq!(offsets(&mut consumer).await, [0, 1, 2]);
    fake.state.lock().unwrap().fetch_faults.push_back(ErrorKind::Damaged);
    let mut consumer = client.consumer().topic("t").until_end(true).build().await.unwrap();
    let error = consumer.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Damaged, "consuming t/0: as told"));
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn a_server_that_stays_away_ends_the_stream_with_an_error() {
    let fake = Fake::start().await;
    fill(&fake, "t", 0, 3, 1).await;
    let retry = Duration::from_millis(300);
    let mut consumer = client(&fake).await.consumer().topic("t").retry_timeout(retry).build().await.unwrap();
    consumer.next().await.unwrap().unwrap();
    fake.state.lock().unwrap().fetch_faults.extend([ErrorKind::ShuttingDown; 100]);
    fake.cut();
    let mut last = consumer.next().await;
    while let Some(Ok(_)) = last {
        last = consumer.next().await;
    }
    assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::ShuttingDown);
}
