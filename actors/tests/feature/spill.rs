//! A full tenant that spills goes on being accepted, into the journal alone, and is stored once and in order all the same.

use headworks_actors::{
    AckLevel, Code, Entry, Error, Event, Fault, FlushReason, OverflowPolicy, Policy, Settlement, System, TenantSpec,
    What, WhenFull,
};

use crate::rig::{Rig, World, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// The tenant's memory.
const MEMORY: usize = 4 << 10;

fn spilling() -> Policy {
    let overflow =
        OverflowPolicy { max_in_flight: MEMORY, when_full: WhenFull::Spill, block_for: secs(5), max_spilled: 64 << 20 };
    Policy { overflow, ..windows_of(10) }
}

/// Feeds the events in reads of ten, none of which may be held.
async fn feed(rig: &Rig, events: impl IntoIterator<Item = String>) {
    let ingress = rig.ingress().await;
    let events: Vec<_> = events.into_iter().collect();
    for read in events.chunks(10) {
        let fed = tokio::time::timeout(millis(1), ingress.feed(lines(read.iter().cloned()))).await;
        fed.expect("the connection is not held").unwrap();
    }
}

fn most(rig: &Rig, seen: &mut usize) -> bool {
    let now = rig.system.in_flight_bytes();
    *seen = (*seen).max(now);
    assert!(rig.system.tenants().iter().all(headworks_actors::TenantSnapshot::events_add_up));
    false
}

#[test]
fn fifty_times_its_memory_is_accepted_from_a_stuck_tenant_and_stored_in_order_once_it_is_not() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        let mut most_bytes = 0;
        let mut sent = 0;
        while rig.system.tenants().first().is_none_or(|a| a.in_journal_bytes < 50 * MEMORY as u64) {
            feed(&rig, events("a", sent..sent + 10)).await;
            sent += 10;
            most(&rig, &mut most_bytes);
        }
        let full = rig.snapshot("a");
        assert_eq!((full.counters.accepted, full.in_flight), (sent as u64, sent as u64));
        assert_eq!(full.counters.spilled, full.in_journal);
        assert!(full.in_journal > 0 && full.adds_up(), "{full:?}");
        assert_eq!(rig.logged("a", What::Spilling).len(), 1, "told once, not once a chunk");
        world.store.heal();
        until("all is read back", || most(&rig, &mut most_bytes) || rig.snapshot("a").in_journal == 0).await;
        assert_eq!(rig.logged("a", What::CaughtUp).len(), 1);
        assert!(most_bytes <= 2 * MEMORY, "{most_bytes}");
        let counters = rig.snapshot("a").counters;
        world.end(rig).await;
        let stored: Vec<_> =
            world.kept.bodies(&tenant("a")).into_iter().map(|b| String::from_utf8(b).unwrap()).collect();
        assert_eq!(stored, events("a", 0..sent));
        assert_eq!(counters.flushes_for(FlushReason::Age), 0);
        assert!(counters.batches <= sent as u64 / 10 + 5, "windows are as full as ever: {counters:?}");
    });
}

#[test]
fn a_connection_shared_with_a_stuck_tenant_that_spills_is_never_held() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.of_tenant(tenant("stuck")));
        let rig = world.start(spilling());
        for n in 0..1_000 {
            feed(&rig, [event("stuck", n), event("b", n), event("c", n)]).await;
            if n % 10 == 0 {
                pass(millis(10)).await;
            }
        }
        pass(secs(1)).await;
        for healthy in ["b", "c"] {
            assert_eq!(rig.stored(healthy), events(healthy, 0..1_000));
            assert_eq!(rig.snapshot(healthy).counters.spilled, 0);
        }
        assert!(rig.snapshot("stuck").in_journal > 500);
        world.store.heal();
        world.end(rig).await;
    });
}

#[test]
fn a_system_whose_memory_is_full_does_not_hold_a_tenant_that_spills() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.of_tenant(tenant("hog")));
        let policy =
            Policy { overflow: OverflowPolicy { max_in_flight: 1 << 20, ..spilling().overflow }, ..spilling() };
        let rig = world.start_with(policy, |builder| builder.max_in_flight_bytes(8 << 10));
        feed(&rig, events("hog", 0..500)).await;
        feed(&rig, events("b", 0..500)).await;
        assert!(rig.system.in_flight_bytes() <= 8 << 10);
        assert!(rig.snapshot("b").in_journal > 0);
        world.store.heal();
        world.end(rig).await;
    });
}

