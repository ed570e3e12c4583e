//! What a journal must come to, in the plainest terms: each tenant's events are numbered from 0, and everything is a number.

use std::collections::BTreeMap;
use std::sync::Arc;

use headworks_actors::{
    Attempt, BatchId, BatchTotals, Begun, Cause, Chunk, ChunkPlace, Code, DoorTotals, Entry, Opening, Outcome,
    Progress, Recovered, RecoveredTenant, Seq, StoreName, StreamId, Uncompensated, UndoStep, UnixMillis,
};

use super::super::log::Log;
use super::super::scan::read_entry;
use super::{chunk, tenant};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) tenants: BTreeMap<String, Tenant>,
    pub(super) streams: BTreeMap<String, u64>,
    refused: BTreeMap<(String, u64), Code>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tenant {
    pub(super) chunks: Vec<Arc<Chunk>>,
    pub(super) accepted: u64,
    pub(super) settled: u64,
    pub(super) totals: BatchTotals,
    pub(super) cut_until: u64,
    pub(super) next_batch: u64,
    pub(super) cuts: Vec<Cut>,
    uncompensated: Vec<Uncompensated>,
    /// What was shed and is not settled yet: behind it, or before it, are batches.
    shed: Vec<(u64, u64)>,
    /// Where the last of it ended.
    last_shed: Option<u64>,
    pub(super) door: DoorTotals,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cut {
    pub(super) batch: BatchId,
    from: u64,
    until: u64,
    made: Option<Arc<Chunk>>,
    pub(super) progress: Progress,
}

impl Tenant {
    /// What was shed right behind what is settled is settled, too.
    fn pass(&mut self) {
        self.settled = self.shed.iter().fold(self.settled, |at, (from, until)| if *from == at { *until } else { at });
        self.shed.retain(|(_, until)| *until > self.settled);
    }

    /// The place before event `n`, as the lane would name it: in the chunk that ends there, where `ends`.
    fn place(&self, n: u64, ends: bool) -> ChunkPlace {
        let mut before = 0;
        for (seq, chunk) in (1..).zip(&self.chunks) {
            let behind = before + chunk.len() as u64;
            if n < behind || (ends && n == behind) {
                return ChunkPlace { seq, index: (n - before) as u32 };
            }
            before = behind;
        }
        ChunkPlace { seq: self.chunks.len() as u64 + 1, index: 0 }
    }

    fn number(&self, place: ChunkPlace) -> u64 {
        let before: usize = self.chunks.iter().take(place.seq as usize - 1).map(|chunk| chunk.len()).sum();
        before as u64 + u64::from(place.index)
    }
}

fn stores() -> impl Iterator<Item = StoreName> {
    ["archive", "db", "search"].into_iter().map(|name| StoreName::new(name).unwrap())
}

/// One step in the life of a journal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Deed {
    Accept { events: u8, padding: u16 },
    Mark,
    Refuse { frames: u8, is_throttled: bool },
    Hear { of: u8 },
    Cut { events: u8 },
    Shed { chunks: u8 },
    Make,
    Try,
    Undo,
    Fail,
    Done,
    GiveUp,
    Compensate { fails: bool },
    Undone,
    Again,
    Split { events: u8 },
    Settle { outcome: u8 },
    Door,
}

