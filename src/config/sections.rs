use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::postgres::{BodyColumn, Partition, PostgresOptions, SchemaMode, SslMode};
use crate::store::webhook::{Compression, WebhookOptions};
use crate::store::{Layout, LettersWhenFull, NatsStoreOptions, ObjectFormat, ObjectOptions};
use crate::{AckLevel, Policy, SpawnRate, StoreName, TenantId, TenantPattern, TenantRules, Unknown, units};

/// `[daemon]`: the process itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DaemonConfig {
    /// The directory that everything is kept in; made if it is not there. A relative path starts at the working
    /// directory. Default `headworks-data`.
    pub data_dir: PathBuf,
    /// How long a stop may take to store what was accepted. Default 30 s.
    #[serde(with = "units::duration")]
    pub drain_deadline: Duration,
    /// The process ends, with code 70, once code that does not return has held the thread of the actors for so long: nothing
    /// else helps, and whoever manages the service starts it again. Zero turns that off. Default 60 s.
    #[serde(with = "units::duration")]
    pub exit_when_hung: Duration,
    /// On how many threads connections are read and tenants' actors live. 0, the default: see
    /// [`actor_threads`](Self::actor_threads).
    pub threads: usize,
}

impl DaemonConfig {
    /// The threads of the actors: where the configuration leaves it open, one less than there are processors, at least one and at
    /// most 64.
    #[must_use]
    pub fn actor_threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads > 0 { self.threads } else { (processors() - 1).clamp(1, MOST_THREADS) }
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            data_dir: "headworks-data".into(),
            drain_deadline: Duration::from_secs(30),
            exit_when_hung: Duration::from_secs(60),
            threads: 0,
        }
    }
}

/// The most threads that actors may have.
pub(super) const MOST_THREADS: usize = 64;

/// `[log]`: what the process says on stderr, and the supervisor log on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// For eyes or for machines. Default `human`.
    pub format: LogFormat,
    /// A level, or levels by target in the words of `tracing`'s `EnvFilter`: `info,headworks=debug`. Default `info`.
    pub level: String,
    /// The size of a file of the supervisor log, in bytes; when it is reached, the next is begun. Default 8 MiB.
    #[serde(with = "units::bytes")]
    pub supervisor_max_bytes: usize,
    /// How many such files are kept; the oldest goes. Default 4.
    pub supervisor_files: u32,
    /// A file of it goes once its last entry is so old. `None`, written `"never"`, for never. Default never.
    #[serde(with = "units::duration_or_never")]
    pub supervisor_max_age: Option<Duration>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info".into(),
            supervisor_max_bytes: 8 << 20,
            supervisor_files: 4,
            supervisor_max_age: None,
        }
    }
}

/// `[report]`: the periodic report of what failed, by tenant and code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportConfig {
    /// How often what failed since the last time is reported, if anything did; zero turns that off. Default 60 s.
    #[serde(with = "units::duration")]
    pub every: Duration,
    /// Where to. Default `log`.
    pub to: ReportTo,
    /// The file for `file`; a relative path starts at the data directory. It is rotated as the supervisor log is. Default
    /// `report.jsonl`.
    pub path: PathBuf,
    /// The tenant for `store`. Default `headworks-report`.
    pub tenant: TenantId,
}

impl Default for ReportConfig {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant that follows the grammar")]
        let tenant = TenantId::new("headworks-report").expect("it follows the grammar");
        Self { every: Duration::from_secs(60), to: ReportTo::Log, path: "report.jsonl".into(), tenant }
    }
}