#[test]
fn a_tenant_that_blocks_spills_once_it_was_held_for_long_enough_and_holds_nobody_from_then_on() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.of_tenant(tenant("stuck")));
        let policy = spilling();
        let policy = Policy { overflow: OverflowPolicy { when_full: WhenFull::Block, ..policy.overflow }, ..policy };
        let rig = world.start(policy);
        let other = rig.ingress_of("other").await;
        let moving = tokio::task::spawn_local(async move {
            for n in 0.. {
                other.feed(lines(events("b", n * 10..n * 10 + 10))).await.unwrap();
                pass(millis(50)).await;
            }
        });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("c", 0)])).await.unwrap();
        let began = tokio::time::Instant::now();
        let mut held = vec![];
        for n in 0..200 {
            let before = tokio::time::Instant::now();
            ingress.feed(lines([event("stuck", n)])).await.unwrap();
            if before.elapsed() > millis(1) {
                held.push((before.elapsed(), rig.snapshot("stuck").in_journal));
            }
        }
        moving.abort();
        assert_eq!(held.len(), 1, "{held:?} in {:?}", began.elapsed());
        assert!(held[0].0 >= secs(5) && held[0].0 < millis(5_300), "{held:?}");
        assert_eq!(rig.snapshot("stuck").counters.rejected, 0);
        world.store.heal();
        let kept = world.kept.clone();
        world.end(rig).await;
        assert_eq!(kept.bodies(&tenant("stuck")).len(), 200);
    });
}

#[test]
fn above_its_quota_on_disk_a_tenant_is_held_for_a_while_and_then_rejected() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.of_tenant(tenant("stuck")));
        let policy = spilling();
        let policy = Policy { overflow: OverflowPolicy { max_spilled: 4 << 10, ..policy.overflow }, ..policy };
        let rig = world.start(policy);
        let other = rig.ingress_of("other").await;
        let moving = tokio::task::spawn_local(async move {
            for n in 0.. {
                other.feed(lines(events("b", n * 10..n * 10 + 10))).await.unwrap();
                pass(millis(50)).await;
            }
        });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("c", 0)])).await.unwrap();
        let mut sent = 0;
        let mut held = secs(0);
        while rig.system.tenant(&tenant("stuck")).is_none_or(|stuck| stuck.snapshot().counters.rejected == 0) {
            let before = tokio::time::Instant::now();
            ingress.feed(lines([event("stuck", sent)])).await.unwrap();
            held = before.elapsed();
            sent += 1;
        }
        assert!(held >= secs(5) && held < millis(5_300), "{held:?}");
        let full = rig.snapshot("stuck");
        assert!(full.in_journal_bytes <= 4 << 10 && full.in_journal_bytes > 3 << 10, "{full:?}");
        assert_eq!((full.counters.accepted, full.counters.rejected), (sent as u64 - 1, 1));
        let report = rig.system.report();
        assert!(
            report
                .entries
                .iter()
                .any(|entry| entry.code == Code::TenantFull && entry.sample.contains("in the journal"))
        );
        moving.abort();
        world.store.heal();
        let kept = world.kept.clone();
        world.end(rig).await;
        assert_eq!(kept.bodies(&tenant("stuck")).len(), sent - 1);
    });
}

#[test]
fn a_full_journal_holds_a_tenant_that_spills_for_a_while_and_then_rejects() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.of_tenant(tenant("stuck")));
        let rig = world.start(spilling());
        // Another settles what it has, batch by batch, so that the time counts.
        world.store.script(|batch, call| match batch.tenant().as_str() {
            "b" if call % 2 == 0 => Fault::None,
            "b" => Fault::Transient,
            _ => Fault::Unavailable,
        });
        feed(&rig, events("b", 0..10_000)).await;
        feed(&rig, events("stuck", 0..200)).await;
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("c", 0)])).await.unwrap();
        world.journal.set_room(false);
        let before = tokio::time::Instant::now();
        ingress.feed(lines([event("stuck", 200)])).await.unwrap();
        assert!(before.elapsed() >= secs(5), "{:?}", before.elapsed());
        assert_eq!(rig.snapshot("stuck").counters.rejected, 1);
        world.journal.set_room(true);
        world.store.heal();
        world.end(rig).await;
    });
}

