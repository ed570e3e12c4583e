//! Spill: what a full tenant goes on accepting lies in the durable journal alone, and a task reads it back in order as memory gets
//! free. The task is not the tenant's: restarts and quarantines do not touch it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::admission::{Full, OnRecord, above_rate, accepted};
use super::recovery::read_one;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use super::tenant::told;
use super::waiting::{PRESSURE_EVERY, relieve};
use crate::model::{Cause, Chunk, Code, FlushReason, Role, What};
use crate::observe::{Outcome, SourceCounters};
use crate::port::lane::{Spilled, TakenBack, Unspilled, Wanted};
use crate::port::{RecoveredChunk, spawn};

/// About how much is read at once, in bytes: what comes back late must not hold memory that others could use meanwhile.
const READ: usize = 1 << 20;

/// How often the journal is asked for a chunk that it has committed.
const ASKS: u32 = 5;

/// What did not fit into memory is accepted into the journal alone, where the tenant's rules say so.
pub(super) fn instead(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    slot: &Arc<Slot>,
    full: Full,
    record: &mut OnRecord,
    waited: bool,
) -> Result<(), Full> {
    let (chunk, level) = match full {
        Full::Tenant(chunk, level) => (chunk, Some(level)),
        Full::System(chunk) => (chunk, None),
        other => return Err(other),
    };
    let back = |chunk| match level {
        Some(level) => Full::Tenant(chunk, level),
        None => Full::System(chunk),
    };
    let (events, positions) = (chunk.len() as u64, chunk.origin().map(|origin| origin.positions.clone()));
    let Spilled { begins, ack, kept, over } = match slot.lane.spill(chunk, Instant::now(), &mut record.record, waited) {
        Ok(spilled) => spilled,
        Err(Unspilled::Not(chunk)) => return Err(back(chunk)),
        Err(Unspilled::Over(over)) => return above_rate(shared, source, slot, record, over, positions),
    };
    shared.budget.correct(0, kept);
    if begins {
        record.tell(slot.event(Role::Tenant, What::Spilling));
    }
    if let Some(reading) = Reading::begin(shared, slot) {
        spawn(read_back(reading));
    }
    accepted(shared, source, slot, record, events, positions, ack, over)
}

/// Something of the tenant lies in the journal alone, and somebody sees to it. One at a time.
pub(super) struct Reading {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl Reading {
    /// `None` where somebody does already.
    pub(super) fn begin(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Option<Self> {
        if slot.reading.swap(true, Ordering::AcqRel) {
            return None;
        }
        shared.spilling.fetch_add(1, Ordering::AcqRel);
        Some(Self { shared: shared.clone(), slot: slot.clone() })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.slot.reading.store(false, Ordering::Release);
        self.shared.spilling.fetch_sub(1, Ordering::AcqRel);
        // A drain waits for it.
        self.shared.budget.room().notify_waiters();
    }
}

/// Reads back what is spilled until nothing is.
pub(super) async fn read_back(reading: Reading) {
    let stopping = async {
        let mut phase = reading.shared.phase.subscribe();
        // The sender lives in `shared`.
        let _ = phase.wait_for(|phase| *phase >= Phase::Stopping).await;
    };
    let reads = reads(&reading.shared, &reading.slot);
    // What is not read back by then stays on record, for the next process.
    futures::future::select(std::pin::pin!(reads), std::pin::pin!(stopping)).await;
}

async fn reads(shared: &Arc<Shared>, slot: &Arc<Slot>) {
    let mut asked = 0;
    loop {
        let mut room = std::pin::pin!(slot.room.notified());
        room.as_mut().enable();
        let (seq, bytes, any) = match slot.lane.wanted_back() {
            Wanted::Nothing => return,
            Wanted::Room { in_window } => {
                if in_window {
                    slot.want_flush(shared, FlushReason::Pressure);
                }
                room.await;
                continue;
            }
            Wanted::From { seq, bytes, any } => (seq, bytes, any),
        };
        let mut chunks = shared.journal.chunks(&slot.id, seq, bytes.min(READ));
        if chunks.is_empty() {
            if asked < ASKS {
                asked += 1;
                // It was just accepted.
                let at = shared.journal.append(&mut vec![]);
                shared.journal.committed(at).await;
                continue;
            }
            // A journal that does not know what it committed: the chunk is lost, and how many events it had is known at the end.
            chunks.push(RecoveredChunk { seq, events: 0, bytes: 0, place: (0, 0) });
        }
        asked = 0;
        if chunks[0].bytes > bytes && !any {
            // It needs all of the memory for itself.
            if slot.lane.snapshot().batches == 0 {
                slot.want_flush(shared, FlushReason::Pressure);
            }
            room.await;
            continue;
        }
        let reserved = reserve(shared, &mut chunks).await;
        let mut back = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let read = if chunk.events == 0 { None } else { read_one(shared, &slot.id, &chunk).await };
            back.push((chunk, read));
        }
        take(shared, slot, back, reserved);
    }
}

/// Takes memory for the chunks, or for fewer of them, one at least. How much.
async fn reserve(shared: &Shared, chunks: &mut Vec<RecoveredChunk>) -> usize {
    loop {
        loop {
            let bytes = chunks.iter().map(|chunk| chunk.bytes).sum();
            if shared.budget.reserve(bytes).is_ok() {
                return bytes;
            }
            if chunks.len() == 1 {
                break;
            }
            chunks.truncate(chunks.len().div_ceil(2));
        }
        let room = shared.budget.room_for(chunks[0].bytes);
        if relieve(shared) {
            room.await;
        } else {
            let _ = tokio::time::timeout(PRESSURE_EVERY, room).await;
        }
    }
}

/// Puts into the lane what was read.
fn take(shared: &Arc<Shared>, slot: &Arc<Slot>, back: Vec<(RecoveredChunk, Option<Chunk>)>, reserved: usize) {
    let TakenBack { bytes, lost, lost_origins, advanced, caught_up } = slot.lane.take_back(back, Instant::now());
    shared.budget.correct(reserved, bytes);
    advanced.iter().for_each(|advanced| told(slot, shared, advanced));
    for origin in lost_origins {
        if let Some(stream) = shared.streams.get(&origin.stream) {
            stream.settled(&origin.positions, Outcome::Discarded, Some(Code::JournalDamaged));
        }
    }
    if lost > 0 {
        let detail = format!("{lost} accepted events could not be read back from the journal; they are lost");
        shared.failed(&slot.failure(shared, Cause::new(Code::JournalDamaged, detail), lost));
        slot.hint_batches(shared);
    }
    if caught_up {
        shared.log(slot.event(Role::Tenant, What::CaughtUp));
        if shared.phase() >= Phase::Draining {
            slot.want_flush(shared, FlushReason::Drain);
        }
    }
    slot.hint_chunks(shared);
    // There is room on the disk, or in memory again.
    slot.room.notify_waiters();
}
