use std::time::Duration;

use tokio::time::Instant;

use super::pressure::Place;
use super::*;

const MIB: usize = 1024 * 1024;

/// A client at 192.0.2.N, of the Kafka door if N is odd.
fn of(number: u8) -> Holder {
    let gate = if number % 2 == 1 { Gate::Kafka } else { Gate::Native };
    Holder::client(gate, [192, 0, 2, number].into())
}

/// Polls once.
fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    futures_util::FutureExt::now_or_never(future)
}

#[test]
fn bytes_taken_come_back_when_the_grant_is_dropped() {
    let budget = Budget::new(100);
    let account = budget.account(100, of(1));
    let mut grant = account.try_take(60, 60).unwrap();
    assert_eq!(budget.used(), 60);
    grant.settle(10);
    assert_eq!((grant.bytes(), budget.used()), (10, 10));
    drop(grant);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_single_grant_may_exceed_the_account_but_not_the_budget() {
    let budget = Budget::new(100);
    let account = budget.account(10, of(1));
    let large = account.try_take(70, 70).unwrap();
    assert_eq!(large.bytes(), 70);
    assert!(account.try_take(1, 1).is_none(), "over its limit, it gets nothing more");
    drop(large);
    assert_eq!(account.try_take(500, 500).unwrap().bytes(), 75, "more than all is all but the kept part");
}

#[test]
fn hoarders_leave_something_for_the_next_one() {
    let budget = Budget::new(1000);
    let mut kept = Vec::new();
    for _ in 0..5 {
        let account = budget.account(1000, of(1));
        while let Some(grant) = account.try_take(1, 1) {
            kept.push(grant);
        }
    }
    assert!(budget.used() < 1000, "{}", budget.used());
    assert!(budget.account(1000, of(1)).try_take(10, 10).is_some());
}

#[test]
fn dozens_that_never_let_go_leave_enough_for_one_that_reads() {
    let budget = Budget::new(256 * MIB);
    let mut kept = Vec::new();
    for _ in 0..64 {
        let account = budget.account(32 * MIB, of(1));
        while let Some(grant) = account.try_take(64 * 1024, MIB) {
            kept.push(grant);
        }
    }
    let reader = budget.account(32 * MIB, of(1));
    assert!(reader.try_take(64 * 1024, MIB).is_some_and(|grant| grant.bytes() >= 128 * 1024));
}

#[tokio::test]
async fn a_waiter_goes_on_when_bytes_are_freed() {
    let budget = Budget::new(100);
    let (holder, waiter) = (budget.account(100, of(1)), budget.account(100, of(1)));
    let grant = holder.take(75).await;
    let wait = tokio::spawn(async move { waiter.take_some(20, 50).await.bytes() });
    tokio::task::yield_now().await;
    drop(grant);
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap(), 50);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_overdraft_is_counted_and_paid_back() {
    let budget = Budget::new(100);
    let account = budget.account(100, of(1));
    let mut grant = account.try_take(10, 10).unwrap();
    grant.settle(250);
    assert_eq!(budget.used(), 250);
    assert!(budget.account(100, of(1)).try_take(1, 1).is_none());
    drop(grant);
    assert_eq!(budget.used(), 0);
}

#[test]
fn large_grants_leave_the_kept_part_to_small_ones() {
    let budget = Budget::new(128 * MIB);
    let (one, two, three) = (budget.account(MIB, of(1)), budget.account(MIB, of(2)), budget.account(MIB, of(3)));
    let _large = one.try_take(64 * MIB, 64 * MIB).unwrap();
    assert!(two.try_take(64 * MIB, 64 * MIB).is_none(), "32 MiB are kept");
    let _rest = two.try_take(32 * MIB, 32 * MIB).unwrap();
    assert!(three.try_take(MIB, MIB).is_none());
    assert!(three.try_take(LITTLE, LITTLE).is_some());
}

#[tokio::test]
async fn an_announced_message_holds_what_has_come_of_it() {
    let budget = Budget::new(128 * MIB);
    let silent: Vec<_> = (0..200)
        .map(|number| {
            let account = budget.account(32 * MIB, of(number));
            now_or_never(account.begin(64 * MIB)).unwrap()
        })
        .collect();
    assert_eq!(budget.used(), 200 * 64 * 1024, "64 KiB each, not 64 MiB");
    let honest = budget.account(32 * MIB, of(201));
    let mut frame = now_or_never(honest.begin(8 * MIB)).unwrap();
    while frame.granted() < 8 * MIB {
        now_or_never(frame.grow_on()).expect("the silent ones are in nobody's way");
    }
    drop((silent, frame.whole()));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn messages_that_grow_beside_each_other_are_all_finished() {
    // 40 messages of 8 MiB into 96 MiB, a step at a time in turn: nobody may be stuck with a part.
    let budget = Budget::new(128 * MIB);
    let accounts: Vec<_> = (0..40).map(|number| budget.account(32 * MIB, of(number))).collect();
    let mut begun: Vec<Option<Arriving>> = accounts.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..40).collect();
    while !left.is_empty() {
        let mut moved = false;
        left.retain(|at| match &mut begun[*at] {
            None => {
                begun[*at] = now_or_never(accounts[*at].begin(8 * MIB));
                moved |= begun[*at].is_some();
                true
            }
            Some(arriving) => {
                moved |= now_or_never(arriving.grow_on()).is_some();
                let whole = arriving.granted() == 8 * MIB;
                if whole {
                    begun[*at] = None;
                }
                !whole
            }
        });
        assert!(moved, "{} messages wait for each other", left.len());
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_address_leaves_large_messages_of_others_room() {
    let budget = Budget::new(128 * MIB);
    let mut held = Vec::new();
    loop {
        let account = budget.account(32 * MIB, of(1));
        let Some(grant) = account.try_take(MIB, MIB) else { break };
        held.push(grant);
    }
    assert_eq!(held.len(), 72, "three quarters of 96 MiB");
    assert!(budget.account(32 * MIB, of(2)).try_take(8 * MIB, 8 * MIB).is_some());
}

/// An account that holds `bytes`, whose peer must send or take something next.
fn holder(budget: &Arc<Budget>, number: u8, bytes: usize) -> (Arc<Account>, Grant) {
    let account = budget.account(64 * MIB, of(number));
    let grant = account.try_take(bytes, bytes).unwrap();
    account.peers_turn(true);
    (account, grant)
}

fn is_evicted(account: &Account) -> bool {
    account.evicted.borrow().is_some()
}

/// Looks every 250 ms for so many seconds; each time, `then` lets peers move.
fn press_for(budget: &Budget, began: Instant, seconds: u64, mut then: impl FnMut()) -> Instant {
    let mut now = began;
    while now < began + Duration::from_secs(seconds) {
        now += Duration::from_millis(250);
        then();
        budget.press(now);
    }
    now
}

#[test]
fn under_pressure_the_one_that_holds_most_and_moves_least_goes_first() {
    let budget = Budget::new(128 * MIB);
    let (silent, _grant_1) = holder(&budget, 1, 50 * MIB);
    let (slow, _grant_2) = holder(&budget, 2, 20 * MIB);
    let (honest, _grant_3) = holder(&budget, 3, 20 * MIB);
    let (busy, _grant_4) = holder(&budget, 4, 6 * MIB);
    busy.peers_turn(false);
    let began = Instant::now();
    let step = || {
        slow.moved(10 * 1024);
        honest.moved(16 * 1024);
    };
    press_for(&budget, began, 60, step);
    assert!(!is_evicted(&silent), "nobody waits");
    let waiting = budget.account(MIB, of(5));
    let now = began + Duration::from_secs(60);
    let _place = Place::new(&waiting, Waiter::Begin { least: MIB }, now);
    let now = press_for(&budget, now, 1, step);
    assert!(!is_evicted(&silent), "a pause of less than two seconds is nobody's end");
    press_for(&budget, now, 2, step);
    assert!(is_evicted(&silent));
    assert!(!is_evicted(&slow) && !is_evicted(&honest) && !is_evicted(&busy), "what was needed is free");
    assert_eq!(budget.evictions(), 1);
}

#[test]
fn a_pace_above_the_floor_is_kept_until_others_have_waited_long() {
    let budget = Budget::new(128 * MIB);
    let (large, _grant_1) = holder(&budget, 1, 60 * MIB);
    let (small, _grant_2) = holder(&budget, 2, MIB);
    let waiting = budget.account(64 * MIB, of(3));
    let began = Instant::now();
    let _place = Place::new(&waiting, Waiter::Grant { least: 40 * MIB }, began);
    let step = || {
        large.moved(16 * 1024);
        small.moved(16 * 1024);
    };
    let now = press_for(&budget, began, 9, step);
    assert!(!is_evicted(&large));
    press_for(&budget, now, 4, step);
    assert!(is_evicted(&large), "60 MiB at 64 KiB/s take a quarter of an hour");
    assert!(!is_evicted(&small), "1 MiB at that pace takes 16 s");
}

#[test]
fn who_waits_because_of_its_own_account_presses_nobody() {
    let budget = Budget::new(128 * MIB);
    let (silent, _grant_1) = holder(&budget, 1, 8 * MIB);
    let own = budget.account(MIB, of(2));
    let _held = own.try_take(MIB, MIB).unwrap();
    let began = Instant::now();
    let _place = Place::new(&own, Waiter::Grant { least: MIB }, began);
    press_for(&budget, began, 60, || {});
    assert!(!is_evicted(&silent));
}

#[test]
fn what_is_piled_up_behind_a_request_that_waits_gives_way() {
    let budget = Budget::new(128 * MIB);
    let (piled, _grant_1) = holder(&budget, 1, 60 * MIB);
    let (consumer, _grant_2) = holder(&budget, 2, 1024);
    for account in [&piled, &consumer] {
        account.peers_turn(false);
        account.asked_to_wait(true);
    }
    let waiting = budget.account(64 * MIB, of(3));
    let began = Instant::now();
    let _place = Place::new(&waiting, Waiter::Grant { least: 64 * MIB }, began);
    press_for(&budget, began, 60, || {});
    assert!(is_evicted(&piled) && !is_evicted(&consumer));
}

#[test]
fn requests_that_wait_for_an_answer_give_way() {
    let budget = Budget::new(128 * MIB);
    let (asker, grant) = holder(&budget, 1, 60 * MIB);
    asker.peers_turn(false);
    let waiting = budget.account(64 * MIB, of(3));
    let began = Instant::now();
    let _place = Place::new(&waiting, Waiter::Grant { least: 64 * MIB }, began);
    let now = press_for(&budget, began, 30, || {});
    assert!(!is_evicted(&asker), "it is the server's work");
    let grant = grant.asking();
    press_for(&budget, now, 5, || {});
    assert!(is_evicted(&asker));
    drop(grant);
    assert_eq!(asker.asking.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_message_that_waits_for_the_accounts_own_work_presses_nobody() {
    let budget = Budget::new(128 * MIB);
    let (slow, _grant) = holder(&budget, 1, 8 * MIB);
    let own = budget.account(32 * MIB, of(2));
    let work = own.try_take(30 * MIB, 30 * MIB).unwrap();
    let mut begin = Box::pin(own.begin(8 * MIB));
    assert!(now_or_never(&mut begin).is_none());
    press_for(&budget, Instant::now(), 60, || {});
    assert!(!is_evicted(&slow));
    drop(work);
    assert!(now_or_never(&mut begin).is_some());
}

#[test]
fn slow_peers_of_ones_own_address_give_way_as_well() {
    let budget = Budget::new(128 * MIB);
    // What was read was larger than what was asked for.
    let mut slow: Vec<_> = (0..7).map(|_| holder(&budget, 1, 8 * MIB)).collect();
    for (_, grant) in &mut slow {
        grant.settle(17 * MIB);
    }
    let same = budget.account(32 * MIB, of(1));
    assert!(same.try_take(64 * 1024, 64 * 1024).is_none(), "the address has its share");
    assert!(budget.account(32 * MIB, of(2)).try_take(64 * 1024, 64 * 1024).is_some(), "others have what is left");
    let began = Instant::now();
    let _place = Place::new(&same, Waiter::Grant { least: 64 * 1024 }, began);
    press_for(&budget, began, 3, || {});
    assert_eq!(budget.evictions(), 1, "one is enough");
}

#[test]
fn where_nobody_is_slow_and_nothing_moves_the_message_that_began_last_gives_way() {
    let budget = Budget::new(128 * MIB);
    let (first, _grant_1) = holder(&budget, 1, 48 * MIB);
    let (last, _grant_2) = holder(&budget, 2, 48 * MIB);
    first.peers_turn(false);
    last.peers_turn(false);
    let began = Instant::now();
    let _places = [&first, &last].map(|account| Place::new(account, Waiter::Grow { step: 16 * MIB }, began));
    let now = press_for(&budget, began, 19, || {});
    assert_eq!(budget.evictions(), 0);
    press_for(&budget, now, 5, || {});
    assert!(is_evicted(&last) && !is_evicted(&first));
}

#[tokio::test]
async fn an_evicted_account_hears_of_it_and_its_bytes_go_to_the_one_that_waits() {
    let budget = Budget::new(128 * MIB);
    let (silent, grant) = holder(&budget, 1, 90 * MIB);
    let connection = tokio::spawn(async move {
        let evicted = silent.evicted().await;
        drop(grant);
        evicted
    });
    let waiting = budget.account(64 * MIB, of(2));
    let took = tokio::time::timeout(Duration::from_secs(60), waiting.take(40 * MIB)).await.unwrap();
    assert_eq!(took.bytes(), 40 * MIB);
    assert_eq!(connection.await.unwrap(), Evicted { held: 90 * MIB, pace: 0 });
}
