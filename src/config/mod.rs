//! The daemon's configuration: defaults, under a TOML file, under environment variables, under flags.
//!
//! Everything has a default, so that an empty file and no file at all are valid. Nothing is ignored: a key that is not
//! known, a value out of bounds and a variable that looks like ours but is not are refused, by name, with what is valid.
//!
//! ```
//! use headworks::config::Config;
//!
//! let variables = [("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS".to_owned(), "100".to_owned())];
//! let config = Config::load(None, variables)?;
//! assert_eq!(config.tenants.defaults.window.max_events, 100);
//! # Ok::<(), headworks::config::ConfigError>(())
//! ```
//!
//! **Variables.** `HEADWORKS__DAEMON__DATA_DIR=/srv/x` sets `daemon.data_dir`: two underscores separate the levels, and
//! letter case does not matter. The value is read as TOML where it is TOML (`100`, `true`, `["a", "b"]`) and is a string
//! otherwise (`127.0.0.1:9000`); quote what must be a string (`"100"`). A list replaces the list below it, a table is
//! laid over the table below it, key by key. Any other variable that begins with `HEADWORKS_` is refused as a slip, but
//! for those with which Kubernetes announces a service of that name. A tenant or source that the file does not name is taken to
//! be written in lower case; name it in the file where it is not.

mod admin;
mod check;
mod diff;
mod environment;
mod error;
mod keys;
mod laid;
mod layers;
mod nats;
mod origin;
mod reference;
mod reload;
mod running;
mod schema;
mod sections;
mod settings;
mod sources;
mod stores;
mod tap;
mod telemetry;
mod tree;
mod typed;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use admin::AdminConfig;
pub use diff::{Change, changes, shown};
pub use environment::environment;
pub use error::ConfigError;
pub use layers::{Layers, Override};
pub use origin::{ClassOrigin, Level, Origin, RuleOrigin, TenantOrigins};
pub use reference::reference;
pub use reload::Reloadable;
pub use running::Running;
pub use schema::schema;
pub use sections::{
    CertificateTenants, DaemonConfig, DeadLettersConfig, DecoderConfig, Framing, InvalidTenant, JournalConfig,
    JournalKind, LimitsConfig, LogConfig, LogFormat, MetricsConfig, MqttPayload, MqttVersion, ReportConfig, ReportTo,
    RetentionConfig, SourceConfig, SourceKind, StoreConfig, StoreKind, SyslogTransport, TenantRule, TenantsConfig,
    TlsConfig, UnknownTenants,
};

pub use settings::with_settings;
pub use tap::TapConfig;
pub use telemetry::{TelemetryConfig, TelemetryProtocol};
pub use watch::FileWatch;

use crate::store::manifest::{Kind, Manifest};
use crate::{Policy, StoreName, TenantId};

pub use crate::store::files::FILES;

