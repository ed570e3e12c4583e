//! Requests of 500 lines each, over connections that are kept, by hyper's client; plain is a handler of axum.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use futures::FutureExt;
use headworks::Json;
use headworks::source::{HttpOptions, HttpSource};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::listener::{Listener, clients};
use crate::load::{Load, pieces};
use crate::side::{Counter, Result};

const LINES: usize = 500;

pub(crate) fn way(load: &Load) -> Listener {
    let streams: Vec<_> = load.json().iter().map(|stream| pieces(stream, LINES)).collect();
    Listener {
        bind: |at| {
            let source = HttpSource::bind("http", at, Json::new(), HttpOptions::default())?;
            let address = source.local_addr()?;
            Ok((Box::new(source), address))
        },
        serve: |listener, came| {
            let router = Router::new().route("/v1/events", post(count)).with_state(came);
            async move { Ok(axum::serve(listener, router).await?) }.boxed()
        },
        send: Arc::new(move |address| clients(streams.iter().map(|bodies| client(address, bodies)))),
    }
}

async fn count(State(came): State<Counter>, body: Bytes) -> StatusCode {
    came.add(memchr::memchr_iter(b'\n', &body).count() as u64);
    StatusCode::OK
}

/// The next request follows on the answer to the last one.
async fn client(address: SocketAddr, bodies: &[Bytes]) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for body in bodies {
        let request = hyper::Request::post("/v1/events").header("host", "localhost");
        let request = request.header("content-type", "application/x-ndjson").body(Full::new(body.clone()))?;
        let answer = requests.send_request(request).await?;
        let status = answer.status();
        let told = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&told)).into());
        }
    }
    Ok(())
}
