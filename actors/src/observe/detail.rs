use std::sync::Arc;

use serde::Serialize;

use super::{ReportEntry, TenantSnapshot};
use crate::model::{
    Attempt, BatchId, BreakerState, Cause, Role, Status, StoreName, SupervisorEvent, TenantId, UnixMillis,
};

/// All that is known of one tenant at one moment: what `headworks explain` shows.
///
/// The snapshot, the window, the backlog and the batch were read at once; what the actors, the report and the log say, a moment
/// later. Made for eyes and tools, one tenant at a time: it allocates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TenantDetail {
    /// Whose.
    pub tenant: TenantId,
    /// When this was read.
    pub at: UnixMillis,
    /// Status and counters.
    pub snapshot: TenantSnapshot,
    /// The open window.
    pub window: OpenWindow,
    /// What waits to be stored, the open window not counted.
    pub backlog: Backlog,
    /// The batch in front, once work on it has begun.
    pub batch: Option<BatchDetail>,
    /// Its circuit breakers, of stores at which its last call failed and of no others.
    pub breakers: Vec<BreakerDetail>,
    /// What its rate lets pass at once now; `None` where it is held to none, or is dormant.
    pub throttle: Option<ThrottleDetail>,
    /// Its actors, as far as they run.
    pub actors: Vec<ActorDetail>,
    /// What it failed with so far, by code.
    pub failures: Vec<ReportEntry>,
    /// The newest entries of the supervisor log about it, oldest first: [`LOG_ENTRIES`](Self::LOG_ENTRIES) at most.
    pub log: Vec<Arc<SupervisorEvent>>,
}

impl TenantDetail {
    /// How many entries of the supervisor log come with it, at the most.
    pub const LOG_ENTRIES: usize = 20;
}

/// A window that is open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct OpenWindow {
    /// The events in it.
    pub events: u64,
    /// How many close it.
    pub max_events: u64,
    /// The size of their bodies, in bytes.
    pub bytes: u64,
    /// At what size it is closed, in bytes.
    pub max_bytes: u64,
    /// When it is closed by age. `None` where it is empty.
    pub due_at: Option<UnixMillis>,
    /// When its first event arrived.
    pub oldest_at: Option<UnixMillis>,
}

/// Closed windows without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Backlog {
    /// The batches, the one in front included.
    pub batches: u64,
    /// The events in them.
    pub events: u64,
    /// The size of their bodies, in bytes.
    pub bytes: u64,
    /// When the first event of the first of them arrived.
    pub oldest_at: Option<UnixMillis>,
    /// Events of an earlier process that are on record and not read back yet.
    pub unread: u64,
}

/// The batch in front of a tenant's lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchDetail {
    /// Its name.
    pub id: BatchId,
    /// Its events.
    pub events: u64,
    /// The size of their bodies, in bytes.
    pub bytes: u64,
    /// The store of the saga that is at it, or was last.
    pub store: Option<StoreName>,
    /// The number of the last attempt begun there; 0 before the first.
    pub attempt: Attempt,
    /// How many attempts count as failed. Those that found the store away do not.
    pub attempts_spent: u32,
    /// How many it has in all.
    pub attempts_allowed: u32,
    /// When the attempt that is under way was begun, if one is.
    pub open_since: Option<UnixMillis>,
    /// When the next one is due, if one is waited for.
    pub next_attempt_at: Option<UnixMillis>,
    /// Since when it waits for its turn at a store that other tenants are at, if it does.
    pub wants_turn_since: Option<UnixMillis>,
    /// Whether it waits for a store that is not there.
    pub is_parked: bool,
    /// Whether it was given up, and is being compensated or kept as dead letters.
    pub is_given_up: bool,
    /// Why the last attempt failed.
    pub last_cause: Option<Cause>,
    /// What is undone if it is given up, newest first.
    pub undo_steps: Vec<String>,
}

/// The circuit breaker between a tenant and a store at which its last call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerDetail {
    /// Which store.
    pub store: StoreName,
    /// Open, half-open or closed.
    pub state: BreakerState,
    /// How many calls failed in a row.
    pub failures: u32,
    /// Where it is not closed: when the call that may close it is due, or was.
    pub probe_at: Option<UnixMillis>,
}

/// What a tenant's rate lets pass at once now: what is left of its bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ThrottleDetail {
    /// Events; `None` where their rate is not bounded.
    pub events_left: Option<u64>,
    /// Bytes of event bodies, likewise.
    pub bytes_left: Option<u64>,
}

/// One actor of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorDetail {
    /// Which.
    pub actor: Role,
    /// How often it was started afresh.
    pub epoch: u64,
    /// What is wrong with it: `None` where it runs.
    pub status: Option<Status>,
}
