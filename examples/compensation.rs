//! A batch that is given up half way: its side effects are undone, it is rolled back, and its events become dead
//! letters.
//!
//! ```text
//! cargo run --example compensation
//! ```
//!
//! The store keeps orders and, as a side effect, takes goods out of stock. For each order it registers an undo step
//! *before* it takes the goods. The batch of the tenant `broken` loses its connection after three orders, and is
//! refused for good when it is sent again. The steps then run newest first, the rollback after them, and all its events
//! are kept as dead letters. The batch of the tenant `fine` goes through.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headworks::{
    Attempt, Batch, BatchId, Code, DeadLetterQuery, DeadLetters, MemoryDeadLetters, Policy, RetryPolicy, Storage,
    StorageError, System, TenantSpec, Undo, UndoStep, What,
};

/// How many pieces there are at first.
const STOCK: i64 = 100;

#[derive(Clone, Default)]
struct Warehouse(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    /// How much each order took out of stock, by batch and place in it. An undo step or a second attempt finds it here,
    /// so that nothing is taken or put back twice.
    taken: BTreeMap<String, i64>,
    /// What happened, in order.
    diary: Vec<String>,
}

impl Warehouse {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stock(&self) -> i64 {
        STOCK - self.lock().taken.values().sum::<i64>()
    }
}

impl Content {
    fn note(&mut self, line: String) {
        println!("  {line}");
        self.diary.push(line);
    }
}

impl Storage for Warehouse {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let broken = batch.tenant().as_str() == "broken";
        if broken && undo.attempt() > Attempt(1) {
            self.lock().note(format!("{}: attempt {} is refused for good", batch.tenant(), undo.attempt()));
            return Err(StorageError::permanent("the account is closed"));
        }
        for (index, event) in batch.events().enumerate() {
            if broken && index == 3 {
                self.lock().note(format!("{}: the connection is lost", batch.tenant()));
                return Err(StorageError::transient("connection lost after 3 orders"));
            }
            let key = format!("{}#{index}", batch.id());
            // Register first, act then: what has happened without a step on the list could not be undone.
            undo.push(UndoStep { name: format!("put back order {index}"), data: key.clone().into_bytes() }).await;
            let pieces: i64 = String::from_utf8_lossy(event.body).parse().map_err(StorageError::permanent)?;
            let mut content = self.lock();
            if content.taken.insert(key, pieces).is_none() {
                content.note(format!("{}: order {index} takes {pieces} out of stock", batch.tenant()));
            }
        }
        Ok(())
    }

    async fn undo(&self, step: &UndoStep) -> Result<(), StorageError> {
        let key = String::from_utf8_lossy(&step.data);
        let mut content = self.lock();
        if let Some(pieces) = content.taken.remove(&*key) {
            content.note(format!("undo: {}, {pieces} pieces", step.name));
        }
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.lock().note(format!("rollback of batch {} up to attempt {attempt}", id.seq));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (warehouse, letters) = (Warehouse::default(), MemoryDeadLetters::default());
    let retry = RetryPolicy { base: Duration::from_millis(5), ..RetryPolicy::default() };
    let system = System::builder()
        .policy(Policy { retry, ..Policy::default() })
        .store(warehouse.clone())
        .dead_letters(letters.clone())
        .start()?;

    println!("{STOCK} pieces in stock; two tenants order:");
    let fine = system.spawn(TenantSpec::new("fine")?).await?;
    let broken = system.spawn(TenantSpec::new("broken")?).await?;
    fine.offer(["1", "2"]).await?;
    broken.offer(["10", "20", "30", "40", "50"]).await?;
    let log = system.log();
    let report = system.drain(Duration::from_secs(10)).await;

    println!("{} pieces in stock; dead letters:", warehouse.stock());
    let kept = letters.list(&DeadLetterQuery::default()).await?;
    for letter in &kept {
        println!("  {} after {} attempts: {} ({:?})", letter.id, letter.attempts, letter.cause, letter.body);
    }
    println!("supervisor log of the tenant broken:");
    for entry in log.last_of(broken.id(), 20) {
        println!("  {entry}");
    }

    assert!(report.complete);
    assert_eq!(warehouse.stock(), STOCK - 3, "only the orders of the tenant fine took effect");
    let compensations: Vec<_> = {
        let content = warehouse.lock();
        let undone = content.diary.iter().filter(|line| line.starts_with("undo") || line.starts_with("rollback"));
        undone.cloned().collect()
    };
    let expected = [
        "undo: put back order 2, 30 pieces",
        "undo: put back order 1, 20 pieces",
        "undo: put back order 0, 10 pieces",
        "rollback of batch 1 up to attempt 2",
    ];
    assert_eq!(compensations, expected, "newest first, the rollback last");
    let bodies: Vec<_> = kept.iter().map(|letter| &*letter.body).collect();
    assert_eq!(bodies, [b"10", b"20", b"30", b"40", b"50"], "whole and in order");
    assert!(kept.iter().all(|letter| letter.cause.code == Code::StorePermanent && letter.attempts == 2));
    let compensated = log.last_of(broken.id(), 20).into_iter().find(|entry| entry.what == What::Compensated);
    assert_eq!(compensated.map(|entry| entry.compensations_run), Some(4));
    assert_eq!((fine.snapshot().counters.stored, broken.snapshot().counters.dead_lettered), (2, 5));
    Ok(())
}