/// Where the periodic report goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReportTo {
    /// The log on stderr: a line for each tenant and code.
    Log,
    /// A file of JSON lines, one for each tenant and code.
    File,
    /// The store: each tenant and code is an event of a tenant of its own, which goes the way of all events.
    Store,
    /// Nowhere; `headworks explain` and the admin API have it all the same.
    None,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[limits]`: bounds of the whole process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The memory that all accepted, unsettled events may take together, in bytes. Default 16 MiB.
    #[serde(with = "units::bytes")]
    pub max_in_flight: usize,
    /// How many tenants may be known; frames of further ones are refused. Default 10 000.
    pub max_tenants: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_in_flight: 16 << 20, max_tenants: 10_000 }
    }
}

/// `[decoder]`: where a frame, one JSON object, says whose event it is and when it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderConfig {
    /// The field with the tenant's id. Default `tenant`.
    pub tenant_field: String,
    /// The field with the time; unset, an event has none but that of its arrival. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_field: Option<String>,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self { tenant_field: "tenant".into(), time_field: None }
    }
}

/// `[sources.NAME]`: one way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// What it is. Default `tcp`.
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// Where it listens: an address and a port; port 0 takes any that is free. Default `127.0.0.1:7400`.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Whether it may listen where other machines reach it, although it asks nobody who they are. Default no; not asked where
    /// clients show certificates ([`TlsConfig::client_ca_file`]), or tokens over TLS.
    pub allow_beyond_loopback: bool,
    /// What divides the bytes into frames. Default `lines`.
    pub framing: Framing,
    /// The largest frame, in bytes; a larger one is malformed. Default 1 MiB.
    #[serde(with = "units::bytes")]
    pub max_frame: usize,
    /// How many connections at once; further ones wait to be taken. Default 1024.
    pub max_connections: usize,
    /// How safe an event must be at least before a sender that asks is told so. Default `received`: as the sender asks.
    pub ack: AckLevel,
    /// Of `http`: the largest body of a request, in bytes, once it is decompressed. Default 64 MiB.
    #[serde(with = "units::bytes")]
    pub max_body: usize,
    /// How long a client may take for a whole frame, of `http` for the head of a request, and of `websocket` for the handshake or a
    /// message, or to answer a ping, or to read what it is told. Default unset: 60 s of `http` and `websocket`, for ever of others. See [`idle`](Self::idle).
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Of `http`: how long a request waits for room and for its level before it is answered with 429. Default 30 s.
    #[serde(with = "units::duration")]
    pub answer_within: Duration,
    /// Of `http` and `websocket`, `field`, `query` or `header`: where it stands whose event one is. Of `syslog`, `host`, `app_name` or
    /// `ID[NAME]`, a parameter of the structured data. Default unset: the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_from: Option<String>,
    /// Of `http` and `websocket`: the file of the tokens, each with the tenants that its bearers may speak for; unset, everybody may speak
    /// for everybody. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<PathBuf>,
    /// Of `tail`: which files, a path with `*`, `?` and `{tenant}`. It must be set there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of `tail`: how many files are open at once. Default 1024.
    pub max_files: usize,
    /// Of `syslog`: by which ways messages come. Default `both`.
    pub transport: SyslogTransport,
    /// Of `syslog`: what becomes of a message whose tenant has a name that no tenant can have. Default `map`.
    pub invalid_tenant: InvalidTenant,
    /// Of `websocket`: the largest message, in bytes. Default 1 MiB.
    #[serde(with = "units::bytes")]
    pub max_message: usize,
    /// Of `demo`: of how many tenants its events are. Default 10.
    pub tenants: u32,
    /// Of `demo`: how many events come in a second. Default 10.
    pub events_per_second: u32,
    /// Of `demo`: how long an event is, in bytes. Default 200.
    pub event_bytes: usize,
    /// Of `demo`: how many events come in all; 0 is without an end. Default 0.
    pub max_events: u64,
    /// Of `mqtt`: where the broker is, `mqtt://HOST:PORT` or `mqtts://HOST:PORT`. Of `nats`: the servers, as `nats://HOST:PORT` or
    /// `tls://HOST:PORT`, with commas between them. It must be set there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of `mqtt`: what is subscribed to, a filter in which one level may be `{tenant}`. It must be set there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Of `mqtt`: which MQTT is spoken. Default `v5`.
    pub version: MqttVersion,
    /// Of `mqtt`: the quality of service, 0 or 1. Default 1.
    pub qos: u8,
    /// Of `mqtt`: whose session it is at the broker. Default unset: `headworks-` and the name of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Of `mqtt`: who it is at the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Of `mqtt`: the file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Of `mqtt` and `nats`: the certificates that are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Of `mqtt`: how long the connection may be silent. Default 30 s.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// Of `mqtt`: how many messages may be on their way that are not acknowledged. Default 1000.
    pub receive_max: u16,
    /// Of `mqtt`: what a message is. Default `event`.
    pub payload: MqttPayload,
    /// Of `mqtt`: whether each message differs from every other. Default no.
    pub unique_messages: bool,
    /// Of `nats`: the stream. It must be set there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Of `nats`: the durable consumer, made if it is not there. Default `headworks`.
    pub consumer: String,
    /// Of `nats`: which subjects of the stream, with `{tenant}` for the part that names the tenant. Default unset: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of `nats`: a file with a JWT and a seed, the seed of an nkey, or `USER:PASSWORD`. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Of `nats`: after how long without a sign of life the server delivers a message again. Default 5 s.
    #[serde(with = "units::duration")]
    pub ack_wait: Duration,
    /// Of `nats`: how many messages may be delivered and not acknowledged. Default 1024.
    pub max_ack_pending: usize,
    /// Whether and how it speaks TLS.
    pub tls: TlsConfig,
}

