//! What happens to a batch that was given up: everything that was begun is undone, newest first; then it is halved, begun anew,
//! kept as dead letters or dropped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::letters::{describe, keep};
use super::registry::{Phase, Shared};
use super::slot::Slot;
use crate::model::{Batch, BatchId, Cause, Code, Failure, Role, StoreName, SupervisorEvent, What};
use crate::observe::Outcome;
use crate::policy::{OnFailure, Retry, RetryPolicy};
use crate::port::fault_point::fault_point;
use crate::port::work::Work;
use crate::port::{Compensation, DeadLetter, DeadLetterKind, StorageError, spawn};

/// How many compensations of one tenant may stand on the list of those that could not be done. When it is full the tenant waits
/// for the next one to succeed, however long that takes; others go on.
const MAX_UNCOMPENSATED: u64 = 1_000;

/// Takes the batch at the front of the tenant's lane back where it was given up, and sends it where its rules say. Does nothing
/// where another task is at it.
pub(crate) async fn settle(shared: Arc<Shared>, slot: Arc<Slot>) {
    let Some(_turn) = Turn::take(&slot.compensating) else { return };
    if let Some((work, batch)) = slot.lane.given_up() {
        // Once it is rolled back there is no way back: a later process must not try to go on with it.
        if let Some(position) = work.recorded_at() {
            shared.journal.committed(position).await;
        }
        fault_point("after-given-up");
        let span = tracing::debug_span!(target: "headworks", "compensate", tenant = %slot.id, batch = %batch.id(), attempt = work.attempt().0);
        compensate(&shared, &slot, &work).instrument(span).await;
        fault_point("after-compensation");
        decide(&shared, &slot, &work, &batch).await;
    }
    slot.hint_batches(&shared);
}

/// At most one task is at a thing.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        // Made only where it is taken: one that is dropped gives the turn away.
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(flag))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Runs every compensation, newest first: all of them, whatever becomes of any.
async fn compensate(shared: &Arc<Shared>, slot: &Arc<Slot>, work: &Work) {
    let batch = work.batch.id();
    let (mut run, mut failed) = (0, vec![]);
    for (nth, store, compensation) in work.compensations() {
        match persist(shared, slot, batch, &store, &compensation).await {
            Ok(()) => {
                run += 1;
                slot.lane.compensated(nth, None);
            }
            Err(cause) => {
                slot.lane.compensated(nth, Some((cause.clone(), shared.seam.now())));
                failed.push(cause);
                spawn(pursue(shared.clone(), slot.clone()));
            }
        }
        fault_point("after-rollback");
    }
    if run == 0 && failed.is_empty() {
        return;
    }
    let what = if failed.is_empty() { What::Compensated } else { What::CompensationFailed };
    shared.log(SupervisorEvent {
        batch: Some(batch.clone()),
        batch_events: work.batch.len() as u64,
        attempt: Some(work.attempt().0),
        compensations_run: run,
        compensations_failed: u32::try_from(failed.len()).unwrap_or(u32::MAX),
        cause: failed.pop().or_else(|| work.last_cause.clone()),
        ..slot.event(Role::Aggregator, what)
    });
}

/// One compensation, tried again by the tenant's policy, but no longer than its deadline; why it could not be done.
async fn persist(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    batch: &BatchId,
    store: &StoreName,
    compensation: &Compensation,
) -> Result<(), Cause> {
    let policy = &slot.policy().retry;
    let deadline = Instant::now() + policy.compensation_deadline;
    let (mut retry, mut rng) = (Retry::default(), shared.seam.rng());
    loop {
        // None lasts beyond the deadline, but one that is only made because the list is full.
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = if left.is_zero() { policy.attempt_timeout } else { policy.attempt_timeout.min(left) };
        let tried = attempt(shared, slot, batch, store, compensation, limit).await;
        let Err((cause, failed)) = tried else { return Ok(()) };
        let again = match failed {
            StorageError::Permanent { .. } => None,
            StorageError::Unavailable { retry_after, .. } => Some(retry.unavailable(policy, retry_after, &mut rng)),
            StorageError::Transient { retry_after, .. } => retry.failed(policy, retry_after, &mut rng),
        };
        let has_place = slot.lane.snapshot().uncompensated < MAX_UNCOMPENSATED;
        match again {
            Some(wait) if Instant::now() + wait < deadline => tokio::time::sleep(wait).await,
            _ if has_place => return Err(cause),
            _ => tokio::time::sleep(policy.wait(u32::MAX, None, &mut rng).max(Duration::from_millis(100))).await,
        }
    }
}