impl Model {
    /// What the deed puts on record for the tenant; nothing where it is not its time.
    pub(super) fn act(&mut self, name: &str, deed: Deed) -> Vec<Entry> {
        let id = tenant(name);
        let it = self.tenants.entry(name.to_owned()).or_default();
        let front = it.cuts.first_mut();
        match (deed, front) {
            (Deed::Accept { events, padding }, _) => {
                let chunk = chunk(name, it.accepted, u64::from(events) + 1, padding.into());
                it.accepted += chunk.len() as u64;
                it.chunks.push(chunk.clone());
                vec![Entry::Chunk { seq: it.chunks.len() as u64, chunk }]
            }
            (Deed::Mark, _) => {
                let position = self.streams.entry(name.to_owned()).or_default();
                *position += 1;
                let stream = StreamId::new(name).unwrap();
                vec![Entry::Mark { stream, position: *position, at: UnixMillis(5) }]
            }
            (Deed::Refuse { frames, is_throttled }, _) => {
                let position = self.streams.entry(name.to_owned()).or_default();
                let first = *position + 1;
                *position += u64::from(frames) + 2;
                let stream = StreamId::new(name).unwrap();
                let code = if is_throttled { Code::Throttled } else { Code::BadJson };
                // All but the second.
                let positions = vec![(first, first), (first + 2, *position)];
                let positions: Vec<_> = positions.into_iter().filter(|(first, last)| first <= last).collect();
                for position in positions.iter().flat_map(|(first, last)| *first..=*last) {
                    self.refused.insert((name.to_owned(), position), code);
                }
                vec![
                    Entry::Mark { stream: stream.clone(), position: *position, at: UnixMillis(5) },
                    Entry::Refused { stream, positions, code },
                ]
            }
            (Deed::Hear { of }, _) => {
                let Some(last) = self.streams.get(name) else { return vec![] };
                let position = last.saturating_sub(of.into());
                self.refused.retain(|(other, refused), _| other != name || *refused > position);
                vec![Entry::Heard { stream: StreamId::new(name).unwrap(), position }]
            }
            (Deed::Cut { events }, _) if it.cut_until < it.accepted => {
                let from = it.cut_until;
                let until = (from + u64::from(events) + 1).min(it.accepted);
                let is_behind_shed = it.last_shed == Some(from);
                it.next_batch += 1;
                let batch = BatchId::new(Opening(9), id, Seq(it.next_batch));
                let entry = Entry::Cut {
                    batch: batch.clone(),
                    // Either name of the place will do, but not the end of a chunk that was shed.
                    from: it.place(from, events % 2 == 0 && from > 0 && !is_behind_shed),
                    until: it.place(until, true),
                };
                it.cut_until = until;
                it.cuts.push(Cut { batch, from, until, made: None, progress: Progress::default() });
                vec![entry]
            }
            (Deed::Shed { chunks }, _) if it.cut_until < it.accepted => {
                let (from, place) = (it.cut_until, it.place(it.cut_until, false));
                let seq = (place.seq + 1 + u64::from(chunks)).min(it.chunks.len() as u64 + 1);
                let until = ChunkPlace { seq, index: 0 };
                it.cut_until = it.number(until);
                let events = it.cut_until - from;
                it.totals.shed += events;
                it.shed.push((from, it.cut_until));
                it.last_shed = Some(it.cut_until);
                it.pass();
                vec![Entry::Shed { tenant: id, from: place, until, events }]
            }
            (Deed::Make, Some(cut)) if !cut.progress.was_tried() => {
                let chunk = chunk(name, 1_000_000 + cut.from, cut.until - cut.from, 3);
                cut.made = Some(chunk.clone());
                vec![Entry::Made { batch: cut.batch.clone(), chunk }]
            }
            (Deed::Try, Some(cut)) if cut.progress.open().is_none() && cut.progress.given_up.is_none() => {
                let Some(store) = stores().find(|store| !cut.progress.is_done(store)) else { return vec![] };
                let attempt = Attempt(cut.progress.attempt(&store).0 + 1);
                cut.progress.intent(&store, attempt);
                vec![Entry::Intent { batch: cut.batch.clone(), store, attempt }]
            }
            (Deed::Undo, Some(cut)) if cut.progress.open().is_some() => {
                let store = cut.progress.open().unwrap().store.clone();
                let step = UndoStep { name: format!("step {}", cut.progress.undo.len()), data: vec![7] };
                cut.progress.register(&store, &step);
                vec![Entry::Undo { batch: cut.batch.clone(), store, step }]
            }
            (Deed::Fail, Some(cut)) if cut.progress.open().is_some() => {
                let Begun { store, attempt, .. } = cut.progress.open().unwrap().clone();
                cut.progress.failed(&store, attempt);
                vec![Entry::Failed { batch: cut.batch.clone(), store, attempt }]
            }
            (Deed::Done, Some(cut)) if cut.progress.open().is_some() => {
                let store = cut.progress.open().unwrap().store.clone();
                cut.progress.done(&store);
                vec![Entry::Done { batch: cut.batch.clone(), store }]
            }
            (Deed::GiveUp, Some(cut)) if cut.progress.given_up.is_none() => {
                let cause = Cause::new(Code::StorePermanent, "enough");
                cut.progress.give_up(&cause);
                vec![Entry::GivenUp { batch: cut.batch.clone(), cause }]
            }
            (Deed::Compensate { fails }, Some(cut))
                if cut.progress.given_up.is_some()
                    && (cut.progress.compensated as usize) < cut.progress.compensations().len() =>
            {
                let nth = cut.progress.compensated;
                let failed = fails.then(|| (Cause::new(Code::CompensationFailed, "stuck"), UnixMillis(8)));
                let owed = failed.clone().map(|(why, at)| cut.progress.uncompensated(&cut.batch, nth, why, at));
                it.uncompensated.extend(owed.flatten());
                cut.progress.compensated(nth);
                vec![Entry::Compensated { batch: cut.batch.clone(), nth, failed }]
            }
            (Deed::Undone, _) if !it.uncompensated.is_empty() => {
                let Uncompensated { batch, nth, .. } = it.uncompensated.remove(0);
                vec![Entry::Undone { batch, nth }]
            }
            // Only what is undone everywhere begins anew.
            (Deed::Again, Some(cut))
                if cut.progress.given_up.is_some() && it.uncompensated.iter().all(|owed| owed.batch != cut.batch) =>
            {
                cut.progress.again();
                vec![Entry::Again { batch: cut.batch.clone() }]
            }
            (Deed::Split { events }, Some(cut)) if cut.progress.given_up.is_some() && cut.until - cut.from > 1 => {
                let first = 1 + u64::from(events) % (cut.until - cut.from - 1);
                let Cut { batch, from, until, made, .. } = it.cuts.remove(0);
                let [a, b] = batch.halves().unwrap();
                let piece = |batch: BatchId, from, until| {
                    let made = made.as_ref().map(|_| chunk(name, 2_000_000 + from, until - from, 3));
                    Cut { batch, from, until, made, progress: Progress::default() }
                };
                it.cuts.insert(0, piece(b, from + first, until));
                it.cuts.insert(0, piece(a, from, from + first));
                let made = it.cuts[..2]
                    .iter()
                    .filter_map(|piece| Some(Entry::Made { batch: piece.batch.clone(), chunk: piece.made.clone()? }));
                [Entry::Split { batch, first: first as u32 }].into_iter().chain(made).collect()
            }
            (Deed::Settle { outcome }, Some(_)) => {
                let Cut { batch, from, until, .. } = it.cuts.remove(0);
                let events = until - from;
                it.settled = until;
                it.pass();
                let (total, outcome) = match outcome % 3 {
                    0 => (&mut it.totals.stored, Outcome::Stored),
                    1 => (&mut it.totals.dead_lettered, Outcome::DeadLettered),
                    _ => (&mut it.totals.discarded, Outcome::Discarded),
                };
                *total += events;
                it.totals.batches += u64::from(outcome == Outcome::Stored);
                vec![Entry::Settled { batch, outcome, events }]
            }
            (Deed::Door, _) => {
                it.door.muted += 1;
                vec![Entry::Door { tenant: id, totals: it.door }]
            }
            _ => vec![],
        }
    }

