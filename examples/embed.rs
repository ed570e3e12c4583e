//! An HTTP service with the system inside: `POST /events` takes lines of JSON, `GET /tenants` says what became of them.
//!
//! ```text
//! cargo run --example embed
//! ```
//!
//! The example starts the service on a free port of the loopback, plays a few requests against it, drains, and prints a
//! table. The system runs on its own thread: the service may use any runtime, and no handler blocks.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use headworks::{DrainReport, Framing, IngressSpec, MemoryStore, System, TenantSnapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

fn service(system: System) -> Router {
    Router::new().route("/events", post(events)).route("/tenants", get(tenants)).with_state(system)
}

/// Takes in the lines of one request. The answer means that each was accepted, or refused and counted: not that it is
/// stored. While the memory for events in flight is full it waits, and so does the sender.
///
/// One request is one stream with an ingress of its own; axum bounds its size to 2 MB.
async fn events(State(system): State<System>, body: Bytes) -> (StatusCode, String) {
    let spec = IngressSpec::new("http", Framing::lines(), headworks::Json::new());
    let taken_in = async {
        let ingress = system.ingress(spec).await?;
        ingress.feed(body).await?;
        ingress.finish(true).await
    };
    match taken_in.await {
        Ok(()) => (StatusCode::ACCEPTED, "taken in\n".to_owned()),
        Err(headworks::Error::Closed) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

/// Every tenant: its status and its counters, each read in one moment.
async fn tenants(State(system): State<System>) -> Json<Vec<TenantSnapshot>> {
    Json(system.tenants())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new();
    let system = System::builder().store(store.clone()).start()?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let service = axum::serve(listener, service(system.clone())).with_graceful_shutdown(async {
        // A sender that is gone means the same as one that has sent.
        let _ = stopped.await;
    });
    let service = tokio::spawn(service.into_future());

    println!("POST http://{address}/events, three times");
    for request in 0..3 {
        let lines: String = (0..20)
            .map(|n| format!("{{\"tenant\":\"{}\",\"request\":{request},\"n\":{n}}}\n", ["acme", "umbrella"][n % 2]))
            .collect();
        let answer = request_to(address, "POST", "/events", &(lines + "this is no JSON\n")).await?;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }

    println!("GET http://{address}/tenants");
    let answer = request_to(address, "GET", "/tenants", "").await?;
    let (_, json) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    let seen: serde_json::Value = serde_json::from_str(json)?;
    assert_eq!((&seen[0]["tenant"], &seen[0]["accepted"]), (&"acme".into(), &30.into()));
    assert_eq!((&seen[1]["tenant"], &seen[1]["accepted"]), (&"umbrella".into(), &30.into()));

    // First the door, then what came through it.
    let _ = stop.send(());
    service.await??;
    let report = system.drain(Duration::from_secs(10)).await;
    print!("{}", table(&report));
    let (_, http) = system.sources().remove(0);
    println!("{} frames received, {} accepted, {} malformed", http.received, http.accepted, http.malformed);

    assert!(report.complete && report.tenants.iter().all(|tenant| tenant.end.adds_up()));
    assert_eq!((http.received, http.accepted, http.malformed), (63, 60, 3));
    assert_eq!(store.totals().into_values().collect::<Vec<_>>(), [30, 30]);
    Ok(())
}

fn table(report: &DrainReport) -> String {
    let head = format!("{:<10} {:>9} {:>7} {:>8} {:>14}\n", "tenant", "accepted", "stored", "batches", "dead-lettered");
    let rows = report.tenants.iter().map(|tenant| {
        let counters = &tenant.end.counters;
        let (accepted, stored, batches) = (counters.accepted, counters.stored, counters.batches);
        format!("{:<10} {accepted:>9} {stored:>7} {batches:>8} {:>14}\n", tenant.end.tenant, counters.dead_lettered)
    });
    std::iter::once(head).chain(rows).collect()
}

/// A minimal HTTP client: one request, the whole answer, within five seconds.
async fn request_to(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<String, Box<dyn Error>> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    Ok(tokio::time::timeout(Duration::from_secs(5), exchange).await??)
}