/// One try of one compensation. A panic and a store that does not answer are failures that may pass.
async fn attempt(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    batch: &BatchId,
    store: &StoreName,
    compensation: &Compensation,
    limit: Duration,
) -> Result<(), (Cause, StorageError)> {
    // Called inside of the future: a store may panic before it has one to give.
    let call = async {
        let Some(storage) = slot.stores.get(store) else {
            let known: Vec<_> = slot.stores.names().map(StoreName::as_str).collect();
            let why = format!("no store is named {store} any more, only {}; give one that name", known.join(", "));
            return Err(StorageError::permanent(why));
        };
        match compensation {
            Compensation::Undo(step) => storage.undo(step).await,
            Compensation::Rollback(attempt) => storage.rollback(batch, *attempt).await,
        }
    };
    let call = AssertUnwindSafe(call).catch_unwind();
    let error = match tokio::time::timeout(limit, call).await {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => error,
        Ok(Err(panic)) => {
            let cause = Cause::from_panic(Code::CompensationFailed, &*panic);
            StorageError::transient(format!("it panicked: {}", cause.detail))
        }
        Err(_) => {
            let limit = humantime::format_duration(limit);
            StorageError::transient(format!("the store did not answer within {limit}"))
        }
    };
    let detail = format!("{compensation} of batch {batch} in {store}: {}", describe(&error));
    let cause = Cause::new(Code::CompensationFailed, detail);
    let failure = slot.failure(shared, cause.clone(), 0);
    shared.failed(&Failure { batch: Some(batch.clone()), ..failure });
    Err((cause, error))
}

/// Tries what could not be undone again and again, with a backoff, until nothing of the tenant is left on the list or the system
/// ends. Does nothing where another task is at it.
pub(crate) async fn pursue(shared: Arc<Shared>, slot: Arc<Slot>) {
    let backoff =
        RetryPolicy { base: Duration::from_secs(1), cap: Duration::from_secs(300), ..slot.policy().retry.clone() };
    let Some(_turn) = Turn::take(&slot.pursuing) else { return };
    let mut rng = shared.seam.rng();
    while let Some((owed, at)) = slot.lane.next_uncompensated() {
        // A fresh one was tried a moment ago, and after a start its store may not be there yet.
        let wait = if owed.tries == 0 { backoff.wait(1, None, &mut rng) } else { Duration::ZERO };
        tokio::time::sleep_until(at + wait).await;
        if shared.phase() >= Phase::Stopping {
            return;
        }
        let (batch, store) = (owed.batch.clone(), owed.store.clone());
        let span = tracing::debug_span!(target: "headworks", "compensate", tenant = %slot.id, %batch);
        let limit = slot.policy().retry.attempt_timeout;
        match attempt(&shared, &slot, &batch, &store, &owed.compensation, limit).instrument(span).await {
            Ok(()) => {
                slot.lane.pursued(&owed, None);
                let event = slot.event(Role::Aggregator, What::Compensated);
                let (batch, store) = (Some(batch), Some(store));
                shared.log(SupervisorEvent { batch, store, compensations_run: 1, ..event });
            }
            Err((cause, _)) => {
                let wait = backoff.wait(owed.tries + 2, None, &mut rng).max(Duration::from_millis(500));
                slot.lane.pursued(&owed, Some((cause, shared.seam.now().plus(wait), Instant::now() + wait)));
            }
        }
    }
    // Where its actors have ended before, there is nothing left that would.
    slot.beat_later(&shared);
}

