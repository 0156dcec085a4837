//! One portion of replies that decides a request twice has each effect once.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{RequestId, SystemClock, TopicName};
use crate::broker::broker::lock;
use crate::broker::*;
use crate::catalog::Callback;
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions, Batches, Record, read_records};

use super::super::machine::Word;
use super::super::records;

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

async fn read(broker: &Arc<Broker>, topic: &str) -> Vec<Record> {
    let request = FetchRequest {
        topic,
        partition: 0,
        offset: 0,
        max_bytes: 100 << 20,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    let Ok(fetched) = broker.fetch(request).await else { return Vec::new() };
    let records =
        |batch: Result<(_, bytes::Bytes), _>| read_records(&batch.unwrap().1, 1 << 20).unwrap().map(Result::unwrap);
    Batches::new(fetched.bytes).flat_map(records).collect()
}

/// Asks each of these requests in two steps, and puts all words about all of them into one batch: the watcher reads them at once.
async fn decided_at_once(ids: &[RequestId], words: &[(u32, Word)]) -> (Vec<Record>, Vec<Record>, Vec<&'static str>) {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { data_dir: dir.path().to_owned(), default_partitions: 1, ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    for id in ids {
        let request = DurableRequest {
            id: id.clone(),
            steps: vec![name("first"), name("second")],
            timeout: Duration::from_secs(600),
            callback: Some(Callback::Topic(name("done"))),
            requester: "test".to_owned(),
            content: Content::default(),
        };
        broker.ask_durable(request).await.unwrap();
    }
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for (number, (step, word)) in words.iter().flat_map(|word| ids.iter().map(move |_| word)).enumerate() {
        let id = &ids[number % ids.len()];
        let mut record = records::reply(id, *step, word, &crate::record::Headers::new(), Some("yes".into()), 5);
        record.offset = number as u64;
        batch.push_record(&record);
    }
    broker.produce(REPLIES, 0, batch.build(), AckLevel::Durable).await.unwrap();
    let mut states = Vec::new();
    for id in ids {
        let entry = loop {
            let (entry, _) = broker.await_request(id, Duration::from_secs(60)).await.unwrap();
            if entry.outcome.is_some() && entry.writing.is_none() {
                break entry;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        states.push(state_name(&entry));
    }
    assert!(lock(&broker.requests.machine).writings().is_empty());
    let (steps, callbacks) = (read(&broker, "second").await, read(&broker, "done").await);
    broker.shutdown().await;
    (steps, callbacks, states)
}

fn ids(count: usize) -> Vec<RequestId> {
    (0..count).map(|number| RequestId::new(&format!("r-{number}")).unwrap()).collect()
}

fn ids_of(records: &[Record]) -> Vec<String> {
    let mut ids: Vec<_> = records.iter().map(|record| records::id_of(record).unwrap().to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_cancelled_as_its_first_reply_is_read_has_one_callback() {
    let asked = ids(5);
    let words = [(0, Word::Reply), (0, Word::Cancelled)];
    let (steps, callbacks, states) = decided_at_once(&asked, &words).await;
    assert_eq!(states, ["cancelled"; 5]);
    assert_eq!(ids_of(&callbacks), asked.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(steps, [], "the second step is not asked any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_portion_says_of_a_request_the_first_outcome_has_one_callback() {
    let late = Word::Error { code: "late".to_owned(), text: "too late".to_owned() };
    let words =
        [(0, Word::Reply), (0, Word::Reply), (1, Word::Reply), (1, late), (0, Word::TimedOut), (0, Word::Cancelled)];
    let asked = ids(5);
    let (steps, callbacks, states) = decided_at_once(&asked, &words).await;
    assert_eq!(states, ["replied"; 5]);
    assert_eq!(ids_of(&callbacks), asked.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(steps, [], "the second step was answered before it was asked");
}
