//! What outlives a tenant's actors: its addresses, its lane, its rules.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::alarms::Alarm;
use super::control::Control;
use super::dormant::{Dormant, Own};
use super::gate::Seat;
use super::message::{BatchesWait, ChunksWait};
use super::post::Post;
use super::registry::{Phase, Shared};
use super::steps::Handover;
use super::tenant::Tenant;
use super::tenant_supervisor::Upkeep;
use super::tenants::changes;
use super::writer::Writer;
use crate::model::{Cause, Failure, FlushReason, Role, Status, SupervisorEvent, TenantId, What};
use crate::observe::{ActorDetail, SilenceDetail, TenantDetail, TenantSnapshot};
use crate::policy::{Liveliness, Policy};
use crate::port::lane::{Lane, LaneDetail, LaneSnapshot};
use crate::port::{Hooks, Stores};

/// For so long after events of it were given up a tenant counts as failing.
const FAILING_FOR: Duration = Duration::from_secs(60);

/// One tenant, for as long as it is awake: its addresses, its lane, its rules.
///
/// What the door looks at comes first, and lies together: with very many tenants nearly all of this is far from the processor.
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) muted: AtomicBool,
    /// See [`is_gone`](Self::is_gone).
    pub(super) gone: AtomicBool,
    /// What an earlier process left has to be dealt with before new events are taken.
    pub(crate) recovering: AtomicBool,
    /// A hint is on its way.
    pub(crate) chunks_hinted: AtomicBool,
    pub(crate) batches_hinted: AtomicBool,
    pub(crate) idle: AtomicBool,
    /// Another than the writer takes its steps right now.
    pub(super) hosting: AtomicBool,
    /// The flush that is wanted: 0 for none, else its place in [`FlushReason::ALL`] plus 1.
    pub(super) flush: AtomicU8,
    /// Whether an alarm is set for the next heartbeat.
    pub(crate) beating: AtomicBool,
    /// A heartbeat was sent, and is not answered yet.
    pub(crate) beat_sent: AtomicBool,
    /// An alarm is set to start its actors.
    pub(super) starting: AtomicBool,
    /// A task reads back what was spilled.
    pub(super) reading: AtomicBool,
    /// A task of the aggregator is at the batch in front.
    pub(crate) compensating: AtomicBool,
    /// A task of the aggregator is at the compensations that could not be done.
    pub(crate) pursuing: AtomicBool,
    /// It came up because it was on record, and nobody has spawned it since.
    pub(crate) is_unclaimed: AtomicBool,
    /// Whether it was given rules of its own with its spec.
    pub(super) has_own_policy: bool,
    pub(crate) id: TenantId,
    pub(crate) lane: Lane,
    pub(crate) tenant: Post<Tenant>,
    pub(crate) writer: Post<Writer>,
    /// The thread that its actors live on, and 1 + the one that they are to move to, or 0.
    pub(super) home: AtomicUsize,
    pub(super) moving: AtomicUsize,
    /// The saga.
    pub(crate) stores: Arc<Stores>,
    /// Its place at each of them.
    pub(super) seats: Box<[Seat]>,
    pub(crate) hooks: Arc<Hooks>,
    /// What another than the writer hands over to it.
    pub(super) handover: Mutex<Handover>,
    /// Whether the tenant's lane may have got room.
    pub(crate) room: Notify,
    /// Batches settled so far.
    pub(crate) settled: AtomicU64,
    /// The bytes of the batches it was cut into since that was last asked.
    pub(super) work: AtomicU64,
    pub(super) awake_since: Instant,
    pub(super) upkeep: Mutex<Upkeep>,
}

impl Slot {
    /// `left` is what was kept of it, where it had a slot before.
    pub(crate) fn new(id: TenantId, own: Own, left: Option<&Dormant>, shared: &Shared) -> Self {
        let Own { policy, has_own_policy, stores, hooks } = own;
        let (of_id, has_hooks) = (id.clone(), hooks.sees_batches());
        let holders = shared.budget.holders().clone();
        let lane = Lane::new(of_id, shared.opening, stores.clone(), policy, has_hooks, &shared.journal, holders);
        if let Some(left) = left {
            lane.go_on(&left.rest);
        }
        lane.listen(shared.listener(&id, &lane.policy()));
        let is_over = shared.phase() >= Phase::Stopping;
        Self {
            lane,
            muted: AtomicBool::new(shared.tenants.is_muted(&id)),
            id,
            seats: shared.gates.seats(&stores, &shared.meters),
            stores,
            hooks,
            has_own_policy,
            room: Notify::new(),
            gone: AtomicBool::new(false),
            recovering: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            is_unclaimed: AtomicBool::new(left.is_some_and(|left| left.is_unclaimed)),
            idle: AtomicBool::new(left.is_some_and(|left| left.is_idle)),
            awake_since: Instant::now(),
            settled: AtomicU64::new(left.map_or(0, |left| left.settled)),
            tenant: Post::after(left.map_or(Control::NEVER, |left| left.tenant)),
            writer: Post::after(left.map_or(Control::NEVER, |left| left.writer)),
            upkeep: Mutex::new(Upkeep::new(left.and_then(|left| left.restarts.as_deref().cloned()), is_over)),
            compensating: AtomicBool::new(false),
            pursuing: AtomicBool::new(false),
            beating: AtomicBool::new(false),
            beat_sent: AtomicBool::new(false),
            chunks_hinted: AtomicBool::new(false),
            batches_hinted: AtomicBool::new(false),
            hosting: AtomicBool::new(false),
            handover: Mutex::default(),
            flush: AtomicU8::new(0),
            home: AtomicUsize::new(shared.homes.here()),
            moving: AtomicUsize::new(0),
            starting: AtomicBool::new(false),
            work: AtomicU64::new(0),
        }
    }

