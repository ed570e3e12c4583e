//! A drain ends the system in the order of the flow, and in time.

use headworks_actors::{Error, Event, Fault, FlushReason, OverflowPolicy, Policy, Status, TenantSpec, What};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, tenant, virtual_time, windows_of};

#[test]
fn partial_windows_are_flushed_after_the_calls_that_were_under_way() {
    virtual_time(async {
        let (rig, store) = Rig::faulty_with(windows_of(10), Fault::Stall.always(), |b| b.max_in_flight_bytes(2 << 10));
        let ingress = rig.ingress().await;
        let feeding = tokio::task::spawn_local(async move {
            for n in 0..20 {
                ingress.feed(lines(events("a", n * 10..n * 10 + 9))).await?;
            }
            Ok::<(), Error>(())
        });
        pass(secs(1)).await;
        assert!(!feeding.is_finished(), "it is held at the door");
        let heal = async {
            pass(secs(1)).await;
            store.heal();
        };
        futures::join!(rig.drained(), heal);
        assert!(matches!(feeding.await.unwrap(), Err(Error::Closed)), "what came later is refused");
        let counters = rig.snapshot("a").counters;
        assert_eq!(counters.stored, counters.received, "the read that had waited was taken in");
        assert_eq!(rig.stored("a").len() as u64, counters.accepted);
        assert!(counters.flushes_for(FlushReason::Drain) >= 1);
    });
}

#[test]
fn a_hung_store_is_reported_in_flight_at_the_deadline_and_the_others_are_stored() {
    virtual_time(async {
        let (rig, _store) = Rig::faulty(windows_of(100), Fault::Stall.of_tenant(tenant("hangs")));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("hangs", 0..7).into_iter().chain(events("well", 0..5)))).await.unwrap();
        let begun = tokio::time::Instant::now();
        let report = rig.system.drain(secs(5)).await;
        assert!(begun.elapsed() >= secs(5) && begun.elapsed() <= millis(5_010), "{:?}", begun.elapsed());
        assert!(!report.complete);
        let (hangs, well) = (report.of(&tenant("hangs")).unwrap(), report.of(&tenant("well")).unwrap());
        assert_eq!((hangs.in_flight_before, hangs.end.in_flight, hangs.end.counters.stored), (7, 7, 0));
        assert_eq!((well.in_flight_before, well.end.in_flight, well.end.counters.stored), (5, 0, 5));
        assert!(hangs.end.adds_up() && well.end.adds_up());
        assert_eq!(report.unfinished().count(), 1);
        let text = report.to_string();
        assert!(text.contains("tenants=2 stored=5 dead_lettered=0 in_flight=7"), "{text}");
        assert!(text.contains("hangs in_flight=7"), "{text}");
        assert_eq!(rig.stored("well"), events("well", 0..5));
    });
}

#[test]
fn a_feed_that_is_held_by_a_hung_tenant_does_not_keep_the_others_windows_from_the_store() {
    virtual_time(async {
        let overflow = OverflowPolicy { max_in_flight: 1 << 10, ..OverflowPolicy::default() };
        let (rig, _store) =
            Rig::faulty(Policy { overflow, ..windows_of(100) }, Fault::Unavailable.of_tenant(tenant("hangs")));
        let (one, other) = (rig.ingress().await, rig.ingress().await);
        other.feed(lines(events("well", 0..5))).await.unwrap();
        one.feed(lines(events("hangs", 0..100))).await.unwrap();
        let held = tokio::task::spawn_local(async move { one.feed(lines(events("hangs", 100..200))).await });
        pass(secs(1)).await;
        assert!(!held.is_finished());
        let report = rig.system.drain(secs(5)).await;
        assert!(!report.complete);
        assert_eq!(rig.stored("well"), events("well", 0..5));
        held.abort();
    });
}

#[test]
fn whatever_comes_after_a_drain_is_refused() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        a.offer([event("a", 0)]).await.unwrap();
        rig.drained().await;
        assert!(ingress.feed(lines([event("a", 1)])).await.is_err());
        assert!(a.offer([event("a", 1)]).await.is_err());
        assert!(rig.system.offer(vec![Event::new(tenant("a"), None, "x")]).await.is_err());
        assert!(rig.system.spawn(TenantSpec::from(tenant("b"))).await.is_err());
        assert_eq!(rig.stored("a").len(), 1);
        assert_eq!((a.snapshot().status, a.snapshot().counters.received), (Status::Stopped, 1));
        assert_eq!(rig.logged("a", What::Stopped).len(), 2, "tenant and writer");
    });
}

#[test]
fn offers_during_a_drain_are_refused() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Stall.always());
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        a.offer([event("a", 0)]).await.unwrap();
        let late = async {
            pass(secs(1)).await;
            assert!(matches!(a.offer([event("a", 1)]).await, Err(Error::Closed)));
            assert!(matches!(rig.system.spawn(tenant("b")).await, Err(Error::Closed)));
            store.heal();
        };
        futures::join!(rig.drained(), late);
        assert_eq!(rig.stored("a"), events("a", 0..1));
    });
}

#[test]
fn a_drain_may_be_called_from_several_places_and_each_gets_the_report() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(10), Fault::Stall.first(1));
        rig.ingress().await.feed(lines(events("a", 0..5))).await.unwrap();
        let heal = async {
            pass(secs(1)).await;
            store.heal();
        };
        let (first, second, ()) = futures::join!(rig.system.drain(secs(60)), rig.system.drain(secs(60)), heal);
        let third = rig.system.drain(secs(60)).await;
        for report in [first, second, third] {
            assert!(report.complete);
            assert_eq!(report.of(&tenant("a")).unwrap().end.counters.stored, 5);
        }
    });
}

#[test]
fn a_drain_that_is_dropped_goes_on() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(10), Fault::Stall.first(1));
        rig.ingress().await.feed(lines(events("a", 0..5))).await.unwrap();
        assert!(tokio::time::timeout(secs(1), rig.system.drain(secs(60))).await.is_err());
        assert!(rig.system.spawn(tenant("b")).await.is_err());
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..5));
    });
}

#[test]
fn a_drain_waits_for_a_quarantine_to_end() {
    virtual_time(async {
        let rig = Rig::new(windows_of(100));
        rig.system.spawn(tenant("a")).await.unwrap();
        rig.ingress().await.feed(lines(events("a", 0..5))).await.unwrap();
        for _ in 0..6 {
            rig.tenant("a").inject_panic();
            pass(secs(2)).await;
        }
        assert_eq!(rig.snapshot("a").status, Status::Quarantined);
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..5));
    });
}