    /// Where what was recovered is not this; the chunks are read through `log`.
    pub(super) fn differs(&self, told: &Recovered, log: &Log) -> Result<(), String> {
        if !told.damage.is_empty() {
            return Err(format!("damage: {:?}", told.damage));
        }
        let streams: BTreeMap<_, _> =
            told.streams.iter().map(|left| (left.stream.to_string(), left.position)).collect();
        if streams != self.streams {
            return Err(format!("streams {streams:?}, not {:?}", self.streams));
        }
        let refused = told.streams.iter().flat_map(|left| left.refused.iter().map(move |run| (&left.stream, run)));
        let refused = refused.flat_map(|(stream, (first, last, code))| {
            (*first..=*last).map(move |position| ((stream.to_string(), position), *code))
        });
        same("refused", refused.collect::<BTreeMap<_, _>>(), self.refused.clone())?;
        let known = |it: &Tenant| !it.chunks.is_empty() || it.door != DoorTotals::default();
        let names = self.tenants.iter().filter(|(_, it)| known(it)).map(|(name, _)| name.as_str());
        if !names.eq(told.tenants.iter().map(|told| told.tenant.as_str())) {
            return Err("other tenants".to_owned());
        }
        told.tenants.iter().try_for_each(|told| {
            let it = &self.tenants[told.tenant.as_str()];
            it.differs(told, log).map_err(|why| format!("tenant {}: {why}", told.tenant))
        })
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}")) }
}

