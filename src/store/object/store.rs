use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use headworks_actors::{Attempt, Batch, BatchId, Cause, Code, Storage, StorageError, TenantId, Undo};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::ObjectOptions;
use super::error::{Failure, OpenError};
use super::letting_go::Holding;
use super::link::Link;
use super::turns::Turns;
use super::write::Writer;
use crate::retention::{Asked, Pruned};
use crate::store::joined::Joined;

/// A store in objects; see the [module](super) for what is in it. Clones share one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. A dropped call leaves its outcome unknown. Dropping
/// the last clone blocks until what was handed over is stored or has failed; [`close`](Self::close) does the same without blocking.
///
/// ```
/// use headworks::store::{ObjectOptions, ObjectStore};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("events");
/// let store = ObjectStore::open(ObjectOptions::at(format!("file://{}", path.display())))?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// store.close().await?;
/// # Ok::<(), headworks::StorageError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ObjectStore {
    shared: Arc<Shared>,
}

/// The order of the fields matters: once the sender is gone the thread ends, and only then can it be joined.
struct Shared {
    place: String,
    writer: Arc<Writer>,
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
}

type Outcome = Result<(), StorageError>;

/// How long a place that cannot say how much was pruned is left alone.
const AGAIN: Duration = Duration::from_secs(5);

/// What the store is asked for.
enum Job {
    Store(Batch, Attempt, oneshot::Sender<Outcome>),
    Rollback(BatchId, Attempt, oneshot::Sender<Outcome>),
    Look(oneshot::Sender<Result<(), Failure>>),
    /// Anything else, of one tenant or of all, with the way to answer it.
    Do(Option<TenantId>, BoxFuture<'static, ()>),
    Close(oneshot::Sender<()>),
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// Sees to it that the place is there and fit. Blocks for as long as that takes: a few requests.
    ///
    /// A server that is away does not keep the store from opening: the log says so, its calls are answered with
    /// [`StorageError::Unavailable`], and the place is looked at once it is there.
    ///
    /// # Errors
    /// [`OpenError`]: the options cannot work, or the place refuses in a way that will not pass: a key, a bucket, a right, objects
    /// that were put there under other options, a server that heeds no conditions.
    pub fn open(options: ObjectOptions) -> Result<Self, OpenError> {
        let queue = options.queue.max(1);
        let writer = Arc::new(Writer::new(Link::new(options, true).map_err(OpenError::Options)?));
        let (place, shared) = (writer.link.place.clone(), writer.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
        let (jobs, waiting) = mpsc::channel(queue);
        let (tell, told) = std_mpsc::sync_channel(1);
        let run = move || {
            runtime.block_on(async {
                match writer.ready().await {
                    Err(why) if !why.may_be_waited_for() => return drop(tell.send(Err(why))),
                    Err(why) => {
                        let (place, why) = (&writer.link.place, why.explain());
                        tracing::warn!(target: "headworks", place, why, "the place of a store is away; its batches wait for it");
                    }
                    Ok(()) => {}
                }
                // Whoever opens it waits for this.
                let _ = tell.send(Ok(()));
                Desk { writer, turns: Turns::default() }.run(waiting, queue).await;
            });
        };
        let thread =
            std::thread::Builder::new().name("headworks-object".into()).spawn(run).map_err(OpenError::Thread)?;
        let refused = |why: Failure| OpenError::Refused { place: place.clone(), detail: why.explain() };
        let gone = |_| OpenError::Thread(std::io::Error::other("it has died"));
        told.recv().map_err(gone)?.map_err(refused)?;
        Ok(Self { shared: Arc::new(Shared { place, writer: shared, jobs, _thread: Joined::new(thread) }) })
    }

    /// Where it stores: the URL. No secret is in it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.shared.place
    }

    /// Whether its place is there. While so many calls wait that no other has room, they tell.
    pub(crate) async fn look(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        if self.shared.jobs.try_send(Job::Look(reply)).is_err() {
            return Ok(());
        }
        answer.await.map_or(Ok(()), |there| there.map_err(|why| why.explain()))
    }

    /// Finishes what was handed over before, for every clone. Calls that come later are answered with
    /// [`StorageError::Unavailable`]; closing again is a success.
    ///
    /// # Errors
    /// None at the moment: what was answered as stored is there already.
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

    /// What there is, by tenant.
    pub(crate) async fn stock(&self) -> Result<Vec<Holding>, StorageError> {
        let writer = self.shared.writer.clone();
        self.run(None, "look for what is to be pruned", async move { writer.stock().await }).await
    }

    /// Whether something of it may be due.
    pub(crate) fn is_to_be_looked_at(&self, holding: &Holding, asked: &Asked) -> bool {
        self.shared.writer.letting_go.is_to_be_looked_at(holding, asked)
    }

    /// Lets go of what is due of what there was then, or says what that would be.
    pub(crate) async fn prune(
        &self,
        holding: Arc<Holding>,
        asked: Asked,
        dry_run: bool,
    ) -> Result<Pruned, StorageError> {
        let (writer, tenant) = (self.shared.writer.clone(), holding.tenant.clone());
        let prune = async move { writer.prune(&holding, &asked, dry_run).await };
        self.run(Some(tenant), "prune a tenant's events", prune).await
    }

    /// How many events were pruned, where that is known.
    pub(crate) fn pruned(&self) -> impl Fn() -> Option<u64> + Send + Sync + use<> {
        let writer = self.shared.writer.clone();
        move || writer.letting_go.pruned()
    }

    /// Takes down in the place itself that all is to be erased that there is of the tenant; whether there is anything.
    pub(crate) async fn mark_erasure(&self, tenant: &TenantId) -> Result<bool, StorageError> {
        let (writer, id) = (self.shared.writer.clone(), tenant.clone());
        let mark = async move { writer.mark_erasure(&id).await };
        self.run(Some(tenant.clone()), "look for what is to be erased", mark).await
    }

    /// Erases what was marked, and adds how many events went to `events`. What is not erased yet where it fails is still there, and a second
    /// call goes on.
    pub(crate) async fn erase(&self, tenant: &TenantId, events: &mut u64) -> Result<(), StorageError> {
        const WHAT: &str = "erase a tenant's events";
        let (writer, id) = (self.shared.writer.clone(), tenant.clone());
        let erase = async move {
            let mut gone = 0;
            let done = writer.erase(&id, &mut gone).await;
            Ok((gone, done.map_err(|why| why.storage_error(WHAT, &writer.link.place))))
        };
        let (gone, done) = self.run(Some(tenant.clone()), WHAT, erase).await?;
        *events += gone;
        done
    }

    /// Does something on the store's thread, in the turn of the tenant.
    async fn run<T: Send + 'static>(
        &self,
        of: Option<TenantId>,
        what: &'static str,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, StorageError> {
        let place = self.shared.place.clone();
        self.ask(|reply| {
            let work = async move {
                let _ = reply.send(told(work, what, &place).await);
            };
            Job::Do(of, work.boxed())
        })
        .await
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StorageError>>) -> Job,
    ) -> Result<T, StorageError> {
        let gone = || {
            let place = self.place();
            StorageError::unavailable(format!("the store in {place} is closed, or its thread has died; open it again"))
        };
        let (reply, answer) = oneshot::channel();
        self.shared.jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Storage for ObjectStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        self.ask(|reply| Job::Store(batch.clone(), undo.attempt(), reply)).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.ask(|reply| Job::Rollback(id.clone(), attempt, reply)).await
    }
}

