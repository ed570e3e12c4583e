use std::time::Duration;

use futures::SinkExt;
use futures::StreamExt;
use futures::stream::{SplitSink, SplitStream};
use headworks_actors::{AckLevel, Error, IngressSpec, Intake, StreamId, Telling};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::ack::{FirstLine, Hello, MAX_POSITION, Reply};
use super::super::tcp::Gate;
use super::lines::{Known, Reader};
use super::telling::Teller;

/// How long a connection that the server ends waits for the client to read why.
const LINGER: Duration = Duration::from_secs(2);

/// The buffers of a connection, in bytes; a message that is larger than the first is read in parts. What is written is small.
const READ: usize = 16 << 10;
const WRITE: usize = 4 << 10;
const MOST_TO_WRITE: usize = 256 << 10;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// One connection.
pub(super) struct Talk {
    pub(super) spec: IngressSpec,
    pub(super) max_message: usize,
    pub(super) idle: Duration,
    pub(super) least: AckLevel,
    /// What the names of its streams are apart by.
    pub(super) scope: Option<u32>,
    pub(super) intake: Intake,
    /// A drain waits for it to come back: when all that was read is fed.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// Why no more is read.
pub(super) enum End {
    Client,
    System,
    /// Said to the client, with the code of the close.
    Refused(CloseCode, String),
    Broken(String),
}

impl Talk {
    /// Serves it until the client or the system ends it.
    pub(super) async fn serve(mut self, stream: Upgraded) -> Result<(), String> {
        let most = Some(self.max_message);
        let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
        let config = config.read_buffer_size(READ).write_buffer_size(WRITE).max_write_buffer_size(MOST_TO_WRITE);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config)).await;
        let (mut output, mut input) = socket.split();
        let telling = self.intake.telling();
        let end = self.talk(&mut input, &mut output).await;
        // All that was read is fed.
        self.place = None;
        goodbye(input, output, end, telling).await
    }

    async fn talk(&mut self, input: &mut SplitStream<Socket>, output: &mut SplitSink<Socket, Message>) -> End {
        let (gate, intake, idle) = (Gate::default(), self.intake.clone(), self.idle);
        let mut reader = Reader::new(input, idle, &gate, &intake);
        let asked = {
            let pinging = Teller { output: &mut *output, idle, gate: &gate }.ping();
            let plain = async {
                let first = match reader.next().await {
                    Ok(first) => first,
                    Err(end) => return Err(end),
                };
                match FirstLine::of(&first) {
                    FirstLine::Hello(hello, read) => Ok((hello, first[read..].to_vec())),
                    // A message ends with a line end.
                    FirstLine::Data | FirstLine::Unfinished => Err(self.plain(first, &mut reader).await),
                }
            };
            tokio::select! {
                biased;
                asked = plain => asked,
                why = pinging => Err(End::Broken(why)),
            }
        };
        let (end, last_word) = match asked {
            Err(end) => return end,
            Ok((Err(why), _)) => (End::Refused(CloseCode::Policy, why.to_string()), None),
            Ok((Ok(hello), first)) => {
                self.acked(hello, first, reader, Teller { output: &mut *output, idle, gate: &gate }).await
            }
        };
        let last_word = last_word.or(match &end {
            End::System => Some(Reply::End),
            End::Refused(_, why) => Some(Reply::Error(why.clone())),
            End::Client | End::Broken(_) => None,
        });
        if let Some(word) = last_word {
            // Whoever does not read it is not waited for.
            let _ = timeout(LINGER, output.send(Message::text(word.to_string()))).await;
        }
        end
    }

    /// Takes in the messages of a client that asks for nothing.
    async fn plain(&self, first: Vec<u8>, reader: &mut Reader<'_>) -> End {
        let ingress = match self.intake.open(self.spec.clone()).await {
            Ok(ingress) => ingress,
            Err(why) => return End::of(&why),
        };
        let end = reader.feed_all(first, &ingress, Known::new(&self.spec, 0)).await;
        // Nothing is unfinished: a message is whole.
        match ingress.finish(true).await {
            Ok(()) => end,
            Err(why) => End::of(&why),
        }
    }

    /// Takes in the messages of a client that is told what becomes of its lines. With the last word, where that is another
    /// than the end has.
    async fn acked(
        &mut self,
        hello: Hello,
        first: Vec<u8>,
        mut reader: Reader<'_>,
        teller: Teller<'_>,
    ) -> (End, Option<Reply>) {
        let Hello { stream, next, level, skip } = hello;
        let stream = match self.stream(stream) {
            Ok(stream) => stream,
            Err(end) => return (end, None),
        };
        let spec = self.spec.clone().last_position(MAX_POSITION);
        let opened = tokio::select! {
            biased;
            () = self.intake.closing() => Err(Error::Closed),
            opened = self.intake.open_stream(spec, stream, next, level.max(self.least)) => opened,
        };
        let (ingress, mut answers) = match opened {
            Ok(opened) => opened,
            Err(why) => return (End::of(&why), None),
        };
        let last = answers.last();
        if skip && last >= MAX_POSITION {
            return (End::of(&Error::PositionsUsedUp(MAX_POSITION)), None);
        }
        let ok = Reply::Ok { last, next: if skip { last + 1 } else { next } };
        let known = Known::new(&self.spec, if skip { 0 } else { last + 1 - next });
        let mut telling = std::pin::pin!(teller.tell(ok, &mut answers));
        let taking = async {
            let end = reader.feed_all(first, &ingress, known).await;
            ingress.finish(false).await.map_or_else(|why| End::of(&why), |()| end)
        };
        let end = tokio::select! {
            biased;
            end = taking => end,
            told = &mut telling => match told {
                // There will be no answers any more, and the client goes on.
                Ok(()) => End::of(&Error::TakenOver),
                Err(why) => End::Broken(why),
            },
        };
        match end {
            End::System => {
                // What it brought is stored meanwhile.
                self.place = None;
                (telling.await.map_or_else(End::Broken, |()| End::System), None)
            }
            // The client is to ask anew what became of its lines.
            End::Refused(CloseCode::Error, why) => (End::Refused(CloseCode::Error, why), Some(Reply::End)),
            end => (end, None),
        }
    }

    /// The stream of that name.
    fn stream(&self, stream: StreamId) -> Result<StreamId, End> {
        let Some(scope) = self.scope else { return Ok(stream) };
        StreamId::new(&format!("ws:{scope:08x}:{stream}")).map_err(|_| {
            let why = "stream: of the bearer of a token a stream id has at most 116 characters";
            End::Refused(CloseCode::Policy, why.to_owned())
        })
    }
}

