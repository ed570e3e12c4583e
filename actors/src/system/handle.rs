use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Addr, MailboxError};
use futures::FutureExt;
use futures::future::{Either, select};
use tokio::sync::{OnceCell, oneshot, watch};

use super::builder::SystemBuilder;
use super::drain::{self, DrainReport};
use super::source::{Intake, Source, SourceHandle};
use super::stream::{Answers, Connection, Receipt};
#[cfg(feature = "testing")]
use crate::actor::control::Control;
use crate::actor::homes::{Homes, Reading};
use crate::actor::ingress::Ingress;
#[cfg(feature = "testing")]
use crate::actor::message::Hang;
use crate::actor::message::{Finish, Offer, OpenIngress, Read, Run, Spawn};
use crate::actor::registry::{Feeding, Phase, Shared};
use crate::actor::slot::Slot;
use crate::actor::spec::{IngressSpec, TenantSpec};
use crate::actor::streams::Stream;
use crate::actor::supervisor::Supervisor;
use crate::actor::tenant_supervisor::{passivate_soon, stop};
use crate::model::{
    Cause, Code, Error, Event, Failure, FlushReason, Opening, Outage, Role, StreamId, SupervisorEvent, SystemHealth,
    TenantId, What,
};
use crate::observe::{Report, SourceCounters, Standing, SupervisorLog, TenantDetail, TenantSnapshot};
use crate::policy::{AckLevel, Policy};
use crate::port::{Entry, Health, Uncompensated};
use crate::wire::{Framing, RawLines};

/// A running system, spoken to from any thread and any runtime. Clones speak to the same system.
///
/// When the last clone is dropped the system stops at once, without a drain; call [`drain`](Self::drain) first.
#[derive(Clone)]
pub struct System {
    pub(super) shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// Of each thread; the first is the root's.
pub(super) type Supervisors = Arc<[Addr<Supervisor>]>;

struct Handle {
    shared: Arc<Shared>,
    supervisors: Supervisors,
    /// The ingress of events that embedders make.
    own: OnceCell<IngressHandle>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.enter(Phase::Stopping);
    }
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System").field("phase", &self.shared.phase()).finish_non_exhaustive()
    }
}

/// From so many bytes on a connection lets all others have their turn before its next read.
const LARGE_READ: usize = 64 << 10;

/// Begins a call that may bring events in, unless it is too late for that.
fn begin(shared: &Arc<Shared>) -> Result<Feeding, Error> {
    let feeding = Feeding::begin(shared);
    // After the count, so that a drain either sees this call or is seen by it.
    if shared.phase() > Phase::Draining { Err(Error::Closed) } else { Ok(feeding) }
}

/// What a message that was not answered means to its sender.
fn unanswered(role: Role) -> impl Fn(MailboxError) -> Error {
    move |_| Error::Failed(role)
}

pub(super) async fn open_ingress(
    shared: &Arc<Shared>,
    supervisor: &Addr<Supervisor>,
    spec: IngressSpec,
) -> Result<IngressHandle, Error> {
    let addr = supervisor.send(OpenIngress { spec, stream: None }).await.map_err(unanswered(Role::Supervisor))??;
    Ok(IngressHandle { shared: shared.clone(), addr, connection: None, _place: None })
}

pub(super) async fn open_stream(
    shared: &Arc<Shared>,
    supervisor: &Addr<Supervisor>,
    spec: IngressSpec,
    stream: &StreamId,
    next: u64,
    level: AckLevel,
) -> Result<(IngressHandle, Answers), Error> {
    shared.streams.expire(shared);
    let stream = shared.streams.get_or_insert(stream);
    let session = stream.connect(shared.seam.now());
    let is_finished = AtomicBool::new(false);
    let connection = Arc::new(Connection { shared: shared.clone(), stream: stream.clone(), session, is_finished });
    if !stream.settled_down(session).await {
        return Err(Error::TakenOver);
    }
    let last = stream.begin(next, level);
    let open = OpenIngress { spec, stream: Some((stream, session)) };
    let addr = supervisor.send(open).await.map_err(unanswered(Role::Supervisor))??;
    let connected = Some(connection.clone());
    let ingress = IngressHandle { shared: shared.clone(), addr, connection: connected, _place: None };
    Ok((ingress, Answers { connection, last }))
}

impl System {
    /// The parts of a new system.
    pub fn builder() -> SystemBuilder {
        SystemBuilder::default()
    }

