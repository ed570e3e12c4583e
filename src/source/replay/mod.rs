//! Dead letters on their way back, by the normal way in.

mod frame;
mod pace;
mod run;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use headworks_actors::{
    Answer, Cause, Code, DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, Decoded, Decoder, Error,
    StorageError, StreamId, System, TenantId,
};
use serde::{Deserialize, Serialize};

/// How many events a second a replay brings, where nobody says: 1,000.
pub const REPLAY_RATE: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

/// Replays dead letters into a running system.
///
/// A letter of kind `event` is an event of its tenant again, with its time; one of kind `frame` goes through the decoder, and
/// stays as it is where that still refuses it. Events come by the source `replay`, each tenant's in the order in which
/// they were given up, and meet mutes, budgets and policies like any other. A letter is marked as replayed once its event
/// is accepted, and on disk where the journal is durable. One that is refused at the door stays as it was.
///
/// **Exactly once.** A replay has a name and its letters have positions, all on record before the first is fed. With a durable
/// journal, one that a crash cut short goes on by [`resume`](Self::resume) or with the next [`replay`](Self::replay): the
/// journal tells what was taken. With a journal in memory, what was fed in the last moments before a crash comes twice.
///
/// Clones share their state: one replay runs at a time.
///
/// ```
/// use headworks::source::{REPLAY_RATE, Replayer};
/// use headworks::{DeadLetterQuery, Framing, IngressSpec, Json, MemoryDeadLetters, MemoryStore, System};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (store, letters) = (MemoryStore::new(), MemoryDeadLetters::default());
/// let system = System::builder().store(store.clone()).dead_letters(letters.clone()).start()?;
/// // What was malformed once is no more: the decoder was taught better.
/// let ingress = system.ingress(IngressSpec::new("demo", Framing::lines(), Json::new())).await?;
/// ingress.feed("{\"customer\":\"acme\"}\n").await?;
/// # while system.dead_letters_pending() > 0 { tokio::task::yield_now().await; }
///
/// let replayer = Replayer::new(letters.clone(), Json::new().tenant_field("customer"));
/// let report = replayer.replay(&system, &DeadLetterQuery::default(), REPLAY_RATE).await?;
/// assert_eq!(report.replayed, 1);
/// assert!(letters.all()[0].replayed_at.is_some());
/// # Ok(())
/// # }
/// ```
pub struct Replayer<D> {
    letters: Arc<D>,
    decoder: Arc<dyn Decoder>,
    alone: Arc<tokio::sync::Mutex<()>>,
}

impl<D> Clone for Replayer<D> {
    fn clone(&self) -> Self {
        Self { letters: self.letters.clone(), decoder: self.decoder.clone(), alone: self.alone.clone() }
    }
}

impl<D> std::fmt::Debug for Replayer<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer").finish_non_exhaustive()
    }
}

/// Why nothing, or not all, was replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// One at a time.
    #[error("a replay is under way; wait for its end")]
    UnderWay,
    /// The dead letters cannot be read or written.
    #[error("the dead letters cannot be replayed: {0}")]
    Letters(#[from] StorageError),
    /// The system takes nothing in any more.
    #[error("nothing was replayed: {0}")]
    System(#[from] Error),
    /// It broke off; what was not marked goes on with the next one.
    #[error("{0}")]
    BrokeOff(String),
}

/// What came of a replay. Counts letters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplayReport {
    /// How many were to be replayed.
    pub chosen: u64,
    /// How many came back as accepted events, those of an earlier replay that was cut short included.
    pub replayed: u64,
    /// Those of them that were given up again at once, and are new dead letters, by the reason.
    pub given_up_again: BTreeMap<Code, u64>,
    /// How many were refused at the door and stay as they were, by the reason.
    pub refused: BTreeMap<Code, u64>,
    /// Frames that are still no events and stay as they were, by the reason. Edit them.
    pub malformed: BTreeMap<Code, u64>,
    /// Frames of which only the beginning was kept, and which stay as they were. Edit them.
    pub cut_short: u64,
    /// Whether the system closed before the end. The rest goes on at the next start.
    pub interrupted: bool,
}

impl ReplayReport {
    fn count(&mut self, answer: &Answer) {
        let (Answer::Ack(positions) | Answer::Nack(positions, ..)) = answer;
        let letters = positions.end() - positions.start() + 1;
        match answer {
            Answer::Nack(_, code, _) if run::is_refusal(*code) => *self.refused.entry(*code).or_default() += letters,
            Answer::Nack(_, code, _) => {
                self.replayed += letters;
                *self.given_up_again.entry(*code).or_default() += letters;
            }
            Answer::Ack(_) => self.replayed += letters,
        }
    }
}

