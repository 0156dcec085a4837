use std::sync::Arc;

use super::*;

const HOUR: u64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// Some time in the life of a server.
const T: TimestampMs = 1_800_000_000_000;

fn clock(at: TimestampMs, seen: Option<LastSeen>) -> (Arc<ManualClock>, TrustedClock, Option<ClockNews>) {
    let manual = Arc::new(ManualClock::at(at));
    let trusted = TrustedClock::new(manual.clone());
    let news = trusted.begin(seen, HOUR);
    (manual, trusted, news)
}

fn seen(time_ms: TimestampMs) -> Option<LastSeen> {
    Some(LastSeen { time_ms, wall_ms: time_ms, doubted_for_ms: 0 })
}

#[test]
fn a_leap_of_the_wall_clock_changes_no_time_until_it_is_believed() {
    for leap in [2 * DAY_MS, -2 * DAY_MS, 3_600_000, -3_600_000] {
        let (manual, trusted, _) = clock(T, None);
        manual.jump(leap);
        assert_eq!((trusted.now_ms(), trusted.steady_ms()), (T, T), "also before it is seen");
        assert_eq!(trusted.look(), Some(ClockNews::Doubted { ahead_ms: leap, at_start: false }));
        for _ in 0..59 {
            manual.advance(60_000);
            assert_eq!(trusted.look(), None);
        }
        let now = T + 59 * 60_000;
        assert_eq!((trusted.now_ms(), trusted.steady_ms()), (now, now));
        assert_eq!(trusted.final_ms(), now.min(now + leap), "what is final goes by the earlier of both");
        assert_eq!(trusted.stamp_ms(), now.max(now + leap), "and records are never too old");
        manual.advance(60_000);
        assert_eq!(trusted.look(), Some(ClockNews::Believed { step_ms: leap }));
        let now = now + 60_000;
        assert_eq!((trusted.now_and_steps(), trusted.steady_ms()), ((now + leap, leap), now));
        assert_eq!((trusted.final_ms(), trusted.is_doubted()), (now + leap, false));
    }
}

#[test]
fn a_leap_that_is_taken_back_has_never_been() {
    let (manual, trusted, _) = clock(T, None);
    manual.jump(2 * DAY_MS);
    trusted.look();
    manual.advance(15_000);
    trusted.look();
    manual.jump(-2 * DAY_MS);
    assert_eq!(trusted.look(), Some(ClockNews::Returned));
    assert_eq!((trusted.now_and_steps(), trusted.final_ms()), ((T + 15_000, 0), T + 15_000));
}

#[test]
fn each_further_leap_begins_the_quarantine_anew_and_a_confirmation_ends_it() {
    let (manual, trusted, _) = clock(T, None);
    for _ in 0..5 {
        manual.jump(DAY_MS);
        assert!(matches!(trusted.look(), Some(ClockNews::Doubted { .. })));
        manual.advance(HOUR as u32 - 1);
        assert_eq!(trusted.look(), None);
    }
    assert_eq!(trusted.confirm(), Some(ClockNews::Believed { step_ms: 5 * DAY_MS }));
    assert_eq!((trusted.confirm(), trusted.look()), (None, None));
}

#[test]
fn small_differences_are_followed_slowly_and_the_time_never_goes_back() {
    for jump in [240_000, -240_000, 1, -1] {
        let (manual, trusted, _) = clock(T, None);
        manual.jump(jump);
        let mut last = trusted.now_ms();
        for step in 1..=30_000 {
            manual.advance(100);
            assert_eq!(trusted.look(), None);
            let now = trusted.now_ms();
            assert!((90..=110).contains(&(now - last)), "{} at step {step}", now - last);
            last = now;
        }
        assert_eq!(last, manual.wall_ms(), "it is caught up with");
        assert_eq!(trusted.now_and_steps().1, 0, "nothing of that is a step");
    }
}

#[test]
fn a_suspended_machine_has_lost_time_and_its_clock_is_not_doubted() {
    let (manual, trusted, _) = clock(T, None);
    manual.suspend(8 * HOUR as u32);
    assert_eq!(trusted.look(), None);
    assert_eq!(trusted.now_and_steps(), (T + 8 * HOUR as i64, 8 * HOUR as i64));
    assert_eq!((trusted.steady_ms(), trusted.final_ms()), (T, T + 8 * HOUR as i64));
}

#[test]
fn a_start_after_a_short_time_believes_and_one_after_a_long_time_decides_nothing() {
    for (down, doubted) in [(0, false), (3_600_000, false), (3_600_001, true), (8 * DAY_MS, true), (14 * DAY_MS, true)]
    {
        let (manual, trusted, news) = clock(T + down, seen(T));
        assert_eq!(news.is_some(), doubted, "{down}");
        assert_eq!(trusted.now_ms(), T + down, "delays end");
        assert_eq!(trusted.final_ms(), if doubted { T } else { T + down });
        // A deadline of the run before, and one that is set now.
        let now = T + down;
        assert_eq!((trusted.is_over(T - 10, T + 1), trusted.is_over(T - 10, T)), (down > 0 && !doubted, true));
        assert_eq!((trusted.is_over(now, now), trusted.is_over(now, now + 1)), (true, false));
        manual.advance(HOUR as u32);
        assert_eq!(trusted.look(), doubted.then_some(ClockNews::Believed { step_ms: 0 }));
        assert_eq!(trusted.final_ms(), T + down + HOUR as i64);
        assert!(trusted.is_over(T - 10, T + 1));
    }
}

