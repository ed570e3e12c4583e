use std::fmt;
use std::str::FromStr;

use super::{MAX_HELLO, MAX_POSITION, PREFIX, number};
use crate::{AckLevel, InvalidStreamId, StreamId};

/// The first line of a connection that asks for acknowledgements. Its text has no line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Whose frames follow.
    pub stream: StreamId,
    /// The first position that the client wants an answer for, from 1 to [`MAX_POSITION`].
    pub next: u64,
    /// When a frame counts as acknowledged.
    pub level: AckLevel,
    /// Whether the client waits for `ok` and leaves out what the server has. Else its frames begin at `next`, whatever the
    /// server has of them.
    pub skip: bool,
}

/// What makes a first line wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadHello {
    #[error("the first line is longer than {MAX_HELLO} bytes")]
    TooLong,
    #[error("the first line is not ASCII")]
    NotAscii,
    #[error("version {0:?} of the protocol is not spoken here; version 1 is: headworks-ack/1")]
    Version(String),
    #[error("{0:?} is no KEY=VALUE; between them is one space")]
    NoValue(String),
    #[error("there is no key {0:?}; the keys are stream, next, level and skip")]
    Key(String),
    #[error("{0}= is there twice")]
    Twice(&'static str),
    #[error("{0}= is missing; such a line is: headworks-ack/1 stream=sensor-7 next=1 level=stored")]
    Missing(&'static str),
    #[error("stream: {0}")]
    Stream(#[from] InvalidStreamId),
    #[error("next={0:?} is no position: a whole number from 1 to {MAX_POSITION}")]
    Next(String),
    #[error("there is no level {0:?}; the levels are received, journaled and stored")]
    Level(String),
    #[error("skip={0:?} is neither yes nor no")]
    Skip(String),
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "headworks-ack/1 stream={} next={} level={}", self.stream, self.next, self.level)?;
        if self.skip { f.write_str(" skip=yes") } else { Ok(()) }
    }
}

impl FromStr for Hello {
    type Err = BadHello;

    fn from_str(line: &str) -> Result<Self, BadHello> {
        let (word, keys) = line.split_once(' ').unwrap_or((line, ""));
        match word.strip_prefix("headworks-ack/") {
            Some("1") => {}
            version => return Err(BadHello::Version(version.unwrap_or(word).to_owned())),
        }
        let (mut stream, mut next, mut level, mut skip) = (None, None, None, None);
        for pair in keys.split(' ').filter(|_| !keys.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| BadHello::NoValue(pair.to_owned()))?;
            match key {
                "stream" => once("stream", &mut stream, value.parse()?)?,
                "next" => {
                    let position = number(value).filter(|position| (1..=MAX_POSITION).contains(position));
                    once("next", &mut next, position.ok_or_else(|| BadHello::Next(value.to_owned()))?)?;
                }
                "level" => {
                    once("level", &mut level, value.parse().map_err(|_| BadHello::Level(value.to_owned()))?)?;
                }
                "skip" => match value {
                    "yes" => once("skip", &mut skip, true)?,
                    "no" => once("skip", &mut skip, false)?,
                    _ => return Err(BadHello::Skip(value.to_owned())),
                },
                _ => return Err(BadHello::Key(key.to_owned())),
            }
        }
        Ok(Self {
            stream: stream.ok_or(BadHello::Missing("stream"))?,
            next: next.ok_or(BadHello::Missing("next"))?,
            level: level.ok_or(BadHello::Missing("level"))?,
            skip: skip.unwrap_or(false),
        })
    }
}

fn once<T>(key: &'static str, place: &mut Option<T>, value: T) -> Result<(), BadHello> {
    if place.replace(value).is_some() { Err(BadHello::Twice(key)) } else { Ok(()) }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstLine {
    /// It cannot be told yet: ask again with more of them. Never the answer to more than [`MAX_HELLO`] bytes and two.
    Unfinished,
    /// Data, all of them: the client asks for nothing.
    Data,
    /// A first line, and where what follows it begins.
    Hello(Result<Hello, BadHello>, usize),
}

impl FirstLine {
    /// Reads the first bytes of a connection, `\n` or `\r\n` at the end of the line.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let shared = bytes.len().min(PREFIX.len());
        if bytes[..shared] != PREFIX[..shared] {
            return Self::Data;
        }
        // The line, its `\r` and its `\n`.
        let longest = bytes.len().min(MAX_HELLO + 2);
        match memchr::memchr(b'\n', &bytes[..longest]) {
            Some(end) => {
                let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
                Self::Hello(read(line), end + 1)
            }
            None if longest < MAX_HELLO + 2 => Self::Unfinished,
            None => Self::Hello(Err(BadHello::TooLong), bytes.len()),
        }
    }
}

