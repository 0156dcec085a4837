//! The table against a plain model, and receipts through power cuts on the simulated disk.
//! `TIDELOG_ROUNDS=n` cuts it that many times for each seed (12 if not set).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::table::{Asked, NotAsked, Table, Which};
use super::*;
use crate::base::limits::RECEIPTS;
use crate::base::{SystemClock, TopicId, TopicPattern, limits};
use crate::broker::Client;
use crate::broker::*;
use crate::catalog::{Processed, QueueSettings};
use crate::disk::{Disk, RealDisk, SimDisk, SimOptions};
use crate::record::{BatchBuilder, BatchOptions, Batches, Record, read_records};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
/// Records that are a multiple of it are never acked.
const POISON: u64 = 7;

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn entry(offset: u64, until_ms: TimestampMs) -> ReceiptEntry {
    let name = if offset.is_multiple_of(2) { "even" } else { "odd" };
    let place = ReceiptPlace { topic: TopicId(1), partition: 0, offset, group: group(name) };
    let (topic, url) = (TopicName::new("t").unwrap(), "http://a/".to_owned());
    ReceiptEntry { place, topic, url, asked_ms: 0, until_ms, news: None, given_up: None }
}

#[test]
fn a_receipt_says_one_thing_and_is_to_be_sent_once_between_starts() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut table = Table::new(RECEIPTS);
    // What each says, of those that are neither delivered nor given up.
    let mut model: BTreeMap<u64, Option<Option<Processed>>> = BTreeMap::new();
    let mut durable: BTreeSet<u64> = BTreeSet::new();
    let mut given_up: BTreeMap<u64, i64> = BTreeMap::new();
    let mut attached: BTreeSet<u64> = BTreeSet::new();
    for now in 0..20_000i64 {
        let offset = random.u64(..40);
        let place = entry(offset, 0).place;
        match random.u32(..9) {
            0 | 1 => {
                let asked = table.ask(entry(offset, now + random.i64(1..100)), Client::Server);
                let is_new = !model.contains_key(&offset);
                assert_eq!(asked, Ok(if is_new { Asked::New(Vec::new()) } else { Asked::Same }));
                given_up.remove(&offset);
                model.entry(offset).or_insert(None);
            }
            2 => {
                let other = ReceiptEntry { url: "http://b/".to_owned(), ..entry(offset, now + 5) };
                if model.contains_key(&offset) {
                    assert_eq!(table.ask(other, Client::Server), Err(NotAsked::Elsewhere("http://a/".to_owned())));
                }
            }
            3 => {
                let processed = random.choice([Some(Processed::Acked), Some(Processed::Expired), None]).unwrap();
                let open = model.get(&offset) == Some(&None);
                assert_eq!(table.decide(&place, processed, now), open);
                if open {
                    model.insert(offset, Some(processed));
                    attached.remove(&offset);
                }
            }
            4 => {
                let decided = model.iter().filter(|(at, says)| says.is_some() && !durable.contains(at));
                let decided: Vec<u64> = decided.map(|(at, _)| *at).collect();
                let places: Vec<_> = decided.iter().map(|at| entry(*at, 0).place).collect();
                if random.bool() {
                    table.decided(places);
                    durable.extend(decided);
                } else {
                    table.undecide(&places);
                    attached.extend(&decided);
                    model.extend(decided.iter().map(|at| (*at, None)));
                }
            }
            5 => {
                for sent in table.take_to_send() {
                    let at = sent.place.offset;
                    assert!(durable.contains(&at));
                    assert_eq!(sent.news.unwrap().processed, model[&at].unwrap());
                    if random.bool() {
                        assert!(table.delivered(&sent.place));
                    } else {
                        assert!(table.give_up(&sent.place, "no".to_owned(), now));
                        given_up.insert(at, now);
                    }
                    durable.remove(&at);
                    model.remove(&at);
                }
            }
            6 => {
                let forgotten = table.forget(now - 50);
                for place in forgotten {
                    assert!(given_up.remove(&place.offset).unwrap() < now - 50);
                }
                assert!(given_up.values().all(|at| *at >= now - 50));
            }
            7 => {
                if model.get(&offset) == Some(&None) {
                    attached.insert(offset);
                }
                table.attach(&place);
                let found = [Which::All, Which::Fresh(i64::MIN)].map(|which| {
                    let offsets = table.waiting(which).into_iter().flat_map(|(of, waiting)| {
                        assert!(waiting.iter().all(|one| one.place.group == of));
                        waiting.into_iter().map(|one| one.place.offset)
                    });
                    offsets.collect::<BTreeSet<_>>()
                });
                let waiting: BTreeSet<u64> =
                    model.iter().filter(|(_, says)| says.is_none()).map(|(at, _)| *at).collect();
                assert_eq!(found[0], waiting);
                assert_eq!(found[1], waiting.difference(&attached).copied().collect());
                let odd = crate::catalog::Place { group: group("odd"), topic: TopicId(1), partition: 0 };
                let inside = table.attached(&odd, 5..20).into_iter().map(|place| place.offset);
                let expected = attached.iter().filter(|at| *at % 2 == 1 && (5..20).contains(*at)).copied();
                assert!(inside.eq(expected));
                if random.u32(..20) == 0 {
                    table.detach(&group("odd"));
                    attached.retain(|at| at.is_multiple_of(2));
                }
                assert_eq!(table.next_until().is_some(), !waiting.is_empty());
            }
            _ => {
                let kept = table.after(None).filter(|entry| {
                    // What was decided and not kept is decided again.
                    entry.news.is_none() || entry.given_up.is_some() || durable.contains(&entry.place.offset)
                });
                let undecided = model.iter().filter(|(at, says)| says.is_some() && !durable.contains(at));
                let undecided: Vec<u64> = undecided.map(|(at, _)| *at).collect();
                let again = undecided.iter().map(|at| entry(*at, now + 9));
                let kept: Vec<_> = kept.cloned().chain(again).collect();
                table = Table::restore(kept, RECEIPTS);
                model.extend(undecided.iter().map(|at| (*at, None)));
                attached.clear();
            }
        }
        let counts = table.counts();
        assert_eq!(counts.waiting, model.values().filter(|says| says.is_none()).count());
        assert_eq!((counts.sending, counts.given_up), (model.len() - counts.waiting, given_up.len()));
    }
}

