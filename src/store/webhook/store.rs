use std::fmt;
use std::sync::Arc;

use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, TenantId, Undo};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::WebhookOptions;
use super::target::Target;
use crate::store::joined::Joined;

type Outcome = Result<(), StorageError>;

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

/// The order of the fields matters: once the sender is gone the thread ends, and only then can it be joined.
struct Shared {
    target: Arc<Target>,
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
}

enum Job {
    Store(Batch, Attempt, oneshot::Sender<Outcome>),
    Rollback(BatchId, Attempt, oneshot::Sender<Outcome>),
    Close(oneshot::Sender<Outcome>),
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
        let (jobs, waiting) = mpsc::channel(target.options.queue.max(1));
        let work = target.clone();
        let thread = std::thread::Builder::new()
            .name("headworks-webhook".into())
            .spawn(move || runtime.block_on(run(work, waiting)))
            .map_err(OpenError::Thread)?;
        Ok(Self { shared: Arc::new(Shared { target, jobs, _thread: Joined::new(thread) }) })
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

    /// Finishes what was handed over before and closes the connections, for every clone. Calls that come later are answered with
    /// [`StorageError::Unavailable`]; closing again is a success.
    ///
    /// # Errors
    /// None at the moment.
    ///
    /// # Cancel safety
    /// Once polled it may be dropped: the store closes all the same if it had a place in the queue.
    pub async fn close(&self) -> Result<(), StorageError> {
        let (reply, answer) = oneshot::channel();
        match self.shared.jobs.send(Job::Close(reply)).await {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    async fn ask(&self, job: impl FnOnce(oneshot::Sender<Outcome>) -> Job) -> Outcome {
        let (reply, answer) = oneshot::channel();
        if self.shared.jobs.send(job(reply)).await.is_err() {
            let why =
                format!("the store that sends to {} is closed, or its thread has died; open it again", self.url());
            return Err(StorageError::unavailable(why));
        }
        // Spends an attempt, so that a batch that brings this about is given up in the end.
        let died = |_| StorageError::transient(format!("the store that sends to {} panicked", self.url()));
        answer.await.map_err(died)?
    }
}

impl Storage for WebhookStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Outcome {
        let (batch, attempt) = (batch.clone(), undo.attempt());
        self.ask(|reply| Job::Store(batch, attempt, reply)).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Outcome {
        self.ask(|reply| Job::Rollback(id.clone(), attempt, reply)).await
    }
}

/// Serves until the store is closed, or every handle is gone and nothing waits.
async fn run(target: Arc<Target>, mut jobs: mpsc::Receiver<Job>) {
    let places = Arc::new(Semaphore::new(target.options.pool_size.max(1)));
    let mut requests = JoinSet::new();
    let mut closed = vec![];
    while let Some(job) = jobs.recv().await {
        while requests.try_join_next().is_some() {}
        if let Job::Close(reply) = job {
            jobs.close();
            closed.push(reply);
            continue;
        }
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let target = target.clone();
        requests.spawn(async move {
            match job {
                Job::Store(batch, attempt, reply) => answer(reply, target.store(&batch, attempt)).await,
                Job::Rollback(id, attempt, reply) => answer(reply, target.rollback(&id, attempt)).await,
                Job::Close(_) => {}
            }
            drop(place);
        });
    }
    while requests.join_next().await.is_some() {}
    for reply in closed {
        let _ = reply.send(Ok(()));
    }
}

/// Whoever dropped the call will ask again or roll back: its request is cut off.
async fn answer(mut reply: oneshot::Sender<Outcome>, work: impl Future<Output = Outcome>) {
    let outcome = tokio::select! {
        biased;
        () = reply.closed() => return,
        outcome = work => outcome,
    };
    let _ = reply.send(outcome);
}
