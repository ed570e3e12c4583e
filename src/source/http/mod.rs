mod array;
mod asked;
mod body;
mod connection;
mod known;
mod outcome;
mod patient;
mod request;
mod tokens;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, Intake, Json, Source};

#[cfg(feature = "websocket")]
pub(super) use asked::{bearer, pairs, tenant};
#[cfg(feature = "websocket")]
pub(super) use connection::{Hold, serve as serve_connection};
#[cfg(feature = "websocket")]
pub(super) use outcome::refusal;
#[cfg(feature = "websocket")]
pub(super) use request::Site;

pub use asked::HttpTenant;
pub use tokens::{BadTokens, Tokens};

use super::Tls;
use super::listener::{self, Port};

/// How a listener for HTTP treats its clients.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// How many connections may be open; further ones wait in the operating system's queue. Default 1,024.
    pub max_connections: usize,
    /// The longest line or element of an array, in bytes. Default 1 MiB.
    pub max_frame: usize,
    /// The largest body, in bytes, once it is decompressed. Default 64 MiB.
    pub max_body: usize,
    /// How long a client may take for the head of a request, for a whole line of its body, or to read any of its answer. Default
    /// 60 s.
    pub idle_timeout: Duration,
    /// How long a request waits for room, and for its events to be as safe as it asks, before it is answered that they are
    /// not. Default 30 s.
    pub answer_within: Duration,
    /// How safe an event must be at least before a request is answered with 200. Default [`AckLevel::Received`].
    pub ack: AckLevel,
    /// Where it stands whose event one is. Default [`HttpTenant::Field`].
    pub tenant_from: HttpTenant,
    /// Who may speak for whom; everybody for everybody where there are none. Default none.
    pub tokens: Option<Tokens>,
    /// How connections are encrypted; none where they are not. Default none.
    pub tls: Option<Tls>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_frame: 1 << 20,
            max_body: 64 << 20,
            idle_timeout: Duration::from_secs(60),
            answer_within: Duration::from_secs(30),
            ack: AckLevel::Received,
            tenant_from: HttpTenant::Field,
            tokens: None,
            tls: None,
        }
    }
}

/// A listener for `POST /v1/events`: JSON by lines or in an array, as it is or in gzip or zstd.
///
/// A body goes in as it comes, and is not read while what it brought waits for room. The answer comes once all of it is as
/// safe as was asked for: `docs/HTTP.md` says what it is. A request with an `Idempotency-Key` is a stream of numbered frames
/// named by that; one that is repeated goes on where it ended.
#[derive(Debug)]
pub struct HttpSource {
    name: String,
    decoder: Json,
    listener: TcpListener,
    options: HttpOptions,
}

impl HttpSource {
    /// Listens on `listen`; connections are accepted once the source is added to a system.
    ///
    /// # Errors
    /// The operating system refuses the address.
    pub fn bind(name: impl Into<String>, listen: SocketAddr, decoder: Json, options: HttpOptions) -> io::Result<Self> {
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

impl Source for HttpSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        let Self { name, decoder, listener, options } = *self;
        let (max_connections, idle, tls) = (options.max_connections, options.idle_timeout, options.tls.clone());
        let site = request::Site::new(name.clone(), decoder, options);
        let port = Port { name, listener, max_connections, idle: Some(idle), tls };
        super::listener::run(port, intake, connection::Requests { site, idle, answer: request::answer }).boxed_local()
    }
}