/// `[sources.NAME.tls]`: the certificate of a source, and those of its clients.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate (PEM) that it shows, and those behind it; unset, it does not speak TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The private key (PEM) of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The certificates (PEM) of which one must have signed that of a client; unset, a client needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// Whom a client may speak for, where no file says that. Default `any`.
    pub tenants: CertificateTenants,
    /// The file that says of the names in clients' certificates which tenants they may speak for. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenants_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// Whom the certificate of a client lets it speak for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateTenants {
    /// Everybody.
    #[default]
    Any,
    /// The tenants whose ids are its common name and DNS names.
    Certificate,
}

mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use crate::units;

    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => units::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        units::duration::deserialize(deserializer).map(Some)
    }
}

impl SourceConfig {
    /// How long it may bring nothing that is whole, if there is a limit.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        let default = matches!(self.kind, SourceKind::Http | SourceKind::WebSocket).then_some(Duration::from_secs(60));
        self.idle_timeout.or(default)
    }

    /// Whether it asks its clients who they are, so that nobody else hears the answer: by certificates, or by tokens over TLS.
    #[must_use]
    pub fn asks_who(&self) -> bool {
        self.tls.client_ca_file.is_some() || (self.tls.cert_file.is_some() && self.tokens_file.is_some())
    }

    /// Where it listens, if it does.
    #[must_use]
    pub fn listens(&self) -> Option<SocketAddr> {
        let is_client = matches!(self.kind, SourceKind::Tail | SourceKind::Mqtt | SourceKind::Nats | SourceKind::Demo);
        (!is_client).then_some(self.listen)
    }
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            kind: SourceKind::Tcp,
            listen: (Ipv4Addr::LOCALHOST, 7400).into(),
            allow_beyond_loopback: false,
            framing: Framing::Lines,
            max_frame: 1 << 20,
            max_connections: 1024,
            ack: AckLevel::Received,
            max_body: 64 << 20,
            idle_timeout: None,
            answer_within: Duration::from_secs(30),
            tenant_from: None,
            tokens_file: None,
            path: None,
            max_files: 1024,
            transport: SyslogTransport::Both,
            invalid_tenant: InvalidTenant::Map,
            max_message: 1 << 20,
            tenants: 10,
            events_per_second: 10,
            event_bytes: 200,
            max_events: 0,
            url: None,
            topic: None,
            version: MqttVersion::V5,
            qos: 1,
            client_id: None,
            username: None,
            password_file: None,
            ca_file: None,
            keep_alive: Duration::from_secs(30),
            receive_max: 1_000,
            payload: MqttPayload::Event,
            unique_messages: false,
            tls: TlsConfig::default(),
            stream: None,
            consumer: "headworks".into(),
            subject: None,
            credentials_file: None,
            ack_wait: Duration::from_secs(5),
            max_ack_pending: 1024,
        }
    }
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is no address with a port; write it like \"127.0.0.1:7400\" or \"[::1]:7400\""
        ))
    })
}

/// The kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SourceKind {
    /// Connections that send frames one after the other.
    Tcp,
    /// Requests that bring lines or a JSON array of events.
    Http,
    /// Files that grow, and are rotated.
    Tail,
    /// Syslog over UDP and TCP.
    Syslog,
    /// WebSocket connections whose messages are lines.
    #[serde(rename = "websocket")]
    WebSocket,
    /// Sample events of its own making.
    Demo,
    /// A subscription at a broker.
    Mqtt,
    /// Messages of a NATS JetStream.
    Nats,
}

