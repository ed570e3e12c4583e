use std::ops::{Add, Sub};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{EventRef, Origin, TenantId, UnixMillis};

/// Where each event ends. A chunk of few events, as there are many of when there are many tenants, keeps them in itself.
type Ends = SmallVec<[u32; 4]>;

/// The events of one tenant from one read, or a part of them, in one block of bytes.
///
/// The unit of dispatch, of acceptance and of memory: whatever costs something is paid once a chunk, not once an event.
/// Immutable once built, so that windows, batches and retries share it without a copy.
// In this order, what its memory is measured by stands in both of the cache's lines that it has: many are measured at once, so that
// these are fetched side by side, just before they are given back one by one.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// What most chunks do not have: with it they would not fit into two lines of the cache, and there may be as many of them as of
    /// events.
    more: Option<Box<More>>,
    /// When it was accepted, once it is.
    accepted: Option<Instant>,
    /// Where each event ends in `bytes`.
    ends: Ends,
    tenant: TenantId,
    arrived: UnixMillis,
}

/// Two lines, with the two counts of its `Arc`.
const _: () = assert!(size_of::<Chunk>() + 2 * size_of::<usize>() <= 128);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct More {
    /// One entry an event, or none at all where no event has a time.
    times: Vec<Option<UnixMillis>>,
    /// Where the events stood in their sender's stream, where the sender says so.
    origin: Option<Origin>,
}

impl More {
    /// Of as many events with times.
    fn of_times(times: Vec<Option<UnixMillis>>) -> Option<Box<Self>> {
        (!times.is_empty()).then(|| Box::new(Self { times, origin: None }))
    }

    /// What it costs in memory, in bytes.
    fn footprint(&self) -> usize {
        64 + self.times.capacity() * 16 + self.origin.as_ref().map_or(0, |origin| origin.positions.len() * 8)
    }

    /// Takes off what is of the first `n` events.
    fn split_front(&mut self, n: usize) -> Self {
        let timed = n.min(self.times.len());
        let times = self.times[..timed].to_vec();
        self.times.drain(..timed);
        let origin = self.origin.as_mut().map(|origin| {
            let (front, rest) = origin.positions.split_at(n);
            let front = Origin { stream: origin.stream.clone(), positions: front.into() };
            origin.positions = rest.into();
            front
        });
        Self { times, origin }
    }
}

/// What a row of chunks comes to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) events: usize,
    pub(crate) body_bytes: usize,
    /// Their memory.
    pub(crate) footprint: usize,
}

impl Add for Sums {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            events: self.events + more.events,
            body_bytes: self.body_bytes + more.body_bytes,
            footprint: self.footprint + more.footprint,
        }
    }
}

impl Sub for Sums {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            events: self.events - before.events,
            body_bytes: self.body_bytes - before.body_bytes,
            footprint: self.footprint - before.footprint,
        }
    }
}

/// By what it holds, whenever it was accepted.
impl PartialEq for Chunk {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant
            && self.arrived == other.arrived
            && self.bytes == other.bytes
            && self.ends == other.ends
            && self.times() == other.times()
            && self.origin() == other.origin()
    }
}

impl Eq for Chunk {}

impl Chunk {
    /// Stands for a chunk that is lost: it holds no event.
    pub(crate) fn lost(tenant: TenantId) -> Self {
        Self { tenant, arrived: UnixMillis(0), bytes: vec![], ends: Ends::new(), more: None, accepted: None }
    }

    /// Whose events these are.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// When they were read.
    #[must_use]
    pub fn arrived(&self) -> UnixMillis {
        self.arrived
    }

