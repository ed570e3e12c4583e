//! The journal: the record of what was accepted and of what becomes of it.
//!
//! A tenant's [lane](super::lane) is the working copy, in memory; it puts each of its steps on record here as it takes it. Where the
//! journal is durable, a fresh process finds the record and rebuilds every lane from it: the same batches, with the same
//! bytes, under the same ids.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Progress, Uncompensated, UndoStep};
use crate::model::{Attempt, BatchId, Cause, Chunk, Code, Opening, Seq, StoreName, StreamId, TenantId, UnixMillis};
use crate::observe::{Distribution, Outcome};

/// Where accepted events and what becomes of them are on record.
///
/// One journal serves all tenants of a system, and must not panic: it is the record from which everything else is made good. Calls come from the system's thread; what waits for a disk waits in futures.
pub trait Journal: Send + Sync + 'static {
    /// Whether what is committed outlives the process. A volatile journal commits at once and recovers nothing.
    fn is_durable(&self) -> bool;

    /// Begins an opening: from here on entries are appended under it. Called once, before anything else, and gives what
    /// earlier openings left.
    ///
    /// # Errors
    /// Where the journal was begun before, or cannot be written.
    fn begin(&self, opening: Opening, now: UnixMillis) -> Result<Recovered, JournalError>;

    /// Puts the entries on record, in order, and leaves the vector empty. After a crash all of them are found, or none.
    ///
    /// Never waits: what may be appended is bounded by the callers, who ask [`has_room`](Self::has_room) before they accept
    /// chunks; the other entries are few. Nothing may be told to the outside on the strength of an entry before its position is
    /// [`committed`](Self::committed).
    fn append(&self, entries: &mut Vec<Entry>) -> Position;

    /// Whether everything up to `position` is committed.
    fn is_committed(&self, position: Position) -> bool;

    /// Resolves once everything up to `position` is committed: where the disk fails, once it has recovered. Never resolves
    /// on hope, and never with an error: a journal that cannot be written keeps what was appended and tries again.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    fn committed(&self, position: Position) -> impl Future<Output = ()> + Send;

    /// Whether chunks of so many bytes may be appended now: false while the quota is reached, too much waits to be
    /// committed, or the disk fails. In a journal that holds nothing that is unsettled there is room for any size, lest what is larger
    /// than the quota waits for ever.
    fn has_room(&self, bytes: usize) -> bool;

    /// Resolves once there may be room again, or at some time before.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    fn room(&self) -> impl Future<Output = ()> + Send;

    /// The committed chunks of the tenant from `seq` on, in order and without a gap, as long as they hold unsettled events: as many
    /// as take `bytes` of memory together, and one at least if that one is there. To be [read](Self::read).
    fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk>;

    /// Reads a chunk that an earlier opening left, or that [`chunks`](Self::chunks) told of.
    ///
    /// # Errors
    /// Where the disk cannot be read, or the record is damaged after all.
    fn read(
        &self,
        tenant: &TenantId,
        chunk: &RecoveredChunk,
    ) -> impl Future<Output = Result<Chunk, JournalError>> + Send;

    /// How the journal is doing.
    fn health(&self) -> Health;

    /// Commits everything and closes the journal, so that the next start need not search for a torn end. Appending
    /// after that is a mistake, and lost.
    ///
    /// # Errors
    /// Where the disk fails: what was appended and not committed is lost with the process.
    fn close(&self) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// A place in the journal. Grows with every append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// A place between two events of a tenant: before event `index` of the chunk `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ChunkPlace {
    /// The chunk's place in the tenant's order, from 1.
    pub seq: u64,
    /// The events of it that lie before the place.
    pub index: u32,
}

