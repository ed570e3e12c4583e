//! What goes wrong in programs of this kind, and shows that it does not in this one.
//!
//! | | the defect | what would fail |
//! |---|---|---|
//! | 1 | an undecodable frame ends the stream for everybody | [`a_bad_frame_ends_the_stream_of_nobody`] |
//! | 2 | every tenant's worker sees everybody's events; a slow one stalls all | `flow::every_line_is_stored_for_its_tenant_in_order_and_byte_for_byte`, `isolation::a_hung_store_of_every_tenant_but_one_leaves_the_one_its_pace` |
//! | 3 | a window waits until no event comes | `flow::in_a_steady_trickle_no_event_waits_longer_than_the_windows_age` |
//! | 4 | the last window is lost | [`the_last_open_window_is_stored_however_its_input_ended`] |
//! | 5 | a slow store never slows the sender | `backpressure::a_full_system_stops_reading_and_goes_on_when_the_store_does` |
//! | 6 | only errors that are returned are tried again, and those for good too; no jitter, no limit in time | `retry::a_store_that_comes_right_within_the_attempts_gets_the_same_batch_under_the_same_id` (a panic), `retry::a_permanent_error_is_given_up_after_one_attempt_and_rolled_back`, `retry::an_attempt_that_hangs_ends_at_its_timeout_and_counts`, [`tenants_that_fail_together_do_not_come_back_together`] |
//! | 7 | spent attempts end the tenant in silence | [`a_tenant_goes_on_behind_a_batch_whose_attempts_are_spent`] |
//! | 8 | compensations run in another order, or not all, or on other events | [`what_a_batch_began_is_taken_back_newest_first_over_all_stores_and_attempts`], `retry::an_undo_step_that_panics_does_not_stop_the_others_and_is_reported` |
//! | 9 | a failure in a window throws the good events away | [`one_event_that_the_store_refuses_costs_none_of_its_window`] |
//! | 10 | failures are collected without a bound, and told at the end | [`the_report_tells_failures_while_the_stream_goes_on`], `observe::report::a_flood_of_tenants_is_summed_and_no_failure_is_lost` |
//! | 11 | one lane starves the others | [`neither_a_flood_nor_a_connection_that_is_merely_open_starves_the_others`] |
//! | 12 | the two ways to flush get in each other's way | [`windows_that_close_by_size_and_by_age_while_a_batch_is_stored_lose_and_double_nothing`] |
//! | 13 | mutes are not counted, nobody notices who is idle | `mute::a_tenant_is_muted_before_it_is_known_and_heard_again_at_run_time`, `flow::an_idle_tenant_is_reported_idle_and_never_flushes_an_empty_window` |
//! | 14 | nothing tells of windows, retries and compensations | [`every_flush_retry_outcome_and_compensation_is_told`] |

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{
    Attempt, Attempted, Batch, BatchId, Code, Failure, Fault, Faulty, FlushReason, Flushed, Framing, IngressSpec,
    Intake, Json, MemoryStore, Observer, Outcome, Policy, RetryPolicy, Role, Saga, Settled, Source, Status, Storage,
    StorageError, SupervisorEvent, TenantId, Undo, UndoStep, What, WindowPolicy,
};

use crate::rig::{Rig, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

// 1. One undecodable frame ends the stream for every tenant.

#[test]
fn a_bad_frame_ends_the_stream_of_nobody() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        for n in 0..10 {
            let frames = [event("a", n), "{\"tenant\":".to_owned(), event("b", n), "\u{1}".to_owned()];
            ingress.feed(lines(frames)).await.unwrap();
        }
        rig.drained().await;
        assert_eq!((rig.stored("a"), rig.stored("b")), (events("a", 0..10), events("b", 0..10)));
        assert_eq!(rig.letters.all().len(), 20);
    });
}

// 4. The last partial window is lost where its input is cancelled, fails or ends.

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Returns,
    Fails,
    Panics,
    /// The system drains while the source waits.
    Drain,
    /// Whoever fed it is gone.
    Cancelled,
}

struct Ending(End);

impl Source for Ending {
    fn name(&self) -> &str {
        "ending"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let ingress = intake.open(IngressSpec::new("ending", Framing::lines(), Json::new())).await.unwrap();
            ingress.feed(lines(events("a", 0..3))).await.unwrap();
            match self.0 {
                End::Returns => ingress.finish(true).await.map_err(|why| why.to_string()),
                End::Fails => Err("the line is cut".to_owned()),
                End::Panics => panic!("the source panics"),
                End::Drain => {
                    intake.closing().await;
                    Ok(())
                }
                End::Cancelled => {
                    let feed = async move { ingress.feed(lines(events("a", 3..6))).await };
                    let task = tokio::task::spawn_local(feed);
                    tokio::task::yield_now().await;
                    task.abort();
                    Ok(())
                }
            }
        }
        .boxed_local()
    }
}

