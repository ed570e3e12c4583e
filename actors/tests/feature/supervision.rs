//! What fails is started afresh, loses nothing, and says so in the log.

use headworks_actors::{
    Batch, Code, Error, Fault, LogItem, Policy, RestartPolicy, RetryPolicy, Role, Status, SupervisorEvent, What,
};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// The kinds of entries of one actor, oldest first.
fn kinds(log: &[std::sync::Arc<SupervisorEvent>], role: Role) -> Vec<What> {
    log.iter().filter(|event| event.actor == role).map(|event| event.what).collect()
}

#[test]
fn a_panic_loses_nothing_and_the_handle_stays_valid() {
    virtual_time(async {
        // Two actors that die at every turn, and a batch only at every fifth.
        let restart = RestartPolicy { intensity: 100, cap: millis(50), ..RestartPolicy::default() };
        let rig = Rig::new(Policy { restart, ..windows_of(10) });
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..15))).await.unwrap();
        let handle = rig.tenant("a");
        for n in 15..40 {
            handle.inject_panic();
            ingress.feed(lines([event("a", n)])).await.unwrap();
            handle.offer([event("a", 1_000 + n)]).await.unwrap();
            pass(millis(70 * (n as u64 % 3))).await;
        }
        assert!(handle.snapshot().counters.restarts > 20, "both of its actors died, again and again");
        rig.drained().await;
        let expected = events("a", 0..15).into_iter().chain((15..40).flat_map(|n| events("a", [n, 1_000 + n])));
        assert_eq!(rig.stored("a"), expected.collect::<Vec<_>>());
        let snapshot = handle.snapshot();
        assert_eq!((snapshot.status, snapshot.counters.batches), (Status::Stopped, 7), "65 events, 10 a window");
    });
}

#[test]
fn what_comes_while_an_actor_waits_for_its_restart_is_stored_afterwards() {
    virtual_time(async {
        let restart = RestartPolicy { base: secs(10), ..RestartPolicy::default() };
        let rig = Rig::new(Policy { restart, ..windows_of(1) });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("the first is stored", || rig.stored("a").len() == 1).await;
        rig.tenant("a").inject_panic();
        pass(millis(1)).await;
        ingress.feed(lines(events("a", 1..5))).await.unwrap();
        pass(secs(5)).await;
        assert_eq!((rig.snapshot("a").status, rig.stored("a").len()), (Status::Restarting, 1));
        rig.tenant("a").resume();
        pass(millis(1)).await;
        assert_eq!((rig.snapshot("a").status, rig.stored("a").len()), (Status::Active, 5), "the wait is cut short");
        rig.drained().await;
    });
}

#[test]
fn an_open_window_keeps_its_deadline_through_a_restart() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(millis(600)).await;
        rig.tenant("a").restart();
        pass(millis(410)).await;
        assert_eq!(rig.stored("a").len(), 1, "one second from its event, not from the restart");
        rig.drained().await;
    });
}

#[test]
fn a_restart_by_hand_in_the_middle_of_an_attempt_sends_the_same_batch_again() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(2), Fault::Stall.first(1));
        rig.ingress().await.feed(lines(events("a", 0..2))).await.unwrap();
        store.until_calls(1).await;
        rig.tenant("a").restart();
        rig.drained().await;
        let attempts = store.attempts();
        assert_eq!(attempts.iter().map(|attempt| attempt.1).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((&attempts[0].0, &attempts[0].2), (&attempts[1].0, &attempts[1].2));
        assert_eq!(rig.stored("a"), events("a", 0..2));
        assert!(rig.logged("a", What::Failed).is_empty(), "nothing failed");
        let cut_off = rig.logged("a", What::Ambiguous);
        assert_eq!(cut_off.len(), 1);
        assert_eq!((cut_off[0].actor, cut_off[0].attempt), (Role::Writer, Some(1)));
        assert_eq!(cut_off[0].cause.as_ref().unwrap().code, Code::ActorStopped);
        assert!(cut_off[0].next_attempt_at.is_some());
    });
}

