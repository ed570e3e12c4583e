//! One connection, from its beginning to its end.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use async_nats::{Client, Subject};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use headworks_actors::{Answer, Answers, Error, IngressHandle, IngressSpec, Intake};
use rangemap::RangeInclusiveSet;
use tokio::sync::Notify;

use super::NatsOptions;
use super::order::{Delivery, Order, Verdict};
use super::server::Server;
use crate::text::chain;

/// How much is fed at once, in bytes.
const FED: usize = 256 << 10;

/// How many acknowledgements may be under way.
const ACKS: usize = 256;

const ACK: Bytes = Bytes::from_static(b"+ACK");
const NAK: Bytes = Bytes::from_static(b"-NAK");
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// A source, whatever it is connected to.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) spec: IngressSpec,
    pub(super) options: NatsOptions,
    /// It was told what may lose messages.
    pub(super) is_warned: AtomicBool,
}

/// Why a session ended.
pub(super) enum Ended {
    Closing,
    /// Before anything could be read.
    Refused(String),
    Broken(String),
}

/// A message that was delivered, and not looked at yet.
struct Delivered {
    of: Delivery,
    reply: Subject,
    subject: Subject,
    message: Bytes,
}

impl Delivered {
    fn new(message: Message) -> Result<Self, String> {
        let strange = |why: &dyn std::fmt::Display| format!("the server sent what is no delivery: {why}");
        let info = message.info().map_err(|why| strange(&why))?;
        let of = Delivery {
            message: info.stream_sequence,
            delivery: info.consumer_sequence,
            is_first: info.delivered == 1,
            published: info.published.unix_timestamp_nanos(),
        };
        let message = message.message;
        let reply = message.reply.ok_or_else(|| strange(&"it has no reply"))?;
        Ok(Self { of, reply, subject: message.subject, message: message.payload })
    }
}

/// What is on its way between server and journal.
#[derive(Default)]
struct State {
    /// Bounded by the server, which sends no more than `max_ack_pending`.
    delivered: RefCell<VecDeque<Delivered>>,
    came: Notify,
    /// Messages that were taken in and are not as safe as they are to be.
    open: RefCell<RangeInclusiveSet<u64>>,
    /// Where to acknowledge those that were delivered.
    waiting: RefCell<BTreeMap<u64, Subject>>,
    /// Those that are to be acknowledged.
    ready: RefCell<VecDeque<Subject>>,
    is_ready: Notify,
}

impl State {
    /// A message that was taken in before came again.
    fn known(&self, message: u64, reply: Subject) {
        if self.open.borrow().contains(&message) {
            self.waiting.borrow_mut().insert(message, reply);
        } else {
            self.ready.borrow_mut().push_back(reply);
            self.is_ready.notify_one();
        }
    }

    /// These messages are as safe as they are to be. One that was refused is: it is a dead letter, or counted.
    fn settled(&self, answers: Vec<Answer>) {
        let (mut open, mut waiting) = (self.open.borrow_mut(), self.waiting.borrow_mut());
        for answer in answers {
            let (Answer::Ack(range) | Answer::Nack(range, ..)) = answer;
            open.remove(range.clone());
            let numbers: Vec<_> = waiting.range(range).map(|(number, _)| *number).collect();
            self.ready.borrow_mut().extend(numbers.iter().filter_map(|number| waiting.remove(number)));
        }
    }

    /// Has the server wait for what it delivered.
    async fn keep(&self, server: &Server) -> String {
        loop {
            tokio::time::sleep(server.ack_wait() / 3).await;
            let mut replies: Vec<_> = self.waiting.borrow().values().cloned().collect();
            replies.extend(self.delivered.borrow().iter().map(|delivered| delivered.reply.clone()));
            for reply in replies {
                if let Err(why) = server.client.publish(reply, IN_PROGRESS).await {
                    return chain(&why);
                }
            }
        }
    }

    async fn receive(&self, mut messages: pull::Stream, redelivered: impl Fn()) -> String {
        loop {
            let delivered = match messages.next().await {
                Some(Ok(message)) => Delivered::new(message),
                Some(Err(why)) => Err(chain(&why)),
                None => Err("the server sends no more messages".to_owned()),
            };
            match delivered {
                Ok(delivered) => {
                    if !delivered.of.is_first {
                        redelivered();
                    }
                    self.delivered.borrow_mut().push_back(delivered);
                }
                Err(why) => return why,
            }
            self.came.notify_one();
        }
    }
}

