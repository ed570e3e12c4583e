//! What the benches of stores have stored: batches of 500 events of 200 bytes each, of 20 tenants.

use futures::future::join_all;
use headworks::{Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, TenantId, Undo, UnixMillis};

pub(crate) const TENANTS: usize = 20;
pub(crate) const EVENTS: usize = 500;
/// When all of them arrived.
pub(crate) const ARRIVED: UnixMillis = UnixMillis(1_732_233_600_000);

/// So many batches of each tenant.
pub(crate) fn batches(each: u64) -> Vec<Vec<Batch>> {
    let tenants = (0..TENANTS).map(|n| TenantId::new(&format!("tenant-{n}")).expect("an id"));
    tenants.map(|tenant| (1..=each).map(|seq| batch(&tenant, seq)).collect()).collect()
}

fn batch(tenant: &TenantId, seq: u64) -> Batch {
    let mut builder = ChunkBuilder::with_capacity(EVENTS * 200, EVENTS);
    for n in 0..EVENTS {
        let body =
            format!("{{\"tenant\":\"{tenant}\",\"seq\":{seq},\"n\":{n},\"text\":\"{:x<140}\"}}", "some log line ");
        builder.push(&body.as_bytes()[..body.len().min(200)], None);
    }
    let chunk = builder.build(tenant.clone(), ARRIVED).expect("events");
    Batch::of_chunk(Opening(1), Seq(seq), chunk)
}

/// Has them stored: one batch of each tenant is in flight, as the tenants of a busy daemon do it.
pub(crate) async fn store(store: &impl Storage, batches: &[Vec<Batch>]) {
    join_all(batches.iter().map(async |batches| {
        for batch in batches {
            store.store(batch, &Undo::for_attempt(Attempt(1))).await.expect("stored");
        }
    }))
    .await;
}
