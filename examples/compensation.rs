//! A batch goes to two stores and one of them refuses it: both end up with the same.
//!
//! ```text
//! cargo run --example compensation
//! ```
//!
//! First the batch is rolled back, newest store first, and halved until what is refused is alone; the rest is stored in both
//! stores. Then a store that cannot roll back: what it may still hold stands on a list, and is undone as soon as that works.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headworks::supervisor_log::{LogEntry, Screen};
use headworks::text::short;
use headworks::{
    Attempt, Batch, BatchId, Code, DeadLetterQuery, DeadLetters, LogItem, MemoryDeadLetters, MemoryStore, Policy, Saga,
    Storage, StorageError, System, TenantId, TenantSpec, Undo, What, WindowPolicy,
};

/// A store that writes down what it is told.
#[derive(Clone)]
struct Shelf {
    name: &'static str,
    inner: MemoryStore,
    /// What it refuses for good, wherever it stands in a batch.
    refuses: Option<&'static str>,
    is_stuck: Arc<AtomicBool>,
    diary: Arc<Mutex<Vec<String>>>,
}

impl Shelf {
    fn note(&self, what: &str, id: &BatchId, orders: &str) {
        let line = format!("   {:8} {what:10} batch {:6} {orders}", self.name, short(&id.to_string()));
        self.diary.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim_end().to_owned());
    }

    /// The batches it holds, each with its orders.
    fn holds(&self, tenant: &TenantId) -> Vec<String> {
        let told = |batch: &Batch| format!("batch {} [{}]", short(&batch.id().to_string()), orders(batch));
        self.inner.batches(tenant).iter().map(told).collect()
    }
}

fn orders(batch: &Batch) -> String {
    batch.events().map(|event| String::from_utf8_lossy(event.body).into_owned()).collect::<Vec<_>>().join(" ")
}

impl Storage for Shelf {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let orders = orders(batch);
        if let Some(refused) = self.refuses.filter(|refused| orders.contains(refused)) {
            self.note("REFUSES", batch.id(), &orders);
            return Err(StorageError::permanent(format!("we sell no {refused}")));
        }
        self.note("stores", batch.id(), &orders);
        self.inner.store(batch, undo).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(StorageError::permanent("the tape is stuck"));
        }
        self.note("rolls back", id, "");
        self.inner.rollback(id, attempt).await
    }
}

/// Prints what the stores were told since the last time.
fn print(diary: &Mutex<Vec<String>>) {
    for line in diary.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        println!("{line}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let diary = Arc::<Mutex<Vec<String>>>::default();
    let shelf = |name, refuses| {
        let (inner, is_stuck, diary) = (MemoryStore::new(), Arc::default(), diary.clone());
        Shelf { name, inner, refuses, is_stuck, diary }
    };
    let (archive, db, letters) = (shelf("archive", None), shelf("db", Some("lobster")), MemoryDeadLetters::default());
    let saga = Saga::new().then(archive.clone()).named("archive").then(db.clone()).named("db");
    let window = WindowPolicy { max_events: 4, ..WindowPolicy::default() };
    let system = System::builder()
        .policy(Policy { window, ..Policy::default() })
        .saga(saga)
        .dead_letters(letters.clone())
        .start()?;
    let cafe = system.spawn(TenantSpec::new("cafe")?).await?;
    let mut log = system.log().subscribe();
    let mut screen = Screen::new(80);

    println!("A cafe's orders go to two stores, first the archive, then the db.");
    println!("The db refuses every order of lobster, for good.\n");
    println!("1. Four orders in one batch. What the stores are told and answer:");
    cafe.offer(["tea", "soup", "lobster", "cake"]).await?;
    // Stored or given up, and written down, by the time that nothing is in flight.
    cafe.passivate().await?;
    print(&diary);
    println!("   Undone, newest store first, and halved until the lobster was alone.\n");

    println!("2. From now on the archive cannot undo: its tape is stuck.");
    archive.is_stuck.store(true, Ordering::Relaxed);
    while log.try_next().is_some() {}
    cafe.offer(["bread", "lobster"]).await?;
    cafe.flush();
    cafe.passivate().await?;
    print(&diary);
    println!("   The supervisor log says:");
    while let Some(LogItem::Event(event)) = log.try_next() {
        if event.what == What::CompensationFailed {
            let entry = LogEntry::of(&event, system.opening());
            print!("{}", screen.entry(&entry, entry.at));
        }
    }
    let owed = system.uncompensated();
    for owed in &owed {
        let batch = short(&owed.batch.to_string()).to_owned();
        println!("   Not undone yet: {} of batch {batch} in {}", owed.compensation, owed.store);
    }
    println!("   So batch 2 is not halved: what the archive may hold must not come again.");

    println!("\n3. The tape turns again. What was not undone is tried until it is done:");
    archive.is_stuck.store(false, Ordering::Relaxed);
    let undone = async {
        loop {
            if let LogItem::Event(event) = log.next().await
                && event.what == What::Compensated
            {
                break event;
            }
        }
    };
    let undone = LogEntry::of(&*tokio::time::timeout(Duration::from_secs(20), undone).await?, system.opening());
    print(&diary);
    print!("{}", screen.entry(&undone, undone.at));

    println!("\nIn the end both stores hold the same:");
    for shelf in [&archive, &db] {
        println!("   {:8} {}", shelf.name, shelf.holds(cafe.id()).join(", "));
    }
    println!("and what is in neither is a dead letter:");
    let kept = letters.list(&DeadLetterQuery::default()).await?;
    for letter in &kept {
        println!("   {:8} {}", String::from_utf8_lossy(&letter.body), letter.cause.detail);
    }
    let report = system.drain(Duration::from_secs(10)).await;

    assert!(report.complete);
    assert_eq!(archive.holds(cafe.id()), ["batch 1.1 [tea soup]", "batch 1.2.2 [cake]"]);
    assert_eq!(archive.holds(cafe.id()), db.holds(cafe.id()), "a batch is in both or in none");
    let bodies: Vec<_> = kept.iter().map(|letter| &*letter.body).collect();
    assert_eq!(bodies, [&b"lobster"[..], b"bread", b"lobster"], "the one refused; all of what could not be undone");
    assert!(kept.iter().all(|letter| letter.cause.code == Code::StorePermanent));
    assert_eq!((owed.len(), report.uncompensated()), (1, 0));
    Ok(())
}
