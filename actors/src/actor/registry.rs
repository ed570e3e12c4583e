//! What all actors share, the registry of [tenants](super::tenants) among it. Nothing in here dies with an actor.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use actix::Addr;
use dashmap::DashMap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::aggregator::Aggregator;
use super::alarms::Alarms;
use super::budget::Budget;
use super::gate::Gates;
use super::homes::Homes;
use super::letters::Letters;
use super::root::Root;
use super::slot::Slot;
use super::spec::TenantSpec;
use super::streams::Streams;
use super::supervise::Running;
use super::tenants::{Admittance, Tenants};
use crate::model::{BatchId, Cause, Code, Failure, Opening, Outage, Part, Role, SupervisorEvent, TenantId, What};
use crate::observe::{
    Collector, Folded, Folding, Meters, Observer, Outcome, Settled, SourceCounters, SourceLedger, StoreBreakers,
    SupervisorLog, Taps,
};
use crate::policy::{Policy, TenantRules};
use crate::port::lane::Left;
use crate::port::silences::Silences;
use crate::port::{DynDeadLetters, DynJournal, Entry, Hooks, PanicPoints, Position, Seam, Stores};

/// What the parts of one system share. Nothing in here dies with an actor.
pub(crate) struct Shared {
    pub(crate) defaults: Defaults,
    pub(crate) tenants: Tenants,
    /// Rules were changed, or no longer hold anybody.
    pub(crate) rules_changed: Notify,
    sources: DashMap<Arc<str>, Arc<SourceLedger>>,
    pub(crate) streams: Streams,
    /// Calls that were given a stream of their own.
    pub(crate) calls: AtomicU64,
    pub(crate) budget: Budget,
    pub(crate) gates: Gates,
    pub(crate) letters: Letters,
    pub(crate) homes: Homes,
    pub(crate) alarms: Alarms,
    pub(crate) silences: Silences,
    pub(crate) journal: Arc<dyn DynJournal>,
    pub(crate) dead_letters: Arc<dyn DynDeadLetters>,
    pub(crate) log: SupervisorLog,
    folding: Mutex<Folding>,
    /// A period of it has begun.
    pub(crate) folding_began: Notify,
    pub(crate) taps: Arc<Taps>,
    pub(crate) root: Root,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) meters: Meters,
    pub(crate) seam: Seam,
    pub(crate) panic_points: PanicPoints,
    pub(crate) opening: Opening,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) aggregator: OnceLock<Running<Aggregator>>,
    /// How often what failed is reported.
    pub(crate) report_every: watch::Sender<Option<Duration>>,
    /// What has failed, as the aggregator reports it.
    pub(crate) failures: Mutex<Collector>,
    /// Batches settled so far, over all tenants.
    pub(crate) settled: AtomicU64,
    /// Calls that may still bring events in.
    pub(crate) feeds: AtomicU64,
    /// Frames that were received and wait at the door.
    pub(crate) at_door: AtomicU64,
    /// Connections that have something to say to their clients.
    pub(crate) telling: watch::Sender<u64>,
    /// Tenants with events of an earlier process that are not read back yet.
    pub(crate) unread: AtomicU64,
    /// Tenants of which something lies in the journal alone.
    pub(crate) spilling: AtomicU64,
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

/// Frames that wait at the door: received, and without an answer yet.
pub(crate) struct AtDoor(Arc<Shared>, u64);

impl AtDoor {
    pub(crate) fn wait(shared: &Arc<Shared>, frames: u64) -> Self {
        shared.at_door.fetch_add(frames, Ordering::AcqRel);
        Self(shared.clone(), frames)
    }
}

