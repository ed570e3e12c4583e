use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::{Storage, StorageError, Undo, UndoStep};
use crate::model::{Attempt, Batch, BatchId, TenantId};

/// One way a store misbehaves in one call.
///
/// The methods make scripts of it: `Fault::Transient.every(3)` fails each third call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: the store underneath answers.
    None,
    /// Refuses, and did nothing.
    Transient,
    /// Refuses for good, and did nothing.
    Permanent,
    /// Says that the store is not there, and did nothing.
    Unavailable,
    /// Never answers. After [`Faulty::release`] or [`Faulty::heal`] the store underneath answers, late.
    Stall,
    /// Panics before the store underneath saw the call.
    PanicBefore,
    /// Panics after the store underneath did it.
    PanicAfter,
    /// Does it, and then says that it failed in a way that may pass.
    LostReply,
    /// Does the first half of the batch, and refuses the rest for good: what a store leaves that cannot store whole.
    Tear,
}

impl Fault {
    /// In every call.
    pub fn always<T: ?Sized>(self) -> impl Fn(&T, u64) -> Self + Send + Sync + 'static {
        move |_, _| self
    }

    /// In the first `calls` calls.
    pub fn first<T: ?Sized>(self, calls: u64) -> impl Fn(&T, u64) -> Self + Send + Sync + 'static {
        move |_, call| if call <= calls { self } else { Self::None }
    }

    /// In call number `number` alone; the first has number 1.
    pub fn on_call<T: ?Sized>(self, number: u64) -> impl Fn(&T, u64) -> Self + Send + Sync + 'static {
        move |_, call| if call == number { self } else { Self::None }
    }

    /// In each `nth` call: `every(1)` is every call, `every(0)` is none.
    pub fn every<T: ?Sized>(self, nth: u64) -> impl Fn(&T, u64) -> Self + Send + Sync + 'static {
        move |_, call| if nth > 0 && call % nth == 0 { self } else { Self::None }
    }

    /// In every call for the batches of one tenant.
    pub fn of_tenant(self, tenant: TenantId) -> impl Fn(&Batch, u64) -> Self + Send + Sync + 'static {
        move |batch, _| if *batch.tenant() == tenant { self } else { Self::None }
    }
}

type Script<T> = Arc<dyn Fn(&T, u64) -> Fault + Send + Sync>;

/// A store that misbehaves by script, in front of one that does not.
///
/// A script is given the batch and the number of the call, from 1, and says what goes wrong. It can be exchanged while
/// the system runs. Clones share script and counters.
///
/// ```
/// use headworks_actors::{Fault, Faulty, MemoryStore};
///
/// let stored = MemoryStore::new();
/// let store = Faulty::new(stored.clone(), Fault::Transient.first(2));
/// // Only batches with a poisoned event, and only with some other error:
/// store.script(|batch, _call| {
///     let poisoned = batch.events().any(|event| event.body == b"poison");
///     if poisoned { Fault::Permanent } else { Fault::None }
/// });
/// store.heal();
/// assert_eq!(store.calls(), 0);
/// ```
#[derive(Debug)]
pub struct Faulty<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    inner: S,
    scripts: Mutex<(Script<Batch>, Script<BatchId>)>,
    calls: watch::Sender<u64>,
    rollbacks: watch::Sender<u64>,
    released: Notify,
}

