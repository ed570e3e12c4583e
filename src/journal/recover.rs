//! Checkpoint and segments to a ledger. Reads only: what is to be cut off, set aside or removed is told, not done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use headworks_actors::{Entry, JournalError};

use super::checkpoint::{Checkpoint, NAMES, Segment};
use super::disk::{Disk, read_full};
use super::entry;
use super::format::{BadPrefix, HEADER, Header, segment_name, segment_number};
use super::ledger::{Ledger, Notes, Place};
use super::scan::{Block, Found, Scan};
use super::step::{Step, does};

/// What a directory holds, and what is to be done before anything is written to it.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) ledger: Ledger,
    pub(super) salt: Option<u64>,
    pub(super) generation: u64,
    pub(super) next_block: u64,
    pub(super) next_segment: u64,
    /// The whole segments as they were found.
    pub(super) seen: Vec<Segment>,
    /// The same as far as they are known to be committed.
    pub(super) segments: Vec<Segment>,
    /// Segments with blocks behind that, which may be on disk or only seem to be: these files must be written again.
    pub(super) unsure: Vec<Unsure>,
    /// Damaged ones: what is needed of them must be copied before they are set aside.
    pub(super) damaged: Vec<Segment>,
    /// What is to be moved out of the way.
    pub(super) set_aside: Vec<String>,
    /// What nothing needs any more.
    pub(super) obsolete: Vec<String>,
    /// The file that ends in a torn block, and where that begins.
    pub(super) torn: Option<(String, u64)>,
    pub(super) torn_bytes: u64,
    /// What is damaged, in words.
    pub(super) damage: Vec<String>,
    /// Whole blocks that were found.
    pub(super) blocks: u64,
    pub(super) was_closed: bool,
}

/// A segment with blocks that are not known to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsure {
    pub(super) segment: u64,
    /// Where its last whole block ends.
    pub(super) end: u64,
}

/// Told how many bytes of how many are read.
pub(super) type Progress<'p> = &'p mut dyn FnMut(u64, u64);

pub(super) fn recover(disk: &dyn Disk, progress: Progress<'_>) -> Result<Recovery, JournalError> {
    Walk::begin(disk, progress)?.run()
}

/// The file `name` cannot be read.
fn unreadable(name: &str) -> impl Fn(io::Error) -> JournalError + '_ {
    move |why| JournalError::new(format!("{name} cannot be read: {why}; nothing was changed"))
}

fn newer(name: &str, version: u32, writer: &str) -> JournalError {
    JournalError::new(format!(
        "{name} has format version {version}, written by headworks {writer}, which is newer than this one ({}); upgrade \
         headworks to {writer} or later; nothing was changed",
        env!("CARGO_PKG_VERSION")
    ))
}

/// One file of the log, before its blocks are read.
struct File {
    number: u64,
    name: String,
    size: u64,
    header: Option<Header>,
    /// As the checkpoint has it.
    listed: Option<Segment>,
}

struct Walk<'d> {
    disk: &'d dyn Disk,
    progress: Progress<'d>,
    done: u64,
    total: u64,
    files: Vec<File>,
    /// The first block that the checkpoint does not cover.
    covered: u64,
    /// The first segment that was not begun at the checkpoint.
    begun: u64,
    /// The last block that is known to have been committed, by the headers and, once it was needed, by the blocks.
    committed: u64,
    has_all_claims: bool,
    /// The number of the next block.
    expected: u64,
    out: Recovery,
    notes: Notes,
}

/// What became of one file.
struct Read {
    first: u64,
    end: u64,
    blocks: u64,
    is_damaged: bool,
    /// The ends of its last blocks, which no block so far said were committed, by their numbers; the first is where they begin.
    tail: Vec<(u64, u64)>,
    /// Nothing behind this counts.
    is_torn: bool,
}

