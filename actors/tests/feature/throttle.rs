//! A tenant is held to its rate, alone, and its rules can be others from one moment to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headworks_actors::{
    AckLevel, Answer, Code, Error, Event, Fault, FlushReason, IngressHandle, OverflowPolicy, Policy, TenantSpec,
    ThrottlePolicy, What, WhenFull, WhenOver, WindowPolicy,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::rig::{Rig, World, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// A rule for rates.
fn at_rate(events_per_second: u64, burst_events: u64, when_over: WhenOver) -> ThrottlePolicy {
    ThrottlePolicy { events_per_second, burst_events, when_over, ..ThrottlePolicy::default() }
}

fn policy(throttle: ThrottlePolicy) -> Policy {
    Policy { throttle, ..windows_of(100) }
}

/// A system whose tenant `a` alone is held to a rate.
fn only_a(throttle: ThrottlePolicy) -> Rig {
    let own = TenantSpec::from(tenant("a")).policy(policy(throttle));
    Rig::with(windows_of(100), |builder| builder.tenant(own))
}

/// Feeds events of one tenant without end, a read of `each` after the other.
fn flood(ingress: IngressHandle, name: &'static str, each: usize) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        for n in 0.. {
            ingress.feed(lines(events(name, n * each..(n + 1) * each))).await.unwrap();
            pass(millis(1)).await;
        }
    })
}

fn accepted(rig: &Rig, name: &str) -> u64 {
    rig.system.tenant(&tenant(name)).map_or(0, |tenant| tenant.snapshot().counters.accepted)
}

#[test]
fn a_flood_passes_at_the_rate_and_never_above_rate_times_time_and_the_burst() {
    virtual_time(async {
        for (rate, burst, each) in [(100, 0, 7), (100, 5, 500), (1_000, 50, 3_000), (3, 1, 40), (4_000, 200, 1_000)] {
            let rig = only_a(at_rate(rate, burst, WhenOver::Delay));
            let begun = Instant::now();
            let flooding = flood(rig.ingress().await, "a", each);
            let burst = if burst == 0 { rate } else { burst };
            let mut seen = vec![];
            for _ in 0..300 {
                pass(millis(100)).await;
                let (now, accepted) = (begun.elapsed(), accepted(&rig, "a"));
                let most = (now.as_millis() as u64 * rate) / 1_000 + burst;
                assert!(accepted <= most, "{accepted} of {most} after {now:?} at {rate}");
                seen.push(accepted);
            }
            for window in seen.windows(101).step_by(10).skip(2) {
                let (got, want) = (window[100] - window[0], rate * 10);
                assert!(got.abs_diff(want) <= (want / 100).max(1), "{got} and not {want} in ten seconds");
            }
            // Neither refused nor lost: the sender waits.
            assert_eq!(rig.snapshot("a").counters.throttled, 0);
            flooding.abort();
            pass(millis(20)).await;
            rig.drained().await;
            let stored = rig.stored("a");
            assert_eq!(stored, events("a", 0..stored.len()), "in order, without a gap");
        }
    });
}

#[test]
fn bytes_are_held_to_their_rate_and_one_event_above_the_burst_still_passes() {
    virtual_time(async {
        let throttle = ThrottlePolicy { bytes_per_second: 1_000, burst_bytes: 200, ..ThrottlePolicy::default() };
        let rig = only_a(throttle);
        let ingress = rig.ingress().await;
        let long = |n: usize| format!(r#"{{"tenant":"a","n":{n},"x":"{}"}}"#, "x".repeat(970));
        let size = long(0).len() as u64;
        let begun = Instant::now();
        for n in 0..10 {
            ingress.feed(lines([long(n)])).await.unwrap();
        }
        let expected = Duration::from_millis(size * 9);
        let took = begun.elapsed();
        assert!(took >= expected && took < expected + millis(20 * 9), "{took:?} and not {expected:?}");
        rig.drained().await;
        assert_eq!(rig.stored("a"), (0..10).map(long).collect::<Vec<_>>());
    });
}

#[test]
fn what_is_above_the_rate_is_refused_counted_and_told_once_a_chunk() {
    virtual_time(async {
        let rig = only_a(at_rate(10, 0, WhenOver::Reject));
        let ingress = rig.ingress().await;
        for round in 0..3 {
            ingress
                .feed(lines(events("a", round * 25..(round + 1) * 25).into_iter().chain([event("b", round)])))
                .await
                .unwrap();
            pass(millis(500)).await;
        }
        rig.drained().await;
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.received, counters.accepted, counters.throttled), (75, 20, 55));
        assert_eq!(rig.source("test").throttled, 55);
        assert_eq!(rig.stored("a"), events("a", (0..10).chain(25..30).chain(50..55)), "the first of each read pass");
        assert_eq!(rig.stored("b"), events("b", 0..3));
        let report = rig.system.report();
        let told: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::Throttled).collect();
        assert_eq!((told.len(), told[0].events, told[0].failures), (1, 55, 3));
        assert!(told[0].sample.contains("throttle.events_per_second = 10"), "{}", told[0].sample);
        assert!(rig.log_of("a").iter().all(|entry| entry.cause.is_none()), "a rate is no matter of the supervisor");
        assert!(rig.letters.all().is_empty());
    });
}

