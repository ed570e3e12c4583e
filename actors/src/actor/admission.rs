//! The door: whether a tenant's share of a read is accepted, and what happens while it cannot be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::alarms::Alarm;
use super::registry::Shared;
use super::slot::Slot;
use super::stage::Share;
use crate::model::{Cause, Chunk, Code, FlushReason};
use crate::observe::{Counters, SourceCounters, SourceLedger};
use crate::policy::WhenFull;
use crate::port::fault_point::fault_point;
use crate::port::lane::Arrival;

/// How often a blocked connection looks whether others make progress.
const GLANCE: Duration = Duration::from_millis(100);

/// Windows are closed to make room at most this often.
const PRESSURE_EVERY: Duration = Duration::from_millis(20);

/// What waits at the door.
pub(crate) struct Waiting {
    slot: Arc<Slot>,
    chunk: Chunk,
}

enum Full {
    System(Chunk),
    Tenant(Chunk),
}

/// Accepts or refuses a share at once, or says that it has to wait. Counts it either way, in the tenant's counters and
/// in `source`.
pub(crate) fn admit(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    share: Share<'_>,
    now: Instant,
) -> Option<Waiting> {
    let Share { slot, chunk, discarded } = share;
    let frames = discarded + chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
    if slot.muted.load(Ordering::Acquire) {
        slot.lane.count(|counters| {
            counters.received += frames;
            counters.muted += frames;
        });
        source.muted += frames;
        return None;
    }
    let count = |counters: &mut Counters| {
        counters.received += frames;
        counters.accepted += discarded;
        counters.discarded += discarded;
    };
    source.accepted += discarded;
    let Some(chunk) = chunk else {
        slot.lane.count(count);
        return None;
    };
    match accept(shared, source, slot, chunk, now, count) {
        Ok(()) => None,
        Err(Full::System(chunk) | Full::Tenant(chunk)) => Some(Waiting { slot: slot.clone(), chunk }),
    }
}

/// `count` is told the tenant's counters once, whatever the answer.
fn accept(
    shared: &Arc<Shared>,
    source: &mut SourceCounters,
    slot: &Arc<Slot>,
    chunk: Chunk,
    now: Instant,
    count: impl FnOnce(&mut Counters),
) -> Result<(), Full> {
    let (footprint, events) = (chunk.footprint(), chunk.len() as u64);
    if !shared.budget.reserve(footprint) {
        slot.lane.count(count);
        return Err(Full::System(chunk));
    }
    match slot.lane.accept(chunk, now, &slot.policy, count) {
        Arrival::Accepted { wake, due } => {
            fault_point("after-accept");
            source.accepted += events;
            if let Some(due) = due {
                shared.alarms.set(due, slot, Alarm::Window);
            }
            if wake {
                slot.hint_chunks(shared);
            }
            Ok(())
        }
        Arrival::Full(chunk) => {
            shared.budget.unreserve(footprint);
            Err(Full::Tenant(chunk))
        }
    }
}

/// Waits until every share has been accepted or, by its tenant's policy, rejected.
///
/// Shares of different tenants wait side by side: one that may move does not wait for one that may not.
pub(crate) async fn wait(shared: Arc<Shared>, source: Arc<SourceLedger>, waiting: Vec<Waiting>) {
    futures::future::join_all(waiting.into_iter().map(|one| wait_one(&shared, &source, one))).await;
}

async fn wait_one(shared: &Arc<Shared>, source: &SourceLedger, Waiting { slot, mut chunk }: Waiting) {
    let policy = &slot.policy.overflow;
    let mut blocked = Duration::ZERO;
    let mut others = settled_by_others(shared, &slot);
    loop {
        let system_room = shared.budget.room().notified();
        let tenant_room = slot.room.notified();
        let (mut system_room, mut tenant_room) = (std::pin::pin!(system_room), std::pin::pin!(tenant_room));
        system_room.as_mut().enable();
        tenant_room.as_mut().enable();
        let accepted = accept(shared, &mut source.lock(), &slot, chunk, Instant::now(), |_| {});
        match accepted {
            Ok(()) => return,
            Err(Full::System(back)) => {
                chunk = back;
                if relieve(shared) {
                    system_room.await;
                } else {
                    // The windows may hold all there is, so that nothing else would ever make room.
                    let _ = tokio::time::timeout(PRESSURE_EVERY, system_room).await;
                }
            }
            Err(Full::Tenant(back)) => {
                chunk = back;
                if policy.when_full == WhenFull::Reject || blocked >= policy.block_for {
                    return reject(shared, source, &slot, &chunk);
                }
                if slot.lane.has_uncut() && slot.lane.snapshot().batches == 0 {
                    slot.want_flush(shared, FlushReason::Pressure);
                }
                if tokio::time::timeout(GLANCE, tenant_room).await.is_err() {
                    let now = settled_by_others(shared, &slot);
                    blocked += if now == others { Duration::ZERO } else { GLANCE };
                    others = now;
                }
            }
        }
    }
}

fn settled_by_others(shared: &Shared, slot: &Slot) -> u64 {
    let all = shared.settled.load(Ordering::Acquire);
    all.wrapping_sub(slot.settled.load(Ordering::Acquire))
}

fn reject(shared: &Shared, source: &SourceLedger, slot: &Slot, chunk: &Chunk) {
    let events = chunk.len() as u64;
    slot.lane.count(|counters| counters.rejected += events);
    source.lock().rejected += events;
    let max = slot.policy.overflow.max_in_flight;
    let detail = format!("{events} events refused: the tenant has overflow.max_in_flight = {max} bytes in flight");
    shared.failed(&slot.failure(shared, Cause::new(Code::TenantFull, detail), events));
}

/// The memory of the whole system is full: closes the windows, if that is where it lies. False where it is too soon
/// for that again.
fn relieve(shared: &Shared) -> bool {
    if !shared.budget.lies_in_windows() {
        return true;
    }
    {
        let now = Instant::now();
        let mut last = shared.last_pressure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|last| now.duration_since(last) < PRESSURE_EVERY) {
            return false;
        }
        *last = Some(now);
    }
    for slot in shared.all_slots() {
        if slot.lane.has_uncut() {
            slot.want_flush(shared, FlushReason::Pressure);
        }
    }
    true
}
