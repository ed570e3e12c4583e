mod datagrams;
mod decode;
mod streams;
mod tenant;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{Framing, IngressSpec, Intake, Source};
use serde::{Deserialize, Serialize};

pub use decode::SyslogDecoder;
pub use tenant::{InvalidTenantName, SyslogTenant};

use super::Tls;
use super::listener::{self, Port};
use streams::Messages;

/// By which ways messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// UDP and TCP, on the same port.
    #[default]
    Both,
    /// A datagram a message. What comes while nothing can be taken in is dropped by the kernel.
    Udp,
    /// Messages that are counted (RFC 6587, 3.4.1) or end with a newline (3.4.2): each says which by its first byte.
    Tcp,
}

/// How a syslog listener treats what comes.
#[derive(Debug, Clone)]
pub struct SyslogOptions {
    /// By which ways messages come. Default both.
    pub transport: Transport,
    /// The largest message, in bytes; a larger one is malformed. Default 1 MiB.
    pub max_frame: usize,
    /// How many TCP connections may be open; further ones wait. Default 1,024.
    pub max_connections: usize,
    /// How long a TCP connection may bring no whole message, nor 64 KiB of one, before it is closed. Default: for ever.
    pub idle_timeout: Option<Duration>,
    /// How TCP connections are encrypted; none where they are not. Datagrams never are. Default none.
    pub tls: Option<Tls>,
}

impl Default for SyslogOptions {
    fn default() -> Self {
        Self { transport: Transport::Both, max_frame: 1 << 20, max_connections: 1_024, idle_timeout: None, tls: None }
    }
}

/// Syslog, RFC 5424 and RFC 3164, over UDP and TCP. A message becomes an event as [`SyslogDecoder`] says.
///
/// Nothing is acknowledged: syslog knows no acknowledgements. A TCP connection is read no faster than its messages are taken in; of
/// datagrams the kernel keeps some, and what it drops is counted where it tells.
#[derive(Debug)]
pub struct SyslogSource {
    name: String,
    spec: IngressSpec,
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
    options: SyslogOptions,
    lost: Arc<AtomicU64>,
}

impl SyslogSource {
    /// Listens on `listen`; messages are taken in once the source is added to a system.
    ///
    /// # Errors
    /// The operating system refuses the address.
    pub fn bind(
        name: impl Into<String>,
        listen: SocketAddr,
        decoder: SyslogDecoder,
        options: SyslogOptions,
    ) -> io::Result<Self> {
        let name = name.into();
        let framing = Framing::LengthPrefixed { max_bytes: options.max_frame };
        let spec = IngressSpec::new(&name, framing, decoder);
        let (mut udp, mut tcp, mut listen) = (None, None, listen);
        if options.transport != Transport::Udp {
            let listener = listener::bind(listen)?;
            // Where any port would do, it is the same one.
            listen = listener.local_addr()?;
            tcp = Some(listener);
        }
        if options.transport != Transport::Tcp {
            let socket = UdpSocket::bind(listen)?;
            socket.set_nonblocking(true)?;
            udp = Some(socket);
        }
        Ok(Self { name, spec, udp, tcp, options, lost: Arc::default() })
    }

    /// The address it listens on: with the real port where 0 was asked for.
    ///
    /// # Errors
    /// The operating system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match (&self.tcp, &self.udp) {
            (Some(tcp), _) => tcp.local_addr(),
            (None, Some(udp)) => udp.local_addr(),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// How many datagrams the kernel is known to have dropped, as it grows. Known on Linux.
    #[must_use]
    pub fn lost_datagrams(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }
}

impl Source for SyslogSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let Self { name, spec, udp, tcp, options, lost } = *self;
            let datagrams = async {
                match udp {
                    Some(socket) => datagrams::take_in(&name, socket, spec.clone(), &intake, &lost).await,
                    None => Ok(()),
                }
            };
            let streams = async {
                match tcp {
                    Some(listener) => {
                        let SyslogOptions { max_frame, max_connections, idle_timeout: idle, ref tls, .. } = options;
                        let port = Port { name: name.clone(), listener, max_connections, idle, tls: tls.clone() };
                        let messages = Messages { spec: spec.clone(), max_frame, idle };
                        listener::run(port, intake.clone(), messages).await
                    }
                    None => Ok(()),
                }
            };
            let (datagrams, streams) = futures::future::join(datagrams, streams).await;
            datagrams.and(streams)
        }
        .boxed_local()
    }
}
