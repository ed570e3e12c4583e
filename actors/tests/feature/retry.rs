//! Storing is tried again by the rules, and what is given up is kept.

use std::sync::Mutex;
use std::time::Duration;

use headworks_actors::{
    Attempt, Batch, BatchId, BreakerPolicy, Code, DeadLetterKind, Fault, Policy, RetryPolicy, Role, Status, Storage,
    StorageError, Undo, UndoStep, What,
};

use crate::rig::{
    FaultyLetters, Mood, Recorder, Rig, event, events, lines, millis, pass, secs, tenant, until, virtual_time,
    windows_of,
};

/// Feeds `n` events of the tenant `a`.
async fn feed(rig: &Rig, n: usize) {
    rig.ingress().await.feed(lines(events("a", 0..n))).await.unwrap();
}

#[test]
fn a_store_that_comes_right_within_the_attempts_gets_the_same_batch_under_the_same_id() {
    virtual_time(async {
        for fault in [Fault::Transient, Fault::LostReply, Fault::PanicBefore, Fault::PanicAfter, Fault::Stall] {
            let (rig, store) = Rig::faulty(windows_of(2), fault.first(4));
            feed(&rig, 2).await;
            rig.drained().await;
            let attempts = store.attempts();
            assert_eq!(attempts.iter().map(|attempt| attempt.1).collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{fault:?}");
            assert!(
                attempts.iter().all(|attempt| attempt.0 == attempts[0].0 && attempt.2 == attempts[0].2),
                "{fault:?}"
            );
            assert_eq!(rig.stored("a"), events("a", 0..2), "{fault:?}");
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.attempts_failed, counters.batches, counters.dead_lettered), (4, 1, 0), "{fault:?}");
            assert!(store.rolled_back().is_empty(), "{fault:?}: nothing was given up");
        }
    });
}

#[test]
fn spent_attempts_end_in_dead_letters_that_tell_cause_and_attempts() {
    virtual_time(async {
        for (fault, code) in [
            (Fault::Transient, Code::StoreTransient),
            (Fault::LostReply, Code::StoreTransient),
            (Fault::PanicBefore, Code::StorePanic),
            (Fault::PanicAfter, Code::StorePanic),
            (Fault::Stall, Code::StoreTimeout),
        ] {
            let (rig, store) = Rig::faulty(windows_of(3), fault.first(5));
            feed(&rig, 6).await;
            rig.drained().await;
            assert_eq!(store.rolled_back(), [5], "{fault:?}: the rollback fences every attempt");
            assert_eq!(rig.stored("a"), events("a", 3..6), "{fault:?}: the next batch is stored");
            assert_eq!(rig.dead(), events("a", 0..3), "{fault:?}: what was stored by halves is taken back");
            for (index, letter) in rig.letters.all().iter().enumerate() {
                assert_eq!((letter.kind, letter.cause.code), (DeadLetterKind::Event, code), "{fault:?}");
                assert_eq!((letter.attempts, letter.tenant.as_ref()), (5, Some(&tenant("a"))));
                let (batch, place) = letter.batch.clone().unwrap();
                assert_eq!((batch.seq.0, place as usize), (1, index));
            }
            let log = rig.logged("a", What::DeadLettered);
            assert_eq!((log.len(), log[0].attempt), (1, Some(5)));
            assert_eq!(log[0].cause.as_ref().unwrap().code, code);
        }
    });
}

#[test]
fn a_permanent_error_is_given_up_after_one_attempt_and_rolled_back() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(2), Fault::Permanent.first(1));
        feed(&rig, 4).await;
        rig.drained().await;
        assert_eq!(store.attempts().len(), 2, "one for each batch");
        assert_eq!(store.rolled_back(), [1]);
        assert_eq!(rig.dead(), events("a", 0..2));
        assert_eq!(rig.stored("a"), events("a", 2..4));
        assert!(rig.letters.all().iter().all(|letter| letter.attempts == 1));
        assert!(rig.letters.all().iter().all(|letter| letter.cause.code == Code::StorePermanent));
    });
}

