//! The loop that accepts connections, whatever is spoken on them.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::Intake;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long to wait before accepting again after the operating system refused a connection, as when it is out of file
/// descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Accepts at most `max` connections at a time, each to be served by `serve` on one of the system's threads, until the system
/// closes and each of them has given back its place.
pub(super) async fn run(
    name: String,
    listener: TcpListener,
    max: usize,
    intake: Intake,
    serve: impl Fn(TcpStream, Intake, OwnedSemaphorePermit) -> LocalBoxFuture<'static, Result<(), String>>
    + Clone
    + Send
    + 'static,
) -> Result<(), String> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|why| why.to_string())?;
    let all = u32::try_from(max).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(all as usize));
    let mut closing = std::pin::pin!(intake.closing());
    loop {
        let accept = async {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = accept => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                tracing::warn!(target: "headworks", source = name, %why, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (name, serve) = (name.clone(), serve.clone());
        // To the thread that reads it, whose runtime is to know of it.
        let stream = stream.into_std();
        intake.spread(move |intake| {
            async move {
                let served = async {
                    let stream = stream.and_then(TcpStream::from_std).map_err(|why| why.to_string())?;
                    serve(stream, intake, place).await
                };
                if let Err(why) = served.await {
                    tracing::info!(target: "headworks", source = name, %peer, %why, "connection ended");
                }
            }
            .boxed_local()
        });
    }
    drop(listener);
    // Every place is back once every connection has fed what it had read.
    let _ = places.acquire_many(all).await;
    Ok(())
}
