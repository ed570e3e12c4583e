//! Rules for all tenants, by id and by pattern, given beforehand and changed while the system runs.

use std::sync::{Arc, Mutex};

use headworks_actors::{
    Cause, Code, Error, Fault, FlushReason, Policy, SpawnRate, TenantRules, TenantSpec, Unknown, What,
};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, tenant, virtual_time, windows_of};

/// Windows of so many events for all, and others for `acme-*`, and others for `acme-us`.
fn rules(all: usize, acme: usize, us: usize) -> TenantRules {
    TenantRules::new(windows_of(all))
        .pattern("acme-*".parse().unwrap(), windows_of(acme))
        .tenant(tenant("acme-us"), windows_of(us))
}

fn window(rig: &Rig, name: &str) -> usize {
    rig.system.policy(&tenant(name)).window.max_events
}

#[test]
fn a_tenant_that_comes_up_by_its_first_event_has_the_rules_of_the_first_pattern_that_matches() {
    virtual_time(async {
        let rig = Rig::with(windows_of(100), |builder| builder.rules(rules(100, 3, 2)));
        let sent = ["other", "acme-eu", "acme-us"].into_iter().flat_map(|name| events(name, 0..6));
        rig.ingress().await.feed(lines(sent)).await.unwrap();
        pass(millis(5)).await;
        let batches = ["other", "acme-eu", "acme-us"].map(|name| rig.snapshot(name).counters.batches);
        assert_eq!(batches, [0, 2, 3]);
        rig.drained().await;
    });
}

#[test]
fn other_rules_hold_at_once_for_the_awake_the_passivated_and_those_that_come_later_and_are_told() {
    virtual_time(async {
        let rig = Rig::with(windows_of(100), |builder| builder.rules(rules(100, 100, 100)));
        let ingress = rig.ingress().await;
        ingress
            .feed(lines(["acme-eu", "asleep", "acme-us"].into_iter().flat_map(|name| events(name, 0..5))))
            .await
            .unwrap();
        rig.tenant("asleep").passivate().await.unwrap();
        let set = rig.system.set_rules(rules(2, 3, 100)).unwrap();
        assert_eq!((set.changed, set.kept.len()), (1, 0), "acme-us is as it was, and who sleeps needs no telling");
        pass(millis(5)).await;
        assert_eq!(rig.stored("acme-eu").len(), 3, "the open window obeys at once");
        ingress.feed(lines(["asleep", "later"].into_iter().flat_map(|name| events(name, 5..8)))).await.unwrap();
        pass(millis(5)).await;
        assert_eq!((rig.stored("asleep").len(), rig.stored("later").len(), rig.stored("acme-us").len()), (7, 2, 0));
        let told = rig.logged("acme-eu", What::PolicyChanged);
        assert_eq!(&*told[0].cause.as_ref().unwrap().detail, "window.max_events = 3, was 100");
        assert!(rig.logged("acme-us", What::PolicyChanged).is_empty());
        rig.drained().await;
    });
}

#[test]
fn rules_given_to_a_tenant_by_itself_or_with_its_spec_stay_over_those_for_all() {
    virtual_time(async {
        let rig = Rig::with(windows_of(100), |builder| {
            builder.rules(rules(100, 100, 100)).tenant(TenantSpec::from(tenant("spec")).policy(windows_of(7)))
        });
        rig.system.set_policy(&tenant("acme-us"), windows_of(9)).unwrap();
        let set = rig.system.set_rules(rules(2, 3, 4)).unwrap();
        assert_eq!((set.changed, set.kept), (0, vec![tenant("acme-us")]));
        assert_eq!(rig.system.ruled_apart(), [tenant("acme-us")]);
        let ingress = rig.ingress().await;
        let sent = |range: std::ops::Range<usize>| ["spec", "acme-us"].map(|name| events(name, range.clone())).concat();
        ingress.feed(lines(sent(0..1))).await.unwrap();
        for name in ["spec", "acme-us"] {
            rig.tenant(name).passivate().await.unwrap();
        }
        rig.system.set_rules(rules(3, 4, 5)).unwrap();
        ingress.feed(lines(sent(1..2))).await.unwrap();
        assert_eq!((window(&rig, "spec"), window(&rig, "acme-us"), window(&rig, "acme-eu")), (7, 9, 4));
        rig.drained().await;
    });
}

#[test]
fn rules_that_cannot_work_are_refused_with_their_tenants_and_change_nothing() {
    virtual_time(async {
        let rig = Rig::new(windows_of(100));
        for (rules, begin) in [
            (rules(0, 1, 1), "window.max_events is 0"),
            (rules(1, 0, 1), "tenants acme-*: window.max_events is 0"),
            (rules(1, 1, 0), "tenant acme-us: window.max_events is 0"),
        ] {
            let Err(Error::InvalidPolicy(why)) = rig.system.set_rules(rules) else { panic!("it is refused") };
            assert!(why.starts_with(begin), "{why}");
        }
        assert_eq!(window(&rig, "acme-us"), 100);
        rig.drained().await;
    });
}

