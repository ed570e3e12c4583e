//! What a batch that is given up has left in its stores is taken back: newest first, each part of it, however long it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use headworks_actors::{
    Attempt, Batch, BatchId, Code, Fault, MemoryStore, Policy, RetryPolicy, Saga, Storage, StorageError, Undo,
    UndoStep, What, WindowPolicy,
};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::rig::{
    Pair, Rig, World, event, events, in_order, lines, millis, pass, secs, tenant, until, virtual_time, windows_of,
};

async fn feed(rig: &Rig, events: impl IntoIterator<Item = String>) {
    rig.ingress().await.feed(lines(events)).await.unwrap();
}

/// As `until`, for what may take hours.
async fn in_the_end(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < secs(24 * 3600), "a day has passed, and not yet: {what}");
        pass(secs(5)).await;
    }
}

/// How often a compensation fails before it works, and how.
#[derive(Debug, Clone, Copy)]
struct Failing(Fault, u32);

/// What all stores of a saga share: each call, in the order they came.
#[derive(Default)]
struct Notes {
    calls: Mutex<Vec<String>>,
    /// Effects that were registered, done and not undone.
    effects: Mutex<BTreeSet<String>>,
    failing: Mutex<BTreeMap<String, Failing>>,
    succeeded: Mutex<Vec<String>>,
}

impl Notes {
    /// A compensation of that name.
    async fn compensate(&self, name: String) -> Result<(), StorageError> {
        self.calls.lock().unwrap().push(name.clone());
        let fault = match self.failing.lock().unwrap().get_mut(&name) {
            Some(Failing(fault, left)) if *left > 0 => {
                *left -= 1;
                *fault
            }
            _ => Fault::None,
        };
        match fault {
            Fault::None => {}
            Fault::Permanent => return Err(StorageError::permanent("it cannot be undone")),
            Fault::Unavailable => return Err(StorageError::unavailable("nobody is there")),
            Fault::Stall => std::future::pending().await,
            Fault::PanicBefore => panic!("injected panic in a compensation"),
            _ => return Err(StorageError::transient("not now")),
        }
        self.effects.lock().unwrap().remove(&name);
        self.succeeded.lock().unwrap().push(name);
        Ok(())
    }
}

/// A store that registers steps in each attempt, and does what they undo. It fails but for the last of its attempts.
struct Stepping {
    name: String,
    /// The steps of each attempt. One that is beyond the last fails for good.
    attempts: Vec<Vec<u8>>,
    /// Whether the last attempt is refused.
    refuses: bool,
    notes: Arc<Notes>,
}

impl Storage for Stepping {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let nth = undo.attempt().0 as usize;
        for step in self.attempts.get(nth - 1).into_iter().flatten() {
            let name = format!("{} {} {step}", self.name, batch.id());
            undo.push(UndoStep { name: name.clone(), data: vec![*step] }).await;
            self.notes.effects.lock().unwrap().insert(name);
        }
        self.notes.effects.lock().unwrap().insert(format!("{} {} rows", self.name, batch.id()));
        match () {
            () if nth < self.attempts.len() => Err(StorageError::transient("not now")),
            () if self.refuses || nth > self.attempts.len() => Err(StorageError::permanent("never")),
            () => Ok(()),
        }
    }

    async fn rollback(&self, id: &BatchId, _: Attempt) -> Result<(), StorageError> {
        self.notes.compensate(format!("{} {id} rows", self.name)).await
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        assert_eq!(step.data.len(), 1);
        self.notes.compensate(step.name.clone()).await
    }
}

/// The stores of a saga of which the last one refuses, and what each registers in each attempt.
fn plan() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let attempt = prop::collection::vec(0..4u8, 0..4);
    prop::collection::vec(prop::collection::vec(attempt, 1..4), 1..4)
}

