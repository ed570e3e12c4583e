//! What the entries on record come to, pure: the same code on the journal's thread and at recovery.
//!
//! An entry that is seen twice counts once: a chunk by tenant and seq, a cut and an outcome by the batch's seq. That is how a
//! chunk is copied forward, and how a block that was written again after a fault does no harm.

use std::collections::{BTreeMap, HashMap, VecDeque};

use headworks_actors::{
    BatchId, BatchTotals, Chunk, ChunkPlace, Code, DoorTotals, Entry, MOST_REFUSED, Outcome, Piece, Progress,
    RecoveredChunk, RecoveredCut, RecoveredStream, RecoveredTenant, Seq, StreamId, TenantId, Uncompensated, UnixMillis,
};
use rangemap::{RangeInclusiveMap, RangeInclusiveSet};

use super::step::{Step, does};

/// Where an entry lies. Segments count from 1: in segment 0 lies what was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// Where its block begins.
    pub(super) offset: u64,
    /// Its number in the block, from 0.
    pub(super) index: u32,
    /// Its length, in bytes.
    pub(super) len: u32,
}

impl Place {
    pub(super) const NOWHERE: Self = Self { segment: 0, offset: 0, index: 0, len: 0 };

    pub(super) fn is_found(self) -> bool {
        self.segment != 0
    }
}

/// A chunk with unsettled events, or what the hooks made of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    /// Its place in the tenant's order.
    pub(super) seq: u64,
    /// The same as it is written in the log: another one only where chunks before it were lost.
    pub(super) written: u64,
    pub(super) events: u32,
    /// About its size in memory.
    pub(super) bytes: usize,
    pub(super) place: Place,
}

impl Live {
    fn of(seq: u64, chunk: &Chunk, place: Place) -> Self {
        // What it takes if its vectors are as long as they need to be.
        let parts = chunk.body_bytes() + chunk.len() * 4 + chunk.times().len() * 16;
        let bytes = 160 + parts + chunk.origin().map_or(0, |_| 64 + chunk.len() * 8);
        Self { seq, written: seq, events: u32::try_from(chunk.len()).unwrap_or(u32::MAX), bytes, place }
    }

    fn recovered(&self, seq: u64, segment: u64) -> RecoveredChunk {
        let place = (segment, self.place.offset << 24 | u64::from(self.place.index));
        RecoveredChunk { seq, events: self.events, bytes: self.bytes, place }
    }
}

/// A batch without an outcome.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) batch: BatchId,
    pub(super) from: ChunkPlace,
    pub(super) until: ChunkPlace,
    pub(super) made: Option<Live>,
    pub(super) progress: Progress,
}

/// One tenant.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) door: DoorTotals,
    /// Without what was accepted: that is the sum of the outcomes and of what is unsettled.
    pub(super) outcomes: BatchTotals,
    pub(super) next_chunk: u64,
    pub(super) next_batch: u64,
    /// The last batch that has an outcome.
    pub(super) last_settled: (Seq, Piece),
    pub(super) settled: ChunkPlace,
    pub(super) chunks: VecDeque<Live>,
    pub(super) cuts: VecDeque<Cut>,
    /// What was shed behind unsettled batches: from, until.
    pub(super) shed: VecDeque<(ChunkPlace, ChunkPlace)>,
    /// Compensations that could not be done.
    pub(super) uncompensated: Vec<Uncompensated>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            door: DoorTotals::default(),
            outcomes: BatchTotals::default(),
            next_chunk: 1,
            next_batch: 1,
            last_settled: (Seq(0), Piece::WHOLE),
            settled: ChunkPlace { seq: 1, index: 0 },
            chunks: VecDeque::new(),
            cuts: VecDeque::new(),
            shed: VecDeque::new(),
            uncompensated: Vec::new(),
        }
    }
}

