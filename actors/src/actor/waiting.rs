//! What waits at the door: for memory, for the journal, for its tenant's rate, and for how long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{Full, OnRecord, Waiting, take_in, throttled};
use super::registry::{AtDoor, Phase, Shared};
use super::slot::Slot;
use super::streams::Stream;
use crate::model::{Cause, Chunk, Code, FlushReason};
use crate::observe::SourceLedger;
use crate::policy::WhenFull;
use crate::port::lane::{Bound, Frames};

/// How often whoever is held looks whether others could go on.
const GLANCE: Duration = Duration::from_millis(100);

/// Windows are closed to make room at most this often.
pub(super) const PRESSURE_EVERY: Duration = Duration::from_millis(20);

/// The door that a read came in by.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) source: &'a SourceLedger,
    pub(crate) stream: Option<&'a Arc<Stream>>,
    /// Whether the connection has brought events of several tenants: then one does not hold it for longer than its rules say.
    pub(crate) is_shared: bool,
}

/// Waits until every share has been accepted or, by its tenant's policy, rejected.
///
/// Shares of different tenants wait side by side: one that may move does not wait for one that may not.
pub(crate) async fn wait(shared: &Arc<Shared>, held: Held<'_>, waiting: Vec<Waiting>) {
    futures::future::join_all(waiting.into_iter().map(|tenant| wait_in_turn(shared, held, tenant))).await;
}

async fn wait_in_turn(shared: &Arc<Shared>, held: Held<'_>, Waiting { slot, chunks }: Waiting) {
    let at_door: Vec<_> = chunks.iter().map(|chunk| AtDoor::wait(shared, chunk.len() as u64)).collect();
    for (chunk, _at_door) in chunks.into_iter().zip(at_door) {
        wait_one(shared, held, slot.clone(), chunk.into()).await;
    }
}

async fn wait_one(shared: &Arc<Shared>, held: Held<'_>, mut slot: Arc<Slot>, mut chunk: Box<Chunk>) {
    // For how long others were held, and may be.
    let mut patience = Duration::MAX;
    loop {
        // Its tenant may have been passivated while this waited for something else.
        slot = shared.present(&slot);
        let mut tenant_room = std::pin::pin!(slot.room.notified());
        tenant_room.as_mut().enable();
        let mut rules = std::pin::pin!(shared.rules_changed.notified());
        rules.as_mut().enable();
        let mut record = OnRecord::new(shared, held.stream.cloned());
        let (now, waited) = (Instant::now(), patience.is_zero());
        let taken = {
            let (source, frames) = (&mut held.source.lock(), Frames::default());
            take_in(shared, source, &slot, *chunk, now, &mut record, frames, waited)
        };
        record.append(shared);
        let Err(full) = taken else { return };
        match full {
            Full::Recovering(back) => {
                chunk = back;
                tenant_room.await;
            }
            Full::System(back) => {
                chunk = back;
                let system_room = shared.budget.room_for(chunk.footprint());
                if relieve(shared) {
                    system_room.await;
                } else {
                    // The windows may hold all there is, so that nothing else would ever make room.
                    let _ = tokio::time::timeout(PRESSURE_EVERY, system_room).await;
                }
            }
            Full::Journal(back) => {
                chunk = back;
                if !slot.lane.is_spilling() {
                    shared.journal.room().await;
                    continue;
                }
                if waited {
                    return reject(shared, held, &slot, &chunk, false);
                }
                patience = hold(shared, held, &slot, shared.journal.room()).await;
            }
            Full::Rate(back, until) => {
                chunk = back;
                if shared.phase() > Phase::Running {
                    // Nothing more comes: what is here already is not lost for a rate.
                    slot.lane.unthrottle();
                    continue;
                }
                if !held.is_shared {
                    let _ = tokio::time::timeout_at(until, rules).await;
                    continue;
                }
                let left = slot.lane.patience(Bound::Rate, now);
                if left.is_zero() {
                    return throttle(shared, held, &slot, &chunk, until.saturating_duration_since(now));
                }
                let _ = tokio::time::timeout_at(until.min(now + left), rules).await;
                // It may have been passivated meanwhile.
                shared.present(&slot).lane.held(Bound::Rate, now, Instant::now());
            }
            Full::Tenant(back, level) => {
                chunk = back;
                let when_full = slot.policy().overflow.when_full;
                if matches!(when_full, WhenFull::Reject | WhenFull::DropOldest) || waited {
                    return reject(shared, held, &slot, &chunk, level.is_some());
                }
                if slot.lane.has_uncut() && slot.lane.snapshot().batches == 0 {
                    slot.want_flush(shared, FlushReason::Pressure);
                }
                let memory = std::pin::pin!(async {
                    match level {
                        Some(level) => shared.budget.falls_to(level).await,
                        None => std::future::pending().await,
                    }
                });
                let room = futures::future::select(tenant_room, memory);
                if level.is_some() && !shared.budget.is_heavy(slot.lane.bytes() + chunk.footprint()) {
                    // The store is too slow for all of them: that none of them answers for.
                    let _ = tokio::time::timeout(GLANCE, room).await;
                    continue;
                }
                patience = hold(shared, held, &slot, room).await;
            }
        }
    }
}

