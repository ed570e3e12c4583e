//! The sources of the config, opened: each listens, or has what it goes on from, before any is read.

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(all(feature = "tail", unix))]
mod tail;

use std::io;
use std::net::SocketAddr;

use headworks_actors::{Framing, IngressSpec, Source};

use super::{DaemonError, decoder};
use crate::config::{Config, SourceConfig, SourceKind};
use crate::source::{TcpOptions, TcpSource};

/// A source that is not read yet, and where it listens if it does.
pub(super) type Opened = (Option<SocketAddr>, Box<dyn Source>);

/// What one needs to be opened.
struct Opening<'c> {
    name: &'c str,
    source: &'c SourceConfig,
    config: &'c Config,
}

impl Opening<'_> {
    /// It cannot listen.
    fn refused(&self, why: io::Error) -> DaemonError {
        DaemonError::Listen { name: self.name.to_owned(), listen: self.source.listen, why }
    }

    fn ingress(&self) -> IngressSpec {
        ingress(self.name, self.source, self.config)
    }
}

/// Opens one.
pub(super) fn open(name: &str, source: &SourceConfig, config: &Config) -> Result<Opened, DaemonError> {
    let opening = Opening { name, source, config };
    match source.kind {
        SourceKind::Tcp => {
            let options = TcpOptions { max_connections: source.max_connections, ack: source.ack };
            let tcp = TcpSource::bind(name, source.listen, opening.ingress(), options);
            let tcp = tcp.map_err(|why| opening.refused(why))?;
            Ok((Some(tcp.local_addr().map_err(|why| opening.refused(why))?), Box::new(tcp)))
        }
        #[cfg(feature = "http")]
        SourceKind::Http => http::open(&opening),
        #[cfg(all(feature = "tail", unix))]
        SourceKind::Tail => tail::open(&opening),
        #[cfg(feature = "syslog")]
        SourceKind::Syslog => syslog::open(&opening),
        #[cfg(feature = "nats")]
        SourceKind::Nats => nats::open(&opening),
        // With all features there is none left.
        #[cfg_attr(
            all(feature = "http", feature = "tail", feature = "syslog", feature = "nats", unix),
            expect(unreachable_patterns)
        )]
        _ => Err(DaemonError::NotBuilt { what: "source", kind: source.kind.as_str() }),
    }
}

/// How the frames of a source are divided and read.
pub(super) fn ingress(name: &str, source: &SourceConfig, config: &Config) -> IngressSpec {
    let max_bytes = source.max_frame;
    let framing = match source.framing {
        crate::config::Framing::Lines => Framing::Lines { max_bytes },
        crate::config::Framing::LengthPrefixed => Framing::LengthPrefixed { max_bytes },
    };
    IngressSpec::new(name, framing, decoder(config))
}
