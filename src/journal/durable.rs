//! The journal as its callers see it.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use headworks_actors::{
    Chunk, Entry, Health, Journal, JournalError, Opening, Position, Recovered, RecoveredChunk, TenantId, UnixMillis,
};
use tokio::time::Instant;

use super::disk::{Disk, FsDisk};
use super::drive::{Driver, Next, Shared};
use super::ledger::Ledger;
use super::log::{Log, Opened, lock_of};
use super::options::JournalOptions;
use super::scan::read_entry;

/// The longest that [`Journal::room`] waits.
const ROOM: Duration = Duration::from_millis(100);

/// A [`Journal`] on disk. See the [module](super) for how it works.
///
/// Dropped without [`close`](Journal::close) it still writes what was appended, if the disk lets it, and joins its thread; the
/// next start then finds a log that was not closed, and reads it just as well.
///
/// ```
/// use headworks::journal::{DurableJournal, JournalOptions};
/// use headworks::{Journal, Opening, UnixMillis};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let journal = DurableJournal::open(dir.path(), JournalOptions::default(), |_done, _total| {})?;
/// let recovered = journal.begin(Opening(7), UnixMillis::now())?;
/// assert!(recovered.tenants.is_empty());
/// journal.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct DurableJournal {
    shared: Arc<Shared>,
    pub(super) reader: Reader,
    options: JournalOptions,
    recovered: Mutex<Option<Recovered>>,
    torn_bytes: u64,
    is_full: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for DurableJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableJournal").field("disk", &self.reader.disk).finish_non_exhaustive()
    }
}

impl DurableJournal {
    /// Opens the journal in `dir`, which is made if it is not there, and recovers what is in it, telling `progress` how many
    /// bytes of how many are read. A thread of its own writes it from then on.
    ///
    /// Blocks until all is read: call it before the system starts.
    ///
    /// # Errors
    /// Where the options do not fit together, another process has the directory, a newer headworks wrote it, or it cannot be
    /// read or written. Damage is no error: see [`Recovered::damage`].
    pub fn open(dir: &Path, options: JournalOptions, mut progress: impl FnMut(u64, u64)) -> Result<Self, JournalError> {
        let within = |JournalError(why)| JournalError::new(format!("{}: {why}", dir.display()));
        options.check().map_err(within)?;
        let disk = FsDisk::create(dir).map_err(|why| within(JournalError::new(format!("cannot be made: {why}"))))?;
        let opened = Log::open(Arc::new(disk), options, &mut progress).map_err(within)?;
        let (mut journal, mut driver) = Self::of(opened);
        let thread = std::thread::Builder::new().name("headworks-journal".to_owned()).spawn(move || {
            let shared = driver.shared.clone();
            let run = || loop {
                match driver.turn(Instant::now()) {
                    Next::Again => {}
                    Next::Rest(longest) => shared.sleep(longest),
                    Next::Over => break,
                }
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                let cause = headworks_actors::Cause::from_panic(headworks_actors::Code::ActorPanic, &*panic);
                shared.broken(&JournalError::new(format!("its thread panicked: {}", cause.detail)));
            }
        });
        let thread = thread.map_err(|why| within(JournalError::new(format!("its thread cannot be started: {why}"))))?;
        journal.thread = Some(thread);
        Ok(journal)
    }

    /// The same on a disk of the caller's and without a thread: the future is to be run beside the system, and everything is
    /// written on its thread. For simulations, where time and disk are not real.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn inline(
        disk: impl Disk,
        options: JournalOptions,
    ) -> Result<(Self, impl Future<Output = ()> + 'static), JournalError> {
        let (journal, mut driver) = Self::of(Log::open(Arc::new(disk), options, &mut |_, _| {})?);
        let run = async move {
            loop {
                match driver.turn(Instant::now()) {
                    Next::Again => tokio::task::yield_now().await,
                    Next::Rest(longest) => driver.shared.clone().rest(longest).await,
                    Next::Over => break,
                }
            }
        };
        Ok((journal, run))
    }

    fn of(opened: Opened) -> (Self, Driver) {
        let Opened { log, recovered, torn_bytes } = opened;
        let shared = Arc::new(Shared::new(&log));
        let journal = Self {
            shared: shared.clone(),
            reader: Reader { disk: log.disk.clone(), ledger: log.ledger.clone(), salt: log.salt },
            options: log.options.clone(),
            recovered: Mutex::new(Some(recovered)),
            torn_bytes,
            is_full: AtomicBool::new(false),
            thread: None,
        };
        (journal, Driver::new(log, shared))
    }

    /// How many bytes of a torn block were cut off the end when the journal was opened: what a crash interrupted, and what was
    /// never committed.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }
}