fn failing() -> impl Strategy<Value = Failing> {
    let fault = prop_oneof![
        Just(Fault::Transient),
        Just(Fault::Permanent),
        Just(Fault::Unavailable),
        Just(Fault::PanicBefore),
        Just(Fault::Stall),
    ];
    (fault, prop_oneof![2 => Just(0), 1 => 1..4u32, 1 => 5..20u32]).prop_map(|(fault, times)| match fault {
        // Few enough to be over before the deadline.
        Fault::Unavailable => Failing(fault, times.min(4)),
        _ => Failing(fault, times),
    })
}

fn saga(plan: &[Vec<Vec<u8>>], notes: &Arc<Notes>) -> Saga {
    plan.iter().enumerate().fold(Saga::new(), |saga, (nth, attempts)| {
        let name = format!("s{nth}");
        let (attempts, refuses) = (attempts.clone(), nth + 1 == plan.len());
        let store = Stepping { name: name.clone(), attempts, refuses, notes: notes.clone() };
        saga.then(store).named(&name)
    })
}

/// What takes the batch back, newest first, by the simplest model.
fn expected(plan: &[Vec<Vec<u8>>], id: &BatchId) -> Vec<String> {
    let mut done: Vec<String> = vec![];
    for (nth, attempts) in plan.iter().enumerate() {
        // The rows come first of all: they are taken back last.
        for what in std::iter::once("rows".to_owned()).chain(attempts.iter().flatten().map(u8::to_string)) {
            let name = format!("s{nth} {id} {what}");
            if !done.contains(&name) {
                done.push(name);
            }
        }
    }
    done.reverse();
    done
}

/// The calls without repetitions: the order in which each was made first.
fn first_calls(notes: &Notes) -> Vec<String> {
    let mut seen = BTreeSet::new();
    notes.calls.lock().unwrap().iter().filter(|call| seen.insert((*call).clone())).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_compensation_runs_in_reverse_order_and_to_success_once_whatever_becomes_of_the_others(
        plan in plan(), faults in prop::collection::vec(failing(), 20), disturbed in any::<bool>(),
    ) {
        virtual_time(async move {
            let notes = Arc::new(Notes::default());
            let rig = Rig::with(windows_of(2), |builder| builder.saga(saga(&plan, &notes)));
            let id = BatchId::new(rig.system.opening(), tenant("a"), headworks_actors::Seq(1));
            let expected = expected(&plan, &id);
            let failing: BTreeMap<_, _> = expected.iter().cloned().zip(faults).collect();
            // Beyond the retries, or at once where that is for good, it goes on the list.
            let listed = failing.values().filter(|Failing(fault, times)| match fault {
                Fault::Permanent => *times > 0,
                Fault::Unavailable => false,
                _ => *times >= 5,
            });
            let listed = listed.count() as u64;
            *notes.failing.lock().unwrap() = failing;
            feed(&rig, events("a", 0..2)).await;
            in_the_end("it is given up", || !rig.letters.all().is_empty() || {
                if disturbed {
                    rig.tenant("a").restart();
                    rig.tenant("a").inject_panic();
                    rig.tenant("a").resume();
                }
                false
            }).await;
            let told = rig.logged("a", if listed > 0 { What::CompensationFailed } else { What::Compensated });
            if !disturbed {
                assert_eq!((told.len() as u64, u64::from(told[0].compensations_failed)), (1, listed));
                assert_eq!(u64::from(told[0].compensations_run) + listed, expected.len() as u64);
                assert_eq!(first_calls(&notes), expected, "newest first");
            }
            in_the_end("the list is empty", || rig.snapshot("a").uncompensated == 0).await;
            let mut succeeded = notes.succeeded.lock().unwrap().clone();
            succeeded.sort();
            let mut once = first_calls(&notes);
            once.sort();
            assert_eq!(succeeded, once, "each to success, once");
            assert_eq!(*notes.effects.lock().unwrap(), BTreeSet::new());
            assert_eq!(rig.dead(), events("a", 0..2));
            rig.drained().await;
        });
    }

    #[test]
    fn what_a_crash_interrupts_is_taken_back_by_the_next_process_and_the_list_outlives_it(
        plan in plan(), faults in prop::collection::vec(failing(), 20),
        crashes in prop::collection::vec((0..90_000u64, 0..4usize, any::<bool>()), 1..6),
    ) {
        virtual_time(async move {
            let notes = Arc::new(Notes::default());
            let mut world = World::new();
            let mut rig = world.start_with(windows_of(2), |builder| builder.saga(saga(&plan, &notes)));
            let id = BatchId::new(rig.system.opening(), tenant("a"), headworks_actors::Seq(1));
            let expected = expected(&plan, &id);
            *notes.failing.lock().unwrap() = expected.iter().cloned().zip(faults).collect();
            feed(&rig, events("a", 0..2)).await;
            for (after, more, holds) in crashes {
                if holds {
                    world.journal.delay(millis(after / 7));
                }
                pass(millis(after)).await;
                let on_disk = world.journal.on_disk();
                let listed = on_disk.tenants.get(&tenant("a")).map_or(0, |tenant| tenant.uncompensated.len());
                world.crash_with(rig, more).await;
                rig = world.start_with(windows_of(2), |builder| builder.saga(saga(&plan, &notes)));
                assert!(more > 0 || rig.snapshot("a").uncompensated == listed as u64, "it is durable");
            }
            in_the_end("it has its outcome", || rig.snapshot("a").in_flight == 0).await;
            in_the_end("the list is empty", || rig.snapshot("a").uncompensated == 0).await;
            world.end(rig).await;
            assert_eq!(world.journal.on_disk().tenants[&tenant("a")].uncompensated, []);
            assert_eq!(*notes.effects.lock().unwrap(), BTreeSet::new(), "nothing is left behind");
            assert_eq!(world.letters.all().len(), 2, "{:?}", world.letters.all());
        });
    }
}

