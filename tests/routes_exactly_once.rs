//! Random routes and documents on a real server that is killed again and again: what is in the destinations equals a plain
//! evaluation in memory of what is in the source, counted, and in the order of each key. `TIDELOG_SEED=n` runs one seed,
//! `TIDELOG_KILLS=n` kills so often.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::Server;
use serde_json::{Value, json};
use tidelog::client::{Client, ConsumedRecord, Message, StartAt};

/// A condition, in words and as a function.
#[derive(Debug, Clone)]
enum Condition {
    Always,
    Region(usize),
    More(i64),
    Header(usize),
    Both(Box<Condition>, Box<Condition>),
    Part(i64),
}

/// What a rule looks at.
struct Seen<'a> {
    /// `None` where it is no JSON, which matters only to who asks.
    value: Option<&'a Value>,
    part: Option<&'a Value>,
    header: Option<&'a str>,
}

impl Condition {
    fn random(random: &mut fastrand::Rng, parts: bool) -> Self {
        match random.u32(..if parts { 7 } else { 6 }) {
            0 => Self::Always,
            1 | 2 => Self::Region(random.usize(..4)),
            3 => Self::More(random.i64(0..10)),
            4 => Self::Header(random.usize(..3)),
            5 => Self::Both(Box::new(Self::Region(random.usize(..4))), Box::new(Self::More(random.i64(0..10)))),
            _ => Self::Part(random.i64(0..10)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Always => "true".to_owned(),
            Self::Region(region) => format!("value.r == \"r{region}\""),
            Self::More(number) => format!("value.n > {number}"),
            Self::Header(header) => format!("headers.h == \"h{header}\""),
            Self::Both(one, other) => format!("{} && {}", one.text(), other.text()),
            Self::Part(number) => format!("part.q > {number}"),
        }
    }

    /// `None` where it cannot be said.
    fn holds(&self, seen: &Seen<'_>) -> Option<bool> {
        Some(match self {
            Self::Always => true,
            Self::Region(region) => seen.value?.get("r")?.as_str()? == format!("r{region}"),
            Self::More(number) => seen.value?.get("n")?.as_i64()? > *number,
            Self::Header(header) => seen.header? == format!("h{header}"),
            Self::Both(one, other) => match (one.holds(seen), other.holds(seen)) {
                (Some(false), _) | (_, Some(false)) => false,
                (Some(true), Some(true)) => true,
                _ => return None,
            },
            Self::Part(number) => seen.part?.get("q")?.as_i64()? > *number,
        })
    }
}

struct Rules {
    all: bool,
    split: bool,
    otherwise: bool,
    tap: bool,
    to: Vec<(Condition, Option<usize>)>,
}

impl Rules {
    fn random(random: &mut fastrand::Rng, split: bool) -> Self {
        let mut to: Vec<_> = (0..random.usize(1..7))
            .map(|_| (Condition::random(random, split), random.bool().then(|| random.usize(..3))))
            .collect();
        if split {
            to.push((Condition::Always, Some(9)));
        }
        Self { all: split || random.bool(), split, otherwise: random.bool(), tap: random.bool(), to }
    }

    fn prefix(&self) -> &'static str {
        if self.split { "piece" } else { "out" }
    }

    fn text(&self) -> String {
        let prefix = self.prefix();
        let mut text =
            format!("[[route]]\nname = \"{prefix}\"\nfrom = \"in\"\nkey = 'value.k'\nstart = \"beginning\"\n");
        text += &format!("match = \"{}\"\n", if self.all { "all" } else { "first" });
        if self.split {
            text += "split = \"$.lines[*]\"\n";
        }
        if self.otherwise {
            text += &format!("otherwise = \"{prefix}.rest\"\n");
        }
        if self.tap {
            text += &format!("tap = \"tap.{prefix}\"\n");
        }
        for (at, (condition, topic)) in self.to.iter().enumerate() {
            let topic = match topic {
                Some(number) => format!("\"{prefix}.{number}\""),
                None => format!("'\"{prefix}.\" + value.r'"),
            };
            text += &format!("[[route.to]]\nname = \"{at}\"\nwhen = '{}'\ntopic = {topic}\n", condition.text());
        }
        text
    }