#[test]
fn who_may_become_known_can_be_changed_and_a_tenant_with_rules_of_its_own_is_always_let_in() {
    virtual_time(async {
        let rig = Rig::with(windows_of(1), |builder| builder.unknown_tenants(Unknown::Reject));
        let ingress = rig.ingress().await;
        let feed = |names: &[&str]| ingress.feed(lines(names.iter().map(|name| event(name, 0)).collect::<Vec<_>>()));
        let known = |rig: &Rig| rig.system.tenants().iter().map(|t| t.tenant.to_string()).collect::<Vec<_>>();
        feed(&["a", "acme-us"]).await.unwrap();
        assert!(known(&rig).is_empty());
        rig.system.set_rules(rules(1, 1, 1)).unwrap();
        feed(&["a", "acme-us", "acme-eu"]).await.unwrap();
        assert_eq!(known(&rig), ["acme-us"], "a pattern makes nobody known");
        rig.system.set_unknown_tenants(Unknown::CatchAll(tenant("rest")));
        feed(&["a"]).await.unwrap();
        assert_eq!(known(&rig), ["acme-us", "rest"]);
        rig.system.set_unknown_tenants(Unknown::Spawn);
        rig.system.set_max_tenants(3);
        feed(&["b", "c"]).await.unwrap();
        assert_eq!(known(&rig), ["acme-us", "b", "rest"]);
        rig.system.set_max_tenants(1_000);
        rig.system.set_max_spawn_rate(Some(SpawnRate { per_second: 1, burst: 2 }));
        feed(&["d", "e", "f"]).await.unwrap();
        assert_eq!(known(&rig), ["acme-us", "b", "d", "e", "rest"]);
        rig.system.set_max_tenants(1);
        feed(&["b", "acme-us"]).await.unwrap();
        assert_eq!(rig.snapshot("b").counters.accepted, 2, "who is known stays so");
        rig.drained().await;
    });
}

#[test]
fn a_thousand_changes_under_load_lose_double_and_delay_nothing() {
    virtual_time(async {
        let rig = Rig::with(windows_of(10), |builder| builder.rules(rules(10, 10, 10)));
        let ingress = rig.ingress().await;
        let names = ["other", "acme-eu", "acme-us"];
        for nth in 0..1_000 {
            let mut policy = windows_of(5 + nth % 7);
            policy.window.max_age = secs(1);
            policy.heartbeat.every = millis(100 + nth as u64 % 3);
            let rules = TenantRules::new(policy.clone()).pattern("acme-*".parse().unwrap(), windows_of(3 + nth % 5));
            rig.system.set_rules(rules.tenant(tenant("acme-us"), policy)).unwrap();
            ingress.feed(lines(names.map(|name| events(name, nth..nth + 1)).concat())).await.unwrap();
            pass(millis(10)).await;
            // The largest window there ever was.
            let most = rig.system.tenants().iter().map(|tenant| tenant.in_flight).max();
            assert!(most < Some(12), "{most:?} after {nth}");
        }
        rig.drained().await;
        for name in names {
            assert_eq!(rig.stored(name), events(name, 0..1_000), "{name}");
            assert!(rig.snapshot(name).counters.flushes_for(FlushReason::Size) > 80);
        }
    });
}

#[test]
fn how_often_is_reported_can_be_changed_and_counts_anew() {
    virtual_time(async {
        let reports = Arc::new(Mutex::new(0));
        let count = reports.clone();
        let (rig, _) = Rig::faulty_with(
            windows_of(1),
            |_, _| Fault::Permanent,
            |builder| builder.report_every(None).on_report(move |_| *count.lock().unwrap() += 1),
        );
        let ingress = rig.ingress().await;
        let fail = async |n| {
            ingress.feed(lines([event("a", n)])).await.unwrap();
        };
        fail(0).await;
        pass(secs(3600)).await;
        assert_eq!(*reports.lock().unwrap(), 0);
        rig.system.set_report_every(Some(secs(10)));
        pass(secs(9)).await;
        assert_eq!(*reports.lock().unwrap(), 0);
        pass(secs(2)).await;
        assert_eq!(*reports.lock().unwrap(), 1);
        fail(1).await;
        pass(secs(5)).await;
        rig.system.set_report_every(Some(secs(10)));
        pass(secs(5)).await;
        assert_eq!(*reports.lock().unwrap(), 2, "the same again does not begin anew");
        fail(2).await;
        rig.system.inject_aggregator_panic();
        pass(secs(15)).await;
        assert_eq!(*reports.lock().unwrap(), 3, "a fresh aggregator goes on as was said last");
        rig.system.set_report_every(None);
        fail(3).await;
        pass(secs(3600)).await;
        assert_eq!(*reports.lock().unwrap(), 3);
        rig.drained().await;
    });
}

#[test]
fn what_the_embedder_did_is_an_entry_of_the_supervisor_log() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        rig.system.note(What::Reloaded, Cause::new(Code::Config, "log.level"));
        let entry = rig.system.log().last(1).remove(0);
        assert_eq!(
            (entry.what.as_str(), &entry.tenant, &*entry.cause.as_ref().unwrap().detail),
            ("reloaded", &None, "log.level")
        );
        rig.drained().await;
    });
}

/// Rules of their own that are as the default ones are stay what they are.
#[test]
fn a_spec_with_the_default_rules_keeps_them_after_a_change() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        rig.system.spawn(TenantSpec::from(tenant("a")).policy(Policy::default())).await.unwrap();
        rig.system.set_rules(rules(5, 5, 5)).unwrap();
        assert_eq!(rig.system.policy(&tenant("a")), Policy::default());
        rig.drained().await;
    });
}
