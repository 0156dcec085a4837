//! Transactions: what counts, what does not, who may, and what is seen of it through every door.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest,
    ListTransactionsRequest, OffsetFetchRequest, TxnOffsetCommitRequest,
};
use tidelog::base::ErrorKind;
use tidelog::client::{Client as Native, DeadLetterAt, DeadLetterWay, SettleDeadLetters, StartAt};
use tidelog::record::{BatchHeader, BatchOptions, Batches};

use super::client::{Client, PATIENCE, Running, batch_of, text};
use super::producing::produce;
use super::topics::{create_topic, name};

/// Who writes: transactional id, producer id, epoch, and the next sequence number.
pub struct Writer {
    id: &'static str,
    producer: i64,
    epoch: i16,
    sequence: i32,
}

async fn init(client: &mut Client, id: &'static str, held: (i64, i16)) -> Result<Writer, i16> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(text(id).into()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(held.0.into())
        .with_producer_epoch(held.1);
    let answer = client.call(4, &request).await;
    match answer.error_code {
        0 => Ok(Writer { id, producer: answer.producer_id.0, epoch: answer.producer_epoch, sequence: 0 }),
        code => Err(code),
    }
}

impl Writer {
    pub async fn new(client: &mut Client, id: &'static str) -> Self {
        init(client, id, (-1, -1)).await.unwrap()
    }

    pub async fn add(&self, client: &mut Client, topic: &str, partitions: &[i32]) -> Vec<i16> {
        let topic = AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(partitions.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(text(self.id).into())
            .with_v3_and_below_producer_id(self.producer.into())
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let answer = client.call(3, &request).await;
        let results = &answer.results_by_topic_v3_and_below[0].results_by_partition;
        results.iter().map(|result| result.partition_error_code).collect()
    }

    /// Its producer id and epoch.
    pub fn identity(&self) -> (i64, i16) {
        (self.producer, self.epoch)
    }

    fn batch(&mut self, values: &[&str]) -> Bytes {
        let options = BatchOptions {
            producer_id: self.producer,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            ..BatchOptions::default()
        };
        self.sequence += i32::try_from(values.len()).unwrap();
        let mut batch = BytesMut::from(&batch_of(options, values)[..]);
        batch[22] |= 0x10;
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        batch.freeze()
    }

    pub async fn write(&mut self, client: &mut Client, topic: &str, values: &[&str]) -> i16 {
        let batch = self.batch(values);
        produce(client, 9, topic, batch).await.error_code
    }

    pub async fn end(&self, client: &mut Client, commit: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(text(self.id).into())
            .with_producer_id(self.producer.into())
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        client.call(3, &request).await.error_code
    }

    /// Writes these in a transaction of its own.
    async fn whole(&mut self, client: &mut Client, topic: &str, values: &[&str], commit: bool) {
        assert_eq!(self.add(client, topic, &[0]).await, [0]);
        assert_eq!(self.write(client, topic, values).await, 0);
        assert_eq!(self.end(client, commit).await, 0);
    }
}

async fn fetch(client: &mut Client, topic: &str, offset: i64, isolation: i8) -> PartitionData {
    let part = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![part]);
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    client.call(12, &request).await.responses[0].partitions[0].clone()
}

fn batches(data: &PartitionData) -> Vec<BatchHeader> {
    Batches::new(data.records.clone().unwrap_or_default()).map(|batch| batch.unwrap().0).collect()
}

pub async fn end_offset(client: &mut Client, topic: &str, isolation: i8) -> i64 {
    let part = ListOffsetsPartition::default().with_partition_index(0).with_current_leader_epoch(-1).with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![part]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    client.call(5, &request).await.topics[0].partitions[0].offset
}

/// What a native reader finds up to the end.
pub async fn native(running: &Running, topic: &str) -> Vec<String> {
    let client = Native::connect(&running.server.addresses()[0].to_string()).await.unwrap();
    let consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let records: Vec<_> = tokio::time::timeout(PATIENCE, consumer.collect()).await.expect("reading hangs");
    let value = |record: Result<tidelog::client::ConsumedRecord, _>| {
        String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()
    };
    records.into_iter().map(value).collect()
}

