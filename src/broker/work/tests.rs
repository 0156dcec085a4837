use std::sync::Arc;

use super::queue::FairQueue;
use super::*;

/// Serves the queue for so many turns; how often each of the keys was served.
fn serve(queue: &mut FairQueue<u64>, turns: usize, keys: usize) -> Vec<usize> {
    let mut served = vec![0; keys];
    for _ in 0..turns {
        let (key, cost) = queue.pop().unwrap();
        served[key as usize] += 1;
        queue.charge(key, cost);
        queue.push(key, cost);
    }
    served
}

#[test]
fn a_key_with_expensive_work_gets_as_much_as_one_with_cheap_work() {
    let mut queue = FairQueue::default();
    for (key, cost) in [(0, 100), (1, 1), (2, 10)] {
        queue.push(key, cost);
    }
    let served = serve(&mut queue, 11_100, 3);
    for (served, fair) in served.iter().zip([100, 10_000, 1_000_usize]) {
        assert!(served.abs_diff(fair) <= fair / 10, "{served} of {fair}");
    }
}

#[test]
fn a_key_that_comes_waits_for_one_turn_of_each_other_at_most() {
    let mut queue = FairQueue::default();
    for key in 0..50 {
        queue.push(key, 1000);
    }
    serve(&mut queue, 5_000, 50);
    queue.push(50, 1);
    let mut turns = 0;
    loop {
        turns += 1;
        let (key, cost) = queue.pop().unwrap();
        if key == 50 {
            break;
        }
        queue.charge(key, cost);
        queue.push(key, cost);
    }
    assert!(turns <= 51, "{turns} turns");
    // And what it was spared while it was away it does not get now.
    queue.charge(50, 1);
    queue.push(50, 1);
    let served = serve(&mut queue, 1_100, 51);
    assert!(served[50] <= 1_090 && served[..50].iter().all(|turns| *turns <= 3), "{served:?}");
}

#[test]
fn work_of_a_key_is_done_in_its_order_whatever_the_others_do() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    println!("TIDELOG_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut queue = FairQueue::default();
    let (mut pushed, mut popped) = ([0_u64; 8], [0_u64; 8]);
    let mut waiting = 0;
    for _ in 0..20_000 {
        if rng.bool() || waiting == 0 {
            let key = rng.usize(0..8);
            queue.push(key as u64, pushed[key]);
            (pushed[key], waiting) = (pushed[key] + 1, waiting + 1);
        } else {
            let (key, number) = queue.pop().unwrap();
            assert_eq!(number, popped[key as usize]);
            (popped[key as usize], waiting) = (number + 1, waiting - 1);
            queue.charge(key, rng.u64(0..100));
        }
    }
    while let Some((key, number)) = queue.pop() {
        assert_eq!(number, popped[key as usize]);
        popped[key as usize] += 1;
    }
    assert_eq!(pushed, popped);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_done_and_a_stop_is_told() {
    let workers = Workers::start().unwrap();
    let count = lock(&workers.threads).len();
    let key = WorkKey::new();
    // All threads are kept busy until the gate opens.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let busy: Vec<_> = (0..count)
        .map(|_| {
            let (gate, key) = (Arc::clone(&gate), WorkKey::new());
            let work = move |_| drop(gate.1.wait_while(lock(&gate.0), |open| !*open));
            let workers = &workers;
            async move { workers.run(&key, work).await }
        })
        .collect();
    let done = Arc::new(AtomicU64::new(0));
    let counting = |done: &Arc<AtomicU64>| {
        let done = Arc::clone(done);
        move |_| done.fetch_add(1, Ordering::Relaxed)
    };
    let all = async {
        let busy = futures_util::future::join_all(busy);
        tokio::pin!(busy);
        assert!(futures_util::poll!(busy.as_mut()).is_pending());
        {
            let gone = workers.run(&key, counting(&done));
            tokio::pin!(gone);
            assert!(futures_util::poll!(gone.as_mut()).is_pending());
        }
        let stays = workers.run(&key, counting(&done));
        tokio::pin!(stays);
        assert!(futures_util::poll!(stays.as_mut()).is_pending());
        *lock(&gate.0) = true;
        gate.1.notify_all();
        assert_eq!(stays.await.unwrap(), 0, "the first that was done");
        busy.await
    };
    assert!(all.await.into_iter().all(|outcome| outcome.is_ok()));
    workers.stop();
    let refused = workers.run(&key, |_| ()).await.unwrap_err();
    assert_eq!((refused.kind(), done.load(Ordering::Relaxed)), (ErrorKind::ShuttingDown, 1));
}
