//! Walks a segment from block to block in bounded memory, and past what is damaged to the next whole block.

use std::io;

use headworks_actors::Entry;
use memchr::memmem;

use super::disk::{Disk, DiskFile, read_full};
use super::entry;
use super::format::{BLOCK, HEAD, HEADER, Head, Spot, rows, segment_name};
use super::ledger::Place;

/// How much is read at once.
const STRIDE: usize = 1 << 20;

/// What lies next in a segment.
#[derive(Debug)]
pub(super) enum Found<'s> {
    /// A whole block.
    Block(Block<'s>),
    /// Bytes that are no block, up to the next one or the end.
    Bad {
        /// The first of them.
        from: u64,
        /// How many.
        len: u64,
    },
}

/// A whole block.
#[derive(Debug)]
pub(super) struct Block<'s> {
    pub(super) head: Head,
    /// Where it begins in its segment.
    pub(super) offset: u64,
    /// Its length, in bytes.
    pub(super) len: u64,
    table: &'s [u8],
    body: &'s [u8],
}

impl<'s> Block<'s> {
    /// The bytes of its entries, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'s [u8]> + use<'s> {
        let mut rest = self.body;
        rows(self.table).map(move |row| {
            let (entry, behind) = rest.split_at_checked(row.len as usize).unwrap_or_default();
            rest = behind;
            entry
        })
    }
}

/// A walk over one segment.
pub(super) struct Scan {
    file: Box<dyn DiskFile>,
    salt: u64,
    segment: u64,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    start: u64,
}

impl Scan {
    /// Over the blocks of the segment up to byte `end`.
    pub(super) fn new(file: Box<dyn DiskFile>, salt: u64, segment: u64, end: u64) -> Self {
        Self { file, salt, segment, at: HEADER as u64, end, buffer: Vec::new(), start: 0 }
    }

    /// The same, from the block at `offset` on.
    pub(super) fn starting_at(mut self, offset: u64) -> Self {
        self.at = offset;
        self
    }

    /// How far it has come, in bytes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// What comes next; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let offset = self.at;
        let Some((head, len)) = self.block_len(offset)? else {
            self.at = self.search(offset + 1)?;
            return Ok(Some(Found::Bad { from: offset, len: self.at - offset }));
        };
        self.at = offset + len;
        let bytes = self.window(offset, len)?.unwrap_or_default();
        let (table, body) = bytes.get(HEAD..).and_then(|b| b.split_at_checked(head.table_len())).unwrap_or_default();
        Ok(Some(Found::Block(Block { head, offset, len, table, body })))
    }

    /// The head and length of the block at `offset`, if a whole one is there.
    fn block_len(&mut self, offset: u64) -> io::Result<Option<(Head, u64)>> {
        let spot = Spot { salt: self.salt, segment: self.segment, offset };
        let Some(head) = self.window(offset, HEAD as u64)?.and_then(|bytes| Head::read(bytes, spot)) else {
            return Ok(None);
        };
        let table_at = offset + HEAD as u64;
        let Some(table) = self.window(table_at, head.table_len() as u64)?.map(<[u8]>::to_vec) else { return Ok(None) };
        let Some(entries_len) = head.entries_len(&table) else { return Ok(None) };
        let Some(mut body) = self.window(table_at + table.len() as u64, entries_len)? else { return Ok(None) };
        for row in rows(&table) {
            let Some((entry, rest)) = body.split_at_checked(row.len as usize) else { return Ok(None) };
            if !row.fits(entry) {
                return Ok(None);
            }
            body = rest;
        }
        Ok(Some((head, HEAD as u64 + table.len() as u64 + entries_len)))
    }

    /// Where the next whole block begins at or behind `from`, or the end.
    fn search(&mut self, mut from: u64) -> io::Result<u64> {
        while from < self.end {
            let len = (self.end - from).min(STRIDE as u64);
            let Some(bytes) = self.window(from, len)? else { break };
            match memmem::find(bytes, &BLOCK) {
                Some(at) => {
                    from += at as u64;
                    if self.block_len(from)?.is_some() {
                        return Ok(from);
                    }
                    from += 1;
                }
                None if from + len >= self.end => break,
                None => from += len - (BLOCK.len() as u64 - 1),
            }
        }
        Ok(self.end)
    }

    /// The bytes from `offset` on, if there are so many.
    fn window(&mut self, offset: u64, len: u64) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(len).is_none_or(|to| to > self.end) {
            return Ok(None);
        }
        let has = self.start <= offset && offset + len <= self.start + self.buffer.len() as u64;
        if !has {
            let kept = match usize::try_from(offset.wrapping_sub(self.start)) {
                Ok(before) if offset >= self.start && before < self.buffer.len() => {
                    self.buffer.drain(..before);
                    self.buffer.len()
                }
                _ => 0,
            };
            let want = len.max(STRIDE as u64).min(self.end - offset) as usize;
            self.buffer.resize(want.max(kept), 0);
            let read = read_full(&mut *self.file, offset + kept as u64, &mut self.buffer[kept..])?;
            self.buffer.truncate(kept + read);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.buffer.get(from..from + len as usize))
    }
}

/// Reads the one entry at `place`, if it is whole.
pub(super) fn read_entry(disk: &dyn Disk, salt: u64, place: Place) -> io::Result<Option<Entry>> {
    let mut file = disk.open(&segment_name(place.segment))?;
    let mut part = |offset: u64, len: usize| {
        let mut bytes = vec![0; len];
        let read = read_full(&mut *file, offset, &mut bytes)?;
        io::Result::Ok((read == len).then_some(bytes))
    };
    let spot = Spot { salt, segment: place.segment, offset: place.offset };
    let Some(head) = part(place.offset, HEAD)?.and_then(|bytes| Head::read(&bytes, spot)) else { return Ok(None) };
    let table_at = place.offset + HEAD as u64;
    let Some(table) = part(table_at, head.table_len())?.filter(|table| head.entries_len(table).is_some()) else {
        return Ok(None);
    };
    let before: u64 = rows(&table).take(place.index as usize).map(|row| u64::from(row.len)).sum();
    let Some(row) = rows(&table).nth(place.index as usize) else { return Ok(None) };
    let bytes = part(table_at + table.len() as u64 + before, row.len as usize)?;
    Ok(bytes.filter(|bytes| row.fits(bytes)).and_then(|bytes| entry::decode(&bytes).ok()))
}
