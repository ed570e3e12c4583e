//! What one process leaves, the next one finishes: nothing is lost, doubled or told too soon.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use headworks_actors::{
    Attempt, Batch, BatchId, Code, Entry, Error, Event, Fault, Hooks, OverflowPolicy, Policy, Role, Storage,
    StorageError, TenantSpec, Undo, UndoStep, What, WindowPolicy,
};

use crate::rig::{
    Call, FaultyLetters, Mood, Rig, World, event, events, lines, pass, secs, tenant, virtual_time, windows_of,
};

async fn feed(rig: &Rig, events: impl IntoIterator<Item = String>) {
    rig.ingress().await.feed(lines(events)).await.unwrap();
}

/// Whether the call is held for as long as nothing changes.
async fn is_held(feeding: &tokio::task::JoinHandle<()>) -> bool {
    pass(secs(1)).await;
    !feeding.is_finished()
}

fn feeding(rig: &Rig, events: Vec<String>) -> tokio::task::JoinHandle<()> {
    let system = rig.system.clone();
    tokio::task::spawn_local(async move {
        let events = events.into_iter().map(|body| {
            let name = body.split('"').nth(3).unwrap();
            Event::new(tenant(name), None, body.clone())
        });
        system.offer(events.collect()).await.unwrap();
    })
}

fn lost(rig: &Rig) -> u64 {
    let damaged = rig.system.report().entries.into_iter().filter(|entry| entry.code == Code::JournalDamaged);
    damaged.map(|entry| entry.events).sum()
}

fn is_chunk(seq: u64) -> impl Fn(&Entry) -> bool {
    move |entry| matches!(entry, Entry::Chunk { seq: found, .. } if *found == seq)
}

#[test]
fn what_was_accepted_and_not_stored_is_stored_by_the_next_process_in_the_batches_that_were_cut() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let first = world.start(windows_of(2));
        let ingress = first.ingress().await;
        ingress.feed(lines(events("a", 0..3))).await.unwrap();
        ingress.feed(lines(events("a", 3..5).into_iter().chain(events("b", 0..1)))).await.unwrap();
        pass(secs(1)).await;
        let cuts = cuts_of(&world);
        assert_eq!(cuts.len(), 2);
        world.crash(first).await;
        world.store.heal();
        // Windows of another size: what was cut stays as it was.
        let second = world.start(windows_of(3));
        pass(secs(1)).await;
        assert_eq!(second.stored("a"), events("a", 0..4), "without an event of its own");
        assert_eq!((second.snapshot("a").window, second.snapshot("b").window), (1, 1));
        feed(&second, events("a", 5..7)).await;
        world.end(second).await;
        let batches = world.kept.batches(&tenant("a"));
        let ids: Vec<_> = batches.iter().map(|batch| batch.id().clone()).collect();
        assert_eq!(ids[..2], cuts);
        assert_eq!(
            (ids[2].seq.0, ids[2].opening == cuts[0].opening),
            (3, false),
            "a new opening cuts under its own name"
        );
        assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [2, 2, 3]);
        let bodies: Vec<_> =
            world.kept.bodies(&tenant("a")).into_iter().map(|b| String::from_utf8(b).unwrap()).collect();
        assert_eq!(bodies, events("a", 0..7));
        same_bytes_under_the_same_id(&world);
    });
}

#[test]
fn what_is_read_back_gives_back_all_the_memory_that_it_took_and_no_more_however_many_events_a_chunk_has() {
    virtual_time(async {
        // Up to some batches and a part of a chunk that is in the last of them, too.
        for count in 1..40 {
            let mut world = World::faulty(Fault::Unavailable.always());
            let window = WindowPolicy { max_age: secs(1), ..windows_of(7).window };
            let policy = Policy { window, ..windows_of(7) };
            let first = world.start(policy.clone());
            feed(&first, events("a", 0..count)).await;
            world.crash(first).await;
            world.store.heal();
            let second = world.start(policy);
            pass(secs(10)).await;
            assert_eq!(second.stored("a"), events("a", 0..count));
            assert_eq!(
                (second.system.in_flight_bytes(), second.snapshot("a").counters.restarts),
                (0, 0),
                "{count} events"
            );
            world.end(second).await;
        }
    });
}

