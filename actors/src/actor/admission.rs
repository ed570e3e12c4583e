//! The door: whether a tenant's share of a read is accepted, and what happens while it cannot be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::alarms::Alarm;
use super::registry::Shared;
use super::slot::Slot;
use super::spill;
use super::stage::Share;
use super::streams::Stream;
use crate::model::{Cause, Chunk, Code, FlushReason, Part, Role, SupervisorEvent, What};
use crate::observe::{SourceCounters, SourceLedger};
use crate::policy::{AckLevel, WhenFull};
use crate::port::fault_point::fault_point;
use crate::port::lane::{Arrival, Frames};
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
    /// What was given up to make room for it, where it came in numbered streams.
    shed: Vec<Part>,
    pub(crate) stream: Option<Arc<Stream>>,
}

impl OnRecord {
    pub(crate) fn new(stream: Option<Arc<Stream>>) -> Self {
        Self { stream, ..Self::default() }
    }

    /// A chunk was accepted: where its events stood, and how safe they must be at least before their sender is told.
    pub(super) fn accepted(&mut self, positions: Option<Box<[u64]>>, least: AckLevel) {
        self.chunks += 1;
        self.accepted.extend(positions.map(|positions| (positions, least)));
    }

    /// Appends it to the journal. Keeps its room for the next read.
    pub(crate) fn append(&mut self, shared: &Shared) -> Position {
        let at = shared.record(&mut self.entries);
        for _ in 0..std::mem::take(&mut self.chunks) {
            fault_point("after-accept");
        }
        if let Some(stream) = &self.stream {
            for (positions, least) in self.accepted.drain(..) {
                stream.accepted(&positions, least, at);
            }
        }
        for Part { chunk, range } in self.shed.drain(..) {
            if let Some(origin) = chunk.origin()
                && let Some(stream) = shared.streams.get(&origin.stream)
            {
                stream.shed(&origin.positions[range], at);
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

pub(super) enum Full {
    System(Chunk),
    Journal(Chunk),
    /// It holds as much as it may: of its own, or, until no more than so much is in use, of the memory of all.
    Tenant(Chunk, Option<usize>),
    /// What an earlier process left of the tenant comes first.
    Recovering(Chunk),
}

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
    let accepted = accept_or_shed(shared, source, slot, chunk, now, record, frames);
    match accepted.or_else(|full| spill::instead(shared, source, slot, full, record, false)) {
        Ok(()) => None,
        Err(Full::System(chunk) | Full::Journal(chunk) | Full::Tenant(chunk, _) | Full::Recovering(chunk)) => {
            Some(Waiting { slot: slot.clone(), chunk })
        }
    }
}

/// Where the tenant is full, room is made for the chunk, if that is the tenant's rule and there is anything to be given up.
#[expect(clippy::result_large_err, reason = "the chunk goes back to whoever waits with it, where there is no hurry")]
fn accept_or_shed(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    slot: &Arc<Slot>,
    chunk: Chunk,
    now: Instant,
    record: &mut OnRecord,
    frames: Frames,
) -> Result<(), Full> {
    match accept(shared, source, slot, chunk, now, record, frames) {
        Err(Full::Tenant(chunk, _)) if make_room(shared, slot, chunk.footprint(), record) => {
            accept(shared, source, slot, chunk, now, record, Frames::default())
        }
        answer => answer,
    }
}

/// Gives up the tenant's oldest events, by its policy. Whether it did.
#[cold]
fn make_room(shared: &Shared, slot: &Slot, footprint: usize, record: &mut OnRecord) -> bool {
    let memory = shared.budget.with(footprint);
    let Some(shed) = slot.lane.shed(footprint, memory, &mut record.entries) else { return false };
    shared.budget.unreserve(shed.bytes);
    record.shed.extend(shed.numbered);
    let cause = |detail| Cause::new(Code::Shed, detail);
    if shed.begins {
        let why = cause("the tenant is full: its oldest events are given up to make room for new ones".to_owned());
        shared.log(SupervisorEvent { cause: Some(why), ..slot.event(Role::Tenant, What::Shedding) });
    }
    let detail = format!("{} events given up to make room for newer ones, as overflow.when_full says", shed.events);
    shared.failed(&slot.failure(shared, cause(detail), shed.events));
    true
}

/// `frames` are counted once, whatever the answer.
#[expect(clippy::result_large_err, reason = "the chunk goes back to whoever waits with it, where there is no hurry")]
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
    if slot.recovering.load(Ordering::Acquire) {
        slot.lane.count_frames(frames);
        return Err(Full::Recovering(chunk));
    }
    if !shared.journal.has_room(footprint) {
        slot.lane.count_frames(frames);
        return Err(Full::Journal(chunk));
    }
    let memory = match shared.budget.reserve(footprint) {
        Ok(memory) => memory,
        Err(memory) => {
            slot.lane.count_frames(frames);
            // Who holds most makes room first, if only by not asking for more.
            return Err(match slot.lane.above_share(footprint, memory) {
                level @ Some(_) => Full::Tenant(chunk, level),
                None => Full::System(chunk),
            });
        }
    };
    match slot.lane.accept(chunk, now, &mut record.entries, frames, memory) {
        Arrival::Accepted { wake, due, ack } => {
            source.accepted += events;
            record.accepted(positions, ack);
            if let Some(due) = due {
                shared.alarms.set(due, slot, Alarm::Window);
            }
            if wake {
                slot.hint_chunks(shared);
            }
            Ok(())
        }
        Arrival::Full(chunk) => {
            shared.budget.unreserve(footprint);
            Err(Full::Tenant(chunk, None))
        }
        Arrival::AboveShare(chunk, level) => {
            shared.budget.unreserve(footprint);
            Err(Full::Tenant(chunk, Some(level)))
        }
    }
}

/// Waits until every share has been accepted or, by its tenant's policy, rejected.
///
/// Shares of different tenants wait side by side: one that may move does not wait for one that may not.
pub(crate) async fn wait(
    shared: &Arc<Shared>,
    source: &SourceLedger,
    stream: Option<&Arc<Stream>>,
    waiting: Vec<Waiting>,
) {
    futures::future::join_all(waiting.into_iter().map(|one| wait_one(shared, source, stream, one))).await;
}

async fn wait_one(
    shared: &Arc<Shared>,
    source: &SourceLedger,
    stream: Option<&Arc<Stream>>,
    Waiting { mut slot, mut chunk }: Waiting,
) {
    let mut blocked = Duration::ZERO;
    let mut others = settled_by_others(shared, &slot);
    loop {
        // Its tenant may have been passivated while this waited for something else.
        slot = shared.present(&slot);
        let mut tenant_room = std::pin::pin!(slot.room.notified());
        tenant_room.as_mut().enable();
        let mut record = OnRecord::new(stream.cloned());
        let accepted = {
            let (source, record) = (&mut source.lock(), &mut record);
            let waited = blocked >= slot.policy().overflow.block_for;
            accept_or_shed(shared, source, &slot, chunk, Instant::now(), record, Frames::default())
                .or_else(|full| spill::instead(shared, source, &slot, full, record, waited))
        };
        if accepted.is_ok() || !record.entries.is_empty() || !record.shed.is_empty() {
            record.append(shared);
        }
        match accepted {
            Ok(()) => return,
            Err(Full::Journal(back)) => {
                chunk = back;
                let is_spilling = slot.lane.is_spilling();
                if is_spilling && blocked >= slot.policy().overflow.block_for {
                    return reject(shared, source, stream, &slot, &chunk, false);
                }
                let began = Instant::now();
                let _ = tokio::time::timeout(GLANCE, shared.journal.room()).await;
                if is_spilling {
                    let now = settled_by_others(shared, &slot);
                    blocked += if now == others { Duration::ZERO } else { began.elapsed() };
                    others = now;
                }
            }
            Err(Full::Recovering(back)) => {
                chunk = back;
                tenant_room.await;
            }
            Err(Full::System(back)) => {
                chunk = back;
                let system_room = shared.budget.room_for(chunk.footprint());
                if relieve(shared) {
                    system_room.await;
                } else {
                    // The windows may hold all there is, so that nothing else would ever make room.
                    let _ = tokio::time::timeout(PRESSURE_EVERY, system_room).await;
                }
            }
            Err(Full::Tenant(back, level)) => {
                chunk = back;
                let policy = slot.policy();
                let policy = &policy.overflow;
                if policy.when_full != WhenFull::Block || blocked >= policy.block_for {
                    return reject(shared, source, stream, &slot, &chunk, level.is_some());
                }
                if slot.lane.has_uncut() && slot.lane.snapshot().batches == 0 {
                    slot.want_flush(shared, FlushReason::Pressure);
                }
                let memory = std::pin::pin!(async {
                    match level {
                        Some(level) => shared.budget.falls_to(level).await,
                        None => std::future::pending().await,
                    }
                });
                let room = futures::future::select(tenant_room, memory);
                if tokio::time::timeout(GLANCE, room).await.is_err() {
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

fn reject(
    shared: &Shared,
    source: &SourceLedger,
    stream: Option<&Arc<Stream>>,
    slot: &Slot,
    chunk: &Chunk,
    is_above_share: bool,
) {
    if let (Some(stream), Some(origin)) = (stream, chunk.origin()) {
        stream.refused(&origin.positions, Code::TenantFull);
    }
    let events = chunk.len() as u64;
    slot.lane.count(|counters| counters.rejected += events);
    source.lock().rejected += events;
    let max = slot.policy().overflow.max_in_flight;
    let mut detail = match is_above_share {
        true => format!(
            "{events} events refused: the memory of all tenants is scarce, and this one holds more than its share"
        ),
        false => format!("{events} events refused: the tenant has overflow.max_in_flight = {max} bytes in flight"),
    };
    let (_, spilled) = slot.lane.snapshot().spilled;
    if spilled > 0 {
        detail += &format!(", and {spilled} bytes in the journal alone");
    }
    shared.failed(&slot.failure(shared, Cause::new(Code::TenantFull, detail), events));
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
