//! One connection to a broker: messages in, acknowledgements out.

use std::cell::RefCell;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use headworks_actors::{Answer, Answers, Error, IngressHandle, Intake};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::packets::{self, DISCONNECT, Head, Incoming, PING, Publish};
use super::transport::Transport;
use super::window::{Came, Print, Window};
use super::{MqttPayload, MqttSource, decode};

/// So many bytes of messages are fed at once, if so many are there.
const FED: usize = 256 << 10;

/// What stands before the payload of a message has at most so many bytes: the topic has less than 64 KiB.
const MOST_BEFORE: usize = 128 << 10;

/// Why a connection is not served any more.
#[derive(Debug)]
pub(super) enum End {
    /// The system closes.
    Closing,
    /// There is to be another one.
    Broken(String),
    /// The ingress takes nothing in any more: there is to be another one.
    Ingress(String),
}

pub(super) struct Connection<'c> {
    source: &'c MqttSource,
    intake: &'c Intake,
    ingress: &'c IngressHandle,
    window: RefCell<&'c mut Window>,
    keep_alive: Duration,
    /// A message came that may be acknowledged at once.
    known: Notify,
    /// Something was acknowledged.
    acknowledged: Notify,
}

/// What was read and is not taken in yet.
struct Read {
    bytes: BytesMut,
    frames: Vec<u8>,
    /// A message that is too large, as far as it is kept, and how much of it is still to come.
    large: Option<(Publish, usize)>,
}

impl<'c> Connection<'c> {
    pub(super) fn new(
        source: &'c MqttSource,
        intake: &'c Intake,
        ingress: &'c IngressHandle,
        window: &'c mut Window,
        keep_alive: Duration,
    ) -> Self {
        let (known, acknowledged) = (Notify::new(), Notify::new());
        Self { source, intake, ingress, window: RefCell::new(window), keep_alive, known, acknowledged }
    }

    /// Serves it to its end. `asks` says that the broker is to be asked for the subscription; `ready` is told once it has it, with the
    /// quality of service that it grants where it was asked. `fed` is told where the system closes, once all that was read is fed, and
    /// answered for or `patience` is over.
    #[expect(clippy::too_many_arguments, reason = "each is of another kind")]
    pub(super) async fn run(
        &self,
        mut io: Box<dyn Transport>,
        bytes: BytesMut,
        asks: bool,
        answers: &mut Answers,
        mut ready: impl FnMut(Option<u8>),
        fed: &mut Option<oneshot::Sender<()>>,
        patience: Duration,
    ) -> End {
        if asks {
            let mut request = BytesMut::new();
            if let Err(why) = packets::subscribe(&self.source.options, &mut request) {
                return End::Broken(why);
            }
            if let Err(why) = self.written(&mut io, &request).await {
                return End::Broken(why);
            }
        } else {
            ready(None);
        }
        let (input, output) = split(io);
        let (broken, is_broken) = watch::channel(None::<String>);
        let read = Read { bytes, frames: vec![], large: None };
        let mut taking_in = std::pin::pin!(self.take_in(input, read, ready, is_broken));
        let mut answering = std::pin::pin!(self.answer(output, answers));
        let (end, mut input) = tokio::select! {
            biased;
            ended = &mut taking_in => ended,
            answered = &mut answering => {
                let why = answered.err().unwrap_or_else(|| "another reader took its stream over".to_owned());
                broken.send_replace(Some(why));
                // What is being fed is fed to its end.
                return match taking_in.await.0 {
                    End::Closing => self.finish(fed).await,
                    end => end,
                };
            }
        };
        if !matches!(end, End::Closing) {
            return end;
        }
        let _ = self.ingress.finish(false).await;
        // What it stores while it drains is answered for.
        if timeout(patience, &mut answering).await.is_err() {
            tell(fed);
            let _ = answering.await;
        }
        // To close a connection with bytes unread would throw away what is on its way to the broker.
        let _ = timeout(patience, tokio::io::copy(&mut input, &mut tokio::io::sink())).await;
        tell(fed);
        End::Closing
    }

    async fn finish(&self, fed: &mut Option<oneshot::Sender<()>>) -> End {
        let _ = self.ingress.finish(false).await;
        tell(fed);
        End::Closing
    }

