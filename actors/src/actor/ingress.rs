//! Frames to events, events to chunks, chunks to the journal: one ingress a connection.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler, ResponseActFuture, Supervised, WrapFuture};
use bytes::Bytes;
use futures::FutureExt;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::admission::{self, OnRecord, Waiting};
use super::letters::{Kept, cost};
use super::message::{Finish, Offer, Read};
use super::registry::{Feeding, Phase, Shared};
use super::slot::Slot;
use super::spec::IngressSpec;
use super::stage::{Place, Refusal, Stage, TOGETHER};
use super::streams::{Feed, Numbers, Stream};
use super::supervise::Child;
use super::waiting::{self, Held};
use crate::model::{Cause, Code, Error, Failure, Role, TenantId, UnixMillis};
use crate::observe::{SourceLedger, WayIn};
use crate::port::{DeadLetter, DeadLetterKind};
use crate::wire::{Decoded, Frame, Framer, RejectedFrame};

/// A read is dispatched in steps of at most so many bytes staged, or of letters written: what bounds the memory of
/// one step, whatever the frames are. And of what is taken in without a pause: see [`Stage::is_long`].
const STEP_BYTES: usize = 4 << 20;
const STEP_LETTER_BYTES: usize = 256 << 10;

/// What of some frames is done side by side.
type Together<T> = SmallVec<[T; TOGETHER]>;

pub(crate) struct Ingress {
    spec: IngressSpec,
    shared: Arc<Shared>,
    source: Arc<SourceLedger>,
    _way_in: WayIn,
    stage: Rc<RefCell<Stage>>,
    framer: Framer,
    step: Step,
    /// What goes on record of a step, at its end; kept for its room.
    record: OnRecord,
    /// Whose events it has brought.
    brought: Brought,
    /// The connection of a stream of numbered frames that this is, if it is one.
    session: Option<u64>,
    /// It failed in the middle of a numbered read: which frames were taken is for the sender to ask anew.
    is_broken: bool,
    /// There was more to read than there are positions.
    is_used_up: bool,
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
    duplicate: u64,
    /// The positions of the frames, where they are numbered, and what became of those that did not get onto the stage.
    numbers: Option<Numbers>,
    refused: Vec<(u64, Code)>,
    done: Vec<u64>,
}

/// Whose events a connection has brought so far.
#[derive(Default)]
enum Brought {
    #[default]
    Nobodys,
    One(TenantId),
    Several,
}

impl Brought {
    #[inline]
    fn add(&mut self, slot: &Slot) {
        match self {
            Self::Several => {}
            // By its name: a tenant that was passivated comes back with another slot.
            Self::One(one) if *one == slot.id => {}
            Self::One(_) => *self = Self::Several,
            Self::Nobodys => *self = Self::One(slot.id.clone()),
        }
    }
}

/// What one step leaves to be waited for.
struct Rest {
    waiting: Vec<Waiting>,
    letters: Vec<DeadLetter>,
    /// Of numbered frames: letters that are on their way and not kept.
    unkept: Option<Kept>,
    /// The numbered frames that were refused while there are letters of the step that are not kept.
    refused: Vec<(u64, Code)>,
    /// The last position of the step, where frames are numbered.
    last: Option<u64>,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.letters.is_empty() && self.unkept.is_none()
    }
}

impl Ingress {
    pub(crate) fn new(
        spec: IngressSpec,
        stream: Option<(Arc<Stream>, u64)>,
        shared: Arc<Shared>,
        stage: Rc<RefCell<Stage>>,
    ) -> Self {
        let (stream, session) = stream.unzip();
        let source = shared.source(&spec.source);
        Self {
            framer: Framer::new(&spec.framing),
            record: OnRecord::new(&shared, stream),
            _way_in: WayIn::new(source.clone()),
            source,
            spec,
            shared,
            stage,
            step: Step::default(),
            brought: Brought::default(),
            session,
            is_broken: false,
            is_used_up: false,
        }
    }