/// Trap 12: where the committed part ends, and the aborted transactions of what was fetched, sorted, and for nobody else.
#[tokio::test]
async fn what_is_committed_counts_and_what_is_aborted_does_not() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut one = Writer::new(&mut client, "one").await;
    let mut other = Writer::new(&mut client, "other").await;
    one.whole(&mut client, "t", &["a", "b"], true).await;
    one.whole(&mut client, "t", &["c"], false).await;
    // Two at a time, of which the one that began first ends last.
    assert_eq!(one.add(&mut client, "t", &[0]).await, [0]);
    assert_eq!(other.add(&mut client, "t", &[0]).await, [0]);
    assert_eq!(one.write(&mut client, "t", &["d"]).await, 0);
    assert_eq!(other.write(&mut client, "t", &["e"]).await, 0);
    assert_eq!(other.end(&mut client, false).await, 0);
    let open_from = 5;
    assert_eq!(end_offset(&mut client, "t", 0).await, 8);
    assert_eq!(end_offset(&mut client, "t", 1).await, open_from);
    assert_eq!(native(&running, "t").await, ["a", "b"]);
    let data = fetch(&mut client, "t", 0, 1).await;
    assert_eq!((data.high_watermark, data.last_stable_offset), (8, open_from));
    assert_eq!(batches(&data).last().unwrap().base_offset, 4, "nothing behind what is open");
    let data = fetch(&mut client, "t", 6, 1).await;
    assert_eq!((data.error_code, data.records.unwrap_or_default().len()), (0, 0));
    assert_eq!(one.end(&mut client, false).await, 0);
    one.whole(&mut client, "t", &["f"], true).await;

    let data = fetch(&mut client, "t", 0, 1).await;
    assert_eq!((data.high_watermark, data.last_stable_offset), (11, 11));
    let aborted: Vec<_> = data.aborted_transactions.clone().unwrap();
    let aborted: Vec<_> = aborted.iter().map(|aborted| (aborted.producer_id.0, aborted.first_offset)).collect();
    assert_eq!(aborted, [(one.producer, 3), (one.producer, 5), (other.producer, 6)], "sorted by where they begin");
    let controls: Vec<_> = batches(&data).iter().filter(|batch| batch.is_control()).map(|b| b.base_offset).collect();
    assert_eq!(controls, [2, 4, 7, 8, 10]);
    let from_the_middle = fetch(&mut client, "t", 8, 1).await.aborted_transactions.unwrap();
    assert_eq!(from_the_middle.iter().map(|aborted| aborted.first_offset).collect::<Vec<_>>(), [5]);
    assert!(fetch(&mut client, "t", 0, 0).await.aborted_transactions.is_none(), "not asked for");
    assert_eq!(native(&running, "t").await, ["a", "b", "f"]);
    running.stop().await;
}

/// Who names one dead letter means that one, and not what lies behind a marker or behind what was aborted.
#[tokio::test]
async fn no_other_dead_letter_is_taken_for_one_that_is_not_there() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "dead-letter.erp", 1).await;
    let mut one = Writer::new(&mut client, "one").await;
    one.whole(&mut client, "dead-letter.erp", &["a"], true).await;
    one.whole(&mut client, "dead-letter.erp", &["never"], false).await;
    one.whole(&mut client, "dead-letter.erp", &["b"], true).await;
    let server = running.server.addresses()[0].to_string();
    let admin = Native::connect(&server).await.unwrap().admin();
    let discard = |offset| SettleDeadLetters {
        topic: "dead-letter.erp".into(),
        way: DeadLetterWay::Discard,
        at: Some(DeadLetterAt { partition: 0, offset }),
        value: None,
        filter: None,
        max: 1,
        dry_run: false,
        from: None,
    };
    for nothing in [1, 2, 3, 5, 6] {
        let refused = admin.settle_dead_letters(&discard(nothing)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{nothing}: {refused}");
    }
    assert_eq!(admin.dead_letters().await.unwrap()[0].redriven, 0, "nothing was dealt with");
    let done = admin.settle_dead_letters(&discard(4)).await.unwrap();
    assert_eq!(done.records, [DeadLetterAt { partition: 0, offset: 4 }]);
    running.stop().await;
}

