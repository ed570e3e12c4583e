use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::watch;

use super::handle::{IngressHandle, Supervisors, open_ingress, open_stream};
use super::stream::Answers;
use crate::actor::homes::Homes;
use crate::actor::message::Run;
use crate::actor::registry::{Phase, Shared};
use crate::actor::spec::IngressSpec;
use crate::model::{Cause, Error, Failure, StreamId};
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
    pub(super) trouble: Arc<watch::Sender<Option<String>>>,
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

    /// Says why the source brings nothing in although it runs, as while it is away from what it reads; `None` once it does again.
    /// [`SourceHandle::trouble`] tells.
    pub fn trouble(&self, why: Option<String>) {
        self.trouble.send_replace(why);
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
    pub(super) trouble: watch::Receiver<Option<String>>,
}

impl SourceHandle {
    /// How the source has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<Result<(), String>> {
        self.ended.borrow().clone()
    }

    /// Why the source brings nothing in although it runs, if it says so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
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
