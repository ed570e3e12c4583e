use std::fmt;
use std::sync::{Arc, mpsc as std_mpsc};

use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, TenantId, Undo};
use tokio::sync::{mpsc, oneshot};

use super::PostgresOptions;
use super::connect::Target;
use super::counts::Counts;
use super::error::{Failure, OpenError};
use super::worker::{Job, Session, Work, Workers};
use super::write::Store;
use crate::store::joined::Joined;

/// A store on a PostgreSQL server; see the [module](super) for what is in it. Clones share its connections and one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. A dropped call leaves its outcome unknown. Dropping
/// the last clone blocks until what was handed over is stored or has failed; [`close`](Self::close) does the same without blocking.
///
/// ```no_run
/// use headworks::store::{PostgresOptions, PostgresStore};
///
/// let store = PostgresStore::open(PostgresOptions::at("postgres://app@127.0.0.1/events"))?;
/// # Ok::<(), headworks::store::postgres::OpenError>(())
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

/// The order of the fields matters: once the sender is gone the thread ends, and only then can it be joined.
struct Shared {
    target: Arc<Target>,
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("place", &self.shared.target.place).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, and makes the tables or checks them as the options say. Blocks for as long as that takes, at most
    /// `connect_timeout` and twice `statement_timeout`.
    ///
    /// A server that is away does not keep the store from opening: the log says so, its calls are answered with
    /// [`StorageError::Unavailable`], and the tables are made or checked once it is there.
    ///
    /// # Errors
    /// [`OpenError`]: the options cannot work, or the server refuses in a way that will not pass: the password, the database, a
    /// right, tables of another version.
    pub fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        let target = Arc::new(Target::new(options).map_err(OpenError::Options)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
        let (jobs, waiting) = mpsc::channel(target.options.queue.max(1));
        let (tell, told) = std_mpsc::sync_channel(1);
        let workers = Workers { target: target.clone() };
        let run = move || {
            runtime.block_on(async {
                let first = match Session::open(&workers.target).await {
                    Ok(first) => Some(first),
                    Err(why) if why.may_be_waited_for() => {
                        let (place, why) = (&workers.target.place, why.explain());
                        tracing::warn!(target: "headworks", place, why, "the server of a store is away; its batches wait for it");
                        None
                    }
                    Err(why) => return drop(tell.send(Err(why))),
                };
                // Whoever opens it waits for this.
                let _ = tell.send(Ok(()));
                workers.run(waiting, first).await;
            });
        };
        let thread =
            std::thread::Builder::new().name("headworks-postgres".into()).spawn(run).map_err(OpenError::Thread)?;
        let refused = |why: Failure| OpenError::Refused { place: target.place.clone(), detail: why.explain() };
        let gone = |_| OpenError::Thread(std::io::Error::other("it has died"));
        told.recv().map_err(gone)?.map_err(refused)?;
        Ok(Self { shared: Arc::new(Shared { target, jobs, _thread: Joined::new(thread) }) })
    }

    /// Where it stores: server, database and namespace. No secret is in it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.shared.target.place
    }

    /// Whether its server answers, over a connection of its own: those of batches may be busy.
    pub(crate) async fn look(&self) -> Result<(), String> {
        let (client, connection) = self.shared.target.connect().await.map_err(|why| why.explain())?;
        let answered = client.simple_query("").await.map_err(|why| Failure::from(why).explain());
        connection.abort();
        answered.map(drop)
    }

    /// Finishes what was handed over before and closes the connections, for every clone. Calls that come later are answered with
    /// [`StorageError::Unavailable`]; closing again is a success.
    ///
    /// # Errors
    /// None at the moment: what was answered as stored is committed already.
    ///
    /// # Cancel safety
    /// Once polled it may be dropped: the store closes all the same if it had a place in the queue.
    pub async fn close(&self) -> Result<(), StorageError> {
        let (reply, answer) = oneshot::channel();
        if self.shared.jobs.send(Job::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
        Ok(())
    }

    /// Does something on one of its connections, between the batches of others. A server that says nothing is waited for as long as
    /// with those.
    pub(super) async fn on_connection<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.ask(|reply| Job::Ask(Box::new(Work { what, work, reply }))).await?
    }

    /// What it counts, for whoever must not wait for its server.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.shared.target.counts.clone()
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StorageError> {
        let gone = || {
            let place = self.place();
            StorageError::unavailable(format!("the store in {place} is closed, or its thread has died; open it again"))
        };
        let (reply, answer) = oneshot::channel();
        self.shared.jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Storage for PostgresStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let store = Box::new(Store::new(batch, undo.attempt()));
        self.ask(|reply| Job::Store(store, reply)).await?
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.ask(|reply| Job::Rollback(id.clone(), attempt, reply)).await?
    }

    async fn count(&self, tenant: &TenantId) -> Option<u64> {
        self.ask(|reply| Job::Count(tenant.clone(), reply)).await.ok().flatten()
    }
}
