mod address;
mod again;
mod client;
mod decode;
mod intake;
mod packets;
mod topic;
mod transport;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, Framing, IngressSpec, Intake, InvalidStreamId, Json, Source, StreamId};
use tokio::sync::oneshot;

pub use address::MqttUrl;
pub use topic::{InvalidFilter, TopicFilter};

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MqttVersion {
    /// Version 5.
    #[default]
    V5,
    /// Version 3.1.1.
    V311,
}

/// What the payload of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MqttPayload {
    /// One event.
    #[default]
    Event,
    /// An event a line.
    Lines,
}

/// How an [`MqttSource`] subscribes, and to what.
#[derive(Debug, Clone)]
pub struct MqttOptions {
    /// Where the broker is.
    pub url: MqttUrl,
    /// What is subscribed to.
    pub topic: TopicFilter,
    /// Default 5.
    pub version: MqttVersion,
    /// The quality of service that is asked for: 0 or 1. Default 1.
    pub qos: u8,
    /// Whose session it is at the broker. Each client of a broker needs one of its own, and the same again after a restart.
    pub client_id: String,
    /// Default none.
    pub username: Option<String>,
    /// The file with the password, read at each attempt to connect; a newline at its end is none of it. Default none.
    pub password_file: Option<PathBuf>,
    /// The certificates (PEM) that are trusted, for `mqtts://`. Default none.
    pub ca_file: Option<PathBuf>,
    /// How long the connection may be silent before the broker takes it for dead; it is asked for a sign of life in half of that. In
    /// whole seconds. Default 30 s.
    pub keep_alive: Duration,
    /// How many messages may be on their way that are not acknowledged. Default 1,000.
    pub receive_max: u16,
    /// Default one event.
    pub payload: MqttPayload,
    /// The largest payload, in bytes, with the name of the tenant where the topic has it; a larger one is malformed. Default 1 MiB.
    pub max_frame: usize,
    /// How safe the events of a message must be before it is acknowledged; `received` is as `journaled`. Default `journaled`.
    pub ack: AckLevel,
    /// Each message differs from every other, as one with an id in it does: of the last 65,536 of this process, one that comes again is
    /// not taken in again. Default no.
    pub unique: bool,
}

impl MqttOptions {
    /// A session of this client, for this topic.
    #[must_use]
    pub fn new(url: MqttUrl, topic: TopicFilter, client_id: impl Into<String>) -> Self {
        Self {
            url,
            topic,
            version: MqttVersion::default(),
            qos: 1,
            client_id: client_id.into(),
            username: None,
            password_file: None,
            ca_file: None,
            keep_alive: Duration::from_secs(30),
            receive_max: 1_000,
            payload: MqttPayload::default(),
            max_frame: 1 << 20,
            ack: AckLevel::Journaled,
            unique: false,
        }
    }
}

/// A subscription at a broker, by MQTT 5 or 3.1.1, with a session that outlives connections and processes: the broker keeps what is
/// published at quality of service 1 while nobody is there.
///
/// A message is acknowledged once its events are as safe as [`ack`](MqttOptions::ack) says, or refused for good: what is no event is a
/// dead letter, and acknowledged. So what a broker has handed over is never lost, and comes again after a crash of this side: each
/// event is stored at least once. A message that comes again over another connection of the same process, not acknowledged before, is
/// known and taken in once; where messages are [`unique`](MqttOptions::unique), so is one whose acknowledgement was lost. At quality of
/// service 0 a message that is on its way when a connection breaks is lost.
///
/// Nothing is read from the broker while the system is full, or more than [`receive_max`](MqttOptions::receive_max) messages are
/// unacknowledged; the connection is kept alive meanwhile. Where the broker is away, or refuses, it is tried again, after up to 10 s.
///
/// Acknowledgements go out in the order in which messages came: at the level `stored`, a tenant whose store is away holds back those of
/// all others, and once `receive_max` is reached, what comes.
#[derive(Debug)]
pub struct MqttSource {
    name: String,
    stream: StreamId,
    spec: IngressSpec,
    options: MqttOptions,
}

impl MqttSource {
    /// Events are read by `json`: but for their tenant, where the topic has it. Nothing is connected before the source is added to a
    /// system.
    ///
    /// # Errors
    /// The name has more than 128 characters, or others than visible ASCII.
    pub fn new(name: impl Into<String>, json: Json, options: MqttOptions) -> Result<Self, InvalidStreamId> {
        let name = name.into();
        let stream = StreamId::new(&format!("mqtt:{name}"))?;
        let framing = Framing::LengthPrefixed { max_bytes: options.max_frame };
        let spec = match options.topic.names_tenant() {
            true => IngressSpec::new(&name, framing, decode::OfTopic::new(json)),
            false => IngressSpec::new(&name, framing, json),
        };
        Ok(Self { name, stream, spec, options })
    }
}

impl Source for MqttSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let (fed, is_fed) = oneshot::channel();
            // It answers for what it fed while the system drains.
            let task = intake.spawn(client::run(*self, intake.clone(), fed));
            match is_fed.await {
                Ok(()) => Ok(()),
                Err(_) => task.await.map_err(|why| why.to_string()),
            }
        }
        .boxed_local()
    }
}