    pub(super) fn new(shared: Arc<Shared>, supervisors: Supervisors) -> Self {
        let handle = Arc::new(Handle { shared: shared.clone(), supervisors, own: OnceCell::new() });
        Self { shared, handle }
    }

    /// Brings a tenant up, before its first event, with a policy, a store or hooks of its own.
    ///
    /// # Errors
    /// [`Error::TenantExists`], [`Error::TenantLimit`], [`Error::InvalidPolicy`] or [`Error::Closed`].
    pub async fn spawn(&self, spec: impl Into<TenantSpec>) -> Result<TenantHandle, Error> {
        let spawn = Spawn(spec.into());
        let id = self.handle.supervisors[0].send(spawn).await.map_err(unanswered(Role::Supervisor))??;
        Ok(TenantHandle { system: self.clone(), id })
    }

    /// The tenant, if it is known.
    #[must_use]
    pub fn tenant(&self, id: &TenantId) -> Option<TenantHandle> {
        self.shared.knows(id).then(|| TenantHandle { id: id.clone(), system: self.clone() })
    }

    /// Every tenant as it is now, by name.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantSnapshot> {
        self.shared.snapshots()
    }

    /// What could not be undone of batches that were given up, by tenant: as long as a compensation stands here, its store may
    /// hold what is a dead letter, too. Each is tried again, until it is done or the system ends; with a durable journal the next
    /// process goes on with it.
    #[must_use]
    pub fn uncompensated(&self) -> Vec<Uncompensated> {
        self.shared.all_slots().iter().flat_map(|slot| slot.lane.uncompensated()).collect()
    }

    /// The frames of each source, by name.
    #[must_use]
    pub fn sources(&self) -> Vec<(Arc<str>, SourceCounters)> {
        self.shared.all_sources()
    }

    /// The sources that were added and have not brought in all that they were to, by name, and why they bring nothing in, if they do
    /// not. One that has failed for good is among them.
    #[must_use]
    pub fn outages(&self) -> Vec<(Arc<str>, Option<Outage>)> {
        self.shared.outages()
    }

    /// The memory of all events in flight, in bytes.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.shared.budget.used()
    }

    /// The opening whose id begins the ids of all batches that this system cuts, and of its dead letters.
    #[must_use]
    pub fn opening(&self) -> Opening {
        self.shared.opening
    }

    /// Dead letters of bad frames, and of events given up at the door, that are still to be kept.
    #[must_use]
    pub fn dead_letters_pending(&self) -> u64 {
        self.shared.letters.len() as u64
    }

    /// Frames that wait at the door at the moment, as for their tenant's rate or for memory: they were received, and have no answer yet.
    #[must_use]
    pub fn frames_waiting(&self) -> u64 {
        self.shared.at_door.load(Ordering::Acquire)
    }

    /// Opens an ingress: bytes in, each tenant's events to its actor.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains.
    pub async fn ingress(&self, spec: IngressSpec) -> Result<IngressHandle, Error> {
        let (home, reading) = Homes::for_connection(&self.shared);
        let ingress = open_ingress(&self.shared, &self.handle.supervisors[home], spec).await?;
        Ok(IngressHandle { _place: Some(Arc::new(reading)), ..ingress })
    }

    /// Takes events that were made, not read, of any tenants. Returns when each has been accepted or refused; waits where a
    /// budget is full. They are counted under the source `offer`.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains: none was accepted.
    ///
    /// # Cancel safety
    /// If the future is dropped, the events may or may not be taken in: all of them or none.
    pub async fn offer(&self, events: Vec<Event>) -> Result<(), Error> {
        self.offer_to(events, None).await
    }

    /// As [`offer`](Self::offer), with a receipt: it tells when what was accepted is on disk, and when all of it is settled.
    ///
    /// ```
    /// # use headworks_actors::{Event, System, TenantId};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().start()?;
    /// let event = Event::new("acme".parse::<TenantId>()?, None, "a door opened");
    /// let mut receipt = system.send(vec![event]).await?;
    /// receipt.accepted().await;
    /// assert_eq!(receipt.settled().await.stored, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    ///
    /// # Cancel safety
    /// As [`offer`](Self::offer).
    pub async fn send(&self, events: Vec<Event>) -> Result<Receipt, Error> {
        let shared = &self.shared;
        let id = StreamId::passing(shared.calls.fetch_add(1, Ordering::Relaxed));
        let stream = shared.streams.get_or_insert(&id);
        let session = stream.connect(shared.seam.now());
        stream.begin(1, AckLevel::Stored);
        let is_finished = AtomicBool::new(false);
        let connection = Arc::new(Connection { shared: shared.clone(), stream: stream.clone(), session, is_finished });
        let count = events.len() as u64;
        // Made first: it forgets the stream where the call comes to nothing.
        let receipt = Receipt::new(connection, count);
        self.offer_to(events, Some(stream.clone())).await?;
        Ok(receipt.committed_at(stream.recorded_at()))
    }

    async fn offer_to(&self, events: Vec<Event>, stream: Option<Arc<Stream>>) -> Result<(), Error> {
        let _feeding = begin(&self.shared)?;
        let own = self.handle.own.get_or_try_init(async || {
            // Only its name matters: events that are offered are neither framed nor decoded.
            let decoder = RawLines::new(TenantId::new("offer")?);
            self.ingress(IngressSpec::new("offer", Framing::lines(), decoder)).await
        });
        own.await?.addr.send(Offer { events, stream }).await.map_err(unanswered(Role::Ingress))?
    }

    /// Adds a source; it runs until its input ends or the system drains.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains.
    pub async fn add_source(&self, source: impl Source) -> Result<SourceHandle, Error> {
        if self.shared.phase() > Phase::Running {
            return Err(Error::Closed);
        }
        let (end, ended) = watch::channel(None);
        let (standing, standings) = watch::channel(Standing::default());
        let (standing, seen) = (Arc::new(standing), standings.clone());
        let (shared, supervisors) = (self.shared.clone(), self.handle.supervisors.clone());
        let intake = Intake { shared, supervisors, home: 0, standing: standing.clone() };
        let run = Run(Box::new(move || {
            async move {
                let (shared, mut name) = (intake.shared.clone(), "of unknown name".to_owned());
                let run = async {
                    source.name().clone_into(&mut name);
                    shared.source(&name.as_str().into()).watch(seen);
                    let _feeding = begin(&shared).map_err(|closed| closed.to_string())?;
                    Box::new(source).run(intake).await
                };
                let panicked =
                    |panic: Box<dyn std::any::Any + Send>| Err(Cause::from_panic(Code::Source, &*panic).to_string());
                let result = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(panicked);
                if let Err(why) = &result {
                    source_failed(&shared, &name, why);
                    let (since, why) = (shared.seam.now(), why.clone());
                    let outage = Outage { why, since, next_attempt_at: None, is_partial: false };
                    standing.send_modify(|standing| standing.outage = Some(outage));
                }
                if result.is_ok() {
                    standing.send_replace(Standing { is_over: true, ..Standing::default() });
                }
                end.send_replace(Some(result));
            }
            .boxed_local()
        }));
        self.handle.supervisors[0].send(run).await.map_err(unanswered(Role::Supervisor))?;
        Ok(SourceHandle { ended, standing: standings })
    }

    /// Drops the tenant's events at the door from now on, counted, whether or not it is known yet.
    pub fn mute(&self, id: &TenantId) {
        self.shared.mute(id, true);
    }

    /// Lets the tenant's events in again.
    pub fn unmute(&self, id: &TenantId) {
        self.shared.mute(id, false);
    }

    /// Writes to the supervisor log what an operator had done: `what` as [`What::Ordered`], and more of it in words.
    pub fn log_order(&self, id: &TenantId, what: What, detail: &str) {
        let event = SupervisorEvent::new(Some(id.clone()), Role::Supervisor, what);
        self.shared.log(SupervisorEvent { cause: Some(Cause::new(Code::Operator, detail)), ..event });
    }

    /// Gives a tenant other rules, whether or not it is known yet, until the end of the system. They hold from its next chunk,
    /// window, attempt and heartbeat; the window that is open obeys them at once, and what waits at the door looks again. What of
    /// a throttle's burst is used up stays used. A tenant that comes up later has them too, unless it is
    /// [spawned](Self::spawn) with rules of its own. The supervisor log says what was changed.
    ///
    /// ```
    /// # use headworks_actors::{System, TenantId};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().start()?;
    /// let acme: TenantId = "acme".parse()?;
    /// let mut policy = system.policy(&acme);
    /// policy.throttle.events_per_second = 100;
    /// system.set_policy(&acme, policy)?;
    /// assert_eq!(system.policy(&acme).throttle.events_per_second, 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`]: nothing is changed.
    pub fn set_policy(&self, id: &TenantId, policy: Policy) -> Result<(), Error> {
        self.shared.set_policy(id, policy)
    }

    /// The rules of a tenant as they are now, whether or not it is known yet.
    #[must_use]
    pub fn policy(&self, id: &TenantId) -> Policy {
        Policy::clone(&self.shared.policy(id))
    }

    /// The muted tenants, by name.
    #[must_use]
    pub fn muted(&self) -> Vec<TenantId> {
        self.shared.muted()
    }

    /// The supervisor log.
    #[must_use]
    pub fn log(&self) -> SupervisorLog {
        self.shared.log.clone()
    }

    /// Whether the system as a whole does its work. Works while its thread hangs.
    #[must_use]
    pub fn health(&self) -> SystemHealth {
        self.shared.root.health()
    }

    /// Whether a drain has begun, or the system has ended.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.phase() > Phase::Running
    }

    /// How its journal is doing.
    #[must_use]
    pub fn journal_health(&self) -> Health {
        self.shared.journal.health()
    }

    /// Resolves once all that has become of events so far is on record for good: with a durable journal, on the disk. For as long
    /// as that cannot be written, it does not.
    pub async fn recorded(&self) {
        #[expect(clippy::expect_used, reason = "a constant that follows the grammar")]
        let stream = StreamId::new("headworks-nobodys-stream").expect("it follows the grammar");
        // It says nothing, but has its place behind all that was said.
        let at = self.shared.record(&mut vec![Entry::Forget { stream }]);
        self.shared.journal.committed(at).await;
    }

    /// What has failed so far, by tenant and code.
    #[must_use]
    pub fn report(&self) -> Report {
        let now = self.shared.seam.now();
        self.shared.collect(|collector| collector.report(now))
    }

    /// Makes the aggregator panic, as if its own code had.
    #[cfg(feature = "testing")]
    pub fn inject_aggregator_panic(&self) {
        if let Some(aggregator) = self.shared.aggregator.get() {
            aggregator.control.panic();
        }
    }

    /// Ends the system in the order of the flow: sources, windows, writers. Refuses new work at once, stores what was
    /// accepted, and reports what became of it, per tenant. What has no outcome by the `deadline` is reported as in flight.
    ///
    /// May be called from several places: each gets the report.
    ///
    /// # Cancel safety
    /// A drain that is dropped has begun all the same; it can be waited for by calling it again.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        drain::drain(&self.shared, &self.handle.supervisors[0], deadline).await
    }
}

