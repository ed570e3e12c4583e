//! Batches for a store by itself, and senders that bring them to one whose server is killed.

use std::time::Duration;

use futures::future::join_all;
use headworks::{Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, StorageError, TenantId, Undo, UnixMillis};
use tokio::sync::mpsc;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// One that arrived at its number, in seconds.
pub(crate) fn batch(name: &str, seq: u64, bodies: &[&str]) -> Batch {
    batch_at(name, seq, bodies, UnixMillis(seq.cast_signed() * 1000))
}

pub(crate) fn batch_at(name: &str, seq: u64, bodies: &[&str], at: UnixMillis) -> Batch {
    let mut builder = ChunkBuilder::default();
    bodies.iter().for_each(|body| builder.push(body.as_bytes(), None));
    Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant(name), at).unwrap())
}

pub(crate) async fn put(store: &impl Storage, batch: &Batch, attempt: u32) -> Result<(), StorageError> {
    store.store(batch, &Undo::for_attempt(Attempt(attempt))).await
}

#[track_caller]
pub(crate) fn assert_outage(answer: Result<(), StorageError>, says: &str) {
    let why = answer.unwrap_err();
    assert!(matches!(why, StorageError::Unavailable { .. }) && why.to_string().contains(says), "{why:?}");
}

/// What is stored while the server is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// How many send, each one batch after the other.
    pub(crate) tenants: usize,
    /// How many batches each of them has.
    pub(crate) batches: u64,
    pub(crate) kills: usize,
    /// How long whoever was told of an outage waits.
    pub(crate) again: Duration,
    /// What is in a batch.
    pub(crate) bodies: fn(&str, u64) -> Vec<String>,
}

impl Stream {
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.tenants).map(|n| format!("t{n}"))
    }

    /// All of a tenant, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<Vec<u8>> {
        (1..=self.batches).flat_map(|seq| (self.bodies)(name, seq)).map(String::into_bytes).collect()
    }

    /// Stores all of it, and kills the server in mid-batch, again and again; nothing but an outage may come of that. How many there
    /// were.
    pub(crate) async fn stored_over_kills(&self, store: impl Storage + Clone, mut kill: impl FnMut()) -> u32 {
        let (tell, mut told) = mpsc::unbounded_channel();
        let senders = self.names().map(|name| {
            let (store, tell, stream) = (store.clone(), tell.clone(), *self);
            tokio::spawn(async move {
                let mut outages = 0;
                for seq in 1..=stream.batches {
                    let bodies = (stream.bodies)(&name, seq);
                    let batch = batch(&name, seq, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
                    for attempt in 1.. {
                        match put(&store, &batch, attempt).await {
                            Ok(()) => break,
                            Err(StorageError::Unavailable { .. }) => outages += 1,
                            Err(why) => panic!("a server that is killed is an outage, but: {why:?}"),
                        }
                        tokio::time::sleep(stream.again).await;
                    }
                    let _ = tell.send(());
                }
                outages
            })
        });
        let senders: Vec<_> = senders.collect();
        for _ in 0..self.kills {
            // With all the others on their way.
            for _ in 0..self.tenants * usize::try_from(self.batches).unwrap() / (self.kills + 2) {
                told.recv().await.unwrap();
            }
            tokio::task::block_in_place(&mut kill);
        }
        let outages: u32 = join_all(senders).await.into_iter().map(Result::unwrap).sum();
        assert!(outages > 0, "the kills were to be felt");
        outages
    }
}
