//! A stop loses nothing that was acknowledged and leaves nobody without a word.

use tidelog::base::{ErrorKind, Isolation};
use tidelog::protocol::{ErrorBody, Fetch, Kind, ListOffsets, OffsetAt, ProduceOk, decode_body, flags};

use crate::harness::{PATIENCE, Running, batch, start_in};

#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_are_told_that_the_server_stops() {
    let running = Running::start(|_| ()).await;
    let (mut client, mut silent) = (running.client().await, running.socket().await);
    // So that the server has surely seen it.
    silent.bytes(&[0]).await;
    running.client().await;
    let ((kind, _), _) = tokio::join!(client.goodbye(), running.stop());
    assert_eq!(kind, ErrorKind::ShuttingDown);
    while let Some(frame) = silent.next().await {
        assert_eq!(frame.kind, Kind::Goodbye.code());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_before_the_goodbye() {
    let running = Running::start(|_| ()).await;
    let mut client = running.client().await;
    client.create_topic("a").await;
    let (topic, max_wait_ms) = ("a".to_owned(), 300_000);
    client
        .send(
            5,
            &Fetch {
                topic,
                partition: 0,
                offset: 0,
                max_bytes: 1,
                min_bytes: 1,
                max_wait_ms,
                skip_damaged: false,
                filter: None,
                isolation: Isolation::Committed,
            },
        )
        .await;
    client.call(6, &tidelog::protocol::Ping {}).await.unwrap();
    let last = async {
        let answer = client.next().await.unwrap();
        assert_eq!((answer.correlation, answer.flags), (5, flags::RESPONSE));
        client.goodbye().await
    };
    let ((kind, _), _) = tokio::join!(last, running.stop());
    assert_eq!(kind, ErrorKind::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_of_a_stop() {
    let running = Running::start(|_| ()).await;
    let mut client = running.client().await;
    client.create_topic("a").await;
    client.subscribe("a", 0, 10, 10_000).await;
    assert_eq!(client.next().await.unwrap().kind, Kind::Delivery.code());
    let last = async {
        let ended = client.next().await.unwrap();
        assert_eq!(ended.kind, Kind::SubscriptionEnded.code());
        client.goodbye().await
    };
    let ((kind, _), _) = tokio::join!(last, running.stop());
    assert_eq!(kind, ErrorKind::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_and_during_a_stop_is_there_afterwards() {
    let running = Running::start(|_| ()).await;
    let mut producer = running.client().await;
    producer.create_topic("a").await;
    let acked = std::sync::atomic::AtomicU64::new(0);
    let producing = async {
        for correlation in 0.. {
            producer.produce_or_end(correlation, &batch(1, 1000)).await;
            let Some(frame) = producer.next().await else { break };
            if frame.kind == Kind::Goodbye.code() {
                let body: ErrorBody = decode_body(frame.kind, &frame.body).unwrap();
                assert_eq!(body.code, ErrorKind::ShuttingDown.code());
                break;
            }
            assert_eq!(frame.flags, flags::RESPONSE);
            let ok: ProduceOk = decode_body(frame.kind, &frame.body).unwrap();
            assert_eq!((ok.base_offset, frame.correlation), (correlation, correlation));
            acked.store(correlation + 1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let stopping = async {
        while acked.load(std::sync::atomic::Ordering::SeqCst) < 20 {
            tokio::task::yield_now().await;
        }
        running.stop().await
    };
    let ((), dir) = tokio::time::timeout(PATIENCE, async { tokio::join!(producing, stopping) }).await.unwrap();
    let acked = acked.into_inner();
    let server = start_in(&dir, |_| ()).await;
    let running = Running { server, dir };
    let at = ListOffsets { topic: "a".to_owned(), partition: 0, at: OffsetAt::End, isolation: Isolation::Committed };
    let end = running.client().await.call(1, &at).await.unwrap().offset;
    assert!(end >= acked, "{acked} were acknowledged, {end} are there");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_directory_is_refused() {
    let running = Running::start(|_| ()).await;
    let config = tidelog::server::config::ServerConfig {
        data_dir: running.dir.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        ..Default::default()
    };
    let error = tidelog::server::Server::start(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    running.stop().await;
}
