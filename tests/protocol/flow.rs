//! Many requests at once, and peers that do not read.

use std::collections::BTreeSet;

use tidelog::base::{Bytes, Isolation, Millis};
use tidelog::protocol::{Fetch, FetchOk, Frame, Metrics, Ping, decode_body};

use crate::harness::{Running, answer, batch, frame};

fn fetch(max_wait_ms: u32, min_bytes: u32) -> Fetch {
    let (topic, max_bytes) = ("a".to_owned(), 1 << 20);
    Fetch {
        topic,
        partition: 0,
        offset: 0,
        max_bytes,
        min_bytes,
        max_wait_ms,
        skip_damaged: false,
        filter: None,
        isolation: Isolation::Committed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_one_connection_are_appended_in_the_order_sent() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    let mut pipelined = Vec::new();
    let request =
        tidelog::protocol::Produce { topic: "a".to_owned(), partition: 0, ack: tidelog::protocol::Ack::Durable };
    for correlation in 0..500 {
        pipelined.extend(frame(correlation, &request, &batch(2, 20)));
    }
    raw.bytes(&pipelined).await;
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let frame = raw.next().await.unwrap();
        let ok: tidelog::protocol::ProduceOk = answer(&frame, frame.correlation).unwrap();
        assert_eq!(ok.base_offset, frame.correlation * 2);
        seen.insert(frame.correlation);
    }
    assert_eq!(seen.len(), 500);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_comes_back_byte_for_byte() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    let large = batch(6, 1_000_000);
    raw.produce(1, "a", &large).await;
    assert_eq!(raw.produced(1).await.last_offset, 5);
    raw.send(2, &fetch(0, 1)).await;
    let frame = raw.next().await.unwrap();
    let ok: FetchOk = answer(&frame, 2).unwrap();
    assert_eq!((ok.next_offset, ok.stable_end), (6, 6));
    // But for base offset and leader epoch, which the server assigns.
    assert_eq!(frame.payload[8..12], large[8..12]);
    assert_eq!(frame.payload[16..], large[16..]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_does_not_hold_up_other_answers() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    raw.send(1, &fetch(60_000, 1)).await;
    raw.call(2, &Ping {}).await.unwrap();
    raw.produce(3, "a", &batch(1, 10)).await;
    let mut answers: Vec<Frame> = vec![raw.next().await.unwrap(), raw.next().await.unwrap()];
    answers.sort_by_key(|frame| frame.correlation);
    assert_eq!((answers[0].correlation, answers[1].correlation), (1, 3));
    assert!(!answers[0].payload.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_slots_taken_the_rest_waits_and_is_then_answered() {
    let running = Running::start(|config| config.max_requests_in_flight = 2).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    raw.send(1, &fetch(400, 1)).await;
    raw.send(2, &fetch(400, 1)).await;
    for correlation in 3..50 {
        raw.send(correlation, &Ping {}).await;
    }
    let mut order = Vec::new();
    for _ in 1..50 {
        order.push(raw.next().await.unwrap().correlation);
    }
    assert!(order[0] <= 2, "a ping overtook both polls although there was no slot for it: {order:?}");
    order.sort_unstable();
    assert_eq!(order, (1..50).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_stops_being_read_and_nobody_else_notices() {
    let running = Running::start(|config| {
        config.max_connection_bytes = Bytes(1 << 20);
        config.max_requests_in_flight = 64;
    })
    .await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    for correlation in 0..8 {
        raw.produce(correlation, "a", &batch(1, 500_000)).await;
        raw.produced(correlation).await;
    }
    // A thousand fetches of a megabyte each whose answers nobody takes.
    let mut slow = running.client().await;
    let request = frame(1, &fetch(0, 1), &[]);
    let flood = request.repeat(1000);
    let (_, mut write) = slow.stream.split();
    let flooding = tokio::io::AsyncWriteExt::write_all(&mut write, &flood);
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), flooding).await;
    for correlation in 100..120 {
        raw.produce(correlation, "a", &batch(1, 1000)).await;
        raw.produced(correlation).await;
    }
    let text = raw.call(1, &Metrics {}).await.unwrap().text;
    let held = gauge(&text, "tidelog_outbound_bytes");
    assert!(held > 0 && held < 8 << 20, "{held} bytes are held for a peer that may have one megabyte");
    drop(slow);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_takes_nothing_is_held_for_as_far_as_its_credit_goes() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    // More than sockets take of their own accord.
    let batches: u64 = 32;
    let bytes = batch(1, 500_000);
    for correlation in 0..batches {
        raw.produce(correlation, "a", &bytes).await;
        raw.produced(correlation).await;
    }
    let metrics = async |raw: &mut crate::harness::Raw| raw.call(1, &Metrics {}).await.unwrap().text;
    let read = async |raw: &mut crate::harness::Raw| gauge(&metrics(raw).await, "tidelog_read_bytes_total");
    let before = read(&mut raw).await;
    // Credit for four batches; whoever grants no more gets no more, however long the topic is.
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut consumer = running.client().await;
        consumer.subscribe("a", 0, batches, 4 * bytes.len() as u64).await;
        slow.push(consumer);
    }
    // Meanwhile others read all of it, again and again.
    for _ in 0..3 {
        let mut other = running.client().await;
        other.subscribe("a", 0, batches, 1 << 30).await;
        let mut seen = 0;
        while seen < batches {
            let frame = other.next().await.unwrap();
            seen = decode_body::<tidelog::protocol::Delivery>(frame.kind, &frame.body).unwrap().next_offset;
        }
    }
    // What the others have got is soon given back.
    let most = 4 * 5 * (bytes.len() as i64 + 256);
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let held = gauge(&metrics(&mut raw).await, "tidelog_outbound_bytes");
        if held <= most {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{held} bytes are held, the credit is for {most}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // One batch more than the credit at most was read for each of them.
    let most = (4 * 5 + 3 * batches) * bytes.len() as u64;
    let out = read(&mut raw).await - before;
    assert!(out as u64 <= most, "{out} bytes were read from the log, the credit is for {most}");
    running.stop().await;
}

/// A number out of the Prometheus text.
fn gauge(text: &str, name: &str) -> i64 {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.split(' ').nth(1))
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_nothing_is_dropped_after_the_write_timeout() {
    let running = Running::start(|config| {
        config.write_timeout = Millis(300);
        config.max_connection_bytes = Bytes(64 << 10);
    })
    .await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    raw.produce(1, "a", &batch(1, 4_000_000)).await;
    raw.produced(1).await;
    let mut slow = running.client().await;
    for correlation in 0..16 {
        slow.send(correlation, &fetch(0, 1)).await;
    }
    for round in 0.. {
        let text = raw.call(round, &Metrics {}).await.unwrap().text;
        if gauge(&text, "tidelog_connections") == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_idle_is_told_goodbye_and_a_ping_prevents_it() {
    let running = Running::start(|config| {
        config.handshake_timeout = Millis(400);
        config.idle_timeout = Millis(400);
    })
    .await;
    let (mut idle, mut awake) = (running.client().await, running.client().await);
    let pinging = async {
        for correlation in 0..12 {
            awake.call(correlation, &Ping {}).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let ((kind, _), ()) = tokio::join!(idle.goodbye(), pinging);
    assert_eq!(kind, tidelog::base::ErrorKind::TimedOut);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_fetch_answers_when_its_time_is_over() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    raw.send(1, &fetch(50, 1)).await;
    let frame = raw.next().await.unwrap();
    let ok: FetchOk = decode_body(frame.kind, &frame.body).unwrap();
    assert_eq!((ok.next_offset, frame.payload.len()), (0, 0));
    running.stop().await;
}
