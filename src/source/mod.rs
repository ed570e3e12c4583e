//! Where bytes come from. Each source opens an ingress a connection or a file, and reads no faster than it is taken in.

pub mod ack;
mod reader;
mod tcp;

pub use reader::ReaderSource;
pub use tcp::{TcpOptions, TcpSource};
