mod handshake;
mod lines;
mod talk;
mod telling;

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, Intake, Json, Source};
use tokio::sync::OwnedSemaphorePermit;

use super::allowed::Peer;
use super::http::{HttpOptions, HttpTenant, Site, Tokens, serve_connection};
use super::listener::{self, Connection, Port, Serve};
use super::tls::Tls;
use handshake::Door;

/// How a listener for WebSocket treats its clients.
#[derive(Debug, Clone)]
pub struct WebSocketOptions {
    /// How many connections may be open; further ones wait in the operating system's queue. Default 1,024.
    pub max_connections: usize,
    /// The longest line of a message, in bytes; a longer one is refused, and the others are kept. Default 1 MiB.
    pub max_frame: usize,
    /// The largest message, in bytes; the connection of one that sends a larger one is closed. Each connection may have as
    /// much of memory. Default 1 MiB.
    pub max_message: usize,
    /// How long a client may take for the handshake or for a message, or be silent, also to pings, or not read what it is
    /// told. Default 60 s.
    pub idle_timeout: Duration,
    /// When a line is acknowledged to a client that asks, at the earliest. Default [`AckLevel::Received`].
    pub ack: AckLevel,
    /// Where it stands whose event one is. Default [`HttpTenant::Field`].
    pub tenant_from: HttpTenant,
    /// Who may speak for whom; everybody for everybody where there are none, but for pages in a browser. Default none.
    pub tokens: Option<Tokens>,
    /// How connections are encrypted. Default not at all.
    pub tls: Option<Tls>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_frame: 1 << 20,
            max_message: 1 << 20,
            idle_timeout: Duration::from_secs(60),
            ack: AckLevel::Received,
            tenant_from: HttpTenant::Field,
            tokens: None,
            tls: None,
        }
    }
}

/// A listener for WebSocket connections to `/v1/ws`: messages of lines in, acknowledgements out where a client asks.
///
/// A message, text or binary, holds whole lines, the last with or without its end. A connection is not read while what it brought
/// waits for room. `docs/WEBSOCKET.md` has the rest.
#[derive(Debug)]
pub struct WebSocketSource {
    name: String,
    decoder: Json,
    listener: TcpListener,
    options: WebSocketOptions,
}

impl WebSocketSource {
    /// Listens on `listen`; connections are accepted once the source is added to a system.
    ///
    /// # Errors
    /// The operating system refuses the address.
    pub fn bind(
        name: impl Into<String>,
        listen: SocketAddr,
        decoder: Json,
        options: WebSocketOptions,
    ) -> io::Result<Self> {
        let listener = listener::bind(listen)?;
        Ok(Self { name: name.into(), decoder, listener, options })
    }

    /// The address it listens on: with the real port where 0 was asked for.
    ///
    /// # Errors
    /// The operating system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Source for WebSocketSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        let Self { name, decoder, listener, options } = *self;
        let WebSocketOptions { max_connections, max_frame, max_message, idle_timeout, ack, tenant_from, tokens, tls } =
            options;
        let http = HttpOptions { max_frame, idle_timeout, ack, tenant_from, tokens, ..HttpOptions::default() };
        let site = Site::new(name.clone(), decoder, http);
        let port = Port { name, listener, max_connections, idle: Some(idle_timeout), tls };
        listener::run(port, intake, WebSockets { site, max_message }).boxed_local()
    }
}

/// Connections of one WebSocket each.
#[derive(Clone)]
struct WebSockets {
    site: Site,
    max_message: usize,
}

impl Serve for WebSockets {
    /// The request that it begins with, and then what comes of it.
    async fn serve(
        self,
        connection: impl Connection,
        peer: Peer,
        intake: Intake,
        place: OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let idle = self.site.options.idle_timeout;
        let site = self.site.of_peer(peer);
        let door = Door { site, max_message: self.max_message, opened: Rc::new(RefCell::new(None)) };
        serve_connection(connection, door.clone(), intake, idle, place, handshake::answer).await?;
        let Some((upgrade, talk)) = door.opened.take() else { return Ok(()) };
        let stream = upgrade.await.map_err(|why| format!("the handshake failed: {why}"))?;
        talk.serve(stream).await
    }
}
