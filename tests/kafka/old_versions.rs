//! Versions that are not offered and are sent all the same: answered, or refused in their own words.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;

use super::client::{Client, Running, batch};
use super::grouping::position;
use super::producing::produce;
use super::topics::create_topic;

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap());
    out.put_slice(text.as_bytes());
}

/// A topic, and what is said of so many partitions of it.
fn put_parts(out: &mut BytesMut, topic: &str, parts: i32, rest: impl Fn(&mut BytesMut)) {
    out.put_i32(1);
    put_text(out, topic);
    out.put_i32(parts);
    for part in 0..parts {
        out.put_i32(part);
        rest(out);
    }
}

/// The body of the answer.
async fn ask(client: &mut Client, key: i16, version: i16, body: &[u8]) -> Bytes {
    let sent = client.send_raw(key, version, false, body).await;
    let mut answer = client.next().await.expect("the connection ended instead of an answer");
    assert_eq!(answer.get_i32(), sent);
    answer
}

fn text(answer: &mut Bytes) -> String {
    let length = usize::try_from(answer.get_i16()).unwrap();
    String::from_utf8(answer.split_to(length).to_vec()).unwrap()
}

/// Partition and error of each partition, with what the version has behind them.
fn read(answer: &mut Bytes, topic: &str, rest: impl Fn(&mut Bytes)) -> Vec<(i32, i16)> {
    assert_eq!((answer.get_i32(), text(answer)), (1, topic.to_owned()));
    let mut parts = Vec::new();
    for _ in 0..answer.get_i32() {
        parts.push((answer.get_i32(), answer.get_i16()));
        rest(answer);
    }
    parts
}

fn produce_body(acks: i16) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i16(acks);
    body.put_i32(1_000);
    put_parts(&mut body, "t", 2, |body| {
        body.put_i32(3);
        body.put_slice(b"old");
    });
    body
}

/// Kafka 4 does so, because its clients offer them: "a disconnection is too confusing".
#[tokio::test]
async fn records_in_old_formats_are_refused_in_the_words_of_who_sends_them() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    for version in 0..=2 {
        let mut answer = ask(&mut client, 0, version, &produce_body(-1)).await;
        let parts = read(&mut answer, "t", |answer| {
            assert_eq!(answer.get_i64(), -1, "no offset");
            if version >= 2 {
                assert_eq!(answer.get_i64(), -1, "no time");
            }
        });
        assert_eq!(parts, [(0, 35), (1, 35)], "version {version}");
        if version >= 1 {
            assert_eq!(answer.get_i32(), 0);
        }
        assert!(answer.is_empty());
    }
    for version in 0..=3 {
        let mut body = BytesMut::new();
        body.put_slice(&[0; 12]);
        if version >= 3 {
            body.put_i32(1 << 20);
        }
        put_parts(&mut body, "t", 2, |body| body.put_slice(&[0; 12]));
        let mut answer = ask(&mut client, 1, version, &body).await;
        if version >= 1 {
            assert_eq!(answer.get_i32(), 0);
        }
        let parts = read(&mut answer, "t", |answer| assert_eq!((answer.get_i64(), answer.get_i32()), (-1, 0)));
        assert_eq!(parts, [(0, 35), (1, 35)], "version {version}");
        assert!(answer.is_empty());
    }
    // The same connection goes on, until there is no answer that could carry the error.
    assert_eq!(produce(&mut client, 9, "t", batch(&["a"])).await.base_offset, 0);
    client.send_raw(0, 2, false, &produce_body(0)).await;
    assert_eq!(client.next().await, None);
    running.stop().await;
}

/// What sarama sends up to version 1.38, where nobody has told it of a newer Kafka; and what cannot be done.
#[tokio::test]
async fn positions_are_committed_in_the_version_that_old_clients_send() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let body = |generation: i32, member: &str| {
        let mut body = BytesMut::new();
        put_text(&mut body, "g");
        body.put_i32(generation);
        put_text(&mut body, member);
        put_parts(&mut body, "t", 3, |body| {
            body.put_i64(3);
            body.put_i64(-1);
            put_text(body, "note");
        });
        body
    };
    let mut answer = ask(&mut client, 8, 1, &body(-1, "")).await;
    assert_eq!(read(&mut answer, "t", |_| {}), [(0, 0), (1, 0), (2, 3)]);
    assert!(answer.is_empty());
    assert_eq!(position(&mut client, 9, "g", 1).await, (3, "note".to_owned(), 0));
    let mut answer = ask(&mut client, 8, 1, &body(1, "stranger")).await;
    assert_eq!(read(&mut answer, "t", |_| {}), [(0, 25), (1, 25), (2, 25)]);
    let mut body = BytesMut::new();
    put_text(&mut body, "g");
    put_parts(&mut body, "t", 1, |body| {
        body.put_i64(9);
        put_text(body, "");
    });
    let mut answer = ask(&mut client, 8, 0, &body).await;
    assert_eq!(read(&mut answer, "t", |_| {}), [(0, 35)], "that would be in ZooKeeper");
    assert_eq!(position(&mut client, 9, "g", 0).await.0, 3);
    running.stop().await;
}

#[tokio::test]
async fn the_first_version_of_offsets_has_a_list_of_one_offset() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    produce(&mut client, 9, "t", batch(&["a", "b"])).await;
    for (topic, time, most, expected) in [
        ("t", -1_i64, 1, (0, vec![2])),
        ("t", -2, 5, (0, vec![0])),
        ("t", 1_000, 1, (0, vec![0])),
        ("t", 2_000, 1, (0, vec![])),
        ("t", -1, 0, (0, vec![])),
        ("nowhere", -1, 1, (3, vec![])),
    ] {
        let mut body = BytesMut::new();
        body.put_i32(-1);
        put_parts(&mut body, topic, 1, |body| {
            body.put_i64(time);
            body.put_i32(most);
        });
        let mut answer = ask(&mut client, 2, 0, &body).await;
        assert_eq!((answer.get_i32(), text(&mut answer)), (1, topic.to_owned()));
        assert_eq!((answer.get_i32(), answer.get_i32()), (1, 0));
        let (code, count) = (answer.get_i16(), answer.get_i32());
        let offsets: Vec<i64> = (0..count).map(|_| answer.get_i64()).collect();
        assert_eq!((code, offsets), expected, "{topic} {time} {most}");
        assert!(answer.is_empty());
    }
    running.stop().await;
}

/// What is cut off or lies ends the connection, and nothing else.
#[tokio::test]
async fn what_cannot_be_read_in_an_old_version_ends_the_connection() {
    let running = Running::start().await;
    let whole = produce_body(-1);
    for (key, version) in [(0, 0), (0, 2), (1, 0), (1, 3), (2, 0), (8, 0), (8, 1)] {
        for body in [&[][..], &whole[..5], &[0x7f; 40]] {
            let mut client = running.client().await;
            client.send_raw(key, version, false, body).await;
            assert_eq!(client.next().await, None, "key {key} version {version} {body:02x?}");
        }
    }
    let mut client = running.client().await;
    let offered = client.call(0, &ApiVersionsRequest::default()).await.api_keys;
    for (key, first) in [(0, 0), (1, 4), (2, 1), (8, 2)] {
        let api = offered.iter().find(|api| api.api_key == key).unwrap();
        assert_eq!(api.min_version, first, "none of them is offered but what Kafka offers");
    }
    running.stop().await;
}
