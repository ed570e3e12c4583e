//! The memory of all events in flight, in bytes, under one bound.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Reserved before a chunk is accepted, released when its last event is settled. One atomic step a chunk.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    used: AtomicUsize,
    /// The part of `used` that lies in closed batches.
    cut: AtomicUsize,
    /// Something that comes before all others waits for room.
    first_waits: AtomicBool,
    room: Notify,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            used: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            first_waits: AtomicBool::new(false),
            room: Notify::new(),
        }
    }

    /// Takes `bytes`, if they fit; an empty budget takes any amount, so that nothing is too large for ever.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        !self.first_waits.load(Ordering::Acquire) && self.take(bytes)
    }

    /// Takes `bytes` before anybody else does, as soon as they fit. One caller at a time.
    pub(crate) async fn reserve_first(&self, bytes: usize) {
        self.first_waits.store(true, Ordering::Release);
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.take(bytes) {
                break;
            }
            room.await;
        }
        self.first_waits.store(false, Ordering::Release);
        self.room.notify_waiters();
    }

    /// What was reserved turned out to be another size.
    pub(crate) fn correct(&self, reserved: usize, is: usize) {
        self.used.fetch_add(is, Ordering::AcqRel);
        self.unreserve(reserved);
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.max).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// Gives back what `reserve` took for nothing.
    pub(crate) fn unreserve(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.room.notify_waiters();
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

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Whether open windows hold most of a full budget: then closing them makes room, else it would only make small
    /// batches for a store that is behind.
    pub(crate) fn lies_in_windows(&self) -> bool {
        self.cut.load(Ordering::Acquire) < self.max / 2
    }

    /// Woken whenever something is released.
    pub(crate) fn room(&self) -> &Notify {
        &self.room
    }
}