#[test]
fn the_last_open_window_is_stored_however_its_input_ended() {
    virtual_time(async {
        for end in [End::Returns, End::Fails, End::Panics, End::Drain, End::Cancelled] {
            for by_age in [true, false] {
                let policy = if by_age { Policy::default() } else { windows_of(100) };
                let rig = Rig::new(policy);
                let source = rig.system.add_source(Ending(end)).await.unwrap();
                if end != End::Drain {
                    assert_eq!(source.ended().await.is_err(), matches!(end, End::Fails | End::Panics), "{end:?}");
                }
                pass(millis(1)).await;
                assert!(rig.stored("a").is_empty(), "its window is open");
                if by_age {
                    pass(secs(1) + millis(2)).await;
                    assert!(rig.stored("a").len() >= 3, "{end:?}: nobody need drain it");
                }
                rig.drained().await;
                let (stored, accepted) = (rig.stored("a"), rig.snapshot("a").counters.accepted);
                assert!(accepted >= 3 && stored.len() as u64 == accepted, "{end:?}: {accepted} accepted");
                assert_eq!(stored, events("a", 0..stored.len()), "{end:?}");
            }
        }
    });
}

// 6. No jitter; the rest of it is shown elsewhere.

#[test]
fn tenants_that_fail_together_do_not_come_back_together() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Transient.first(50));
        rig.ingress().await.feed(lines((0..50).map(|n| event(&format!("t{n}"), 0)))).await.unwrap();
        rig.drained().await;
        let at = store.attempted_at();
        let (first, again) = at.split_at(50);
        assert!(first.iter().all(|at| *at == first[0]), "they fail together");
        let moments: BTreeSet<_> = again.iter().collect();
        assert!(moments.len() > 20, "50 tenants come back at {} moments", moments.len());
    });
}

// 7. When retries are spent, the tenant's loop ends silently and its queue grows unread.

#[test]
fn a_tenant_goes_on_behind_a_batch_whose_attempts_are_spent() {
    virtual_time(async {
        let (rig, _store) = Rig::faulty(windows_of(2), Fault::Transient.first(10));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..10))).await.unwrap();
        until("two batches are given up, and the others stored", || rig.snapshot("a").in_flight == 0).await;
        assert_eq!((rig.dead(), rig.stored("a")), (events("a", 0..4), events("a", 4..10)));
        assert_eq!(rig.logged("a", What::DeadLettered).len(), 2);
        ingress.feed(lines(events("a", 10..12))).await.unwrap();
        pass(millis(1)).await;
        assert_eq!(rig.stored("a"), events("a", 4..12), "it is at work");
        rig.drained().await;
    });
}

// 8. Rollback order flips where scopes are nested; one failing compensation discards the rest; a cancelled caller skips it; what a
// retry registered is dropped; the compensation captures the live buffer.

/// What was done, by all the stores of a saga.
type Done = Arc<Mutex<Vec<String>>>;

/// One of several stores: registers a step an attempt, refuses batch 1 where it is the last of them.
struct OneOf {
    name: &'static str,
    is_last: bool,
    done: Done,
}

impl OneOf {
    fn did(&self, what: String) {
        self.done.lock().unwrap().push(format!("{} {what}", self.name));
    }
}

impl Storage for OneOf {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        undo.push(UndoStep { name: format!("step{}", undo.attempt()), data: format!("{} events", batch.len()).into() })
            .await;
        match (batch.id().seq.0, undo.attempt().0, self.is_last) {
            (1, 1, _) => Err(StorageError::transient("once more")),
            (1, _, true) => {
                // While more of the tenant's events come.
                pass(secs(1)).await;
                Err(StorageError::permanent("never"))
            }
            _ => Ok(()),
        }
    }

    async fn rollback(&self, id: &BatchId, _: Attempt) -> Result<(), StorageError> {
        self.did(format!("rollback of batch {}", id.seq));
        Ok(())
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        self.did(format!("{} of {}", step.name, String::from_utf8_lossy(&step.data)));
        if self.is_last { Err(StorageError::permanent("it cannot be undone")) } else { Ok(()) }
    }
}

