//! What a tenant tells of itself: quiet, retrying, parked, given up, quarantined; and what the failure report says when.

use std::sync::{Arc, Mutex};

use headworks_actors::{Code, Fault, Policy, Report, RestartPolicy, RetryPolicy, Role, Status, What};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, until, virtual_time, windows_of};

fn retry(attempts: u32) -> RetryPolicy {
    RetryPolicy { attempts, base: secs(60), cap: secs(60), ..RetryPolicy::default() }
}

#[test]
fn a_quiet_tenant_tells_its_open_window_and_when_it_closes() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(millis(300)).await;
        ingress.feed(lines(events("a", 1..3))).await.unwrap();
        let detail = rig.tenant("a").explain();
        let bytes = events("a", 0..3).iter().map(|event| event.len() as u64).sum::<u64>();
        assert_eq!((detail.window.events, detail.window.bytes, detail.window.max_events), (3, bytes, 500));
        assert_eq!(detail.window.due_at, Some(detail.at.plus(millis(700))), "a second after its first event");
        assert_eq!((detail.snapshot.status, detail.backlog.batches, detail.batch), (Status::Active, 0, None));
        pass(secs(1)).await;
        let detail = rig.tenant("a").explain();
        assert_eq!((detail.window.events, detail.window.due_at, detail.window.oldest_at), (0, None, None));
        assert_eq!(detail.failures, []);
        rig.drained().await;
    });
}

#[test]
fn a_retrying_tenant_tells_attempt_cause_and_when_the_next_one_is_due() {
    virtual_time(async {
        let policy = Policy { retry: retry(5), ..windows_of(2) };
        let (rig, store) = Rig::faulty(policy, Fault::Transient.first(2));
        rig.ingress().await.feed(lines(events("a", 0..6))).await.unwrap();
        store.until_calls(1).await;
        pass(millis(1)).await;
        let detail = rig.tenant("a").explain();
        let batch = detail.batch.unwrap();
        assert_eq!((batch.attempt.0, batch.attempts_spent, batch.attempts_allowed), (1, 1, 5));
        assert_eq!((batch.id.seq.0, batch.events, batch.open_since), (1, 2, None));
        assert_eq!(batch.last_cause.map(|cause| cause.code), Some(Code::StoreTransient));
        let failed = detail.log.iter().find(|entry| entry.what == What::Failed).unwrap();
        assert_eq!((failed.next_attempt_at, failed.batch.as_ref()), (batch.next_attempt_at, Some(&batch.id)));
        assert!(batch.next_attempt_at > Some(detail.at));
        assert_eq!((detail.backlog.batches, detail.backlog.events, detail.snapshot.status), (3, 6, Status::Retrying));
        let [failure] = &detail.failures[..] else { panic!("{:?}", detail.failures) };
        assert_eq!((failure.code, failure.failures, failure.last_minute), (Code::StoreTransient, 1, 1));
        rig.drained().await;
    });
}

#[test]
fn an_attempt_under_way_tells_since_when() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Stall.first(1));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        store.until_calls(1).await;
        let begun = rig.tenant("a").explain().at;
        pass(secs(3)).await;
        let batch = rig.tenant("a").explain().batch.unwrap();
        assert_eq!((batch.open_since, batch.next_attempt_at, batch.attempts_spent), (Some(begun), None, 0));
        rig.drained().await;
    });
}

#[test]
fn a_parked_tenant_tells_that_no_attempt_is_spent() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Unavailable.first(3));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        store.until_calls(1).await;
        pass(millis(0)).await;
        let detail = rig.tenant("a").explain();
        let batch = detail.batch.unwrap();
        assert!(batch.is_parked && !batch.is_given_up);
        assert_eq!((batch.attempts_spent, detail.snapshot.status), (0, Status::Parked));
        rig.drained().await;
    });
}

#[test]
fn a_batch_that_was_given_up_is_named_in_the_log_with_what_it_held() {
    virtual_time(async {
        let (rig, _) = Rig::faulty(windows_of(3), Fault::Permanent.first(1));
        rig.ingress().await.feed(lines(events("a", 0..3))).await.unwrap();
        rig.drained().await;
        for what in [What::Compensated, What::DeadLettered] {
            let logged = rig.logged("a", what);
            let batch = logged[0].batch.as_ref().unwrap();
            assert_eq!((logged.len(), batch.seq.0, logged[0].batch_events), (1, 1, 3), "{what:?}");
            let line = logged[0].to_string();
            assert!(line.contains(&format!(" batch={batch} batch_events=3 ")), "{line}");
        }
    });
}

