//! What a record means: replayed entry by entry, in the simplest way that is right, and checked on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headworks_actors::{
    Attempt, BatchId, BatchTotals, Chunk, ChunkPlace, Code, DoorTotals, Entry, Outcome, Progress, Recovered,
    RecoveredChunk, RecoveredCut, RecoveredStream, RecoveredTenant, Seq, StreamId, TenantId, Uncompensated, UnixMillis,
};

type Place = (u64, u64);

#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) tenants: BTreeMap<TenantId, Tenant>,
    pub(crate) streams: BTreeMap<StreamId, Sender>,
}

#[derive(Default)]
pub(crate) struct Tenant {
    pub(crate) chunks: Vec<(Arc<Chunk>, Place)>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) shed: Vec<(ChunkPlace, ChunkPlace)>,
    pub(crate) uncompensated: Vec<Uncompensated>,
    pub(crate) door: DoorTotals,
    pub(crate) totals: BatchTotals,
}

pub(crate) struct Cut {
    pub(crate) batch: BatchId,
    pub(crate) from: ChunkPlace,
    pub(crate) until: ChunkPlace,
    pub(crate) made: Option<(Arc<Chunk>, Place)>,
    pub(crate) progress: Progress,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Default)]
pub(crate) struct Sender {
    pub(crate) mark: u64,
    pub(crate) at: Option<UnixMillis>,
    pub(crate) positions: BTreeSet<u64>,
    /// What was refused or shed, and may not have been heard of.
    pub(crate) refused: BTreeMap<u64, Code>,
    heard: u64,
}

/// What a journal keeps of a chunk: the origin only where a sender will ask for it. It is made of its parts, and takes the memory that
/// these take.
pub(crate) fn without_passing_origin(chunk: &Chunk) -> Chunk {
    let (bytes, times) = (chunk.bytes().to_vec(), chunk.times().to_vec());
    let read = Chunk::from_parts(chunk.tenant().clone(), chunk.arrived(), bytes, chunk.ends(), times).unwrap();
    let Some(origin) = chunk.origin() else { return read };
    assert_eq!(origin.positions.len(), chunk.len());
    if origin.stream.is_lasting() { read.with_origin(origin.clone()) } else { read }
}

fn recovered(seq: u64, (chunk, place): &(Arc<Chunk>, Place)) -> RecoveredChunk {
    let events = u32::try_from(chunk.len()).unwrap();
    RecoveredChunk { seq, events, bytes: chunk.footprint(), place: *place }
}

impl Replay {
    pub(crate) fn of(blocks: &[Vec<Entry>]) -> Self {
        let mut replay = Self::default();
        for (block, entries) in (0..).zip(blocks) {
            for (nth, entry) in (0..).zip(entries) {
                replay.entry(entry, (block, nth));
            }
            for entry in entries {
                replay.knows_what_was_shed(entry);
            }
        }
        replay
    }

    /// Who comes again is to be told.
    fn knows_what_was_shed(&self, entry: &Entry) {
        let Entry::Shed { tenant, from, until, .. } = entry else { return };
        let chunks = (1..).zip(&self.tenants[tenant].chunks).filter(|(seq, _)| (from.seq..until.seq).contains(seq));
        for (seq, (chunk, _)) in chunks {
            let Some(origin) = chunk.origin().filter(|origin| origin.stream.is_lasting()) else { continue };
            // It may be forgotten by now.
            let Some(sender) = self.streams.get(&origin.stream) else { continue };
            let begin = if seq == from.seq { from.index as usize } else { 0 };
            for position in origin.positions[begin..].iter().filter(|position| **position > sender.heard) {
                assert_eq!(sender.refused.get(position), Some(&Code::Shed), "{position} of {}", origin.stream);
            }
        }
    }

    /// The unsettled batch at the front of the tenant's order, which must be this one.
    fn front(&mut self, batch: &BatchId) -> &mut Cut {
        let tenant = self.tenants.get_mut(&batch.tenant).expect("the tenant is on record");
        let front = tenant.cuts.iter_mut().find(|cut| cut.outcome.is_none()).expect("a batch is in flight");
        assert_eq!(front.batch, *batch, "only the batch at the front is worked on");
        front
    }