#[test]
fn spilled_events_are_acknowledged_as_any_others() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        for (level, name) in [(AckLevel::Received, "r"), (AckLevel::Journaled, "j")] {
            let mut conn = rig.connect(name, 1, level).await;
            conn.ingress.feed(lines(events("a", 0..300))).await.unwrap();
            assert_eq!(conn.acks().await, (1..=300).collect::<Vec<_>>(), "{level}");
        }
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        for n in 0..30 {
            conn.ingress.feed(lines(events("a", n * 10..n * 10 + 10))).await.unwrap();
        }
        // A call has positions too, which no journal keeps.
        let sent = (0..20).map(|n| Event::new(tenant("a"), None, event("a", n))).collect();
        let mut receipt = rig.system.send(sent).await.unwrap();
        let receipt = tokio::task::spawn_local(async move { receipt.settled().await.clone() });
        assert!(conn.acks().await.is_empty());
        assert!(rig.snapshot("a").in_journal > 0 && !receipt.is_finished());
        world.store.heal();
        until("all is stored", || {
            rig.tenant("a").flush();
            rig.snapshot("a").in_flight == 0
        })
        .await;
        assert_eq!(conn.acks().await, (1..=300).collect::<Vec<_>>());
        assert_eq!(receipt.await.unwrap(), Settlement { stored: 20, ..Settlement::default() });
        drop(conn);
        world.end(rig).await;
    });
}

#[test]
fn a_crash_leaves_what_is_spilled_where_it_is_and_the_next_process_reads_it_back_in_bounded_memory() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        feed(&rig, events("a", 0..5_000)).await;
        world.crash(rig).await;
        let rig = world.start(spilling());
        let mut most_bytes = 0;
        until("it is recovered", || most(&rig, &mut most_bytes) || !rig.logged("a", What::Recovered).is_empty()).await;
        let recovered = rig.snapshot("a");
        assert_eq!((recovered.in_flight, recovered.counters.accepted), (5_000, 5_000));
        assert!(recovered.in_journal > 4_500, "{recovered:?}");
        until("new events are taken", || rig.logged("a", What::Parked).len() == 1).await;
        feed(&rig, events("a", 5_000..6_000)).await;
        world.crash(rig).await;
        let rig = world.start(spilling());
        pass(secs(1)).await;
        world.store.heal();
        until("all is read back", || most(&rig, &mut most_bytes) || rig.snapshot("a").in_journal == 0).await;
        assert!(most_bytes <= 2 * MEMORY, "{most_bytes}");
        let kept = world.kept.clone();
        world.end(rig).await;
        let stored: Vec<_> =
            kept.bodies(&tenant("a")).into_iter().map(|body| String::from_utf8(body).unwrap()).collect();
        assert_eq!(stored, events("a", 0..6_000));
    });
}

#[test]
fn a_sender_is_not_told_after_a_crash_that_spilled_events_are_stored_before_they_are() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.of_tenant(tenant("stuck")));
        let rig = world.start(spilling());
        let conn = rig.connect("s", 1, AckLevel::Stored).await;
        for n in 0..100 {
            conn.ingress.feed(lines(events("stuck", n * 10..n * 10 + 10))).await.unwrap();
        }
        conn.ingress.feed(lines(events("b", 0..10))).await.unwrap();
        drop(conn);
        world.crash(rig).await;
        let rig = world.start(spilling());
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        assert_eq!(conn.answers.last(), 1_010);
        pass(secs(5)).await;
        assert_eq!(conn.acks().await, (1_001..=1_010).collect::<Vec<_>>(), "others are not kept waiting by it");
        world.store.heal();
        until("all is stored", || rig.snapshot("stuck").in_flight == 0).await;
        assert_eq!(conn.acks().await, (1..=1_000).collect::<Vec<_>>());
        drop(conn);
        world.end(rig).await;
    });
}

#[test]
fn a_chunk_that_cannot_be_read_back_is_reported_as_lost_and_the_rest_is_stored_in_order() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        feed(&rig, events("a", 0..1_000)).await;
        world.journal.damage(|entry| matches!(entry, Entry::Chunk { seq: 50 | 51, .. }));
        world.store.heal();
        until("it caught up", || rig.snapshot("a").in_journal == 0).await;
        pass(secs(60)).await;
        let report = rig.system.report();
        let lost = report.entries.iter().filter(|entry| entry.code == Code::JournalDamaged).map(|entry| entry.events);
        assert_eq!(lost.sum::<u64>(), 20);
        rig.tenant("a").flush();
        until("all is settled", || rig.snapshot("a").in_flight == 0).await;
        let end = rig.snapshot("a");
        assert!(end.adds_up(), "{end:?}");
        assert_eq!(end.counters.accepted, 980);
        // What is lost stays so, whoever asks.
        world.crash(rig).await;
        let rig = world.start(spilling());
        assert_eq!(rig.snapshot("a").in_flight, 0);
        let kept = world.kept.clone();
        rig.drained().await;
        let stored: Vec<_> =
            kept.bodies(&tenant("a")).into_iter().map(|body| String::from_utf8(body).unwrap()).collect();
        assert_eq!(stored, events("a", (0..490).chain(510..1_000)));
    });
}

