//! The daemon: the one place that wires config, store, system and sources together.
//!
//! ```no_run
//! use headworks::config::Config;
//! use headworks::daemon::Daemon;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let daemon = Daemon::start(Config::default())?;
//! for (source, address) in daemon.listen().await? {
//!     println!("{source} listens on {address}");
//! }
//! tokio::signal::ctrl_c().await?;
//! println!("{}", daemon.drain().await);
//! # Ok(())
//! # }
//! ```

#[cfg(unix)]
mod admin;
#[cfg(unix)]
mod control;
mod data_dir;
mod erasures;
#[cfg(unix)]
mod open_files;
mod prune;
mod reload;
mod report;
mod retention;
#[cfg(unix)]
mod secrets;
mod sources;
mod stores;
mod supervisor_log;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headworks_actors::{
    DrainReport, Error, Hung, JournalError, Json, Placement, StorageError, System, TenantSnapshot, TenantSpec,
    UnixMillis,
};

#[cfg(unix)]
use crate::admin::{Admin, Listening, Token, guarded};
use crate::config::{Config, JournalKind, Running, SourceConfig};
use crate::journal::{DurableJournal, JournalOptions};
use crate::metrics::Metrics;
use crate::source::{ReaderSource, ReplayError, ReplayReport, Replayer};
use crate::store::{SqliteStore, files, sqlite};

#[cfg(unix)]
use control::Control;
pub use data_dir::{AtRest, DataDir, Found};
use erasures::Erasures;
#[cfg(unix)]
pub use open_files::OpenFiles;
pub use prune::{PruneError, prune_at_rest};
pub use reload::{ReloadError, Reloaded};
use report::Reports;
use retention::{Pruning, Retention};
#[cfg(unix)]
pub use secrets::check_files;
use stores::Stores;
use supervisor_log::LogFile;
use tokio::sync::watch;

