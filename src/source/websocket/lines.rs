//! What comes in: messages as lines.

use std::task::Poll;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::SplitStream;
use futures::{FutureExt, StreamExt, poll};
use headworks_actors::{Error, Framer, IngressHandle, IngressSpec, Intake};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::tcp::Gate;
use super::talk::{End, Socket};

/// So many bytes of messages are fed at once, and one message more, if so many are there.
const TOGETHER: usize = 64 << 10;

/// Messages as they come.
pub(super) struct Reader<'r> {
    input: &'r mut SplitStream<Socket>,
    idle: Duration,
    gate: &'r Gate,
    closing: LocalBoxFuture<'r, ()>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(input: &'r mut SplitStream<Socket>, idle: Duration, gate: &'r Gate, intake: &'r Intake) -> Self {
        Self { input, idle, gate, closing: intake.closing().boxed_local() }
    }

    /// The lines of the next message, each with its end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, End> {
        let mut lines = vec![];
        while lines.is_empty() {
            let message = async {
                self.gate.passed().await;
                timeout(self.idle, self.input.next()).await
            };
            let message = tokio::select! {
                biased;
                () = &mut self.closing => return Err(End::System),
                message = message => message,
            };
            let Ok(message) = message else {
                let idle = humantime::format_duration(self.idle);
                let why = format!("nothing whole came for {idle} (idle_timeout), not even the answer to a ping");
                return Err(End::Refused(CloseCode::Policy, why));
            };
            self.add(message, &mut lines)?;
        }
        Ok(lines)
    }

    /// Adds the lines of the messages that are there already: what is fed together is dispatched together.
    async fn more(&mut self, lines: &mut Vec<u8>) -> Result<(), End> {
        if poll!(&mut self.closing).is_ready() {
            return Err(End::System);
        }
        while lines.len() < TOGETHER && !self.gate.is_shut() {
            match poll!(self.input.next()) {
                Poll::Ready(message) => self.add(message, lines)?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn add(&self, message: Option<tungstenite::Result<Message>>, lines: &mut Vec<u8>) -> Result<(), End> {
        let message = match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message.into_data(),
            // A ping is answered by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            None | Some(Ok(Message::Close(_))) => return Err(End::Client),
            Some(Err(why)) => return Err(broken(why)),
        };
        self.gate.read(message.len());
        lines.extend_from_slice(&message);
        // One without a line says nothing.
        if message.last().is_some_and(|last| *last != b'\n') {
            lines.push(b'\n');
        }
        Ok(())
    }

    /// Feeds the lines of `first` and of all that comes, but for those that are passed over.
    pub(super) async fn feed_all(&mut self, first: Vec<u8>, ingress: &IngressHandle, mut known: Known) -> End {
        let mut lines = first;
        loop {
            let more = self.more(&mut lines).await;
            known.pass(&mut lines);
            if !lines.is_empty() {
                lines = match ingress.feed(lines).await {
                    Ok(used) => used,
                    Err(why) => return End::of(&why),
                };
                lines.clear();
            } else if more.is_ok() {
                // No memory is held for what may be long in coming.
                drop(std::mem::take(&mut lines));
                lines = match self.next().await {
                    Ok(lines) => lines,
                    Err(end) => return end,
                };
            }
            if let Err(end) = more {
                return end;
            }
        }
    }
}

/// What an error of the connection means.
fn broken(why: tungstenite::Error) -> End {
    match why {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            let most = crate::units::bytes::display(max_size);
            End::Refused(CloseCode::Size, format!("a message is larger than {most} (max_message)"))
        }
        tungstenite::Error::Utf8(why) => End::Refused(CloseCode::Invalid, format!("a text is no UTF-8: {why}")),
        // As many do whose process has ended.
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Broken("the client is gone without a word".to_owned())
        }
        tungstenite::Error::Protocol(why) => End::Refused(CloseCode::Protocol, why.to_string()),
        why => End::Broken(format!("reading failed: {why}")),
    }
}

/// The frames at the beginning that the server has.
pub(super) struct Known {
    framer: Framer,
    frames: u64,
}

impl Known {
    pub(super) fn new(spec: &IngressSpec, frames: u64) -> Self {
        Self { framer: Framer::new(spec.framing()), frames }
    }

    /// Takes them out of what was read.
    fn pass(&mut self, bytes: &mut Vec<u8>) {
        let mut position = 0;
        while self.frames > 0 && self.framer.next(bytes, &mut position).is_some() {
            self.frames -= 1;
        }
        bytes.drain(..position);
    }
}

impl End {
    /// What the refusal of the ingress means.
    pub(super) fn of(why: &Error) -> Self {
        match why {
            Error::Closed => Self::System,
            Error::Failed(_) => Self::Refused(CloseCode::Error, why.to_string()),
            _ => Self::Refused(CloseCode::Policy, why.to_string()),
        }
    }
}