#[test]
fn a_quarantined_tenant_tells_which_actor_and_until_when() {
    virtual_time(async {
        let restart = RestartPolicy { intensity: 3, quarantine: secs(600), ..RestartPolicy::default() };
        let rig = Rig::new(Policy { restart, ..windows_of(10) });
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        rig.tenant("a").flush();
        pass(millis(1)).await;
        for _ in 0..2 {
            rig.tenant("a").inject_panic();
            pass(secs(1)).await;
        }
        let detail = rig.tenant("a").explain();
        assert_eq!(detail.snapshot.status, Status::Quarantined);
        let told: Vec<_> = detail.actors.iter().map(|actor| (actor.actor, actor.epoch, actor.status)).collect();
        let quarantined = Some(Status::Quarantined);
        assert_eq!(told, [(Role::Tenant, 1, quarantined), (Role::Writer, 1, quarantined)]);
        let entry = detail.log.iter().rfind(|entry| entry.what == What::Quarantined).unwrap();
        assert_eq!(entry.next_attempt_at, Some(entry.at.plus(secs(600))));
        assert_eq!(detail.failures.iter().map(|entry| entry.code).collect::<Vec<_>>(), [Code::ActorPanic]);
        rig.tenant("a").resume();
        rig.drained().await;
    });
}

#[test]
fn the_periodic_report_goes_to_those_who_ask_for_it_and_a_panic_there_harms_nobody() {
    virtual_time(async {
        let told: Arc<Mutex<Vec<Report>>> = Arc::default();
        let reports = told.clone();
        let rig = Rig::with(Policy::default(), |builder| {
            let builder = builder.report_every(Some(secs(60)));
            let builder = builder.on_report(|_| panic!("a hook that fails"));
            builder.on_report(move |report| reports.lock().unwrap().push(report.clone()))
        });
        let taken = || std::mem::take(&mut *told.lock().unwrap());
        pass(secs(61)).await;
        assert_eq!(taken(), [], "nothing failed");
        let ingress = rig.ingress().await;
        for _ in 0..2 {
            ingress.feed(b"no JSON\n".to_vec()).await.unwrap();
            pass(secs(1)).await;
        }
        pass(secs(60)).await;
        let [report] = &taken()[..] else { panic!("one report") };
        let [entry] = &report.entries[..] else { panic!("{report}") };
        assert_eq!((entry.tenant.clone(), entry.code, entry.recent, entry.failures), (None, Code::BadJson, 2, 2));
        assert_eq!((entry.last_5_minutes, report.at), (2, report.since.plus(secs(60))));
        pass(secs(60)).await;
        let codes = taken().iter().flat_map(|report| &report.entries).map(|entry| entry.code).collect::<Vec<_>>();
        assert!(codes.iter().all(|code| *code == Code::ObserverPanic), "nothing else failed since: {codes:?}");
        assert_eq!(rig.system.report().entries[0].last_minute, 0);
        assert_eq!(rig.system.report().entries[0].last_hour, 2);
        ingress.feed(b"no JSON\n".to_vec()).await.unwrap();
        rig.drained().await;
        pass(millis(1)).await;
        assert_eq!(
            taken().iter().map(|report| report.entries[0].recent).collect::<Vec<_>>(),
            [1],
            "the end reports what is left"
        );
    });
}

#[test]
fn a_tenant_whose_events_are_given_up_is_failing_for_a_minute_and_no_longer() {
    virtual_time(async {
        let (rig, _) = Rig::faulty(windows_of(1), |batch, _| {
            if batch.events().any(|event| event.body.ends_with(b"13}")) { Fault::Permanent } else { Fault::None }
        });
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", [12, 13]))).await.unwrap();
        until("it is given up", || rig.snapshot("a").counters.dead_lettered == 1).await;
        assert_eq!(rig.snapshot("a").status, Status::Failing);
        // What moves since does not hide it.
        ingress.feed(lines(events("a", 14..20))).await.unwrap();
        until("they are stored", || rig.snapshot("a").counters.stored == 7).await;
        assert_eq!(rig.snapshot("a").status, Status::Failing);
        pass(secs(61)).await;
        assert!(matches!(rig.snapshot("a").status, Status::Active | Status::Idle));
        rig.drained().await;
    });
}

#[test]
fn an_outage_is_one_failed_attempt_however_often_the_store_is_asked_whether_it_is_back() {
    virtual_time(async {
        let (rig, store) =
            Rig::faulty(windows_of(1), |_, call| if call < 9 { Fault::Unavailable } else { Fault::None });
        rig.ingress().await.feed(lines(events("a", [1]))).await.unwrap();
        until("it is stored", || rig.snapshot("a").counters.stored == 1).await;
        assert_eq!((store.calls(), rig.snapshot("a").counters.attempts_failed), (9, 1));
        rig.drained().await;
    });
}
