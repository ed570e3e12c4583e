//! The sources that take from a broker keep the contract of sources: Mosquitto and nats-server, to which the clients of this test
//! publish, say themselves what they were told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_nats::jetstream;
use futures::StreamExt;
use headworks::source::{MqttOptions, MqttSource, MqttVersion, NatsOptions, NatsSource};
use headworks::source_conformance::{self, Acknowledges, SourceTester, Told, Traits};
use headworks::{AckLevel, Json, Source};
use rumqttc_v4::{AsyncClient, Broker, Event, EventLoop, Outgoing, Packet, PublishOptions, QoS};
use tokio::sync::watch;

use crate::rig::mosquitto::Mosquitto;
use crate::rig::nats::Nats;
use crate::rig::postgres::Way;

const MAX_FRAME: usize = 20_000;

fn traits(in_order: bool) -> Traits {
    let (acknowledges, malformed) = (Acknowledges::Broker { in_order }, Some(b"no JSON".to_vec()));
    Traits { acknowledges, holds_back: false, malformed, max_frame: MAX_FRAME }
}

/// What Mosquitto says that it did.
#[derive(Default)]
struct Said {
    /// By whose session it has a subscription.
    subscribed: HashSet<String>,
    /// Whom it sent a message under a number, and of which topic.
    under_way: HashMap<(String, String), String>,
    /// How many messages of a topic were acknowledged.
    acknowledged: HashMap<String, u64>,
}

