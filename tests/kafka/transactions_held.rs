//! Transactions that are left open: what they hold up, who says so, and how an operator ends them.

use std::io::{Read, Write};
use std::process::Command;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{DescribeProducersRequest, InitProducerIdRequest, WriteTxnMarkersRequest};
use serde_json::Value;
use tidelog::base::{ErrorKind, Isolation, Millis};
use tidelog::client::{Client as Native, CommitPosition, ListTransactions, Message};

use super::client::{Client, Running, text};
use super::topics::{create_topic, name};
use super::transacting::{Writer, end_offset, native};

async fn admin(running: &Running) -> Native {
    Native::connect(&running.server.addresses()[0].to_string()).await.unwrap()
}

/// What a command prints, each line of its output as JSON if it was asked for.
async fn command(running: &Running, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    command.args(args).args(["--server", &running.server.addresses()[0].to_string()]);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (said, complained) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(done.status.success(), "{complained}");
    said + &complained
}

async fn json(running: &Running, args: &[&str]) -> Value {
    let said = command(running, &[args, &["--json"]].concat()).await;
    serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A transaction with a record, and a native record behind it.
async fn left_open(running: &Running, client: &mut Client) -> Writer {
    create_topic(client, "t", 1).await;
    let mut writer = Writer::new(client, "left-open").await;
    assert_eq!(writer.add(client, "t", &[0]).await, [0]);
    assert_eq!(writer.write(client, "t", &["held"]).await, 0);
    let producer = admin(running).await.producer().build().await.unwrap();
    producer.send_and_wait(Message::to("t").value("behind")).await.unwrap();
    writer
}

async fn init(client: &mut Client, id: &str, timeout_ms: i32, held: (i64, i16)) -> (i16, i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(text(id).into()))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(held.0.into())
        .with_producer_epoch(held.1);
    let answer = client.call(4, &request).await;
    (answer.error_code, answer.producer_id.0, answer.producer_epoch)
}

