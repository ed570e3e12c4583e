//! The thread of a store whose calls are requests to a server: it takes calls in, has so many of them under way at once, and ends
//! when the last handle is gone.

use std::io;
use std::panic::AssertUnwindSafe;
#[cfg(feature = "nats")]
use std::pin::Pin;
use std::sync::{Arc, mpsc as std_mpsc};

use futures::FutureExt;
use headworks_actors::{Attempt, Batch, BatchId, Cause, Code, StorageError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::joined::Joined;

pub(super) type Outcome = Result<(), StorageError>;

/// What does the work, on the thread of the desk.
pub(super) trait Serve: Send + Sync + 'static {
    /// See [`Storage::store`](headworks_actors::Storage::store).
    fn store(&self, batch: &Batch, attempt: Attempt) -> impl Future<Output = Outcome> + Send;
    /// See [`Storage::rollback`](headworks_actors::Storage::rollback).
    fn rollback(&self, id: &BatchId, attempt: Attempt) -> impl Future<Output = Outcome> + Send;
    /// Whether whoever it sends to is there.
    fn look(&self) -> impl Future<Output = Outcome> + Send;
}

/// Its handle. The order of the fields matters: once the sender is gone the thread ends, and only then can it be joined.
pub(super) struct Desk {
    jobs: mpsc::Sender<Job>,
    place: String,
    _thread: Joined,
}

enum Job {
    Store(Batch, Attempt, oneshot::Sender<Outcome>),
    Rollback(BatchId, Attempt, oneshot::Sender<Outcome>),
    Look(oneshot::Sender<Outcome>),
    /// Anything else, with the way to answer it.
    #[cfg(feature = "nats")]
    Do(Pin<Box<dyn Future<Output = ()> + Send>>),
    Close(oneshot::Sender<()>),
}

impl Desk {
    /// Starts the thread `name`, which does first what `begin` says. `place` is where things are stored, for errors. `at_once` calls
    /// may be under way, and `queue` more may wait for that.
    ///
    /// # Errors
    /// The inner one is that of `begin`; the outer one: there is no thread.
    pub(super) fn open<S: Serve, E: Send + 'static>(
        name: &str,
        place: String,
        server: Arc<S>,
        (queue, at_once): (usize, usize),
        begin: impl AsyncFnOnce(&S) -> Result<(), E> + Send + 'static,
    ) -> io::Result<Result<Self, E>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, waiting) = mpsc::channel(queue.max(1));
        let (tell, told) = std_mpsc::sync_channel(1);
        let work = move || {
            runtime.block_on(async {
                let begun = begin(&server).await;
                let is_begun = begun.is_ok();
                // Whoever opens it waits for this.
                let _ = tell.send(begun);
                if is_begun {
                    run(server, waiting, at_once.max(1)).await;
                }
            });
        };
        let thread = Joined::new(std::thread::Builder::new().name(name.into()).spawn(work)?);
        let begun = told.recv().map_err(|_| io::Error::other("it has died"))?;
        Ok(begun.map(|()| Self { jobs, place, _thread: thread }))
    }

    pub(super) async fn store(&self, batch: &Batch, attempt: Attempt) -> Outcome {
        self.ask(|reply| Job::Store(batch.clone(), attempt, reply)).await
    }

    pub(super) async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Outcome {
        self.ask(|reply| Job::Rollback(id.clone(), attempt, reply)).await
    }

    /// Whether whoever it sends to is there. While so many calls wait that no other has room, they tell.
    pub(super) async fn look(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.try_send(Job::Look(reply)).is_err() {
            return Ok(());
        }
        answer.await.map_or(Ok(()), |there| there.map_err(|why| why.to_string()))
    }

    /// Finishes what was handed over before; what comes later is answered with [`StorageError::Unavailable`].
    ///
    /// # Cancel safety
    /// Once polled it may be dropped: it closes all the same if it had a place in the queue.
    pub(super) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Does something else on the thread, between the calls of others.
    #[cfg(feature = "nats")]
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "the daemon erases"))]
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.ask(|reply| Job::Do(Box::pin(answer(reply, work)))).await
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StorageError>>) -> Job,
    ) -> Result<T, StorageError> {
        let gone = |_| {
            let place = &self.place;
            StorageError::unavailable(format!(
                "the store that sends to {place} is closed, or its thread has died; open it again"
            ))
        };
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }
}

/// Serves until it is closed, or every handle is gone and nothing waits.
async fn run<S: Serve>(server: Arc<S>, mut jobs: mpsc::Receiver<Job>, at_once: usize) {
    let places = Arc::new(Semaphore::new(at_once));
    let mut under_way = JoinSet::new();
    let mut closed = vec![];
    while let Some(job) = jobs.recv().await {
        while under_way.try_join_next().is_some() {}
        if let Job::Close(reply) = job {
            jobs.close();
            closed.push(reply);
            continue;
        }
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let server = server.clone();
        under_way.spawn(async move {
            match job {
                Job::Store(batch, attempt, reply) => answer(reply, server.store(&batch, attempt)).await,
                Job::Rollback(id, attempt, reply) => answer(reply, server.rollback(&id, attempt)).await,
                Job::Look(reply) => answer(reply, server.look()).await,
                #[cfg(feature = "nats")]
                Job::Do(work) => work.await,
                Job::Close(_) => {}
            }
            drop(place);
        });
    }
    while under_way.join_next().await.is_some() {}
    for reply in closed {
        let _ = reply.send(());
    }
}

/// Whoever dropped the call will ask again or roll back: its request is cut off.
async fn answer<T>(
    mut reply: oneshot::Sender<Result<T, StorageError>>,
    work: impl Future<Output = Result<T, StorageError>>,
) {
    let outcome = tokio::select! {
        biased;
        () = reply.closed() => return,
        outcome = AssertUnwindSafe(work).catch_unwind() => outcome,
    };
    // Spends an attempt, so that a batch that brings this about is given up in the end.
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let why = Cause::from_panic(Code::StorePanic, &*panic).detail;
        Err(StorageError::transient(format!("the store panicked: {why}")))
    };
    let _ = reply.send(outcome.unwrap_or_else(panicked));
}