    fn entry(&mut self, entry: &Entry, place: Place) {
        match entry {
            Entry::Chunk { seq, chunk } => {
                let tenant = self.tenants.entry(chunk.tenant().clone()).or_default();
                tenant.chunks.push((chunk.clone(), place));
                tenant.totals.accepted += chunk.len() as u64;
                assert_eq!(*seq, tenant.chunks.len() as u64, "chunks are numbered without a gap");
                if let Some(origin) = chunk.origin().filter(|origin| origin.stream.is_lasting()) {
                    let sender = self.streams.entry(origin.stream.clone()).or_default();
                    for position in &origin.positions {
                        let is_new = sender.positions.insert(*position) && *position > sender.mark;
                        assert!(is_new, "position {position} of {} is taken twice", origin.stream);
                        sender.refused.remove(position);
                    }
                }
            }
            Entry::Mark { stream, position, at } => {
                assert!(stream.is_lasting());
                let sender = self.streams.entry(stream.clone()).or_default();
                assert!(*position > sender.mark, "marks grow");
                (sender.mark, sender.at) = (*position, Some(*at));
            }
            Entry::Refused { stream, positions, code } => {
                let Some(sender) = self.streams.get_mut(stream) else { return };
                let positions = positions.iter().flat_map(|(first, last)| *first..=*last);
                for position in positions {
                    let is_dealt_with = position <= sender.mark || sender.positions.contains(&position);
                    assert!(is_dealt_with, "only what is dealt with is refused for good");
                    sender.refused.insert(position, *code);
                }
            }
            Entry::Heard { stream, position } => {
                let sender = self.streams.get_mut(stream).expect("the stream is on record");
                sender.heard = sender.heard.max(*position);
                sender.refused.retain(|refused, _| refused > position);
            }
            Entry::Forget { stream } => drop(self.streams.remove(stream)),
            Entry::Cut { batch, from, until } => self.cut(batch, *from, *until),
            Entry::Shed { tenant, from, until, events } => {
                let tenant = self.tenants.get_mut(tenant).expect("the tenant is on record");
                assert_eq!(*from, tenant.uncut(), "only the oldest of what is uncut is shed");
                assert!(from < until && until.index == 0 && until.seq <= tenant.chunks.len() as u64 + 1);
                assert_eq!(*events, tenant.before(*until) - tenant.before(*from));
                tenant.totals.shed += events;
                tenant.shed.push((*from, *until));
            }
            Entry::Made { batch, chunk } => {
                let events = self.events(batch);
                let tenant = self.tenants.get_mut(&batch.tenant).expect("the tenant is on record");
                let cut = tenant.cuts.iter_mut().find(|cut| cut.batch == *batch).expect("it was cut");
                assert_eq!(chunk.len() as u64, events, "hooks change bodies, not how many there are");
                let is_untried = cut.progress.steps.iter().all(|step| step.attempt == Attempt(1));
                assert!(is_untried && cut.progress.given_up.is_none(), "hooks run before the first attempt");
                cut.made = Some((chunk.clone(), place));
            }
            // The first attempt goes on record with the cut.
            Entry::Intent { batch, store, attempt } => {
                let tenant = self.tenants.get_mut(&batch.tenant).expect("the tenant is on record");
                let is_last = tenant.cuts.last().is_some_and(|last| last.batch == *batch);
                let cut = if *attempt == Attempt(1) && is_last && tenant.cuts.last().unwrap().progress.steps.is_empty()
                {
                    tenant.cuts.last_mut().unwrap()
                } else {
                    self.front(batch)
                };
                assert!(cut.progress.given_up.is_none(), "what is given up is not tried again");
                assert_eq!(attempt.0, cut.progress.attempt(store).0 + 1, "attempts are numbered without a gap");
                assert!(!cut.progress.is_done(store), "what a store has is not stored there again");
                cut.progress.intent(store, *attempt);
            }
            Entry::Undo { batch, store, step } => {
                let progress = &mut self.front(batch).progress;
                assert_eq!(progress.open().map(|step| &step.store), Some(store), "only an open attempt registers");
                progress.register(store, step);
            }
            Entry::Failed { batch, store, attempt } => {
                let progress = &mut self.front(batch).progress;
                assert_eq!(progress.open().map(|step| (&step.store, step.attempt)), Some((store, *attempt)));
                progress.failed(store, *attempt);
            }
            Entry::Done { batch, store } => {
                let progress = &mut self.front(batch).progress;
                assert_eq!(progress.open().map(|step| &step.store), Some(store));
                progress.done(store);
            }
            Entry::GivenUp { batch, cause } => {
                let progress = &mut self.front(batch).progress;
                assert!(progress.given_up.is_none());
                progress.give_up(cause);
            }
            Entry::Compensated { batch, nth, failed } => {
                let progress = &mut self.front(batch).progress;
                assert!(progress.given_up.is_some(), "only what is given up is compensated");
                assert_eq!(progress.compensated, *nth, "compensations run in their order, each once");
                let is_last_word = *nth as usize == progress.compensations().len();
                assert!((*nth as usize) < progress.compensations().len() || is_last_word && failed.is_none());
                let owed = failed.clone().and_then(|(why, at)| progress.uncompensated(batch, *nth, why, at));
                progress.compensated(*nth);
                self.tenants.get_mut(&batch.tenant).unwrap().uncompensated.extend(owed);
            }
            Entry::Undone { batch, nth } => {
                let owed = &mut self.tenants.get_mut(&batch.tenant).expect("the tenant is on record").uncompensated;
                let at = owed.iter().position(|owed| (&owed.batch, owed.nth) == (batch, *nth));
                owed.remove(at.expect("it is on the list"));
            }
            Entry::Again { batch } => {
                self.is_taken_back(batch);
                self.front(batch).progress.again();
            }
            Entry::Split { batch, first } => {
                self.is_taken_back(batch);
                self.split(batch, *first);
            }
            Entry::Settled { batch, outcome, events } => {
                let cut = self.events(batch);
                let front = self.front(batch);
                front.outcome = Some(*outcome);
                assert!(*outcome != Outcome::DeadLettered || *events < cut || front.progress.given_up.is_some());
                let may_be_dead = front.progress.is_condemned() || *events < cut;
                assert!(*outcome != Outcome::DeadLettered || may_be_dead, "no dead letter before there is no way back");
                let is_tried = !front.progress.steps.is_empty() && front.progress.given_up.is_none();
                assert!(*outcome != Outcome::Stored || is_tried, "nothing is stored without an intent");
                assert!(*events <= cut, "fewer only where a chunk was lost");
                let tenant = self.tenants.get_mut(&batch.tenant).unwrap();
                match outcome {
                    Outcome::Stored => {
                        tenant.totals.stored += events;
                        tenant.totals.batches += 1;
                    }
                    Outcome::DeadLettered => tenant.totals.dead_lettered += events,
                    Outcome::Discarded => tenant.totals.discarded += events,
                    other => panic!("{other:?} is no outcome that is known here"),
                }
            }
            Entry::Door { tenant, totals } => self.tenants.entry(tenant.clone()).or_default().door = *totals,
        }
    }