/// What goes on record, in the order of the flow.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A chunk was accepted, as the `seq`th of its tenant. Its origin belongs to the record where its stream
    /// [lasts](StreamId::is_lasting).
    Chunk {
        /// Its place in the tenant's order, from 1.
        seq: u64,
        /// Its tenant, bytes and bounds.
        chunk: Arc<Chunk>,
    },
    /// A stream's frames up to `position` have their answers: accepted in this same append or before, or refused.
    Mark {
        /// Whose.
        stream: StreamId,
        /// The position of the last frame.
        position: u64,
        /// When: marks have a lifetime.
        at: UnixMillis,
    },
    /// Frames of a stream were refused, in this same append, or shed after they were accepted. Their sender is told, by the next process
    /// where it has not heard of it. Of a stream that is not on record nothing is kept.
    Refused {
        /// Whose.
        stream: StreamId,
        /// Their positions, in order: from, to.
        positions: Vec<(u64, u64)>,
        /// Why.
        code: Code,
    },
    /// A stream's sender has heard what became of its frames up to `position`: which of them were refused need not be known any more.
    Heard {
        /// Whose.
        stream: StreamId,
        /// The position of the last frame.
        position: u64,
    },
    /// A stream is forgotten.
    Forget {
        /// Which.
        stream: StreamId,
    },
    /// A window closed: all events of the tenant from the last cut, or the beginning, up to `until` are this batch.
    Cut {
        /// Its name for ever.
        batch: BatchId,
        /// Where it begins.
        from: ChunkPlace,
        /// Where it ends: the index is never 0.
        until: ChunkPlace,
    },
    /// The oldest events that are in no batch were given up to make room: all from the last cut, or the last of these, up to
    /// `until`. No batch holds them.
    Shed {
        /// Whose.
        tenant: TenantId,
        /// Where they begin: maybe within a chunk.
        from: ChunkPlace,
        /// Where they end: before the first event of a chunk.
        until: ChunkPlace,
        /// How many there were.
        events: u64,
    },
    /// What the hooks made of a batch, where they changed it: every attempt stores these bodies.
    Made {
        /// Which.
        batch: BatchId,
        /// All of its events.
        chunk: Arc<Chunk>,
    },
    /// An attempt of a step begins.
    Intent {
        /// Which batch.
        batch: BatchId,
        /// Which store.
        store: StoreName,
        /// The number of the attempt.
        attempt: Attempt,
    },
    /// The store registered a step that must be undone if the batch is given up. The same one again counts once.
    Undo {
        /// Which batch.
        batch: BatchId,
        /// Which store.
        store: StoreName,
        /// The step.
        step: UndoStep,
    },
    /// The attempt failed, and is not open any more.
    Failed {
        /// Which batch.
        batch: BatchId,
        /// Which store.
        store: StoreName,
        /// The number of the attempt.
        attempt: Attempt,
    },
    /// The store has the batch, and it is not the last one of the saga.
    Done {
        /// Which batch.
        batch: BatchId,
        /// Which store.
        store: StoreName,
    },
    /// The batch is given up: it is to be compensated before its events go anywhere else.
    GivenUp {
        /// Which.
        batch: BatchId,
        /// Why.
        cause: Cause,
    },
    /// A compensation of a batch that was given up is dealt with. Of the one after the last: all of them are, and the batch becomes
    /// dead letters, which is [not decided again](Progress::is_condemned).
    Compensated {
        /// Which batch.
        batch: BatchId,
        /// Which of its [compensations](Progress::compensations), from 0.
        nth: u32,
        /// Why it could not be done, and since when it is on the list of those, if it is.
        failed: Option<(Cause, UnixMillis)>,
    },
    /// A compensation on the list of those that could not be done was done after all.
    Undone {
        /// Whose effect it was.
        batch: BatchId,
        /// Which of its compensations.
        nth: u32,
    },
    /// A batch that was given up and compensated goes through its saga once more.
    Again {
        /// Which.
        batch: BatchId,
    },
    /// A batch that was given up and compensated is two from here on, named as its [halves](BatchId::halves).
    Split {
        /// Which.
        batch: BatchId,
        /// How many events the first half has.
        first: u32,
    },
    /// The batch at the front of its tenant's order has its one outcome.
    Settled {
        /// Which.
        batch: BatchId,
        /// How it ended.
        outcome: Outcome,
        /// How many events it held.
        events: u64,
    },
    /// What happened to the tenant's frames at the door so far, beside chunks: replaces what was last told.
    Door {
        /// Whose.
        tenant: TenantId,
        /// From the first opening on.
        totals: DoorTotals,
    },
}

/// What happened to a tenant's frames that became no chunk, from the first opening on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the words of the accounting; see `Counters`")]
pub struct DoorTotals {
    pub duplicate: u64,
    pub muted: u64,
    pub throttled: u64,
    pub rejected: u64,
    pub malformed: u64,
    /// Events that a hook's rule dropped: accepted, and discarded.
    pub discarded: u64,
    /// Events that a hook failed on: accepted, and dead-lettered.
    pub dead_lettered: u64,
}

/// What became of a tenant's events that were in chunks, from the first opening on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchTotals {
    /// Events in chunks that were accepted, in flight or not.
    pub accepted: u64,
    /// Events of batches that are in the store.
    pub stored: u64,
    /// Events of batches that were given up.
    pub dead_lettered: u64,
    /// Events of batches that a hook dropped.
    pub discarded: u64,
    /// Events that were given up before they were in a batch, to make room.
    pub shed: u64,
    /// Batches that are in the store.
    pub batches: u64,
}