/// A running daemon. From its start to its end it answers on the control socket in its data directory, on
/// Unix; see [`admin`](crate::admin).
#[derive(Debug)]
pub struct Daemon {
    running: watch::Sender<Arc<Running>>,
    /// Goes before the lock.
    #[cfg(unix)]
    control: Control,
    /// The API for what is not this daemon's owner, and its server, if it is served.
    #[cfg(unix)]
    api: axum::Router,
    #[cfg(unix)]
    admin: std::sync::OnceLock<admin::AdminServer>,
    #[cfg(unix)]
    listening: Listening,
    /// The files of the sources, which are read again with the configuration.
    files: Mutex<Vec<(String, sources::Files)>>,
    /// Dropped, it ends whoever follows the supervisor log.
    #[cfg(unix)]
    following: tokio::sync::watch::Sender<()>,
    /// Goes before the stores.
    retention: Retention,
    system: System,
    /// Exports what the system tells, if it is to.
    #[cfg(feature = "otlp")]
    telemetry: Option<crate::telemetry::Telemetry>,
    /// Goes after the system, to hear its last words, and before the lock.
    reports: Mutex<Reports>,
    log_file: LogFile,
    before: Vec<TenantSnapshot>,
    stores: Stores,
    replayer: Replayer<SqliteStore>,
    /// Held for as long as the daemon writes there.
    _data_dir: DataDir,
}

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The data directory cannot be made or written.
    #[error("cannot use the data directory {path}: {why}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// Another process writes there.
    #[error("the data directory {path} is in use by {holder}; stop it, or choose another with --data")]
    InUse {
        /// Which.
        path: PathBuf,
        /// By whom.
        holder: String,
    },
    /// The control socket cannot be served.
    #[error("cannot listen on the control socket {path}: {why}")]
    Control {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// The admin API cannot be served over TCP.
    #[error(
        "the admin API cannot listen on {listen} (admin.listen): {why}; is another program there, or another headworks?"
    )]
    Admin {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        why: io::Error,
    },
    /// There is no token to be had.
    #[error("cannot use the token in {path} (admin.token_file): {why}")]
    Token {
        /// In which file.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// The tokens of a source cannot be used.
    #[error("cannot use the tokens in {path} (sources.{name}.tokens_file): {why}")]
    Tokens {
        /// The source.
        name: String,
        /// In which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file that the configuration names cannot be used.
    #[error("cannot use {path} ({key}): {why}")]
    File {
        /// The key that names it.
        key: String,
        /// Which.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// A source cannot speak TLS as it is to.
    #[error("source {name} cannot speak TLS: {why}")]
    Tls {
        /// Which source.
        name: String,
        /// Why not, with the file and its key.
        why: String,
    },
    /// Another process holds a database for longer than is waited for.
    #[error(
        "the database {path} is locked by another process, and was for all of the {} it was waited for: end it (a backup tool, or an \
         SQLite shell with a transaction open), and start again", humantime::format_duration(*waited)
    )]
    Locked {
        /// Which database.
        path: PathBuf,
        /// For how long it was waited for.
        waited: Duration,
    },
    /// Traces and metrics cannot be exported as the configuration says.
    #[error("{0}")]
    Telemetry(String),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] sqlite::OpenError),
    /// An erasure that the last process did not end cannot go on.
    #[error("what was to be erased of a tenant when the last process ended cannot be erased: {why}")]
    Erasure {
        /// Why not.
        why: StorageError,
    },
    /// The store on files cannot be opened.
    #[error(transparent)]
    Files(#[from] files::OpenError),
    /// The store on a PostgreSQL server cannot be opened.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] crate::store::postgres::OpenError),
    /// The store behind a webhook cannot be opened.
    #[cfg(feature = "webhook")]
    #[error(transparent)]
    Webhook(#[from] crate::store::webhook::OpenError),
    /// The store in a NATS JetStream cannot be opened.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] crate::store::nats::OpenError),
    /// No thread for the store on the standard output.
    #[error("cannot start the thread that prints the events: {0}")]
    Stdout(std::io::Error),
    /// This program cannot have a source or store of that type.
    #[error("a {what} is of type {kind}, which this headworks was built without: build it with --features {kind}")]
    NotBuilt {
        /// `source` or `store`.
        what: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// The store in objects cannot be opened.
    #[cfg(feature = "object")]
    #[error(transparent)]
    Object(#[from] crate::store::object::OpenError),
    /// The journal cannot be opened.
    #[error("{0}; nothing was changed in it")]
    Journal(#[from] JournalError),
    /// The system cannot be started.
    #[error(transparent)]
    System(#[from] Error),
    /// The positions of a source that follows files cannot be read.
    #[error(
        "source {name} cannot read {path}, where it keeps what of its files is taken in: {why}; without it, after it is moved away, \
         all files are taken in from their beginnings again"
    )]
    Positions {
        /// Which source.
        name: String,
        /// From where.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// A subscription cannot be asked for as the configuration says.
    #[error("source {name} cannot subscribe: {why}")]
    Subscription {
        /// Which source.
        name: String,
        /// Why not.
        why: String,
    },
    /// A source cannot listen.
    #[error("source {name} cannot listen on {listen}: {why}; is another program there, or another headworks?")]
    Listen {
        /// Which source.
        name: String,
        /// Where.
        listen: SocketAddr,
        /// Why not.
        why: io::Error,
    },
}

/// After how long without a turn the thread of the actors counts as hung.
const HANG_AFTER: Duration = Duration::from_secs(10);

/// For so long the supervisor log may be late before the process ends without its last words.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// What a frame says.
fn decoder(config: &Config) -> Json {
    let decoder = Json::new().tenant_field(config.decoder.tenant_field.as_str());
    match &config.decoder.time_field {
        Some(field) => decoder.time_field(field.as_str()),
        None => decoder,
    }
}

/// How many connections a source may have, as far as the process can have them open; where it cannot have them all, the log says so.
fn most_connections(config: &Config) -> impl Fn(&SourceConfig) -> usize {
    #[cfg(unix)]
    {
        let (files, all) = (OpenFiles::now(), open_files::wanted(config));
        if let Some(warning) = files.warning(config) {
            tracing::warn!(target: "headworks", "{warning}");
        }
        move |source| files.share(source.max_connections, all)
    }
    #[cfg(not(unix))]
    |source| source.max_connections
}

/// Opens the durable journal and reads what is in it.
fn open_journal(config: &Config, progress: impl FnMut(u64, u64)) -> Result<DurableJournal, JournalError> {
    let options = JournalOptions {
        segment_bytes: config.journal.segment_bytes as u64,
        max_bytes: config.journal.max_bytes as u64,
        commit_every: config.journal.commit_every,
        ..JournalOptions::default()
    };
    let journal = DurableJournal::open(&config.journal_dir(), options, progress)?;
    let torn_bytes = journal.torn_bytes();
    if torn_bytes > 0 {
        tracing::warn!(target: "headworks", torn_bytes, "the journal's last write was cut short by a crash; it had not been confirmed, and is dropped");
    }
    Ok(journal)
}

impl Daemon {
    /// Opens the journal and the store, starts the system and serves the control socket; nothing is read yet.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn start(config: Config) -> Result<Self, DaemonError> {
        Self::start_with(config, |_, _| {})
    }

    /// The same; `progress` is told how many bytes of how many of the journal are read.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn start_with(config: Config, progress: impl FnMut(u64, u64)) -> Result<Self, DaemonError> {
        let began = UnixMillis::now();
        let data_dir = DataDir::open(&config.daemon.data_dir)?;
        #[cfg(feature = "otlp")]
        let telemetry = crate::telemetry::Ready::of(&config.telemetry).map_err(DaemonError::Telemetry)?;
        let stores = Stores::open(&config)?;
        let eraser = stores.eraser();
        let erasures = Erasures::finish(&eraser)?;
        Stores::declare(&config)?;
        let journal = match config.journal.kind {
            JournalKind::Memory => None,
            JournalKind::Durable => Some(Arc::new(open_journal(&config, progress)?)),
        };
        #[cfg(unix)]
        let inspect = journal.clone().map(|journal| journal as Arc<dyn crate::admin::Inspect>);
        let (reporting, mut reports) = Reports::of(&config);
        let tenants = &config.tenants;
        let builder = System::builder()
            .rules(reload::rules(&config))
            .tenant_field(config.decoder.tenant_field.as_str())
            .dead_letters(stores.database.clone())
            .placement(Placement::Threads(config.daemon.actor_threads()))
            .max_in_flight_bytes(config.limits.max_in_flight)
            .max_tenants(config.limits.max_tenants)
            .unknown_tenants(tenants.unknown())
            .max_spawn_rate(tenants.spawn_rate())
            .hang_after(match config.daemon.exit_when_hung {
                Duration::ZERO => HANG_AFTER,
                exit => HANG_AFTER.min(exit),
            });
        let builder = reporting(builder);
        #[cfg(feature = "otlp")]
        let builder = match telemetry.as_ref().and_then(crate::telemetry::Ready::observer) {
            Some(tracer) => builder.observer(tracer),
            None => builder,
        };
        let (saga, sagas) = stores.sagas(&config);
        let builder = builder.saga(saga);
        let builder = match journal {
            Some(journal) => builder.journal(journal),
            None => builder,
        };
        let specs = sagas.into_iter().map(|(id, saga)| TenantSpec::from(id).saga(saga));
        let system = specs.fold(builder, |builder, spec| builder.tenant(spec)).start()?;
        let log_file = LogFile::start(&config, began, &system);
        erasures.tell(&system);
        reports.start(&system);
        let before = system.tenants();
        for tenant in &tenants.mute {
            system.mute(tenant);
        }
        let replayer = Replayer::new(stores.database.clone(), decoder(&config));
        let data_dir_path = config.daemon.data_dir.clone();
        let metrics = Metrics::new(system.clone()).process().max_tenants(config.metrics.max_tenants);
        let metrics = metrics.of_stores(stores.counts());
        #[cfg(feature = "otlp")]
        let exported = telemetry.as_ref().map(crate::telemetry::Ready::exported).unwrap_or_default();
        #[cfg(feature = "otlp")]
        let telemetry = telemetry.map(|ready| ready.start(metrics.clone(), data_dir_path.clone())).transpose();
        #[cfg(feature = "otlp")]
        let telemetry = telemetry.map_err(|why| DaemonError::Telemetry(format!("no thread for telemetry: {why}")))?;
        #[cfg(unix)]
        let largest_frame = config.sources.values().map(|source| source.max_frame).max().unwrap_or(1 << 20);
        let running = Running { config, file: None, since: began, waiting: vec![], refused: None };
        let running = watch::Sender::new(Arc::new(running));
        let (tell_full, full) = tokio::sync::mpsc::channel(64);
        stores.database.on_letters_full(move |tenant, why| {
            // Where so many wait to be told, one more says nothing new.
            let _ = tell_full.try_send((tenant.cloned(), why.to_owned()));
        });
        let (pruner, orders) = crate::retention::orders();
        let pruning = Pruning {
            system: system.clone(),
            letters: stores.database.clone(),
            stores: stores.pruned(),
            eraser: eraser.clone(),
            running: running.subscribe(),
        };
        let retention = Retention::start(pruning, orders, full);
        #[cfg(not(unix))]
        drop(pruner);
        #[cfg(unix)]
        let (following, end_of_following) = tokio::sync::watch::channel(());
        #[cfg(unix)]
        let listening = Listening::default();
        #[cfg(unix)]
        let (control, api) = {
            let admin = Admin::new(system.clone(), data_dir_path.clone())
                .replayer(replayer.clone())
                .listening(listening.clone())
                .eraser(eraser)
                .patient(stores.patient())
                .servers(stores.servers())
                .metrics(metrics)
                .largest_frame(largest_frame)
                .running(running.subscribe())
                .pruner(pruner)
                .until(end_of_following);
            #[cfg(feature = "otlp")]
            let admin = admin.exported(exported);
            let admin = match inspect {
                Some(journal) => admin.journal(journal),
                None => admin,
            };
            let router = admin.router();
            (Control::start(&data_dir_path, router.clone())?, router)
        };
        Ok(Self {
            running,
            #[cfg(unix)]
            control,
            #[cfg(unix)]
            api,
            #[cfg(unix)]
            admin: std::sync::OnceLock::new(),
            #[cfg(unix)]
            listening,
            files: Mutex::default(),
            #[cfg(unix)]
            following,
            retention,
            system,
            #[cfg(feature = "otlp")]
            telemetry,
            reports: Mutex::new(reports),
            log_file,
            before,
            stores,
            replayer,
            _data_dir: data_dir,
        })
    }

    /// Every tenant that was on record, as it was when the daemon started: counters go on where they were.
    #[must_use]
    pub fn before(&self) -> &[TenantSnapshot] {
        &self.before
    }

    /// Whether what was accepted and is not stored yet outlives the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.config().journal.kind == JournalKind::Durable
    }

    /// How long [`drain`](Self::drain) may take.
    #[must_use]
    pub fn drain_deadline(&self) -> Duration {
        self.config().daemon.drain_deadline
    }

    /// The system in it.
    #[must_use]
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Where it stores batches: a database, a directory of files, or the URL of a server.
    #[must_use]
    pub fn store_path(&self) -> &Path {
        self.stores.path()
    }

    /// Whether events go to the standard output, so that nothing else is to be printed there.
    #[must_use]
    pub fn prints_events(&self) -> bool {
        self.stores.prints()
    }

    /// The database with the dead letters.
    #[must_use]
    pub fn dead_letters_file(&self) -> &Path {
        self.stores.database.path()
    }

    /// Serves the [admin API](crate::admin) over TCP as the config says; the answer is where, `None` where it says nowhere. A
    /// second call changes nothing.
    ///
    /// # Errors
    /// [`DaemonError::Token`] or [`DaemonError::Admin`].
    #[cfg(unix)]
    pub fn serve_admin(&self) -> Result<Option<SocketAddr>, DaemonError> {
        let crate::config::AdminConfig { listen, token_file } = self.config().admin;
        let Some(listen) = listen else { return Ok(None) };
        let read = |path: &PathBuf| Token::read(path).map_err(|why| DaemonError::Token { path: path.clone(), why });
        let token = token_file.as_ref().map(read).transpose()?;
        let started = admin::AdminServer::start(listen, guarded(self.api.clone(), token));
        let (server, address) = started.map_err(|why| DaemonError::Admin { listen, why })?;
        // One that is too many ends here.
        let _ = self.admin.set(server);
        Ok(Some(address))
    }

    /// Starts every source of the config; the answer is where each listens.
    ///
    /// # Errors
    /// [`DaemonError::Listen`], [`DaemonError::Tls`], [`DaemonError::Tokens`] or [`DaemonError::File`] for the first that cannot; no source runs then that was not running before.
    pub async fn listen(&self) -> Result<Vec<(String, SocketAddr)>, DaemonError> {
        let (mut bound, mut files) = (vec![], vec![]);
        let config = self.config();
        let max_connections = most_connections(&config);
        for (name, source) in &config.sources {
            let own = sources::Files::read(name, source)?;
            let (address, opened) = sources::open(name, source, &own, &config, max_connections(source))?;
            files.push((name.clone(), own));
            bound.push((name.clone(), address, opened));
        }
        let mut listening = vec![];
        let mut sources = vec![];
        for (name, address, source) in bound {
            sources.push((name.clone(), self.system.add_source(source).await?));
            listening.extend(address.map(|address| (name, address)));
        }
        #[cfg(unix)]
        {
            self.listening.set(sources);
            let tls = files.iter().filter_map(|(name, files)| Some((name.clone(), files.tls()?.clone())));
            self.listening.encrypted(tls.collect());
        }
        reload::tell_warnings(&files);
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        Ok(listening)
    }

    /// A source for input that is read to its end, framed as lines of at most the default size.
    #[must_use]
    pub fn input(&self, name: &str, reader: impl io::Read + Send + 'static) -> ReaderSource {
        ReaderSource::new(
            name,
            sources::ingress("input", &SourceConfig::default(), &self.running.borrow().config),
            reader,
        )
    }

    /// Goes on with a replay of dead letters that an earlier process left; says what came of it, or nothing where there was none.
    ///
    /// # Errors
    /// [`ReplayError`]; what is left goes on with the next replay.
    pub fn resume_replay(&self) -> impl Future<Output = Result<Option<ReplayReport>, ReplayError>> + use<> {
        let (replayer, system) = (self.replayer.clone(), self.system.clone());
        async move {
            let report = replayer.resume(&system).await?;
            Ok(Some(report).filter(|report| *report != ReplayReport::default()))
        }
    }

    /// Waits until something has held the actors' thread for so long, by `daemon.exit_when_hung`, that only the end of the
    /// process helps; for ever where that is zero. The supervisor log says so by then, also on disk, unless it is held up
    /// itself. To be awaited on another runtime than theirs.
    pub fn hung(&self) -> impl Future<Output = Hung> + Send + 'static {
        let (system, limit, log_file) =
            (self.system.clone(), self.config().daemon.exit_when_hung, self.log_file.flusher());
        let is_due = move |hung: &Hung| {
            !limit.is_zero() && hung.lasting >= if hung.is_logged { limit } else { limit + LOG_PATIENCE }
        };
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if let Some(hung) = system.health().hung.filter(is_due) {
                    // Where it does not come, the process ends without.
                    let _ = tokio::time::timeout(LOG_PATIENCE, log_file.flush()).await;
                    return hung;
                }
            }
        }
    }

    /// Ends the daemon in the order of the flow, within the deadline of the config: sources, windows, control socket, store.
    pub async fn drain(self) -> DrainReport {
        let deadline = self.config().daemon.drain_deadline;
        #[cfg(feature = "otlp")]
        let until = tokio::time::Instant::now() + deadline;
        drop(self.retention);
        let report = self.system.drain(deadline).await;
        #[cfg(unix)]
        {
            drop(self.following);
            self.control.end().await;
            if let Some(admin) = self.admin.into_inner() {
                admin.end().await;
            }
        }
        #[cfg(feature = "otlp")]
        if let Some(telemetry) = self.telemetry {
            telemetry.end(until).await;
        }
        drop(self.reports);
        drop(self.log_file);
        for why in self.stores.close().await {
            tracing::error!(target: "headworks", %why, "the store did not close cleanly");
        }
        report
    }
}
