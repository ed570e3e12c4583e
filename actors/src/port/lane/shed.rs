//! What a full tenant gives up to make room: its oldest events that are in no batch.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Lane, Record, State, index};
use crate::model::{Chunk, Code, FlushReason, Part};
use crate::policy::{Memory, WhenFull, share};
use crate::port::{ChunkPlace, Entry};

/// Where a tenant sheds, so many batches may be cut: the one that is being stored, and the next. What waits behind them can be shed.
const CUT_AHEAD: usize = 2;

/// A time in which a tenant gives up events, from the first until it has room again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shedding {
    events: u64,
    /// What the lane held when it was full last, in bytes.
    full_at: usize,
}

/// What was given up.
#[derive(Debug)]
pub(crate) struct Shed {
    pub(crate) events: u64,
    /// The memory it held.
    pub(crate) bytes: usize,
    /// The parts of it that came in numbered streams.
    pub(crate) numbered: Vec<Part>,
    /// Whether it is the first after a time in which there was room.
    pub(crate) begins: bool,
}

impl Lane {
    /// Gives up the oldest events that are in no batch, chunk by chunk, until there is room for what of the new one may pass by the
    /// tenant's rate; none where that would not help, or is not the tenant's rule. The rest of a chunk of which a part is cut goes like a whole one.
    ///
    /// The entry is added to `record`, which the caller appends before the lane can be looked at.
    pub(crate) fn shed(&self, chunk: &Chunk, at: Instant, mut memory: Memory, record: &mut Record) -> Option<Shed> {
        let state = &mut *self.lock();
        // What is spilled comes after all that is here, and what arrives after that: room here would not help it.
        if state.policy.overflow.when_full != WhenFull::DropOldest || state.spill.chunks > 0 {
            return None;
        }
        let passes = state.may_pass(chunk, at);
        if passes == 0 {
            return None;
        }
        let footprint = chunk.footprint_of_front(passes);
        let full_at = state.bytes;
        let (own, share) = (state.policy.overflow.max_in_flight, share(&state.policy));
        let mut held = state.bytes + footprint;
        let mut chunks = 0;
        // An empty lane takes a chunk of any size.
        while held > footprint && (held > own || held > memory.most(share)) || !memory.suffices() {
            let bytes = state.chunks.get(chunks)?.chunk.footprint();
            held -= bytes;
            memory.used -= bytes;
            chunks += 1;
        }
        if chunks == 0 {
            return None;
        }
        let mut shed = Shed { events: 0, bytes: state.bytes + footprint - held, numbered: vec![], begins: false };
        let from = ChunkPlace { seq: state.first, index: index(state.cut_of_first) };
        for Part { chunk, .. } in state.chunks.drain(chunks) {
            let range = std::mem::take(&mut state.cut_of_first)..chunk.len();
            state.first += 1;
            shed.events += range.len() as u64;
            shed.numbered.extend(numbered(chunk, range));
        }
        let until = ChunkPlace { seq: state.first, index: 0 };
        self.holds(state.bytes, state.bytes - shed.bytes);
        state.bytes -= shed.bytes;
        state.counters.shed += shed.events;
        // The window that counted them begins anew.
        state.turn += 1;
        state.due = state.chunks.accepted(0).map(|at| at + state.policy.window.max_age);
        shed.begins = state.shedding.is_none();
        let before = state.shedding.map_or(0, |shedding| shedding.events);
        state.shedding = Some(Shedding { events: before + shed.events, full_at });
        if let Some(journal) = &self.journal {
            let entry = Entry::Shed { tenant: self.tenant.clone(), from, until, events: shed.events };
            record.push_all(journal, [entry].into_iter().chain(shed.numbered.iter().filter_map(refused)));
        }
        Some(shed)
    }
}

/// What the next process has to know of events that were shed, whose sender may come to it before it has heard of that.
fn refused(Part { chunk, range }: &Part) -> Option<Entry> {
    let origin = chunk.origin().filter(|origin| origin.stream.is_lasting())?;
    Some(Entry::refused(origin.stream.clone(), &origin.positions[range.clone()], Code::Shed))
}

fn numbered(chunk: Arc<Chunk>, range: Range<usize>) -> Option<Part> {
    chunk.origin().is_some().then(|| Part { chunk: chunk.clone(), range })
}

impl State {
    /// Whether no further batch is cut for now, so that what waits can be shed. Whoever wants all of it stored gets it cut.
    pub(super) fn holds_cuts(&self, flush: Option<FlushReason>) -> bool {
        self.policy.overflow.when_full == WhenFull::DropOldest
            && self.batches.len() >= CUT_AHEAD
            && !matches!(flush, Some(FlushReason::Drain | FlushReason::Explicit))
    }

    /// How many events were given up in a time that is over now.
    pub(super) fn shedding_ended(&mut self) -> Option<u64> {
        let is_over = |shedding: &mut Shedding| self.bytes <= shedding.full_at / 2;
        self.shedding.take_if(is_over).map(|shedding| shedding.events)
    }
}