#[test]
fn the_waits_between_attempts_stay_within_their_bounds() {
    virtual_time(async {
        let policy = Policy { retry: RetryPolicy { attempts: 8, ..RetryPolicy::default() }, ..windows_of(1) };
        let (rig, store) = Rig::faulty(policy.clone(), Fault::Transient.first(7));
        feed(&rig, 1).await;
        rig.drained().await;
        let at = store.attempted_at();
        let waits: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits.len(), 7);
        for (failures, wait) in (1..).zip(&waits) {
            assert!(*wait <= policy.retry.bound(failures) + millis(2), "after {failures} failures: {wait:?}");
        }
        assert!(waits.iter().sum::<Duration>() > millis(200), "there are waits at all: {waits:?}");
        let log = rig.logged("a", What::Failed);
        assert!(log.iter().all(|event| event.next_attempt_at.is_some_and(|next| next >= event.at)));
        assert_eq!(log.iter().map(|event| event.attempt.unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn an_attempt_that_hangs_ends_at_its_timeout_and_counts() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Stall.first(1));
        feed(&rig, 1).await;
        rig.drained().await;
        let at = store.attempted_at();
        assert_eq!(at.len(), 2);
        assert!(at[1] - at[0] >= secs(10) && at[1] - at[0] <= millis(10_210), "{:?}", at[1] - at[0]);
        let log = rig.logged("a", What::Failed);
        assert_eq!(log[0].cause.as_ref().unwrap().code, Code::StoreTimeout);
        assert_eq!(rig.snapshot("a").counters.attempts_failed, 1);
    });
}

#[test]
fn an_outage_of_an_hour_spends_no_attempt_and_is_told_once() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Unavailable.always());
        feed(&rig, 10).await;
        pass(secs(3600)).await;
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.status, snapshot.in_flight), (Status::Parked, 10));
        assert!(store.calls() > 100, "it is asked again and again: {}", store.calls());
        assert!(rig.letters.all().is_empty());
        assert_eq!((rig.logged("a", What::Parked).len(), rig.logged("a", What::Unparked).len()), (1, 0));
        store.heal();
        until("the store is asked again", || rig.stored("a").len() == 10).await;
        assert_eq!((rig.logged("a", What::Parked).len(), rig.logged("a", What::Unparked).len()), (1, 1));
        assert_eq!(rig.snapshot("a").status, Status::Idle, "no event came for an hour");
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..10));
    });
}

#[test]
fn an_outage_between_failures_leaves_all_the_attempts() {
    virtual_time(async {
        let script = |_: &Batch, call| match call {
            1..=4 | 25.. => Fault::Transient,
            _ => Fault::Unavailable,
        };
        let (rig, store) = Rig::faulty(windows_of(1), script);
        feed(&rig, 1).await;
        rig.drained().await;
        assert_eq!(store.calls(), 25, "five failures; the twenty outages in between are not counted");
        assert_eq!(rig.dead(), events("a", 0..1));
    });
}

#[test]
fn a_lane_that_leaves_an_outage_by_another_failure_is_unparked_too() {
    virtual_time(async {
        let script = |_: &Batch, call| match call {
            1..=3 => Fault::Unavailable,
            4 => Fault::Transient,
            _ => Fault::None,
        };
        let (rig, _store) = Rig::faulty(windows_of(1), script);
        feed(&rig, 1).await;
        rig.drained().await;
        assert_eq!((rig.logged("a", What::Parked).len(), rig.logged("a", What::Unparked).len()), (1, 1));
    });
}

/// Wants to be asked again in a minute, once.
struct Busy(Mutex<bool>);

impl Storage for Busy {
    async fn store(&self, _: &Batch, _: &Undo) -> Result<(), StorageError> {
        let first = std::mem::replace(&mut *self.0.lock().unwrap(), false);
        if first { Err(StorageError::transient_after("too many requests", secs(60))) } else { Ok(()) }
    }

    async fn rollback(&self, _: &BatchId, _: Attempt) -> Result<(), StorageError> {
        Ok(())
    }
}

#[test]
fn a_store_is_not_asked_again_before_it_said() {
    virtual_time(async {
        let store = Recorder::new(Busy(Mutex::new(true)));
        let rig = Rig::with(windows_of(1), |builder| builder.store(store.clone()));
        feed(&rig, 1).await;
        rig.drained().await;
        let at = store.attempted_at();
        assert_eq!(at.len(), 2);
        assert!(at[1] - at[0] >= secs(60), "{:?}", at[1] - at[0]);
    });
}

#[test]
fn the_order_is_kept_across_retries() {
    virtual_time(async {
        let (rig, store) =
            Rig::faulty(windows_of(3), |_, call| if call % 3 == 0 { Fault::None } else { Fault::Transient });
        let ingress = rig.ingress().await;
        for n in 0..60 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
            pass(millis(37)).await;
        }
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", 0..60));
        let seqs: Vec<_> = store.attempts().iter().map(|attempt| attempt.0.seq).collect();
        assert!(seqs.is_sorted(), "a batch waits for the one before it");
    });
}

