//! A lane of an earlier process: its numbers, and its events as they are read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Lane, Rest};
use crate::model::{Batch, Chunk, Part};
use crate::port::work::{Waiting, Work, of_made};
use crate::port::{ChunkPlace, Entry, RecoveredCut, RecoveredTenant};

/// The chunks and cuts that an earlier process left of a tenant, read back.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    /// By seq. What is missing is lost.
    pub(crate) chunks: BTreeMap<u64, Chunk>,
    pub(crate) cuts: Vec<(RecoveredCut, Option<Chunk>)>,
}

impl Lane {
    /// Takes over the numbers of an earlier process; its events are to be [read back](Self::read_back).
    pub(crate) fn restore(&self, left: &RecoveredTenant) {
        let mut state = self.lock();
        state.go_on(&Rest::recovered(left));
        state.owe(left);
    }

    /// Takes back the events of an earlier process, before any others: batches that it had cut under their old ids, with what
    /// is known of attempts to store them, and the rest as the open window. The chunks from `later` on stay in the journal, as
    /// if they had been spilled. Returns how many events are lost, and the memory of the chunks that lie in batches.
    pub(crate) fn read_back(&self, back: ReadBack, left: &RecoveredTenant, later: usize, now: Instant) -> (u64, usize) {
        let mut state = self.lock();
        let (read, later) = left.chunks.split_at(later.min(left.chunks.len()));
        let settled = left.settled;
        let (begin, next) = (settled.seq.max(1), later.first().map_or(state.first, |chunk| chunk.seq));
        let spilled = state.first - next;
        let mut chunks = back.chunks;
        let mut lost_chunks = BTreeSet::new();
        let chunks: Vec<_> = (begin..next)
            .map(|seq| {
                chunks.remove(&seq).map(Arc::new).unwrap_or_else(|| {
                    lost_chunks.insert(seq);
                    Arc::new(Chunk::lost(self.tenant.clone()))
                })
            })
            .collect();
        let at = |seq: u64| chunks.get(usize::try_from(seq.checked_sub(begin)?).ok()?);
        let part = |seq: u64, from: ChunkPlace, until: ChunkPlace| {
            let chunk = at(seq)?;
            let begin = if seq == from.seq { from.index as usize } else { 0 };
            let end = if seq == until.seq { until.index as usize } else { chunk.len() };
            let range = begin.min(chunk.len())..end.min(chunk.len());
            // Between two chunks a place has two names: a part that only ends the chunk before would give its memory back again.
            (!range.is_empty()).then(|| Part { chunk: chunk.clone(), range })
        };
        let mut place = ChunkPlace { seq: begin, ..settled };
        for (nth, (cut, made)) in back.cuts.into_iter().enumerate() {
            let seqs = cut.from.seq..=cut.until.seq;
            let batch =
                Batch::new(cut.batch.clone(), seqs.clone().filter_map(|seq| part(seq, cut.from, cut.until)).collect());
            let is_whole = lost_chunks.range(seqs).next().is_none() && made.is_some() == cut.made.is_some();
            place = cut.until;
            state.cut += batch.len() as u64;
            let made = made.filter(|_| is_whole).map(|made| of_made(&cut, made));
            // Its first attempt went on record with the cut, and one that was not in front was never made.
            let intended = cut.progress.steps.first().map(|step| step.store.clone());
            let waiting = Waiting { batch, made, intended, recorded: None, cut_at: now, is_whole };
            if nth == 0 && (cut.progress.was_tried() || cut.made.is_some()) {
                let work = Work::found(&cut, &waiting);
                state.work = Some(self.given_up_on_record(&cut, work).into());
            }
            state.batches.push_back(waiting);
        }
        if at(place.seq).is_some_and(|chunk| place.index as usize >= chunk.len()) {
            place = ChunkPlace { seq: place.seq + 1, index: 0 };
        }
        // What lies between was shed.
        place = place.max(left.uncut);
        state.first = place.seq;
        state.cut_of_first = place.index as usize;
        state.turn += 1;
        for (seq, chunk) in (begin..next).zip(chunks).skip_while(|(seq, _)| *seq < place.seq) {
            if lost_chunks.contains(&seq) {
                let events = read.iter().find(|chunk| chunk.seq == seq).map_or(0, |chunk| chunk.events);
                state.lose(self, events, now);
                continue;
            }
            let cut = if seq == place.seq { place.index as usize } else { 0 };
            if cut >= chunk.len() {
                continue;
            }
            state.chunks.cut(cut, chunk.body_bytes_of(0..cut));
            // One that is in a batch as well is copied. The copy is what is measured when it is settled: its memory is not the same.
            state.chunks.push(Arc::unwrap_or_clone(chunk), now);
        }
        state.spill.left(spilled, later);
        let uncut = state.chunks.sums();
        let lost =
            std::mem::take(&mut state.unread).saturating_sub(uncut.events as u64 + state.cut + state.spill.events);
        state.counters.accepted -= lost;
        state.counters.received -= lost;
        let cut_bytes = state.batches.iter().map(|waiting| waiting.batch.footprint()).sum();
        let bytes = cut_bytes + uncut.footprint;
        self.holds(state.bytes, bytes);
        state.bytes = bytes;
        (lost, cut_bytes)
    }

    /// What is given up only now goes on record: the next process may be able to read what this one could not.
    fn given_up_on_record(&self, cut: &RecoveredCut, mut work: Work) -> Work {
        if let (Some(cause), None, true) = (&work.last_cause, &cut.progress.given_up, work.is_given_up()) {
            let (batch, cause) = (cut.batch.clone(), cause.clone());
            work.recording = self.record(|| Entry::GivenUp { batch, cause });
        }
        work
    }
}