#[test]
fn a_read_that_fails_for_a_while_is_tried_again() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        feed(&rig, events("a", 0..1_000)).await;
        world.journal.fail_reads(4);
        world.store.heal();
        let kept = world.kept.clone();
        world.end(rig).await;
        assert_eq!(kept.bodies(&tenant("a")).len(), 1_000);
    });
}

#[test]
fn what_is_not_committed_yet_is_read_back_once_it_is() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(spilling());
        world.journal.delay(secs(1));
        feed(&rig, events("a", 0..500)).await;
        assert!(rig.snapshot("a").in_journal > 0);
        let kept = world.kept.clone();
        world.end(rig).await;
        assert_eq!(kept.bodies(&tenant("a")).len(), 500);
    });
}

#[test]
fn a_tenant_that_is_stopped_or_panics_keeps_what_it_spilled() {
    virtual_time(async {
        let world = World::faulty(Fault::PanicAfter.every(3));
        let policy = spilling();
        let rig = world.start(policy);
        let handle = rig.system.spawn(TenantSpec::from(tenant("a"))).await.unwrap();
        handle.stop();
        feed(&rig, events("a", 0..1_000)).await;
        pass(secs(60)).await;
        assert_eq!(rig.snapshot("a").in_flight, 1_000);
        assert!(rig.snapshot("a").in_journal > 0);
        handle.resume();
        let kept = world.kept.clone();
        world.end(rig).await;
        let stored: Vec<_> =
            kept.bodies(&tenant("a")).into_iter().map(|body| String::from_utf8(body).unwrap()).collect();
        assert_eq!(stored, events("a", 0..1_000));
    });
}

#[test]
fn a_drain_whose_time_is_over_leaves_what_is_spilled_on_record_and_says_so() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        feed(&rig, events("a", 0..1_000)).await;
        let report = rig.system.drain(secs(3)).await;
        let a = report.of(&tenant("a")).unwrap();
        assert!(!report.complete && a.end.in_flight == 1_000 && a.end.in_journal > 500, "{report}");
        assert!(report.to_string().contains(&format!("in_journal={}", a.end.in_journal)), "{report}");
        drop(rig);
        let mut world = world;
        world.journal = world.journal.crash(0);
        let rig = world.start(spilling());
        world.store.heal();
        let kept = world.kept.clone();
        world.end(rig).await;
        assert_eq!(kept.bodies(&tenant("a")).len(), 1_000);
    });
}

#[test]
fn a_tenant_with_anything_spilled_is_not_passivated() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(spilling());
        world.journal.hold_reads(true);
        feed(&rig, events("a", 0..1_000)).await;
        world.store.heal();
        until("all but the spilled ones are stored", || {
            let a = rig.snapshot("a");
            a.in_flight == a.in_journal
        })
        .await;
        assert!(rig.snapshot("a").in_journal > 0);
        assert!(tokio::time::timeout(secs(60), rig.tenant("a").passivate()).await.is_err(), "it waits for the rest");
        assert!(rig.logged("a", What::Passivated).is_empty());
        world.journal.hold_reads(false);
        let kept = world.kept.clone();
        world.end(rig).await;
        assert_eq!(kept.bodies(&tenant("a")).len(), 1_000);
    });
}

#[test]
fn to_spill_without_a_durable_journal_is_refused_at_the_start_and_for_a_tenant_that_comes_later() {
    virtual_time(async {
        let told = |started: Result<System, Error>| started.err().map(|why| why.to_string()).unwrap_or_default();
        let why = told(System::builder().policy(spilling()).start());
        assert!(why.contains("overflow.when_full") && why.contains("durable journal"), "{why}");
        let spec = || TenantSpec::from(tenant("a")).policy(spilling());
        let why = told(System::builder().tenant(spec()).start());
        assert!(why.contains("tenant a") && why.contains("durable journal"), "{why}");
        let rig = Rig::new(Policy::default());
        let why = rig.system.spawn(spec()).await.err().map(|why| why.to_string()).unwrap_or_default();
        assert!(why.contains("tenant a") && why.contains("durable journal"), "{why}");
    });
}
