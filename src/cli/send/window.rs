//! What was read and is not answered yet: the frames by position, to be sent and sent again. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use super::ranges::Ranges;

/// Whole frames, one after the other, each with its line end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) bytes: Vec<u8>,
    /// Where each frame ends.
    pub(super) ends: Vec<usize>,
}

impl Frames {
    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    fn part(&self, from: usize, to: usize) -> Self {
        let (start, end) = (self.start(from), self.start(to));
        Self {
            bytes: self.bytes[start..end].to_vec(),
            ends: self.ends[from..to].iter().map(|frame_end| frame_end - start).collect(),
        }
    }

    fn append(&mut self, more: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&more.bytes);
        self.ends.extend(more.ends.iter().map(|end| start + end));
    }

    /// The memory it takes.
    fn cost(&self) -> usize {
        const OF_ITSELF: usize = 128;
        self.bytes.len() + size_of_val(self.ends.as_slice()) + OF_ITSELF
    }
}

/// Frames that are kept, for as long as one of them has no answer.
#[derive(Debug)]
struct Piece {
    first: u64,
    frames: Frames,
    unanswered: usize,
}

impl Piece {
    fn last(&self) -> u64 {
        self.first + self.frames.ends.len() as u64 - 1
    }
}

/// What is to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsent<'a> {
    /// All that was read is sent.
    Nothing,
    /// These bytes; see [`Window::sent`].
    Bytes(&'a [u8]),
    /// What comes next in order is answered already, and maybe no longer kept: the connection cannot go on but with a new
    /// first line, from this position. Only a server that has forgotten what it answered brings this about.
    Jump(u64),
}

/// How often a reason was given, and for which lines first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) frames: u64,
    pub(super) first: Vec<u64>,
}

/// The positions that a summary names for each reason.
const NAMED: usize = 5;

/// Pieces grow to so many bytes, where what is read comes in less.
const SMALL: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    pieces: VecDeque<Piece>,
    held: usize,
    /// Whether something was answered since the pieces were last looked through for room.
    loose: bool,
    read: u64,
    answered: Ranges,
    answered_bytes: u64,
    refused: BTreeMap<String, Refused>,
    /// The position of the frame that is sent next, and how many bytes of it are sent.
    cursor: (u64, usize),
    /// The last position that the server can have, as far as is known here.
    had: u64,
    /// Whether the stream is older than this process: then the server may have frames beyond that, which another one sent.
    is_older: bool,
}