#[test]
fn a_tenant_that_retries_says_so_in_its_status() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Stall.always());
        feed(&rig, 1).await;
        assert_eq!(rig.snapshot("a").status, Status::Active);
        store.until_calls(2).await;
        assert_eq!(rig.snapshot("a").status, Status::Retrying);
        store.heal();
        rig.drained().await;
    });
}

/// Registers two steps at each attempt and fails.
#[derive(Default)]
struct Stepping {
    /// The undo step that panics, if any.
    panics_on: Option<&'static str>,
}

impl Storage for Stepping {
    async fn store(&self, _: &Batch, undo: &Undo) -> Result<(), StorageError> {
        for step in ["row", "index"] {
            undo.push(UndoStep { name: format!("{step}{}", undo.attempt()), data: vec![] }).await;
        }
        Err(StorageError::transient("the disk is full"))
    }

    async fn rollback(&self, _: &BatchId, _: Attempt) -> Result<(), StorageError> {
        Ok(())
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        assert!(self.panics_on != Some(&step.name), "the undo of {} panics", step.name);
        Ok(())
    }
}

#[test]
fn attempts_end_at_their_deadline_and_an_outage_does_not_count() {
    virtual_time(async {
        let retry =
            RetryPolicy { attempts: 1_000, base: secs(2), cap: secs(2), deadline: secs(30), ..windows_of(1).retry };
        let breaker = BreakerPolicy { failures: 0, ..BreakerPolicy::default() };
        let (rig, store) = Rig::faulty(Policy { retry, breaker, ..windows_of(1) }, Fault::Unavailable.always());
        feed(&rig, 1).await;
        crate::rig::pass(secs(600)).await;
        assert_eq!(rig.snapshot("a").in_flight, 1, "an outage gives nothing up");
        store.script(|_, _| Fault::Transient);
        let began = tokio::time::Instant::now();
        rig.drained().await;
        assert!(began.elapsed() < secs(34) && began.elapsed() > secs(20), "{:?}", began.elapsed());
        assert_eq!(rig.dead(), events("a", 0..1));
    });
}

fn two_attempts() -> Policy {
    Policy { retry: RetryPolicy { attempts: 2, ..RetryPolicy::default() }, ..windows_of(1) }
}

/// The compensations that ran, in order, without the attempts to store.
fn compensations<S>(store: &Recorder<S>) -> Vec<String> {
    let name = |call| match call {
        crate::rig::Call::Undo(name) => Some(name),
        crate::rig::Call::Rollback { attempt, .. } => Some(format!("rollback{attempt}")),
        _ => None,
    };
    store.record().into_iter().filter_map(name).collect()
}

#[test]
fn undo_steps_run_newest_first_and_then_the_rollback() {
    virtual_time(async {
        let store = Recorder::new(Stepping::default());
        let rig = Rig::with(two_attempts(), |builder| builder.store(store.clone()));
        feed(&rig, 1).await;
        rig.drained().await;
        assert_eq!(compensations(&store), ["index2", "row2", "index1", "row1", "rollback2"]);
        let log = rig.logged("a", What::Compensated);
        assert_eq!((log.len(), log[0].compensations_run, log[0].compensations_failed), (1, 5, 0));
        assert_eq!(log[0].actor, Role::Aggregator);
        assert_eq!(rig.dead(), events("a", 0..1));
    });
}

#[test]
fn an_undo_step_that_panics_does_not_stop_the_others_and_is_reported() {
    virtual_time(async {
        let store = Recorder::new(Stepping { panics_on: Some("row2") });
        let rig = Rig::with(two_attempts(), |builder| builder.store(store.clone()));
        feed(&rig, 1).await;
        rig.drained().await;
        assert_eq!(compensations(&store), ["index2", "row2", "row2", "index1", "row1", "rollback2"]);
        let log = rig.logged("a", What::CompensationFailed);
        assert_eq!((log.len(), log[0].compensations_run, log[0].compensations_failed), (1, 4, 1));
        assert_eq!(rig.dead(), events("a", 0..1));
    });
}

#[test]
fn a_rollback_that_fails_is_tried_again_by_the_policy_and_reported_when_it_never_works() {
    virtual_time(async {
        for fault in [Fault::Transient, Fault::PanicBefore, Fault::Stall] {
            for (failures, what) in [(4, What::Compensated), (5, What::CompensationFailed)] {
                let (rig, store) = Rig::faulty(windows_of(1), Fault::Permanent.first(1));
                store.script_rollback(fault.first(failures));
                feed(&rig, 2).await;
                rig.drained().await;
                assert_eq!((store.rollbacks(), rig.logged("a", what).len()), (5, 1), "{fault:?} {failures} times");
                assert_eq!((rig.dead(), rig.stored("a")), (events("a", 0..1), events("a", 1..2)));
            }
        }
    });
}

