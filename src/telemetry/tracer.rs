use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use headworks_actors::{Attempted, BatchId, Observer, Outcome, Settled, SupervisorEvent, TenantId, What};
use tokio::sync::mpsc;

use crate::metrics::Exported;

/// Something that becomes a span.
#[derive(Debug)]
pub(super) enum Told {
    /// An attempt to store a batch, over at that time.
    Attempted(Attempted, SystemTime),
    /// A batch, settled at that time, and what befell it before.
    Settled(Settled, SystemTime, Vec<SupervisorEvent>),
    /// A batch that was split; its pieces go on by themselves.
    Split(BatchId, Vec<SupervisorEvent>),
}

/// Looks on, and tells what is to be traced. It never waits: what does not fit the queue is dropped, and counted.
#[derive(Debug)]
pub(super) struct Tracer {
    one_in: u32,
    queue: mpsc::Sender<Told>,
    exported: Exported,
    /// Batches of which an attempt failed, and what befell them.
    troubled: Mutex<HashMap<BatchId, Vec<SupervisorEvent>>>,
    /// How many; asked without the lock, so that where all goes well there is none.
    any: AtomicUsize,
}

/// So many troubled batches are remembered. Of others, those that are not traced anyway have no span of their own.
const MOST_TROUBLED: usize = 4096;

/// So much of what befell a batch is kept: the first of it.
const MOST_EVENTS: usize = 128;

impl Tracer {
    /// Traces one of so many batches that go well; at least 1.
    pub(super) fn new(one_in: u32, queue: mpsc::Sender<Told>, exported: Exported) -> Self {
        Self { one_in: one_in.max(1), queue, exported, troubled: Mutex::default(), any: AtomicUsize::new(0) }
    }

    fn tell(&self, told: Told) {
        if self.queue.try_send(told).is_err() {
            self.exported.dropped(1);
        }
    }

    /// By the batch and not by its pieces, and for ever: a later process that goes on with it decides the same.
    fn is_chosen(&self, batch: &BatchId) -> bool {
        self.one_in == 1 || number_of(batch).is_multiple_of(u64::from(self.one_in))
    }

    fn troubled(&self) -> MutexGuard<'_, HashMap<BatchId, Vec<SupervisorEvent>>> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the trouble that the batch had, which is forgotten; `None` where it had none.
    fn end_of_trouble(&self, batch: &BatchId) -> Option<Vec<SupervisorEvent>> {
        if self.any.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut troubled = self.troubled();
        let events = troubled.remove(batch);
        self.any.store(troubled.len(), Ordering::Release);
        events
    }

    /// The batch has trouble, from now on.
    fn trouble(&self, batch: &BatchId) {
        let mut troubled = self.troubled();
        if troubled.len() < MOST_TROUBLED || troubled.contains_key(batch) {
            troubled.entry(batch.clone()).or_default();
        }
        self.any.store(troubled.len(), Ordering::Release);
    }
}

/// A number that is the batch's for ever, whatever piece of it.
pub(super) fn number_of(batch: &BatchId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (batch.opening.0, batch.tenant.as_str(), batch.seq.0).hash(&mut hasher);
    hasher.finish()
}

impl Observer for Tracer {
    fn attempted(&self, _: &TenantId, attempted: &Attempted) {
        if attempted.failed.is_some() {
            self.trouble(&attempted.batch);
        } else if !self.is_chosen(&attempted.batch)
            && (self.any.load(Ordering::Acquire) == 0 || !self.troubled().contains_key(&attempted.batch))
        {
            return;
        }
        self.tell(Told::Attempted(attempted.clone(), SystemTime::now()));
    }

    fn settled(&self, _: &TenantId, settled: &Settled) {
        let trouble = self.end_of_trouble(&settled.batch);
        if trouble.is_some() || settled.outcome != Outcome::Stored || self.is_chosen(&settled.batch) {
            self.tell(Told::Settled(settled.clone(), SystemTime::now(), trouble.unwrap_or_default()));
        }
    }

    fn supervised(&self, event: &SupervisorEvent) {
        if self.any.load(Ordering::Acquire) == 0 {
            return;
        }
        if event.what == What::Erased {
            let mut troubled = self.troubled();
            troubled.retain(|batch, _| event.tenant.as_ref() != Some(&batch.tenant));
            self.any.store(troubled.len(), Ordering::Release);
        }
        let Some(batch) = &event.batch else { return };
        if let Some(events) = self.troubled().get_mut(batch).filter(|events| events.len() < MOST_EVENTS) {
            events.push(event.clone());
        }
        // It has no outcome of its own.
        if event.what == What::Split
            && let Some(events) = self.end_of_trouble(batch)
        {
            self.tell(Told::Split(batch.clone(), events));
        }
    }
}

#[cfg(test)]
mod tests;