    /// How many events it holds; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The size of the event bodies together, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Where its events stood in their sender's stream, where the sender says so.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.more.as_ref()?.origin.as_ref()
    }

    /// The same chunk of a stream: `positions` has one entry an event, growing.
    ///
    /// # Panics
    /// If there are more or fewer positions than events.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        assert_eq!(origin.positions.len(), self.len(), "one position an event");
        self.more.get_or_insert_default().origin = Some(origin);
        self
    }

    /// Its event bodies, one behind the other without a gap.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each event ends in [`bytes`](Self::bytes).
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The time of each event; empty where none has one, and shorter than the chunk where the last ones have none.
    #[must_use]
    pub fn times(&self) -> &[Option<UnixMillis>] {
        self.more.as_ref().map_or(&[], |more| &more.times)
    }

    /// When it was accepted, once it is.
    pub(crate) fn accepted(&self) -> Option<Instant> {
        self.accepted
    }

    /// It is accepted.
    pub(crate) fn accepted_at(mut self, at: Instant) -> Self {
        self.accepted = Some(at);
        self
    }

    /// A chunk of its parts, as [`bytes`](Self::bytes), [`ends`](Self::ends) and [`times`](Self::times) gave them. `None` where
    /// they do not fit together.
    #[must_use]
    pub fn from_parts(
        tenant: TenantId,
        arrived: UnixMillis,
        bytes: Vec<u8>,
        ends: &[u32],
        times: Vec<Option<UnixMillis>>,
    ) -> Option<Self> {
        let fits = ends.is_sorted()
            && ends.last().is_some_and(|end| *end as usize == bytes.len())
            && times.len() <= ends.len();
        let ends = Ends::from_slice(ends);
        fits.then(|| Self { tenant, arrived, bytes, ends, more: More::of_times(times), accepted: None })
    }

    /// The size of the event bodies in `range` together, in bytes.
    ///
    /// # Panics
    /// If `range` reaches beyond [`len`](Self::len).
    #[must_use]
    pub fn body_bytes_of(&self, range: std::ops::Range<usize>) -> usize {
        if range.is_empty() {
            return 0;
        }
        // Most are asked for whole: their bounds are not looked at, which are seldom near.
        let end = if range.end == self.len() { self.bytes.len() } else { self.ends[range.end - 1] as usize };
        end - self.start_of(range.start)
    }

    /// What it comes to.
    pub(crate) fn sums(&self) -> Sums {
        Sums { events: self.len(), body_bytes: self.body_bytes(), footprint: self.footprint() }
    }

    /// What it costs in memory, in bytes: the measure of every budget.
    #[must_use]
    pub fn footprint(&self) -> usize {
        // The block, its bounds, the vectors' heads and the places in the journal that point here.
        const HEAD: usize = 160;
        // It stands in every batch that had events of it, and holds nothing that could be given back.
        if self.ends.is_empty() {
            return 0;
        }
        // What is allocated counts, used or not.
        HEAD + self.bytes.capacity() + self.ends.capacity() * 4 + self.more.as_ref().map_or(0, |more| more.footprint())
    }

    /// About what its first `n` events cost in memory without the others.
    pub(crate) fn footprint_of_front(&self, n: usize) -> usize {
        if n == 0 || n >= self.len() {
            return if n == 0 { 0 } else { self.footprint() };
        }
        let (times, origin) = (self.times(), self.origin());
        let per_event = 4 + if times.is_empty() { 0 } else { 16 } + if origin.is_some() { 8 } else { 0 };
        let head = self.footprint()
            - (self.bytes.capacity()
                + self.ends.capacity() * 4
                + self.more.as_ref().map_or(0, |more| more.times.capacity() * 16)
                + origin.map_or(0, |origin| origin.positions.len() * 8));
        head + self.body_bytes_of(0..n) + n * per_event
    }

    /// The event at `index`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> EventRef<'_> {
        EventRef {
            time: self.times().get(index).copied().flatten(),
            arrived: self.arrived,
            body: &self.bytes[self.start_of(index)..self.ends[index] as usize],
        }
    }

    /// Its events, in the order they came.
    pub fn events(&self) -> impl ExactSizeIterator<Item = EventRef<'_>> + DoubleEndedIterator {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Takes the first `n` events off, into a chunk of their own; positions in a stream go with their events.
    ///
    /// What is taken is copied, once, so that neither part holds the memory of both.
    ///
    /// # Panics
    /// If `n` is not between 0 and [`len`](Self::len): no chunk is empty.
    pub(crate) fn split_front(&mut self, n: usize) -> Self {
        assert!(0 < n && n < self.len(), "no chunk is empty");
        let end = self.ends[n - 1];
        let front = Self {
            tenant: self.tenant.clone(),
            arrived: self.arrived,
            bytes: self.bytes[..end as usize].to_vec(),
            ends: Ends::from_slice(&self.ends[..n]),
            more: self.more.as_mut().map(|more| Box::new(more.split_front(n))),
            accepted: self.accepted,
        };
        self.bytes.drain(..end as usize);
        self.ends.drain(..n);
        self.ends.iter_mut().for_each(|later| *later -= end);
        // Not at each of many cuts.
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
            self.more.iter_mut().for_each(|more| more.times.shrink_to_fit());
            self.ends.shrink_to_fit();
        }
        front
    }

    fn start_of(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        }
    }
}

/// Less than so much room, in bytes, is not given back where it was not needed.
const WORTH_GIVING_BACK: usize = 4 << 10;

/// A chunk in the making: one copy of each event's bytes into one block.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    bytes: Vec<u8>,
    ends: Ends,
    times: Vec<Option<UnixMillis>>,
}

impl ChunkBuilder {
    /// The most bytes a chunk may hold; a builder that has reached it is to be built.
    pub const MAX_BYTES: usize = u32::MAX as usize / 2;

