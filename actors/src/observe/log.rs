use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use tokio::sync::watch;

use crate::model::{StoreName, SupervisorEvent, TenantId, UnixMillis, What};

/// The supervisor log: the newest entries in a bounded ring, each with a cursor that never repeats.
///
/// Writing never waits for a reader. Clones show the same log; all methods work from any thread.
#[derive(Clone)]
pub struct SupervisorLog {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Mutex<Ring>,
    /// The cursor that the next entry will have: what readers wait on.
    next: watch::Sender<u64>,
}

struct Ring {
    entries: VecDeque<Arc<SupervisorEvent>>,
    capacity: usize,
    next: u64,
}

impl std::fmt::Debug for SupervisorLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorLog").field("next", &*self.inner.next.borrow()).finish_non_exhaustive()
    }
}

/// What a reader of the log gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// The next entry.
    Event(Arc<SupervisorEvent>),
    /// The reader was too slow: so many entries are gone for it.
    Missed(u64),
}

impl SupervisorLog {
    pub(crate) fn new(capacity: usize) -> Self {
        let ring = Ring { entries: VecDeque::new(), capacity: capacity.max(1), next: 0 };
        Self { inner: Arc::new(Inner { ring: Mutex::new(ring), next: watch::Sender::new(0) }) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry, at `now`, and says it to `tracing` under the target `headworks::supervisor`.
    pub(crate) fn push(&self, mut event: SupervisorEvent, now: UnixMillis) -> Arc<SupervisorEvent> {
        event.at = now;
        let event = {
            let mut ring = self.ring();
            event.cursor = ring.next;
            ring.next += 1;
            if ring.entries.len() == ring.capacity {
                ring.entries.pop_front();
            }
            let event = Arc::new(event);
            ring.entries.push_back(event.clone());
            event
        };
        self.inner.next.send_modify(|next| *next = (*next).max(event.cursor + 1));
        trace(&event);
        event
    }

    /// The cursor that the next entry will have.
    pub(crate) fn next(&self) -> u64 {
        self.ring().next
    }

    /// The newest `n` entries, oldest first.
    #[must_use]
    pub fn last(&self, n: usize) -> Vec<Arc<SupervisorEvent>> {
        let ring = self.ring();
        ring.entries.iter().skip(ring.entries.len().saturating_sub(n)).cloned().collect()
    }

    /// The newest `n` entries of one tenant, oldest first.
    #[must_use]
    pub fn last_of(&self, tenant: &TenantId, n: usize) -> Vec<Arc<SupervisorEvent>> {
        let ring = self.ring();
        let of_tenant = ring.entries.iter().rev().filter(|event| event.tenant.as_ref() == Some(tenant));
        let mut found: Vec<_> = of_tenant.take(n).cloned().collect();
        found.reverse();
        found
    }

    /// The entries from here on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let cursor = self.ring().next;
        self.subscribe_from(cursor)
    }

    /// The entries from `cursor` on, as far as the ring still holds them.
    #[must_use]
    pub fn subscribe_from(&self, cursor: u64) -> Subscription {
        Subscription { log: self.clone(), cursor, newest: self.inner.next.subscribe() }
    }
}

/// A reader's place in the supervisor log.
#[derive(Debug)]
pub struct Subscription {
    log: SupervisorLog,
    cursor: u64,
    newest: watch::Receiver<u64>,
}

impl Subscription {
    /// The next item; waits for one if need be.
    ///
    /// # Cancel safety
    /// A call that is dropped has taken nothing.
    pub async fn next(&mut self) -> LogItem {
        loop {
            if let Some(item) = self.try_next() {
                return item;
            }
            let cursor = self.cursor;
            // The log is held by this reader: its sender cannot be gone.
            let _ = self.newest.wait_for(|next| *next > cursor).await;
        }
    }

    /// The next item, if there is one.
    pub fn try_next(&mut self) -> Option<LogItem> {
        let ring = self.log.ring();
        let oldest = ring.next - ring.entries.len() as u64;
        if self.cursor < oldest {
            let missed = oldest - self.cursor;
            self.cursor = oldest;
            return Some(LogItem::Missed(missed));
        }
        let index = usize::try_from(self.cursor - oldest).ok()?;
        let event = ring.entries.get(index)?.clone();
        self.cursor += 1;
        Some(LogItem::Event(event))
    }