    /// Reads and feeds, no faster than is taken in.
    async fn take_in(
        &self,
        mut input: ReadHalf<Box<dyn Transport>>,
        read: Read,
        ready: impl FnMut(Option<u8>),
        broken: watch::Receiver<Option<String>>,
    ) -> (End, ReadHalf<Box<dyn Transport>>) {
        let end = self.take_in_from(&mut input, read, ready, broken).await;
        (end, input)
    }

    async fn take_in_from(
        &self,
        input: &mut ReadHalf<Box<dyn Transport>>,
        mut read: Read,
        mut ready: impl FnMut(Option<u8>),
        mut broken: watch::Receiver<Option<String>>,
    ) -> End {
        let mut closing = std::pin::pin!(self.intake.closing());
        // It is asked for a sign of life in half of that.
        let patience = self.keep_alive.saturating_mul(3) / 2;
        let most = usize::from(self.source.options.receive_max);
        loop {
            let is_more = match self.next(&mut read, &mut ready) {
                Ok(is_more) => is_more,
                // What came before it is taken in all the same.
                Err(why) if read.frames.is_empty() => return End::Broken(why),
                Err(why) => {
                    let fed = self.ingress.feed(std::mem::take(&mut read.frames)).await;
                    return fed.map_or_else(ended, |_| End::Broken(why));
                }
            };
            if !read.frames.is_empty() {
                match self.ingress.feed(std::mem::take(&mut read.frames)).await {
                    Ok(used) => read.frames = used,
                    Err(why) => return ended(why),
                }
                read.frames.clear();
            }
            while self.window.borrow().open() > most {
                tokio::select! {
                    biased;
                    () = &mut closing => return End::Closing,
                    why = broken.wait_for(Option::is_some) => return broken_by(why.ok().and_then(|why| why.clone())),
                    () = self.acknowledged.notified() => {}
                }
            }
            if is_more {
                continue;
            }
            read.bytes.reserve(64 << 10);
            let came = tokio::select! {
                biased;
                () = &mut closing => return End::Closing,
                why = broken.wait_for(Option::is_some) => return broken_by(why.ok().and_then(|why| why.clone())),
                came = timeout(patience, input.read_buf(&mut read.bytes)) => came,
            };
            match came {
                Ok(Ok(0)) => return End::Broken("it ended the connection".to_owned()),
                Ok(Ok(_)) => {}
                Ok(Err(why)) => return End::Broken(format!("reading failed: {why}")),
                Err(_) => {
                    let silent = humantime::format_duration(patience);
                    return End::Broken(format!("it gave no sign of life for {silent}"));
                }
            }
        }
    }

    /// Makes frames of what is there; true where there is more than is fed at once.
    fn next(&self, read: &mut Read, ready: &mut impl FnMut(Option<u8>)) -> Result<bool, String> {
        let options = &self.source.options;
        while read.frames.len() < FED {
            if let Some((publish, left)) = &mut read.large {
                let passed = read.bytes.len().min(*left);
                read.bytes.advance(passed);
                *left -= passed;
                if *left > 0 {
                    return Ok(false);
                }
                let publish = publish.clone();
                read.large = None;
                self.message(&publish, &mut read.frames);
                continue;
            }
            let Some(head) = Head::read(&read.bytes)? else { return Ok(false) };
            if head.length > options.max_frame.saturating_add(MOST_BEFORE) {
                if !head.is_publish() {
                    return Err("it sent a packet that is too large to be any".to_owned());
                }
                if !Self::large(read, head, self.source)? {
                    return Ok(false);
                }
                continue;
            }
            if read.bytes.len() < head.start + head.length {
                read.bytes.reserve(head.start + head.length - read.bytes.len());
                return Ok(false);
            }
            match packets::read(options.version, &mut read.bytes)? {
                None => return Ok(false),
                Some(Incoming::Publish(publish)) => self.message(&publish, &mut read.frames),
                Some(Incoming::Subscribed(Ok(granted))) => ready(Some(granted)),
                Some(Incoming::Subscribed(Err(why))) => {
                    return Err(format!("it refuses the subscription to {}: {why}", options.topic.filter()));
                }
                Some(Incoming::Disconnect(why)) => return Err(format!("it ended the connection: {why}")),
                Some(Incoming::Pong) => {}
                Some(Incoming::Connected(..)) => return Err("it accepted the connection twice".to_owned()),
            }
        }
        Ok(true)
    }

