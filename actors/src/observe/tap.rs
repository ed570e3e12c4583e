//! A tap: a live sample of events, taken where they are accepted.
//!
//! The stream never waits for who looks on: what they do not take in time is lost to them, and counted. Where nobody looks on, a
//! chunk costs one load of a number.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{Chunk, TenantId, UnixMillis};

/// What a [`Tap`] is to sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapOptions {
    /// Events of this tenant; of all where it is `None`, the default.
    pub tenant: Option<TenantId>,
    /// How many events a second at the most, over time; as many at once may follow on a pause. 0 is as 1. Default 100.
    pub events_per_second: u32,
    /// The memory that sampled events may take until they are read, in bytes; what does not fit is missed. Default 4 MiB.
    pub max_waiting_bytes: usize,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self { tenant: None, events_per_second: 100, max_waiting_bytes: 4 << 20 }
    }
}

/// What a [`Tap`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapItem {
    /// An event was accepted.
    Event(TapEvent),
    /// The reader was too slow: so many events were sampled here and are lost to it.
    Missed(u64),
}

/// A copy of an event that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapEvent {
    /// Whose.
    pub tenant: TenantId,
    /// The number of its chunk among all chunks of the tenant.
    pub seq: u64,
    /// Its place there, from 0.
    pub place: usize,
    /// When it happened, if the decoder could tell.
    pub time: Option<UnixMillis>,
    /// When it was read.
    pub arrived: UnixMillis,
    /// Its bytes, as they will be stored: unless hooks of batches change them.
    pub body: Bytes,
    /// How many events that were asked for were passed over right before it, by the rate.
    pub skipped: u64,
}

/// What a waiting event takes beside its bytes: about its fields and its part of the queue.
const HEAD: usize = 160;

impl TapEvent {
    fn cost(bytes: usize) -> usize {
        HEAD + bytes
    }
}

/// Who looks on at one system.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// How many they are.
    open: AtomicUsize,
    readers: Mutex<Vec<Arc<Reader>>>,
}

#[derive(Debug)]
struct Reader {
    options: TapOptions,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug)]
struct Waiting {
    items: VecDeque<TapItem>,
    bytes: usize,
    skipped: u64,
    /// How many events may be sampled, by the rate, as of `at`.
    allowed: f64,
    at: Instant,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taps {
    pub(crate) fn open(self: &Arc<Self>, options: TapOptions, now: Instant) -> Tap {
        let allowed = f64::from(options.events_per_second.max(1));
        let waiting = Waiting { items: VecDeque::new(), bytes: 0, skipped: 0, allowed, at: now };
        let reader = Arc::new(Reader { options, waiting: Mutex::new(waiting), filled: Notify::new() });
        let mut readers = lock(&self.readers);
        readers.push(reader.clone());
        self.open.store(readers.len(), Ordering::Relaxed);
        drop(readers);
        Tap { taps: self.clone(), reader }
    }

    /// Whether anybody looks on.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// The chunk `seq` of its tenant was accepted.
    #[cold]
    pub(crate) fn pass(&self, seq: u64, chunk: &Chunk, now: Instant) {
        for reader in &*lock(&self.readers) {
            reader.pass(seq, chunk, now);
        }
    }

    fn close(&self, reader: &Arc<Reader>) {
        let mut readers = lock(&self.readers);
        readers.retain(|other| !Arc::ptr_eq(other, reader));
        self.open.store(readers.len(), Ordering::Relaxed);
    }
}

impl Reader {
    fn pass(&self, seq: u64, chunk: &Chunk, now: Instant) {
        if self.options.tenant.as_ref().is_some_and(|tenant| tenant != chunk.tenant()) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        let taken = waiting.may_take(chunk.len(), self.options.events_per_second, now);
        for (place, event) in chunk.events().enumerate().take(taken) {
            let cost = TapEvent::cost(event.body.len());
            if waiting.bytes.saturating_add(cost) > self.options.max_waiting_bytes {
                waiting.miss();
                continue;
            }
            waiting.bytes += cost;
            let skipped = std::mem::take(&mut waiting.skipped);
            let (time, arrived) = (event.time, event.arrived);
            let (tenant, body) = (chunk.tenant().clone(), Bytes::copy_from_slice(event.body));
            waiting.items.push_back(TapItem::Event(TapEvent { tenant, seq, place, time, arrived, body, skipped }));
        }
        waiting.skipped += (chunk.len() - taken) as u64;
        drop(waiting);
        if taken > 0 {
            self.filled.notify_one();
        }
    }
}

impl Waiting {
    /// How many of `events` the rate lets be sampled; pays for them.
    fn may_take(&mut self, events: usize, rate: u32, now: Instant) -> usize {
        let rate = f64::from(rate.max(1));
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.allowed = (self.allowed + since * rate).min(rate);
        let taken = events.min(self.allowed as usize);
        self.allowed -= taken as f64;
        taken
    }

    /// One more is lost to the reader. Losses in a row are one item, so that they are no more than the events that wait.
    fn miss(&mut self) {
        match self.items.back_mut() {
            Some(TapItem::Missed(missed)) => *missed += 1,
            _ => self.items.push_back(TapItem::Missed(1)),
        }
    }
}

/// A live sample of the events that a system accepts, from [`System::tap`](crate::System::tap). Dropped, it is over.
#[derive(Debug)]
pub struct Tap {
    taps: Arc<Taps>,
    reader: Arc<Reader>,
}

impl Tap {
    /// The next item; waits for one if need be. It never ends by itself, not even with the system.
    ///
    /// # Cancel safety
    /// A call that is dropped has taken nothing.
    pub async fn next(&mut self) -> TapItem {
        loop {
            if let Some(item) = self.try_next() {
                return item;
            }
            self.reader.filled.notified().await;
        }
    }

    /// The next item, if there is one.
    pub fn try_next(&mut self) -> Option<TapItem> {
        let mut waiting = lock(&self.reader.waiting);
        let item = waiting.items.pop_front()?;
        if let TapItem::Event(event) = &item {
            waiting.bytes -= TapEvent::cost(event.body.len());
        }
        Some(item)
    }

    /// This tap as a stream that never ends by itself.
    pub fn into_stream(self) -> impl Stream<Item = TapItem> + Send + Unpin {
        Box::pin(futures::stream::unfold(self, async |mut this| Some((this.next().await, this))))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.close(&self.reader);
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
