use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::journal::{DynJournal, Entry};
use crate::model::{Attempt, Batch, BatchId, TenantId};

/// Where batches end up.
///
/// One value serves many tenants at once; calls for one tenant come one after the other, in the tenant's order.
/// A call may fail, panic or never end: the writer turns each into a failed attempt and tries again by its policy.
/// A call must not block its thread: work that blocks belongs on a thread of the store's own.
///
/// ```
/// use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, Undo};
///
/// struct Printer;
///
/// impl Storage for Printer {
///     async fn store(&self, batch: &Batch, _undo: &Undo) -> Result<(), StorageError> {
///         for event in batch.events() {
///             println!("{} {}", batch.tenant(), String::from_utf8_lossy(event.body));
///         }
///         Ok(())
///     }
///
///     async fn rollback(&self, _id: &BatchId, _attempt: Attempt) -> Result<(), StorageError> {
///         Err(StorageError::permanent("what is printed cannot be taken back"))
///     }
/// }
/// ```
pub trait Storage: Send + Sync + 'static {
    /// Stores the batch whole.
    ///
    /// Idempotent on [`Batch::id`]: a batch that is already there is a success and changes nothing. `undo` carries the
    /// number of the attempt and takes steps that a rollback must undo beyond [`rollback`](Self::rollback) itself.
    ///
    /// # Errors
    /// [`StorageError`] says whether to try again, to give up or to wait.
    ///
    /// # Cancel safety
    /// The future may be dropped at any await, after which the outcome is unknown; the same batch will come again, or
    /// be rolled back.
    fn store(&self, batch: &Batch, undo: &Undo) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Removes whatever attempts up to `attempt` may have left, and fences them: a late one must not land.
    ///
    /// Idempotent; a batch that never arrived is a success. A later attempt, with a higher number, may store it again.
    ///
    /// # Errors
    /// As for [`store`](Self::store); it will be called again until it succeeds or its policy gives up.
    fn rollback(&self, id: &BatchId, attempt: Attempt) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Runs one step that `store` registered by [`Undo::push`].
    ///
    /// Idempotent. Steps run newest first, before [`rollback`](Self::rollback).
    ///
    /// # Errors
    /// The default knows no steps and refuses.
    fn undo(&self, step: &UndoStep) -> impl Future<Output = Result<(), StorageError>> + Send {
        let refusal =
            StorageError::permanent(format!("this store registers no undo steps, but was given {:?}", step.name));
        async move { Err(refusal) }
    }

    /// How many events of the tenant the store holds, where it can tell.
    fn count(&self, tenant: &TenantId) -> impl Future<Output = Option<u64>> + Send {
        let _ = tenant;
        async { None }
    }
}

/// How a store fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// It may pass: the attempt is spent and another follows after a backoff.
    #[error("{detail}")]
    Transient {
        /// What happened.
        detail: String,
        /// The earliest time at which the store wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It will never work for this batch: no attempt follows.
    #[error("{detail}")]
    Permanent {
        /// What happened.
        detail: String,
    },
    /// The store as a whole cannot be reached or written: no attempt is spent, the tenant's lane waits until it is back.
    #[error("{detail}")]
    Unavailable {
        /// What happened.
        detail: String,
    },
}

impl StorageError {
    /// It may pass.
    pub fn transient(detail: impl fmt::Display) -> Self {
        Self::Transient { detail: detail.to_string(), retry_after: None }
    }

    /// It may pass, but not before `retry_after`.
    pub fn transient_after(detail: impl fmt::Display, retry_after: Duration) -> Self {
        Self::Transient { detail: detail.to_string(), retry_after: Some(retry_after) }
    }

    /// It will never work for this batch.
    pub fn permanent(detail: impl fmt::Display) -> Self {
        Self::Permanent { detail: detail.to_string() }
    }

    /// The store is not there at all.
    pub fn unavailable(detail: impl fmt::Display) -> Self {
        Self::Unavailable { detail: detail.to_string() }
    }
}

/// A step that undoes a side effect of a store call. Steps are data, so that a fresh actor can run what a dead one registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoStep {
    /// What to undo, in the store's own words.
    pub name: String,
    /// What it needs for that.
    pub data: Vec<u8>,
}