impl Journal for DurableJournal {
    fn is_durable(&self) -> bool {
        true
    }

    fn begin(&self, opening: Opening, now: UnixMillis) -> Result<Recovered, JournalError> {
        if let Some(why) = &self.shared.health().failing {
            return Err(JournalError(why.clone()));
        }
        let recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut recovered = recovered.ok_or_else(|| JournalError::new("was begun before; it is begun once"))?;
        let lifetime = i64::try_from(self.options.stream_lifetime.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.0.saturating_sub(lifetime);
        recovered.streams.retain(|stream| stream.at.0 >= oldest);
        self.shared.begin(opening, now);
        Ok(recovered)
    }

    fn append(&self, entries: &mut Vec<Entry>) -> Position {
        Position(self.shared.append(entries))
    }

    fn is_committed(&self, position: Position) -> bool {
        self.shared.committed() >= position.0
    }

    async fn committed(&self, position: Position) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            // Before the question, so that no answer is missed. Waiters are woken in the order they came.
            changed.as_mut().enable();
            if self.is_committed(position) {
                return;
            }
            changed.await;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        if self.shared.is_failing.load(Ordering::Relaxed) {
            return false;
        }
        let uncommitted = self.shared.uncommitted.load(Ordering::Relaxed);
        let used = self.shared.disk_bytes.load(Ordering::Relaxed) + uncommitted as u64;
        let is_above = used.saturating_add(bytes as u64) > self.options.quota();
        let is_full = is_above && (uncommitted > 0 || self.shared.health().live_bytes > 0);
        self.is_full.store(is_full, Ordering::Relaxed);
        !is_full && (uncommitted == 0 || uncommitted.saturating_add(bytes) <= self.options.max_uncommitted_bytes)
    }

    async fn room(&self) {
        // Whichever comes first: what was missed between the question and this is made good by asking again.
        drop(tokio::time::timeout(ROOM, self.shared.changed.notified()).await);
    }

    fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk> {
        lock_of(&self.reader.ledger).chunks(tenant, seq, bytes)
    }

    async fn read(&self, tenant: &TenantId, chunk: &RecoveredChunk) -> Result<Chunk, JournalError> {
        let (reader, tenant, chunk) = (self.reader.clone(), tenant.clone(), *chunk);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if self.thread.is_some() => {
                let read = runtime.spawn_blocking(move || reader.read(&tenant, &chunk)).await;
                read.unwrap_or_else(|why| Err(JournalError::new(format!("a read was given up: {why}"))))
            }
            _ => reader.read(&tenant, &chunk),
        }
    }

    fn health(&self) -> Health {
        let is_full = self.is_full.load(Ordering::Relaxed);
        let (quota_bytes, commit_times) = (self.options.quota(), self.shared.commit_times.read());
        Health { is_full, quota_bytes, commit_times, ..self.shared.health().clone() }
    }

    async fn close(&self) -> Result<(), JournalError> {
        let Some(answer) = self.shared.close() else { return Ok(()) };
        answer.await.unwrap_or_else(|_| Err(JournalError::new("nothing writes it any more")))
    }
}

impl Drop for DurableJournal {
    fn drop(&mut self) {
        self.shared.dropped();
        if let Some(thread) = self.thread.take() {
            // A panic of it was told.
            let _ = thread.join();
        }
    }
}

/// Reads what was recovered, wherever it lies by now.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    salt: u64,
}

impl Reader {
    pub(super) fn read(&self, tenant: &TenantId, chunk: &RecoveredChunk) -> Result<Chunk, JournalError> {
        let what = format!("chunk {} of tenant {tenant}", chunk.seq);
        let mut last = None;
        loop {
            let place = lock_of(&self.ledger).find(tenant, chunk);
            let Some(place) = place else {
                return Err(JournalError::new(format!("{what} is settled, or was never recovered")));
            };
            if last == Some(place) {
                return Err(JournalError::new(format!("{what} is damaged in segment {}", place.segment)));
            }
            match read_entry(&*self.disk, self.salt, place) {
                Ok(Some(Entry::Chunk { chunk, .. } | Entry::Made { chunk, .. })) if chunk.tenant() == tenant => {
                    return Ok(Arc::unwrap_or_clone(chunk));
                }
                // It may just have been copied forward.
                Ok(_) => last = Some(place),
                Err(why) if why.kind() == std::io::ErrorKind::NotFound => last = Some(place),
                Err(why) => return Err(JournalError::new(format!("{what} cannot be read: {why}"))),
            }
        }
    }
}