/// All the daemon is told. Read it with [`Config::load`] or [`Layers`]; what is changed by hand is to be
/// [checked](Config::check).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The process itself.
    pub daemon: DaemonConfig,
    /// The HTTP API over TCP.
    pub admin: AdminConfig,
    /// What it says on stderr.
    pub log: LogConfig,
    /// What it reports of failures, and where to.
    pub report: ReportConfig,
    /// Bounds of the whole process.
    pub limits: LimitsConfig,
    /// What a frame means.
    pub decoder: DecoderConfig,
    /// The ways in, by name. Where no source is given, one named `tcp`.
    pub sources: BTreeMap<String, SourceConfig>,
    /// The record of what was accepted.
    pub journal: JournalConfig,
    /// Where batches end up.
    pub store: StoreConfig,
    /// Further stores, by name.
    pub stores: BTreeMap<StoreName, StoreConfig>,
    /// What was given up on.
    pub dead_letters: DeadLettersConfig,
    /// How what is stored is pruned.
    pub retention: RetentionConfig,
    /// The rules tenants live by.
    pub tenants: TenantsConfig,
    /// Its numbers.
    pub metrics: MetricsConfig,
    /// What is shown of events as they pass.
    pub tap: TapConfig,
    /// Its traces and numbers, for a collector.
    pub telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            daemon: DaemonConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            report: ReportConfig::default(),
            limits: LimitsConfig::default(),
            decoder: DecoderConfig::default(),
            sources: BTreeMap::from([("tcp".to_owned(), SourceConfig::default())]),
            journal: JournalConfig::default(),
            store: StoreConfig::default(),
            stores: BTreeMap::new(),
            dead_letters: DeadLettersConfig::default(),
            retention: RetentionConfig::default(),
            tenants: TenantsConfig::default(),
            metrics: MetricsConfig::default(),
            tap: TapConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Config {
    /// The configuration in the file at `path`, if there is one, under the variables of `env`, checked.
    ///
    /// The daemon passes [`environment()`]; flags are one more layer, see [`Layers`].
    ///
    /// # Errors
    /// The first thing that is wrong: where it stands, which key it is, what is wrong with it, and what is valid.
    pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let layers = match path {
            Some(path) => Layers::default().file(path)?,
            None => Layers::default(),
        };
        layers.environment(env)?.read()
    }

    /// Whether it can work as written. What [`load`](Self::load) returns has passed.
    ///
    /// # Errors
    /// The first thing that is wrong: which key it is, what is wrong with it, and what is valid.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self).map_err(|problem| problem.at(error::Place::Nowhere))
    }

    /// The rules that `tenant` lives by.
    #[must_use]
    pub fn effective_policy(&self, tenant: &TenantId) -> Policy {
        self.tenants.policy(tenant).clone()
    }

    /// The database: it holds the dead letters, and the batches where the store is SQLite.
    #[must_use]
    pub fn store_file(&self) -> PathBuf {
        self.daemon.data_dir.join("headworks.db")
    }

    /// The directory of the durable journal.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.daemon.data_dir.join("journal")
    }

    /// The file that the periodic report goes to, where it goes to a file.
    #[must_use]
    pub fn report_file(&self) -> PathBuf {
        self.daemon.data_dir.join(&self.report.path)
    }

    /// Where batches end up: the database, the directory with the files of the tenants, or the URL of the server.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        match self.store.kind {
            StoreKind::Sqlite => self.store_file(),
            StoreKind::Files => self.daemon.data_dir.join(FILES),
            StoreKind::Postgres | StoreKind::Object | StoreKind::Webhook | StoreKind::Nats => {
                self.store.url.clone().unwrap_or_default().into()
            }
            StoreKind::Stdout => "the standard output".into(),
        }
    }

    /// Where a further store lies, or the URL of its server.
    #[must_use]
    pub fn further_store_path(&self, name: &StoreName, store: &StoreConfig) -> PathBuf {
        let kind = match store.kind {
            StoreKind::Sqlite => Kind::Sqlite,
            StoreKind::Files => Kind::Files,
            StoreKind::Postgres => Kind::Postgres,
            StoreKind::Webhook => Kind::Webhook,
            StoreKind::Stdout => return "the standard output".into(),
            StoreKind::Object => Kind::Object,
            StoreKind::Nats => Kind::Nats,
        };
        let url = || store.url.clone().unwrap_or_default().into();
        Manifest::place(&self.daemon.data_dir, name, kind).unwrap_or_else(url)
    }

    /// The stores that the tenant's batches go through, in order.
    #[must_use]
    pub fn effective_stores(&self, tenant: &TenantId) -> &[StoreName] {
        self.tenants.stores_by_id.get(tenant).unwrap_or(&self.tenants.stores)
    }

    /// The configuration as TOML, with every key that is set, be it by default. It reads back as the same.
    ///
    /// # Errors
    /// TOML cannot say it: a path that is no UTF-8. What [`check`](Self::check) has passed can be said.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

#[cfg(test)]
mod tests;