/// What earlier openings left.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Every tenant on record, by name.
    pub tenants: Vec<RecoveredTenant>,
    /// Every stream on record, by name.
    pub streams: Vec<RecoveredStream>,
    /// What is damaged, in words: what was lost, and where the rest was set aside.
    pub damage: Vec<String>,
}

/// What earlier openings left of a sender's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredStream {
    /// Its name.
    pub stream: StreamId,
    /// The position of the last mark.
    pub position: u64,
    /// When that was.
    pub at: UnixMillis,
    /// Positions beyond the mark that are in accepted chunks, settled or not: from, to.
    pub ahead: Vec<(u64, u64)>,
    /// Positions that were refused or shed, and of which it is not known that the sender has heard: from, to, why. No more of them than
    /// [`MOST_REFUSED`], the last ones.
    pub refused: Vec<(u64, u64, Code)>,
}

/// Of so many runs of positions of a stream a journal knows that they were refused.
pub const MOST_REFUSED: usize = 65_536;

/// What earlier openings left of one tenant.
#[derive(Debug, Clone)]
pub struct RecoveredTenant {
    /// Whose.
    pub tenant: TenantId,
    /// The totals at the door.
    pub door: DoorTotals,
    /// The totals behind it.
    pub totals: BatchTotals,
    /// The seq of the tenant's next chunk.
    pub next_chunk: u64,
    /// The seq of the tenant's next batch.
    pub next_batch: Seq,
    /// Where unsettled events begin: what lies before in a chunk is settled.
    pub settled: ChunkPlace,
    /// Where events that are neither cut nor shed begin. What lies before and is in no cut is settled.
    pub uncut: ChunkPlace,
    /// The chunks that hold unsettled events, in order of their seq.
    pub chunks: Vec<RecoveredChunk>,
    /// Batches that were cut and have no outcome, in order.
    pub cuts: Vec<RecoveredCut>,
    /// Compensations that could not be done, in the order in which they came to be.
    pub uncompensated: Vec<Uncompensated>,
}

impl Entry {
    /// Frames of a stream at these positions, in order, were refused or shed.
    pub(crate) fn refused(stream: StreamId, positions: &[u64], code: Code) -> Self {
        let runs = positions.chunk_by(|a, b| a + 1 == *b);
        let runs = runs.filter_map(|run| Some((*run.first()?, *run.last()?)));
        Self::Refused { stream, positions: runs.collect(), code }
    }
}

impl RecoveredTenant {
    /// Whether anything is left to be done for the tenant.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Which events of one of its chunks are unsettled: what lies before is settled, what lies behind was shed.
    #[must_use]
    pub fn unsettled(&self, chunk: &RecoveredChunk) -> Range<usize> {
        let settled = if self.settled.seq == chunk.seq { self.settled.index.min(chunk.events) } else { 0 };
        settled as usize..chunk.events as usize
    }
}

/// A chunk on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredChunk {
    /// Its place in the tenant's order.
    pub seq: u64,
    /// How many events it holds, without those at its end that were shed.
    pub events: u32,
    /// About how much memory it will take, in bytes.
    pub bytes: usize,
    /// Where it lies, in the journal's own terms.
    pub place: (u64, u64),
}

/// A batch that an earlier opening cut.
#[derive(Debug, Clone)]
pub struct RecoveredCut {
    /// Its name.
    pub batch: BatchId,
    /// Where it begins.
    pub from: ChunkPlace,
    /// Where it ends.
    pub until: ChunkPlace,
    /// What the hooks had made of it, if they changed it.
    pub made: Option<RecoveredChunk>,
    /// How far it has come.
    pub progress: Progress,
}

/// How a journal is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Why it cannot be written at the moment, if it cannot.
    pub failing: Option<Arc<str>>,
    /// Whether its quota is reached.
    pub is_full: bool,
    /// Its size on disk, in bytes.
    pub disk_bytes: u64,
    /// The part of it that belongs to unsettled events, in bytes.
    pub live_bytes: u64,
    /// Since when, and how often, it commits: commits so far.
    pub commits: u64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// From what size on disk on it has no room for more chunks, in bytes; 0 where that has no bound.
    pub quota_bytes: u64,
    /// How long each commit took, from its write to the answer of the disk.
    pub commit_times: Distribution,
}

/// Why a journal could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal: {0}")]
pub struct JournalError(pub Arc<str>);

impl JournalError {
    /// What was attempted, on what, and why it failed.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string().into())
    }
}

