//! A store that panics at every third write, and the supervisor log, printed as it is written.
//!
//! ```text
//! cargo run --example supervisor_log
//! ```
//!
//! Each panic ends the tenant's writer. The supervisor starts a fresh one, which sends the same batch again, under the
//! same id. Every other panic comes after the store has already kept the batch: since a store goes by the batch's id,
//! nothing is kept twice. The tenant beside it notices nothing.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headworks::{
    Attempt, Batch, BatchId, LogItem, MemoryStore, Policy, RestartPolicy, RetryPolicy, Storage, StorageError,
    Subscription, System, TenantSpec, Undo, What, WindowPolicy,
};
use tokio::sync::oneshot;

/// Panics at every third write; every other time after it has stored the batch.
#[derive(Clone, Default)]
struct Shaky {
    inner: MemoryStore,
    writes: Arc<AtomicU64>,
}

impl Storage for Shaky {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let write = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        match write % 6 {
            3 => panic!("write {write} fell over before it stored"),
            0 => {
                self.inner.store(batch, undo).await?;
                panic!("write {write} fell over after it stored")
            }
            _ => self.inner.store(batch, undo).await,
        }
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.inner.rollback(id, attempt).await
    }
}

/// Prints the log until `done`, and counts the restarts in it.
async fn print(mut log: Subscription, mut done: oneshot::Receiver<()>) -> u64 {
    let mut restarts = 0;
    loop {
        let item = tokio::select! {
            // The log first, so that nothing that was written before `done` is left out.
            biased;
            item = log.next() => item,
            _ = &mut done => return restarts,
        };
        match item {
            LogItem::Event(entry) => {
                println!("{entry}");
                restarts += u64::from(entry.what == What::Restarted);
            }
            LogItem::Missed(entries) => println!("(this reader was too slow for {entries} entries)"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The supervisor log tells of each panic; the default hook would say the same once more, on stderr.
    std::panic::set_hook(Box::new(|_| {}));

    let soon = Duration::from_millis(5);
    let policy = Policy {
        window: WindowPolicy { max_events: 10, ..WindowPolicy::default() },
        retry: RetryPolicy { base: soon, ..RetryPolicy::default() },
        restart: RestartPolicy { base: soon, ..RestartPolicy::default() },
        ..Policy::default()
    };
    let (shaky, sound) = (Shaky::default(), MemoryStore::new());
    let system = System::builder().policy(policy).store(sound.clone()).start()?;
    let (done, is_done) = oneshot::channel();
    let printer = tokio::spawn(print(system.log().subscribe_from(0), is_done));

    let unlucky = system.spawn(TenantSpec::new("unlucky")?.store(shaky.clone())).await?;
    let lucky = system.spawn(TenantSpec::new("lucky")?).await?;
    let events: Vec<_> = (0..80).map(|n| format!("event {n}")).collect();
    unlucky.offer(events.clone()).await?;
    lucky.offer(events.clone()).await?;
    let report = system.drain(Duration::from_secs(20)).await;

    // Nobody waits for it only if the printer has failed; its own result says so.
    let _ = done.send(());
    let restarts = printer.await?;
    println!("\n{report}");
    let writes = shaky.writes.load(Ordering::Relaxed);
    println!("unlucky: {writes} writes for 8 batches, {restarts} restarts, all 80 events stored once, in order");

    assert!(report.complete);
    assert_eq!(restarts, writes / 3, "one restart a panic");
    assert_eq!(unlucky.snapshot().counters.restarts, restarts);
    assert_eq!(lucky.snapshot().counters.restarts, 0);
    let expected: Vec<_> = events.into_iter().map(String::into_bytes).collect();
    assert_eq!(shaky.inner.bodies(unlucky.id()), expected);
    assert_eq!(sound.bodies(lucky.id()), expected);
    Ok(())
}
