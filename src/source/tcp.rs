mod acked;
mod answers;
mod connection;

#[cfg(any(feature = "syslog", feature = "websocket"))]
pub(in crate::source) use answers::Gate;
#[cfg(feature = "websocket")]
pub(in crate::source) use answers::{ALIVE_EVERY, reply};
#[cfg(feature = "syslog")]
pub(in crate::source) use connection::{finish, goodbye, read_all};

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, Framing, IngressSpec, Intake, Source};

use super::Tls;
use super::listener::{self, Port};
use connection::Frames;

/// How a listener treats its connections.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// How many connections may be open; further ones wait in the operating system's queue. Default 1,024.
    pub max_connections: usize,
    /// When a frame is acknowledged to a client that asks, at the earliest: the later of this, what its tenant's policy says
    /// and what it asks for counts. Default [`AckLevel::Received`].
    pub ack: AckLevel,
    /// Frames come counted, as RFC 6587 (3.4.1) has it: the number of their bytes in decimal digits, a space, the bytes. What begins
    /// with anything but a digit ends with a newline. The framing of the ingress is to be [`Framing::LengthPrefixed`], for its limit.
    /// Default no.
    pub octet_counted: bool,
    /// How long a connection may bring no whole frame, nor 64 KiB of one, before it is closed; the time that the system takes to take
    /// in what came does not count. Default: for ever.
    pub idle_timeout: Option<Duration>,
    /// How connections are encrypted; none where they are not. Default none.
    pub tls: Option<Tls>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { max_connections: 1_024, ack: AckLevel::Received, octet_counted: false, idle_timeout: None, tls: None }
    }
}

/// A TCP listener: one ingress a connection.
///
/// A client that closes its side, or half of it, has its connection closed once all it sent was taken in. A connection is not
/// read while what it brought waits for room: the sender feels a slow store.
///
/// A client may ask for acknowledgements with its first line, and is then answered frame by frame; see [`ack`](super::ack).
/// One that does not ask is told nothing.
#[derive(Debug)]
pub struct TcpSource {
    name: String,
    spec: IngressSpec,
    listener: TcpListener,
    options: TcpOptions,
}

impl TcpSource {
    /// Listens on `listen`; connections are accepted once the source is added to a system.
    ///
    /// # Errors
    /// The operating system refuses the address; or frames are to be counted, and the framing of `spec` is another.
    pub fn bind(
        name: impl Into<String>,
        listen: SocketAddr,
        spec: IngressSpec,
        options: TcpOptions,
    ) -> io::Result<Self> {
        if options.octet_counted && !matches!(spec.framing(), Framing::LengthPrefixed { .. }) {
            let why = "frames that are counted are frames behind their length (Framing::LengthPrefixed)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let listener = listener::bind(listen)?;
        Ok(Self { name: name.into(), spec, listener, options })
    }

    /// The address it listens on: with the real port where 0 was asked for.
    ///
    /// # Errors
    /// The operating system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Source for TcpSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        let Self { name, spec, listener, options } = *self;
        let TcpOptions { max_connections, ack, octet_counted, idle_timeout: idle, tls } = options;
        let frames = Frames { spec, least: ack, is_counted: octet_counted, idle };
        listener::run(Port { name, listener, max_connections, idle, tls }, intake, frames).boxed_local()
    }
}
