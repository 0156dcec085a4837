use super::lanes::*;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn all_now(lanes: &mut Lanes<u32>, now: Instant) -> Vec<(String, Turn<u32>)> {
    std::iter::from_fn(|| lanes.next(now)).collect()
}

#[tokio::test]
async fn lanes_take_turns_and_have_bounds() {
    let now = Instant::now();
    let mut lanes = Lanes::new(5, 3, SECOND);
    for number in 0..4 {
        lanes.put("a", number, now);
        lanes.put("b", 10 + number, now);
    }
    let sent = all_now(&mut lanes, now);
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a", "b", "a"]);
    assert_eq!(sent.iter().map(|(_, turn)| turn.what).collect::<Vec<_>>(), [0, 10, 1, 11, 2]);
    assert_eq!(lanes.next_at(), None, "there is room for no more");
    lanes.became("b", sent[1].1.clone(), &Became::Over, 0.5, now);
    assert_eq!(lanes.next_at(), Some(now));
    // The lane of a is full.
    assert_eq!(all_now(&mut lanes, now).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_silent_endpoint_rests_and_is_then_tried_one_at_a_time_while_others_go_on() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(100, 10, SECOND);
    (0..20).for_each(|number| lanes.put("away", number, now));
    for (name, turn) in all_now(&mut lanes, now) {
        lanes.became(&name, turn, &Became::Silent, 1.0, now);
    }
    assert_eq!(all_now(&mut lanes, now), []);
    assert_eq!(lanes.next_at(), Some(now + SECOND), "all that failed together count once");
    lanes.put("here", 100, now);
    assert_eq!(all_now(&mut lanes, now).len(), 1);
    for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
        now += SECOND * rest;
        let tried = all_now(&mut lanes, now);
        assert_eq!(tried.len(), 1);
        lanes.became(&tried[0].0, tried[0].1.clone(), &Became::Silent, 1.0, now);
    }
    // One that is given up says nothing of the endpoint.
    now += SECOND * 60;
    let tried = all_now(&mut lanes, now).remove(0);
    lanes.became(&tried.0, tried.1, &Became::GivenUp, 1.0, now);
    assert_eq!(all_now(&mut lanes, now), []);
    now += SECOND * 60;
    let tried = all_now(&mut lanes, now).remove(0);
    lanes.became(&tried.0, tried.1, &Became::Over, 1.0, now);
    assert_eq!(all_now(&mut lanes, now).len(), 10);
}

#[tokio::test]
async fn what_is_refused_comes_again_later_each_time_and_not_before_it_may() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(100, 10, SECOND);
    lanes.put("a", 1, now);
    for (tries, wait) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].into_iter().enumerate() {
        let (name, turn) = lanes.next(now).unwrap();
        assert_eq!(turn.tries, u32::try_from(tries).unwrap());
        lanes.became(&name, turn, &Became::Refused(None), 1.0, now);
        assert_eq!(lanes.next_at(), Some(now + SECOND * wait));
        // Another one is not held up by it.
        lanes.put("a", 2, now);
        let (name, other) = lanes.next(now).unwrap();
        lanes.became(&name, other, &Became::Over, 1.0, now);
        now += SECOND * wait;
    }
    let (name, turn) = lanes.next(now).unwrap();
    lanes.became(&name, turn, &Became::Refused(Some(SECOND * 1000)), 0.0, now);
    lanes.put("a", 3, now);
    assert_eq!(lanes.next_at(), Some(now + SECOND * 1000), "it asked to be left alone");
}

#[tokio::test]
async fn nothing_is_lost_whatever_becomes_of_it() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut now = Instant::now();
    let mut lanes = Lanes::new(20, 4, SECOND);
    let mut tries: BTreeMap<u32, u32> = BTreeMap::new();
    (0..500).for_each(|number| lanes.put(&format!("e{}", number % 30), number, now));
    let mut over = std::collections::BTreeSet::new();
    let mut under_way = Vec::new();
    for _ in 0..100_000 {
        under_way.extend(all_now(&mut lanes, now));
        assert!(under_way.len() <= 20);
        if under_way.is_empty() {
            let Some(next) = lanes.next_at() else { break };
            now = now.max(next);
            continue;
        }
        let (name, turn) = under_way.swap_remove(random.usize(..under_way.len()));
        assert_eq!(turn.tries, tries.get(&turn.what).copied().unwrap_or(0));
        let became = match random.u32(..6) {
            0 => Became::NoTurn,
            1 => Became::Silent,
            5 => Became::GivenUp,
            2 => Became::Refused(random.bool().then_some(SECOND)),
            _ => Became::Over,
        };
        match became {
            Became::Over | Became::GivenUp => assert!(over.insert(turn.what)),
            Became::NoTurn => {}
            _ => *tries.entry(turn.what).or_default() += 1,
        }
        lanes.became(&name, turn, &became, random.f64(), now);
        now += Duration::from_millis(random.u64(..50));
    }
    assert_eq!(over.len(), 500);
    assert_eq!(lanes.next_at(), None);
}
