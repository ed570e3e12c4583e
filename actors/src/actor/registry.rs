//! What outlives every actor: one slot a tenant, and what all of them share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix::Addr;
use dashmap::{DashMap, DashSet, Entry};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::aggregator::Aggregator;
use super::alarms::{Alarm, Alarms};
use super::budget::Budget;
use super::letters::Letters;
use super::message::{BatchesWait, Beat, ChunksWait};
use super::spec::TenantSpec;
use super::supervise::{Control, Running, supervise};
use super::tenant::Tenant;
use super::writer::Writer;
use crate::model::{Cause, Error, Failure, FlushReason, Opening, Role, Seq, Status, SupervisorEvent, TenantId, What};
use crate::observe::{
    Collector, Observer, Outcome, Settled, SourceCounters, SourceLedger, SupervisorLog, TenantSnapshot,
};
use crate::policy::{Liveliness, Policy};
use crate::port::journal::{Lane, Left};
use crate::port::{BoxStorage, DynDeadLetters, Hooks, Seam};

/// What the parts of one system share. Nothing in here dies with an actor.
pub(crate) struct Shared {
    pub(crate) defaults: Defaults,
    pub(crate) max_tenants: usize,
    slots: DashMap<TenantId, Arc<Slot>>,
    mutes: DashSet<TenantId>,
    sources: DashMap<Arc<str>, Arc<SourceLedger>>,
    pub(crate) budget: Budget,
    pub(crate) letters: Letters,
    pub(crate) alarms: Alarms,
    pub(crate) dead_letters: Arc<dyn DynDeadLetters>,
    pub(crate) log: SupervisorLog,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) seam: Seam,
    pub(crate) opening: Opening,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) aggregator: OnceLock<Running<Aggregator>>,
    /// What has failed, as the aggregator reports it.
    pub(crate) failures: Mutex<Collector>,
    /// Dead letters made of frames, for their ids.
    pub(crate) letters_written: AtomicU64,
    /// Batches settled so far, over all tenants.
    pub(crate) settled: AtomicU64,
    /// Calls that may still bring events in.
    pub(crate) feeds: AtomicU64,
    /// When windows were last closed to make room.
    pub(crate) last_pressure: Mutex<Option<Instant>>,
}

/// A call that may bring events in; a drain waits for it.
pub(crate) struct Feeding(Arc<Shared>);

impl Feeding {
    pub(crate) fn begin(shared: &Arc<Shared>) -> Self {
        shared.feeds.fetch_add(1, Ordering::AcqRel);
        Self(shared.clone())
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.feeds.fetch_sub(1, Ordering::AcqRel);
        self.0.budget.room().notify_waiters();
    }
}

/// What a tenant takes where its spec is silent.
pub(crate) struct Defaults {
    pub(crate) policy: Arc<Policy>,
    pub(crate) storage: BoxStorage,
    pub(crate) hooks: Arc<Hooks>,
    /// The tenants that are no default ones, before they are known.
    pub(crate) specs: HashMap<TenantId, TenantSpec>,
}

/// What the system as a whole is doing. It only moves down the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// No new work; what was accepted is stored.
    Draining,
    /// The actors end.
    Stopping,
    /// The system's thread is done.
    Stopped,
}