impl<S: fmt::Debug> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> Clone for Faulty<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: Storage> Faulty<S> {
    /// `inner`, misbehaving by `script`. Its rollbacks work until [`script_rollback`](Self::script_rollback) says otherwise.
    pub fn new(inner: S, script: impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static) -> Self {
        let scripts: (Script<Batch>, Script<BatchId>) = (Arc::new(script), Arc::new(Fault::None.always()));
        let shared = Shared {
            inner,
            scripts: Mutex::new(scripts),
            calls: watch::Sender::new(0),
            rollbacks: watch::Sender::new(0),
            released: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The store underneath.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// What happens to calls of `store` from now on. Stalled ones stay stalled; the count of calls goes on.
    pub fn script(&self, script: impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static) {
        self.scripts().0 = Arc::new(script);
    }

    /// What happens to calls of `rollback` from now on.
    pub fn script_rollback(&self, script: impl Fn(&BatchId, u64) -> Fault + Send + Sync + 'static) {
        self.scripts().1 = Arc::new(script);
    }

    /// Nothing goes wrong from now on, and stalled calls go on.
    pub fn heal(&self) {
        *self.scripts() = (Arc::new(Fault::None.always()), Arc::new(Fault::None.always()));
        self.release();
    }

    /// Lets the calls that stall now go on to the store underneath.
    pub fn release(&self) {
        self.shared.released.notify_waiters();
    }

    /// How often `store` was called.
    #[must_use]
    pub fn calls(&self) -> u64 {
        *self.shared.calls.borrow()
    }

    /// How often `rollback` was called.
    #[must_use]
    pub fn rollbacks(&self) -> u64 {
        *self.shared.rollbacks.borrow()
    }

    /// Waits until `store` was called so many times in all: a test waits for this, not for time to pass.
    pub async fn until_calls(&self, calls: u64) {
        // The sender lives as long as `self`.
        let _ = self.shared.calls.subscribe().wait_for(|so_far| *so_far >= calls).await;
    }

    /// Waits until `rollback` was called so many times in all.
    pub async fn until_rollbacks(&self, rollbacks: u64) {
        let _ = self.shared.rollbacks.subscribe().wait_for(|so_far| *so_far >= rollbacks).await;
    }

    fn scripts(&self) -> MutexGuard<'_, (Script<Batch>, Script<BatchId>)> {
        self.shared.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` with its fault. `counter` and `script` belong to it.
    async fn with_fault<T: ?Sized>(
        &self,
        what: &T,
        script: Script<T>,
        counter: &watch::Sender<u64>,
        call: impl Future<Output = Result<(), StorageError>>,
        torn: impl Future<Output = Result<(), StorageError>>,
    ) -> Result<(), StorageError> {
        // Made before the call is counted: who waits for the count and then releases must reach this call.
        let released = self.shared.released.notified();
        let mut number = 0;
        counter.send_modify(|calls| {
            *calls += 1;
            number = *calls;
        });
        match script(what, number) {
            Fault::None => call.await,
            Fault::Transient => Err(StorageError::transient(format!("injected transient error in call {number}"))),
            Fault::Permanent => Err(StorageError::permanent(format!("injected permanent error in call {number}"))),
            Fault::Unavailable => Err(StorageError::unavailable(format!("injected outage in call {number}"))),
            Fault::Stall => {
                released.await;
                call.await
            }
            Fault::PanicBefore => panic!("injected panic before call {number}"),
            Fault::PanicAfter => {
                let _ = call.await;
                panic!("injected panic after call {number}")
            }
            Fault::LostReply => {
                call.await?;
                Err(StorageError::transient(format!("injected loss of the reply to call {number}")))
            }
            Fault::Tear => {
                torn.await?;
                Err(StorageError::permanent(format!("injected tear in call {number}")))
            }
        }
    }
}

impl<S: Storage> Storage for Faulty<S> {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let script = self.scripts().0.clone();
        let whole = self.shared.inner.store(batch, undo);
        let torn = async { self.shared.inner.store(&batch.first_half(), undo).await };
        self.with_fault(batch, script, &self.shared.calls, whole, torn).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        let script = self.scripts().1.clone();
        let whole = self.shared.inner.rollback(id, attempt);
        // There is no half of a rollback: it is refused, and nothing is done.
        self.with_fault(id, script, &self.shared.rollbacks, whole, async { Ok(()) }).await
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        self.shared.inner.undo(step).await
    }

    async fn count(&self, tenant: &TenantId) -> Option<u64> {
        self.shared.inner.count(tenant).await
    }

    fn takes_pieces(&self) -> bool {
        self.shared.inner.takes_pieces()
    }
}