#[test]
fn a_restart_by_hand_does_not_blame_an_older_panic() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Stall.on_call(2));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("the first is stored", || rig.stored("a").len() == 1).await;
        rig.tenant("a").inject_panic();
        pass(secs(1)).await;
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        store.until_calls(2).await;
        rig.tenant("a").restart();
        rig.drained().await;
        let attempts: Vec<_> = rig.logged("a", What::Ambiguous);
        let last = attempts.last().unwrap();
        assert_eq!(last.cause.as_ref().unwrap().code, Code::ActorStopped, "{last}");
    });
}

#[test]
fn a_store_that_always_panics_ends_in_dead_letters_and_not_in_a_crash_loop() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::PanicBefore.always());
        rig.ingress().await.feed(lines(events("a", 0..20))).await.unwrap();
        rig.drained().await;
        assert_eq!(store.calls(), 100, "five attempts for each batch");
        assert_eq!(rig.dead(), events("a", 0..20));
        assert!(rig.logged("a", What::Quarantined).is_empty(), "a batch that is given up is progress");
        assert_eq!(rig.snapshot("a").counters.restarts, 100);
    });
}

/// Quarantine after two restarts without progress, long before the attempts are spent.
fn brittle() -> Policy {
    Policy {
        restart: RestartPolicy { intensity: 2, ..RestartPolicy::default() },
        retry: RetryPolicy { attempts: 1_000, ..RetryPolicy::default() },
        ..windows_of(1)
    }
}

fn panics_for_a(batch: &Batch, _: u64) -> Fault {
    if batch.tenant().as_str() == "a" { Fault::PanicBefore } else { Fault::None }
}

#[test]
fn a_spent_intensity_is_a_quarantine_that_a_timer_lifts_while_others_go_on() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(brittle(), panics_for_a);
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..3))).await.unwrap();
        until("quarantine", || rig.snapshot("a").status == Status::Quarantined).await;
        assert_eq!(store.calls(), 3);
        let log = rig.logged("a", What::Quarantined);
        assert_eq!((log.len(), log[0].actor, log[0].attempt), (1, Role::Writer, Some(3)));
        assert_eq!(log[0].next_attempt_at, Some(log[0].at.plus(secs(60))));
        assert_eq!(log[0].cause.as_ref().unwrap().code, Code::StorePanic);
        assert_eq!(log[0].events_kept, 3);

        ingress.feed(lines(events("b", 0..3))).await.unwrap();
        ingress.feed(lines(events("a", 3..6))).await.unwrap();
        pass(secs(50)).await;
        assert_eq!((rig.stored("b").len(), store.calls()), (3, 6), "b goes on, a is left alone");
        assert_eq!(rig.snapshot("a").in_flight, 6);
        store.heal();
        pass(secs(11)).await;
        assert_eq!(rig.stored("a"), events("a", 0..6));
        assert_eq!(rig.snapshot("a").status, Status::Active);
        rig.drained().await;
    });
}

#[test]
fn a_quarantine_is_lifted_by_hand() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(brittle(), panics_for_a);
        rig.ingress().await.feed(lines(events("a", 0..3))).await.unwrap();
        until("quarantine", || rig.snapshot("a").status == Status::Quarantined).await;
        store.heal();
        rig.tenant("a").resume();
        pass(secs(1)).await;
        assert_eq!(rig.stored("a"), events("a", 0..3));
        assert_eq!(rig.logged("a", What::Resumed).len(), 1);
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_panics_goes_into_quarantine_with_its_window_kept() {
    virtual_time(async {
        let rig = Rig::new(Policy { window: windows_of(100).window, ..brittle() });
        rig.system.spawn(tenant("a")).await.unwrap();
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..5))).await.unwrap();
        for _ in 0..3 {
            rig.tenant("a").inject_panic();
            pass(secs(1)).await;
        }
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.status, snapshot.window), (Status::Quarantined, 5));
        rig.tenant("a").flush();
        pass(secs(10)).await;
        assert_eq!(rig.stored("a").len(), 0);
        pass(secs(60)).await;
        assert_eq!(rig.stored("a").len(), 5, "the flush that was asked for is done afterwards");
        rig.drained().await;
    });
}

