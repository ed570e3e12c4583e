//! A stand-in for the library's side of streams, for lines only and with no journal: to be deleted at the merge, with the
//! line in `lib.rs` and the imports of `OpenStream` that name it.
#![expect(missing_docs, reason = "stands in")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use headworks_actors::{Code, Error, Frame, Framer, IngressHandle, IngressSpec, Intake, StreamId};
use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckLevel {
    Received,
    Journaled,
    Stored,
}

impl std::fmt::Display for AckLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Received => "received",
            Self::Journaled => "journaled",
            Self::Stored => "stored",
        })
    }
}

impl std::str::FromStr for AckLevel {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "received" => Ok(Self::Received),
            "journaled" => Ok(Self::Journaled),
            "stored" => Ok(Self::Stored),
            _ => Err(format!("{word:?} is none of received, journaled, stored")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ack(RangeInclusive<u64>),
    Nack(RangeInclusive<u64>, Code),
}

#[derive(Default)]
struct Stream {
    last: u64,
    owner: u64,
    wake: Option<Arc<Notify>>,
}

static STREAMS: LazyLock<Mutex<HashMap<StreamId, Stream>>> = LazyLock::new(Mutex::default);

fn with<T>(stream: &StreamId, f: impl FnOnce(&mut Stream) -> T) -> T {
    f(STREAMS.lock().unwrap_or_else(PoisonError::into_inner).entry(stream.clone()).or_default())
}

#[derive(Default)]
struct State {
    answers: RefCell<Vec<Answer>>,
    finished: Cell<bool>,
}

pub struct StreamHandle {
    inner: IngressHandle,
    framer: RefCell<Framer>,
    next: Cell<u64>,
    stream: StreamId,
    state: Rc<State>,
    wake: Arc<Notify>,
}

pub struct Answers {
    last: u64,
    owner: u64,
    stream: StreamId,
    state: Rc<State>,
    wake: Arc<Notify>,
}

#[expect(async_fn_in_trait, reason = "stands in")]
pub trait OpenStream {
    async fn open_stream(
        &self,
        spec: IngressSpec,
        stream: StreamId,
        next: u64,
        skip: bool,
        level: AckLevel,
    ) -> Result<(StreamHandle, Answers), Error>;
}

impl OpenStream for Intake {
    async fn open_stream(
        &self,
        spec: IngressSpec,
        stream: StreamId,
        next: u64,
        skip: bool,
        _: AckLevel,
    ) -> Result<(StreamHandle, Answers), Error> {
        let framer = RefCell::new(Framer::new(&headworks_actors::Framing::lines()));
        let inner = self.open(spec).await?;
        let wake = Arc::new(Notify::new());
        let (last, owner) = with(&stream, |known| {
            known.last = known.last.max(next - 1);
            known.owner += 1;
            if let Some(old) = known.wake.replace(wake.clone()) {
                old.notify_one();
            }
            (known.last, known.owner)
        });
        let state = Rc::new(State::default());
        if last >= next {
            state.answers.borrow_mut().push(Answer::Ack(next..=last));
            wake.notify_one();
        }
        let first = if skip { last + 1 } else { next };
        let handle = StreamHandle {
            inner,
            framer,
            next: Cell::new(first),
            stream: stream.clone(),
            state: state.clone(),
            wake: wake.clone(),
        };
        Ok((handle, Answers { last, owner, stream, state, wake }))
    }
}

impl StreamHandle {
    pub async fn feed(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let (mut fresh, mut position) = (vec![], 0);
        let (first, mut last) = (self.next.get(), with(&self.stream, |known| known.last));
        let mut answers = vec![];
        while let Some(frame) = self.framer.borrow_mut().next(&bytes, &mut position) {
            let number = self.next.replace(self.next.get() + 1);
            if number <= last {
                continue;
            }
            last = number;
            match frame {
                Frame::Complete(line) => {
                    fresh.extend_from_slice(line);
                    fresh.push(b'\n');
                    answers.push(if line.starts_with(b"{") {
                        Answer::Ack(number..=number)
                    } else {
                        Answer::Nack(number..=number, Code::BadJson)
                    });
                }
                Frame::Rejected(_) => answers.push(Answer::Nack(number..=number, Code::Oversized)),
            }
        }
        self.inner.feed(fresh).await?;
        if self.next.get() > first {
            with(&self.stream, |known| known.last = last);
            self.state.answers.borrow_mut().extend(answers);
            self.wake.notify_one();
        }
        Ok(bytes)
    }

    pub async fn finish(&self, _: bool) -> Result<(), Error> {
        self.state.finished.set(true);
        self.wake.notify_one();
        self.inner.finish(false).await
    }
}

impl Answers {
    pub fn last(&self) -> u64 {
        self.last
    }

    pub async fn next(&mut self) -> Option<Vec<Answer>> {
        loop {
            if with(&self.stream, |known| known.owner != self.owner) {
                return None;
            }
            let answers = self.state.answers.take();
            if !answers.is_empty() {
                return Some(answers);
            }
            if self.state.finished.get() {
                return None;
            }
            self.wake.notified().await;
        }
    }
}

#[expect(async_fn_in_trait, reason = "stands in")]
pub trait Feed {
    async fn feed(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error>;
}

impl Feed for IngressHandle {
    async fn feed(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        Self::feed(self, bytes).await
    }
}

impl Feed for StreamHandle {
    async fn feed(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        Self::feed(self, bytes).await
    }
}
