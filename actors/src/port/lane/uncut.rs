//! Chunks with events that are not cut yet.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{Chunk, Part, Sums};
use crate::policy::Room;

/// In the order of their seq.
///
/// Each is kept as the part of a batch that it is going to be, and what all of them come to is marked now and then. So where a window ends
/// is found by a search of the marks, and a look at no more chunks than lie between two of them, however many there are: those that came
/// a while ago are far from the processor, and where the windows of many tenants are due in the same moment, a look at each would make
/// them late.
///
/// Between two marks lie `STRIDE` chunks.
// In the order in which it is needed: most of it with every chunk that comes.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Uncut<const STRIDE: usize = 32> {
    parts: VecDeque<Part>,
    /// Behind the last that ever came.
    came: Mark,
    /// Where the first of them begins.
    begin: Mark,
    /// What of the first is cut; its memory is not.
    cut: Sums,
    /// When the first was accepted.
    since: Option<Instant>,
    /// Between them; none where there are few.
    marks: VecDeque<Mark>,
}

/// A place behind a chunk.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    /// How many chunks came before it, ever.
    chunks: usize,
    /// What they come to.
    sums: Sums,
    /// When the last of them was accepted.
    accepted: Option<Instant>,
}

impl Mark {
    /// Behind the next chunk.
    fn and(self, chunk: &Chunk) -> Self {
        Self { chunks: self.chunks + 1, sums: self.sums + chunk.sums(), accepted: chunk.accepted() }
    }
}

/// The first events of those that are not cut.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) parts: Vec<Part>,
    pub(super) sums: Sums,
    /// How many chunks are gone with them.
    pub(super) chunks: usize,
    /// Where in the chunk that their last one lies in they end.
    pub(super) end: usize,
    /// Whether that chunk goes on.
    pub(super) goes_on: bool,
}

impl<const STRIDE: usize> Uncut<STRIDE> {
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// What all of it comes to. The memory of a chunk of which a part is cut is that of the whole chunk.
    pub(super) fn sums(&self) -> Sums {
        self.came.sums - self.gone()
    }

    /// One that was accepted at `accepted`, and not before those that are there, whatever the clocks of two threads say.
    pub(super) fn push(&mut self, chunk: Chunk, accepted: Instant) -> &Arc<Chunk> {
        if self.came.chunks.is_multiple_of(STRIDE) && self.len() >= STRIDE {
            self.marks.push_back(self.came);
        }
        let chunk = chunk.accepted_at(self.came.accepted.map_or(accepted, |last| accepted.max(last)));
        self.came = self.came.and(&chunk);
        self.since = self.since.or(chunk.accepted());
        let range = 0..chunk.len();
        &self.parts.push_back_mut(Part { chunk: Arc::new(chunk), range }).chunk
    }

    /// So many events of the first chunk are cut, which have so many bytes.
    pub(super) fn cut(&mut self, events: usize, body_bytes: usize) {
        self.cut = self.cut + Sums { events, body_bytes, footprint: 0 };
    }

    pub(super) fn get(&self, index: usize) -> Option<&Part> {
        self.parts.get(index)
    }

    /// When it was accepted.
    pub(super) fn accepted(&self, index: usize) -> Option<Instant> {
        if index == 0 { self.since } else { self.get(index)?.chunk.accepted() }
    }

    pub(super) fn first(&self) -> Option<&Part> {
        self.get(0)
    }

    /// The longest row of whole chunks, from the one at `index` on, that a window has room for and remains open: how many they are,
    /// and what they come to. None where the first of them holds no event, for that opens no window.
    pub(super) fn fitting(&self, index: usize, room: Room) -> (usize, Sums) {
        let cut = if index == 0 { self.cut } else { Sums::default() };
        let before = self.before(index).sums + cut;
        let (events, body_bytes) = (before.events + room.events, before.body_bytes + room.body_bytes);
        let Mark { chunks, sums, .. } = self.seek(|Mark { sums, accepted, .. }| {
            *accepted < Some(room.until) && sums.events < events && sums.body_bytes <= body_bytes
        });
        let chunks = (chunks - self.begin.chunks).saturating_sub(index);
        let opens = self.get(index).is_some_and(|first| first.range.len() > cut.events);
        if opens && chunks > 0 { (chunks, sums - before) } else { (0, Sums::default()) }
    }

