mod acked;
mod answers;
mod connection;

#[cfg(any(feature = "syslog", feature = "websocket"))]
pub(in crate::source) use answers::Gate;
#[cfg(feature = "websocket")]
pub(in crate::source) use answers::{ALIVE_EVERY, reply};
#[cfg(feature = "syslog")]
pub(in crate::source) use connection::{End, read_all};

use std::io;
use std::net::{SocketAddr, TcpListener};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, IngressSpec, Intake, Source};

use super::listener;

/// How a listener treats its connections.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// How many connections may be open; further ones wait in the operating system's queue. Default 1,024.
    pub max_connections: usize,
    /// When a frame is acknowledged to a client that asks, at the earliest: the later of this, what its tenant's policy says
    /// and what it asks for counts. Default [`AckLevel::Received`].
    pub ack: AckLevel,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { max_connections: 1_024, ack: AckLevel::Received }
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
    /// The operating system refuses the address.
    pub fn bind(
        name: impl Into<String>,
        listen: SocketAddr,
        spec: IngressSpec,
        options: TcpOptions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
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
        listener::run(name, listener, options.max_connections, intake, move |stream, intake, place| {
            let spec = spec.clone();
            async move { connection::serve(stream, &intake, spec, options.ack, place).await }.boxed_local()
        })
        .boxed_local()
    }
}
