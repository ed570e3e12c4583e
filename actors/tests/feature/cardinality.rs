//! Very many tenants: those that nobody needs take hardly any memory, and those that nobody knows take none.

use headworks_actors::{
    AckLevel, Code, Error, Fault, HeartbeatPolicy, Hooks, MemoryStore, Policy, SpawnRate, Status, TenantSpec, Unknown,
    What, WindowPolicy,
};

use crate::rig::{Rig, World, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// A heartbeat a second, and passivated after ten without an event; windows of `max_events`, or of a second.
fn forgetful(max_events: usize) -> Policy {
    let heartbeat = HeartbeatPolicy { every: secs(1), passivate_after: Some(secs(10)), ..HeartbeatPolicy::default() };
    let window = WindowPolicy { max_events, max_age: secs(1), ..WindowPolicy::default() };
    Policy { heartbeat, window, ..windows_of(1) }
}

#[test]
fn a_tenant_without_events_is_passivated_in_time_and_its_next_event_brings_it_back_with_all_its_numbers() {
    virtual_time(async {
        let rig = Rig::new(forgetful(3));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..7))).await.unwrap();
        pass(millis(9_900)).await;
        assert_ne!(rig.snapshot("a").status, Status::Dormant, "it may still be needed");
        let before = rig.snapshot("a");
        pass(millis(1_200)).await;
        let dormant = rig.snapshot("a");
        assert_eq!((dormant.status, dormant.counters), (Status::Dormant, before.counters));
        assert_eq!(rig.logged("a", What::Passivated).len(), 1);
        assert_eq!(rig.system.tenants(), [dormant], "it is still shown");
        pass(secs(3_600)).await;
        assert_eq!(rig.log_of("a").last().unwrap().what, What::Passivated, "it has no heartbeat");
        ingress.feed(lines(events("a", 7..13))).await.unwrap();
        until("stored", || rig.stored("a").len() == 13).await;
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.stored, counters.batches), (13, 13, before.counters.batches + 2));
        let seqs: Vec<_> = rig.store.batches(&tenant("a")).iter().map(|batch| batch.id().seq.0).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5], "batches are counted on");
        let epochs: Vec<_> = rig.logged("a", What::Started).iter().map(|event| event.epoch).collect();
        assert_eq!(epochs, [0, 0, 1, 1], "and so are the lives of its actors");
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..13));
    });
}

#[test]
fn a_tenant_that_is_idle_is_told_so_once_before_it_is_passivated_and_active_when_it_is_back() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { idle_after: secs(5), ..forgetful(1).heartbeat };
        let rig = Rig::new(Policy { heartbeat, ..forgetful(1) });
        let ingress = rig.ingress().await;
        for n in 0..2 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
            pass(secs(60)).await;
        }
        let told: Vec<_> =
            rig.log_of("a").iter().map(|event| event.what).filter(|what| *what != What::Started).collect();
        assert_eq!(told, [What::Idle, What::Passivated, What::Active, What::Idle, What::Passivated]);
        rig.drained().await;
    });
}

#[test]
fn never_means_never() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { passivate_after: None, ..forgetful(1).heartbeat };
        let rig = Rig::new(Policy { heartbeat, ..forgetful(1) });
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(3 * 24 * 3_600)).await;
        assert_eq!(rig.snapshot("a").status, Status::Idle);
        rig.drained().await;
    });
}

#[test]
fn a_tenant_with_anything_in_flight_is_not_passivated_however_long_it_takes() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(forgetful(1), Fault::Unavailable.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(3_600)).await;
        assert_eq!(rig.snapshot("a").status, Status::Parked);
        store.heal();
        until("it is passivated", || rig.snapshot("a").status == Status::Dormant).await;
        assert_eq!(rig.stored("a").len(), 1);
        let open = WindowPolicy { max_age: secs(3_600), ..forgetful(100).window };
        let rig = Rig::new(Policy { window: open, ..forgetful(100) });
        rig.ingress().await.feed(lines([event("b", 0)])).await.unwrap();
        pass(secs(3_000)).await;
        assert_eq!((rig.snapshot("b").window, rig.logged("b", What::Passivated).len()), (1, 0));
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_is_held_or_has_something_to_be_undone_is_not_passivated() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(forgetful(1), Fault::None.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(2)).await;
        rig.tenant("a").stop();
        pass(secs(60)).await;
        assert_eq!(rig.snapshot("a").status, Status::Stopped);
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        pass(secs(60)).await;
        assert_eq!(rig.stored("a").len(), 1, "it is stopped");
        rig.tenant("a").resume();
        until("it is passivated", || rig.snapshot("a").status == Status::Dormant).await;
        assert_eq!(rig.stored("a").len(), 2);
        assert_eq!(store.calls(), 2);
        rig.drained().await;
    });
}

