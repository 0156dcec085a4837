//! kcat as Debian has it, with librdkafka 2.0.2: the client that traps 2 and 3 were measured with. It cannot administer beyond
//! asking for metadata and offsets, cannot seek within a group, and commits by itself only.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidelog::client::Client as Native;
use tidelog::record::Compression;
use tokio::task::block_in_place;

use super::super::client::{PATIENCE, Running};
use super::super::topics::create_topic;
use super::crossing::{Record, assert_compressed, compare, plain, read_natively, samples, write_natively};
use super::{run_with, wanted};

/// Between a key and its value, and behind a record. Neither is part of any sample.
const MIDDLE: &str = "\n=\n";
const END: &str = "\n-\n";

fn kcat(address: &str, args: &[&str], input: Vec<u8>) -> Vec<u8> {
    let mut command = Command::new("kcat");
    command.args(["-b", address, "-m", "60"]).args(args);
    run_with(command, input)
}

/// Sends records that differ in key and value alone, in one run.
fn produce(address: &str, topic: &str, codec: Compression, records: &[Record], more: &[&str]) {
    let codec = format!("compression.codec={codec}");
    let mut args = vec!["-P", "-t", topic, "-D", END, "-X", &codec, "-X", "message.max.bytes=4000000"];
    // All in one batch: of a single record it sends what is smaller, which may be the record as it is.
    args.extend(["-X", "linger.ms=100"]);
    args.extend(more);
    let headers: Vec<String> = records[0].headers.iter().map(argument).collect();
    headers.iter().for_each(|header| args.extend(["-H", header.as_str()]));
    let keyed = more.contains(&"-K");
    let mut input = Vec::new();
    for record in records {
        assert_eq!(record.headers, records[0].headers);
        if keyed {
            input.extend(plain(&record.key).unwrap_or_default());
            input.extend(MIDDLE.as_bytes());
        }
        input.extend(plain(&record.value).unwrap_or_default());
        input.extend(END.as_bytes());
    }
    kcat(address, &args, input);
}

/// A header as it is said on the command line, where there is no zero byte.
fn argument((name, value): &(String, Option<String>)) -> String {
    match plain(value) {
        Some(value) => format!("{name}={}", String::from_utf8(value).unwrap()),
        None => name.clone(),
    }
}

/// A record as kcat shows it. What it says of a header's value ends at the first zero byte.
fn shown(record: &Record) -> Vec<u8> {
    let (key, value) = (plain(&record.key), plain(&record.value));
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or("-1".to_owned(), |bytes| bytes.len().to_string());
    let mut out = format!("{} {} {} ", record.timestamp, length(&key), length(&value)).into_bytes();
    out.extend(key.unwrap_or_default());
    out.extend(MIDDLE.as_bytes());
    out.extend(value.unwrap_or_default());
    out.extend(MIDDLE.as_bytes());
    for (at, (name, value)) in record.headers.iter().enumerate() {
        let value = plain(value).unwrap_or_else(|| b"NULL".to_vec());
        out.extend(format!("{}{name}=", if at > 0 { "," } else { "" }).as_bytes());
        out.extend(value.iter().take_while(|byte| **byte != 0));
    }
    out.extend(END.as_bytes());
    out
}

/// What kcat shows of a topic, and what it should.
#[track_caller]
fn assert_shows(address: &str, topic: &str, records: &[Record]) {
    let format = format!("%T %K %S %k{MIDDLE}%s{MIDDLE}%h{END}");
    let seen = kcat(address, &["-C", "-t", topic, "-e", "-q", "-f", &format], Vec::new());
    let mut rest = &seen[..];
    for (at, record) in records.iter().enumerate() {
        let expected = shown(record);
        let head = String::from_utf8_lossy(&rest[..rest.len().min(500)]);
        assert!(rest.starts_with(&expected), "{topic}, record {at}: {head} instead of {record:?}");
        rest = &rest[expected.len()..];
    }
    assert!(rest.is_empty(), "more in {topic}");
}