#[test]
fn what_was_given_up_first_makes_room() {
    let mut table = Table::new(RECEIPTS);
    let last = RECEIPTS as u64;
    (0..last).for_each(|offset| assert_eq!(table.ask(entry(offset, 100), Client::Server), Ok(Asked::New(Vec::new()))));
    assert_eq!(table.ask(entry(last, 100), Client::Server), Err(NotAsked::Full));
    for offset in [5, 4] {
        table.decide(&entry(offset, 0).place, None, 1);
        table.decided([entry(offset, 0).place]);
        table.give_up(&entry(offset, 0).place, "no".to_owned(), 10 - offset.cast_signed());
    }
    assert_eq!(table.ask(entry(last, 100), Client::Server), Ok(Asked::New(vec![entry(5, 0).place])));
    assert_eq!(table.ask(entry(last + 1, 100), Client::Server), Ok(Asked::New(vec![entry(4, 0).place])));
    assert_eq!(table.ask(entry(last + 2, 100), Client::Server), Err(NotAsked::Full));
}

fn start(disk: Arc<dyn Disk>, dir: &Path) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, disk, Arc::new(SystemClock::new()))
}

fn records(batches: bytes::Bytes) -> Vec<Record> {
    let read = |batch: Result<(_, bytes::Bytes), _>| {
        read_records(&batch.unwrap().1, limits::MAX_DECOMPRESSED_BYTES).unwrap().map(Result::unwrap)
    };
    Batches::new(batches).flat_map(read).collect()
}

