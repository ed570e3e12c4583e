//! How fast the store in objects takes batches, next to the client library that puts the same bytes:
//! `cargo bench --features object --bench object`.
//!
//! 20 writers keep one batch of 500 events of 200 bytes each in flight, as the tenants of a busy daemon do. The other has the lines at hand,
//! compresses them at the same level and puts them, without a condition, a hash or a page. In a directory that is synced, or, with its
//! `AWS_...` variables, on the S3 server at `HEADWORKS_BENCH_S3` (`s3://bucket/prefix`). Says events a second of wall time, CPU time of
//! this process an event, and the ratio.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

mod batches;
mod cpu;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use headworks::Batch;
use headworks::store::{ObjectOptions, ObjectStore};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use batches::{EVENTS, TENANTS};
use cpu::cpu_micros;

const BATCHES: u64 = 40;
const ROUNDS: usize = 3;

/// The store.
async fn stored(url: &str, batches: &[Vec<Batch>]) -> Duration {
    let store = ObjectStore::open(ObjectOptions::at(url)).expect("a place");
    let began = Instant::now();
    batches::store(&store, batches).await;
    let took = began.elapsed();
    store.close().await.expect("closed");
    took
}

/// The client library.
async fn put(url: &str, batches: &[Vec<Batch>]) -> Duration {
    let (objects, prefix): (Arc<dyn object_store::ObjectStore>, _) = match url.strip_prefix("file://") {
        Some(folder) => {
            std::fs::create_dir_all(folder).expect("a folder");
            (Arc::new(LocalFileSystem::new_with_prefix(folder).expect("a folder").with_fsync(true)), "plain")
        }
        None => {
            let objects = AmazonS3Builder::from_env().with_url(url).build().expect("a bucket");
            (Arc::new(objects), url.trim_start_matches("s3://").split_once('/').map_or("", |(_, prefix)| prefix))
        }
    };
    let began = Instant::now();
    join_all(batches.iter().map(|batches| {
        let objects = objects.clone();
        async move {
            for batch in batches {
                let all = batch.clone();
                let compress = move || {
                    let lines: Vec<u8> = all.events().flat_map(|event| [event.body, b"\n"].concat()).collect();
                    zstd::bulk::compress(&lines, 3).expect("compressed")
                };
                let bytes = tokio::task::spawn_blocking(compress).await.expect("compressed");
                let path = Path::from(format!("{prefix}/{}.ndjson.zst", batch.id()));
                objects.put(&path, PutPayload::from(bytes)).await.expect("put");
            }
        }
    }))
    .await;
    began.elapsed()
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = std::env::var("HEADWORKS_BENCH_S3");
    let place = place.unwrap_or_else(|_| format!("file://{}", folder.path().display()));
    let run = std::process::id();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let batches = batches::batches(BATCHES);
    let events = (TENANTS * EVENTS) as f64 * BATCHES as f64;
    for round in 1..=ROUNDS {
        let say = |what: &str, took: Duration, cpu: Option<f64>| {
            let cpu = cpu
                .zip(cpu_micros())
                .map(|(before, after)| format!(", {:.2} us CPU an event", (after - before) / events));
            let rate = events / took.as_secs_f64() / 1e6;
            println!("round {round}, {what}: {rate:.3} M events/s{}", cpu.unwrap_or_default());
        };
        let url = format!("{place}/{run}-{round}");
        let cpu = cpu_micros();
        let plain = runtime.block_on(put(&url, &batches));
        say("plain puts", plain, cpu);
        let cpu = cpu_micros();
        let ours = runtime.block_on(stored(&url, &batches));
        say("store", ours, cpu);
        println!("round {round}: {:.2} of plain puts", plain.as_secs_f64() / ours.as_secs_f64());
    }
}
