use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::journal::{DynJournal, Entry, Position};
use crate::model::{Attempt, Batch, BatchId, StoreName, TenantId};

/// Where batches end up.
///
/// One value serves many tenants at once, with as many calls under way as its [`StoreLimits`](crate::StoreLimits) allow; calls for
/// one tenant come one after the other, in the tenant's order.
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
    /// Idempotent on [`Batch::id`]: a batch that is already there is a success and changes nothing. After a crash a batch may
    /// come again though a later one of its tenant is stored: a store that then refused for good what it holds would have it
    /// taken back, and stored in pieces behind the later one, if at all.
    ///
    /// `undo` carries the number of the attempt and takes steps that a rollback must undo beyond [`rollback`](Self::rollback)
    /// itself.
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

    /// Whether a batch that was refused for good may come again in [pieces](crate::Piece), each under an id of its own, until the
    /// events that the store refuses are found. A store that takes whole batches only says no: a batch that it refuses is then
    /// given up whole.
    fn takes_pieces(&self) -> bool {
        true
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
        /// The earliest time at which the store wants to be asked again, where it says so: until then it is not, but by an operator.
        retry_after: Option<Duration>,
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
        Self::Unavailable { detail: detail.to_string(), retry_after: None }
    }

    /// The store is not there, or wants to be left alone, before `retry_after`.
    pub fn unavailable_after(detail: impl fmt::Display, retry_after: Duration) -> Self {
        Self::Unavailable { detail: detail.to_string(), retry_after: Some(retry_after) }
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
/// the batch is given up, newest first. A step that is on the list already is not put there twice.
#[derive(Clone)]
pub struct Undo {
    store: StoreName,
    attempt: Attempt,
    list: Arc<UndoList>,
    record: Option<(BatchId, Arc<dyn DynJournal>)>,
}

/// What the stores of a batch registered, and whose turn it is to do so.
#[derive(Debug, Default)]
pub(crate) struct UndoList(Mutex<Registered>);

#[derive(Debug, Default)]
struct Registered {
    /// The attempt that is under way.
    open: Option<(StoreName, Attempt)>,
    /// Oldest first.
    steps: Vec<(StoreName, UndoStep)>,
}

impl UndoList {
    pub(crate) fn of(steps: Vec<(StoreName, UndoStep)>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Registered { open: None, steps })))
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on this attempt may register steps, and no other.
    pub(crate) fn open(&self, store: &StoreName, attempt: Attempt) {
        self.lock().open = Some((store.clone(), attempt));
    }

    /// From here on nobody may.
    pub(crate) fn close(&self) {
        self.lock().open = None;
    }

    /// Everything registered so far, oldest first.
    pub(crate) fn steps(&self) -> Vec<(StoreName, UndoStep)> {
        self.lock().steps.clone()
    }

    /// Empties it, to be used again.
    pub(crate) fn clear(&self) {
        *self.lock() = Registered::default();
    }
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undo").field("attempt", &self.attempt).field("steps", &self.steps()).finish_non_exhaustive()
    }
}

impl Undo {
    /// Of the attempt that the list is open to.
    pub(crate) fn new(store: StoreName, attempt: Attempt, list: Arc<UndoList>) -> Self {
        Self { store, attempt, list, record: None }
    }

    /// The same list, kept by a journal too.
    pub(crate) fn on_record(self, batch: &BatchId, journal: &Arc<dyn DynJournal>) -> Self {
        Self { record: Some((batch.clone(), journal.clone())), ..self }
    }

    /// An empty list for a call by hand: in tests of a store.
    #[must_use]
    pub fn for_attempt(attempt: Attempt) -> Self {
        let list = Arc::new(UndoList::default());
        list.open(&StoreName::ONLY, attempt);
        Self::new(StoreName::ONLY, attempt, list)
    }

    /// The number of this attempt, from 1, counted for each store.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Registers a step. Once this returns, the step will be run if the batch is given up: register first, act then. Where the
    /// journal is durable it is on disk by then.
    ///
    /// Where the attempt is over, because its time was up or its writer was restarted, this never returns: what the step was for
    /// must not be done any more.
    ///
    /// # Cancel safety
    /// A step whose `push` was dropped may or may not be on the list.
    pub async fn push(&self, step: UndoStep) {
        match self.register(step) {
            Some(Some((journal, position))) => journal.committed(position).await,
            Some(None) => return,
            None => {}
        }
        if !self.is_open() {
            std::future::pending::<()>().await;
        }
    }

    /// Puts the step on the list and on record; where the record is. `None` where the attempt is over.
    fn register(&self, step: UndoStep) -> Option<Option<(&Arc<dyn DynJournal>, Position)>> {
        // On record under the list's lock: before the batch is given up, or not at all.
        let mut list = self.list.lock();
        if !list.is_open_to(self) {
            return None;
        }
        if !list.steps.iter().any(|(store, known)| *store == self.store && *known == step) {
            list.steps.push((self.store.clone(), step.clone()));
        }
        // Also where it is known: what was put on record before may not be on the disk yet.
        Some(self.record.as_ref().map(|(batch, journal)| {
            let entry = Entry::Undo { batch: batch.clone(), store: self.store.clone(), step };
            (journal, journal.append(&mut vec![entry]))
        }))
    }

    fn is_open(&self) -> bool {
        self.list.lock().is_open_to(self)
    }

    /// The steps this store registered so far, oldest first.
    #[must_use]
    pub fn steps(&self) -> Vec<UndoStep> {
        let list = self.list.lock();
        list.steps.iter().filter(|(store, _)| *store == self.store).map(|(_, step)| step.clone()).collect()
    }
}

impl Registered {
    fn is_open_to(&self, undo: &Undo) -> bool {
        self.open.as_ref().is_some_and(|(store, attempt)| *store == undo.store && *attempt == undo.attempt)
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
    /// See [`Storage::takes_pieces`].
    fn takes_pieces(&self) -> bool;
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

    fn takes_pieces(&self) -> bool {
        Storage::takes_pieces(self)
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

    fn takes_pieces(&self) -> bool {
        S::takes_pieces(self)
    }
}
