use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::watch;

use super::handle::{IngressHandle, Supervisors, open_ingress, open_stream};
use super::stream::Answers;
use crate::actor::homes::Homes;
use crate::actor::message::Run;
use crate::actor::registry::{Phase, Shared};
use crate::actor::spec::IngressSpec;
use crate::model::{Cause, Code, Error, Failure, Outage, Role, StreamId, SupervisorEvent, What};
use crate::observe::Standing;
use crate::policy::AckLevel;

/// Something that brings bytes in: a listener, a file.
///
/// It runs on the system's own thread, so that bytes go from socket to window without a change of threads; it must not
/// block. One that fails or panics is logged and ends; the system goes on.
pub trait Source: Send + 'static {
    /// What to call it: in counters and logs.
    fn name(&self) -> &str;

    /// Brings bytes in until the input ends or [`Intake::closing`] resolves, then returns; what was read must have been
    /// fed by then.
    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>>;
}

impl Source for Box<dyn Source> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        (*self).run(intake)
    }
}

/// What a source needs of the system.
#[derive(Clone)]
pub struct Intake {
    pub(super) shared: Arc<Shared>,
    pub(super) supervisors: Supervisors,
    /// The thread it is used on.
    pub(super) home: usize,
    /// Why the source brings nothing in, if it does not.
    pub(super) standing: Arc<watch::Sender<Standing>>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("phase", &self.shared.phase()).finish_non_exhaustive()
    }
}

impl Intake {
    /// An ingress for one connection or one file.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains.
    pub async fn open(&self, spec: IngressSpec) -> Result<IngressHandle, Error> {
        open_ingress(&self.shared, &self.supervisors[self.home], spec).await
    }

    /// An ingress for one connection of a sender that numbers its frames, in the stream `stream`, and wants to be told at `level`
    /// what becomes of them. `next` is the position of the first frame it has not been told about.
    ///
    /// The connection takes the stream over from an earlier one, and waits until what that one had fed is dealt with. The
    /// first frame fed has the position behind [`Answers::last`].
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains, [`Error::TakenOver`] if yet another connection was faster.
    pub async fn open_stream(
        &self,
        spec: IngressSpec,
        stream: StreamId,
        next: u64,
        level: AckLevel,
    ) -> Result<(IngressHandle, Answers), Error> {
        open_stream(&self.shared, &self.supervisors[self.home], spec, &stream, next, level).await
    }

    /// An ingress for the frames of one call, as of one request: numbered from 1, each answered at `level`, and not
    /// known any more once handle and answers are dropped.
    ///
    /// # Errors
    /// [`Error::Closed`] once the system drains.
    pub async fn open_call(&self, spec: IngressSpec, level: AckLevel) -> Result<(IngressHandle, Answers), Error> {
        let call = StreamId::passing(self.shared.calls.fetch_add(1, Ordering::Relaxed));
        open_stream(&self.shared, &self.supervisors[self.home], spec, &call, 1, level).await
    }

    /// Counts something that `source` turned away before it came to an ingress, as a request whose sender may not speak
    /// for its tenant: received and rejected, and a failure in the report.
    pub fn reject(&self, source: &str, cause: Cause) {
        let name: Arc<str> = source.into();
        {
            let counters = self.shared.source(&name);
            let mut counters = counters.lock();
            counters.received += 1;
            counters.rejected += 1;
        }
        let at = self.shared.seam.now();
        self.shared.failed(&Failure { at, tenant: None, source: Some(name), batch: None, cause, events: 1 });
    }

    /// Says that the source brings nothing in yet, as before it has found what it reads. That is in its
    /// [standing](crate::System::outages), and in no log.
    pub fn begins(&self, why: impl Into<String>) {
        let since = self.shared.seam.now();
        let outage = Some(Outage { why: why.into(), since, next_attempt_at: None, is_partial: false });
        self.standing.send_modify(|standing| standing.outage = outage);
    }

    /// Says why `source` brings nothing in although it runs, as while it is away from what it reads, and in how long it tries again, where
    /// it knows. The supervisor log and the report have it once for each reason; [`SourceHandle::outage`],
    /// [`System::outages`](crate::System::outages) and the metrics until it [works](Self::works).
    pub fn fails(&self, source: &str, why: impl Into<String>, next: Option<Duration>) {
        self.fails_so(source, why.into(), next, false);
    }

    /// The same where a part alone of what `source` is to bring in does not come.
    pub fn fails_in_part(&self, source: &str, why: impl Into<String>, next: Option<Duration>) {
        self.fails_so(source, why.into(), next, true);
    }

    fn fails_so(&self, source: &str, why: String, next: Option<Duration>, is_partial: bool) {
        let now = self.shared.seam.now();
        let next_attempt_at = next.map(|next| now.plus(next));
        let mut new_since = None;
        self.standing.send_modify(|standing| {
            let before = standing.outage.take();
            let is_new = !standing.is_told || before.as_ref().is_none_or(|before| before.why != why);
            let since = before.map_or(now, |before| before.since);
            new_since = is_new.then_some(since);
            *standing = Standing {
                outage: Some(Outage { why: why.clone(), since, next_attempt_at, is_partial }),
                is_told: true,
                ..Standing::default()
            };
        });
        if let Some(since) = new_since {
            let event =
                SupervisorEvent { next_attempt_at, since: Some(since), ..self.event(source, What::SourceFails) };
            self.tell(event, why);
        }
    }

