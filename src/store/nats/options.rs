use std::path::PathBuf;
use std::time::Duration;

use crate::store::postgres::SchemaMode;

/// Where a store in a NATS JetStream publishes batches. There is no secret in it: that stays in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsStoreOptions {
    /// The servers, as `nats://host:4222` or `tls://host:4222`, several with commas between them.
    pub url: String,
    /// The stream.
    pub stream: String,
    /// The subject of a batch. `{tenant}` stands for the tenant, with `%2E` for each dot, and `{batch}` for the rest of the batch's id; each
    /// is a part between dots, and there once. Default `headworks.{tenant}.{batch}`.
    pub subject: String,
    /// Who one is: a credentials file (JWT and seed), a file with the seed of an nkey, or one with `USER:PASSWORD`. Read anew for each
    /// connection. Default none.
    pub credentials_file: Option<PathBuf>,
    /// The certificates, PEM, that the server's is to be signed by. Default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Who makes the stream. Default [`SchemaMode::Make`].
    pub schema: SchemaMode,
    /// How many servers keep each message of a stream that is made. Default 1.
    pub replicas: usize,
    /// How long a connection may take to be there. Default 3 s.
    pub connect_timeout: Duration,
    /// How long the server may take to acknowledge a batch, or to answer. Default 3 s.
    pub request_timeout: Duration,
    /// The largest batch that there will be, in bytes, as far as one knows: a server that takes less is warned of. Default none.
    pub largest_batch: Option<usize>,
    /// How many calls are under way at once; as many again may wait, and a further one waits for a place. Default 256.
    pub queue: usize,
}

impl Default for NatsStoreOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            stream: String::new(),
            subject: "headworks.{tenant}.{batch}".into(),
            credentials_file: None,
            ca_file: None,
            schema: SchemaMode::Make,
            replicas: 1,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            largest_batch: None,
            queue: 256,
        }
    }
}

impl NatsStoreOptions {
    /// The defaults, for this server and stream.
    ///
    /// ```
    /// # use headworks::store::NatsStoreOptions;
    /// let options = NatsStoreOptions::at("nats://127.0.0.1:4222", "EVENTS");
    /// assert_eq!(options.subject, "headworks.{tenant}.{batch}");
    /// ```
    #[must_use]
    pub fn at(url: impl Into<String>, stream: impl Into<String>) -> Self {
        Self { url: url.into(), stream: stream.into(), ..Self::default() }
    }
}
