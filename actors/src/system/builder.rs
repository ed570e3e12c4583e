use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use actix::Addr;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::handle::System;
use crate::actor::aggregator::{Aggregator, OnReport};
use crate::actor::alarms::ring;
use crate::actor::homes::balance;
use crate::actor::letters::pump;
use crate::actor::listening::listen;
use crate::actor::recovery::recover;
use crate::actor::registry::{Defaults, Phase, Shared};
use crate::actor::slot::Slot;
use crate::actor::spec::TenantSpec;
use crate::actor::stage::Stage;
use crate::actor::supervise::{Running, supervise};
use crate::actor::supervisor::Supervisor;
use crate::actor::tenants::Admittance;
use crate::actor::watchdog::{turn, watch, watch_journal};
use crate::model::{Error, TenantId, panic_place};
use crate::observe::{Observer, Report};
use crate::policy::{Policy, SpawnRate, TenantRules, Unknown};
#[cfg(feature = "testing")]
use crate::port::PanicAt;
use crate::port::{
    DeadLetters, DynDeadLetters, DynJournal, Hooks, Journal, MemoryDeadLetters, MemoryJournal, MemoryStore,
    PanicPoints, RecoveredTenant, Saga, Seam, Storage, spawn,
};

/// Where the actors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Placement {
    /// On a thread of the system's own: embeds in any service, or in a plain `main`.
    #[default]
    OwnThread,
    /// On so many threads of the system's own, at least one.
    ///
    /// A connection is read on one of them, a tenant's actors live on one of them, and a tenant moves where its thread has more to
    /// do than another; the supervisor log says so. The order of each tenant's events is kept. More than one is worth it where the
    /// first is busy, and there are processors for all of them, the stores' own threads and the senders.
    Threads(usize),
    /// On the caller's thread, which must be inside a `tokio` `LocalSet` or an actix `System`: for tests in virtual time and
    /// for simulation.
    Inline,
}

/// What a system is made of. Everything has a default.
#[must_use]
pub struct SystemBuilder {
    rules: TenantRules,
    saga: Option<Saga>,
    journal: Option<Arc<dyn DynJournal>>,
    dead_letters: Option<Arc<dyn DynDeadLetters>>,
    hooks: Hooks,
    specs: HashMap<TenantId, TenantSpec>,
    max_in_flight_bytes: usize,
    max_dead_letter_queue_bytes: usize,
    admittance: Admittance,
    log_entries: usize,
    report_every: Option<Duration>,
    report_to: Vec<OnReport>,
    tenant_field: Box<str>,
    observers: Vec<Arc<dyn Observer>>,
    seam: Seam,
    placement: Placement,
    hang_after: Duration,
    #[cfg(feature = "testing")]
    panic_at: Option<PanicAt>,
}

impl Default for SystemBuilder {
    fn default() -> Self {
        Self {
            rules: TenantRules::default(),
            saga: None,
            journal: None,
            dead_letters: None,
            hooks: Hooks::new(),
            specs: HashMap::new(),
            max_in_flight_bytes: 64 << 20,
            max_dead_letter_queue_bytes: 4 << 20,
            admittance: Admittance { unknown: Unknown::Spawn, max: 10_000, rate: None },
            log_entries: 4_096,
            report_every: Some(Duration::from_secs(60)),
            report_to: vec![],
            tenant_field: "tenant".into(),
            observers: vec![],
            seam: Seam::default(),
            placement: Placement::default(),
            hang_after: Duration::from_secs(10),
            #[cfg(feature = "testing")]
            panic_at: None,
        }
    }
}