    /// Where a record goes, the plain way: topic and value.
    fn evaluate(&self, record: &Source) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let prefix = self.prefix();
        if self.tap {
            out.push((format!("tap.{prefix}"), record.text.clone()));
        }
        match self.made(record) {
            Some(made) => out.extend(made),
            None => out.push((format!("dead-letter.{prefix}"), record.text.clone())),
        }
        out
    }

    fn made(&self, record: &Source) -> Option<Vec<(String, String)>> {
        let value: Option<Value> = serde_json::from_str(&record.text).ok();
        let value = value.as_ref();
        let prefix = self.prefix();
        let parts: Vec<Option<Value>> = match self.split {
            false => vec![None],
            true => value?
                .get("lines")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .map(Some)
                .collect(),
        };
        if parts.is_empty() {
            let rest = self.otherwise.then(|| (format!("{prefix}.rest"), record.text.clone()));
            return Some(rest.into_iter().collect());
        }
        let mut out = Vec::new();
        for part in &parts {
            let seen = Seen { value, part: part.as_ref(), header: record.header.as_deref() };
            let text = part.as_ref().map_or_else(|| record.text.clone(), Value::to_string);
            let before = out.len();
            for (condition, topic) in &self.to {
                if condition.holds(&seen)? {
                    let topic = match topic {
                        Some(number) => number.to_string(),
                        None => value?.get("r")?.as_str()?.to_owned(),
                    };
                    value?.get("k")?;
                    out.push((format!("{prefix}.{topic}"), text.clone()));
                    if !self.all {
                        break;
                    }
                }
            }
            if out.len() == before && self.otherwise {
                value?.get("k")?;
                out.push((format!("{prefix}.rest"), text));
            }
        }
        Some(out)
    }
}

struct Source {
    text: String,
    header: Option<String>,
}

fn document(random: &mut fastrand::Rng, number: u64) -> (String, Option<String>) {
    let lines: Vec<Value> =
        (0..random.usize(..5)).map(|line| json!({ "line": line, "of": number, "q": random.i64(0..10) })).collect();
    let mut document = json!({ "id": number, "k": format!("k{}", number % 7), "lines": lines, "n": random.i64(0..10) });
    if random.u32(..10) > 0 {
        document["r"] = json!(format!("r{}", random.usize(..4)));
    }
    let text = document.to_string();
    let text = if random.u32(..30) == 0 { text[1..].to_owned() } else { text };
    (text, (random.u32(..10) > 0).then(|| format!("h{}", random.usize(..3))))
}

async fn read(client: &Client, topic: &str) -> Vec<ConsumedRecord> {
    let mut out = Vec::new();
    let built = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await;
    let Ok(mut consumer) = built else { return out };
    while let Some(record) = consumer.next().await {
        out.push(record.unwrap());
    }
    out
}

fn text_of(record: &ConsumedRecord) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
}

fn header_of(record: &ConsumedRecord, name: &str) -> Option<String> {
    let header = record.headers.iter().find(|header| header.name == name.as_bytes())?;
    Some(String::from_utf8(header.value?.to_vec()).unwrap())
}