impl<'d> Walk<'d> {
    fn begin(disk: &'d dyn Disk, progress: Progress<'d>) -> Result<Self, JournalError> {
        let mut list = disk.list().map_err(unreadable("the directory"))?;
        list.sort_unstable();
        let mut out = Recovery::default();
        let mut notes = Notes::default();
        let (checkpoint, missing) = checkpoint(disk, &list, &mut out, &mut notes)?;
        let mut files = Vec::new();
        for (name, size) in list {
            let Some(number) = segment_number(&name) else { continue };
            if checkpoint.damaged.contains(&number) {
                out.set_aside.push(name);
                continue;
            }
            let listed = checkpoint.segments.iter().copied().find(|segment| segment.number == number);
            if number < checkpoint.next_segment && listed.is_none() {
                out.obsolete.push(name);
                continue;
            }
            let header = header(disk, &name, number)?;
            if header.is_none() && listed.is_none() && size <= HEADER as u64 {
                // It was just being made. What a later one lacks tells whether more was in it.
                out.torn_bytes += size;
                out.next_segment = number + 1;
                out.obsolete.push(name);
                continue;
            }
            files.push(File { number, name, size, header, listed });
        }
        if missing && !files.is_empty() {
            notes.add(
                "both checkpoints are missing: totals and what was in segments removed before are lost".to_owned(),
            );
        }
        for segment in &checkpoint.segments {
            if !files.iter().any(|file| file.number == segment.number) {
                notes.add(format!(
                    "{} is missing: {} blocks are lost",
                    segment_name(segment.number),
                    segment.next - segment.first
                ));
            }
        }
        let salt = files.iter().find_map(|file| file.header.map(|header| header.salt));
        out.salt = (!missing && out.salt.is_some()).then_some(checkpoint.salt).or(salt);
        let begun = files.last().map_or(1, |file| file.number + 1).max(checkpoint.next_segment);
        out.next_segment = out.next_segment.max(begun);
        out.was_closed = checkpoint.is_closed && files.last().is_none_or(|file| file.number < checkpoint.next_segment);
        out.generation = checkpoint.generation;
        out.ledger = checkpoint.ledger;
        let begun = files.iter().filter_map(|file| file.header).map(|header| header.first.saturating_sub(1)).max();
        let first = files.first().and_then(|file| file.header).map_or(1, |header| header.first);
        Ok(Self {
            disk,
            progress,
            done: 0,
            total: files.iter().map(|file| file.size).sum(),
            files,
            covered: checkpoint.next_block,
            begun: checkpoint.next_segment,
            committed: begun.unwrap_or(0).max(checkpoint.next_block.saturating_sub(1)),
            has_all_claims: false,
            // Without a checkpoint the log begins where it begins.
            expected: if checkpoint.next_block > 0 { checkpoint.next_block } else { first },
            out,
            notes,
        })
    }

    fn run(mut self) -> Result<Recovery, JournalError> {
        (self.progress)(0, self.total);
        let mut is_torn = false;
        let mut tails = Vec::new();
        for at in 0..self.files.len() {
            if is_torn {
                let File { number, name, .. } = &self.files[at];
                // Begun behind a torn end: nothing in it was ever committed.
                self.notes.add(format!("{name} lies behind the torn end of the log and is set aside"));
                self.out.damaged.push(Segment { number: *number, first: 0, next: 0, len: 0 });
                continue;
            }
            let read = self.file(at)?;
            let File { number, name, .. } = &self.files[at];
            let segment = Segment { number: *number, first: read.first, next: read.first + read.blocks, len: read.end };
            if read.is_damaged {
                self.out.damaged.push(segment);
            } else if read.blocks == 0 {
                self.out.obsolete.push(name.clone());
            } else {
                let segment = Segment { next: self.expected, ..segment };
                self.out.seen.push(segment);
                tails.push((segment, read.tail));
            }
            is_torn = read.is_torn;
        }
        for (segment, tail) in tails {
            self.settle(segment, &tail);
        }
        self.out.next_block = self.expected.max(self.covered).max(1);
        self.out.ledger.mend();
        for note in std::mem::take(&mut self.out.ledger.notes).into_said() {
            self.notes.add(note);
        }
        self.out.damage = self.notes.into_said();
        Ok(self.out)
    }

    /// Parts what is known to be committed from what is not.
    ///
    /// A process that died between a write and its sync, or on a sync that failed, leaves bytes that read well now and are gone after
    /// the next loss of power.
    fn settle(&mut self, segment: Segment, tail: &[(u64, u64)]) {
        if tail.last().is_some_and(|(number, _)| *number > self.committed) {
            self.out.unsure.push(Unsure { segment: segment.number, end: segment.len });
        }
        self.out.segments.push(segment);
    }

