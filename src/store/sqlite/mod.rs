//! The embedded store: one SQLite file, no server, plain SQL for whoever wants to look.
//!
//! ```sql
//! SELECT tenant, count(*) FROM events GROUP BY tenant;
//! SELECT body ->> '$.level' AS level, count(*) FROM events WHERE tenant = 'acme' GROUP BY level;
//! SELECT batch, idx, body FROM events_with_batch WHERE tenant = 'acme' ORDER BY event_id DESC LIMIT 10;
//! ```
//!
//! Where the events of a batch are is said by its layout, of which there are two: `rows`, above, and `index`, in files beside
//! the database (see below).
//!
//! - In the layout `rows` each event is a row. Its body is TEXT, or a BLOB where it is not UTF-8 or holds a NUL byte; `CAST(body AS BLOB)` is
//!   the bytes as they came, always.
//! - Batches of all tenants that wait at the same time share one transaction and one sync of the disk.
//! - A batch is kept under its id with a hash of its content: the same batch again is a success, another one under the
//!   same id is an error.
//! - What is answered as stored survives the process and the machine (write-ahead log, `synchronous = FULL`).
//! - In the layout `index` a batch is a row, which says where in `NAME.segments` its events lie; `headworks query` reads
//!   them. What there is of a tenant, in either layout, is in the view `stored_batches`:
//!   `SELECT batch, events, bytes, datetime(first_arrived / 1000, 'unixepoch'), segment, offset, length FROM stored_batches
//!   WHERE tenant = 'acme'`.
//! - The database, its log and its shared memory have mode 0600 where this store creates them.
//! - Events may be deleted by hand; [`Storage::count`] and the totals go on counting them, since they count batches; the
//!   [audit](crate::audit) counts the rows too, and tells of what is missing.

mod cursor;
mod erase;
mod error;
mod file;
mod holdings;
mod letters;
mod prune;
mod quota;
mod reader;
mod replay;
mod schema;
pub(crate) mod segment;
mod thread;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::store::joined::Joined;
use crate::store::{Layout, LettersWhenFull};
use bytes::Bytes;
use headworks_actors::{
    Attempt, Batch, BatchId, DeadLetter, DeadLetterPage, DeadLetterQuery, DeadLetters, EditAnswer, ReplayAnswer,
    Storage, StorageError, StreamId, TenantId, Undo, UnixMillis,
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub(in crate::store) use cursor::Cursor;
pub use error::{OpenError, ReadError};
use quota::Quota;
pub use reader::{SqliteReader, TenantTotals};
use segment::Segments;
pub use segment::{SalvagedBatch, SegmentFile};
use thread::{Job, Writer};
use write::Write;

/// How a [`SqliteStore`] uses its file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// A commit takes what waits, up to about so many bytes, and at least one batch. Default 2 MiB.
    pub group_max_bytes: usize,
    /// How many calls may wait for the writer; a further one waits for a place. Default 256.
    pub queue: usize,
    /// How long a commit waits while another process holds the lock, before every waiting call is answered with
    /// [`StorageError::Unavailable`]. Default 500 ms.
    pub busy_timeout: Duration,
    /// The page cache, in bytes. Default 8 MiB.
    pub cache_bytes: usize,
    /// The size of the write-ahead log, in bytes, at which it is copied into the database. Default 16 MiB.
    pub wal_bytes: u64,
    /// The dead letters of each tenant may take so many bytes, and so may all of those without one: bodies, reasons, and 256
    /// bytes a letter. Default 256 MiB.
    pub letters_max_bytes: u64,
    /// What happens to a dead letter for which there is no room. Default: the oldest of its tenant go.
    pub letters_when_full: LettersWhenFull,
    /// The page size of a database that is created now, in bytes: a power of two from 512 to 65,536. Default 16 KiB.
    pub page_bytes: u32,
    /// Where the events of new batches go. Default: rows.
    pub layout: Layout,
    /// The size of a segment of the layout `index`, in bytes; one group may be larger. Default 64 MiB.
    pub segment_bytes: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            group_max_bytes: 2 << 20,
            queue: 256,
            busy_timeout: Duration::from_millis(500),
            cache_bytes: 8 << 20,
            wal_bytes: 16 << 20,
            letters_max_bytes: 256 << 20,
            letters_when_full: LettersWhenFull::PurgeOldest,
            page_bytes: 16 << 10,
            layout: Layout::Rows,
            segment_bytes: 64 << 20,
        }
    }
}