    fn cut(&mut self, batch: &BatchId, from: ChunkPlace, until: ChunkPlace) {
        let tenant = self.tenants.get_mut(&batch.tenant).expect("the tenant is on record");
        let uncut = tenant.uncut();
        let is_behind_a_lost_chunk = from.index == 0 && from > uncut;
        assert!(from == uncut || is_behind_a_lost_chunk, "a cut begins where the last one ended: {from:?}, {uncut:?}");
        assert!(until.index > 0 && until > from);
        assert!(until.index as usize <= tenant.chunks[usize::try_from(until.seq).unwrap() - 1].0.len());
        assert_eq!(batch.seq, Seq(tenant.next_batch()), "batches are numbered without a gap");
        tenant.cuts.push(Cut {
            batch: batch.clone(),
            from,
            until,
            made: None,
            progress: Progress::default(),
            outcome: None,
        });
    }

    /// What begins anew, whole or in pieces, must have been undone everywhere before.
    fn is_taken_back(&mut self, batch: &BatchId) {
        let progress = &self.front(batch).progress;
        assert!(progress.given_up.is_some());
        assert_eq!(progress.compensated as usize, progress.compensations().len(), "{batch} is not undone");
        let owed = &self.tenants[&batch.tenant].uncompensated;
        assert!(owed.iter().all(|owed| owed.batch != *batch), "{batch} is not undone");
    }

    fn split(&mut self, batch: &BatchId, first: u32) {
        let events = self.events(batch);
        assert!(first > 0 && u64::from(first) < events, "no half is empty");
        let tenant = self.tenants.get_mut(&batch.tenant).unwrap();
        let at = tenant.cuts.iter().position(|cut| cut.batch == *batch).unwrap();
        let cut = tenant.cuts.remove(at);
        let mut middle = cut.from;
        for _ in 0..first {
            middle = tenant.behind(middle);
            middle.index += 1;
        }
        let half =
            |batch, from, until| Cut { batch, from, until, made: None, progress: Progress::default(), outcome: None };
        let [a, b] = batch.halves().unwrap();
        tenant.cuts.insert(at, half(b, middle, cut.until));
        tenant.cuts.insert(at, half(a, cut.from, middle));
    }