#[test]
fn a_dormant_tenant_can_be_stopped_and_its_events_wait_until_it_is_resumed() {
    virtual_time(async {
        let rig = Rig::new(forgetful(1));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        rig.tenant("a").passivate().await.unwrap();
        for ask in [headworks_actors::TenantHandle::resume, headworks_actors::TenantHandle::restart] {
            ask(&rig.tenant("a"));
            pass(secs(2)).await;
            assert_eq!(rig.snapshot("a").status, Status::Dormant, "nobody comes up who would find nothing");
        }
        rig.tenant("a").stop();
        assert_eq!(rig.snapshot("a").status, Status::Stopped);
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        pass(secs(100)).await;
        assert_eq!((rig.snapshot("a").in_flight, rig.stored("a").len()), (1, 1));
        rig.tenant("a").resume();
        until("stored", || rig.stored("a").len() == 2).await;
        rig.drained().await;
    });
}

#[test]
fn a_dormant_tenant_that_is_muted_drops_its_events_and_sleeps_on() {
    virtual_time(async {
        let rig = Rig::new(forgetful(1));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(60)).await;
        rig.system.mute(&tenant("a"));
        assert!(rig.snapshot("a").is_muted);
        let logged = rig.log_of("a").len();
        ingress.feed(lines(events("a", 1..4))).await.unwrap();
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.counters.muted, snapshot.status), (3, Status::Dormant));
        pass(secs(60)).await;
        assert_eq!((rig.log_of("a").len(), rig.snapshot("a").counters.muted), (logged, 3), "no actor came up");
        rig.system.unmute(&tenant("a"));
        ingress.feed(lines([event("a", 4)])).await.unwrap();
        until("stored", || rig.stored("a").len() == 2).await;
        rig.drained().await;
    });
}

#[test]
fn what_a_tenant_has_of_its_own_lasts_while_it_is_dormant() {
    virtual_time(async {
        let own = MemoryStore::new();
        let rig = Rig::new(forgetful(10));
        let hooks = Hooks::new().filter(|event| !event.body.ends_with(b"7}"));
        let spec = TenantSpec::from(tenant("a")).store(own.clone()).policy(forgetful(2)).hooks(hooks);
        let a = rig.system.spawn(spec).await.unwrap();
        let ingress = rig.ingress().await;
        for n in [0, 4] {
            pass(secs(60)).await;
            assert_eq!(a.explain().window.max_events, 2);
            assert_eq!(a.snapshot().status, Status::Dormant);
            ingress.feed(lines(events("a", n..n + 4))).await.unwrap();
            pass(millis(1)).await;
        }
        assert_eq!(
            own.batches(&tenant("a")).len(),
            3,
            "windows of two, and one event of the last was dropped by its hook"
        );
        assert_eq!(a.snapshot().counters.discarded, 1);
        rig.drained().await;
        assert_eq!((own.bodies(&tenant("a")).len(), rig.stored("a").len()), (7, 0));
    });
}

#[test]
fn an_event_that_comes_in_the_moment_of_passivation_is_neither_lost_nor_doubled() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { every: millis(10), passivate_after: Some(millis(10)), ..Default::default() };
        let rig = Rig::new(Policy { heartbeat, ..forgetful(1) });
        let ingress = rig.ingress().await;
        for n in 0..400 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
            // Around the heartbeat, to the microsecond.
            pass(std::time::Duration::from_micros(9_000 + 7 * n as u64)).await;
            if n % 3 == 0 {
                let a = rig.tenant("a");
                let more = lines([event("a", 1_000 + n)]);
                let (passivated, fed) = futures::join!(a.passivate(), ingress.feed(more));
                passivated.unwrap();
                drop(fed.unwrap());
            }
        }
        rig.drained().await;
        let sent = (0..400).flat_map(|n| [n].into_iter().chain((n % 3 == 0).then_some(1_000 + n)));
        assert_eq!(rig.stored("a"), events("a", sent));
        assert!(rig.logged("a", What::Passivated).len() > 100);
    });
}

