//! Where bytes come from. Each source opens an ingress a connection or a file, and reads no faster than it is taken in.

pub mod ack;
#[cfg(feature = "http")]
mod http;
mod listener;
#[cfg(feature = "nats")]
mod nats;
mod reader;
mod replay;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(all(feature = "tail", unix))]
mod tail;
mod tcp;

#[cfg(feature = "http")]
pub use http::{BadTokens, HttpOptions, HttpSource, HttpTenant, Tokens};
#[cfg(feature = "nats")]
pub use nats::{InvalidSubject, NatsOptions, NatsSource, SubjectPattern};
pub use reader::ReaderSource;
pub use replay::{REPLAY_RATE, ReplayError, ReplayReport, Replayer};
#[cfg(feature = "syslog")]
pub use syslog::{InvalidTenantName, SyslogDecoder, SyslogOptions, SyslogSource, SyslogTenant, Transport};
#[cfg(all(feature = "tail", unix))]
pub use tail::{InvalidPattern, PathPattern, TailOptions, TailSource};
pub use tcp::{TcpOptions, TcpSource};
