use std::fmt;
use std::sync::Arc;

use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, TenantId, Undo};

use super::WebhookOptions;
use super::target::Target;
use crate::store::desk::{Desk, Outcome, Serve};

/// Why a store behind a webhook was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options cannot work.
    #[error("cannot use the webhook: {0}")]
    Options(String),
    /// No thread or no runtime for its requests.
    #[error("cannot start the thread that sends to the webhook: {0}")]
    Thread(std::io::Error),
}

/// A store behind a webhook; see the [module](super) for what is sent and what the server must do. Clones share its connections and
/// one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. A dropped call cuts its request off and leaves its
/// outcome unknown. Dropping the last clone blocks until what was handed over has its answer; [`close`](Self::close) does the same
/// without blocking.
///
/// ```no_run
/// use headworks::store::{WebhookOptions, WebhookStore};
///
/// let store = WebhookStore::open(WebhookOptions::at("https://events.example/batches"))?;
/// # Ok::<(), headworks::store::webhook::OpenError>(())
/// ```
#[derive(Clone)]
pub struct WebhookStore {
    shared: Arc<Shared>,
}

struct Shared {
    target: Arc<Target>,
    desk: Desk,
}

impl Serve for Target {
    fn store(&self, batch: &Batch, attempt: Attempt) -> impl Future<Output = Outcome> + Send {
        self.store(batch, attempt)
    }

    fn rollback(&self, id: &BatchId, attempt: Attempt) -> impl Future<Output = Outcome> + Send {
        self.rollback(id, attempt)
    }

    fn look(&self) -> impl Future<Output = Outcome> + Send {
        self.look()
    }
}

impl fmt::Debug for WebhookStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookStore").field("url", &self.shared.target.options.url).finish_non_exhaustive()
    }
}

impl WebhookStore {
    /// Reads the secret and the certificates; asks nobody. A server that is away does not keep the store from opening.
    ///
    /// # Errors
    /// [`OpenError`]: the options cannot work, or a file cannot be read.
    pub fn open(options: WebhookOptions) -> Result<Self, OpenError> {
        let target = Arc::new(Target::new(options).map_err(OpenError::Options)?);
        let (url, bounds) = (target.options.url.clone(), (target.options.queue, target.options.pool_size));
        let begin = async |_: &Target| Ok::<(), std::convert::Infallible>(());
        let Ok(desk) =
            Desk::open("headworks-webhook", url, target.clone(), bounds, begin).map_err(OpenError::Thread)?;
        Ok(Self { shared: Arc::new(Shared { target, desk }) })
    }

    /// Where it sends batches to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.target.options.url
    }

    /// Has the server asked again with the tenant's next attempt, however long it wanted to be left alone (`Retry-After`); whether it was.
    pub fn ask_again(&self, tenant: &TenantId) -> bool {
        self.shared.target.ask_again(tenant)
    }

    /// Whether its server can be connected to; it is sent nothing.
    pub(crate) async fn look(&self) -> Result<(), String> {
        self.shared.desk.look().await
    }

    /// Finishes what was handed over before and closes the connections, for every clone. Calls that come later are answered with
    /// [`StorageError::Unavailable`]; closing again is a success.
    ///
    /// # Errors
    /// None at the moment.
    ///
    /// # Cancel safety
    /// Once polled it may be dropped: the store closes all the same if it had a place in the queue.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.shared.desk.close().await;
        Ok(())
    }
}

impl Storage for WebhookStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Outcome {
        self.shared.desk.store(batch, undo.attempt()).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Outcome {
        self.shared.desk.rollback(id, attempt).await
    }
}