/// Trap 12: nor does the end of the committed part go back.
#[tokio::test]
async fn all_of_it_holds_after_a_restart_also_in_the_middle_of_a_transaction() {
    let mut running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut one = Writer::new(&mut client, "one").await;
    one.whole(&mut client, "t", &["a"], false).await;
    assert_eq!(one.add(&mut client, "t", &[0]).await, [0]);
    assert_eq!(one.write(&mut client, "t", &["b"]).await, 0);
    let dir = running.stop().await;
    running = Running::start_in(dir, |_| {}).await;
    client = running.client().await;
    assert_eq!(end_offset(&mut client, "t", 1).await, 2);
    assert_eq!(native(&running, "t").await, [""; 0]);
    assert_eq!(one.write(&mut client, "t", &["c"]).await, 0, "it goes on where it was");
    assert_eq!(one.end(&mut client, true).await, 0);
    assert_eq!(one.end(&mut client, true).await, 0, "said again, if the answer was lost");
    assert_eq!(native(&running, "t").await, ["b", "c"]);
    let dir = running.stop().await;
    running = Running::start_in(dir, |_| {}).await;
    client = running.client().await;
    let data = fetch(&mut client, "t", 0, 1).await;
    assert_eq!(data.aborted_transactions.unwrap()[0].first_offset, 0);
    assert_eq!(native(&running, "t").await, ["b", "c"]);
    running.stop().await;
}

#[tokio::test]
async fn a_producer_that_was_superseded_is_told_so_and_its_transaction_aborted() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut old = Writer::new(&mut client, "x").await;
    assert_eq!(old.add(&mut client, "t", &[0]).await, [0]);
    assert_eq!(old.write(&mut client, "t", &["old"]).await, 0);
    let mut new = Writer::new(&mut client, "x").await;
    assert_eq!(new.producer, old.producer);
    assert!(new.epoch > old.epoch);
    assert_eq!(old.write(&mut client, "t", &["late"]).await, 47);
    assert_eq!(old.add(&mut client, "t", &[0]).await, [90]);
    assert_eq!(old.end(&mut client, true).await, 90);
    assert_eq!(init(&mut client, "x", (old.producer, old.epoch)).await.err(), Some(90), "it was not its own epoch");
    new.whole(&mut client, "t", &["new"], true).await;
    assert_eq!(native(&running, "t").await, ["new"]);
    // The same producer anew: it says with what it had the id, also twice if the answer was lost.
    let again = init(&mut client, "x", (new.producer, new.epoch)).await.unwrap();
    assert_eq!(again.epoch, new.epoch + 1);
    assert_eq!(init(&mut client, "x", (new.producer, new.epoch)).await.unwrap().epoch, again.epoch);
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_part_of_a_transaction_is_refused() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let mut one = Writer::new(&mut client, "one").await;
    assert_eq!(one.write(&mut client, "t", &["a"]).await, 48, "it was not begun");
    one.sequence = 0;
    assert_eq!(one.add(&mut client, "t", &[1]).await, [0]);
    assert_eq!(one.write(&mut client, "t", &["a"]).await, 48, "another partition");
    one.sequence = 0;
    assert_eq!(one.add(&mut client, "t", &[0, 7]).await, [55, 3], "all or none");
    assert_eq!(one.add(&mut client, "t", &[0]).await, [0]);
    assert_eq!(one.write(&mut client, "t", &["a"]).await, 0);
    let plain = BatchOptions {
        producer_id: one.producer,
        producer_epoch: one.epoch,
        base_sequence: one.sequence,
        ..BatchOptions::default()
    };
    assert_eq!(produce(&mut client, 9, "t", batch_of(plain, &["x"])).await.error_code, 48, "outside, while it is open");
    let stranger = Writer { id: "one", producer: one.producer + 500, epoch: 0, sequence: 0 };
    assert_eq!(stranger.end(&mut client, true).await, 49);
    let nobody = Writer { id: "nobody", producer: one.producer, epoch: 0, sequence: 0 };
    assert_eq!(nobody.add(&mut client, "t", &[0]).await, [49]);
    assert_eq!(one.end(&mut client, true).await, 0);
    assert_eq!(one.end(&mut client, false).await, 48, "it has ended otherwise");
    for timeout in [0, -1, 3_600_001] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(text("one").into()))
            .with_transaction_timeout_ms(timeout)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        assert_eq!(client.call(4, &request).await.error_code, 50);
    }
    let mut marker = BytesMut::from(&one.batch(&["m"])[..]);
    marker[22] |= 0x20;
    let crc = crc32c::crc32c(&marker[21..]);
    marker[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(produce(&mut client, 9, "t", marker.freeze()).await.error_code, 87, "markers are the server's own");
    running.stop().await;
}

