use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{BatchId, Chunk, ChunkBuilder, EventRef, Opening, Seq, TenantId, UnixMillis};

/// A run of events of one chunk.
#[derive(Debug, Clone)]
pub struct Part {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) range: Range<usize>,
}

/// A closed window: some events of one tenant, in order, under one id. Immutable and cheap to clone.
///
/// A retry, a restart and a rollback see the same batch: the same id, the same events, the same bytes.
#[derive(Debug, Clone)]
pub struct Batch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: BatchId,
    parts: Vec<Part>,
    len: usize,
    body_bytes: usize,
}

impl Batch {
    /// A batch of the given parts. Empty ranges are allowed and hold nothing.
    pub(crate) fn new(id: BatchId, parts: Vec<Part>) -> Self {
        let len = parts.iter().map(|part| part.range.len()).sum();
        let body_bytes = parts.iter().map(|part| part.chunk.body_bytes_of(part.range.clone())).sum();
        Self::measured(id, parts, len, body_bytes)
    }

    /// The same where it is known how many events the parts have, and how many bytes their bodies.
    pub(crate) fn measured(id: BatchId, parts: Vec<Part>, len: usize, body_bytes: usize) -> Self {
        Self(Arc::new(Inner { id, parts, len, body_bytes }))
    }

    /// A batch of one whole chunk: for tests of a store and for tools that read batches back.
    #[must_use]
    pub fn of_chunk(opening: Opening, seq: Seq, chunk: Chunk) -> Self {
        let id = BatchId::new(opening, chunk.tenant().clone(), seq);
        let range = 0..chunk.len();
        Self::new(id, vec![Part { chunk: Arc::new(chunk), range }])
    }

    /// Its name, the idempotency key in every store.
    #[must_use]
    pub fn id(&self) -> &BatchId {
        &self.0.id
    }

    /// Whose events these are.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.0.id.tenant
    }

    /// How many events it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it holds none. The system never makes such a batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The size of the event bodies together, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.0.body_bytes
    }

    /// Its events, in the tenant's order.
    pub fn events(&self) -> impl Iterator<Item = EventRef<'_>> + Clone {
        self.0.parts.iter().flat_map(|part| part.range.clone().map(|index| part.chunk.get(index)))
    }

    /// The same batch with every body passed through `change`: id, tenant, order and number of events stay.
    #[must_use]
    pub fn map_bodies(self, mut change: impl FnMut(EventRef<'_>) -> Bytes) -> Self {
        let parts = self.0.parts.iter().filter_map(|part| {
            let mut builder =
                ChunkBuilder::with_capacity(part.chunk.body_bytes_of(part.range.clone()), part.range.len());
            for index in part.range.clone() {
                let event = part.chunk.get(index);
                builder.push(&change(event), event.time);
            }
            let range = 0..builder.len();
            let chunk = builder.build(self.0.id.tenant.clone(), part.chunk.arrived())?;
            Some(Part { chunk: Arc::new(chunk), range })
        });
        Self::new(self.0.id.clone(), parts.collect())
    }

    /// The runs of events it is made of.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.0.parts
    }

    /// Whether it is the very same value: what `clone` gives.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its first `first` events and the rest, named as its halves. `None` where one of them would be empty.
    pub(crate) fn split_at(&self, first: usize) -> Option<[Self; 2]> {
        let [a, b] = self.id().halves()?;
        if first == 0 || first >= self.len() {
            return None;
        }
        let (mut left, mut right, mut wanted) = (vec![], vec![], first);
        for part in &self.0.parts {
            let middle = part.range.start + part.range.len().min(wanted);
            wanted -= middle - part.range.start;
            let ranges = [part.range.start..middle, middle..part.range.end];
            for (range, parts) in ranges.into_iter().zip([&mut left, &mut right]) {
                if !range.is_empty() {
                    parts.push(Part { chunk: part.chunk.clone(), range });
                }
            }
        }
        Some([Self::new(a, left), Self::new(b, right)])
    }

    /// Its events as one chunk. `None` for an empty batch.
    pub(crate) fn to_chunk(&self) -> Option<Chunk> {
        let mut builder = ChunkBuilder::with_capacity(self.body_bytes(), self.len());
        self.events().for_each(|event| builder.push(event.body, event.time));
        builder.build(self.tenant().clone(), self.first_arrived())
    }

    /// What a store that tears leaves of it: its first half, under the same id.
    #[cfg(feature = "testing")]
    pub(crate) fn first_half(&self) -> Self {
        let mut wanted = self.len() / 2;
        let parts = self.0.parts.iter().map(|part| {
            let taken = part.range.len().min(wanted);
            wanted -= taken;
            Part { chunk: part.chunk.clone(), range: part.range.start..part.range.start + taken }
        });
        Self::new(self.0.id.clone(), parts.collect())
    }

    /// The memory it gives back once it is settled: that of the chunks whose last event it holds.
    ///
    /// Batches are settled in order, so every chunk is given back once, when nothing of it is in flight any more.
    pub(crate) fn footprint(&self) -> usize {
        let ended = self.0.parts.iter().filter(|part| part.range.end == part.chunk.len());
        ended.map(|part| part.chunk.footprint()).sum()
    }

    /// When the first of its events arrived.
    #[must_use]
    pub fn first_arrived(&self) -> UnixMillis {
        self.0.parts.first().map_or(UnixMillis(0), |part| part.chunk.arrived())
    }
}
