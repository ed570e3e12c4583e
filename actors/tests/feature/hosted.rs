//! A batch whose store answers at once is stored where it was cut, without its writer. What does not go that well is the writer's, and
//! comes to the same as if it had made the attempt itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use headworks_actors::{
    Attempt, Batch, BatchId, Code, Fault, HeartbeatPolicy, MemoryStore, Policy, RestartPolicy, Role, Storage,
    StorageError, TenantSpec, Undo, What, WindowPolicy,
};

use crate::rig::{Rig, Store, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// Windows that nothing but their age closes, after a second.
fn by_age() -> Policy {
    let window = WindowPolicy { max_events: 1_000, max_bytes: 1 << 30, max_age: secs(1) };
    Policy { window, ..windows_of(1) }
}

/// Feeds each tenant the events `from` a range.
async fn feed(rig: &Rig, tenants: &[&str], from: std::ops::Range<usize>) {
    let ingress = rig.ingress().await;
    ingress.feed(lines(tenants.iter().flat_map(|name| events(name, from.clone())))).await.unwrap();
}

/// What the writer has in the log.
fn of_writer(rig: &Rig) -> Vec<What> {
    rig.log_of("a").iter().filter(|event| event.actor == Role::Writer).map(|event| event.what).collect()
}

/// The numbers of all attempts, of one batch only.
fn of_one_batch(store: &Store) -> Vec<u32> {
    let attempts = store.attempts();
    assert!(attempts.iter().all(|(id, _, bodies)| (id, bodies) == (&attempts[0].0, &attempts[0].2)));
    attempts.iter().map(|(_, attempt, _)| *attempt).collect()
}

#[test]
fn a_store_that_answers_at_once_needs_no_writer_and_one_that_does_not_gets_one() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(by_age(), Fault::None.always());
        for from in [0, 2, 4] {
            feed(&rig, &["a"], from..from + 2).await;
            pass(secs(2)).await;
        }
        assert_eq!(rig.stored("a"), events("a", 0..6));
        let roles: Vec<_> = rig.tenant("a").explain().actors.iter().map(|actor| actor.actor).collect();
        assert_eq!((roles, of_writer(&rig)), (vec![Role::Tenant], vec![]));
        store.script(Fault::Transient.on_call(4));
        feed(&rig, &["a"], 6..8).await;
        pass(secs(60)).await;
        assert_eq!((rig.stored("a"), of_writer(&rig)), (events("a", 0..8), vec![What::Started, What::Failed]));
        rig.drained().await;
    });
}

#[test]
fn a_panic_is_the_writers_failure_and_no_other_tenant_feels_it() {
    virtual_time(async {
        for fault in [Fault::PanicBefore, Fault::PanicAfter] {
            let (rig, store) = Rig::faulty(by_age(), |_, _| Fault::None);
            feed(&rig, &["a", "b"], 0..1).await;
            pass(secs(2)).await;
            let of_a = fault.of_tenant(tenant("a"));
            let once = AtomicBool::new(true);
            store.script(move |batch, call| match of_a(batch, call) {
                Fault::None => Fault::None,
                fault if once.swap(false, Ordering::Relaxed) => fault,
                _ => Fault::None,
            });
            feed(&rig, &["a", "b"], 1..2).await;
            until("b is stored", || rig.stored("b").len() == 2).await;
            until("a is settled", || rig.snapshot("a").counters.batches == 2).await;
            assert_eq!(rig.stored("a"), events("a", 0..2), "once");
            use What::{Ambiguous, BackingOff, Failed, Restarted, Started};
            assert_eq!(of_writer(&rig), [Started, Failed, BackingOff, Restarted, Ambiguous], "{fault:?}");
            let cause = rig.logged("a", Failed)[0].cause.clone().unwrap();
            assert_eq!(cause.code, Code::StorePanic);
            assert!(cause.detail.contains(" at "), "where it began: {}", cause.detail);
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.attempts_failed, counters.restarts, counters.batches), (1, 1, 2));
            assert!(rig.logged("b", Failed).is_empty());
            rig.drained().await;
        }
    });
}

#[test]
fn panics_without_end_are_a_quarantine_as_those_of_a_writer() {
    virtual_time(async {
        let restart = RestartPolicy { intensity: 2, ..RestartPolicy::default() };
        let (rig, _) = Rig::faulty(Policy { restart, ..by_age() }, Fault::PanicBefore.of_tenant(tenant("a")));
        feed(&rig, &["a", "b"], 0..2).await;
        until("a is quarantined", || !rig.logged("a", What::Quarantined).is_empty()).await;
        assert_eq!(rig.logged("a", What::Quarantined)[0].actor, Role::Writer);
        assert_eq!(rig.stored("b"), events("b", 0..2));
    });
}

