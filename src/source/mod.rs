//! Where bytes come from. Each source opens an ingress a connection or a file, and reads no faster than it is taken in.

pub mod ack;
mod allowed;
mod buffers;
mod demo;
#[cfg(feature = "http")]
mod http;
mod idle;
mod listener;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
mod octet_counted;
mod reader;
mod replay;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(all(feature = "tail", unix))]
mod tail;
mod tcp;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

pub use demo::{DemoOptions, DemoSource};
#[cfg(feature = "http")]
pub use http::{BadTokens, HttpOptions, HttpSource, HttpTenant, Tokens};
#[cfg(feature = "mqtt")]
pub use mqtt::{InvalidFilter, MqttOptions, MqttPayload, MqttSource, MqttUrl, MqttVersion, TopicFilter};
#[cfg(feature = "nats")]
pub use nats::{InvalidSubject, NatsOptions, NatsSource, SubjectPattern};
pub use reader::ReaderSource;
pub use replay::{REPLAY_RATE, ReplayError, ReplayReport, Replayer};
#[cfg(feature = "syslog")]
pub use syslog::{InvalidTenantName, SyslogDecoder, SyslogOptions, SyslogSource, SyslogTenant, Transport};
#[cfg(all(feature = "tail", unix))]
pub use tail::{InvalidPattern, PathPattern, TailOptions, TailSource};
pub use tcp::{TcpOptions, TcpSource};
pub use tls::Tls;
#[cfg(feature = "tls")]
pub use tls::{TlsOptions, TlsTenants};
#[cfg(feature = "websocket")]
pub use websocket::{WebSocketOptions, WebSocketSource};