/// One tenant, from its first event to the end of the system: its addresses, its lane, its rules.
pub(crate) struct Slot {
    pub(crate) id: TenantId,
    pub(crate) policy: Arc<Policy>,
    pub(crate) storage: BoxStorage,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) lane: Lane,
    /// Whether the tenant's lane may have got room.
    pub(crate) room: Notify,
    pub(crate) muted: AtomicBool,
    pub(crate) idle: AtomicBool,
    /// Batches settled so far.
    pub(crate) settled: AtomicU64,
    tenant: OnceLock<Running<Tenant>>,
    writer: OnceLock<Running<Writer>>,
    /// A task of the aggregator is at the batch in front.
    pub(crate) compensating: AtomicBool,
    /// Whether a heartbeat is under way: an alarm set for it, or the message.
    pub(crate) beating: AtomicBool,
    /// A hint is on its way.
    pub(crate) chunks_hinted: AtomicBool,
    pub(crate) batches_hinted: AtomicBool,
    /// The flush that is wanted: 0 for none, else its place in [`FlushReason::ALL`] plus 1.
    flush: AtomicU8,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "called once, by the builder that names them")]
    pub(crate) fn new(
        defaults: Defaults,
        max_tenants: usize,
        max_in_flight: usize,
        max_letters: usize,
        dead_letters: Arc<dyn DynDeadLetters>,
        log_entries: usize,
        observers: Vec<Arc<dyn Observer>>,
        seam: Seam,
    ) -> Self {
        Self {
            defaults,
            max_tenants,
            slots: DashMap::new(),
            mutes: DashSet::new(),
            sources: DashMap::new(),
            budget: Budget::new(max_in_flight),
            letters: Letters::new(max_letters),
            alarms: Alarms::new(),
            dead_letters,
            log: SupervisorLog::new(log_entries),
            observers,
            opening: seam.opening(),
            phase: watch::Sender::new(Phase::Running),
            aggregator: OnceLock::new(),
            failures: Mutex::new(Collector::new(seam.now())),
            letters_written: AtomicU64::new(0),
            seam,
            settled: AtomicU64::new(0),
            feeds: AtomicU64::new(0),
            last_pressure: Mutex::new(None),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`, never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let moves = phase > *now;
            *now = (*now).max(phase);
            moves
        });
    }

    pub(crate) fn slot(&self, id: &TenantId) -> Option<Arc<Slot>> {
        self.slots.get(id).map(|slot| slot.clone())
    }

    /// Every tenant, by name.
    pub(crate) fn all_slots(&self) -> Vec<Arc<Slot>> {
        let mut slots: Vec<_> = self.slots.iter().map(|slot| slot.clone()).collect();
        slots.sort_by(|a, b| a.id.cmp(&b.id));
        slots
    }

    /// The tenant's slot, made from the defaults if it is new.
    pub(crate) fn slot_on_demand(&self, id: TenantId) -> Result<Arc<Slot>, Error> {
        match self.slot(&id) {
            Some(slot) => Ok(slot),
            None => match self.new_slot(TenantSpec::from(id.clone())) {
                // Another thread was faster.
                Err(Error::TenantExists(_)) => self.slot(&id).ok_or(Error::Closed),
                made => made,
            },
        }
    }

    /// A new tenant's slot. Where the spec is silent, the one given to the builder counts.
    pub(crate) fn new_slot(&self, spec: TenantSpec) -> Result<Arc<Slot>, Error> {
        let spec = spec.clone().over(self.defaults.specs.get(&spec.id));
        spec.check()?;
        let known = self.slots.len();
        match self.slots.entry(spec.id.clone()) {
            Entry::Occupied(_) => Err(Error::TenantExists(spec.id)),
            Entry::Vacant(_) if known >= self.max_tenants => {
                Err(Error::TenantLimit { tenant: spec.id, limit: self.max_tenants })
            }
            Entry::Vacant(entry) => {
                let muted = self.mutes.contains(&spec.id);
                let slot = Arc::new(Slot::new(spec, &self.defaults, self.opening, muted));
                entry.insert(slot.clone());
                Ok(slot)
            }
        }
    }

    pub(crate) fn mute(&self, id: &TenantId, muted: bool) {
        if muted {
            self.mutes.insert(id.clone());
        } else {
            self.mutes.remove(id);
        }
        if let Some(slot) = self.slot(id) {
            slot.muted.store(muted, Ordering::Release);
        }
    }

    pub(crate) fn muted(&self) -> Vec<TenantId> {
        let mut muted: Vec<_> = self.mutes.iter().map(|id| id.clone()).collect();
        muted.sort();
        muted
    }

    pub(crate) fn source(&self, name: &Arc<str>) -> Arc<SourceLedger> {
        self.sources.entry(name.clone()).or_default().clone()
    }

    /// The frames of each source, by name.
    pub(crate) fn all_sources(&self) -> Vec<(Arc<str>, SourceCounters)> {
        let mut sources: Vec<_> =
            self.sources.iter().map(|source| (source.key().clone(), *source.value().lock())).collect();
        sources.sort_by(|a, b| a.0.cmp(&b.0));
        sources
    }

    pub(crate) fn aggregator(&self) -> Option<&Addr<Aggregator>> {
        self.aggregator.get().map(|running| &running.addr)
    }

    /// Collects a failure, and tells the observers of it. Under a lock and not by a message: a flood of failures must not
    /// fill a mailbox.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.collect(|collector| collector.add(failure));
        self.observe(|observer| observer.failed(failure));
    }

    /// What has failed so far.
    pub(crate) fn collect<T>(&self, with: impl FnOnce(&mut Collector) -> T) -> T {
        with(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes to the supervisor log.
    pub(crate) fn log(&self, event: SupervisorEvent) {
        let event = self.log.push(event, self.seam.now());
        self.observe(|observer| observer.supervised(&event));
    }

    pub(crate) fn observe(&self, tell: impl Fn(&dyn Observer)) {
        for observer in &self.observers {
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(&**observer)));
            if told.is_err() {
                tracing::warn!(target: "headworks", "an observer panicked; what it was told is lost to it");
            }
        }
    }

    /// The batch has its outcome: settles it, frees its memory, wakes whoever waited for that. `None` where it had been
    /// settled before.
    pub(crate) fn settle(&self, slot: &Slot, batch: Seq, outcome: Outcome) -> Option<Left> {
        let left = slot.lane.settle(batch, outcome)?;
        slot.settled.fetch_add(1, Ordering::AcqRel);
        self.settled.fetch_add(1, Ordering::AcqRel);
        slot.room.notify_waiters();
        self.budget.settled(left.footprint);
        if !self.observers.is_empty() {
            let batch = left.batch.id().clone();
            let settled = Settled { batch, outcome, events: left.batch.len(), attempts: left.attempts };
            self.observe(|observer| observer.settled(&slot.id, &settled));
        }
        Some(left)
    }

    /// Ends every actor.
    pub(crate) fn stop_actors(&self) {
        for slot in self.all_slots() {
            slot.each_control(Control::stop);
        }
        if let Some(aggregator) = self.aggregator.get() {
            aggregator.control.stop();
        }
    }
}

impl Slot {
    fn new(spec: TenantSpec, defaults: &Defaults, opening: Opening, muted: bool) -> Self {
        let hooks = match spec.hooks.is_empty() {
            true => defaults.hooks.clone(),
            false => Arc::new(defaults.hooks.then(&spec.hooks)),
        };
        Self {
            lane: Lane::new(spec.id.clone(), opening),
            id: spec.id,
            policy: spec.policy.map_or_else(|| defaults.policy.clone(), Arc::new),
            storage: spec.storage.unwrap_or_else(|| defaults.storage.clone()),
            hooks,
            room: Notify::new(),
            muted: AtomicBool::new(muted),
            idle: AtomicBool::new(false),
            settled: AtomicU64::new(0),
            tenant: OnceLock::new(),
            writer: OnceLock::new(),
            compensating: AtomicBool::new(false),
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

    /// Tells the tenant that chunks wait. Only on the system's thread.
    pub(crate) fn hint_chunks(self: &Arc<Self>, shared: &Arc<Shared>) {
        if !self.chunks_hinted.swap(true, Ordering::AcqRel) {
            self.start(shared).addr.do_send(ChunksWait);
        }
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