impl Account {
    /// Events without an outcome.
    pub(super) fn unsettled(&self) -> u64 {
        let held: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.events)).sum();
        let front = self.chunks.front().is_some_and(|chunk| chunk.seq == self.settled.seq);
        held - if front { u64::from(self.settled.index).min(held) } else { 0 }
    }

    pub(super) fn totals(&self) -> BatchTotals {
        let BatchTotals { stored, dead_lettered, discarded, shed, .. } = self.outcomes;
        BatchTotals { accepted: stored + dead_lettered + discarded + shed + self.unsettled(), ..self.outcomes }
    }

    /// Where events that are neither cut nor shed begin.
    pub(super) fn uncut(&self) -> ChunkPlace {
        let cut = self.cuts.back().map(|cut| cut.until);
        let shed = self.shed.back().map(|(_, until)| *until);
        cut.into_iter().chain(shed).fold(self.settled, ChunkPlace::max)
    }

    /// What is settled goes, with what was shed right behind it. Where the chunks lay.
    fn pass(&mut self, gone: &mut Vec<Place>) {
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| {
            let ends = ChunkPlace { seq: chunk.seq, index: chunk.events };
            ends <= self.settled
        }) {
            if chunk.seq == self.settled.seq {
                self.settled = ChunkPlace { seq: chunk.seq.saturating_add(1), index: 0 };
            }
            gone.push(chunk.place);
        }
        while let Some((_, until)) = self.shed.pop_front_if(|(from, _)| *from <= self.settled) {
            self.settled = self.settled.max(until);
        }
        if self.chunks.is_empty() {
            // A tenant at rest costs bytes.
            self.chunks = VecDeque::new();
            self.cuts.shrink_to_fit();
        }
    }

    fn cut(&mut self, batch: &BatchId) -> Option<&mut Cut> {
        let at = self.cut_at(batch)?;
        self.cuts.get_mut(at)
    }

    fn cut_at(&self, batch: &BatchId) -> Option<usize> {
        self.cuts.binary_search_by_key(&batch.place(), |cut| cut.batch.place()).ok()
    }

    /// The same place as the end of what lies before it.
    fn ended(&self, place: ChunkPlace) -> ChunkPlace {
        let before = self.chunks.iter().rfind(|chunk| chunk.seq < place.seq);
        match before {
            Some(chunk) if place.index == 0 => ChunkPlace { seq: chunk.seq, index: chunk.events },
            _ => place,
        }
    }

    /// The place so many events behind another. Where it lies between two chunks, it is the beginning of the second.
    fn walk(&self, from: ChunkPlace, mut events: u64) -> ChunkPlace {
        let mut place = from;
        for chunk in self.chunks.iter().filter(|chunk| chunk.seq >= from.seq) {
            let before = if chunk.seq == place.seq { place.index } else { 0 };
            let rest = chunk.events.saturating_sub(before);
            if u64::from(rest) > events {
                return ChunkPlace { seq: chunk.seq, index: before + events as u32 };
            }
            events -= u64::from(rest);
            place = ChunkPlace { seq: chunk.seq + 1, index: 0 };
        }
        place
    }
}

/// One sender's stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stream {
    /// The position of its last mark.
    pub(super) position: u64,
    /// When it was heard of last.
    pub(super) at: UnixMillis,
    /// Positions beyond the mark that are in accepted chunks.
    pub(super) ahead: RangeInclusiveSet<u64>,
    /// Positions that were refused or shed, and of which the sender may not have heard.
    pub(super) refused: RangeInclusiveMap<u64, Code>,
}

impl Stream {
    fn refused(&mut self, positions: &[(u64, u64)], code: Code) {
        let runs = positions.iter().filter(|(first, last)| first <= last);
        self.refused.extend(runs.map(|(first, last)| (*first..=*last, code)));
        while self.refused.len() > MOST_REFUSED
            && let Some((first, _)) = self.refused.first_range_value()
        {
            self.refused.remove(first.clone());
        }
    }
}

