//! Entries to bytes and back, pure. A kind that this version does not know is malformed: a new kind is a new format version.
//!
//! Version 1 knew one store a tenant and no pieces of a batch. What names a batch has another kind since then, so that an entry says by
//! itself how it is read. Version 3 knows events that were shed, version 4 which frames were refused.

use std::sync::Arc;

use headworks_actors::{
    Attempt, BatchId, Cause, Chunk, ChunkPlace, Code, DoorTotals, Entry, Opening, Origin, Outcome, Piece, Seq,
    StoreName, UndoStep, UnixMillis,
};

use super::format::VERSION;
use super::wire::{Malformed, Reader, put_bytes, put_i64, put_u64};

const CHUNK: u8 = 1;
const MARK: u8 = 2;
const CUT: u8 = 3;
const MADE: u8 = 4;
const INTENT: u8 = 5;
const UNDO: u8 = 6;
const FAILED: u8 = 7;
const GIVEN_UP: u8 = 8;
const SETTLED: u8 = 9;
const DOOR: u8 = 10;
const FORGET: u8 = 11;
const DONE: u8 = 12;
const COMPENSATED: u8 = 13;
const UNDONE: u8 = 14;
const AGAIN: u8 = 15;
const SPLIT: u8 = 16;
const SHED: u8 = 17;
const REFUSED: u8 = 18;
const HEARD: u8 = 19;

/// Added to the kinds of version 1 that name a batch, since version 2.
const SINCE_2: u8 = 32;

