//! One connection: from its first line to its end.

use std::io;
use std::time::Duration;

use headworks::source::ack::{Hello, MAX_REPLY, Reply};
use headworks::{AckLevel, StreamId};
use indicatif::ProgressBar;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::window::{Frames, Unsent, Window};

/// What a connection is made with.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) to: String,
    pub(super) stream: StreamId,
    pub(super) level: AckLevel,
    /// After how long without a word the server counts as gone. One that is there says so every 10 s.
    pub(super) silence: Duration,
}

/// The input, as far as it is read.
pub(super) struct Input {
    frames: mpsc::Receiver<io::Result<Frames>>,
    is_over: bool,
    failed: Option<io::Error>,
}

impl Input {
    pub(super) fn new(frames: mpsc::Receiver<io::Result<Frames>>) -> Self {
        Self { frames, is_over: false, failed: None }
    }

    /// Whether there will be no more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Why it ended, where it did not end by itself.
    pub(super) fn failed(self) -> Option<io::Error> {
        self.failed
    }

    fn take(&mut self, read: Option<io::Result<Frames>>, window: &mut Window) {
        match read {
            Some(Ok(frames)) => window.push(frames),
            Some(Err(why)) => (self.is_over, self.failed) = (true, Some(why)),
            None => self.is_over = true,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With everything answered.
    Done,
    /// To be followed by another one at once that begins at this position; see [`Unsent::Jump`].
    Jump(u64),
    /// By a mishap; another one may do better. `was_up` says that the server had let us in.
    Broken { why: String, was_up: bool },
    /// For good, by the word of the server, or since what it says makes no sense.
    Refused(String),
}

impl Ended {
    fn broken(why: impl ToString) -> Self {
        Self::Broken { why: why.to_string(), was_up: true }
    }

    fn nonsense(what: impl std::fmt::Display) -> Self {
        Self::Refused(format!("it does not keep to the acknowledgement protocol: {what}"))
    }
}

/// Connects and goes on where the server is, from `start` at the earliest.
pub(super) async fn run(
    options: &Options,
    start: u64,
    window: &mut Window,
    input: &mut Input,
    bar: &ProgressBar,
) -> Ended {
    match open(options, start, window).await {
        Ok((replies, output)) => match exchange(options, replies, output, window, input, bar).await {
            Ok(ended) | Err(ended) => ended,
        },
        Err(Ended::Broken { why, .. }) => Ended::Broken { why, was_up: false },
        Err(ended) => ended,
    }
}

async fn open(
    options: &Options,
    start: u64,
    window: &mut Window,
) -> Result<(Replies, tokio::net::tcp::OwnedWriteHalf), Ended> {
    let connect = timeout(options.silence, TcpStream::connect(&options.to)).await;
    let connection = connect.map_err(|_| Ended::broken("it does not answer")).and_then(|connected| {
        connected.map_err(|why| match why.kind() {
            // No other try will do better.
            io::ErrorKind::InvalidInput => Ended::Refused(format!("{why}; the address of a listener is host:port")),
            io::ErrorKind::ConnectionRefused => Ended::broken(format!("{why}; is `headworks run` listening there?")),
            _ => Ended::broken(why),
        })
    })?;
    connection.set_nodelay(true).map_err(Ended::broken)?;
    let (input, mut output) = connection.into_split();
    let hello = Hello { stream: options.stream.clone(), next: start, level: options.level, skip: true };
    output.write_all(format!("{hello}\n").as_bytes()).await.map_err(Ended::broken)?;
    let mut replies = Replies { input, bytes: vec![] };
    loop {
        let reply = timeout(options.silence, replies.next()).await.map_err(|_| {
            Ended::broken("it does not answer to the acknowledgement protocol; is it a headworks that speaks it?")
        })??;
        match reply {
            Reply::Ok { last, next } if next == start.max(last + 1) => {
                window.resume(last, next);
                return Ok((replies, output));
            }
            Reply::Alive => {}
            Reply::Error(why) => return Err(Ended::Refused(why)),
            Reply::End => return Err(Ended::broken("it is closing")),
            reply => return Err(Ended::nonsense(format!("{reply:?} after a first line with next={start}"))),
        }
    }
}

async fn exchange(
    options: &Options,
    mut replies: Replies,
    mut output: tokio::net::tcp::OwnedWriteHalf,
    window: &mut Window,
    input: &mut Input,
    bar: &ProgressBar,
) -> Result<Ended, Ended> {
    let mut heard = Instant::now();
    let mut is_closed = false;
    loop {
        bar.set_position(window.answered_bytes());
        let has_room = window.has_room();
        let unsent = match window.unsent() {
            Unsent::Jump(to) => return Ok(Ended::Jump(to)),
            Unsent::Bytes(bytes) => bytes,
            Unsent::Nothing => &[],
        };
        if unsent.is_empty() && input.is_over && !is_closed {
            output.shutdown().await.map_err(Ended::broken)?;
            is_closed = true;
        }
        tokio::select! {
            biased;
            reply = replies.next() => {
                heard = Instant::now();
                // After the last answer nothing can go wrong any more.
                let is_done = is_closed && window.is_answered();
                match reply {
                    Ok(Reply::End) | Err(Ended::Broken { .. }) if is_done => return Ok(Ended::Done),
                    Ok(Reply::Ack(positions)) => answer(window, positions, None)?,
                    Ok(Reply::Nack { positions, code, .. }) => answer(window, positions, Some(&code))?,
                    Ok(Reply::Alive) => {}
                    Ok(Reply::End) => return Err(Ended::broken("it has closed the connection")),
                    Ok(Reply::Error(why)) => return Err(Ended::Refused(why)),
                    Ok(reply @ Reply::Ok { .. }) => return Err(Ended::nonsense(format!("a second {reply:?}"))),
                    Err(ended) => return Err(ended),
                }
            }
            sent = output.write(unsent), if !unsent.is_empty() => {
                let sent = sent.map_err(Ended::broken)?;
                window.sent(sent);
            }
            read = input.frames.recv(), if has_room && !input.is_over => input.take(read, window),
            () = sleep_until(heard + options.silence) => {
                let silence = humantime::format_duration(options.silence);
                return Err(Ended::broken(format!("it has said nothing for {silence}")));
            }
        }
    }
}

fn answer(window: &mut Window, positions: std::ops::RangeInclusive<u64>, code: Option<&str>) -> Result<(), Ended> {
    let answered = window.answer(positions, code);
    answered.map_err(|position| Ended::nonsense(format!("an answer to {position}, which was not sent")))
}

/// The lines of the server.
struct Replies {
    input: OwnedReadHalf,
    bytes: Vec<u8>,
}

impl Replies {
    /// The next line that means something. Cancel safe.
    async fn next(&mut self) -> Result<Reply, Ended> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.bytes) {
                let reply = Reply::parse(&self.bytes[..end]).map_err(Ended::nonsense);
                self.bytes.drain(..=end);
                if let Some(reply) = reply? {
                    return Ok(reply);
                }
            }
            if self.bytes.len() > MAX_REPLY {
                return Err(Ended::nonsense("a line without an end"));
            }
            match self.input.read_buf(&mut self.bytes).await {
                Ok(0) => return Err(Ended::broken("the connection was closed without a word")),
                Ok(_) => {}
                Err(why) => return Err(Ended::broken(why)),
            }
        }
    }
}
