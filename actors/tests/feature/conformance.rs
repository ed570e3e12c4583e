//! The memory stores keep the contract, and the suites notice a store that does not.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures::FutureExt;
use headworks_actors::{
    Attempt, Batch, BatchId, ChunkBuilder, Fault, Faulty, MemoryDeadLetters, MemoryJournal, MemoryStore, NullStore,
    Opening, Seq, Storage, StorageError, TenantId, Undo, UnixMillis, conformance,
};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn batch(name: &str, seq: u64) -> Batch {
    let mut builder = ChunkBuilder::default();
    builder.push(format!("{name} {seq}").as_bytes(), None);
    Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant(name), UnixMillis(0)).unwrap())
}

fn first_attempt() -> Undo {
    Undo::for_attempt(Attempt(1))
}

/// What a suite says of a store, if it fails.
async fn complaint(suite: impl Future<Output = ()>) -> Option<String> {
    let panic = std::panic::AssertUnwindSafe(suite).catch_unwind().await.err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).into()))
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    conformance::storage(async || MemoryStore::new(), async |store, tenant| store.bodies(tenant)).await;
}

#[tokio::test]
async fn the_memory_dead_letters_keep_the_contract() {
    conformance::managed_dead_letters(async || MemoryDeadLetters::default()).await;
}

#[tokio::test]
async fn the_memory_journal_keeps_the_contract() {
    conformance::journal(async |_: &str| MemoryJournal::new()).await;
}

#[tokio::test]
async fn a_faulty_store_without_faults_keeps_the_contract() {
    let make = async || Faulty::new(MemoryStore::new(), Fault::None.always());
    conformance::storage(make, async |store, tenant| store.inner().bodies(tenant)).await;
}

/// A memory store that breaks one rule.
struct Broken {
    inner: MemoryStore,
    rule: Rule,
    opening: AtomicU64,
    calls: AtomicU32,
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    StoresTwice,
    CutsAtNul,
    ForgetsRollbacks,
    HasNoFence,
    RefusesForNow,
    Miscounts,
}

impl Storage for Broken {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let mut batch = batch.clone();
        let mut attempt = undo.attempt();
        match self.rule {
            Rule::StoresTwice => {
                let seq = Seq(batch.id().seq.0);
                let mut builder = ChunkBuilder::default();
                batch.events().for_each(|e| builder.push(e.body, e.time));
                let opening = Opening(self.opening.fetch_add(1, Ordering::Relaxed));
                batch = Batch::of_chunk(opening, seq, builder.build(batch.tenant().clone(), UnixMillis(0)).unwrap());
            }
            Rule::CutsAtNul => {
                batch = batch.map_bodies(|e| e.body.split(|b| *b == 0).next().unwrap_or_default().to_vec().into());
            }
            // Every call looks like a later one.
            Rule::HasNoFence => attempt = Attempt(self.calls.fetch_add(1, Ordering::Relaxed) + 1),
            Rule::RefusesForNow => {
                let outcome = self.inner.store(&batch, undo).await;
                return outcome.map_err(StorageError::transient);
            }
            Rule::ForgetsRollbacks | Rule::Miscounts => {}
        }
        self.inner.store(&batch, &Undo::for_attempt(attempt)).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        if self.rule == Rule::ForgetsRollbacks {
            return Ok(());
        }
        let attempt = if self.rule == Rule::HasNoFence { Attempt(self.calls.load(Ordering::Relaxed)) } else { attempt };
        self.inner.rollback(id, attempt).await
    }

    async fn count(&self, tenant: &TenantId) -> Option<u64> {
        let counted = self.inner.count(tenant).await?;
        Some(if self.rule == Rule::Miscounts { counted + 1 } else { counted })
    }
}

#[tokio::test]
async fn the_suite_says_which_rule_a_store_breaks() {
    for (rule, sentence) in [
        (Rule::StoresTwice, "must be there once"),
        (Rule::CutsAtNul, "must come back byte for byte"),
        (Rule::ForgetsRollbacks, "must remove its batch"),
        (Rule::HasNoFence, "must be refused as permanent"),
        (Rule::RefusesForNow, "must be refused as permanent"),
        (Rule::Miscounts, "must count what it holds"),
    ] {
        let make =
            async || Broken { inner: MemoryStore::new(), rule, opening: AtomicU64::new(1), calls: AtomicU32::new(0) };
        let said = complaint(conformance::storage(make, async |store, tenant| store.inner.bodies(tenant))).await;
        let said = said.expect("a broken store must not pass");
        assert!(said.contains(sentence), "expected {sentence:?} in: {said}");
    }
    let said = complaint(conformance::storage(async || NullStore::default(), async |_, _| Vec::new())).await;
    assert!(said.unwrap().contains("must hold every event"));
}

