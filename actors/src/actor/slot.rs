//! What outlives a tenant's actors: its addresses, its lane, its rules.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::alarms::Alarm;
use super::message::{BatchesWait, Beat, ChunksWait};
use super::registry::Shared;
use super::spec::TenantSpec;
use super::supervise::{Control, Running, supervise};
use super::tenant::Tenant;
use super::writer::Writer;
use crate::model::{Cause, Failure, FlushReason, Role, Status, SupervisorEvent, TenantId, What};
use crate::observe::TenantSnapshot;
use crate::policy::{Liveliness, Policy};
use crate::port::lane::Lane;
use crate::port::{Hooks, Stores};

/// One tenant, from its first event to the end of the system: its addresses, its lane, its rules.
pub(crate) struct Slot {
    pub(crate) id: TenantId,
    pub(crate) policy: Arc<Policy>,
    /// The saga.
    pub(crate) stores: Arc<Stores>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) lane: Lane,
    /// Whether the tenant's lane may have got room.
    pub(crate) room: Notify,
    pub(crate) muted: AtomicBool,
    /// What an earlier process left has to be dealt with before new events are taken.
    pub(crate) recovering: AtomicBool,
    /// It came up because it was on record, and nobody has spawned it since.
    pub(crate) is_unclaimed: AtomicBool,
    pub(crate) idle: AtomicBool,
    /// Batches settled so far.
    pub(crate) settled: AtomicU64,
    tenant: OnceLock<Running<Tenant>>,
    writer: OnceLock<Running<Writer>>,
    /// A task of the aggregator is at the batch in front.
    pub(crate) compensating: AtomicBool,
    /// A task of the aggregator is at the compensations that could not be done.
    pub(crate) pursuing: AtomicBool,
    /// Whether a heartbeat is under way: an alarm set for it, or the message.
    pub(crate) beating: AtomicBool,
    /// A hint is on its way.
    pub(crate) chunks_hinted: AtomicBool,
    pub(crate) batches_hinted: AtomicBool,
    /// The flush that is wanted: 0 for none, else its place in [`FlushReason::ALL`] plus 1.
    flush: AtomicU8,
}

impl Slot {
    pub(crate) fn new(spec: TenantSpec, shared: &Shared, muted: bool) -> Self {
        let defaults = &shared.defaults;
        let hooks = match spec.hooks.is_empty() {
            true => defaults.hooks.clone(),
            false => Arc::new(defaults.hooks.then(&spec.hooks)),
        };
        let stores = spec.stores.unwrap_or_else(|| defaults.stores.clone());
        Self {
            lane: Lane::new(spec.id.clone(), shared.opening, stores.clone(), hooks.sees_batches(), &shared.journal),
            id: spec.id,
            policy: spec.policy.map_or_else(|| defaults.policy.clone(), Arc::new),
            stores,
            hooks,
            room: Notify::new(),
            muted: AtomicBool::new(muted),
            recovering: AtomicBool::new(false),
            is_unclaimed: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            settled: AtomicU64::new(0),
            tenant: OnceLock::new(),
            writer: OnceLock::new(),
            compensating: AtomicBool::new(false),
            pursuing: AtomicBool::new(false),
            beating: AtomicBool::new(false),
            chunks_hinted: AtomicBool::new(false),
            batches_hinted: AtomicBool::new(false),
            flush: AtomicU8::new(0),
        }
    }

    /// Starts the tenant's actors, if they do not run. Only on the system's thread.
    pub(crate) fn start(self: &Arc<Self>, shared: &Arc<Shared>) -> &Running<Tenant> {
        self.tenant.get_or_init(|| supervise(shared, Some(self), Tenant::new(self.clone(), shared.clone())))
    }

    /// What an earlier process had begun has its outcome, or is known to need another attempt: new events may come.
    pub(crate) fn recovered(&self) {
        if self.recovering.swap(false, Ordering::AcqRel) {
            self.room.notify_waiters();
        }
    }

    /// Tells the tenant that chunks wait. Only on the system's thread.
    pub(crate) fn hint_chunks(self: &Arc<Self>, shared: &Arc<Shared>) {
        if !self.chunks_hinted.swap(true, Ordering::AcqRel) {
            self.start(shared).addr.do_send(ChunksWait);
        }
    }

