use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode as Encryption};
use tokio_postgres::tls::NoTls;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::counts::Counts;
use super::error::Failure;
use super::{PostgresOptions, SslMode, columns, tls};
use crate::secret_file;
use crate::store::columns::Columns;

/// A server, and the way to it.
pub(super) struct Target {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// For errors: where it is, without any secret.
    pub(super) place: String,
    pub(super) options: PostgresOptions,
    pub(super) columns: Columns,
    pub(super) counts: Arc<Counts>,
    /// Whether its tables were seen.
    pub(super) was_ready: AtomicBool,
    /// How many partitions were dropped by this process.
    pub(super) dropped: AtomicU64,
}

impl Target {
    /// What the options say; nothing is asked of a server yet.
    pub(super) fn new(options: PostgresOptions) -> Result<Self, String> {
        let mut config = parsed(&options.url)?;
        if !PostgresOptions::is_namespace(&options.namespace) {
            return Err(format!(
                "namespace is {:?}, but must be a name of lower-case letters, digits and \"_\"",
                options.namespace
            ));
        }
        let columns = columns::parse(&options.columns).map_err(|why| format!("columns {why}"))?;
        let counts = Arc::new(Counts::new(&columns));
        let place = place(&config, &options.namespace);
        let tls = tls::connector(&options)?;
        config
            .ssl_mode(match options.sslmode {
                SslMode::Disable => Encryption::Disable,
                SslMode::Prefer => Encryption::Prefer,
                SslMode::Require | SslMode::VerifyFull => Encryption::Require,
            })
            .application_name("headworks")
            .connect_timeout(options.connect_timeout)
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(options.statement_timeout * 2);
        Ok(Self {
            config,
            tls,
            place,
            options,
            columns,
            counts,
            was_ready: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        })
    }

    /// How long the server may say nothing.
    pub(super) fn patience(&self) -> Duration {
        self.options.statement_timeout * 2
    }

    /// A connection, and the task that drives it on the runtime of whoever asks.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), Failure> {
        let mut config = self.config.clone();
        if let Some(path) = &self.options.password_file {
            // Read anew, so that it can be changed while the daemon runs.
            let password = secret_file::bytes(path, secret_file::MOST)
                .map_err(|why| Failure::Unfit(format!("cannot read {} (password_file): {why}", path.display())))?;
            config.password(password.trim_ascii_end());
        }
        let connecting = async {
            match &self.tls {
                Some(tls) => {
                    let (client, connection) = config.connect(tls.clone()).await?;
                    Ok((client, drive(connection)))
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    Ok((client, drive(connection)))
                }
            }
        };
        // The limit that is part of `config` is for the socket alone.
        tokio::time::timeout(self.options.connect_timeout, connecting).await.unwrap_or(Err(Failure::Silent))
    }
}

fn drive<T>(connection: Connection<Socket, T>) -> JoinHandle<()>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // Whoever uses the connection is told of its end by the next answer.
        if let Err(why) = connection.await {
            tracing::debug!(target: "headworks", %why, "a connection to PostgreSQL ended");
        }
    })
}

/// The URL as a configuration. What is wrong with it is said without it: there may be a password in it.
pub(super) fn parsed(url: &str) -> Result<Config, String> {
    let config: Config = url.parse().map_err(|why: tokio_postgres::Error| {
        let cause = std::error::Error::source(&why).map_or_else(|| why.to_string(), ToString::to_string);
        format!("url is no address of a PostgreSQL server ({cause}); it reads postgres://USER@HOST:PORT/DATABASE")
    })?;
    if config.get_password().is_some() {
        return Err("url has a password in it, which would be shown with it: put it in a file, and name that as \
                    password_file"
            .into());
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("url names no host; it reads postgres://USER@HOST:PORT/DATABASE".into());
    }
    if url.contains("sslmode") {
        return Err("url says sslmode, for which there is a key of that name: leave it out of the url".into());
    }
    Ok(config)
}

/// Where that is, for people.
fn place(config: &Config, namespace: &str) -> String {
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    };
    let mut hosts: Vec<_> = config.get_hosts().iter().map(host).collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let ports: String = config.get_ports().iter().map(|port| format!(":{port}")).collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("PostgreSQL {}{ports}/{database} ({namespace})", hosts.join(","))
}
