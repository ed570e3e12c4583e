use std::fmt;
use std::sync::Arc;

#[cfg(feature = "sqlite")]
use headworks_actors::TenantId;
use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, Undo};

use super::NatsStoreOptions;
use super::error::{Failure, OpenError};
use super::link::Link;
use super::write::Writer;
use crate::store::desk::{Desk, Outcome, Serve};

/// A store in a NATS JetStream; see the [module](super) for what is published there. Clones share one connection and one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. A dropped call leaves its outcome unknown. Dropping
/// the last clone blocks until what was handed over has its answer; [`close`](Self::close) does the same without blocking.
///
/// ```no_run
/// use headworks::store::{NatsStore, NatsStoreOptions};
///
/// let store = NatsStore::open(NatsStoreOptions::at("nats://127.0.0.1:4222", "EVENTS"))?;
/// # Ok::<(), headworks::store::nats::OpenError>(())
/// ```
#[derive(Clone)]
pub struct NatsStore {
    shared: Arc<Shared>,
}

struct Shared {
    place: String,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "the daemon erases"))]
    writer: Arc<Writer>,
    desk: Desk,
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStore").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

impl Serve for Writer {
    async fn store(&self, batch: &Batch, attempt: Attempt) -> Outcome {
        let failed = |why: Failure| why.storage_error(&format!("store batch {}", batch.id()), &self.link.place);
        self.store(batch, attempt).await.map_err(failed)
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Outcome {
        let failed = |why: Failure| why.storage_error(&format!("roll back batch {id}"), &self.link.place);
        self.rollback(id, attempt).await.map_err(failed)
    }

    async fn look(&self) -> Outcome {
        let failed = |why: Failure| StorageError::unavailable(why.explain());
        self.link.open().await.map(drop).map_err(failed)
    }
}

impl NatsStore {
    /// Sees to it that the stream is there and fit. Blocks for as long as that takes.
    ///
    /// A server that is away does not keep the store from opening: the log says so, its calls are answered with
    /// [`StorageError::Unavailable`], and the stream is looked at once the server is there.
    ///
    /// # Errors
    /// [`OpenError`]: the options cannot work, or the server refuses in a way that will not pass: the secrets, a right, a stream that is
    /// not there or not fit.
    pub fn open(options: NatsStoreOptions) -> Result<Self, OpenError> {
        let queue = options.queue.max(1);
        let writer = Arc::new(Writer { link: Link::new(options).map_err(OpenError::Options)? });
        let place = writer.link.place.clone();
        let begin = async |writer: &Writer| match writer.link.open().await {
            Err(Failure::Away(why)) => {
                let place = &writer.link.place;
                tracing::warn!(target: "headworks", place, why, "the server of a store is away; its batches wait for it");
                Ok(())
            }
            begun => begun.map(drop),
        };
        let desk = Desk::open("headworks-nats", place.clone(), writer.clone(), (queue, queue), begin);
        let refused = |why: Failure| OpenError::Refused { place: place.clone(), detail: why.explain().to_owned() };
        let desk = desk.map_err(OpenError::Thread)?.map_err(refused)?;
        Ok(Self { shared: Arc::new(Shared { place, writer, desk }) })
    }

    /// Where it publishes: the stream and the URL. No secret is in it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.shared.place
    }

    /// Whether its stream is there.
    pub(crate) async fn look(&self) -> Result<(), String> {
        self.shared.desk.look().await
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
        self.shared.desk.close().await;
        Ok(())
    }

    /// A number above those of all messages that there are.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn mark_erasure(&self) -> Result<u64, StorageError> {
        let writer = self.shared.writer.clone();
        let mark = async move {
            let failed = |why: Failure| why.storage_error("look for what is to be erased", &writer.link.place);
            writer.mark().await.map_err(failed)
        };
        self.shared.desk.run(mark).await
    }

    /// Takes away the tenant's messages with numbers below this one; how many there were. What consumers have of them they keep.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn erase(&self, tenant: &TenantId, before: u64) -> Result<u64, StorageError> {
        let (writer, tenant) = (self.shared.writer.clone(), tenant.clone());
        let erase = async move {
            let failed = |why: Failure| why.storage_error("erase a tenant's messages", &writer.link.place);
            writer.erase(&tenant, before).await.map_err(failed)
        };
        self.shared.desk.run(erase).await
    }
}

impl Storage for NatsStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Outcome {
        self.shared.desk.store(batch, undo.attempt()).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Outcome {
        self.shared.desk.rollback(id, attempt).await
    }
}