    /// An empty builder with room for `bytes` of `events` events.
    #[must_use]
    pub fn with_capacity(bytes: usize, events: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Ends::with_capacity(events), times: Vec::new() }
    }

    /// Adds one event.
    ///
    /// # Panics
    /// If the chunk would grow beyond 4 GiB; callers build a chunk at [`MAX_BYTES`](Self::MAX_BYTES) at the latest.
    #[inline]
    pub fn push(&mut self, body: &[u8], time: Option<UnixMillis>) {
        if time.is_some() || !self.times.is_empty() {
            self.push_time(time);
        }
        self.bytes.extend_from_slice(body);
        #[expect(clippy::expect_used, reason = "documented: the caller builds long before")]
        let end = u32::try_from(self.bytes.len()).expect("a chunk is smaller than 4 GiB");
        self.ends.push(end);
    }

    #[inline(never)]
    fn push_time(&mut self, time: Option<UnixMillis>) {
        self.times.resize(self.ends.len(), None);
        self.times.push(time);
    }

    /// How many events it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The size of the event bodies so far, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The chunk, or `None` if no event was pushed. The builder is empty afterwards.
    pub fn build(&mut self, tenant: TenantId, arrived: UnixMillis) -> Option<Chunk> {
        if self.is_empty() {
            return None;
        }
        let Self { mut bytes, mut ends, times } = std::mem::take(self);
        // It was given far more room than it came to need: what a chunk takes is counted, used or not.
        if bytes.capacity() > WORTH_GIVING_BACK && bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
            ends.shrink_to_fit();
        }
        Some(Chunk { tenant, arrived, bytes, ends, more: More::of_times(times), accepted: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> TenantId {
        TenantId::new("acme").unwrap()
    }

    #[test]
    fn a_chunk_gives_back_what_was_pushed() {
        let mut builder = ChunkBuilder::default();
        builder.push(b"one", None);
        builder.push(b"", Some(UnixMillis(7)));
        builder.push(b"three", None);
        let chunk = builder.build(acme(), UnixMillis(1)).unwrap();
        let bodies: Vec<_> = chunk.events().map(|e| (e.body.to_vec(), e.time)).collect();
        assert_eq!(bodies, [(b"one".to_vec(), None), (vec![], Some(UnixMillis(7))), (b"three".to_vec(), None)]);
        assert_eq!(chunk.body_bytes(), 8);
        assert_eq!(chunk.body_bytes_of(1..3), 5);
        assert_eq!(chunk.body_bytes_of(0..0), 0);
    }

    proptest::proptest! {
        #[test]
        fn a_chunk_in_two_parts_holds_what_it_held_and_no_more_memory(
            events in proptest::collection::vec((proptest::collection::vec(0..255u8, 0..20), proptest::option::of(0..9i64)), 2..40),
            at in 0..1_000usize,
        ) {
            let mut builder = ChunkBuilder::default();
            events.iter().for_each(|(body, time)| builder.push(body, time.map(UnixMillis)));
            let origin = Origin { stream: "s".parse().unwrap(), positions: (0..events.len() as u64).map(|n| n * n).collect() };
            let whole = builder.build(acme(), UnixMillis(1)).unwrap().with_origin(origin);
            let (mut rest, n) = (whole.clone(), 1 + at % (events.len() - 1));
            let front = rest.split_front(n);
            proptest::prop_assert_eq!((front.len(), front.len() + rest.len()), (n, whole.len()));
            proptest::prop_assert!(front.events().chain(rest.events()).eq(whole.events()));
            let positions = |chunk: &Chunk| chunk.origin().unwrap().positions.to_vec();
            proptest::prop_assert_eq!([positions(&front), positions(&rest)].concat(), positions(&whole));
            proptest::prop_assert!(front.footprint() <= whole.footprint() && rest.footprint() <= whole.footprint());
        }
    }

    #[test]
    fn a_chunk_that_needs_less_than_half_of_its_room_gives_the_rest_back() {
        let built = |room: usize, body: usize| {
            let mut builder = ChunkBuilder::with_capacity(room, room / 16);
            builder.push(&vec![b'x'; body], None);
            builder.build(acme(), UnixMillis(1)).unwrap()
        };
        assert_eq!(built(1 << 20, 100).footprint(), built(0, 100).footprint());
        assert!(built(1 << 20, 600 << 10).footprint() >= 1 << 20, "to copy it costs more than it brings");
        assert!(built(4 << 10, 100).footprint() >= 4 << 10, "it is not much");
    }

    #[test]
    fn an_empty_builder_builds_nothing() {
        assert!(ChunkBuilder::default().build(acme(), UnixMillis(1)).is_none());
    }
}