async fn position(client: &mut Client, stable: bool) -> (i64, i16) {
    let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default().with_group_id(text("g").into()).with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(stable);
    let answer = client.call(8, &request).await;
    let partition = &answer.groups[0].topics[0].partitions[0];
    (partition.committed_offset, partition.error_code)
}

#[tokio::test]
async fn positions_hold_when_their_transaction_is_committed_and_not_before() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut one = Writer::new(&mut client, "one").await;
    one.whole(&mut client, "t", &["a", "b", "c", "d"], true).await;
    let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text("one")]);
    assert_eq!(client.call(4, &find).await.coordinators[0].error_code, 0);
    for (offset, commit) in [(2, true), (4, false), (3, true)] {
        let before = position(&mut client, true).await.0;
        let add = AddOffsetsToTxnRequest::default()
            .with_transactional_id(text("one").into())
            .with_producer_id(one.producer.into())
            .with_producer_epoch(one.epoch)
            .with_group_id(text("g").into());
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("m")));
        let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let commit_offsets = TxnOffsetCommitRequest::default()
            .with_transactional_id(text("one").into())
            .with_group_id(text("g").into())
            .with_producer_id(one.producer.into())
            .with_producer_epoch(one.epoch)
            .with_generation_id(-1)
            .with_topics(vec![topic]);
        assert_eq!(client.call(3, &commit_offsets).await.topics[0].partitions[0].error_code, 48, "no part of it yet");
        assert_eq!(client.call(3, &add).await.error_code, 0);
        assert_eq!(client.call(3, &commit_offsets).await.topics[0].partitions[0].error_code, 0);
        assert_eq!(position(&mut client, false).await, (before, 0));
        assert_eq!(position(&mut client, true).await, (-1, 88), "it may change at any moment");
        assert_eq!(one.end(&mut client, commit).await, 0);
        let holds = if commit { offset } else { before };
        assert_eq!(position(&mut client, true).await, (holds, 0));
    }
    running.stop().await;
}