#[test]
fn the_log_tells_each_death_and_restart_with_epoch_attempt_and_time() {
    virtual_time(async {
        let (rig, _store) = Rig::faulty(windows_of(1), Fault::PanicBefore.first(3));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        rig.drained().await;
        use What::{Ambiguous, BackingOff, Failed, Restarted, Started, Stopped};
        let log = rig.log_of("a");
        // The actor's death, told once, then the attempt without an outcome that its successor finds.
        let death = [Failed, BackingOff, Restarted, Ambiguous];
        let expected = [&[Started][..], &death, &death, &death, &[Stopped]].concat();
        assert_eq!(kinds(&log, Role::Writer), expected);
        let restarts = rig.logged("a", Restarted);
        assert_eq!(restarts.iter().map(|event| event.attempt).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
        assert_eq!(restarts.iter().map(|event| event.epoch).collect::<Vec<_>>(), [1, 2, 3]);
        for (waiting, restarted) in rig.logged("a", BackingOff).iter().zip(&restarts) {
            let late = restarted.at.0 - waiting.next_attempt_at.unwrap().0;
            assert!((0..=2).contains(&late), "restarted {late} ms after it was due");
            assert_eq!(waiting.cause.as_ref().unwrap().code, Code::StorePanic);
        }
        let all = rig.system.log().last(usize::MAX);
        assert!(all.iter().map(|event| event.cursor).eq(0..all.len() as u64), "no gaps");
    });
}

#[test]
fn an_entry_is_one_line_for_people_and_the_same_fields_for_machines() {
    virtual_time(async {
        let (rig, _store) = Rig::faulty(windows_of(1), Fault::PanicBefore.first(1));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        rig.drained().await;
        let entry = rig.logged("a", What::BackingOff)[0].clone();
        let line = entry.to_string();
        assert!(!line.contains('\n'));
        let next = entry.next_attempt_at.unwrap();
        let expected = format!(
            "{} a writer backing_off attempt=1 next_attempt_at={next} events_kept=1 \
             cause=store_panic \"injected panic before call 1 at ",
            entry.at
        );
        let place = line.strip_prefix(&expected).expect(&line).strip_suffix('"').expect(&line);
        let (file, place) = place.split_once(':').expect("the file of the panic, the line and the column");
        assert!(file.ends_with("faulty.rs"), "{file}");
        assert!(place.split(':').all(|number| number.parse::<u32>().is_ok()), "{place}");
        let json = serde_json::to_value(&*entry).unwrap();
        assert_eq!(json["what"], "backing_off");
        assert_eq!(json["actor"], "writer");
        assert_eq!(json["tenant"], "a");
        assert_eq!(json["cause"]["code"], "store_panic");
        assert_eq!(json["next_attempt_at"], next.0);
        assert_eq!((&json["epoch"], &json["attempt"], &json["events_kept"]), (&0.into(), &1.into(), &1.into()));
    });
}

#[test]
fn a_slow_reader_of_the_log_is_told_how_much_it_missed() {
    virtual_time(async {
        let (rig, _store) =
            Rig::faulty_with(windows_of(1), Fault::PanicBefore.first(4), |builder| builder.log_entries(4));
        let mut slow = rig.system.log().subscribe_from(0);
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        until("stored", || rig.stored("a").len() == 1).await;
        let newest = rig.system.log().last(1)[0].cursor;
        assert_eq!(slow.next().await, LogItem::Missed(newest - 3));
        for cursor in newest - 3..=newest {
            let LogItem::Event(event) = slow.next().await else { panic!("an entry follows") };
            assert_eq!(event.cursor, cursor);
        }
        rig.drained().await;
    });
}

#[test]
fn a_reader_that_keeps_up_sees_every_entry_as_it_happens() {
    virtual_time(async {
        let (rig, _store) = Rig::faulty(windows_of(1), Fault::PanicBefore.first(1));
        let mut log = rig.system.log().subscribe_from(0);
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        let mut seen = vec![];
        while seen.last() != Some(&What::Restarted) {
            let LogItem::Event(event) = log.next().await else { panic!("it keeps up") };
            if event.tenant == Some(tenant("a")) {
                seen.push(event.what);
            }
        }
        assert_eq!(seen, [What::Started, What::Started, What::Failed, What::BackingOff, What::Restarted]);
        rig.drained().await;
    });
}

#[test]
fn the_failures_of_both_actors_of_a_tenant_are_counted_together() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(brittle(), panics_for_a);
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        // The writer has failed once, and now both do.
        store.until_calls(1).await;
        rig.tenant("a").inject_panic();
        until("quarantine", || rig.snapshot("a").status == Status::Quarantined).await;
        assert_eq!(rig.logged("a", What::Failed).len(), 3);
        let roles: Vec<_> = rig.logged("a", What::Failed).iter().map(|event| event.actor).collect();
        assert!(roles.contains(&Role::Tenant) && roles.contains(&Role::Writer), "{roles:?}");
        assert_eq!(rig.logged("a", What::Quarantined).len(), 1, "it is the tenant that is quarantined, once");
        let calls = store.calls();
        ingress.feed(lines(events("a", 1..50))).await.unwrap();
        pass(secs(59)).await;
        assert_eq!(store.calls(), calls, "neither of its actors runs");
        store.heal();
        pass(secs(2)).await;
        assert_eq!(rig.stored("a"), events("a", 0..50));
        let started = rig.log_of("a").into_iter().filter(|event| event.what == What::Started).count();
        assert_eq!((started, rig.logged("a", What::Resumed).len()), (4, 1));
        rig.drained().await;
    });
}