/// A journal that is only as lasting as the memory the lanes are in: it survives the actors and dies with the process.
///
/// The lanes hold everything there is to recover, so that it has nothing to keep itself.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    position: AtomicU64,
}

impl MemoryJournal {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Journal for MemoryJournal {
    fn is_durable(&self) -> bool {
        false
    }

    fn begin(&self, _: Opening, _: UnixMillis) -> Result<Recovered, JournalError> {
        Ok(Recovered::default())
    }

    fn append(&self, entries: &mut Vec<Entry>) -> Position {
        entries.clear();
        Position(self.position.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn is_committed(&self, _: Position) -> bool {
        true
    }

    async fn committed(&self, _: Position) {}

    fn has_room(&self, _: usize) -> bool {
        true
    }

    async fn room(&self) {}

    fn chunks(&self, _: &TenantId, _: u64, _: usize) -> Vec<RecoveredChunk> {
        vec![]
    }

    async fn read(&self, tenant: &TenantId, chunk: &RecoveredChunk) -> Result<Chunk, JournalError> {
        Err(JournalError::new(format!(
            "a memory journal has nothing to recover, but was asked for chunk {} of {tenant}",
            chunk.seq
        )))
    }

    fn health(&self) -> Health {
        Health::default()
    }

    async fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// [`Journal`] behind a pointer, at one box a call that waits.
#[expect(missing_docs, reason = "each as in `Journal`")]
pub trait DynJournal: Send + Sync + 'static {
    fn is_durable(&self) -> bool;
    fn begin(&self, opening: Opening, now: UnixMillis) -> Result<Recovered, JournalError>;
    fn append(&self, entries: &mut Vec<Entry>) -> Position;
    fn is_committed(&self, position: Position) -> bool;
    fn committed(&self, position: Position) -> BoxFuture<'_, ()>;
    fn has_room(&self, bytes: usize) -> bool;
    fn room(&self) -> BoxFuture<'_, ()>;
    fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk>;
    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        chunk: &'a RecoveredChunk,
    ) -> BoxFuture<'a, Result<Chunk, JournalError>>;
    fn health(&self) -> Health;
    fn close(&self) -> BoxFuture<'_, Result<(), JournalError>>;
}

impl<J: Journal> DynJournal for J {
    fn is_durable(&self) -> bool {
        Journal::is_durable(self)
    }

    fn begin(&self, opening: Opening, now: UnixMillis) -> Result<Recovered, JournalError> {
        Journal::begin(self, opening, now)
    }

    fn append(&self, entries: &mut Vec<Entry>) -> Position {
        Journal::append(self, entries)
    }

    fn is_committed(&self, position: Position) -> bool {
        Journal::is_committed(self, position)
    }

    fn committed(&self, position: Position) -> BoxFuture<'_, ()> {
        Journal::committed(self, position).boxed()
    }

    fn has_room(&self, bytes: usize) -> bool {
        Journal::has_room(self, bytes)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Journal::room(self).boxed()
    }

    fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk> {
        Journal::chunks(self, tenant, seq, bytes)
    }

    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        chunk: &'a RecoveredChunk,
    ) -> BoxFuture<'a, Result<Chunk, JournalError>> {
        Journal::read(self, tenant, chunk).boxed()
    }

    fn health(&self) -> Health {
        Journal::health(self)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Journal::close(self).boxed()
    }
}

impl<J: Journal> Journal for Arc<J> {
    fn is_durable(&self) -> bool {
        J::is_durable(self)
    }

    fn begin(&self, opening: Opening, now: UnixMillis) -> Result<Recovered, JournalError> {
        J::begin(self, opening, now)
    }

    fn append(&self, entries: &mut Vec<Entry>) -> Position {
        J::append(self, entries)
    }

    fn is_committed(&self, position: Position) -> bool {
        J::is_committed(self, position)
    }

    fn committed(&self, position: Position) -> impl Future<Output = ()> + Send {
        J::committed(self, position)
    }

    fn has_room(&self, bytes: usize) -> bool {
        J::has_room(self, bytes)
    }

    fn room(&self) -> impl Future<Output = ()> + Send {
        J::room(self)
    }

    fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk> {
        J::chunks(self, tenant, seq, bytes)
    }

    fn read(
        &self,
        tenant: &TenantId,
        chunk: &RecoveredChunk,
    ) -> impl Future<Output = Result<Chunk, JournalError>> + Send {
        J::read(self, tenant, chunk)
    }

    fn health(&self) -> Health {
        J::health(self)
    }

    fn close(&self) -> impl Future<Output = Result<(), JournalError>> + Send {
        J::close(self)
    }
}
