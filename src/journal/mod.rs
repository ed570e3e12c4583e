//! The durable journal: a segmented, append-only log for all tenants, in one directory.
//!
//! ```text
//! append -> block -> group -> segment -> fdatasync -> committed
//! caller    drive    log      disk       disk         caller
//! ```
//!
//! # What it promises
//!
//! What is [committed](headworks_actors::Journal::committed) is found again after the process, the system or the power went,
//! byte for byte and in order; what one append put on record is found whole or not at all; what is settled does not come back.
//! It relies on a disk whose `fsync` is honest, and on nothing else.
//!
//! # Format, version 4
//!
//! `0000000000000001.segment`, ...: a header of 96 bytes, then blocks. Numbers are little-endian, checksums are CRC-32C.
//!
//! - The *header*: magic, format version and the version of its writer under a checksum of their own, so that any version can
//!   read them; then the segment's number, the number of its first block, the journal's salt, the opening, the time, and up to
//!   which byte the segment before it counts.
//! - A *block* is one append: a head of 28 bytes (magic, checksum, block number, number of entries, checksum of the table, how
//!   many blocks before it were not known to be committed), a table with each entry's length and checksum, the entries.
//!   Blocks are numbered without a gap, so that a lost one is known to be lost.
//! - The head's checksum covers the salt, the segment and the place. A block is whole only where it was written: neither a
//!   stale or displaced one nor one that a sender hides inside an event passes for a block, and what is damaged can be searched.
//! - An *entry*: a byte for its kind, then its fields; numbers are varints. A chunk costs about two bytes an event beside the bytes
//!   of its events.
//!
//! `checkpoint` and `checkpoint.copy`: everything but the events themselves, as of one block: totals, next seqs, which chunks
//! are unsettled, cuts, streams, and which segments are needed. Each is written anew, synced, renamed, and its name synced, one after
//! the other: one damaged file loses nothing. `journal.lock` is locked by the process that has the directory.
//!
//! # Group commit
//!
//! The first append on an idle journal is written at once; what comes meanwhile is the next group: one write, one `fdatasync`. Under
//! load a group is begun at most once in [`commit_every`](JournalOptions::commit_every), or when 1 MiB waits.
//!
//! # When the disk fails
//!
//! After a failed write or sync nothing is known of what lies behind the last committed byte, and a second sync of the same file may
//! succeed without the data being there. So the segment is sealed at that byte, and the group, still in memory, is written to a new
//! one, whose header says up to where its predecessor counts; again and again, from 100 ms to 5 s apart, until the disk is back.
//! Meanwhile nothing counts as committed, there is no room, and [`Health::failing`](headworks_actors::Health::failing) says why.
//!
//! # Reclaim
//!
//! A segment in which nothing is unsettled is removed, after a checkpoint that stands for it. Where the disk is more than half full by
//! the quota, what little lives in old segments is copied to the end, so that one stuck tenant does not pin them. The quota is for
//! chunks: outcomes, copies and checkpoints have two segments more.
//!
//! # Recovery
//!
//! Reads everything once, in bounded memory (the largest block), and checks every checksum. Every start begins a segment of its own; nothing is ever
//! appended to an old one.
//!
//! - A *torn tail*: bad bytes at the end of the last segment, or a gap that no later block says was committed. A crash leaves that;
//!   it is cut off and counted ([`DurableJournal::torn_bytes`]), and no error.
//! - *Damage* is everything else. The search goes on at the next whole block; what is whole is kept and copied forward, the damaged file
//!   is moved to `damaged/`, and [`Recovered::damage`](headworks_actors::Recovered::damage) says what is lost. A batch that lost events
//!   is cut anew if it was never tried; if it was, it is given up, with the cause `journal_damaged`, so that its events become
//!   dead letters. Chunks behind lost ones keep their order and close up, so that seqs have no holes.
//! - *Blocks that no later block says were committed*, as a process leaves that died between a write and its sync, are whole now and may
//!   be gone after the next loss of power: their file is written again, and takes the old one's name, before anything is told of it.
//! - A newer format is refused, and nothing is changed. An older one is read as it is; what is written is the newest.
//!
//! # What it will not do
//!
//! It keeps no second copy of the events: a damaged block is lost, and said to be. It cannot tell a last block that rotted from one that a
//! crash tore, unless the journal was closed or a later block says that it was committed. Where a block with an outcome is lost, its
//! events come again under another batch id. It does not read a directory that another process writes, and it does not compress.

mod checkpoint;
mod disk;
mod drive;
mod durable;
mod entry;
mod format;
pub mod inspect;
mod ledger;
mod live;
mod log;
#[cfg(any(test, feature = "testing"))]
mod memory_disk;
mod mend;
mod options;
mod reclaim;
mod recover;
mod scan;
mod step;
#[cfg(test)]
mod tests;
mod wire;

pub use disk::{Disk, DiskFile, FsDisk, Lock};
pub use durable::DurableJournal;
#[cfg(any(test, feature = "testing"))]
pub use memory_disk::MemoryDisk;
pub use options::JournalOptions;
