//! What outlives a process: its journal, its store, its dead letters, the wall clock.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{
    AckLevel, Answer, Answers, Batch, Code, Error, Fault, Faulty, Framing, IngressHandle, IngressSpec, Intake, Json,
    MemoryDeadLetters, MemoryStore, Placement, Policy, Seam, Source, StreamId, System, SystemBuilder, UnixMillis,
};
use tokio::sync::mpsc;

use super::{ModelJournal, Recorder, Rig, Store, pass, secs};

pub(crate) struct World {
    pub(crate) journal: ModelJournal,
    pub(crate) store: Store,
    pub(crate) kept: MemoryStore,
    pub(crate) letters: MemoryDeadLetters,
    starts: Cell<u64>,
    began: tokio::time::Instant,
    /// How far the wall clock is ahead of the virtual one, in milliseconds.
    ahead: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::faulty(Fault::None.always())
    }

    /// A store that misbehaves by script.
    pub(crate) fn faulty(script: impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static) -> Self {
        let kept = MemoryStore::new();
        Self {
            journal: ModelJournal::new(),
            store: Recorder::new(Faulty::new(kept.clone(), script)),
            kept,
            letters: MemoryDeadLetters::default(),
            starts: Cell::new(0),
            began: tokio::time::Instant::now(),
            ahead: Arc::default(),
        }
    }

    /// A process.
    pub(crate) fn start(&self, policy: Policy) -> Rig {
        self.start_with(policy, |builder| builder)
    }

    pub(crate) fn start_with(&self, policy: Policy, parts: impl FnOnce(SystemBuilder) -> SystemBuilder) -> Rig {
        // Each opening of the journal has its own randomness.
        self.starts.set(self.starts.get() + 1);
        let (began, ahead) = (self.began, self.ahead.clone());
        let wall = move || {
            let since = began.elapsed() + Duration::from_millis(ahead.load(Ordering::Relaxed));
            UnixMillis(1_700_000_000_000).plus(since)
        };
        let builder = System::builder()
            .policy(policy)
            .journal(self.journal.clone())
            .store(self.store.clone())
            .dead_letters(self.letters.clone())
            .seam(Seam::new(wall, self.starts.get() * 1_000))
            .placement(Placement::Inline);
        let system = parts(builder).start().unwrap();
        Rig { system, store: self.kept.clone(), letters: self.letters.clone() }
    }

    /// Kills the process, and leaves what was committed.
    pub(crate) async fn crash(&mut self, process: Rig) {
        self.crash_with(process, 0).await;
    }

    /// Kills the process, and leaves what was committed and up to `more` blocks.
    pub(crate) async fn crash_with(&mut self, process: Rig, more: usize) {
        self.journal = self.journal.crash(more);
        drop(process);
        // Its tasks end.
        pass(Duration::from_millis(1)).await;
    }

    /// Sets the wall clock forward.
    pub(crate) fn turn_clock(&self, by: Duration) {
        self.ahead.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Ends the last process well; then the record must say that everything is settled.
    pub(crate) async fn end(&self, process: Rig) {
        process.drained().await;
        let replay = self.journal.check();
        for tenant in replay.tenants.values() {
            assert!(tenant.cuts.iter().all(|cut| cut.outcome.is_some()));
        }
    }
}

/// A source that hands out what it was given.
struct Tap(mpsc::UnboundedSender<Intake>);

impl Source for Tap {
    fn name(&self) -> &str {
        "tap"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let _ = self.0.send(intake.clone());
            intake.closing().await;
            Ok(())
        }
        .boxed_local()
    }
}

/// A connection of a stream of numbered frames.
pub(crate) struct Conn {
    pub(crate) ingress: IngressHandle,
    pub(crate) answers: Answers,
}

impl Rig {
    pub(crate) async fn intake(&self) -> Intake {
        let (give, mut given) = mpsc::unbounded_channel();
        self.system.add_source(Tap(give)).await.unwrap();
        given.recv().await.unwrap()
    }

    pub(crate) async fn connect(&self, stream: &str, next: u64, level: AckLevel) -> Conn {
        self.try_connect(stream, next, level).await.unwrap()
    }

    pub(crate) async fn try_connect(&self, stream: &str, next: u64, level: AckLevel) -> Result<Conn, Error> {
        let spec = IngressSpec::new("stream", Framing::lines(), Json::new());
        let stream = StreamId::new(stream).unwrap();
        let (ingress, answers) = self.intake().await.open_stream(spec, stream, next, level).await?;
        Ok(Conn { ingress, answers })
    }
}

/// The positions that were acknowledged, and those that were not, with the reasons, in order.
pub(crate) type Told = (Vec<u64>, Vec<(u64, Code)>);

impl Conn {
    /// What is answered within a second, which is nothing where something is waited for.
    pub(crate) async fn told(&mut self) -> Told {
        let (mut acks, mut nacks) = (vec![], vec![]);
        while let Ok(Some(answers)) = tokio::time::timeout(secs(1), self.answers.next()).await {
            for answer in answers {
                match answer {
                    Answer::Ack(range) => acks.extend(range),
                    Answer::Nack(range, code, _) => nacks.extend(range.map(|position| (position, code))),
                }
            }
        }
        acks.sort_unstable();
        nacks.sort_unstable();
        (acks, nacks)
    }

    /// The acknowledged positions; nothing must have been refused.
    pub(crate) async fn acks(&mut self) -> Vec<u64> {
        let (acks, nacks) = self.told().await;
        assert_eq!(nacks, []);
        acks
    }
}