    /// The first `events` of them go; `begin` of the first chunk are gone already.
    pub(super) fn take(&mut self, events: usize, begin: usize) -> Taken {
        let gone = self.gone();
        let wanted = gone.events + events;
        // The chunk that the last of them lies in.
        let last = match wanted == self.came.sums.events {
            // Most often all of it.
            true => self.parts.iter().rposition(|part| !part.range.is_empty()).unwrap_or_default(),
            false => self.seek(|mark| mark.sums.events < wanted).chunks - self.begin.chunks,
        };
        let goes_on = self.before(last + 1).sums.events > wanted;
        let whole = (last + usize::from(!goes_on)).min(self.len());
        let mut parts = self.take_parts(whole);
        if let Some(first) = parts.first_mut() {
            first.range.start = begin.min(first.range.end);
        }
        let mut end = parts.last().map_or(0, |part| part.range.end);
        if goes_on && let Some(Part { chunk, .. }) = self.parts.front() {
            let from = if whole == 0 { begin } else { 0 };
            let range = from..from + (wanted - self.gone().events);
            end = range.end;
            self.cut =
                self.cut + Sums { events: range.len(), body_bytes: chunk.body_bytes_of(range.clone()), footprint: 0 };
            parts.push(Part { chunk: chunk.clone(), range });
        }
        Taken { parts, sums: self.gone() - gone, chunks: whole, end, goes_on }
    }

