//! The store that all tenants share, and how it treats the mad one.

use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headworks::{Attempt, Batch, BatchId, Storage, StorageError, Undo};
use tokio::sync::{Semaphore, watch};

use crate::load::{due, number};

/// The tenant that is mad, or critical: the first.
pub(crate) const SPECIAL: usize = 0;
/// What a call takes.
const CALL: Duration = Duration::from_millis(1);
/// What one takes that is a hundred times slower.
const SLOW_CALL: Duration = Duration::from_millis(100);
/// What the store panics with, which nobody needs to read on the terminal again and again.
pub(crate) const PANIC: &str = "the store is mad";

/// What the calls of the mad tenant come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Madness {
    /// What those of all others do.
    None,
    /// They do not end.
    Hang,
    /// They are refused for good.
    Reject,
    /// They take a hundred times longer.
    Slow,
    /// They panic.
    Panic,
}

/// How much the store can take.
pub(crate) struct Limit {
    /// Calls at once; further ones wait in there, the first first.
    pub(crate) places: Semaphore,
    /// Of one place, in bytes a second.
    pub(crate) rate: f64,
}

/// What was stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Events of each tenant, in the whole run.
    pub(crate) stored: Vec<u64>,
    /// Those that were stored within the time that counts.
    pub(crate) in_time: Vec<u64>,
    /// From due to stored, of the special tenant, for what was due within the time that counts.
    pub(crate) special: Vec<Duration>,
    /// The same of all others.
    pub(crate) others: Vec<Duration>,
}

/// The store.
pub(crate) struct Shop {
    began: Instant,
    /// From when on it counts, after the beginning, and until when.
    counts: std::ops::Range<Duration>,
    limit: Option<Limit>,
    madness: watch::Sender<Madness>,
    tally: Mutex<Tally>,
}

impl Shop {
    pub(crate) fn new(
        began: Instant,
        counts: std::ops::Range<Duration>,
        tenants: usize,
        madness: Madness,
        limit: Option<Limit>,
    ) -> Self {
        let tally = Tally { stored: vec![0; tenants], in_time: vec![0; tenants], ..Tally::default() };
        Self { began, counts, limit, madness: watch::Sender::new(madness), tally: Mutex::new(tally) }
    }

    /// From now on it treats all alike, and the calls that hang go on.
    pub(crate) fn heal(&self) {
        self.madness.send_replace(Madness::None);
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, batch: &Batch) {
        tokio::time::sleep(CALL).await;
        if let Some(Limit { places, rate }) = &self.limit {
            // Never closed.
            let _place = places.acquire().await;
            tokio::time::sleep(Duration::from_secs_f64(batch.body_bytes() as f64 / rate)).await;
        }
    }

    fn count(&self, batch: &Batch, tenant: usize) -> Result<(), StorageError> {
        let now = self.began.elapsed();
        let mut tally = self.tally();
        let Tally { stored, in_time, special, others } = &mut *tally;
        let (Some(stored), Some(in_time)) = (stored.get_mut(tenant), in_time.get_mut(tenant)) else {
            return Err(StorageError::permanent("no such tenant sends"));
        };
        let latencies = if tenant == SPECIAL { special } else { others };
        for event in batch.events() {
            let due = due(event.body).ok_or_else(|| StorageError::permanent("the event was never sent"))?;
            if self.counts.contains(&due) {
                latencies.push(now.saturating_sub(due));
            }
        }
        let events = batch.len() as u64;
        *stored += events;
        *in_time += if self.counts.contains(&now) { events } else { 0 };
        Ok(())
    }
}

impl Storage for Shop {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> Result<(), StorageError> {
        let tenant = number(batch.tenant()).ok_or_else(|| StorageError::permanent("no such tenant sends"))?;
        let madness = if tenant == SPECIAL { *self.madness.borrow() } else { Madness::None };
        match madness {
            Madness::None => self.take(batch).await,
            Madness::Hang => {
                // The sender of the word is this store.
                let _ = self.madness.subscribe().wait_for(|madness| *madness == Madness::None).await;
            }
            Madness::Reject => {
                self.take(batch).await;
                return Err(StorageError::permanent("not from you"));
            }
            Madness::Slow => tokio::time::sleep(SLOW_CALL).await,
            Madness::Panic => {
                self.take(batch).await;
                panic::panic_any(PANIC);
            }
        }
        self.count(batch, tenant)
    }

    /// An attempt that fails leaves nothing here.
    async fn rollback(&self, _id: &BatchId, _attempt: Attempt) -> Result<(), StorageError> {
        tokio::time::sleep(CALL).await;
        Ok(())
    }
}

/// Says nothing of the panics that are meant.
pub(crate) fn hide_panics() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(PANIC) {
            others(panic);
        }
    }));
}
