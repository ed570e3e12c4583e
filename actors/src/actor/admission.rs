//! The door: whether a tenant's share of a read is accepted, and what happens while it cannot be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::alarms::Alarm;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use super::stage::Share;
use super::streams::Stream;
use crate::model::{Cause, Chunk, Code, Failure, FlushReason};
use crate::observe::{SourceCounters, SourceLedger};
use crate::policy::{AckLevel, WhenFull};
use crate::port::fault_point::fault_point;
use crate::port::lane::{Arrival, Frames, Over};
use crate::port::{Entry, Position};

/// How often a blocked connection looks whether others make progress.
const GLANCE: Duration = Duration::from_millis(100);

/// Windows are closed to make room at most this often.
pub(super) const PRESSURE_EVERY: Duration = Duration::from_millis(20);

/// What of a read goes on record, and who is told once it is.
#[derive(Default)]
pub(crate) struct OnRecord {
    pub(crate) entries: Vec<Entry>,
    /// How many chunks were accepted.
    chunks: usize,
    /// The positions of each chunk, and the least level of its tenant.
    accepted: Vec<(Box<[u64]>, AckLevel)>,
    /// What was refused at once. Told when no lock is held: whoever is told may look at anything.
    failures: Vec<Failure>,
    pub(crate) stream: Option<Arc<Stream>>,
}

impl OnRecord {
    pub(crate) fn new(stream: Option<Arc<Stream>>) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Appends it to the journal. Keeps its room for the next read.
    pub(crate) fn append(&mut self, shared: &Shared) -> Position {
        let at = shared.record(&mut self.entries);
        self.failures.drain(..).for_each(|failure| shared.failed(&failure));
        for _ in 0..std::mem::take(&mut self.chunks) {
            fault_point("after-accept");
        }
        if let Some(stream) = &self.stream {
            for (positions, least) in self.accepted.drain(..) {
                stream.accepted(&positions, least, at);
            }
        }
        at
    }
}

/// What waits at the door.
pub(crate) struct Waiting {
    slot: Arc<Slot>,
    chunk: Chunk,
}

enum Full {
    System(Chunk),
    Journal(Chunk),
    Tenant(Chunk),
    /// What an earlier process left of the tenant comes first.
    Recovering(Chunk),
    /// The tenant is above its rate, until about then.
    Rate(Box<Chunk>, Instant),
}

impl Full {
    fn into_chunk(self) -> Chunk {
        match self {
            Self::System(chunk) | Self::Journal(chunk) | Self::Tenant(chunk) | Self::Recovering(chunk) => chunk,
            Self::Rate(chunk, _) => *chunk,
        }
    }
}

/// The positions of a chunk's events, where its sender numbers them.
type Positions = Option<Box<[u64]>>;

/// Accepts or refuses a share at once, or says that it has to wait. Counts it either way, in the tenant's counters and
/// in `source`.
pub(crate) fn admit(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    share: Share<'_>,
    now: Instant,
    record: &mut OnRecord,
) -> Option<Waiting> {
    let Share { slot, chunk, discarded } = share;
    let frames = discarded + chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
    if slot.muted.load(Ordering::Acquire) {
        slot.lane.count(|counters| {
            counters.received += frames;
            counters.muted += frames;
        });
        source.muted += frames;
        if let (Some(stream), Some(origin)) = (&record.stream, chunk.as_ref().and_then(Chunk::origin)) {
            stream.refused(&origin.positions, Code::Muted);
        }
        return None;
    }
    let frames = Frames { received: frames, discarded };
    source.accepted += discarded;
    let Some(chunk) = chunk else {
        slot.lane.count_frames(frames);
        return None;
    };
    match accept(shared, source, slot, chunk, now, record, frames) {
        Ok(()) => None,
        Err(full) => Some(Waiting { slot: slot.clone(), chunk: full.into_chunk() }),
    }
}

