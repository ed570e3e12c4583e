//! The memory of all events in flight, in bytes, under one bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::policy::{Memory, is_heavy};

/// Reserved before a chunk is accepted, released when its last event is settled. One atomic step a chunk.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    /// How many tenants hold any of it.
    holders: Arc<AtomicUsize>,
    used: AtomicUsize,
    /// The part of `used` that lies in closed batches.
    cut: AtomicUsize,
    /// Something that comes before all others waits for room.
    first_waits: AtomicBool,
    /// Whoever waits is woken once less than this is used. 0 where nobody waits: not every release wakes everybody.
    wake_below: AtomicUsize,
    room: Notify,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            holders: Arc::default(),
            used: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            first_waits: AtomicBool::new(false),
            wake_below: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    /// Takes `bytes`, if they fit; an empty budget takes any amount, so that nothing is too large for ever. Says either way how
    /// much is in use with them.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Memory, Memory> {
        if self.first_waits.load(Ordering::Acquire) {
            return Err(self.with(bytes));
        }
        self.take(bytes).map(|used| self.memory(used, bytes)).map_err(|used| self.memory(used, bytes))
    }

    /// The memory, if so many bytes were taken.
    pub(crate) fn with(&self, bytes: usize) -> Memory {
        self.memory(self.used(), bytes)
    }

    fn memory(&self, used: usize, bytes: usize) -> Memory {
        Memory { max: self.max, used: used + bytes }
    }

    /// Takes `bytes` before anybody else does, as soon as they fit. One caller at a time.
    pub(crate) async fn reserve_first(&self, bytes: usize) {
        self.first_waits.store(true, Ordering::SeqCst);
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            self.wake_at(self.max.saturating_sub(bytes));
            if self.take(bytes).is_ok() {
                break;
            }
            room.await;
        }
        self.first_waits.store(false, Ordering::SeqCst);
        self.room.notify_waiters();
    }

    /// To be kept up to date by the lanes.
    pub(crate) fn holders(&self) -> &Arc<AtomicUsize> {
        &self.holders
    }

    /// Whether a tenant with so many bytes is a heavy one, as things are.
    pub(crate) fn is_heavy(&self, bytes: usize) -> bool {
        is_heavy(bytes, self.max, self.holders.load(Ordering::Relaxed))
    }

    /// What was reserved turned out to be another size.
    pub(crate) fn correct(&self, reserved: usize, is: usize) {
        self.used.fetch_add(is, Ordering::AcqRel);
        self.unreserve(reserved);
    }

    /// What was used before, either way.
    fn take(&self, bytes: usize) -> Result<usize, usize> {
        let fits = |used: usize| (used == 0 || used + bytes <= self.max).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
    }

    /// Gives back what `reserve` took for nothing.
    pub(crate) fn unreserve(&self, bytes: usize) {
        let used = self.used.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        if used < self.wake_below.load(Ordering::SeqCst) {
            self.wake_below.store(0, Ordering::SeqCst);
            self.room.notify_waiters();
        }
    }

    /// Only `kept` of what `reserve` took is used.
    pub(crate) fn unreserve_part(&self, reserved: usize, kept: usize) {
        if kept < reserved {
            self.unreserve(reserved - kept);
        }
    }

    pub(crate) fn cut(&self, bytes: usize) {
        self.cut.fetch_add(bytes, Ordering::AcqRel);
    }

    /// A batch was settled.
    pub(crate) fn settled(&self, bytes: usize) {
        self.cut.fetch_sub(bytes, Ordering::AcqRel);
        self.unreserve(bytes);
    }

    /// The most there may be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Whether open windows hold most of a full budget: then closing them makes room, else it would only make small
    /// batches for a store that is behind.
    pub(crate) fn lies_in_windows(&self) -> bool {
        self.cut.load(Ordering::Acquire) < self.max / 2
    }

    /// Resolves once so many bytes may fit.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(crate) async fn room_for(&self, bytes: usize) {
        self.falls_to(self.max.saturating_sub(bytes)).await;
    }

    /// Resolves once no more than `level` is in use, or at some time before: whoever is woken looks again.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(crate) async fn falls_to(&self, level: usize) {
        let mut room = std::pin::pin!(self.room.notified());
        room.as_mut().enable();
        // Told before it looks: a release from here on sees it.
        self.wake_at(level);
        if self.used() > level || self.first_waits.load(Ordering::SeqCst) {
            room.await;
        }
    }

    /// Wakes whoever waits for `room` once no more than `level` is in use.
    pub(crate) fn wake_at(&self, level: usize) {
        self.wake_below.fetch_max(level.saturating_add(1), Ordering::SeqCst);
    }

    /// Woken when what is in use falls to a level that somebody asked for.
    pub(crate) fn room(&self) -> &Notify {
        &self.room
    }
}