#[test]
fn while_a_compensation_is_owed_the_store_may_hold_dead_letters_and_after_the_heal_it_does_not() {
    virtual_time(async {
        let (mut world, pair) = (World::new(), Pair::new());
        pair.second.script(Fault::Permanent.on_call(1));
        pair.first.script_rollback(Fault::Transient.always());
        let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
        feed(&rig, events("a", 0..4)).await;
        until("the second batch is stored", || rig.snapshot("a").counters.stored == 2).await;
        assert_eq!((rig.snapshot("a").uncompensated, rig.snapshot("a").in_flight), (1, 0));
        assert_eq!(rig.dead(), events("a", 0..2));
        assert_eq!(pair.first.inner().bodies(&tenant("a")).len(), 4, "not taken back yet");
        let detail = rig.letters.all()[0].cause.detail.clone();
        assert!(detail.contains("not undone when it was given up: rollback in first"), "{detail}");
        // Nothing of the tenant is in flight: the next process takes the list up all the same.
        world.crash(rig).await;
        let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
        assert_eq!(rig.snapshot("a").uncompensated, 1);
        let before = pair.first.rollbacks();
        pass(secs(30)).await;
        assert!(pair.first.rollbacks() > before, "it is tried again without anything else happening");
        pair.first.script_rollback(Fault::None.always());
        in_the_end("the list is empty", || rig.snapshot("a").uncompensated == 0).await;
        assert_eq!(rig.logged("a", What::Compensated).len(), 1);
        assert_eq!(pair.in_order(&world.letters, "a"), events("a", 0..4));
        world.end(rig).await;
        assert_eq!(world.journal.on_disk().tenants[&tenant("a")].uncompensated, []);
    });
}

#[test]
fn a_compensation_that_hangs_for_longer_than_its_deadline_goes_on_the_list_at_the_deadline() {
    virtual_time(async {
        let retry = RetryPolicy { attempt_timeout: secs(50), compensation_deadline: secs(5), ..windows_of(1).retry };
        let (rig, store) = Rig::faulty(Policy { retry, ..windows_of(1) }, Fault::Permanent.first(1));
        store.script_rollback(Fault::Stall.first(1));
        let start = Instant::now();
        feed(&rig, events("a", 0..2)).await;
        until("the second is stored", || rig.snapshot("a").counters.stored == 1).await;
        assert!(start.elapsed() >= secs(5) && start.elapsed() < millis(5_100), "{:?}", start.elapsed());
        assert_eq!(rig.logged("a", What::CompensationFailed).len(), 1);
        in_the_end("the list is empty", || rig.snapshot("a").uncompensated == 0).await;
        rig.drained().await;
    });
}

