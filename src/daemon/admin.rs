//! The admin API over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

/// How many connections there may be at once; further ones wait to be taken.
const CONNECTIONS: usize = 256;
/// How long a client may take to say what it wants.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a request that is under way may take to end, once the daemon does.
const GRACE: Duration = Duration::from_secs(2);
/// The wait after a connection could not be taken: there are too many files open.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The API over TCP, served on a thread of its own until this is dropped: it answers whatever the caller's runtime is busy
/// with.
#[derive(Debug)]
pub(super) struct AdminServer {
    /// Dropped, it stops the server.
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl AdminServer {
    /// Listens from now on; the answer says where.
    pub(super) fn start(listen: SocketAddr, router: Router) -> io::Result<(Self, SocketAddr)> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let ((stop, stopped), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        // A runtime must not be dropped where another runs: it is made where it lives.
        std::thread::Builder::new().name("headworks-admin".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(why) => return drop(tell.send(Err(why))),
            };
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener);
                let (result, listener) = match listener {
                    Ok(listener) => (Ok(()), Some(listener)),
                    Err(why) => (Err(why), None),
                };
                // Whoever started it waits for this.
                let _ = tell.send(result);
                if let Some(listener) = listener {
                    serve(listener, router, stopped).await;
                }
            });
            // A long read of the database is not waited for.
            runtime.shutdown_background();
            drop(end);
        })?;
        told.recv().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))?;
        Ok((Self { stop: Some(stop), ended }, address))
    }

    /// Takes no more requests, and waits a moment for those that are under way.
    pub(super) async fn end(mut self) {
        self.stop = None;
        // An error is the thread's word that it has ended.
        let _ = (&mut self.ended).await;
    }
}

async fn serve(listener: TcpListener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    let next = async || {
        // Never closed.
        let place = places.clone().acquire_owned().await.ok();
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            biased;
            // Nothing is ever sent: its sender is dropped.
            _ = &mut stopped => break,
            next = next() => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(why) => {
                tracing::warn!(target: "headworks", %why, "a connection to the admin API cannot be taken");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        // An answer is one write; it is not to wait for more.
        let _ = stream.set_nodelay(true);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_headers(100);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            // A client that is gone, or speaks no HTTP, has been told what there is to tell.
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}
