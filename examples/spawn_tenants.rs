//! Three tenants in one system, each with a policy, hooks and a store of its own, in a program that has no async
//! runtime.
//!
//! ```text
//! cargo run --example spawn_tenants
//! ```
//!
//! The system runs on a thread of its own, so a plain `main` can wait for it with any executor; here it is the one in
//! the `futures` crate. `billing` closes a window every 4 events, `chat` after 50 ms, and `audit` takes the defaults of
//! the system.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use headworks::{
    Attempt, Batch, BatchId, Hooks, MemoryStore, Policy, Storage, StorageError, System, TenantId, TenantSpec, Undo,
    WindowPolicy,
};
use serde::Deserialize;

/// A store that keeps one number a batch. Clones share it.
///
/// A batch may come twice, after a timeout or a panic: to keep the sums under the id of their batch makes the second time
/// harmless, and a rollback easy.
#[derive(Clone, Default)]
struct Sums(Arc<Mutex<BTreeMap<BatchId, u64>>>);

#[derive(Deserialize)]
struct Invoice {
    cents: u64,
}

impl Sums {
    fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Storage for Sums {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> Result<(), StorageError> {
        let invoices = batch.events().map(|event| event.json::<Invoice>()).collect::<Result<Vec<_>, _>>();
        // Another attempt would find the same bytes: no use in trying again.
        let invoices = invoices.map_err(StorageError::permanent)?;
        let sum = invoices.iter().map(|invoice| invoice.cents).sum();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.id().clone(), sum);
        println!("  billing: {} events in batch {}, {sum} cents", batch.len(), batch.id().seq);
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, _attempt: Attempt) -> Result<(), StorageError> {
        // `store` never waits, so no late attempt can land after this: nothing to fence.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // The defaults: what a tenant takes where its own spec is silent.
    let everything = MemoryStore::new();
    let system = System::builder().store(everything.clone()).start()?;

    let sums = Sums::default();
    let billing = TenantSpec::new("billing")?
        .store(sums.clone())
        .policy(Policy { window: WindowPolicy { max_events: 4, ..WindowPolicy::default() }, ..Policy::default() });

    let room = MemoryStore::new();
    let chat = TenantSpec::new("chat")?
        .store(room.clone())
        .policy(Policy {
            window: WindowPolicy { max_age: Duration::from_millis(50), ..WindowPolicy::default() },
            ..Policy::default()
        })
        .hooks(
            Hooks::new()
                .filter(|line| !line.body.starts_with(b"/"))
                .map(|mut line| {
                    line.body = line.body.to_ascii_uppercase().into();
                    line
                })
                .on_stored(|batch| println!("  chat: {} lines stored", batch.len())),
        );

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
        assert_eq!((billing.snapshot().counters.batches, sums.total()), (3, 5_500));
        // The filter dropped one line, counted; the map changed the others.
        let chat_counters = chat.snapshot().counters;
        assert_eq!((chat_counters.stored, chat_counters.discarded), (2, 1));
        assert_eq!(room.bodies(chat.id()), [b"GOOD MORNING".to_vec(), b"SEE YOU".to_vec()]);
        // The tenant without a store of its own, and no other, is in the system's.
        assert_eq!(everything.totals(), BTreeMap::from([(TenantId::new("audit")?, 2)]));
        println!("billing: {} cents; chat: 2 stored, 1 filtered; audit: 2 stored", sums.total());
        Ok(())
    })
}
