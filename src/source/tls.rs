//! TLS for the sources that listen.

mod clients;
mod names;
mod validity;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use headworks_actors::{Cause, Code};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::allowed::Peer;
use super::listener::Connection;
use crate::secret_file;
use crate::tls::{certificates, provider, roots};
use clients::Clients;
use validity::Validity;

/// The largest file of a key, in bytes.
const MOST_OF_KEY: usize = 1 << 20;

/// The certificate that a source shows, and those that it wants to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Its certificate (PEM), and behind it those that lead to one that clients trust.
    pub cert_file: PathBuf,
    /// The private key of the certificate (PEM), which nobody else may read.
    pub key_file: PathBuf,
    /// The certificates (PEM) of which one must have signed that of a client; none where clients need no certificate.
    pub client_ca_file: Option<PathBuf>,
    /// Whom a client may speak for, by its certificate.
    pub tenants: TlsTenants,
}

/// What a client's certificate says of the tenants that it may speak for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsTenants {
    /// Nothing: it may speak for everybody.
    #[default]
    Any,
    /// Their ids: they are the common name and the DNS names in it.
    Certificate,
    /// Who it is. This file says for each name, common or DNS or URI, which tenants it may speak for; whoever is not in it is refused.
    ///
    /// A line is `NAME PATTERN [PATTERN...]`, a name with spaces in quotes. Empty lines and those that begin with `#` are none.
    File(PathBuf),
}

/// TLS of one source; its clones are the same.
#[derive(Clone)]
pub struct Tls {
    options: Arc<TlsOptions>,
    protocols: &'static [&'static str],
    now: Arc<RwLock<Material>>,
}

/// What was read.
#[derive(Clone)]
struct Material {
    acceptor: TlsAcceptor,
    clients: Arc<Clients>,
    validity: Option<Validity>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.options).finish()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence with the file, its key in the configuration and what is wrong.
    pub fn open(options: TlsOptions) -> Result<Self, String> {
        Self::speaking(options, &[])
    }

    /// The same, for a protocol that clients may ask for by its name.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub fn speaking(options: TlsOptions, protocols: &'static [&'static str]) -> Result<Self, String> {
        let now = Material::read(&options, protocols)?;
        Ok(Self { options: Arc::new(options), protocols, now: Arc::new(RwLock::new(now)) })
    }

    /// Reads the files again; connections that are made from now on go by them.
    ///
    /// # Errors
    /// See [`open`](Self::open): nothing is changed.
    pub fn reload(&self) -> Result<(), String> {
        let fresh = Material::read(&self.options, self.protocols)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// A sentence with the file and the date where clients refuse the certificate at that time, or will within 14 days.
    #[must_use]
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let validity = self.now.read().unwrap_or_else(PoisonError::into_inner).validity;
        validity?.warning(&self.options.cert_file, now)
    }

    /// Shakes hands.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer), NotLetIn> {
        let Material { acceptor, clients, .. } = self.now.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = acceptor.accept(stream).await.map_err(|why| NotLetIn::by(&why))?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = clients.peer(shown).map_err(|why| NotLetIn(Cause::new(Code::TenantNotAllowed, why)))?;
        Ok((stream, peer))
    }
}

impl Material {
    fn read(options: &TlsOptions, protocols: &[&str]) -> Result<Self, String> {
        let TlsOptions { cert_file, key_file, client_ca_file, tenants } = options;
        let shown = certificates(cert_file, "tls.cert_file")?;
        let validity = Validity::of(&shown);
        let unread = |why: &dyn fmt::Display| {
            format!("cannot use the private key (PEM) in {} (tls.key_file): {why}", key_file.display())
        };
        let key = secret_file::read(key_file, MOST_OF_KEY).map_err(|why| unread(&why))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|why| unread(&why))?;
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|why| why.to_string())?;
        let config = match client_ca_file {
            None => config.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(path, "tls.client_ca_file")?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
                let unusable = |why| format!("cannot verify clients by {} (tls.client_ca_file): {why}", path.display());
                config.with_client_cert_verifier(verifier.map_err(unusable)?)
            }
        };
        let of_another = |why: Error| match why {
            Error::InconsistentKeys(_) => {
                unread(&format_args!("it is not that of the certificate in {} (tls.cert_file)", cert_file.display()))
            }
            other => unread(&other),
        };
        let mut config = config.with_single_cert(shown, key).map_err(of_another)?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        if client_ca_file.is_some() {
            // Whoever comes again shows the certificate again: it may have expired.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let clients = Arc::new(Clients::of(tenants)?);
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), clients, validity })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection for TlsStream<S> {
    fn halves(&mut self) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
        tokio::io::split(self)
    }
}

/// Why a connection is refused at the door.
#[derive(Debug)]
pub(super) struct NotLetIn(pub(super) Cause);

impl NotLetIn {
    fn new(why: impl Into<String>) -> Self {
        Self(Cause::new(Code::HandshakeFailed, why.into()))
    }

    pub(super) fn plain() -> Self {
        Self::new("it does not speak TLS, which this source does (tls.cert_file): have the client speak TLS")
    }

    pub(super) fn late(after: Duration) -> Self {
        Self::new(format!("its TLS handshake was not done after {} s", after.as_secs()))
    }

    fn by(why: &std::io::Error) -> Self {
        use rustls::CertificateError as Bad;
        let inner = why.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        Self::new(match inner {
            Some(Error::NoCertificatesPresented) => {
                "it shows no certificate, and has to show one (tls.client_ca_file)".to_owned()
            }
            Some(Error::InvalidCertificate(Bad::UnknownIssuer)) => {
                "its certificate is signed by none of those in tls.client_ca_file".to_owned()
            }
            Some(Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
                "its certificate has expired".to_owned()
            }
            Some(Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
                "its certificate is not valid yet: is the time of one of the two machines wrong?".to_owned()
            }
            Some(Error::AlertReceived(alert)) => {
                format!("it broke off the handshake ({alert:?}): does it trust the certificate in tls.cert_file?")
            }
            Some(other) => format!("the TLS handshake failed: {other}"),
            None => format!("the TLS handshake failed: {why}"),
        })
    }
}
