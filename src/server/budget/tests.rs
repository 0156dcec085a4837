use std::time::Duration;

use super::*;

#[test]
fn bytes_taken_come_back_when_the_grant_is_dropped() {
    let budget = Budget::new(100);
    let account = budget.account(100);
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
    let account = budget.account(10);
    let large = account.try_take(80, 80).unwrap();
    assert_eq!(large.bytes(), 80);
    assert!(account.try_take(1, 1).is_none(), "over its limit, it gets nothing more");
    drop(large);
    assert_eq!(account.try_take(500, 500).unwrap().bytes(), 100, "more than all is all");
}

#[test]
fn hoarders_leave_something_for_the_next_one() {
    let budget = Budget::new(1000);
    let mut kept = Vec::new();
    for _ in 0..5 {
        let account = budget.account(1000);
        while let Some(grant) = account.try_take(1, 1) {
            kept.push(grant);
        }
    }
    assert!(budget.used() < 1000, "{}", budget.used());
    assert!(budget.account(1000).try_take(10, 10).is_some());
}

#[test]
fn dozens_that_never_let_go_leave_enough_for_one_that_reads() {
    const MIB: usize = 1024 * 1024;
    let budget = Budget::new(256 * MIB);
    let mut kept = Vec::new();
    for _ in 0..64 {
        let account = budget.account(32 * MIB);
        while let Some(grant) = account.try_take(64 * 1024, MIB) {
            kept.push(grant);
        }
    }
    let reader = budget.account(32 * MIB);
    assert!(reader.try_take(64 * 1024, MIB).is_some_and(|grant| grant.bytes() >= 128 * 1024));
}

#[tokio::test]
async fn a_waiter_goes_on_when_bytes_are_freed() {
    let budget = Budget::new(100);
    let (holder, waiter) = (budget.account(100), budget.account(100));
    let grant = holder.take(100).await;
    let wait = tokio::spawn(async move { waiter.take_some(20, 50).await.bytes() });
    tokio::task::yield_now().await;
    drop(grant);
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap(), 50);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_overdraft_is_counted_and_paid_back() {
    let budget = Budget::new(100);
    let account = budget.account(100);
    let mut grant = account.try_take(10, 10).unwrap();
    grant.settle(250);
    assert_eq!(budget.used(), 250);
    assert!(budget.account(100).try_take(1, 1).is_none());
    drop(grant);
    assert_eq!(budget.used(), 0);
}
