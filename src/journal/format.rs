//! Segments and blocks, pure. A checksum is bound to the journal, the segment and the place in it, so that a block is whole
//! nowhere but where it was written: neither a stale one, a displaced one nor one that lies inside an event passes for it.

use headworks_actors::{Entry, Opening, UnixMillis};

use super::entry;
use super::step::{Step, does};

/// The version of the format that this code writes. It reads no newer one.
pub(super) const VERSION: u32 = 4;

/// The length of what begins every file, in every version of the format: magic, version, who wrote it, checksum.
pub(super) const PREFIX: usize = 32;
/// The length of a segment's header.
pub(super) const HEADER: usize = 96;
/// The length of a block's head: magic, checksum, number, how many entries, checksum of the table, how many blocks before it
/// were not known to be committed.
pub(super) const HEAD: usize = 28;
/// One entry in a block's table: its length and its checksum.
pub(super) const ROW: usize = 8;

const SEGMENT: [u8; 8] = *b"HWJRNSEG";
pub(super) const CHECKPOINT: [u8; 8] = *b"HWJRNCHK";
pub(super) const BLOCK: [u8; 4] = [0xb1, 0x0c, 0x9e, 0xad];

/// The name of a segment's file.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016}.segment")
}

/// The number of the segment that a file of this name is.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Why the first bytes of a file are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadPrefix {
    /// They are damaged.
    Damaged,
    /// A newer headworks wrote the file.
    Newer { version: u32, writer: String },
}

/// The first bytes of a file.
pub(super) fn put_prefix(to: &mut Vec<u8>, magic: [u8; 8]) {
    let start = to.len();
    to.extend_from_slice(&magic);
    to.extend_from_slice(&VERSION.to_le_bytes());
    let mut writer = [0; 16];
    for (to, from) in writer.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
        *to = from;
    }
    to.extend_from_slice(&writer);
    let crc = crc32c::crc32c(&to[start..]);
    to.extend_from_slice(&crc.to_le_bytes());
}

/// Which version the file is in.
pub(super) fn check_prefix(bytes: &[u8], magic: [u8; 8]) -> Result<u32, BadPrefix> {
    let prefix = bytes.get(..PREFIX).ok_or(BadPrefix::Damaged)?;
    if prefix[..8] != magic || u32_at(prefix, PREFIX - 4) != crc32c::crc32c(&prefix[..PREFIX - 4]) {
        return Err(BadPrefix::Damaged);
    }
    match u32_at(prefix, 8) {
        version @ 1..=VERSION => Ok(version),
        version if version > VERSION => {
            let writer = String::from_utf8_lossy(&prefix[12..28]);
            Err(BadPrefix::Newer { version, writer: writer.trim_end_matches('\0').to_owned() })
        }
        _ => Err(BadPrefix::Damaged),
    }
}

/// What stands at the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The segment's number, as in its name.
    pub(super) number: u64,
    /// The number of its first block.
    pub(super) first: u64,
    /// The random number of the journal that the checksums are bound to.
    pub(super) salt: u64,
    /// In which opening it was begun.
    pub(super) opening: Opening,
    /// And when.
    pub(super) at: UnixMillis,
    /// The segment before it, and up to which byte that one counts.
    pub(super) previous: (u64, u64),
}