/// The event that a letter says.
fn event<'l>(decoder: &'l dyn Decoder, letter: &'l DeadLetter) -> Result<Decoded<'l>, Cause> {
    match (&letter.tenant, letter.kind) {
        (Some(tenant), DeadLetterKind::Event) => {
            Ok(Decoded { tenant: tenant.as_str().into(), time: letter.time, body: (&*letter.body).into() })
        }
        _ => {
            // The decoder is user code.
            let decode = std::panic::AssertUnwindSafe(|| decoder.decode(&letter.body));
            let event = std::panic::catch_unwind(decode)
                .unwrap_or_else(|panic| Err(Cause::from_panic(Code::DecoderPanic, &*panic)))?;
            TenantId::new(&event.tenant).map_err(|why| Cause::new(Code::BadTenant, why.to_string()))?;
            Ok(event)
        }
    }
}

impl<D: DeadLetters> Replayer<D> {
    /// Replays what is in `letters`; frames are read by `decoder`.
    pub fn new(letters: D, decoder: impl Decoder) -> Self {
        Self { letters: Arc::new(letters), decoder: Arc::new(decoder), alone: Arc::default() }
    }

    /// The dead letters.
    #[must_use]
    pub fn letters(&self) -> &D {
        &self.letters
    }

    /// Says what a [`replay`](Self::replay) of these would choose, and changes nothing.
    ///
    /// # Errors
    /// The letters cannot be read.
    pub async fn preview(&self, query: &DeadLetterQuery) -> Result<ReplayReport, ReplayError> {
        Ok(self.choose(query).await?.1)
    }

    /// Replays all letters that match and were not replayed yet, whatever the query's limit, at most `rate` a second; before them,
    /// what an earlier replay left. Returns when each has its answer.
    ///
    /// # Errors
    /// [`ReplayError`]; what was marked until then stays marked.
    ///
    /// # Cancel safety
    /// A replay that has begun goes on in the system.
    pub async fn replay(
        &self,
        system: &System,
        query: &DeadLetterQuery,
        rate: NonZeroU32,
    ) -> Result<ReplayReport, ReplayError> {
        let alone = self.alone.clone().try_lock_owned().map_err(|_| ReplayError::UnderWay)?;
        let mut runs = self.letters.replays().await?;
        let (ids, report) = self.choose(query).await?;
        let run = StreamId::new(&format!("replay-{:016x}", fastrand::u64(..)));
        if let (Ok(run), false) = (run, ids.is_empty()) {
            self.letters.begin_replay(&run, &ids).await?;
            runs.push(run);
        }
        self.run(system, runs, rate, report, alone).await
    }

    /// Goes on with what an earlier process left, at [`REPLAY_RATE`]; returns at once where there is nothing.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    ///
    /// # Cancel safety
    /// As [`replay`](Self::replay).
    pub async fn resume(&self, system: &System) -> Result<ReplayReport, ReplayError> {
        // Whoever has nothing to do is in nobody's way.
        if self.letters.replays().await?.is_empty() {
            return Ok(ReplayReport::default());
        }
        let alone = self.alone.clone().try_lock_owned().map_err(|_| ReplayError::UnderWay)?;
        let runs = self.letters.replays().await?;
        self.run(system, runs, REPLAY_RATE, ReplayReport::default(), alone).await
    }

    async fn run(
        &self,
        system: &System,
        runs: Vec<StreamId>,
        rate: NonZeroU32,
        report: ReplayReport,
        alone: tokio::sync::OwnedMutexGuard<()>,
    ) -> Result<ReplayReport, ReplayError> {
        if runs.is_empty() {
            return Ok(report);
        }
        let report = Arc::new(Mutex::new(report));
        let (letters, decoder) = (self.letters.clone(), self.decoder.clone());
        let source = run::Run { letters, decoder, runs, rate, report: report.clone(), _alone: alone };
        let ended = system.add_source(source).await?.ended().await;
        ended.map_err(ReplayError::BrokeOff)?;
        let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(report)
    }

    /// The letters that can be replayed, and what is to be said of the others.
    async fn choose(&self, query: &DeadLetterQuery) -> Result<(Vec<Arc<str>>, ReplayReport), StorageError> {
        let mut query = query.clone();
        (query.limit, query.replayed) = (1_000, Some(false));
        let (mut ids, mut report, mut after) = (vec![], ReplayReport::default(), Some(0));
        while let Some(at) = after {
            let page = self.letters.page(&query, at).await?;
            for letter in &page.letters {
                match event(&*self.decoder, letter) {
                    _ if !letter.is_whole() => report.cut_short += 1,
                    Ok(_) => ids.push(letter.id.clone()),
                    Err(cause) => *report.malformed.entry(cause.code).or_default() += 1,
                }
            }
            after = page.next;
        }
        report.chosen = ids.len() as u64;
        Ok((ids, report))
    }
}
