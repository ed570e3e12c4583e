//! The layout `index`: what a batch holds is in a segment, a file that is only appended to; the database keeps where.
//!
//! ```text
//! headworks.db                        the index: a row a batch, dead letters, fences
//! headworks.segments/0000000001.seg   the batches themselves, one behind the other
//! ```
//!
//! A row an event makes SQLite write every byte twice, to its log and to its pages, and sum it up twice. A row a batch
//! is a hundredth of that; the bytes themselves are written once.
//!
//! # One ledger
//!
//! Both layouts have the same tables: a batch is a row of `batches`, whose events are either rows of `events` or lie at
//! `offset` of a `segment`. Ids, hashes, attempts, fences, totals and dead letters are the same code. So the layout can be
//! changed at any start: it says where new batches go, and whatever is there already stays and is read.
//!
//! # The order of syncs
//!
//! A group of batches that wait is one write, one `fdatasync`, one transaction:
//!
//! 1. `BEGIN`; each batch is looked up, framed in memory, and gets its row.
//! 2. The frames of the group are written to the segment, and the segment is synced; so is the directory, for a new file.
//! 3. `COMMIT`, which syncs the log of the database. Only then the callers are answered.
//!
//! So a row never points to bytes that are not on the disk. Bytes without a row were never acknowledged: their batches come
//! again, under their ids.
//!
//! - **Where the write or the sync fails**, the group is rolled back and answered with an outage, and the next one begins a
//!   new segment: what a disk says of a file after it failed to sync it is not to be relied on.
//! - **Where the `COMMIT` fails**, the bytes stay. Whether it came to the disk is not known before the next opening, so
//!   nothing may be written over them.
//!
//! # The torn tail
//!
//! When the database is opened, what stands in the last segment behind the last row is cut away, and so is a segment
//! that has no row at all if it is the last one: a crash leaves no more than that. Whatever else is not in the index is
//! left alone, with a word in the log: the database may be an older copy, put there by hand. Each segment names the
//! database it belongs to. Back them up together, the database first.
//!
//! # The file
//!
//! Numbers are little-endian, sums are CRC-32C.
//!
//! ```text
//! head     magic "hwsegm" 0 1 | database u64 | number u64 | sum u32          1 is the version
//! record   magic "HwB\n" | length u32 | sum of the payload u32 | sum of spot and head u32 | payload
//! payload  id length u16 | id | content hash u64 | events u32 | runs u32 | has times u8
//!          runs of  (arrived i64, events u32)
//!          events times  i64, if it has times; the least number is none
//!          events times  length of the body u32
//!          the bodies
//! ```
//!
//! The sum of a head covers the database, the number of the segment and the offset: a record in another place is none. Each
//! reading compares the sum, the id and the content hash with the row. What does not agree is an error that names
//! segment, offset and batch. [`SegmentFile`] needs no database: it finds all whole records of a damaged segment,
//! those behind the damage too.
//!
//! # Space
//!
//! A rollback removes the row; the bytes stay as garbage. The table `segments` has how much of each file is indexed, kept
//! by triggers, so that a `DELETE FROM batches` by hand counts as well; the view `stored_segments` has the garbage. A
//! segment in which nothing is indexed any more is deleted, but for the one that is written to.
//!
//! # What it does not do
//!
//! It rewrites no segment to get rid of garbage: a batch is rolled back rarely, and a whole segment at a time is given
//! back. So a tenant that keeps all keeps, with its own batches, the segments that they share with pruned ones of others. It compresses nothing. It finds no event by what is in it: SQL sees the batches, `headworks query` the events.

mod files;
mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

pub(super) use files::SegmentFiles;
pub use files::{SalvagedBatch, SegmentFile};
pub(super) use writer::Segments;

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The directory with the segments of a database.
pub(super) fn directory(database: &Path) -> PathBuf {
    database.with_extension("segments")
}

fn file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.seg"))
}

/// The number of a segment by its name; what else is in the directory is not ours.
fn number_of(name: &Path) -> Option<u64> {
    let number = name.file_name()?.to_str()?.strip_suffix(".seg")?;
    if number.len() < 10 { None } else { number.parse().ok() }
}