impl SystemBuilder {
    /// The rules of tenants that bring none of their own.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.rules = TenantRules::new(policy);
        self
    }

    /// The rules of tenants that bring none of their own, by id, by pattern, and for all others; in the place of
    /// [`policy`](Self::policy). A tenant that comes up by its first event has them, too. [`System::set_rules`] changes them.
    pub fn rules(mut self, rules: TenantRules) -> Self {
        self.rules = rules;
        self
    }

    /// The store of tenants that bring none of their own. Default: a [`MemoryStore`], which keeps everything.
    pub fn store(self, storage: impl Storage) -> Self {
        self.saga(Saga::new().then(storage))
    }

    /// The stores, in order, of tenants that bring none of their own: a batch ends up in all of them or in none.
    pub fn saga(mut self, saga: Saga) -> Self {
        self.saga = Some(saga);
        self
    }

    /// Where accepted events are on record until they are settled. Default: a [`MemoryJournal`], which dies with the process.
    ///
    /// What a durable journal has of an earlier process is read back at the start. A tenant with a store of its own must then be
    /// made known by [`tenant`](Self::tenant) and not by [`System::spawn`], which would come too late for that.
    pub fn journal(mut self, journal: impl Journal) -> Self {
        self.journal = Some(Arc::new(journal));
        self
    }

    /// Where dead letters are kept. Default: [`MemoryDeadLetters`].
    pub fn dead_letters(mut self, dead_letters: impl DeadLetters) -> Self {
        self.dead_letters = Some(Arc::new(dead_letters));
        self
    }

    /// Hooks for every tenant.
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// A tenant with a policy, a store or hooks of its own, which its first event brings up. The last spec of a tenant counts.
    pub fn tenant(mut self, spec: TenantSpec) -> Self {
        self.specs.insert(spec.id.clone(), spec);
        self
    }

    /// The memory of all events in flight, in bytes. When it is full, connections wait. Default 64 MiB.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.max_in_flight_bytes = bytes;
        self
    }

    /// The memory of bad frames that wait to be kept as dead letters, in bytes. When it is full, connections that bring bad
    /// frames wait. Default 4 MiB.
    pub fn max_dead_letter_queue_bytes(mut self, bytes: usize) -> Self {
        self.max_dead_letter_queue_bytes = bytes;
        self
    }

    /// How many tenants may be known. Events of further ones are rejected; those that have a spec, or are on record, are let in
    /// whatever the number. Default 10,000.
    pub fn max_tenants(mut self, tenants: usize) -> Self {
        self.admittance.max = tenants;
        self
    }

    /// What becomes of events of tenants that have no spec, are not on record and were not spawned. Default: they come up.
    pub fn unknown_tenants(mut self, unknown: Unknown) -> Self {
        self.admittance.unknown = unknown;
        self
    }

    /// How many new tenants may come up by their first events; `None` for any number. Those that have a spec are not counted.
    /// Default `None`.
    pub fn max_spawn_rate(mut self, rate: Option<SpawnRate>) -> Self {
        self.admittance.rate = rate;
        self
    }

    /// How many entries of the supervisor log are kept. Default 4,096.
    pub fn log_entries(mut self, entries: usize) -> Self {
        self.log_entries = entries;
        self
    }

    /// How often what failed is reported, if anything did; `None` for never. Default 60 s. The end of the system reports
    /// what is left. It is logged under the target `headworks::report`, unless [`on_report`](Self::on_report) names others.
    pub fn report_every(mut self, every: Option<Duration>) -> Self {
        self.report_every = every;
        self
    }

    /// Whom to give the periodic report, in the place of the log; may be called for several. It is called on the system's own
    /// thread and must not block; a panic in it is caught and logged.
    ///
    /// ```
    /// # use headworks_actors::System;
    /// # fn main() -> Result<(), headworks_actors::Error> {
    /// let system = System::builder()
    ///     .on_report(|report| {
    ///         for entry in &report.entries {
    ///             println!("{}: {} in the last minute, {}", entry.code, entry.last_minute, entry.sample);
    ///         }
    ///     })
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_report(mut self, tell: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.report_to.push(Arc::new(tell));
        self
    }

    /// The field that names the tenant in the events that the system makes itself, where a tenant's rules ask for some
    /// ([`SilencePolicy::downstream`](crate::SilencePolicy::downstream),
    /// [`HeartbeatPolicy::downstream_every`](crate::HeartbeatPolicy::downstream_every)): that of the senders' events, for whoever reads
    /// both. Default `tenant`.
    pub fn tenant_field(mut self, name: impl Into<Box<str>>) -> Self {
        self.tenant_field = name.into();
        self
    }

    /// Someone who measures.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// A clock and a source of randomness of your own.
    pub fn seam(mut self, seam: Seam) -> Self {
        self.seam = seam;
        self
    }

    /// Where the actors run. Default: a thread of their own.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// After how long without a turn the system's own thread counts as hung: then [`System::health`] and the supervisor log name
    /// the actor whose code holds it. At least 10 ms; default 10 s. With [`Placement::Inline`] nobody looks: the thread is the
    /// caller's.
    pub fn hang_after(mut self, hang_after: Duration) -> Self {
        self.hang_after = hang_after.max(Duration::from_millis(10));
        self
    }

    /// Makes a handler panic, as if its own code had. Of several, the last one counts.
    #[cfg(feature = "testing")]
    pub fn panic_at(mut self, at: PanicAt) -> Self {
        self.panic_at = Some(at);
        self
    }

    /// Starts the system. Blocks for the moment in which its thread comes up.
    ///
    /// From then on every panic of the process leaves its place in the source, for [`Cause::from_panic`](crate::Cause::from_panic),
    /// before it goes on to the panic hook that was there; a hook that is set later and
    /// does not call the one before it has the places lost.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`], [`Error::InvalidSaga`], [`Error::PanicAborts`], [`Error::Journal`], or [`Error::Start`] if there is no thread to be had.
    ///
    /// # Panics
    /// With [`Placement::Inline`] outside of a `LocalSet` and an actix `System`, and where the clock of the [`Seam`] does.
    pub fn start(self) -> Result<System, Error> {
        if cfg!(panic = "abort") {
            return Err(Error::PanicAborts);
        }
        panic_place::remember();
        let is_durable = self.journal.as_ref().is_some_and(|journal| journal.is_durable());
        self.rules.check(is_durable).map_err(Error::InvalidPolicy)?;
        self.specs.values().try_for_each(|spec| spec.check_journal(is_durable))?;
        let specs = self.specs.into_iter().map(|(id, spec)| Ok((id, spec.checked()?)));
        let defaults = Defaults {
            rules: RwLock::new(Arc::new(self.rules)),
            stores: Arc::new(self.saga.unwrap_or_else(|| Saga::new().then(MemoryStore::new())).check()?),
            hooks: Arc::new(self.hooks),
            specs: specs.collect::<Result<_, Error>>()?,
            tenant_field: self.tenant_field,
        };
        #[cfg(feature = "testing")]
        let panic_points = PanicPoints::armed(self.panic_at);
        #[cfg(not(feature = "testing"))]
        let panic_points = PanicPoints::default();
        let threads = match self.placement {
            Placement::OwnThread | Placement::Inline => 1,
            Placement::Threads(threads) => threads.max(1),
        };
        // The first time it is asked, its panic is the caller's.
        let began = self.seam.now();
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| {
            let shared = shared.clone();
            let seam = self.seam.guarded(began, move |cause| {
                if let Some(shared) = shared.upgrade() {
                    shared.clock_panicked(cause);
                }
            });
            Shared::new(
                defaults,
                self.admittance,
                self.max_in_flight_bytes,
                self.max_dead_letter_queue_bytes,
                self.journal.unwrap_or_else(|| Arc::new(MemoryJournal::new())),
                self.dead_letters.unwrap_or_else(|| Arc::new(MemoryDeadLetters::default())),
                self.log_entries,
                self.observers,
                seam,
                threads,
                panic_points,
            )
        });
        shared.report_every.send_replace(self.report_every);
        let recovered =
            shared.journal.begin(shared.opening, shared.seam.now()).map_err(|why| Error::Journal(why.to_string()))?;
        for damage in &recovered.damage {
            tracing::error!(target: "headworks", damage, "the journal is damaged");
        }
        for stream in recovered.streams {
            shared.streams.restore(stream, shared.seam.now());
        }
        let tenants = recovered.tenants.into_iter();
        let left: Vec<_> = tenants.filter_map(|tenant| Some((shared.recovered_tenant(&tenant)?, tenant))).collect();
        let reporting = self.report_to;
        let supervisors = match self.placement {
            Placement::Inline => {
                let (supervisor, ended) = raise(shared.clone(), reporting, left, vec![]);
                spawn(ended);
                vec![supervisor]
            }
            Placement::OwnThread | Placement::Threads(_) => {
                let started = on_own_threads(&shared, reporting, left, self.hang_after);
                // Those that are up are not to stay.
                started.inspect_err(|_| _ = shared.enter(Phase::Stopping))?
            }
        };
        Ok(System::new(shared, supervisors.into()))
    }
}