impl SourceKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Tail => "tail",
            Self::Syslog => "syslog",
            Self::WebSocket => "websocket",
            Self::Demo => "demo",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
        }
    }
}

/// By which ways syslog comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogTransport {
    /// UDP and TCP, on the same port.
    Both,
    /// A datagram a message.
    Udp,
    /// Messages that are counted or end with a newline.
    Tcp,
}

/// What becomes of a name that no tenant can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidTenant {
    /// It is made one.
    Map,
    /// The message is refused.
    Refuse,
}

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MqttVersion {
    /// Version 5.
    #[serde(rename = "v5")]
    V5,
    /// Version 3.1.1.
    #[serde(rename = "v3.1.1")]
    V311,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MqttPayload {
    /// One event.
    Event,
    /// An event a line.
    Lines,
}

/// What divides bytes into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// A frame ends with `\n` or `\r\n`.
    Lines,
    /// A frame follows its length.
    LengthPrefixed,
    /// A frame follows the number of its bytes in digits, and a space: RFC 6587.
    OctetCounted,
}

/// `[journal]`: the record of what was accepted, until it is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// What it is. Default `durable`.
    #[serde(rename = "type")]
    pub kind: JournalKind,
    /// The disk that it may take, in bytes; when that is full, sources wait. Default 1 GiB.
    #[serde(with = "units::bytes")]
    pub max_bytes: usize,
    /// The size of its files, in bytes: space is given back one of them at a time. Default 64 MiB.
    #[serde(with = "units::bytes")]
    pub segment_bytes: usize,
    /// How long an accepted event may wait for others, to be written with them, before the disk is asked to keep it.
    /// Default 5 ms.
    #[serde(with = "units::duration")]
    pub commit_every: Duration,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            kind: JournalKind::Durable,
            max_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            commit_every: Duration::from_millis(5),
        }
    }
}

/// The kinds of journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JournalKind {
    /// In memory: accepted events survive the failure of an actor, and are lost with the process.
    Memory,
    /// In files, in the directory `journal` of the data directory: accepted events survive the process and the machine.
    Durable,
}

/// `[store]`: where batches end up, under the name `store`; and `[stores.NAME]`: further stores. Dead letters end up in the
/// database, whatever the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// What it is. Default `sqlite`.
    #[serde(rename = "type")]
    pub kind: StoreKind,
    /// Where the events of new batches go, if it is `sqlite`; it may be changed at any start. Default `rows`.
    pub layout: Layout,
    /// The size of the files of the layout `index`, in bytes: space is given back one of them at a time. Default 64 MiB.
    #[serde(with = "units::bytes")]
    pub segment_bytes: usize,
    /// The batches of several tenants are committed together up to so many bytes. Default 2 MiB.
    #[serde(with = "units::bytes")]
    pub group_max_bytes: usize,
    /// How long to wait for another process that has the database locked. Default 500 ms.
    #[serde(with = "units::duration")]
    pub busy_timeout: Duration,
    /// How many batches may be on their way into it at once, by all tenants together, at the most; see
    /// [`StoreLimits`](headworks_actors::StoreLimits). Default 256.
    pub max_concurrency: u32,
    /// Where the server of `postgres` is, or that of `webhook` or `nats`; see [`PostgresOptions`], as for all that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The file with the password of `postgres`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Whether the connections of `postgres` are encrypted. Default `prefer`.
    pub sslmode: SslMode,
    /// The certificates that `postgres`, `webhook` or `nats` trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The PostgreSQL schema of the tables. Default `headworks`.
    pub namespace: String,
    /// Who makes the tables of `postgres`, or the stream of `nats`. Default `make`.
    pub schema: SchemaMode,
    /// What a body is in `postgres`. Default `text`.
    pub body: BodyColumn,
    /// How the table of events in `postgres` is partitioned. Default `none`.
    pub partition: Partition,
    /// How many connections `postgres` has, or requests `webhook`, at the most. Default 4.
    pub pool_size: usize,
    /// How long a connection of `postgres`, `webhook` or `nats` may take to be there. Default 3 s.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// How long a statement of `postgres` may take. Default 3 s.
    #[serde(with = "units::duration")]
    pub statement_timeout: Duration,
    /// The next file of a tenant is begun before this one is larger, in bytes, if it is `files`; 0 for never. Default 0.
    #[serde(with = "units::bytes")]
    pub rotate_bytes: usize,
    /// The next file of a tenant is begun with the first batch that comes so long after the first one in this one, if it is `files`.
    /// `None`, written `"never"`, for never. Default never.
    #[serde(with = "units::duration_or_never")]
    pub rotate_every: Option<Duration>,
    /// Where `webhook` asks for a batch to be taken back; see [`WebhookOptions`], as for all that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_url: Option<String>,
    /// The file with the secrets that `webhook` signs with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// How the bodies of `webhook` are compressed. Default `none`.
    pub compression: Compression,
    /// Where the server of `object` is; see [`ObjectOptions`], as for all that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of the bucket of `object`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The file with the keys of `object`, or the secrets of `nats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// What an object is named. Default `{tenant}/{date}/{batch}`.
    pub path: String,
    /// What is in an object. Default `ndjson.zst`.
    pub format: ObjectFormat,
    /// Fields of events that become columns of `postgres`, and of `parquet`. Default none.
    pub columns: Vec<String>,
    /// Batches of `object` become part of a larger object once the first of them is there for so long. `None`, written `"never"`, for
    /// an object a batch. Default never.
    #[serde(with = "units::duration_or_never")]
    pub compact_after: Option<Duration>,
    /// The same as soon as they take so many bytes together. Default 16 MiB.
    #[serde(with = "units::bytes")]
    pub compact_bytes: usize,
    /// How long a request of `object`, `webhook` or `nats` may take. Default 3 s.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// The stream of `nats`; see [`NatsStoreOptions`], as for all that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The subject of a batch of `nats`. Default `headworks.{tenant}.{batch}`.
    pub subject: String,
    /// How many servers keep the messages of a stream that `nats` makes. Default 1.
    pub replicas: usize,
}

