//! Sources that listen, next to bare servers, with the same clients; and those of bytes without more: TCP and syslog.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures::FutureExt;
use futures::future::BoxFuture;
use headworks::source::{SyslogDecoder, SyslogOptions, SyslogSource, SyslogTenant, TcpOptions, TcpSource, Transport};
use headworks::{Framing, IngressSpec, Json, Source};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::blast::blast;
use crate::load::Load;
use crate::side::{Counter, Feed, Plain, Result, Way};

/// A source, and where it listens.
pub(crate) type Bound = (Box<dyn Source>, SocketAddr);

/// The way to a port.
pub(crate) struct Listener {
    pub(crate) bind: fn(SocketAddr) -> Result<Bound>,
    /// Counts frames for ever.
    pub(crate) serve: fn(TcpListener, Counter) -> BoxFuture<'static, Result<()>>,
    /// Sends everything, from several clients at once.
    pub(crate) send: Arc<dyn Fn(SocketAddr) -> Result<()> + Send + Sync>,
}

/// A bare server, until it is dropped.
struct Server(Option<oneshot::Sender<()>>, Option<JoinHandle<()>>);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.take());
        // What it has to say it said.
        let _ = self.1.take().map(JoinHandle::join);
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

impl Listener {
    fn feed(&self, address: SocketAddr) -> Feed {
        let send = self.send.clone();
        Box::new(move || send(address))
    }
}

impl Way for Listener {
    fn source(&mut self) -> Result<(Box<dyn Source>, Feed)> {
        let (source, address) = (self.bind)(anywhere())?;
        Ok((source, self.feed(address)))
    }

    /// On one thread, as a system has.
    fn plain(&mut self, came: &Counter) -> Result<Plain> {
        let listener = std::net::TcpListener::bind(anywhere())?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let ((stop, stopped), serve, came) = (oneshot::channel::<()>(), self.serve, came.clone());
        let serving = async move {
            tokio::select! {
                served = serve(TcpListener::from_std(listener)?, came) => served,
                _ = stopped => Ok(()),
            }
        };
        let runtime = runtime()?;
        let server = thread::spawn(move || {
            if let Err(why) = runtime.block_on(serving) {
                eprintln!("a bare server ended: {why}");
            }
        });
        let server: Box<dyn Any> = Box::new(Server(Some(stop), Some(server)));
        Ok(Plain { _server: Some(server), feed: self.feed(address) })
    }
}

/// Has the clients of all streams send at once, on one thread.
pub(crate) fn clients<F: Future<Output = Result<()>>>(clients: impl Iterator<Item = F>) -> Result<()> {
    let sent = runtime()?.block_on(futures::future::join_all(clients));
    sent.into_iter().collect()
}

pub(crate) fn tcp(load: &Load) -> Listener {
    let streams = load.json();
    Listener {
        bind: |at| {
            let spec = IngressSpec::new("tcp", Framing::lines(), Json::new());
            let source = TcpSource::bind("tcp", at, spec, TcpOptions::default())?;
            let address = source.local_addr()?;
            Ok((Box::new(source), address))
        },
        serve: |listener, came| lines(listener, came).boxed(),
        send: Arc::new(move |address| Ok(blast(&streams, address, || {})?)),
    }
}

pub(crate) fn syslog(load: &Load) -> Listener {
    let streams = load.syslog();
    Listener {
        bind: |at| {
            let options = SyslogOptions { transport: Transport::Tcp, ..SyslogOptions::default() };
            let source = SyslogSource::bind("syslog", at, SyslogDecoder::new(SyslogTenant::Host), options)?;
            let address = source.local_addr()?;
            Ok((Box::new(source), address))
        },
        serve: |listener, came| lines(listener, came).boxed(),
        send: Arc::new(move |address| Ok(blast(&streams, address, || {})?)),
    }
}

/// Counts lines.
async fn lines(listener: TcpListener, came: Counter) -> Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        let came = came.clone();
        tokio::spawn(async move {
            let (mut reader, mut line) = (BufReader::with_capacity(64 << 10, connection), vec![]);
            while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
                line.clear();
                came.add(1);
            }
        });
    }
}