fn cuts_of(world: &World) -> Vec<BatchId> {
    let cut = |entry| if let Entry::Cut { batch, .. } = entry { Some(batch) } else { None };
    world.journal.entries().into_iter().filter_map(cut).collect()
}

fn same_bytes_under_the_same_id(world: &World) {
    let attempts = world.store.attempts();
    for (id, number, bodies) in &attempts {
        assert!(attempts.iter().all(|other| other.0 != *id || other.2 == *bodies), "{id} has other bytes");
        assert_eq!(attempts.iter().filter(|other| other.0 == *id && other.1 == *number).count(), 1, "{id} {number}");
    }
}

#[test]
fn a_batch_that_a_store_took_without_an_answer_is_sent_again_under_the_same_id_and_is_not_doubled() {
    virtual_time(async {
        let mut world = World::new();
        let hangs = StoresAndHangs { inner: world.store.clone(), hangs: Arc::new(AtomicBool::new(true)) };
        let first = world.start_with(windows_of(2), |builder| builder.store(hangs.clone()));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        assert_eq!((first.stored("a"), first.snapshot("a").in_flight), (events("a", 0..2), 2));
        world.crash(first).await;
        hangs.hangs.store(false, Ordering::Relaxed);
        let second = world.start_with(windows_of(2), |builder| builder.store(hangs.clone()));
        world.end(second).await;
        let attempts = world.store.attempts();
        assert_eq!(attempts.iter().map(|attempt| attempt.1).collect::<Vec<_>>(), [1, 2]);
        same_bytes_under_the_same_id(&world);
        assert_eq!(world.kept.totals()[&tenant("a")], 2, "in the store once");
    });
}

#[derive(Clone)]
struct StoresAndHangs<S> {
    inner: S,
    hangs: Arc<AtomicBool>,
}

impl<S: Storage> Storage for StoresAndHangs<S> {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        self.inner.store(batch, undo).await?;
        if self.hangs.load(Ordering::Relaxed) { std::future::pending().await } else { Ok(()) }
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.inner.rollback(id, attempt).await
    }
}

#[test]
fn a_store_is_not_called_before_cut_and_intent_are_committed() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        world.journal.hold();
        feed(&rig, events("a", 0..2)).await;
        pass(secs(60)).await;
        let entries = world.journal.entries();
        let kinds: Vec<_> = entries.iter().map(|e| matches!(e, Entry::Intent { .. })).collect();
        assert_eq!(kinds, [false, false, true], "chunk, cut, intent: {entries:?}");
        // The chunk is one block, cut and intent are another.
        for committed in 1..=2 {
            assert_eq!(world.store.attempts(), [], "{committed}");
            world.journal.commit_up_to(headworks_actors::Position(committed));
            pass(secs(1)).await;
        }
        assert_eq!(world.store.attempts().len(), 1);
        world.journal.release();
        world.end(rig).await;
    });
}

#[test]
fn nothing_is_lost_where_the_cut_was_never_committed_and_it_may_be_cut_anew() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..1)).await;
        world.journal.hold();
        feed(&first, events("a", 1..2)).await;
        pass(secs(1)).await;
        assert_eq!(cuts_of(&world).len(), 1);
        world.crash(first).await;
        let second = world.start(windows_of(2));
        feed(&second, events("a", 7..9)).await;
        world.end(second).await;
        let stored: Vec<_> = world.kept.bodies(&tenant("a"));
        assert_eq!(stored, [event("a", 0), event("a", 7), event("a", 8)].map(String::into_bytes));
    });
}