/// Closes with a reason, and gives the client the time to read it: to close a connection with bytes unread would throw away
/// what is on its way to the client.
async fn goodbye(
    mut input: SplitStream<Socket>,
    mut output: SplitSink<Socket, Message>,
    end: End,
    telling: Telling,
) -> Result<(), String> {
    let (code, reason, ended) = match end {
        End::Broken(why) => return Err(why),
        End::Client => (CloseCode::Normal, String::new(), Ok(())),
        End::System => (CloseCode::Away, "the server stops".to_owned(), Ok(())),
        End::Refused(code, why) => (code, why.clone(), Err(why)),
    };
    let said = async {
        if ended.is_ok() && code == CloseCode::Normal {
            // The answer to its own close is written as it is read on.
            while let Some(Ok(_)) = input.next().await {}
        } else {
            // What fits a control frame.
            let reason: String = reason.chars().filter(char::is_ascii).take(120).collect();
            output.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
        }
        let Ok(mut socket) = output.reunite(input) else { return Ok(()) };
        let stream = socket.get_mut();
        stream.shutdown().await?;
        drop(telling);
        tokio::io::copy(stream, &mut tokio::io::sink()).await?;
        Ok::<_, tungstenite::Error>(())
    };
    // A client that is gone, or does not go, is not waited for.
    let _ = timeout(LINGER, said).await;
    ended
}