impl StoreConfig {
    /// What a store of type `webhook` is told. The secret is not in it.
    #[must_use]
    pub fn webhook_options(&self) -> WebhookOptions {
        WebhookOptions {
            url: self.url.clone().unwrap_or_default(),
            rollback_url: self.rollback_url.clone(),
            secret_file: self.secret_file.clone(),
            ca_file: self.ca_file.clone(),
            compression: self.compression,
            pool_size: self.pool_size,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            ..WebhookOptions::default()
        }
    }

    /// Whether what was stored can be taken back, which the first of several stores must be able to.
    #[must_use]
    pub fn can_roll_back(&self) -> bool {
        match self.kind {
            StoreKind::Webhook => self.rollback_url.is_some(),
            StoreKind::Stdout => false,
            StoreKind::Sqlite | StoreKind::Files | StoreKind::Postgres | StoreKind::Object | StoreKind::Nats => true,
        }
    }

    /// What a store of type `nats` is told. The secret is not in it.
    #[must_use]
    pub fn nats_options(&self) -> NatsStoreOptions {
        NatsStoreOptions {
            url: self.url.clone().unwrap_or_default(),
            stream: self.stream.clone().unwrap_or_default(),
            subject: self.subject.clone(),
            credentials_file: self.credentials_file.clone(),
            ca_file: self.ca_file.clone(),
            schema: self.schema,
            replicas: self.replicas,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            ..NatsStoreOptions::default()
        }
    }

    /// What a store of type `postgres` is told. The password is not in it.
    #[must_use]
    pub fn postgres_options(&self) -> PostgresOptions {
        PostgresOptions {
            url: self.url.clone().unwrap_or_default(),
            password_file: self.password_file.clone(),
            sslmode: self.sslmode,
            ca_file: self.ca_file.clone(),
            namespace: self.namespace.clone(),
            schema: self.schema,
            body: self.body,
            partition: self.partition,
            columns: self.columns.clone(),
            pool_size: self.pool_size,
            connect_timeout: self.connect_timeout,
            statement_timeout: self.statement_timeout,
            group_max_bytes: self.group_max_bytes,
            ..PostgresOptions::default()
        }
    }

