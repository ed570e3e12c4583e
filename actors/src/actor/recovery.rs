//! What an earlier process left: read back tenant by tenant, before anything new of the same tenant.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::admission::{PRESSURE_EVERY, relieve};
use super::compensation::pursue;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use crate::model::{Cause, Chunk, Code, FlushReason, Role, SupervisorEvent, What};
use crate::policy::RetryPolicy;
use crate::port::lane::ReadBack;
use crate::port::{RecoveredChunk, RecoveredTenant, spawn};

/// How often a chunk is asked for before it counts as lost.
const TRIES: u32 = 5;

/// Goes on with what could not be undone, and reads back what is left of each tenant, one after the other, as the memory for it
/// gets free: nothing else is accepted before. A tenant then goes on where the earlier process was.
pub(crate) async fn recover(shared: Arc<Shared>, left: Vec<(Arc<Slot>, RecoveredTenant)>) {
    for slot in shared.all_slots() {
        if slot.lane.snapshot().uncompensated > 0 {
            spawn(pursue(shared.clone(), slot));
        }
    }
    for (slot, left) in left {
        let made = left.cuts.iter().filter_map(|cut| cut.made.as_ref());
        let reserved = left.chunks.iter().chain(made).map(|chunk| chunk.bytes).sum();
        reserve(&shared, reserved).await;
        let back = read(&shared, &left).await;
        for (seq, chunk) in &back.chunks {
            if let Some(origin) = chunk.origin()
                && let Some(stream) = shared.streams.get(&origin.stream)
                && let Ok(at) = left.chunks.binary_search_by_key(seq, |told| told.seq)
            {
                let unsettled = left.unsettled(&left.chunks[at]);
                stream.found(origin.positions.get(unsettled).unwrap_or_default(), slot.policy().ack);
            }
        }
        let (lost, cut_bytes) = slot.lane.read_back(back, left.settled, left.uncut, Instant::now());
        shared.unread.fetch_sub(1, Ordering::AcqRel);
        shared.budget.cut(cut_bytes);
        shared.budget.correct(reserved, slot.lane.bytes());
        if lost > 0 {
            let detail = format!("{lost} accepted events could not be read back from the journal; they are lost");
            shared.failed(&slot.failure(&shared, Cause::new(Code::JournalDamaged, detail), lost));
        }
        let open = left.cuts.first().and_then(|cut| cut.progress.open()).map(|step| step.attempt.0);
        shared.log(SupervisorEvent { attempt: open, ..slot.event(Role::Supervisor, What::Recovered) });
        if open.is_none() {
            slot.recovered();
        }
        if shared.phase() >= Phase::Draining {
            // The drain closed the windows before this one was there.
            slot.want_flush(&shared, FlushReason::Drain);
        }
        slot.hint_chunks(&shared);
        slot.hint_batches(&shared);
    }
    shared.streams.all_found();
}

/// Waits for the memory, where it lies in open windows until they are closed.
async fn reserve(shared: &Shared, bytes: usize) {
    let mut reserved = std::pin::pin!(shared.budget.reserve_first(bytes));
    while tokio::time::timeout(PRESSURE_EVERY, &mut reserved).await.is_err() {
        relieve(shared);
    }
}

async fn read(shared: &Shared, left: &RecoveredTenant) -> ReadBack {
    let mut back = ReadBack::default();
    for chunk in &left.chunks {
        back.chunks.extend(read_one(shared, left, chunk).await.map(|read| (chunk.seq, read)));
    }
    for cut in &left.cuts {
        let made = match &cut.made {
            Some(made) => read_one(shared, left, made).await,
            None => None,
        };
        back.cuts.push((cut.clone(), made));
    }
    back
}

async fn read_one(shared: &Shared, left: &RecoveredTenant, chunk: &RecoveredChunk) -> Option<Chunk> {
    let (policy, mut rng) = (RetryPolicy::default(), shared.seam.rng());
    for tries in 1..=TRIES {
        match shared.journal.read(&left.tenant, chunk).await {
            Ok(read) => return Some(read),
            Err(why) => {
                tracing::error!(target: "headworks", tenant = %left.tenant, chunk = chunk.seq, tries, %why, "cannot read back what was accepted");
            }
        }
        tokio::time::sleep(policy.wait(tries, None, &mut rng)).await;
    }
    None
}