fn source_failed(shared: &Shared, name: &str, why: &str) {
    let cause = Cause::new(Code::Source, format!("source {name}: {why}"));
    let (at, source) = (shared.seam.now(), Some(Arc::<str>::from(name)));
    let event = SupervisorEvent::new(None, Role::Source, What::Failed);
    shared.log(SupervisorEvent { source: source.clone(), cause: Some(cause.clone()), ..event });
    shared.failed(&Failure { at, tenant: None, source, batch: None, cause, events: 0 });
}

/// One tenant of a running system. Stays valid through every restart of the tenant's actors, and while it is passivated.
#[derive(Clone)]
pub struct TenantHandle {
    system: System,
    id: TenantId,
}

impl std::fmt::Debug for TenantHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TenantHandle {
    /// Its slot, if it is awake.
    fn slot(&self) -> Option<Arc<Slot>> {
        self.system.shared.slot(&self.id)
    }

    /// Asks something of it that means nothing to one that is dormant.
    fn on_slot(&self, ask: impl FnOnce(&Arc<Slot>, &Shared)) {
        if let Some(slot) = self.slot() {
            ask(&slot, &self.system.shared);
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The tenant as it is now, in one moment.
    #[must_use]
    pub fn snapshot(&self) -> TenantSnapshot {
        let snapshot = self.system.shared.snapshot(&self.id);
        #[expect(clippy::expect_used, reason = "a handle is of a known tenant, and none is forgotten")]
        snapshot.expect("the tenant is known")
    }

    /// All that is known of it: window, backlog, the batch in front with its attempts, actors, failures, its supervisor log.
    ///
    /// ```
    /// # use headworks_actors::{System, TenantSpec};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().start()?;
    /// let acme = system.spawn(TenantSpec::new("acme")?).await?;
    /// acme.offer(["one", "two"]).await?;
    /// let detail = acme.explain();
    /// assert_eq!(detail.window.events + detail.backlog.events + detail.snapshot.counters.stored, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self) -> TenantDetail {
        let detail = self.system.shared.detail(&self.id);
        #[expect(clippy::expect_used, reason = "a handle is of a known tenant, and none is forgotten")]
        detail.expect("the tenant is known")
    }

    /// What could not be undone of its batches; see [`System::uncompensated`].
    #[must_use]
    pub fn uncompensated(&self) -> Vec<Uncompensated> {
        self.slot().map(|slot| slot.lane.uncompensated()).unwrap_or_default()
    }

    /// Takes events of this tenant. See [`System::offer`].
    ///
    /// # Errors
    /// As [`System::offer`].
    pub async fn offer<B: Into<bytes::Bytes>>(&self, bodies: impl IntoIterator<Item = B>) -> Result<(), Error> {
        let events = bodies.into_iter().map(|body| Event::new(self.id.clone(), None, body)).collect();
        self.system.offer(events).await
    }

    /// Closes the open window now, if it holds anything.
    pub fn flush(&self) {
        self.on_slot(|slot, shared| slot.want_flush(shared, FlushReason::Explicit));
    }

    /// Replaces the tenant's actors by fresh ones. Nothing accepted is lost; an attempt to store that is under way counts
    /// as failed, and the batch is sent again under the same id.
    ///
    /// A tenant that is stopped or quarantined is [resumed](Self::resume); one that has no actors is left alone.
    pub fn restart(&self) {
        self.on_slot(|slot, shared| slot.restart(shared));
    }

    /// Ends the tenant's actors, until [`resume`](Self::resume) or [`restart`](Self::restart). Its events are still accepted, and
    /// wait, as far as its budget goes; an attempt to store that is under way is cut off, and made again afterwards. The
    /// status says `stopped`. Others go on.
    ///
    /// A system that drains cannot store what waits: resume its tenants first.
    pub fn stop(&self) {
        stop(&self.system.shared, &self.id);
    }

    /// Lets a tenant go on that was stopped or is quarantined, with its count of restarts begun anew; for any other, cuts
    /// the wait before a restart short. A store that was away is asked again at once.
    pub fn resume(&self) {
        self.on_slot(|slot, shared| {
            slot.resume(shared);
            slot.ask_store_again();
        });
    }

    /// Ends the tenant's actors and frees their memory, as soon as nothing of the tenant is in flight; its next event brings
    /// them back. Closes the open window to get there. Events that come meanwhile are taken and stored first; of a tenant
    /// that is held, or whose store is away, this waits for what waits.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system has stopped.
    ///
    /// # Cancel safety
    /// If the future is dropped, the tenant goes on as it was, but for the window that may be closed.
    pub async fn passivate(&self) -> Result<(), Error> {
        let (id, shared) = (self.id.clone(), self.system.shared.clone());
        let (mut tell, told) = oneshot::channel();
        let run = Run(Box::new(move || {
            async move {
                let mut phase = shared.phase.subscribe();
                let is_over = phase.wait_for(|phase| *phase >= Phase::Stopping).map(drop).boxed_local();
                let called_off = select(is_over, tell.closed().boxed_local());
                let done = select(passivate_soon(&shared, &id).boxed_local(), called_off).await;
                if matches!(done, Either::Left(_)) {
                    drop(done);
                    // Nobody waits any more only if the caller has gone.
                    let _ = tell.send(());
                }
            }
            .boxed_local()
        }));
        self.system.handle.supervisors[0].send(run).await.map_err(|_| Error::Closed)?;
        told.await.map_err(|_| Error::Closed)
    }

    /// See [`System::mute`].
    pub fn mute(&self) {
        self.system.mute(&self.id);
    }

    /// See [`System::unmute`].
    pub fn unmute(&self) {
        self.system.unmute(&self.id);
    }

    /// See [`System::set_policy`].
    ///
    /// # Errors
    /// As [`System::set_policy`].
    pub fn set_policy(&self, policy: Policy) -> Result<(), Error> {
        self.system.set_policy(&self.id, policy)
    }

    /// Its rules as they are now.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.system.policy(&self.id)
    }