/// What it compresses it says itself, and the batches in the log are looked at. Times are its own: it cannot be told them.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_kcat() {
    if !wanted("kcat") {
        return;
    }
    let running = Running::start().await;
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let address = running.server.kafka_addresses()[0].to_string();
    let samples = samples();
    let (with_headers, without): (Vec<_>, Vec<_>) = samples.iter().cloned().partition(|of| !of.headers.is_empty());
    // Empty keys and values are sent as they are, or all of them as none; an empty line without a key is not sent.
    let whole = |of: &Record| of.key.is_some() && of.value.is_some();
    let keyed: Vec<_> = without.iter().filter(|of| whole(of)).cloned().collect();
    let tombstones: Vec<_> = without.iter().filter(|of| of.value.is_none()).cloned().collect();
    let has_value = |of: &Record| plain(&of.value).is_some_and(|value| !value.is_empty());
    let keyless: Vec<_> = without.iter().filter(|of| of.key.is_none() && has_value(of)).cloned().collect();
    let sayable = |of: &Record| of.headers.iter().all(|(_, value)| !plain(value).unwrap_or_default().contains(&0));
    let with_headers: Vec<_> = with_headers.into_iter().filter(|of| sayable(of)).collect();
    assert_eq!((keyed.len(), tombstones.len(), keyless.len(), with_headers.len()), (4, 1, 1, 3));
    for codec in Compression::ALL {
        let (ours, theirs) = (format!("native.{codec}"), format!("theirs.{codec}"));
        create_topic(&mut running.client().await, &ours, 1).await;
        create_topic(&mut running.client().await, &theirs, 1).await;
        write_natively(&native, &ours, codec, &samples).await;
        let parts = [(keyed.clone(), &["-K", MIDDLE][..]), (tombstones.clone(), &["-Z", "-K", MIDDLE])];
        let mut parts = Vec::from(parts);
        parts.push((keyless.clone(), &[]));
        parts.extend(with_headers.iter().map(|record| (vec![record.clone()], &["-K", MIDDLE][..])));
        let mut expected: Vec<Record> = parts.iter().flat_map(|(records, _)| records.clone()).collect();
        let write = || parts.iter().for_each(|(records, more)| produce(&address, &theirs, codec, records, more));
        block_in_place(write);
        let read = read_natively(&native, &theirs).await;
        assert_eq!(read.len(), expected.len());
        expected.iter_mut().zip(&read).for_each(|(expected, read)| expected.timestamp = read.timestamp);
        compare(&theirs, &read, &expected);
        assert!(read.is_sorted_by_key(|record| record.timestamp) && read[0].timestamp > samples[0].timestamp);
        assert_compressed(running.dir.path(), &theirs, codec);
        block_in_place(|| {
            assert_shows(&address, &theirs, &expected);
            assert_shows(&address, &ours, &samples);
        });
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_asks_for_metadata_and_reads_from_one_time_to_another() {
    if !wanted("kcat") {
        return;
    }
    let running = Running::start().await;
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let address = running.server.kafka_addresses()[0].to_string();
    create_topic(&mut running.client().await, "t", 2).await;
    let mut records = vec![samples().swap_remove(0); 100];
    (0..).zip(&mut records).for_each(|(number, record)| record.timestamp = 1_000_000 + 1_000 * number);
    write_natively(&native, "t", Compression::Zstd, &records).await;
    let ask = move |args: &[&str]| String::from_utf8(kcat(&address, args, Vec::new())).unwrap();
    block_in_place(|| {
        let metadata: serde_json::Value = serde_json::from_str(&ask(&["-L", "-J", "-t", "t"])).unwrap();
        assert_eq!(metadata["brokers"].as_array().unwrap().len(), 1);
        assert_eq!((&metadata["topics"][0]["topic"], &metadata["controllerid"]), (&"t".into(), &0.into()));
        assert_eq!(metadata["topics"][0]["partitions"].as_array().unwrap().len(), 2);
        for (time, offset) in [(0, 0), (1_050_000, 50), (1_050_001, 51), (9_000_000, -1)] {
            assert_eq!(ask(&["-Q", "-t", &format!("t:0:{time}")]), format!("t [0] offset {offset}\n"), "{time}");
        }
        let between = |from: &str, more: &[&str]| {
            let args = ["-C", "-t", "t", "-p", "0", "-e", "-q", "-f", "%o ", "-o", from];
            ask(&[&args[..], more].concat())
        };
        assert_eq!(between("s@1095500", &[]), "96 97 98 99 ");
        assert_eq!(between("s@1050000", &["-o", "e@1053000"]), "50 51 52 ");
        assert_eq!(between("-2", &[]), "98 99 ");
        assert_eq!(between("3", &["-c", "2"]), "3 4 ");
    });
    running.stop().await;
}

/// A member of a group, and what it has said: records on stdout, what becomes of the group on stderr. Killed when dropped.
struct Member {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Member {
    fn start(address: &str) -> Self {
        let mut child = Command::new("kcat")
            .args(["-b", address, "-G", "g", "-u", "-f", "%p:%s\n", "-X", "heartbeat.interval.ms=300"])
            .args(["-X", "session.timeout.ms=60000", "-X", "auto.offset.reset=earliest", "t"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line));
            });
        }
        Self { child, said }
    }

    /// Its partitions, as it last said.
    fn has(&self) -> Option<String> {
        let said = self.said.lock().unwrap();
        let last = said.iter().rev().find(|line| line.contains(" rebalanced "))?;
        last.split_once("assigned: ").map(|(_, places)| places.to_owned())
    }

    /// The records that it has got.
    fn got(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        let mut got: Vec<_> = said.iter().filter(|line| !line.starts_with('%')).cloned().collect();
        got.sort();
        got
    }

    /// It leaves the group, and commits before.
    fn leave(&mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait(what: &str, of: &[&Member], check: impl Fn() -> bool) {
    let began = Instant::now();
    while !check() {
        let said: Vec<_> = of.iter().map(|member| member.said.lock().unwrap().clone()).collect();
        assert!(began.elapsed() < PATIENCE * 2, "{what}: {said:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_kcats_grows_and_shrinks_and_goes_on_where_it_was() {
    if !wanted("kcat") {
        return;
    }
    let running = Running::start().await;
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let address = running.server.kafka_addresses()[0].to_string();
    create_topic(&mut running.client().await, "t", 2).await;
    let work = || {
        let write = |value: &str| {
            for partition in ["0", "1"] {
                kcat(&address, &["-P", "-t", "t", "-p", partition], format!("{value}\n").into_bytes());
            }
        };
        let both = |value: &str| [format!("0:{value}"), format!("1:{value}")];
        write("one");
        let mut first = Member::start(&address);
        wait("it gets all", &[&first], || first.got() == both("one"));
        let mut second = Member::start(&address);
        let share = |member: &Member| member.has().filter(|places| ["t [0]", "t [1]"].contains(&places.as_str()));
        let shared = || share(&first).is_some_and(|one| share(&second).is_some_and(|other| one != other));
        wait("they share", &[&first, &second], shared);
        write("two");
        wait("each gets its part", &[&first, &second], || first.got().len() == 3 && second.got().len() == 1);
        second.leave();
        wait("the first has all", &[&first, &second], || first.has().is_some_and(|places| places == "t [0], t [1]"));
        write("three");
        let all = || [first.got(), second.got()].concat().len() == 6;
        wait("it gets all again", &[&first, &second], all);
        first.leave();
        let mut got = [first.got(), second.got()].concat();
        got.sort();
        assert_eq!(got, ["0:one", "0:three", "0:two", "1:one", "1:three", "1:two"], "each once");
        // What was committed holds for whoever comes next.
        write("four");
        let mut third = Member::start(&address);
        wait("it goes on", &[&third], || third.got() == both("four"));
        third.leave();
    };
    block_in_place(work);
    let group = native.admin().describe_group("g").await.unwrap();
    assert!(group.members.is_empty(), "{group:?}");
    assert_eq!(group.partitions.iter().map(|part| (part.floor, part.lag)).collect::<Vec<_>>(), [(4, 0), (4, 0)]);
    running.stop().await;
}
