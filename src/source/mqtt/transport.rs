use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::MqttUrl;

/// What bytes go over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

/// Connects, and encrypts if that is asked for. The certificates are read each time: they may have been renewed.
pub(super) async fn connect(url: &MqttUrl, ca_file: Option<&Path>) -> Result<Box<dyn Transport>, String> {
    let MqttUrl { host, port, is_encrypted } = url;
    let tcp = TcpStream::connect((host.as_str(), *port)).await;
    let tcp = tcp.map_err(|why| format!("cannot connect to {host}:{port}: {why}"))?;
    tcp.set_nodelay(true).map_err(|why| why.to_string())?;
    if !is_encrypted {
        return Ok(Box::new(tcp));
    }
    let connector = connector(ca_file)?;
    let name = ServerName::try_from(host.clone()).map_err(|why| format!("{host} is no name of a server: {why}"))?;
    let encrypted = connector.connect(name, tcp).await;
    Ok(Box::new(encrypted.map_err(|why| format!("no encrypted connection to {host}:{port}: {why}"))?))
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let Some(path) = ca_file else { return Err("an encrypted connection needs a ca_file".to_owned()) };
    let unread = |why: &dyn std::fmt::Display| {
        format!("cannot read certificates (PEM) from {} (ca_file): {why}", path.display())
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path).map_err(|why| unread(&why))? {
        roots.add(root.map_err(|why| unread(&why))?).map_err(|why| unread(&why))?;
    }
    if roots.is_empty() {
        return Err(unread(&"there is none in it"));
    }
    // Said out loud, so that it is the same whatever else the program is made of.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|why| why.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
