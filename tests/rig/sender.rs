//! A sender that asks for acknowledgements, keeps what is not answered, and goes on with it over any number of daemons: an
//! implementation of `docs/TCP_ACKNOWLEDGEMENTS.md` of the tests' own.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::DEADLINE;
use super::crash::Account;

/// So many frames may wait for their answer before the sender waits too.
const WINDOW: u64 = 400;
/// How long a sender that has room looks for answers before it sends more: what paces it.
const GLANCE: Duration = Duration::from_millis(4);
/// One frame in so many is no event.
const BAD: u64 = 200;

/// Whether a store that refuses some events for good, as [`POISON`] has it, refuses this one.
pub(crate) fn is_poison(number: usize) -> bool {
    number % 211 == 7
}

/// Has the database refuse some events.
pub(crate) const POISON: &str = "
    CREATE TRIGGER poison BEFORE INSERT ON events WHEN (NEW.body ->> '$.n') % 211 = 7
    BEGIN SELECT RAISE(ABORT, 'this event is poison'); END";

/// Whether an event of a sender [`with_large`](Sender::with_large) ones is such.
pub(crate) fn is_large(number: usize) -> bool {
    number % 197 == 11
}

/// A sender of one stream with some tenants of its own.
pub(crate) struct Sender {
    stream: String,
    level: &'static str,
    tenants: [String; 3],
    rng: fastrand::Rng,
    /// By position, which begins with 1.
    frames: Vec<Frame>,
    /// The first position without an answer.
    next: u64,
    /// Answered beyond.
    beyond: BTreeSet<u64>,
    /// How long the padding of an event is that a store with a limit refuses for good; nothing where none is to be.
    large: usize,
    pub(crate) account: Account,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) sessions: u64,
}

struct Frame {
    line: Vec<u8>,
    /// Its tenant and number, unless it is no event.
    event: Option<(String, usize)>,
}

/// What a sender does on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Send {
    /// New frames for as long as the daemon is there.
    On,
    /// What has no answer yet, and then it ends.
    TheRest,
}

impl Sender {
    pub(crate) fn new(stream: &str, level: &'static str, seed: u64) -> Self {
        Self {
            stream: stream.to_owned(),
            level,
            tenants: ["acme", "umbrella", "zen"].map(|tenant| format!("{stream}-{tenant}")),
            rng: fastrand::Rng::with_seed(seed),
            frames: vec![],
            next: 1,
            beyond: BTreeSet::new(),
            large: 0,
            account: Account::default(),
            sent: 0,
            acknowledged: 0,
            sessions: 0,
        }
    }

    /// Some of whose events are so long, and cannot be compressed.
    pub(crate) fn with_large(mut self, bytes: usize) -> Self {
        self.large = bytes;
        self
    }

    /// Whether a store refuses this event for good.
    pub(crate) fn is_refused(&self, number: usize) -> bool {
        is_poison(number) || (self.large > 0 && is_large(number))
    }

    /// Makes frames to be sent.
    pub(crate) fn make_some(&mut self, frames: usize) {
        (0..frames).for_each(|_| self.make());
    }

    /// Whether every frame has its answer.
    pub(crate) fn is_done(&self) -> bool {
        self.next > self.frames.len() as u64
    }