/// Waits until every route has routed everything.
async fn settle(client: &Client) {
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut calm = 0;
    while calm < 3 {
        let routes = client.admin().list_routes().await.unwrap();
        calm = if routes.iter().all(|route| route.lag == 0) { calm + 1 } else { 0 };
        assert!(Instant::now() < deadline, "routes do not come to rest: {routes:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn counted(values: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_has_its_effect_exactly_once_however_often_the_server_is_killed() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (seed, kills) = (number("TIDELOG_SEED", 20), number("TIDELOG_KILLS", 6));
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(folder.path(), &[]);
    let listen = server.address().to_owned();
    let rules = [Rules::random(&mut random, false), Rules::random(&mut random, true)];
    let mut file = rules.iter().map(Rules::text).collect::<String>();
    file +=
        "[[route]]\nname = \"again\"\nfrom = \"out.*\"\nstart = \"beginning\"\n[[route.to]]\ntopic = \"collected\"\n";
    file +=
        "[[route]]\nname = \"whole\"\nfrom = \"piece.9\"\nstart = \"beginning\"\naggregate = { timeout = \"1h\" }\n";
    file += "otherwise = \"wholes\"\n";
    println!("{file}");
    let client = Client::connect(&listen).await.unwrap();
    let admin = client.admin();
    for (topic, partitions) in [("in", 3), ("piece.9", 2), ("out.0", 2)] {
        admin.create_topic(tidelog::client::NewTopic::new(topic).partitions(partitions)).await.unwrap();
    }
    assert!(admin.apply_routes(file, false, false).await.unwrap().mistakes.is_empty());
    drop((admin, client));
    let mut sent = 0;
    for _ in 0..kills {
        let client = Client::connect(&listen).await.unwrap();
        let producer = client.producer().delivery_timeout(Duration::from_secs(2)).build().await.unwrap();
        let until = Instant::now() + Duration::from_millis(random.u64(20..500));
        while Instant::now() < until {
            let mut receipts = Vec::new();
            for _ in 0..random.usize(1..200) {
                let (text, header) = document(&mut random, sent);
                let mut message = Message::to("in").key(format!("s{}", sent % 5)).value(text);
                if let Some(header) = header {
                    message = message.header("h", header);
                }
                receipts.push(producer.send(message).await.unwrap());
                sent += 1;
            }
            for receipt in receipts {
                receipt.await.unwrap();
            }
        }
        server.kill();
        drop((producer, client));
        server = Server::start_on(folder.path(), &["--listen", &listen]);
    }
    let client = Client::connect(&listen).await.unwrap();
    settle(&client).await;

    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut lines = Vec::new();
    for record in read(&client, "in").await {
        let source = Source { text: text_of(&record), header: header_of(&record, "h") };
        for rules in &rules {
            for (topic, value) in rules.evaluate(&source) {
                expected.entry(topic).or_default().push(value);
            }
        }
        if rules[1].made(&source).is_some() {
            let value: Value = serde_json::from_str(&source.text).unwrap();
            let parts = value["lines"].as_array().unwrap();
            lines.extend((!parts.is_empty()).then(|| value["lines"].to_string()));
        }
    }
    let out = expected.iter().filter(|(topic, _)| topic.starts_with("out."));
    let collected = out.flat_map(|(_, values)| values.clone()).collect();
    expected.insert("collected".to_owned(), collected);
    expected.insert("wholes".to_owned(), lines);
    let topics = client.admin().list_topics().await.unwrap();
    let mut total = 0;
    for topic in topics.iter().filter(|topic| topic.name != "in") {
        let records = read(&client, &topic.name).await;
        total += records.len();
        let wanted = counted(expected.remove(&topic.name).unwrap_or_default());
        let found = counted(records.iter().map(text_of));
        for (value, count) in &wanted {
            assert_eq!(found.get(value), Some(count), "{} in topic {}", value, topic.name);
        }
        assert_eq!(found.len(), wanted.len(), "topic {} has what nobody sent there", topic.name);
        // Of one source partition, records of a key come in the order of the source.
        if !matches!(topic.name.as_str(), "collected" | "wholes") {
            let mut last: BTreeMap<(String, Vec<u8>, u32), u64> = BTreeMap::new();
            for record in &records {
                let source = header_of(record, "tidelog-source").unwrap();
                let (partition, offset) = source.rsplit_once('/').unwrap();
                let key = record.key.clone().unwrap_or_default().to_vec();
                let before = last.insert((partition.to_owned(), key, record.partition), offset.parse().unwrap());
                assert!(before.is_none_or(|before| before <= offset.parse().unwrap()), "{}: {source}", topic.name);
            }
        }
    }
    expected.retain(|_, values| !values.is_empty());
    assert!(expected.is_empty(), "nothing came to {:?}", expected.keys());
    assert!(total > 100, "{total} records were routed");
    println!("{sent} records sent, {total} routed, {kills} kills");
}