impl Header {
    pub(super) fn put(&self, to: &mut Vec<u8>) {
        let start = to.len();
        put_prefix(to, SEGMENT);
        for field in [self.number, self.first, self.salt, self.opening.0] {
            to.extend_from_slice(&field.to_le_bytes());
        }
        to.extend_from_slice(&self.at.0.to_le_bytes());
        to.extend_from_slice(&self.previous.0.to_le_bytes());
        to.extend_from_slice(&self.previous.1.to_le_bytes());
        to.extend_from_slice(&[0; 4]);
        let crc = crc32c::crc32c(&to[start..]);
        to.extend_from_slice(&crc.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, BadPrefix> {
        check_prefix(bytes, SEGMENT)?;
        let bytes = bytes.get(..HEADER).ok_or(BadPrefix::Damaged)?;
        if u32_at(bytes, HEADER - 4) != crc32c::crc32c(&bytes[..HEADER - 4]) {
            return Err(BadPrefix::Damaged);
        }
        Ok(Self {
            number: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            salt: u64_at(bytes, 48),
            opening: Opening(u64_at(bytes, 56)),
            at: UnixMillis(u64_at(bytes, 64) as i64),
            previous: (u64_at(bytes, 72), u64_at(bytes, 80)),
        })
    }
}

/// Where a block stands: part of its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) salt: u64,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

impl Spot {
    fn checksum(self, head: &[u8]) -> u32 {
        let mut spot = [0; 24];
        spot[..8].copy_from_slice(&self.salt.to_le_bytes());
        spot[8..16].copy_from_slice(&self.segment.to_le_bytes());
        spot[16..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&spot), head)
    }
}

/// The head of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The block's place among all blocks ever written, from 1 and without a gap.
    pub(super) number: u64,
    /// How many entries it holds.
    pub(super) count: u32,
    /// How many blocks right before it were not known to be committed when it was written.
    pub(super) uncommitted: u32,
    table: u32,
}

impl Head {
    /// The head that begins `bytes`, if it is whole.
    pub(super) fn read(bytes: &[u8], spot: Spot) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let is_whole = head[..4] == BLOCK && u32_at(head, 4) == spot.checksum(&head[8..]);
        is_whole.then(|| Self {
            number: u64_at(head, 8),
            count: u32_at(head, 16),
            table: u32_at(head, 20),
            uncommitted: u32_at(head, 24),
        })
    }

    /// The length of the table behind the head.
    pub(super) fn table_len(&self) -> usize {
        self.count as usize * ROW
    }

    /// The length of all entries, if `table` is this block's.
    pub(super) fn entries_len(&self, table: &[u8]) -> Option<u64> {
        (crc32c::crc32c(table) == self.table).then(|| rows(table).map(|row| u64::from(row.len)).sum())
    }

    /// The last block that was known to be committed when this one was written.
    pub(super) fn committed(&self) -> u64 {
        self.number.saturating_sub(1).saturating_sub(self.uncommitted.into())
    }
}

/// A line of a block's table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) len: u32,
    crc: u32,
}

impl Row {
    pub(super) fn fits(self, entry: &[u8]) -> bool {
        crc32c::crc32c(entry) == self.crc || !does(Step::Check)
    }
}

pub(super) fn rows(table: &[u8]) -> impl Iterator<Item = Row> + '_ {
    table.chunks_exact(ROW).map(|row| Row { len: u32_at(row, 0), crc: u32_at(row, 4) })
}

/// Adds a block; `lens` is told the length of each entry.
pub(super) fn put_block(
    to: &mut Vec<u8>,
    spot: Spot,
    number: u64,
    uncommitted: u32,
    entries: &[Entry],
    mut lens: impl FnMut(u32),
) {
    let start = to.len();
    let table = start + HEAD;
    let table_end = table + entries.len() * ROW;
    to.resize(table_end, 0);
    for (index, item) in entries.iter().enumerate() {
        let at = to.len();
        entry::encode(item, to);
        // A chunk holds less than 2 GiB, and all else is small.
        let len = (to.len() - at) as u32;
        let crc = crc32c::crc32c(&to[at..]);
        let row = table + index * ROW;
        to[row..row + 4].copy_from_slice(&len.to_le_bytes());
        to[row + 4..row + 8].copy_from_slice(&crc.to_le_bytes());
        lens(len);
    }
    let table_crc = crc32c::crc32c(&to[table..table_end]);
    let head = &mut to[start..table];
    head[..4].copy_from_slice(&BLOCK);
    head[8..16].copy_from_slice(&number.to_le_bytes());
    head[16..20].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    head[20..24].copy_from_slice(&table_crc.to_le_bytes());
    head[24..28].copy_from_slice(&uncommitted.to_le_bytes());
    let crc = spot.checksum(&head[8..]);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The length of a block of entries of these lengths.
pub(super) fn block_len(lens: &[u32]) -> u64 {
    let entries: u64 = lens.iter().map(|len| u64::from(*len)).sum();
    (HEAD + lens.len() * ROW) as u64 + entries
}

/// The number at `at`; callers have checked that it is there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
