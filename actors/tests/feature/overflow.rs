//! A full tenant that drops its oldest events, and tenants that share one memory.

use headworks_actors::{
    AckLevel, BreakerPolicy, Code, Fault, OverflowPolicy, Policy, RetryPolicy, Settlement, TenantSpec, What, WhenFull,
    WindowPolicy,
};

use crate::rig::{Rig, World, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// Room for some forty events, in windows of five.
fn dropping() -> Policy {
    let overflow =
        OverflowPolicy { max_in_flight: 8 << 10, when_full: WhenFull::DropOldest, ..OverflowPolicy::default() };
    Policy { overflow, ..windows_of(5) }
}

/// The numbers of the events, as text.
fn numbers(events: &[String]) -> Vec<usize> {
    let number = |event: &String| event.split("\"n\":").nth(1).unwrap().trim_end_matches('}').parse().unwrap();
    events.iter().map(number).collect()
}

#[test]
fn the_newest_events_are_kept_in_order_and_what_was_cut_too() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(dropping(), Fault::Stall.always());
        let ingress = rig.ingress().await;
        for n in 0..200 {
            let fed = tokio::time::timeout(millis(1), ingress.feed(lines([event("a", n)]))).await;
            fed.expect("the sender is never held").unwrap();
            // The tenant gets its turn.
            pass(millis(2)).await;
            let snapshot = rig.snapshot("a");
            assert!(snapshot.adds_up(), "{snapshot:?}");
            assert!(snapshot.in_flight_bytes <= 8 << 10, "{snapshot:?}");
        }
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.rejected), (200, 0));
        let kept = 200 - usize::try_from(counters.shed).unwrap();
        assert!((20..60).contains(&kept), "{kept}");
        let report = rig.system.report();
        let shed: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::Shed).collect();
        assert_eq!(shed.iter().map(|entry| entry.events).sum::<u64>(), counters.shed);
        assert_eq!(rig.logged("a", What::Shedding).len(), 1, "once, not per chunk");
        assert_eq!(rig.logged("a", What::SheddingEnded).len(), 0);

        store.heal();
        until("there is room again", || !rig.logged("a", What::SheddingEnded).is_empty()).await;
        rig.drained().await;
        let ended = rig.logged("a", What::SheddingEnded);
        assert_eq!(ended.len(), 1);
        assert!(ended[0].cause.as_ref().unwrap().detail.contains(&format!("{} events", counters.shed)));
        // Two batches were cut before it was full; they are never touched.
        let expected: Vec<_> = (0..10).chain(200 - (kept - 10)..200).collect();
        assert_eq!(numbers(&rig.stored("a")), expected);
        assert_eq!(rig.snapshot("a").counters.shed, counters.shed);
        assert!(rig.letters.all().is_empty());
    });
}

#[test]
fn whole_chunks_go_and_the_rest_of_one_of_which_a_part_is_cut() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(dropping(), Fault::Stall.always());
        let ingress = rig.ingress().await;
        for n in 0..40 {
            // Seven events a chunk, five a batch: the second batch ends within the second chunk.
            ingress.feed(lines(events("a", n * 7..n * 7 + 7))).await.unwrap();
            pass(millis(2)).await;
            assert!(rig.snapshot("a").adds_up());
        }
        store.heal();
        rig.drained().await;
        let stored = numbers(&rig.stored("a"));
        assert_eq!(stored[..10], (0..10).collect::<Vec<_>>());
        assert_eq!(stored[10] % 7, 0, "it goes on with a whole chunk: {stored:?}");
        assert!(stored[10] > 14 && stored[10..].iter().copied().eq(stored[10]..280), "{stored:?}");
    });
}

