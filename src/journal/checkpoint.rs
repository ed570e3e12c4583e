//! The ledger's small part as of one block: everything but the bytes of the events. Where segments are removed, it is all
//! that is left of them.
//!
//! It is kept twice, each copy written anew, synced and renamed, so that one damaged file loses nothing.

use std::collections::VecDeque;

use headworks_actors::{Attempt, BatchTotals, Begun, Compensation, Progress, Seq, StepState, StoreName, Uncompensated};

use super::entry::{
    batch, cause, code, door, piece, place, put_batch, put_cause, put_code, put_door, put_place, put_run, put_step,
    put_store, run, step, store,
};
use super::format::{BadPrefix, CHECKPOINT, PREFIX, check_prefix, put_prefix, u32_at, u64_at};
use super::ledger::{Account, Cut, Ledger, Live, Place, Stream};
use super::wire::{Malformed, Reader, put_bytes, put_i64, put_u64};

/// The names of the two copies.
pub(super) const NAMES: [&str; 2] = ["checkpoint", "checkpoint.copy"];
/// A copy in the making.
pub(super) const FRESH: &str = "checkpoint.new";

/// A segment as far as it was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The number of its first block.
    pub(super) first: u64,
    /// The number behind that of its last one.
    pub(super) next: u64,
    /// Its length, in bytes.
    pub(super) len: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Checkpoint {
    pub(super) salt: u64,
    /// How many were written before it.
    pub(super) generation: u64,
    /// The first block that is not in it.
    pub(super) next_block: u64,
    /// The first segment that was not begun.
    pub(super) next_segment: u64,
    /// Whether the journal was closed with it.
    pub(super) is_closed: bool,
    /// The segments that are needed.
    pub(super) segments: Vec<Segment>,
    /// Damaged segments whose rest lies elsewhere: to be set aside.
    pub(super) damaged: Vec<u64>,
    pub(super) ledger: Ledger,
}