#[test]
fn a_restart_that_is_due_is_forgotten_with_the_quarantine_that_comes_before_it() {
    virtual_time(async {
        // The tenant waits ten seconds for its restart while the writer spends what is left.
        let restart = RestartPolicy { intensity: 1, base: secs(10), ..RestartPolicy::default() };
        let rig = Rig::new(Policy { restart, ..windows_of(1) });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("stored", || rig.stored("a").len() == 1).await;
        rig.tenant("a").inject_panic();
        pass(secs(50)).await;
        assert_eq!(rig.snapshot("a").status, Status::Quarantined);
        assert!(rig.logged("a", What::Restarted).is_empty());
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_is_stopped_keeps_its_events_until_it_is_resumed() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(2), Fault::Stall.first(1));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..2))).await.unwrap();
        store.until_calls(1).await;
        rig.tenant("a").stop();
        assert_eq!(rig.snapshot("a").status, Status::Stopped);
        let stopped: Vec<_> = rig.logged("a", What::Stopped).iter().map(|event| (event.actor, event.epoch)).collect();
        assert_eq!(stopped, [(Role::Tenant, 0), (Role::Writer, 0)]);
        ingress.feed(lines(events("a", 2..20).into_iter().chain(events("b", 0..2)))).await.unwrap();
        rig.tenant("a").flush();
        pass(secs(3600)).await;
        assert_eq!((store.calls(), rig.stored("a").len(), rig.stored("b").len()), (2, 0, 2), "b's, and no other");
        assert_eq!(rig.snapshot("a").in_flight, 20);
        rig.tenant("a").resume();
        until("all is stored", || rig.stored("a").len() == 20).await;
        assert_eq!(rig.stored("a"), events("a", 0..20));
        assert_eq!(rig.logged("a", What::Resumed).len(), 1);
        let cut_off = rig.logged("a", What::Ambiguous);
        assert_eq!((cut_off.len(), cut_off[0].attempt), (1, Some(1)), "what was under way is made again");
        rig.drained().await;
    });
}

