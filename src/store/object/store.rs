use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};

use futures::FutureExt;
use headworks_actors::{Attempt, Batch, BatchId, Cause, Code, Storage, StorageError, TenantId, Undo};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::ObjectOptions;
use super::error::{Failure, OpenError};
use super::link::Link;
use super::write::Writer;
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
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
}

type Outcome = Result<(), StorageError>;

/// What the store is asked for.
enum Job {
    Store(Batch, Attempt, oneshot::Sender<Outcome>),
    Rollback(BatchId, Attempt, oneshot::Sender<Outcome>),
    Look(oneshot::Sender<Result<(), Failure>>),
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
        let place = writer.link.place.clone();
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
                Desk { writer, turns: Mutex::default() }.run(waiting, queue).await;
            });
        };
        let thread =
            std::thread::Builder::new().name("headworks-object".into()).spawn(run).map_err(OpenError::Thread)?;
        let refused = |why: Failure| OpenError::Refused { place: place.clone(), detail: why.explain() };
        let gone = |_| OpenError::Thread(std::io::Error::other("it has died"));
        told.recv().map_err(gone)?.map_err(refused)?;
        Ok(Self { shared: Arc::new(Shared { place, jobs, _thread: Joined::new(thread) }) })
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

    async fn ask(&self, job: impl FnOnce(oneshot::Sender<Outcome>) -> Job) -> Outcome {
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
    turns: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Desk {
    /// Serves until the store is closed, or every handle is gone and nothing waits.
    async fn run(self, mut jobs: mpsc::Receiver<Job>, at_once: usize) {
        let desk = Arc::new(self);
        let compacting = desk.writer.link.options.compact_after.map(|after| {
            let writer = desk.writer.clone();
            tokio::spawn(async move { writer.keep_compacting(after).await })
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
        let turn = self.lock().entry(tenant.clone()).or_default().clone();
        let mine = turn.lock().await;
        // Whoever dropped the call will ask again or roll back: either is right without it.
        if !reply.is_closed() {
            let place = &self.writer.link.place;
            let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(done) => done.map_err(|why| why.storage_error(what, place)),
                // Spends an attempt, so that a batch that brings this about is given up in the end.
                Err(panic) => {
                    let why = Cause::from_panic(Code::StorePanic, &*panic).detail;
                    Err(StorageError::transient(format!("cannot {what} in {place}: the store panicked: {why}")))
                }
            };
            let _ = reply.send(outcome);
        }
        drop(mine);
        let mut turns = self.lock();
        // The map's and this one: nobody waits.
        if Arc::strong_count(&turn) == 2 {
            turns.remove(tenant);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