impl Checkpoint {
    /// The file. Takes the ledger apart from the rest, so that none is copied for it.
    pub(super) fn put(&self, ledger: &Ledger) -> Vec<u8> {
        let mut to = Vec::new();
        put_prefix(&mut to, CHECKPOINT);
        to.extend_from_slice(&[0; 8]);
        put_u64(&mut to, self.salt);
        put_u64(&mut to, self.generation);
        put_u64(&mut to, self.next_block);
        put_u64(&mut to, self.next_segment);
        to.push(self.is_closed.into());
        put_u64(&mut to, self.segments.len() as u64);
        for Segment { number, first, next, len } in &self.segments {
            for field in [number, first, next, len] {
                put_u64(&mut to, *field);
            }
        }
        put_u64(&mut to, self.damaged.len() as u64);
        for number in &self.damaged {
            put_u64(&mut to, *number);
        }
        put_ledger(&mut to, ledger);
        let len = (to.len() - PREFIX - 8) as u64;
        to[PREFIX..PREFIX + 8].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c(&to);
        to.extend_from_slice(&crc.to_le_bytes());
        to
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, BadPrefix> {
        let version = check_prefix(bytes, CHECKPOINT)?;
        let at = bytes.len().checked_sub(4).ok_or(BadPrefix::Damaged)?;
        let is_whole = at >= PREFIX + 8
            && u64_at(bytes, PREFIX) == (at - PREFIX - 8) as u64
            && u32_at(bytes, at) == crc32c::crc32c(&bytes[..at]);
        if !is_whole {
            return Err(BadPrefix::Damaged);
        }
        Self::body(Reader { bytes: &bytes[PREFIX + 8..at], version }).map_err(|Malformed| BadPrefix::Damaged)
    }

    fn body(mut from: Reader<'_>) -> Result<Self, Malformed> {
        let mut checkpoint = Self {
            salt: from.u64()?,
            generation: from.u64()?,
            next_block: from.u64()?,
            next_segment: from.u64()?,
            is_closed: from.flag()?,
            ..Self::default()
        };
        for _ in 0..from.count()? {
            let (number, first, next, len) = (from.u64()?, from.u64()?, from.u64()?, from.u64()?);
            checkpoint.segments.push(Segment { number, first, next, len });
        }
        for _ in 0..from.count()? {
            checkpoint.damaged.push(from.u64()?);
        }
        checkpoint.ledger = ledger(&mut from)?;
        from.end()?;
        Ok(checkpoint)
    }
}

fn put_ledger(to: &mut Vec<u8>, ledger: &Ledger) {
    put_u64(to, ledger.streams.len() as u64);
    for (id, Stream { position, at, ahead, refused }) in &ledger.streams {
        put_bytes(to, id.as_str().as_bytes());
        put_u64(to, *position);
        put_i64(to, at.0);
        put_u64(to, ahead.len() as u64);
        for range in ahead.iter() {
            put_run(to, (*range.start(), *range.end()));
        }
        put_u64(to, refused.len() as u64);
        for (range, code) in refused.iter() {
            put_run(to, (*range.start(), *range.end()));
            put_code(to, *code);
        }
    }
    put_u64(to, ledger.tenants.len() as u64);
    for (tenant, account) in &ledger.tenants {
        put_bytes(to, tenant.as_str().as_bytes());
        put_account(to, account);
    }
}

fn ledger(from: &mut Reader<'_>) -> Result<Ledger, Malformed> {
    let mut ledger = Ledger::default();
    for _ in 0..from.count()? {
        let id = from.stream()?;
        let mut stream = Stream { position: from.u64()?, at: from.time()?, ..Stream::default() };
        for _ in 0..from.count()? {
            let (first, last) = run(from)?;
            stream.ahead.insert(first..=last);
        }
        if from.version > 3 {
            for _ in 0..from.count()? {
                let (first, last) = run(from)?;
                stream.refused.insert(first..=last, code(from)?);
            }
        }
        ledger.streams.insert(id, stream);
    }
    for _ in 0..from.count()? {
        let tenant = from.tenant()?;
        ledger.tenants.insert(tenant, account(from)?);
    }
    Ok(ledger)
}

fn put_account(to: &mut Vec<u8>, account: &Account) {
    put_door(to, &account.door);
    let BatchTotals { accepted: _, stored, dead_lettered, discarded, shed, batches } = account.outcomes;
    let (last_settled, piece) = account.last_settled;
    let fields = [account.next_chunk, account.next_batch, last_settled.0, piece.number()];
    for field in [stored, dead_lettered, discarded, batches].into_iter().chain(fields) {
        put_u64(to, field);
    }
    put_place(to, account.settled);
    put_u64(to, account.chunks.len() as u64);
    let mut last = 0;
    for live in &account.chunks {
        put_u64(to, live.seq.wrapping_sub(last));
        last = live.seq;
        put_live(to, live);
    }
    put_u64(to, account.cuts.len() as u64);
    for cut in &account.cuts {
        put_batch(to, &cut.batch);
        put_place(to, cut.from);
        put_place(to, cut.until);
        to.push(cut.made.is_some().into());
        if let Some(made) = &cut.made {
            put_live(to, made);
        }
        put_progress(to, &cut.progress);
    }
    put_u64(to, account.uncompensated.len() as u64);
    for owed in &account.uncompensated {
        put_uncompensated(to, owed);
    }
    put_u64(to, shed);
    put_u64(to, account.shed.len() as u64);
    for (from, until) in &account.shed {
        put_place(to, *from);
        put_place(to, *until);
    }
}

fn put_progress(to: &mut Vec<u8>, progress: &Progress) {
    put_u64(to, progress.steps.len() as u64);
    for Begun { store, attempt, state } in &progress.steps {
        put_store(to, store);
        put_u64(to, attempt.0.into());
        to.push(match state {
            StepState::Open => 0,
            StepState::Failed => 1,
            StepState::Done => 2,
            StepState::RolledBack => 3,
        });
    }
    put_u64(to, progress.undo.len() as u64);
    for (store, step) in &progress.undo {
        put_store(to, store);
        put_step(to, step);
    }
    to.push(progress.given_up.is_some().into());
    if let Some(cause) = &progress.given_up {
        put_cause(to, cause);
    }
    put_u64(to, progress.compensated.into());
}

fn progress(from: &mut Reader<'_>) -> Result<Progress, Malformed> {
    if from.version == 1 {
        return progress_of_1(from);
    }
    let mut progress = Progress::default();
    for _ in 0..from.count()? {
        let (store, attempt) = (store(from)?, Attempt(from.u32()?));
        let state = match from.byte()? {
            0 => StepState::Open,
            1 => StepState::Failed,
            2 => StepState::Done,
            3 => StepState::RolledBack,
            _ => return Err(Malformed),
        };
        progress.steps.push(Begun { store, attempt, state });
    }
    for _ in 0..from.count()? {
        progress.undo.push((store(from)?, step(from)?));
    }
    progress.given_up = if from.flag()? { Some(cause(from)?) } else { None };
    progress.compensated = from.u32()?;
    Ok(progress)
}

/// The last attempt in the only store, whether it is open, its undo steps, and why the batch was given up.
fn progress_of_1(from: &mut Reader<'_>) -> Result<Progress, Malformed> {
    let (attempt, is_open) = (Attempt(from.u32()?), from.flag()?);
    let mut progress = Progress::default();
    if attempt.0 > 0 {
        let state = if is_open { StepState::Open } else { StepState::Failed };
        progress.steps.push(Begun { store: StoreName::ONLY, attempt, state });
    }
    for _ in 0..from.count()? {
        progress.undo.push((StoreName::ONLY, step(from)?));
    }
    progress.given_up = if from.flag()? { Some(cause(from)?) } else { None };
    Ok(progress)
}

fn put_uncompensated(to: &mut Vec<u8>, owed: &Uncompensated) {
    put_batch(to, &owed.batch);
    put_u64(to, owed.nth.into());
    put_store(to, &owed.store);
    match &owed.compensation {
        Compensation::Rollback(attempt) => {
            to.push(0);
            put_u64(to, attempt.0.into());
        }
        Compensation::Undo(undo) => {
            to.push(1);
            put_step(to, undo);
        }
    }
    put_cause(to, &owed.cause);
    put_i64(to, owed.since.0);
}

fn uncompensated(from: &mut Reader<'_>) -> Result<Uncompensated, Malformed> {
    let (batch, nth, store) = (batch(from)?, from.u32()?, store(from)?);
    let compensation = match from.byte()? {
        0 => Compensation::Rollback(Attempt(from.u32()?)),
        1 => Compensation::Undo(step(from)?),
        _ => return Err(Malformed),
    };
    let (cause, since) = (cause(from)?, from.time()?);
    Ok(Uncompensated { batch, nth, store, compensation, cause, since, tries: 0, next_at: None })
}

fn account(from: &mut Reader<'_>) -> Result<Account, Malformed> {
    let door = door(from)?;
    let outcomes = BatchTotals {
        accepted: 0,
        stored: from.u64()?,
        dead_lettered: from.u64()?,
        discarded: from.u64()?,
        shed: 0,
        batches: from.u64()?,
    };
    let (next_chunk, next_batch, last_settled) = (from.u64()?, from.u64()?, (Seq(from.u64()?), piece(from)?));
    let settled = place(from)?;
    let mut chunks = VecDeque::new();
    let mut seq = 0_u64;
    for _ in 0..from.count()? {
        seq = seq.wrapping_add(from.u64()?);
        chunks.push_back(live(from, seq)?);
    }
    let mut cuts = VecDeque::new();
    for _ in 0..from.count()? {
        let batch = batch(from)?;
        let seq = batch.seq.0;
        cuts.push_back(Cut {
            batch,
            from: place(from)?,
            until: place(from)?,
            made: if from.flag()? { Some(live(from, seq)?) } else { None },
            progress: progress(from)?,
        });
    }
    let mut account =
        Account { door, outcomes, next_chunk, next_batch, last_settled, settled, chunks, cuts, ..Account::default() };
    if from.version > 1 {
        for _ in 0..from.count()? {
            account.uncompensated.push(uncompensated(from)?);
        }
    }
    if from.version > 2 {
        account.outcomes.shed = from.u64()?;
        for _ in 0..from.count()? {
            account.shed.push_back((place(from)?, place(from)?));
        }
    }
    Ok(account)
}

/// Where it lies is not kept: the segments tell.
fn put_live(to: &mut Vec<u8>, live: &Live) {
    put_u64(to, live.seq.wrapping_sub(live.written));
    put_u64(to, live.events.into());
    put_u64(to, live.bytes as u64);
}

fn live(from: &mut Reader<'_>, seq: u64) -> Result<Live, Malformed> {
    let written = seq.wrapping_sub(from.u64()?);
    let events = from.u32()?;
    let bytes = usize::try_from(from.u64()?).map_err(|_| Malformed)?;
    Ok(Live { seq, written, events, bytes, place: Place::NOWHERE })
}