#[test]
fn an_outage_in_a_rollback_spends_no_try_but_the_deadline_counts() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Permanent.first(1));
        store.script_rollback(Fault::Unavailable.always());
        let start = Instant::now();
        feed(&rig, events("a", 0..2)).await;
        until("the second is stored", || rig.snapshot("a").counters.stored == 1).await;
        assert!(store.rollbacks() > 5, "{}", store.rollbacks());
        assert!(start.elapsed() <= secs(61), "{:?}", start.elapsed());
        assert_eq!(rig.snapshot("a").uncompensated, 1);
        store.heal();
        in_the_end("the list is empty", || rig.snapshot("a").uncompensated == 0).await;
        rig.drained().await;
    });
}

#[test]
fn a_hung_rollback_does_not_delay_the_windows_of_others() {
    virtual_time(async {
        let window = WindowPolicy { max_age: millis(250), ..windows_of(100).window };
        let (rig, store) = Rig::faulty(Policy { window, ..windows_of(100) }, Fault::Permanent.of_tenant(tenant("a")));
        store.script_rollback(Fault::Stall.always());
        feed(&rig, events("a", 0..1)).await;
        store.until_rollbacks(1).await;
        for n in 0..20 {
            let start = Instant::now();
            feed(&rig, (0..5).map(|tenant| event(&format!("b{tenant}"), n))).await;
            pass(millis(251)).await;
            for tenant in 0..5 {
                assert_eq!(rig.stored(&format!("b{tenant}")).len(), n + 1, "its window is stored when it is due");
            }
            assert!(start.elapsed() < millis(260));
        }
        assert_eq!((rig.snapshot("a").in_flight, rig.letters.all().len()), (1, 0));
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn a_full_list_holds_its_tenant_until_one_of_it_is_done_and_nobody_else() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Permanent.of_tenant(tenant("a")));
        store.script_rollback(Fault::Permanent.always());
        feed(&rig, events("a", 0..1_003)).await;
        in_the_end("the list is full", || rig.snapshot("a").uncompensated == 1_000).await;
        pass(secs(600)).await;
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.uncompensated, snapshot.counters.dead_lettered, snapshot.in_flight), (1_000, 1_000, 3));
        feed(&rig, events("b", 0..10)).await;
        pass(millis(1)).await;
        assert_eq!(rig.stored("b"), events("b", 0..10));
        store.script_rollback(Fault::None.always());
        in_the_end("it goes on", || rig.snapshot("a").in_flight == 0).await;
        in_the_end("the list is empty", || rig.snapshot("a").uncompensated == 0).await;
        assert_eq!(rig.dead().len(), 1_003);
        rig.drained().await;
    });
}

#[test]
fn compensations_go_on_whoever_is_restarted_or_does_not_wait_any_longer() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(2), Fault::Permanent.first(1));
        store.script_rollback(Fault::Stall.first(1));
        let ingress = rig.ingress().await;
        let feeding = tokio::task::spawn_local({
            let ingress = ingress.clone();
            async move { ingress.feed(lines(events("a", 0..4))).await }
        });
        store.until_rollbacks(1).await;
        feeding.abort();
        drop(ingress);
        for _ in 0..3 {
            rig.tenant("a").restart();
            rig.tenant("a").inject_panic();
            pass(millis(500)).await;
        }
        let drain = rig.system.drain(secs(3600));
        assert!(tokio::time::timeout(millis(100), drain).await.is_err(), "nobody waits for it any more");
        assert_eq!(store.rollbacks(), 1, "the one call goes on, and no other is made beside it");
        store.release();
        rig.drained().await;
        assert_eq!((rig.dead(), rig.stored("a")), (events("a", 0..2), events("a", 2..4)));
        assert_eq!((store.rollbacks(), rig.logged("a", What::Compensated).len()), (1, 1));
    });
}