/// How much of a segment is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// All tenants and streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) tenants: HashMap<TenantId, Account>,
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) shares: BTreeMap<u64, Share>,
    /// What does not fit together, as only damage can make it.
    pub(super) notes: Notes,
}

/// A list of sentences with a bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) said: Vec<String>,
    left_out: u64,
}

impl Notes {
    const MAX: usize = 1_000;

    pub(super) fn add(&mut self, note: String) {
        if self.said.len() < Self::MAX {
            self.said.push(note);
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn into_said(self) -> Vec<String> {
        let mut said = self.said;
        if self.left_out > 0 {
            said.push(format!("and {} more of the kind", self.left_out));
        }
        said
    }
}

impl Ledger {
    /// The bytes on disk of what is unsettled.
    pub(super) fn live_bytes(&self) -> u64 {
        self.shares.values().map(|share| share.bytes).sum()
    }

    fn hold(&mut self, place: Place) {
        if place.is_found() {
            let share = self.shares.entry(place.segment).or_default();
            share.bytes += u64::from(place.len);
            share.entries += 1;
        }
    }

    /// What lies there is not needed any more.
    pub(super) fn release(&mut self, place: Place) {
        if let Some(share) = self.shares.get_mut(&place.segment) {
            share.bytes = share.bytes.saturating_sub(place.len.into());
            share.entries = share.entries.saturating_sub(1);
            if share.entries == 0 {
                self.shares.remove(&place.segment);
            }
        }
    }

    fn account(&mut self, tenant: &TenantId) -> &mut Account {
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.clone(), Account::default());
        }
        // It is there.
        self.tenants.entry(tenant.clone()).or_default()
    }