    fn file(&mut self, at: usize) -> Result<Read, JournalError> {
        let File { number, ref name, size, header, listed } = self.files[at];
        let name = name.clone();
        let mut is_damaged = false;
        let limit = self.files.get(at + 1).and_then(|next| next.header).map(|next| next.previous);
        let knows_ends = does(Step::CutTornTail);
        let limit =
            limit.filter(|(previous, _)| *previous == number && knows_ends).map_or(size, |(_, len)| len.min(size));
        // What stands behind the end of a segment that failed was written again elsewhere.
        let limit =
            listed.filter(|_| number + 1 < self.begun && knows_ends).map_or(limit, |listed| limit.min(listed.len));
        // What a later segment begins with was written again there, or never committed.
        let ceiling = self.files[at + 1..].iter().find_map(|file| file.header).filter(|_| knows_ends);
        let ceiling = ceiling.map_or(u64::MAX, |header| header.first);
        let mut first = self.expected;
        match (header, listed) {
            (Some(header), None) => {
                self.expected = self.expected.max(self.covered);
                if header.first > self.expected {
                    self.lost(header.first);
                }
                first = header.first;
            }
            (_, Some(listed)) => {
                // What lies between listed segments was removed.
                self.expected = listed.first;
                first = listed.first;
            }
            (None, None) => {}
        }
        if header.is_none() {
            self.notes.add(format!("the header of {name} is damaged"));
            is_damaged = true;
        }
        let Some(salt) = self.out.salt else {
            self.notes.add(format!("nothing in {name} can be read without a header or a checkpoint"));
            return Ok(Read { first, end: 0, blocks: 0, is_damaged: true, tail: Vec::new(), is_torn: false });
        };

        let mut scan = Scan::new(self.disk.open(&name).map_err(unreadable(&name))?, salt, number, limit);
        let mut read = Read { first, end: HEADER as u64, blocks: 0, is_damaged, tail: Vec::new(), is_torn: false };
        let mut bad: Option<(u64, u64)> = None;
        let mut reported = 0;
        loop {
            let before = scan.at();
            match scan.next().map_err(unreadable(&name))? {
                None => break,
                Some(Found::Bad { from, len }) => bad = Some((from, len)),
                Some(Found::Block(block)) if block.head.number >= ceiling => break,
                Some(Found::Block(block)) => {
                    if block.head.number > self.expected {
                        let claim = block.head.committed();
                        self.committed = self.committed.max(claim);
                        if self.expected > self.committed && !self.was_committed(at, &name)? {
                            let from = bad.map_or(before, |(from, _)| from);
                            self.tear(&name, from, limit);
                            read.is_torn = true;
                            return Ok(read);
                        }
                        read.is_damaged = true;
                        let upto = block.head.number;
                        self.lost_in(&name, bad, upto);
                        self.expected = upto;
                    } else if let Some((from, len)) = bad {
                        read.is_damaged = true;
                        self.notes
                            .add(format!("{name} is damaged at byte {from} ({len} bytes), and no block is lost by it"));
                    }
                    bad = None;
                    read.end = block.offset + block.len;
                    if block.head.number == self.expected {
                        self.committed = self.committed.max(block.head.committed());
                        let known = read.tail.partition_point(|(number, _)| *number <= self.committed);
                        read.tail.drain(..known.saturating_sub(1));
                        if read.tail.is_empty() {
                            read.tail.push((block.head.number - 1, block.offset));
                        }
                        read.tail.push((block.head.number, block.offset + block.len));
                        if !apply(&mut self.out.ledger, &block, number, self.covered) {
                            read.is_damaged = true;
                            let block = block.head.number;
                            self.notes
                                .add(format!("block {block} in {name} is whole but makes no sense, and is left out"));
                        }
                        self.expected += 1;
                        read.blocks += 1;
                        self.out.blocks += 1;
                    }
                }
            }
            let at = scan.at();
            self.step(at - reported);
            reported = at;
        }
        self.step(size.saturating_sub(reported));
        let known = listed.map_or(0, |listed| listed.next);
        if self.expected < known {
            read.is_damaged = true;
            self.lost_in(&name, bad, known);
            self.expected = known;
        } else if let Some((from, _)) = bad {
            let goes_on = self.files.get(at + 1).map(|next| next.header.map(|header| header.first));
            match goes_on {
                None if self.expected >= self.covered && self.expected > self.committed => {
                    self.tear(&name, from, limit);
                    read.is_torn = true;
                }
                // It was never committed here, and was written again there.
                Some(Some(first)) if first <= self.expected => {}
                _ => {
                    read.is_damaged = true;
                    self.notes.add(format!("{name} is damaged from byte {from} on"));
                }
            }
        }
        Ok(read)
    }