    /// What a store of type `object` is told. No key is in it.
    #[must_use]
    pub fn object_options(&self) -> ObjectOptions {
        ObjectOptions {
            url: self.url.clone().unwrap_or_default(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            credentials_file: self.credentials_file.clone(),
            ca_file: self.ca_file.clone(),
            path: self.path.clone(),
            format: self.format,
            columns: self.columns.clone(),
            compact_after: self.compact_after,
            compact_bytes: self.compact_bytes,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            ..ObjectOptions::default()
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        let (postgres, object, nats) =
            (PostgresOptions::default(), ObjectOptions::default(), NatsStoreOptions::default());
        Self {
            kind: StoreKind::Sqlite,
            layout: Layout::Rows,
            segment_bytes: 64 << 20,
            group_max_bytes: 2 << 20,
            busy_timeout: Duration::from_millis(500),
            max_concurrency: 256,
            url: None,
            password_file: None,
            sslmode: SslMode::default(),
            ca_file: None,
            namespace: postgres.namespace,
            schema: SchemaMode::default(),
            body: BodyColumn::default(),
            partition: Partition::default(),
            pool_size: postgres.pool_size,
            connect_timeout: postgres.connect_timeout,
            statement_timeout: postgres.statement_timeout,
            rotate_bytes: 0,
            rotate_every: None,
            rollback_url: None,
            secret_file: None,
            compression: Compression::default(),
            endpoint: None,
            region: None,
            credentials_file: None,
            path: object.path,
            format: ObjectFormat::default(),
            columns: vec![],
            compact_after: object.compact_after,
            compact_bytes: object.compact_bytes,
            request_timeout: object.request_timeout,
            stream: None,
            subject: nats.subject,
            replicas: nats.replicas,
        }
    }
}

/// The kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreKind {
    /// One SQLite file, `headworks.db` in the data directory; by its [`Layout`] with further files in `headworks.segments`.
    Sqlite,
    /// Plain files, a directory a tenant, in `events` in the data directory.
    Files,
    /// A PostgreSQL server; for programs built with the feature `postgres`.
    Postgres,
    /// Objects in a directory or on S3; for programs built with the feature `object`.
    Object,
    /// A POST to an HTTP server for each batch; for programs built with the feature `webhook`.
    Webhook,
    /// The standard output, an event a line; for programs built with the feature `stdout`.
    Stdout,
    /// Messages of a NATS JetStream; for programs built with the feature `nats`.
    Nats,
}

impl StoreKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Files => "files",
            Self::Postgres => "postgres",
            Self::Object => "object",
            Self::Webhook => "webhook",
            Self::Stdout => "stdout",
            Self::Nats => "nats",
        }
    }

    /// Whether it obeys the rules of retention.
    pub(crate) fn prunes(self) -> bool {
        matches!(self, Self::Sqlite | Self::Files | Self::Postgres | Self::Object)
    }

    /// Whether nothing of it lies in the data directory.
    pub(crate) fn is_elsewhere(self) -> bool {
        !matches!(self, Self::Sqlite | Self::Files)
    }
}

/// `[dead_letters]`: what was given up on, kept in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLettersConfig {
    /// What the dead letters of one tenant may take, in bytes; frames without a tenant share as much. Default 256 MiB.
    #[serde(with = "units::bytes")]
    pub max_bytes_per_tenant: usize,
    /// What happens to one for which there is no room. Default `purge_oldest`.
    pub when_full: LettersWhenFull,
    /// One goes, and is counted as purged, once it was given up so long ago. `None`, written `"never"`, for never. Default never.
    #[serde(with = "units::duration_or_never")]
    pub max_age: Option<Duration>,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        Self { max_bytes_per_tenant: 256 << 20, when_full: LettersWhenFull::PurgeOldest, max_age: None }
    }
}

/// `[tenants]`: the rules tenants live by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantsConfig {
    /// The stores that batches go through, in order: a batch ends up in all of them or in none. `store` is the one of `[store]`.
    /// Default `["store"]`.
    pub stores: Vec<StoreName>,
    /// The stores of tenants that have others.
    pub stores_by_id: BTreeMap<TenantId, Vec<StoreName>>,
    /// Tenants whose events are dropped at the door, and counted. Default none.
    pub mute: BTreeSet<TenantId>,
    /// What becomes of events of tenants that have no entry in `by_id` or `stores_by_id` and are not on record. Default `spawn`.
    pub unknown: UnknownTenants,
    /// The tenant for `catch_all`. Default `others`.
    pub catch_all: TenantId,
    /// How many unknown tenants may come up a second, in the long run; 0 for any number. Default 0.
    pub max_spawn_rate: u32,
    /// How many of them may come up at once, where there is a rate. Default 1000.
    pub max_spawn_burst: u32,
    /// The rules of every tenant that has none of its own.
    pub defaults: Policy,
    /// Rules by a name, which tenants and rules may go by; complete.
    pub classes: BTreeMap<String, Policy>,
    /// Rules of tenants by pattern, complete. For a tenant without rules of its own the first one that matches counts.
    pub rules: Vec<TenantRule>,
    /// The rules of tenants that differ, complete: what such a tenant does not set itself is as in the first of `rules` that
    /// matches, else as in its class, else as in `defaults`.
    pub by_id: BTreeMap<TenantId, Policy>,
}

