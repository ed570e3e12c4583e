use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{MAX_POSITION, number};

/// A line of the server. Its text has no line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The answer to the first line: go on.
    Ok {
        /// The position of the last frame that the server has; 0 for none.
        last: u64,
        /// The position that it counts the next frame of the client as.
        next: u64,
    },
    /// These frames reached the level that was asked for.
    Ack(RangeInclusive<u64>),
    /// These frames are refused for good.
    Nack {
        /// Which.
        positions: RangeInclusive<u64>,
        /// Why, in a word: a [`Code`](crate::Code) as a rule, but a client must bear one that it does not know.
        code: String,
        /// After how long the like of them may pass, where they were above their tenant's rate. In milliseconds on the wire.
        retry_after: Option<Duration>,
    },
    /// There is nothing to say, and the server is there.
    Alive,
    /// The server has said all that it will say on this connection.
    End,
    /// The connection ends, and why, for a reader. The same again would fail again.
    Error(String),
}

/// A line that is none of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no line of the acknowledgement protocol")]
pub struct BadReply(String);

impl Reply {
    /// Reads a line, without its line end. `None` for one that begins with a word of a later version, which is to be
    /// passed over.
    ///
    /// # Errors
    /// [`BadReply`].
    pub fn parse(line: &[u8]) -> Result<Option<Self>, BadReply> {
        let bad = || BadReply(String::from_utf8_lossy(line).chars().take(100).collect());
        let line = str::from_utf8(line).map_err(|_| bad())?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let reply = match word {
            "ok" => ok(rest),
            "ack" => positions(rest).map(Self::Ack),
            "nack" => rest.split_once(' ').and_then(|(which, why)| {
                let (code, more) = why.split_once(' ').unwrap_or((why, ""));
                Some(Self::Nack {
                    positions: positions(which)?,
                    code: code_word(code)?.to_owned(),
                    retry_after: retry_after(more)?,
                })
            }),
            "alive" => Some(Self::Alive),
            "end" => Some(Self::End),
            "error" => Some(Self::Error(rest.to_owned())),
            word if code_word(word).is_some() => return Ok(None),
            _ => None,
        };
        reply.map(Some).ok_or_else(bad)
    }
}

fn ok(rest: &str) -> Option<Reply> {
    let value = |key: &str| {
        let values = rest.split(' ').filter_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        values.map(number).next().flatten().filter(|position| *position <= MAX_POSITION)
    };
    Some(Reply::Ok { last: value("last")?, next: value("next")? })
}

/// What follows a code: keys with values, of which others than ours are a later version's.
fn retry_after(more: &str) -> Option<Option<Duration>> {
    let mut pairs = more.split(' ').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('='));
    pairs.try_fold(None, |found, pair| match pair? {
        ("retry_after", millis) => Some(Some(Duration::from_millis(number(millis)?))),
        (key, _) => code_word(key).map(|_| found),
    })
}

fn positions(text: &str) -> Option<RangeInclusive<u64>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    (1 <= from && from <= to && to <= MAX_POSITION).then_some(from..=to)
}

/// The word itself, if it may stand where a code stands: `[a-z0-9_]{1,64}`.
fn code_word(word: &str) -> Option<&str> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    ((1..=64).contains(&word.len()) && word.bytes().all(is_word)).then_some(word)
}

struct Positions<'a>(&'a RangeInclusive<u64>);

