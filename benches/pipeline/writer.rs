//! The second thread of the baseline: writes closed windows, one transaction after the other.

use std::mem;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use headworks::TenantId;

use crate::contest::Result;
use crate::sqlite::Database;
use crate::windows::Events;

/// A transaction takes no more batches once it holds this many bytes.
const TRANSACTION_BYTES: usize = 2 * 1024 * 1024;

/// Transactions that may wait for the thread.
const QUEUE: usize = 4;

/// What both sides say when the thread is gone; the thread itself has said why.
const FAILED: &str = "the SQLite writer has failed";

/// A closed window.
pub(crate) struct Batch {
    pub(crate) tenant: TenantId,
    pub(crate) seq: u64,
    pub(crate) events: Events,
}

/// The thread that writes, and the way to it.
pub(crate) struct Writer {
    /// The next transaction.
    next: Vec<Batch>,
    next_bytes: usize,
    queue: SyncSender<Vec<Batch>>,
    thread: JoinHandle<Option<Database>>,
}

impl Writer {
    /// A fresh database in the directory for temporary files.
    pub(crate) fn open() -> Result<Self> {
        let database = Database::create()?;
        let (queue, batches) = sync_channel(QUEUE);
        let thread = thread::spawn(move || {
            let written = database.write_all(&batches);
            written.inspect_err(|error| eprintln!("pipeline: cannot write to SQLite: {error}")).ok().map(|()| database)
        });
        Ok(Self { next: Vec::new(), next_bytes: 0, queue, thread })
    }

    /// Takes a batch; blocks while too many transactions wait.
    pub(crate) fn store(&mut self, tenant: TenantId, seq: u64, events: Events) -> Result<()> {
        self.next_bytes += events.bytes.len();
        self.next.push(Batch { tenant, seq, events });
        if self.next_bytes < TRANSACTION_BYTES {
            return Ok(());
        }
        self.next_bytes = 0;
        self.queue.send(mem::take(&mut self.next)).map_err(|_| FAILED.into())
    }

    /// Writes what there is, unless the writer has enough to do.
    pub(crate) fn hurry(&mut self) -> Result<()> {
        if self.next.is_empty() {
            return Ok(());
        }
        match self.queue.try_send(mem::take(&mut self.next)) {
            Ok(()) => self.next_bytes = 0,
            Err(TrySendError::Full(next)) => self.next = next,
            Err(TrySendError::Disconnected(_)) => return Err(FAILED.into()),
        }
        Ok(())
    }

    /// Waits until everything is committed.
    pub(crate) fn finish(self) -> Result<Database> {
        let Self { next, queue, thread, .. } = self;
        let last = queue.send(next);
        drop(queue);
        let database = thread.join().ok().flatten();
        last.ok().and(database).ok_or_else(|| FAILED.into())
    }
}
