//! Windows over a lane, and the batches that they are cut into.

use std::hint::black_box;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Lane, State, index};
use crate::model::{Attempt, Batch, BatchId, FlushReason, Part, Seq};
use crate::observe::Flushed;
use crate::policy::Window;
use crate::port::fault_point::fault_point;
use crate::port::work::Waiting;
use crate::port::{ChunkPlace, Entry};

/// Where a window over the lane stands: the chunk's seq, the events of it that it has seen, and whether that is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    seq: u64,
    offset: usize,
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
        self.lock().uncut > 0
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
        Cursor { seq: self.first, offset: self.cut_of_first, turn: self.turn }
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
        match self.whole(cursor, window, flush) {
            Some(at) => {
                advanced.events = window.take(self.uncut, self.uncut_bytes, at);
                *cursor = Cursor { seq: self.first + self.chunks.len() as u64, offset: 0, ..*cursor };
            }
            None => self.near_chunks(*cursor),
        }
        while !self.holds_cuts(flush)
            && let Some(index) = cursor.seq.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
            && let Some((Part { chunk, .. }, at)) = self.chunks.get(index)
        {
            // By the time it was accepted: what came before the deadline belongs to the window, however late this look is.
            if window.is_due(at) {
                self.close(lane, window, now, FlushReason::Age, &mut advanced);
                continue;
            }
            let (from, len) = (cursor.offset, chunk.len());
            let (taken, full) = window.push(len - from, |n| chunk.body_bytes_of(from..from + n), at);
            advanced.events += taken;
            *cursor = match from + taken {
                seen if seen == len => Cursor { seq: cursor.seq + 1, offset: 0, ..*cursor },
                seen => Cursor { offset: seen, ..*cursor },
            };
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

    /// Since when a fresh window would be open if it took all that is not cut, where it is seen without a look at each chunk that
    /// it would: it is not full then, and the last of it came in time.
    fn whole(&self, cursor: &Cursor, window: &Window, flush: Option<FlushReason>) -> Option<Instant> {
        let ((first, began), (last, ended)) = (self.chunks.first()?, self.chunks.last()?);
        let is_fresh = window.is_empty() && *cursor == self.uncut();
        // A chunk that was lost holds no event and opens no window.
        let has_events = first.range.end > self.cut_of_first && last.range.end > 0;
        let fits = window.has_room_for(self.uncut, self.uncut_bytes) && ended < began + self.policy.window.max_age;
        (is_fresh && has_events && fits && !self.holds_cuts(flush)).then_some(began)
    }

    /// Brings the next chunks near the processor: those that came a while ago are far away. Read with nothing that depends on it, they
    /// are fetched side by side.
    fn near_chunks(&self, cursor: Cursor) {
        const TOGETHER: usize = 64;
        let from = cursor.seq.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let next = self.chunks.from(from.unwrap_or(0)).take(TOGETHER);
        black_box(next.map(|part| part.chunk.len()).sum::<usize>());
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
        let (parts, until) = self.take_parts(events);
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
        let is_all = self.chunks.is_empty();
        let batch = match is_all {
            true => Batch::measured(id, parts, events, self.uncut_bytes),
            false => Batch::new(id, parts),
        };
        // All of a lane is not looked at again, chunk by chunk.
        let footprint = if is_all { self.uncut_footprint } else { batch.footprint() };
        self.uncut_footprint -= footprint;
        self.uncut -= batch.len() as u64;
        self.uncut_bytes -= batch.body_bytes();
        self.cut += batch.len() as u64;
        self.counters.flushed(reason);
        told.cut_bytes += footprint;
        told.flushed.push(Flushed { reason, events, lateness: lateness.unwrap_or_default() });
        self.batches.push_back(Waiting { batch, made: None, intended, recorded, cut_at: now, is_whole: true });
        fault_point("after-cut");
    }

    /// The first events that are not cut, and where they end.
    fn take_parts(&mut self, events: usize) -> (Vec<Part>, ChunkPlace) {
        let last = self.chunks.last().map_or(0, |(last, _)| last.range.end);
        if events as u64 == self.uncut && last > 0 {
            self.first += self.chunks.len() as u64;
            let mut parts = self.chunks.take();
            if let Some(first) = parts.first_mut() {
                first.range.start = std::mem::take(&mut self.cut_of_first);
            }
            return (parts, ChunkPlace { seq: self.first - 1, index: index(last) });
        }
        let mut parts = Vec::with_capacity(self.chunks.len().min(events));
        let mut until = ChunkPlace { seq: self.first, index: index(self.cut_of_first) };
        let mut wanted = events;
        while wanted > 0
            && let Some((first, _)) = self.chunks.first()
        {
            let (begin, len) = (self.cut_of_first, first.range.end);
            let range = begin..len.min(begin + wanted);
            wanted -= range.len();
            until = ChunkPlace { seq: self.first, index: index(range.end) };
            if range.end < len {
                self.cut_of_first = range.end;
                parts.push(Part { range, ..first.clone() });
            } else {
                self.first += 1;
                self.cut_of_first = 0;
                parts.extend(self.chunks.pop().map(|first| Part { range, ..first }));
            }
        }
        (parts, until)
    }
}