impl Window {
    /// Keeps about `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            pieces: VecDeque::new(),
            held: 0,
            loose: false,
            read: 0,
            answered: Ranges::default(),
            answered_bytes: 0,
            refused: BTreeMap::new(),
            cursor: (1, 0),
            had: 0,
            is_older: false,
        }
    }

    /// How many frames were read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// How many answers there were, for frames that were read or not.
    pub(super) fn answers(&self) -> u64 {
        self.answered.len()
    }

    /// How many frames of those that were read are answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.len_up_to(self.read)
    }

    /// The bytes of the frames that were read and are answered.
    pub(super) fn answered_bytes(&self) -> u64 {
        self.answered_bytes
    }

    /// How many frames were refused, by reason.
    pub(super) fn refused(&self) -> &BTreeMap<String, Refused> {
        &self.refused
    }

    /// The first position without an answer.
    pub(super) fn first_unanswered(&self) -> u64 {
        self.answered.first_missing(1)
    }

    /// The last position that the server may have.
    pub(super) fn had(&self) -> u64 {
        self.had
    }

    /// Whether all that was read has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.first_unanswered() > self.read
    }

    /// Whether more may be read.
    pub(super) fn has_room(&mut self) -> bool {
        if self.held >= self.limit && std::mem::take(&mut self.loose) {
            self.compact();
        }
        self.held < self.limit
    }

    /// Takes in what was read next.
    pub(super) fn push(&mut self, frames: Frames) {
        if frames.ends.is_empty() {
            return;
        }
        let mut piece = Piece { first: self.read + 1, unanswered: frames.ends.len(), frames };
        let (first, last) = (piece.first, piece.last());
        self.read = last;
        // Some may be answered already: those that an earlier run sent.
        let mut from = first;
        while let Some(answered) = self.answered.first_present(from).filter(|position| *position <= last) {
            let until = self.answered.first_missing(answered).min(last + 1);
            self.answered_bytes += settle(&mut piece, answered, until - 1);
            from = until;
        }
        if piece.unanswered == 0 {
            return;
        }
        match self.pieces.back_mut() {
            // Many small reads make a few pieces.
            Some(back) if back.last() + 1 == first && back.frames.bytes.len() + piece.frames.bytes.len() <= SMALL => {
                self.held -= back.frames.cost();
                back.frames.append(&piece.frames);
                back.unanswered += piece.unanswered;
                self.held += back.frames.cost();
            }
            _ => {
                self.held += piece.frames.cost();
                self.pieces.push_back(piece);
            }
        }
    }

    /// A connection begins: the server has everything up to `last`, and counts what it gets next as `next`.
    pub(super) fn resume(&mut self, last: u64, next: u64) {
        self.cursor = (next, 0);
        // What was sent on an earlier connection it may have too, beyond `last`.
        self.is_older |= self.had == 0 && next > 1;
        self.had = self.had.max(last).max(next - 1);
    }

    /// What is to be sent next on this connection.
    pub(super) fn unsent(&self) -> Unsent<'_> {
        let (position, offset) = self.cursor;
        let unanswered = self.answered.first_missing(position);
        if unanswered > self.read {
            return Unsent::Nothing;
        }
        if unanswered > position {
            return Unsent::Jump(unanswered);
        }
        let Some(piece) = self.piece(position) else { return Unsent::Nothing };
        let end = self.answered.first_present(position).unwrap_or(u64::MAX).min(piece.last() + 1);
        let index = |position: u64| (position - piece.first) as usize;
        Unsent::Bytes(&piece.frames.bytes[piece.frames.start(index(position)) + offset..piece.frames.start(index(end))])
    }

    /// So many of these bytes are sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        let (position, offset) = self.cursor;
        let Some(piece) = self.piece(position) else { return };
        let at = piece.frames.start((position - piece.first) as usize) + offset + bytes;
        let whole = piece.frames.ends.partition_point(|end| *end <= at);
        self.cursor = (piece.first + whole as u64, at - piece.frames.start(whole));
        self.had = self.had.max(self.cursor.0 - 1);
    }

    /// Takes an answer: an acknowledgement, or a refusal with its reason. The first answer that a position gets counts.
    ///
    /// # Errors
    /// The position, where the server answers what it never got.
    pub(super) fn answer(&mut self, positions: RangeInclusive<u64>, code: Option<&str>) -> Result<(), u64> {
        if *positions.end() > self.had && !self.is_older {
            return Err(*positions.end());
        }
        for fresh in self.answered.insert(positions) {
            if let Some(code) = code {
                let refused = self.refused.entry(code.to_owned()).or_default();
                refused.frames += fresh.end() - fresh.start() + 1;
                let room = NAMED - refused.first.len();
                refused.first.extend(fresh.clone().take(room));
            }
            let begin = self.pieces.partition_point(|piece| piece.last() < *fresh.start());
            let mut done = 0;
            for piece in self.pieces.range_mut(begin..).take_while(|piece| piece.first <= *fresh.end()) {
                self.answered_bytes += settle(piece, *fresh.start(), *fresh.end());
                done += usize::from(piece.unanswered == 0);
            }
            self.drop_done(done);
            self.loose = true;
        }
        Ok(())
    }

    fn drop_done(&mut self, mut done: usize) {
        // Mostly they are answered in order.
        while done > 0
            && let Some(piece) = self.pieces.pop_front_if(|piece| piece.unanswered == 0)
        {
            self.held -= piece.frames.cost();
            done -= 1;
        }
        if done > 0 {
            self.pieces.retain(|piece| piece.unanswered > 0);
            self.held = self.pieces.iter().map(|piece| piece.frames.cost()).sum();
        }
    }

    fn piece(&self, position: u64) -> Option<&Piece> {
        let index = self.pieces.partition_point(|piece| piece.last() < position);
        self.pieces.get(index).filter(|piece| piece.first <= position)
    }

    /// Drops the answered frames out of pieces that consist of them mostly: a few that wait long, for a tenant whose store
    /// is stuck, must not keep the rest.
    fn compact(&mut self) {
        let mut kept = VecDeque::with_capacity(self.pieces.len());
        for piece in self.pieces.drain(..) {
            if piece.unanswered * 2 > piece.frames.ends.len() {
                kept.push_back(piece);
                continue;
            }
            let mut from = self.answered.first_missing(piece.first);
            while from <= piece.last() {
                let until = self.answered.first_present(from).unwrap_or(u64::MAX).min(piece.last() + 1);
                let frames = piece.frames.part((from - piece.first) as usize, (until - piece.first) as usize);
                kept.push_back(Piece { first: from, unanswered: frames.ends.len(), frames });
                from = self.answered.first_missing(until);
            }
        }
        self.pieces = kept;
        self.held = self.pieces.iter().map(|piece| piece.frames.cost()).sum();
    }
}

/// Counts the frames of the piece from `from` to `to` as answered; gives their bytes.
fn settle(piece: &mut Piece, from: u64, to: u64) -> u64 {
    let from = (from.max(piece.first) - piece.first) as usize;
    let until = (to.min(piece.last()) + 1 - piece.first) as usize;
    piece.unanswered -= until - from;
    (piece.frames.start(until) - piece.frames.start(from)) as u64
}

#[cfg(test)]
mod tests;
