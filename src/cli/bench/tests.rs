use std::time::{Duration, Instant};

use super::connections::enough_descriptors;
use super::latencies::Latencies;
use super::limits::{Layout, Source, Volume, loopback, ping_pong, sync_loop, write_loop};
use super::pace::{Pacer, Schedule};
use crate::cli::failure::Failure;

#[test]
fn the_slowest_are_not_taken_for_fast_ones() {
    let mut latencies = Latencies::default();
    for _ in 0..98 {
        latencies.record(Duration::from_micros(100));
    }
    latencies.record(Duration::from_millis(5));
    latencies.record(Duration::from_secs(70));
    assert_eq!(latencies.at(0.5), 100);
    assert!(latencies.at(0.99).abs_diff(5_000) <= 5, "{}", latencies.at(0.99));
    assert!(latencies.max().abs_diff(70_000_000) <= 70_000, "{}", latencies.max());
    latencies.record(Duration::from_secs(4000));
    assert!(latencies.max() >= 3_590_000_000);
}

#[test]
fn a_schedule_does_not_drift_and_a_pacer_is_never_early() {
    let start = Instant::now();
    let schedule = Schedule::new(start, 3);
    assert_eq!(schedule.due(3_000_000) - start, Duration::from_secs(1_000_000));
    assert_eq!(schedule.due(1) - start, Duration::from_nanos(333_333_333));
    let (pacer, schedule) = (Pacer::new(), Schedule::new(start, 1_000));
    for number in 0..20 {
        pacer.wait(schedule.due(number));
        assert!(Instant::now() >= schedule.due(number));
    }
}

#[test]
fn short_descriptors_are_told_with_the_numbers() {
    assert!(enough_descriptors(1_000, Some(1_128)).is_ok());
    assert!(enough_descriptors(1_000_000, None).is_ok());
    let Err(Failure::Failed(why)) = enough_descriptors(1_000, Some(1_024)) else { panic!("it was taken") };
    for number in ["1128", "1024", "896"] {
        assert!(why.contains(number), "{why}");
    }
}

#[test]
fn every_limit_is_measured_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::of(1);
    for layout in [Layout::Growing, Layout::Prepared] {
        let limit = sync_loop(folder.path(), 4096, 2, layout, volume).unwrap();
        assert!(limit.bytes_per_second > 0.0 && limit.sync.count() > 0);
    }
    assert!(write_loop(folder.path(), volume).unwrap() > 0.0);
    for source in [Source::Memory, Source::File, Source::SendFile] {
        assert!(loopback(folder.path(), 2, source, volume).unwrap() > 0.0);
    }
    assert!(ping_pong(100, 1).unwrap().count() >= 200);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