/// Acknowledges what is as safe as it is to be.
struct Acks {
    answers: Answers,
    client: Client,
    under_way: FuturesUnordered<LocalBoxFuture<'static, ()>>,
}

impl Acks {
    /// Until there will be no answers any more, and all are acknowledged.
    ///
    /// # Cancel safety
    /// Safe: a later call goes on.
    async fn run(&mut self, state: &State) {
        let mut is_over = false;
        loop {
            while self.under_way.len() < ACKS
                && let Some(reply) = state.ready.borrow_mut().pop_front()
            {
                let client = self.client.clone();
                // The server says that it has it. Where that fails, the message comes again, is known, and is acknowledged then.
                self.under_way.push(Box::pin(async move {
                    if let Err(why) = client.request(reply, ACK).await {
                        tracing::debug!(target: "headworks", %why, "an acknowledgement was not confirmed");
                    }
                }));
            }
            if is_over && self.under_way.is_empty() {
                return;
            }
            tokio::select! {
                heard = self.answers.next(), if !is_over => match heard {
                    Some(answers) => state.settled(answers),
                    None => is_over = true,
                },
                _ = self.under_way.next(), if !self.under_way.is_empty() => {}
                () = state.is_ready.notified() => {}
            }
        }
    }
}

/// Frames that follow each other without a hole.
#[derive(Default)]
struct Run {
    first: u64,
    next: u64,
    frames: Vec<u8>,
}

/// Takes in what was delivered.
struct Taking<'s> {
    site: &'s Site,
    server: &'s Server,
    state: &'s State,
    ingress: &'s IngressHandle,
    order: Order,
    run: Run,
}

impl Taking<'_> {
    async fn all(&mut self, newest: &mut Option<i128>) -> String {
        if let Err(why) = self.catch_up().await {
            return why;
        }
        loop {
            let delivered = self.state.delivered.borrow_mut().pop_front();
            let taken = match delivered {
                Some(delivered) => self.one(delivered).await,
                None => match self.feed().await {
                    Ok(()) => {
                        if self.state.delivered.borrow().is_empty() {
                            self.state.came.notified().await;
                        }
                        Ok(())
                    }
                    refused => refused,
                },
            };
            *newest = self.order.newest;
            if let Err(why) = taken {
                return why;
            }
        }
    }

    /// Takes in what was delivered to a process that died with it, or over a connection that is gone. The server would deliver it again
    /// only once `ack_wait` is over, and it is acknowledged then.
    async fn catch_up(&mut self) -> Result<(), String> {
        let delivered = self.server.delivered();
        while self.order.next() <= delivered
            && let Some(held) = self.server.message_from(self.order.next()).await?
            && held.sequence <= delivered
        {
            self.add(held.sequence, &held.subject, &held.payload).await?;
            self.order.read(held.sequence, held.time.unix_timestamp_nanos());
        }
        self.feed().await
    }

    async fn one(&mut self, delivered: Delivered) -> Result<(), String> {
        let Delivered { of, reply, subject, message } = delivered;
        match self.order.see(of) {
            Verdict::Known => {
                self.state.known(of.message, reply);
                return Ok(());
            }
            Verdict::Replaced => return Err(self.site.replaced(of.message)),
            Verdict::Next => {}
            Verdict::Behind(mut from) => {
                while from < of.message
                    && let Some(missed) = self.server.message_from(from).await?
                    && missed.sequence < of.message
                {
                    self.add(missed.sequence, &missed.subject, &missed.payload).await?;
                    from = missed.sequence + 1;
                }
            }
        }
        self.state.waiting.borrow_mut().insert(of.message, reply);
        self.add(of.message, &subject, &message).await
    }

    async fn add(&mut self, number: u64, subject: &str, message: &[u8]) -> Result<(), String> {
        if self.run.next != number || self.run.frames.len() >= FED {
            self.feed().await?;
            (self.run.first, self.run.next) = (number, number);
        }
        self.site.options.subject.frame(subject, message, &mut self.run.frames);
        self.run.next += 1;
        self.state.open.borrow_mut().insert(number..=number);
        Ok(())
    }

    async fn feed(&mut self) -> Result<(), String> {
        if self.run.frames.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.run.frames);
        self.ingress.skip_to(self.run.first).map_err(|why| why.to_string())?;
        self.run.first = self.run.next;
        self.run.frames = self.ingress.feed(frames).await.map_err(|why| why.to_string())?;
        self.run.frames.clear();
        Ok(())
    }
}

