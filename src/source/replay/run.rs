use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, try_join};
use headworks_actors::{
    AckLevel, Answer, Code, DeadLetter, DeadLetters, Decoder, Error, Framing, IngressHandle, IngressSpec, Intake,
    ReplayAnswer, Source, StreamId, UnixMillis,
};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::pace::Pace;
use super::{ReplayReport, event, frame};

/// How long the answers to what was fed are waited for, once the system closes.
const GRACE: Duration = Duration::from_secs(1);

/// The source that feeds the letters of replays, one replay after the other.
///
/// Each replay is a stream of numbered frames under its own name: a letter's position is its number. What an earlier process
/// fed and could not mark is answered as a duplicate, and marked now.
pub(super) struct Run<D> {
    pub(super) letters: Arc<D>,
    pub(super) decoder: Arc<dyn Decoder>,
    pub(super) runs: Vec<StreamId>,
    pub(super) rate: NonZeroU32,
    pub(super) report: Arc<Mutex<ReplayReport>>,
    /// No other replay runs meanwhile.
    pub(super) _alone: OwnedMutexGuard<()>,
}

/// How a stretch of a replay ended.
enum End {
    /// Where it had to: at its last letter, or where a position is missing.
    Fed,
    /// The system closes.
    Closing,
}

impl<D: DeadLetters> Source for Run<D> {
    fn name(&self) -> &str {
        "replay"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let ended = self.replay(&intake).await;
            self.tell(|report| {
                let refused: u64 = report.refused.values().sum();
                tracing::info!(target: "headworks", replayed = report.replayed, refused, interrupted = report.interrupted, "dead letters were replayed");
            });
            ended
        }
        .boxed_local()
    }
}

/// When the next letters may go.
struct Clock<'r> {
    pace: Pace,
    began: Instant,
    gone: &'r mut u64,
}

impl<D: DeadLetters> Run<D> {
    async fn replay(&self, intake: &Intake) -> Result<(), String> {
        let (pace, began) = (Pace::new(self.rate), Instant::now());
        let mut gone = 0;
        for run in &self.runs {
            let mut before = 0;
            while let Some((first, _)) = self.pending(run, 0).await?.first() {
                if *first <= before {
                    return Err(format!("replay {run} does not get past its letter {first}"));
                }
                before = *first;
                let clock = Clock { pace, began, gone: &mut gone };
                if let End::Closing = self.stretch(intake, run, *first, clock).await? {
                    self.tell(|report| report.interrupted = true);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn tell(&self, tell: impl FnOnce(&mut ReplayReport)) {
        tell(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn pending(&self, run: &StreamId, after: u64) -> Result<Vec<(u64, DeadLetter)>, String> {
        let pending = self.letters.replaying(run, after).await;
        pending.map_err(|why| format!("the dead letters of replay {run} cannot be read: {why}"))
    }

    /// Feeds letters from position `first` on, without a gap, and marks them as they are answered.
    async fn stretch(&self, intake: &Intake, run: &StreamId, first: u64, clock: Clock<'_>) -> Result<End, String> {
        let spec = IngressSpec::new("replay", Framing::LengthPrefixed { max_bytes: u32::MAX as usize }, frame::Known);
        let opened = intake.open_stream(spec, run.clone(), first, AckLevel::Journaled).await;
        let (ingress, mut answers) = match opened {
            Ok(opened) => opened,
            Err(Error::Closed) => return Ok(End::Closing),
            Err(why) => return Err(why.to_string()),
        };
        let last = answers.last();
        let feeding = async {
            let end = self.feed(intake, &ingress, run, last, clock).await?;
            match ingress.finish(false).await {
                Ok(()) | Err(Error::Closed) => Ok(end),
                Err(why) => Err(why.to_string()),
            }
        };
        let answering = async {
            while let Some(answers) = answers.next().await {
                self.answered(run, &answers).await?;
            }
            Ok(())
        };
        let answering = async {
            let late = async {
                intake.closing().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                biased;
                answered = answering => answered,
                // The next process will be told.
                () = late => Ok(()),
            }
        };
        try_join(feeding, answering).await.map(|(end, ())| end)
    }

    async fn feed(
        &self,
        intake: &Intake,
        ingress: &IngressHandle,
        run: &StreamId,
        mut last: u64,
        clock: Clock<'_>,
    ) -> Result<End, String> {
        let Clock { pace, began, gone } = clock;
        let mut closing = std::pin::pin!(intake.closing());
        loop {
            let pending = self.pending(run, last).await?;
            if pending.is_empty() {
                return Ok(End::Fed);
            }
            for group in pending.chunks(pace.group()) {
                tokio::select! {
                    biased;
                    () = &mut closing => return Ok(End::Closing),
                    () = tokio::time::sleep_until(began + pace.due(*gone)) => {}
                }
                let (mut frames, mut has_gap) = (vec![], false);
                for (position, letter) in group {
                    // Another may have been purged meanwhile, or the decoder be another.
                    has_gap = *position != last + 1 || !self.push(run, &mut frames, *position, letter).await?;
                    if has_gap {
                        break;
                    }
                    last = *position;
                    *gone += 1;
                }
                match ingress.feed(frames).await {
                    Ok(_) if has_gap => return Ok(End::Fed),
                    Ok(_) => {}
                    Err(Error::Closed) => return Ok(End::Closing),
                    Err(why) => return Err(format!("replay {run} broke off: {why}; repeat it, and it goes on")),
                }
            }
        }
    }

    /// Appends the letter's event; false where it says none any more: it leaves the replay.
    async fn push(
        &self,
        run: &StreamId,
        frames: &mut Vec<u8>,
        position: u64,
        letter: &DeadLetter,
    ) -> Result<bool, String> {
        let code = match event(&*self.decoder, letter) {
            Ok(event) if frame::push(frames, &event) => return Ok(true),
            Ok(_) => Code::Oversized,
            Err(cause) => cause.code,
        };
        let answer = ReplayAnswer { positions: position..=position, replayed_at: None };
        self.mark(run, &[answer]).await?;
        self.tell(|report| *report.malformed.entry(code).or_default() += 1);
        Ok(false)
    }

    async fn answered(&self, run: &StreamId, answers: &[Answer]) -> Result<(), String> {
        let now = Some(UnixMillis::now());
        let marks = answers.iter().map(|answer| match answer {
            Answer::Nack(positions, code, _) if is_refusal(*code) => {
                ReplayAnswer { positions: positions.clone(), replayed_at: None }
            }
            Answer::Ack(positions) | Answer::Nack(positions, ..) => {
                ReplayAnswer { positions: positions.clone(), replayed_at: now }
            }
        });
        let marks: Vec<_> = marks.collect();
        self.mark(run, &marks).await?;
        self.tell(|report| answers.iter().for_each(|answer| report.count(answer)));
        Ok(())
    }

    async fn mark(&self, run: &StreamId, marks: &[ReplayAnswer]) -> Result<(), String> {
        let marked = self.letters.replayed(run, marks).await;
        marked.map_err(|why| {
            format!("the dead letters of replay {run} cannot be marked: {why}; repeat it, and it goes on")
        })
    }
}

/// Whether it was refused at the door: it has not come back. With any other code it has, and was given up again.
pub(super) fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Muted | Code::Throttled | Code::TenantFull | Code::TenantLimit | Code::UnknownTenant | Code::SpawnRate
    )
}
