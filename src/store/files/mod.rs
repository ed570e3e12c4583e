//! A store on plain files: one directory a tenant, one event a line.
//!
//! ```text
//! DIR/acme/events.ndjson          the events as they came, one a line: cat, tail -f, grep, jq
//! DIR/acme/events.000001.ndjson   those that came later, where files are rotated; the highest number is written to
//! DIR/acme/batches.ndjson         the index: which bytes of them are which batch, and what was rolled back
//! ```
//!
//! Files that are appended to, and not a file a batch: a window may close many times a minute, and whoever looks at events wants to
//! follow one file.
//!
//! - **Lines.** A body is its line, byte for byte. One that is empty, begins with a backslash or has a newline in it is
//!   escaped: a backslash, then the body with `\\` for each backslash and `\n` for each newline. No JSON text begins with
//!   a backslash. A blank line is no event: it is what a rollback leaves of a batch that others have followed.
//! - **Whole or not at all.** A batch is there once its record is in the index, which is written after its lines. What
//!   stands behind the last record was never answered; it is cut off when the store is opened, or before the next
//!   write. So a reader that follows the file may see lines, after a crash, that come again.
//! - **Once.** The record keeps the batch id, the attempt and a hash of the content: the same batch again is a success,
//!   another one under the same id is an error, and a rollback fences the attempts up to its own.
//! - **Durable.** What is answered as stored is synced to the disk, lines and record. A commit takes the batches that wait, one a
//!   tenant, together; it costs two syncs a tenant, where SQLite has one for all of them.
//! - **Rotated**, where asked for: a batch that would make a file larger than `rotate_bytes`, or that comes `rotate_every` after the
//!   first one in it, begins the next one. No batch is in two files, no file gets another name, and one that is closed does not
//!   change any more, but for blank lines where a batch is rolled back late. The index goes over all files, so that batches are known
//!   whichever they are in.
//! - **Pruned**, where the retention of a tenant says so: whole files, once all batches in them are due, with their records. The file
//!   that is written to is closed once its oldest batch is due. So an event may stay longer than `max_age`, by as much as its
//!   file took to fill: with `rotate_every` at most by that, else at most by `max_age` again.
//! - **Erased**, on an operator's word: all files of a tenant, in the same way, and the fences with them.
//! - **Not kept:** the time of each event, beside what is in its body; the record has the arrival of a batch's first and
//!   last event.
//! - **Damage.** Files that were changed by others are left alone: the calls of their tenant are answered with
//!   [`StorageError::Unavailable`] and say what is wrong, and other tenants go on.
//! - **Case.** Where the file system does not tell upper from lower case, the second of two tenants whose ids differ in
//!   nothing else is refused for good.
//! - Files have mode 0600 and directories 0700 where this store makes them.

pub(in crate::store) mod disk;
#[cfg(feature = "sqlite")]
mod due;
mod error;
mod ledger;
pub(in crate::store) mod line;
mod reader;
mod record;
mod rotation;
mod shelf;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "sqlite")]
use crate::retention::Pruned;
use crate::store::joined::Joined;
use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, TenantId, Undo};
use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "sqlite")]
pub(crate) use due::Mark;
pub use error::{OpenError, ReadError};
#[cfg(feature = "sqlite")]
pub(in crate::store) use reader::Cursor;
#[cfg(feature = "sqlite")]
pub(crate) use reader::HeldInFiles;
pub use reader::{FilesReader, TenantFiles};
use rotation::Rotation;
#[cfg(feature = "sqlite")]
pub(crate) use shelf::Step;
use shelf::{Shelf, Store};
use thread::{Job, Writer};

/// What the store writes to a directory for itself; no tenant can have the name.
const LOCK: &str = ".headworks.lock";

/// The directory of the store on files, in the data directory.
pub const FILES: &str = "events";

/// How a [`FilesStore`] uses its files.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FilesOptions {
    /// A commit takes what waits, up to about so many bytes of bodies, and at least one batch. Default 2 MiB.
    pub group_max_bytes: usize,
    /// How many calls may wait for the writer; a further one waits for a place. Default 256.
    pub queue: usize,
    /// The next file of a tenant is begun with the batch that would make this one larger, in bytes; 0 for never. Default 0.
    pub rotate_bytes: u64,
    /// The next file of a tenant is begun with the first batch that comes so long after the first one in this one. Default never.
    pub rotate_every: Option<Duration>,
}

impl Default for FilesOptions {
    fn default() -> Self {
        Self { group_max_bytes: 2 << 20, queue: 256, rotate_bytes: 0, rotate_every: None }
    }
}

/// A store on plain files; see the [module](self) for what is in them. Clones share one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. A dropped call leaves its outcome
/// unknown. Dropping the last clone blocks until what was handed over is stored; [`close`](Self::close) does the same
/// without blocking.
///
/// ```
/// use headworks::store::{FilesOptions, FilesStore};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("events");
/// let store = FilesStore::open(&path, FilesOptions::default())?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// store.close().await?;
/// # Ok::<(), headworks::StorageError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FilesStore {
    shared: Arc<Shared>,
}

