//! Senders that number their frames: what became of each position, and where to go on after a break.
//!
//! A stream outlives its connections. It knows the last position that was dealt with, those behind it that were accepted
//! before a crash (so that they are not taken twice), and those that are owed an answer.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use rangemap::RangeInclusiveMap;
use tokio::sync::Notify;

use super::registry::Shared;
use crate::model::position_set::blocks;
use crate::model::{Code, PositionSet, StreamId, UnixMillis};
use crate::observe::Outcome;
use crate::policy::AckLevel;
use crate::port::{Entry, Position, RecoveredStream};

/// How long a stream without a connection is remembered, and how many there may be.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const MOST: usize = 10_000;

/// How many runs of positions may wait to be answered to one sender.
const MOST_ANSWERS: usize = 65_536;

/// No sender begins beyond, whatever it says: there is always a next position.
const FARTHEST: u64 = u64::MAX / 2;

/// What became of frames of a stream, by their positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// They are as safe as was asked for.
    Ack(RangeInclusive<u64>),
    /// They were refused, or are kept as dead letters, for this reason. Final. Of frames above their tenant's rate, after how
    /// long the like of them may pass.
    Nack(RangeInclusive<u64>, Code, Option<Duration>),
}

/// Why a frame was refused, and after how long the like of it may pass.
type Nack = (Code, Option<Duration>);

/// One sender's stream.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    state: Mutex<State>,
    /// Something to answer, or an end of something.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    /// The last position that was dealt with, as all before it.
    last: u64,
    /// Where that is on record.
    marked: Position,
    /// Positions beyond `last` that an earlier process accepted.
    ahead: PositionSet,
    /// Positions that an earlier process dealt with, and of which it is not known yet whether they are settled.
    unread: PositionSet,
    /// Accepted and not settled.
    open: PositionSet,
    /// Those of them that are answered when they are settled.
    owed: PositionSet,
    /// Those that are answered when the journal has committed them.
    recorded: Vec<(Position, PositionSet)>,
    /// Those that were shed, and are answered when that is committed.
    shed: Vec<(Position, PositionSet)>,
    /// Those ahead that were shed before their sender came to them again, and where that is on record.
    shed_ahead: RangeInclusiveMap<u64, Position>,
    acks: PositionSet,
    nacks: RangeInclusiveMap<u64, Nack>,
    /// Refusals that a connection was given to tell. Whether its sender heard of them is known when it comes again: by where it goes
    /// on. Until then they are not forgotten, lest it be told that all is well.
    told: RangeInclusiveMap<u64, Nack>,
    /// What was shed after it had been acknowledged as received or journaled, and where that is on record: a sender that has not
    /// heard of that, and comes again to be told when it is stored, is told.
    given_up: RangeInclusiveMap<u64, Position>,
    /// What was refused in the read that is being dealt with, to go on record with its mark.
    unrecorded: RangeInclusiveMap<u64, Code>,
    /// Whether refusals are on record, and up to where their sender is known to have heard of them, if that is not.
    has_recorded: bool,
    heard: Option<u64>,
    level: AckLevel,
    /// Which connection it is that counts.
    session: u64,
    is_connected: bool,
    /// A read of it is being dealt with.
    is_feeding: bool,
    touched: UnixMillis,
}

impl State {
    /// What is owed of these positions is true now.
    fn acknowledge(&mut self, range: &RangeInclusive<u64>) {
        let owed = self.owed.within(range);
        self.owed.remove(range.clone());
        owed.into_iter().for_each(|range| self.acks.insert(range));
    }
}

/// The runs of positions.
fn ranges(positions: &[u64]) -> impl Iterator<Item = RangeInclusive<u64>> {
    positions.chunk_by(|a, b| a + 1 == *b).filter_map(|run| Some(*run.first()?..=*run.last()?))
}