/// Refuses the first batch for good, and panics in rollback before there is a future to wait for.
struct PanicsAtOnce;

impl Storage for PanicsAtOnce {
    async fn store(&self, batch: &Batch, _: &Undo) -> Result<(), StorageError> {
        if batch.id().seq.0 == 1 { Err(StorageError::permanent("no")) } else { Ok(()) }
    }

    fn rollback(&self, _: &BatchId, _: Attempt) -> impl Future<Output = Result<(), StorageError>> + Send {
        assert!(std::thread::panicking(), "the rollback panics at once");
        async { Ok(()) }
    }
}

#[test]
fn a_rollback_that_panics_before_it_is_a_future_is_a_failed_compensation_like_any_other() {
    virtual_time(async {
        let rig = Rig::with(windows_of(1), |builder| builder.store(PanicsAtOnce));
        feed(&rig, 2).await;
        until("the second batch is stored", || rig.snapshot("a").counters.stored == 1).await;
        assert_eq!(rig.dead(), events("a", 0..1));
        assert_eq!(rig.logged("a", What::CompensationFailed).len(), 1);
        rig.drained().await;
    });
}

#[test]
fn a_hung_rollback_delays_its_own_tenant_only() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Permanent.of_tenant(tenant("a")));
        store.script_rollback(Fault::Stall.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        store.until_rollbacks(1).await;
        ingress.feed(lines([event("b", 0)])).await.unwrap();
        pass(millis(1)).await;
        assert_eq!(rig.stored("b").len(), 1, "at once");
        assert_eq!(rig.snapshot("a").status, Status::Compensating);
        assert!(rig.letters.all().is_empty());
        store.heal();
        rig.drained().await;
        assert_eq!(rig.dead(), events("a", 0..1));
    });
}

#[test]
fn while_the_dead_letters_fail_the_events_stay_in_flight() {
    virtual_time(async {
        for mood in [Mood::Fails, Mood::Hangs, Mood::Panics, Mood::PanicsAtOnce] {
            let letters = FaultyLetters::new(mood);
            let (rig, _store) = Rig::faulty_with(windows_of(2), Fault::Permanent.first(1), |builder| {
                builder.dead_letters(letters.clone())
            });
            feed(&rig, 4).await;
            pass(secs(600)).await;
            let snapshot = rig.snapshot("a");
            assert_eq!((snapshot.in_flight, snapshot.counters.dead_lettered), (4, 0), "{mood:?}");
            assert_eq!(snapshot.status, Status::Compensating, "{mood:?}");
            letters.turn(Mood::Works);
            until("the letters are kept", || letters.kept.all().len() == 2).await;
            rig.drained().await;
            assert_eq!(rig.stored("a"), events("a", 2..4), "{mood:?}");
        }
    });
}

#[test]
fn a_batch_that_a_store_has_torn_is_rolled_back_and_leaves_nothing_behind() {
    virtual_time(async {
        let (rig, _store) = Rig::faulty(windows_of(10), Fault::Tear.on_call(2));
        rig.ingress().await.feed(lines(events("a", 0..30))).await.unwrap();
        rig.drained().await;
        let expected: Vec<_> = events("a", (0..10).chain(20..30));
        assert_eq!(rig.stored("a"), expected, "the first and the third batch are whole");
        let letters: Vec<_> = rig.letters.all().iter().map(|letter| letter.body.to_vec()).collect();
        let torn: Vec<_> = events("a", 10..20).into_iter().map(String::into_bytes).collect();
        assert_eq!(letters, torn, "the second is in the dead letters, whole");
    });
}

#[test]
fn once_a_store_is_back_whoever_waited_for_it_goes_on_at_once() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Unavailable.always());
        let tenants: Vec<_> = (0..20).map(|n| format!("t{n}")).collect();
        rig.ingress().await.feed(lines(tenants.iter().map(|name| event(name, 1)))).await.unwrap();
        pass(secs(3600)).await;
        store.heal();
        let stored = || tenants.iter().filter(|name| rig.stored(name).len() == 1).count();
        until("the first is stored", || stored() > 0).await;
        pass(millis(5)).await;
        assert_eq!(stored(), tenants.len(), "backoffs of up to 30 s are cut short");
        rig.drained().await;
    });
}