    /// Begins to pass over a message that is too large: one byte more of it than may be is kept. False where too little is there.
    fn large(read: &mut Read, head: Head, source: &MqttSource) -> Result<bool, String> {
        let options = &source.options;
        let Some((mut publish, start)) = packets::beginning(options.version, head, &read.bytes)? else {
            let too_much = read.bytes.len() > options.max_frame.saturating_add(2 * MOST_BEFORE);
            let endless = || "it sent a message whose properties are too large to be any".to_owned();
            return if too_much { Err(endless()) } else { Ok(false) };
        };
        let kept = (head.start + head.length - start).min(options.max_frame + 1);
        if read.bytes.len() < start + kept {
            read.bytes.reserve(start + kept - read.bytes.len());
            return Ok(false);
        }
        read.bytes.advance(start);
        publish.payload = read.bytes.split_to(kept).freeze();
        read.large = Some((publish, head.start + head.length - start - kept));
        Ok(true)
    }

    /// Makes frames of a message, unless it is known.
    fn message(&self, publish: &Publish, frames: &mut Vec<u8>) {
        let Publish { again, id, topic, payload } = publish;
        let MqttSource { name, options, .. } = self.source;
        if *again {
            self.intake.redelivered(name);
        }
        let lines: Vec<&[u8]> = match options.payload {
            MqttPayload::Lines if payload.len() <= options.max_frame => {
                payload.strip_suffix(b"\n").unwrap_or(payload).split(|byte| *byte == b'\n').collect()
            }
            MqttPayload::Lines | MqttPayload::Event => vec![payload],
        };
        let print = Print::of(topic, payload);
        let came = self.window.borrow_mut().came(*again, *id, print, lines.len() as u64);
        if let Came::Known(frames) = came {
            self.intake.duplicate(name, frames);
            self.known.notify_one();
            return;
        }
        let tenant = options.topic.names_tenant().then(|| {
            let topic = std::str::from_utf8(topic).unwrap_or_default();
            options.topic.tenant(topic).unwrap_or_default()
        });
        lines.into_iter().for_each(|line| decode::push(frames, tenant, line));
    }

    /// Acknowledges what is as safe as it is to be, and keeps the connection alive.
    async fn answer(&self, mut output: WriteHalf<Box<dyn Transport>>, answers: &mut Answers) -> Result<(), String> {
        // The first tick is at once.
        let mut pings = interval((self.keep_alive / 2).max(Duration::from_millis(100)));
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bytes = vec![];
        loop {
            tokio::select! {
                biased;
                heard = answers.next() => match heard {
                    None => {
                        self.written(&mut output, &DISCONNECT).await?;
                        return output.shutdown().await.map_err(|why| why.to_string());
                    }
                    Some(heard) => {
                        let mut window = self.window.borrow_mut();
                        for answer in heard {
                            let (Answer::Ack(range) | Answer::Nack(range, ..)) = answer;
                            window.answered(range);
                        }
                    }
                },
                () = self.known.notified() => {}
                _ = pings.tick() => bytes.extend(PING),
            }
            self.window.borrow_mut().acknowledged().for_each(|id| packets::acknowledge(id, &mut bytes));
            if !bytes.is_empty() {
                self.written(&mut output, &bytes).await?;
                bytes.clear();
                self.acknowledged.notify_one();
            }
        }
    }

    async fn written(&self, output: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), String> {
        let writing = async {
            output.write_all(bytes).await?;
            output.flush().await
        };
        match timeout(self.keep_alive, writing).await {
            Ok(written) => written.map_err(|why| format!("writing failed: {why}")),
            Err(_) => Err("it reads nothing any more".to_owned()),
        }
    }
}

fn tell(fed: &mut Option<oneshot::Sender<()>>) {
    // The source may have been given up.
    let _ = fed.take().map(|fed| fed.send(()));
}

fn broken_by(why: Option<String>) -> End {
    End::Broken(why.unwrap_or_else(|| "it ended the connection".to_owned()))
}

fn ended(why: Error) -> End {
    match why {
        Error::Closed => End::Closing,
        why => End::Ingress(why.to_string()),
    }
}
