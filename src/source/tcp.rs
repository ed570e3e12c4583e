mod acked;
mod answers;
mod connection;

#[cfg(feature = "syslog")]
pub(in crate::source) use answers::Gate;
#[cfg(feature = "syslog")]
pub(in crate::source) use connection::{End, read_all};

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, IngressSpec, Intake, Source};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// How long to wait before accepting again after the operating system refused a connection, as when it is out of file
/// descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

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
        async move {
            let Self { name, spec, listener, options } = *self;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|why| why.to_string())?;
            let all = u32::try_from(options.max_connections).unwrap_or(u32::MAX);
            let places = Arc::new(Semaphore::new(all as usize));
            let mut closing = std::pin::pin!(intake.closing());
            loop {
                let accept = async {
                    // The semaphore is never closed.
                    let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
                    (place, listener.accept().await)
                };
                let (place, accepted) = tokio::select! {
                    biased;
                    () = &mut closing => break,
                    accepted = accept => accepted,
                };
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(why) => {
                        tracing::warn!(target: "headworks", source = name, %why, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                };
                let (spec, name) = (spec.clone(), name.clone());
                // To the thread that reads it, whose runtime is to know of it.
                let stream = stream.into_std();
                intake.spread(move |intake| {
                    async move {
                        let served = async {
                            let stream = stream.and_then(TcpStream::from_std).map_err(|why| why.to_string())?;
                            connection::serve(stream, &intake, spec, options.ack, place).await
                        };
                        if let Err(why) = served.await {
                            tracing::info!(target: "headworks", source = name, %peer, %why, "connection ended");
                        }
                    }
                    .boxed_local()
                });
            }
            drop(listener);
            // Every place is back once every connection has fed what it had read.
            let _ = places.acquire_many(all).await;
            Ok(())
        }
        .boxed_local()
    }
}
