//! How fast the store in a NATS JetStream publishes batches, next to the client library that it is made of publishing the same lines and
//! waiting for the same acknowledgements: `cargo bench --features nats --bench nats`. Needs `nats-server` in the path.
//!
//! 20 writers keep one batch of 500 events of 200 bytes each in flight, as the tenants of a busy daemon do; the client has as many messages
//! under way. The stream is in files, on one server on this machine, as it is by default (its disk is asked to keep things every two
//! minutes). Says events a second of wall time, the best of 3 rounds in turn, and the ratio. The store makes the lines of a batch, hashes
//! them and gives each batch a subject of its own; the client has the lines at hand, and publishes all on one subject.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

mod batches;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures::StreamExt;
use headworks::Batch;
use headworks::store::{NatsStore, NatsStoreOptions};

use batches::{EVENTS, TENANTS};

const BATCHES: u64 = 40;
const ROUNDS: usize = 3;

/// It does not outlive the benchmark.
struct Server(Child, String);

impl Server {
    fn start(directory: &std::path::Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n",
            directory.join("data").display()
        );
        let path = directory.join("nats.conf");
        std::fs::write(&path, config).expect("a file");
        let child = Command::new("nats-server").arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self(child.expect("nats-server in the path"), format!("nats://127.0.0.1:{port}"));
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn store(url: &str, round: usize, batches: &[Vec<Batch>]) -> Duration {
    let mut options = NatsStoreOptions::at(url, format!("S{round}"));
    options.subject = format!("s{round}.{{tenant}}.{{batch}}");
    let store = NatsStore::open(options).expect("a stream");
    let began = Instant::now();
    batches::store(&store, batches).await;
    let took = began.elapsed();
    store.close().await.expect("it closes");
    took
}

/// The client alone, on a thread of its own as that of the store.
fn client(url: &str, round: usize, batches: &[Vec<Batch>]) -> Duration {
    let lines = |batch: &Batch| {
        let mut lines = vec![];
        batch.events().for_each(|event| {
            lines.extend_from_slice(event.body);
            lines.push(b'\n');
        });
        Bytes::from(lines)
    };
    let bodies: Vec<Bytes> = batches.iter().flatten().map(lines).collect();
    let (url, name) = (url.to_owned(), format!("C{round}"));
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let context = jetstream::new(async_nats::connect(url).await.expect("a connection"));
            let config = stream::Config { name: name.clone(), subjects: vec![name.clone()], ..Default::default() };
            context.create_stream(config).await.expect("a stream");
            let began = Instant::now();
            futures::stream::iter(bodies)
                .for_each_concurrent(TENANTS, async |body| {
                    let sent = context.publish(name.clone(), body).await.expect("sent");
                    sent.await.expect("acknowledged");
                })
                .await;
            began.elapsed()
        })
    };
    std::thread::spawn(run).join().expect("it runs")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path());
    let batches = batches::batches(BATCHES);
    let mut best = [Duration::MAX; 2];
    for round in 0..ROUNDS {
        let took = [client(&server.1, round, &batches), runtime.block_on(store(&server.1, round, &batches))];
        best.iter_mut().zip(took).for_each(|(best, took)| *best = took.min(*best));
    }
    let events = (TENANTS * EVENTS) as f64 * BATCHES as f64;
    for (name, took) in ["the client alone", "the store"].into_iter().zip(best) {
        let (rate, ratio) = (events / took.as_secs_f64(), best[0].as_secs_f64() / took.as_secs_f64());
        println!("{name:<20} {rate:>9.0} events a second, {ratio:.2} of the client");
    }
}