#[tokio::test]
async fn the_longest_time_out_is_the_operators() {
    let change = |config: &mut tidelog::server::config::ServerConfig| config.transaction_max_timeout = Millis(30_000);
    let running = Running::start_in(tempfile::tempdir().unwrap(), change).await;
    let mut client = running.client().await;
    assert_eq!(init(&mut client, "x", 30_001, (-1, -1)).await.0, 50);
    assert_eq!(init(&mut client, "x", 30_000, (-1, -1)).await.0, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_counts_what_an_open_transaction_holds_up_and_every_view_says_which_it_is() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let writer = left_open(&running, &mut client).await;
    let operator = admin(&running).await;
    let start = CommitPosition { topic: "t".to_owned(), partition: 0, offset: 0, metadata: String::new() };
    operator.admin().commit_positions("readers", vec![start]).await.unwrap();
    assert_eq!(native(&running, "t").await, [""; 0], "readers wait");

    let at = &operator.admin().describe_group("readers").await.unwrap().partitions[0];
    assert_eq!((at.end, at.lag), (2, 2));
    let (held, more) = operator.admin().held(Vec::new()).await.unwrap();
    assert_eq!((held.len(), more), (1, false));
    assert_eq!((held[0].topic.as_str(), held[0].partition, held[0].offset, held[0].records), ("t", 0, 0, 2));
    assert_eq!(held[0].transaction.as_deref(), Some("left-open"));
    assert!(held[0].since_ms.is_some() && held[0].age_ms.is_some());
    let metrics = operator.admin().metrics().await.unwrap();
    assert!(metrics.contains("tidelog_topic_held_records{topic=\"t\"} 2"), "{metrics}");
    assert!(metrics.contains("tidelog_group_lag{group=\"readers\",topic=\"t\",partition=\"0\"} 2"), "{metrics}");
    let oldest = metrics.lines().find_map(|line| line.strip_prefix("tidelog_transaction_oldest_seconds ")).unwrap();
    assert!(oldest.parse::<f64>().unwrap() > 0.0);

    for args in [["topic", "describe", "t"], ["group", "describe", "readers"]] {
        let said = command(&running, &args).await;
        assert!(said.contains("t/0: 2 records from offset 0 on held by transaction 'left-open' since "), "{said}");
        let held = json(&running, &args).await["partitions"][0]["held"].clone();
        assert_eq!(
            (&held["transaction"], &held["offset"], &held["records"]),
            (&"left-open".into(), &0.into(), &2.into())
        );
    }

    assert_eq!(writer.end(&mut client, true).await, 0);
    assert_eq!(native(&running, "t").await, ["held", "behind"]);
    assert_eq!(operator.admin().held(vec!["t".to_owned()]).await.unwrap().0, []);
    assert!(json(&running, &["topic", "describe", "t"]).await["partitions"][0]["held"].is_null());
    let metrics = operator.admin().metrics().await.unwrap();
    assert!(metrics.contains("tidelog_transaction_oldest_seconds 0.0"), "{metrics}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_describes_aborts_and_forgets() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let mut writer = left_open(&running, &mut client).await;
    let listed = json(&running, &["transactions", "list", "--state", "open"]).await;
    assert_eq!((&listed["transaction"], &listed["state"]), (&"left-open".into(), &"ongoing".into()));
    assert_eq!((&listed["address"], &listed["client"]), (&"127.0.0.1".into(), &"test".into()));
    assert!(listed["left_ms"].as_u64().unwrap() <= 60_000);
    let described = json(&running, &["transaction", "describe", "left-open"]).await;
    let partition = serde_json::json!({ "topic": "t", "partition": 0, "first_offset": 0 });
    assert_eq!(described["partitions"], serde_json::json!([partition]));

    let said = command(&running, &["transaction", "abort", "left-open"]).await;
    assert!(said.contains("the transaction of 'left-open' is aborted, and its producer superseded"), "{said}");
    assert_eq!(native(&running, "t").await, ["behind"]);
    assert_eq!(writer.write(&mut client, "t", &["late"]).await, 47);
    assert_eq!(writer.end(&mut client, true).await, 90);
    let said = command(&running, &["transaction", "abort", "left-open"]).await;
    assert!(said.contains("no open transaction"), "{said}");

    command(&running, &["transaction", "forget", "left-open"]).await;
    assert_eq!(writer.end(&mut client, true).await, 49, "as Kafka says of an id that it has forgotten");
    let operator = admin(&running).await;
    assert_eq!(operator.admin().list_transactions(ListTransactions::default()).await.unwrap().0, []);
    for refused in [
        operator.admin().forget_transaction("left-open").await.map(drop),
        operator.admin().abort_transaction("left-open").await.map(drop),
        operator.admin().describe_transaction("left-open").await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }
    // The producer is forgotten after a restart too, and goes on all the same: as from Kafka, with a producer id of its own.
    let dir = running.stop().await;
    let running = Running::start_in(dir, |_| {}).await;
    let mut client = running.client().await;
    let (code, producer, epoch) = init(&mut client, "left-open", 60_000, writer.identity()).await;
    assert_eq!((code, epoch), (0, 0));
    assert_ne!(producer, writer.identity().0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_behind_what_one_answer_holds() {
    let running = Running::start().await;
    let mut client = running.client().await;
    for number in 0..1_005 {
        assert_eq!(init(&mut client, &format!("id-{number:04}"), 10_000, (-1, -1)).await.0, 0);
    }
    let operator = admin(&running).await;
    let (first, next) = operator.admin().list_transactions(ListTransactions::default()).await.unwrap();
    assert_eq!((first.len(), next.as_deref()), (1_000, Some("id-0999")));
    let wanted = ListTransactions { after: next, ..ListTransactions::default() };
    let (rest, next) = operator.admin().list_transactions(wanted).await.unwrap();
    assert_eq!((rest.len(), rest[0].id.as_str(), next), (5, "id-1000", None));
    let wrong = ListTransactions { state: Some("odd".to_owned()), ..ListTransactions::default() };
    assert_eq!(operator.admin().list_transactions(wrong).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    running.stop().await;
}

/// What `kafka-transactions.sh abort` sends, by what DescribeProducers said.
#[tokio::test]
async fn kafkas_tools_abort_what_a_producer_has_open() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let writer = left_open(&running, &mut client).await;
    let topics = vec![TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0])];
    let producers = client.call(0, &DescribeProducersRequest::default().with_topics(topics)).await;
    let open = producers.topics[0].partitions[0].active_producers[0].clone();
    assert_eq!((open.producer_id.0, open.current_txn_start_offset), (writer.identity().0, 0));
    let marker = |epoch: i32, commit: bool| {
        let topic = WritableTxnMarkerTopic::default().with_name(name("t")).with_partition_indexes(vec![0, 7]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(open.producer_id)
            .with_producer_epoch(i16::try_from(epoch).unwrap())
            .with_transaction_result(commit)
            .with_coordinator_epoch(open.coordinator_epoch)
            .with_topics(vec![topic]);
        WriteTxnMarkersRequest::default().with_markers(vec![marker])
    };
    let codes = |answer: kafka_protocol::messages::WriteTxnMarkersResponse| {
        answer.markers[0].topics[0].partitions.iter().map(|of| (of.partition_index, of.error_code)).collect::<Vec<_>>()
    };
    assert_eq!(codes(client.call(1, &marker(open.producer_epoch, true)).await), [(0, 48), (7, 48)], "not by a tool");
    assert_eq!(end_offset(&mut client, "t", 1).await, 0);
    assert_eq!(codes(client.call(1, &marker(open.producer_epoch, false)).await), [(0, 0), (7, 3)]);
    assert_eq!(native(&running, "t").await, ["behind"]);
    assert_eq!(writer.end(&mut client, true).await, 90, "it is aborted as a whole");
    assert_eq!(codes(client.call(1, &marker(open.producer_epoch, false)).await), [(0, 0), (7, 3)], "nothing is open");
    assert_eq!(end_offset(&mut client, "t", 0).await, 3, "so nothing is written");
    running.stop().await;
}

/// The values that a GET of the topic brings.
async fn over_http(running: &Running, query: &str) -> Vec<String> {
    let address = running.server.http_addresses()[0];
    let request = format!("GET /topics/t?{query} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let body: Value = serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{error}: {body}"));
    body["records"].as_array().unwrap().iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_ask_for_what_is_not_committed() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let writer = left_open(&running, &mut client).await;
    let everything = ["held", "behind"];
    for ended in [false, true] {
        if ended {
            assert_eq!(writer.end(&mut client, false).await, 0);
        }
        let committed: &[&str] = if ended { &["behind"] } else { &[] };
        assert_eq!(over_http(&running, "").await, committed);
        assert_eq!(over_http(&running, "isolation=read_committed").await, committed);
        assert_eq!(over_http(&running, "isolation=read_uncommitted").await, everything);
        let lines = |said: String| said.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(command(&running, &["consume", "t", "--quiet"]).await), committed);
        let uncommitted = ["consume", "t", "--quiet", "--isolation", "read_uncommitted"];
        assert_eq!(lines(command(&running, &uncommitted).await), everything);
        let operator = admin(&running).await;
        let pulled = operator.pull("t", 0).isolation(Isolation::Uncommitted).pull().await.unwrap();
        let values: Vec<_> = pulled.records.iter().map(|record| record.value.as_deref().unwrap()).collect();
        assert_eq!(values, [&b"held"[..], b"behind"]);
        let pulled = operator.pull("t", 0).pull().await.unwrap();
        assert_eq!(pulled.records.len(), committed.len());
    }
    running.stop().await;
}
