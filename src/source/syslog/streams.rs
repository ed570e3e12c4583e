use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use headworks_actors::{IngressSpec, Intake};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::SyslogOptions;
use super::framing::Reframer;
use crate::source::tcp::{End, Gate, read_all};

/// How long to wait before accepting again after the operating system refused a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn take_in(
    name: &str,
    listener: TcpListener,
    spec: IngressSpec,
    intake: &Intake,
    options: &SyslogOptions,
) -> Result<(), String> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|why| why.to_string())?;
    let all = u32::try_from(options.max_connections).unwrap_or(u32::MAX);
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
        let (spec, name, max_frame, stream) = (spec.clone(), name.to_owned(), options.max_frame, stream.into_std());
        intake.spread(move |intake| {
            async move {
                let served = async {
                    let stream = stream.and_then(TcpStream::from_std).map_err(|why| why.to_string())?;
                    serve(stream, &intake, spec, max_frame).await
                };
                if let Err(why) = served.await {
                    tracing::info!(target: "headworks", source = name, %peer, %why, "connection ended");
                }
                drop(place);
            }
            .boxed_local()
        });
    }
    drop(listener);
    // Every place is back once every connection has fed what it had read.
    let _ = places.acquire_many(all).await;
    Ok(())
}

async fn serve(mut stream: TcpStream, intake: &Intake, spec: IngressSpec, max_frame: usize) -> Result<(), String> {
    let ingress = intake.open(spec).await.map_err(|why| why.to_string())?;
    let mut reframer = Reframer::new(max_frame);
    let reframe = |bytes: &mut Vec<u8>| reframer.reframe(bytes);
    let end = read_all(&mut stream, vec![], &ingress, intake, &Gate::default(), reframe).await;
    let rest = reframer.finish();
    // Once the system closes nothing more is taken in: the sender has it, or its own side cut it off.
    if matches!(end, End::Client | End::Broken(_)) && !rest.is_empty() {
        ingress.feed(rest).await.map_err(|why| why.to_string())?;
    }
    ingress.finish(matches!(end, End::Client)).await.map_err(|why| why.to_string())?;
    end.into_result()
}