#[test]
fn what_a_batch_began_is_taken_back_newest_first_over_all_stores_and_attempts() {
    virtual_time(async {
        let done = Done::default();
        let store = |name, is_last| OneOf { name, is_last, done: done.clone() };
        let saga = Saga::new().then(store("one", false)).then(store("two", true));
        let rig = Rig::with(windows_of(3), |builder| builder.saga(saga));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..3))).await.unwrap();
        until("the last store is at it", || rig.snapshot("a").counters.attempts_failed == 2).await;
        ingress.feed(lines(events("a", 3..5))).await.unwrap();
        // Whoever brought the events does not wait for what becomes of them.
        drop(ingress);
        until("the batch is given up", || rig.snapshot("a").counters.dead_lettered == 3).await;
        let expected = [
            "two step2 of 3 events",
            "two step1 of 3 events",
            "two rollback of batch 1",
            "one step2 of 3 events",
            "one step1 of 3 events",
            "one rollback of batch 1",
        ];
        assert_eq!(done.lock().unwrap()[..6], expected, "all of them, whatever became of the first");
        rig.drained().await;
        assert_eq!(rig.dead(), events("a", 0..3), "the batch, and not what came later");
    });
}

// 9. A failure inside a window throws away the good events around it.

#[test]
fn one_event_that_the_store_refuses_costs_none_of_its_window() {
    virtual_time(async {
        let poison = |batch: &Batch, _| {
            let is_poison = |body: &[u8]| body.ends_with(b":33}");
            if batch.events().any(|event| is_poison(event.body)) { Fault::Permanent } else { Fault::None }
        };
        let policy = Policy { retry: RetryPolicy::default(), ..windows_of(100) };
        let (rig, _store) = Rig::faulty(policy, poison);
        rig.ingress().await.feed(lines(events("a", 0..100))).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.dead(), [event("a", 33)]);
        assert_eq!(rig.stored("a"), events("a", (0..100).filter(|n| *n != 33)), "in order");
    });
}

// 10. The error collector keeps everything, and reports only when the stream ends.

#[test]
fn the_report_tells_failures_while_the_stream_goes_on() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        for n in 1..=1_000u64 {
            ingress.feed("no json\n").await.unwrap();
            let report = rig.system.report();
            let entries: Vec<_> = report.entries.iter().map(|entry| (entry.code, entry.events)).collect();
            assert_eq!(entries, [(Code::BadJson, n)], "one entry, however many failures");
        }
        rig.drained().await;
    });
}

// 11. A lane starves the others for as long as it is merely open.

#[test]
fn neither_a_flood_nor_a_connection_that_is_merely_open_starves_the_others() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        // First of all in every order there is, and silent after its first event.
        let open = rig.ingress_of("0").await;
        open.feed(lines([event("0", 0)])).await.unwrap();
        let flood = rig.ingress_of("a flood").await;
        let flooding = tokio::task::spawn_local(async move {
            for n in 0..5_000 {
                flood.feed(lines(events("a", n * 20..(n + 1) * 20))).await.unwrap();
                if n % 100 == 0 {
                    pass(millis(100)).await;
                }
            }
        });
        let trickle = rig.ingress_of("trickle").await;
        for n in 0..4 {
            trickle.feed(lines([event("z", n)])).await.unwrap();
            pass(secs(1) + millis(2)).await;
            assert_eq!(rig.stored("z").len(), n + 1);
        }
        assert!(!flooding.is_finished(), "else this shows nothing");
        flooding.await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 100_000);
    });
}

// 12. A buffer without a lock, flushed twice, wiped while it is being flushed, never flushed at the end; the path by size does not
// compensate, the one by age gives up for good after one failure.