impl TenantsConfig {
    /// Whether any of the rules lets go of stored events.
    #[must_use]
    pub fn prunes(&self) -> bool {
        let patterns = self.rules.iter().map(|rule| &rule.policy);
        patterns.chain(self.by_id.values()).chain([&self.defaults]).any(|policy| !policy.retention.keeps_all())
    }
}

impl Default for TenantsConfig {
    fn default() -> Self {
        Self {
            stores: vec![StoreName::ONLY],
            stores_by_id: BTreeMap::new(),
            mute: BTreeSet::new(),
            unknown: UnknownTenants::Spawn,
            catch_all: others(),
            max_spawn_rate: 0,
            max_spawn_burst: 1_000,
            defaults: Policy::default(),
            classes: BTreeMap::new(),
            rules: vec![],
            by_id: BTreeMap::new(),
        }
    }
}

/// `[[tenants.rules]]`: the rules of the tenants that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantRule {
    /// Which: an id with `*` for any run of characters and `?` for one.
    #[serde(rename = "match")]
    pub pattern: TenantPattern,
    /// The class that they go by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Their rules, complete.
    #[serde(flatten)]
    pub policy: Policy,
}

#[expect(clippy::expect_used, reason = "a constant that follows the grammar")]
fn others() -> TenantId {
    TenantId::new("others").expect("it follows the grammar")
}

/// What becomes of events of unknown tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownTenants {
    /// Their tenants come up, as far as `limits.max_tenants` and `max_spawn_rate` allow.
    #[default]
    Spawn,
    /// They are rejected.
    Reject,
    /// They become events of the tenant `catch_all`, their bodies as they came.
    CatchAll,
}

impl TenantsConfig {
    /// What the system is told of unknown tenants.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        match self.unknown {
            UnknownTenants::Spawn => Unknown::Spawn,
            UnknownTenants::Reject => Unknown::Reject,
            UnknownTenants::CatchAll => Unknown::CatchAll(self.catch_all.clone()),
        }
    }

    /// The rules of every tenant. Those that are named anywhere are known by it.
    pub fn rules(&self) -> TenantRules {
        let rules = TenantRules::new(self.defaults.clone());
        let rules = self.rules.iter().fold(rules, |rules, by| rules.pattern(by.pattern.clone(), by.policy.clone()));
        let named = self.stores_by_id.keys().chain(self.by_id.keys());
        named.fold(rules, |rules, id| rules.tenant(id.clone(), self.policy(id).clone()))
    }

    /// The rules of one tenant.
    #[must_use]
    pub fn policy(&self, tenant: &TenantId) -> &Policy {
        let by_pattern = || self.rules.iter().find(|rule| rule.pattern.matches(tenant.as_str()));
        let own = self.by_id.get(tenant);
        own.or_else(|| by_pattern().map(|rule| &rule.policy)).unwrap_or(&self.defaults)
    }

    /// How fast they may come up.
    #[must_use]
    pub fn spawn_rate(&self) -> Option<SpawnRate> {
        let rate = SpawnRate { per_second: self.max_spawn_rate, burst: self.max_spawn_burst };
        (rate.per_second > 0).then_some(rate)
    }
}

/// `[metrics]`: the numbers of the daemon for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// How many tenants have series of their own, the busiest ones; all others are summed as `tenant="other"`. Default 100.
    pub max_tenants: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { max_tenants: 100 }
    }
}

/// `[retention]`: how what is stored is pruned, where the rules of tenants or `dead_letters.max_age` say that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// How often it is looked for what is due. Default 60 s.
    #[serde(with = "units::duration")]
    pub every: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { every: Duration::from_secs(60) }
    }
}
