//! Connections, and who one is.

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::sync::{broadcast, watch};

use crate::secret_file;
use crate::text::chain;

/// So many denials may come before somebody looks.
const DENIALS: usize = 256;

/// The way to a server.
#[derive(Debug)]
pub(crate) struct Way<'o> {
    /// What the server calls this client in its lists.
    pub(crate) name: String,
    /// The servers, with commas between them.
    pub(crate) url: &'o str,
    /// The file with the secrets.
    pub(crate) credentials: Option<&'o Path>,
    /// The file with the certificates that are trusted.
    pub(crate) ca: Option<&'o Path>,
    /// How long one server may take.
    pub(crate) timeout: Duration,
    /// Many share it: a right that one of them lacks is told by [`Connection::denied`], and does not end it.
    pub(crate) is_shared: bool,
}

/// A connection, which is not made again once it is lost: a new one has the secrets as they are by then.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Why it is of no use any more, once it is.
    pub(crate) gone: watch::Sender<Option<String>>,
    /// What the server does not let one do, in its words.
    pub(crate) denied: broadcast::Sender<String>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Unconnected {
    pub(crate) why: String,
    /// It will not pass by itself: wrong secrets, certificates that are not trusted, no address.
    pub(crate) is_refusal: bool,
}

impl From<String> for Unconnected {
    fn from(why: String) -> Self {
        Self { why, is_refusal: true }
    }
}

impl Way<'_> {
    /// Connects to one of the servers.
    pub(crate) async fn connect(&self) -> Result<Connection, Unconnected> {
        let addresses = self.url.split(',').map(|url| url.trim().parse::<ServerAddr>());
        let addresses: Vec<_> =
            addresses.collect::<Result<_, _>>().map_err(|why| format!("url {}: {why}", self.url))?;
        let gone = watch::Sender::new(None);
        let denied = broadcast::Sender::new(DENIALS);
        let (tell, deny, is_shared) = (gone.clone(), denied.clone(), self.is_shared);
        let connecting = self
            .identified()?
            .name(&self.name)
            .connection_timeout(self.timeout)
            .max_reconnects(addresses.len())
            .event_callback(move |event| {
                match event {
                    Event::Disconnected | Event::Closed => {
                        tell.send_if_modified(|gone| {
                            gone.is_none().then(|| *gone = Some("the connection was lost".to_owned())).is_some()
                        });
                    }
                    // What asked for it waits in vain.
                    Event::ServerError(why) if is_shared && is_denial(&why.to_string()) => {
                        // Nobody may be waiting any more.
                        let _ = deny.send(why.to_string());
                    }
                    Event::ServerError(why) => drop(tell.send_replace(Some(format!("the server says: {why}")))),
                    _ => {}
                }
                std::future::ready(())
            });
        match connecting.connect(addresses).await {
            Ok(client) => Ok(Connection { client, gone, denied }),
            Err(why) => Err(Unconnected {
                is_refusal: matches!(
                    why.kind(),
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Tls
                ),
                why: format!("cannot connect to {}: {}", self.url, chain(&why)),
            }),
        }
    }

    /// With the secrets of the file.
    fn identified(&self) -> Result<ConnectOptions, String> {
        let plain = ConnectOptions::new();
        let mut identified = match self.credentials {
            None => plain,
            Some(path) => {
                let refused =
                    |why: &str| format!("cannot use the credentials in {} (credentials_file): {why}", path.display());
                let text = secret_file::read(path, secret_file::MOST).map_err(|why| refused(&why.to_string()))?;
                match text.trim() {
                    jwt if jwt.contains("-----BEGIN NATS USER JWT-----") => {
                        plain.credentials(jwt).map_err(|why| refused(&why.to_string()))?
                    }
                    seed if seed.starts_with("SU") && seed.len() == 58 => plain.nkey(seed.to_owned()),
                    pair => match pair.split_once(':') {
                        Some((user, password)) => plain.user_and_password(user.to_owned(), password.to_owned()),
                        None => {
                            return Err(refused(
                                "it has neither a JWT and a seed, nor the seed of a user's nkey, nor USER:PASSWORD",
                            ));
                        }
                    },
                }
            }
        };
        if let Some(ca) = self.ca {
            readable(ca)?;
            identified = identified.add_root_certificates(ca.to_owned()).require_tls(true);
        }
        Ok(identified)
    }
}

fn is_denial(text: &str) -> bool {
    text.to_lowercase().contains("permissions violation")
}

fn readable(path: &Path) -> Result<(), String> {
    std::fs::File::open(path)
        .map(drop)
        .map_err(|why| format!("cannot read the certificates in {}: {why}", path.display()))
}
