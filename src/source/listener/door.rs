use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headworks_actors::{Cause, Code, Intake};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval_at, timeout};

use super::Serve;
use super::refusal::{Tellings, speaks_tls, turn_away};
use crate::source::allowed::Peer;
use crate::source::tls::{NotLetIn, Tls};

/// How many handshakes may be under way at once; further connections wait to be accepted.
const HANDSHAKES: usize = 256;

/// How long a handshake may take; and how long while others wait for its turn.
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(10);
const SHORT_HANDSHAKE: Duration = Duration::from_secs(1);

/// The other side of a connection is asked whether it is there after so long without a byte, then so often.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));

/// What a connection goes through before anything of it is taken in.
pub(super) struct Door {
    pub(super) name: String,
    idle: Option<Duration>,
    tls: Option<Tls>,
    turns: Arc<Semaphore>,
    tellings: Mutex<Tellings>,
    full: Mutex<Tellings>,
    unaccepted: Mutex<Tellings>,
}

/// The right to a handshake; none where there are none.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// How a connection begins.
enum Beginning {
    Tls,
    Plain,
    /// It ends, or the system does.
    Nothing,
}

impl Door {
    pub(super) fn new(name: String, idle: Option<Duration>, tls: Option<Tls>) -> Self {
        let turns = Arc::new(Semaphore::new(HANDSHAKES));
        Self {
            name,
            idle,
            tls,
            turns,
            tellings: Mutex::default(),
            full: Mutex::default(),
            unaccepted: Mutex::default(),
        }
    }

    /// Waits until there is room for one more handshake.
    pub(super) async fn turn(&self) -> Turn {
        match self.tls {
            Some(_) => self.turns.clone().acquire_owned().await.ok(),
            None => None,
        }
    }

    /// Whoever waits now, waits for one that is served to end.
    pub(super) fn is_full(&self, max_connections: usize) {
        if let Some(untold) = tell(&self.full) {
            tracing::warn!(target: "headworks", source = self.name, max_connections, untold, "all connections are taken; further ones wait until one ends");
        }
    }

    /// The operating system hands out none, as when there are too many open files: told once, until it does again.
    pub(super) fn cannot_accept(&self, why: &std::io::Error) {
        if let Some(untold) = tell(&self.unaccepted) {
            tracing::warn!(target: "headworks", source = self.name, %why, untold, "connections cannot be accepted; it is tried again until they can");
        }
    }

    /// Has it served, if it speaks what is spoken here and shows what it is to show.
    pub(super) async fn enter(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        turn: Turn,
        intake: Intake,
        serve: impl Serve,
        place: OwnedSemaphorePermit,
    ) -> Result<(), String> {
        // What is answered is small and should not wait for more.
        stream.set_nodelay(true).map_err(|why| why.to_string())?;
        // One that is not there any more, and could not say so, would hold its place for ever.
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE).map_err(|why| why.to_string())?;
        let Some(tls) = &self.tls else {
            return match within(self.idle, beginning(&stream, &intake)).await {
                None => Err(format!(
                    "nothing came for {} (idle_timeout)",
                    humantime::format_duration(self.idle.unwrap_or_default())
                )),
                Some(Beginning::Plain | Beginning::Nothing) => {
                    serve.serve(stream, Peer::default(), intake, place).await
                }
                Some(Beginning::Tls) => {
                    const WHY: &str = "it speaks TLS, which this source does not: set its tls.cert_file and tls.key_file, or have the client speak without";
                    self.refuse(&intake, from, &Cause::new(Code::HandshakeFailed, WHY));
                    // An alert of TLS, "handshake failure".
                    turn_away(stream, &[21, 3, 1, 0, 2, 2, 40]).await;
                    Ok(())
                }
            };
        };
        let began = Instant::now();
        let mut seconds = interval_at(began + SHORT_HANDSHAKE, SHORT_HANDSHAKE);
        let late = async {
            loop {
                seconds.tick().await;
                if began.elapsed() >= LONGEST_HANDSHAKE || self.turns.available_permits() == 0 {
                    break;
                }
            }
        };
        let shaken = async {
            match beginning(&stream, &intake).await {
                Beginning::Nothing => None,
                Beginning::Plain => Some(Err((Some(stream), NotLetIn::plain()))),
                Beginning::Tls => Some(tls.accept(stream).await.map_err(|why| (None, why))),
            }
        };
        let shaken = tokio::select! {
            biased;
            () = intake.closing() => return Ok(()),
            shaken = shaken => shaken,
            () = late => Some(Err((None, NotLetIn::late(began.elapsed())))),
        };
        drop(turn);
        match shaken {
            None => Ok(()),
            Some(Ok((stream, peer))) => serve.serve(stream, peer, intake, place).await,
            Some(Err((plain, NotLetIn(cause)))) => {
                self.refuse(&intake, from, &cause);
                if let Some(stream) = plain {
                    turn_away(stream, b"error this port speaks TLS, and nothing else\n").await;
                }
                Ok(())
            }
        }
    }

    /// Counts a connection that is refused, and tells of it unless very many are.
    fn refuse(&self, intake: &Intake, from: SocketAddr, cause: &Cause) {
        intake.reject(&self.name, cause.clone());
        if let Some(untold) = tell(&self.tellings) {
            tracing::warn!(target: "headworks", source = self.name, peer = %from, code = cause.code.as_str(), why = %cause.detail, untold, "connection refused");
        }
    }
}

fn tell(tellings: &Mutex<Tellings>) -> Option<u64> {
    tellings.lock().unwrap_or_else(PoisonError::into_inner).tell(Instant::now())
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// Looks at the first bytes, and leaves them where they are.
async fn beginning(stream: &TcpStream, intake: &Intake) -> Beginning {
    let mut first = [0; 6];
    let looked = tokio::select! {
        biased;
        () = intake.closing() => return Beginning::Nothing,
        looked = stream.peek(&mut first) => looked,
    };
    match looked {
        Ok(0) | Err(_) => Beginning::Nothing,
        Ok(seen) if speaks_tls(&first[..seen]) => Beginning::Tls,
        Ok(_) => Beginning::Plain,
    }
}