    /// Makes the actors panic, as if their own code had.
    #[cfg(feature = "testing")]
    pub fn inject_panic(&self) {
        self.on_slot(|slot, _| slot.each_control(Control::panic));
    }

    /// Has the tenant move to another of the system's threads, counted from 0, as if its own had more to do.
    #[cfg(feature = "testing")]
    pub fn inject_move(&self, thread: usize) {
        self.on_slot(|slot, shared| {
            if thread < shared.homes.len() {
                slot.move_to(shared, thread);
            }
        });
    }

    /// Makes the tenant's actor wait for what never comes, as if its own code did.
    #[cfg(feature = "testing")]
    pub fn inject_hang(&self) {
        self.on_slot(|slot, _| _ = slot.tenant.tell(Hang, &AtomicBool::new(false)));
    }

    /// The same of its writer, if that was ever started.
    #[cfg(feature = "testing")]
    pub fn inject_writer_hang(&self) {
        self.on_slot(|slot, _| _ = slot.writer.tell(Hang, &AtomicBool::new(false)));
    }
}

/// One stream of bytes into the system. Works from any thread and any runtime.
///
/// Bytes belong in by one caller at a time, in order: a stream has one end. The ingress ends when the last clone is dropped;
/// the beginning of a frame that was never finished is then forgotten: call [`finish`](Self::finish) first.
#[derive(Clone)]
pub struct IngressHandle {
    shared: Arc<Shared>,
    addr: Addr<Ingress>,
    /// Of a stream of numbered frames.
    connection: Option<Arc<Connection>>,
    /// That it is read on its thread, where this keeps that.
    _place: Option<Arc<Reading>>,
}

