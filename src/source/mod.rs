//! Where bytes come from. Each source opens an ingress a connection or a file, and reads no faster than it is taken in.

pub mod ack;
#[cfg(feature = "http")]
mod http;
mod listener;
mod reader;
mod replay;
mod tcp;

#[cfg(feature = "http")]
pub use http::{BadTokens, HttpOptions, HttpSource, TenantFrom, Tokens};
pub use reader::ReaderSource;
pub use replay::{REPLAY_RATE, ReplayError, ReplayReport, Replayer};
pub use tcp::{TcpOptions, TcpSource};