/// `frames` are counted once, whatever the answer.
fn accept(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    slot: &Arc<Slot>,
    chunk: Chunk,
    now: Instant,
    record: &mut OnRecord,
    frames: Frames,
) -> Result<(), Full> {
    let positions = chunk.origin().map(|origin| origin.positions.clone());
    let (footprint, events) = (chunk.footprint(), chunk.len() as u64);
    let _span = tracing::trace_span!(target: "headworks", "chunk", tenant = %slot.id, events).entered();
    let full = if slot.recovering.load(Ordering::Acquire) {
        Some(Full::Recovering as fn(Chunk) -> Full)
    } else if !shared.journal.has_room(footprint) {
        Some(Full::Journal as fn(Chunk) -> Full)
    } else if !shared.budget.reserve(footprint) {
        Some(Full::System as fn(Chunk) -> Full)
    } else {
        None
    };
    if let Some(full) = full {
        slot.lane.count_frames(frames);
        return Err(full(chunk));
    }
    match slot.lane.accept(chunk, now, &mut record.entries, frames) {
        Arrival::Accepted { wake, due, ack, footprint: kept, over } => {
            record.chunks += 1;
            shared.budget.unreserve_part(footprint, kept);
            let over_events = over.as_ref().map_or(0, Over::events);
            source.accepted += events - over_events as u64;
            let (front, rest) = split(positions, over_events);
            record.accepted.extend(front.map(|positions| (positions, ack)));
            if let Some(due) = due {
                shared.alarms.set(due, slot, Alarm::Window);
            }
            if wake {
                slot.hint_chunks(shared);
            }
            over.map_or(Ok(()), |over| above_rate(shared, source, slot, record, over, rest))
        }
        Arrival::Over(over) => {
            shared.budget.unreserve(footprint);
            above_rate(shared, source, slot, record, over, positions)
        }
        Arrival::Full(chunk) => {
            shared.budget.unreserve(footprint);
            Err(Full::Tenant(chunk))
        }
    }
}

/// The positions of what was accepted, and those of the last `over`, which were not.
fn split(positions: Positions, over: usize) -> (Positions, Positions) {
    match positions {
        Some(positions) if over > 0 => {
            let (front, rest) = positions.split_at(positions.len() - over);
            (Some(front.into()), Some(rest.into()))
        }
        all => (all, None),
    }
}

/// What is above the tenant's rate waits, or was refused.
fn above_rate(
    shared: &Shared,
    source: &mut SourceCounters,
    slot: &Slot,
    record: &mut OnRecord,
    over: Over,
    positions: Positions,
) -> Result<(), Full> {
    match over {
        Over::Delayed { rest, until } => Err(Full::Rate(rest, until)),
        Over::Refused { events, retry_after } => {
            source.throttled += events as u64;
            if let (Some(stream), Some(positions)) = (&record.stream, positions) {
                stream.throttled(&positions, retry_after);
            }
            record.failures.push(throttled(shared, slot, events as u64));
            Ok(())
        }
    }
}

fn throttled(shared: &Shared, slot: &Slot, events: u64) -> Failure {
    let rates = slot.policy().throttle.rates();
    slot.failure(
        shared,
        Cause::new(Code::Throttled, format!("{events} events refused: the tenant is above {rates}")),
        events,
    )
}

/// Waits until every share has been accepted or, by its tenant's policy, rejected. `is_shared` says that the connection has brought
/// events of several tenants.
///
/// Shares of different tenants wait side by side: one that may move does not wait for one that may not.
pub(crate) async fn wait(
    shared: &Arc<Shared>,
    source: &SourceLedger,
    stream: Option<&Arc<Stream>>,
    is_shared: bool,
    waiting: Vec<Waiting>,
) {
    futures::future::join_all(waiting.into_iter().map(|one| wait_one(shared, source, stream, is_shared, one))).await;
}