#[test]
fn a_drain_reports_dormant_tenants_with_all_that_they_did() {
    virtual_time(async {
        let rig = Rig::new(forgetful(5));
        let ingress = rig.ingress().await;
        ingress.feed(lines((0..50).flat_map(|n| events(&format!("t{n:02}"), 0..3)))).await.unwrap();
        pass(secs(60)).await;
        assert!(rig.system.tenants().iter().all(|tenant| tenant.status == Status::Dormant));
        ingress.feed(lines(events("t07", 3..5))).await.unwrap();
        let report = rig.system.drain(secs(60)).await;
        assert!(report.complete);
        let stored: u64 = report.tenants.iter().map(|tenant| tenant.end.counters.stored).sum();
        assert_eq!((report.tenants.len(), stored), (50, 152));
        assert!(report.tenants.iter().all(|tenant| tenant.end.adds_up()));
        assert!(rig.system.tenants().iter().all(|tenant| tenant.status == Status::Stopped));
    });
}

#[test]
fn a_tenant_that_an_earlier_process_settled_with_is_dormant_until_its_next_event() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(forgetful(2));
        let ingress = first.ingress().await;
        first.system.mute(&tenant("c"));
        ingress.feed(lines(["a", "b", "c"].into_iter().flat_map(|name| events(name, 0..3)))).await.unwrap();
        pass(secs(60)).await;
        ingress.feed(lines(events("b", 3..4))).await.unwrap();
        pass(millis(1)).await;
        let of = |rig: &Rig, name: &str| {
            let counters = rig.snapshot(name).counters;
            (counters.received, counters.accepted, counters.stored, counters.muted, counters.batches)
        };
        let before: Vec<_> = ["a", "b", "c"].iter().map(|name| of(&first, name)).collect();
        world.crash(first).await;
        let second = world.start(forgetful(2));
        pass(secs(5)).await;
        assert_eq!(second.logged("a", What::Started).len(), 0);
        assert_eq!(second.snapshot("a").status, Status::Dormant);
        assert_ne!(second.snapshot("b").status, Status::Dormant, "an event of it was left");
        let (a, c) = (of(&second, "a"), of(&second, "c"));
        assert_eq!((a, c), (before[0], before[2]));
        let ingress = second.ingress().await;
        ingress.feed(lines(events("a", 3..6))).await.unwrap();
        until("stored", || second.stored("a").len() == 6 && second.stored("b").len() == 4).await;
        world.end(second).await;
        let seqs: Vec<_> = world.kept.batches(&tenant("a")).iter().map(|batch| batch.id().seq.0).collect();
        assert_eq!(seqs, [1, 2, 3, 4], "batches are counted on over processes");
    });
}

#[test]
fn a_tenant_that_is_on_record_is_claimed_once_by_who_spawns_it_awake_or_dormant() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(forgetful(1));
        first.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(2)).await;
        world.crash(first).await;
        let second = world.start(forgetful(1));
        second.system.spawn(tenant("a")).await.unwrap();
        pass(secs(60)).await;
        assert_eq!(second.snapshot("a").status, Status::Dormant);
        assert!(matches!(second.system.spawn(tenant("a")).await, Err(Error::TenantExists(_))));
        world.end(second).await;
    });
}

#[test]
fn acknowledgements_are_right_over_a_passivation() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(forgetful(10));
        let mut sender = rig.connect("s", 1, AckLevel::Stored).await;
        for n in 0..3 {
            sender.ingress.feed(lines(events("a", [2 * n, 2 * n + 1]))).await.unwrap();
            pass(secs(60)).await;
            assert_eq!(rig.snapshot("a").status, Status::Dormant);
        }
        assert_eq!(sender.acks().await, [1, 2, 3, 4, 5, 6]);
        drop(sender);
        world.end(rig).await;
    });
}

#[test]
fn events_of_unknown_tenants_are_refused_where_only_known_ones_are_let_in() {
    virtual_time(async {
        let world = World::new();
        let spec = TenantSpec::from(tenant("listed")).policy(forgetful(1));
        let rig = world
            .start_with(forgetful(1), |builder| builder.unknown_tenants(Unknown::Reject).tenant(spec).max_tenants(0));
        let mut sender = rig.connect("s", 1, AckLevel::Received).await;
        let sent = [event("listed", 1), event("x", 2), event("y", 3), event("listed", 4), event("../etc", 5)];
        sender.ingress.feed(lines(sent)).await.unwrap();
        let (acks, nacks) = sender.told().await;
        assert_eq!(acks, [1, 4], "one that has a spec is known, whatever the limit");
        assert_eq!(nacks, [(2, Code::UnknownTenant), (3, Code::UnknownTenant), (5, Code::BadTenant)]);
        let source = rig.source("stream");
        assert_eq!((source.accepted, source.rejected, source.malformed), (2, 2, 1));
        let report = rig.system.report();
        let refused: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::UnknownTenant).collect();
        assert_eq!((refused.len(), refused[0].events), (1, 2), "one line for all of them");
        assert!(refused[0].sample.contains("x is not known"), "{}", refused[0].sample);
        assert_eq!((rig.log_of("x").len(), rig.system.tenants().len()), (0, 1));
        drop(sender);
        world.end(rig).await;
    });
}

