//! What an operator says of a group is durable when it is answered: pause, skip, and what is done beside a reset.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::groups::{join, name, next, produce, say};
use crate::base::{SystemClock, TopicName};
use crate::broker::*;
use crate::disk::{SimDisk, SimOptions};

fn start(sim: &SimDisk, dir: &Path) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(sim.clone()), Arc::new(SystemClock::new()))
}

fn at(offset: u64) -> RecordAt {
    RecordAt { topic: TopicName::new("orders").unwrap(), partition: 0, offset }
}

/// The power goes at any of many operations while a group is paused, a record is skipped, and the group goes on. After it the group is
/// what the last answer said, or what the question that had no answer would have made it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_holds_after_a_power_cut_and_nothing_is_half_done() {
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimDisk::new(SimOptions { seed, capacity: None });
        let broker = start(&sim, dir.path()).unwrap();
        produce(&broker, "orders", 0..6).await;
        drop(broker.join_queue(join("orders", 1)).await.unwrap());
        broker.pause_group(&name(), false).await.unwrap();
        sim.cut_power_at(seed % 20 + 1);
        let (mut paused, mut skipped) = (vec![false], 0);
        for (step, offset) in (0..3).enumerate() {
            let pause = step % 2 == 0;
            match broker.pause_group(&name(), pause).await {
                Ok(answer) => {
                    assert_eq!((answer.since_ms.is_some(), answer.changed), (pause, true));
                    paused = vec![pause];
                }
                Err(_) => {
                    paused.push(pause);
                    break;
                }
            }
            match broker.skip_record(&name(), &at(offset)).await {
                Ok(_) => skipped = offset + 1,
                Err(_) => break,
            }
        }
        broker.shutdown().await;
        drop(broker);
        let sim = sim.reboot();
        let broker = start(&sim, dir.path()).unwrap();
        let of = PageOf { prefix: String::new(), after: String::new(), limit: 10 };
        let is_paused = !broker.paused_groups(&of).lines.is_empty();
        assert!(paused.contains(&is_paused), "seed {seed}: {is_paused}, {paused:?}");
        let floor = broker.describe_group(&name()).await.unwrap().partitions[0].floor;
        assert!((skipped..=skipped + 1).contains(&floor), "seed {seed}: {floor}, {skipped}");
        broker.shutdown().await;
    }
}

/// The power goes while dead letters go back to their group: a dead letter went back if, and only if, its record is not done.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_gone_back_to_its_group_or_its_record_is_done_wherever_the_power_goes() {
    let (mut back, mut left) = (0, 0);
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimDisk::new(SimOptions { seed, capacity: None });
        let broker = start(&sim, dir.path()).unwrap();
        produce(&broker, "orders", 0..6).await;
        let member = broker.join_queue(join("orders", 100)).await.unwrap();
        while broker.dead_letter_topics().first().is_none_or(|topic| topic.records < 3)
            || broker.describe_group(&name()).await.unwrap().partitions[0].lag > 0
        {
            let Ok((handed, records)) = tokio::time::timeout(Duration::from_millis(20), next(&member)).await else {
                continue;
            };
            let verdict = |offset| match offset % 2 {
                0 => Verdict::Nack { delay_ms: Some(0), reason: None },
                _ => Verdict::Ack,
            };
            let says =
                records.iter().map(|record| say(&handed, record.offset, record.offset + 1, verdict(record.offset)));
            member.settle(&says.collect::<Vec<_>>(), true).await.unwrap();
        }
        drop(member);
        sim.cut_power_at(seed % 12 + 1);
        let mut asked = 0;
        for offset in 0..3 {
            let redrive = Redrive {
                topic: TopicName::new("dead-letter.erp").unwrap(),
                filter: None,
                max: 1,
                dry_run: false,
                from: Some((0, offset)),
                way: DeadLetterWay::Group,
                only: true,
                value: None,
            };
            match broker.redrive(&redrive).await {
                Ok(answer) if answer.stranded == 0 => assert_eq!(answer.records, [(0, offset)]),
                // The disk is gone.
                _ => break,
            }
            asked += 1;
        }
        broker.shutdown().await;
        drop(broker);
        let sim = sim.reboot();
        let broker = start(&sim, dir.path()).unwrap();
        let gone_back = broker.dead_letter_topics()[0].redriven;
        assert!((asked..=asked + 1).contains(&gone_back), "seed {seed}: {gone_back}, {asked}");
        let lag = broker.describe_group(&name()).await.unwrap().partitions[0].lag;
        // Those between them are done, and stay so.
        let member = broker.join_queue(join("orders", 100)).await.unwrap();
        let mut came = Vec::new();
        while (came.len() as u64) < gone_back {
            let (_, records) = tokio::time::timeout(Duration::from_secs(30), next(&member)).await.unwrap();
            came.extend(records.iter().map(|record| record.offset));
        }
        let wanted: Vec<u64> = (0..gone_back).map(|nth| nth * 2).collect();
        assert_eq!(came, wanted, "seed {seed}, lag {lag}");
        assert_eq!(lag, gone_back, "seed {seed}");
        (back, left) = (back + gone_back, left + 3 - gone_back);
        drop(member);
        broker.shutdown().await;
    }
    assert!(back > 20 && left > 20, "{back} went back, {left} did not");
}

/// An ack in a partition that is not reset, said just before, goes along with the reset.
#[tokio::test(flavor = "multi_thread")]
async fn acks_in_partitions_that_stay_are_kept_with_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let broker = super::groups::open(dir.path());
    produce(&broker, "orders", 0..10).await;
    produce(&broker, "crm", 0..10).await;
    let mut wish = join("orders", 100);
    wish.topics.push(crate::base::TopicPattern::new("crm").unwrap());
    let member = broker.join_queue(wish).await.unwrap();
    for _ in 0..2 {
        let (handed, _) = next(&member).await;
        // The keeper may not have come to it when the group is reset.
        member.settle(&[say(&handed, 0, 10, Verdict::Ack)], false).await.unwrap();
    }
    let reset = ResetQueue {
        group: name(),
        topics: vec![],
        partitions: vec![(TopicName::new("crm").unwrap(), 0)],
        to: ResetTo::Offset(4),
        dry_run: false,
        force: true,
    };
    assert_eq!(broker.reset_queue(reset).await.unwrap().len(), 1);
    // What is said to a group that is gone is not called kept.
    let late =
        Settlement { topic: TopicName::new("orders").unwrap(), partition: 0, from: 0, to: 1, verdict: Verdict::Ack };
    assert!(member.settle(&[late], true).await.unwrap_err().to_string().contains("was reset"));
    let described = broker.describe_group(&name()).await.unwrap();
    let floors: Vec<_> = described.partitions.iter().map(|at| (at.topic.as_str(), at.floor)).collect();
    assert_eq!(floors, [("crm", 4), ("orders", 10)]);
    broker.shutdown().await;
}
