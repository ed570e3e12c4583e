//! What of a tenant lies in the journal alone: accepted while its memory was full, and read back in order.
//!
//! Spilled chunks follow on those in memory without a gap, and as long as there are any, all that arrives joins them: so a lane
//! remembers where they end and what they come to, and nothing of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Advanced, Lane, Over, Record, State};
use crate::model::{Batch, BatchId, Chunk, FlushReason, Origin, Seq};
use crate::policy::{AckLevel, WhenFull, Window};
use crate::port::work::Waiting;
use crate::port::{ChunkPlace, Entry, RecoveredChunk};

/// Chunks behind those in memory.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Spill {
    /// How many. The seq of the first is that of the next one in memory.
    pub(super) chunks: u64,
    pub(super) events: u64,
    /// About what they take on disk.
    pub(super) bytes: u64,
    /// The positions that a journal does not keep: of streams that nobody takes up again. By seq.
    origins: BTreeMap<u64, Origin>,
    /// The memory of those, which is a part of the lane's.
    kept: usize,
}

impl Spill {
    /// `chunks` of an earlier process stay in the journal, of which these are told.
    pub(super) fn left(&mut self, chunks: u64, told: &[RecoveredChunk]) {
        self.chunks = chunks;
        self.events = told.iter().map(|chunk| u64::from(chunk.events)).sum();
        self.bytes = told.iter().map(|chunk| chunk.bytes as u64).sum();
    }
}

/// A chunk was spilled.
pub(crate) struct Spilled {
    /// Whether it is the first one.
    pub(crate) begins: bool,
    /// How safe its events must be at least before their sender is told.
    pub(crate) ack: AckLevel,
    /// What it goes on taking in memory.
    pub(crate) kept: usize,
    /// What was taken off it before, since it was above the tenant's rate.
    pub(crate) over: Option<Over>,
}

/// Why a chunk was not spilled.
pub(crate) enum Unspilled {
    /// The tenant's rules say otherwise, its quota is reached, or the journal keeps nothing.
    Not(Box<Chunk>),
    /// None of it may pass, by the tenant's rate.
    Over(Over),
}

/// What is to be read back next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing is spilled.
    Nothing,
    /// The memory is not free enough. Whether all of it lies in the open window, so that only closing that makes room.
    Room { in_window: bool },
    /// The chunks from this seq on, of so many bytes; where nothing is in memory, one of any size.
    From { seq: u64, bytes: usize, any: bool },
}

/// What was read back.
#[derive(Default)]
pub(crate) struct TakenBack {
    /// How much more memory the lane holds.
    pub(crate) bytes: usize,
    /// Events that could not be read, which are lost.
    pub(crate) lost: u64,
    /// Where they stood, as far as it is known.
    pub(crate) lost_origins: Vec<Origin>,
    /// What was cut before them.
    pub(crate) advanced: Vec<Advanced>,
    /// Whether nothing is spilled any more.
    pub(crate) caught_up: bool,
}

/// About what a chunk takes on disk, in bytes: the same number before and after.
fn on_disk(chunk: &Chunk) -> u64 {
    (64 + chunk.body_bytes() + chunk.len() * 4) as u64
}

/// The memory of a chunk's positions where they must be kept.
fn passing(chunk: &Chunk) -> usize {
    let passing = chunk.origin().filter(|origin| !origin.stream.is_lasting());
    passing.map_or(0, |origin| 64 + origin.positions.len() * 8)
}

impl Lane {
    /// Accepts a chunk into the journal alone, as far as the tenant's rate lets it pass. `waited` is whether it was held for as long
    /// as `block` may.
    ///
    /// As for [`accept`](Self::accept), the entry is added to `record`.
    pub(crate) fn spill(
        &self,
        chunk: Box<Chunk>,
        at: Instant,
        record: &mut Record,
        waited: bool,
    ) -> Result<Spilled, Unspilled> {
        let state = &mut *self.lock();
        let overflow = &state.policy.overflow;
        let begins = state.spill.chunks == 0;
        let may = match overflow.when_full {
            WhenFull::Spill => true,
            // The first one was held for long enough, for all that must stay behind it.
            WhenFull::Block => waited || !begins,
            // What an earlier process left is followed, not overtaken.
            WhenFull::DropOldest => !begins,
            WhenFull::Reject => false,
        };
        let (bytes, kept) = (on_disk(&chunk), passing(&chunk));
        let fits = state.spill.bytes + bytes <= overflow.max_spilled as u64
            && state.spill.kept + kept <= overflow.max_in_flight / 2;
        let Some(journal) = self.journal.as_ref().filter(|_| may && fits && !state.gone) else {
            return Err(Unspilled::Not(chunk));
        };
        let passes = state.may_pass(&chunk, at);
        let (chunk, over) = state.pass(*chunk, passes, at).map_err(Unspilled::Over)?;
        let (bytes, kept) = (on_disk(&chunk), passing(&chunk));
        let seq = state.next_chunk();
        let events = chunk.len() as u64;
        state.counters.accepted += events;
        state.counters.spilled += events;
        self.holds(state.bytes, state.bytes + kept);
        state.bytes += kept;
        *state.last(record.is_own) = Some(at);
        let spill = &mut state.spill;
        spill.chunks += 1;
        spill.events += events;
        spill.bytes += bytes;
        spill.kept += kept;
        if kept > 0 {
            spill.origins.extend(chunk.origin().map(|origin| (seq, origin.clone())));
        }
        record.tap(&chunk, at, seq);
        record.push(journal, Entry::Chunk { seq, chunk: Arc::new(chunk) });
        Ok(Spilled { begins, ack: state.policy.ack, kept, over })
    }