/// The order of the fields matters: once the sender is gone the thread ends, and only then can it be joined.
struct Shared {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
}

impl fmt::Debug for FilesStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl FilesStore {
    /// Opens the directory, and makes it where there is none. Reads the index of every tenant in it, about 300 bytes a
    /// batch, and cuts off what a crash left unfinished. A tenant whose files cannot be read is named in the log and does
    /// not keep the store from opening.
    ///
    /// # Errors
    /// [`OpenError`]: the directory cannot be used, or another store uses it.
    pub fn open(path: impl AsRef<Path>, options: FilesOptions) -> Result<Self, OpenError> {
        let cannot = |why| OpenError::Directory { path: path.as_ref().to_owned(), why };
        // The process may change its directory later.
        let root = std::path::absolute(path.as_ref()).map_err(cannot)?;
        disk::make_dir(&root).map_err(cannot)?;
        let lock = lock(&root)?;
        let mut shelves = HashMap::new();
        for tenant in tenants(&root).map_err(cannot)? {
            let mut shelf = Shelf::new(&root, tenant.clone());
            if let Err(why) = shelf.load() {
                tracing::error!(target: "headworks", %tenant, %why, "the files of a tenant cannot be used");
            }
            shelves.insert(tenant, shelf);
        }
        let FilesOptions { group_max_bytes, queue, rotate_bytes, rotate_every } = options;
        let rotation = Rotation { bytes: rotate_bytes, every: rotate_every };
        let writer = Writer { root: root.clone(), shelves, group_max_bytes, rotation, _lock: lock };
        let (jobs, waiting) = mpsc::channel(queue.max(1));
        let thread = std::thread::Builder::new()
            .name("headworks-files".into())
            .spawn(move || writer.run(waiting))
            .map_err(OpenError::Thread)?;
        Ok(Self { shared: Arc::new(Shared { path: root, jobs, _thread: Joined::new(thread) }) })
    }

    /// Where the directories of the tenants are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Finishes what was handed over before and lets go of the directory, for every clone. Calls that come later are
    /// answered with [`StorageError::Unavailable`]; closing again is a success.
    ///
    /// # Errors
    /// None at the moment: what was answered as stored is synced already.
    ///
    /// # Cancel safety
    /// Once polled it may be dropped: the store closes all the same if it had a place in the queue.
    pub async fn close(&self) -> Result<(), StorageError> {
        let (reply, answer) = oneshot::channel();
        match self.shared.jobs.send(Job::Close(reply)).await {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    /// Deletes what a reader found to be due.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn prune(&self, tenant: &TenantId, step: Step) -> Result<Pruned, StorageError> {
        self.ask(|reply| Job::Prune(tenant.clone(), step, reply)).await?
    }

    /// The number of the last file that has something of the tenant by now. What comes later goes to another one.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn mark_erasure(&self, tenant: &TenantId) -> Result<Option<u32>, StorageError> {
        self.ask(|reply| Job::MarkErasure(tenant.clone(), reply)).await?
    }

    /// Deletes the tenant's files up to the one of this number, and all that the index knows of their batches; how many events went.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn erase(&self, tenant: &TenantId, through: u32) -> Result<u64, StorageError> {
        self.ask(|reply| Job::Erase(tenant.clone(), through, reply)).await?
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StorageError> {
        let gone = || {
            let path = self.shared.path.display();
            StorageError::unavailable(format!("the store {path} is closed, or its thread has died; open it again"))
        };
        let (reply, answer) = oneshot::channel();
        self.shared.jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Storage for FilesStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let store = Store::new(batch, undo.attempt());
        self.ask(|reply| Job::Store(store, reply)).await?
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.ask(|reply| Job::Rollback(id.clone(), attempt, reply)).await?
    }

    async fn count(&self, tenant: &TenantId) -> Option<u64> {
        self.ask(|reply| Job::Count(tenant.clone(), reply)).await.ok().flatten()
    }
}

/// Takes the directory for this store alone, until the file is closed, however the process ends.
fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join(LOCK);
    let cannot = |why| OpenError::Directory { path: path.clone(), why };
    let file = disk::open(&path, true).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: root.to_owned() }),
        Err(TryLockError::Error(why)) => Err(cannot(why)),
    }
}

/// The tenants that have a directory there, by name. Whatever else is there is not ours.
fn tenants(root: &Path) -> std::io::Result<Vec<TenantId>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if let Some(tenant) = entry.file_name().to_str().and_then(|name| TenantId::new(name).ok())
            && entry.path().join(shelf::INDEX).exists()
        {
            found.push(tenant);
        }
    }
    found.sort();
    Ok(found)
}
