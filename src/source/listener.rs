//! The loop that accepts connections, whatever is spoken on them, in TLS or in the clear.

mod door;
mod refusal;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use headworks_actors::Intake;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::allowed::Peer;
use super::tls::Tls;
use door::Door;

/// How many connections the operating system takes before they are accepted: many clients come back at once after a restart. It may
/// have a limit of its own (`net.core.somaxconn`, 4,096 on Linux).
const BACKLOG: i32 = 1_024;

/// Listens on an address.
pub(in crate::source) fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    // As the standard library does it: one that was there a moment ago holds the address else.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// How long to wait before accepting again after the operating system refused a connection, as when it is out of file
/// descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What bytes come and go on. All that is done with one is compiled for the socket itself and for TLS over it.
pub(in crate::source) trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The way in and the way out, for use at the same time.
    fn halves(&mut self) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin);
}

impl Connection for TcpStream {
    fn halves(&mut self) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
        self.split()
    }
}

/// What is spoken on the connections of a source.
pub(in crate::source) trait Serve: Clone + Send + 'static {
    /// Serves one until it ends, or until all it brought was fed and the system closes: so long it holds `place`.
    fn serve(
        self,
        connection: impl Connection,
        peer: Peer,
        intake: Intake,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<(), String>>;
}

/// Where connections come in.
#[derive(Debug)]
pub(in crate::source) struct Port {
    /// The name of the source.
    pub(in crate::source) name: String,
    pub(in crate::source) listener: TcpListener,
    /// How many may be open at a time.
    pub(in crate::source) max_connections: usize,
    /// How long one may say nothing at all at its beginning.
    pub(in crate::source) idle: Option<Duration>,
    pub(in crate::source) tls: Option<Tls>,
}

/// Accepts connections, each to be served by `serve` on one of the system's threads, until the system closes and each of them has
/// given back its place.
pub(in crate::source) async fn run(port: Port, intake: Intake, serve: impl Serve) -> Result<(), String> {
    let Port { name, listener, max_connections, idle, tls } = port;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|why| why.to_string())?;
    let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(all as usize));
    let door = Arc::new(Door::new(name, idle, tls));
    let mut is_refused = false;
    let mut closing = std::pin::pin!(intake.closing());
    loop {
        let accept = async {
            if places.available_permits() == 0 {
                door.is_full(max_connections);
            }
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
            let turn = door.turn().await;
            (place, turn, listener.accept().await)
        };
        let (place, turn, accepted) = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = accept => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => {
                if std::mem::take(&mut is_refused) {
                    tracing::info!(target: "headworks", source = door.name, "connections are accepted again");
                }
                accepted
            }
            Err(why) => {
                if !std::mem::replace(&mut is_refused, true) {
                    door.cannot_accept(&why);
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (door, serve) = (door.clone(), serve.clone());
        // To the thread that reads it, whose runtime is to know of it.
        let stream = stream.into_std();
        intake.spread(move |intake| {
            async move {
                let served = async {
                    let stream = stream.and_then(TcpStream::from_std).map_err(|why| why.to_string())?;
                    door.enter(stream, from, turn, intake, serve, place).await
                };
                if let Err(why) = served.await {
                    tracing::info!(target: "headworks", source = door.name, peer = %from, %why, "connection ended");
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
