//! A muted tenant's events are dropped at the door, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headworks_actors::{Hooks, Policy};

use crate::rig::{Rig, event, events, lines, tenant, virtual_time};

#[test]
fn a_tenant_is_muted_before_it_is_known_and_heard_again_at_run_time() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        rig.system.mute(&tenant("a"));
        assert_eq!(rig.system.muted(), [tenant("a")]);
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..5).into_iter().chain(events("b", 0..5)))).await.unwrap();
        assert!(rig.snapshot("a").is_muted);
        rig.tenant("a").unmute();
        assert!(rig.system.muted().is_empty());
        ingress.feed(lines(events("a", 5..8))).await.unwrap();
        rig.tenant("a").mute();
        ingress.feed(lines(events("a", 8..10))).await.unwrap();
        rig.system.unmute(&tenant("a"));
        ingress.feed(lines([event("a", 10)])).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", [5, 6, 7, 10]));
        assert_eq!(rig.stored("b"), events("b", 0..5), "nobody else is muted");
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.received, counters.muted, counters.accepted), (11, 7, 4));
        assert_eq!(rig.source("test").muted, 7);
        assert!(rig.letters.all().is_empty());
    });
}

#[test]
fn what_was_accepted_before_a_tenant_was_muted_is_stored() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..5))).await.unwrap();
        rig.system.mute(&tenant("a"));
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..5));
    });
}

#[test]
fn the_hooks_of_a_muted_tenant_do_not_run() {
    virtual_time(async {
        let seen = Arc::new(AtomicUsize::new(0));
        let counting = seen.clone();
        let hooks = Hooks::new().filter(move |_| {
            counting.fetch_add(1, Ordering::Relaxed);
            false
        });
        let rig = Rig::with(Policy::default(), |builder| builder.hooks(hooks));
        let ingress = rig.ingress().await;
        rig.system.mute(&tenant("a"));
        ingress.feed(lines(events("a", 0..5))).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        rig.system.unmute(&tenant("a"));
        ingress.feed(lines(events("a", 0..5))).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 5);
        rig.drained().await;
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.muted, counters.discarded), (5, 5));
    });
}

#[test]
fn events_that_are_offered_to_a_muted_tenant_are_dropped_alike() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        a.mute();
        a.offer(["one", "two"]).await.unwrap();
        rig.drained().await;
        assert_eq!((a.snapshot().counters.muted, rig.source("offer").muted), (2, 2));
    });
}
