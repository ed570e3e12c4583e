use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};
use tokio::sync::watch;

use crate::model::{FlushReason, Outage, Status, TenantId, UnixMillis};

/// The counters of one tenant. They only grow.
///
/// From the start of the system; where the journal is durable, what the two sums of the accounting speak of goes on where
/// the last process ended. A process that crashed may have refused frames in its last seconds that were not counted for good.
// The first two are counted for each chunk, and lie where what else is looked at then does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[repr(C)]
pub struct Counters {
    /// Frames that came for the tenant.
    pub received: u64,
    /// Frames that became accepted events.
    pub accepted: u64,
    /// Frames that had been accepted before.
    pub duplicate: u64,
    /// Frames dropped because the tenant is muted.
    pub muted: u64,
    /// Frames refused because the tenant is above its rate.
    pub throttled: u64,
    /// Frames refused because the tenant's budget stayed full.
    pub rejected: u64,
    /// Frames known to be the tenant's that were no event.
    pub malformed: u64,
    /// Events that are in the store.
    pub stored: u64,
    /// Events kept as dead letters.
    pub dead_lettered: u64,
    /// Events given up to make room, by the tenant's policy.
    pub shed: u64,
    /// Events dropped by a hook's rule.
    pub discarded: u64,
    /// Events accepted into the journal alone, whether they were read back since or not. No part of the sums.
    pub spilled: u64,
    /// Batches that are in the store.
    pub batches: u64,
    /// Windows closed, by reason, in the order of [`FlushReason::ALL`]; serialised as a map.
    #[serde(serialize_with = "by_reason")]
    pub flushes: [u64; FlushReason::ALL.len()],
    /// Calls of the store that failed. Of an outage the first alone: those after it only ask whether the store is back.
    pub attempts_failed: u64,
    /// Restarts of the tenant's actors.
    pub restarts: u64,
}

fn by_reason<S: Serializer>(flushes: &[u64; FlushReason::ALL.len()], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(FlushReason::ALL.iter().map(|reason| reason.as_str()).zip(flushes))
}

impl Counters {
    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut flushes = self.flushes;
        flushes.iter_mut().zip(before.flushes).for_each(|(now, then)| *now -= then.min(*now));
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            received: less(self.received, before.received),
            accepted: less(self.accepted, before.accepted),
            duplicate: less(self.duplicate, before.duplicate),
            muted: less(self.muted, before.muted),
            throttled: less(self.throttled, before.throttled),
            rejected: less(self.rejected, before.rejected),
            malformed: less(self.malformed, before.malformed),
            stored: less(self.stored, before.stored),
            dead_lettered: less(self.dead_lettered, before.dead_lettered),
            shed: less(self.shed, before.shed),
            discarded: less(self.discarded, before.discarded),
            spilled: less(self.spilled, before.spilled),
            batches: less(self.batches, before.batches),
            flushes,
            attempts_failed: less(self.attempts_failed, before.attempts_failed),
            restarts: less(self.restarts, before.restarts),
        }
    }

    /// The accounting of frames: whether each received frame has its one answer.
    #[must_use]
    pub fn frames_add_up(&self) -> bool {
        self.received == self.accepted + self.duplicate + self.muted + self.throttled + self.rejected + self.malformed
    }

    /// How many accepted events have their one outcome.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.stored + self.dead_lettered + self.shed + self.discarded
    }

    /// Windows closed for `reason`.
    #[must_use]
    pub fn flushes_for(&self, reason: FlushReason) -> u64 {
        FlushReason::ALL.iter().position(|r| *r == reason).map_or(0, |index| self.flushes[index])
    }

    pub(crate) fn flushed(&mut self, reason: FlushReason) {
        if let Some(index) = FlushReason::ALL.iter().position(|r| *r == reason) {
            self.flushes[index] += 1;
        }
    }
}

/// One tenant at one moment: everything here was read at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantSnapshot {
    /// Whose.
    pub tenant: TenantId,
    /// What it is doing.
    pub status: Status,
    /// Whether its events are dropped at the door now; `muted` counts those that were.
    pub is_muted: bool,
    /// What was counted.
    #[serde(flatten)]
    pub counters: Counters,
    /// Accepted events without an outcome yet, as they lie there: counted anew, not computed from the counters.
    pub in_flight: u64,
    /// Those of them in the open window.
    pub window: u64,
    /// Closed batches that wait or are being stored.
    pub batches_waiting: u64,
    /// The memory all of this takes, in bytes.
    pub in_flight_bytes: u64,
    /// Those of the events in flight that lie in the journal alone, and are read back once memory is free.
    pub in_journal: u64,
    /// About what these take on disk, in bytes.
    pub in_journal_bytes: u64,
    /// Compensations that could not be done and are tried again and again: a store may hold events that were given up.
    pub uncompensated: u64,
    /// When the oldest of the events in memory that have no outcome yet arrived.
    pub oldest_at: Option<UnixMillis>,
    /// Whether its sender is silent, where that is listened for: see [`SilencePolicy`](crate::SilencePolicy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence: Option<SilenceDetail>,
}