fn number(record: &Record) -> u64 {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

/// Acks what comes, but poison, until the broker is gone.
async fn work(broker: Arc<Broker>) {
    let join = JoinQueue {
        group: group("erp"),
        settings: Some(QueueSettings { backoff_ms: 1, backoff_max_ms: 1, max_deliveries: 20, ..Default::default() }),
        topics: vec![TopicPattern::new("orders").unwrap()],
        filter: None,
        start: OffsetAt::Beginning,
        prefetch: 5,
        client: "test".into(),
    };
    let Ok(member) = broker.join_queue(join).await else { return };
    while let Ok(Some(handed)) = tokio::time::timeout(LONG, member.next()).await {
        member.sent(handed.batch.len());
        let mut says = Vec::new();
        for record in records(handed.batch.clone()) {
            let poison = number(&record).is_multiple_of(POISON);
            let verdict = if poison { Verdict::Nack { delay_ms: Some(0), reason: None } } else { Verdict::Ack };
            let (from, to) = (record.offset, record.offset + 1);
            says.push(Settlement { topic: handed.topic.clone(), partition: handed.partition, from, to, verdict });
        }
        let _ = member.settle(&says, false).await;
    }
}

/// What endpoints have got: what each receipt said, each time.
type Got = Arc<Mutex<BTreeMap<ReceiptPlace, Vec<Option<Processed>>>>>;

/// An endpoint, which now and then fails to say that it has something.
async fn endpoint(broker: Arc<Broker>, got: Got, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut again = Vec::new();
    while !broker.receipts.is_stopped() {
        again.extend(broker.take_receipts());
        for entry in std::mem::take(&mut again) {
            got.lock().unwrap().entry(entry.place.clone()).or_default().push(entry.news.as_ref().unwrap().processed);
            if random.u32(..3) > 0 {
                broker.receipt_delivered(&entry.place);
            } else {
                again.push(entry);
            }
        }
        if again.is_empty() {
            broker.receipts_come().await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn cut_again_and_again(seed: u64, durability: &str) {
    println!("seed {seed}");
    let rounds = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
    let broker = start(Arc::new(sim.clone()), dir.path()).unwrap();
    let settings = vec![("durability".to_owned(), durability.to_owned())];
    let topic = TopicName::new("orders").unwrap();
    let new = NewTopic { name: topic.clone(), partitions: Some(1), settings, if_not_exists: false };
    broker.create_topic(new).await.unwrap();
    let (mut running, mut value) = (Some(broker), 0);
    let (got, erp) = (Got::default(), group("erp"));
    // What was asked for, and what the record is.
    let mut asked: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..rounds {
        sim.cut_power_at(random.u64(1..400));
        let broker = match running.take() {
            Some(broker) => Some(broker),
            None => start(Arc::new(sim.clone()), dir.path()).ok(),
        };
        if let Some(broker) = broker {
            let working = tokio::spawn(work(Arc::clone(&broker)));
            let listening = tokio::spawn(endpoint(Arc::clone(&broker), Arc::clone(&got), random.u64(..)));
            for _ in 0..40 {
                let mut builder = BatchBuilder::new(BatchOptions::default());
                let (first, count) = (value + 1, random.u64(1..5));
                for _ in 0..count {
                    value += 1;
                    builder.push(5, Some(b"k"), Some(value.to_string().as_bytes()), &[]);
                }
                let produced = broker.produce("orders", 0, builder.build(), AckLevel::Written);
                let Ok(produced) = tokio::time::timeout(LONG, produced).await.unwrap() else { break };
                let at = |delta| (produced.base_offset + delta, first + delta);
                let of: Vec<(u64, u64)> = (0..count).map(at).collect();
                let at = |offset: &(u64, u64)| RecordAt { topic: topic.clone(), partition: 0, offset: offset.0 };
                let places: Vec<_> = of.iter().map(at).collect();
                let asking = broker.ask_receipts(&erp, "http://crm/", &places, LONG);
                if tokio::time::timeout(LONG, asking).await.unwrap().is_err() {
                    break;
                }
                asked.extend(of);
            }
            broker.shutdown().await;
            working.await.unwrap();
            listening.await.unwrap();
        }
        sim = sim.reboot();
        if random.bool() {
            // The view is no part of what must survive.
            let _ = RealDisk.remove_dir_all(&dir.path().join("view"));
        }
    }
    let broker = start(Arc::new(sim.clone()), dir.path()).unwrap();
    let working = tokio::spawn(work(Arc::clone(&broker)));
    let listening = tokio::spawn(endpoint(Arc::clone(&broker), Arc::clone(&got), 1));
    let all_told = tokio::time::timeout(LONG, async {
        while broker.receipt_counts() != ReceiptCounts::default() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    all_told.await.unwrap();
    let got = got.lock().unwrap().clone();
    for (offset, value) in &asked {
        let said = got.iter().find(|(place, _)| place.offset == *offset).map(|(_, said)| said.as_slice());
        let expected = if value.is_multiple_of(POISON) { Processed::DeadLettered } else { Processed::Acked };
        let said = said.unwrap_or_else(|| panic!("seed {seed}: no receipt of {value} at {offset}"));
        assert!(said.iter().all(|said| *said == Some(expected)), "seed {seed}: {value} at {offset}: {said:?}");
    }
    let times: usize = got.values().map(Vec::len).sum();
    println!("{} receipts asked for, told of {} in {times} calls", asked.len(), got.len());
    broker.shutdown().await;
    working.await.unwrap();
    listening.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receipt_that_was_asked_for_comes_and_says_what_became_of_its_record_through_power_cuts() {
    for (seed, durability) in [(0, "sync"), (1, "interval"), (2, "sync"), (3, "interval")] {
        cut_again_and_again(seed, durability).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_is_processed_is_told_too_and_what_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(Arc::new(RealDisk), dir.path()).unwrap();
    let topics = ["orders", "gone"].map(|name| TopicName::new(name).unwrap());
    for topic in &topics {
        broker.metadata(topic, true).await.unwrap();
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(5, None, Some(b"1"), &[]);
        broker.produce(topic.as_str(), 0, builder.build(), AckLevel::Durable).await.unwrap();
    }
    let at = |topic: &TopicName, offset| [RecordAt { topic: topic.clone(), partition: 0, offset }];
    let (ask, erp) = (
        async |records: &[RecordAt], url: &str, timeout| {
            broker.ask_receipts(&group("erp"), url, records, timeout).await.map_err(|error| error.to_string())
        },
        "http://crm/",
    );
    ask(&at(&topics[0], 0), erp, Duration::from_millis(100)).await.unwrap();
    ask(&at(&topics[1], 0), erp, LONG).await.unwrap();
    ask(&at(&topics[1], 0), erp, LONG).await.unwrap();
    for (records, url, timeout, said) in [
        (&at(&topics[0], 1)[..], erp, LONG, "has no record at offset 1 yet: it ends at 1"),
        (&at(&TopicName::new("none").unwrap(), 1), erp, LONG, "there is no topic 'none'"),
        (&at(&topics[1], 0), "http://other/", LONG, "goes to http://crm/ already"),
        (&at(&topics[0], 0), erp, Duration::ZERO, "allowed are 1ms to"),
    ] {
        let error = ask(records, url, timeout).await.unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    broker.delete_topic(&topics[1]).await.unwrap();
    let mut said = BTreeMap::new();
    while said.len() < 2 {
        tokio::time::timeout(LONG, broker.receipts_come()).await.unwrap();
        said.extend(broker.take_receipts().into_iter().map(|entry| (entry.topic.to_string(), entry)));
    }
    assert_eq!(said["orders"].news.as_ref().unwrap().processed, None);
    assert_eq!(said["gone"].news.as_ref().unwrap().processed, Some(Processed::Deleted));
    broker.give_up_receipt(&said["orders"].place, "the endpoint answers 410".to_owned());
    let (listed, more) = broker.list_receipts(&ReceiptFilter { limit: 1, ..ReceiptFilter::default() });
    assert_eq!((listed.len(), more), (1, true));
    assert_eq!(listed[0].1.as_deref(), listed[0].0.given_up.as_ref().map(|given_up| given_up.reason.as_str()));
    let after = listed.last().map(|(entry, _)| entry.place.clone());
    let (listed, more) = broker.list_receipts(&ReceiptFilter { limit: 1, after, ..ReceiptFilter::default() });
    assert_eq!((listed.len(), more), (1, false));
    broker.shutdown().await;
    drop(broker);

    // What was not delivered is sent again, and what was given up is not.
    let broker = start(Arc::new(RealDisk), dir.path()).unwrap();
    let again = broker.take_receipts();
    assert_eq!(again.iter().map(|entry| entry.topic.as_str()).collect::<Vec<_>>(), ["gone"]);
    let counts = ReceiptCounts { waiting: 0, sending: 1, given_up: 1 };
    assert_eq!(broker.receipt_counts(), counts);
    broker.receipt_delivered(&again[0].place);
    broker.shutdown().await;
}

/// What a group says of each record of a topic, as endpoints get it.
async fn told(broker: &Broker, count: usize) -> BTreeMap<u64, Option<Processed>> {
    let mut told = BTreeMap::new();
    let all = async {
        while told.len() < count {
            for entry in broker.take_receipts() {
                told.insert(entry.place.offset, entry.news.unwrap().processed);
                broker.receipt_delivered(&entry.place);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(LONG, all).await.is_err() {
        panic!("only {told:?} is told, of {count}");
    }
    told
}

async fn some(broker: &Arc<Broker>, topic: &TopicName, records: u64) -> Vec<RecordAt> {
    broker.metadata(topic, true).await.unwrap();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for number in 0..records {
        builder.push(5, Some(b"k"), Some(number.to_string().as_bytes()), &[]);
    }
    let base = broker.produce(topic.as_str(), 0, builder.build(), AckLevel::Durable).await.unwrap().base_offset;
    (base..base + records).map(|offset| RecordAt { topic: topic.clone(), partition: 0, offset }).collect()
}

/// A member that acks nothing, which tells what it was handed first.
async fn joined(broker: &Arc<Broker>, start: OffsetAt) -> QueueMember {
    let join = JoinQueue {
        group: group("erp"),
        settings: None,
        topics: vec![TopicPattern::new("orders").unwrap()],
        filter: None,
        start,
        prefetch: 100,
        client: "test".into(),
    };
    broker.join_queue(join).await.unwrap()
}

fn reset(to: ResetTo) -> ResetQueue {
    ResetQueue { group: group("erp"), topics: Vec::new(), partitions: Vec::new(), to, dry_run: false, force: true }
}

/// Right after a start nobody has looked at any receipt.
#[test]
fn a_group_that_is_moved_passes_over_records_whose_receipts_nobody_has_looked_at() {
    let receipts = Receipts::of(Table::new(RECEIPTS));
    for offset in 0..8 {
        lock(&receipts.table).ask(entry(offset, 100), Client::Server).unwrap();
    }
    let place = crate::catalog::Place { group: group("even"), topic: TopicId(1), partition: 0 };
    // The record at 2 is done; whether it was acked or became a dead letter is to be looked up.
    let done = |offset| (offset == 2).then_some(Processed::Acked);
    let passed = receipts.skip(&place, 6, done, 5);
    assert_eq!(passed.iter().map(|place| place.offset).collect::<Vec<_>>(), [0, 4]);
    let table = lock(&receipts.table);
    for place in &passed {
        assert_eq!(table.get(place).unwrap().news.as_ref().unwrap().processed, Some(Processed::Skipped));
    }
    assert_eq!(table.counts().waiting, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_starts_behind_or_is_moved_beyond_is_not_told_as_acked() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(Arc::new(RealDisk), dir.path()).unwrap();
    let topic = TopicName::new("orders").unwrap();
    let before = some(&broker, &topic, 2).await;
    broker.ask_receipts(&group("erp"), "http://crm/", &before, LONG).await.unwrap();
    let member = joined(&broker, OffsetAt::End).await;
    let skipped = Some(Processed::Skipped);
    assert_eq!(told(&broker, 2).await, BTreeMap::from([(0, skipped), (1, skipped)]));
    let after = some(&broker, &topic, 3).await;
    broker.ask_receipts(&group("erp"), "http://crm/", &after, LONG).await.unwrap();
    let handed = tokio::time::timeout(LONG, member.next()).await.unwrap().unwrap();
    let (from, to) = (handed.base_offset, handed.base_offset + 1);
    let ack = Settlement { topic: topic.clone(), partition: 0, from, to, verdict: Verdict::Ack };
    member.settle(&[ack], true).await.unwrap();
    assert_eq!(told(&broker, 1).await, BTreeMap::from([(2, Some(Processed::Acked))]));
    broker.reset_queue(reset(ResetTo::At(OffsetAt::End))).await.unwrap();
    assert_eq!(told(&broker, 2).await, BTreeMap::from([(3, skipped), (4, skipped)]));
    // Back again, it is a matter of what is done from then on.
    broker.reset_queue(reset(ResetTo::Offset(0))).await.unwrap();
    broker.ask_receipts(&group("erp"), "http://crm/", &after, LONG).await.unwrap();
    let member = joined(&broker, OffsetAt::End).await;
    let mut acked = 0;
    while acked < 5 {
        let handed = tokio::time::timeout(LONG, member.next()).await.unwrap().unwrap();
        let (from, to) = (handed.base_offset, handed.next_offset);
        let ack = Settlement { topic: topic.clone(), partition: 0, from, to, verdict: Verdict::Ack };
        acked += member.settle(&[ack], true).await.unwrap().settled;
    }
    assert!(told(&broker, 3).await.values().all(|says| *says == Some(Processed::Acked)));
    let counts = broker.receipt_counts();
    broker.ask_receipts(&group("nobody"), "http://crm/", &after, LONG).await.unwrap();
    assert_eq!(broker.cancel_receipts(&group("nobody"), Some("http://other/")).await.unwrap(), 0);
    assert_eq!(broker.cancel_receipts(&group("nobody"), None).await.unwrap(), 3);
    assert_eq!(broker.receipt_counts(), counts);
    broker.shutdown().await;
}

/// The group and the topic are deleted as soon as the ack is durable, so nobody could find it out afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_acked_is_told_though_group_and_topic_are_deleted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(Arc::new(RealDisk), dir.path()).unwrap();
    let topic = TopicName::new("orders").unwrap();
    let records = some(&broker, &topic, 1).await;
    let member = joined(&broker, OffsetAt::Beginning).await;
    broker.ask_receipts(&group("erp"), "http://crm/", &records, LONG).await.unwrap();
    let reader = group("reader");
    broker.ask_receipts(&reader, "http://crm/", &records, LONG).await.unwrap();
    let commit = |offset| {
        vec![Commit { topic: topic.clone(), partition: 0, offset, metadata: String::new(), leader_epoch: None }]
    };
    broker.commit_positions(&reader, Committer::Admin, commit(0), Terms::Forward, true).await.unwrap();
    let attached = async {
        while !lock(&broker.receipts.table).waiting(Which::Fresh(0)).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, attached).await.unwrap();
    let ack = Settlement { topic: topic.clone(), partition: 0, from: 0, to: 1, verdict: Verdict::Ack };
    tokio::time::timeout(LONG, member.next()).await.unwrap().unwrap();
    member.settle(&[ack], true).await.unwrap();
    broker.commit_positions(&reader, Committer::Admin, commit(1), Terms::Forward, true).await.unwrap();
    broker.delete_group(&group("erp"), true).await.unwrap();
    broker.delete_group(&reader, true).await.unwrap();
    broker.delete_topic(&topic).await.unwrap();
    broker.shutdown().await;
    drop(broker);
    let broker = start(Arc::new(RealDisk), dir.path()).unwrap();
    let says: Vec<_> = broker.take_receipts().into_iter().map(|entry| entry.news.unwrap().processed).collect();
    assert_eq!(says, [Some(Processed::Acked); 2]);
    broker.shutdown().await;
}

#[test]
fn one_client_may_ask_for_half_of_all_receipts_that_wait() {
    let mut table = Table::new(8);
    let (one, other) = (Client::of([10, 0, 0, 1].into()), Client::of([10, 0, 0, 2].into()));
    (0..4).for_each(|offset| assert!(table.ask(entry(offset, 100), one).is_ok()));
    assert_eq!(table.ask(entry(4, 100), one), Err(NotAsked::Share(4)));
    assert_eq!(table.ask(entry(3, 100), one), Ok(Asked::Same));
    (4..8).for_each(|offset| assert!(table.ask(entry(offset, 100), other).is_ok()));
    assert_eq!(table.ask(entry(8, 100), Client::Server), Err(NotAsked::Full));
    // One that has ended makes room, first of all for who had asked for it.
    assert!(table.delivered(&entry(0, 0).place));
    assert!(table.give_up(&entry(1, 0).place, "no".to_owned(), 1));
    assert_eq!(table.share_left(one), (2, 2));
    assert!(table.ask(entry(8, 100), one).is_ok());
    assert_eq!(table.ask(entry(9, 100), one), Ok(Asked::New(vec![entry(1, 0).place])));
    assert_eq!(table.ask(entry(10, 100), one), Err(NotAsked::Share(4)));
}
