//! A store on the standard output: an event a line, for trials and pipes.
//!
//! - **Lines** are as in a store on [plain files](super::files). Logs go to stderr and never mix in.
//! - **At least once.** A batch is printed and flushed before it is answered as stored. What was printed when the process died comes again
//!   with the next one, and so does a batch whose print was cut short. Within one process a batch is printed once.
//! - **Never taken back.** A rollback is refused, so that it must be the last of the stores that a batch goes through.
//! - **When the reader has gone** (a broken pipe), that is an outage: the log says so, and what was accepted waits, in the journal too,
//!   until the daemon is started again with a reader. Nothing is lost.
//! - A reader that is slow holds up this store alone, until what waits reaches the bounds of the tenants.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::{fmt, thread};

use headworks_actors::{Attempt, Batch, BatchId, Storage, StorageError, TenantId, Undo};
use tokio::sync::{mpsc, oneshot};

use super::files::line::push_line;

type Outcome = Result<(), StorageError>;

/// So many calls may wait for the thread that prints.
const QUEUE: usize = 256;

/// A store on the standard output; see the [module](self). Clones share one thread.
///
/// Calls hand their work to the store's own thread and never block the caller's. Nothing waits for that thread: it may be stuck for as
/// long as nobody reads.
///
/// ```
/// use headworks::store::StdoutStore;
///
/// let store = StdoutStore::open()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct StdoutStore {
    jobs: mpsc::Sender<(Batch, oneshot::Sender<Outcome>)>,
}

impl fmt::Debug for StdoutStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdoutStore").finish_non_exhaustive()
    }
}

impl StdoutStore {
    /// Prints to the standard output of the process.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn open() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Prints to something else.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        thread::Builder::new().name("headworks-stdout".into()).spawn(move || print(out, waiting))?;
        Ok(Self { jobs })
    }

    /// Does nothing: what was answered as stored is printed and flushed already.
    ///
    /// # Errors
    /// None.
    pub async fn close(&self) -> Outcome {
        std::future::ready(Ok(())).await
    }
}

impl Storage for StdoutStore {
    async fn store(&self, batch: &Batch, _: &Undo) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let gone = || StorageError::unavailable("the thread that prints the events has died; start again");
        self.jobs.send((batch.clone(), reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn rollback(&self, id: &BatchId, _: Attempt) -> Outcome {
        let why = format!("cannot roll back batch {id}: what was printed cannot be taken back");
        std::future::ready(Err(StorageError::permanent(why))).await
    }
}

fn print(mut out: impl Write, mut waiting: mpsc::Receiver<(Batch, oneshot::Sender<Outcome>)>) {
    // A tenant's batches come one after the other.
    let mut last: HashMap<TenantId, BatchId> = HashMap::new();
    let mut lines = vec![];
    while let Some((batch, reply)) = waiting.blocking_recv() {
        // Whoever dropped the call will ask again.
        if reply.is_closed() {
            continue;
        }
        let outcome = if last.get(batch.tenant()) == Some(batch.id()) {
            Ok(())
        } else {
            lines.clear();
            batch.events().for_each(|event| push_line(event.body, &mut lines));
            let printed = out.write_all(&lines).and_then(|()| out.flush());
            printed.map_err(|why| failed(&batch, &why))
        };
        if outcome.is_ok() {
            last.insert(batch.tenant().clone(), batch.id().clone());
        }
        let _ = reply.send(outcome);
    }
}

fn failed(batch: &Batch, why: &io::Error) -> StorageError {
    let help = match why.kind() {
        ErrorKind::BrokenPipe => {
            "whoever read it has gone; start again with a reader: what was accepted is kept until then"
        }
        ErrorKind::StorageFull => "make room where it is written to",
        _ => "see where it leads",
    };
    StorageError::unavailable(format!("cannot print batch {} to the standard output: {why}; {help}", batch.id()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use headworks_actors::{ChunkBuilder, Opening, Seq, UnixMillis};

    use super::*;

    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut pipe = self.0.lock().unwrap();
            if pipe.1 {
                return Err(ErrorKind::BrokenPipe.into());
            }
            pipe.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(seq: u64, bodies: &[&str]) -> Batch {
        let mut builder = ChunkBuilder::default();
        bodies.iter().for_each(|body| builder.push(body.as_bytes(), None));
        let tenant = TenantId::new("acme").unwrap();
        Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant, UnixMillis(1)).unwrap())
    }

    #[tokio::test]
    async fn an_event_is_a_line_a_batch_that_comes_again_is_printed_once_and_none_is_taken_back() {
        let pipe = Pipe::default();
        let store = StdoutStore::to(pipe.clone()).unwrap();
        let first = batch(1, &["{\"n\":1}", "two\nlines"]);
        for attempt in [1, 2] {
            store.store(&first, &Undo::for_attempt(Attempt(attempt))).await.unwrap();
        }
        store.store(&batch(2, &["{}"]), &Undo::for_attempt(Attempt(1))).await.unwrap();
        assert_eq!(pipe.0.lock().unwrap().0, b"{\"n\":1}\n\\two\\nlines\n{}\n");
        let refused = store.rollback(first.id(), Attempt(2)).await.unwrap_err();
        assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_an_outage_and_the_batch_is_printed_once_there_is_one() {
        let pipe = Pipe::default();
        let store = StdoutStore::to(pipe.clone()).unwrap();
        pipe.0.lock().unwrap().1 = true;
        let (one, undo) = (batch(1, &["{}"]), Undo::for_attempt(Attempt(1)));
        let outage = store.store(&one, &undo).await.unwrap_err();
        assert!(
            matches!(&outage, StorageError::Unavailable { detail, .. } if detail.contains("whoever read it has gone")),
            "{outage:?}"
        );
        pipe.0.lock().unwrap().1 = false;
        store.store(&one, &undo).await.unwrap();
        assert_eq!(pipe.0.lock().unwrap().0, b"{}\n");
    }
}