/// What is known of a tenant's silence. Durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SilenceDetail {
    /// How long it is silent, where it is: since its last frame, or since one began to be expected.
    pub silent_ms: Option<u64>,
    /// How long ago its last frame came, if one did since the start of the system.
    pub heard_ms_ago: Option<u64>,
    /// Within what time after the last one a frame is expected. `None` while that is still to be learnt.
    pub expected_within_ms: Option<u64>,
    /// Whether that is learnt from its own rhythm.
    pub is_learnt: bool,
}

impl SilenceDetail {
    /// The status of a tenant, which else were `status`: silence says more than that nothing is to be done.
    pub(crate) fn status(silence: Option<&Self>, status: Status) -> Status {
        let is_silent = silence.is_some_and(|silence| silence.silent_ms.is_some());
        let is_quiet = matches!(status, Status::Dormant | Status::Active | Status::Idle);
        if is_silent && is_quiet { Status::Silent } else { status }
    }
}

impl TenantSnapshot {
    /// Both sums of the accounting: frames, and events.
    ///
    /// `accepted = stored + dead_lettered + shed + discarded + in_flight` holds at every moment; the sum of frames
    /// at every moment of rest, as a frame that waits at the door has been received and has no answer yet.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.counters.frames_add_up() && self.events_add_up()
    }

    /// The accounting of events alone.
    #[must_use]
    pub fn events_add_up(&self) -> bool {
        self.counters.accepted == self.counters.settled() + self.in_flight
    }
}

/// The frames of one source, from the start of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SourceCounters {
    /// Frames that came.
    pub received: u64,
    /// Those that became accepted events.
    pub accepted: u64,
    /// Those that had been accepted before.
    pub duplicate: u64,
    /// Those of muted tenants.
    pub muted: u64,
    /// Those above their tenant's rate.
    pub throttled: u64,
    /// Those refused: the tenant's budget was full, or no further tenant may come up.
    pub rejected: u64,
    /// Those that were no event.
    pub malformed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What its sender marked as sent before, whether or not it had come.
    pub redelivered: u64,
    /// How often it found its way back to what it reads from.
    pub reconnects: u64,
    /// Bytes that were lost before it could read them.
    pub lost_bytes: u64,
    /// Datagrams that were lost before it could take them in.
    pub lost_datagrams: u64,
}

impl SourceCounters {
    /// The accounting of frames: whether each received frame has its one answer. Holds at every moment of rest.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.received == self.accepted + self.duplicate + self.muted + self.throttled + self.rejected + self.malformed
    }
}

/// A source's counters where its connections share them.
#[derive(Debug, Default)]
pub(crate) struct SourceLedger {
    counters: Mutex<SourceCounters>,
    open: AtomicUsize,
    /// How those are doing that were added under its name and have not ended as they should.
    standings: Mutex<Vec<watch::Receiver<Standing>>>,
}

/// How a source is doing.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) outage: Option<Outage>,
    /// The supervisor log has it.
    pub(crate) is_told: bool,
    /// It has brought in all that it was to.
    pub(crate) is_over: bool,
}

impl SourceLedger {
    pub(crate) fn lock(&self) -> MutexGuard<'_, SourceCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ways into the source are open: none while there is nobody at their other end.
    pub(crate) fn open(&self) -> usize {
        match self.outage() {
            Some(Some(outage)) if !outage.is_partial => 0,
            _ => self.open.load(Ordering::Relaxed),
        }
    }

    /// A source was added.
    pub(crate) fn watch(&self, standing: watch::Receiver<Standing>) {
        let mut standings = self.standings();
        standings.retain(|standing| !standing.borrow().is_over);
        standings.push(standing);
    }

    /// Why a source of this name brings nothing in, if one does not; `None` where none runs.
    pub(crate) fn outage(&self) -> Option<Option<Outage>> {
        let standings = self.standings();
        let mut running =
            standings.iter().map(|standing| standing.borrow()).filter(|standing| !standing.is_over).peekable();
        running.peek()?;
        Some(running.find_map(|standing| standing.outage.clone()))
    }

    fn standings(&self) -> MutexGuard<'_, Vec<watch::Receiver<Standing>>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way into a source: open for as long as it lives.
pub(crate) struct WayIn(Arc<SourceLedger>);

impl WayIn {
    pub(crate) fn new(source: Arc<SourceLedger>) -> Self {
        source.open.fetch_add(1, Ordering::Relaxed);
        Self(source)
    }
}

impl Drop for WayIn {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