/// What runs on each thread.
struct Stand {
    supervisor: Running<Supervisor>,
    ring: JoinHandle<()>,
}

impl Stand {
    fn on(shared: &Arc<Shared>, home: usize) -> Self {
        shared.homes.settle(home);
        let stage = Rc::new(RefCell::new(Stage::new(shared.clone())));
        let ring = spawn(ring(shared.clone(), home, stage.clone()));
        Self { supervisor: supervise(shared, Supervisor::new(shared.clone(), stage)), ring }
    }

    async fn end(self) {
        self.ring.abort();
        self.supervisor.control.end();
        // Lets every keeper see its order before the thread goes.
        tokio::task::yield_now().await;
    }
}

async fn stopping(shared: &Shared) {
    let mut phase = shared.phase.subscribe();
    // The sender lives in `shared`.
    let _ = phase.wait_for(|phase| *phase >= Phase::Stopping).await;
}

/// Starts the root actors on this thread; the actors of tenants live on this one and on `others`, each of which is told here when
/// it is gone. The future ends with the system.
fn raise(
    shared: Arc<Shared>,
    reporting: Vec<OnReport>,
    left: Vec<(Arc<Slot>, RecoveredTenant)>,
    others: Vec<oneshot::Receiver<()>>,
) -> (Addr<Supervisor>, impl Future<Output = ()> + 'static) {
    let aggregator = supervise(&shared, Aggregator::new(shared.clone(), reporting));
    // The cell is fresh: this is the only start.
    drop(shared.aggregator.set(aggregator));
    let recovery = spawn(recover(shared.clone(), left));
    let pump = spawn(pump(shared.clone()));
    let listening = spawn(listen(shared.clone()));
    let journal = shared.journal.is_durable().then(|| spawn(watch_journal(shared.clone())));
    let balance = shared.homes.are_several().then(|| spawn(balance(shared.clone())));
    let stand = Stand::on(&shared, 0);
    let supervisor = stand.supervisor.addr.clone();
    let ended = async move {
        stopping(&shared).await;
        recovery.abort();
        pump.abort();
        listening.abort();
        for task in [journal, balance].into_iter().flatten() {
            task.abort();
        }
        shared.stop_actors();
        stand.end().await;
        for other in others {
            // It says nothing, but that it is gone.
            let _ = other.await;
        }
        for slot in shared.all_slots() {
            slot.lane.record_door();
        }
        if let Err(why) = shared.journal.close().await {
            tracing::error!(target: "headworks", %why, "the journal could not be closed");
        }
        shared.enter(Phase::Stopped);
    };
    (supervisor, ended)
}

