//! Frames to events, events to chunks, chunks to the journal: one ingress a connection.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler, ResponseActFuture, Supervised, WrapFuture};
use bytes::Bytes;
use tokio::time::Instant;

use super::admission::{self, Waiting};
use super::letters::cost;
use super::message::{Finish, Offer, Read};
use super::registry::{Feeding, Phase, Shared};
use super::slot::Slot;
use super::spec::IngressSpec;
use super::stage::{Refusal, Stage};
use super::supervise::Child;
use crate::model::{Cause, Code, Error, Failure, Role, TenantId, UnixMillis};
use crate::observe::SourceLedger;
use crate::port::{DeadLetter, DeadLetterKind, Entry};
use crate::wire::{Decoded, Frame, Framer, RejectedFrame};

/// A read is dispatched in steps of at most so many bytes staged, or of letters written: what bounds the memory of
/// one step, whatever the frames are.
const STEP_BYTES: usize = 4 << 20;
const STEP_LETTER_BYTES: usize = 256 << 10;

pub(crate) struct Ingress {
    spec: IngressSpec,
    shared: Arc<Shared>,
    source: Arc<SourceLedger>,
    stage: Rc<RefCell<Stage>>,
    framer: Framer,
    step: Step,
    /// What goes on record of a step, at its end; kept for its room.
    record: Vec<Entry>,
}

/// What of the frames of one step went past the stage.
#[derive(Default)]
struct Step {
    received: u64,
    malformed: u64,
    rejected: u64,
    letters: Vec<DeadLetter>,
    letter_bytes: usize,
    /// One a step for each tenant and code, with how many frames it hit.
    failures: Vec<Failure>,
    /// The tenants of the events that a hook failed on.
    hook_failed: Vec<Arc<Slot>>,
}

/// What one step leaves to be waited for.
struct Rest {
    waiting: Vec<Waiting>,
    letters: Vec<DeadLetter>,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.letters.is_empty()
    }
}

impl Ingress {
    pub(crate) fn new(spec: IngressSpec, shared: Arc<Shared>, stage: Rc<RefCell<Stage>>) -> Self {
        Self {
            framer: Framer::new(&spec.framing),
            source: shared.source(&spec.source),
            spec,
            shared,
            stage,
            step: Step::default(),
            record: vec![],
        }
    }

    /// Stages the frames of `input` from `position` on. False if it stopped early to have them dispatched.
    fn scan(&mut self, input: &[u8], position: &mut usize) -> bool {
        let mut stage = self.stage.borrow_mut();
        let door = Door { shared: &self.shared, spec: &self.spec, arrived: self.shared.seam.now() };
        while let Some(frame) = self.framer.next(input, position) {
            self.step.frame(&door, &frame, &mut stage);
            if stage.bytes() >= STEP_BYTES || self.step.letter_bytes >= STEP_LETTER_BYTES {
                return false;
            }
        }
        true
    }

    /// Sends what is staged on its way; gives back what has to wait.
    fn dispatch(&mut self) -> Rest {
        let (now, arrived) = (Instant::now(), self.shared.seam.now());
        let (shared, source) = (&self.shared, &self.source);
        let Step { received, malformed, rejected, letters, failures, hook_failed, .. } = std::mem::take(&mut self.step);
        let hook_failed_events = hook_failed.len() as u64;
        for slot in hook_failed {
            slot.lane.give_up_at_door();
        }
        for failure in failures {
            shared.failed(&failure);
        }
        let letters =
            if letters.is_empty() { letters } else { shared.letters.try_push(letters).err().unwrap_or_default() };
        let mut waiting = vec![];
        let mut source = source.lock();
        source.received += received;
        source.malformed += malformed;
        source.rejected += rejected;
        // Accepted, and given up in the same breath.
        source.accepted += hook_failed_events;
        let record = &mut self.record;
        self.stage
            .borrow_mut()
            .take(arrived, |share| waiting.extend(admission::admit(shared, &mut source, share, now, record)));
        shared.record(record);
        Rest { waiting, letters }
    }

    /// Takes the read in, step by step, waiting in between where something is full.
    fn advance(&mut self, input: Vec<u8>, mut position: usize) -> ResponseActFuture<Self, Result<Vec<u8>, Error>> {
        loop {
            let done = self.scan(&input, &mut position);
            let rest = self.dispatch();
            if rest.is_empty() {
                if done {
                    return Box::pin(actix::fut::ready(Ok(input)));
                }
                continue;
            }
            let waited = self.wait(rest);
            return if done {
                Box::pin(waited.into_actor(self).map(move |(), _, _| Ok(input)))
            } else {
                Box::pin(waited.into_actor(self).then(move |(), ingress, _| ingress.advance(input, position)))
            };
        }
    }

    fn wait(&self, rest: Rest) -> impl Future<Output = ()> + use<> {
        let (shared, source) = (self.shared.clone(), self.source.clone());
        // What waits at the door is taken in even where its caller has gone.
        let feeding = Feeding::begin(&shared);
        async move {
            let _feeding = feeding;
            // Side by side: letters that wait for their store do not hold back events that could move.
            let letters = async {
                if !rest.letters.is_empty() {
                    shared.letters.push(rest.letters).await;
                }
            };
            futures::future::join(letters, admission::wait(shared.clone(), source, rest.waiting)).await;
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.phase() >= Phase::Draining
    }

    /// The end of a step that is all there is.
    fn conclude(&mut self) -> ResponseActFuture<Self, Result<(), Error>> {
        let rest = self.dispatch();
        if rest.is_empty() {
            return Box::pin(actix::fut::ready(Ok(())));
        }
        Box::pin(self.wait(rest).into_actor(self).map(|(), _, _| Ok(())))
    }
}

/// What every frame of a read meets.
struct Door<'a> {
    shared: &'a Shared,
    spec: &'a IngressSpec,
    arrived: UnixMillis,
}