/// Hands out what is asked for, and sees to it that a tenant's calls are done one after the other, also those whose callers are gone.
struct Desk {
    writer: Arc<Writer>,
    turns: Turns,
}

impl Desk {
    /// Serves until the store is closed, or every handle is gone and nothing waits.
    async fn run(self, mut jobs: mpsc::Receiver<Job>, at_once: usize) {
        let desk = Arc::new(self);
        let compacting = desk.writer.link.options.compact_after.map(|after| {
            let writer = desk.writer.clone();
            tokio::spawn(async move { writer.keep_compacting(after).await })
        });
        // For whoever counts.
        let knowing = tokio::spawn({
            let writer = desk.writer.clone();
            async move {
                while writer.know_pruned().await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        });
        let (room, mut under_way, mut closing) = (Arc::new(Semaphore::new(at_once)), JoinSet::new(), vec![]);
        loop {
            // What cannot be begun waits in the queue, which has a bound.
            let Ok(place) = room.clone().acquire_owned().await else { break };
            while under_way.try_join_next().is_some() {}
            match jobs.recv().await {
                None => break,
                Some(Job::Close(reply)) => {
                    closing.push(reply);
                    jobs.close();
                }
                Some(job) => {
                    let desk = desk.clone();
                    under_way.spawn(async move {
                        desk.serve(job).await;
                        drop(place);
                    });
                }
            }
        }
        while under_way.join_next().await.is_some() {}
        knowing.abort();
        if let Some(compacting) = compacting {
            compacting.abort();
            let _ = compacting.await;
            desk.writer.compact_the_last().await;
        }
        for closed in closing {
            let _ = closed.send(());
        }
    }

    async fn serve(&self, job: Job) {
        match job {
            Job::Store(batch, attempt, reply) => {
                let what = format!("store batch {}", batch.id());
                self.in_turn(batch.tenant(), &what, reply, self.writer.store(&batch, attempt)).await;
            }
            Job::Rollback(id, attempt, reply) => {
                let what = format!("roll back batch {id}");
                self.in_turn(&id.tenant, &what, reply, self.writer.rollback(&id, attempt)).await;
            }
            Job::Look(reply) => drop(reply.send(self.writer.look().await)),
            Job::Do(of, work) => {
                let _turn = match &of {
                    Some(tenant) => Some(self.turns.of(tenant).await),
                    None => None,
                };
                work.await;
            }
            Job::Close(_) => {}
        }
    }

    async fn in_turn(
        &self,
        tenant: &TenantId,
        what: &str,
        reply: oneshot::Sender<Outcome>,
        work: impl Future<Output = Result<(), Failure>>,
    ) {
        let _turn = self.turns.of(tenant).await;
        // Whoever dropped the call will ask again or roll back: either is right without it.
        if !reply.is_closed() {
            let _ = reply.send(told(work, what, &self.writer.link.place).await);
        }
    }
}

/// What comes of it, for whoever asked.
async fn told<T>(work: impl Future<Output = Result<T, Failure>>, what: &str, place: &str) -> Result<T, StorageError> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done.map_err(|why| why.storage_error(what, place)),
        // Spends an attempt, so that a batch that brings this about is given up in the end.
        Err(panic) => {
            let why = Cause::from_panic(Code::StorePanic, &*panic).detail;
            Err(StorageError::transient(format!("cannot {what} in {place}: the store panicked: {why}")))
        }
    }
}