/// Does its work on a task of its own, which nobody can cancel: what was begun lands late.
#[derive(Clone)]
struct Detached {
    inner: MemoryStore,
    /// Whether work takes longer than anybody waits.
    slow: Arc<AtomicBool>,
    landed: Arc<Mutex<Vec<Result<(), StorageError>>>>,
    /// Pushes of attempts that were over which came back all the same.
    came_back: Arc<AtomicBool>,
}

impl Storage for Detached {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let (store, batch, undo) = (self.clone(), batch.clone(), undo.clone());
        let is_slow = store.slow.load(Ordering::Relaxed);
        let work = tokio::spawn(async move {
            if is_slow {
                pass(secs(300)).await;
            }
            let answer = store.inner.store(&batch, &undo).await;
            store.landed.lock().unwrap().push(answer.clone());
            if is_slow {
                tokio::spawn(async move {
                    undo.push(UndoStep { name: "late".to_owned(), data: vec![] }).await;
                    store.came_back.store(true, Ordering::Relaxed);
                });
            }
            answer
        });
        work.await.unwrap()
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.inner.rollback(id, attempt).await
    }
}

#[test]
fn an_attempt_that_lands_after_its_rollback_leaves_nothing_behind_and_registers_nothing() {
    virtual_time(async {
        for is_first in [true, false] {
            let (world, pair) = (World::new(), Pair::new());
            let late = Detached {
                inner: MemoryStore::new(),
                slow: Arc::new(AtomicBool::new(true)),
                landed: Arc::default(),
                came_back: Arc::default(),
            };
            let saga = match is_first {
                true => Saga::new().then(late.clone()).then(pair.first.clone()),
                false => Saga::new().then(pair.first.clone()).then(late.clone()),
            };
            let rig = world.start_with(windows_of(2), |builder| builder.saga(saga));
            feed(&rig, events("a", 0..2)).await;
            in_the_end("it is given up", || !rig.letters.all().is_empty()).await;
            assert_eq!(rig.letters.all()[0].cause.code, Code::StoreTimeout);
            assert!(late.landed.lock().unwrap().is_empty(), "all of them are still to land");
            late.slow.store(false, Ordering::Relaxed);
            feed(&rig, events("a", 2..4)).await;
            pass(secs(3600)).await;
            let landed = late.landed.lock().unwrap().clone();
            assert_eq!(landed.iter().filter(|answer| answer.is_err()).count(), 5, "{landed:?}");
            assert!(!late.came_back.load(Ordering::Relaxed), "who pushes too late waits for ever");
            assert!(world.journal.entries().iter().all(|entry| !matches!(entry, headworks_actors::Entry::Undo { .. })));
            for store in [&late.inner, pair.first.inner()] {
                assert_eq!(in_order(store, &world.letters, "a"), events("a", 0..4));
                assert_eq!(store.bodies(&tenant("a")).len(), 2);
            }
            world.end(rig).await;
        }
    });
}

#[test]
fn a_rollback_that_lands_late_does_not_take_back_what_a_later_attempt_has_stored() {
    virtual_time(async {
        let pair = Pair::new();
        pair.second.script(Fault::Permanent.first(1));
        pair.first.script_rollback(Fault::LostReply.first(2));
        let policy = Policy { on_failure: headworks_actors::OnFailure::Retry, ..windows_of(2) };
        let rig = pair.rig(policy);
        feed(&rig, events("a", 0..2)).await;
        rig.drained().await;
        let id = rig.store.batches(&tenant("a"))[0].id().clone();
        pair.first.rollback(&id, Attempt(1)).await.unwrap();
        assert_eq!((pair.in_order(&rig.letters, "a"), rig.dead()), (events("a", 0..2), vec![]));
        assert_eq!(pair.first.rolled_back(), [1, 1, 1, 1], "three by the system, and the late one");
    });
}