impl Step {
    /// Puts the frame on the stage, or among the bad ones.
    #[inline]
    fn frame(&mut self, door: &Door<'_>, frame: &Frame<'_>, stage: &mut Stage) {
        self.received += 1;
        match frame {
            Frame::Complete(frame) => {
                // The decoder is user code: a panic in there costs its frame and nothing else.
                match catch_unwind(AssertUnwindSafe(|| door.spec.decoder.decode(frame))) {
                    Ok(Ok(event)) => {
                        if let Err(refusal) = stage.push(&event) {
                            self.refused(door, refusal, frame, &event);
                        }
                    }
                    Ok(Err(cause)) => self.malformed(door, cause, frame, frame.len() as u64),
                    Err(panic) => {
                        let cause = Cause::from_panic(Code::DecoderPanic, &*panic);
                        self.malformed(door, cause, frame, frame.len() as u64);
                    }
                }
            }
            Frame::Rejected(RejectedFrame { cause, kept, original_bytes }) => {
                self.malformed(door, cause.clone(), kept, *original_bytes);
            }
        }
    }

    #[cold]
    fn malformed(&mut self, door: &Door<'_>, cause: Cause, kept: &[u8], original_bytes: u64) {
        self.malformed += 1;
        self.failure(door, None, cause.clone());
        self.letter(door, DeadLetterKind::Frame, None, cause, kept, original_bytes);
    }

    #[cold]
    fn refused(&mut self, door: &Door<'_>, refusal: Refusal, frame: &[u8], event: &Decoded<'_>) {
        match refusal {
            Refusal::Malformed(cause) => self.malformed(door, cause, frame, frame.len() as u64),
            Refusal::Limit(cause) => {
                self.rejected += 1;
                self.failure(door, None, cause);
            }
            Refusal::Hook(slot, cause) => {
                let tenant = Some(slot.id.clone());
                self.failure(door, tenant.clone(), cause.clone());
                self.letter(door, DeadLetterKind::Event, tenant, cause, &event.body, event.body.len() as u64);
                self.hook_failed.push(slot);
            }
        }
    }

    fn failure(&mut self, door: &Door<'_>, tenant: Option<TenantId>, cause: Cause) {
        let same = |failure: &&mut Failure| failure.cause.code == cause.code && failure.tenant == tenant;
        match self.failures.iter_mut().find(same) {
            Some(failure) => failure.events += 1,
            None => {
                let source = Some(door.spec.source.clone());
                self.failures.push(Failure { at: door.arrived, tenant, source, batch: None, cause, events: 1 });
            }
        }
    }

    fn letter(
        &mut self,
        door: &Door<'_>,
        kind: DeadLetterKind,
        tenant: Option<TenantId>,
        cause: Cause,
        body: &[u8],
        original_bytes: u64,
    ) {
        let number = door.shared.letters_written.fetch_add(1, Ordering::Relaxed) + 1;
        let letter = DeadLetter {
            id: format!("{}/{}/{number}", door.shared.opening, kind.as_str()).into(),
            kind,
            tenant,
            source: Some(door.spec.source.clone()),
            cause,
            attempts: 0,
            first_at: door.arrived,
            last_at: door.arrived,
            batch: None,
            original_bytes,
            body: Bytes::copy_from_slice(body),
        };
        self.letter_bytes += cost(&letter);
        self.letters.push(letter);
    }
}

impl Actor for Ingress {
    type Context = Context<Self>;
}

impl Supervised for Ingress {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.spec.clone(), self.shared.clone(), self.stage.clone());
    }
}

impl Child for Ingress {
    const ROLE: Role = Role::Ingress;
}

impl Handler<Read> for Ingress {
    type Result = AtomicResponse<Self, Result<Vec<u8>, Error>>;

    fn handle(&mut self, Read(input): Read, _: &mut Self::Context) -> Self::Result {
        if self.is_closed() {
            return AtomicResponse::new(Box::pin(actix::fut::ready(Err(Error::Closed))));
        }
        self.source.lock().bytes += input.len() as u64;
        AtomicResponse::new(self.advance(input, 0))
    }
}

impl Handler<Finish> for Ingress {
    type Result = AtomicResponse<Self, Result<(), Error>>;

    fn handle(&mut self, Finish { clean }: Finish, _: &mut Self::Context) -> Self::Result {
        let door = Door { shared: &self.shared, spec: &self.spec, arrived: self.shared.seam.now() };
        if let Some(frame) = self.framer.finish(clean) {
            self.step.frame(&door, &frame, &mut self.stage.borrow_mut());
        }
        AtomicResponse::new(self.conclude())
    }
}

impl Handler<Offer> for Ingress {
    type Result = AtomicResponse<Self, Result<(), Error>>;

    fn handle(&mut self, Offer(events): Offer, _: &mut Self::Context) -> Self::Result {
        if self.is_closed() {
            return AtomicResponse::new(Box::pin(actix::fut::ready(Err(Error::Closed))));
        }
        let door = Door { shared: &self.shared, spec: &self.spec, arrived: self.shared.seam.now() };
        let mut stage = self.stage.borrow_mut();
        for event in &events {
            self.step.received += 1;
            let decoded =
                Decoded { tenant: event.tenant().as_str().into(), time: event.time, body: (&*event.body).into() };
            if let Err(refusal) = stage.push(&decoded) {
                self.step.refused(&door, refusal, &event.body, &decoded);
            }
        }
        drop(stage);
        AtomicResponse::new(self.conclude())
    }
}
