use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{BoxStorage, Storage, StorageExt};
use crate::model::{Cause, Code, Error, StoreName};
use crate::policy::StoreLimits;

/// The stores of a tenant, in order. A batch ends up in all of them, or in none.
///
/// Each store is a step. A step begins once the one before it is done. When a store refuses the batch for good, or its retries
/// are spent, the steps that were begun are rolled back, newest first, before the batch goes anywhere else.
///
/// ```
/// use headworks_actors::{MemoryStore, Saga, System};
///
/// let (archive, db) = (MemoryStore::new(), MemoryStore::new());
/// let saga = Saga::new().then(archive).named("archive").then(db).named("db");
/// let system = System::builder().saga(saga).start()?;
/// # Ok::<(), headworks_actors::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Saga {
    steps: Vec<SagaStep>,
    /// A name that was given before there was a store to bear it.
    early: Option<String>,
    /// So were limits.
    early_limits: bool,
}

/// A store in a saga.
#[derive(Clone)]
pub(crate) struct SagaStep {
    /// What it was named. A name that cannot be one is told by `check`.
    name: Option<Result<StoreName, String>>,
    storage: BoxStorage,
    limits: StoreLimits,
}

impl Saga {
    /// No store yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more store, after the others.
    pub fn then(self, storage: impl Storage) -> Self {
        self.then_boxed(storage.boxed())
    }

    /// One more store, after the others.
    pub fn then_boxed(mut self, storage: BoxStorage) -> Self {
        self.steps.push(SagaStep { name: None, storage, limits: StoreLimits::default() });
        self
    }

    /// What the last store is called on record, in logs and in reports: unset, `store-1`, `store-2` and so on, and `store` where
    /// it is the only one. Where the journal is durable a name must keep its meaning: a batch whose step was begun under a name that
    /// no store has any more cannot be rolled back there.
    pub fn named(mut self, name: &str) -> Self {
        match self.steps.last_mut() {
            Some(last) => last.name = Some(StoreName::new(name).map_err(|why| why.to_string())),
            None => self.early = Some(name.to_owned()),
        }
        self
    }

    /// What the last store may be asked for at once, by all tenants that share it. Where those name different limits, the lowest
    /// counts. A store is shared where it is the same [`BoxStorage`].
    pub fn limits(mut self, limits: StoreLimits) -> Self {
        match self.steps.last_mut() {
            Some(last) => last.limits = limits,
            None => self.early_limits = true,
        }
        self
    }

    /// How many stores there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The stores with the names that they go by.
    ///
    /// # Errors
    /// No store, two with one name, a name that is none, limits that cannot be, or either before the first store.
    pub(crate) fn check(self) -> Result<Stores, Error> {
        let invalid = |why: String| Err(Error::InvalidSaga(format!("the saga cannot work: {why}")));
        if self.steps.is_empty() {
            return invalid("it has no store; add one with `then`".to_owned());
        }
        if let Some(name) = self.early {
            return invalid(format!("the name {name:?} comes before the first store; name a store after its `then`"));
        }
        if self.early_limits {
            return invalid("limits come before the first store; limit a store after its `then`".to_owned());
        }
        let is_only = self.steps.len() == 1;
        let mut steps: Vec<(StoreName, BoxStorage, StoreLimits)> = vec![];
        for (nth, SagaStep { name, storage, limits }) in self.steps.into_iter().enumerate() {
            let name = match name {
                Some(Ok(name)) => name,
                Some(Err(why)) => return invalid(why),
                None if is_only => StoreName::ONLY,
                None => StoreName::of_place(nth),
            };
            if steps.iter().any(|(other, ..)| *other == name) {
                return invalid(format!("two stores are named {name}; a name must mean one"));
            }
            if let Err(why) = limits.check() {
                return invalid(format!("store {name}: {why}"));
            }
            steps.push((name, storage, limits));
        }
        Ok(Stores(steps))
    }
}

impl fmt::Debug for Saga {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|step| &step.name)).finish()
    }
}

/// The stores of a saga that can work: there is one at least, and each has a name of its own.
pub(crate) struct Stores(Vec<(StoreName, BoxStorage, StoreLimits)>);

impl Stores {
    /// The names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &StoreName> {
        self.0.iter().map(|(name, ..)| name)
    }

    /// The store of this name.
    pub(crate) fn get(&self, name: &StoreName) -> Option<&BoxStorage> {
        self.0.iter().find(|(other, ..)| other == name).map(|(_, storage, _)| storage)
    }

    /// Which of them has this name, from 0.
    pub(crate) fn place(&self, name: &StoreName) -> Option<usize> {
        self.names().position(|other| other == name)
    }

    /// The stores, in order, each with its limits.
    pub(crate) fn limited(&self) -> impl Iterator<Item = (&BoxStorage, StoreLimits)> {
        self.0.iter().map(|(_, storage, limits)| (storage, *limits))
    }

    /// Whether both have a store in common.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        self.0.iter().any(|(_, storage, _)| other.0.iter().any(|(_, other, _)| Arc::ptr_eq(storage, other)))
    }

    /// Whether every store can hold a piece of a batch. The cause tells of one that panics on the question.
    pub(crate) fn take_pieces(&self) -> Result<bool, Cause> {
        let takes = || self.0.iter().all(|(_, storage, _)| storage.takes_pieces());
        catch_unwind(AssertUnwindSafe(takes)).map_err(|panic| Cause::from_panic(Code::StorePanic, &*panic))
    }
}