#[test]
fn windows_that_close_by_size_and_by_age_while_a_batch_is_stored_lose_and_double_nothing() {
    virtual_time(async {
        // Three of four calls fail, and some of what fails was stored.
        let faults = |_: &Batch, call: u64| match call % 4 {
            0 => Fault::Transient,
            1 => Fault::LostReply,
            2 => Fault::Permanent,
            _ => Fault::None,
        };
        let window = WindowPolicy { max_events: 4, ..WindowPolicy::default() };
        let kept = MemoryStore::new();
        let store = Slow(Faulty::new(kept.clone(), faults));
        let retry = windows_of(1).retry;
        let late = Latest::default();
        let policy = Policy { window, retry, ..Policy::default() };
        let rig = Rig::with(policy, |builder| builder.store(store).observer(late.clone()));
        let ingress = rig.ingress().await;
        for n in 0..200 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
            // Now the size closes a window, now the age; a batch is being stored most of the time.
            pass(millis(if n % 10 < 6 { 50 } else { 450 })).await;
        }
        let flushes = rig.snapshot("a").counters;
        let (by_size, by_age) = (flushes.flushes_for(FlushReason::Size), flushes.flushes_for(FlushReason::Age));
        assert!(by_size > 10 && by_age > 10, "{by_size} by size, {by_age} by age");
        let late = *late.0.lock().unwrap();
        assert!(late <= millis(2), "whatever failed before, a window closes in time: {late:?} late");
        rig.drained().await;
        let stored = kept.bodies(&tenant("a"));
        let stored = stored.into_iter().map(|body| String::from_utf8(body).unwrap());
        let mut all: Vec<_> = stored.chain(rig.dead()).collect();
        all.sort();
        let mut sent = events("a", 0..200);
        sent.sort();
        assert!(rig.dead().len() > 10, "else this shows nothing");
        assert_eq!(all, sent, "each of them once");
    });
}

/// The greatest lateness of a window that closed by its age.
#[derive(Clone, Default)]
struct Latest(Arc<Mutex<Duration>>);

impl Observer for Latest {
    fn flushed(&self, _: &TenantId, flushed: &Flushed) {
        let mut latest = self.0.lock().unwrap();
        *latest = latest.max(flushed.lateness);
    }
}

/// A store that takes its time.
struct Slow(Faulty<MemoryStore>);

impl Storage for Slow {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        pass(millis(170)).await;
        self.0.store(batch, undo).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.0.rollback(id, attempt).await
    }
}

// 14. Windows, flushes, retries and compensations emit no metric and no log.

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn push(&self, told: String) {
        self.0.lock().unwrap().push(told);
    }
}

impl Observer for Told {
    fn flushed(&self, tenant: &TenantId, flushed: &Flushed) {
        self.push(format!("{tenant} flushed {} by {}", flushed.events, flushed.reason));
    }

    fn attempted(&self, tenant: &TenantId, attempted: &Attempted) {
        let Attempted { batch, store, attempt, failed, .. } = attempted;
        let came_to = failed.map_or("stored", |code| code.as_str());
        self.push(format!("{tenant} {} attempted in {store} by {}: {came_to}", batch.seq, attempt.0));
    }

    fn settled(&self, tenant: &TenantId, settled: &Settled) {
        let Settled { outcome, events, attempts, given_up, .. } = settled;
        let why = given_up.map_or("", |code| code.as_str());
        self.push(format!("{tenant} settled {events} {outcome:?} after {attempts} {why}"));
    }

    fn failed(&self, failure: &Failure) {
        self.push(format!("failed {}", failure.cause.code));
    }

    fn supervised(&self, event: &SupervisorEvent) {
        if event.tenant.is_some() && event.what != What::Started {
            self.push(format!("{} {}", event.actor.as_str(), event.what.as_str()));
        }
    }
}

#[test]
fn every_flush_retry_outcome_and_compensation_is_told() {
    virtual_time(async {
        let told = Told::default();
        let faults = |_: &Batch, call| match call {
            1 => Fault::Transient,
            2 => Fault::Permanent,
            _ => Fault::None,
        };
        let (rig, _store) = Rig::faulty_with(windows_of(2), faults, |builder| builder.observer(told.clone()));
        rig.ingress().await.feed(lines(events("a", 0..4))).await.unwrap();
        until("both are settled", || rig.snapshot("a").in_flight == 0).await;
        let expected = [
            "a flushed 2 by size",
            "a flushed 2 by size",
            "a 1 attempted in store by 1: store_transient",
            "failed store_transient",
            "writer failed",
            "a 1 attempted in store by 2: store_permanent",
            "failed store_permanent",
            "writer failed",
            "aggregator compensated",
            &format!("a settled 2 {:?} after 2 store_permanent", Outcome::DeadLettered),
            "aggregator dead_lettered",
            "failed store_permanent",
            "a 2 attempted in store by 1: stored",
            &format!("a settled 2 {:?} after 1 ", Outcome::Stored),
        ];
        assert_eq!(*told.0.lock().unwrap(), expected);
        let retried = rig.logged("a", What::Failed);
        assert!(retried[0].next_attempt_at.is_some() && retried[0].actor == Role::Writer, "when it is tried again");
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.flushes_for(FlushReason::Size), counters.attempts_failed, counters.batches), (2, 2, 1));
        assert_eq!(rig.snapshot("a").status, Status::Failing);
        rig.drained().await;
    });
}
