//! The same of a source that takes from a broker: its clients publish, and the broker is told what becomes of frames.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::source_conformance::{self, Acknowledges, SourceTester, Told, Traits};
use headworks_actors::{AckLevel, Answer, Framing, IngressSpec, Intake, Json, Source};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

const MAX_FRAME: usize = 20_000;

/// A message, by its number, and its frame.
type Message = (u64, Vec<u8>);

/// A broker in memory: it keeps what is published until it is acknowledged, and sends it again to who connects anew.
#[derive(Clone, Default)]
struct Broker(Arc<watch::Sender<Queue>>);

#[derive(Default)]
struct Queue {
    published: u64,
    /// Who published a frame, and the frame.
    kept: BTreeMap<u64, (String, Vec<u8>)>,
    connection: Option<UnboundedSender<Message>>,
    /// How many frames of each client are acknowledged.
    acknowledged: HashMap<String, u64>,
}

impl Broker {
    fn connect(&self) -> UnboundedReceiver<Message> {
        let (send, messages) = unbounded_channel();
        self.0.send_modify(|queue| {
            queue.kept.iter().for_each(|(number, (_, frame))| send.send((*number, frame.clone())).unwrap());
            queue.connection = Some(send);
        });
        messages
    }

    fn publish(&self, name: &str, frame: &[u8]) {
        self.0.send_modify(|queue| {
            queue.published += 1;
            queue.kept.insert(queue.published, (name.to_owned(), frame.to_owned()));
            // The source may have ended.
            let _ = queue.connection.as_ref().map(|connection| connection.send((queue.published, frame.to_owned())));
        });
    }

    fn acknowledge(&self, number: u64) {
        self.0.send_modify(|queue| {
            if let Some((name, _)) = queue.kept.remove(&number) {
                *queue.acknowledged.entry(name).or_default() += 1;
            }
        });
    }
}

/// Which part of the contract a source breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    None,
    TellsEarly,
    /// Acknowledges what it has read, and forgets what it has not fed when the connection breaks.
    AcknowledgesAtOnce,
}

struct Subscriber {
    broker: Broker,
    level: AckLevel,
    in_order: bool,
    rule: Rule,
}

impl Source for Subscriber {
    fn name(&self) -> &str {
        "subscriber"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let Self { broker, level, in_order, rule } = *self;
            let spec = IngressSpec::new("subscriber", Framing::Lines { max_bytes: MAX_FRAME }, Json::new());
            let (ingress, mut answers) = intake.open_call(spec, level).await.map_err(|why| why.to_string())?;
            // Which message was fed as which frame.
            let open = Arc::new(Mutex::new(BTreeMap::new()));
            let (waiting, telling) = (open.clone(), broker.clone());
            // What is stored while the system drains is still told.
            intake.spawn(async move {
                let mut answered = BTreeMap::new();
                while let Some(more) = answers.next().await {
                    let mut waiting = waiting.lock().unwrap();
                    for answer in more {
                        let (Answer::Ack(range) | Answer::Nack(range, ..)) = answer;
                        answered.extend(range.filter_map(|frame| Some((frame, waiting.remove(&frame)?))));
                    }
                    let until = waiting.keys().next().copied().filter(|_| in_order).unwrap_or(u64::MAX);
                    answered.extract_if(..until, |_, _| true).for_each(|(_, message)| telling.acknowledge(message));
                }
            });
            let mut closing = std::pin::pin!(intake.closing());
            let (mut messages, mut read, mut frames) = (broker.connect(), VecDeque::new(), 1..);
            loop {
                tokio::select! {
                    () = &mut closing => break,
                    message = messages.recv() => match message {
                        Some(message) => read.push_back(message),
                        None => messages = broker.connect(),
                    }
                }
                if rule == Rule::AcknowledgesAtOnce {
                    read.extend(std::iter::from_fn(|| messages.try_recv().ok()));
                    read.iter().for_each(|(message, _)| broker.acknowledge(*message));
                }
                while let Some((message, frame)) = read.pop_front() {
                    open.lock().unwrap().insert(frames.next().unwrap(), message);
                    let _ = ingress.feed([&frame[..], b"\n"].concat()).await;
                    if messages.is_closed() && rule == Rule::AcknowledgesAtOnce {
                        read.clear();
                    }
                }
            }
            let _ = ingress.finish(false).await;
            Ok(())
        }
        .boxed_local()
    }
}

struct Tester {
    broker: Broker,
    in_order: bool,
    rule: Rule,
}

/// One that publishes, and how many of its frames it was asked about.
struct Publisher {
    name: String,
    broker: Broker,
    asked: u64,
}

impl SourceTester for Tester {
    type Connection = Publisher;

    fn traits(&self) -> Traits {
        let (acknowledges, malformed) = (Acknowledges::Broker { in_order: self.in_order }, Some(b"no JSON".to_vec()));
        Traits { acknowledges, holds_back: false, malformed, max_frame: MAX_FRAME }
    }

    async fn source(&mut self, level: AckLevel) -> Box<dyn Source> {
        self.broker = Broker::default();
        let level = if self.rule == Rule::TellsEarly { AckLevel::Received } else { level };
        Box::new(Subscriber { broker: self.broker.clone(), level, in_order: self.in_order, rule: self.rule })
    }

    async fn connect(&self, name: &str) -> Publisher {
        Publisher { name: name.to_owned(), broker: self.broker.clone(), asked: 0 }
    }

    async fn send(&self, publisher: &mut Publisher, frames: &[Vec<u8>]) {
        frames.iter().for_each(|frame| publisher.broker.publish(&publisher.name, frame));
    }

    async fn answers(&self, publisher: &mut Publisher, frames: u64) -> Told {
        let before = publisher.asked;
        let of = |queue: &Queue| queue.acknowledged.get(&publisher.name).copied().unwrap_or(0);
        let mut queue = publisher.broker.0.subscribe();
        let now = of(&queue.wait_for(|queue| of(queue) >= before + frames).await.unwrap());
        publisher.asked = now;
        Told { acknowledged: now - before, refused: 0 }
    }

    async fn close(&self, _publisher: Publisher) {}

    /// A broker passes on whole frames alone.
    async fn cut(&self, _publisher: Publisher, _beginning: &[u8]) {}

    async fn sever(&self) {
        self.broker.0.send_modify(|queue| queue.connection = None);
    }
}

async fn complaint(in_order: bool, rule: Rule) -> Option<String> {
    let mut tester = Tester { broker: Broker::default(), in_order, rule };
    let checked = AssertUnwindSafe(source_conformance::source(&mut tester)).catch_unwind().await;
    Some(*checked.err()?.downcast::<String>().unwrap())
}

#[tokio::test]
async fn a_source_that_takes_from_a_broker_keeps_the_contract_in_whatever_order_it_acknowledges() {
    for in_order in [false, true] {
        assert_eq!(complaint(in_order, Rule::None).await, None);
    }
}

#[tokio::test]
async fn the_suite_notices_a_source_that_breaks_the_contract_with_its_broker() {
    for (rule, says) in [(Rule::TellsEarly, "as stored"), (Rule::AcknowledgesAtOnce, "the broker")] {
        for in_order in [false, true] {
            let said = complaint(in_order, rule).await.unwrap_or_else(|| panic!("{rule:?} was not noticed"));
            assert!(said.contains(says), "{rule:?}: {said}");
        }
    }
}