    /// Whether its tenant was passivated: then it is of no use any more, and who needs the tenant asks the registry again.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The rules as they are now: they may be changed at any time.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.lane.policy()
    }

    /// Other rules from now on: they hold from the next chunk, window, attempt and heartbeat, and for the window that is open.
    pub(crate) fn set_policy(self: &Arc<Self>, shared: &Shared, policy: &Arc<Policy>, is_told: bool) {
        let before = self.lane.set_policy(policy.clone());
        if before.silence != policy.silence {
            self.lane.listen(shared.listener(&self.id, policy));
        }
        if before.heartbeat != policy.heartbeat {
            self.beat_later(shared);
        }
        let Some(cause) = changes(&before, policy) else { return };
        if is_told {
            shared.log(SupervisorEvent { cause: Some(cause), ..self.event(Role::Tenant, What::PolicyChanged) });
        }
        // The window that is open may be due, or have more in it than it may.
        if (before.window != policy.window || before.overflow != policy.overflow) && self.lane.has_uncut() {
            shared.alarms.set(Instant::now(), self, Alarm::Window);
        }
        // What waits at the door looks again.
        shared.rules_changed.notify_waiters();
        self.room.notify_waiters();
    }

    /// Starts the tenant's actor, if it does not run and is not held; it finds what there is to be done.
    pub(crate) fn start(self: &Arc<Self>, shared: &Arc<Shared>) {
        if !shared.homes.is_here(self.home()) {
            return self.start_at_home(shared);
        }
        let make = || Tenant::new(self.clone(), shared.clone());
        self.tenant.hint(shared, self, None::<(ChunksWait, _)>, make);
    }

    /// The alarm to start its actors rang. Only on its thread.
    pub(super) fn start_here(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.starting.store(false, Ordering::Release);
        self.start(shared);
        // Hints that nobody was there to hear.
        self.hint_chunks(shared);
        if self.lane.snapshot().batches > 0 {
            self.hint_batches(shared);
        }
    }

    /// What an earlier process had begun has its outcome, or is known to need another attempt: new events may come.
    pub(crate) fn recovered(&self) {
        if self.recovering.swap(false, Ordering::AcqRel) {
            self.room.notify_waiters();
        }
    }

    /// Tells the tenant that chunks wait. Only on one of the system's threads.
    pub(crate) fn hint_chunks(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.chunks_hinted.load(Ordering::Acquire) {
            return;
        }
        if shared.homes.is_here(self.home()) {
            let make = || Tenant::new(self.clone(), shared.clone());
            self.tenant.hint(shared, self, Some((ChunksWait, &self.chunks_hinted)), make);
        } else if !self.tenant.tell(ChunksWait, &self.chunks_hinted) && !self.is_held() {
            self.start_at_home(shared);
        }
    }

    /// Whether the tenant runs, is not idle, and has nothing to look for but its window.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.tenant.control().is_some_and(|tenant| tenant.status().is_none())
            && !self.idle.load(Ordering::Acquire)
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
        black_box(self.tenant.control().map(|tenant| tenant.status()));
        black_box(self.writer.control().map(|writer| writer.status()));
        self.seats.iter().for_each(Seat::near);
    }

    /// Tells the writer that batches wait. Only on one of the system's threads.
    pub(crate) fn hint_batches(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.batches_hinted.load(Ordering::Acquire) {
            return;
        }
        if shared.homes.is_here(self.home()) {
            let make = || Writer::new(self.clone(), shared.clone());
            self.writer.hint(shared, self, Some((BatchesWait, &self.batches_hinted)), make);
        } else if !self.writer.tell(BatchesWait, &self.batches_hinted) && !self.is_held() {
            self.start_at_home(shared);
        }
    }

    /// Asks a store that was away at once, where a batch waits for it. From any thread.
    pub(crate) fn ask_store_again(&self) {
        if self.lane.unpark() {
            // Without a writer there is nobody to wait.
            self.writer.tell(BatchesWait, &self.batches_hinted);
        }
    }

    /// Asks the tenant to close its window, from any thread.
    pub(crate) fn want_flush(self: &Arc<Self>, shared: &Shared, reason: FlushReason) {
        if !self.tenant.is_filled() && !self.lane.has_uncut() {
            // Nobody is to come up only to find nothing.
            return;
        }
        self.ask_flush(reason);
        self.look_again(shared);
    }

    /// Whoever looks at the window next is to close it.
    pub(super) fn ask_flush(&self, reason: FlushReason) {
        let place = FlushReason::ALL.iter().position(|r| *r == reason).and_then(|place| u8::try_from(place + 1).ok());
        self.flush.store(place.unwrap_or(0), Ordering::Release);
    }

    /// Asks the tenant to look at its window, from any thread.
    pub(crate) fn look_again(self: &Arc<Self>, shared: &Shared) {
        // Where nobody is there, the alarm starts the tenant, on the system's thread.
        if !self.tenant.tell(ChunksWait, &self.chunks_hinted) {
            shared.alarms.set(Instant::now(), self, Alarm::Window);
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
        self.tenant.control().into_iter().chain(self.writer.control()).for_each(|control| tell(control));
    }

    /// Why the tenant's writer failed last; told once.
    pub(crate) fn writer_cause(&self) -> Option<Cause> {
        self.writer.control().and_then(|writer| writer.take_last_cause())
    }

    /// The log entry of something that happened to the tenant.
    pub(crate) fn event(&self, actor: Role, what: What) -> SupervisorEvent {
        let epoch = match actor {
            Role::Tenant => self.tenant.control().map(|tenant| tenant.epoch()),
            Role::Writer => self.writer.control().map(|writer| writer.epoch()),
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
        self.told(self.lane.snapshot())
    }

    /// All that is known of the tenant.
    pub(crate) fn detail(&self, shared: &Shared) -> TenantDetail {
        let (now, at) = (Instant::now(), shared.seam.now());
        let wall = |instant: Instant| match instant.checked_duration_since(now) {
            Some(later) => at.plus(later),
            None => at.minus(now.duration_since(instant)),
        };
        let LaneDetail { snapshot, window, backlog, batch, breakers, throttle } = self.lane.detail(now, wall);
        let held = self.upkeep().held();
        let told = |actor, control: &Control| {
            let status = control.status().map(|own| held.filter(|_| own == Status::Stopped).unwrap_or(own));
            ActorDetail { actor, epoch: control.epoch(), status }
        };
        let tenant = self.tenant.control().map(|control| told(Role::Tenant, control));
        let writer = self.writer.control().map(|control| told(Role::Writer, control));
        TenantDetail {
            tenant: self.id.clone(),
            at,
            snapshot: self.told(snapshot),
            window,
            backlog,
            batch,
            breakers,
            throttle,
            actors: tenant.into_iter().chain(writer).collect(),
            failures: shared.collect(|collector| collector.of(&self.id, at)),
            log: shared.log.last_of(&self.id, TenantDetail::LOG_ENTRIES),
        }
    }

    fn told(&self, lane: LaneSnapshot) -> TenantSnapshot {
        let silence = self.lane.silence();
        TenantSnapshot {
            tenant: self.id.clone(),
            status: SilenceDetail::status(silence.as_ref(), self.status(&lane)),
            is_muted: self.muted.load(Ordering::Acquire),
            counters: lane.counters,
            in_flight: lane.in_flight(),
            window: lane.window,
            batches_waiting: lane.batches as u64,
            in_flight_bytes: lane.bytes as u64,
            in_journal: lane.spilled.0,
            in_journal_bytes: lane.spilled.1,
            uncompensated: lane.uncompensated,
            silence,
            oldest_at: lane.oldest_at,
        }
    }

    fn status(&self, lane: &LaneSnapshot) -> Status {
        let upkeep = self.upkeep();
        if let Some(held) = upkeep.held() {
            return held;
        }
        let is_stalled = upkeep.stall.lasts(lane.moved);
        drop(upkeep);
        let ended = Some(Status::Stopped);
        let status = |control: Option<&Arc<Control>>| control.map_or(ended, |control| control.status());
        let (tenant, writer) = (status(self.tenant.control()), status(self.writer.control()));
        // Without being held: it has nothing to do.
        if tenant == ended {
            return if lane.window > 0 { Status::Active } else { Status::Dormant };
        }
        match (tenant.max(writer.filter(|writer| Some(*writer) != ended)), lane.front) {
            (Some(broken), _) => broken,
            (None, Some((_, _, true))) => Status::Compensating,
            (None, Some((_, true, _))) => Status::Parked,
            _ if is_stalled => Status::Stalled,
            _ if lane.breaker_open => Status::BreakerOpen,
            (None, Some((failed, ..))) if failed > 0 => Status::Retrying,
            _ if lane.given_up_at.is_some_and(|at| at.elapsed() < FAILING_FOR) => Status::Failing,
            _ if self.idle.load(Ordering::Acquire) => Status::Idle,
            _ => Status::Active,
        }
    }

    /// Whether events came lately, as far as was told.
    pub(crate) fn liveliness(&self) -> Liveliness {
        if self.idle.load(Ordering::Acquire) { Liveliness::Idle } else { Liveliness::Active }
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
