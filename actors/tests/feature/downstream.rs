//! Silences and heartbeats as events in the tenant's own stream, where its rules ask for them.

use headworks_actors::{
    Code, Fault, HeartbeatPolicy, Hooks, OverflowPolicy, Policy, SilencePolicy, Status, TenantSpec, ThrottlePolicy,
    What, WhenFull, WhenOver,
};
use serde_json::{Value, json};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

fn silent_after(seconds: u64) -> Policy {
    let silence = SilencePolicy { after: Some(secs(seconds)), downstream: true, ..SilencePolicy::default() };
    Policy { silence, ..windows_of(1) }
}

fn beats_every(seconds: u64) -> Policy {
    let heartbeat = HeartbeatPolicy { downstream_every: Some(secs(seconds)), ..HeartbeatPolicy::default() };
    Policy { heartbeat, ..windows_of(1) }
}

/// What is stored of a tenant, each event with its time left out. Heartbeats come a millisecond late each.
fn stored(rig: &Rig, name: &str) -> Vec<Value> {
    let mut stored: Vec<Value> = rig.stored(name).iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    for event in stored.iter_mut().filter(|event| event.get("headworks").is_some()) {
        let at = event.as_object_mut().unwrap().remove("at").unwrap();
        let at = at.as_str().unwrap();
        assert!(at.starts_with("2023-11-1") && at.ends_with('Z'), "{at}");
        let lasted = event["silent_for_ms"].as_u64().unwrap();
        if event["headworks"] == "heartbeat" {
            assert!(lasted % 1_000 < 200, "{lasted}");
            event["silent_for_ms"] = json!(lasted / 1_000 * 1_000);
        }
    }
    stored
}

fn sent(n: usize) -> Value {
    serde_json::from_str(&event("a", n)).unwrap()
}

fn told(what: &str, silent_for: u64, expected_within: u64) -> Value {
    let (silent_for_ms, expected_within_ms) = (silent_for * 1_000, expected_within * 1_000);
    json!({ "tenant": "a", "headworks": what, "silent_for_ms": silent_for_ms, "expected_within_ms": expected_within_ms })
}

fn beat(silent_for: u64) -> Value {
    json!({ "tenant": "a", "headworks": "heartbeat", "silent_for_ms": silent_for * 1_000 })
}

#[test]
fn a_silence_and_its_end_are_events_in_the_tenants_stream_and_do_not_end_it_themselves() {
    virtual_time(async {
        let rig = Rig::new(silent_after(30));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(200)).await;
        assert_eq!(stored(&rig, "a"), [sent(0), told("silent", 30, 30)]);
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.status, snapshot.silence.unwrap().silent_ms), (Status::Silent, Some(200_000)));
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(stored(&rig, "a"), [sent(0), told("silent", 30, 30), sent(1), told("heard", 200, 30)]);
        assert_eq!(rig.snapshot("a").status, Status::Active);
        pass(secs(60)).await;
        assert_eq!(stored(&rig, "a").len(), 5, "and it can fall silent again");
        rig.drained().await;
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.received, counters.accepted, counters.stored), (5, 5, 5));
        let (own, senders) = (rig.source("headworks"), rig.source("test"));
        assert_eq!((own.received, own.accepted, senders.received), (3, 3, 2), "they are told apart by source");
    });
}

#[test]
fn nobody_who_did_not_ask_gets_one() {
    virtual_time(async {
        let silence = SilencePolicy { downstream: false, ..silent_after(30).silence };
        let rig = Rig::new(Policy { silence, ..windows_of(1) });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(200)).await;
        assert_eq!((stored(&rig, "a"), rig.logged("a", What::Silent).len()), (vec![sent(0)], 1));
        rig.drained().await;
        assert!(rig.system.sources().iter().all(|(name, _)| &**name != "headworks"));
    });
}

#[test]
fn a_passivated_tenant_is_woken_for_its_silence_and_sleeps_on() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { passivate_after: Some(secs(100)), ..HeartbeatPolicy::default() };
        let rig = Rig::new(Policy { heartbeat, ..silent_after(600) });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(300)).await;
        assert_eq!(rig.snapshot("a").status, Status::Dormant);
        pass(secs(301)).await;
        assert_eq!(stored(&rig, "a"), [sent(0), told("silent", 600, 600)]);
        pass(secs(3600)).await;
        assert_eq!((rig.logged("a", What::Passivated).len(), stored(&rig, "a").len()), (2, 2), "once");
        assert_eq!(rig.snapshot("a").status, Status::Silent);
        assert_eq!(rig.logged("a", What::Active).len(), 0, "nobody used it");
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_never_came_is_missed_in_its_stream_where_it_is_named() {
    virtual_time(async {
        let named = TenantSpec::new("a").unwrap();
        let rig = Rig::with(silent_after(30), |builder| builder.tenant(named).tenant_field("who's \"it\""));
        pass(secs(100)).await;
        let mut told = told("silent", 30, 30);
        told.as_object_mut().unwrap().remove("tenant");
        told["who's \"it\""] = json!("a");
        assert_eq!(stored(&rig, "a"), [told]);
        rig.drained().await;
    });
}

