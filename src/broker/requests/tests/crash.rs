//! A callback that was written before a crash and is deleted after it is not written twice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{RequestId, SystemClock, TopicName};
use crate::broker::broker::lock;
use crate::broker::*;
use crate::catalog::{Callback, Event, RequestEntry, Writing};
use crate::disk::RealDisk;

use super::super::machine::Word;

fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap()
}

/// Where the topic of callbacks begins and ends, if it is there.
fn ends(broker: &Broker) -> Option<(u64, u64)> {
    let topic = broker.topic("done").ok()?;
    let log = topic.partition(0).ok()?.log().ok()?;
    Some(log.with(|log| (log.start_offset(), log.written_end())))
}

/// The request, once the callback is written, and it is kept that it is.
async fn done(broker: &Arc<Broker>, id: &RequestId) -> RequestEntry {
    loop {
        let written = ends(broker).is_some_and(|(_, end)| end > 0);
        let entry = lock(&broker.requests.machine).entry(id).cloned().unwrap();
        if written && entry.writing.is_none() {
            broker.queues.keeper.kept().await.unwrap();
            return entry;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_deleted_after_a_crash_is_not_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let topic = |name: &str| TopicName::new(name).unwrap();
    let id = RequestId::new("r-1").unwrap();
    let request = DurableRequest {
        id: id.clone(),
        steps: vec![topic("ask")],
        timeout: Duration::from_secs(600),
        callback: Some(Callback::Topic(topic("done"))),
        requester: "test".to_owned(),
        content: Content::default(),
    };
    broker.ask_durable(request).await.unwrap();
    broker
        .say(&id, 0, &Word::Reply, &crate::record::Headers::new(), Some(bytes::Bytes::from_static(b"yes")))
        .await
        .unwrap();
    let mut entry = done(&broker, &id).await;
    let source = entry.outcome.as_ref().unwrap().at;
    broker.shutdown().await;
    drop(broker);
    // As if it had been killed before it was kept that the callback was written.
    let broker = open(dir.path());
    entry.writing = Some(Writing { to: Some((topic("done"), 0)), from: 0, source });
    lock(&broker.catalog).commit(Event::RequestSet { id: id.clone(), entry: Some(entry) }, 5).unwrap();
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    // It waits until it is kept that it was written.
    while broker.delete_records("done", 0, None, SETTLE).await.is_err() {}
    done(&broker, &id).await;
    assert_eq!(ends(&broker), Some((1, 1)));
    broker.shutdown().await;
}