    /// Stages the frames of `input` from `position` on. False if it stopped early to have them dispatched.
    fn scan(&mut self, input: &[u8], position: &mut usize) -> bool {
        let mut stage = self.stage.borrow_mut();
        let door = Door { shared: &self.shared, spec: &self.spec, arrived: self.shared.seam.now() };
        loop {
            if self.step.numbers.as_ref().is_some_and(|numbers| numbers.next > self.spec.last_position) {
                self.is_used_up = *position < input.len();
                return true;
            }
            // A frame of the common kind stays in registers on its way.
            if let Some(frame) = self.framer.whole(input, position) {
                if stage.is_scattered() && self.step.numbers.is_none() {
                    let mut frames = Together::from_iter([frame]);
                    while frames.len() < TOGETHER
                        && let Some(frame) = self.framer.whole(input, position)
                    {
                        frames.push(frame);
                    }
                    self.step.complete_all(&door, &frames, &mut stage);
                } else {
                    self.step.complete(&door, frame, &mut stage);
                }
            } else if let Some(frame) = self.framer.next(input, position) {
                self.step.frame(&door, &frame, &mut stage);
            } else {
                return true;
            }
            let has_letters = self.step.letter_bytes >= STEP_LETTER_BYTES;
            if has_letters || stage.bytes() >= STEP_BYTES || stage.is_long() {
                return false;
            }
        }
    }

    /// Sends what is staged on its way; gives back what has to wait.
    fn dispatch(&mut self) -> Rest {
        let (now, arrived) = (Instant::now(), self.shared.seam.now());
        let (shared, source) = (&self.shared, &self.source);
        let Step {
            received,
            malformed,
            rejected,
            letters,
            failures,
            hook_failed,
            duplicate,
            numbers,
            refused,
            done,
            ..
        } = std::mem::take(&mut self.step);
        let last = numbers.as_ref().map(|numbers| numbers.next - 1);
        self.step.numbers = numbers;
        let hook_failed_events = hook_failed.len() as u64;
        for slot in hook_failed {
            shared.give_up_at_door(&slot);
        }
        for failure in failures {
            shared.failed(&failure);
        }
        let is_answered = self.record.stream.is_some();
        let (mut unkept, mut full) = (None, vec![]);
        if !letters.is_empty() {
            match shared.letters.try_push(letters) {
                // Nobody is told of a refusal whose letter a crash could lose, and it does not go on record either.
                Ok(kept) => unkept = Some(kept).filter(|_| is_answered),
                Err(letters) => full = letters,
            }
        }
        let letters = full;
        let mut waiting = vec![];
        let mut source = source.lock();
        source.received += received;
        source.malformed += malformed;
        source.rejected += rejected;
        source.duplicate += duplicate;
        // Accepted, and given up in the same breath.
        source.accepted += hook_failed_events;
        let (record, brought) = (&mut self.record, &mut self.brought);
        let stream = record.stream.clone();
        let id = stream.as_ref().map(|stream| &stream.id);
        self.stage.borrow_mut().take(arrived, id, |share| {
            brought.add(share.slot);
            admission::admit(shared, &mut source, share, now, record, &mut waiting);
        });
        drop(source);
        let is_kept = letters.is_empty() && unkept.is_none();
        let (refused, to_refuse) = if is_kept { (refused, vec![]) } else { (vec![], refused) };
        let rest = Rest { waiting, letters, unkept, refused: to_refuse, last };
        if let Some(stream) = &stream {
            refused.into_iter().for_each(|(position, code)| stream.refused(&[position], code));
            // Before it is told what was shed: that may be of these.
            stream.done(&done);
            if let Some(last) = last.filter(|_| rest.is_empty()) {
                record.record.extend(stream.mark(last, arrived));
            }
        }
        let at = record.append(shared);
        if let Some(stream) = stream {
            stream.marked(at);
        }
        rest
    }

    /// Takes the read in, step by step, waiting in between where something is full.
    fn advance(&mut self, input: Vec<u8>, mut position: usize) -> ResponseActFuture<Self, Result<Vec<u8>, Error>> {
        let done = self.scan(&input, &mut position);
        let rest = self.dispatch();
        if done && rest.is_empty() {
            return Box::pin(actix::fut::ready(self.taken_in(input)));
        }
        let pause = if rest.is_empty() { self.give_way().left_future() } else { self.wait(rest).right_future() };
        Box::pin(pause.into_actor(self).then(move |(), ingress, _| {
            if done { Box::pin(actix::fut::ready(ingress.taken_in(input))) } else { ingress.advance(input, position) }
        }))
    }