    /// Says that `source` brings in all that it is to, from now on or as before.
    pub fn works(&self, source: &str) {
        let mut since = None;
        self.standing.send_modify(|standing| {
            let Standing { outage, is_told, .. } = std::mem::take(standing);
            since = outage.filter(|_| is_told).map(|outage| outage.since);
        });
        if since.is_some() {
            self.shared.log(SupervisorEvent { since, ..self.event(source, What::SourceWorks) });
        }
    }

    /// Counts, and says in the supervisor log and the report, that something was lost before `source` could take it in.
    pub fn lost(&self, source: &str, lost: Lost, why: &str) {
        let what = {
            let ledger = self.shared.source(&source.into());
            let mut counters = ledger.lock();
            match lost {
                Lost::Bytes(bytes) => {
                    counters.lost_bytes += bytes;
                    format!("{bytes} bytes")
                }
                Lost::Datagrams(datagrams) => {
                    counters.lost_datagrams += datagrams;
                    format!("{datagrams} datagrams")
                }
            }
        };
        self.tell(self.event(source, What::SourceLost), format!("{what}: {why}"));
    }

    fn event(&self, source: &str, what: What) -> SupervisorEvent {
        SupervisorEvent { source: Some(source.into()), ..SupervisorEvent::new(None, Role::Source, what) }
    }

    fn tell(&self, event: SupervisorEvent, why: String) {
        let (at, source) = (self.shared.seam.now(), event.source.clone());
        // The report has no column for its name.
        let cause = Cause::new(Code::Source, format!("source {}: {why}", source.as_deref().unwrap_or_default()));
        self.shared.log(SupervisorEvent { cause: Some(Cause::new(Code::Source, why)), ..event });
        self.shared.failed(&Failure { at, tenant: None, source, batch: None, cause, events: 0 });
    }

    /// Counts frames that came to `source` again and are known to it: received, and duplicates.
    pub fn duplicate(&self, source: &str, frames: u64) {
        let source = self.shared.source(&source.into());
        let mut counters = source.lock();
        counters.received += frames;
        counters.duplicate += frames;
    }

    /// Counts something that its sender marked as sent before. It says nothing of whether it had come.
    pub fn redelivered(&self, source: &str) {
        self.shared.source(&source.into()).lock().redelivered += 1;
    }

    /// Counts that `source` found its way back to what it reads from.
    pub fn reconnected(&self, source: &str) {
        self.shared.source(&source.into()).lock().reconnects += 1;
    }

    /// Resolves when the source should end: the system drains or stops.
    pub async fn closing(&self) {
        let mut phase = self.shared.phase.subscribe();
        // The sender lives as long as this handle.
        let _ = phase.wait_for(|phase| *phase > Phase::Running).await;
    }

    /// While it is there, a system that ends waits for what is being told to a client: once everything has its outcome, for a second
    /// at the most. Held by a connection that owes answers, until they are written.
    #[must_use]
    pub fn telling(&self) -> Telling {
        self.shared.telling.send_modify(|connections| *connections += 1);
        Telling(self.shared.clone())
    }

    /// Runs a task that reads one connection, on whichever of the system's threads reads the fewest: `task` is called there, with an
    /// intake that opens ingresses on the same thread. Give it what can change threads, as a socket of the standard library.
    pub fn spread(&self, task: impl FnOnce(Self) -> LocalBoxFuture<'static, ()> + Send + 'static) {
        let (home, reading) = Homes::for_connection(&self.shared);
        let intake = Self { home, ..self.clone() };
        let task = move || {
            async move {
                let _reading = reading;
                task(intake).await;
            }
            .boxed_local()
        };
        if home == self.home {
            crate::port::spawn(task());
        } else {
            // As many as the source lets be open.
            self.supervisors[home].do_send(Run(Box::new(task)));
        }
    }

    /// Runs a task beside this source, on the same thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> tokio::task::JoinHandle<()> {
        crate::port::spawn(task)
    }
}

/// What was lost before a source could take it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// So many bytes.
    Bytes(u64),
    /// So many datagrams.
    Datagrams(u64),
}

/// A connection that owes answers; see [`Intake::telling`].
pub struct Telling(Arc<Shared>);

impl std::fmt::Debug for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telling")
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.telling.send_modify(|connections| *connections -= 1);
    }
}

/// A source that was added to a system.
#[derive(Debug, Clone)]
pub struct SourceHandle {
    pub(super) ended: watch::Receiver<Option<Result<(), String>>>,
    pub(super) standing: watch::Receiver<Standing>,
}

impl SourceHandle {
    /// How the source has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<Result<(), String>> {
        self.ended.borrow().clone()
    }

    /// Why the source brings nothing in, or not all, although it runs, if it says so.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.standing.borrow().outage.clone()
    }

    /// Waits for the source to end.
    ///
    /// # Errors
    /// What the source says, or its panic.
    pub async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err("the system stopped before the source had ended".to_owned()),
        }
    }
}
