use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
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
    let config = crate::tls::client(path)?;
    Ok(TlsConnector::from(Arc::new(config)))
}