#[test]
fn a_dead_letter_is_not_kept_before_it_is_committed_that_its_batch_is_given_up() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Permanent.always());
        let first = world.start(windows_of(2));
        world.journal.hold();
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.journal.commit_all();
        pass(secs(60)).await;
        assert!(matches!(world.journal.entries().last(), Some(Entry::GivenUp { .. })));
        assert_eq!((first.dead().len(), world.store.rolled_back().len()), (0, 0));
        // The process dies before: the next one tries again, and has more luck.
        world.crash(first).await;
        world.store.heal();
        let second = world.start(windows_of(2));
        world.end(second).await;
        assert_eq!((world.kept.totals()[&tenant("a")], world.letters.all().len()), (2, 0));
    });
}

#[test]
fn a_batch_that_was_given_up_becomes_dead_letters_once_whatever_the_store_says_after_a_crash() {
    virtual_time(async {
        for mood in [Mood::Fails, Mood::Hangs] {
            let mut world = World::faulty(Fault::LostReply.always());
            let letters = FaultyLetters::new(mood);
            let first = world.start_with(windows_of(2), |builder| builder.dead_letters(letters.clone()));
            feed(&first, events("a", 0..4)).await;
            pass(secs(300)).await;
            assert!(letters.kept.all().is_empty());
            world.crash(first).await;
            world.store.heal();
            let calls = world.store.attempts().len();
            let second = world.start(windows_of(2));
            world.end(second).await;
            let dead: Vec<_> = world.letters.all().iter().map(|letter| letter.body.clone()).collect();
            assert_eq!(dead, events("a", 0..2), "{mood:?}");
            assert!(world.letters.all().iter().all(|l| l.cause.code == Code::StoreTransient && l.attempts == 5));
            assert_eq!(
                world.kept.bodies(&tenant("a")),
                events("a", 2..4).into_iter().map(String::into_bytes).collect::<Vec<_>>()
            );
            assert_eq!(world.store.attempts().len(), calls + 1, "the one behind it");
        }
    });
}

#[test]
fn letters_that_were_kept_before_a_crash_are_not_kept_twice() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Permanent.always());
        let first = world.start(windows_of(2));
        world.journal.hold();
        feed(&first, events("a", 0..2)).await;
        while first.dead().is_empty() {
            // Everything but the outcome.
            world.journal.commit_all();
            tokio::task::yield_now().await;
        }
        world.crash(first).await;
        assert_eq!(world.journal.on_disk().tenants[&tenant("a")].totals.dead_lettered, 0, "the outcome is not");
        let second = world.start(windows_of(2));
        world.end(second).await;
        assert_eq!(world.letters.all().len(), 2);
    });
}

/// Registers a step in each attempt and then does not answer.
struct Registers {
    inner: crate::rig::Store,
    permanent: bool,
}

impl Storage for Registers {
    async fn store(&self, _: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let name = format!("of attempt {}", undo.attempt());
        undo.push(UndoStep { name, data: vec![1] }).await;
        if self.permanent { Err(StorageError::permanent("never")) } else { std::future::pending().await }
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.inner.rollback(id, attempt).await
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        let _ = self.inner.undo(step).await;
        Ok(())
    }
}

#[test]
fn undo_steps_that_were_registered_before_a_crash_are_run_after_it_newest_first() {
    virtual_time(async {
        let mut world = World::new();
        let (hangs, fails) = (
            Registers { inner: world.store.clone(), permanent: false },
            Registers { inner: world.store.clone(), permanent: true },
        );
        let first = world.start_with(windows_of(2), |builder| builder.store(hangs));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        let second = world.start_with(windows_of(2), |builder| builder.store(fails));
        world.end(second).await;
        let id = cuts_of(&world)[0].clone();
        let undone = |n: u32| Call::Undo(format!("of attempt {n}"));
        assert_eq!(world.store.record(), [undone(2), undone(1), Call::Rollback { id, attempt: 2 }]);
    });
}

