use std::path::PathBuf;
use std::time::Duration;

use headworks_actors::units;
use serde::{Deserialize, Serialize};

/// Where an [`ObjectStore`](super::ObjectStore) puts its objects and what they are. There is no secret in it: credentials stay in
/// their file, or in the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ObjectOptions {
    /// `file:///srv/events` or `s3://bucket/prefix`; with the features of these names also `gs://bucket/prefix` and
    /// `az://container/prefix`.
    pub url: String,
    /// Where the server is, if it is none of Amazon's: `http://127.0.0.1:9000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of the bucket; unset, that of the environment, else `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The file with the keys, as the tools of Amazon write theirs; read anew for each request. Unset, the environment has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Certificates, PEM, that are trusted beside those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What an object is named, below the URL and without its ending. Default `{tenant}/{date}/{batch}`.
    pub path: String,
    /// What is in an object. Default `ndjson.zst`.
    pub format: ObjectFormat,
    /// Fields of the events that become columns of `parquet`, as `"ms=http.took:number"`: by their paths, each with a name and a
    /// type where these are not the path and `text`. Default none.
    pub columns: Vec<String>,
    /// Batches become part of a larger object, with others of their tenant and their day, once the first of them is there for so
    /// long; until then only Headworks reads them. `None`, written `"never"`, for an object a batch. Default never.
    #[serde(with = "units::duration_or_never")]
    pub compact_after: Option<Duration>,
    /// The same as soon as they take so many bytes together, as they are compressed. Default 16 MiB.
    #[serde(with = "units::bytes")]
    pub compact_bytes: usize,
    /// How long a connection may take to be there. Default 3 s.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// How long a request may take, with all that it sends and receives. Default 3 s.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// How many calls are under way at once; as many again may wait, and a further one waits for a place. Default 256.
    pub queue: usize,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: None,
            region: None,
            credentials_file: None,
            ca_file: None,
            path: "{tenant}/{date}/{batch}".into(),
            format: ObjectFormat::Ndjson,
            columns: vec![],
            compact_after: None,
            compact_bytes: 16 << 20,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            queue: 256,
        }
    }
}

impl ObjectOptions {
    /// The defaults, there.
    ///
    /// ```
    /// # use headworks::store::ObjectOptions;
    /// let options = ObjectOptions::at("s3://bucket/events");
    /// assert_eq!(options.path, "{tenant}/{date}/{batch}");
    /// ```
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

/// What is in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ObjectFormat {
    /// The events as they came, one a line, compressed.
    #[default]
    #[serde(rename = "ndjson.zst")]
    Ndjson,
    /// A row an event, compressed; for programs built with the feature `parquet`.
    #[serde(rename = "parquet")]
    Parquet,
}

impl ObjectFormat {
    /// How the names of its objects end.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson.zst",
            Self::Parquet => "parquet",
        }
    }
}