impl std::fmt::Debug for IngressHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngressHandle").finish_non_exhaustive()
    }
}

impl IngressHandle {
    /// Takes the bytes of one read, in any cut. Returns when every frame that ends in them has been accepted or refused,
    /// and hands the buffer back for reuse. While something is full it waits: that is the backpressure, so do not read on
    /// before it returns.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains, [`Error::TakenOver`] where another connection has the stream now: nothing of
    /// these bytes was accepted. [`Error::Failed`] after a failure in
    /// the ingress itself: what part of these bytes was accepted is not known.
    ///
    /// # Cancel safety
    /// If the future is dropped, the bytes may or may not be taken in: all of them or none.
    pub async fn feed(&self, bytes: impl Into<Vec<u8>>) -> Result<Vec<u8>, Error> {
        if let Some(connection) = &self.connection {
            connection.stream.has_room(connection.session).await;
        }
        let bytes = bytes.into();
        let is_large = bytes.len() >= LARGE_READ;
        let feeding = begin(&self.shared)?;
        let fed = self.addr.send(Read(bytes)).await.map_err(unanswered(Role::Ingress))?;
        drop(feeding);
        if is_large {
            // Until the runtime has looked at its clock and its sockets. It does so only after so many turns of those that are ready,
            // and a few connections with always more to read would hold up every timer of the thread for tens of milliseconds.
            tokio::task::yield_now().await;
        }
        fed
    }