#[tokio::test]
async fn each_fault_does_to_the_store_underneath_what_it_says() {
    for (fault, error, stored) in [
        (Fault::None, None, 1),
        (Fault::Transient, Some("transient"), 0),
        (Fault::Permanent, Some("permanent"), 0),
        (Fault::Unavailable, Some("outage"), 0),
        (Fault::LostReply, Some("loss of the reply"), 1),
    ] {
        let store = Faulty::new(MemoryStore::new(), fault.always());
        let answer = store.store(&batch("acme", 1), &first_attempt()).await;
        assert_eq!(answer.is_err(), error.is_some(), "{fault:?}: {answer:?}");
        assert!(answer.is_ok() || answer.unwrap_err().to_string().contains(error.unwrap()), "{fault:?}");
        assert_eq!(store.inner().bodies(&tenant("acme")).len(), stored, "{fault:?}");
    }
    for (fault, stored) in [(Fault::PanicBefore, 0), (Fault::PanicAfter, 1)] {
        let store = Faulty::new(MemoryStore::new(), fault.always());
        let said = complaint(async { store.store(&batch("acme", 1), &first_attempt()).await.unwrap() }).await;
        assert!(said.unwrap().contains("injected panic"), "{fault:?}");
        assert_eq!(store.inner().bodies(&tenant("acme")).len(), stored, "{fault:?}");
    }
}

#[tokio::test]
async fn a_script_picks_calls_by_number_and_by_tenant_and_is_exchanged_while_running() {
    let store = Faulty::new(MemoryStore::new(), Fault::Transient.on_call(2));
    let outcomes = async |calls: u64| {
        let mut failed = Vec::new();
        for seq in 1..=calls {
            failed.push(store.store(&batch("acme", seq), &first_attempt()).await.is_err());
        }
        failed
    };
    assert_eq!(outcomes(3).await, [false, true, false]);
    store.script(Fault::Transient.every(2)); // Calls 4 to 7.
    assert_eq!(outcomes(4).await, [true, false, true, false]);
    store.script(Fault::Transient.first(8)); // Calls 8 and 9.
    assert_eq!(outcomes(2).await, [true, false]);
    store.script(Fault::Permanent.of_tenant(tenant("acme")));
    assert_eq!(outcomes(1).await, [true]);
    assert!(store.store(&batch("zen", 1), &first_attempt()).await.is_ok());
    store.heal();
    assert_eq!(outcomes(1).await, [false]);
    assert_eq!(store.calls(), 12);
}

#[tokio::test]
async fn a_rollback_fails_by_its_own_script() {
    let store = Faulty::new(MemoryStore::new(), Fault::None.always());
    let batch = batch("acme", 1);
    store.store(&batch, &first_attempt()).await.unwrap();
    store.script_rollback(Fault::Unavailable.first(1));
    assert!(store.rollback(batch.id(), Attempt(1)).await.is_err());
    assert_eq!(store.inner().bodies(&tenant("acme")).len(), 1);
    assert!(store.rollback(batch.id(), Attempt(1)).await.is_ok());
    assert_eq!(store.inner().bodies(&tenant("acme")).len(), 0);
    assert_eq!((store.calls(), store.rollbacks()), (1, 2));
}

#[tokio::test]
async fn a_stalled_call_waits_until_it_is_released() {
    let store = Faulty::new(MemoryStore::new(), Fault::Stall.first(2));
    let dropped = store.store(&batch("acme", 1), &first_attempt()).now_or_never();
    assert!(dropped.is_none(), "a stalled call does not answer");

    let stalled = tokio::spawn({
        let store = store.clone();
        async move { store.store(&batch("acme", 2), &first_attempt()).await }
    });
    store.until_calls(2).await;
    assert!(store.inner().bodies(&tenant("acme")).is_empty());
    store.release();
    stalled.await.unwrap().unwrap();
    assert_eq!(store.inner().bodies(&tenant("acme")), [b"acme 2"], "the dropped call never lands");
}