    /// Takes note of an entry that lies at `place`.
    pub(super) fn apply(&mut self, entry: &Entry, place: Place) {
        match entry {
            Entry::Chunk { seq, chunk } => self.chunk(*seq, chunk, place),
            Entry::Made { batch, chunk } => self.made(batch, chunk, place),
            Entry::Mark { stream, position, at } => {
                let known = self.streams.entry(stream.clone()).or_default();
                known.at = known.at.max(*at);
                known.position = known.position.max(*position);
                known.ahead.remove(0..=known.position);
            }
            Entry::Refused { stream, positions, code } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    known.refused(positions, *code);
                }
            }
            Entry::Heard { stream, position } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    known.refused.remove(0..=*position);
                }
            }
            Entry::Forget { stream } => drop(self.streams.remove(stream)),
            Entry::Door { tenant, totals } => self.account(tenant).door = *totals,
            Entry::Cut { batch, from, until } => {
                let account = self.account(&batch.tenant);
                if batch.seq.0 < account.next_batch {
                    return;
                }
                account.next_batch = batch.seq.0.saturating_add(1);
                // A chunk that is named here was there, found or not.
                account.next_chunk = account.next_chunk.max(until.seq.saturating_add(1));
                account.cuts.push_back(Cut {
                    batch: batch.clone(),
                    from: *from,
                    until: *until,
                    made: None,
                    progress: Progress::default(),
                });
            }
            Entry::Shed { tenant, from, until, events } => self.shed(tenant, *from, *until, *events),
            Entry::Intent { .. } if !does(Step::Intent) => {}
            Entry::Intent { batch, store, attempt } => match self.account(&batch.tenant).cut(batch) {
                Some(cut) => cut.progress.intent(store, *attempt),
                None => self.uncut(batch),
            },
            Entry::Failed { batch, store, attempt } => self.on(batch, |progress| progress.failed(store, *attempt)),
            Entry::Done { batch, store } => self.on(batch, |progress| progress.done(store)),
            Entry::Undo { batch, store, step } => self.on(batch, |progress| progress.register(store, step)),
            Entry::GivenUp { batch, cause } => self.on(batch, |progress| progress.give_up(cause)),
            Entry::Again { batch } => self.on(batch, Progress::again),
            Entry::Compensated { batch, nth, failed } => {
                let account = self.account(&batch.tenant);
                let Some(cut) = account.cut(batch) else { return };
                cut.progress.compensated(*nth);
                let owed = failed.clone().and_then(|(cause, at)| cut.progress.uncompensated(batch, *nth, cause, at));
                account.uncompensated.retain(|other| (&other.batch, other.nth) != (batch, *nth));
                account.uncompensated.extend(owed);
            }
            Entry::Undone { batch, nth } => {
                let account = self.account(&batch.tenant);
                account.uncompensated.retain(|owed| (&owed.batch, owed.nth) != (batch, *nth));
            }
            Entry::Split { batch, first } => self.split(batch, *first),
            Entry::Settled { batch, outcome, events } => self.settled(batch, *outcome, *events),
        }
    }

    fn on(&mut self, batch: &BatchId, does: impl FnOnce(&mut Progress)) {
        if let Some(cut) = self.account(&batch.tenant).cut(batch) {
            does(&mut cut.progress);
        }
    }

    /// The oldest events that are in no batch are given up. Whole chunks go at once; one of which a part is cut ends where that does.
    fn shed(&mut self, tenant: &TenantId, from: ChunkPlace, until: ChunkPlace, events: u64) {
        let account = self.account(tenant);
        if until <= account.uncut() {
            return;
        }
        account.outcomes.shed += events;
        account.next_chunk = account.next_chunk.max(until.seq);
        let mut gone = Vec::new();
        account.chunks.retain_mut(|live| {
            let is_whole = ChunkPlace { seq: live.seq, index: 0 } >= from && live.seq < until.seq;
            if is_whole {
                gone.push(live.place);
            } else if live.seq == from.seq {
                live.events = live.events.min(from.index);
            }
            !is_whole
        });
        match account.shed.back_mut().filter(|(_, end)| *end == from) {
            Some((_, end)) => *end = until,
            None => account.shed.push_back((from, until)),
        }
        account.pass(&mut gone);
        for place in gone {
            self.release(place);
        }
    }

    /// A batch is two from here on. What its halves are made of is on record behind this, if hooks had changed it.
    fn split(&mut self, batch: &BatchId, first: u32) {
        let account = self.account(&batch.tenant);
        let (Some(at), Some([a, b])) = (account.cut_at(batch), batch.halves()) else { return };
        let Some(cut) = account.cuts.remove(at) else { return };
        let middle = account.walk(cut.from, first.into());
        let half = |batch, from, until| Cut { batch, from, until, made: None, progress: Progress::default() };
        account.cuts.insert(at, half(b, middle, cut.until));
        account.cuts.insert(at, half(a, cut.from, account.ended(middle)));
        if let Some(made) = cut.made {
            self.release(made.place);
        }
    }

    /// An attempt of a batch whose cut is not on record.
    fn uncut(&mut self, batch: &BatchId) {
        let account = self.account(&batch.tenant);
        if batch.place() > account.last_settled {
            account.next_batch = account.next_batch.max(batch.seq.0.saturating_add(1));
            self.notes.add(format!(
                "batch {batch} was tried, but which events it held is lost: they will be stored under another id, \
                 maybe a second time"
            ));
        }
    }

    fn chunk(&mut self, seq: u64, chunk: &Chunk, place: Place) {
        if let Some(origin) = chunk.origin().filter(|origin| origin.stream.is_lasting()) {
            let known = self.streams.entry(origin.stream.clone()).or_default();
            known.at = known.at.max(chunk.arrived());
            let position = known.position;
            known.ahead.extend(origin.positions.iter().filter(|at| **at > position).map(|at| *at..=*at));
        }
        let account = self.account(chunk.tenant());
        let live = Live::of(seq, chunk, place);
        if seq < account.next_chunk {
            // Written again: what lies further on counts.
            let Ok(at) = account.chunks.binary_search_by_key(&seq, |live| live.written) else { return };
            let Some(found) = account.chunks.get_mut(at) else { return };
            let before =
                std::mem::replace(found, Live { seq: found.seq, events: live.events.min(found.events), ..live });
            self.release(before.place);
            self.hold(place);
            return;
        }
        if account.next_chunk == 1 && account.next_batch == 1 {
            // The first of a tenant: what may have been before it is settled, or beyond recall.
            account.settled = ChunkPlace { seq, index: 0 };
        }
        account.next_chunk = seq.saturating_add(1);
        account.chunks.push_back(live);
        self.hold(place);
        // What was refused once, and came again to one who did not know of that, was accepted.
        if let Some(origin) = chunk.origin()
            && let Some(known) = self.streams.get_mut(&origin.stream).filter(|known| !known.refused.is_empty())
        {
            origin.positions.iter().for_each(|at| known.refused.remove(*at..=*at));
        }
    }

    fn made(&mut self, batch: &BatchId, chunk: &Chunk, place: Place) {
        let Some(cut) = self.account(&batch.tenant).cut(batch) else { return };
        let before = cut.made.replace(Live::of(batch.seq.0, chunk, place));
        if let Some(before) = before {
            self.release(before.place);
        }
        self.hold(place);
    }

    fn settled(&mut self, batch: &BatchId, outcome: Outcome, events: u64) {
        self.account(&batch.tenant);
        let Some(account) = self.tenants.get_mut(&batch.tenant) else { return };
        if batch.place() <= account.last_settled {
            return;
        }
        let is_next = batch.piece.is_whole() && batch.seq.0 == account.last_settled.0.0 + 1;
        let mut made = Vec::new();
        while let Some(cut) = account.cuts.pop_front_if(|cut| cut.batch.place() < batch.place()) {
            self.notes.add(format!("the outcome of batch {} is lost: its events are not counted any more", cut.batch));
            account.settled = cut.until;
            made.extend(cut.made);
        }
        match account.cuts.pop_front_if(|cut| cut.batch.place() == batch.place()) {
            Some(cut) => {
                account.settled = cut.until;
                made.extend(cut.made);
            }
            None if is_next => account.settled = account.walk(account.settled, events),
            None => self.notes.add(format!(
                "batch {batch} is settled, but which events it held is lost: they may be stored a second time"
            )),
        }
        account.last_settled = batch.place();
        account.next_batch = account.next_batch.max(batch.seq.0.saturating_add(1));
        match outcome {
            Outcome::Stored => {
                account.outcomes.stored += events;
                account.outcomes.batches += 1;
            }
            Outcome::DeadLettered => account.outcomes.dead_lettered += events,
            Outcome::Discarded | _ => account.outcomes.discarded += events,
        }
        let mut gone: Vec<Place> = made.iter().map(|made| made.place).collect();
        account.pass(&mut gone);
        for place in gone {
            self.release(place);
        }
    }

    /// Forgets the streams that were not heard of since `before`, and the oldest beyond `most`.
    pub(super) fn forget_streams(&mut self, before: UnixMillis, most: usize) {
        self.streams.retain(|_, stream| stream.at >= before);
        if let Some(excess) = self.streams.len().checked_sub(most).filter(|excess| *excess > 0) {
            let mut ages: Vec<UnixMillis> = self.streams.values().map(|stream| stream.at).collect();
            let (_, oldest, _) = ages.select_nth_unstable(excess - 1);
            let oldest = *oldest;
            let mut left = excess;
            self.streams.retain(|_, stream| {
                let goes = stream.at <= oldest && left > 0;
                left -= usize::from(goes);
                !goes
            });
        }
    }

    /// Where a chunk that was handed out lies now, if it is not settled yet.
    pub(super) fn find(&self, tenant: &TenantId, chunk: &RecoveredChunk) -> Option<Place> {
        let account = self.tenants.get(tenant)?;
        let live = if chunk.place.0 == MADE {
            account.cuts.get(usize::try_from(chunk.seq).ok()?)?.made.as_ref()?
        } else {
            account.chunks.get(account.chunks.binary_search_by_key(&chunk.seq, |live| live.seq).ok()?)?
        };
        Some(live.place).filter(|place| place.is_found())
    }

    /// The unsettled chunks of the tenant from `seq` on that are in sequence: as many as take `bytes` of memory, and one at least.
    pub(super) fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk> {
        let Some(account) = self.tenants.get(tenant) else { return vec![] };
        let Ok(from) = account.chunks.binary_search_by_key(&seq, |live| live.seq) else { return vec![] };
        let mut taken = 0;
        (seq..)
            .zip(account.chunks.range(from..))
            .take_while(|(seq, live)| {
                let is_first = taken == 0;
                taken += live.bytes;
                live.seq == *seq && (is_first || taken <= bytes)
            })
            .map(|(seq, live)| live.recovered(seq, live.place.segment))
            .collect()
    }

    /// Whether what lies at `place` is needed.
    pub(super) fn needs(&self, entry: &Entry, place: Place) -> bool {
        let live = match entry {
            Entry::Chunk { seq, chunk } => self.tenants.get(chunk.tenant()).and_then(|account| {
                let at = account.chunks.binary_search_by_key(seq, |live| live.written).ok()?;
                account.chunks.get(at)
            }),
            Entry::Made { batch, .. } => self
                .tenants
                .get(&batch.tenant)
                .and_then(|account| account.cuts.get(account.cut_at(batch)?)?.made.as_ref()),
            _ => None,
        };
        live.is_some_and(|live| {
            (live.place.segment, live.place.offset, live.place.index) == (place.segment, place.offset, place.index)
        })
    }

    /// What is told of the tenants, by name.
    pub(super) fn recovered(&self) -> Vec<RecoveredTenant> {
        let mut tenants: Vec<_> = self.tenants.iter().map(|(tenant, account)| recovered(tenant, account)).collect();
        tenants.sort_unstable_by(|a, b| a.tenant.cmp(&b.tenant));
        tenants
    }

    /// The streams, by name.
    pub(super) fn recovered_streams(&self) -> Vec<RecoveredStream> {
        let told = |(id, stream): (&StreamId, &Stream)| RecoveredStream {
            stream: id.clone(),
            position: stream.position,
            at: stream.at,
            ahead: stream.ahead.iter().map(|range| (*range.start(), *range.end())).collect(),
            refused: stream.refused.iter().map(|(range, code)| (*range.start(), *range.end(), *code)).collect(),
        };
        let mut streams: Vec<_> = self.streams.iter().map(told).collect();
        streams.sort_unstable_by(|a, b| a.stream.cmp(&b.stream));
        streams
    }
}

/// In place of the segment where a batch as the hooks made it lies: such a one is found by the place of its cut among the others.
const MADE: u64 = u64::MAX;

fn recovered(tenant: &TenantId, account: &Account) -> RecoveredTenant {
    let cuts = (0..).zip(&account.cuts).map(|(at, cut)| RecoveredCut {
        batch: cut.batch.clone(),
        from: cut.from,
        until: cut.until,
        made: cut.made.as_ref().map(|made| made.recovered(at, MADE)),
        progress: cut.progress.clone(),
    });
    RecoveredTenant {
        tenant: tenant.clone(),
        door: account.door,
        totals: account.totals(),
        next_chunk: account.next_chunk,
        next_batch: Seq(account.next_batch),
        settled: account.settled,
        uncut: account.uncut(),
        chunks: account.chunks.iter().map(|live| live.recovered(live.seq, live.place.segment)).collect(),
        cuts: cuts.collect(),
        uncompensated: account.uncompensated.clone(),
    }
}
