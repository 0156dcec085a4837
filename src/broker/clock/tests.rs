use super::*;
use crate::base::{ManualClock, TopicName};
use crate::broker::{AckLevel, BrokerConfig, NewTopic};
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions};

const T: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: u32 = 3_600_000;

fn open(dir: &Path, clock: &Arc<ManualClock>) -> Arc<Broker> {
    // Only looks at what the tests let it see: nothing is retained by itself.
    let config =
        BrokerConfig { data_dir: dir.to_owned(), retention_check: Millis(DAY_MS as u64), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), clock.clone()).unwrap()
}

/// A topic that keeps records for a week, with one of now.
async fn filled(broker: &Arc<Broker>, at: i64) {
    let name = TopicName::new("t").unwrap();
    let settings = vec![("retention_time".to_owned(), "7d".to_owned())];
    broker.create_topic(NewTopic { name, partitions: None, settings, if_not_exists: false }).await.unwrap();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(at, None, Some(b"v"), &[]);
    broker.produce("t", 0, builder.build(), AckLevel::Durable).await.unwrap();
}

/// What retention leaves.
fn left(broker: &Broker) -> u64 {
    broker.retain_now();
    let topic = broker.topic("t").unwrap();
    topic.partition(0).unwrap().log().unwrap().with(|log| log.written_end() - log.start_offset())
}

#[test]
fn the_file_is_read_as_it_was_written_and_damage_is_known() {
    let seen = LastSeen { time_ms: T, wall_ms: -5, doubted_for_ms: 7 };
    let content = encode(&seen);
    assert_eq!((decode(&content), content.len()), (Ok(seen), 36));
    for at in 0..content.len() {
        assert!(decode(&content[..at]).is_err());
        let mut wrong = content.clone();
        wrong[at] ^= 1;
        assert!(decode(&wrong).is_err(), "byte {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_the_clock_far_ahead_deletes_nothing_until_it_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(T));
    let broker = open(dir.path(), &clock);
    filled(&broker, T).await;
    assert_eq!(left(&broker), 1);
    broker.shutdown().await;
    drop(broker);
    clock.jump(8 * DAY_MS);
    for _ in 0..2 {
        let broker = open(dir.path(), &clock);
        assert!(broker.clock_look().doubt.is_some_and(|doubt| doubt.at_start && doubt.ahead_ms >= 8 * DAY_MS));
        assert_eq!(left(&broker), 1);
        broker.shutdown().await;
    }
    let broker = open(dir.path(), &clock);
    broker.confirm_clock().await.unwrap();
    assert_eq!((broker.clock_look().doubt, left(&broker)), (None, 0));
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path(), &clock);
    assert_eq!(broker.clock_look().doubt, None, "what was confirmed stays so");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_down_for_two_weeks_deletes_after_the_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(T));
    let broker = open(dir.path(), &clock);
    filled(&broker, T).await;
    broker.shutdown().await;
    drop(broker);
    clock.jump(14 * DAY_MS);
    let broker = open(dir.path(), &clock);
    assert_eq!((broker.clock.now_ms(), left(&broker)), (T + 14 * DAY_MS, 1));
    clock.advance(HOUR_MS);
    broker.clock.look();
    assert_eq!(left(&broker), 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_knows_no_time_goes_by_the_newest_event() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(T));
    for content in [None, Some(&b"TLCK damaged"[..])] {
        let broker = open(dir.path(), &clock);
        if content.is_none() {
            filled(&broker, T).await;
        }
        broker.shutdown().await;
        let path = broker.clock_file();
        drop(broker);
        match content {
            None => RealDisk.remove_file(&path).unwrap(),
            Some(content) => disk::replace_file(&RealDisk, &path, content).unwrap(),
        }
        let ahead = Arc::new(ManualClock::at(T + 8 * DAY_MS));
        let broker = open(dir.path(), &ahead);
        assert_eq!((broker.clock.is_doubted(), left(&broker)), (true, 1));
        broker.shutdown().await;
        drop(broker);
        // It was kept without a belief in that clock.
        let broker = open(dir.path(), &clock);
        assert_eq!(broker.clock_look().doubt, None);
        broker.shutdown().await;
    }
}
