//! Three tenants, each with a store that fails in its own way, and the supervisor log of all that, in sentences.
//!
//! ```text
//! cargo run --example supervisor_log
//! ```
//!
//! A panic ends the tenant's writer. A fresh one sends the same batch again under the same id, so that a store which had kept it
//! before it panicked keeps it once. A store that is away costs no attempt. And a tenant that does nothing but fail is left alone,
//! its events kept, until somebody has repaired what is broken.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headworks::supervisor_log::{LIVELY, LogEntry, Screen};
use headworks::{
    Attempt, Batch, BatchId, LogItem, MemoryStore, Policy, RestartPolicy, RetryPolicy, Status, Storage, StorageError,
    System, SystemBuilder, TenantHandle, TenantSpec, Undo, What,
};

/// How a store fails.
#[derive(Clone, Copy)]
enum Trouble {
    Panics,
    PanicsWhenDone,
    Away,
}

/// Fails so many times, then works.
#[derive(Clone)]
struct Shaky {
    trouble: Trouble,
    times: Arc<AtomicU64>,
    inner: MemoryStore,
}

impl Shaky {
    fn new(trouble: Trouble, times: u64) -> Self {
        Self { trouble, times: Arc::new(times.into()), inner: MemoryStore::new() }
    }

    fn is_to_fail(&self) -> bool {
        self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl Storage for Shaky {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        match self.trouble {
            _ if !self.is_to_fail() => self.inner.store(batch, undo).await,
            Trouble::Panics => panic!("index out of range"),
            Trouble::PanicsWhenDone => {
                self.inner.store(batch, undo).await?;
                panic!("index out of range")
            }
            Trouble::Away => Err(StorageError::unavailable("connection refused")),
        }
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.inner.rollback(id, attempt).await
    }
}

/// A few events, on their way to the store.
async fn order(tenant: &TenantHandle) -> Result<(), headworks::Error> {
    tenant.offer(["one", "two", "three"]).await?;
    tenant.flush();
    Ok(())
}

fn builder() -> SystemBuilder {
    let retry = RetryPolicy { base: Duration::from_millis(20), ..RetryPolicy::default() };
    let restart = RestartPolicy { intensity: 1, base: Duration::from_millis(20), ..RestartPolicy::default() };
    System::builder().policy(Policy { retry, restart, ..Policy::default() })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The supervisor log tells of each panic; the default hook would say the same once more, on stderr.
    std::panic::set_hook(Box::new(|_| {}));
    let system = builder().start()?;
    let stores = [Shaky::new(Trouble::PanicsWhenDone, 1), Shaky::new(Trouble::Away, 1), Shaky::new(Trouble::Panics, 2)];
    let mut tenants = vec![];
    for (name, store) in ["bakery", "harbour", "mill"].into_iter().zip(&stores) {
        tenants.push(system.spawn(TenantSpec::new(name)?.store(store.clone())).await?);
    }
    let [bakery, harbour, mill] = &tenants[..] else { return Err("three tenants".into()) };

    println!("bakery's store panics once, just after it has kept a batch; harbour's is not");
    println!("there at first; mill's panics at every write, until somebody repairs it.\n");
    let mut log = system.log().subscribe();
    let mut screen = Screen::new(80);
    // What the log says up to the first entry of this kind.
    let mut tell = async |last: What| {
        let until = async {
            while let LogItem::Event(event) = log.next().await {
                let entry = LogEntry::of(&event, system.opening());
                if !LIVELY.contains(&&*entry.what) {
                    print!("{}", screen.entry(&entry, entry.at));
                }
                if event.what == last {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until).await
    };
    order(bakery).await?;
    tell(What::Restarted).await?;
    order(harbour).await?;
    tell(What::Unparked).await?;
    order(mill).await?;
    tell(What::Quarantined).await?;
    assert_eq!(mill.snapshot().status, Status::Quarantined);
    println!("-- mill's store is repaired, and somebody says: headworks tenants resume mill --");
    mill.resume();
    tell(What::Ambiguous).await?;
    let report = system.drain(Duration::from_secs(20)).await;

    println!("\nIn the end every event is stored, once and in order:");
    for (tenant, Shaky { inner, .. }) in tenants.iter().zip(&stores) {
        let bodies: Vec<_> = inner.bodies(tenant.id()).into_iter().map(String::from_utf8).collect::<Result<_, _>>()?;
        println!("   {:8} {}", tenant.id(), bodies.join(" "));
        assert_eq!(bodies, ["one", "two", "three"]);
    }
    let restarts: Vec<_> = tenants.iter().map(|tenant| tenant.snapshot().counters.restarts).collect();
    assert!(report.complete);
    assert_eq!(restarts, [1, 0, 2], "a panic each, and the one that was resumed");
    Ok(())
}