#[test]
fn what_is_stopped_stays_so_whatever_its_quarantine_had_in_mind() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(brittle(), panics_for_a);
        rig.ingress().await.feed(lines(events("a", 0..3))).await.unwrap();
        until("quarantine", || rig.snapshot("a").status == Status::Quarantined).await;
        rig.tenant("a").stop();
        store.heal();
        pass(secs(3600)).await;
        assert_eq!((rig.snapshot("a").status, rig.stored("a").len()), (Status::Stopped, 0));
        rig.tenant("a").restart();
        until("it goes on", || rig.stored("a").len() == 3).await;
        rig.drained().await;
    });
}

#[test]
fn the_timer_of_an_older_quarantine_does_not_lift_a_younger_one() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(brittle(), panics_for_a);
        rig.ingress().await.feed(lines(events("a", 0..3))).await.unwrap();
        let quarantines = |n| move |rig: &Rig| rig.logged("a", What::Quarantined).len() == n;
        until("quarantine", || quarantines(1)(&rig)).await;
        pass(secs(50)).await;
        rig.tenant("a").resume();
        until("the next one", || quarantines(2)(&rig)).await;
        let calls = store.calls();
        pass(secs(40)).await;
        assert_eq!((rig.snapshot("a").status, store.calls()), (Status::Quarantined, calls));
        pass(secs(30)).await;
        assert_eq!(rig.logged("a", What::Resumed).len(), 2);
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_is_passivated_comes_back_with_its_next_event() {
    virtual_time(async {
        let rig = Rig::new(windows_of(10));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..15))).await.unwrap();
        rig.tenant("a").passivate().await.unwrap();
        assert_eq!(rig.stored("a").len(), 15, "its window was closed first");
        assert_eq!(rig.snapshot("a").status, Status::Dormant);
        assert_eq!(rig.logged("a", What::Passivated).len(), 1);
        rig.tenant("a").passivate().await.unwrap();
        assert_eq!(rig.logged("a", What::Passivated).len(), 1, "once is enough");
        pass(secs(3600)).await;
        assert_eq!(rig.snapshot("a").status, Status::Dormant, "no heartbeat brings it back");
        ingress.feed(lines(events("a", 15..25))).await.unwrap();
        until("stored", || rig.stored("a").len() == 25).await;
        assert_eq!(rig.snapshot("a").status, Status::Active);
        let started: Vec<_> = rig.logged("a", What::Started).iter().map(|event| (event.actor, event.epoch)).collect();
        assert_eq!(started, [(Role::Tenant, 0), (Role::Writer, 0), (Role::Tenant, 1), (Role::Writer, 1)]);
        pass(secs(200)).await;
        assert_eq!(rig.snapshot("a").status, Status::Idle, "its heart beats again");
        rig.drained().await;
    });
}

#[test]
fn passivation_waits_for_what_is_in_flight_and_is_called_off_by_dropping_it() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(10), Fault::Stall.first(1));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..5))).await.unwrap();
        let a = rig.tenant("a");
        assert!(tokio::time::timeout(secs(5), a.passivate()).await.is_err(), "its batch is not stored");
        store.release();
        pass(secs(60)).await;
        assert_eq!((rig.stored("a").len(), rig.logged("a", What::Passivated).len()), (5, 0), "called off");
        store.script(Fault::Stall.always());
        ingress.feed(lines(events("a", 5..10))).await.unwrap();
        let later = async {
            store.until_calls(2).await;
            ingress.feed(lines(events("a", 10..15))).await.unwrap();
            store.heal();
        };
        let (passivated, ()) = futures::join!(a.passivate(), later);
        passivated.unwrap();
        assert_eq!((rig.stored("a"), a.snapshot().status), (events("a", 0..15), Status::Dormant));
        rig.drained().await;
        assert!(matches!(a.passivate().await, Err(Error::Closed)));
    });
}