/// One attempt's number, and the list of what must be undone if the batch is given up.
///
/// The list belongs to the batch, not to the attempt: it survives retries and restarts, and each step on it is run once
/// the batch is given up, newest first.
#[derive(Clone)]
pub struct Undo {
    attempt: Attempt,
    steps: Arc<Mutex<Vec<UndoStep>>>,
    record: Option<(BatchId, Arc<dyn DynJournal>)>,
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undo").field("attempt", &self.attempt).field("steps", &self.steps()).finish_non_exhaustive()
    }
}

impl Undo {
    pub(crate) fn new(attempt: Attempt, steps: Arc<Mutex<Vec<UndoStep>>>) -> Self {
        Self { attempt, steps, record: None }
    }

    /// The same list, kept by a journal too.
    pub(crate) fn on_record(self, batch: &BatchId, journal: &Arc<dyn DynJournal>) -> Self {
        Self { record: Some((batch.clone(), journal.clone())), ..self }
    }

    /// An empty list for a call by hand: in tests of a store.
    #[must_use]
    pub fn for_attempt(attempt: Attempt) -> Self {
        Self::new(attempt, Arc::default())
    }

    /// The number of this attempt.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Registers a step. Once this returns, the step will be run if the batch is given up: register first, act then. Where the
    /// journal is durable it is on disk by then.
    ///
    /// # Cancel safety
    /// A step whose `push` was dropped may or may not be on the list.
    pub async fn push(&self, step: UndoStep) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step.clone());
        if let Some((batch, journal)) = &self.record {
            let position = journal.append(&mut vec![Entry::Undo { batch: batch.clone(), step }]);
            journal.committed(position).await;
        }
    }

    /// The steps registered so far, oldest first.
    #[must_use]
    pub fn steps(&self) -> Vec<UndoStep> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// [`Storage`] behind a pointer, at one box a call.
pub trait DynStorage: Send + Sync + 'static {
    /// See [`Storage::store`].
    fn store<'a>(&'a self, batch: &'a Batch, undo: &'a Undo) -> BoxFuture<'a, Result<(), StorageError>>;
    /// See [`Storage::rollback`].
    fn rollback<'a>(&'a self, id: &'a BatchId, attempt: Attempt) -> BoxFuture<'a, Result<(), StorageError>>;
    /// See [`Storage::undo`].
    fn undo<'a>(&'a self, step: &'a UndoStep) -> BoxFuture<'a, Result<(), StorageError>>;
    /// See [`Storage::count`].
    fn count<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Option<u64>>;
}

impl<S: Storage> DynStorage for S {
    fn store<'a>(&'a self, batch: &'a Batch, undo: &'a Undo) -> BoxFuture<'a, Result<(), StorageError>> {
        Storage::store(self, batch, undo).boxed()
    }

    fn rollback<'a>(&'a self, id: &'a BatchId, attempt: Attempt) -> BoxFuture<'a, Result<(), StorageError>> {
        Storage::rollback(self, id, attempt).boxed()
    }

    fn undo<'a>(&'a self, step: &'a UndoStep) -> BoxFuture<'a, Result<(), StorageError>> {
        Storage::undo(self, step).boxed()
    }

    fn count<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Option<u64>> {
        Storage::count(self, tenant).boxed()
    }
}

/// A store of any kind, shared by the tenants that use it.
pub type BoxStorage = Arc<dyn DynStorage>;

/// Comfort on top of [`Storage`].
pub trait StorageExt: Storage + Sized {
    /// This store behind a pointer.
    fn boxed(self) -> BoxStorage {
        Arc::new(self)
    }
}

impl<S: Storage> StorageExt for S {}

impl<S: Storage> Storage for Arc<S> {
    fn store(&self, batch: &Batch, undo: &Undo) -> impl Future<Output = Result<(), StorageError>> + Send {
        S::store(self, batch, undo)
    }

    fn rollback(&self, id: &BatchId, attempt: Attempt) -> impl Future<Output = Result<(), StorageError>> + Send {
        S::rollback(self, id, attempt)
    }

    fn undo(&self, step: &UndoStep) -> impl Future<Output = Result<(), StorageError>> + Send {
        S::undo(self, step)
    }

    fn count(&self, tenant: &TenantId) -> impl Future<Output = Option<u64>> + Send {
        S::count(self, tenant)
    }
}