    /// Lets the clock and all others that are ready go first: a read may have more events than a thread takes in without a pause.
    fn give_way(&self) -> impl Future<Output = ()> + use<> {
        // As in `wait`: all of a read is taken in.
        let feeding = Feeding::begin(&self.shared);
        async move {
            let _feeding = feeding;
            tokio::task::yield_now().await;
        }
    }

    /// The answer to a read that was dealt with: its buffer, to be used again.
    fn taken_in(&self, input: Vec<u8>) -> Result<Vec<u8>, Error> {
        if self.is_used_up { Err(Error::PositionsUsedUp(self.spec.last_position)) } else { Ok(input) }
    }

    fn wait(&self, rest: Rest) -> impl Future<Output = ()> + use<> {
        let (shared, source) = (self.shared.clone(), self.source.clone());
        // What waits at the door is taken in even where its caller has gone.
        let feeding = Feeding::begin(&shared);
        let stream = self.record.stream.clone();
        let is_shared = matches!(self.brought, Brought::Several);
        async move {
            let _feeding = feeding;
            // Side by side: letters that wait for their store do not hold back events that could move.
            let letters = async {
                let pushed = if rest.letters.is_empty() { None } else { Some(shared.letters.push(rest.letters).await) };
                if let Some(stream) = &stream
                    && let Some(last) = pushed.or(rest.unkept)
                {
                    shared.letters.kept(last).await;
                    rest.refused.iter().for_each(|(position, code)| stream.refused(&[*position], *code));
                }
            };
            let held = Held { source: &source, stream: stream.as_ref(), is_shared };
            let events = waiting::wait(&shared, held, rest.waiting);
            futures::future::join(letters, events).await;
            if let Some((stream, last)) = stream.zip(rest.last) {
                let mut mark = stream.mark(last, shared.seam.now());
                if !mark.is_empty() {
                    stream.marked(shared.record(&mut mark));
                }
            }
        }
    }

    /// Takes up the numbering of the stream's frames, if this is one, where it ended.
    fn numbered(&mut self) -> Result<Option<Feed>, Error> {
        let (Some(stream), Some(session)) = (&self.record.stream, self.session) else { return Ok(None) };
        if self.is_broken {
            return Err(Error::Failed(Role::Ingress));
        }
        let (feed, numbers) = stream.feed(session).ok_or(Error::TakenOver)?;
        self.step.numbers = Some(numbers);
        Ok(Some(feed))
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

impl Door<'_> {
    /// What the frame says. The decoder is user code: a panic in there costs its frame and nothing else.
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.spec.decoder.decode(frame)));
        decoded.unwrap_or_else(|panic| Err(Cause::from_panic(Code::DecoderPanic, &*panic)))
    }
}

/// What is known of a frame or an event that is given up.
struct About {
    kind: DeadLetterKind,
    tenant: Option<TenantId>,
    time: Option<UnixMillis>,
    cause: Cause,
}

impl Step {
    /// Puts the frame on the stage, or among the bad ones.
    fn frame(&mut self, door: &Door<'_>, frame: &Frame<'_>, stage: &mut Stage) {
        match frame {
            Frame::Complete(frame) => self.complete(door, frame, stage),
            Frame::Rejected(RejectedFrame { cause, kept, original_bytes }) => {
                if let Ok(position) = self.count() {
                    self.malformed(door, cause.clone(), kept, *original_bytes, position);
                }
            }
        }
    }

    /// Counts a frame, and gives its position, where frames are numbered. An error if it came before.
    #[inline]
    fn count(&mut self) -> Result<Option<u64>, ()> {
        self.received += 1;
        match self.numbers.as_mut().map(Numbers::count) {
            None => Ok(None),
            Some((position, false)) => Ok(Some(position)),
            Some((position, true)) => {
                self.duplicate += 1;
                self.done.push(position);
                Err(())
            }
        }
    }

