//! Where bytes come from. Each source opens an ingress a connection or a file, and reads no faster than it is taken in.

pub mod ack;
mod reader;
mod replay;
mod tcp;

pub use reader::ReaderSource;
pub use replay::{REPLAY_RATE, ReplayError, ReplayReport, Replayer};
pub use tcp::{TcpOptions, TcpSource};