impl Drop for AtDoor {
    fn drop(&mut self) {
        self.0.at_door.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// What a tenant takes where its spec is silent.
pub(crate) struct Defaults {
    pub(crate) rules: RwLock<Arc<TenantRules>>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) hooks: Arc<Hooks>,
    /// The tenants that are no default ones, before they are known.
    pub(crate) specs: HashMap<TenantId, TenantSpec>,
    /// The field that names the tenant in events that the system makes itself.
    pub(crate) tenant_field: Box<str>,
}

impl Defaults {
    pub(crate) fn rules(&self) -> Arc<TenantRules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rules of a tenant that brings none of its own.
    pub(crate) fn policy(&self, id: &TenantId) -> Arc<Policy> {
        self.rules().of(id).clone()
    }
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

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "called once, by the builder that names them")]
    pub(crate) fn new(
        defaults: Defaults,
        admittance: Admittance,
        max_in_flight: usize,
        max_letters: usize,
        journal: Arc<dyn DynJournal>,
        dead_letters: Arc<dyn DynDeadLetters>,
        log_entries: usize,
        observers: Vec<Arc<dyn Observer>>,
        seam: Seam,
        threads: usize,
        panic_points: PanicPoints,
    ) -> Self {
        let opening = seam.opening();
        Self {
            defaults,
            tenants: Tenants::new(admittance),
            rules_changed: Notify::new(),
            sources: DashMap::new(),
            streams: Streams::default(),
            calls: AtomicU64::new(0),
            budget: Budget::new(max_in_flight),
            gates: Gates::default(),
            letters: Letters::new(opening, max_letters),
            homes: Homes::new(threads),
            alarms: Alarms::new(threads),
            silences: Silences::default(),
            journal,
            dead_letters,
            log: SupervisorLog::new(log_entries),
            folding: Mutex::default(),
            folding_began: Notify::new(),
            taps: Arc::default(),
            root: Root::default(),
            observers,
            meters: Meters::default(),
            opening,
            phase: watch::Sender::new(Phase::Running),
            aggregator: OnceLock::new(),
            report_every: watch::Sender::new(None),
            failures: Mutex::new(Collector::new(seam.now())),
            seam,
            panic_points,
            settled: AtomicU64::new(0),
            feeds: AtomicU64::new(0),
            at_door: AtomicU64::new(0),
            telling: watch::Sender::new(0),
            unread: AtomicU64::new(0),
            spilling: AtomicU64::new(0),
            last_pressure: Mutex::new(None),
        }
    }

    /// Puts on record what was accepted.
    pub(crate) fn record(&self, entries: &mut Vec<Entry>) -> Position {
        if entries.is_empty() { Position::default() } else { self.journal.append(entries) }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`, never back. Whether it moved.
    pub(crate) fn enter(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|now| {
            let moves = phase > *now;
            *now = (*now).max(phase);
            moves
        })
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

    /// The sources that run, by name, and why they bring nothing in, if they do not.
    pub(crate) fn outages(&self) -> Vec<(Arc<str>, Option<Outage>)> {
        let running = self.sources.iter().filter_map(|source| Some((source.key().clone(), source.value().outage()?)));
        let mut running: Vec<_> = running.collect();
        running.sort_by(|a, b| a.0.cmp(&b.0));
        running
    }

    /// How many ways into each source are open, by name.
    pub(crate) fn open_by_source(&self) -> Vec<(Arc<str>, u64)> {
        let open = self.sources.iter().map(|source| (source.key().clone(), source.value().open() as u64));
        let mut open: Vec<_> = open.collect();
        open.sort_by(|a, b| a.0.cmp(&b.0));
        open
    }

    /// The breakers that are not closed, by store, in the order in which the stores were first needed.
    pub(crate) fn breakers(&self, now: Instant) -> Vec<StoreBreakers> {
        let mut all: Vec<_> = self.meters.store_names().into_iter().map(StoreBreakers::closed).collect();
        for slot in self.all_slots() {
            for (store, state) in slot.lane.turned_breakers(now) {
                if let Some(of_store) = all.iter_mut().find(|of_store| of_store.store == store) {
                    of_store.add(state);
                }
            }
        }
        all
    }

    pub(crate) fn aggregator(&self) -> Option<&Addr<Aggregator>> {
        self.aggregator.get().map(|running| &running.addr)
    }

    /// Collects a failure, and tells the observers of it. Under a lock and not by a message: a flood of failures must not
    /// fill a mailbox.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.collect(|collector| collector.add(failure));
        self.observe(failure.tenant.as_ref(), |observer| observer.failed(failure));
    }

    /// What has failed so far.
    pub(crate) fn collect<T>(&self, with: impl FnOnce(&mut Collector) -> T) -> T {
        with(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes to the supervisor log, or has it summed up with others of its kind. Meters and observers are told of each.
    pub(crate) fn log(&self, event: SupervisorEvent) {
        let now = self.seam.now();
        let (folded, begins) = {
            let mut folding = self.fold();
            let was_running = folding.is_running();
            (folding.take(&event, now), !was_running && folding.is_running())
        };
        if begins {
            self.folding_began.notify_one();
        }
        let event = match folded {
            Folded::Written(before) => {
                for sum in before {
                    self.log.push(sum, now);
                }
                self.log.push(event, now)
            }
            Folded::Waits => Arc::new(SupervisorEvent { cursor: self.log.next(), at: now, ..event }),
        };
        self.meters.supervised(&event);
        self.observe(event.tenant.as_ref(), |observer| observer.supervised(&event));
    }

    fn fold(&self) -> MutexGuard<'_, Folding> {
        self.folding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a period of the log: writes what is summed up. Where the system ends, the last one.
    pub(crate) fn turn_log(&self, is_last: bool) {
        let sums = {
            let mut folding = self.fold();
            if is_last { folding.end() } else { folding.turn() }
        };
        for sum in sums {
            self.log.push(sum, self.seam.now());
        }
        if self.fold().is_running() {
            self.folding_began.notify_one();
        }
    }

    /// Tells the observers something of the tenant. A panic in one is in the report and not in the log: the observers would be told
    /// of that too, and panic again.
    pub(crate) fn observe(&self, tenant: Option<&TenantId>, tell: impl Fn(&dyn Observer)) {
        for observer in &self.observers {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(&**observer))) {
                self.observer_panicked(tenant, &*panic);
            }
        }
    }

    /// Somebody who looks on panicked.
    pub(crate) fn observer_panicked(&self, tenant: Option<&TenantId>, panic: &(dyn std::any::Any + Send)) {
        let cause = Cause::from_panic(Code::ObserverPanic, panic);
        tracing::warn!(target: "headworks", why = &*cause.detail, "an observer panicked; what it was told is lost to it");
        let (at, tenant) = (self.seam.now(), tenant.cloned());
        let failure = Failure { at, tenant, source: None, batch: None, cause, events: 0 };
        self.collect(|collector| collector.add(&failure));
    }

    /// The wall clock panicked.
    pub(crate) fn clock_panicked(&self, cause: Cause) {
        let event = SupervisorEvent::new(None, Role::Supervisor, What::Failed);
        self.log(SupervisorEvent { cause: Some(cause.clone()), ..event });
        self.failed(&Failure { at: self.seam.now(), tenant: None, source: None, batch: None, cause, events: 0 });
    }

    /// The batch has its outcome: settles it, frees its memory, wakes whoever waited for that. `None` where it had been
    /// settled before.
    pub(crate) fn settle(&self, slot: &Arc<Slot>, batch: &BatchId, outcome: Outcome) -> Option<Left> {
        let left = slot.lane.settle(batch, outcome)?;
        let since_cut = left.cut_at.elapsed();
        self.meters.batches.took(since_cut);
        slot.settled.fetch_add(1, Ordering::AcqRel);
        slot.recovered();
        self.settled.fetch_add(1, Ordering::AcqRel);
        slot.room.notify_waiters();
        self.budget.settled(left.footprint);
        if left.cuts_again {
            slot.look_again(self);
        }
        if let Some(events) = left.shed {
            let cause = Cause::new(Code::Shed, format!("{events} events were shed"));
            self.log(SupervisorEvent { cause: Some(cause), ..slot.event(Role::Tenant, What::SheddingEnded) });
        }
        for Part { chunk, range } in &left.numbered {
            if let Some(origin) = chunk.origin()
                && let Some(stream) = self.streams.get(&origin.stream)
            {
                stream.settled(&origin.positions[range.clone()], outcome, left.code);
            }
        }
        if !self.observers.is_empty() {
            let batch = left.batch.id().clone();
            let (events, attempts, given_up) = (left.batch.len(), left.attempts, left.code);
            let settled = Settled { batch, outcome, events, attempts, since_cut, given_up };
            self.observe(Some(&slot.id), |observer| observer.settled(&slot.id, &settled));
        }
        Some(left)
    }

    /// A store that was not there has taken a batch of `slot` again: whoever else waits for it need not back off any
    /// longer. Only on one of the system's threads.
    pub(crate) fn store_is_back(self: &Arc<Self>, slot: &Slot) {
        for other in self.all_slots() {
            if other.stores.shares_with(&slot.stores) && other.lane.unpark() {
                other.hint_batches(self);
            }
        }
    }

    /// Ends every actor.
    pub(crate) fn stop_actors(&self) {
        for slot in self.all_slots() {
            slot.stop(self);
        }
        if let Some(aggregator) = self.aggregator.get() {
            aggregator.control.end();
        }
    }
}