#[test]
fn a_sender_that_numbers_its_frames_is_told_which_were_refused_and_when_to_come_again() {
    virtual_time(async {
        for level in AckLevel::ALL {
            let world = World::new();
            let rig = world.start(policy(at_rate(4, 2, WhenOver::Reject)));
            let mut conn = rig.connect("s", 1, level).await;
            conn.ingress
                .feed(lines([event("a", 1), event("b", 1), event("a", 2), event("a", 3), event("a", 4)]))
                .await
                .unwrap();
            rig.tenant("a").flush();
            rig.tenant("b").flush();
            pass(millis(100)).await;
            let (mut acks, mut nacks) = (vec![], vec![]);
            while let Ok(Some(answers)) = tokio::time::timeout(secs(1), conn.answers.next()).await {
                for answer in answers {
                    match answer {
                        Answer::Ack(range) => acks.extend(range),
                        Answer::Nack(range, code, after) => nacks.push((range, code, after)),
                    }
                }
            }
            acks.sort_unstable();
            assert_eq!(acks, [1, 2, 3], "{level}");
            assert_eq!(nacks, [(4..=5, Code::Throttled, Some(millis(250)))], "{level}");
            // Final for the positions: the same events come again as others.
            conn.ingress.feed(lines([event("a", 3)])).await.unwrap();
            rig.tenant("a").flush();
            assert_eq!(conn.acks().await, [6]);
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn numbered_frames_that_are_delayed_keep_their_positions() {
    virtual_time(async {
        let mut world = World::new();
        let rig = world.start(Policy { throttle: at_rate(10, 0, WhenOver::Delay), ..windows_of(1) });
        let conn = rig.connect("s", 1, AckLevel::Stored).await;
        let ingress = conn.ingress.clone();
        let read: Vec<_> = (0..30).map(|n| event(["a", "b"][n % 2], n)).collect();
        let all = read.clone();
        let feeding = tokio::task::spawn_local(async move { ingress.feed(lines(read)).await });
        pass(millis(120)).await;
        assert!(!feeding.is_finished());
        world.crash(rig).await;
        let rig = world.start(windows_of(1));
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        let last = usize::try_from(conn.answers.last()).unwrap();
        assert_eq!(last, 0, "its read was not over");
        conn.ingress.feed(lines(all[last..].to_vec())).await.unwrap();
        assert_eq!(conn.acks().await, (1..=30).collect::<Vec<_>>());
        drop(conn);
        for name in ["a", "b"] {
            let expected: Vec<_> =
                all.iter().filter(|event| event.contains(&format!("{name:?},\"n\""))).cloned().collect();
            assert_eq!(rig.stored(name), expected, "each once, in order");
        }
        world.end(rig).await;
    });
}

#[test]
fn a_caller_learns_what_was_refused_and_when_to_come_again() {
    virtual_time(async {
        let rig = only_a(at_rate(2, 0, WhenOver::Reject));
        let made = |n: usize| (0..n).map(|_| Event::new(tenant("a"), None, "x")).collect::<Vec<_>>();
        let mut receipt = rig.system.send(made(5)).await.unwrap();
        rig.tenant("a").flush();
        let settlement = receipt.settled().await;
        assert_eq!((settlement.stored, settlement.refused[&Code::Throttled]), (2, 3));
        assert_eq!(settlement.retry_after, Some(millis(500)));
        pass(millis(500)).await;
        let mut receipt = rig.system.send(made(1)).await.unwrap();
        rig.tenant("a").flush();
        assert_eq!((receipt.settled().await.stored, receipt.settled().await.retry_after), (1, None));
        drop(receipt);
        rig.drained().await;
    });
}

#[test]
fn a_throttled_tenant_holds_a_read_of_a_shared_connection_for_no_longer_than_its_policy_says() {
    virtual_time(async {
        let rig = only_a(ThrottlePolicy { delay_for: secs(2), ..at_rate(1, 1, WhenOver::Delay) });
        let ingress = rig.ingress().await;
        let mixed = || lines(events("a", 0..10).into_iter().chain(events("b", 0..100)));
        let feeding = {
            let ingress = ingress.clone();
            tokio::task::spawn_local(async move { ingress.feed(mixed()).await.map(drop) })
        };
        pass(millis(1)).await;
        assert_eq!(accepted(&rig, "b"), 100, "the others of the same read go on at once");
        assert!(!feeding.is_finished());
        let begun = Instant::now();
        feeding.await.unwrap().unwrap();
        let held = begun.elapsed();
        assert!(held >= millis(1_990) && held < millis(2_050), "{held:?}");
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.throttled), (3, 7));
        assert_eq!(rig.source("test").throttled, 7);
        rig.drained().await;
    });
}

#[test]
fn the_connection_of_one_tenant_is_held_for_as_long_as_it_takes_and_others_do_not_feel_it() {
    virtual_time(async {
        let rig = only_a(ThrottlePolicy { delay_for: secs(2), ..at_rate(1, 1, WhenOver::Delay) });
        let (own, other) = (rig.ingress_of("own").await, rig.ingress_of("other").await);
        let feeding = tokio::task::spawn_local(async move { own.feed(lines(events("a", 0..60))).await.map(drop) });
        for n in 0..50 {
            let begun = Instant::now();
            other.feed(lines([event("b", n)])).await.unwrap();
            assert_eq!(begun.elapsed(), Duration::ZERO);
            pass(secs(1)).await;
        }
        assert!(!feeding.is_finished());
        feeding.await.unwrap().unwrap();
        assert_eq!(rig.snapshot("a").counters.throttled, 0);
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..60));
    });
}