#[test]
fn a_step_is_registered_only_once_it_is_committed() {
    virtual_time(async {
        let world = World::new();
        let fails = Registers { inner: world.store.clone(), permanent: true };
        let rig = world.start_with(windows_of(2), |builder| builder.store(fails));
        world.journal.hold();
        feed(&rig, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.journal.commit_all();
        pass(secs(5)).await;
        assert!(matches!(world.journal.entries().last(), Some(Entry::Undo { .. })), "the push waits");
        world.journal.release();
        world.end(rig).await;
    });
}

fn shouting() -> Hooks {
    Hooks::new().map_batch(|batch| batch.map_bodies(|event| event.body.to_ascii_uppercase().into()))
}

fn whispering() -> Hooks {
    Hooks::new().map_batch(|batch| batch.map_bodies(|_| Bytes::from_static(b"psst")))
}

fn shouted(events: Vec<String>) -> Vec<Vec<u8>> {
    events.into_iter().map(|event| event.to_ascii_uppercase().into_bytes()).collect()
}

#[test]
fn what_hooks_made_of_a_batch_is_stored_after_a_crash_whatever_hooks_say_now() {
    virtual_time(async {
        for hooks in [whispering(), Hooks::new(), Hooks::new().filter_batch(|_| false)] {
            let mut world = World::faulty(Fault::Unavailable.always());
            let first = world.start_with(windows_of(2), |builder| builder.hooks(shouting()));
            feed(&first, events("a", 0..2)).await;
            pass(secs(1)).await;
            world.crash(first).await;
            world.store.heal();
            let second = world.start_with(windows_of(2), |builder| builder.hooks(hooks));
            world.end(second).await;
            assert_eq!(world.kept.bodies(&tenant("a")), shouted(events("a", 0..2)));
            same_bytes_under_the_same_id(&world);
        }
    });
}

#[test]
fn a_batch_whose_changed_bytes_cannot_be_read_is_never_stored_with_others_under_its_id() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let first = world.start_with(windows_of(2), |builder| builder.hooks(shouting()));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        world.store.heal();
        world.journal.damage(|entry| matches!(entry, Entry::Made { .. }));
        let second = world.start_with(windows_of(2), |builder| builder.hooks(shouting()));
        world.end(second).await;
        assert!(world.kept.bodies(&tenant("a")).is_empty(), "the store may hold the changed bytes, or not");
        let dead: Vec<_> = world.letters.all().iter().map(|letter| letter.body.clone()).collect();
        assert_eq!(dead, events("a", 0..2), "kept as they came");
        assert_eq!(world.letters.all()[0].cause.code, Code::JournalDamaged);
        assert_eq!(world.store.rolled_back().len(), 1);
    });
}

#[test]
fn totals_go_on_and_both_sums_hold_after_a_crash_also_for_what_never_became_a_chunk() {
    virtual_time(async {
        let mut world = World::faulty(|batch, _| {
            let first = batch.events().next().unwrap().body.to_vec();
            if first.ends_with(b"\"n\":0}") { Fault::Permanent } else { Fault::None }
        });
        let hooks = Hooks::new().filter(|event| !event.body.ends_with(b"7}")).map(|event| {
            assert!(!event.body.ends_with(b"8}"), "a hook fails");
            event
        });
        let overflow = OverflowPolicy {
            max_in_flight: 1 << 10,
            when_full: headworks_actors::WhenFull::Reject,
            ..OverflowPolicy::default()
        };
        let policy = Policy { overflow, ..windows_of(2) };
        let first = world.start_with(policy.clone(), |builder| builder.hooks(hooks.clone()));
        feed(&first, events("a", 0..9)).await;
        first.system.mute(&tenant("a"));
        feed(&first, events("a", 0..3)).await;
        first.system.unmute(&tenant("a"));
        pass(secs(60)).await;
        world.store.script(Fault::Unavailable.always());
        for _ in 0..4 {
            feed(&first, events("a", 100..107)).await;
        }
        pass(secs(60)).await;
        let before = first.snapshot("a");
        let counters = before.counters;
        assert!(before.in_flight > 0 && counters.rejected > 0 && before.adds_up(), "{before:?}");
        assert_eq!((counters.muted, counters.discarded, counters.dead_lettered), (3, 1, 3), "{before:?}");
        world.crash(first).await;
        let second = world.start_with(policy, |builder| builder.hooks(hooks));
        for _ in 0..2 {
            let after = second.snapshot("a");
            assert!(after.adds_up(), "{after:?}");
            let of = |c: headworks_actors::Counters| {
                (c.received, c.accepted, c.muted, c.rejected, c.stored, c.dead_lettered, c.discarded, c.batches)
            };
            assert_eq!((of(after.counters), after.in_flight), (of(counters), before.in_flight));
            pass(secs(1)).await;
        }
        world.store.heal();
        world.end(second).await;
    });
}