    /// This subscription as a stream that never ends by itself.
    pub fn into_stream(self) -> impl Stream<Item = LogItem> + Send + Unpin {
        Box::pin(futures::stream::unfold(self, async |mut this| Some((this.next().await, this))))
    }
}

fn trace(event: &SupervisorEvent) {
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(
                target: "headworks::supervisor",
                tenant = event.tenant.as_ref().map(TenantId::as_str),
                actor = event.actor.as_str(),
                epoch = event.epoch,
                what = event.what.as_str(),
                store = event.store.as_ref().map(StoreName::as_str),
                source = event.source.as_deref(),
                cause = event.cause.as_ref().map(|cause| cause.code.as_str()),
                detail = event.cause.as_ref().map(|cause| &*cause.detail),
                batch = event.batch.as_ref().map(tracing::field::display),
                batch_events = event.batch_events,
                attempt = event.attempt,
                next_attempt_at = event.next_attempt_at.map(tracing::field::display),
                compensations_run = event.compensations_run,
                compensations_failed = event.compensations_failed,
                events_kept = event.events_kept,
                repeats = event.repeats,
                since = event.since.map(tracing::field::display),
            )
        };
    }
    match event.what {
        What::Quarantined | What::Hung | What::CompensationFailed | What::JournalFails | What::ReloadRefused => {
            say!(error)
        }
        What::Failed
        | What::Erased
        | What::Ambiguous
        | What::MissedHeartbeat
        | What::Stalled
        | What::Parked
        | What::Spilling
        | What::LettersFull
        | What::BreakerOpened
        | What::BackingOff
        | What::Silent
        | What::Split
        | What::StartedOver
        | What::Shedding
        | What::JournalFull
        | What::SourceFails
        | What::SourceLost
        | What::Discarded
        | What::DeadLettered => say!(warn),
        What::Restarted
        | What::Resumed
        | What::Unstalled
        | What::Unhung
        | What::JournalWorks
        | What::JournalHasRoom
        | What::SourceWorks
        | What::Unparked
        | What::SheddingEnded
        | What::CaughtUp
        | What::BreakerClosed
        | What::Compensated
        | What::Heard
        | What::Recovered
        | What::PolicyChanged
        | What::Muted
        | What::Unmuted
        | What::Ordered
        | What::Pruned
        | What::Reloaded
        | What::Draining => say!(info),
        What::Started | What::Stopped | What::Passivated | What::Moved | What::Idle | What::Active => say!(debug),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn write(log: &SupervisorLog, tenant: &str) {
        let event = SupervisorEvent::new(TenantId::new(tenant).ok(), Role::Writer, What::Failed);
        log.push(event, UnixMillis(0));
    }

    fn cursors(entries: &[Arc<SupervisorEvent>]) -> Vec<u64> {
        entries.iter().map(|event| event.cursor).collect()
    }

    #[test]
    fn the_ring_keeps_the_newest_entries() {
        let log = SupervisorLog::new(3);
        for tenant in ["a", "b", "a", "b", "a"] {
            write(&log, tenant);
        }
        assert_eq!(cursors(&log.last(10)), [2, 3, 4]);
        assert_eq!(cursors(&log.last(1)), [4]);
        assert_eq!(cursors(&log.last_of(&TenantId::new("a").unwrap(), 10)), [2, 4]);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed() {
        let log = SupervisorLog::new(2);
        let mut reader = log.subscribe();
        for _ in 0..5 {
            write(&log, "a");
        }
        assert_eq!(reader.next().await, LogItem::Missed(3));
        let LogItem::Event(event) = reader.next().await else { panic!("an entry follows") };
        assert_eq!(event.cursor, 3);
        assert!(reader.try_next().is_some());
        assert!(reader.try_next().is_none());
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_the_next_entry() {
        let log = SupervisorLog::new(2);
        let mut reader = log.subscribe();
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        write(&log, "a");
        assert!(matches!(waiting.await.unwrap(), LogItem::Event(_)));
    }
}
