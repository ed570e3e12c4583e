//! What is full makes the sender wait, and memory stays bounded.

use std::cell::Cell;
use std::rc::Rc;

use headworks_actors::{
    Code, Fault, FlushReason, HeartbeatPolicy, IngressHandle, OverflowPolicy, Policy, Status, TenantSpec,
    ThrottlePolicy, WhenFull,
};
use tokio::task::JoinHandle;

use crate::rig::{Rig, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// Feeds lines in reads of at most `read` bytes, each after the one before it was taken in.
fn stream(ingress: IngressHandle, bytes: Vec<u8>, read: usize) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        for read in bytes.chunks(read) {
            ingress.feed(read).await.unwrap();
        }
    })
}

/// A chunk of `read` bytes of these events takes at most so much memory.
const fn chunk_of(read: usize) -> usize {
    160 + read + read / 4
}

#[test]
fn a_full_system_stops_reading_and_goes_on_when_the_store_does() {
    virtual_time(async {
        const BUDGET: usize = 64 << 10;
        let (rig, store) =
            Rig::faulty_with(Policy::default(), Fault::Stall.always(), |b| b.max_in_flight_bytes(BUDGET));
        let sent: Vec<_> = (0..20_000).map(|n| event(["a", "b", "c"][n % 3], n)).collect();
        let streaming = stream(rig.ingress().await, lines(sent.clone()), 4_000);
        let mut most = 0;
        for _ in 0..300 {
            pass(millis(100)).await;
            most = most.max(rig.system.in_flight_bytes());
        }
        assert!(!streaming.is_finished());
        assert!(rig.source("test").bytes < 2 * BUDGET as u64, "the sender is not read any more");
        assert!(most <= BUDGET + chunk_of(4_000), "{most}");
        assert!(most > BUDGET / 2, "it is the budget that stops it: {most}");
        store.heal();
        streaming.await.unwrap();
        rig.drained().await;
        for (offset, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert!(rig.stored(name).iter().eq(sent.iter().skip(offset).step_by(3)), "{name}");
        }
    });
}

#[test]
fn a_full_tenant_stops_its_connection_but_no_other() {
    virtual_time(async {
        let overflow = OverflowPolicy { max_in_flight: 16 << 10, ..OverflowPolicy::default() };
        let (rig, store) = Rig::faulty(Policy { overflow, ..Policy::default() }, Fault::Stall.of_tenant(tenant("a")));
        let streaming = stream(rig.ingress_of("of a").await, lines(events("a", 0..2_000)), 2_000);
        pass(secs(3)).await;
        assert!(!streaming.is_finished());
        assert!(rig.snapshot("a").in_flight_bytes <= (16 << 10) + chunk_of(2_000) as u64);
        let other = stream(rig.ingress_of("of b").await, lines(events("b", 0..100)), 2_000);
        until("the other is taken in", || other.is_finished()).await;
        store.heal();
        streaming.await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a").len() as u64 + rig.snapshot("a").counters.rejected, 2_000);
        assert_eq!(rig.stored("b").len(), 100);
    });
}

fn full_at(when_full: WhenFull) -> Policy {
    let overflow = OverflowPolicy { max_in_flight: 4 << 10, when_full, ..OverflowPolicy::default() };
    Policy { overflow, ..windows_of(1) }
}

#[test]
fn a_full_tenant_that_rejects_refuses_at_once_and_counts() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(full_at(WhenFull::Reject), Fault::Stall.always());
        let ingress = rig.ingress().await;
        for n in 0..100 {
            let fed = tokio::time::timeout(millis(1), ingress.feed(lines([event("a", n)]))).await;
            fed.expect("it does not wait").unwrap();
        }
        let snapshot = rig.snapshot("a");
        assert!(snapshot.adds_up(), "{snapshot:?}");
        let accepted = snapshot.counters.accepted as usize;
        assert_eq!(snapshot.counters.rejected as usize, 100 - accepted);
        assert!((1..50).contains(&accepted), "{accepted}");
        assert_eq!(rig.source("test").rejected, snapshot.counters.rejected);
        let report = rig.system.report();
        let full: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::TenantFull).collect();
        assert_eq!(full[0].events, snapshot.counters.rejected);
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..accepted), "what was accepted is stored");
        assert!(rig.letters.all().is_empty(), "what is rejected was never ours");
    });
}

