//! Kills and power cuts on the simulated disk at any operation, and right after each start changes of what routes depend on: partitions,
//! rules, pauses, resets, topics that come and go. Each record is routed exactly once all the same. `TIDELOG_SEED=n` runs one seed,
//! `TIDELOG_ROUNDS=n` that many rounds for each (8 if not set).

use std::collections::BTreeMap;

use super::*;
use crate::disk::{SimDisk, SimOptions};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
/// A change that waits for routes on a disk without power is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// `turn` goes to `one` or `two`; `both` writes each record twice; `apart` computes topics.
fn rules(destination: &str) -> String {
    format!(
        r#"
        [[route]]
        name = "turn"
        from = "in"
        start = "beginning"
        otherwise = "{destination}"
        [[route]]
        name = "apart"
        from = "in"
        start = "beginning"
        [[route.to]]
        topic = '"made." + string(value % 3)'
        [[route]]
        name = "both"
        from = "in"
        start = "beginning"
        match = "all"
        [[route.to]]
        name = "left"
        topic = "left"
        [[route.to]]
        name = "right"
        topic = "right"
        "#
    )
}

/// How often each value is in these topics.
async fn counted(broker: &Arc<Broker>, topics: &[&str]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for topic in topics {
        for value in starts::all(broker, topic).await {
            *counts.entry(value).or_default() += 1;
        }
    }
    counts
}

/// One change; whether it works says nothing, as the power may be gone.
async fn change(broker: &Arc<Broker>, random: &mut fastrand::Rng, resets: &mut bool) {
    let grown = ["one", "two", "left", "right", "made.0", "made.1"];
    match random.u32(..9) {
        0..=2 => {
            let topic = name(random.choice(grown).unwrap());
            let Ok(open) = broker.topic_of(&topic) else { return };
            let _ = broker.alter_topic(&topic, Some((open.entry.partitions + 1).min(12)), &[], &[]).await;
        }
        3 | 4 => {
            let destination = random.choice(["one", "two"]).unwrap();
            let _ = broker.apply_routes(ApplyOptions { text: rules(destination), ..ApplyOptions::default() }).await;
        }
        5 | 6 => {
            let route = name(random.choice(["turn", "apart", "both"]).unwrap());
            let _ = broker.pause_route(&route, random.bool()).await;
        }
        7 => {
            *resets = true;
            let _ = broker.reset_route(&name("both"), OffsetAt::End, false).await;
        }
        _ => {
            let topic = name("passing");
            if broker.delete_topic(&topic).await.is_err() {
                let new = NewTopic { name: topic, partitions: None, settings: Vec::new(), if_not_exists: true };
                let _ = broker.create_topic(new).await;
            }
        }
    }
}

fn start(sim: &SimDisk, dir: &Path) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(sim.clone()), Arc::new(SystemClock::new()))?;
    broker.start_routes();
    Ok(broker)
}

async fn run(seed: u64) {
    println!("TIDELOG_SEED={seed}");
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8);
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
    let broker = start(&sim, dir.path()).unwrap();
    for topic in ["in", "one", "two", "left", "right"] {
        let new = NewTopic { name: name(topic), partitions: Some(2), settings: Vec::new(), if_not_exists: false };
        broker.create_topic(new).await.unwrap();
    }
    apply(&broker, &rules("one")).await;
    let (mut running, mut number, mut resets) = (Some(broker), 0, false);
    for _ in 0..rounds {
        let operations = random.u64(50..800);
        let is_kill = random.bool();
        if is_kill {
            sim.kill_at(operations);
        } else {
            sim.cut_power_at(operations);
        }
        let broker = match running.take() {
            Some(broker) => Some(broker),
            None => start(&sim, dir.path()).ok(),
        };
        if let Some(broker) = broker {
            for _ in 0..random.u32(..4) {
                let _ = tokio::time::timeout(PATIENCE, change(&broker, &mut random, &mut resets)).await;
            }
            'records: for _ in 0..100 {
                for partition in 0..2 {
                    let mut builder = BatchBuilder::new(BatchOptions::default());
                    for _ in 0..random.u32(1..8) {
                        number += 1;
                        let value = number.to_string();
                        builder.push(5, Some(value.as_bytes()), Some(value.as_bytes()), &[]);
                    }
                    let appended = broker.produce("in", partition, builder.build(), AckLevel::Durable);
                    if tokio::time::timeout(LONG, appended).await.unwrap().is_err() {
                        break 'records;
                    }
                }
            }
            broker.shutdown().await;
        }
        sim = if is_kill { sim.restart() } else { sim.reboot() };
    }
    let broker = start(&sim, dir.path()).unwrap();
    for route in ["turn", "apart", "both"] {
        broker.pause_route(&name(route), false).await.unwrap();
        described(&broker, route, |route| route.summary.lag == 0).await;
    }
    let source = counted(&broker, &["in"]).await;
    assert!(source.values().all(|count| *count == 1));
    assert_eq!(counted(&broker, &["one", "two"]).await, source, "seed {seed}");
    assert_eq!(counted(&broker, &["made.0", "made.1", "made.2"]).await, source, "seed {seed}");
    let (left, right) = (counted(&broker, &["left"]).await, counted(&broker, &["right"]).await);
    assert_eq!(left, right, "seed {seed}: a record is routed as a whole or not at all");
    assert!(left.values().all(|count| *count == 1), "seed {seed}");
    assert!(resets || left == source, "seed {seed}");
    println!("{} records", source.len());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_routed_once_whatever_is_changed_right_after_a_start() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(0..3, |seed| seed..seed + 1) {
        run(seed).await;
    }
}
