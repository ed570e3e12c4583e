//! An expected sender that stops is told of, once, and so is its coming back.

use headworks_actors::{Code, HeartbeatPolicy, Policy, SilencePolicy, Status, TenantSpec, What};

use crate::rig::{Rig, event, lines, pass, secs, tenant, virtual_time, windows_of};

fn quiet_for(seconds: u64) -> Policy {
    let silence = SilencePolicy { after: Some(secs(seconds)), ..SilencePolicy::default() };
    Policy { silence, ..windows_of(1) }
}

fn told(rig: &Rig, name: &str) -> Vec<(What, String)> {
    let log = rig.log_of(name).into_iter().filter(|event| matches!(event.what, What::Silent | What::Heard));
    let told = log.map(|event| {
        let cause = event.cause.as_ref().unwrap();
        assert_eq!(cause.code, Code::Silent);
        (event.what, cause.detail.to_string())
    });
    told.collect()
}

fn silent(detail: &str) -> (What, String) {
    (What::Silent, detail.to_owned())
}

fn heard(detail: &str) -> (What, String) {
    (What::Heard, detail.to_owned())
}

#[test]
fn a_sender_that_stops_is_told_of_once_and_so_is_its_coming_back() {
    virtual_time(async {
        let rig = Rig::new(quiet_for(30));
        let ingress = rig.ingress().await;
        for n in 0..5 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
            pass(secs(20)).await;
        }
        assert_eq!((told(&rig, "a"), rig.snapshot("a").status), (vec![], Status::Active));
        pass(secs(600)).await;
        let first = silent("no frame came for 30s, and one is expected within 30s (silence.after)");
        assert_eq!(told(&rig, "a"), std::slice::from_ref(&first));
        let snapshot = rig.snapshot("a");
        let silence = snapshot.silence.unwrap();
        assert_eq!(
            (snapshot.status, silence.silent_ms, silence.heard_ms_ago),
            (Status::Silent, Some(620_000), Some(620_000))
        );
        ingress.feed(lines([event("a", 5)])).await.unwrap();
        pass(secs(1)).await;
        let back = heard("a frame came after 10m 20s without one; one is expected within 30s (silence.after)");
        assert_eq!(told(&rig, "a"), [first, back]);
        assert_eq!(rig.snapshot("a").status, Status::Active);
        pass(secs(60)).await;
        assert_eq!(told(&rig, "a").len(), 3, "and it can fall silent again");
        rig.drained().await;
    });
}

#[test]
fn a_passivated_tenant_falls_silent_without_being_woken_and_is_heard_when_it_wakes() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { passivate_after: Some(secs(20)), ..HeartbeatPolicy::default() };
        let rig = Rig::new(Policy { heartbeat, ..quiet_for(300) });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(100)).await;
        assert_eq!((rig.snapshot("a").status, rig.logged("a", What::Passivated).len()), (Status::Dormant, 1));
        pass(secs(300)).await;
        assert_eq!(told(&rig, "a"), [silent("no frame came for 5m, and one is expected within 5m (silence.after)")]);
        assert_eq!(rig.snapshot("a").status, Status::Silent);
        assert_eq!(rig.logged("a", What::Started).iter().filter(|event| event.epoch > 0).count(), 0, "it slept on");
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(told(&rig, "a").last().unwrap().0, What::Heard);
        assert_eq!(rig.snapshot("a").status, Status::Active);
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_never_came_is_missed_only_where_it_is_named() {
    virtual_time(async {
        let rig = Rig::with(quiet_for(30), |builder| builder.tenant(TenantSpec::new("named").unwrap()));
        assert!(rig.system.tenant(&tenant("named")).is_none());
        pass(secs(100)).await;
        assert_eq!(
            told(&rig, "named"),
            [silent("no frame came for 30s, and one is expected within 30s (silence.after)")]
        );
        let snapshot = rig.snapshot("named");
        assert_eq!((snapshot.status, snapshot.silence.unwrap().heard_ms_ago), (Status::Silent, None));
        assert_eq!(rig.system.tenants().len(), 1);
        rig.drained().await;
    });
}

#[test]
fn frames_that_are_refused_are_a_sign_of_life_too() {
    virtual_time(async {
        let rig = Rig::new(quiet_for(30));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        rig.system.mute(&tenant("a"));
        for n in 0..20 {
            pass(secs(20)).await;
            ingress.feed(lines([event("a", n)])).await.unwrap();
        }
        assert_eq!((told(&rig, "a"), rig.snapshot("a").counters.muted), (vec![], 20));
        rig.drained().await;
    });
}

#[test]
fn a_rhythm_is_learnt_and_held_against_its_own_sender() {
    virtual_time(async {
        let silence = SilencePolicy { learn: true, ..SilencePolicy::default() };
        let rig = Rig::new(Policy { silence, ..windows_of(1) });
        let ingress = rig.ingress().await;
        for n in 0..60 {
            ingress.feed(lines([event("quick", n)])).await.unwrap();
            if n % 10 == 0 {
                ingress.feed(lines([event("new", n)])).await.unwrap();
            }
            pass(secs(5)).await;
        }
        pass(secs(3600)).await;
        let by = "(silence.learn, from its own rhythm)";
        assert_eq!(
            told(&rig, "quick"),
            [silent(&format!("no frame came for 20s, and one is expected within 20s {by}"))]
        );
        assert!(told(&rig, "new").is_empty(), "six frames are no rhythm");
        assert_eq!(rig.snapshot("new").silence.unwrap().expected_within_ms, None);
        rig.drained().await;
    });
}

#[test]
fn rules_that_are_changed_hold_at_once() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(1000)).await;
        assert_eq!(rig.snapshot("a").silence, None);
        rig.system.set_policy(&tenant("a"), quiet_for(30)).unwrap();
        pass(secs(100)).await;
        assert_eq!((told(&rig, "a").len(), rig.snapshot("a").status), (1, Status::Silent));
        rig.system.set_policy(&tenant("a"), quiet_for(3000)).unwrap();
        pass(secs(100)).await;
        assert_ne!(rig.snapshot("a").status, Status::Silent);
        rig.system.set_policy(&tenant("a"), windows_of(1)).unwrap();
        pass(secs(10_000)).await;
        assert_eq!((told(&rig, "a").len(), rig.snapshot("a").silence), (1, None));
        rig.drained().await;
    });
}