fn read(line: &[u8]) -> Result<Hello, BadHello> {
    if line.len() > MAX_HELLO {
        return Err(BadHello::TooLong);
    }
    if !line.is_ascii() {
        return Err(BadHello::NotAscii);
    }
    str::from_utf8(line).map_err(|_| BadHello::NotAscii)?.parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(line: &str) -> Result<Hello, String> {
        match FirstLine::of(line.as_bytes()) {
            FirstLine::Hello(hello, end) => {
                assert_eq!(end, line.len());
                hello.map_err(|why| why.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_keys_of_a_first_line_come_in_any_order_and_end_with_either_line_end() {
        let expected = Hello { stream: "a=b".parse().unwrap(), next: 7, level: AckLevel::Journaled, skip: true };
        for line in [
            "headworks-ack/1 stream=a=b next=7 level=journaled skip=yes\n",
            "headworks-ack/1 skip=yes level=journaled next=7 stream=a=b\r\n",
        ] {
            assert_eq!(of(line), Ok(expected.clone()));
        }
        assert!(!of("headworks-ack/1 stream=s next=1 level=stored\n").unwrap().skip);
        assert!(!of("headworks-ack/1 stream=s next=1 level=stored skip=no\n").unwrap().skip);
    }

    #[test]
    fn what_follows_the_first_line_is_told_from_it() {
        let line = b"headworks-ack/1 stream=s next=1 level=received\n";
        let all = [line, &b"{}\n"[..]].concat();
        let FirstLine::Hello(Ok(hello), data) = FirstLine::of(&all) else { panic!() };
        assert_eq!((hello.level, &all[data..]), (AckLevel::Received, &b"{}\n"[..]));
    }

    #[test]
    fn each_mistake_in_a_first_line_is_named() {
        let long = format!("stream={}", "s".repeat(500));
        for (rest, word) in [
            ("2 stream=s next=1 level=stored", "version \"2\""),
            ("1", "stream= is missing"),
            ("1 next=1 level=stored", "stream= is missing"),
            ("1 stream=s level=stored", "next= is missing"),
            ("1 stream=s next=1", "level= is missing"),
            ("1 stream=s next=1 level=stored next=2", "next= is there twice"),
            ("1 stream=s next=0 level=stored", "next=\"0\" is no position"),
            ("1 stream=s next=+1 level=stored", "next=\"+1\" is no position"),
            ("1 stream=s next= level=stored", "next=\"\" is no position"),
            ("1 stream=s next=9223372036854775808 level=stored", "is no position"),
            ("1 stream=s next=1 level=Stored", "there is no level \"Stored\""),
            ("1 stream= next=1 level=stored", "stream: a stream id has"),
            ("1 stream=s  next=1 level=stored", "is no KEY=VALUE"),
            ("1 stream=s next=1 level=stored color=red", "there is no key \"color\""),
            ("1 stream=s next=1 level=stored skip=1", "neither yes nor no"),
            ("1 stream=\u{e9} next=1 level=stored", "not ASCII"),
            (&format!("1 {long}"), "longer than 512"),
        ] {
            let why = of(&format!("headworks-ack/{rest}\n")).unwrap_err();
            assert!(why.contains(word), "{rest}: {why}");
        }
    }

    #[test]
    fn a_first_line_that_never_ends_is_not_waited_for() {
        let mut endless = PREFIX.to_vec();
        endless.resize(MAX_HELLO + 1, b'x');
        assert_eq!(FirstLine::of(&endless), FirstLine::Unfinished);
        endless.push(b'x');
        assert_eq!(FirstLine::of(&endless), FirstLine::Hello(Err(BadHello::TooLong), endless.len()));
    }

    #[test]
    fn data_is_told_at_its_first_byte_that_differs() {
        assert_eq!(FirstLine::of(b"{"), FirstLine::Data);
        assert_eq!(FirstLine::of(b"headworks-ac"), FirstLine::Unfinished);
        assert_eq!(FirstLine::of(b"headworks-acc"), FirstLine::Data);
        assert_eq!(FirstLine::of(b""), FirstLine::Unfinished);
    }

    fn level() -> impl Strategy<Value = AckLevel> {
        prop_oneof![Just(AckLevel::Received), Just(AckLevel::Journaled), Just(AckLevel::Stored)]
    }

    proptest! {
        #[test]
        fn a_first_line_reads_as_it_was_written_in_whatever_cut(
            stream in "[!-~]{1,128}", next in 1..=MAX_POSITION, level in level(), skip: bool, more: Vec<u8>,
        ) {
            let hello = Hello { stream: stream.parse().unwrap(), next, level, skip };
            let line = format!("{hello}\n");
            for cut in 0..line.len() {
                prop_assert_eq!(FirstLine::of(&line.as_bytes()[..cut]), FirstLine::Unfinished);
            }
            let all = [line.as_bytes(), &more].concat();
            prop_assert_eq!(FirstLine::of(&all), FirstLine::Hello(Ok(hello), line.len()));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, asks: bool) {
            let bytes = if asks { [PREFIX, &bytes].concat() } else { bytes };
            match FirstLine::of(&bytes) {
                FirstLine::Unfinished => prop_assert!(bytes.len() < MAX_HELLO + 2),
                FirstLine::Data => prop_assert!(!bytes.starts_with(PREFIX)),
                FirstLine::Hello(hello, end) => {
                    prop_assert!(end <= bytes.len());
                    // What it says of a mistake is one line of text.
                    prop_assert!(hello.is_ok() || hello.unwrap_err().to_string().chars().all(|c| !c.is_control()));
                }
            }
        }
    }
}
