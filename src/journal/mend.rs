//! What is left of a tenant whose chunks were lost, pure: an order without holes, and no batch that claims to be whole.

use headworks_actors::{Cause, ChunkPlace, Code, TenantId};

use super::ledger::{Account, Ledger, Notes, Place};

impl Ledger {
    /// Ends a recovery: what was not found is lost, and the rest closes up, towards the next chunk.
    ///
    /// A batch that lost events and was never tried is cut anew; one that was tried is given up, so that its surviving events
    /// become dead letters and what may be of it in a store is rolled back.
    pub(super) fn mend(&mut self) {
        let mut released = Vec::new();
        for (tenant, account) in &mut self.tenants {
            mend(tenant, account, &mut self.notes, &mut released);
        }
        for place in released {
            self.release(place);
        }
    }
}

fn mend(tenant: &TenantId, account: &mut Account, notes: &mut Notes, released: &mut Vec<Place>) {
    let missing: u64 =
        account.chunks.iter().filter(|live| !live.place.is_found()).map(|live| u64::from(live.events)).sum();
    account.chunks.retain(|live| live.place.is_found());
    let expected = account.next_chunk.saturating_sub(account.settled.seq);
    let lost = expected.saturating_sub(account.chunks.len() as u64 + account.chunks_shed());
    if lost > 0 {
        notes.add(match missing {
            0 => format!("tenant {tenant} lost {lost} chunks of events"),
            _ => {
                format!("tenant {tenant} lost {lost} chunks of events, of which {missing} events are known to be lost")
            }
        });
    }

    let mut from = account.settled;
    if let Some(front) = account.cuts.front_mut() {
        // The chunk that ended there may be settled and gone.
        front.from = front.from.max(from);
    }
    let mut dropped = None;
    for at in 0..account.cuts.len() {
        from = account.behind_shed(from);
        let is_whole = account.cuts.get(at).is_some_and(|cut| {
            account.normal(cut.from) == account.normal(from) && account.is_whole(cut.from, cut.until)
        });
        let Some(cut) = account.cuts.get_mut(at) else { break };
        if is_whole && cut.made.is_none_or(|made| made.place.is_found()) {
            from = cut.until;
            continue;
        }
        if is_whole && !cut.progress.was_tried() {
            // The hooks will make it once more.
            cut.made = None;
            from = cut.until;
            continue;
        }
        // What was shed behind it stays so.
        if !cut.progress.was_tried() && account.shed.back().is_none_or(|(_, until)| *until <= from) {
            notes.add(format!("batch {} lost events and is cut anew under another id", cut.batch));
            dropped = Some(at);
            break;
        }
        let tried = if cut.progress.was_tried() { "was tried and " } else { "" };
        notes.add(format!("batch {} {tried}lost events: what is left of it becomes dead letters", cut.batch));
        let cause = || Cause::new(Code::JournalDamaged, "the journal is damaged where events of the batch lay");
        cut.progress.given_up.get_or_insert_with(cause);
        cut.made = cut.made.filter(|made| made.place.is_found());
        cut.from = from;
        cut.until = cut.until.max(from);
        from = cut.until;
    }
    if let Some(at) = dropped {
        for cut in account.cuts.drain(at..) {
            if cut.progress.was_tried() {
                notes.add(format!("batch {} was tried; its events will be stored under another id", cut.batch));
            }
            released.extend(cut.made.map(|made| made.place));
        }
    }
    if lost > 0 {
        account.close_up();
        account.cuts.retain(|cut| {
            let is_left = cut.from < cut.until;
            if !is_left {
                notes.add(format!("nothing is left of batch {}, which may be in its store", cut.batch));
                released.extend(cut.made.map(|made| made.place));
            }
            is_left
        });
    }
}

impl Account {
    fn chunk_at(&self, seq: u64) -> usize {
        self.chunks.partition_point(|live| live.seq < seq)
    }

    fn events_of(&self, seq: u64) -> Option<u32> {
        self.chunks.get(self.chunk_at(seq)).filter(|live| live.seq == seq).map(|live| live.events)
    }

    /// The same place, named by what follows it.
    fn normal(&self, place: ChunkPlace) -> ChunkPlace {
        match self.events_of(place.seq) {
            Some(events) if place.index >= events => ChunkPlace { seq: place.seq.saturating_add(1), index: 0 },
            _ => place,
        }
    }

    /// The same place, or the end of what was shed there.
    fn behind_shed(&self, place: ChunkPlace) -> ChunkPlace {
        let here = self.shed.iter().find(|(from, _)| self.normal(*from) == self.normal(place));
        here.map_or(place, |(_, until)| *until)
    }

    /// How many chunks are missing because they were shed.
    fn chunks_shed(&self) -> u64 {
        let shed = |(from, until): &(ChunkPlace, ChunkPlace)| until.seq.saturating_sub(self.normal(*from).seq);
        self.shed.iter().map(shed).sum()
    }

    /// Whether all chunks between the places are there.
    fn is_whole(&self, from: ChunkPlace, until: ChunkPlace) -> bool {
        let first = self.normal(from).seq;
        let present = self.chunk_at(until.seq.saturating_add(1)).saturating_sub(self.chunk_at(first)) as u64;
        from < until
            && until.index > 0
            && self.events_of(until.seq).is_some_and(|events| until.index <= events)
            && until.seq.checked_sub(first).is_some_and(|behind| present == behind + 1)
    }

    /// Numbers the chunks that are left without a hole, the last one right before the next.
    fn close_up(&mut self) {
        let base = self.next_chunk.saturating_sub(self.chunks.len() as u64);
        let begins = |account: &Self, place: ChunkPlace| {
            let at = account.chunk_at(place.seq);
            let index = account.events_of(place.seq).map_or(0, |events| place.index.min(events));
            ChunkPlace { seq: base + at as u64, index }
        };
        let ends = |account: &Self, place: ChunkPlace| {
            let at = account.chunk_at(place.seq);
            match (account.events_of(place.seq), at.checked_sub(1).and_then(|before| account.chunks.get(before))) {
                (Some(events), _) if place.index > 0 => {
                    ChunkPlace { seq: base + at as u64, index: place.index.min(events) }
                }
                (_, Some(before)) => ChunkPlace { seq: base + at as u64 - 1, index: before.events },
                (_, None) => ChunkPlace { seq: base, index: 0 },
            }
        };
        let settled = begins(self, self.settled);
        let shed = self.shed.iter().map(|(from, until)| (begins(self, *from), begins(self, *until)));
        let shed: Vec<_> = shed.collect();
        let bounds: Vec<_> = self.cuts.iter().map(|cut| (begins(self, cut.from), ends(self, cut.until))).collect();
        for (cut, (from, until)) in self.cuts.iter_mut().zip(bounds) {
            (cut.from, cut.until) = (from, until);
        }
        for (seq, live) in (base..).zip(&mut self.chunks) {
            live.seq = seq;
        }
        self.settled = settled;
        self.shed = shed.into_iter().filter(|(from, until)| from < until).collect();
    }
}
