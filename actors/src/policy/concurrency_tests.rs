use proptest::prelude::*;

use super::*;

fn of(max_concurrency: u32) -> (Concurrency, Instant) {
    (Concurrency::new(StoreLimits { max_concurrency }), Instant::now())
}

/// One that has answered, after so long.
fn known(max_concurrency: u32, millis: u64) -> (Concurrency, Instant) {
    let (mut limit, now) = of(max_concurrency);
    limit.stored(Duration::from_millis(millis), 1_000, now);
    (limit, now)
}

#[test]
fn until_the_store_has_answered_nothing_but_the_maximum_limits_calls() {
    let (mut limit, now) = of(100);
    assert_eq!((fill(&mut limit, now).len(), limit.ask_after()), (100, None));
}

/// So many begin as may.
fn fill(limit: &mut Concurrency, now: Instant) -> Vec<Period> {
    let mut all = vec![];
    while limit.has_room(now) {
        all.push(limit.began(now));
    }
    all
}

#[test]
fn calls_that_hang_take_no_turns_away_from_others_for_long_and_the_maximum_holds() {
    let (mut limit, mut now) = known(40, 10);
    let first = fill(&mut limit, now);
    assert_eq!(first.len(), 16);
    now += Duration::from_millis(49);
    assert!(!limit.has_room(now));
    now += limit.ask_after().unwrap();
    assert_eq!(fill(&mut limit, now).len(), 16);
    now += limit.ask_after().unwrap();
    assert_eq!(fill(&mut limit, now).len(), 8);
    now += limit.ask_after().unwrap();
    assert!(!limit.has_room(now));
    first.into_iter().for_each(|call| limit.ended(call));
    assert_eq!(fill(&mut limit, now).len(), 16);
}

#[test]
fn a_store_that_always_takes_long_has_no_more_calls_for_it() {
    let (mut limit, mut now) = known(256, 3_000);
    for _ in 0..20 {
        let calls = fill(&mut limit, now);
        now += Duration::from_secs(3);
        for call in calls {
            limit.stored(Duration::from_secs(3), 1_000, now);
            limit.ended(call);
        }
    }
    let calls = fill(&mut limit, now);
    now += Duration::from_secs(6);
    assert!(!limit.has_room(now), "{}", calls.len());
}

#[test]
fn where_all_may_begin_at_once_nobody_has_to_ask_again() {
    assert_eq!(known(8, 10).0.ask_after(), None);
}

#[test]
fn refusals_count_from_a_tenth_of_the_answers_on_and_where_the_limit_is_used() {
    for (calls, refused, expected) in [(10, 0, 10), (20, 1, 10), (10, 2, 9), (4, 4, 10)] {
        let (mut limit, mut now) = of(10);
        let under_way: Vec<_> = (0..calls.min(10)).map(|_| limit.began(now)).collect();
        limit.stored(Duration::from_millis(10), 1_000, now);
        now += Duration::from_millis(1);
        for nth in 0..calls {
            if nth < refused {
                limit.overloaded(now);
            } else {
                limit.stored(Duration::from_millis(10), 1_000, now);
            }
        }
        now += Duration::from_millis(20);
        limit.stored(Duration::from_millis(10), 1_000, now);
        under_way.into_iter().for_each(|call| limit.ended(call));
        assert_eq!(fill(&mut limit, now).len(), expected, "{calls} {refused}");
    }
}

proptest! {
    /// However calls begin, end and hang: those under way are counted right, and never exceed the maximum.
    #[test]
    fn no_call_is_lost_or_counted_twice(
        max in 1..300u32,
        steps in prop::collection::vec((0..100usize, 0..4u8, 0..5_000u64, 0..1_000u64), 0..200),
    ) {
        let (mut limit, mut now) = of(max);
        let mut calls = vec![];
        for (many, what, took, gap) in steps {
            now += Duration::from_millis(gap);
            for nth in 0..many {
                match what {
                    0 => if limit.has_room(now) { calls.push(limit.began(now)); },
                    1 => limit.stored(Duration::from_millis(took), 100, now),
                    2 => limit.overloaded(now),
                    _ if calls.is_empty() => {}
                    _ => limit.ended(calls.swap_remove(nth * 7 % calls.len())),
                }
            }
            prop_assert_eq!(calls.len(), (limit.young + limit.older + limit.overdue) as usize);
            prop_assert!(calls.len() <= max as usize);
        }
        calls.into_iter().for_each(|call| limit.ended(call));
        prop_assert_eq!(limit.young + limit.older + limit.overdue, 0);
    }
}