    /// Whether the tenant runs, is not idle, and nothing is asked of it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.tenant.get().is_some_and(|tenant| tenant.control.status().is_none())
            && !self.idle.load(Ordering::Acquire)
            && self.flush.load(Ordering::Acquire) == 0
            && !self.chunks_hinted.load(Ordering::Acquire)
    }

    /// Brings what the door needs of the tenant near the processor.
    ///
    /// Where there are very many tenants, nearly all of their memory is far from it. Reading a word of several of them first,
    /// with nothing that depends on it, fetches them side by side; else each would be waited for in turn.
    pub(crate) fn near_lane(&self) {
        black_box(self.muted.load(Ordering::Relaxed));
        self.lane.near();
    }

    /// Brings what an alarm and a hint need of the tenant near the processor; see [`near_lane`](Self::near_lane).
    pub(crate) fn near_actors(&self) {
        self.near_lane();
        black_box(self.tenant.get().map(|tenant| tenant.control.status()));
        black_box(self.writer.get().map(|writer| (writer.control.status(), writer.addr.connected())));
    }

    /// Tells the tenant that its heartbeat is due. Only on the system's thread.
    pub(crate) fn beat(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.start(shared).addr.do_send(Beat);
    }

    /// Tells the writer that batches wait. Only on the system's thread.
    pub(crate) fn hint_batches(self: &Arc<Self>, shared: &Arc<Shared>) {
        if !self.batches_hinted.swap(true, Ordering::AcqRel) {
            let child = || supervise(shared, Some(self), Writer::new(self.clone(), shared.clone()));
            self.writer.get_or_init(child).addr.do_send(BatchesWait);
        }
    }

    /// Asks the tenant to close its window, from any thread.
    pub(crate) fn want_flush(self: &Arc<Self>, shared: &Shared, reason: FlushReason) {
        let place = FlushReason::ALL.iter().position(|r| *r == reason).and_then(|place| u8::try_from(place + 1).ok());
        self.flush.store(place.unwrap_or(0), Ordering::Release);
        match self.tenant.get() {
            Some(tenant) if !self.chunks_hinted.swap(true, Ordering::AcqRel) => tenant.addr.do_send(ChunksWait),
            Some(_) => {}
            // Nobody there yet: the alarm starts it, on the system's thread.
            None => shared.alarms.set(Instant::now(), self, Alarm::Window),
        }
    }

    /// The flush that is wanted. Asked once, answered once.
    pub(crate) fn take_flush(&self) -> Option<FlushReason> {
        match self.flush.swap(0, Ordering::AcqRel) {
            0 => None,
            place => FlushReason::ALL.get(usize::from(place - 1)).copied(),
        }
    }

    pub(crate) fn each_control(&self, tell: impl Fn(&Control)) {
        if let Some(tenant) = self.tenant.get() {
            tell(&tenant.control);
        }
        if let Some(writer) = self.writer.get() {
            tell(&writer.control);
        }
    }

    /// Why the tenant's writer failed last; told once.
    pub(crate) fn writer_cause(&self) -> Option<Cause> {
        self.writer.get().and_then(|writer| writer.control.take_last_cause())
    }

    /// The log entry of something that happened to the tenant.
    pub(crate) fn event(&self, actor: Role, what: What) -> SupervisorEvent {
        let epoch = match actor {
            Role::Tenant => self.tenant.get().map(|tenant| tenant.control.epoch()),
            Role::Writer => self.writer.get().map(|writer| writer.control.epoch()),
            _ => None,
        };
        SupervisorEvent {
            epoch: epoch.unwrap_or(0),
            events_kept: self.lane.snapshot().in_flight(),
            ..SupervisorEvent::new(Some(self.id.clone()), actor, what)
        }
    }

    /// A failure of the tenant.
    pub(crate) fn failure(&self, shared: &Shared, cause: Cause, events: u64) -> Failure {
        Failure { at: shared.seam.now(), tenant: Some(self.id.clone()), source: None, batch: None, cause, events }
    }

    pub(crate) fn snapshot(&self) -> TenantSnapshot {
        let lane = self.lane.snapshot();
        TenantSnapshot {
            tenant: self.id.clone(),
            status: self.status(lane.window > 0, lane.front),
            is_muted: self.muted.load(Ordering::Acquire),
            counters: lane.counters,
            in_flight: lane.in_flight(),
            window: lane.window,
            batches_waiting: lane.batches as u64,
            in_flight_bytes: lane.bytes as u64,
            uncompensated: lane.uncompensated,
        }
    }

    fn status(&self, in_flight: bool, front: Option<(u32, bool, bool)>) -> Status {
        let Some(tenant) = self.tenant.get() else {
            return if in_flight { Status::Active } else { Status::Dormant };
        };
        let own = tenant.control.status();
        let writer = self.writer.get().and_then(|writer| writer.control.status());
        match (own.max(writer), front) {
            (Some(broken), _) => broken,
            (None, Some((_, _, true))) => Status::Compensating,
            (None, Some((_, true, _))) => Status::Parked,
            (None, Some((failed, ..))) if failed > 0 => Status::Retrying,
            _ if self.idle.load(Ordering::Acquire) => Status::Idle,
            _ => Status::Active,
        }
    }

    /// Events came, or stay away: told once each time.
    pub(crate) fn turned(&self, shared: &Shared, to: Liveliness) {
        let (idle, what) = match to {
            Liveliness::Active => (false, What::Active),
            Liveliness::Idle => (true, What::Idle),
        };
        self.idle.store(idle, Ordering::Release);
        shared.log(self.event(Role::Tenant, what));
    }
}
