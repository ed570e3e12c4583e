//! Tenants spawned by hand, each with a policy, hooks and a store of its own, in a program without an async runtime.
//!
//! ```text
//! cargo run --example spawn_tenants
//! ```
//!
//! The system runs on a thread of its own, so a plain `main` can wait for it with any executor; here it is the one in
//! the `futures` crate. `billing` keeps a sum for each window of 4 events, `chat` a transcript of windows of 50 ms, and
//! `audit` says nothing and takes the defaults of the system.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use headworks::{
    Attempt, Batch, BatchId, Hooks, MemoryStore, Policy, Storage, StorageError, System, TenantId, TenantSpec, Undo,
    WindowPolicy,
};
use serde::Deserialize;

/// What a store of ours keeps: one value a batch. Clones share it.
///
/// A batch may come twice, after a timeout or a panic: what is kept under the id of its batch is kept once, and a
/// rollback finds it.
struct Kept<T>(Arc<Mutex<BTreeMap<BatchId, T>>>);

impl<T> Kept<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BatchId, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The sum of the invoices in each batch.
#[derive(Clone)]
struct Sums(Kept<u64>);

#[derive(Deserialize)]
struct Invoice {
    cents: u64,
}

impl Storage for Sums {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> Result<(), StorageError> {
        let invoices = batch.events().map(|event| event.json::<Invoice>()).collect::<Result<Vec<_>, _>>();
        // Another attempt would find the same bytes: no use in trying again.
        let invoices = invoices.map_err(StorageError::permanent)?;
        let sum = invoices.iter().map(|invoice| invoice.cents).sum();
        self.0.lock().insert(batch.id().clone(), sum);
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, _attempt: Attempt) -> Result<(), StorageError> {
        // `store` never waits, so no late attempt can land after this: nothing to fence.
        self.0.lock().remove(id);
        Ok(())
    }
}

/// The lines of each batch, as one text.
#[derive(Clone)]
struct Transcript(Kept<String>);

impl Storage for Transcript {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> Result<(), StorageError> {
        let lines = batch.events().map(|event| format!("{}\n", String::from_utf8_lossy(event.body)));
        self.0.lock().insert(batch.id().clone(), lines.collect());
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, _attempt: Attempt) -> Result<(), StorageError> {
        self.0.lock().remove(id);
        Ok(())
    }
}

fn windows(window: WindowPolicy) -> Policy {
    Policy { window, ..Policy::default() }
}

fn main() -> Result<(), Box<dyn Error>> {
    // What a tenant takes where its own spec is silent.
    let everything = MemoryStore::new();
    let system = System::builder().store(everything.clone()).start()?;

    let sums = Sums(Kept::new());
    let billing = TenantSpec::new("billing")?
        .policy(windows(WindowPolicy { max_events: 4, ..WindowPolicy::default() }))
        .hooks(Hooks::new().on_stored(|batch| println!("  billing: {} invoices stored", batch.len())))
        .store(sums.clone());

    let shouted = |mut line: headworks::Event| {
        line.body = line.body.to_ascii_uppercase().into();
        line
    };
    let transcript = Transcript(Kept::new());
    let chat = TenantSpec::new("chat")?
        .policy(windows(WindowPolicy { max_age: Duration::from_millis(50), ..WindowPolicy::default() }))
        .hooks(
            Hooks::new()
                .filter(|line| !line.body.starts_with(b"/"))
                .map(shouted)
                .on_stored(|batch| println!("  chat: {} lines stored", batch.len())),
        )
        .store(transcript.clone());

    block_on(async {
        let billing = system.spawn(billing).await?;
        let chat = system.spawn(chat).await?;
        let audit = system.spawn(TenantSpec::new("audit")?).await?;

        println!("ten invoices, three lines of chat, two notes for the audit:");
        billing.offer((1..=10).map(|n| format!(r#"{{"cents":{}}}"#, n * 100))).await?;
        chat.offer(["good morning", "/away", "see you"]).await?;
        audit.offer(["the day began", "the day ended"]).await?;

        let report = system.drain(Duration::from_secs(5)).await;
        println!("{report}");
        assert!(report.complete && report.tenants.iter().all(|tenant| tenant.end.adds_up()));

        // Windows of 4, 4 and, at the drain, 2.
        let in_batches: Vec<_> = sums.0.lock().values().copied().collect();
        assert_eq!(in_batches, [1_000, 2_600, 1_900]);
        // The filter dropped one line, counted; the map changed the others.
        let said: String = transcript.0.lock().values().map(String::as_str).collect();
        assert_eq!(said, "GOOD MORNING\nSEE YOU\n");
        assert_eq!((chat.snapshot().counters.stored, chat.snapshot().counters.discarded), (2, 1));
        // The tenant without a store of its own, and no other, is in the system's.
        assert_eq!(everything.totals(), BTreeMap::from([(TenantId::new("audit")?, 2)]));
        println!("billing: {in_batches:?} cents; chat: 2 stored, 1 filtered; audit: 2 stored");
        Ok(())
    })
}