/// Starts the system on threads of its own; gives the supervisor of each.
fn on_own_threads(
    shared: &Arc<Shared>,
    reporting: Vec<OnReport>,
    left: Vec<(Arc<Slot>, RecoveredTenant)>,
    hang_after: Duration,
) -> Result<Vec<Addr<Supervisor>>, Error> {
    let (mut supervisors, mut others) = (vec![], vec![]);
    for home in 1..shared.homes.len() {
        let (gone, is_gone) = oneshot::channel::<()>();
        let on = shared.clone();
        supervisors.push(on_thread(format!("headworks-{home}"), async move |up| {
            let stand = Stand::on(&on, home);
            let _ = up.send(stand.supervisor.addr.clone());
            let turning = spawn(turn(on.clone(), home, hang_after));
            stopping(&on).await;
            turning.abort();
            stand.end().await;
            gone
        })?);
        others.push(is_gone);
    }
    let on = shared.clone();
    let first = on_thread("headworks".to_owned(), async move |up| {
        let (watched, turned) = (on.clone(), on.clone());
        let (supervisor, ended) = raise(on, reporting, left, others);
        let _ = up.send(supervisor);
        let turning = spawn(turn(turned, 0, hang_after));
        let watchdog = std::thread::Builder::new().name("headworks-watchdog".to_owned());
        let watchdog = watchdog.spawn(move || watch(&watched, hang_after));
        if let Err(why) = &watchdog {
            tracing::error!(target: "headworks", %why, "there is no thread for the watchdog; a thread that hangs will not be told");
        }
        ended.await;
        turning.abort();
        if let Ok(watchdog) = watchdog {
            watchdog.thread().unpark();
        }
    })?;
    supervisors.insert(0, first);
    Ok(supervisors)
}

/// Runs `live` on a new thread, with a runtime for actors, until it ends; gives what it says once it is up. What it gives back is
/// dropped when all that lived on the thread is gone.
fn on_thread<T: 'static>(
    name: String,
    live: impl AsyncFnOnce(SyncSender<Addr<Supervisor>>) -> T + Send + 'static,
) -> Result<Addr<Supervisor>, Error> {
    let (up, is_up) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name(name).spawn(move || {
        let last = actix_rt::System::new().block_on(live(up));
        drop(last);
    })?;
    is_up.recv().map_err(|_| Error::Start(std::io::Error::other("it ended before it was up")))
}
