//! What idle groups take in memory: the private memory of a process that has made them, and of one that starts with them. Each is a
//! run of this program of its own, so that nothing else is measured.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and reads /proc")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tidelog::base::{GroupName, TopicId, TopicName};
use tidelog::catalog::{Catalog, DataDir, Event, GroupEntry, GroupKind, Place, Position, TopicEntry};
use tidelog::disk::{Disk, RealDisk};

const NOW: i64 = 1_700_000_000_000;
const TOPIC: TopicId = TopicId(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
/// Names the run: what it does, how many groups with how many positions, the data directory.
const RUN: &str = "TIDELOG_GROUP_MEMORY";

/// Kilobytes of private memory, by a field of `/proc/self/status`.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn group(number: usize) -> GroupName {
    GroupName::new(&format!("console-consumer-{number:06}")).unwrap()
}

/// Makes the groups, as a server does: some at a time.
fn fill(catalog: &mut Catalog, groups: usize, positions: u32) {
    let topic = TopicEntry {
        name: TopicName::new("orders").unwrap(),
        id: TOPIC,
        partitions: 8,
        settings: Default::default(),
        created_ms: NOW,
    };
    catalog.commit(Event::TopicCreated(topic), NOW).unwrap();
    for some in (0..groups).collect::<Vec<_>>().chunks(200) {
        let mut events = Vec::new();
        for number in some {
            let (name, kind, topics) = (group(*number), GroupKind::Stream, Vec::new());
            events.push(Event::GroupDeclared(GroupEntry { name, kind, topics, filter: None, created_ms: NOW }));
            events.extend((0..positions).map(|partition| {
                let position = Position { offset: 7, leader_epoch: None, metadata: String::new(), time_ms: NOW };
                let place = Place { group: group(*number), topic: TOPIC, partition };
                Event::PositionSet { place, position: Some(position) }
            }));
        }
        catalog.commit_all(events, NOW).unwrap();
    }
}

/// Does what `RUN` says, if it says anything; prints by how much the memory grew, and by how much at the most.
#[test]
fn run() {
    let Ok(run) = std::env::var(RUN) else { return };
    let [what, groups, positions, path] = run.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{run}") };
    let (groups, positions): (usize, u32) = (groups.parse().unwrap(), positions.parse().unwrap());
    let before = memory("RssAnon:");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let dir = DataDir::open(&disk, Path::new(path), true).unwrap();
    let (mut catalog, _) = Catalog::open(disk, &dir, NOW).unwrap();
    if what == "fill" {
        fill(&mut catalog, groups, positions);
    }
    assert_eq!(catalog.group_count(), groups);
    assert_eq!(catalog.group_counts().positions, groups * positions as usize);
    assert_eq!(catalog.positions(&group(7)).count(), positions as usize);
    println!("grown {}", memory("RssAnon:").saturating_sub(before));
    catalog.close(NOW).unwrap();
}

/// Kilobytes by which the memory of such a run grows.
fn grown(what: &str, (groups, positions): (usize, u32), path: &Path) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run", "--nocapture", "--test-threads=1"])
        .env(RUN, format!("{what} {groups} {positions} {}", path.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find(|line| line.contains("grown ")).unwrap();
    line.split_whitespace().next_back().unwrap().parse().unwrap()
}

/// 100 MiB for 100,000 groups of eight positions are 1,048 bytes a group. While they are made there was a view for some time, whose
/// memory is used again only in part.
#[test]
fn an_idle_group_takes_its_positions_and_little_else_also_after_a_start() {
    for (of, most) in [((60_000, 1), 1_400), ((20_000, 8), 2_400)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let made = grown("fill", of, &path) * 1024 / of.0;
        assert!(!path.join("view").exists(), "a view of so many entries takes more memory than they do");
        let started = grown("start", of, &path) * 1024 / of.0;
        println!("{of:?}: {made} bytes a group made, {started} started");
        assert!(made <= most, "{of:?}: {made} bytes a group; {most} are expected at most");
        assert!(
            started <= most / 2,
            "{of:?} after a start: {started} bytes a group; {} are expected at most",
            most / 2
        );
    }
}

/// sled has its own idea of a cache, so where there is a view, what it takes is bounded by its entries.
#[test]
fn a_state_with_a_view_takes_little_memory_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let of = (5_000, 8);
    let held = [grown("fill", of, &path), grown("start", of, &path)];
    assert!(path.join("view").exists());
    println!("{of:?}: {held:?} KB");
    assert!(held.into_iter().all(|held| held <= 64 * 1024), "{held:?} KB");
}