impl Stream {
    pub(crate) fn new(id: StreamId) -> Self {
        Self { id, state: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection takes over. Gives its number; what an earlier one fed may still be under way.
    pub(crate) fn connect(&self, now: UnixMillis) -> u64 {
        let mut state = self.lock();
        state.session += 1;
        state.is_connected = true;
        state.touched = now;
        let session = state.session;
        drop(state);
        self.changed.notify_waiters();
        session
    }

    /// The connection has ended.
    pub(crate) fn disconnect(&self, session: u64, now: UnixMillis) {
        let mut state = self.lock();
        if state.session == session {
            state.is_connected = false;
            state.touched = now;
        }
    }

    /// Waits until no read is being dealt with; false if yet another connection took over.
    pub(crate) async fn settled_down(&self, session: u64) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.lock();
                if state.session != session {
                    return false;
                }
                if !state.is_feeding {
                    return true;
                }
            }
            changed.await;
        }
    }

    /// The connection's terms: what it is told of positions from `next` on that were dealt with before. Gives the position after
    /// which it goes on.
    pub(crate) fn begin(&self, next: u64, level: AckLevel) -> u64 {
        let next = next.clamp(1, FARTHEST);
        let mut state = self.lock();
        let State { last, marked, .. } = *state;
        state.level = level;
        // A sender that begins later than where this side ended will not send what lies between.
        let goes_on = last.max(next - 1);
        state.last = goes_on;
        state.heard = Some(next - 1).filter(|_| state.has_recorded);
        state.recorded.clear();
        state.acks = PositionSet::default();
        if level == AckLevel::Stored {
            state.owed = state.open.clone();
        }
        let mut done = PositionSet::default();
        if next <= last {
            let asked = next..=last;
            state.unread.within(&asked).into_iter().for_each(|unread| state.owed.insert(unread));
            done.insert(asked.clone());
            state.owed.within(&asked).into_iter().for_each(|owed| done.remove(owed));
            for (refused, _) in state.nacks.iter() {
                done.remove(refused.clone());
            }
            for shed in state.shed.iter().flat_map(|(_, shed)| shed.within(&asked)) {
                done.remove(shed);
            }
            for (range, nack) in overlapping(&state.told, &asked) {
                done.remove(range.clone());
                state.nacks.insert(range, nack);
            }
            for (range, at) in overlapping(&state.given_up, &asked) {
                if level > AckLevel::Received {
                    done.remove(range.clone());
                    state.shed.push((at, [range].into_iter().collect()));
                }
            }
        }
        // It knows of those before, and sends those behind again.
        for told in [0..=next - 1, goes_on + 1..=u64::MAX] {
            state.owed.remove(told.clone());
            state.shed.iter_mut().for_each(|(_, ranges)| ranges.remove(told.clone()));
            state.told.remove(told.clone());
            state.given_up.remove(told.clone());
            state.nacks.remove(told);
        }
        match level {
            AckLevel::Received => state.acks = done,
            // What is settled was committed before.
            AckLevel::Journaled | AckLevel::Stored => state.recorded.push((marked, done)),
        }
        state.last
    }

    /// The frames before `next` that have not come never will. False where the connection is not the one that counts, or has a read
    /// under way.
    pub(crate) fn skip_to(&self, session: u64, next: u64) -> bool {
        let mut state = self.lock();
        if state.session != session || state.is_feeding {
            return false;
        }
        let last = next.clamp(1, FARTHEST) - 1;
        if last > state.last {
            state.last = last;
            state.ahead.remove(0..=last);
        }
        true
    }

    /// A read begins; false where the connection is not the one that counts.
    pub(crate) fn feed(self: &Arc<Self>, session: u64) -> Option<(Feed, Numbers)> {
        let mut state = self.lock();
        if state.session != session || state.is_feeding {
            return None;
        }
        state.is_feeding = true;
        // Of a read that broke off, which comes again.
        state.unrecorded.clear();
        Some((Feed(self.clone()), Numbers { next: state.last + 1, known: state.ahead.clone() }))
    }

    /// Waits until few enough answers are left that more may come: a sender that does not read them is not read from. Returns
    /// too where another connection took over.
    pub(crate) async fn has_room(&self, session: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.lock();
                let recorded = state.recorded.iter().chain(&state.shed).map(|(_, set)| set);
                let acks: usize = recorded.chain([&state.acks]).map(PositionSet::at_most_runs).sum();
                if state.session != session || acks + state.nacks.len() <= MOST_ANSWERS {
                    return;
                }
            }
            changed.await;
        }
    }

    /// A chunk was accepted, and is on record at `at`. `least` is the level of its tenant.
    pub(crate) fn accepted(&self, positions: &[u64], least: AckLevel, at: Position) {
        let mut state = self.lock();
        state.marked = state.marked.max(at);
        let level = state.level.max(least);
        let State { open, acks, owed, recorded, .. } = &mut *state;
        if level == AckLevel::Journaled {
            recorded.push((at, PositionSet::of(positions)));
        }
        for (block, bits) in blocks(positions) {
            open.add(block, bits);
            match level {
                AckLevel::Received => acks.add(block, bits),
                AckLevel::Journaled => {}
                AckLevel::Stored => owed.add(block, bits),
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// An earlier process accepted it and has not settled it.
    pub(crate) fn found(&self, positions: &[u64], least: AckLevel) {
        let mut state = self.lock();
        let is_owed = state.level.max(least) == AckLevel::Stored;
        for range in ranges(positions) {
            state.unread.remove(range.clone());
            match (is_owed, state.session) {
                // What a connection waits for is owed already.
                (true, 0) => state.owed.insert(range.clone()),
                (true, _) => {}
                (false, _) => state.acknowledge(&range),
            }
            state.open.insert(range);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whatever an earlier process has not settled was found.
    fn all_found(&self) {
        let mut state = self.lock();
        for range in std::mem::take(&mut state.unread).runs() {
            state.acknowledge(&range);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Frames were refused.
    pub(crate) fn refused(&self, positions: &[u64], code: Code) {
        self.nack(positions, code, None);
    }

    /// Frames were refused, being above their tenant's rate.
    pub(crate) fn throttled(&self, positions: &[u64], retry_after: Duration) {
        self.nack(positions, Code::Throttled, Some(retry_after));
    }

    fn nack(&self, positions: &[u64], code: Code, retry_after: Option<Duration>) {
        let mut state = self.lock();
        if self.id.is_lasting() {
            state.unrecorded.extend(ranges(positions).map(|range| (range, code)));
        }
        state.nacks.extend(ranges(positions).map(|range| (range, (code, retry_after))));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Frames were dealt with in a way that leaves nothing to wait for, unless they were accepted by an earlier process: that may
    /// be true of them before they are settled.
    pub(crate) fn done(&self, positions: &[u64]) {
        if positions.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (block, bits) in blocks(positions) {
            let unsettled = state.open.of_block(block).or(state.unread.of_block(block)).and(bits);
            state.acks.add(block, bits);
            state.acks.take(block, unsettled);
            state.owed.add(block, unsettled);
        }
        for range in ranges(positions).filter(|_| !state.shed_ahead.is_empty()).collect::<Vec<_>>() {
            let shed = state.shed_ahead.overlapping(&range).map(|(part, at)| (*at, clip(part, &range)));
            for (at, part) in shed.collect::<Vec<_>>() {
                state.acks.remove(part.clone());
                state.shed_ahead.remove(part.clone());
                state.given_up.remove(part.clone());
                state.shed.push((at, [part].into_iter().collect()));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Events have their outcome.
    pub(crate) fn settled(&self, positions: &[u64], outcome: Outcome, code: Option<Code>) {
        let mut state = self.lock();
        let State { open, acks, owed, nacks, session, .. } = &mut *state;
        let mut refused = PositionSet::default();
        let told = match (outcome, code) {
            // Dropped by a hook's rule it has no code: then it is as good as stored.
            (Outcome::DeadLettered | Outcome::Discarded, Some(_)) => &mut refused,
            _ => acks,
        };
        for (block, bits) in blocks(positions) {
            open.take(block, bits);
            let owed = owed.take(block, bits);
            // Where no connection has come yet, nobody knows what it will be owed.
            told.add(block, if *session == 0 { bits } else { owed });
        }
        if let Some(code) = code {
            nacks.extend(refused.runs().into_iter().map(|range| (range, (code, None))));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Accepted events were given up to make room, which is on record at `at`. Their sender is told no sooner than that is
    /// committed: a nack is final.
    pub(crate) fn shed(&self, positions: &[u64], at: Position) {
        let mut state = self.lock();
        let mut shed = PositionSet::default();
        for range in ranges(positions) {
            for ahead in state.ahead.within(&range) {
                state.shed_ahead.insert(ahead, at);
            }
            if state.session == 0 {
                // Where no connection has come yet, nobody knows what it will be owed.
                shed.insert(range.clone());
            }
            if state.session != 0 {
                state.given_up.insert(range.clone(), at);
            }
            for owed in state.owed.within(&range) {
                state.shed_ahead.remove(owed.clone());
                state.given_up.remove(owed.clone());
                shed.insert(owed);
            }
            state.open.remove(range.clone());
            state.owed.remove(range);
        }
        if !shed.is_empty() {
            state.shed.push((at, shed));
        }
        bound(&mut state.given_up);
        // By whoever gave it up.
        state.has_recorded = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Everything up to `last` was dealt with. What of that is to go on record, in one append.
    pub(crate) fn mark(&self, last: u64, now: UnixMillis) -> Vec<Entry> {
        let mut state = self.lock();
        if last <= state.last {
            return vec![];
        }
        state.last = last;
        state.touched = now;
        if !state.ahead.is_empty() {
            state.ahead.remove(0..=last);
            state.shed_ahead.remove(0..=last);
        }
        if !self.id.is_lasting() {
            return vec![];
        }
        let mut entries = vec![Entry::Mark { stream: self.id.clone(), position: last, at: now }];
        entries.extend(state.heard.take().map(|position| Entry::Heard { stream: self.id.clone(), position }));
        let mut refused: Vec<(Code, Vec<(u64, u64)>)> = vec![];
        for (range, code) in std::mem::take(&mut state.unrecorded) {
            let run = (*range.start(), *range.end());
            match refused.iter_mut().find(|(other, _)| *other == code) {
                Some((_, runs)) => runs.push(run),
                None => refused.push((code, vec![run])),
            }
        }
        state.has_recorded |= !refused.is_empty();
        let refused = refused.into_iter();
        entries.extend(refused.map(|(code, positions)| Entry::Refused { stream: self.id.clone(), positions, code }));
        entries
    }

    /// Something of it is on record.
    pub(crate) fn marked(&self, at: Position) {
        let mut state = self.lock();
        state.marked = state.marked.max(at);
    }

    /// Where the last of it is on record.
    pub(crate) fn recorded_at(&self) -> Position {
        self.lock().marked
    }

    /// What there is to answer, coalesced; `None` where another connection took over.
    pub(crate) fn take_answers(&self, session: u64, is_committed: impl Fn(Position) -> bool) -> Option<Answers> {
        let mut state = self.lock();
        if state.session != session {
            return None;
        }
        let recorded = std::mem::take(&mut state.recorded);
        for (at, ranges) in recorded {
            if is_committed(at) {
                state.acks.add_all(ranges);
            } else {
                state.recorded.push((at, ranges));
            }
        }
        for (at, ranges) in std::mem::take(&mut state.shed) {
            if is_committed(at) {
                state.nacks.extend(ranges.runs().into_iter().map(|range| (range, (Code::Shed, None))));
            } else {
                state.shed.push((at, ranges));
            }
        }
        let acks = std::mem::take(&mut state.acks).runs().into_iter().map(Answer::Ack);
        let nacks = std::mem::take(&mut state.nacks);
        if self.id.is_lasting() {
            state.told.extend(nacks.iter().map(|(range, nack)| (range.clone(), *nack)));
            bound(&mut state.told);
        }
        let nacks = nacks.into_iter().map(|(range, (code, retry_after))| Answer::Nack(range, code, retry_after));
        let ready: Vec<_> = acks.chain(nacks).collect();
        if !ready.is_empty() {
            // Whoever waits for there to be fewer. Not otherwise: whoever asks waits for a change, and would wake itself for ever.
            self.changed.notify_waiters();
        }
        Some(Answers {
            ready,
            commits: state.recorded.iter().chain(&state.shed).map(|(at, _)| *at).min(),
            is_owed: !state.owed.is_empty() || state.is_feeding,
        })
    }
}

/// What a stream has to answer at one moment.
pub(crate) struct Answers {
    pub(crate) ready: Vec<Answer>,
    /// The first commit that will bring more.
    pub(crate) commits: Option<Position>,
    /// Whether something else will bring more.
    pub(crate) is_owed: bool,
}

/// The parts of `range` that are in `map`, each with its value.
fn overlapping<V: Copy + Eq>(
    map: &RangeInclusiveMap<u64, V>,
    range: &RangeInclusive<u64>,
) -> Vec<(RangeInclusive<u64>, V)> {
    map.overlapping(range).map(|(part, value)| (clip(part, range), *value)).collect()
}

/// Forgets the oldest where there are too many: their sender is long past them.
fn bound<V: Clone + Eq>(map: &mut RangeInclusiveMap<u64, V>) {
    while map.len() > MOST_ANSWERS
        && let Some((first, _)) = map.first_range_value()
    {
        map.remove(first.clone());
    }
}

fn clip(range: &RangeInclusive<u64>, within: &RangeInclusive<u64>) -> RangeInclusive<u64> {
    *range.start().max(within.start())..=*range.end().min(within.end())
}

/// The numbering of a read's frames.
#[derive(Default)]
pub(crate) struct Numbers {
    /// The position of the next frame.
    pub(crate) next: u64,
    /// Positions that an earlier process accepted.
    known: PositionSet,
}

impl Numbers {
    /// Numbers of a call, from 1.
    pub(crate) fn from_one() -> Self {
        Self { next: 1, ..Self::default() }
    }

    /// Counts a frame. Gives its position, and whether it was accepted before.
    pub(crate) fn count(&mut self) -> (u64, bool) {
        let position = self.next;
        self.next += 1;
        (position, !self.known.is_empty() && self.known.contains(position))
    }
}

/// A read of a stream that is being dealt with.
pub(crate) struct Feed(Arc<Stream>);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.lock().is_feeding = false;
        self.0.changed.notify_waiters();
    }
}

/// Every stream there is.
#[derive(Default)]
pub(crate) struct Streams(DashMap<StreamId, Arc<Stream>>);

impl Streams {
    pub(crate) fn get(&self, id: &StreamId) -> Option<Arc<Stream>> {
        self.0.get(id).map(|stream| stream.clone())
    }

    /// A stream that is on record.
    pub(crate) fn restore(&self, left: RecoveredStream, now: UnixMillis) {
        let stream = Stream::new(left.stream.clone());
        {
            let mut state = stream.lock();
            // Something ahead of it was accepted in the last read, of which nothing else is on record: not even when that was.
            let touched = if left.ahead.is_empty() { left.at } else { now };
            (state.last, state.touched) = (left.position, touched);
            state.ahead = left.ahead.into_iter().map(|(from, to)| from..=to).collect();
            state.unread = state.ahead.clone();
            if left.position > 0 {
                state.unread.insert(1..=left.position);
            }
            state.has_recorded = !left.refused.is_empty();
            for (from, to, code) in left.refused {
                state.unread.remove(from..=to);
                // As it was on record when this process began.
                for shed in state.ahead.within(&(from..=to)) {
                    state.shed_ahead.insert(shed, Position::default());
                }
                if from <= left.position {
                    state.told.insert(from..=to.min(left.position), (code, None));
                }
            }
        }
        self.0.insert(left.stream, Arc::new(stream));
    }

    pub(crate) fn get_or_insert(&self, id: &StreamId) -> Arc<Stream> {
        self.0.entry(id.clone()).or_insert_with(|| Arc::new(Stream::new(id.clone()))).clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn remove(&self, id: &StreamId) {
        self.0.remove(id);
    }

    /// Everything that an earlier process had not settled is read back.
    pub(crate) fn all_found(&self) {
        self.0.iter().for_each(|stream| stream.all_found());
    }

    /// Forgets streams that nobody has used for long, and those unused for longest where there are too many.
    pub(crate) fn expire(&self, shared: &Shared) {
        let now = shared.seam.now();
        let mut idle: Vec<_> = self
            .0
            .iter()
            .filter_map(|stream| {
                let state = stream.lock();
                let is_settled = state.open.is_empty() && state.unread.is_empty();
                let is_idle = !state.is_connected && !state.is_feeding && is_settled;
                is_idle.then(|| (state.touched, stream.id.clone()))
            })
            .collect();
        idle.sort();
        let surplus = self.0.len().saturating_sub(MOST);
        let lifetime = i64::try_from(LIFETIME.as_millis()).unwrap_or(i64::MAX);
        for (nth, (touched, id)) in idle.into_iter().enumerate() {
            if nth < surplus || now.0.saturating_sub(touched.0) > lifetime {
                self.0.remove(&id);
                shared.record(&mut vec![Entry::Forget { stream: id }]);
            }
        }
    }
}