    /// Whether anything is spilled.
    pub(crate) fn is_spilling(&self) -> bool {
        self.lock().spill.chunks > 0
    }

    /// What is to be read back next: not before half of the memory is free, so that there is enough for whole windows.
    pub(crate) fn wanted_back(&self) -> Wanted {
        let state = self.lock();
        if state.spill.chunks == 0 {
            return Wanted::Nothing;
        }
        let most = state.policy.overflow.max_in_flight;
        let used = state.bytes - state.spill.kept;
        if used > most / 2 {
            return Wanted::Room { in_window: state.batches.is_empty() };
        }
        Wanted::From { seq: state.first + state.chunks.len() as u64, bytes: most - used, any: used == 0 }
    }

    /// Takes spilled chunks back, in order, as if they had just arrived. What could not be read is lost.
    pub(crate) fn take_back(&self, back: Vec<(RecoveredChunk, Option<Chunk>)>, now: Instant) -> TakenBack {
        let state = &mut *self.lock();
        let before = state.bytes;
        let mut taken = TakenBack::default();
        for (told, chunk) in back {
            let seq = state.first + state.chunks.len() as u64;
            if seq != told.seq || state.spill.chunks == 0 {
                break;
            }
            let origin = state.spill.origins.remove(&seq);
            let kept = origin.as_ref().map_or(0, |origin| 64 + origin.positions.len() * 8);
            state.spill.kept -= kept;
            state.bytes -= kept;
            state.spill.chunks -= 1;
            match chunk {
                Some(chunk) => {
                    state.spill.events = state.spill.events.saturating_sub(chunk.len() as u64);
                    state.spill.bytes = state.spill.bytes.saturating_sub(on_disk(&chunk));
                    let fits = origin.filter(|origin| origin.positions.len() == chunk.len());
                    state.append(
                        match fits {
                            Some(origin) => chunk.with_origin(origin),
                            None => chunk,
                        },
                        now,
                    );
                }
                None => {
                    let events = u64::from(told.events);
                    state.spill.events = state.spill.events.saturating_sub(events);
                    state.spill.bytes = state.spill.bytes.saturating_sub(told.bytes as u64);
                    taken.lost_origins.extend(origin);
                    taken.advanced.extend(state.lose(self, told.events, now));
                    taken.lost += events;
                }
            }
        }
        if state.spill.chunks == 0 {
            taken.caught_up = true;
            // What was not on record after all, whatever it was.
            taken.lost += std::mem::take(&mut state.spill).events;
        }
        state.counters.accepted -= taken.lost;
        state.counters.received -= taken.lost;
        self.holds(before, state.bytes);
        taken.bytes = state.bytes.saturating_sub(before);
        taken
    }
}

impl State {
    /// The seq of the next chunk to be accepted.
    pub(super) fn next_chunk(&self) -> u64 {
        self.first + self.chunks.len() as u64 + self.spill.chunks
    }

    /// Puts a chunk that is on record behind those that are not cut.
    pub(super) fn append(&mut self, chunk: Chunk, at: Instant) {
        let footprint = chunk.footprint();
        self.push(chunk, at, footprint);
    }

    /// The next chunk cannot be read: it leaves as a batch of its own that holds nothing, so that a later process, which may be able
    /// to read it, does not find other events in a batch than were stored under its id. What came before it is cut first.
    pub(super) fn lose(&mut self, lane: &Lane, events: u32, now: Instant) -> Option<Advanced> {
        let mut window = Window::new(self.policy.window.clone());
        let mut cursor = self.uncut();
        let advanced = (self.chunks.sums().events > 0)
            .then(|| self.advance(lane, &mut cursor, &mut window, now, Some(FlushReason::Explicit)));
        let from = ChunkPlace { seq: self.first, index: super::index(self.cut_of_first) };
        let until = ChunkPlace { seq: self.first, index: events };
        if until <= from {
            // Nothing is known of it but its number.
            self.push(Chunk::lost(lane.tenant.clone()), now, 0);
            return advanced;
        }
        self.first += 1;
        self.cut_of_first = 0;
        self.cuts += 1;
        self.turn += 1;
        let id = BatchId::new(lane.opening, lane.tenant.clone(), Seq(self.cuts));
        let recorded = lane.record(|| Entry::Cut { batch: id.clone(), from, until });
        let batch = Batch::new(id, vec![]);
        self.batches.push_back(Waiting { batch, made: None, intended: None, recorded, cut_at: now, is_whole: false });
        advanced
    }
}
