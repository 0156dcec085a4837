//! Versions, order of answers, and peers that talk nonsense.

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DescribeClusterRequest, MetadataRequest,
};
use kafka_protocol::protocol::{Decodable, Message};

use super::client::{PATIENCE, Running, text};

/// Trap 1: a version that is not known is answered in the oldest form, with the versions that are.
#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_with_what_there_is() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for version in [5, 99, -1, i16::MAX] {
        client.send_raw(18, version, true, &[1, 1, 0]).await;
        let mut answer = client.next().await.unwrap();
        answer.get_i32();
        let answer = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
        assert_eq!(answer.error_code, 35);
        assert!(answer.api_keys.iter().any(|api| api.api_key == 18 && api.max_version == 4));
    }
    for version in 0..=4 {
        let name = if version >= 3 { text("test") } else { text("") };
        let request = ApiVersionsRequest::default().with_client_software_name(name.clone());
        let answer = client.call(version, &request.with_client_software_version(name)).await;
        assert_eq!(answer.error_code, 0);
    }
    running.stop().await;
}

/// Trap 2: clients of some years skip tagged fields wrongly.
#[tokio::test]
async fn no_tagged_field_is_written() {
    let running = Running::start().await;
    let mut client = running.client().await;
    client.send_raw(18, 3, true, &[1, 1, 0]).await;
    let answer = client.next().await.unwrap();
    assert_eq!(answer.last(), Some(&0), "the answer ends with a count of tagged fields, which is 0");
    let mut rest = answer.slice(4..);
    let parsed = ApiVersionsResponse::decode(&mut rest, 3).unwrap();
    assert!(parsed.supported_features.is_empty() && parsed.finalized_features.is_empty());
    // Correlation id, error, count, seven bytes a key, throttle time, tags.
    assert_eq!(answer.len(), 4 + 2 + 1 + 7 * parsed.api_keys.len() + 4 + 1);
    running.stop().await;
}