    /// Whether the expected block was ever committed, by the claims of all blocks behind it.
    fn was_committed(&mut self, at: usize, name: &str) -> Result<bool, JournalError> {
        if !self.has_all_claims
            && let Some(salt) = self.out.salt
        {
            for file in &self.files[at..] {
                let opened = self.disk.open(&file.name).map_err(unreadable(name))?;
                let mut scan = Scan::new(opened, salt, file.number, file.size);
                while let Some(found) = scan.next().map_err(unreadable(name))? {
                    if let Found::Block(block) = found {
                        self.committed = self.committed.max(block.head.committed());
                    }
                }
            }
            self.has_all_claims = true;
        }
        Ok(self.expected <= self.committed)
    }

    fn tear(&mut self, name: &str, from: u64, limit: u64) {
        self.out.torn = Some((name.to_owned(), from));
        self.out.torn_bytes += limit.saturating_sub(from);
    }

    fn lost(&mut self, upto: u64) {
        let lost = upto - self.expected;
        self.notes.add(format!("{lost} blocks from number {} on are lost", self.expected));
        self.expected = upto;
    }

    fn lost_in(&mut self, name: &str, bad: Option<(u64, u64)>, upto: u64) {
        let lost = upto - self.expected;
        self.notes.add(match bad {
            Some((from, len)) => format!("{name} is damaged at byte {from} ({len} bytes): {lost} blocks are lost"),
            None => format!("{name} lacks {lost} blocks from number {} on", self.expected),
        });
    }

    fn step(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        (self.progress)(self.done, self.total);
    }
}

/// Takes note of all entries of a block, or of none.
fn apply(ledger: &mut Ledger, block: &Block<'_>, segment: u64, covered: u64) -> bool {
    let entries: Result<Vec<(Entry, usize)>, _> =
        block.entries().map(|bytes| entry::decode(bytes).map(|entry| (entry, bytes.len()))).collect();
    let Ok(entries) = entries else { return false };
    for (index, (entry, len)) in (0..).zip(&entries) {
        // Of what the checkpoint covers, it lacks the places alone.
        if block.head.number >= covered || matches!(entry, Entry::Chunk { .. } | Entry::Made { .. }) {
            ledger.apply(entry, Place { segment, offset: block.offset, index, len: *len as u32 });
        }
    }
    true
}

/// The header of a segment, if it is whole and that segment's.
fn header(disk: &dyn Disk, name: &str, number: u64) -> Result<Option<Header>, JournalError> {
    let mut bytes = [0; HEADER];
    let len = disk.open(name).and_then(|mut file| read_full(&mut *file, 0, &mut bytes)).map_err(unreadable(name))?;
    match Header::read(&bytes[..len]) {
        Ok(header) => Ok(Some(header).filter(|header| header.number == number)),
        Err(BadPrefix::Damaged) => Ok(None),
        Err(BadPrefix::Newer { version, writer }) => Err(newer(name, version, &writer)),
    }
}

/// The newer of the checkpoint's whole copies, and whether there is none at all.
fn checkpoint(
    disk: &dyn Disk,
    list: &[(String, u64)],
    out: &mut Recovery,
    notes: &mut Notes,
) -> Result<(Checkpoint, bool), JournalError> {
    let sizes: BTreeMap<&str, u64> = list.iter().map(|(name, size)| (name.as_str(), *size)).collect();
    let mut best: Option<Checkpoint> = None;
    let mut bad = BTreeSet::new();
    for name in NAMES {
        let Some(size) = sizes.get(name) else { continue };
        let mut bytes = vec![0; usize::try_from(*size).map_err(|_| JournalError::new(format!("{name} is too large")))?];
        let len =
            disk.open(name).and_then(|mut file| read_full(&mut *file, 0, &mut bytes)).map_err(unreadable(name))?;
        match Checkpoint::read(&bytes[..len]) {
            Ok(checkpoint) => {
                if best.as_ref().is_none_or(|best| best.generation < checkpoint.generation) {
                    best = Some(checkpoint);
                }
            }
            Err(BadPrefix::Newer { version, writer }) => return Err(newer(name, version, &writer)),
            Err(BadPrefix::Damaged) => {
                bad.insert(name);
            }
        }
    }
    for name in bad {
        notes.add(match best {
            Some(_) => format!("{name} is damaged; its other copy is whole, and nothing is lost by it"),
            None => format!("{name} is damaged"),
        });
        out.set_aside.push(name.to_owned());
    }
    out.salt = best.as_ref().map(|best| best.salt);
    let missing = best.is_none();
    Ok((best.unwrap_or_default(), missing))
}