#[test]
fn new_events_of_a_tenant_wait_until_its_open_attempt_has_its_answer_and_those_of_others_do_not() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Stall.of_tenant(tenant("a")));
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        let second = world.start(windows_of(2));
        let a = feeding(&second, events("a", 2..4));
        assert!(is_held(&a).await);
        feed(&second, events("b", 0..2)).await;
        pass(secs(1)).await;
        assert_eq!(second.stored("b"), events("b", 0..2));
        assert_eq!(second.logged("a", What::Recovered)[0].attempt, Some(1));
        world.store.heal();
        a.await.unwrap();
        world.end(second).await;
        let bodies: Vec<_> = world.kept.bodies(&tenant("a"));
        assert_eq!(bodies, events("a", 0..4).into_iter().map(String::into_bytes).collect::<Vec<_>>());
    });
}

#[test]
fn an_open_attempt_that_fails_again_lets_new_events_in() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Stall.always());
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        world.store.script(Fault::Unavailable.always());
        let second = world.start(windows_of(2));
        feed(&second, events("a", 2..4)).await;
        assert_eq!(second.snapshot("a").in_flight, 4);
        world.store.heal();
        world.end(second).await;
        assert_eq!(world.kept.totals()[&tenant("a")], 4);
    });
}

#[test]
fn a_journal_without_room_holds_the_sender_and_lets_it_go_again() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        world.journal.set_room(false);
        let feeding = feeding(&rig, events("a", 0..2));
        assert!(is_held(&feeding).await);
        assert_eq!((rig.snapshot("a").in_flight, world.journal.entries().len()), (0, 0));
        world.journal.set_room(true);
        feeding.await.unwrap();
        world.end(rig).await;
        assert_eq!(world.kept.totals()[&tenant("a")], 2);
    });
}

#[test]
fn a_read_that_fails_for_a_while_loses_nothing() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..3)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        world.store.heal();
        world.journal.fail_reads(4);
        let second = world.start(windows_of(2));
        world.end(second).await;
        assert_eq!(world.kept.totals()[&tenant("a")], 3);
    });
}

#[test]
fn a_chunk_that_cannot_be_read_is_reported_as_lost_and_the_rest_goes_on() {
    virtual_time(async {
        // Three chunks of three events in windows of two: every batch but the first and the last shares its chunks.
        for damaged in 1..=3 {
            for fault in [Fault::Unavailable, Fault::Stall] {
                let mut world = World::faulty(fault.always());
                let first = world.start(windows_of(2));
                for n in 0..3 {
                    feed(&first, events("a", n * 3..n * 3 + 3)).await;
                }
                feed(&first, events("b", 0..3)).await;
                pass(secs(1)).await;
                world.crash(first).await;
                world.store.heal();
                world.journal.damage(|entry| is_chunk(damaged)(entry) && is_of("a")(entry));
                let second = world.start(windows_of(2));
                pass(secs(60)).await;
                assert_eq!(lost(&second), 3, "{damaged} {fault:?}");
                feed(&second, events("a", 9..10)).await;
                second.tenant("a").flush();
                pass(secs(60)).await;
                let counters = second.snapshot("a").counters;
                assert_eq!(counters.accepted, 7, "{damaged} {fault:?} {counters:?}");
                world.end(second).await;
                let dead =
                    world.letters.all().into_iter().map(|letter| String::from_utf8(letter.body.to_vec()).unwrap());
                let stored = world.kept.bodies(&tenant("a")).into_iter().map(|body| String::from_utf8(body).unwrap());
                let found: BTreeSet<_> = stored.chain(dead).collect();
                let gone = (damaged as usize - 1) * 3..damaged as usize * 3;
                let left: BTreeSet<_> = events("a", (0..10).filter(|n| !gone.contains(n))).into_iter().collect();
                assert_eq!(found, left, "{damaged} {fault:?}");
                assert_eq!(world.kept.totals()[&tenant("b")], 3);
            }
        }
    });
}