#[test]
fn a_full_tenant_blocks_while_others_move_for_no_longer_than_its_policy_says() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(full_at(WhenFull::Block), |batch, _| {
            if batch.tenant().as_str() == "a" { Fault::Unavailable } else { Fault::None }
        });
        let other = rig.ingress_of("other").await;
        let moving = tokio::task::spawn_local(async move {
            for n in 0.. {
                other.feed(lines([event("b", n)])).await.unwrap();
                pass(millis(50)).await;
            }
        });
        let ingress = rig.ingress().await;
        // One that brings events of one tenant only would wait.
        ingress.feed(lines([event("c", 0)])).await.unwrap();
        let begun = tokio::time::Instant::now();
        while rig.system.tenant(&tenant("a")).is_none_or(|a| a.snapshot().counters.rejected == 0) {
            ingress.feed(lines([event("a", 0)])).await.unwrap();
        }
        let held = begun.elapsed();
        assert!(held >= secs(5) && held < millis(5_300), "it is held for block_for: {held:?}");
        assert_eq!(rig.snapshot("a").counters.rejected, 1);
        moving.abort();
        store.heal();
        rig.drained().await;
        assert!(rig.letters.all().is_empty());
    });
}

#[test]
fn a_full_tenant_waits_for_as_long_as_nobody_else_moves() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(full_at(WhenFull::Block), Fault::Unavailable.always());
        let streaming = stream(rig.ingress().await, lines(events("a", 0..200)), 200);
        pass(secs(3600)).await;
        assert!(!streaming.is_finished());
        assert_eq!(rig.snapshot("a").counters.rejected, 0);
        store.heal();
        streaming.await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..200));
    });
}

#[test]
fn a_connection_of_one_tenant_waits_without_bound_also_after_its_tenant_was_passivated() {
    virtual_time(async {
        let policy = full_at(WhenFull::Block);
        let heartbeat =
            HeartbeatPolicy { every: secs(1), passivate_after: Some(secs(10)), ..HeartbeatPolicy::default() };
        let (rig, store) = Rig::faulty(Policy { heartbeat, ..policy }, Fault::None.always());
        let other = rig.ingress_of("other").await;
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("it is passivated", || rig.snapshot("a").status == Status::Dormant).await;
        store.script(|batch, _| if batch.tenant().as_str() == "a" { Fault::Unavailable } else { Fault::None });
        let streaming = stream(ingress, lines(events("a", 1..200)), 200);
        for n in 0..600 {
            other.feed(lines([event("b", n)])).await.unwrap();
            pass(millis(100)).await;
        }
        assert!(!streaming.is_finished());
        assert_eq!(rig.snapshot("a").counters.rejected, 0);
        store.heal();
        streaming.await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..200));
    });
}

#[test]
fn windows_that_hold_all_the_memory_are_closed_to_make_room() {
    virtual_time(async {
        let rig = Rig::with(windows_of(1_000_000), |builder| builder.max_in_flight_bytes(16 << 10));
        let begun = tokio::time::Instant::now();
        let sent: Vec<_> = (0..10_000).map(|n| event(["a", "b", "c", "d"][n % 4], n)).collect();
        stream(rig.ingress().await, lines(sent), 2_000).await.unwrap();
        assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
        assert!(rig.snapshot("a").counters.flushes_for(FlushReason::Pressure) > 5);
        rig.drained().await;
        assert_eq!(rig.store.totals().values().sum::<u64>(), 10_000);
    });
}

