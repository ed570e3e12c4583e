use std::io;
use std::time::Duration;

use headworks_actors::{AckLevel, Error, Framing, IngressHandle, IngressSpec, Intake};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::acked;
use super::answers::Gate;
use crate::source::ack::{FirstLine, Hello};
use crate::source::allowed::{Bound, Peer};
use crate::source::buffers::Reads;
use crate::source::idle::Idle;
use crate::source::listener::{Connection, Serve};
use crate::source::octet_counted::Reframer;

/// What is made room for at first, in bytes.
const FIRST_BUFFER: usize = 16 << 10;

/// What of its source a connection needs.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    pub(super) spec: IngressSpec,
    /// What it asks to be told of is told at this level or later.
    pub(super) least: AckLevel,
    pub(super) is_counted: bool,
    pub(super) idle: Option<Duration>,
}

impl Frames {
    /// The same, for a peer that may not speak for everybody.
    fn of(self, peer: &Peer) -> Self {
        let Some(allowed) = peer.allowed.clone() else { return self };
        let spec = self.spec.decoded_by(|decoder| Bound { decoder, allowed: Some(allowed) });
        Self { spec, ..self }
    }

    fn counting(&self) -> Option<Reframer> {
        let (true, Framing::LengthPrefixed { max_bytes }) = (self.is_counted, self.spec.framing()) else { return None };
        Some(Reframer::new(*max_bytes))
    }
}

impl Serve for Frames {
    /// Serves one connection until the client or the system ends it.
    async fn serve(
        self,
        mut stream: impl Connection,
        peer: Peer,
        intake: Intake,
        place: OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let frames = self.of(&peer);
        let mut idle = Idle::new(frames.idle, frames.spec.framing());
        let (mut first, line) = first_line(&mut stream, &intake, &idle).await?;
        let mut counting = frames.counting();
        if let FirstLine::Hello(hello, end) = line {
            first.drain(..end);
            let hello = hello.map_err(|why| why.to_string()).and_then(|hello| {
                let level = hello.level.max(frames.least);
                Ok(Hello { stream: peer.own(hello.stream)?, level, ..hello })
            });
            return match hello {
                Ok(hello) => {
                    let beginning = Beginning { first, hello, counting, idle };
                    acked::serve(stream, beginning, &intake, frames.spec, place).await
                }
                Err(why) => acked::refuse(&mut stream, why).await,
            };
        }
        let ingress = intake.open(frames.spec).await.map_err(|why| why.to_string())?;
        let reframe = |bytes: &mut Vec<u8>| {
            if let Some(counting) = &mut counting {
                counting.reframe(bytes);
            }
        };
        let end = read_all(&mut stream, first, &ingress, &intake, &Gate::default(), &mut idle, reframe).await;
        finish(&ingress, &end, counting).await?;
        goodbye(stream).await;
        end.into_result()
    }
}

/// How a connection that asks for acknowledgements begins.
pub(super) struct Beginning {
    /// What was read behind its first line.
    pub(super) first: Vec<u8>,
    pub(super) hello: Hello,
    pub(super) counting: Option<Reframer>,
    pub(super) idle: Idle,
}

/// Finishes the ingress, with what is left of a frame that was counted and never ended.
pub(in crate::source) async fn finish(
    ingress: &IngressHandle,
    end: &End,
    counting: Option<Reframer>,
) -> Result<(), String> {
    let rest = counting.map(|mut counting| counting.finish()).unwrap_or_default();
    // Once the system closes nothing more is taken in: the sender has it, or its own side cut it off.
    if matches!(end, End::Client | End::Idle(_) | End::Broken(_)) && !rest.is_empty() {
        ingress.feed(rest).await.map_err(|why| why.to_string())?;
    }
    ingress.finish(matches!(end, End::Client)).await.map_err(|why| why.to_string())
}

/// Says that this is the end, where that is more than to close.
pub(in crate::source) async fn goodbye(mut stream: impl Connection) {
    // Nobody is waited for.
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.shutdown()).await;
}

/// Reads until it can be told whether the client asks for acknowledgements; gives all that was read.
async fn first_line(
    stream: &mut impl Connection,
    intake: &Intake,
    idle: &Idle,
) -> Result<(Vec<u8>, FirstLine), String> {
    let mut closing = std::pin::pin!(intake.closing());
    let mut bytes = Vec::with_capacity(FIRST_BUFFER);
    loop {
        let line = FirstLine::of(&bytes);
        if line != FirstLine::Unfinished {
            return Ok((bytes, line));
        }
        let read = tokio::select! {
            biased;
            () = &mut closing => Ok(Ok(0)),
            read = in_time(idle, stream.read_buf(&mut bytes)) => read,
        };
        match read {
            // Whatever it was to be: nothing that came is passed over in silence.
            Ok(Ok(0)) => return Ok((bytes, FirstLine::Data)),
            Ok(Ok(_)) => {}
            Ok(Err(why)) => return Err(format!("reading failed: {why}")),
            Err(End::Idle(why)) if bytes.is_empty() => return Err(why),
            // What came is data, and the time is over for that, too.
            Err(_) => return Ok((bytes, FirstLine::Data)),
        }
    }
}

async fn in_time<T>(idle: &Idle, read: impl Future<Output = T>) -> Result<T, End> {
    match idle.due() {
        None => Ok(read.await),
        Some(due) => tokio::time::timeout_at(due, read).await.map_err(|_| End::Idle(idle.why())),
    }
}

/// Why no more is read.
#[derive(Debug)]
pub(in crate::source) enum End {
    /// The client closed its side.
    Client,
    /// The system closes.
    System,
    /// It brought no whole frame in time; why.
    Idle(String),
    /// The ingress takes no more.
    Refused(Error),
    /// The connection is gone.
    Broken(io::Error),
}

impl End {
    pub(in crate::source) fn into_result(self) -> Result<(), String> {
        match self {
            Self::Client | Self::System => Ok(()),
            Self::Idle(why) => Err(why),
            Self::Refused(why) => Err(why.to_string()),
            Self::Broken(why) => Err(format!("reading failed: {why}")),
        }
    }
}

/// Feeds `first` and then all that is read, but for what is passed over, or made something else, until nothing whole comes in
/// time; while the gate is shut nothing is read.
pub(in crate::source) async fn read_all(
    input: &mut (impl AsyncRead + Unpin),
    first: Vec<u8>,
    ingress: &IngressHandle,
    intake: &Intake,
    gate: &Gate,
    idle: &mut Idle,
    mut passed_over: impl FnMut(&mut Vec<u8>),
) -> End {
    let mut closing = std::pin::pin!(intake.closing());
    let (mut bytes, mut reads) = (first, Reads::default());
    loop {
        if !bytes.is_empty() {
            passed_over(&mut bytes);
            if idle.due().is_some() {
                idle.brought(&bytes, Instant::now());
            }
            match idle.apart(reads.dealt_with(ingress.feed(bytes))).await {
                Ok(used) => reads.give_back(used),
                Err(why) => return End::Refused(why),
            }
        }
        let read = async {
            idle.apart(gate.passed()).await;
            in_time(idle, reads.next(input)).await
        };
        let read = tokio::select! {
            biased;
            () = &mut closing => return End::System,
            read = read => read,
        };
        match read {
            Ok(Ok(read)) if read.is_empty() => return End::Client,
            Ok(Ok(read)) => bytes = read,
            Ok(Err(why)) => return End::Broken(why),
            Err(late) => return late,
        }
        gate.read(bytes.len());
    }
}