/// A store and a place for dead letters in one SQLite file. Clones share one connection and one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. A dropped call leaves its outcome
/// unknown. Dropping the last clone blocks until what was handed over is stored and the file is closed;
/// [`close`](Self::close) does the same without blocking, and says what went wrong.
///
/// ```
/// use headworks::store::{SqliteOptions, SqliteStore};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("events.db");
/// let store = SqliteStore::open(&path, SqliteOptions::default())?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// store.close().await?;
/// # Ok::<(), headworks::StorageError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

/// The order of the fields matters: once the sender is gone the thread ends, and only then can it be joined.
struct Shared {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    full: Arc<quota::OnFull>,
    _thread: Joined,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the database, and creates it where there is none. Its directory must exist.
    ///
    /// # Errors
    /// [`OpenError`] says what is in the way. A file that is no database of this or an earlier version is left as it is.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        // The process may change its directory later.
        let path = std::path::absolute(path.as_ref())
            .map_err(|source| OpenError::Create { path: path.as_ref().to_owned(), source })?;
        let conn = schema::open_for_writing(&path, &options)?;
        let file = file::Identity::of(&path);
        let full = Arc::default();
        let quota = Quota::new(options.letters_max_bytes, options.letters_when_full, Arc::clone(&full));
        let SqliteOptions { layout, group_max_bytes, segment_bytes, .. } = options;
        let segments = Segments::open(&path, &conn, segment_bytes, layout == Layout::Index)?;
        let writer = Writer { conn, path: path.clone(), file, group_max_bytes, quota, segments, layout };
        let (jobs, waiting) = mpsc::channel(options.queue.max(1));
        let thread = std::thread::Builder::new()
            .name("headworks-sqlite".into())
            .spawn(move || writer.run(waiting))
            .map_err(OpenError::Thread)?;
        Ok(Self { shared: Arc::new(Shared { path, jobs, full, _thread: Joined::new(thread) }) })
    }

    /// Says whom to tell that a tenant, or the frames that are nobody's, have no room for more dead letters, and what becomes of them:
    /// once, and again when none had to for ten minutes. It is called on the store's own thread. The first call counts.
    pub(crate) fn on_letters_full(&self, tell: impl Fn(Option<&TenantId>, &str) + Send + Sync + 'static) {
        let _ = self.shared.full.set(Box::new(tell));
    }

    /// Where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Finishes what was handed over before, copies the log into the database and closes it, for every clone. Calls that
    /// come later are answered with [`StorageError::Unavailable`]; closing again is a success.
    ///
    /// # Errors
    /// The log could not be copied or the file not be closed. What was answered as stored is safe nevertheless.
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

    async fn write(&self, write: Write) -> Result<(), StorageError> {
        let (reply, answer) = oneshot::channel();
        self.shared.jobs.send(Job::Write(write, reply)).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    async fn change<T: Send + 'static>(
        &self,
        what: &'static str,
        make: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        // The last value counts: what came of a call that was undone is overwritten.
        let made = Arc::new(Mutex::new(None));
        let keep = made.clone();
        self.write(Write::change(what, move |conn| {
            let value = make(conn)?;
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        }))
        .await?;
        made.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| self.gone())
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        let read = move |conn: &Connection| drop(reply.send(read(conn)));
        self.shared.jobs.send(Job::Read(Box::new(read))).await.map_err(|_| self.gone())?;
        let found = answer.await.map_err(|_| self.gone())?;
        found.map_err(|error| error::storage_error(what, &self.shared.path, &error))
    }

    fn gone(&self) -> StorageError {
        let path = self.shared.path.display();
        StorageError::unavailable(format!("the store {path} is closed, or its thread has died; open it again"))
    }
}

impl Storage for SqliteStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        self.write(Write::store(batch, undo.attempt())).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.write(Write::Rollback { id: id.clone(), attempt }).await
    }

    async fn count(&self, tenant: &TenantId) -> Option<u64> {
        let tenant = tenant.clone();
        let count = move |conn: &Connection| {
            conn.prepare_cached("SELECT coalesce(sum(events), 0) FROM batches WHERE tenant = ?1")?
                .query_row([tenant.as_str()], |row| row.get::<_, i64>(0))
        };
        self.read("count events", count).await.ok().map(i64::cast_unsigned)
    }
}