#[test]
fn mute_throttle_and_overflow_together_keep_the_accounting_at_every_moment() {
    virtual_time(async {
        let overflow =
            OverflowPolicy { max_in_flight: 4 << 10, when_full: WhenFull::Reject, ..OverflowPolicy::default() };
        let rules = Policy { overflow, throttle: at_rate(200, 50, WhenOver::Reject), ..windows_of(10) };
        let is_stuck = Arc::new(AtomicBool::new(false));
        let stuck = is_stuck.clone();
        let stall = move || if stuck.load(Ordering::Relaxed) { Fault::Stall } else { Fault::None };
        let (rig, store) =
            Rig::faulty(rules, move |batch, _| if batch.tenant().as_str() == "a" { stall() } else { Fault::None });
        let ingress = rig.ingress().await;
        for round in 0..200 {
            let n = round * 10;
            is_stuck.store(round > 100, Ordering::Relaxed);
            if round % 20 == 0 {
                rig.system.mute(&tenant("a"));
            } else if round % 20 == 3 {
                rig.system.unmute(&tenant("a"));
            }
            let mixed = events("a", n..n + 10).into_iter().chain(events("b", n..n + 3)).chain(["oops".to_owned()]);
            ingress.feed(lines(mixed)).await.unwrap();
            for name in ["a", "b"] {
                assert!(rig.snapshot(name).adds_up(), "{:?}", rig.snapshot(name));
            }
            assert!(rig.source("test").adds_up(), "{:?}", rig.source("test"));
            pass(millis(round as u64 % 60)).await;
        }
        let counters = rig.snapshot("a").counters;
        assert!(counters.muted > 0 && counters.throttled > 0 && counters.rejected > 0, "{counters:?}");
        assert_eq!(counters.received, 2_000);
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a").len() as u64, rig.snapshot("a").counters.accepted);
    });
}

#[test]
fn a_restart_of_the_actors_and_a_passivation_do_not_bring_the_burst_anew() {
    virtual_time(async {
        let rig = only_a(at_rate(1, 10, WhenOver::Reject));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..12))).await.unwrap();
        rig.tenant("a").flush();
        until("the batch", || rig.stored("a").len() == 10).await;
        rig.tenant("a").inject_panic();
        until("the restart", || !rig.logged("a", What::Restarted).is_empty()).await;
        ingress.feed(lines(events("a", 12..20))).await.unwrap();
        assert_eq!(accepted(&rig, "a"), 10);
        rig.tenant("a").passivate().await.unwrap();
        ingress.feed(lines(events("a", 20..30))).await.unwrap();
        assert_eq!(accepted(&rig, "a"), 10);
        rig.drained().await;
    });
}

#[test]
fn a_drain_lets_in_what_waits_for_its_rate() {
    virtual_time(async {
        let rig = only_a(at_rate(1, 1, WhenOver::Delay));
        let ingress = rig.ingress().await;
        let feeding = tokio::task::spawn_local(async move { ingress.feed(lines(events("a", 0..500))).await.map(drop) });
        pass(secs(3)).await;
        let begun = Instant::now();
        rig.drained().await;
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        feeding.await.unwrap().unwrap();
        assert_eq!(rig.stored("a"), events("a", 0..500));
    });
}

