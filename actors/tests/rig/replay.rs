//! What a record means: replayed entry by entry, in the simplest way that is right, and checked on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headworks_actors::{
    Attempt, BatchId, BatchTotals, Cause, Chunk, ChunkPlace, DoorTotals, Entry, Outcome, Recovered, RecoveredChunk,
    RecoveredCut, RecoveredStream, RecoveredTenant, Seq, StreamId, TenantId, UndoStep, UnixMillis,
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
    pub(crate) door: DoorTotals,
    pub(crate) totals: BatchTotals,
}

pub(crate) struct Cut {
    pub(crate) batch: BatchId,
    pub(crate) from: ChunkPlace,
    pub(crate) until: ChunkPlace,
    pub(crate) made: Option<(Arc<Chunk>, Place)>,
    pub(crate) attempt: Attempt,
    pub(crate) is_open: bool,
    pub(crate) undo: Vec<UndoStep>,
    pub(crate) given_up: Option<Cause>,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Default)]
pub(crate) struct Sender {
    pub(crate) mark: u64,
    pub(crate) at: Option<UnixMillis>,
    pub(crate) positions: BTreeSet<u64>,
}

/// What a journal keeps of a chunk: the origin only where a sender will ask for it.
pub(crate) fn without_passing_origin(chunk: &Chunk) -> Chunk {
    let Some(origin) = chunk.origin().filter(|origin| !origin.stream.is_lasting()) else { return chunk.clone() };
    assert_eq!(origin.positions.len(), chunk.len());
    let (bytes, times) = (chunk.bytes().to_vec(), chunk.times().to_vec());
    Chunk::from_parts(chunk.tenant().clone(), chunk.arrived(), bytes, chunk.ends(), times).unwrap()
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
        }
        replay
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
                    }
                }
            }
            Entry::Mark { stream, position, at } => {
                assert!(stream.is_lasting());
                let sender = self.streams.entry(stream.clone()).or_default();
                assert!(*position > sender.mark, "marks grow");
                (sender.mark, sender.at) = (*position, Some(*at));
            }
            Entry::Forget { stream } => drop(self.streams.remove(stream)),
            Entry::Cut { batch, from, until } => self.cut(batch, *from, *until),
            Entry::Made { batch, chunk } => {
                let events = self.events(batch);
                let front = self.front(batch);
                assert_eq!((front.attempt, chunk.len() as u64), (Attempt(1), events));
                front.made = Some((chunk.clone(), place));
            }
            // The first attempt goes on record with the cut.
            Entry::Intent { batch, attempt: attempt @ Attempt(1) } => {
                let tenant = self.tenants.get_mut(&batch.tenant).expect("the tenant is on record");
                let last = tenant.cuts.last_mut().expect("the batch was just cut");
                assert_eq!((&last.batch, last.attempt), (batch, Attempt(0)));
                (last.attempt, last.is_open) = (*attempt, true);
            }
            Entry::Intent { batch, attempt } => {
                let front = self.front(batch);
                assert!(front.given_up.is_none(), "what is given up is not tried again");
                assert_eq!(attempt.0, front.attempt.0 + 1, "attempts are numbered without a gap");
                (front.attempt, front.is_open) = (*attempt, true);
            }
            Entry::Undo { batch, step } => self.front(batch).undo.push(step.clone()),
            Entry::Failed { batch, attempt } => {
                let front = self.front(batch);
                assert_eq!((front.attempt, front.is_open), (*attempt, true));
                front.is_open = false;
            }
            Entry::GivenUp { batch, cause } => {
                let front = self.front(batch);
                assert!(front.given_up.is_none());
                (front.given_up, front.is_open) = (Some(cause.clone()), false);
            }
            Entry::Settled { batch, outcome, events } => {
                let cut = self.events(batch);
                let front = self.front(batch);
                front.outcome = Some(*outcome);
                assert!(*outcome != Outcome::DeadLettered || *events < cut || front.given_up.is_some());
                assert!(*outcome != Outcome::Stored || front.attempt.0 > 0, "nothing is stored without an intent");
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
        assert_eq!(batch.seq, Seq(tenant.cuts.len() as u64 + 1), "batches are numbered without a gap");
        tenant.cuts.push(Cut {
            batch: batch.clone(),
            from,
            until,
            made: None,
            attempt: Attempt(0),
            is_open: false,
            undo: vec![],
            given_up: None,
            outcome: None,
        });
    }

    /// How many events were cut into the batch.
    fn events(&self, batch: &BatchId) -> u64 {
        let tenant = &self.tenants[&batch.tenant];
        let cut = tenant.cuts.iter().find(|cut| cut.batch == *batch).expect("it was cut");
        let before = |place: ChunkPlace| {
            let chunks = tenant.chunks.iter().take(usize::try_from(place.seq - 1).unwrap());
            chunks.map(|(chunk, _)| chunk.len() as u64).sum::<u64>() + u64::from(place.index)
        };
        before(cut.until) - before(cut.from)
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let tenants = self.tenants.iter().map(|(id, tenant)| tenant.recovered(id)).collect();
        let streams = self.streams.iter().map(|(id, sender)| RecoveredStream {
            stream: id.clone(),
            position: sender.mark,
            at: sender.at.unwrap_or(UnixMillis(0)),
            ahead: sender.positions.range(sender.mark + 1..).map(|position| (*position, *position)).collect(),
        });
        Recovered { tenants, streams: streams.collect(), damage: vec![] }
    }
}

impl Tenant {
    fn behind(&self, place: ChunkPlace) -> ChunkPlace {
        let chunk = place.seq.checked_sub(1).and_then(|index| self.chunks.get(usize::try_from(index).ok()?));
        match chunk {
            Some((chunk, _)) if place.index as usize == chunk.len() => ChunkPlace { seq: place.seq + 1, index: 0 },
            _ => place,
        }
    }

    fn uncut(&self) -> ChunkPlace {
        self.cuts.last().map_or(ChunkPlace { seq: 1, index: 0 }, |cut| self.behind(cut.until))
    }

    fn recovered(&self, id: &TenantId) -> RecoveredTenant {
        let settled = self.cuts.iter().rfind(|cut| cut.outcome.is_some());
        let settled = settled.map_or(ChunkPlace { seq: 1, index: 0 }, |cut| self.behind(cut.until));
        let chunks = (1..).zip(&self.chunks).filter(|(seq, _)| *seq >= settled.seq);
        let cuts = self.cuts.iter().filter(|cut| cut.outcome.is_none()).map(|cut| RecoveredCut {
            batch: cut.batch.clone(),
            from: cut.from,
            until: cut.until,
            made: cut.made.as_ref().map(|made| recovered(0, made)),
            attempt: cut.attempt,
            is_open: cut.is_open,
            undo: cut.undo.clone(),
            given_up: cut.given_up.clone(),
        });
        RecoveredTenant {
            tenant: id.clone(),
            door: self.door,
            totals: self.totals,
            next_chunk: self.chunks.len() as u64 + 1,
            next_batch: Seq(self.cuts.len() as u64 + 1),
            settled,
            chunks: chunks.map(|(seq, chunk)| recovered(seq, chunk)).collect(),
            cuts: cuts.collect(),
        }
    }
}
