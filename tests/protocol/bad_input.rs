//! Bytes that are not what they should be.

use tidelog::base::{ErrorKind, Isolation};
use tidelog::protocol::{
    Ack, CreateTopic, Credit, Fetch, Kind, ListTopics, Metadata, Ping, Pong, Produce, ProduceOk, encode_frame, flags,
};
use tidelog::record::{BatchBuilder, BatchOptions, Compression};
use tokio::io::AsyncWriteExt;

use crate::harness::{Raw, Running, answer, batch, error_of, frame};

/// What a well-behaved client sees whatever others do.
async fn still_well(running: &Running) {
    running.client().await.call(1, &Ping {}).await.unwrap();
}

async fn flood(raw: &mut Raw, bytes: &[u8]) {
    // The server closes while this is being sent.
    let _ = raw.stream.write_all(bytes).await;
    while raw.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_only() {
    let seed = std::env::var("TIDELOG_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x71de);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let running = Running::start(|_| ()).await;
    for round in 0..8 {
        let mut garbage = vec![0; 1024 * 1024];
        random.fill(&mut garbage);
        let mut raw = if round % 2 == 0 { running.socket().await } else { running.client().await };
        flood(&mut raw, &garbage).await;
    }
    still_well(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_with_flipped_bytes_never_hurt_the_server() {
    let mut random = fastrand::Rng::with_seed(7);
    let running = Running::start(|_| ()).await;
    running.client().await.create_topic("a").await;
    let request = Produce { topic: "a".to_owned(), partition: 0, ack: Ack::Durable };
    let good = frame(1, &request, &batch(3, 50));
    let payload = good.len() - batch(3, 50).len();
    for _ in 0..200 {
        let mut bad = good.clone();
        let at = random.usize(..bad.len());
        bad[at] ^= 1 << random.u8(..8);
        let mut raw = running.client().await;
        raw.bytes(&bad).await;
        raw.stream.shutdown().await.unwrap();
        // Base offset and leader epoch are the server's to assign: what a client says there does not matter.
        let assigned = at >= payload && (at - payload < 8 || (12..16).contains(&(at - payload)));
        while let Some(frame) = raw.next().await {
            assert!(frame.has(flags::ERROR) || assigned, "a frame with a flipped bit at {at} was accepted");
        }
    }
    still_well(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_said_to_be_four_gigabytes_long_is_refused_from_its_header() {
    let running = Running::start(|_| ()).await;
    for mut raw in [running.socket().await, running.client().await] {
        let mut bytes = frame(1, &Ping {}, &[]);
        bytes[..4].copy_from_slice(&[0xff; 4]);
        raw.bytes(&bytes).await;
        let (kind, message) = raw.goodbye().await;
        assert_eq!(kind, ErrorKind::BadFrame);
        assert!(message.contains("4294967299"), "{message}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_ends_the_connection_after_what_came_before_is_answered() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    let mut bytes = frame(1, &Ping {}, &[]);
    let mut bad = frame(2, &Metadata { topic: "a".to_owned(), create: true }, &[]);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    bytes.extend_from_slice(&bad);
    raw.bytes(&bytes).await;
    answer::<Pong>(&raw.next().await.unwrap(), 1).unwrap();
    let (kind, message) = raw.goodbye().await;
    assert_eq!(kind, ErrorKind::BadFrame);
    assert!(message.contains("checksum"), "{message}");
    // The request whose checksum was wrong was not carried out.
    assert!(running.client().await.call(1, &ListTopics {}).await.unwrap().topics.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_within_a_frame_is_told_if_it_still_listens() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    let bytes = frame(1, &Metadata { topic: "a".to_owned(), create: true }, &[]);
    raw.bytes(&bytes[..bytes.len() - 3]).await;
    raw.stream.shutdown().await.unwrap();
    let (kind, message) = raw.goodbye().await;
    assert_eq!(kind, ErrorKind::BadFrame);
    assert!(message.contains("within a frame"), "{message}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_connection_gets_its_answers() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    for correlation in 10..20 {
        raw.produce(correlation, "a", &batch(1, 10)).await;
    }
    // This one would wait for five minutes for more.
    let (max_bytes, min_bytes, max_wait_ms) = (1 << 20, 1 << 20, 300_000);
    let topic = "a".to_owned();
    raw.send(
        99,
        &Fetch {
            topic,
            partition: 0,
            offset: 0,
            max_bytes,
            min_bytes,
            max_wait_ms,
            skip_damaged: false,
            filter: None,
            isolation: Isolation::Committed,
        },
    )
    .await;
    raw.stream.shutdown().await.unwrap();
    let mut answered = Vec::new();
    while let Some(frame) = raw.next().await {
        assert!(!frame.has(flags::ERROR));
        answered.push(frame.correlation);
    }
    answered.sort_unstable();
    assert_eq!(answered, [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 99]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_may_come_one_at_a_time() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.socket().await;
    raw.stream.set_nodelay(true).unwrap();
    let mut bytes = frame(1, &crate::harness::hello(1, 1), &[]);
    bytes.extend(frame(2, &Metadata { topic: "a".to_owned(), create: true }, &[]));
    for byte in bytes {
        raw.bytes(&[byte]).await;
    }
    assert_eq!(raw.next().await.unwrap().correlation, 1);
    assert_eq!(raw.next().await.unwrap().correlation, 2);
    let request = Produce { topic: "a".to_owned(), partition: 0, ack: Ack::Durable };
    for byte in frame(3, &request, &batch(2, 30)) {
        raw.bytes(&[byte]).await;
    }
    assert_eq!(raw.produced(3).await.last_offset, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_refused_by_its_number_and_the_connection_stays() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    for kind in [999, Kind::Goodbye.code(), Kind::Delivery.code(), Kind::SubscriptionEnded.code()] {
        raw.bytes(&encode_frame(kind, 0, 42, &(), 0).unwrap()).await;
        let frame = raw.next().await.unwrap();
        assert_eq!((frame.kind, frame.correlation, frame.flags), (kind, 42, flags::RESPONSE | flags::ERROR));
        let error = error_of(&frame);
        assert_eq!(error.code, ErrorKind::Unsupported.code());
        assert!(error.message.contains(&kind.to_string()), "{}", error.message);
    }
    raw.call(1, &Ping {}).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_message_is_refused_and_the_connection_stays() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    // A string said to be longer than memory, an enum without such a variant, nothing at all.
    let bodies: [(Kind, Vec<u8>); 3] = [
        (Kind::DescribeTopic, vec![0xff; 8]),
        (Kind::ListOffsets, [&[0; 12][..], &[0xff; 4]].concat()),
        (Kind::Produce, Vec::new()),
    ];
    for (kind, body) in bodies {
        raw.bytes(&raw_frame(kind.code(), 5, &body)).await;
        assert_eq!(answer::<Pong>(&raw.next().await.unwrap(), 5).unwrap_err().code, ErrorKind::InvalidRequest.code());
    }
    raw.call(1, &Ping {}).await.unwrap();
    running.stop().await;
}

/// A frame around a body that no type stands for.
fn raw_frame(kind: u16, correlation: u64, body: &[u8]) -> Vec<u8> {
    let mut counted = Vec::new();
    counted.extend_from_slice(&kind.to_be_bytes());
    counted.extend_from_slice(&[0, 0]);
    counted.extend_from_slice(&correlation.to_be_bytes());
    counted.extend_from_slice(&(body.len() as u32).to_be_bytes());
    counted.extend_from_slice(body);
    let mut frame = (4 + counted.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&crc32fast::hash(&counted).to_be_bytes());
    frame.extend(counted);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_that_cannot_be_read_has_no_answer_and_ends_the_connection() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.send(1, &Credit { subscription: 77, records: 1, bytes: 1 }).await;
    raw.call(2, &Ping {}).await.unwrap();
    raw.bytes(&raw_frame(Kind::Credit.code(), 1, &[1, 2, 3])).await;
    assert_eq!(raw.goodbye().await.0, ErrorKind::InvalidRequest);
    let mut raw = running.client().await;
    raw.bytes(&frame(0, &Credit { subscription: 77, records: 1, bytes: 1 }, b"payload")).await;
    let (kind, message) = raw.goodbye().await;
    assert_eq!(kind, ErrorKind::InvalidRequest);
    assert!(message.contains("7 bytes"), "{message}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_not_whole_is_refused_and_the_next_one_is_taken() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    let good = batch(3, 100);
    let mut flipped = good.to_vec();
    flipped[80] ^= 1;
    for bad in [&flipped[..], &good[..40], &good[..good.len() - 1], &[]] {
        raw.produce(9, "a", bad).await;
        let error = answer::<ProduceOk>(&raw.next().await.unwrap(), 9).unwrap_err();
        assert_eq!(error.code, ErrorKind::CorruptBatch.code(), "{}", error.message);
    }
    raw.produce(10, "a", &good).await;
    assert_eq!(raw.produced(10).await.base_offset, 0);
    running.stop().await;
}

/// What is inside of a compressed batch is looked at before anybody reads it, at this door as at the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_batch_that_lies_or_is_a_bomb_is_refused_and_the_next_one_is_taken() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    let reseal = |batch: &mut [u8]| {
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    };
    let mut offset = 0;
    for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
        let packed = |values: &[&[u8]]| {
            let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
            values.iter().for_each(|value| builder.push(1, None, Some(value), &[]));
            builder.build()
        };
        let mut counts = packed(&[b"a", b"b"]);
        (counts[26], counts[60]) = (8, 9);
        reseal(&mut counts);
        let mut cut = packed(&[b"a", b"b"]);
        // In the middle: what only follows the records, such as an end mark, nobody misses.
        cut.truncate(61 + (cut.len() - 61) / 2);
        let length = i32::try_from(cut.len() - 12).unwrap();
        cut[8..12].copy_from_slice(&length.to_be_bytes());
        reseal(&mut cut);
        for (what, bad) in [("a lying count", counts), ("cut records", cut)] {
            raw.produce(9, "a", &bad).await;
            let error = answer::<ProduceOk>(&raw.next().await.unwrap(), 9).unwrap_err();
            assert_eq!(error.code, ErrorKind::CorruptBatch.code(), "{what}, {codec}: {}", error.message);
        }
        raw.produce(10, "a", &packed(&[b"a", b"b"])).await;
        assert_eq!(raw.produced(10).await.base_offset, offset);
        offset += 2;
    }
    // 300 MB of zeros in one record, in some kilobytes.
    let mut builder = BatchBuilder::new(BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() });
    builder.push(1, None, Some(&vec![0; 300 * 1024 * 1024]), &[]);
    let bomb = builder.build();
    assert!(bomb.len() < 1024 * 1024);
    raw.produce(11, "a", &bomb).await;
    let error = answer::<ProduceOk>(&raw.next().await.unwrap(), 11).unwrap_err();
    assert_eq!(error.code, ErrorKind::TooLarge.code(), "{}", error.message);
    still_well(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_what_is_wrong() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    let create = |name: &str, partitions| CreateTopic {
        name: name.to_owned(),
        partitions,
        settings: Vec::new(),
        if_not_exists: false,
    };
    raw.call(1, &create("a", None)).await.unwrap();
    let error = raw.call(2, &create("a", None)).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::AlreadyExists.code());
    let error = raw.call(3, &create("a b", None)).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::InvalidRequest.code());
    assert!(error.message.contains("a b"), "{}", error.message);
    let error = raw.call(4, &create("b", Some(0))).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::InvalidRequest.code());
    raw.produce(5, "nowhere", &batch(1, 1)).await;
    let error = answer::<ProduceOk>(&raw.next().await.unwrap(), 5).unwrap_err();
    assert_eq!(error.code, ErrorKind::NotFound.code());
    let topic = "a".to_owned();
    let fetch = Fetch {
        topic,
        partition: 0,
        offset: 9,
        max_bytes: 1,
        min_bytes: 1,
        max_wait_ms: 0,
        skip_damaged: false,
        filter: None,
        isolation: Isolation::Committed,
    };
    let error = raw.call(6, &fetch).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::OffsetOutOfRange.code());
    assert_eq!(error.range.map(|range| (range.log_start, range.log_end)), Some((0, 0)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_waits_for_ends_the_connection_with_its_reason() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    raw.create_topic("a").await;
    let request = Produce { topic: "a".to_owned(), partition: 0, ack: Ack::None };
    raw.bytes(&frame(1, &request, &batch(1, 10))).await;
    raw.call(2, &Ping {}).await.unwrap();
    let request = Produce { topic: "nowhere".to_owned(), partition: 0, ack: Ack::None };
    raw.bytes(&frame(3, &request, &batch(1, 10))).await;
    let (kind, message) = raw.goodbye().await;
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(message.contains("nowhere"), "{message}");
    running.stop().await;
}