#[test]
fn a_rate_is_changed_turned_off_and_on_while_events_wait_for_it() {
    virtual_time(async {
        let rig = only_a(at_rate(10, 1, WhenOver::Delay));
        let flooding = flood(rig.ingress().await, "a", 100);
        let measure = async |seconds: u64| {
            let before = accepted(&rig, "a");
            pass(secs(seconds)).await;
            accepted(&rig, "a") - before
        };
        pass(secs(1)).await;
        assert_eq!(measure(10).await, 100);
        let a = rig.tenant("a");
        let set = |throttle| a.set_policy(policy(throttle)).unwrap();
        set(at_rate(500, 25, WhenOver::Delay));
        let up = measure(10).await;
        assert!(up.abs_diff(5_000) <= 50, "{up}");
        set(at_rate(20, 0, WhenOver::Delay));
        assert!(measure(10).await.abs_diff(200) <= 3, "the old debt starves nobody");
        set(ThrottlePolicy::default());
        let begun = Instant::now();
        until("many events", || accepted(&rig, "a") > 20_000).await;
        assert!(begun.elapsed() < secs(1), "without a rate it is as fast as it comes");
        set(at_rate(30, 0, WhenOver::Delay));
        let on = measure(10).await;
        assert!(on <= 300 + 15, "back on, it has no burst anew: {on}");
        set(at_rate(30, 0, WhenOver::Reject));
        pass(millis(100)).await;
        assert!(rig.snapshot("a").counters.throttled > 0, "what waited is refused at once");
        flooding.abort();
        let logged = rig.logged("a", What::PolicyChanged);
        assert_eq!(logged.len(), 5);
        let told = &*logged[0].cause.as_ref().unwrap().detail;
        assert_eq!(told, "throttle.burst_events = 25, was 1; throttle.events_per_second = 500, was 10");
        pass(millis(20)).await;
        rig.drained().await;
    });
}

#[test]
fn the_open_window_obeys_the_bounds_it_is_given() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1_000));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..10))).await.unwrap();
        pass(secs(1)).await;
        let a = rig.tenant("a");
        let change = |change: fn(&mut WindowPolicy)| {
            let mut policy = a.policy();
            change(&mut policy.window);
            a.set_policy(policy).unwrap();
        };
        change(|window| window.max_events = 4);
        pass(millis(5)).await;
        assert_eq!(rig.stored("a").len(), 8, "two windows are full by the new bound");
        change(|window| window.max_age = secs(3));
        pass(millis(1_900)).await;
        assert_eq!(rig.stored("a").len(), 8);
        pass(millis(200)).await;
        assert_eq!(rig.stored("a").len(), 10, "three seconds after the first event");
        assert_eq!(rig.snapshot("a").counters.flushes_for(FlushReason::Age), 1);
        change(|window| window.max_age = secs(60));
        ingress.feed(lines(events("a", 10..11))).await.unwrap();
        pass(secs(59)).await;
        assert_eq!(rig.stored("a").len(), 10);
        change(|window| window.max_age = secs(10));
        pass(millis(5)).await;
        assert_eq!(rig.stored("a").len(), 11, "it was due already");
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..11));
    });
}

#[test]
fn rules_for_a_tenant_that_is_not_known_yet_are_kept_and_a_spec_of_its_own_comes_before_them() {
    virtual_time(async {
        let rig = Rig::new(windows_of(100));
        for name in ["a", "b"] {
            let mut policy = rig.system.policy(&tenant(name));
            policy.window.max_events = 2;
            rig.system.set_policy(&tenant(name), policy).unwrap();
            assert_eq!(rig.logged(name, What::PolicyChanged).len(), 1);
        }
        assert!(rig.system.tenants().is_empty());
        assert_eq!(rig.system.policy(&tenant("c")), windows_of(100));
        rig.system.spawn(TenantSpec::from(tenant("b")).policy(windows_of(3))).await.unwrap();
        rig.ingress().await.feed(lines(events("a", 0..7).into_iter().chain(events("b", 0..7)))).await.unwrap();
        pass(millis(5)).await;
        assert_eq!((rig.stored("a").len(), rig.stored("b").len()), (6, 6));
        assert_eq!(rig.snapshot("a").counters.batches, 3);
        assert_eq!(rig.snapshot("b").counters.batches, 2);
        rig.drained().await;
    });
}

#[test]
fn rules_that_cannot_work_change_nothing() {
    virtual_time(async {
        let rig = Rig::new(windows_of(100));
        let mut policy = windows_of(100);
        policy.throttle = at_rate(1_000, 1, WhenOver::Delay);
        let Err(Error::InvalidPolicy(why)) = rig.system.set_policy(&tenant("a"), policy) else {
            panic!("it is refused")
        };
        assert!(why.starts_with("tenant a: throttle.burst_events is 1, but must be at least 50"), "{why}");
        assert_eq!(rig.system.policy(&tenant("a")), windows_of(100));
        assert!(rig.log_of("a").is_empty());
        rig.drained().await;
    });
}
