//! Pruning that is asked for by hand while a daemon runs, which does it between its own passes.

use headworks_actors::StorageError;
use tokio::sync::{mpsc, oneshot};

use super::Report;

/// Whether nothing is to be changed, and whom to tell.
pub(crate) type Order = (bool, oneshot::Sender<Result<Report, StorageError>>);

/// Asks whoever prunes. Clones ask the same.
#[derive(Debug, Clone)]
pub(crate) struct Pruner(mpsc::Sender<Order>);

/// What whoever prunes is asked.
#[derive(Debug)]
pub(crate) struct Orders(mpsc::Receiver<Order>);

/// One to ask, and what it is asked; a second order waits for the first.
pub(crate) fn orders() -> (Pruner, Orders) {
    let (ask, asked) = mpsc::channel(1);
    (Pruner(ask), Orders(asked))
}

impl Pruner {
    /// Prunes what is due now, or says what that would be.
    ///
    /// # Errors
    /// A store cannot be read or written, or nobody prunes any more.
    pub(crate) async fn prune(&self, dry_run: bool) -> Result<Report, StorageError> {
        let gone = || StorageError::unavailable("whoever prunes has ended with the daemon");
        let (answer, answered) = oneshot::channel();
        self.0.send((dry_run, answer)).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Orders {
    /// The next one; never where nobody can ask any more.
    pub(crate) async fn next(&mut self) -> Order {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}
