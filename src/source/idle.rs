//! How long a connection may bring nothing that is whole.

use std::time::Duration;

use headworks_actors::Framing;
use tokio::time::Instant;

/// So many bytes of one frame count as much as a whole one: it may be large, and the way to here narrow.
const PIECE: usize = 64 << 10;

/// The time that a connection has for its next whole frame. It stands still while the client is not read from.
#[derive(Debug)]
pub(in crate::source) struct Idle {
    limit: Option<Duration>,
    due: Instant,
    since: usize,
    frames: Frames,
}

#[derive(Debug)]
enum Frames {
    Lines,
    /// Behind their length: how many bytes of that have come and what they say so far, and how many of the frame are to come.
    Prefixed {
        digits: u8,
        length: u32,
        rest: u32,
    },
}

impl Idle {
    /// From now on; `None` is for ever.
    pub(in crate::source) fn new(limit: Option<Duration>, framing: &Framing) -> Self {
        let frames = match framing {
            Framing::LengthPrefixed { .. } => Frames::Prefixed { digits: 0, length: 0, rest: 0 },
            _ => Frames::Lines,
        };
        Self { limit, due: Instant::now() + limit.unwrap_or_default(), since: 0, frames }
    }

    /// When it is too late.
    pub(in crate::source) fn due(&self) -> Option<Instant> {
        self.limit.map(|_| self.due)
    }

    /// Why a connection ends that was too late.
    pub(in crate::source) fn why(&self) -> String {
        let limit = humantime::format_duration(self.limit.unwrap_or_default());
        format!("no whole frame came for {limit} (idle_timeout)")
    }

    /// These bytes came.
    pub(in crate::source) fn brought(&mut self, bytes: &[u8], now: Instant) {
        let Some(limit) = self.limit else { return };
        self.since += bytes.len();
        if self.frames.end_in(bytes) || self.since >= PIECE {
            (self.since, self.due) = (0, now + limit);
        }
    }

    /// The time that this takes is not the client's.
    pub(in crate::source) async fn apart<T>(&mut self, work: impl Future<Output = T>) -> T {
        if self.limit.is_none() {
            return work.await;
        }
        let began = Instant::now();
        let done = work.await;
        self.due += began.elapsed();
        done
    }
}

impl Frames {
    /// Whether a frame ends in the next bytes.
    fn end_in(&mut self, mut bytes: &[u8]) -> bool {
        let Self::Prefixed { digits, length, rest } = self else { return memchr::memrchr(b'\n', bytes).is_some() };
        let mut is_whole = false;
        while let [first, others @ ..] = bytes {
            if *rest > 0 {
                let now = bytes.len().min(*rest as usize);
                *rest -= now as u32;
                bytes = &bytes[now..];
            } else {
                (*digits, *length, bytes) = (*digits + 1, *length << 8 | u32::from(*first), others);
                if *digits < 4 {
                    continue;
                }
                (*digits, *rest) = (0, std::mem::take(length));
            }
            is_whole |= *rest == 0;
        }
        is_whole
    }
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Frame, Framer};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_frame_or_much_of_one_gives_more_time_and_a_drip_does_not() {
        let (limit, start) = (Duration::from_secs(10), Instant::now());
        let mut idle = Idle { due: start + limit, ..Idle::new(Some(limit), &Framing::lines()) };
        idle.brought(b"{\"te", start + limit / 2);
        assert_eq!(idle.due(), Some(start + limit));
        idle.brought(b"nant\"}\n{", start + limit / 2);
        assert_eq!(idle.due(), Some(start + limit * 3 / 2));
        idle.brought(&[b'x'; PIECE], start + limit);
        assert_eq!(idle.due(), Some(start + limit * 2));
        assert_eq!(Idle::new(None, &Framing::lines()).due(), None);
    }

    proptest! {
        #[test]
        fn frames_end_where_the_framer_says(reads in prop::collection::vec(prop::collection::vec(0_u8..3, 0..40), 0..20)) {
            let framing = Framing::LengthPrefixed { max_bytes: 1 << 30 };
            let (mut framer, mut idle) = (Framer::new(&framing), Idle::new(None, &framing));
            for read in reads {
                let (mut position, mut is_whole) = (0, false);
                while let Some(frame) = framer.next(&read, &mut position) {
                    is_whole |= matches!(frame, Frame::Complete(_));
                }
                prop_assert_eq!(idle.frames.end_in(&read), is_whole);
            }
        }
    }
}