impl Said {
    /// `1763860000: Sending PUBLISH to source-1 (d0, q1, r0, m7, 'source-1/conn-0', ... (36 bytes))`, and the like.
    fn hear(&mut self, line: &str) {
        let Some((_, said)) = line.split_once(": ") else { return };
        let mut words = said.split([' ', ',', ')', '(', '\'']).filter(|word| !word.is_empty());
        let what = [words.next(), words.next(), words.next()];
        let Some(whom) = words.next().map(str::to_owned) else { return };
        match what {
            [Some("Sending"), Some("SUBACK"), Some("to")] => {
                self.subscribed.insert(whom);
            }
            [Some("Sending"), Some("PUBLISH"), Some("to")] => {
                let (number, topic) = (words.nth(3).unwrap(), words.next().unwrap());
                self.under_way.insert((whom, number[1..].to_owned()), topic.to_owned());
            }
            [Some("Received"), Some("PUBACK"), Some("from")] => {
                let topic = self.under_way.remove(&(whom, words.nth(1).unwrap().to_owned()));
                *self.acknowledged.entry(topic.unwrap()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn acknowledged(&self, topic: &str) -> u64 {
        self.acknowledged.get(topic).copied().unwrap_or(0)
    }
}

struct Mqtt {
    broker: Mosquitto,
    /// That of the sources to it.
    way: Way,
    said: watch::Receiver<Said>,
    version: MqttVersion,
    sources: usize,
}

/// One that publishes to a topic of its own.
struct Publisher {
    client: AsyncClient,
    connection: EventLoop,
    topic: String,
    /// How many of its messages it was asked about.
    asked: u64,
}

impl Mqtt {
    fn new(version: MqttVersion) -> Self {
        // Else each acknowledgement but the first waits for that to be acknowledged by TCP.
        let mut broker = Mosquitto::prepared("allow_anonymous true\nset_tcp_nodelay true\n");
        broker.restart();
        let (tell, said) = watch::channel(Said::default());
        let log: Receiver<String> = broker.log();
        // Ends with the broker.
        std::thread::spawn(move || log.iter().for_each(|line| tell.send_modify(|said| said.hear(&line))));
        let way = Way::to(([127, 0, 0, 1], broker.port()).into());
        Self { broker, way, said, version, sources: 0 }
    }

    /// The session of the last source, below which its topics are.
    fn session(&self) -> String {
        format!("source-{}", self.sources)
    }
}

impl SourceTester for Mqtt {
    type Connection = Publisher;

    fn traits(&self) -> Traits {
        traits(true)
    }

    async fn source(&mut self, ack: AckLevel) -> Box<dyn Source> {
        self.sources += 1;
        let (url, topic) = (format!("mqtt://{}", self.way.address), format!("{}/#", self.session()));
        let options = MqttOptions::new(url.parse().unwrap(), topic.parse().unwrap(), self.session());
        let options = MqttOptions { version: self.version, ack, max_frame: MAX_FRAME, ..options };
        Box::new(MqttSource::new(self.session(), Json::new(), options).unwrap())
    }

    async fn connect(&self, name: &str) -> Publisher {
        let session = self.session();
        self.said.clone().wait_for(|said| said.subscribed.contains(&session)).await.unwrap();
        let topic = format!("{session}/{name}");
        let client_id = topic.replace('/', "-");
        let mut options = rumqttc_v4::MqttOptions::new(client_id, Broker::tcp("127.0.0.1", self.broker.port()));
        options.set_max_packet_size(1 << 20, 1 << 20).set_keep_alive(600);
        let (client, mut connection) = AsyncClient::builder(options).capacity(100).build();
        connection.network_options.set_tcp_nodelay(true);
        Publisher { client, connection, topic, asked: 0 }
    }

    async fn send(&self, Publisher { client, connection, topic, .. }: &mut Publisher, frames: &[Vec<u8>]) {
        for frame in frames {
            let at_least_once = PublishOptions::new(QoS::AtLeastOnce);
            client.try_publish(topic.clone(), frame.clone(), at_least_once).unwrap();
        }
        let mut left = frames.len();
        while left > 0 {
            left -= usize::from(matches!(connection.poll().await.unwrap(), Event::Incoming(Packet::PubAck(_))));
        }
    }

    async fn answers(&self, publisher: &mut Publisher, frames: u64) -> Told {
        let (mut said, before) = (self.said.clone(), publisher.asked);
        let said = said.wait_for(|said| said.acknowledged(&publisher.topic) >= before + frames).await.unwrap();
        publisher.asked = said.acknowledged(&publisher.topic);
        Told { acknowledged: publisher.asked - before, refused: 0 }
    }

    async fn close(&self, Publisher { client, mut connection, .. }: Publisher) {
        client.disconnect().await.unwrap();
        while !matches!(connection.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
    }

    async fn cut(&self, publisher: Publisher, beginning: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.broker.port())).unwrap();
        stream.write_all(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03cut").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        // A message, of which there is to be more.
        let length = u8::try_from(2 + publisher.topic.len() + 2 * beginning.len()).unwrap();
        assert!(length < 0x80);
        let topic = [&[0, u8::try_from(publisher.topic.len()).unwrap()], publisher.topic.as_bytes()].concat();
        stream.write_all(&[&[0x30, length], &topic[..], beginning].concat()).unwrap();
    }

    async fn sever(&self) {
        self.way.cut();
    }
}

/// Which messages of a stream were acknowledged, by their numbers.
type Acknowledged = watch::Receiver<HashSet<u64>>;

struct JetStream {
    server: Nats,
    /// That of the sources to it.
    way: Way,
    sources: usize,
    acknowledged: Option<Acknowledged>,
}

/// One that publishes to a subject of its own.
struct Sender {
    context: jetstream::Context,
    subject: String,
    acknowledged: Acknowledged,
    /// The numbers of its messages, and of how many of them it was told.
    messages: Vec<u64>,
    told: u64,
}

impl Sender {
    fn acknowledged(&self, of: &HashSet<u64>) -> u64 {
        self.messages.iter().filter(|message| of.contains(message)).count() as u64
    }
}

fn address(server: &Nats) -> SocketAddr {
    server.url().strip_prefix("nats://").unwrap().parse().unwrap()
}

impl SourceTester for JetStream {
    type Connection = Sender;

    fn traits(&self) -> Traits {
        traits(false)
    }

    /// Each from a stream of its own. What a source acknowledges, anybody can hear.
    async fn source(&mut self, ack: AckLevel) -> Box<dyn Source> {
        self.sources += 1;
        let stream = format!("SOURCE-{}", self.sources);
        let client = async_nats::connect(self.server.url()).await.unwrap();
        let mut heard = client.subscribe(format!("$JS.ACK.{stream}.headworks.>")).await.unwrap();
        let config = jetstream::stream::Config {
            subjects: vec![format!("{stream}.>")],
            storage: jetstream::stream::StorageType::Memory,
            name: stream.clone(),
            ..jetstream::stream::Config::default()
        };
        // It answers once it has the subscription as well.
        jetstream::new(client).create_stream(config).await.unwrap();
        let (tell, acknowledged) = watch::channel(HashSet::new());
        self.acknowledged = Some(acknowledged);
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                if &*message.payload == b"+ACK" {
                    // $JS.ACK.STREAM.CONSUMER.DELIVERED.NUMBER.and so on
                    let number = message.subject.split('.').nth(5).unwrap().parse().unwrap();
                    tell.send_if_modified(|numbers: &mut HashSet<u64>| numbers.insert(number));
                }
            }
        });
        let options = NatsOptions::new(format!("nats://{}", self.way.address), stream);
        // What was on its way when a connection broke comes again after a second.
        let options = NatsOptions { ack, max_frame: MAX_FRAME, ack_wait: Duration::from_secs(1), ..options };
        Box::new(NatsSource::new("test", Json::new(), options))
    }

    async fn connect(&self, name: &str) -> Sender {
        let context = jetstream::new(async_nats::connect(self.server.url()).await.unwrap());
        let subject = format!("SOURCE-{}.{name}", self.sources);
        Sender { context, subject, acknowledged: self.acknowledged.clone().unwrap(), messages: vec![], told: 0 }
    }

    async fn send(&self, sender: &mut Sender, frames: &[Vec<u8>]) {
        let mut under_way = vec![];
        for frame in frames {
            under_way.push(sender.context.publish(sender.subject.clone(), frame.clone().into()).await.unwrap());
        }
        for published in under_way {
            sender.messages.push(published.await.unwrap().sequence);
        }
    }

    async fn answers(&self, sender: &mut Sender, frames: u64) -> Told {
        let (mut acknowledged, before) = (sender.acknowledged.clone(), sender.told);
        let all = acknowledged.wait_for(|all| sender.acknowledged(all) >= before + frames).await.unwrap();
        let told = sender.acknowledged(&all);
        drop(all);
        sender.told = told;
        Told { acknowledged: told - before, refused: 0 }
    }

    async fn close(&self, sender: Sender) {
        sender.context.client().drain().await.unwrap();
    }

    async fn cut(&self, sender: Sender, beginning: &[u8]) {
        let mut stream = TcpStream::connect(address(&self.server)).unwrap();
        // A message, of which there is to be more.
        let head = format!("CONNECT {{\"verbose\":false}}\r\nPUB {} {}\r\n", sender.subject, 2 * beginning.len());
        stream.write_all(&[head.as_bytes(), beginning].concat()).unwrap();
    }

    async fn sever(&self) {
        self.way.cut();
    }
}

fn check(mut tester: impl SourceTester) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(source_conformance::source(&mut tester));
}

#[test]
fn the_mqtt_source_keeps_the_contract() {
    check(Mqtt::new(MqttVersion::V5));
}

#[test]
fn the_mqtt_source_keeps_the_contract_by_version_3_too() {
    check(Mqtt::new(MqttVersion::V311));
}

#[test]
fn the_nats_source_keeps_the_contract() {
    let server = Nats::start();
    check(JetStream { way: Way::to(address(&server)), server, sources: 0, acknowledged: None });
}