    /// As [`complete`](Self::complete) of each, where they are likely to be of a different tenant each.
    #[inline(never)]
    fn complete_all(&mut self, door: &Door<'_>, frames: &[&[u8]], stage: &mut Stage) {
        let decoded: Together<_> = frames.iter().map(|frame| door.decode(frame)).collect();
        stage.near(decoded.iter().flatten().map(|event| &*event.tenant));
        for (frame, decoded) in frames.iter().zip(decoded) {
            self.received += 1;
            match decoded {
                Ok(event) => self.event(door, stage, frame, &event, None),
                Err(cause) => self.undecoded(door, cause, frame, None),
            }
        }
    }

    /// Puts a frame that the framing has nothing against on the stage, or among the bad ones.
    #[inline]
    fn complete(&mut self, door: &Door<'_>, frame: &[u8], stage: &mut Stage) {
        let Ok(position) = self.count() else { return };
        // The decoder is user code: a panic in there costs its frame and nothing else. What it says is used in there too: it is
        // large, and would be copied on its way out.
        let mut is_decoded = false;
        let refused = catch_unwind(AssertUnwindSafe(|| match door.spec.decoder.decode(frame) {
            Ok(event) => {
                is_decoded = true;
                self.event(door, stage, frame, &event, position);
                None
            }
            Err(cause) => Some(cause),
        }));
        let cause = match refused {
            Ok(None) => return,
            Ok(Some(cause)) => cause,
            Err(panic) if is_decoded => resume_unwind(panic),
            Err(panic) => Cause::from_panic(Code::DecoderPanic, &*panic),
        };
        self.undecoded(door, cause, frame, position);
    }

    /// The frame is no event, or none that its sender may send.
    #[cold]
    fn undecoded(&mut self, door: &Door<'_>, cause: Cause, frame: &[u8], position: Option<u64>) {
        if cause.code == Code::TenantNotAllowed {
            // Nothing is kept of what its sender may not say.
            self.refused.extend(position.map(|position| (position, cause.code)));
            self.rejected += 1;
            return match self.failures.iter_mut().find(|failure| failure.cause.code == cause.code) {
                Some(failure) => failure.events += 1,
                None => self.failure(door, None, cause),
            };
        }
        self.malformed(door, cause, frame, frame.len() as u64, position);
    }

    /// Puts a decoded frame on the stage, or says why not.
    #[inline]
    fn event(&mut self, door: &Door<'_>, stage: &mut Stage, frame: &[u8], event: &Decoded<'_>, position: Option<u64>) {
        match stage.push(event, position) {
            Ok(Place::Staged) => {}
            Ok(Place::Discarded) => self.done.extend(position),
            Err(refusal) => self.refused(door, refusal, frame, event, position),
        }
    }

    #[cold]
    fn malformed(&mut self, door: &Door<'_>, cause: Cause, kept: &[u8], original_bytes: u64, position: Option<u64>) {
        self.malformed += 1;
        self.refused.extend(position.map(|position| (position, cause.code)));
        self.failure(door, None, cause.clone());
        let about = About { kind: DeadLetterKind::Frame, tenant: None, time: None, cause };
        self.letter(door, about, kept, original_bytes);
    }

