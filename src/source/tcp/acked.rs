use std::time::Duration;

use futures::stream;
use headworks_actors::{Error, Framer, IngressSpec, Intake};
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;

use super::answers::{Gate, Lines, write_all};
use super::connection::{Beginning, End, read_all};
use crate::source::ack::{Hello, MAX_POSITION, Reply};
use crate::source::listener::Connection;

/// How long a connection that the server ends waits for the client to read why.
const LINGER: Duration = Duration::from_secs(2);

/// Serves a connection that asked for acknowledgements. `place` is held until it ends, or until all it brought was fed and
/// the system closes: a drain waits for what was read, and what it stores is still answered.
pub(super) async fn serve(
    mut stream: impl Connection,
    beginning: Beginning,
    intake: &Intake,
    spec: IngressSpec,
    place: OwnedSemaphorePermit,
) -> Result<(), String> {
    let Beginning { first, hello, mut counting, mut idle } = beginning;
    let Hello { stream: id, next, level, skip } = hello;
    let framer = Framer::new(spec.framing());
    let opened = tokio::select! {
        biased;
        () = intake.closing() => Err(Error::Closed),
        opened = intake.open_stream(spec.last_position(MAX_POSITION), id, next, level) => opened,
    };
    let (ingress, answers) = match opened {
        Ok(opened) => opened,
        // Another time, it will be open.
        Err(Error::Closed) => {
            last_words(&mut stream, Lines::default(), Reply::End).await;
            return Ok(());
        }
        Err(why) => return refuse(&mut stream, why.to_string()).await,
    };
    if skip && answers.last() >= MAX_POSITION {
        return refuse(&mut stream, Error::PositionsUsedUp(MAX_POSITION).to_string()).await;
    }
    let telling = intake.telling();
    let last = answers.last();
    let (mut lines, gate) = (Lines::default(), Gate::default());
    lines.push(&Reply::Ok { last, next: if skip { last + 1 } else { next } });
    let mut known = Known { framer, frames: if skip { 0 } else { last + 1 - next } };

    let answers = stream::unfold(answers, |mut answers| async { Some((answers.next().await?, answers)) });
    let ended = {
        let (mut input, mut output) = stream.halves();
        let mut answering = std::pin::pin!(write_all(&mut output, &mut lines, answers, &gate));
        let taking_in = async {
            let pass = |bytes: &mut Vec<u8>| {
                if let Some(counting) = &mut counting {
                    counting.reframe(bytes);
                }
                known.pass(bytes);
            };
            let end = read_all(&mut input, first, &ingress, intake, &gate, &mut idle, pass).await;
            // Never a clean end: the sender still has what is unfinished.
            ingress.finish(false).await.map(|()| end).unwrap_or_else(End::Refused)
        };
        let taken_in = tokio::select! {
            biased;
            end = taking_in => Ok(end),
            answered = &mut answering => Err(answered),
        };
        match taken_in {
            Ok(End::Broken(why)) => return End::Broken(why).into_result(),
            // The client is to ask anew what became of its frames.
            Ok(end @ End::Refused(Error::Failed(_))) => Ok(end),
            Ok(end) => {
                let leave = async {
                    intake.closing().await;
                    drop(place);
                    std::future::pending().await
                };
                tokio::select! {
                    biased;
                    answered = answering => answered.map(|()| end),
                    never = leave => never,
                }
            }
            // There will be no answers any more, and the client goes on.
            Err(answered) => answered.map(|()| End::Refused(Error::TakenOver)),
        }
    };
    let end = ended.map_err(|why| format!("writing acknowledgements failed: {why}"))?;
    let reply = match &end {
        End::Refused(why @ (Error::TakenOver | Error::PositionsUsedUp(_))) => Reply::Error(why.to_string()),
        End::Idle(why) => Reply::Error(why.clone()),
        _ => Reply::End,
    };
    last_words_of(&mut stream, lines, reply, telling).await;
    end.into_result()
}

/// The frames at the beginning of a connection that the server has.
struct Known {
    framer: Framer,
    frames: u64,
}

impl Known {
    /// Takes them out of what was read.
    fn pass(&mut self, bytes: &mut Vec<u8>) {
        let mut position = 0;
        while self.frames > 0 {
            match self.framer.next(bytes, &mut position) {
                Some(_) => self.frames -= 1,
                None => break,
            }
        }
        bytes.drain(..position);
    }
}

/// Says why there is no connection to be had.
pub(super) async fn refuse(stream: &mut impl Connection, why: String) -> Result<(), String> {
    last_words(stream, Lines::default(), Reply::Error(why.clone())).await;
    Err(why)
}

/// Says the last that there is to say, and gives the client the time to read it: to close a connection with bytes unread
/// would throw away what is on its way to the client.
async fn last_words(stream: &mut impl Connection, lines: Lines, reply: Reply) {
    last_words_of(stream, lines, reply, ()).await;
}

/// The same, where something is held until they are said.
async fn last_words_of<T>(stream: &mut impl Connection, mut lines: Lines, reply: Reply, telling: T) {
    lines.push(&reply);
    let said = async {
        lines.write(stream).await?;
        stream.shutdown().await?;
        drop(telling);
        tokio::io::copy(stream, &mut tokio::io::sink()).await
    };
    // A client that is gone, or does not go, is not waited for.
    let _ = tokio::time::timeout(LINGER, said).await;
}
