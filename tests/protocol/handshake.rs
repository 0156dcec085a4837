//! Nothing is done for a connection before it has said hello, in time.

use tidelog::base::{ErrorKind, Millis};
use tidelog::protocol::{Credentials, Hello, Kind, Ping, ServerInfo, encode_frame, flags};

use crate::harness::{Running, error_of, frame, hello};

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_is_answered_with_version_id_and_limits() {
    let running = Running::start(|config| config.max_subscriptions = 17).await;
    let ok = running.socket().await.hello().await;
    assert_eq!(ok.version, 1);
    assert_eq!(ok.server_id.len(), 32);
    assert_eq!(ok.limits.max_subscriptions, 17);
    assert_eq!(ok.limits.max_batch_bytes as usize, tidelog::base::limits::MAX_BATCH_BYTES);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_do_not_meet_are_refused_with_both_ranges() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.socket().await;
    let error = raw.call(3, &hello(7, 9)).await.unwrap_err();
    assert_eq!(error.code, ErrorKind::Unsupported.code());
    assert!(error.message.contains("1 to 1") && error.message.contains("7 to 9"), "{}", error.message);
    raw.ended().await;
    // A newer client that still speaks the old version is fine.
    assert_eq!(running.socket().await.call(1, &hello(1, 9)).await.unwrap().version, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_before_the_hello_is_refused_and_the_connection_ends() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.socket().await;
    raw.send(5, &Ping {}).await;
    let answer = raw.next().await.unwrap();
    assert_eq!((answer.kind, answer.correlation), (Kind::Ping.code(), 5));
    assert_eq!(answer.flags, flags::RESPONSE | flags::ERROR);
    assert_eq!(error_of(&answer).code, ErrorKind::InvalidRequest.code());
    raw.ended().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_has_no_flags_and_no_payload() {
    let running = Running::start(|_| ()).await;
    let flagged = encode_frame(Kind::Hello.code(), flags::PUSH, 9, &hello(1, 1), 0).unwrap().to_vec();
    for bytes in [flagged, frame(9, &hello(1, 1), b"more")] {
        let mut raw = running.socket().await;
        raw.bytes(&bytes).await;
        let error = error_of(&raw.next().await.unwrap());
        assert_eq!(error.code, ErrorKind::InvalidRequest.code());
        assert!(error.message.contains("no flags and no payload"), "{}", error.message);
        raw.ended().await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hello_is_refused_and_the_connection_stays() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.client().await;
    assert_eq!(raw.call(1, &hello(1, 1)).await.unwrap_err().code, ErrorKind::InvalidRequest.code());
    raw.call(2, &Ping {}).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_nobody_checks_are_refused() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.socket().await;
    let credentials = Some(Credentials { mechanism: "plain".to_owned(), data: vec![1] });
    let error = raw.call(1, &Hello { credentials, ..hello(1, 1) }).await.unwrap_err();
    assert!(error.message.contains("authentication"), "{}", error.message);
    raw.ended().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_too_little_is_dropped_at_the_timeout() {
    let running = Running::start(|config| config.handshake_timeout = Millis(200)).await;
    let mut silent = running.socket().await;
    let mut slow = running.socket().await;
    slow.bytes(&frame(1, &hello(1, 1), &[])[..20]).await;
    for raw in [&mut silent, &mut slow] {
        let (kind, message) = raw.goodbye().await;
        assert_eq!(kind, ErrorKind::TimedOut, "{message}");
        assert!(message.contains("200ms"), "{message}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_now_and_then_does_not_extend_the_handshake() {
    let running = Running::start(|config| config.handshake_timeout = Millis(300)).await;
    let mut raw = running.socket().await;
    let whole = frame(1, &hello(1, 1), &[]);
    for byte in &whole[..whole.len() - 1] {
        // The server may have given up already, which is the point.
        if tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    while let Some(frame) = raw.next().await {
        assert_eq!(frame.kind, Kind::Goodbye.code());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_of_more_than_its_limit_is_refused_from_its_header() {
    let running = Running::start(|_| ()).await;
    let mut raw = running.socket().await;
    let large = Hello { client_name: "n".repeat(5000), ..hello(1, 1) };
    raw.bytes(&frame(1, &large, &[])).await;
    let (kind, message) = raw.goodbye().await;
    assert_eq!(kind, ErrorKind::BadFrame);
    assert!(message.contains("4096"), "{message}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_told_so() {
    let running = Running::start(|config| config.max_connections = 2).await;
    let (mut first, _second) = (running.client().await, running.client().await);
    let (kind, message) = running.socket().await.goodbye().await;
    assert_eq!(kind, ErrorKind::Overloaded);
    assert!(message.contains("2 connections"), "{message}");
    assert_eq!(first.call(1, &ServerInfo {}).await.unwrap().connections, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connections_may_say_one_byte_and_no_more() {
    let running = Running::start(|_| ()).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        let mut raw = running.socket().await;
        raw.bytes(&[0]).await;
        crowd.push(raw);
    }
    let mut client = running.client().await;
    client.call(1, &Ping {}).await.unwrap();
    drop(crowd);
    client.call(2, &Ping {}).await.unwrap();
    running.stop().await;
}
