use super::length_prefixed::LengthPrefixed;
use super::lines::Lines;
use crate::model::{Cause, Code};

/// The default limit of a frame: 1 MiB.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 1 << 20;

/// How much of an oversized frame is kept: its first 64 KiB.
pub const KEPT_OF_OVERSIZED: usize = 64 << 10;

/// How a stream of bytes is cut into frames.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// A frame ends at `\n`; one `\r` before it does not belong to the frame. An empty line is an empty frame.
    Lines {
        /// The longest frame, in bytes, without its line end.
        max_bytes: usize,
    },
    /// A frame follows its length, an unsigned 32-bit big-endian number of bytes. Length 0 is an empty frame.
    LengthPrefixed {
        /// The longest frame, in bytes, without its length.
        max_bytes: usize,
    },
}

impl Framing {
    /// [`Lines`](Self::Lines) of up to [`DEFAULT_MAX_FRAME_BYTES`].
    #[must_use]
    pub const fn lines() -> Self {
        Self::Lines { max_bytes: DEFAULT_MAX_FRAME_BYTES }
    }

    /// [`LengthPrefixed`](Self::LengthPrefixed) frames of up to [`DEFAULT_MAX_FRAME_BYTES`].
    #[must_use]
    pub const fn length_prefixed() -> Self {
        Self::LengthPrefixed { max_bytes: DEFAULT_MAX_FRAME_BYTES }
    }
}

/// One frame as a [`Framer`] gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Its bytes, without line end or length.
    Complete(&'a [u8]),
    /// It broke a rule of the framing. The stream goes on behind it.
    Rejected(RejectedFrame<'a>),
}

/// A frame that broke a rule of the framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedFrame<'a> {
    /// [`Code::Oversized`] or [`Code::Truncated`], and the sizes.
    pub cause: Cause,
    /// The bytes as they came; of an oversized frame only the first [`KEPT_OF_OVERSIZED`].
    pub kept: &'a [u8],
    /// How many bytes came, kept or not.
    pub original_bytes: u64,
}

/// Cuts the bytes of one connection into frames, whatever reads they come in.
///
/// A frame that lies whole in a read is given as a slice of it, without a copy. The beginning of one that does not is
/// kept inside, up to the limit of the framing; memory that a large frame took is given back after it. A frame above the
/// limit is skipped to its end in [`KEPT_OF_OVERSIZED`] bytes of memory and then rejected.
///
/// ```
/// use headworks_actors::{Frame, Framer, Framing};
///
/// let mut framer = Framer::new(&Framing::lines());
/// let mut lines = Vec::new();
/// for read in [&b"one\ntw"[..], b"o\r\nthree"] {
///     let mut position = 0;
///     while let Some(frame) = framer.next(read, &mut position) {
///         if let Frame::Complete(line) = frame {
///             lines.push(line.to_vec());
///         }
///     }
/// }
/// assert_eq!(lines, [b"one", b"two"]);
/// assert_eq!(framer.finish(true), Some(Frame::Complete(b"three")));
/// ```
#[derive(Debug)]
pub struct Framer(Parser);

#[derive(Debug)]
enum Parser {
    Lines(Lines),
    LengthPrefixed(LengthPrefixed),
}

impl Framer {
    /// A framer at the beginning of a stream.
    #[must_use]
    pub fn new(framing: &Framing) -> Self {
        Self(match *framing {
            Framing::Lines { max_bytes } => Parser::Lines(Lines::new(max_bytes)),
            Framing::LengthPrefixed { max_bytes } => Parser::LengthPrefixed(LengthPrefixed::new(max_bytes)),
        })
    }

    /// The next frame of `input[*position..]`; `position` moves behind it.
    ///
    /// `None` means that the rest, if any, is the beginning of a frame. It has been kept inside and `position` is at the
    /// end: call again with the bytes of the next read and a position of 0.
    #[inline]
    pub fn next<'a>(&'a mut self, input: &'a [u8], position: &mut usize) -> Option<Frame<'a>> {
        match &mut self.0 {
            Parser::Lines(lines) => lines.next(input, position),
            Parser::LengthPrefixed(prefixed) => prefixed.next(input, position),
        }
    }

    /// The next frame, where it is a sound one that lies whole in `input`, as nearly all do: without what [`next`](Self::next) has
    /// to tell of the others. `None` says nothing, and takes nothing.
    #[inline]
    pub(crate) fn whole<'a>(&self, input: &'a [u8], position: &mut usize) -> Option<&'a [u8]> {
        match &self.0 {
            Parser::Lines(lines) => lines.whole(input, position),
            Parser::LengthPrefixed(_) => None,
        }
    }

    /// The end of the input: the frame that was begun and never ended, if there is one.
    ///
    /// An unfinished last line is a frame like any other if the input ended `clean`, at the sender's will: files often
    /// lack their last `\n`. After a connection was cut it is rejected as [`Code::Truncated`], since nobody knows what is
    /// missing. An unfinished length-prefixed frame is rejected either way. Afterwards the framer is as new.
    pub fn finish(&mut self, clean: bool) -> Option<Frame<'_>> {
        match &mut self.0 {
            Parser::Lines(lines) => lines.finish(clean),
            Parser::LengthPrefixed(prefixed) => prefixed.finish(),
        }
    }

    /// How many bytes are kept of a frame whose end has not come yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        match &self.0 {
            Parser::Lines(lines) => lines.pending_bytes(),
            Parser::LengthPrefixed(prefixed) => prefixed.pending_bytes(),
        }
    }
}

/// A frame of `bytes` above its limit, of which at least the first [`KEPT_OF_OVERSIZED`] are at hand.
#[cold]
pub(super) fn oversized(at_hand: &[u8], bytes: u64, detail: String) -> Frame<'_> {
    let kept = &at_hand[..at_hand.len().min(KEPT_OF_OVERSIZED)];
    Frame::Rejected(RejectedFrame { cause: Cause::new(Code::Oversized, detail), kept, original_bytes: bytes })
}

/// A frame whose end never came.
#[cold]
pub(super) fn truncated(kept: &[u8], detail: String) -> Frame<'_> {
    let cause = Cause::new(Code::Truncated, detail);
    Frame::Rejected(RejectedFrame { cause, kept, original_bytes: kept.len() as u64 })
}