#[test]
fn where_all_is_cut_new_events_are_refused_and_nothing_is_shed() {
    virtual_time(async {
        let policy = Policy { window: WindowPolicy { max_events: 1, ..dropping().window }, ..dropping() };
        let (rig, store) = Rig::faulty(policy, Fault::Stall.always());
        let ingress = rig.ingress().await;
        let long = |n: usize| format!(r#"{{"tenant":"a","n":{n},"x":"{}"}}"#, "x".repeat(3_000));
        for n in 0..2 {
            ingress.feed(lines([long(n)])).await.unwrap();
            pass(millis(2)).await;
        }
        let huge = format!(r#"{{"tenant":"a","n":2,"x":"{}"}}"#, "x".repeat(7_000));
        let fed = tokio::time::timeout(millis(1), ingress.feed(lines([huge]))).await;
        fed.expect("it does not wait").unwrap();
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.rejected, counters.shed), (2, 1, 0));
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a"), [long(0), long(1)]);
    });
}

#[test]
fn an_explicit_flush_and_a_drain_cut_all_that_waits() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(dropping(), Fault::Stall.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..30))).await.unwrap();
        pass(millis(2)).await;
        assert_eq!(rig.snapshot("a").batches_waiting, 2, "the rest can be shed");
        rig.tenant("a").flush();
        pass(millis(2)).await;
        assert_eq!((rig.snapshot("a").batches_waiting, rig.snapshot("a").window), (6, 0));
        ingress.feed(lines(events("a", 30..33))).await.unwrap();
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..33));
    });
}

#[test]
fn a_store_that_keeps_up_sees_no_difference() {
    virtual_time(async {
        let rig = Rig::new(dropping());
        let ingress = rig.ingress().await;
        for n in 0..100 {
            ingress.feed(lines(events("a", n * 20..n * 20 + 20))).await.unwrap();
            pass(millis(5)).await;
        }
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..2_000));
        assert_eq!(rig.snapshot("a").counters.shed, 0);
    });
}