    #[cold]
    fn refused(&mut self, door: &Door<'_>, refusal: Refusal, frame: &[u8], event: &Decoded<'_>, position: Option<u64>) {
        match refusal {
            Refusal::Malformed(cause) => self.malformed(door, cause, frame, frame.len() as u64, position),
            Refusal::Unknown(code) => {
                self.refused.extend(position.map(|position| (position, code)));
                self.rejected += 1;
                // There may be a flood of them: the first of a step is described, the others are counted.
                match self.failures.iter_mut().find(|failure| failure.cause.code == code) {
                    Some(failure) => failure.events += 1,
                    None => self.failure(door, None, door.shared.refusal(code, &event.tenant)),
                }
            }
            Refusal::Hook(slot, cause) => {
                self.refused.extend(position.map(|position| (position, cause.code)));
                let tenant = Some(slot.id.clone());
                self.failure(door, tenant.clone(), cause.clone());
                let about = About { kind: DeadLetterKind::Event, tenant, time: event.time, cause };
                self.letter(door, about, &event.body, event.body.len() as u64);
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

    fn letter(&mut self, door: &Door<'_>, about: About, body: &[u8], original_bytes: u64) {
        let About { kind, tenant, time, cause } = about;
        let letter = DeadLetter {
            // Given in the queue.
            id: "".into(),
            kind,
            tenant,
            source: Some(door.spec.source.clone()),
            cause,
            attempts: 0,
            first_at: door.arrived,
            last_at: door.arrived,
            batch: None,
            original_bytes,
            time,
            body: Bytes::copy_from_slice(body),
            edit: None,
            replayed_at: None,
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
        let stream = self.record.stream.clone().zip(self.session);
        *self = Self {
            is_broken: stream.is_some(),
            ..Self::new(self.spec.clone(), stream, self.shared.clone(), self.stage.clone())
        };
    }
}

impl Child for Ingress {
    const ROLE: Role = Role::Ingress;
}

impl Handler<Read> for Ingress {
    type Result = AtomicResponse<Self, Result<Vec<u8>, Error>>;

    fn handle(&mut self, Read(input): Read, _: &mut Self::Context) -> Self::Result {
        self.shared.panic_points.pass("ingress/Read", None);
        if self.is_closed() {
            return AtomicResponse::new(Box::pin(actix::fut::ready(Err(Error::Closed))));
        }
        let feed = match self.numbered() {
            Ok(feed) => feed,
            Err(why) => return AtomicResponse::new(Box::pin(actix::fut::ready(Err(why)))),
        };
        self.source.lock().bytes += input.len() as u64;
        let read = self.advance(input, 0);
        match feed {
            None => AtomicResponse::new(read),
            // Nobody takes the stream over before its read is dealt with.
            Some(feed) => AtomicResponse::new(Box::pin(read.map(move |answer, _, _| {
                drop(feed);
                answer
            }))),
        }
    }
}

impl Handler<Finish> for Ingress {
    type Result = AtomicResponse<Self, Result<(), Error>>;

    fn handle(&mut self, Finish { clean }: Finish, _: &mut Self::Context) -> Self::Result {
        self.shared.panic_points.pass("ingress/Finish", None);
        let feed = match self.numbered() {
            Ok(feed) => feed,
            Err(why) => return AtomicResponse::new(Box::pin(actix::fut::ready(Err(why)))),
        };
        let door = Door { shared: &self.shared, spec: &self.spec, arrived: self.shared.seam.now() };
        // The sender of a numbered stream sends anew what was cut off.
        let clean_or_final = clean || feed.is_none();
        if let Some(frame) = self.framer.finish(clean).filter(|_| clean_or_final) {
            self.step.frame(&door, &frame, &mut self.stage.borrow_mut());
        }
        AtomicResponse::new(Box::pin(self.conclude().map(move |answer, _, _| {
            drop(feed);
            answer
        })))
    }
}

impl Handler<Offer> for Ingress {
    type Result = AtomicResponse<Self, Result<(), Error>>;

    fn handle(&mut self, Offer { events, stream }: Offer, _: &mut Self::Context) -> Self::Result {
        self.shared.panic_points.pass("ingress/Offer", None);
        if self.is_closed() {
            return AtomicResponse::new(Box::pin(actix::fut::ready(Err(Error::Closed))));
        }
        let door = Door { shared: &self.shared, spec: &self.spec, arrived: self.shared.seam.now() };
        let mut stage = self.stage.borrow_mut();
        // Only for this call: the ingress serves all callers.
        self.step.numbers = stream.as_ref().map(|_| Numbers::from_one());
        self.record.stream = stream;
        for event in &events {
            self.step.received += 1;
            let position = self.step.numbers.as_mut().map(|numbers| numbers.count().0);
            let decoded =
                Decoded { tenant: event.tenant().as_str().into(), time: event.time, body: (&*event.body).into() };
            self.step.event(&door, &mut stage, &event.body, &decoded, position);
        }
        drop(stage);
        AtomicResponse::new(self.conclude())
    }
}
