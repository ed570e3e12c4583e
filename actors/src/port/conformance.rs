//! What every store must do, as tests that any implementation can run.
//!
//! Each suite is one async function that panics with a sentence where the store breaks its contract. That of sources is
//! [`source_conformance`](crate::source_conformance).
//!
//! ```
//! use headworks_actors::{MemoryDeadLetters, MemoryStore, conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! conformance::storage(async || MemoryStore::new(), async |store, tenant| store.bodies(tenant)).await;
//! conformance::managed_dead_letters(async || MemoryDeadLetters::default()).await;
//! # }
//! ```

pub use super::conformance_journal::journal;
pub use super::conformance_letters::{dead_letters, managed_dead_letters};

use futures::FutureExt;
use futures::future::join_all;

use super::{Storage, StorageError, Undo};
use crate::model::{Attempt, Batch, BatchId, ChunkBuilder, Opening, Seq, TenantId, UnixMillis};

/// Checks a [`Storage`]: what is stored, that it is stored once, and that a rollback undoes and fences it.
///
/// `make` makes a fresh, empty store; `bodies` reads back the bodies a store holds of a tenant, in the order of their
/// batches and, within a batch, in the order of its events.
///
/// # Panics
/// Where the store breaks its contract; the message says how.
pub async fn storage<S: Storage>(make: impl AsyncFn() -> S, bodies: impl AsyncFn(&S, &TenantId) -> Vec<Vec<u8>>) {
    stores_whole_in_order_and_byte_for_byte(&make().await, &bodies).await;
    stores_the_same_id_once(&make().await, &bodies).await;
    keeps_tenants_apart(&make().await, &bodies).await;
    rolls_back_one_batch_alone(&make().await, &bodies).await;
    fences_what_was_rolled_back(&make().await, &bodies).await;
    survives_a_dropped_call(&make().await, &bodies).await;
    stores_many_tenants_at_once(&make().await, &bodies).await;
}

pub(super) type Bodies = Vec<Vec<u8>>;

async fn stores_whole_in_order_and_byte_for_byte<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    let acme = tenant("acme");
    let first = odd_bodies();
    let second: Bodies = (0..1000).map(|n| format!("{{\"n\":{n}}}").into_bytes()).collect();
    put(store, &batch("acme", 1, &first), 1).await;
    put(store, &batch("acme", 2, &second), 1).await;

    let found = read(store, &acme).await;
    let expected: Bodies = first.into_iter().chain(second).collect();
    assert_eq!(found.len(), expected.len(), "a store must hold every event of every batch, and no other");
    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            found == expected,
            "the body at place {place} must come back byte for byte and in order: expected {} bytes {}, found {} bytes {}",
            expected.len(),
            beginning(expected),
            found.len(),
            beginning(found)
        );
    }
    check_count(store, &acme, expected.len()).await;
}

async fn stores_the_same_id_once<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    let batch = batch("acme", 1, &bodies(["one", "two"]));
    put(store, &batch, 1).await;
    put(store, &batch, 1).await;
    put(store, &batch, 2).await;
    let found = read(store, batch.tenant()).await;
    assert_eq!(found, bodies(["one", "two"]), "a batch that is stored again under its id must be there once");
    check_count(store, batch.tenant(), 2).await;
}

async fn keeps_tenants_apart<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    // The same seq, and names that differ only where a careless key would not look.
    let names = ["acme", "ACME", "acme.1", "acme_1"];
    for name in names {
        put(store, &batch(name, 1, &bodies([name])), 1).await;
    }
    for name in names {
        let found = read(store, &tenant(name)).await;
        assert_eq!(found, bodies([name]), "a store must not mix tenant {name} with another");
        check_count(store, &tenant(name), 1).await;
    }
    let nobody = read(store, &tenant("nobody")).await;
    assert!(nobody.is_empty(), "a tenant that never stored anything must hold nothing, found {}", nobody.len());
    check_count(store, &tenant("nobody"), 0).await;
}

async fn rolls_back_one_batch_alone<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    let acme = tenant("acme");
    for seq in 1..=3 {
        put(store, &batch("acme", seq, &bodies([&format!("{seq}a"), &format!("{seq}b")])), 1).await;
        put(store, &batch("zen", seq, &bodies([&format!("zen {seq}")])), 1).await;
    }
    for round in ["", " again"] {
        undo(store, batch_id("acme", 2), 1).await;
        let found = read(store, &acme).await;
        assert_eq!(found, bodies(["1a", "1b", "3a", "3b"]), "a rollback{round} must remove its batch and no other");
        check_count(store, &acme, 4).await;
    }
    let neighbour = read(store, &tenant("zen")).await;
    assert_eq!(neighbour, bodies(["zen 1", "zen 2", "zen 3"]), "a rollback must not touch another tenant");

    undo(store, batch_id("acme", 99), 1).await;
    assert_eq!(read(store, &acme).await.len(), 4, "the rollback of a batch that never came must remove nothing");

    put(store, &batch("acme", 4, &bodies(["4a"])), 1).await;
    let found = read(store, &acme).await;
    assert_eq!(
        found,
        bodies(["1a", "1b", "3a", "3b", "4a"]),
        "what comes after a rollback must be stored after the rest"
    );
    undo(store, batch_id("acme", 3), 1).await;
    let found = read(store, &acme).await;
    assert_eq!(found, bodies(["1a", "1b", "4a"]), "a later rollback must remove its batch and no other");
}