#[test]
fn a_hang_ends_with_the_time_of_its_attempt_and_holds_no_other_tenant() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(by_age(), Fault::Stall.of_tenant(tenant("a")));
        feed(&rig, &["a", "b"], 0..2).await;
        until("both are asked", || store.attempts().len() == 2).await;
        pass(millis(1)).await;
        assert_eq!(rig.stored("b"), events("b", 0..2));
        let limit = rig.tenant("a").policy().retry.attempt_timeout;
        until("it fails", || !rig.logged("a", What::Failed).is_empty()).await;
        let failed = &rig.logged("a", What::Failed)[0];
        assert_eq!(failed.cause.as_ref().unwrap().code, Code::StoreTimeout);
        let asked = rig.logged("a", What::Started).into_iter().find(|event| event.actor == Role::Writer).unwrap();
        let took = u128::try_from(failed.at.0 - asked.at.0).unwrap();
        assert!((limit.as_millis()..=limit.as_millis() + 2).contains(&took), "{took} ms");
        store.heal();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..2), "once");
        // A late answer of the first attempt came after its time.
        assert_eq!(rig.snapshot("a").counters.attempts_failed, 1);
    });
}

#[test]
fn a_tenant_is_not_passivated_under_an_open_attempt_and_is_right_after_it() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { passivate_after: Some(secs(30)), ..HeartbeatPolicy::default() };
        let (rig, store) = Rig::faulty(Policy { heartbeat, ..by_age() }, Fault::Stall.first(1));
        feed(&rig, &["a"], 0..2).await;
        store.until_calls(1).await;
        let handle = rig.tenant("a");
        let passivated = handle.passivate();
        tokio::pin!(passivated);
        assert!(tokio::time::timeout(millis(500), &mut passivated).await.is_err());
        store.release();
        passivated.await.unwrap();
        assert_eq!((of_one_batch(&store), rig.stored("a")), (vec![1], events("a", 0..2)));
        feed(&rig, &["a"], 2..4).await;
        pass(secs(2)).await;
        assert_eq!(rig.stored("a"), events("a", 0..4));
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_is_restarted_or_stopped_under_an_open_attempt_sends_the_same_batch_again() {
    virtual_time(async {
        for restarts in [true, false] {
            let (rig, store) = Rig::faulty(by_age(), Fault::Stall.first(1));
            feed(&rig, &["a"], 0..2).await;
            store.until_calls(1).await;
            if restarts {
                // The writer has not been polled since: it is the fresh one that goes on, or finds the attempt without an owner.
                rig.tenant("a").restart();
            } else {
                rig.tenant("a").stop();
                pass(secs(1)).await;
                store.release();
                pass(secs(1)).await;
                assert!(rig.stored("a").is_empty(), "the attempt died with its writer");
                rig.tenant("a").resume();
            }
            until("it is stored", || {
                store.heal();
                !rig.stored("a").is_empty()
            })
            .await;
            rig.drained().await;
            let attempts = of_one_batch(&store);
            assert!(attempts == [1, 2] || restarts && attempts == [1], "{attempts:?}");
            assert_eq!(rig.stored("a"), events("a", 0..2), "once");
        }
    });
}

#[test]
fn windows_that_close_under_an_open_attempt_wait_for_it_in_order() {
    virtual_time(async {
        let faults = [Fault::Stall, Fault::None, Fault::PanicAfter, Fault::LostReply, Fault::Transient, Fault::None];
        let (rig, store) = Rig::faulty(by_age(), move |_, call| faults[call as usize % faults.len()]);
        for from in 0..40 {
            feed(&rig, &["a", "b"], from..from + 1).await;
            pass(millis(700)).await;
            store.release();
        }
        store.heal();
        rig.drained().await;
        for name in ["a", "b"] {
            assert_eq!(rig.stored(name), events(name, 0..40));
        }
    });
}

/// Its calls never end, and panic where they are dropped.
#[derive(Default)]
struct BadToDrop {
    calls: Arc<Mutex<u32>>,
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a store call panics as it is dropped");
    }
}

impl Storage for BadToDrop {
    async fn store(&self, _: &Batch, _: &Undo) -> Result<(), StorageError> {
        let bomb = Bomb;
        *self.calls.lock().unwrap() += 1;
        std::future::pending::<()>().await;
        drop(bomb);
        Ok(())
    }

    async fn rollback(&self, _: &BatchId, _: Attempt) -> Result<(), StorageError> {
        Ok(())
    }
}

#[test]
fn a_call_that_panics_as_it_is_dropped_takes_down_nobody_who_stops_its_tenant() {
    virtual_time(async {
        let (store, other) = (BadToDrop::default(), MemoryStore::new());
        let calls = store.calls.clone();
        let rig = Rig::with(by_age(), |builder| builder.store(store));
        rig.system.spawn(TenantSpec::from(tenant("b")).store(other.clone())).await.unwrap();
        feed(&rig, &["a"], 0..2).await;
        while *calls.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
            pass(millis(1)).await;
        }
        rig.tenant("a").stop();
        feed(&rig, &["b"], 0..2).await;
        pass(secs(2)).await;
        assert_eq!(other.bodies(&tenant("b")).len(), 2);
    });
}