#[test]
fn the_windows_that_are_closed_to_make_room_are_those_that_were_opened_first() {
    virtual_time(async {
        let rig = Rig::with(windows_of(1_000_000), |builder| builder.max_in_flight_bytes(64 << 10));
        let ingress = rig.ingress().await;
        let name = |n: usize| format!("t{n}");
        // Fewer than there is room for, and then one more than that, a millisecond or more apart.
        let mut tenants = 0;
        while rig.system.tenants().iter().all(|tenant| tenant.counters.flushes_for(FlushReason::Pressure) == 0) {
            ingress.feed(lines([event(&name(tenants), 0)])).await.unwrap();
            pass(millis(2)).await;
            tenants += 1;
        }
        let closed: Vec<_> =
            (0..tenants).map(|n| rig.snapshot(&name(n)).counters.flushes_for(FlushReason::Pressure)).collect();
        let first_open = closed.iter().position(|flushes| *flushes == 0).unwrap();
        assert!((tenants / 4..tenants * 3 / 4).contains(&first_open), "about half of {tenants}: {first_open}");
        assert!(closed[first_open..].iter().all(|flushes| *flushes == 0), "{closed:?}");
        rig.drained().await;
        assert_eq!(rig.store.totals().values().sum::<u64>(), tenants as u64);
    });
}

#[test]
fn a_window_that_holds_all_of_its_tenants_memory_is_closed_to_make_room() {
    virtual_time(async {
        let overflow = OverflowPolicy { max_in_flight: 4 << 10, ..OverflowPolicy::default() };
        let rig = Rig::new(Policy { overflow, ..windows_of(1_000_000) });
        let begun = tokio::time::Instant::now();
        stream(rig.ingress().await, lines(events("a", 0..2_000)), 1_000).await.unwrap();
        assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..2_000));
        assert_eq!(rig.snapshot("a").counters.rejected, 0);
    });
}

#[test]
fn a_chunk_above_the_whole_budget_still_passes() {
    virtual_time(async {
        let overflow = OverflowPolicy { max_in_flight: 1 << 10, ..OverflowPolicy::default() };
        let rig = Rig::with(Policy { overflow, ..windows_of(100) }, |builder| builder.max_in_flight_bytes(1 << 10));
        let ingress = rig.ingress().await;
        let long = |n: usize| format!(r#"{{"tenant":"a","n":{n},"x":"{}"}}"#, "x".repeat(10_000));
        for n in 0..5 {
            ingress.feed(lines([long(n)])).await.unwrap();
        }
        rig.drained().await;
        assert_eq!(rig.stored("a"), (0..5).map(long).collect::<Vec<_>>());
    });
}

#[test]
fn a_feed_that_is_dropped_while_it_waits_is_taken_in_all_the_same() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(full_at(WhenFull::Block), Fault::Stall.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..300))).await.unwrap();
        let dropped = tokio::time::timeout(millis(10), ingress.feed(lines(events("a", 300..600)))).await;
        assert!(dropped.is_err(), "it waits");
        drop(ingress);
        pass(secs(1)).await;
        store.heal();
        pass(secs(1)).await;
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..600));
    });
}

#[test]
fn a_drain_waits_for_a_feed_that_was_dropped_while_it_waited() {
    virtual_time(async {
        let (rig, store) =
            Rig::faulty(Policy { window: windows_of(1_000).window, ..full_at(WhenFull::Block) }, Fault::Stall.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..300))).await.unwrap();
        drop(tokio::time::timeout(millis(10), ingress.feed(lines(events("a", 300..600)))).await);
        let heal = async {
            pass(secs(1)).await;
            store.heal();
        };
        futures::join!(rig.drained(), heal);
        assert_eq!(rig.snapshot("a").counters.received, 600, "all of them or none");
        assert_eq!(rig.stored("a"), events("a", 0..600));
    });
}

#[test]
fn a_long_read_lets_all_others_go_first_in_between() {
    virtual_time(async {
        let rig = Rig::with(windows_of(1_000), |builder| builder.max_tenants(10_000));
        let ingress = rig.ingress().await;
        let turns = Rc::new(Cell::new(0));
        let others = tokio::task::spawn_local({
            let turns = turns.clone();
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            }
        });
        let took = async |events: Vec<String>| {
            let before = turns.get();
            ingress.feed(lines(events)).await.unwrap();
            turns.get() - before
        };
        // Large enough for the pause that follows each large read.
        let short = took(events("a", 0..5_000)).await;
        let long = took(events("a", 5_000..80_000)).await;
        assert!(long >= short + 4, "{long} turns, where a short read takes {short}");
        let of_many = took((0..5_000).map(|n| event(&format!("of-{n}"), n)).collect()).await;
        assert!(of_many >= short + 9, "{of_many} turns, where a short read takes {short}");
        others.abort();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..80_000));
        assert!((0..5_000).all(|n| rig.stored(&format!("of-{n}")).len() == 1));
    });
}

