use std::path::PathBuf;
use std::time::Duration;

use headworks_actors::units;
use serde::{Deserialize, Serialize};

/// How a [`PostgresStore`](super::PostgresStore) reaches its server and what it keeps there. There is no secret in it: the password
/// stays in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// Where the server is, as `psql` takes it, without the password: `postgres://app@db.example:5432/events`, or
    /// `host=/run/postgresql user=app dbname=events`.
    pub url: String,
    /// The file with the password, read anew for each connection; spaces and newlines at its end do not count. Unset, none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Whether the connection is encrypted, and the server is who it says. Default `prefer`.
    pub sslmode: SslMode,
    /// The certificates, PEM, of which one must have signed the server's; for `verify_full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The PostgreSQL schema that the tables are in. Default `headworks`.
    pub namespace: String,
    /// Who makes the tables. Default `make`.
    pub schema: SchemaMode,
    /// What a body is there. Default `text`.
    pub body: BodyColumn,
    /// Whether the table of events is partitioned by the time of their arrival. Default `none`.
    pub partition: Partition,
    /// Fields of the events that become columns of the table of events, as `"ms=http.took:number"`: by their paths, each with a name
    /// and a type where these are not the path and `text`. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// How many connections at the most, each with one transaction under way. Default 4.
    pub pool_size: usize,
    /// How long a connection may take to be there. Default 3 s.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// How long a statement may take, and half of it a wait for a lock; a server that says nothing for twice as long is taken for
    /// gone. Default 3 s.
    #[serde(with = "units::duration")]
    pub statement_timeout: Duration,
    /// A transaction takes the batches that wait, up to about so many bytes, and at least one. Default 2 MiB.
    pub group_max_bytes: usize,
    /// How many calls may wait for a connection; a further one waits for a place. Default 256.
    pub queue: usize,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: None,
            sslmode: SslMode::Prefer,
            ca_file: None,
            namespace: "headworks".into(),
            schema: SchemaMode::Make,
            body: BodyColumn::Text,
            partition: Partition::None,
            columns: vec![],
            pool_size: 4,
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(3),
            group_max_bytes: 2 << 20,
            queue: 256,
        }
    }
}

impl PostgresOptions {
    /// The defaults, at this server.
    ///
    /// ```
    /// # use headworks::store::PostgresOptions;
    /// let options = PostgresOptions::at("postgres://app@127.0.0.1/events");
    /// assert_eq!(options.namespace, "headworks");
    /// ```
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Whether tables can be in a PostgreSQL schema of this name.
    #[must_use]
    pub fn is_namespace(name: &str) -> bool {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        (1..=63).contains(&name.len())
            && name.bytes().all(is_part)
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.starts_with("pg_")
    }
}

/// Whether a connection is encrypted; the words of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server can. Nobody asks who it is.
    #[default]
    Prefer,
    /// Always. Nobody asks who the server is: whoever is in between can read along.
    Require,
    /// Always, and the server's certificate is signed by one of `ca_file` and made out to the host of the URL.
    VerifyFull,
}

/// Who makes the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchemaMode {
    /// The store, where they are not there.
    #[default]
    Make,
    /// Somebody else: the store only looks whether they are there, and needs no right to make any.
    Check,
}

/// What a body is in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BodyColumn {
    /// The bytes as they came: `text`, or `bytea` in the column `raw` where PostgreSQL's text cannot be these bytes.
    #[default]
    Text,
    /// `jsonb`: for SQL at its best, and no longer the bytes as they came. What `jsonb` cannot hold is refused and becomes a dead
    /// letter: what is no JSON, `\u0000`, numbers without end.
    Jsonb,
}

/// How the table of events is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Partition {
    /// It is one table.
    #[default]
    None,
    /// By the day of arrival, UTC: `events_2026_11_22`. A day is gone with its table.
    Day,
    /// By the month of arrival, UTC: `events_2026_11`.
    Month,
}

#[cfg(feature = "postgres")]
impl Partition {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl BodyColumn {
    #[cfg(feature = "postgres")]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Jsonb => "jsonb",
        }
    }
}