#[test]
fn a_start_with_the_clock_behind_does_not_go_back_and_is_right_as_soon_as_the_clock_is() {
    // A dead battery: the clock begins in 1970 until a time server sets it.
    let (manual, trusted, news) = clock(5_000, seen(T));
    assert_eq!(news, Some(ClockNews::Doubted { ahead_ms: 5_000 - T, at_start: true }));
    assert_eq!((trusted.now_ms(), trusted.final_ms(), trusted.stamp_ms()), (T, 5_000, T));
    manual.advance(30_000);
    assert_eq!(trusted.look(), None);
    manual.jump(T + 600_000 - 35_000);
    assert_eq!(trusted.look(), Some(ClockNews::Returned));
    assert_eq!((trusted.now_ms(), trusted.final_ms()), (T + 600_000, T + 600_000));
    // A minute is a difference like any other.
    let (manual, trusted, news) = clock(T - 60_000, seen(T));
    assert_eq!((news, trusted.now_ms(), trusted.is_doubted()), (None, T, false));
    manual.advance(1000);
    assert_eq!((trusted.look(), trusted.now_ms()), (None, T + 900));
}

#[test]
fn a_clock_that_was_ahead_at_the_start_and_comes_back_is_right_at_once() {
    let (manual, trusted, _) = clock(T + 8 * DAY_MS, seen(T));
    manual.advance(30_000);
    manual.jump(-8 * DAY_MS);
    assert_eq!(trusted.look(), Some(ClockNews::Returned));
    assert_eq!(trusted.now_and_steps(), (T + 30_000, -8 * DAY_MS));
    assert_eq!((trusted.steady_ms(), trusted.final_ms()), (T + 8 * DAY_MS + 30_000, T + 30_000));
}

#[test]
fn the_quarantine_goes_on_over_restarts_as_long_as_the_clock_keeps_steady() {
    let mut last = seen(T);
    let mut wall = T + 14 * DAY_MS;
    let mut quarters = 0;
    loop {
        let (manual, trusted, news) = clock(wall, last);
        if quarters < 4 {
            assert!(matches!(news, Some(ClockNews::Doubted { at_start: true, .. })), "{quarters}");
        }
        manual.advance(HOUR as u32 / 4);
        let news = trusted.look();
        quarters += 1;
        if news.is_some() {
            break;
        }
        last = Some(trusted.seen());
        wall = manual.wall_ms() + 1000;
        assert!(quarters < 10);
    }
    assert_eq!(quarters, 4);
    // Another leap between two runs begins it anew.
    let (manual, trusted, _) = clock(wall, last);
    manual.advance(1000);
    trusted.look();
    assert!(trusted.describe().doubt.unwrap().steady_ms > HOUR / 2);
    let (_, trusted, _) = clock(wall + DAY_MS, last);
    assert_eq!(trusted.describe().doubt.unwrap().steady_ms, 0);
}

#[test]
fn without_a_quarantine_the_wall_clock_is_believed_at_once() {
    let manual = Arc::new(ManualClock::at(T + DAY_MS));
    let trusted = TrustedClock::new(manual.clone());
    assert_eq!((trusted.begin(seen(T), 0), trusted.final_ms()), (None, T + DAY_MS));
    manual.jump(DAY_MS);
    assert_eq!((trusted.look(), trusted.now_ms()), (Some(ClockNews::Believed { step_ms: DAY_MS }), T + 2 * DAY_MS));
}

#[test]
fn whatever_the_clocks_do_what_is_final_is_not_ahead_and_the_time_is_right_in_the_end() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let last = random.bool().then(|| T + random.i64(-20 * DAY_MS..20 * DAY_MS));
        let (manual, trusted, _) = clock(T, last.and_then(seen));
        let mut passed = 0;
        let began = trusted.final_ms();
        let steady = trusted.steady_ms();
        for _ in 0..100 {
            match random.u32(0..10) {
                0 => manual.jump(random.i64(-3 * DAY_MS..3 * DAY_MS)),
                1 => manual.jump(random.i64(-1000..1000)),
                _ => {
                    let ms = random.u32(0..20_000);
                    manual.advance(ms);
                    passed += i64::from(ms);
                }
            }
            trusted.look();
            if trusted.is_doubted() {
                assert!(trusted.final_ms() <= manual.wall_ms(), "seed {seed}");
            }
            let ran = trusted.steady_ms() - steady;
            assert!((ran - passed).abs() <= passed / 10 + 1000, "seed {seed}: {ran} for {passed}");
        }
        assert!(began <= T, "seed {seed}");
        manual.advance(2 * HOUR as u32);
        trusted.look();
        manual.advance(2 * HOUR as u32);
        trusted.look();
        assert_eq!((trusted.now_ms(), trusted.is_doubted()), (manual.wall_ms(), false), "seed {seed}");
    }
}
