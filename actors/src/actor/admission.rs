//! The door: whether a tenant's share of a read is accepted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::alarms::Alarm;
use super::registry::Shared;
use super::slot::Slot;
use super::spill;
use super::stage::Share;
use super::streams::Stream;
use crate::model::{Cause, Chunk, Code, Failure, Part, Role, SupervisorEvent, What};
use crate::observe::SourceCounters;
use crate::policy::AckLevel;
use crate::port::Position;
use crate::port::fault_point::fault_point;
use crate::port::lane::{Arrival, Frames, Over, Record};

/// What of a read goes on record, and who is told once it is.
#[derive(Default)]
pub(crate) struct OnRecord {
    pub(crate) record: Record,
    /// How many chunks were accepted.
    chunks: usize,
    /// The positions of each chunk, and the least level of its tenant.
    accepted: Vec<(Box<[u64]>, AckLevel)>,
    /// What was given up to make room for it, where it came in numbered streams.
    shed: Vec<Part>,
    /// What has to be said of it. Told when no lock is held: whoever is told may look at anything.
    failures: Vec<Failure>,
    events: Vec<SupervisorEvent>,
    pub(crate) stream: Option<Arc<Stream>>,
}

/// The positions of a chunk's events, where its sender numbers them.
pub(super) type Positions = Option<Box<[u64]>>;

impl OnRecord {
    pub(crate) fn new(shared: &Shared, stream: Option<Arc<Stream>>) -> Self {
        Self { stream, record: Record::new(shared.homes.are_several(), shared.taps.clone()), ..Self::default() }
    }

    /// Of an event that the system makes itself.
    pub(super) fn own(shared: &Shared) -> Self {
        let record = Self::new(shared, None);
        Self { record: record.record.own(), ..record }
    }

    /// A chunk was accepted: where its events stood, and how safe they must be at least before their sender is told.
    pub(super) fn accepted(&mut self, positions: Positions, least: AckLevel) {
        self.chunks += 1;
        self.accepted.extend(positions.map(|positions| (positions, least)));
    }

    /// The supervisor log is to have it.
    pub(super) fn tell(&mut self, event: SupervisorEvent) {
        self.events.push(event);
    }

