use std::io;

use headworks_actors::{AckLevel, Error, IngressHandle, IngressSpec, Intake};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::acked;
use super::answers::Gate;
use crate::source::ack::FirstLine;

/// The read buffer of a connection, in bytes: it starts small, and follows what the reads bring.
const LEAST_BUFFER: usize = 16 << 10;
const MOST_BUFFER: usize = 512 << 10;

/// Serves one connection until the client or the system ends it. What it asks to be told of is told at the level `least` or later;
/// `place` is held until all that it brought was fed.
pub(super) async fn serve(
    mut stream: TcpStream,
    intake: &Intake,
    spec: IngressSpec,
    least: AckLevel,
    place: OwnedSemaphorePermit,
) -> Result<(), String> {
    let (mut first, line) = first_line(&mut stream, intake).await?;
    if let FirstLine::Hello(hello, end) = line {
        first.drain(..end);
        return match hello {
            Ok(mut hello) => {
                hello.level = hello.level.max(least);
                acked::serve(stream, first, hello, intake, spec, place).await
            }
            Err(why) => acked::refuse(&mut stream, why.to_string()).await,
        };
    }
    let ingress = intake.open(spec).await.map_err(|why| why.to_string())?;
    let end = read_all(&mut stream, first, &ingress, intake, &Gate::default(), |_| {}).await;
    ingress.finish(matches!(end, End::Client)).await.map_err(|why| why.to_string())?;
    end.into_result()
}

/// Reads until it can be told whether the client asks for acknowledgements; gives all that was read.
async fn first_line(stream: &mut TcpStream, intake: &Intake) -> Result<(Vec<u8>, FirstLine), String> {
    let mut closing = std::pin::pin!(intake.closing());
    let mut bytes = Vec::with_capacity(LEAST_BUFFER);
    loop {
        let line = FirstLine::of(&bytes);
        if line != FirstLine::Unfinished {
            return Ok((bytes, line));
        }
        let read = tokio::select! {
            biased;
            () = &mut closing => Ok(0),
            read = stream.read_buf(&mut bytes) => read,
        };
        match read {
            // Whatever it was to be: nothing that came is passed over in silence.
            Ok(0) => return Ok((bytes, FirstLine::Data)),
            Ok(_) => {}
            Err(why) => return Err(format!("reading failed: {why}")),
        }
    }
}

/// Why no more is read.
#[derive(Debug)]
pub(in crate::source) enum End {
    /// The client closed its side.
    Client,
    /// The system closes.
    System,
    /// The ingress takes no more.
    Refused(Error),
    /// The connection is gone.
    Broken(io::Error),
}

impl End {
    pub(in crate::source) fn into_result(self) -> Result<(), String> {
        match self {
            Self::Client | Self::System => Ok(()),
            Self::Refused(why) => Err(why.to_string()),
            Self::Broken(why) => Err(format!("reading failed: {why}")),
        }
    }
}

/// Feeds `first` and then all that is read, but for what is passed over; while the gate is shut nothing is read.
pub(in crate::source) async fn read_all(
    input: &mut (impl AsyncRead + Unpin),
    first: Vec<u8>,
    ingress: &IngressHandle,
    intake: &Intake,
    gate: &Gate,
    mut passed_over: impl FnMut(&mut Vec<u8>),
) -> End {
    let mut closing = std::pin::pin!(intake.closing());
    let (mut buffer, mut capacity) = (first, LEAST_BUFFER);
    loop {
        let read = buffer.len();
        if read > 0 {
            // A buffer that was filled was too small; one that was nearly empty holds memory for nothing.
            let fitting = if read >= capacity { capacity * 2 } else { capacity.min(read * 8) };
            let fitting = fitting.clamp(LEAST_BUFFER, MOST_BUFFER);
            passed_over(&mut buffer);
            let used = match ingress.feed(buffer).await {
                Ok(used) => used,
                Err(why) => return End::Refused(why),
            };
            buffer = if fitting < capacity { Vec::new() } else { used };
            capacity = fitting;
        }
        buffer.clear();
        buffer.reserve_exact(capacity);
        let read = async {
            gate.passed().await;
            input.read_buf(&mut buffer).await
        };
        let read = tokio::select! {
            biased;
            () = &mut closing => return End::System,
            read = read => read,
        };
        match read {
            Ok(0) => return End::Client,
            Ok(read) => gate.read(read),
            Err(why) => return End::Broken(why),
        }
    }
}