async fn wait_one(
    shared: &Arc<Shared>,
    source: &SourceLedger,
    stream: Option<&Arc<Stream>>,
    is_shared: bool,
    Waiting { slot, mut chunk }: Waiting,
) {
    let (mut blocked, mut delayed) = (Duration::ZERO, Duration::ZERO);
    let mut others = settled_by_others(shared, &slot);
    loop {
        let system_room = shared.budget.room().notified();
        let tenant_room = slot.room.notified();
        let (mut system_room, mut tenant_room) = (std::pin::pin!(system_room), std::pin::pin!(tenant_room));
        system_room.as_mut().enable();
        tenant_room.as_mut().enable();
        let mut rules = std::pin::pin!(shared.rules_changed.notified());
        rules.as_mut().enable();
        let mut record = OnRecord::new(stream.cloned());
        let accepted = accept(shared, &mut source.lock(), &slot, chunk, Instant::now(), &mut record, Frames::default());
        match accepted {
            Ok(()) => {
                record.append(shared);
                return;
            }
            Err(Full::Journal(back)) => {
                chunk = back;
                shared.journal.room().await;
            }
            Err(Full::Recovering(back)) => {
                chunk = back;
                tenant_room.await;
            }
            Err(Full::System(back)) => {
                chunk = back;
                if relieve(shared) {
                    system_room.await;
                } else {
                    // The windows may hold all there is, so that nothing else would ever make room.
                    let _ = tokio::time::timeout(PRESSURE_EVERY, system_room).await;
                }
            }
            Err(Full::Rate(back, until)) => {
                chunk = *back;
                // Where a part of it passed.
                record.append(shared);
                if shared.phase() > Phase::Running {
                    // Nothing more comes: what is here already is not lost for a rate.
                    slot.lane.unthrottle();
                    continue;
                }
                let now = Instant::now();
                let left = slot.policy().throttle.delay_for.saturating_sub(delayed);
                if !is_shared {
                    let _ = tokio::time::timeout_at(until, rules).await;
                } else if left.is_zero() {
                    return throttle(shared, source, stream, &slot, &chunk, until.saturating_duration_since(now));
                } else {
                    let _ = tokio::time::timeout_at(until.min(now + left), rules).await;
                    delayed += now.elapsed();
                }
            }
            Err(Full::Tenant(back)) => {
                chunk = back;
                let policy = slot.policy();
                let policy = &policy.overflow;
                if policy.when_full == WhenFull::Reject || blocked >= policy.block_for {
                    return reject(shared, source, stream, &slot, &chunk);
                }
                if slot.lane.has_uncut() && slot.lane.snapshot().batches == 0 {
                    slot.want_flush(shared, FlushReason::Pressure);
                }
                if tokio::time::timeout(GLANCE, tenant_room).await.is_err() {
                    let now = settled_by_others(shared, &slot);
                    blocked += if now == others { Duration::ZERO } else { GLANCE };
                    others = now;
                }
            }
        }
    }
}

fn settled_by_others(shared: &Shared, slot: &Slot) -> u64 {
    let all = shared.settled.load(Ordering::Acquire);
    all.wrapping_sub(slot.settled.load(Ordering::Acquire))
}

fn reject(shared: &Shared, source: &SourceLedger, stream: Option<&Arc<Stream>>, slot: &Slot, chunk: &Chunk) {
    if let (Some(stream), Some(origin)) = (stream, chunk.origin()) {
        stream.refused(&origin.positions, Code::TenantFull);
    }
    let events = chunk.len() as u64;
    slot.lane.count(|counters| counters.rejected += events);
    source.lock().rejected += events;
    let max = slot.policy().overflow.max_in_flight;
    let detail = format!("{events} events refused: the tenant has overflow.max_in_flight = {max} bytes in flight");
    shared.failed(&slot.failure(shared, Cause::new(Code::TenantFull, detail), events));
}

/// Refuses what has waited for its tenant's rate for as long as others bear with it.
fn throttle(
    shared: &Shared,
    source: &SourceLedger,
    stream: Option<&Arc<Stream>>,
    slot: &Slot,
    chunk: &Chunk,
    retry_after: Duration,
) {
    if let (Some(stream), Some(origin)) = (stream, chunk.origin()) {
        stream.throttled(&origin.positions, retry_after);
    }
    let events = chunk.len() as u64;
    slot.lane.count(|counters| counters.throttled += events);
    source.lock().throttled += events;
    shared.failed(&throttled(shared, slot, events));
}

/// The memory of the whole system is full: closes the windows, if that is where it lies. False where it is too soon
/// for that again.
pub(super) fn relieve(shared: &Shared) -> bool {
    if !shared.budget.lies_in_windows() {
        return true;
    }
    {
        let now = Instant::now();
        let mut last = shared.last_pressure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|last| now.duration_since(last) < PRESSURE_EVERY) {
            return false;
        }
        *last = Some(now);
    }
    for slot in shared.all_slots() {
        if slot.lane.has_uncut() {
            slot.want_flush(shared, FlushReason::Pressure);
        }
    }
    true
}
