//! A store that writes down what it is asked.

use std::sync::{Arc, Mutex};

use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, Undo, UndoStep};
use tokio::time::Instant;

/// One call, in the order they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Store { id: BatchId, attempt: u32, bodies: Vec<Vec<u8>>, at: Instant },
    Stored { bodies: Vec<Vec<u8>>, at: Instant },
    Undo(String),
    Rollback { id: BatchId, attempt: u32 },
}

#[derive(Debug)]
pub(crate) struct Recorder<S> {
    inner: Arc<S>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl<S> Clone for Recorder<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), calls: self.calls.clone() }
    }
}

impl<S> std::ops::Deref for Recorder<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.inner
    }
}

impl<S> Recorder<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner: Arc::new(inner), calls: Arc::default() }
    }

    pub(crate) fn record(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Every attempt to store: id, number, bodies.
    pub(crate) fn attempts(&self) -> Vec<(BatchId, u32, Vec<Vec<u8>>)> {
        let attempts = self.record().into_iter().filter_map(|call| match call {
            Call::Store { id, attempt, bodies, .. } => Some((id, attempt, bodies)),
            _ => None,
        });
        attempts.collect()
    }

    /// When each attempt began.
    pub(crate) fn attempted_at(&self) -> Vec<Instant> {
        self.record()
            .iter()
            .filter_map(|call| if let Call::Store { at, .. } = call { Some(*at) } else { None })
            .collect()
    }

    /// The attempt that each rollback fences.
    pub(crate) fn rolled_back(&self) -> Vec<u32> {
        let attempt = |call: &Call| if let Call::Rollback { attempt, .. } = call { Some(*attempt) } else { None };
        self.record().iter().filter_map(attempt).collect()
    }

    fn push(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl<S: Storage> Storage for Recorder<S> {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let bodies: Vec<_> = batch.events().map(|event| event.body.to_vec()).collect();
        let (id, attempt, at) = (batch.id().clone(), undo.attempt().0, Instant::now());
        self.push(Call::Store { id, attempt, bodies: bodies.clone(), at });
        self.inner.store(batch, undo).await?;
        self.push(Call::Stored { bodies, at: Instant::now() });
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.push(Call::Rollback { id: id.clone(), attempt: attempt.0 });
        self.inner.rollback(id, attempt).await
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        self.push(Call::Undo(step.name.clone()));
        self.inner.undo(step).await
    }

    fn takes_pieces(&self) -> bool {
        self.inner.takes_pieces()
    }
}