/// Sends a batch that is taken back where its rules say.
async fn decide(shared: &Arc<Shared>, slot: &Arc<Slot>, work: &Work, batch: &Batch) {
    let mut cause = work.last_cause.clone().unwrap_or_else(|| Cause::new(Code::ActorStopped, "given up"));
    let policy = &slot.policy().retry;
    let owed: Vec<_> = slot.lane.uncompensated().into_iter().filter(|owed| owed.batch == *batch.id()).collect();
    // What a store may still hold must not come to it under another id.
    let may_come_again = owed.is_empty() && !work.is_condemned();
    let event = |what| {
        let (batch, store) = (Some(batch.id().clone()), work.store().cloned());
        let (attempt, batch_events) = (Some(work.attempt().0), work.batch.len() as u64);
        SupervisorEvent { batch, batch_events, store, attempt, ..slot.event(Role::Aggregator, what) }
    };
    if may_come_again
        && cause.code == Code::StorePermanent
        && take_pieces(shared, slot)
        && slot.lane.split(policy.max_poison)
    {
        return shared.log(SupervisorEvent { cause: Some(cause), ..event(What::Split) });
    }
    if !owed.is_empty() {
        let detail = format!("{}; not undone when it was given up: {}", cause.detail, list(&owed));
        cause = Cause::new(cause.code, detail);
    }
    let failure = slot.failure(shared, cause.clone(), batch.len() as u64);
    let failure = Failure { batch: Some(batch.id().clone()), ..failure };
    // What hooks failed on, or what is left of a damaged batch, is not the stores' business.
    let is_open = !matches!(cause.code, Code::HookPanic | Code::JournalDamaged) && !work.is_condemned();
    let verdict = if is_open { verdict(shared, slot, &failure) } else { OnFailure::DeadLetter };
    match verdict {
        OnFailure::Retry if may_come_again => {
            slot.lane.again(Instant::now(), &mut shared.seam.rng());
            shared.log(SupervisorEvent { cause: Some(cause), ..event(What::StartedOver) });
        }
        OnFailure::Discard => {
            let Some(left) = shared.settle(slot, batch.id(), Outcome::Discarded) else { return };
            shared.log(SupervisorEvent { cause: Some(cause), ..event(What::Discarded) });
            gone(shared, slot, &left.batch, &failure);
        }
        OnFailure::DeadLetter | OnFailure::Retry => {
            if let Some(position) = slot.lane.condemn() {
                shared.journal.committed(position).await;
            }
            bury(shared, slot, work, batch, &cause).await;
            let Some(left) = shared.settle(slot, batch.id(), Outcome::DeadLettered) else { return };
            shared.log(SupervisorEvent { cause: Some(cause), ..event(What::DeadLettered) });
            gone(shared, slot, &left.batch, &failure);
        }
    }
}

/// Whether all stores of the tenant can hold a piece of a batch; one that panics on the question cannot.
fn take_pieces(shared: &Shared, slot: &Slot) -> bool {
    slot.stores.take_pieces().unwrap_or_else(|cause| {
        shared.failed(&slot.failure(shared, cause.clone(), 0));
        shared.log(SupervisorEvent { cause: Some(cause), ..slot.event(Role::Aggregator, What::Failed) });
        false
    })
}

fn list(owed: &[crate::port::Uncompensated]) -> String {
    let each: Vec<_> = owed.iter().map(|owed| format!("{} in {}", owed.compensation, owed.store)).collect();
    each.join(", ")
}

/// What a hook says is to become of the batch, else what the policy says.
fn verdict(shared: &Shared, slot: &Slot, failure: &Failure) -> OnFailure {
    let decided = slot.hooks.decision(failure).unwrap_or_else(|cause| {
        shared.failed(&slot.failure(shared, cause, 0));
        None
    });
    decided.unwrap_or(slot.policy().on_failure)
}

/// Keeps the batch's events, as they were accepted, as dead letters, however long it takes.
async fn bury(shared: &Shared, slot: &Slot, work: &Work, batch: &Batch, cause: &Cause) {
    let now = shared.seam.now();
    let letters: Vec<_> = batch
        .events()
        .enumerate()
        .map(|(index, event)| DeadLetter {
            id: format!("{}#{index}", batch.id()).into(),
            kind: DeadLetterKind::Event,
            tenant: Some(slot.id.clone()),
            source: None,
            cause: cause.clone(),
            attempts: work.attempt().0,
            first_at: event.arrived,
            last_at: now,
            batch: Some((batch.id().clone(), u32::try_from(index).unwrap_or(u32::MAX))),
            original_bytes: event.body.len() as u64,
            time: event.time,
            body: Bytes::copy_from_slice(event.body),
            edit: None,
            replayed_at: None,
        })
        .collect();
    keep(shared, &letters).await;
    fault_point("after-letters");
}

/// Tells whoever wants to know of a batch that was not stored.
fn gone(shared: &Shared, slot: &Slot, batch: &Batch, failure: &Failure) {
    shared.failed(failure);
    if let Err(cause) = slot.hooks.failed(batch, failure) {
        shared.failed(&slot.failure(shared, cause, 0));
    }
}
