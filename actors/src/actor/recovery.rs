//! What an earlier process left: read back tenant by tenant, before anything new of the same tenant.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::compensation::pursue;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use super::spill::{self, Reading};
use super::waiting::{PRESSURE_EVERY, relieve};
use crate::model::{Cause, Chunk, Code, FlushReason, Role, SupervisorEvent, TenantId, What};
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
    let mut rest = vec![];
    for (slot, left) in left {
        let later = fitting(&shared, &slot, &left);
        let now = left.chunks.get(..later).unwrap_or_default();
        let made = left.cuts.iter().filter_map(|cut| cut.made.as_ref());
        let reserved = now.iter().chain(made).map(|chunk| chunk.bytes).sum();
        reserve(&shared, reserved).await;
        let back = read(&shared, &left, now).await;
        for (seq, chunk) in &back.chunks {
            if let Ok(at) = left.chunks.binary_search_by_key(seq, |told| told.seq) {
                found(&shared, &slot, chunk, left.unsettled(&left.chunks[at]));
            }
        }
        let (lost, cut_bytes) = slot.lane.read_back(back, &left, later, Instant::now());
        // Before anything new comes, which then stays behind it.
        let reading = Some(()).filter(|()| slot.lane.is_spilling()).and_then(|()| Reading::begin(&shared, &slot));
        shared.unread.fetch_sub(1, Ordering::AcqRel);
        shared.budget.cut(cut_bytes);
        shared.budget.correct(reserved, slot.lane.bytes());
        if lost > 0 {
            let detail = format!("{lost} accepted events could not be read back from the journal; they are lost");
            shared.failed(&slot.failure(&shared, Cause::new(Code::JournalDamaged, detail), lost));
        }
        let open = left.cuts.first().and_then(|cut| cut.progress.open()).map(|step| step.attempt.0);
        shared.log(SupervisorEvent { attempt: open, ..slot.event(Role::Supervisor, What::Recovered) });
        if let Some(reading) = reading {
            shared.log(slot.event(Role::Tenant, What::Spilling));
            rest.push((reading, slot.clone(), left.chunks.get(later..).unwrap_or_default().to_vec()));
        }
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
    for (reading, slot, chunks) in rest {
        if !shared.streams.is_empty() {
            // Who is owed an answer for them: a sender must not be told that they are stored.
            for chunk in &chunks {
                if let Some(chunk) = read_one(&shared, &slot.id, chunk).await {
                    found(&shared, &slot, &chunk, 0..chunk.len());
                }
            }
        }
        spawn(spill::read_back(reading));
    }
    shared.streams.all_found();
}

/// How many of the chunks are read back at once: those of batches, and of the others what the tenant may have in memory. The rest
/// stays in the journal, as if it had been spilled.
fn fitting(shared: &Shared, slot: &Slot, left: &RecoveredTenant) -> usize {
    let most = slot.policy().overflow.max_in_flight.min(shared.budget.max());
    let cut = left.cuts.last().map_or(0, |cut| cut.until.seq);
    let mut bytes = 0;
    let fits = |(nth, chunk): &(usize, &RecoveredChunk)| {
        bytes += chunk.bytes;
        *nth == 0 || chunk.seq <= cut || bytes <= most
    };
    left.chunks.iter().enumerate().take_while(fits).count()
}

/// What an earlier process accepted is on its way: nobody is told before it has arrived.
fn found(shared: &Shared, slot: &Slot, chunk: &Chunk, unsettled: Range<usize>) {
    if let Some(origin) = chunk.origin()
        && let Some(stream) = shared.streams.get(&origin.stream)
    {
        stream.found(origin.positions.get(unsettled).unwrap_or_default(), slot.policy().ack);
    }
}

/// Waits for the memory, where it lies in open windows until they are closed.
async fn reserve(shared: &Shared, bytes: usize) {
    let mut reserved = std::pin::pin!(shared.budget.reserve_first(bytes));
    while tokio::time::timeout(PRESSURE_EVERY, &mut reserved).await.is_err() {
        relieve(shared);
    }
}

async fn read(shared: &Shared, left: &RecoveredTenant, chunks: &[RecoveredChunk]) -> ReadBack {
    let mut back = ReadBack::default();
    for chunk in chunks {
        back.chunks.extend(read_one(shared, &left.tenant, chunk).await.map(|read| (chunk.seq, read)));
    }
    for cut in &left.cuts {
        let made = match &cut.made {
            Some(made) => read_one(shared, &left.tenant, made).await,
            None => None,
        };
        back.cuts.push((cut.clone(), made));
    }
    back
}

/// Reads the chunk, again where that fails; `None` where it stays so.
pub(super) async fn read_one(shared: &Shared, tenant: &TenantId, chunk: &RecoveredChunk) -> Option<Chunk> {
    let (policy, mut rng) = (RetryPolicy::default(), shared.seam.rng());
    for tries in 1..=TRIES {
        match shared.journal.read(tenant, chunk).await {
            Ok(read) => return Some(read),
            Err(why) => {
                tracing::error!(target: "headworks", %tenant, chunk = chunk.seq, tries, %why, "cannot read back what was accepted");
            }
        }
        tokio::time::sleep(policy.wait(tries, None, &mut rng)).await;
    }
    None
}