async fn fences_what_was_rolled_back<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    let batch = batch("acme", 1, &bodies(["one"]));
    // The rollback overtakes the attempts: none of them has landed yet.
    undo(store, batch.id().clone(), 2).await;
    undo(store, batch.id().clone(), 1).await;
    for late in [1, 2] {
        let refused = store.store(&batch, &Undo::for_attempt(Attempt(late))).await;
        assert!(
            matches!(refused, Err(StorageError::Permanent { .. })),
            "attempt {late} comes after the rollback of attempt 2 and must be refused as permanent, but got {refused:?}"
        );
        let found = read(store, batch.tenant()).await;
        assert!(found.is_empty(), "attempt {late} comes after the rollback of attempt 2 and must not land");
    }
    put(store, &batch, 3).await;
    let found = read(store, batch.tenant()).await;
    assert_eq!(found, bodies(["one"]), "an attempt above the fence must be stored again");
    undo(store, batch.id().clone(), 2).await;
    let found = read(store, batch.tenant()).await;
    assert_eq!(found, bodies(["one"]), "a rollback must leave what a later attempt stored");

    undo(store, batch.id().clone(), 3).await;
    let refused = store.store(&batch, &Undo::for_attempt(Attempt(3))).await;
    assert!(
        matches!(refused, Err(StorageError::Permanent { .. })),
        "a second rollback must raise the fence to its own attempt, but attempt 3 got {refused:?}"
    );
    assert!(read(store, batch.tenant()).await.is_empty(), "a second rollback must remove the batch again");
}

async fn survives_a_dropped_call<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    let acme = tenant("acme");
    let kept = batch("acme", 1, &bodies(["one", "two"]));
    let given_up = batch("acme", 2, &bodies(["three"]));
    for batch in [&kept, &given_up] {
        // Polled once and dropped, as by a timeout.
        let _ = store.store(batch, &Undo::for_attempt(Attempt(1))).now_or_never();
    }
    put(store, &kept, 2).await;
    undo(store, given_up.id().clone(), 1).await;
    let found = read(store, &acme).await;
    assert_eq!(
        found,
        bodies(["one", "two"]),
        "after a dropped call a batch must be there once, or not at all once rolled back"
    );
}

async fn stores_many_tenants_at_once<S: Storage>(store: &S, read: &impl AsyncFn(&S, &TenantId) -> Bodies) {
    const TENANTS: usize = 40;
    const BATCHES: u64 = 5;
    let event = |name: &str, seq: u64, place: u64| format!("{name} {seq} {place}").into_bytes();
    let names: Vec<_> = (0..TENANTS).map(|n| format!("tenant-{n}")).collect();
    join_all(names.iter().map(|name| async move {
        for seq in 1..=BATCHES {
            let events: Bodies = (0..seq).map(|place| event(name, seq, place)).collect();
            put(store, &batch(name, seq, &events), 1).await;
        }
    }))
    .await;
    for name in &names {
        let expected: Bodies =
            (1..=BATCHES).flat_map(|seq| (0..seq).map(move |place| event(name, seq, place))).collect();
        let found = read(store, &tenant(name)).await;
        assert_eq!(
            found, expected,
            "batches of many tenants at once must each be whole, in order and with their own tenant"
        );
        check_count(store, &tenant(name), expected.len()).await;
    }
}

/// Bodies that a careless store would change.
pub(super) fn odd_bodies() -> Bodies {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long: Vec<u8> = b"0123456789abcdef".iter().copied().cycle().take(1 << 20).collect();
    let short: [&[u8]; 10] = [
        b"",
        b"{\"tenant\":\"acme\"}",
        b"a\0b\0",
        b"\0",
        b"\xff\xfe not utf-8 \x80",
        "caf\u{e9} \u{1f980}".as_bytes(),
        b" 007 ",
        b"1e3",
        b"line\nline\r\n",
        b"',\"\\%_--;",
    ];
    short.iter().map(|body| body.to_vec()).chain([all_bytes, long]).collect()
}

fn bodies<const N: usize>(texts: [&str; N]) -> Bodies {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn beginning(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&body[..body.len().min(40)]))
}

#[expect(clippy::expect_used, reason = "the suite names its tenants itself")]
pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a valid tenant id")
}

pub(super) fn batch_id(name: &str, seq: u64) -> BatchId {
    BatchId::new(Opening(0x5f0c_9b1e_2d3a_4f60), tenant(name), Seq(seq))
}

#[expect(clippy::expect_used, reason = "the suite makes no empty batch")]
fn batch(name: &str, seq: u64, bodies: &[Vec<u8>]) -> Batch {
    let mut builder = ChunkBuilder::default();
    for (place, body) in (0..).zip(bodies) {
        // Some events have a time and some have none.
        builder.push(body, (place % 2 == 0).then_some(UnixMillis(place)));
    }
    let id = batch_id(name, seq);
    let chunk = builder.build(id.tenant, UnixMillis(1_732_233_600_000)).expect("at least one event");
    Batch::of_chunk(id.opening, id.seq, chunk)
}

async fn put<S: Storage>(store: &S, batch: &Batch, attempt: u32) {
    if let Err(error) = store.store(batch, &Undo::for_attempt(Attempt(attempt))).await {
        panic!("batch {} must be stored in attempt {attempt}, but: {error}", batch.id());
    }
}

async fn undo<S: Storage>(store: &S, id: BatchId, attempt: u32) {
    if let Err(error) = store.rollback(&id, Attempt(attempt)).await {
        panic!("attempts up to {attempt} of batch {id} must be rolled back, but: {error}");
    }
}

async fn check_count<S: Storage>(store: &S, tenant: &TenantId, expected: usize) {
    if let Some(counted) = store.count(tenant).await {
        assert_eq!(counted, expected as u64, "a store that counts must count what it holds of tenant {tenant}");
    }
}