fn is_of(name: &'static str) -> impl Fn(&Entry) -> bool {
    move |entry| matches!(entry, Entry::Chunk { chunk, .. } if chunk.tenant().as_str() == name)
}

#[test]
fn what_is_lost_is_lost_once_and_not_in_flight_for_ever() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..2)).await;
        feed(&first, events("a", 2..4)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        world.store.heal();
        world.journal.damage(is_chunk(2));
        let second = world.start(windows_of(2));
        pass(secs(60)).await;
        assert_eq!(lost(&second), 2);
        world.crash(second).await;
        let third = world.start(windows_of(2));
        pass(secs(60)).await;
        let snapshot = third.snapshot("a");
        assert_eq!((snapshot.in_flight, snapshot.counters.accepted, lost(&third)), (0, 2, 0), "{snapshot:?}");
        world.end(third).await;
    });
}

#[test]
fn a_recovered_tenant_can_be_spawned_once_with_nothing_of_its_own() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        let second = world.start(windows_of(2));
        let own = TenantSpec::from(tenant("a")).policy(windows_of(3));
        assert!(matches!(second.system.spawn(own).await, Err(Error::TenantExists(_))), "it is too late for that");
        assert!(second.system.spawn(tenant("a")).await.is_ok());
        assert!(matches!(second.system.spawn(tenant("a")).await, Err(Error::TenantExists(_))));
        world.end(second).await;
    });
}

#[test]
fn a_tenant_that_is_spawned_before_it_is_read_back_misses_nothing() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(4));
        feed(&first, events("a", 0..3)).await;
        world.crash(first).await;
        world.journal.hold_reads(true);
        let second = world.start(windows_of(4));
        let a = second.system.spawn(tenant("a")).await.unwrap();
        pass(secs(1)).await;
        assert_eq!((a.snapshot().in_flight, a.snapshot().window), (3, 0));
        world.journal.hold_reads(false);
        feed(&second, events("a", 3..5)).await;
        pass(secs(1)).await;
        assert_eq!((second.stored("a"), a.snapshot().window), (events("a", 0..4), 1));
        world.end(second).await;
    });
}

#[test]
fn a_drain_that_begins_before_everything_is_read_back_stores_it_all_the_same() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(100));
        feed(&first, events("a", 0..3).into_iter().chain(events("b", 0..3))).await;
        world.crash(first).await;
        world.journal.hold_reads(true);
        let second = world.start(windows_of(100));
        let release = async {
            pass(secs(5)).await;
            world.journal.hold_reads(false);
        };
        futures::join!(second.drained(), release);
        assert_eq!((world.kept.totals()[&tenant("a")], world.kept.totals()[&tenant("b")]), (3, 3));
    });
}

#[test]
fn the_limit_of_tenants_does_not_stop_those_that_are_on_record() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(2));
        feed(&first, ["a", "b", "c"].into_iter().flat_map(|name| events(name, 0..1))).await;
        world.crash(first).await;
        let second = world.start_with(windows_of(2), |builder| builder.max_tenants(1));
        feed(&second, ["a", "b", "c", "d"].into_iter().flat_map(|name| events(name, 1..2))).await;
        assert_eq!(second.source("test").rejected, 1, "a further one may not come up");
        world.end(second).await;
        assert_eq!(world.kept.totals().into_values().collect::<Vec<_>>(), [2, 2, 2]);
    });
}

