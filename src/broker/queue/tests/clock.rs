//! What a wall clock that leaps does to a queue group: nothing, until it is believed.

use std::sync::Arc;

use super::groups::{join, next, number, produce, produce_with};
use crate::base::{LastSeen, ManualClock};
use crate::broker::*;
use crate::disk::RealDisk;

const T: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn open(dir: &std::path::Path, clock: &Arc<ManualClock>) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), clock.clone()).unwrap()
}

async fn numbers(member: &QueueMember, count: usize) -> Vec<u64> {
    let mut got = Vec::new();
    while got.len() < count {
        got.extend(next(member).await.1.iter().map(number));
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leap_ends_no_lease_no_delay_and_no_record_until_it_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(T));
    let broker = open(dir.path(), &clock);
    let tomorrow = (T + DAY_MS).to_string();
    produce(&broker, "orders", [0, 1]).await;
    produce_with(&broker, "orders", [10], &[(DELIVER_AT, Some(tomorrow.as_bytes()))]).await;
    produce_with(&broker, "orders", [20], &[(EXPIRES_AT, Some(tomorrow.as_bytes()))]).await;
    let member = broker.join_queue(join("orders", 100)).await.unwrap();
    assert_eq!(numbers(&member, 3).await, [0, 1, 20]);
    clock.jump(2 * DAY_MS);
    broker.clock().look();
    produce_with(&broker, "orders", [30], &[(EXPIRES_AT, Some(tomorrow.as_bytes()))]).await;
    assert_eq!(numbers(&member, 1).await, [30], "what is good for a day is delivered, and what is due in a day is not");
    assert_eq!(broker.metrics().leases_expired.get(), 0);
    broker.confirm_clock().await.unwrap();
    assert_eq!(numbers(&member, 1).await, [10], "believed, it is two days later");
    assert_eq!(broker.metrics().leases_expired.get(), 0, "but the leases have just begun");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_by_a_doubted_clock_is_not_delivered_and_no_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(T));
    let broker = open(dir.path(), &clock);
    produce(&broker, "orders", [2]).await;
    let tomorrow = (T + DAY_MS).to_string();
    produce_with(&broker, "orders", [0], &[(EXPIRES_AT, Some(tomorrow.as_bytes()))]).await;
    produce_with(&broker, "orders", [1], &[(DELIVER_AT, Some(tomorrow.as_bytes()))]).await;
    broker.shutdown().await;
    drop(broker);
    // Nobody knows whether the server was down or the clock is wrong.
    clock.jump(2 * DAY_MS);
    let broker = open(dir.path(), &clock);
    let LastSeen { time_ms, .. } = broker.clock().seen();
    assert!(time_ms < T + DAY_MS && broker.clock().is_doubted());
    let member = broker.join_queue(join("orders", 100)).await.unwrap();
    assert_eq!(numbers(&member, 2).await, [2, 1]);
    let lag = async || broker.describe_group(&super::groups::name()).await.unwrap().partitions[0].lag;
    assert_eq!(lag().await, 3);
    broker.confirm_clock().await.unwrap();
    clock.advance(10_000);
    broker.queues.time_stepped();
    let done = async {
        while lag().await == 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), done).await.expect("it is not done with");
    broker.shutdown().await;
}