#[test]
fn whatever_is_asked_of_a_tenant_by_hand_loses_and_doubles_nothing() {
    for seed in 0..20 {
        virtual_time(async move {
            let (rig, _store) = Rig::faulty(windows_of(3), Fault::PanicAfter.every(7));
            let ingress = rig.ingress().await;
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut sent = 0;
            for _ in 0..200 {
                ingress.feed(lines(events("a", sent..sent + 2))).await.unwrap();
                sent += 2;
                let a = rig.tenant("a");
                match rng.u8(..9) {
                    0 => a.stop(),
                    1..=2 => a.resume(),
                    3 => a.restart(),
                    4 => drop(tokio::time::timeout(millis(rng.u64(..200)), a.passivate()).await),
                    5 => a.flush(),
                    6 => a.inject_panic(),
                    _ => {}
                }
                pass(millis(rng.u64(..100))).await;
            }
            rig.tenant("a").resume();
            rig.drained().await;
            assert_eq!(rig.stored("a"), events("a", 0..sent), "seed {seed}");
        });
    }
}

#[test]
fn the_root_fails_where_its_own_actors_fail_too_often_and_says_so_until_they_run_again() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        for _ in 0..6 {
            assert!(rig.system.health().is_healthy());
            rig.system.inject_aggregator_panic();
            pass(secs(2)).await;
        }
        let failed = rig.system.health().failed.unwrap();
        assert_eq!((failed.actor, failed.cause.code), (Role::Aggregator, Code::ActorPanic));
        assert!(!rig.system.health().is_healthy());
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        until("tenants go on", || rig.stored("a").len() == 1).await;
        pass(secs(60)).await;
        assert!(rig.system.health().is_healthy());
        rig.drained().await;
    });
}

#[test]
fn the_log_tells_of_the_drain_once_and_of_every_end() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        futures::join!(rig.drained(), rig.drained());
        let log = rig.system.log().last(usize::MAX);
        let count = |what, role| log.iter().filter(|event| (event.what, event.actor) == (what, role)).count();
        assert_eq!(count(What::Draining, Role::Supervisor), 1);
        for role in [Role::Tenant, Role::Writer, Role::Aggregator, Role::Supervisor] {
            assert_eq!((count(What::Started, role), count(What::Stopped, role)), (1, 1), "{role}");
        }
    });
}

#[test]
fn a_system_that_ends_while_an_actor_waits_for_its_restart_begins_nothing_more() {
    virtual_time(async {
        let restart = RestartPolicy { base: secs(3600), cap: secs(3600), ..RestartPolicy::default() };
        let (rig, store) = Rig::faulty(Policy { restart, ..windows_of(1) }, Fault::PanicBefore.always());
        rig.ingress().await.feed(lines(events("a", 0..2))).await.unwrap();
        store.until_calls(1).await;
        until("its writer waits", || rig.snapshot("a").status == Status::Restarting).await;
        let report = rig.system.drain(secs(1)).await;
        assert_eq!((report.complete, store.calls()), (false, 1));
        assert_eq!(rig.snapshot("a").status, Status::Stopped);
    });
}

#[test]
fn a_flush_brings_nobody_up_who_would_find_nothing() {
    virtual_time(async {
        let rig = Rig::new(windows_of(10));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..3))).await.unwrap();
        rig.tenant("a").passivate().await.unwrap();
        rig.tenant("a").flush();
        pass(secs(1)).await;
        assert_eq!(rig.snapshot("a").status, Status::Dormant);
        ingress.feed(lines(events("a", 3..5))).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(rig.snapshot("a").window, 2, "nor is it remembered");
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 5);
    });
}