impl Site {
    fn replaced(&self, number: u64) -> String {
        format!(
            "the server lost messages: message {number} of the stream {} was taken in, and is another one now, or is not there. What was \
             taken in is safe, but not to be told from what is new: delete the consumer {}, which is then made anew and reads the stream \
             from its beginning",
            self.options.stream, self.options.consumer
        )
    }
}

/// Reads until the connection ends or the system closes.
pub(super) async fn serve(site: &Site, intake: &Intake, newest: &mut Option<i128>) -> Ended {
    let mut closing = std::pin::pin!(intake.closing());
    let begun = tokio::select! {
        biased;
        () = &mut closing => return Ended::Closing,
        begun = begin(site, intake) => begun,
    };
    let (server, ingress, answers, messages) = match begun {
        Ok(begun) => begun,
        Err(why) => return Ended::Refused(why),
    };
    let last = answers.last();
    let state = Rc::new(State::default());
    if last > server.acknowledged() {
        state.open.borrow_mut().insert(server.acknowledged() + 1..=last);
    }
    let mut acks = Acks { answers, client: server.client.clone(), under_way: FuturesUnordered::new() };
    let broken = {
        let (order, run) = (Order::new(last, *newest), Run::default());
        let mut taking = Taking { site, server: &server, state: &state, ingress: &ingress, order, run };
        let mut gone = server.gone.clone();
        tokio::select! {
            biased;
            () = closing => None,
            gone = gone.wait_for(Option::is_some) => Some(gone.ok().and_then(|why| why.clone()).unwrap_or_default()),
            why = taking.all(newest) => Some(why),
            why = state.receive(messages, || intake.redelivered(&site.name)) => Some(why),
            () = acks.run(&state) => Some("another source reads the same consumer".to_owned()),
            why = state.keep(&server) => Some(why),
        }
    };
    if let Some(why) = broken {
        return Ended::Broken(why);
    }
    // What was not looked at is for whoever comes next.
    let left: Vec<_> = state.delivered.borrow_mut().drain(..).collect();
    for delivered in left {
        let _ = server.client.publish(delivered.reply, NAK).await;
    }
    let _ = ingress.finish(false).await;
    // A drain waits for what was taken in, and what it stores is still acknowledged.
    intake.spawn(async move {
        tokio::select! {
            () = acks.run(&state) => {}
            _ = state.keep(&server) => {}
        }
    });
    Ended::Closing
}

async fn begin(site: &Site, intake: &Intake) -> Result<(Server, IngressHandle, Answers, pull::Stream), String> {
    let options = &site.options;
    let server = Server::connect(&site.name, options).await?;
    let (stream, next) = (server.stream_id(options)?, server.acknowledged() + 1);
    let opened = intake.open_stream(site.spec.clone(), stream, next, options.ack).await;
    let (ingress, answers) = opened.map_err(|why: Error| why.to_string())?;
    if server.last() < answers.last() {
        return Err(site.replaced(server.last() + 1));
    }
    let messages = server.messages().await?;
    intake.works(&site.name);
    let (stream, consumer) = (&options.stream, &options.consumer);
    let warnings = match site.is_warned.swap(true, Ordering::Relaxed) {
        true => {
            intake.reconnected(&site.name);
            vec![]
        }
        false => server.warnings(options),
    };
    for warning in warnings {
        tracing::warn!(target: "headworks", source = site.name, "{warning}");
    }
    tracing::info!(target: "headworks", source = site.name, stream, consumer, after = answers.last(), "reads a NATS stream");
    Ok((server, ingress, answers, messages))
}