#[test]
fn a_catch_all_takes_the_events_of_unknown_tenants_as_they_are() {
    virtual_time(async {
        let others = Unknown::CatchAll(tenant("others"));
        let spec = TenantSpec::from(tenant("a"));
        let rig = Rig::with(forgetful(2), |builder| builder.unknown_tenants(others).tenant(spec).max_tenants(0));
        let ingress = rig.ingress().await;
        let sent = ["x", "a", "y", "others", "x"].iter().enumerate().map(|(n, name)| event(name, n));
        let sent: Vec<_> = sent.collect();
        ingress.feed(lines(sent.clone())).await.unwrap();
        pass(secs(60)).await;
        ingress.feed(lines([event("z", 9)])).await.unwrap();
        rig.drained().await;
        let expected = [0, 2, 3, 4].map(|n| sent[n].clone()).into_iter().chain([event("z", 9)]);
        assert_eq!(rig.stored("others"), expected.collect::<Vec<_>>());
        assert_eq!(rig.stored("a"), [sent[1].clone()]);
        assert_eq!(rig.system.tenants().len(), 2);
    });
}

#[test]
fn new_tenants_come_up_no_faster_than_their_rate_and_known_ones_are_never_refused_by_it() {
    virtual_time(async {
        let rate = SpawnRate { per_second: 10, burst: 20 };
        let rig = Rig::with(forgetful(1), |builder| builder.max_spawn_rate(Some(rate)));
        let ingress = rig.ingress().await;
        let all = || lines((0..100).map(|n| event(&format!("t{n:02}"), n)));
        ingress.feed(all()).await.unwrap();
        assert_eq!((rig.system.tenants().len(), rig.source("test").rejected), (20, 80));
        pass(secs(1)).await;
        ingress.feed(all()).await.unwrap();
        assert_eq!((rig.system.tenants().len(), rig.source("test").rejected), (30, 150));
        pass(secs(60)).await;
        assert!(rig.system.tenants().iter().all(|tenant| tenant.status == Status::Dormant));
        ingress.feed(all()).await.unwrap();
        assert_eq!((rig.system.tenants().len(), rig.source("test").rejected), (50, 200), "to wake is not to spawn");
        let report = rig.system.report();
        let refused: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::SpawnRate).collect();
        assert_eq!((refused.len(), refused[0].events), (1, 200));
        rig.drained().await;
    });
}

#[test]
fn a_limit_that_is_reached_leaves_the_dormant_known() {
    virtual_time(async {
        let rig = Rig::with(forgetful(1), |builder| builder.max_tenants(2));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0), event("b", 1)])).await.unwrap();
        pass(secs(60)).await;
        ingress.feed(lines([event("c", 2), event("a", 3)])).await.unwrap();
        assert_eq!((rig.source("test").accepted, rig.source("test").rejected), (3, 1));
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 2);
    });
}

#[test]
fn the_dead_letter_of_an_event_given_up_at_the_door_comes_before_the_passivation() {
    virtual_time(async {
        let hooks = Hooks::new().filter(|event| {
            assert!(!event.body.ends_with(b"1}"), "boom");
            true
        });
        let letters = crate::rig::FaultyLetters::new(crate::rig::Mood::Hangs);
        let mood = letters.clone();
        let rig = Rig::with(forgetful(1), |builder| builder.hooks(hooks).dead_letters(letters));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0), event("a", 1)])).await.unwrap();
        pass(secs(60)).await;
        assert_ne!(rig.snapshot("a").status, Status::Dormant, "its letter waits");
        mood.turn(crate::rig::Mood::Works);
        until("it is passivated", || rig.snapshot("a").status == Status::Dormant).await;
        assert_eq!(rig.snapshot("a").counters.dead_lettered, 1);
        rig.drained().await;
    });
}
