//! Looks at a journal that no process has open, without changing a byte.

use std::io;
use std::path::Path;

use headworks_actors::{Entry, EventRef, JournalError, StreamId, TenantId, Uncompensated, UnixMillis};
use serde::Serialize;

use super::disk::{Disk, FsDisk};
use super::recover::recover;
use super::scan::read_entry;
use crate::audit::{Books, Events};

/// What a journal holds, and in what state it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The whole segments, oldest first.
    pub segments: Vec<SegmentSummary>,
    /// The size of its files together, in bytes; without what was set aside.
    pub disk_bytes: u64,
    /// The part of it that belongs to unsettled events, in bytes.
    pub live_bytes: u64,
    /// The number of its next block.
    pub next_block: u64,
    /// Whole blocks that were read and checked.
    pub blocks: u64,
    /// Why it cannot be written at the moment, if it is being written and cannot: it takes no events until it can.
    pub failing: Option<String>,
    /// Whether it was closed, and not left by a crash.
    pub is_closed: bool,
    /// The size of a torn block at its end, in bytes, as a crash may leave one; it was never committed.
    pub torn_bytes: u64,
    /// What is damaged, in words; empty where all is whole.
    pub damage: Vec<String>,
    /// Every tenant on record, by name.
    pub tenants: Vec<TenantSummary>,
    /// Every stream with the position of its last answered frame, by name.
    pub streams: Vec<StreamSummary>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// Its number, as in its name.
    pub number: u64,
    /// Its size up to the end of its last whole block, in bytes.
    pub bytes: u64,
    /// The number of its first block.
    pub first_block: u64,
    /// How many blocks it holds.
    pub blocks: u64,
    /// The bytes in it that belong to unsettled events.
    pub live_bytes: u64,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the words of the accounting; see `BatchTotals`")]
pub struct TenantSummary {
    pub tenant: TenantId,
    pub accepted: u64,
    pub stored: u64,
    pub dead_lettered: u64,
    pub shed: u64,
    pub discarded: u64,
    /// Accepted events without an outcome.
    pub in_flight: u64,
    /// The chunks they are in.
    pub chunks: u64,
    /// Batches that were cut and have no outcome.
    pub batches: u64,
    /// Of these, those whose last attempt may have taken effect.
    pub open_attempts: u64,
    /// Compensations that could not be done, and are tried again.
    pub uncompensated: Vec<Uncompensated>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamSummary {
    /// Whose.
    pub stream: StreamId,
    /// The position of its last answered frame.
    pub position: u64,
    /// When it was answered.
    pub at: UnixMillis,
}

/// Reads all of the journal in `dir`, checks every block, and says what is in it and what is wrong with it. `progress` is told
/// how many bytes of how many are read.
///
/// # Errors
/// Where a process has the journal open, a newer headworks wrote it, or it cannot be read.
pub fn summary(dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Summary, JournalError> {
    summarize(&rest(dir)?, &mut progress).map_err(|JournalError(why)| within(dir, why))
}

/// The same of whatever is on the disk now.
pub(super) fn summarize(disk: &dyn Disk, progress: &mut dyn FnMut(u64, u64)) -> Result<Summary, JournalError> {
    let found = recover(disk, progress)?;
    let sizes = disk.list().map_err(JournalError::new)?;
    let live = |number| found.ledger.shares.get(&number).map_or(0, |share| share.bytes);
    let segments = found.seen.iter().map(|segment| SegmentSummary {
        number: segment.number,
        bytes: segment.len,
        first_block: segment.first,
        blocks: segment.next - segment.first,
        live_bytes: live(segment.number),
    });
    let tenants = found.ledger.recovered().into_iter().map(|told| {
        let Events { accepted, stored, dead_lettered, shed, discarded, in_flight } = Books::from(&told).events;
        TenantSummary {
            accepted,
            stored,
            dead_lettered,
            shed,
            discarded,
            in_flight,
            chunks: told.chunks.len() as u64,
            batches: told.cuts.len() as u64,
            open_attempts: told.cuts.iter().filter(|cut| cut.progress.open().is_some()).count() as u64,
            uncompensated: told.uncompensated,
            tenant: told.tenant,
        }
    });
    let streams = found.ledger.recovered_streams().into_iter();
    Ok(Summary {
        segments: segments.collect(),
        disk_bytes: sizes.iter().map(|(_, size)| size).sum(),
        live_bytes: found.ledger.live_bytes(),
        next_block: found.next_block,
        blocks: found.blocks,
        failing: None,
        is_closed: found.was_closed,
        torn_bytes: found.torn_bytes,
        tenants: tenants.collect(),
        streams: streams
            .map(|left| StreamSummary { stream: left.stream, position: left.position, at: left.at })
            .collect(),
        damage: found.damage,
    })
}

/// Gives every unsettled event in the journal in `dir` to `each`, or those of one tenant: by tenant, in the tenant's order. Says how
/// many there were.
///
/// # Errors
/// As for [`summary`], or where `each` fails.
pub fn export(
    dir: &Path,
    tenant: Option<&TenantId>,
    mut each: impl FnMut(&TenantId, &EventRef<'_>) -> io::Result<()>,
) -> Result<u64, JournalError> {
    give(&rest(dir)?, tenant, &mut each).map_err(|JournalError(why)| within(dir, why))
}

/// Takes the tenant and one event of it.
pub type Each<'e> = &'e mut dyn FnMut(&TenantId, &EventRef<'_>) -> io::Result<()>;

/// The same of whatever is on the disk now.
pub(super) fn give(disk: &dyn Disk, tenant: Option<&TenantId>, each: Each<'_>) -> Result<u64, JournalError> {
    let found = recover(disk, &mut |_, _| {})?;
    let mut given = 0;
    for told in found.ledger.recovered() {
        if tenant.is_some_and(|tenant| *tenant != told.tenant) {
            continue;
        }
        for live in &told.chunks {
            let place = found.ledger.find(&told.tenant, live);
            let entry = place.map(|place| read_entry(disk, found.salt.unwrap_or_default(), place)).transpose();
            let Some(Some(Entry::Chunk { chunk, .. })) = entry.map_err(JournalError::new)? else {
                let (seq, tenant) = (live.seq, &told.tenant);
                return Err(JournalError::new(format!("chunk {seq} of tenant {tenant} changed while it was read")));
            };
            let unsettled = told.unsettled(live);
            for event in chunk.events().take(unsettled.end).skip(unsettled.start) {
                each(&told.tenant, &event)
                    .map_err(|why| JournalError::new(format!("an event cannot be written: {why}")))?;
                given += 1;
            }
        }
    }
    Ok(given)
}

fn within(dir: &Path, why: impl std::fmt::Display) -> JournalError {
    JournalError::new(format!("{}: {why}", dir.display()))
}

/// The disk, if no process has the journal open.
fn rest(dir: &Path) -> Result<FsDisk, JournalError> {
    let disk = FsDisk::of(dir);
    match disk.holder() {
        Ok(None) => Ok(disk),
        Ok(Some(holder)) => Err(within(dir, format!("in use by {holder}; ask that process, or stop it first"))),
        Err(why) => Err(within(dir, format!("its lock cannot be read: {why}"))),
    }
}
