//! What is measured of the system as a whole: windows, lateness, batches, calls of stores, compensations, failures.

use std::time::Duration;

use headworks_actors::{BreakerPolicy, Code, Fault, FlushReason, Policy, RetryPolicy, Saga, Status, WindowPolicy};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, until, virtual_time, windows_of};

#[test]
fn each_window_is_measured_once_and_only_those_that_close_by_age_have_a_lateness() {
    virtual_time(async {
        let window = WindowPolicy { max_events: 3, max_age: secs(1), ..WindowPolicy::default() };
        let rig = Rig::new(Policy { window, ..Policy::default() });
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..7))).await.unwrap();
        pass(secs(2)).await;
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.flushes_for(FlushReason::Size), counters.flushes_for(FlushReason::Age)), (2, 1));
        let measured = rig.system.measure();
        assert_eq!((measured.window_events.count(), measured.window_events.sum), (3, 7));
        assert_eq!(measured.lateness.count(), 1);
        assert!(measured.lateness.sum_time() <= millis(2), "{:?}", measured.lateness.sum_time());
        assert_eq!((measured.batches.count(), measured.stores[0].stored.count()), (3, 3));
        rig.drained().await;
    });
}

#[test]
fn calls_of_a_store_are_measured_by_name_and_outcome_and_a_batch_from_its_cut_to_its_outcome() {
    virtual_time(async {
        let retry = RetryPolicy {
            attempts: 5,
            base: secs(10),
            cap: secs(10),
            attempt_timeout: secs(7),
            ..RetryPolicy::default()
        };
        let policy = Policy { retry, ..windows_of(1) };
        let (rig, _) = Rig::faulty(policy, |_, nth| match nth {
            1 => Fault::Transient,
            2 => Fault::Stall,
            _ => Fault::None,
        });
        let began = tokio::time::Instant::now();
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        until("it is stored", || rig.stored("a").len() == 1).await;
        pass(millis(10)).await;
        let measured = rig.system.measure();
        let [store] = &measured.stores[..] else { panic!("{:?}", measured.stores) };
        assert_eq!((store.store.as_str(), store.failed.count(), store.stored.count()), ("store", 2, 1));
        assert_eq!(store.failed.sum_time().as_secs(), 7, "one failed at once, and one did not answer");
        assert_eq!(store.stored.sum_time(), Duration::ZERO);
        assert_eq!(measured.batches.count(), 1);
        assert!(measured.batches.sum_time() <= began.elapsed() && measured.batches.sum_time() >= secs(7));
        rig.drained().await;
    });
}

#[test]
fn the_measures_of_a_store_outlive_the_tenants_that_use_it() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(1)).await;
        rig.tenant("a").passivate().await.unwrap();
        assert_eq!(rig.snapshot("a").status, Status::Dormant);
        assert_eq!(rig.system.measure().stores[0].stored.count(), 1);
        rig.tenant("a").offer([event("a", 1)]).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(rig.system.measure().stores[0].stored.count(), 2);
        rig.drained().await;
    });
}

#[test]
fn what_failed_is_summed_by_code_over_all_tenants_and_agrees_with_the_sources() {
    virtual_time(async {
        let rig = Rig::with(windows_of(1), |builder| builder.max_tenants(1));
        let ingress = rig.ingress().await;
        ingress.feed([&b"no JSON\n\nno JSON\n"[..], &lines([event("a", 0), event("b", 0)])].concat()).await.unwrap();
        pass(secs(1)).await;
        let source = rig.source("test");
        let failures = rig.system.measure().failures;
        let events = |codes: &[Code]| -> u64 {
            failures.iter().filter(|total| codes.contains(&total.code)).map(|total| total.events).sum()
        };
        assert_eq!((source.malformed, source.rejected), (3, 1), "{source:?}");
        assert_eq!(events(&[Code::BadJson, Code::Empty]), source.malformed);
        assert_eq!(events(&[Code::TenantLimit]), source.rejected);
        rig.drained().await;
    });
}

#[test]
fn compensations_are_counted_as_they_are_logged() {
    virtual_time(async {
        let second = headworks_actors::Faulty::new(headworks_actors::MemoryStore::new(), Fault::Permanent.always());
        let rig = Rig::with(windows_of(2), |builder| {
            let first = headworks_actors::MemoryStore::new();
            builder.saga(Saga::new().then(first).named("first").then(second).named("second"))
        });
        rig.ingress().await.feed(lines(events("a", 0..2))).await.unwrap();
        pass(secs(1)).await;
        let logged: u32 = rig.log_of("a").iter().map(|event| event.compensations_run).sum();
        let measured = rig.system.measure();
        assert_eq!((measured.compensations_run, measured.compensations_failed), (u64::from(logged), 0));
        assert!(logged >= 2, "a rollback in each store");
        let names: Vec<_> = measured.stores.iter().map(|calls| calls.store.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
        rig.drained().await;
    });
}

#[test]
fn open_ways_are_told_by_source_and_breakers_that_are_not_closed_by_store() {
    virtual_time(async {
        let retry = RetryPolicy {
            attempts: 10,
            base: millis(1),
            cap: millis(1),
            attempt_timeout: secs(7),
            ..RetryPolicy::default()
        };
        let breaker = BreakerPolicy { failures: 2, wait: secs(30) };
        let policy = Policy { retry, breaker, ..windows_of(1) };
        let (rig, _) = Rig::faulty(policy, |_, call| match call {
            1 | 2 => Fault::Transient,
            3 => Fault::Stall,
            _ => Fault::None,
        });
        let (first, second) = (rig.ingress().await, rig.ingress().await);
        let seen = || {
            let measured = rig.system.measure();
            let open: u64 = measured.connections_by_source.iter().map(|(_, open)| open).sum();
            let [store] = &measured.breakers[..] else { panic!("{:?}", measured.breakers) };
            assert_eq!(store.store.as_str(), "store");
            (open, store.open, store.half_open)
        };
        first.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(seen(), (2, 1, 0));
        pass(secs(30)).await;
        assert_eq!(seen(), (2, 0, 1), "the call that decides is under way");
        pass(secs(60)).await;
        assert_eq!((rig.stored("a").len(), seen()), (1, (2, 0, 0)));
        first.finish(true).await.unwrap();
        drop(first);
        pass(secs(1)).await;
        assert_eq!(seen().0, 1);
        drop(second);
        rig.drained().await;
    });
}