    /// How many events were cut into the batch.
    fn events(&self, batch: &BatchId) -> u64 {
        let tenant = &self.tenants[&batch.tenant];
        let cut = tenant.cuts.iter().find(|cut| cut.batch == *batch).expect("it was cut");
        tenant.before(cut.until) - tenant.before(cut.from)
    }

    /// The unsettled chunks of the tenant from `seq` on, of so many bytes.
    pub(crate) fn chunks(&self, id: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk> {
        let Some(tenant) = self.tenants.get(id) else { return vec![] };
        let mut chunks = tenant.recovered(id).chunks;
        chunks.retain(|chunk| chunk.seq >= seq);
        if chunks.first().is_none_or(|first| first.seq != seq) {
            return vec![];
        }
        let mut taken = 0;
        chunks
            .into_iter()
            .enumerate()
            .take_while(|(nth, chunk)| {
                taken += chunk.bytes;
                *nth == 0 || taken <= bytes
            })
            .map(|(_, chunk)| chunk)
            .collect()
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let tenants = self.tenants.iter().map(|(id, tenant)| tenant.recovered(id)).collect();
        let streams = self.streams.iter().map(|(id, sender)| RecoveredStream {
            stream: id.clone(),
            position: sender.mark,
            at: sender.at.unwrap_or(UnixMillis(0)),
            ahead: sender.positions.range(sender.mark + 1..).map(|position| (*position, *position)).collect(),
            refused: sender.refused.iter().map(|(position, code)| (*position, *position, *code)).collect(),
        });
        Recovered { tenants, streams: streams.collect(), damage: vec![] }
    }
}

impl Tenant {
    fn before(&self, place: ChunkPlace) -> u64 {
        let chunks = self.chunks.iter().take(usize::try_from(place.seq - 1).unwrap());
        chunks.map(|(chunk, _)| chunk.len() as u64).sum::<u64>() + u64::from(place.index)
    }

    fn behind(&self, place: ChunkPlace) -> ChunkPlace {
        let chunk = place.seq.checked_sub(1).and_then(|index| self.chunks.get(usize::try_from(index).ok()?));
        match chunk {
            Some((chunk, _)) if place.index as usize == chunk.len() => ChunkPlace { seq: place.seq + 1, index: 0 },
            _ => place,
        }
    }

    fn next_batch(&self) -> u64 {
        self.cuts.last().map_or(1, |cut| cut.batch.seq.0 + 1)
    }

    fn uncut(&self) -> ChunkPlace {
        let cut = self.cuts.last().map_or(ChunkPlace { seq: 1, index: 0 }, |cut| self.behind(cut.until));
        self.shed.last().map_or(cut, |(_, until)| cut.max(*until))
    }

    fn recovered(&self, id: &TenantId) -> RecoveredTenant {
        let settled = self.cuts.iter().rfind(|cut| cut.outcome.is_some());
        let settled = settled.map_or(ChunkPlace { seq: 1, index: 0 }, |cut| self.behind(cut.until));
        let hop = |settled, (from, until): &(ChunkPlace, ChunkPlace)| if *from == settled { *until } else { settled };
        let settled = self.shed.iter().fold(settled, hop);
        // Where a chunk ends that was shed, in part or as a whole.
        let end = |seq: u64| {
            self.shed
                .iter()
                .find(|(from, until)| (from.seq..until.seq).contains(&seq))
                .map(|(from, _)| if from.seq == seq { from.index } else { 0 })
        };
        let chunks = (1..).zip(&self.chunks).filter(|(seq, _)| *seq >= settled.seq).filter_map(|(seq, chunk)| {
            let told = recovered(seq, chunk);
            let events = end(seq).unwrap_or(told.events);
            (events > 0).then_some(RecoveredChunk { events, ..told })
        });
        let cuts = self.cuts.iter().filter(|cut| cut.outcome.is_none()).map(|cut| RecoveredCut {
            batch: cut.batch.clone(),
            from: cut.from,
            until: cut.until,
            made: cut.made.as_ref().map(|made| recovered(0, made)),
            progress: cut.progress.clone(),
        });
        RecoveredTenant {
            tenant: id.clone(),
            door: self.door,
            totals: self.totals,
            next_chunk: self.chunks.len() as u64 + 1,
            next_batch: Seq(self.next_batch()),
            settled,
            uncut: self.uncut(),
            chunks: chunks.collect(),
            cuts: cuts.collect(),
            uncompensated: self.uncompensated.clone(),
        }
    }
}