    /// One connection, to its end: true where the daemon said that there is nothing more to say, false where it broke.
    ///
    /// # Panics
    /// If the daemon does not keep to the protocol, or refuses an event.
    pub(crate) fn session(&mut self, to: SocketAddr, send: Send) -> bool {
        match self.speak(to, send) {
            Ok(()) => true,
            Err(why) => {
                let is_silence = matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!is_silence, "{}: the daemon says nothing", self.stream);
                false
            }
        }
    }

    fn speak(&mut self, to: SocketAddr, send: Send) -> io::Result<()> {
        let connection = TcpStream::connect(to)?;
        connection.set_write_timeout(Some(DEADLINE))?;
        connection.set_nodelay(true)?;
        let mut answers = Answers::new(&connection)?;
        let Self { stream, next, level, .. } = self;
        (&connection)
            .write_all(format!("headworks-ack/1 stream={stream} next={next} level={level} skip=yes\n").as_bytes())?;
        let ok = answers.next(DEADLINE)?.unwrap_or_default();
        let mut position = self.first(&ok);
        self.sessions += 1;
        loop {
            let mut bytes = vec![];
            for _ in 0..self.rng.u8(1..40) {
                if position > self.frames.len() as u64 {
                    if send == Send::TheRest {
                        break;
                    }
                    self.make();
                }
                bytes.extend(&self.frames[position as usize - 1].line);
                position += 1;
                self.sent += 1;
            }
            // A read of the daemon may end anywhere.
            let (some, rest) = bytes.split_at(self.rng.usize(0..=bytes.len()));
            (&connection).write_all(some)?;
            (&connection).write_all(rest)?;
            if send == Send::TheRest && position > self.frames.len() as u64 {
                break;
            }
            let mut patience = GLANCE;
            while let Some(line) = answers.next(patience)? {
                if line == "end" {
                    return Ok(());
                }
                self.answered(&line);
                patience = Duration::ZERO;
            }
            while position.saturating_sub(self.next) > WINDOW {
                let line = answers.next(DEADLINE)?.ok_or(io::ErrorKind::TimedOut)?;
                if line == "end" {
                    return Ok(());
                }
                self.answered(&line);
            }
        }
        connection.shutdown(Shutdown::Write)?;
        loop {
            let line = answers.next(DEADLINE)?.ok_or(io::ErrorKind::TimedOut)?;
            if line == "end" {
                assert!(self.is_done(), "{}: nothing more is said, and {} has no answer", self.stream, self.next);
                return Ok(());
            }
            self.answered(&line);
        }
    }

    /// The position that the daemon wants to go on with.
    fn first(&self, ok: &str) -> u64 {
        let numbers = ok.strip_prefix("ok last=").and_then(|rest| rest.split_once(" next="));
        let numbers = numbers.and_then(|(last, next)| Some((last.parse::<u64>().ok()?, next.parse::<u64>().ok()?)));
        match numbers {
            Some((last, next)) => {
                assert!(next == last + 1 && next >= self.next && last <= self.frames.len() as u64, "{ok:?}");
                next
            }
            None => panic!("{}: no answer to the first line: {ok:?}", self.stream),
        }
    }

    fn make(&mut self) {
        if self.rng.u64(..BAD) == 0 {
            let line = format!("no event, the {}th frame of {}", self.frames.len() + 1, self.stream).into_bytes();
            self.account.malformed.push(line.clone());
            return self.frames.push(Frame { line: [&line[..], b"\n"].concat(), event: None });
        }
        let tenant = &self.tenants[self.rng.usize(..self.tenants.len())];
        let number = self.account.sent.get(tenant).map_or(0, Vec::len);
        let padding: String = match self.rng.usize(..100) {
            _ if self.large > 0 && is_large(number) => (0..self.large).map(|_| self.rng.alphanumeric()).collect(),
            some => "x".repeat(some),
        };
        let body = format!("{{\"tenant\":\"{tenant}\",\"n\":{number},\"padding\":\"{padding}\"}}");
        let line = format!("{body}\n").into_bytes();
        self.account.send(tenant, body);
        self.frames.push(Frame { line, event: Some((tenant.clone(), number)) });
    }

    fn answered(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let (positions, refused) = match words[..] {
            ["ack", positions] => (positions, None),
            ["nack", positions, code] => (positions, Some(code)),
            ["alive"] => return,
            _ => panic!("{}: {line:?}", self.stream),
        };
        let (from, to) = positions.split_once('-').unwrap_or((positions, positions));
        for position in from.parse::<u64>().unwrap()..=to.parse().unwrap() {
            let frame = &self.frames[position as usize - 1];
            match (&frame.event, refused) {
                (Some((tenant, number)), None) => {
                    if self.account.acknowledged.entry(tenant.clone()).or_default().insert(*number) {
                        self.acknowledged += 1;
                    }
                }
                // Kept as a dead letter: it has its outcome.
                (Some((tenant, number)), Some("store_permanent")) if self.is_refused(*number) => {
                    if self.account.acknowledged.entry(tenant.clone()).or_default().insert(*number) {
                        self.acknowledged += 1;
                    }
                }
                (Some(_), Some(code)) => panic!("{}: an event is refused: {position} {code}", self.stream),
                (None, refused) => {
                    // Without a code it was refused by an earlier daemon.
                    assert!(refused.is_none_or(|code| code == "bad_json"), "{line}");
                    self.account.answered.insert(frame.line.trim_ascii_end().to_vec());
                }
            }
            if position >= self.next {
                self.beyond.insert(position);
            }
        }
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
    }
}

/// The lines of the other side.
struct Answers {
    lines: BufReader<TcpStream>,
    unfinished: Vec<u8>,
}

impl Answers {
    fn new(connection: &TcpStream) -> io::Result<Self> {
        Ok(Self { lines: BufReader::new(connection.try_clone()?), unfinished: vec![] })
    }

    /// The next line; none where it does not come in time. An error where none will come any more.
    fn next(&mut self, patience: Duration) -> io::Result<Option<String>> {
        if self.lines.buffer().is_empty() && patience.is_zero() {
            self.lines.get_ref().set_nonblocking(true)?;
        } else {
            self.lines.get_ref().set_read_timeout(Some(patience.max(GLANCE)))?;
        }
        let read = self.lines.by_ref().read_until(b'\n', &mut self.unfinished);
        self.lines.get_ref().set_nonblocking(false)?;
        match read {
            Ok(_) if self.unfinished.ends_with(b"\n") => {
                let line = String::from_utf8(std::mem::take(&mut self.unfinished)).map_err(io::Error::other)?;
                Ok(Some(line.trim_end().to_owned()))
            }
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(why) => Err(why),
        }
    }
}
