//! Frames that were given up, on their way to the dead letters.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;

use super::registry::Shared;
use crate::model::{Cause, Code, Failure, Opening};
use crate::policy::RetryPolicy;
use crate::port::fault_point::fault_point;
use crate::port::{DeadLetter, DeadLetterKind, StorageError};

/// The most letters that are written at once.
const GROUP: usize = 512;

/// A queue with a bound in bytes. When it is full, the connections that bring bad frames wait; others do not.
#[derive(Debug)]
pub(crate) struct Letters {
    opening: Opening,
    queue: Mutex<Queue>,
    max_bytes: usize,
    arrived: Notify,
    left: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    letters: VecDeque<DeadLetter>,
    bytes: usize,
    /// How many have left it, since they are kept.
    kept: u64,
    /// How many have come so far.
    numbered: u64,
}

/// How many letters must have been kept for one's own to be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept(u64);

impl Letters {
    pub(crate) fn new(opening: Opening, max_bytes: usize) -> Self {
        Self { opening, queue: Mutex::default(), max_bytes, arrived: Notify::new(), left: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the letters, all of them, or hands them back. An empty queue takes any amount.
    ///
    /// Here they get their ids, numbered in the order in which they are kept: whenever the process is killed, what is kept has no gap in
    /// its numbers, so that one that is missing later was taken away.
    pub(crate) fn try_push(&self, mut letters: Vec<DeadLetter>) -> Result<Kept, Vec<DeadLetter>> {
        let bytes = letters.iter().map(cost).sum::<usize>();
        let mut queue = self.lock();
        if queue.bytes > 0 && queue.bytes + bytes > self.max_bytes {
            return Err(letters);
        }
        queue.bytes += bytes;
        for letter in &mut letters {
            queue.numbered += 1;
            letter.id = format!("{}/{}/{}", self.opening, letter.kind.as_str(), queue.numbered).into();
        }
        queue.letters.extend(letters);
        let last = Kept(queue.kept + queue.letters.len() as u64);
        drop(queue);
        self.arrived.notify_one();
        Ok(last)
    }

    /// As [`try_push`](Self::try_push), once there is room.
    pub(crate) async fn push(&self, mut letters: Vec<DeadLetter>) -> Kept {
        loop {
            let left = self.left.notified();
            let mut left = std::pin::pin!(left);
            left.as_mut().enable();
            match self.try_push(letters) {
                Ok(last) => return last,
                Err(back) => letters = back,
            }
            left.await;
        }
    }

    /// Waits until letters that were pushed are kept.
    pub(crate) async fn kept(&self, Kept(last): Kept) {
        loop {
            let left = self.left.notified();
            let mut left = std::pin::pin!(left);
            left.as_mut().enable();
            if self.lock().kept >= last {
                return;
            }
            left.await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many letters wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().letters.len()
    }

    /// Woken whenever letters have been kept.
    pub(crate) fn left(&self) -> &Notify {
        &self.left
    }
}

/// What a letter costs in memory, in bytes.
pub(crate) fn cost(letter: &DeadLetter) -> usize {
    const HEAD: usize = 320;
    HEAD + letter.body.len() + letter.cause.detail.len()
}

/// Writes the queue to the dead letters until the end of the system. A letter leaves the queue once it is kept.
pub(crate) async fn pump(shared: Arc<Shared>) {
    loop {
        let group: Vec<_> = shared.letters.lock().letters.iter().take(GROUP).cloned().collect();
        if group.is_empty() {
            shared.letters.arrived.notified().await;
            continue;
        }
        fault_point("before-letters");
        keep(&shared, &group).await;
        let events = group.iter().filter(|letter| letter.kind == DeadLetterKind::Event);
        for slot in events.filter_map(|letter| shared.slot(letter.tenant.as_ref()?)) {
            slot.lane.letter_kept();
            slot.room.notify_waiters();
        }
        let mut queue = shared.letters.lock();
        for letter in queue.letters.drain(..group.len()).collect::<Vec<_>>() {
            queue.bytes -= cost(&letter);
        }
        queue.kept += group.len() as u64;
        drop(queue);
        shared.letters.left.notify_waiters();
    }
}

/// Puts the letters, however often it takes: what cannot be kept is not given up either.
pub(crate) async fn keep(shared: &Shared, letters: &[DeadLetter]) {
    let policy = RetryPolicy { cap: Duration::from_secs(10), ..RetryPolicy::default() };
    let mut rng = shared.seam.rng();
    for tries in 1.. {
        // Called inside of the future: the dead letters may panic before they have one to give.
        let put = AssertUnwindSafe(async { shared.dead_letters.put(letters).await }).catch_unwind();
        let cause = match tokio::time::timeout(policy.attempt_timeout, put).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => Cause::new(Code::DeadLetterFailed, describe(&error)),
            Ok(Err(panic)) => Cause::from_panic(Code::DeadLetterFailed, &*panic),
            Err(_) => Cause::new(Code::DeadLetterFailed, "the dead letters did not answer in time"),
        };
        if tries == 1 {
            // The report comes only now and then.
            tracing::error!(target: "headworks", letters = letters.len(), why = &*cause.detail, "dead letters cannot be kept; they wait, and are tried again");
        }
        let tenant = letters.first().and_then(|letter| letter.tenant.clone());
        shared.failed(&Failure { at: shared.seam.now(), tenant, source: None, batch: None, cause, events: 0 });
        tokio::time::sleep(policy.wait(tries, None, &mut rng)).await;
    }
}

/// A storage error with what kind it is.
pub(crate) fn describe(error: &StorageError) -> String {
    match error {
        StorageError::Transient { detail, .. } | StorageError::Permanent { detail } => detail.clone(),
        StorageError::Unavailable { detail, .. } => format!("unavailable: {detail}"),
    }
}