pub(super) fn encode(entry: &Entry, to: &mut Vec<u8>) {
    match entry {
        Entry::Chunk { seq, chunk } => {
            to.push(CHUNK);
            put_u64(to, *seq);
            put_chunk(to, chunk);
        }
        Entry::Mark { stream, position, at } => {
            to.push(MARK);
            put_bytes(to, stream.as_str().as_bytes());
            put_u64(to, *position);
            put_i64(to, at.0);
        }
        Entry::Cut { batch, from, until } => {
            to.push(CUT | SINCE_2);
            put_batch(to, batch);
            put_place(to, *from);
            put_place(to, *until);
        }
        Entry::Shed { tenant, from, until, events } => {
            to.push(SHED);
            put_bytes(to, tenant.as_str().as_bytes());
            put_place(to, *from);
            put_place(to, *until);
            put_u64(to, *events);
        }
        Entry::Made { batch, chunk } => {
            to.push(MADE | SINCE_2);
            put_batch(to, batch);
            put_chunk(to, chunk);
        }
        Entry::Intent { batch, store, attempt } => {
            to.push(INTENT | SINCE_2);
            put_batch(to, batch);
            put_store(to, store);
            put_u64(to, attempt.0.into());
        }
        Entry::Undo { batch, store, step } => {
            to.push(UNDO | SINCE_2);
            put_batch(to, batch);
            put_store(to, store);
            put_step(to, step);
        }
        Entry::Failed { batch, store, attempt } => {
            to.push(FAILED | SINCE_2);
            put_batch(to, batch);
            put_store(to, store);
            put_u64(to, attempt.0.into());
        }
        Entry::Done { batch, store } => {
            to.push(DONE | SINCE_2);
            put_batch(to, batch);
            put_store(to, store);
        }
        Entry::GivenUp { batch, cause } => {
            to.push(GIVEN_UP | SINCE_2);
            put_batch(to, batch);
            put_cause(to, cause);
        }
        Entry::Compensated { batch, nth, failed } => {
            to.push(COMPENSATED | SINCE_2);
            put_batch(to, batch);
            put_u64(to, (*nth).into());
            to.push(failed.is_some().into());
            if let Some((cause, at)) = failed {
                put_cause(to, cause);
                put_i64(to, at.0);
            }
        }
        Entry::Undone { batch, nth } => {
            to.push(UNDONE | SINCE_2);
            put_batch(to, batch);
            put_u64(to, (*nth).into());
        }
        Entry::Again { batch } => {
            to.push(AGAIN | SINCE_2);
            put_batch(to, batch);
        }
        Entry::Split { batch, first } => {
            to.push(SPLIT | SINCE_2);
            put_batch(to, batch);
            put_u64(to, (*first).into());
        }
        Entry::Settled { batch, outcome, events } => {
            to.push(SETTLED | SINCE_2);
            put_batch(to, batch);
            to.push(match outcome {
                Outcome::Stored => 0,
                Outcome::DeadLettered => 1,
                // The type may grow; its events are neither in the store nor kept, as of one that was discarded.
                Outcome::Discarded | _ => 2,
            });
            put_u64(to, *events);
        }
        Entry::Refused { stream, positions, code } => {
            to.push(REFUSED);
            put_bytes(to, stream.as_str().as_bytes());
            put_code(to, *code);
            put_u64(to, positions.len() as u64);
            positions.iter().for_each(|run| put_run(to, *run));
        }
        Entry::Heard { stream, position } => {
            to.push(HEARD);
            put_bytes(to, stream.as_str().as_bytes());
            put_u64(to, *position);
        }
        Entry::Forget { stream } => {
            to.push(FORGET);
            put_bytes(to, stream.as_str().as_bytes());
        }
        Entry::Door { tenant, totals } => {
            to.push(DOOR);
            put_bytes(to, tenant.as_str().as_bytes());
            put_door(to, totals);
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Entry, Malformed> {
    let mut from = Reader { bytes, version: VERSION };
    let kind = from.byte()?;
    let is_newer = kind & SINCE_2 != 0;
    from.version = if is_newer { VERSION } else { 1 };
    let entry = match kind & !SINCE_2 {
        CHUNK | MARK | FORGET | DOOR | SHED | REFUSED | HEARD if is_newer => return Err(Malformed),
        DONE | COMPENSATED | UNDONE | AGAIN | SPLIT if !is_newer => return Err(Malformed),
        CHUNK => Entry::Chunk { seq: from.u64()?, chunk: Arc::new(chunk(&mut from)?) },
        MARK => Entry::Mark { stream: from.stream()?, position: from.u64()?, at: from.time()? },
        CUT => Entry::Cut { batch: batch(&mut from)?, from: place(&mut from)?, until: place(&mut from)? },
        SHED => Entry::Shed {
            tenant: from.tenant()?,
            from: place(&mut from)?,
            until: place(&mut from)?,
            events: from.u64()?,
        },
        MADE => Entry::Made { batch: batch(&mut from)?, chunk: Arc::new(chunk(&mut from)?) },
        INTENT => Entry::Intent { batch: batch(&mut from)?, store: store(&mut from)?, attempt: Attempt(from.u32()?) },
        UNDO => Entry::Undo { batch: batch(&mut from)?, store: store(&mut from)?, step: step(&mut from)? },
        FAILED => Entry::Failed { batch: batch(&mut from)?, store: store(&mut from)?, attempt: Attempt(from.u32()?) },
        DONE => Entry::Done { batch: batch(&mut from)?, store: store(&mut from)? },
        COMPENSATED => Entry::Compensated {
            batch: batch(&mut from)?,
            nth: from.u32()?,
            failed: if from.flag()? { Some((cause(&mut from)?, from.time()?)) } else { None },
        },
        UNDONE => Entry::Undone { batch: batch(&mut from)?, nth: from.u32()? },
        AGAIN => Entry::Again { batch: batch(&mut from)? },
        SPLIT => Entry::Split { batch: batch(&mut from)?, first: from.u32()? },
        GIVEN_UP => Entry::GivenUp { batch: batch(&mut from)?, cause: cause(&mut from)? },
        SETTLED => Entry::Settled {
            batch: batch(&mut from)?,
            outcome: match from.byte()? {
                0 => Outcome::Stored,
                1 => Outcome::DeadLettered,
                2 => Outcome::Discarded,
                _ => return Err(Malformed),
            },
            events: from.u64()?,
        },
        REFUSED => Entry::Refused {
            stream: from.stream()?,
            code: code(&mut from)?,
            positions: (0..from.count()?).map(|_| run(&mut from)).collect::<Result<_, _>>()?,
        },
        HEARD => Entry::Heard { stream: from.stream()?, position: from.u64()? },
        FORGET => Entry::Forget { stream: from.stream()? },
        DOOR => Entry::Door { tenant: from.tenant()?, totals: door(&mut from)? },
        _ => return Err(Malformed),
    };
    from.end()?;
    Ok(entry)
}

pub(super) fn put_batch(to: &mut Vec<u8>, batch: &BatchId) {
    to.extend_from_slice(&batch.opening.0.to_le_bytes());
    put_bytes(to, batch.tenant.as_str().as_bytes());
    put_u64(to, batch.seq.0);
    put_u64(to, batch.piece.number());
}

pub(super) fn batch(from: &mut Reader<'_>) -> Result<BatchId, Malformed> {
    let opening = from.take(8)?.try_into().map_err(|_| Malformed)?;
    let (opening, tenant, seq) = (Opening(u64::from_le_bytes(opening)), from.tenant()?, Seq(from.u64()?));
    Ok(BatchId { opening, tenant, seq, piece: piece(from)? })
}

pub(super) fn piece(from: &mut Reader<'_>) -> Result<Piece, Malformed> {
    if from.version == 1 { Ok(Piece::WHOLE) } else { Piece::of_number(from.u64()?).ok_or(Malformed) }
}

pub(super) fn put_store(to: &mut Vec<u8>, store: &StoreName) {
    put_bytes(to, store.as_str().as_bytes());
}

pub(super) fn store(from: &mut Reader<'_>) -> Result<StoreName, Malformed> {
    if from.version == 1 { Ok(StoreName::ONLY) } else { StoreName::new(from.text()?).map_err(|_| Malformed) }
}

pub(super) fn put_place(to: &mut Vec<u8>, place: ChunkPlace) {
    put_u64(to, place.seq);
    put_u64(to, place.index.into());
}

pub(super) fn place(from: &mut Reader<'_>) -> Result<ChunkPlace, Malformed> {
    Ok(ChunkPlace { seq: from.u64()?, index: from.u32()? })
}

pub(super) fn put_step(to: &mut Vec<u8>, step: &UndoStep) {
    put_bytes(to, step.name.as_bytes());
    put_bytes(to, &step.data);
}

pub(super) fn step(from: &mut Reader<'_>) -> Result<UndoStep, Malformed> {
    Ok(UndoStep { name: from.text()?.to_owned(), data: from.bytes()?.to_vec() })
}

pub(super) fn put_code(to: &mut Vec<u8>, code: Code) {
    put_bytes(to, code.as_str().as_bytes());
}

pub(super) fn code(from: &mut Reader<'_>) -> Result<Code, Malformed> {
    let word = from.text()?;
    Code::ALL.iter().copied().find(|code| code.as_str() == word).ok_or(Malformed)
}

pub(super) fn put_cause(to: &mut Vec<u8>, cause: &Cause) {
    put_code(to, cause.code);
    put_bytes(to, cause.detail.as_bytes());
}

pub(super) fn cause(from: &mut Reader<'_>) -> Result<Cause, Malformed> {
    Ok(Cause::new(code(from)?, from.text()?))
}

/// Positions from the first to the last.
pub(super) fn put_run(to: &mut Vec<u8>, (first, last): (u64, u64)) {
    put_u64(to, first);
    put_u64(to, last.saturating_sub(first));
}

pub(super) fn run(from: &mut Reader<'_>) -> Result<(u64, u64), Malformed> {
    let (first, more) = (from.u64()?, from.u64()?);
    Ok((first, first.checked_add(more).ok_or(Malformed)?))
}

pub(super) fn put_door(to: &mut Vec<u8>, totals: &DoorTotals) {
    let DoorTotals { duplicate, muted, throttled, rejected, malformed, discarded, dead_lettered } = *totals;
    for total in [duplicate, muted, throttled, rejected, malformed, discarded, dead_lettered] {
        put_u64(to, total);
    }
}

pub(super) fn door(from: &mut Reader<'_>) -> Result<DoorTotals, Malformed> {
    Ok(DoorTotals {
        duplicate: from.u64()?,
        muted: from.u64()?,
        throttled: from.u64()?,
        rejected: from.u64()?,
        malformed: from.u64()?,
        discarded: from.u64()?,
        dead_lettered: from.u64()?,
    })
}

/// Tenant, time of arrival, where the events end, their times, their origin; the rest is their bytes.
fn put_chunk(to: &mut Vec<u8>, chunk: &Chunk) {
    put_bytes(to, chunk.tenant().as_str().as_bytes());
    put_i64(to, chunk.arrived().0);
    put_u64(to, chunk.len() as u64);
    let mut start = 0;
    for end in chunk.ends() {
        put_u64(to, u64::from(end - start));
        start = *end;
    }
    put_u64(to, chunk.times().len() as u64);
    for time in chunk.times() {
        to.push(time.is_some().into());
        if let Some(time) = time {
            put_i64(to, time.0.wrapping_sub(chunk.arrived().0));
        }
    }
    let origin = chunk.origin().filter(|origin| origin.stream.is_lasting());
    to.push(origin.is_some().into());
    if let Some(origin) = origin {
        put_bytes(to, origin.stream.as_str().as_bytes());
        let mut last = 0;
        for position in &origin.positions {
            put_u64(to, position.wrapping_sub(last));
            last = *position;
        }
    }
    to.extend_from_slice(chunk.bytes());
}

fn chunk(from: &mut Reader<'_>) -> Result<Chunk, Malformed> {
    let tenant = from.tenant()?;
    let arrived = from.time()?;
    let count = from.count()?;
    let mut ends = Vec::with_capacity(count);
    let mut end = 0_u32;
    for _ in 0..count {
        end = end.checked_add(from.u32()?).ok_or(Malformed)?;
        ends.push(end);
    }
    let times = (0..from.count()?)
        .map(|_| {
            let is_some = from.flag()?;
            is_some.then(|| Ok(UnixMillis(arrived.0.wrapping_add(from.i64()?)))).transpose()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let origin = match from.flag()? {
        false => None,
        true => {
            let stream = from.stream()?;
            let mut last = 0_u64;
            let positions = (0..count).map(|_| {
                last = last.wrapping_add(from.u64()?);
                Ok(last)
            });
            Some(Origin { stream, positions: positions.collect::<Result<_, _>>()? })
        }
    };
    let bytes = from.take(from.bytes.len())?.to_vec();
    let chunk = Chunk::from_parts(tenant, arrived, bytes, &ends, times).ok_or(Malformed)?;
    Ok(match origin {
        Some(origin) => chunk.with_origin(origin),
        None => chunk,
    })
}
