use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::record;
use crate::base::Millis;
use crate::record::Record;
use crate::route::{Aggregate, Effect};

fn part(offset: u64, whole: &str, at: usize, count: usize) -> Record {
    let of = format!("{at}/{count}");
    let mut record = record(&format!("{{\"p\":{at}}}"), &[("tidelog-correlation-id", whole), ("tidelog-part", &of)]);
    record.offset = offset;
    record
}

#[test]
fn parts_come_together_in_their_order_whatever_the_order_they_come_in() {
    let mut aggregate = Aggregate::new(Millis(1000));
    assert_eq!(aggregate.add(&part(1, "a", 3, 3), 10), Effect::Waiting);
    assert_eq!(aggregate.add(&part(2, "b", 1, 2), 20), Effect::Waiting);
    assert_eq!(aggregate.add(&part(3, "a", 1, 3), 30), Effect::Waiting);
    assert_eq!(aggregate.open().iter().map(|open| open.offset).collect::<Vec<_>>(), [1, 2, 3]);
    let Effect::Complete(whole) = aggregate.add(&part(4, "a", 2, 3), 40) else { panic!() };
    assert_eq!(whole.value, Some(Bytes::from_static(br#"[{"p":1},{"p":2},{"p":3}]"#)));
    assert_eq!(whole.offset, 4);
    assert!(!whole.headers.contains("tidelog-part"));
    assert_eq!(aggregate.open().len(), 1);
    assert_eq!(aggregate.deadline(), Some(1020));
    assert!(aggregate.expire(1019, 10).is_empty());
    let late = aggregate.expire(1020, 10);
    assert_eq!(late[0].failure.message, "1 of 2 parts missing after 1s: 2");
    assert_eq!(late[0].there.len(), 1);
    assert_eq!(aggregate.deadline(), None);
}

#[test]
fn what_is_no_part_is_refused_with_the_reason() {
    let mut aggregate = Aggregate::new(Millis(1000));
    let mut refused = |record: &Record| match aggregate.add(record, 0) {
        Effect::Refused(failure) => failure.message,
        other => panic!("{other:?}"),
    };
    assert!(refused(&record("1", &[])).contains("no header 'tidelog-correlation-id'"));
    assert!(refused(&record("1", &[("tidelog-correlation-id", "a")])).contains("no header 'tidelog-part'"));
    for wrong in ["0/3", "4/3", "x", "1/0", "1/999999999"] {
        let record = record("1", &[("tidelog-correlation-id", "a"), ("tidelog-part", wrong)]);
        assert!(refused(&record).contains("must be like 2/5"), "{wrong}");
    }
    assert!(refused(&record("{", &[("tidelog-correlation-id", "a"), ("tidelog-part", "1/2")])).contains("no JSON"));
    aggregate.add(&part(1, "a", 1, 2), 0);
    let Effect::Refused(twice) = aggregate.add(&part(2, "a", 1, 2), 0) else { panic!() };
    assert!(twice.message.contains("there already"));
    let Effect::Refused(other) = aggregate.add(&part(3, "a", 2, 3), 0) else { panic!() };
    assert!(other.message.contains("others are of 2"));
}

/// Built anew from the parts that are open, it goes on as if nothing had happened.
#[test]
fn what_is_open_is_all_that_must_be_kept() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..50 {
        let mut log: Vec<Record> = Vec::new();
        let wholes = random.usize(1..15);
        let mut parts: Vec<(String, usize, usize)> = (0..wholes)
            .flat_map(|whole| {
                let count = random.usize(1..6);
                (1..=count).map(move |at| (format!("w{whole}"), at, count))
            })
            .collect();
        random.shuffle(&mut parts);
        for (offset, (whole, at, count)) in parts.iter().enumerate() {
            log.push(part(offset as u64, whole, *at, *count));
        }
        let mut aggregate = Aggregate::new(Millis(1000));
        let mut done: BTreeMap<u64, usize> = BTreeMap::new();
        let mut open: BTreeSet<u64> = BTreeSet::new();
        for record in &log {
            if random.u32(..4) == 0 {
                let kept = aggregate.open();
                aggregate = Aggregate::new(Millis(1000));
                for one in kept {
                    assert_eq!(aggregate.add(&log[one.offset as usize], one.since_ms), Effect::Waiting);
                }
            }
            let mut effect = aggregate.add(record, 0);
            if random.bool() && matches!(effect, Effect::Complete(_)) {
                aggregate.take_back(record.offset);
                effect = aggregate.add(record, 0);
            }
            if let Effect::Complete(whole) = effect {
                *done.entry(whole.offset).or_default() += 1;
            }
            open = aggregate.open().iter().map(|open| open.offset).collect();
        }
        assert_eq!(done.len(), wholes);
        assert!(done.values().all(|times| *times == 1) && open.is_empty());
    }
}
