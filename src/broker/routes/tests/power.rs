//! Power cuts on the simulated disk at any operation, also while the broker starts: what the destinations have is what the source
//! makes, in order, once. `TIDELOG_ROUNDS=n` cuts it that many times for each seed (12 if not set).

use super::*;
use crate::disk::{Disk, RealDisk, SimDisk, SimOptions};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

const CUTTING: &str = r#"
[[route]]
name = "cut"
from = "in"
start = "beginning"
split = "$[*]"
otherwise = "odd"
[[route.to]]
when = 'part % 2 == 0'
topic = "even"
[[route]]
name = "on"
from = "even"
start = "beginning"
[[route.to]]
topic = '"rest." + string(value % 3)'
[[route]]
name = "apart"
from = "in"
start = "beginning"
split = "$[*]"
otherwise = "parts"
[[route]]
name = "together"
from = "parts"
start = "beginning"
aggregate = { timeout = "1h" }
otherwise = "wholes"
"#;

/// What the routes make of the source, by topic.
fn expected(source: &[Record]) -> [(&'static str, Vec<String>); 7] {
    let mut made =
        ["even", "odd", "dead-letter.cut", "rest.0", "rest.1", "rest.2", "wholes"].map(|topic| (topic, Vec::new()));
    for record in source {
        let text = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        let Ok(parts) = serde_json::from_str::<Vec<u64>>(&text) else {
            made[2].1.push(text);
            continue;
        };
        made[6].1.push(serde_json::to_string(&parts).unwrap());
        for part in parts {
            if part % 2 == 0 {
                made[0].1.push(part.to_string());
                made[3 + (part % 3) as usize].1.push(part.to_string());
            } else {
                made[1].1.push(part.to_string());
            }
        }
    }
    made
}

fn start(sim: &SimDisk, dir: &Path) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(sim.clone()), Arc::new(SystemClock::new()))?;
    broker.start_routes();
    Ok(broker)
}

/// The values in a topic as they are.
async fn values_of(broker: &Arc<Broker>, topic: &str) -> Vec<String> {
    let text = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    read(broker, topic).await.into_iter().map(text).collect()
}

async fn cut_again_and_again(seed: u64, durability: &str, ack: AckLevel) {
    println!("seed {seed}, durability {durability}");
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
    let broker = start(&sim, dir.path()).unwrap();
    for topic in ["in", "even", "odd", "parts"] {
        let settings = vec![("durability".to_owned(), durability.to_owned())];
        broker
            .create_topic(NewTopic { name: name(topic), partitions: None, settings, if_not_exists: false })
            .await
            .unwrap();
    }
    apply(&broker, CUTTING).await;
    let mut running = Some(broker);
    let (mut number, mut acked, mut cuts) = (0, Vec::new(), 0);
    for _ in 0..rounds {
        // Also while it starts.
        sim.cut_power_at(random.u64(1..600));
        let broker = match running.take() {
            Some(broker) => Some(broker),
            None => start(&sim, dir.path()).ok(),
        };
        if let Some(broker) = broker {
            for _ in 0..200 {
                number += 1;
                let parts: Vec<u64> = (0..random.u64(1..6)).map(|part| number * 10 + part).collect();
                let text = if random.u8(..8) == 0 { format!("nonsense {number}") } else { format!("{parts:?}") };
                let mut builder = BatchBuilder::new(BatchOptions::default());
                builder.push(5, Some(b"k"), Some(text.as_bytes()), &[]);
                match tokio::time::timeout(LONG, broker.produce("in", 0, builder.build(), ack)).await.unwrap() {
                    Ok(_) => acked.push(text),
                    Err(_) => break,
                }
            }
            cuts += 1;
            broker.shutdown().await;
        }
        sim = sim.reboot();
        if random.bool() {
            // The view is no part of what must survive.
            let _ = RealDisk.remove_dir_all(&dir.path().join("view"));
        }
    }
    let broker = start(&sim, dir.path()).unwrap();
    for route in ["cut", "on", "apart", "together"] {
        described(&broker, route, |route| route.summary.lag == 0).await;
    }
    let source = read(&broker, "in").await;
    let made = expected(&source);
    for (topic, values) in &made {
        assert_eq!(&values_of(&broker, topic).await, values, "seed {seed}: {topic}");
    }
    if ack == AckLevel::Durable {
        assert_eq!(missing(&acked, &values_of(&broker, "in").await), Vec::<String>::new(), "acknowledged and gone");
    }
    println!("{cuts} cuts, {} records, {} parts", source.len(), made[0].1.len() + made[1].1.len());
    broker.shutdown().await;
}

fn missing(acked: &[String], there: &[String]) -> Vec<String> {
    let there: std::collections::HashSet<_> = there.iter().collect();
    acked.iter().filter(|text| !there.contains(text)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_has_its_effect_once_however_often_the_power_is_cut() {
    for seed in 0..3 {
        cut_again_and_again(seed, "sync", AckLevel::Durable).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_of_a_record_that_a_power_cut_may_take_away() {
    for seed in 0..3 {
        cut_again_and_again(seed, "interval", AckLevel::Written).await;
    }
}