    /// Appends it to the journal. Keeps its room for the next read.
    pub(crate) fn append(&mut self, shared: &Shared) -> Position {
        let at = self.record.append(&shared.journal);
        self.failures.drain(..).for_each(|failure| shared.failed(&failure));
        self.events.drain(..).for_each(|event| shared.log(event));
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

/// What of a tenant waits at the door, one behind the other.
pub(crate) struct Waiting {
    pub(super) slot: Arc<Slot>,
    pub(super) chunks: Vec<Chunk>,
}

/// What a chunk waits for, which comes back.
pub(super) enum Full {
    System(Box<Chunk>),
    Journal(Box<Chunk>),
    /// Its tenant holds as much as it may: of its own, or, until no more than so much is in use, of the memory of all.
    Tenant(Box<Chunk>, Option<usize>),
    /// What an earlier process left of the tenant comes first.
    Recovering(Box<Chunk>),
    /// The tenant is above its rate, until about then.
    Rate(Box<Chunk>, Instant),
}

impl Full {
    fn into_chunk(self) -> Box<Chunk> {
        match self {
            Self::System(chunk)
            | Self::Journal(chunk)
            | Self::Tenant(chunk, _)
            | Self::Recovering(chunk)
            | Self::Rate(chunk, _) => chunk,
        }
    }
}

/// Accepts or refuses a share at once, or puts it to what is `waiting`. Counts it either way, in the tenant's counters and
/// in `source`.
pub(crate) fn admit(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    share: Share<'_>,
    now: Instant,
    record: &mut OnRecord,
    waiting: &mut Vec<Waiting>,
) {
    let Share { slot, is_more, chunk, discarded } = share;
    let frames = discarded + chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
    if slot.muted.load(Ordering::Acquire) {
        shared.count(slot, |counters| {
            counters.received += frames;
            counters.muted += frames;
        });
        source.muted += frames;
        if let (Some(stream), Some(origin)) = (&record.stream, chunk.as_ref().and_then(Chunk::origin)) {
            stream.refused(&origin.positions, Code::Muted);
        }
        return;
    }
    let frames = Frames { received: frames, discarded };
    source.accepted += discarded;
    let Some(chunk) = chunk else {
        shared.count_frames(slot, frames);
        return;
    };
    // Not past what came before it.
    let before = if is_more { waiting.iter_mut().find(|waiting| waiting.slot.id == slot.id) } else { None };
    if let Some(before) = before {
        shared.count_frames(slot, frames);
        before.chunks.push(chunk);
    } else if let Err(full) = take_in(shared, source, slot, chunk, now, record, frames, false) {
        waiting.push(Waiting { slot: slot.clone(), chunks: vec![*full.into_chunk()] });
    }
}

/// Takes the chunk in by whatever way its tenant's rules have. `frames` are counted once, whatever the answer; `waited` is whether
/// it was held for as long as `block` may.
#[expect(clippy::too_many_arguments, reason = "what is known of a chunk at the door")]
pub(super) fn take_in(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    slot: &Arc<Slot>,
    chunk: Chunk,
    now: Instant,
    record: &mut OnRecord,
    frames: Frames,
    waited: bool,
) -> Result<(), Full> {
    let accepted = match accept(shared, source, slot, chunk, now, record, frames) {
        Err(Full::Tenant(chunk, _)) if make_room(shared, slot, &chunk, now, record) => {
            accept(shared, source, slot, *chunk, now, record, Frames::default())
        }
        answer => answer,
    };
    accepted.or_else(|full| spill::instead(shared, source, slot, full, record, waited))
}

/// Gives up the tenant's oldest events, by its policy. Whether it did.
#[cold]
fn make_room(shared: &Shared, slot: &Slot, chunk: &Chunk, now: Instant, record: &mut OnRecord) -> bool {
    let memory = shared.budget.with(chunk.footprint());
    let Some(shed) = slot.lane.shed(chunk, now, memory, &mut record.record) else { return false };
    shared.budget.unreserve(shed.bytes);
    record.shed.extend(shed.numbered);
    let cause = |detail| Cause::new(Code::Shed, detail);
    if shed.begins {
        let why = cause("the tenant is full: its oldest events are given up to make room for new ones".to_owned());
        record.tell(SupervisorEvent { cause: Some(why), ..slot.event(Role::Tenant, What::Shedding) });
    }
    let detail = format!("{} events given up to make room for newer ones, as overflow.when_full says", shed.events);
    record.failures.push(slot.failure(shared, cause(detail), shed.events));
    true
}

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
        shared.count_frames(slot, frames);
        return Err(Full::Recovering(chunk.into()));
    }
    if !shared.journal.has_room(footprint) {
        shared.count_frames(slot, frames);
        return Err(Full::Journal(chunk.into()));
    }
    let memory = match shared.budget.reserve(footprint) {
        Ok(memory) => memory,
        Err(memory) => {
            shared.count_frames(slot, frames);
            // Who holds most makes room first, if only by not asking for more.
            return Err(match slot.lane.above_share(footprint, memory) {
                level @ Some(_) => Full::Tenant(chunk.into(), level),
                None => Full::System(chunk.into()),
            });
        }
    };
    match slot.lane.accept(chunk, now, &mut record.record, frames, memory) {
        Arrival::Accepted { wake, due, ack, footprint: kept, over } => {
            shared.budget.unreserve_part(footprint, kept);
            if let Some(due) = due {
                shared.alarms.set(due, slot, Alarm::Window);
            }
            if wake {
                slot.hint_chunks(shared);
            }
            accepted(shared, source, slot, record, events, positions, ack, over)
        }
        Arrival::Over(over) => {
            shared.budget.unreserve(footprint);
            above_rate(shared, source, slot, record, over, positions)
        }
        Arrival::Gone(chunk) => {
            shared.budget.unreserve(footprint);
            accept(shared, source, &shared.wake(&slot.id), *chunk, now, record, frames)
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

/// The chunk was accepted, but for what of it is `over` the tenant's rate.
#[expect(clippy::too_many_arguments, reason = "what is known of a chunk at the door")]
pub(super) fn accepted(
    shared: &Shared,
    source: &mut SourceCounters,
    slot: &Slot,
    record: &mut OnRecord,
    events: u64,
    positions: Positions,
    ack: AckLevel,
    over: Option<Over>,
) -> Result<(), Full> {
    let over_events = over.as_ref().map_or(0, Over::events);
    source.accepted += events - over_events as u64;
    let (front, rest) = split(positions, over_events);
    record.accepted(front, ack);
    over.map_or(Ok(()), |over| above_rate(shared, source, slot, record, over, rest))
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
pub(super) fn above_rate(
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

/// So many events are above the tenant's rate.
pub(super) fn throttled(shared: &Shared, slot: &Slot, events: u64) -> Failure {
    let rates = slot.policy().throttle.rates();
    let cause = Cause::new(Code::Throttled, format!("{events} events refused: the tenant is above {rates}"));
    slot.failure(shared, cause, events)
}