#[test]
fn memory_stays_within_its_bound_during_recovery() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let names: Vec<_> = (0..20).map(|n| format!("t{n}")).collect();
        let first = world.start(windows_of(2));
        for name in &names {
            feed(&first, events(name, 0..5)).await;
        }
        let one = first.snapshot("t0").in_flight_bytes;
        pass(secs(1)).await;
        world.crash(first).await;
        let max = usize::try_from(one * 3).unwrap();
        let second = world.start_with(windows_of(2), |builder| builder.max_in_flight_bytes(max));
        let feeding = feeding(&second, events("new", 0..2));
        for _ in 0..100 {
            pass(secs(1)).await;
            assert!(second.system.in_flight_bytes() <= max);
        }
        assert!(!feeding.is_finished(), "what is on record comes first");
        world.store.heal();
        for _ in 0..100_000 {
            assert!(second.system.in_flight_bytes() <= max);
            tokio::task::yield_now().await;
        }
        feeding.await.unwrap();
        world.end(second).await;
        assert!(names.iter().all(|name| world.kept.totals()[&tenant(name)] == 5));
    });
}

#[test]
fn open_windows_do_not_keep_the_memory_that_others_need_to_be_read_back() {
    virtual_time(async {
        let mut world = World::new();
        let policy =
            Policy { window: WindowPolicy { max_age: secs(12 * 3600), ..windows_of(100).window }, ..windows_of(100) };
        let first = world.start(policy.clone());
        feed(&first, ["a", "b", "c"].into_iter().flat_map(|name| events(name, 0..5))).await;
        let one = usize::try_from(first.snapshot("a").in_flight_bytes).unwrap();
        world.crash(first).await;
        let second = world.start_with(policy, |builder| builder.max_in_flight_bytes(one + one / 2));
        pass(secs(60)).await;
        assert_eq!(second.snapshot("c").window, 5, "it is read back");
        world.end(second).await;
    });
}

#[test]
fn a_process_that_ends_well_leaves_nothing_to_recover_but_its_totals() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..3)).await;
        world.journal.delay(secs(1));
        first.drained().await;
        world.crash(first).await;
        let second = world.start(windows_of(2));
        let snapshot = second.snapshot("a");
        assert_eq!((snapshot.counters.stored, snapshot.in_flight), (3, 0));
        assert!(second.logged("a", What::Recovered).is_empty());
        feed(&second, events("a", 3..5)).await;
        world.end(second).await;
        assert_eq!(world.kept.totals()[&tenant("a")], 5);
    });
}

#[test]
fn a_tenant_with_a_store_of_its_own_is_recovered_into_it() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let own = headworks_actors::MemoryStore::new();
        let spec = |store: &crate::rig::Store| TenantSpec::from(tenant("a")).store(store.clone());
        let first = world.start_with(windows_of(2), |builder| builder.tenant(spec(&world.store)));
        feed(&first, events("a", 0..2)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        let spec = TenantSpec::from(tenant("a")).store(own.clone());
        let second = world.start_with(windows_of(2), |builder| builder.tenant(spec));
        world.end(second).await;
        assert_eq!(own.totals()[&tenant("a")], 2);
    });
}

#[test]
fn two_crashes_in_a_row_lose_and_double_nothing() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Stall.always());
        let first = world.start(windows_of(2));
        feed(&first, events("a", 0..5)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        let second = world.start(windows_of(2));
        pass(secs(1)).await;
        world.crash(second).await;
        let third = world.start(windows_of(2));
        assert_eq!(third.log_of("a").iter().filter(|event| event.actor == Role::Supervisor).count(), 0);
        world.store.heal();
        world.end(third).await;
        let numbers: Vec<_> = world.store.attempts().iter().filter(|a| a.0.seq.0 == 1).map(|a| a.1).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(world.kept.totals()[&tenant("a")], 5);
        same_bytes_under_the_same_id(&world);
    });
}
