use std::time::Duration;

use super::latencies::Latencies;

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