/// Trap 3: clients of some years take a higher minimum as a broker without compression. Traps 4, 7, 8: what must be offered
/// together, is, and every version that clients insist on.
#[tokio::test]
async fn the_versions_offered_are_those_that_clients_need_together() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let answer = client.call(0, &ApiVersionsRequest::default()).await;
    let range = |key: i16| {
        let api = answer.api_keys.iter().find(|api| api.api_key == key);
        api.map(|api| (api.min_version, api.max_version))
    };
    assert_eq!(range(0).unwrap().0, 0, "Produce begins at 0");
    assert!(range(22).is_some(), "producers are idempotent by default");
    let (metadata, fetch) = (range(3).unwrap().1, range(1).unwrap().1);
    assert!(metadata >= 10 && fetch >= 13, "topic ids are offered on both sides");
    assert!(range(0).unwrap().1 <= 12 && range(9).unwrap().1 <= 9, "later ones know topics by their ids alone");
    // Versions that some client speaks whatever is offered, or that are all it has: librdkafka, aiokafka, kafkajs, sarama as of
    // Kafka 2.8, and the least that Java clients of Kafka 4 ask for.
    let spoken = [
        (0, 3..=8),
        (1, 4..=11),
        (2, 1..=5),
        (3, 0..=9),
        (8, 2..=8),
        (9, 1..=7),
        (10, 0..=3),
        (11, 0..=7),
        (12, 0..=4),
        (13, 0..=4),
        (14, 0..=5),
        (15, 0..=5),
        (16, 0..=4),
        (18, 0..=3),
        (19, 2..=6),
        (20, 1..=5),
        (21, 0..=2),
        (22, 0..=4),
        (23, 2..=3),
        (24, 0..=2),
        (25, 0..=2),
        (26, 0..=2),
        (27, 1..=1),
        (28, 0..=3),
        (32, 1..=3),
        (33, 0..=1),
        (37, 0..=3),
        (42, 0..=2),
        (44, 0..=1),
        (47, 0..=0),
        (60, 0..=0),
        (68, 1..=1),
        (69, 0..=0),
    ];
    for (key, versions) in spoken {
        let (min, max) = range(key).unwrap_or_else(|| panic!("key {key} is not offered"));
        assert!(min <= *versions.start() && *versions.end() <= max, "key {key}: {versions:?} is not in {min}..={max}");
    }
    for key in [4, 5, 6, 7, 52, 53, 54, 56, 58, 59, 62, 63, 64, 67, 70, 71, 72, 73, 80, 87] {
        assert!(range(key).is_none(), "key {key} is not for clients");
    }
    // What is offered can be encoded by the message structs.
    for api in answer.api_keys.iter().filter(|api| ![0, 18].contains(&api.api_key)) {
        let valid = ApiKey::try_from(api.api_key).unwrap().valid_versions();
        assert!(valid.min <= api.min_version && api.max_version <= valid.max, "{api:?} is not within {valid:?}");
    }
    assert!(MetadataRequest::VERSIONS.max >= metadata);
    running.stop().await;
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let mut sent = Vec::new();
    for round in 0..50 {
        sent.push(if round % 3 == 0 {
            client.send(1, &DescribeClusterRequest::default()).await
        } else {
            client.send(9, &MetadataRequest::default().with_topics(None)).await
        });
    }
    for (round, sent) in sent.iter().enumerate() {
        let got = if round % 3 == 0 {
            client.answer::<DescribeClusterRequest>(1).await.0
        } else {
            client.answer::<MetadataRequest>(9).await.0
        };
        assert_eq!(got, *sent);
    }
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_understood_ends_the_connection_and_nothing_else() {
    let running = Running::start().await;
    let frame = |body: &[u8]| {
        let mut out = BytesMut::new();
        out.put_i32(i32::try_from(body.len()).unwrap());
        out.put_slice(body);
        out
    };
    let nonsense = [
        // Lengths: negative, none, too large for anything.
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0],
        vec![0x7f, 0xff, 0xff, 0xff, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // An unknown key, an unknown version, versions that were removed.
        frame(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).to_vec(),
        frame(&[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0]).to_vec(),
        frame(&[0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).to_vec(),
        // A client id that is longer than the request.
        frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0]).to_vec(),
        // Two thousand million topics.
        frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]).to_vec(),
        frame(&[0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]).to_vec(),
    ];
    for bytes in nonsense {
        let mut client = running.client().await;
        client.bytes(&bytes).await;
        assert!(client.next().await.is_none(), "an answer to {bytes:?}");
    }
    let mut client = running.client().await;
    client.call(1, &DescribeClusterRequest::default()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_stays_away_holds_no_memory_and_one_that_comes_in_pieces_is_answered() {
    let running = Running::start().await;
    let mut slow = running.client().await;
    slow.bytes(&[0, 0, 0, 11, 0, 60, 0]).await;
    let mut other = running.client().await;
    other.call(1, &DescribeClusterRequest::default()).await;
    slow.bytes(&[0, 0, 0, 0, 9, 0xff, 0xff, 0, 0]).await;
    let answer = tokio::time::timeout(PATIENCE, slow.next()).await.unwrap();
    assert_eq!(answer.map(|mut answer| answer.get_i32()), None, "a body that lacks its tagged fields");
    running.stop().await;
}

#[tokio::test]
async fn clients_are_told_the_address_that_they_have_reached_or_the_one_that_is_configured() {
    let running = Running::start().await;
    let reached = running.server.kafka_addresses()[0];
    let cluster = running.client().await.call(1, &DescribeClusterRequest::default()).await;
    assert_eq!(cluster.brokers[0].port, i32::from(reached.port()));
    assert_eq!(&*cluster.brokers[0].host, "127.0.0.1");
    assert!(!cluster.cluster_id.is_empty());
    let dir = running.stop().await;
    let running = Running::start_in(dir, |config| config.advertised = "queue.example.com:1234".to_owned()).await;
    let again = running.client().await.call(9, &MetadataRequest::default()).await;
    assert_eq!((&*again.brokers[0].host, again.brokers[0].port), ("queue.example.com", 1234));
    assert_eq!(again.cluster_id.unwrap(), cluster.cluster_id, "the cluster has its id for ever");
    running.stop().await;
}

/// docs/kafka.md says what is offered.
#[tokio::test]
async fn what_is_offered_is_what_the_page_says() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let offered = client.call(0, &ApiVersionsRequest::default()).await.api_keys;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kafka.md")).unwrap();
    let rows: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("| key |")).skip(2).collect();
    let rows: Vec<&str> = rows.into_iter().take_while(|line| line.starts_with('|')).collect();
    let lines: Vec<String> = offered
        .iter()
        .map(|api| {
            let name = format!("{:?}", ApiKey::try_from(api.api_key).unwrap());
            format!("| {} | {} | {}-{} |", api.api_key, name, api.min_version, api.max_version)
        })
        .collect();
    let mut wanted = lines.clone();
    wanted.sort_by_key(|line| line[2..].split(' ').next().unwrap().parse::<i16>().unwrap());
    assert_eq!(rows, wanted);
    running.stop().await;
}
