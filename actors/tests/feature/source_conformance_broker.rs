//! The same of a source that takes from a broker: its clients publish, and the broker is told what becomes of frames.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::source_conformance::{self, Acknowledges, SourceTester, Told, Traits};
use headworks_actors::{AckLevel, Answer, Framing, IngressSpec, Intake, Json, Source};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

const MAX_FRAME: usize = 20_000;

/// How many frames of each client are acknowledged.
type Acknowledged = HashMap<String, u64>;

/// Takes from a queue in memory: who published a frame, and the frame.
struct Queue {
    frames: UnboundedReceiver<(String, Vec<u8>)>,
    tell: watch::Sender<Acknowledged>,
    level: AckLevel,
    in_order: bool,
}

impl Source for Queue {
    fn name(&self) -> &str {
        "queue"
    }

    fn run(mut self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let spec = IngressSpec::new("queue", Framing::Lines { max_bytes: MAX_FRAME }, Json::new());
            let (ingress, mut answers) = intake.open_call(spec, self.level).await.map_err(|why| why.to_string())?;
            // Who waits for the answer of which frame.
            let open = Arc::new(Mutex::new(BTreeMap::new()));
            let (waiting, tell, in_order) = (open.clone(), self.tell.clone(), self.in_order);
            // What is stored while the system drains is still told.
            intake.spawn(async move {
                let mut answered = BTreeMap::new();
                while let Some(more) = answers.next().await {
                    let mut waiting = waiting.lock().unwrap();
                    for answer in more {
                        let (Answer::Ack(range) | Answer::Nack(range, ..)) = answer;
                        answered.extend(range.filter_map(|frame| Some((frame, waiting.remove(&frame)?))));
                    }
                    let first_open = waiting.keys().next().copied().filter(|_| in_order).unwrap_or(u64::MAX);
                    let told = answered.extract_if(..first_open, |_, _: &mut String| true);
                    tell.send_modify(|acknowledged| {
                        told.for_each(|(_, name)| *acknowledged.entry(name).or_default() += 1);
                    });
                }
            });
            let mut closing = std::pin::pin!(intake.closing());
            for number in 1.. {
                let (name, frame) = tokio::select! {
                    () = &mut closing => break,
                    Some(published) = self.frames.recv() => published,
                };
                open.lock().unwrap().insert(number, name);
                if ingress.feed([&frame[..], b"\n"].concat()).await.is_err() {
                    break;
                }
            }
            let _ = ingress.finish(false).await;
            Ok(())
        }
        .boxed_local()
    }
}

struct Broker {
    in_order: bool,
    tells_early: bool,
    queue: Option<(UnboundedSender<(String, Vec<u8>)>, watch::Receiver<Acknowledged>)>,
}

/// One that publishes, and how many of its frames it was asked about.
struct Client {
    name: String,
    publish: UnboundedSender<(String, Vec<u8>)>,
    acknowledged: watch::Receiver<Acknowledged>,
    asked: u64,
}

impl SourceTester for Broker {
    type Connection = Client;

    fn traits(&self) -> Traits {
        let (acknowledges, malformed) = (Acknowledges::Broker { in_order: self.in_order }, Some(b"no JSON".to_vec()));
        Traits { acknowledges, holds_back: false, malformed, max_frame: MAX_FRAME }
    }

    async fn source(&mut self, level: AckLevel) -> Box<dyn Source> {
        let ((publish, frames), (tell, acknowledged)) = (unbounded_channel(), watch::channel(HashMap::new()));
        self.queue = Some((publish, acknowledged));
        let level = if self.tells_early { AckLevel::Received } else { level };
        Box::new(Queue { frames, tell, level, in_order: self.in_order })
    }

    async fn connect(&self, name: &str) -> Client {
        let (publish, acknowledged) = self.queue.clone().unwrap();
        Client { name: name.to_owned(), publish, acknowledged, asked: 0 }
    }

    async fn send(&self, client: &mut Client, frames: &[Vec<u8>]) {
        for frame in frames {
            // The source may have ended.
            let _ = client.publish.send((client.name.clone(), frame.clone()));
        }
    }

    async fn answers(&self, client: &mut Client, frames: u64) -> Told {
        let (name, before) = (client.name.clone(), client.asked);
        let of = |acknowledged: &Acknowledged| acknowledged.get(&name).copied().unwrap_or(0);
        let now = of(&*client.acknowledged.wait_for(|now| of(now) >= before + frames).await.unwrap());
        client.asked = now;
        Told { acknowledged: now - before, refused: 0 }
    }

    async fn close(&self, _client: Client) {}

    async fn cut(&self, _client: Client, _beginning: &[u8]) {
        // A broker passes on whole frames alone.
    }
}

#[tokio::test]
async fn a_source_that_takes_from_a_queue_keeps_the_contract_in_whatever_order_it_acknowledges() {
    for in_order in [false, true] {
        let mut tester = Broker { in_order, tells_early: false, queue: None };
        source_conformance::source(&mut tester).await;
    }
}

#[tokio::test]
async fn the_suite_notices_a_source_that_acknowledges_to_its_broker_what_is_not_stored() {
    for in_order in [false, true] {
        let mut tester = Broker { in_order, tells_early: true, queue: None };
        let checked = AssertUnwindSafe(source_conformance::source(&mut tester)).catch_unwind().await;
        let said = checked.unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("as stored"), "{said}");
    }
}
