//! What happens to a batch that was given up: undo, roll back, keep as dead letters, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt;
use tracing::Instrument;

use super::letters::{describe, keep};
use super::registry::Shared;
use super::slot::Slot;
use crate::model::{Batch, Cause, Code, Failure, Role, SupervisorEvent, What};
use crate::observe::Outcome;
use crate::policy::Retry;
use crate::port::lane::Work;
use crate::port::{DeadLetter, DeadLetterKind, StorageError, UndoStep};

/// Settles the batch at the front of the tenant's lane as dead letters. Does nothing where another task is at it.
pub(crate) async fn settle(shared: Arc<Shared>, slot: Arc<Slot>) {
    let Some(_turn) = Turn::take(&slot) else { return };
    if let Some((work, batch)) = slot.lane.given_up() {
        let cause = work.last_cause.clone().unwrap_or_else(|| Cause::new(Code::ActorStopped, "given up"));
        // Once it is kept as dead letters there is no way back: a later process must not try to store it.
        if let Some(position) = work.recorded_at() {
            shared.journal.committed(position).await;
        }
        if work.attempt.0 > 0 {
            let span = tracing::debug_span!(target: "headworks", "compensate", tenant = %slot.id, batch = %work.batch.id(), attempt = work.attempt.0);
            compensate(&shared, &slot, &work).instrument(span).await;
        }
        bury(&shared, &slot, &work, &batch, cause).await;
    }
    slot.hint_batches(&shared);
}

/// At most one task settles a tenant's batch.
struct Turn<'a>(&'a Slot);

impl<'a> Turn<'a> {
    fn take(slot: &'a Slot) -> Option<Self> {
        (!slot.compensating.swap(true, Ordering::AcqRel)).then_some(Self(slot))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.compensating.store(false, Ordering::Release);
    }
}

/// Runs every undo step, newest first, then the rollback: all of them, whatever becomes of any.
async fn compensate(shared: &Arc<Shared>, slot: &Arc<Slot>, work: &Work) {
    let (mut run, mut failed) = (0, 0);
    let mut tally = |done: bool| if done { run += 1 } else { failed += 1 };
    for step in work.undo_steps().into_iter().rev() {
        tally(persist(shared, slot, work, &Compensation::Undo(step)).await);
    }
    tally(persist(shared, slot, work, &Compensation::Rollback).await);
    let what = if failed == 0 { What::Compensated } else { What::CompensationFailed };
    shared.log(SupervisorEvent {
        batch: Some(work.batch.id().clone()),
        batch_events: work.batch.len() as u64,
        attempt: Some(work.attempt.0),
        compensations_run: run,
        compensations_failed: failed,
        cause: work.last_cause.clone(),
        ..slot.event(Role::Aggregator, what)
    });
}

enum Compensation {
    Undo(UndoStep),
    Rollback,
}

/// One compensation, tried again by the tenant's policy. False if it could not be done.
async fn persist(shared: &Arc<Shared>, slot: &Arc<Slot>, work: &Work, compensation: &Compensation) -> bool {
    let policy = &slot.policy.retry;
    let (mut retry, mut rng) = (Retry::default(), shared.seam.rng());
    loop {
        // Called inside of the future: a store may panic before it has one to give.
        let call = async {
            match compensation {
                Compensation::Undo(step) => slot.storage.undo(step).await,
                Compensation::Rollback => slot.storage.rollback(work.batch.id(), work.attempt).await,
            }
        };
        let answer = tokio::time::timeout(policy.attempt_timeout, AssertUnwindSafe(call).catch_unwind()).await;
        let (wait, detail) = match answer {
            Ok(Ok(Ok(()))) => return true,
            Ok(Ok(Err(error))) => {
                let wait = match &error {
                    StorageError::Permanent { .. } => None,
                    StorageError::Unavailable { .. } => Some(retry.unavailable(policy, &mut rng)),
                    StorageError::Transient { retry_after, .. } => retry.failed(policy, *retry_after, &mut rng),
                };
                (wait, describe(&error))
            }
            Ok(Err(panic)) => {
                let cause = Cause::from_panic(Code::CompensationFailed, &*panic);
                (retry.failed(policy, None, &mut rng), format!("it panicked: {}", cause.detail))
            }
            Err(_) => (retry.failed(policy, None, &mut rng), "the store did not answer in time".to_owned()),
        };
        let name = match compensation {
            Compensation::Undo(step) => format!("undo step {:?}", step.name),
            Compensation::Rollback => "rollback".to_owned(),
        };
        let cause = Cause::new(Code::CompensationFailed, format!("{name} of batch {}: {detail}", work.batch.id()));
        let failure = slot.failure(shared, cause, 0);
        shared.failed(&Failure { batch: Some(work.batch.id().clone()), ..failure });
        match wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return false,
        }
    }
}

/// Keeps the batch's events, as they were accepted, as dead letters, however long it takes, and settles it.
async fn bury(shared: &Arc<Shared>, slot: &Arc<Slot>, work: &Work, batch: &Batch, cause: Cause) {
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
            attempts: work.attempt.0,
            first_at: event.arrived,
            last_at: now,
            batch: Some((batch.id().clone(), u32::try_from(index).unwrap_or(u32::MAX))),
            original_bytes: event.body.len() as u64,
            body: Bytes::copy_from_slice(event.body),
        })
        .collect();
    keep(shared, &letters).await;
    let Some(left) = shared.settle(slot, batch.id().seq, Outcome::DeadLettered) else { return };
    let event = slot.event(Role::Aggregator, What::DeadLettered);
    shared.log(SupervisorEvent {
        batch: Some(batch.id().clone()),
        batch_events: left.batch.len() as u64,
        attempt: Some(work.attempt.0),
        cause: Some(cause.clone()),
        ..event
    });
    let failure = Failure { batch: Some(batch.id().clone()), ..slot.failure(shared, cause, left.batch.len() as u64) };
    shared.failed(&failure);
    if let Err(cause) = slot.hooks.failed(&left.batch, &failure) {
        shared.failed(&slot.failure(shared, cause, 0));
    }
}
