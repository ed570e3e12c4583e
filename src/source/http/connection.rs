use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use headworks_actors::Intake;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::patient::Patient;
use super::request::Site;
use crate::source::allowed::Peer;
use crate::source::listener::{Connection, Serve};

/// The largest head of a request, in bytes.
const MOST_OF_HEAD: usize = 64 << 10;

/// What a connection holds of its source: a drain waits for its place to come back.
pub(crate) struct Hold {
    place: RefCell<Option<OwnedSemaphorePermit>>,
    is_feeding: Cell<bool>,
    fed: Notify,
}

/// A request is being fed.
pub(crate) struct Feeding<'h>(&'h Hold);

impl Drop for Feeding<'_> {
    fn drop(&mut self) {
        self.0.is_feeding.set(false);
        self.0.fed.notify_one();
    }
}

impl Hold {
    pub(crate) fn feeding(&self) -> Feeding<'_> {
        self.is_feeding.set(true);
        Feeding(self)
    }

    /// The place, for whoever is to hold it from now on.
    pub(crate) fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        self.place.borrow_mut().take()
    }

    /// Waits until no request is being fed.
    async fn fed(&self) {
        while self.is_feeding.get() {
            self.fed.notified().await;
        }
    }
}

/// Connections of requests, each answered by `answer`.
#[derive(Clone)]
pub(crate) struct Requests<F> {
    pub(crate) site: Site,
    pub(crate) idle: Duration,
    pub(crate) answer: F,
}

impl<F, A> Serve for Requests<F>
where
    F: Fn(Request<Incoming>, Site, Intake, Rc<Hold>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, std::io::Error>> + 'static,
{
    async fn serve(
        self,
        connection: impl Connection,
        peer: Peer,
        intake: Intake,
        place: OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let site = self.site.of_peer(peer);
        serve(connection, site, intake, self.idle, place, self.answer).await
    }
}

/// Serves the requests of one connection, one after the other, until the client ends it, does not finish the head of one within
/// `idle`, or the system closes: then the one that is begun is answered.
pub(crate) async fn serve<S: Clone, A>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    site: S,
    intake: Intake,
    idle: Duration,
    place: OwnedSemaphorePermit,
    answer: impl Fn(Request<Incoming>, S, Intake, Rc<Hold>) -> A,
) -> Result<(), String>
where
    A: Future<Output = Result<Response<Full<Bytes>>, std::io::Error>>,
{
    // What is being answered when the system ends is answered to the end.
    let _telling = intake.telling();
    let stream = Patient::new(stream, idle);
    let hold = Rc::new(Hold { place: RefCell::new(Some(place)), is_feeding: Cell::new(false), fed: Notify::new() });
    let service = service_fn(|request| answer(request, site.clone(), intake.clone(), hold.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MOST_OF_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = intake.closing() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = hold.fed() => {
                    // What it brought is taken in: it is answered while the system stores it.
                    drop(hold.take_place());
                    connection.await
                }
            }
        }
    };
    ended.map_err(|why| match std::error::Error::source(&why) {
        Some(cause) => format!("{why}: {cause}"),
        None => why.to_string(),
    })
}