/// Holds the connection until there is `room`, but no longer than [`GLANCE`]. How much longer the tenant may hold it: that counts
/// only where others came by it, and could move: while no store is there nobody could, and all wait for it.
async fn hold(shared: &Shared, held: Held<'_>, slot: &Slot, room: impl Future) -> Duration {
    if !held.is_shared {
        let _ = tokio::time::timeout(GLANCE, room).await;
        return Duration::MAX;
    }
    let from = Instant::now();
    let left = slot.lane.patience(Bound::Full, from);
    if left.is_zero() {
        return left;
    }
    let _ = tokio::time::timeout(GLANCE.min(left), room).await;
    if shared.gates.any_up() {
        slot.lane.held(Bound::Full, from, Instant::now());
    }
    slot.lane.patience(Bound::Full, Instant::now())
}

fn reject(shared: &Arc<Shared>, held: Held<'_>, slot: &Arc<Slot>, chunk: &Chunk, is_above_share: bool) {
    if let (Some(stream), Some(origin)) = (held.stream, chunk.origin()) {
        stream.refused(&origin.positions, Code::TenantFull);
    }
    let events = chunk.len() as u64;
    shared.count(slot, |counters| counters.rejected += events);
    held.source.lock().rejected += events;
    let max = slot.policy().overflow.max_in_flight;
    let mut detail = match is_above_share {
        true => format!(
            "{events} events refused: the memory of all tenants is scarce, and this one holds more than its share"
        ),
        false => format!("{events} events refused: the tenant has overflow.max_in_flight = {max} bytes in flight"),
    };
    let (_, spilled) = slot.lane.snapshot().spilled;
    if spilled > 0 {
        detail += &format!(", and {spilled} bytes in the journal alone");
    }
    shared.failed(&slot.failure(shared, Cause::new(Code::TenantFull, detail), events));
}

/// Refuses what has waited for its tenant's rate for as long as others bear with it.
fn throttle(shared: &Arc<Shared>, held: Held<'_>, slot: &Arc<Slot>, chunk: &Chunk, retry_after: Duration) {
    if let (Some(stream), Some(origin)) = (held.stream, chunk.origin()) {
        stream.throttled(&origin.positions, retry_after);
    }
    let events = chunk.len() as u64;
    shared.count(slot, |counters| counters.throttled += events);
    held.source.lock().throttled += events;
    shared.failed(&throttled(shared, slot, events));
}

/// The memory of the whole system is full: closes the windows, if that is where it lies. False where it is too soon
/// for that again.
pub(super) fn relieve(shared: &Shared) -> bool {
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
    // Those that have waited longest: to close them all would make small batches for nothing.
    shared.alarms.hasten_windows(shared.budget.max() / 2);
    true
}
