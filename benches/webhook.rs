//! How fast the store behind a webhook sends events, next to the HTTP client that it is made of sending the same lines:
//! `cargo bench --features webhook --bench webhook`.
//!
//! 20 writers keep one batch of 500 events of 200 bytes each in flight, as the tenants of a busy daemon do; 4 requests are under way at
//! once. The server is axum's in this process, on a thread of its own, and throws everything away. Says events a second of wall time, the best
//! of 3 rounds in turn, and the ratio. The store makes the lines of a batch and signs them; the client has the lines at hand.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

mod batches;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use futures::future::join_all;
use headworks::Batch;
use headworks::store::webhook::Compression;
use headworks::store::{WebhookOptions, WebhookStore};
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use batches::{EVENTS, TENANTS};

const BATCHES: u64 = 40;
const REQUESTS: usize = 4;
const ROUNDS: usize = 3;

/// A server that takes anything.
fn server() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
            let take =
                async |body: Bytes| if body.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::NO_CONTENT };
            let router = Router::new().route("/batches", post(take)).layer(axum::extract::DefaultBodyLimit::disable());
            axum::serve(listener, router).await.expect("it serves");
        });
    });
    told.recv().expect("it listens")
}

async fn store(options: WebhookOptions, batches: &[Vec<Batch>]) -> Duration {
    let store = WebhookStore::open(options).expect("options that work");
    let began = Instant::now();
    batches::store(&store, batches).await;
    let took = began.elapsed();
    store.close().await.expect("it closes");
    took
}

/// The client alone, on a thread of its own as that of the store.
fn client(url: &str, batches: &[Vec<Batch>]) -> Duration {
    let lines = |batch: &Batch| {
        let mut lines = vec![];
        batch.events().for_each(|event| {
            lines.extend_from_slice(event.body);
            lines.push(b'\n');
        });
        Bytes::from(lines)
    };
    let bodies: Arc<Vec<Bytes>> = Arc::new(batches.iter().flatten().map(lines).collect());
    let url = url.to_owned();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
            let began = Instant::now();
            join_all((0..REQUESTS).map(|nth| {
                let (client, bodies, url) = (client.clone(), bodies.clone(), url.clone());
                tokio::spawn(async move {
                    for body in bodies.iter().skip(nth).step_by(REQUESTS) {
                        let request = hyper::Request::post(&*url).body(Full::new(body.clone())).expect("a request");
                        let answer = client.request(request).await.expect("an answer");
                        assert!(answer.status().is_success());
                    }
                })
            }))
            .await;
            began.elapsed()
        })
    };
    std::thread::spawn(run).join().expect("it runs")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = format!("http://{}/batches", server());
    let batches = batches::batches(BATCHES);
    let secret = std::env::temp_dir().join(format!("headworks-bench-{}", std::process::id()));
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a file");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let plain = WebhookOptions::at(&*url);
    let mut signed = plain.clone();
    signed.secret_file = Some(secret.clone());
    let mut compressed = signed.clone();
    compressed.compression = Compression::Zstd;
    let mut best = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let took = [
            client(&url, &batches),
            runtime.block_on(store(plain.clone(), &batches)),
            runtime.block_on(store(signed.clone(), &batches)),
            runtime.block_on(store(compressed.clone(), &batches)),
        ];
        best.iter_mut().zip(took).for_each(|(best, took)| *best = took.min(*best));
    }
    let _ = std::fs::remove_file(secret);
    let events = (TENANTS * EVENTS) as f64 * BATCHES as f64;
    for (name, took) in
        ["the client alone", "the store", "the store, signed", "the store, signed, zstd"].into_iter().zip(best)
    {
        let rate = events / took.as_secs_f64();
        println!(
            "{name:<24} {:>8.0} events a second, {:.2} of the client",
            rate,
            best[0].as_secs_f64() / took.as_secs_f64()
        );
    }
}