impl DeadLetters for SqliteStore {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), StorageError> {
        self.write(Write::Letters(letters.to_vec())).await
    }

    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StorageError> {
        let query = query.clone();
        self.read("list dead letters", move |conn| letters::list(conn, &query)).await
    }

    async fn get(&self, id: &str) -> Result<Option<DeadLetter>, StorageError> {
        let id = id.to_owned();
        self.read("look up a dead letter", move |conn| letters::get(conn, &id)).await
    }

    async fn page(&self, query: &DeadLetterQuery, after: u64) -> Result<DeadLetterPage, StorageError> {
        let query = query.clone();
        self.read("read dead letters", move |conn| letters::page(conn, &query, after)).await
    }

    async fn edit(&self, id: &str, body: Bytes, at: UnixMillis) -> Result<EditAnswer, StorageError> {
        let id = id.to_owned();
        self.change("edit a dead letter", move |conn| letters::edit(conn, &id, &body, at)).await
    }

    async fn purge(&self, query: &DeadLetterQuery) -> Result<u64, StorageError> {
        let query = query.clone();
        self.change("purge dead letters", move |conn| letters::purge(conn, &query)).await
    }

    async fn begin_replay(&self, run: &StreamId, ids: &[Arc<str>]) -> Result<u64, StorageError> {
        let (run, ids) = (run.clone(), ids.to_vec());
        self.change("begin a replay of dead letters", move |conn| replay::begin(conn, &run, &ids)).await
    }

    async fn replays(&self) -> Result<Vec<StreamId>, StorageError> {
        self.read("look for replays of dead letters", replay::all).await
    }

    async fn replaying(&self, run: &StreamId, after: u64) -> Result<Vec<(u64, DeadLetter)>, StorageError> {
        let run = run.clone();
        self.read("read dead letters to replay", move |conn| replay::pending(conn, &run, after)).await
    }

    async fn replayed(&self, run: &StreamId, answers: &[ReplayAnswer]) -> Result<(), StorageError> {
        let (run, answers) = (run.clone(), answers.to_vec());
        self.change("mark dead letters as replayed", move |conn| replay::answered(conn, &run, &answers)).await
    }
}

#[cfg(test)]
mod tests {
    use headworks_actors::{ChunkBuilder, Opening, Seq, UnixMillis};

    use super::*;

    fn batch(seq: u64, bytes: usize) -> Batch {
        let mut builder = ChunkBuilder::default();
        builder.push(&vec![b'x'; bytes], None);
        let chunk = builder.build(TenantId::new("acme").unwrap(), UnixMillis(0)).unwrap();
        Batch::of_chunk(Opening(1), Seq(seq), chunk)
    }

    async fn put(store: &SqliteStore, batch: &Batch) -> Result<(), StorageError> {
        store.store(batch, &Undo::for_attempt(Attempt(1))).await
    }

    fn open(directory: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(directory.path().join("events.db"), SqliteOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn a_full_disk_is_an_outage_for_all_who_wait_and_passes() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let set_limit = async |pages: i64| {
            let pragma = move |conn: &Connection| {
                conn.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
            };
            store.read("set a limit", pragma).await.unwrap()
        };
        put(&store, &batch(1, 10)).await.unwrap();
        set_limit(1).await; // SQLite raises it to what there is.
        let batches = [batch(2, 1 << 20), batch(3, 1 << 20)];
        for outcome in futures::future::join_all(batches.iter().map(|batch| put(&store, batch))).await {
            let outage = outcome.unwrap_err();
            assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
            assert!(outage.to_string().contains("disk is full"), "{outage}");
        }
        set_limit(1 << 30).await;
        for batch in &batches {
            put(&store, batch).await.unwrap();
        }
        assert_eq!(store.count(batches[0].tenant()).await, Some(3));
    }

    #[tokio::test]
    async fn the_thread_survives_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let answer = store.read::<()>("panic", |_| panic!("on purpose")).await.unwrap_err();
        assert!(matches!(answer, StorageError::Unavailable { .. }), "{answer:?}");
        put(&store, &batch(1, 10)).await.unwrap();
        assert_eq!(store.count(batch(1, 10).tenant()).await, Some(1));
    }
}