#[test]
fn heartbeats_are_events_for_as_long_as_the_tenant_is_awake_and_do_not_keep_it_so() {
    virtual_time(async {
        let rig = Rig::new(beats_every(30));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(65)).await;
        assert_eq!(stored(&rig, "a"), [sent(0), beat(10), beat(40)]);
        assert_eq!(rig.snapshot("a").status, Status::Idle);
        pass(secs(3600)).await;
        let beats = (0..10).map(|n| beat(10 + n * 30));
        assert_eq!(stored(&rig, "a"), [sent(0)].into_iter().chain(beats).collect::<Vec<_>>());
        assert_eq!(rig.snapshot("a").status, Status::Dormant);
        let passivated = rig.logged("a", What::Passivated);
        let after = passivated[0].at.0 - rig.logged("a", What::Started)[0].at.0;
        assert!((300_000..312_000).contains(&after), "when it would have been without them: {after} ms");
        assert_eq!((rig.logged("a", What::Idle).len(), rig.logged("a", What::Active).len()), (1, 0));
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        pass(secs(15)).await;
        assert_eq!(stored(&rig, "a")[11..], [sent(1), beat(10)], "and again once it wakes");
        assert_eq!(rig.logged("a", What::Active).len(), 1);
        rig.drained().await;
    });
}

#[test]
fn windows_that_stay_open_for_long_do_not_keep_a_tenant_with_heartbeats_awake() {
    virtual_time(async {
        let window = headworks_actors::WindowPolicy { max_age: secs(600), ..windows_of(1_000).window };
        let rig = Rig::new(Policy { window, ..beats_every(20) });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("it is passivated", || rig.snapshot("a").status == Status::Dormant).await;
        assert_eq!(stored(&rig, "a").len(), 1 + 15);
        rig.drained().await;
    });
}

#[test]
fn where_there_is_no_room_it_is_refused_and_counted_and_nobody_waits() {
    virtual_time(async {
        for when_full in [WhenFull::Reject, WhenFull::Block] {
            let overflow = OverflowPolicy { max_in_flight: 1 << 10, when_full, ..OverflowPolicy::default() };
            let heartbeat = HeartbeatPolicy { passivate_after: None, ..beats_every(30).heartbeat };
            let policy = Policy { overflow, heartbeat, ..silent_after(15) };
            let (rig, store) = Rig::faulty(policy, Fault::Unavailable.always());
            let ingress = rig.ingress().await;
            ingress.feed(lines(events("a", 0..40))).await.unwrap();
            pass(secs(65)).await;
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.received, counters.accepted, counters.rejected), (43, 40, 3), "{when_full:?}");
            assert_eq!(rig.source("headworks").rejected, 3);
            let report = rig.system.report();
            let refused = report.entries.iter().find(|entry| entry.code == Code::TenantFull).unwrap();
            assert_eq!(refused.events, 3);
            assert!(
                refused.sample.starts_with("1 event of our own refused, which was to say \""),
                "{}",
                refused.sample
            );
            assert_eq!(rig.logged("a", What::MissedHeartbeat).len(), 0);
            store.heal();
            until("there is room", || rig.snapshot("a").in_flight == 0).await;
            pass(secs(31)).await;
            assert!(rig.source("headworks").accepted > 0, "the next one is taken in");
            rig.drained().await;
        }
    });
}

#[test]
fn a_muted_tenants_own_events_are_counted_as_muted_and_those_above_its_rate_as_throttled() {
    virtual_time(async {
        for when_over in [WhenOver::Reject, WhenOver::Delay] {
            let throttle =
                ThrottlePolicy { events_per_second: 1, burst_events: 1, when_over, ..ThrottlePolicy::default() };
            let rig = Rig::new(Policy { throttle, ..beats_every(10) });
            let ingress = rig.ingress().await;
            ingress.feed(lines([event("a", 0)])).await.unwrap();
            pass(millis(9_900)).await;
            ingress.feed(lines([event("a", 1)])).await.unwrap();
            pass(secs(5)).await;
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.received, counters.accepted, counters.throttled), (3, 2, 1), "{when_over:?}");
            rig.system.mute(&tenant("a"));
            pass(secs(10)).await;
            rig.system.unmute(&tenant("a"));
            pass(secs(10)).await;
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.received, counters.accepted, counters.muted), (5, 3, 1));
            let own = rig.source("headworks");
            assert_eq!((own.received, own.accepted, own.throttled, own.muted), (3, 1, 1, 1));
            rig.drained().await;
            assert_eq!(stored(&rig, "a").len(), 3);
        }
    });
}

#[test]
fn hooks_see_them_as_they_see_any_event() {
    virtual_time(async {
        let hooks = Hooks::new().filter(|event| {
            let body = String::from_utf8_lossy(&event.body);
            assert!(!body.contains("\"silent\""), "this one cannot cope with it");
            !body.contains("heartbeat")
        });
        let policy = Policy { silence: silent_after(15).silence, ..beats_every(10) };
        let rig = Rig::with(policy, |builder| builder.hooks(hooks));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(25)).await;
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.received, counters.accepted, counters.discarded, counters.rejected), (4, 3, 2, 1));
        assert!(rig.system.report().entries.iter().any(|entry| entry.code == Code::HookPanic));
        rig.drained().await;
        assert_eq!(stored(&rig, "a"), [sent(0)]);
    });
}

#[test]
fn rules_that_ask_for_them_hold_at_once_and_a_draining_system_makes_none() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Unavailable.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(95)).await;
        assert_eq!(rig.snapshot("a").counters.accepted, 1);
        rig.system.set_policy(&tenant("a"), beats_every(10)).unwrap();
        pass(secs(20)).await;
        assert_eq!(rig.snapshot("a").counters.accepted, 3);
        let draining = rig.system.clone();
        let drained = tokio::task::spawn_local(async move { draining.drain(secs(3600)).await });
        pass(secs(100)).await;
        assert_eq!(rig.snapshot("a").counters.accepted, 3);
        store.heal();
        assert!(drained.await.unwrap().complete);
        assert_eq!(stored(&rig, "a"), [sent(0), beat(100), beat(110)]);
    });
}
