//! Windows over a lane, and the batches that they are cut into.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::uncut::Taken;
use super::{Lane, State, index};
use crate::model::{Attempt, Batch, BatchId, FlushReason, Part, Seq};
use crate::observe::Flushed;
use crate::policy::Window;
use crate::port::fault_point::fault_point;
use crate::port::work::Waiting;
use crate::port::{ChunkPlace, Entry};

/// Where a window over the lane stands: the seq of the next chunk, and whether that is still so. What of it is not cut comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    seq: u64,
    turn: u64,
}

/// What a look at the lane came to.
#[derive(Debug, Default)]
pub(crate) struct Advanced {
    /// How many events the window took.
    pub(crate) events: usize,
    /// Whether no batch waited before that.
    pub(crate) was_clear: bool,
    /// The windows that closed.
    pub(crate) flushed: SmallVec<[Flushed; 1]>,
    /// The memory of the events in them.
    pub(crate) cut_bytes: usize,
    /// When the open window is due, if no alarm is set for it.
    pub(crate) alarm: Option<Instant>,
}

impl Lane {
    /// The alarm for the window went off.
    pub(crate) fn alarm_rang(&self) {
        self.lock().alarmed = false;
    }

    /// The alarm for the window went off, and it is cut without its tenant: what a fresh tenant would do at once.
    pub(crate) fn cut_due(&self, now: Instant, flush: Option<FlushReason>) -> Advanced {
        let mut state = self.lock();
        state.alarmed = false;
        let mut cursor = state.uncut();
        let mut window = Window::new(state.policy.window.clone());
        state.advance(self, &mut cursor, &mut window, now, flush)
    }

    /// Where a fresh window begins: behind the last cut.
    pub(crate) fn uncut(&self) -> Cursor {
        self.lock().uncut()
    }

    /// Whether anything lies in the open window or came after it.
    pub(crate) fn has_uncut(&self) -> bool {
        self.lock().chunks.sums().events > 0
    }

    /// Offers the window what came since `cursor`, and cuts a batch whenever it closes: because it is full, because its
    /// time has come, or because `flush` asks for it.
    pub(crate) fn advance(
        &self,
        cursor: &mut Cursor,
        window: &mut Window,
        now: Instant,
        flush: Option<FlushReason>,
    ) -> Advanced {
        self.lock().advance(self, cursor, window, now, flush)
    }
}

impl State {
    /// Where a fresh window begins.
    pub(super) fn uncut(&self) -> Cursor {
        Cursor { seq: self.first, turn: self.turn }
    }

    /// See [`Lane::advance`].
    pub(super) fn advance(
        &mut self,
        lane: &Lane,
        cursor: &mut Cursor,
        window: &mut Window,
        now: Instant,
        flush: Option<FlushReason>,
    ) -> Advanced {
        // Another cut what this window had counted, or something was put before it, or its rules are others now.
        if cursor.turn != self.turn {
            *cursor = self.uncut();
            *window = Window::new(self.policy.window.clone());
        }
        let mut advanced = Advanced { was_clear: self.batches.is_empty(), ..Advanced::default() };
        while !self.holds_cuts(flush)
            && let Some(index) = cursor.seq.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
            && let Some(at) = self.chunks.accepted(index)
        {
            // By the time it was accepted: what came before the deadline belongs to the window, however late this look is.
            if window.is_due(at) {
                self.close(lane, window, now, FlushReason::Age, &mut advanced);
                continue;
            }
            let (chunks, sums) = self.chunks.fitting(index, window.room(at));
            if chunks > 0 {
                window.take(sums.events, sums.body_bytes, at);
                advanced.events += sums.events;
                cursor.seq += chunks as u64;
                continue;
            }
            // It holds none, or all that the window still takes, or more.
            let Some(Part { chunk, .. }) = self.chunks.get(index) else { break };
            let from = if index == 0 { self.cut_of_first.min(chunk.len()) } else { 0 };
            let (taken, full) = window.push(chunk.len() - from, |n| chunk.body_bytes_of(from..from + n), at);
            advanced.events += taken;
            cursor.seq += u64::from(from + taken == chunk.len());
            if let Some(reason) = full {
                self.close(lane, window, now, reason, &mut advanced);
            }
        }
        if self.holds_cuts(flush) {
            // It goes on once a batch has its outcome.
            (cursor.turn, self.due) = (self.turn, None);
            return advanced;
        }
        if window.is_due(now) {
            self.close(lane, window, now, FlushReason::Age, &mut advanced);
        } else if let Some(reason) = flush {
            self.close(lane, window, now, reason, &mut advanced);
        }
        cursor.turn = self.turn;
        self.due = window.deadline();
        if let Some(due) = self.due
            && !std::mem::replace(&mut self.alarmed, true)
        {
            advanced.alarm = Some(due);
        }
        advanced
    }

    /// Cuts what the window had counted into a batch.
    pub(super) fn close(
        &mut self,
        lane: &Lane,
        window: &mut Window,
        now: Instant,
        reason: FlushReason,
        told: &mut Advanced,
    ) {
        let lateness = window.deadline().map(|deadline| now.saturating_duration_since(deadline));
        let Some(events) = window.close() else { return };
        let from = ChunkPlace { seq: self.first, index: index(self.cut_of_first) };
        let Taken { parts, sums, chunks, end, goes_on } = self.chunks.take(events, self.cut_of_first);
        self.first += chunks as u64;
        self.cut_of_first = if goes_on { end } else { 0 };
        let until = ChunkPlace { seq: self.first - u64::from(!goes_on), index: index(end) };
        self.cuts += 1;
        self.turn += 1;
        let id = BatchId::new(lane.opening, lane.tenant.clone(), Seq(self.cuts));
        // Not before the hooks have been at it: a batch that was begun does not pass through them again.
        let intended = lane.stores.names().next().filter(|_| !lane.has_hooks).cloned();
        // What the batch holds, and that it is about to be stored, before the first attempt: in one write.
        let recorded = lane.journal.as_ref().map(|journal| {
            let cut = Entry::Cut { batch: id.clone(), from, until };
            let intent = intended.clone().map(|store| Entry::Intent { batch: id.clone(), store, attempt: Attempt(1) });
            journal.append(&mut [cut].into_iter().chain(intent).collect())
        });
        let batch = Batch::measured(id, parts, sums.events, sums.body_bytes);
        self.cut += batch.len() as u64;
        self.counters.flushed(reason);
        told.cut_bytes += sums.footprint;
        told.flushed.push(Flushed { reason, events, lateness: lateness.unwrap_or_default() });
        self.batches.push_back(Waiting { batch, made: None, intended, recorded, cut_at: now, is_whole: true });
        fault_point("after-cut");
    }
}