    /// The first `count` chunks go.
    pub(super) fn drain(&mut self, count: usize) -> Drain<'_, Part> {
        self.pass(count);
        self.parts.drain(..count)
    }

    /// The parts of the first `count` chunks, which go.
    fn take_parts(&mut self, count: usize) -> Vec<Part> {
        self.pass(count);
        if count <= self.len() / 2 {
            return self.parts.drain(..count).collect();
        }
        let rest = self.parts.split_off(count);
        Vec::from(std::mem::replace(&mut self.parts, rest))
    }

    /// The first `count` chunks are about to go.
    fn pass(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.begin = self.before(count);
        self.cut = Sums::default();
        self.since = self.get(count).and_then(|first| first.chunk.accepted());
        while self.marks.pop_front_if(|mark| mark.chunks <= self.begin.chunks).is_some() {}
    }

    /// What is gone of all that ever came.
    fn gone(&self) -> Sums {
        self.begin.sums + self.cut
    }

    /// The place before the chunk at `index`.
    fn before(&self, index: usize) -> Mark {
        match index {
            0 => self.begin,
            _ => self.seek(|mark| mark.chunks <= self.begin.chunks + index),
        }
    }

    /// The last place that fits, and all before it; where none does, that before the first of them.
    fn seek(&self, fits: impl Fn(&Mark) -> bool) -> Mark {
        if fits(&self.came) {
            return self.came;
        }
        let near = self.marks.partition_point(&fits);
        let mut at = near.checked_sub(1).and_then(|near| self.marks.get(near)).copied().unwrap_or(self.begin);
        for part in self.parts.range(at.chunks - self.begin.chunks..) {
            let next = at.and(&part.chunk);
            if !fits(&next) {
                break;
            }
            at = next;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{ChunkBuilder, TenantId, UnixMillis};

    /// A chunk with events of such sizes; none is one that was lost.
    fn chunk(sizes: &[usize]) -> Chunk {
        let (tenant, mut builder) = (TenantId::new("acme").unwrap(), ChunkBuilder::default());
        sizes.iter().for_each(|size| builder.push(&vec![b'x'; *size], None));
        builder.build(tenant.clone(), UnixMillis(1)).unwrap_or_else(|| Chunk::lost(tenant))
    }

    /// What is uncut, event by event: the number of its chunk, its number in there, and its size.
    type Model = VecDeque<(usize, usize, usize)>;

    #[derive(Debug, Clone)]
    enum Step {
        /// A chunk comes, so many milliseconds later than the one before, or sooner by its clock.
        Push(Vec<usize>, i64),
        /// So much of all, in thousandths, is cut.
        Take(usize),
        /// So many chunks go.
        Drain(usize),
        /// Room for so many events and bytes, and until so many milliseconds after the first; from a chunk on.
        Fit(usize, usize, u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let sizes = proptest::collection::vec(0..9_usize, 0..6);
        prop_oneof![
            4 => (sizes, -2..5_i64).prop_map(|(sizes, later)| Step::Push(sizes, later)),
            2 => (0..=1_000_usize).prop_map(Step::Take),
            1 => (0..3_usize).prop_map(Step::Drain),
            3 => (1..20_usize, 0..60_usize, 1..20_u64, 0..3_usize).prop_map(|(e, b, t, from)| Step::Fit(e, b, t, from)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_cut_and_what_fits_is_what_a_look_at_each_event_says(steps in proptest::collection::vec(step(), 1..60)) {
            is_as_a_look_at_each_event_says::<3>(&steps)?;
            is_as_a_look_at_each_event_says::<32>(&steps)?;
        }
    }

    fn is_as_a_look_at_each_event_says<const STRIDE: usize>(steps: &[Step]) -> Result<(), TestCaseError> {
        let began = Instant::now() + Duration::from_secs(1);
        let (mut uncut, mut model) = (Uncut::<STRIDE>::default(), Model::new());
        // Of each chunk that is there: its number, when it came, how many events it has, its memory.
        let mut chunks: VecDeque<(usize, Instant, usize, usize)> = VecDeque::new();
        let (mut clock, mut pushed, mut begin) = (began, 0, 0);
        for step in steps.iter().cloned() {
            match step {
                Step::Push(sizes, later) => {
                    let way = Duration::from_millis(later.unsigned_abs());
                    let at = if later < 0 { clock - way } else { clock + way };
                    clock = clock.max(at);
                    let chunk = chunk(&sizes);
                    let footprint = chunk.footprint();
                    uncut.push(chunk, at);
                    model.extend(sizes.iter().enumerate().map(|(nth, size)| (pushed, nth, *size)));
                    chunks.push_back((pushed, clock, sizes.len(), footprint));
                    pushed += 1;
                }
                Step::Take(share) => {
                    let events = model.len() * share / 1_000;
                    if events == 0 {
                        continue;
                    }
                    let taken = uncut.take(events, begin);
                    let wanted: Vec<_> = model.drain(..events).collect();
                    let (last, nth, _) = wanted[events - 1];
                    let got: Vec<_> = taken
                        .parts
                        .iter()
                        .flat_map(|part| part.range.clone().map(|n| part.chunk.get(n).body.len()))
                        .collect();
                    prop_assert_eq!(got, wanted.iter().map(|(_, _, size)| *size).collect::<Vec<_>>());
                    let whole = chunks
                        .iter()
                        .take_while(|(number, _, len, _)| *number < last || *number == last && nth + 1 == *len)
                        .count();
                    let gone: Vec<_> = chunks.drain(..whole).collect();
                    let goes_on = chunks.front().is_some_and(|(number, ..)| *number == last);
                    prop_assert_eq!((taken.chunks, taken.end, taken.goes_on), (whole, nth + 1, goes_on));
                    let body_bytes = wanted.iter().map(|(_, _, size)| size).sum();
                    let footprint = gone.iter().map(|(.., footprint)| footprint).sum();
                    prop_assert_eq!(taken.sums, Sums { events, body_bytes, footprint });
                    begin = if goes_on { nth + 1 } else { 0 };
                }
                Step::Drain(count) => {
                    let count = count.min(chunks.len());
                    uncut.drain(count);
                    let gone: Vec<_> = chunks.drain(..count).map(|(number, ..)| number).collect();
                    model.retain(|(number, ..)| !gone.contains(number));
                    begin = if count > 0 { 0 } else { begin };
                }
                Step::Fit(events, body_bytes, millis, from) => {
                    let Some((_, first, ..)) = chunks.get(from).copied() else { continue };
                    let until = first + Duration::from_millis(millis);
                    let (mut fit, mut sums) = (0, Sums::default());
                    for (number, at, _, footprint) in chunks.iter().skip(from) {
                        let of_it: Vec<_> =
                            model.iter().filter(|(chunk, ..)| chunk == number).map(|(_, _, size)| *size).collect();
                        let with = Sums {
                            events: sums.events + of_it.len(),
                            body_bytes: sums.body_bytes + of_it.iter().sum::<usize>(),
                            footprint: sums.footprint + footprint,
                        };
                        let opens = fit > 0 || !of_it.is_empty();
                        if !opens || *at >= until || with.events >= events || with.body_bytes > body_bytes {
                            break;
                        }
                        (fit, sums) = (fit + 1, with);
                    }
                    let told = uncut.fitting(from, Room { events, body_bytes, until });
                    prop_assert_eq!(told, (fit, sums));
                }
            }
            let all = uncut.sums();
            prop_assert_eq!((all.events, uncut.len()), (model.len(), chunks.len()));
            prop_assert_eq!(all.body_bytes, model.iter().map(|(_, _, size)| size).sum::<usize>());
            prop_assert_eq!(all.footprint, chunks.iter().map(|(.., footprint)| footprint).sum::<usize>());
        }
        Ok(())
    }
}
