//! Tenants come up by their first event or by hand, once.

use headworks_actors::{
    Code, Error, Event, Framing, IngressSpec, MemoryStore, Policy, Status, TenantSpec, TypedJson, UnixMillis,
    WindowPolicy,
};

use crate::rig::{Rig, event, events, lines, millis, pass, tenant, virtual_time, windows_of};

#[test]
fn a_tenant_is_spawned_once() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        assert_eq!(a.snapshot().status, Status::Active);
        let again = rig.system.spawn(TenantSpec::from(tenant("a")).store(MemoryStore::new())).await;
        assert!(matches!(again, Err(Error::TenantExists(id)) if id == tenant("a")));
        rig.ingress().await.feed(lines([event("b", 0)])).await.unwrap();
        assert!(
            matches!(rig.system.spawn(tenant("b")).await, Err(Error::TenantExists(_))),
            "its first event was faster"
        );
        assert!(rig.system.tenant(&tenant("c")).is_none());
        rig.drained().await;
    });
}

#[test]
fn tenants_beyond_the_limit_are_rejected_and_counted_while_the_known_go_on() {
    virtual_time(async {
        let rig = Rig::with(Policy::default(), |builder| builder.max_tenants(2));
        let ingress = rig.ingress().await;
        let sent: Vec<_> = ["a", "b", "c", "a", "d", "c"].iter().enumerate().map(|(n, name)| event(name, n)).collect();
        ingress.feed(lines(sent.clone())).await.unwrap();
        let spawned = rig.system.spawn(tenant("e")).await;
        assert!(matches!(spawned, Err(Error::TenantLimit { limit: 2, .. })));
        let source = rig.source("test");
        assert_eq!((source.received, source.accepted, source.rejected), (6, 3, 3));
        let report = rig.system.report();
        let limited: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::TenantLimit).collect();
        assert_eq!(limited.iter().map(|entry| entry.events).sum::<u64>(), 3);
        rig.drained().await;
        assert_eq!(rig.stored("a"), [sent[0].clone(), sent[3].clone()]);
        assert_eq!(rig.system.tenants().len(), 2);
    });
}

#[test]
fn a_spec_given_beforehand_is_used_at_the_tenants_first_event() {
    virtual_time(async {
        let own = MemoryStore::new();
        let window = WindowPolicy { max_events: 2, ..windows_of(2).window };
        let spec = TenantSpec::from(tenant("vip")).store(own.clone()).policy(Policy { window, ..Policy::default() });
        let rig = Rig::with(windows_of(1_000), |builder| builder.tenant(spec));
        assert!(rig.system.tenants().is_empty(), "it comes up by its first event");
        let ingress = rig.ingress().await;
        ingress.feed(lines(["vip", "other"].into_iter().flat_map(|name| events(name, 0..5)))).await.unwrap();
        pass(millis(1)).await;
        assert_eq!(own.batches(&tenant("vip")).len(), 2, "by its own policy");
        rig.drained().await;
        assert_eq!(own.bodies(&tenant("vip")).len(), 5);
        assert_eq!((rig.stored("vip").len(), rig.stored("other").len()), (0, 5));
    });
}

#[test]
fn a_policy_that_cannot_work_is_refused_with_the_tenants_name() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let window = WindowPolicy { max_events: 0, ..WindowPolicy::default() };
        let spec = TenantSpec::from(tenant("a")).policy(Policy { window, ..Policy::default() });
        let said = rig.system.spawn(spec).await.unwrap_err().to_string();
        assert!(said.contains("tenant a") && said.contains("window.max_events"), "{said}");
        assert!(rig.system.tenants().is_empty());
        rig.drained().await;
    });
}

#[test]
fn a_handle_takes_events_through_every_restart() {
    virtual_time(async {
        let rig = Rig::new(windows_of(3));
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        for n in 0..30 {
            a.offer([event("a", n)]).await.unwrap();
            match n % 3 {
                0 => a.inject_panic(),
                1 => a.restart(),
                _ => a.resume(),
            }
        }
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..30));
        assert_eq!(rig.source("offer").accepted, 30);
    });
}

#[test]
fn offered_events_of_several_tenants_keep_their_time_and_their_order() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let at = |n: usize| Some(UnixMillis(n as i64));
        let made = (0..10).map(|n| Event::new(tenant(["a", "b"][n % 2]), at(n), event("x", n)));
        rig.system.offer(made.collect()).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("x", [0, 2, 4, 6, 8]), "the body is what was offered, whatever it says");
        let times: Vec<_> = rig.store.batches(&tenant("b"))[0].events().map(|event| event.time).collect();
        assert_eq!(times, [1, 3, 5, 7, 9].map(at));
    });
}

#[test]
fn a_typed_decoder_names_tenant_and_time_and_refuses_other_shapes() {
    #[derive(serde::Deserialize)]
    struct Reading {
        site: u32,
        at: i64,
    }
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let decoder = TypedJson::new(|reading: &Reading| format!("site-{}", reading.site))
            .time(|reading: &Reading| Some(UnixMillis(reading.at)));
        let ingress = rig.system.ingress(IngressSpec::new("sensors", Framing::lines(), decoder)).await.unwrap();
        ingress
            .feed("{\"site\":7,\"at\":5}\n{\"site\":\"seven\"}\n{\"site\":8,\"at\":6,\"more\":[1]}\n")
            .await
            .unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("site-7"), [r#"{"site":7,"at":5}"#]);
        assert_eq!(rig.stored("site-8"), [r#"{"site":8,"at":6,"more":[1]}"#]);
        let times: Vec<_> = rig.store.batches(&tenant("site-8"))[0].events().map(|event| event.time).collect();
        assert_eq!(times, [Some(UnixMillis(6))]);
        assert_eq!(rig.letters.all()[0].cause.code, Code::BadEvent);
    });
}
