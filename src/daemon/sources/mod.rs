//! The sources of the config, opened: each listens, or has what it goes on from, before any is read.

mod demo;
mod files;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(all(feature = "tail", unix))]
mod tail;
#[cfg(feature = "websocket")]
mod websocket;

use std::io;
use std::net::SocketAddr;

use headworks_actors::{Framing, IngressSpec, Source};

use super::{DaemonError, decoder};
use crate::config::{Config, SourceConfig, SourceKind};
use crate::source::{TcpOptions, TcpSource, Tls};
pub(super) use files::Files;

/// A source that is not read yet, and where it listens if it does.
pub(super) type Opened = (Option<SocketAddr>, Box<dyn Source>);

/// What one needs to be opened.
struct Opening<'c> {
    name: &'c str,
    source: &'c SourceConfig,
    config: &'c Config,
    files: &'c Files,
    /// How many connections it may have: what the configuration says, or its part of what the process can have open.
    max_connections: usize,
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

/// How one is encrypted, if it is.
fn tls(name: &str, source: &SourceConfig) -> Result<Option<Tls>, DaemonError> {
    #[cfg(feature = "tls")]
    if let (Some(cert_file), Some(key_file)) = (source.tls.cert_file.clone(), source.tls.key_file.clone()) {
        use crate::config::CertificateTenants;
        use crate::source::{TlsOptions, TlsTenants};
        let tenants = match (&source.tls.tenants_file, source.tls.tenants) {
            (Some(path), _) => TlsTenants::File(path.clone()),
            (None, CertificateTenants::Certificate) => TlsTenants::Certificate,
            (None, CertificateTenants::Any) => TlsTenants::Any,
        };
        let options = TlsOptions { cert_file, key_file, client_ca_file: source.tls.client_ca_file.clone(), tenants };
        let is_http = matches!(source.kind, SourceKind::Http | SourceKind::WebSocket);
        let protocols: &[&str] = if is_http { &["http/1.1"] } else { &[] };
        let tls = Tls::speaking(options, protocols);
        return tls.map(Some).map_err(|why| DaemonError::Tls { name: name.to_owned(), why });
    }
    let _ = (name, source);
    Ok(None)
}

/// Opens one.
pub(super) fn open(
    name: &str,
    source: &SourceConfig,
    files: &Files,
    config: &Config,
    max_connections: usize,
) -> Result<Opened, DaemonError> {
    let opening = Opening { name, source, config, files, max_connections };
    match source.kind {
        SourceKind::Tcp => {
            let options = TcpOptions {
                max_connections: opening.max_connections,
                ack: source.ack,
                octet_counted: source.framing == crate::config::Framing::OctetCounted,
                idle_timeout: source.idle(),
                tls: opening.files.tls.clone(),
            };
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
        SourceKind::Demo => Ok(demo::open(&opening)),
        #[cfg(feature = "websocket")]
        SourceKind::WebSocket => websocket::open(&opening),
        #[cfg(feature = "mqtt")]
        SourceKind::Mqtt => mqtt::open(&opening),
        #[cfg(feature = "nats")]
        SourceKind::Nats => nats::open(&opening),
        // With all features there is none left.
        #[cfg_attr(
            all(feature = "websocket", feature = "tail", feature = "syslog", feature = "mqtt", feature = "nats", unix),
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
        // Counts are made lengths on the way.
        crate::config::Framing::LengthPrefixed | crate::config::Framing::OctetCounted => {
            Framing::LengthPrefixed { max_bytes }
        }
    };
    IngressSpec::new(name, framing, decoder(config))
}