    /// Leaves out positions, in a stream of numbered frames: the next frame that is fed has the position `next`, or the one it would have
    /// had where that is later. Frames of positions that were left out are never to come. For numbers that have holes, as those of a log
    /// from which messages were deleted. It goes on record with the next frame that is fed.
    ///
    /// # Errors
    /// [`Error::TakenOver`] where another connection has the stream now, or a read is under way, or the frames are not numbered.
    pub fn skip_to(&self, next: u64) -> Result<(), Error> {
        let skipped = self.connection.as_ref().is_some_and(|of| of.stream.skip_to(of.session, next));
        if skipped { Ok(()) } else { Err(Error::TakenOver) }
    }

    /// The input has ended. `clean` says that it ended at the sender's will: an unfinished last line is then a frame like
    /// any other; else it is a dead letter, `truncated`.
    ///
    /// # Errors
    /// [`Error::Failed`] after a failure in the ingress itself.
    ///
    /// # Cancel safety
    /// As [`feed`](Self::feed).
    pub async fn finish(&self, clean: bool) -> Result<(), Error> {
        let _feeding = begin(&self.shared)?;
        let finished = self.addr.send(Finish { clean }).await.map_err(unanswered(Role::Ingress))?;
        if let Some(connection) = &self.connection {
            connection.is_finished.store(true, Ordering::Release);
            connection.stream.changed.notify_waiters();
        }
        finished
    }
}