/// Trap 5: after its time is over a producer is not refused for ever.
#[tokio::test]
async fn a_transaction_that_is_open_for_too_long_is_aborted() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(text("slow").into()))
        .with_transaction_timeout_ms(300)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let answer = client.call(4, &request).await;
    let mut slow = Writer { id: "slow", producer: answer.producer_id.0, epoch: answer.producer_epoch, sequence: 0 };
    // It may be over before anything was written, if this test is held up.
    let begun = slow.add(&mut client, "t", &[0]).await == [0] && slow.write(&mut client, "t", &["a"]).await == 0;
    let look = DescribeTransactionsRequest::default().with_transactional_ids(vec![text("slow").into()]);
    let began = std::time::Instant::now();
    loop {
        let state = client.call(0, &look).await.transaction_states[0].transaction_state.to_string();
        if state == "CompleteAbort" {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(slow.end(&mut client, true).await, 90);
    assert_eq!(native(&running, "t").await, [""; 0]);
    if begun {
        assert_eq!(end_offset(&mut client, "t", 1).await, 2);
    }
    // Its producer may go on all the same, with a new epoch.
    let mut again = init(&mut client, "slow", (slow.producer, slow.epoch)).await.unwrap();
    again.whole(&mut client, "t", &["b"], true).await;
    assert_eq!(native(&running, "t").await, ["b"]);
    running.stop().await;
}

#[tokio::test]
async fn transactions_and_their_producers_can_be_seen() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut one = Writer::new(&mut client, "one").await;
    let other = Writer::new(&mut client, "other").await;
    assert_eq!(one.add(&mut client, "t", &[0]).await, [0]);
    assert_eq!(one.write(&mut client, "t", &["a", "b"]).await, 0);
    let ids = ["one", "other", "nobody"].map(|id| text(id).into()).to_vec();
    let look = client.call(0, &DescribeTransactionsRequest::default().with_transactional_ids(ids)).await;
    let states: Vec<_> = look.transaction_states.iter().map(|s| (s.error_code, s.transaction_state.as_str())).collect();
    assert_eq!(states, [(0, "Ongoing"), (0, "Empty"), (105, "")]);
    assert_eq!(look.transaction_states[0].producer_id.0, one.producer);
    assert_eq!(look.transaction_states[0].topics[0].partitions, [0]);
    let listed = |answer: kafka_protocol::messages::ListTransactionsResponse| {
        answer.transaction_states.iter().map(|state| state.transactional_id.to_string()).collect::<Vec<_>>()
    };
    let all = ListTransactionsRequest::default().with_duration_filter(-1);
    assert_eq!(listed(client.call(1, &all).await), ["one", "other"]);
    let ongoing = all.clone().with_state_filters(vec![text("Ongoing"), text("Odd")]);
    let answer = client.call(1, &ongoing).await;
    assert_eq!(answer.unknown_state_filters, [text("Odd")]);
    assert_eq!(listed(answer), ["one"]);
    let of = all.with_producer_id_filters(vec![other.producer.into()]);
    assert_eq!(listed(client.call(1, &of).await), ["other"]);
    let topics = vec![TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0, 1])];
    let producers = client.call(0, &DescribeProducersRequest::default().with_topics(topics)).await;
    let partitions = &producers.topics[0].partitions;
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id.0, producer.last_sequence), (one.producer, 1));
    assert_eq!(producer.current_txn_start_offset, 0);
    assert_eq!(partitions[1].error_code, 3);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_resumed_behind_an_open_transaction_copies_nothing_twice() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "from", 1).await;
    create_topic(&mut client, "into", 1).await;
    let address = running.server.addresses()[0].to_string();
    let reader = Native::connect(address.as_str()).await.unwrap();
    let producer = reader.producer().build().await.unwrap();
    for number in 100..300 {
        producer.send(tidelog::client::Message::to("from").value(number.to_string())).await.unwrap();
    }
    producer.flush().await.unwrap();
    let mut other = Writer::new(&mut client, "x").await;
    assert_eq!(other.add(&mut client, "into", &[0]).await, [0]);
    assert_eq!(other.write(&mut client, "into", &["other"]).await, 0);
    let replay = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidelog"));
        command.args(["replay", "from", "--into", "into", "--server", &address]).args(args);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut first = replay(&["--from", "beginning", "--name", "again", "--rate", "50/s"]);
    let copied = async {
        while reader.admin().describe_topic("into").await.unwrap().partitions[0].log_end < 30 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, copied).await.unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = replay(&["--resume", "again"]);
    // By then it would have looked for what is there, and not seen it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(other.end(&mut client, false).await, 0);
    assert!(tokio::task::spawn_blocking(move || second.wait().unwrap().success()).await.unwrap());
    let all: Vec<String> = (100..300).map(|number: u32| number.to_string()).collect();
    assert_eq!(native(&running, "into").await, all);
    running.stop().await;
}