#[test]
fn a_sender_that_waits_for_stored_is_told_what_was_shed_and_no_other() {
    virtual_time(async {
        for level in [AckLevel::Journaled, AckLevel::Stored] {
            let world = World::faulty(Fault::Stall.always());
            let rig = world.start(dropping());
            let mut conn = rig.connect("s", 1, level).await;
            for n in 0..100 {
                conn.ingress.feed(lines([event("a", n)])).await.unwrap();
                pass(millis(2)).await;
            }
            let shed = rig.snapshot("a").counters.shed;
            assert!(shed > 20, "{shed}");
            world.store.heal();
            let mut told = (vec![], vec![]);
            while told.0.len() + told.1.len() < 100 {
                let (acks, nacks) = conn.told().await;
                told.0.extend(acks);
                told.1.extend(nacks);
            }
            match level {
                AckLevel::Stored => {
                    assert_eq!(told.1, (11..11 + shed).map(|n| (n, Code::Shed)).collect::<Vec<_>>());
                    assert_eq!(told.0, (1..=10).chain(11 + shed..=100).collect::<Vec<_>>());
                }
                _ => assert_eq!(told, ((1..=100).collect(), vec![])),
            }
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn a_receipt_says_what_was_shed() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(dropping(), Fault::Stall.always());
        let offer = |n: std::ops::Range<usize>| {
            let bodies = n.map(|n| headworks_actors::Event::new(tenant("a"), None, event("a", n)));
            rig.system.send(bodies.collect::<Vec<_>>())
        };
        let mut first = offer(0..12).await.unwrap();
        pass(millis(2)).await;
        for n in 0..60 {
            drop(offer(100 + n..101 + n).await.unwrap());
            pass(millis(2)).await;
        }
        store.heal();
        let Settlement { stored, refused, .. } = first.settled().await.clone();
        assert_eq!((stored, refused.get(&Code::Shed)), (10, Some(&2)), "two batches were cut, the rest was shed");
        rig.drained().await;
    });
}

#[test]
fn what_was_shed_does_not_come_back_after_a_crash_and_all_else_does() {
    virtual_time(async {
        for (chunk, total) in [(1, 140), (7, 280)] {
            let mut world = World::faulty(Fault::Stall.always());
            let rig = world.start(dropping());
            let ingress = rig.ingress().await;
            for n in 0..total / chunk {
                ingress.feed(lines(events("a", n * chunk..n * chunk + chunk))).await.unwrap();
                pass(millis(2)).await;
            }
            let before = rig.snapshot("a");
            assert!(before.counters.shed > 20);
            world.crash(rig).await;
            world.store.heal();
            let rig = world.start(dropping());
            pass(secs(10)).await;
            let after = rig.snapshot("a");
            assert!(after.events_add_up(), "{after:?}");
            assert_eq!(after.counters.shed, before.counters.shed);
            assert_eq!(after.counters.accepted, before.counters.accepted);
            rig.ingress().await.feed(lines(events("a", total..total + 10))).await.unwrap();
            rig.drained().await;
            let stored: Vec<_> =
                world.kept.bodies(&tenant("a")).into_iter().map(|body| String::from_utf8(body).unwrap()).collect();
            let stored = numbers(&stored);
            let shed = usize::try_from(before.counters.shed).unwrap();
            assert_eq!(stored, (0..10).chain(10 + shed..total + 10).collect::<Vec<_>>());
            assert_eq!(rig.snapshot("a").counters.stored as usize, total + 10 - shed);
        }
    });
}

/// A hundred tenants over one memory of 256 KiB; those that begin with `hog` may each take all of it, and their store hangs.
fn shared(when_full: WhenFull) -> (Rig, crate::rig::Store) {
    let window = WindowPolicy { max_events: 100, max_bytes: 1 << 20, max_age: millis(200) };
    let overflow = OverflowPolicy { max_in_flight: 1 << 20, when_full, ..OverflowPolicy::default() };
    let hangs = |batch: &headworks_actors::Batch, _: u64| match batch.tenant().as_str().starts_with("hog") {
        true => Fault::Stall,
        false => Fault::None,
    };
    let policy = Policy { window, overflow, ..Policy::default() };
    let (rig, store) = Rig::faulty_with(policy.clone(), hangs, |builder| {
        // Those who hold little are never refused, but would be seen if they were.
        let reject = OverflowPolicy { when_full: WhenFull::Reject, ..policy.overflow.clone() };
        let good = (0..99).map(|n| TenantSpec::from(tenant(&format!("good{n}"))));
        let builder = builder.max_in_flight_bytes(MEMORY);
        good.fold(builder, |builder, spec| {
            builder.tenant(spec.policy(Policy { overflow: reject.clone(), ..policy.clone() }))
        })
    });
    (rig, store)
}

const MEMORY: usize = 256 << 10;
const READ: usize = 2_000;

async fn the_good_are_not_held_by(hogs: &'static [&'static str], when_full: WhenFull) {
    let (rig, store) = shared(when_full);
    let mut flooding = vec![];
    for hog in hogs {
        let ingress = rig.ingress_of(hog).await;
        flooding.push(tokio::task::spawn_local(async move {
            for n in 0..600 {
                ingress.feed(lines(events(hog, n * 60..n * 60 + 60))).await.unwrap();
            }
        }));
    }
    pass(secs(1)).await;
    assert!(rig.system.in_flight_bytes() > MEMORY / 2, "the hogs hold what they may");
    let ingress = rig.ingress_of("good").await;
    for round in 0..50 {
        for n in 0..99 {
            let fed = ingress.feed(lines([event(&format!("good{n}"), round)]));
            tokio::time::timeout(millis(1), fed).await.expect("the good are never held").unwrap();
            assert!(rig.system.in_flight_bytes() <= MEMORY + READ);
        }
        pass(millis(250)).await;
    }
    for n in 0..99 {
        let snapshot = rig.snapshot(&format!("good{n}"));
        assert_eq!((snapshot.counters.accepted, snapshot.counters.rejected), (50, 0));
        assert_eq!(snapshot.counters.stored, 50, "nor is it delayed");
    }
    store.heal();
    // Whoever recovers goes on.
    for flood in flooding {
        tokio::time::timeout(secs(60), flood).await.expect("it goes on").unwrap();
    }
    rig.drained().await;
    for hog in hogs {
        let counters = rig.snapshot(hog).counters;
        assert_eq!(counters.stored + counters.rejected + counters.shed, 36_000);
        assert!(counters.stored > 0);
    }
}