impl Tenant {
    fn differs(&self, told: &RecoveredTenant, log: &Log) -> Result<(), String> {
        same("totals", told.totals, BatchTotals { accepted: self.accepted, ..self.totals })?;
        same("door", told.door, self.door)?;
        same("next chunk", told.next_chunk, self.chunks.len() as u64 + 1)?;
        same("next batch", told.next_batch, Seq(self.next_batch + 1))?;
        same("settled", self.number(told.settled), self.settled)?;
        let first = self.place(self.settled, false).seq;
        let chunks: Vec<_> = told.chunks.iter().map(|chunk| (chunk.seq, u64::from(chunk.events))).collect();
        let live = (first..told.next_chunk).filter_map(|seq| {
            let begin = self.number(ChunkPlace { seq, index: 0 });
            let end = begin + self.chunks[seq as usize - 1].len() as u64;
            let shed = self.shed.iter().find(|(from, until)| *from < end && *until >= end);
            let end = shed.map_or(end, |(from, _)| end.min((*from).max(begin)));
            (end > begin).then_some((seq, end - begin))
        });
        same("chunks", chunks, live.collect())?;
        same("uncut", self.number(told.uncut), self.cut_until)?;
        let (told_unsettled, mut unsettled) =
            (told.chunks.iter().map(|chunk| told.unsettled(chunk).len() as u64), self.accepted - self.settled);
        unsettled -= self.shed.iter().map(|(from, until)| until - from).sum::<u64>();
        same("unsettled", told_unsettled.sum(), unsettled)?;
        let read = |told_chunk| {
            let place = log.ledger().find(&told.tenant, told_chunk).ok_or("a chunk without a place")?;
            match read_entry(&*log.disk, log.salt, place) {
                Ok(Some(Entry::Chunk { chunk, .. } | Entry::Made { chunk, .. })) => Ok(chunk),
                other => Err(format!("a chunk that cannot be read: {other:?}")),
            }
        };
        for chunk in &told.chunks {
            same("bytes", &*read(chunk)?, &*self.chunks[chunk.seq as usize - 1])?;
        }
        // What a spilled tenant asks for, from wherever it has come to.
        for (nth, chunk) in told.chunks.iter().enumerate() {
            let chunks = |bytes| log.ledger().chunks(&told.tenant, chunk.seq, bytes);
            // Up to a gap that was shed: what is spilled has none.
            let run = (chunk.seq..).zip(&told.chunks[nth..]).take_while(|(seq, next)| next.seq == *seq).count();
            same("chunks from one on", &chunks(usize::MAX)[..], &told.chunks[nth..nth + run])?;
            same("one chunk at least", &chunks(0)[..], &told.chunks[nth..=nth])?;
        }
        same("uncompensated", &told.uncompensated, &self.uncompensated)?;
        same("cuts", told.cuts.len(), self.cuts.len())?;
        for (told, cut) in told.cuts.iter().zip(&self.cuts) {
            same("batch", &told.batch, &cut.batch)?;
            same("bounds", (self.number(told.from), self.number(told.until)), (cut.from, cut.until))?;
            same("progress", &told.progress, &cut.progress)?;
            let made = told.made.as_ref().map(read).transpose()?;
            same("made", made.as_deref(), cut.made.as_deref())?;
        }
        Ok(())
    }
}