impl fmt::Display for Positions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            write!(f, "{}", self.0.start())
        } else {
            write!(f, "{}-{}", self.0.start(), self.0.end())
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { last, next } => write!(f, "ok last={last} next={next}"),
            Self::Ack(positions) => write!(f, "ack {}", Positions(positions)),
            Self::Nack { positions, code, retry_after } => {
                write!(f, "nack {} {code}", Positions(positions))?;
                retry_after.map_or(Ok(()), |after| write!(f, " retry_after={}", after.as_millis()))
            }
            Self::Alive => f.write_str("alive"),
            Self::End => f.write_str("end"),
            // Whatever the reason is, it is one line.
            Self::Error(why) => {
                f.write_str("error ")?;
                why.chars().try_for_each(|c| fmt::Write::write_char(f, if c.is_control() { ' ' } else { c }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_line_of_the_server_is_written_as_the_specification_says() {
        let nack = |positions, code: &str| Reply::Nack { positions, code: code.to_owned(), retry_after: None };
        let later = Some(Duration::from_millis(1_500));
        for (reply, line) in [
            (Reply::Ok { last: 0, next: 1 }, "ok last=0 next=1"),
            (Reply::Ack(1..=500), "ack 1-500"),
            (Reply::Ack(7..=7), "ack 7"),
            (nack(8..=9, "bad_json"), "nack 8-9 bad_json"),
            (nack(10..=10, "tenant_full"), "nack 10 tenant_full"),
            (
                Reply::Nack { positions: 3..=5, code: "throttled".to_owned(), retry_after: later },
                "nack 3-5 throttled retry_after=1500",
            ),
            (Reply::Alive, "alive"),
            (Reply::End, "end"),
            (Reply::Error("no such level".to_owned()), "error no such level"),
        ] {
            assert_eq!(reply.to_string(), line);
            assert_eq!(Reply::parse(line.as_bytes()), Ok(Some(reply)));
        }
    }

    #[test]
    fn a_line_with_a_word_of_a_later_version_is_passed_over_and_so_is_a_key_it_adds() {
        assert_eq!(Reply::parse(b"slower 20"), Ok(None));
        let nack = Reply::Nack { positions: 7..=7, code: "throttled".to_owned(), retry_after: None };
        assert_eq!(Reply::parse(b"nack 7 throttled colour=red"), Ok(Some(nack)));
        assert_eq!(Reply::parse(b"ok last=3 window=9 next=4"), Ok(Some(Reply::Ok { last: 3, next: 4 })));
    }

    #[test]
    fn what_is_no_line_of_the_protocol_is_told() {
        for line in [
            "",
            "HTTP/1.1 400",
            "ok",
            "ok last=1",
            "ack",
            "ack 0",
            "ack 2-1",
            "ack 1-",
            "ack 1-2-3",
            "ack +1",
            "nack 1",
            "nack 1 Bad",
            "nack 1 two words",
            "nack 1 throttled retry_after=",
            "nack 1 throttled retry_after=soon",
            "ack 9223372036854775808",
            "\u{7f}",
        ] {
            assert!(Reply::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_reason_of_several_lines_is_written_as_one() {
        assert_eq!(Reply::Error("a\nack 1-9\r".to_owned()).to_string(), "error a ack 1-9 ");
    }

    fn reply() -> impl Strategy<Value = Reply> {
        let range = || (1..=MAX_POSITION, 1..=MAX_POSITION).prop_map(|(a, b)| a.min(b)..=a.max(b));
        prop_oneof![
            (0..=MAX_POSITION, 1..=MAX_POSITION).prop_map(|(last, next)| Reply::Ok { last, next }),
            range().prop_map(Reply::Ack),
            (range(), "[a-z0-9_]{1,64}", prop::option::of((0..=u64::MAX).prop_map(Duration::from_millis)))
                .prop_map(|(positions, code, retry_after)| Reply::Nack { positions, code, retry_after }),
            Just(Reply::Alive),
            Just(Reply::End),
            "[^\\p{C}]{0,80}".prop_map(Reply::Error),
        ]
    }

    proptest! {
        #[test]
        fn a_line_reads_as_it_was_written(reply in reply()) {
            prop_assert_eq!(Reply::parse(reply.to_string().as_bytes()), Ok(Some(reply)));
        }

        #[test]
        fn no_line_is_too_odd(line in prop_oneof![any::<Vec<u8>>(), "(ok|ack|nack|error|end) ?[0-9a-z =-]{0,40}".prop_map(String::into_bytes)]) {
            if let Ok(Some(reply)) = Reply::parse(&line) {
                prop_assert_eq!(Reply::parse(reply.to_string().as_bytes()), Ok(Some(reply)));
            }
        }
    }
}