/// Lines of one tenant, of about so many bytes together.
fn wide(bytes: usize) -> Vec<String> {
    let line = |n| format!(r#"{{"tenant":"a","n":{n},"x":"{:x<200}"}}"#, "");
    (0..bytes / line(0).len()).map(line).collect()
}

#[test]
fn of_a_large_read_as_much_is_accepted_as_there_is_room_for() {
    virtual_time(async {
        let overflow =
            OverflowPolicy { max_in_flight: 1 << 20, when_full: WhenFull::Reject, ..OverflowPolicy::default() };
        let (rig, store) = Rig::faulty(Policy { overflow, ..windows_of(500) }, Fault::Stall.always());
        let ingress = rig.ingress().await;
        let sent = wide(2 << 20);
        ingress.feed(lines(sent.clone())).await.unwrap();
        let counters = rig.snapshot("a").counters;
        assert_eq!(counters.accepted + counters.rejected, sent.len() as u64);
        let bytes: usize = sent[..counters.accepted as usize].iter().map(String::len).sum();
        assert!(bytes > (1 << 20) - (160 << 10), "{bytes} bytes were accepted");
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a"), sent[..counters.accepted as usize]);
    });
}

#[test]
fn of_a_large_read_nothing_that_would_fit_overtakes_what_waits() {
    for (overflow, throttle) in [
        (OverflowPolicy { max_in_flight: 200 << 10, ..OverflowPolicy::default() }, ThrottlePolicy::default()),
        (OverflowPolicy::default(), ThrottlePolicy { bytes_per_second: 100 << 10, ..ThrottlePolicy::default() }),
    ] {
        virtual_time(async {
            let rig = Rig::new(Policy { overflow, throttle, ..windows_of(500) });
            let ingress = rig.ingress().await;
            // Each time two chunks of what a chunk takes at the most, and a small rest, which would fit behind the first.
            let (sent, others) = (wide(520 << 10), events("b", 0..20));
            for (a, b) in sent.chunks(sent.len().div_ceil(2)).zip(others.chunks(10)) {
                ingress.feed(lines([&a[..1_000], b, &a[1_000..]].concat())).await.unwrap();
                pass(secs(10)).await;
            }
            rig.drained().await;
            assert_eq!((rig.stored("a"), rig.stored("b")), (sent, others));
        });
    }
}

#[test]
fn a_feed_that_is_dropped_in_the_middle_of_a_long_read_is_taken_in_all_the_same() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1_000));
        let ingress = rig.ingress().await;
        let mut feeding = Box::pin(ingress.feed(lines(events("a", 0..80_000))));
        while rig.source("test").received == 0 {
            assert!(futures::poll!(&mut feeding).is_pending());
            tokio::task::yield_now().await;
        }
        drop(feeding);
        let received = rig.source("test").received;
        assert!(received < 80_000, "it is in the middle: {received}");
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..80_000));
    });
}

#[test]
fn one_shared_budget_does_not_let_a_hung_tenant_starve_the_others_of_it() {
    virtual_time(async {
        let overflow =
            OverflowPolicy { max_in_flight: 8 << 10, when_full: WhenFull::Reject, ..OverflowPolicy::default() };
        let policy = Policy { overflow, ..Policy::default() };
        let (rig, store) = Rig::faulty_with(policy.clone(), Fault::Stall.of_tenant(tenant("a")), |builder| {
            builder.max_in_flight_bytes(32 << 10).tenant(TenantSpec::from(tenant("a")).policy(policy))
        });
        let ingress = rig.ingress().await;
        for n in 0..100 {
            ingress.feed(lines((0..20).map(|i| event("a", n * 20 + i)))).await.unwrap();
            ingress.feed(lines((0..20).map(|i| event("b", n * 20 + i)))).await.unwrap();
            pass(millis(200)).await;
        }
        assert!(rig.snapshot("a").counters.rejected > 0);
        assert_eq!(rig.snapshot("b").counters.rejected, 0);
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("b"), events("b", 0..2_000));
    });
}