#[test]
fn a_hog_with_a_hanging_store_does_not_hold_ninety_nine_others() {
    for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::DropOldest] {
        virtual_time(the_good_are_not_held_by(&["hog1"], when_full));
    }
}

#[test]
fn nor_do_four_hogs() {
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        virtual_time(the_good_are_not_held_by(&["hog1", "hog2", "hog3", "hog4"], when_full));
    }
}

#[test]
fn tenants_above_their_share_with_all_of_it_in_open_windows_close_them_and_go_on() {
    virtual_time(async {
        let overflow = OverflowPolicy { max_in_flight: 1 << 20, ..OverflowPolicy::default() };
        let policy = Policy { overflow, ..windows_of(1_000_000) };
        let rig = Rig::with(policy, |builder| builder.max_in_flight_bytes(16 << 10));
        let begun = tokio::time::Instant::now();
        let mut feeding = vec![];
        for name in ["a", "b", "c", "d", "e"] {
            let ingress = rig.ingress_of(name).await;
            feeding.push(tokio::task::spawn_local(async move {
                for n in 0..100 {
                    ingress.feed(lines(events(name, n * 10..n * 10 + 10))).await.unwrap();
                }
            }));
        }
        for feed in feeding {
            feed.await.unwrap();
        }
        assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
        rig.drained().await;
        assert_eq!(rig.store.totals().values().sum::<u64>(), 5_000);
    });
}

#[test]
fn the_heaviest_is_held_and_a_lighter_one_goes_on() {
    virtual_time(async {
        let (rig, store) = shared(WhenFull::Reject);
        let ingress = rig.ingress().await;
        for n in 0..500 {
            ingress.feed(lines(events("hog-heavy", n * 20..n * 20 + 20))).await.unwrap();
        }
        let heavy = rig.snapshot("hog-heavy");
        assert!(heavy.counters.rejected > 0);
        ingress.feed(lines(events("hog-light", 0..20))).await.unwrap();
        ingress.feed(lines(events("hog-light", 20..40))).await.unwrap();
        ingress.feed(lines(events("hog-heavy", 10_000..10_020))).await.unwrap();
        assert_eq!(rig.snapshot("hog-light").counters.rejected, 0);
        assert_eq!(rig.snapshot("hog-heavy").counters.rejected, heavy.counters.rejected + 20);
        let report = rig.system.report();
        assert!(report.entries.iter().any(|entry| entry.code == Code::TenantFull));
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn tenants_that_hold_the_same_wait_for_a_slow_store_and_lose_nothing() {
    virtual_time(async {
        let window = WindowPolicy { max_events: 100, max_bytes: 1 << 20, max_age: millis(200) };
        let overflow = OverflowPolicy { max_in_flight: 1 << 20, ..OverflowPolicy::default() };
        let retry = RetryPolicy { attempts: 1_000, base: millis(200), cap: millis(200), ..RetryPolicy::default() };
        let breaker = BreakerPolicy { failures: 0, ..BreakerPolicy::default() };
        let policy = Policy { window, overflow, retry, breaker, ..Policy::default() };
        let slow = |_: &headworks_actors::Batch, call: u64| {
            if call.is_multiple_of(8) { Fault::None } else { Fault::Transient }
        };
        let (rig, _store) = Rig::faulty_with(policy, slow, |builder| builder.max_in_flight_bytes(64 << 10));
        let ingress = rig.ingress().await;
        let begun = tokio::time::Instant::now();
        for n in 0..400 {
            let read = (0..10).flat_map(|tenant| events(&format!("t{tenant}"), n * 5..n * 5 + 5));
            ingress.feed(lines(read)).await.unwrap();
        }
        assert!(begun.elapsed() > secs(20), "the store is too slow for them: {:?}", begun.elapsed());
        rig.drained().await;
        for n in 0..10 {
            let counters = rig.snapshot(&format!("t{n}")).counters;
            assert_eq!((counters.stored, counters.rejected), (2_000, 0));
        }
    });
}
